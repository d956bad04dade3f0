"""Functions of arrays that become one node of a graph where a Symbol comes."""

import functools
from collections.abc import Callable
from typing import Any

from alphorn.core import symbol
from alphorn.core.symbol import symbols_in
from alphorn.naming import auto_name, lookup, register


class Call:
    """A call of a function of this room in a graph, by name so that files can hold it."""

    def __init__(self, function: str, name: str | None = None):
        self.function = function
        self.name = name or auto_name(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the function; with Symbols this call becomes a part of their graph."""
        if symbols_in((args, kwargs)):
            return symbol.apply(self, args, kwargs)
        return lookup("backend", self.function)(*args, **kwargs)

    def get_config(self) -> dict[str, str]:
        """Returns the arguments that make this call again."""
        return {"function": self.function, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, str]) -> "Call":
        """Makes a call from `get_config()`."""
        return cls(**config)


register("operations", Call, "BackendCall")


def node(function: Callable) -> Callable:
    """Returns `function` of arrays as one that takes Symbols as well."""
    register("backend", function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if symbols_in((args, kwargs)):
            return symbol.apply(Call(function.__name__), args, kwargs)
        return function(*args, **kwargs)

    return call
