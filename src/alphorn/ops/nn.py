"""Activations, normalizations, codes of classes, and losses of single steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.config import epsilon as default_epsilon
from alphorn.config import floatx
from alphorn.core.masked import Masked, expand_to, fill_masked
from alphorn.errors import ArgumentError, ShapeError
from alphorn.kernels.attention import masked_softmax
from alphorn.ops.elementwise import float_like
from alphorn.ops.rules import (
    LOWEST,
    along,
    axes_of,
    entrywise,
    filled,
    keep,
    per_step,
    refusal,
    touches,
)
from alphorn.ops.table import Op, Rule, add, row


def _activation(name: str, function: Callable, *aliases: str) -> None:
    def plain(x: Any) -> Any:
        return function(x)

    add(Op(name, plain, keep, summary=f"Returns the activation `{name}` of `x`."), *aliases)


def _sparse_plus(x: Array) -> Array:
    return jnp.where(x <= -1, 0, jnp.where(x < 1, 0.25 * jnp.square(x + 1), x))


for _name, _function, *_others in (
    ("hard_sigmoid", jax.nn.hard_sigmoid),
    ("hard_silu", jax.nn.hard_silu, "hard_swish"),
    ("hard_tanh", jax.nn.hard_tanh),
    ("log_sigmoid", jax.nn.log_sigmoid),
    ("relu", jax.nn.relu),
    ("relu6", jax.nn.relu6),
    ("selu", jax.nn.selu),
    ("sigmoid", lambda x: jax.nn.sigmoid(float_like(x))),
    ("silu", lambda x: jax.nn.silu(float_like(x)), "swish"),
    ("softplus", jax.nn.softplus),
    ("softsign", jax.nn.soft_sign),
    ("sparse_plus", _sparse_plus),
    ("sparse_sigmoid", lambda x: jnp.clip(0.5 * (x + 1), 0, 1)),
    ("tanh_shrink", lambda x: x - jnp.tanh(x)),
):
    _activation(_name, _function, *_others)


@row(keep)
def celu(x: Any, alpha: float = 1.0) -> Any:
    """Returns `max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))`."""
    return jax.nn.celu(x, alpha)


@row(keep)
def elu(x: Any, alpha: float = 1.0) -> Any:
    """Returns `x` above 0, `alpha * (exp(x) - 1)` below."""
    return jax.nn.elu(x, alpha)


@row(keep)
def gelu(x: Any, approximate: bool = True) -> Any:
    """Returns `x` times the normal distribution's probability below `x`."""
    return jax.nn.gelu(x, approximate)


@row(keep)
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """Returns `x` above 0, `negative_slope * x` below."""
    return jax.nn.leaky_relu(x, negative_slope)


@row(keep)
def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """Returns `x` where `|x|` is above the threshold, 0 elsewhere."""
    return jnp.where(jnp.abs(x) > threshold, x, 0)


@row(keep)
def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """Returns `x` moved towards 0 by the threshold."""
    return jnp.where(x > threshold, x - threshold, jnp.where(x < -threshold, x + threshold, 0))


@row(entrywise((0,)))
def squareplus(x: Any, b: Any = 4) -> Any:
    """Returns `(x + sqrt(x² + b)) / 2`."""
    return (x + jnp.sqrt(jnp.square(x) + b)) / 2


@row(keep)
def threshold(x: Any, threshold: Any, default_value: Any) -> Any:
    """Returns `x` above the threshold, `default_value` elsewhere."""
    return jnp.where(x > threshold, x, default_value)


@row(per_step((0,)))
def glu(x: Any, axis: int = -1) -> Any:
    """Returns one half of `x` along `axis`, gated by the sigmoid of the other."""
    return jax.nn.glu(x, axis)


