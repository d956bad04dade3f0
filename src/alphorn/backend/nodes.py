"""Functions of arrays that become one node of a graph where a Symbol comes."""

import functools
from collections.abc import Callable
from typing import Any

from alphorn.core import symbol
from alphorn.core.context import running_layer
from alphorn.core.scope import BakedReadError, attempt, current_scope, eager_reads
from alphorn.core.symbol import symbols_in
from alphorn.core.transforms import variables_of
from alphorn.core.variable import Variable
from alphorn.naming import auto_name, lookup, register


class BackendCall:
    """A call of a function of this room in a graph, by name so that files can hold it."""

    def __init__(self, function: str, name: str | None = None):
        self.function = function
        self.name = name or auto_name(function)
        # What a function among the arguments closes over.
        self.variables: list[Variable] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the function; with Symbols this call becomes a part of their graph."""
        if symbols_in((args, kwargs)):
            return symbol.apply(self, args, kwargs)
        return lookup("backend", self.function)(*args, **kwargs)

    def get_config(self) -> dict[str, str]:
        """Returns the arguments that make this call again."""
        return {"function": self.function, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, str]) -> "BackendCall":
        """Makes a call from `get_config()`."""
        return cls(**config)


register("operations", BackendCall)


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
            inside = [x for x in (*args, *kwargs.values()) if callable(x)]
            operation = BackendCall(function.__name__)
            operation.variables = [v for f in inside for v in variables_of(f)]
            return symbol.apply(operation, args, kwargs)
        return _with_slots(lambda: function(*args, **kwargs))

    return call
