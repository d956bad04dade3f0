"""Ops that act on each entry: the mask stays; padding is filled so that nothing becomes NaN."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from alphorn.config import floatx
from alphorn.core.masked import Masked, fill_masked, is_masked
from alphorn.ops.table import array, joint_mask, made, op, plain

# name: (function, what padding is filled with: there value and slope are finite)
_UNARY: dict[str, tuple[Callable, float]] = {
    "abs": (jnp.abs, 1),
    "absolute": (jnp.absolute, 1),
    "negative": (jnp.negative, 0),
    "sign": (jnp.sign, 0),
    "square": (jnp.square, 0),
    "sqrt": (jnp.sqrt, 1),
    "rsqrt": (jax.lax.rsqrt, 1),
    "exp": (jnp.exp, 0),
    "exp2": (jnp.exp2, 0),
    "expm1": (jnp.expm1, 0),
    "log": (jnp.log, 1),
    "log2": (jnp.log2, 1),
    "log10": (jnp.log10, 1),
    "log1p": (jnp.log1p, 0),
    "reciprocal": (jnp.reciprocal, 1),
    "sin": (jnp.sin, 0),
    "cos": (jnp.cos, 0),
    "tan": (jnp.tan, 0),
    "arcsin": (jnp.arcsin, 0),
    "arccos": (jnp.arccos, 0),
    "arctan": (jnp.arctan, 0),
    "sinh": (jnp.sinh, 0),
    "cosh": (jnp.cosh, 0),
    "tanh": (jnp.tanh, 0),
    "arcsinh": (jnp.arcsinh, 0),
    "arccosh": (jnp.arccosh, 2),
    "arctanh": (jnp.arctanh, 0),
    "erf": (special.erf, 0),
    "erfinv": (special.erfinv, 0),
    "floor": (jnp.floor, 0),
    "ceil": (jnp.ceil, 0),
    "trunc": (jnp.trunc, 0),
    "rint": (jnp.rint, 0),
    "isnan": (jnp.isnan, 0),
    "isinf": (jnp.isinf, 0),
    "isfinite": (jnp.isfinite, 0),
    "logical_not": (jnp.logical_not, 0),
    "bitwise_not": (jnp.bitwise_not, 0),
    "conj": (jnp.conj, 0),
    "real": (jnp.real, 0),
    "imag": (jnp.imag, 0),
    "sigmoid": (jax.nn.sigmoid, 0),
    "silu": (jax.nn.silu, 0),
    "swish": (jax.nn.silu, 0),
    "log_sigmoid": (jax.nn.log_sigmoid, 0),
    "relu": (jax.nn.relu, 0),
    "relu6": (jax.nn.relu6, 0),
    "softplus": (jax.nn.softplus, 0),
    "softsign": (jax.nn.soft_sign, 0),
    "hard_sigmoid": (jax.nn.hard_sigmoid, 0),
    "hard_silu": (jax.nn.hard_silu, 0),
    "hard_swish": (jax.nn.hard_silu, 0),
    "hard_tanh": (jax.nn.hard_tanh, 0),
    "selu": (jax.nn.selu, 0),
    "mish": (jax.nn.mish, 0),
    "tanh_shrink": (lambda x: x - jnp.tanh(x), 0),
}


def on_entries(function: Callable, x: Any, fill: float = 0) -> Any:
    """Applies a function of one array to each entry."""
    if is_masked(x):
        return Masked.trusted(function(x.fill(fill)), x.mask)
    return function(jnp.asarray(x))


def _unary(name: str, function: Callable, fill: float) -> Callable:
    return made(
        name,
        "x",
        f"Returns `{name}` of each entry; a mask stays.",
        lambda x: on_entries(function, x, fill),
    )


for _name, (_function, _fill) in _UNARY.items():
    globals()[_name] = _unary(_name, _function, _fill)

# name: (function, what an absent left entry counts as, what an absent right one does)
_BINARY: dict[str, tuple[Callable, Any, Any]] = {
    "add": (jnp.add, 0, 0),
    "subtract": (jnp.subtract, 0, 0),
    "multiply": (jnp.multiply, 1, 1),
    "divide": (jnp.divide, 1, 1),
    "true_divide": (jnp.true_divide, 1, 1),
    "divide_no_nan": (
        lambda x, y: jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y)),
        1,
        1,
    ),
    "floor_divide": (jnp.floor_divide, 1, 1),
    "mod": (jnp.mod, 0, 1),
    "power": (jnp.power, 1, 1),
    "maximum": (jnp.maximum, -np.inf, -np.inf),
    "minimum": (jnp.minimum, np.inf, np.inf),
    "arctan2": (jnp.arctan2, 1, 1),
    "hypot": (jnp.hypot, 1, 1),
    "logaddexp": (jnp.logaddexp, 0, 0),
    "equal": (jnp.equal, 0, 0),
    "not_equal": (jnp.not_equal, 0, 0),
    "less": (jnp.less, 0, 0),
    "less_equal": (jnp.less_equal, 0, 0),
    "greater": (jnp.greater, 0, 0),
    "greater_equal": (jnp.greater_equal, 0, 0),
    "logical_and": (jnp.logical_and, True, True),
    "logical_or": (jnp.logical_or, False, False),
    "logical_xor": (jnp.logical_xor, False, False),
    "bitwise_and": (jnp.bitwise_and, 0, 0),
    "bitwise_or": (jnp.bitwise_or, 0, 0),
    "bitwise_xor": (jnp.bitwise_xor, 0, 0),
}


def _identity(value: Any, dtype: Any) -> Any:
    if isinstance(value, float) and not jnp.issubdtype(dtype, jnp.floating):
        return jnp.iinfo(dtype).min if value < 0 else jnp.iinfo(dtype).max
    return value


def on_pairs(function: Callable, x: Any, y: Any, left: Any = 0, right: Any = 0) -> Any:
    """Applies a function of two arrays; valid where any masked operand is.

    Args:
        function: Of two arrays that broadcast.
        x, y: Arrays, Masked or numbers.
        left, right: What an absent entry of `x`, of `y` counts as.
    """
    x, y = array(x), array(y)
    if not (is_masked(x) or is_masked(y)):
        return function(x, y)
    shape = np.broadcast_shapes(np.shape(plain(x)), np.shape(plain(y)))
    mask = joint_mask((x, y), shape)
    values = []
    for value, absent in ((x, left), (y, right)):
        if is_masked(value):
            value = value.fill(_identity(absent, value.dtype))
        values.append(value)
    out = function(*values)
    return Masked.trusted(fill_masked(out, mask), mask)


def _binary(name: str, function: Callable, left: Any, right: Any) -> Callable:
    return made(
        name,
        "x1, x2",
        f"Returns `{name}` of two arrays entry by entry; valid where any masked one is.",
        lambda x1, x2: on_pairs(function, x1, x2, left, right),
    )


for _name, (_function, _left, _right) in _BINARY.items():
    globals()[_name] = _binary(_name, _function, _left, _right)


@op
def clip(x: Any, x_min: Any, x_max: Any) -> Any:
    """Returns `x` held between `x_min` and `x_max`; a mask stays."""
    return on_entries(lambda v: jnp.clip(v, plain(x_min), plain(x_max)), x)


@op
def cast(x: Any, dtype: Any) -> Any:
    """Returns `x` in another type; a mask stays."""
    return on_entries(lambda v: v.astype(jnp.dtype(dtype)), x)


@op
def round_(x: Any, decimals: int = 0) -> Any:
    """Returns `x` rounded; a mask stays."""
    return on_entries(lambda v: jnp.round(v, decimals), x)


@op
def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """Returns `x1` where the condition holds, else `x2`; valid where any masked operand is."""
    if x1 is None:
        return jnp.where(plain(array(condition)))
    operands = [array(v) for v in (condition, x1, x2)]
    shape = np.broadcast_shapes(*(np.shape(plain(v)) for v in operands))
    mask = joint_mask(operands, shape)
    out = jnp.where(*(plain(v) for v in operands))
    return out if mask is None else Masked.trusted(fill_masked(out, mask), mask)


@op
def nan_to_num(x: Any, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """Returns `x` with numbers for NaN and infinities; a mask stays."""
    return on_entries(lambda v: jnp.nan_to_num(v, nan=nan, posinf=posinf, neginf=neginf), x)


@op
def stop_gradient(variable: Any) -> Any:
    """Returns its input, through which no gradient goes; a mask stays."""
    return on_entries(jax.lax.stop_gradient, variable)


def _likes(name: str, function: Callable) -> Callable:
    return made(
        name,
        "x, dtype=None",
        f"Returns `{name}` of an array: its shape and type; a mask stays.",
        lambda x, dtype: on_entries(lambda v: function(v, dtype=dtype), x),
    )


zeros_like = _likes("zeros_like", jnp.zeros_like)
ones_like = _likes("ones_like", jnp.ones_like)


@op
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """Returns an array like `x` that holds one value; a mask stays."""
    return on_entries(lambda v: jnp.full_like(v, fill_value, dtype=dtype), x)


@op
def one_hot(
    x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False
) -> Any:
    """Returns a new axis with 1 at each number's place; a mask stays."""
    return on_entries(
        lambda v: jax.nn.one_hot(v, num_classes, axis=axis, dtype=jnp.dtype(dtype or floatx())), x
    )


@op
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """Returns `x` above 0, `negative_slope * x` below; a mask stays."""
    return on_entries(lambda v: jax.nn.leaky_relu(v, negative_slope), x)


@op
def elu(x: Any, alpha: float = 1.0) -> Any:
    """Returns `x` above 0, `alpha * (exp(x) - 1)` below; a mask stays."""
    return on_entries(lambda v: jax.nn.elu(v, alpha), x)


@op
def celu(x: Any, alpha: float = 1.0) -> Any:
    """Returns the continuous exponential unit; a mask stays."""
    return on_entries(lambda v: jax.nn.celu(v, alpha), x)


@op
def gelu(x: Any, approximate: bool = True) -> Any:
    """Returns the Gaussian error unit; a mask stays."""
    return on_entries(lambda v: jax.nn.gelu(v, approximate), x)
