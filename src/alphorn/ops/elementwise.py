"""Ops on single entries: the mask stays, and padding holds what keeps values and slopes finite."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.errors import ArgumentError
from alphorn.ops.rules import HIGHEST, LOWEST, compare, entrywise, keep
from alphorn.ops.table import Op, Rule, add, row


def float_like(x: Array) -> Array:
    """Returns integers and booleans as floats; floats as they are."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def _unary(name: str, function: Callable, rule: Rule, *aliases: str) -> None:
    def plain(x: Any) -> Any:
        return function(x)

    add(Op(name, plain, rule, summary=f"Returns `{name}(x)` of each entry."), *aliases)


# Padding may hold what it likes (it is finite, and so are value and derivative).
_TOTAL = {
    "abs": jnp.abs,
    "arcsinh": jnp.arcsinh,
    "arctan": jnp.arctan,
    "bitwise_not": jnp.bitwise_not,
    "ceil": lambda x: jnp.ceil(float_like(x)),
    "conj": jnp.conj,
    "cos": jnp.cos,
    "deg2rad": jnp.deg2rad,
    "erf": jax.scipy.special.erf,
    "erfc": jax.scipy.special.erfc,
    "fabs": jnp.fabs,
    "floor": lambda x: jnp.floor(float_like(x)),
    "imag": jnp.imag,
    "isfinite": jnp.isfinite,
    "isinf": jnp.isinf,
    "isnan": jnp.isnan,
    "isneginf": jnp.isneginf,
    "isposinf": jnp.isposinf,
    "isreal": jnp.isreal,
    "logical_not": jnp.logical_not,
    "negative": jnp.negative,
    "real": jnp.real,
    "sign": jnp.sign,
    "signbit": jnp.signbit,
    "sin": jnp.sin,
    "sinc": jnp.sinc,
    "stop_gradient": jax.lax.stop_gradient,
    "tanh": jnp.tanh,
    "trunc": jnp.trunc,
}
_ALIASES = {
    "abs": ("absolute",),
    "bitwise_not": ("bitwise_invert",),
    "conj": ("conjugate",),
}
# Padding holds this number.
_PARTIAL = {
    "angle": (jnp.angle, 1),
    "arccos": (jnp.arccos, 0),
    "arccosh": (jnp.arccosh, 2),
    "arcsin": (jnp.arcsin, 0),
    "arctanh": (jnp.arctanh, 0),
    "cbrt": (jnp.cbrt, 1),
    "cosh": (jnp.cosh, 0),
    "erfinv": (lambda x: jax.scipy.special.erfinv(float_like(x)), 0),
    "exp": (jnp.exp, 0),
    "exp2": (jnp.exp2, 0),
    "expm1": (jnp.expm1, 0),
    "i0": (jnp.i0, 0),
    "log": (jnp.log, 1),
    "log10": (jnp.log10, 1),
    "log1p": (jnp.log1p, 0),
    "log2": (jnp.log2, 1),
    "rad2deg": (jnp.rad2deg, 0),
    "reciprocal": (jnp.reciprocal, 1),
    "rsqrt": (lambda x: jax.lax.rsqrt(float_like(x)), 1),
    "sinh": (jnp.sinh, 0),
    "sqrt": (jnp.sqrt, 1),
    "square": (jnp.square, 0),
    "tan": (jnp.tan, 0),
}
for _name, _function in _TOTAL.items():
    if _name != "stop_gradient":
        _unary(_name, _function, keep, *_ALIASES.get(_name, ()))
for _name, (_function, _fill) in _PARTIAL.items():
    _unary(_name, _function, entrywise((_fill,)))


@row(keep, arrays=("variable",))
def stop_gradient(variable: Any) -> Any:
    """Returns the same numbers, which gradients do not pass."""
    return jax.lax.stop_gradient(variable)


@row(entrywise((0,)))
def cast(x: Any, dtype: Any) -> Any:
    """Returns `x` in another number type."""
    return x.astype(dtype)


@row(entrywise((0,)))
def saturate_cast(x: Any, dtype: Any) -> Any:
    """Returns `x` in another number type, which gets its nearest number for each that it lacks."""
    dtype = jnp.dtype(dtype)
    info = jnp.iinfo(dtype) if jnp.issubdtype(dtype, jnp.integer) else jnp.finfo(dtype)
    if dtype == jnp.bool_ or jnp.can_cast(x.dtype, dtype, "safe"):
        return x.astype(dtype)
    own = jnp.finfo if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo
    if x.dtype == jnp.bool_:
        return x.astype(dtype)
    low, high = (
        max(float(own(x.dtype).min), float(info.min)),
        min(float(own(x.dtype).max), float(info.max)),
    )
    y = x.astype(dtype)
    y = jnp.where(x <= jnp.asarray(low, x.dtype), jnp.asarray(low).astype(dtype), y)
    return jnp.where(x >= jnp.asarray(high, x.dtype), jnp.asarray(info.max, dtype), y)


@row(keep)
def copy(x: Any) -> Any:
    """Returns a copy."""
    return jnp.copy(x)


@row(keep, name="round")
def _round(x: Any, decimals: int = 0) -> Any:
    """Returns each entry to `decimals` places, halves to the even neighbour."""
    return jnp.round(x, decimals)


