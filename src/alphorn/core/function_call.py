"""A function of arrays as an operation of a graph, by name so that files can hold it."""

from collections.abc import Callable
from typing import Any

from alphorn.core import symbol
from alphorn.core.symbol import symbols_in
from alphorn.core.transforms import variables_of
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError
from alphorn.naming import auto_name, kind_of, lookup, register


class FunctionCall:
    """A call of a registered function in a graph.

    Args:
        function: Of arrays.
        name: Counted by default.
        variables: What functions among its arguments close over.
    """

    def __init__(
        self, function: Callable, name: str | None = None, variables: list[Variable] | None = None
    ):
        self.function = function
        self.op = function.__name__
        self.name = name or auto_name(function.__name__)
        self.variables = variables or []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the function; with Symbols this call becomes a part of their graph."""
        if symbols_in((args, kwargs)):
            return symbol.apply(self, args, kwargs)
        return self.function(*args, **kwargs)

    def get_config(self) -> dict[str, str]:
        """Returns the arguments that make this call again."""
        kind = kind_of(self.function)
        if kind is None:
            raise ArgumentError("get_config", repr(self.function), "a function with a public name")
        return {"kind": kind, "function": self.function.__name__, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, str]) -> "FunctionCall":
        """Makes a call from `get_config()`."""
        return cls(lookup(config["kind"], config["function"]), config["name"])

    def __repr__(self) -> str:
        return f"<FunctionCall {self.function.__name__} '{self.name}'>"


register("operations", FunctionCall)


def call_on_symbols(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Writes a call of a function of arrays into the graph of the Symbols among its arguments."""
    inside = [x for x in (*args, *kwargs.values()) if callable(x) and not hasattr(x, "dtype")]
    held = [v for f in inside for v in variables_of(f)]
    return symbol.apply(FunctionCall(function, variables=held), args, kwargs)
