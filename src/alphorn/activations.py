"""Activations: functions of one array, found by name.

They take arrays, Masked sequences (the mask stays) and Symbols.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.core import symbol
from alphorn.core.masked import Masked, expand_to
from alphorn.core.variable import unwrap
from alphorn.fields import Converter
from alphorn.kernels.attention import masked_softmax
from alphorn.naming import names_of, register, resolve

__all__ = [
    "celu",
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "glu",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
    "tanh_shrink",
]


_by_entry: set[Callable] = set()


def acts_by_entry(activation: Callable) -> bool:
    """Whether an entry of the output is known to depend on that of the input alone."""
    return activation in _by_entry


def _activation(*names: str, by_entry: bool = True) -> Callable[[Callable], Callable]:
    """Registers a function of arrays, which then also takes Masked and Symbols."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def activation(x: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(x, symbol.Symbol):
                return symbol.apply(activation, (x, *args), kwargs)
            if isinstance(x, Masked):
                return Masked.trusted(function(x.data, *args, **kwargs), x.mask)
            return function(jnp.asarray(unwrap(x)), *args, **kwargs)

        if by_entry:
            _by_entry.add(activation)
        return register("activations", activation, function.__name__, *names)

    return decorate


@_activation()
def linear(x: Array) -> Array:
    """Returns `x`."""
    return x


