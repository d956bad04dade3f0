"""Functions of arrays that become one node of a graph where a Symbol comes."""

import functools
from collections.abc import Callable
from typing import Any

from alphorn.core.context import running_layer
from alphorn.core.function_call import call_on_symbols
from alphorn.core.scope import BakedReadError, attempt, current_scope, eager_reads
from alphorn.core.symbol import symbols_in
from alphorn.naming import register


def _with_slots(run: Callable[[], Any]) -> Any:
    """Runs; where bodies of JAX's loops read Variables, again under the values that these have."""
    if current_scope() is not None or running_layer.get() is not None:
        return run()
    read: dict[Any, None] = {}
    while True:
        with attempt() as undo, eager_reads(read):
            try:
                return run()
            except BakedReadError as error:
                if error.scope is not None:
                    raise
                undo()
                read = read | {error.variable: None}


def node(function: Callable) -> Callable:
    """Returns `function` of arrays as one that takes Symbols as well."""
    register("backend", function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if symbols_in((args, kwargs)):
            return call_on_symbols(function, args, kwargs)
        return _with_slots(lambda: function(*args, **kwargs))

    return call