def _softmax(op: Op, arguments: dict[str, Any]) -> Masked:
    x: Masked = arguments["x"]
    axes = axes_of(arguments["axis"], x.ndim, op)
    if not touches(x, axes):
        return Masked.trusted(op.with_arrays(arguments, x.data), x.mask)
    mask = jnp.broadcast_to(expand_to(x.mask, x.ndim), x.shape)
    data = float_like(x.data)
    if len(axes) == 1:
        return Masked.trusted(masked_softmax(data, mask, axes[0]).astype(data.dtype), x.mask)
    rest = [a for a in range(x.ndim) if a not in axes]
    order = (*rest, *axes)
    turned = jnp.transpose(data, order)
    flat = turned.reshape(*(x.shape[a] for a in rest), -1)
    out = masked_softmax(flat, jnp.transpose(mask, order).reshape(flat.shape))
    out = jnp.transpose(out.reshape(turned.shape), [order.index(a) for a in range(x.ndim)])
    return Masked.trusted(out.astype(data.dtype), x.mask)


@row(Rule(_softmax, "stays; over time, only valid steps count, and padding gets 0."))
def softmax(x: Any, axis: Any = -1) -> Any:
    """Returns `exp(x) / sum(exp(x))` along `axis`."""
    return jax.nn.softmax(x, tuple(axis) if isinstance(axis, list) else axis)


def _log_softmax(op: Op, arguments: dict[str, Any]) -> Masked:
    x: Masked = arguments["x"]
    axes = axes_of(arguments["axis"], x.ndim, op)
    if not touches(x, axes):
        return Masked.trusted(op.with_arrays(arguments, x.data), x.mask)
    mask = expand_to(x.mask, x.ndim)
    # Where nothing is valid, zeros: their logarithm of a sum, and its derivative, are finite.
    some = jnp.any(mask, axes, keepdims=True)
    data = jnp.where(mask, float_like(x.data), jnp.where(some, -jnp.inf, 0))
    total = jax.nn.logsumexp(data, axes, keepdims=True)
    return Masked.trusted(
        fill_masked(fill_masked(float_like(x.data), x.mask) - total, x.mask), x.mask
    )


@row(Rule(_log_softmax, "stays; over time, only valid steps count, and padding gets 0."))
def log_softmax(x: Any, axis: Any = -1) -> Any:
    """Returns the logarithm of `softmax`."""
    return jax.nn.log_softmax(x, tuple(axis) if isinstance(axis, list) else axis)


@row(along(LOWEST))
def sparsemax(x: Any, axis: int = -1) -> Any:
    """Returns the nearest point of the simplex along `axis` (Martins and Astudillo, 2016)."""
    falling = -jnp.sort(-x, axis)
    count = jnp.arange(1, x.shape[axis] + 1, dtype=x.dtype)
    count = jnp.expand_dims(count, [a for a in range(x.ndim) if a != axis % x.ndim])
    finite = jnp.where(jnp.isfinite(falling), falling, 0)
    running = jnp.cumsum(finite, axis)
    held = jnp.isfinite(falling) & (1 + count * finite > running)
    size = jnp.maximum(jnp.sum(held, axis, keepdims=True), 1)
    excess = (jnp.sum(jnp.where(held, finite, 0), axis, keepdims=True) - 1) / size.astype(x.dtype)
    return jnp.maximum(x - excess, 0)


def _coded(op: Op, arguments: dict[str, Any]) -> Masked:
    x = arguments[op.arrays[0]]
    if arguments["axis"] % (x.ndim + 1) < x.mask.ndim:
        raise refusal(op, f"axis={arguments['axis']} would come before time", "axis=-1")
    out = op.with_arrays(arguments, filled(x, 0))
    return Masked.trusted(fill_masked(out, x.mask), x.mask)


@row(Rule(_coded, "stays."))
def one_hot(
    x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False
) -> Any:
    """Returns 1 at each class, 0 elsewhere, on a new axis."""
    _dense("one_hot", sparse)
    return jax.nn.one_hot(x, num_classes, dtype=dtype or floatx(), axis=axis)


def _multi_coded(op: Op, arguments: dict[str, Any]) -> Masked:
    x = arguments["inputs"]
    if x.mask.ndim == x.ndim > 1:
        raise refusal(op, "classes that are masked", "ops.max(ops.one_hot(x, n), axis=1)")
    return _coded(op, arguments)


