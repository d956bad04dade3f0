"""Resizing an axis by a whole factor: repeated, or interpolated between the steps of each row.

Letters: `B` batch, `T` time, `s` the factor. Output `o` of a row that begins at `p` stands at
`p s + o`, its centre at `(o + 1/2) / s - 1/2` of the row's own steps. Steps outside the row's
extent and missing ones have no weight, and the others' weights sum to 1. The outputs of a missing
step are missing.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from alphorn.core.masked import fill_masked
from alphorn.kernels.moments import sum_dtype

__all__ = ["METHODS", "magnify"]


def _linear(d: Array) -> Array:
    return jnp.maximum(1 - d, 0)


def _cubic(d: Array) -> Array:
    """Cubic convolution with a = -1/2 (Keys, 1981)."""
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return jnp.where(d < 1, near, jnp.where(d < 2, far, 0))


def _lanczos(radius: float) -> Callable[[Array], Array]:
    def weight(d: Array) -> Array:
        return jnp.where(d < radius, jnp.sinc(d) * jnp.sinc(d / radius), 0)

    return weight


# The weight of a step by its distance; None where steps are repeated.
METHODS: dict[str, Callable[[Array], Array] | None] = {
    "nearest": None,
    "bilinear": _linear,
    "bicubic": _cubic,
    "lanczos3": _lanczos(3.0),
    "lanczos5": _lanczos(5.0),
}


def magnify(
    x: Array, factor: int, axis: int = 1, method: str = "nearest", mask: Array | None = None
) -> Array:
    """Makes an axis `factor` times as long.

    Args:
        x: any shape.
        factor: how many outputs a step has.
        axis: which.
        method: of `METHODS`.
        mask: `(B, T)` over `axis`, which is then 1.

    Returns:
        `x` with `axis` of `factor` times its size; a step's outputs are valid where it is.

    >>> x = jnp.array([[2.0, 4.0, 9.0]])
    >>> magnify(x, 2, method="bilinear", mask=x < 9).tolist()
    [[2.0, 2.5, 3.5, 4.0, 0.0, 0.0]]
    """
    weight, steps = METHODS[method], x.shape[axis]
    if weight is None:
        return jnp.repeat(x, factor, axis)
    wide = sum_dtype(x)
    centre = (jnp.arange(steps * factor, dtype=wide) + 0.5) / factor - 0.5
    weights = weight(jnp.abs(centre[:, None] - jnp.arange(steps, dtype=wide)))[None]
    if mask is not None:
        x = fill_masked(x, mask)
        weights = jnp.where(mask[:, None], weights, 0)
    total = weights.sum(-1, keepdims=True)
    held = jnp.abs(total) > 1000 * jnp.finfo(jnp.float32).eps
    weights = jnp.where(held, weights / jnp.where(held, total, 1), 0)
    moved = jnp.moveaxis(x, axis, 1).astype(wide)
    if mask is None:
        made = jnp.einsum("ot,bt...->bo...", weights[0], moved, precision="highest")
    else:
        made = jnp.einsum("bot,bt...->bo...", weights, moved, precision="highest")
        made = fill_masked(made, jnp.repeat(mask, factor, 1))
    made = jnp.moveaxis(made, 1, axis)
    return made.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else made