@_activation()
def relu(
    x: Array, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Array:
    """Returns `x` above the threshold (up to `max_value`), `negative_slope * (x - threshold)` below.

    >>> relu(jnp.array([-2.0, 3.0, 9.0]), max_value=6.0)
    Array([0., 3., 6.], dtype=float32)
    """
    if not negative_slope and not threshold:
        y = jax.nn.relu(x)
    else:
        y = jnp.where(x > threshold if threshold else x >= 0, x, negative_slope * (x - threshold))
    return y if max_value is None else jnp.minimum(y, jnp.asarray(max_value, y.dtype))


@_activation()
def relu6(x: Array) -> Array:
    """Returns `min(max(x, 0), 6)`."""
    return jax.nn.relu6(x)


@_activation()
def leaky_relu(x: Array, negative_slope: float = 0.2) -> Array:
    """Returns `x` above 0, `negative_slope * x` below."""
    return jax.nn.leaky_relu(x, negative_slope)


@_activation()
def elu(x: Array, alpha: float = 1.0) -> Array:
    """Returns `x` above 0, `alpha * (exp(x) - 1)` below."""
    return jax.nn.elu(x, alpha)


@_activation()
def selu(x: Array) -> Array:
    """Returns the self-normalizing unit of Klambauer et al. (2017)."""
    return jax.nn.selu(x)


@_activation()
def celu(x: Array, alpha: float = 1.0) -> Array:
    """Returns `max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))`."""
    return jax.nn.celu(x, alpha)


@_activation()
def gelu(x: Array, approximate: bool = False) -> Array:
    """Returns `x` times the normal distribution's probability below `x`."""
    if approximate or x.dtype.itemsize < 4:
        return jax.nn.gelu(x, approximate)
    # By erf: the erfc of jax.nn is slower on a CPU, and more exact only below 1e-6.
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


@_activation(by_entry=False)
def glu(x: Array, axis: int = -1) -> Array:
    """Returns one half of `x` gated by the sigmoid of the other."""
    return jax.nn.glu(x, axis)


@_activation()
def sigmoid(x: Array) -> Array:
    """Returns `1 / (1 + exp(-x))`."""
    return jax.nn.sigmoid(x)


@_activation()
def hard_sigmoid(x: Array) -> Array:
    """Returns `clip(x / 6 + 1/2, 0, 1)`."""
    return jax.nn.hard_sigmoid(x)


@_activation()
def tanh(x: Array) -> Array:
    """Returns the hyperbolic tangent."""
    return jnp.tanh(x)


@_activation()
def hard_tanh(x: Array) -> Array:
    """Returns `clip(x, -1, 1)`."""
    return jax.nn.hard_tanh(x)


@_activation()
def softplus(x: Array) -> Array:
    """Returns `log(1 + exp(x))`."""
    return jax.nn.softplus(x)


@_activation()
def softsign(x: Array) -> Array:
    """Returns `x / (1 + |x|)`."""
    return jax.nn.soft_sign(x)


@_activation("swish")
def silu(x: Array) -> Array:
    """Returns `x * sigmoid(x)`."""
    return jax.nn.silu(x)


@_activation("hard_swish")
def hard_silu(x: Array) -> Array:
    """Returns `x * hard_sigmoid(x)`."""
    return jax.nn.hard_silu(x)


@_activation()
def mish(x: Array) -> Array:
    """Returns `x * tanh(softplus(x))`."""
    return jax.nn.mish(x)


@_activation()
def exponential(x: Array) -> Array:
    """Returns `exp(x)`."""
    return jnp.exp(x)


@_activation()
def log_sigmoid(x: Array) -> Array:
    """Returns `log(sigmoid(x))`."""
    return jax.nn.log_sigmoid(x)


@_activation()
def tanh_shrink(x: Array) -> Array:
    """Returns `x - tanh(x)`."""
    return x - jnp.tanh(x)


def _mask_along(x: Masked, axis: int | Sequence[int]) -> Array | None:
    """The mask, broadcast to the data, where a softmax over `axis` meets it."""
    axes = {a % x.ndim for a in ([axis] if isinstance(axis, int) else axis)}
    return expand_to(x.mask, x.ndim) if any(a < x.mask.ndim for a in axes) else None


def softmax(x: Any, axis: int | Sequence[int] = -1) -> Any:
    """Returns `exp(x) / sum(exp(x))` along `axis`; over time, of the valid steps only.

    >>> softmax(jnp.array([0.0, 0.0]))
    Array([0.5, 0.5], dtype=float32)
    """
    if isinstance(x, symbol.Symbol):
        return symbol.apply(softmax, (x,), {"axis": axis})
    if isinstance(x, Masked):
        mask = _mask_along(x, axis)
        if mask is not None:
            mask = jnp.broadcast_to(mask, x.shape)
        return Masked.trusted(_softmax(x.data, mask, axis), x.mask)
    return _softmax(jnp.asarray(unwrap(x)), None, axis)


def _softmax(x: Array, mask: Array | None, axis: int | Sequence[int]) -> Array:
    if mask is None:
        return jax.nn.softmax(x, axis)
    if isinstance(axis, int):
        return masked_softmax(x, mask, axis).astype(x.dtype)
    axes = tuple(a % x.ndim for a in axis)
    rest = [a for a in range(x.ndim) if a not in axes]
    turned = jnp.transpose(x, (*rest, *axes))
    flat = turned.reshape(*(x.shape[a] for a in rest), -1)
    flat_mask = jnp.transpose(mask, (*rest, *axes)).reshape(flat.shape)
    out = masked_softmax(flat, flat_mask, -1).astype(x.dtype).reshape(turned.shape)
    return jnp.transpose(out, [(*rest, *axes).index(a) for a in range(x.ndim)])


def log_softmax(x: Any, axis: int = -1) -> Any:
    """Returns the logarithm of `softmax`; over time, of the valid steps only (0 elsewhere)."""
    if isinstance(x, symbol.Symbol):
        return symbol.apply(log_softmax, (x,), {"axis": axis})
    if isinstance(x, Masked):
        mask = _mask_along(x, axis)
        if mask is None:
            return Masked.trusted(jax.nn.log_softmax(x.data, axis), x.mask)
        out = jax.nn.log_softmax(jnp.where(mask, x.data, -jnp.inf), axis, where=mask)
        return Masked.trusted(jnp.where(mask, out, 0), x.mask)
    return jax.nn.log_softmax(jnp.asarray(unwrap(x)), axis)


for _function in (softmax, log_softmax):
    register("activations", _function)


def get(identifier: Any) -> Callable:
    """Returns the activation behind a name, a config, a function or None (linear)."""
    found = resolve("activations", identifier)
    return linear if found is None else found


def serialize(activation: Callable) -> Any:
    """Returns the name of an activation."""
    return next((n for n, f in names_of("activations").items() if f is activation), activation)


def deserialize(config: Any, custom_objects: dict | None = None) -> Callable:
    """Returns the activation that `serialize` named."""
    return (custom_objects or {}).get(config) or get(config)


AsActivation = Annotated[Any, Converter(get)]