@row(Rule(_multi_coded, "stays."), arrays=("inputs",))
def multi_hot(
    inputs: Any,
    num_classes: int | None = None,
    axis: int = -1,
    dtype: Any = None,
    sparse: bool = False,
) -> Any:
    """Returns 1 at each class that occurs along the last axis of `inputs`, 0 elsewhere."""
    _dense("multi_hot", sparse)
    if num_classes is None:
        raise ArgumentError("ops.multi_hot: num_classes", "None", "the number of classes")
    codes = jax.nn.one_hot(inputs, num_classes, dtype=dtype or floatx(), axis=axis)
    return jnp.max(codes, 1 if inputs.ndim > 1 else 0)


def _dense(name: str, sparse: bool) -> None:
    if sparse:
        raise ValueError(f"ops.{name}: sparse=True: JAX has dense arrays only; use sparse=False")


def _same_shape(name: str, target: Any, output: Any) -> None:
    if target.shape != output.shape:
        raise ShapeError(
            f"ops.{name}", f"target {target.shape}, output {output.shape}", "equal shapes"
        )


@row(per_step((0, 0.5), None), arrays=("target", "output"))
def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:
    """Returns `-target log(output) - (1 - target) log(1 - output)` of each entry."""
    _same_shape("binary_crossentropy", target, output)
    if from_logits:
        return -target * jax.nn.log_sigmoid(output) - (1 - target) * jax.nn.log_sigmoid(-output)
    least = default_epsilon()
    p = jnp.clip(output, least, 1 - least)
    return -(target * jnp.log(p) + (1 - target) * jnp.log(1 - p))


def _log_probabilities(output: Array, from_logits: bool, axis: int) -> Array:
    if from_logits:
        return jax.nn.log_softmax(output, axis)
    least = default_epsilon()
    p = output / jnp.sum(output, axis, keepdims=True)
    return jnp.log(jnp.clip(p, least, 1 - least))


@row(per_step((0, 1)), arrays=("target", "output"))
def categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Any:
    """Returns `-sum(target log(output))` over the classes along `axis`."""
    _same_shape("categorical_crossentropy", target, output)
    return -jnp.sum(target * _log_probabilities(output, from_logits, axis), axis)


@row(per_step((0, 1)), arrays=("target", "output"))
def sparse_categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Any:
    """Returns `-log(output[target])`, with classes as integers and `output` over them."""
    if target.ndim == output.ndim and target.shape[-1] == 1:
        target = jnp.squeeze(target, -1)
    classes = output.shape[axis]
    given = tuple(n for a, n in enumerate(output.shape) if a != axis % output.ndim)
    if target.shape != given:
        raise ShapeError(
            "ops.sparse_categorical_crossentropy",
            f"target {target.shape}, output {output.shape}",
            f"target {given}: integers, one for each vector of classes",
        )
    logs = _log_probabilities(output, from_logits, axis)
    return -jnp.sum(jax.nn.one_hot(target, classes, dtype=logs.dtype, axis=axis) * logs, axis)


@row(per_step((0, 0, 0)), arrays=("x", "gamma", "beta"))
def layer_normalization(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Any:
    """Returns `x` with mean 0 and variance 1 over `axis`, times `gamma`, plus `beta`."""
    wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    axes = tuple(axis) if isinstance(axis, list) else axis
    mean = jnp.mean(wide, axes, keepdims=True)
    variance = jnp.var(wide, axes, keepdims=True)
    out = (wide - mean) * jax.lax.rsqrt(
        variance + (default_epsilon() if epsilon is None else epsilon)
    )
    out = out.astype(x.dtype)
    out = out if gamma is None else out * gamma
    return out if beta is None else out + beta


@row(per_step((0, 0)), arrays=("x", "scale"))
def rms_normalization(
    x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Any:
    """Returns `x` divided by the root of the mean of its squares over `axis`, times `scale`."""
    wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    axes = tuple(axis) if isinstance(axis, list) else axis
    squares = jnp.mean(jnp.square(wide), axes, keepdims=True)
    least = default_epsilon() if epsilon is None else epsilon
    out = (wide * jax.lax.rsqrt(squares + least)).astype(x.dtype)
    return out if scale is None else out * scale
