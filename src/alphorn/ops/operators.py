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
_METHODS = (
    "all any argmax argmin argsort clip conj cumprod cumsum dot flatten max mean min prod repeat"
    " reshape round sort squeeze std sum swapaxes transpose var"
).split()


def _binary(op: Callable) -> Callable:
    return lambda self, other: op(self, other)


def _reflected(op: Callable) -> Callable:
    return lambda self, other: op(other, self)


def _method(name: str) -> Callable:
    op = PUBLIC[name]

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return op(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"As `ops.{name}`."
    return method


def _reshape(self: Any, *shape: Any) -> Any:
    """As `ops.reshape`; takes the sizes as one tuple or one by one."""
    one = len(shape) == 1 and not isinstance(shape[0], int)
    return PUBLIC["reshape"](self, shape[0] if one else shape)


def _transpose(self: Any, *axes: Any) -> Any:
    """As `ops.transpose`; takes the axes as one tuple or one by one."""
    one = len(axes) == 1 and not isinstance(axes[0], int)
    return PUBLIC["transpose"](self, (axes[0] if one else axes) or None)


def _install() -> None:
    for cls in (Masked, Symbol):
        for name, op in _BINARY.items():
            setattr(cls, f"__{name}__", _binary(PUBLIC[op]))
            setattr(cls, f"__r{name}__", _reflected(PUBLIC[op]))
        for name, op in _UNARY.items():
            setattr(cls, f"__{name}__", _method(op))
        cls.__pos__ = lambda self: self
        for name in _METHODS:
            setattr(cls, name, _method(name if name != "flatten" else "ravel"))
        cls.reshape, cls.transpose = _reshape, _transpose
        cls.astype = _method("cast")
        cls.T = property(PUBLIC["transpose"])
    for name, op in _COMPARE.items():
        setattr(Masked, f"__{name}__", _binary(PUBLIC[op]))
        # A Symbol stays equal to itself only: it is looked up in lists and dicts.
        if name != "eq":
            setattr(Symbol, f"__{name}__", _binary(PUBLIC[op]))
    Symbol.__getitem__ = _binary(PUBLIC["get_item"])
    Symbol.size = property(PUBLIC["size"])


_install()