@row(keep)
def nan_to_num(x: Any, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """Returns finite numbers in place of NaN and infinities."""
    return jnp.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


@row(entrywise((0, 0, 0)), arrays=("x", "x_min", "x_max"))
def clip(x: Any, x_min: Any, x_max: Any) -> Any:
    """Returns `x`, kept between `x_min` and `x_max`."""
    return jnp.clip(x, x_min, x_max)


@row(entrywise((0,)))
def digitize(x: Any, bins: Any) -> Any:
    """Returns the number of the bin of each entry; `bins` are the rising edges."""
    return jnp.digitize(x, jnp.asarray(bins))


@row(entrywise((0,)), arrays=("x1",))
def isin(x1: Any, x2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """Returns which entries of `x1` are among `x2`."""
    return jnp.isin(x1, jnp.asarray(x2), assume_unique=assume_unique, invert=invert)


@row(entrywise((False, 0, 0)), arrays=("condition", "x1", "x2"))
def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """Returns `x1` where the condition holds and `x2` elsewhere; without both, its places."""
    if x1 is None or x2 is None:
        if x1 is not x2:
            raise ArgumentError("ops.where", "one of x1 and x2", "both, or neither")
        return jnp.nonzero(condition)
    return jnp.where(condition, x1, x2)


def _divide_no_nan(x1: Array, x2: Array) -> Array:
    zero = x2 == 0
    return jnp.where(zero, 0, jnp.divide(x1, jnp.where(zero, 1, x2)))


def _binary(
    name: str, function: Callable, rule: Rule, *aliases: str, names: tuple[str, str] = ("x1", "x2")
) -> None:
    def of_bits(x: Any, y: Any) -> Any:
        return function(x, y)

    def of_numbers(x1: Any, x2: Any) -> Any:
        return function(x1, x2)

    plain = of_bits if names == ("x", "y") else of_numbers
    summary = f"Returns `{name}({', '.join(names)})` of each pair of entries."
    add(Op(name, plain, rule, names, summary), *aliases)


# name: function, what an absent step contributes on either side, and what padding holds
_BINARY = {
    "add": (jnp.add, (0, 0), None),
    "arctan2": (jnp.arctan2, (0, 1), None),
    "divide_no_nan": (_divide_no_nan, (1, 1), None),
    "floor_divide": (jnp.floor_divide, (1, 1), None),
    "fmax": (jnp.fmax, (LOWEST, LOWEST), (0, 0)),
    "fmin": (jnp.fmin, (HIGHEST, HIGHEST), (0, 0)),
    "fmod": (jnp.fmod, (0, 1), None),
    "gcd": (jnp.gcd, (0, 0), None),
    "heaviside": (jnp.heaviside, (0, 0), None),
    "hypot": (jnp.hypot, (0, 0), (1, 1)),
    "lcm": (jnp.lcm, (1, 1), None),
    "ldexp": (jnp.ldexp, (0, 0), None),
    "logaddexp": (jnp.logaddexp, (LOWEST, LOWEST), (0, 0)),
    "logaddexp2": (jnp.logaddexp2, (LOWEST, LOWEST), (0, 0)),
    "logical_and": (jnp.logical_and, (True, True), None),
    "logical_or": (jnp.logical_or, (False, False), None),
    "logical_xor": (jnp.logical_xor, (False, False), None),
    "maximum": (jnp.maximum, (LOWEST, LOWEST), (0, 0)),
    "minimum": (jnp.minimum, (HIGHEST, HIGHEST), (0, 0)),
    "mod": (jnp.mod, (0, 1), None),
    "multiply": (jnp.multiply, (1, 1), None),
    "nextafter": (jnp.nextafter, (0, 0), None),
    "power": (jnp.power, (1, 1), None),
    "subtract": (jnp.subtract, (0, 0), None),
}
for _name, (_function, _fills, _pads) in _BINARY.items():
    _binary(_name, _function, entrywise(_fills, _pads))
_binary("divide", jnp.divide, entrywise((1, 1)), "true_divide")
for _name, _function in {
    "equal": jnp.equal,
    "greater": jnp.greater,
    "greater_equal": jnp.greater_equal,
    "less": jnp.less,
    "less_equal": jnp.less_equal,
    "not_equal": jnp.not_equal,
}.items():
    _binary(_name, _function, compare)
for _name, _function, _fill, *_others in (
    ("bitwise_and", jnp.bitwise_and, -1),
    ("bitwise_or", jnp.bitwise_or, 0),
    ("bitwise_xor", jnp.bitwise_xor, 0),
    ("bitwise_left_shift", jnp.left_shift, 0, "left_shift"),
    ("bitwise_right_shift", jnp.right_shift, 0, "right_shift"),
):
    _binary(_name, _function, entrywise((_fill, _fill)), *_others, names=("x", "y"))


@row(compare, arrays=("x1", "x2"))
def isclose(
    x1: Any, x2: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Any:
    """Returns where `|x1 - x2| <= atol + rtol * |x2|`."""
    return jnp.isclose(x1, x2, rtol, atol, equal_nan)
