"""Operators and methods of Masked and Symbol: each is an op."""

from collections.abc import Callable
from typing import Any

from alphorn.core.masked import Masked
from alphorn.core.symbol import Symbol
from alphorn.ops.table import PUBLIC

_BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "mod",
    "pow": "power",
    "matmul": "matmul",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}
_COMPARE = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_UNARY = {"neg": "negative", "abs": "abs", "invert": "bitwise_not", "round": "round"}
_METHODS = {
    name: name
    for name in (
        *("all", "any", "argmax", "argmin", "argsort", "clip", "conj", "cumprod", "cumsum", "dot"),
        *("max", "mean", "min", "prod", "ravel", "repeat", "round", "sort", "squeeze", "std"),
        *("sum", "swapaxes", "var"),
    )
} | {"astype": "cast", "flatten": "ravel"}


def _method(name: str) -> Callable:
    op = PUBLIC[name]

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return op(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"As `ops.{name}`."
    return method


def _reflected(name: str) -> Callable:
    op = PUBLIC[name]
    return lambda self, other: op(other, self)


def _spread(values: tuple) -> Any:
    return values if not values or isinstance(values[0], int) else values[0]


def _reshape(self: Any, *shape: Any) -> Any:
    """As `ops.reshape`; takes the sizes as one tuple or one by one."""
    return PUBLIC["reshape"](self, _spread(shape))


def _transpose(self: Any, *axes: Any) -> Any:
    """As `ops.transpose`; takes the axes as one tuple or one by one."""
    return PUBLIC["transpose"](self, _spread(axes) or None)


def install() -> None:
    """Gives Masked and Symbol their operators and methods, once the table is full."""
    members: dict[str, Any] = {
        "T": property(PUBLIC["transpose"]),
        "__pos__": lambda self: self,
        "reshape": _reshape,
        "transpose": _transpose,
    }
    for name, op in _BINARY.items():
        members |= {f"__{name}__": _method(op), f"__r{name}__": _reflected(op)}
    members |= {f"__{name}__": _method(op) for name, op in _UNARY.items()}
    members |= {name: _method(op) for name, op in _METHODS.items()}
    compare = {f"__{name}__": _method(op) for name, op in _COMPARE.items()}
    # A Symbol stays equal to itself only: it is looked for in lists and dicts.
    ordered = {name: member for name, member in compare.items() if name != "__eq__"}
    of_symbol = {"__getitem__": _method("get_item"), "size": property(PUBLIC["size"])}
    for cls, own in ((Masked, compare), (Symbol, ordered | of_symbol)):
        for name, member in (members | own).items():
            setattr(cls, name, member)
