"""Images of another size, by weights along each axis: the same numbers for any array library."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn.errors import ArgumentError, ShapeError, UnexpectedArgumentError

__all__ = ["resize", "smart_resize"]


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - x)


def _cubic(x: np.ndarray) -> np.ndarray:
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _mitchell(x: np.ndarray) -> np.ndarray:
    near = (7 / 6 * x - 2) * x * x + 8 / 9
    far = ((-7 / 18 * x + 2) * x - 10 / 3) * x + 16 / 9
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _gaussian(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1.5, np.exp(-2 * x * x), 0)


def _lanczos(radius: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.where(x < radius, np.sinc(x) * np.sinc(x / radius), 0)


_KERNELS = {
    "bilinear": _triangle,
    "bicubic": _cubic,
    "lanczos3": _lanczos(3),
    "lanczos5": _lanczos(5),
    "gaussian": _gaussian,
    "mitchellcubic": _mitchell,
}
METHODS = ("nearest", "area", *_KERNELS)


@lru_cache(maxsize=256)
def _weights(size: int, target: int, method: str) -> np.ndarray:
    """Returns what each of the old steps gives to each of the new, `(target, size)`."""
    scale = size / target
    if method == "area":
        begin = np.arange(target)[:, None] * scale
        old = np.arange(size)
        shared = np.minimum(begin + scale, old + 1) - np.maximum(begin, old)
        return (np.maximum(shared, 0) / scale).astype(np.float32)
    places = (np.arange(target) + 0.5) * scale - 0.5
    weights = _KERNELS[method](np.abs(places[:, None] - np.arange(size)))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resize(x: Any, size: tuple[int, int], method: str, rows: int = -3) -> Any:
    """Returns images of another size: floats, or of their own type for "nearest".

    Args:
        x: `(..., height, width, channels)`, an array of NumPy or JAX.
        size: `(height, width)`.
        method: "nearest", "bilinear", "bicubic", "area", "lanczos3", "lanczos5", "gaussian" or
            "mitchellcubic"; none smooths before it makes smaller, but "area".
        rows: The axis of the height, counted from the end; the width's follows.
    """
    if method not in METHODS:
        raise ArgumentError("interpolation", repr(method), f"one of {METHODS}")
    library: Any = jnp if isinstance(x, jax.Array) else np
    if method != "nearest" and x.dtype.kind not in "fc":
        x = x.astype(np.float32)
    for axis, target in zip((rows, rows + 1), size, strict=True):
        old = x.shape[axis]
        if method == "nearest":
            index = np.floor((np.arange(target) + 0.5) * (old / target)).astype(np.int32)
            x = library.take(x, index, axis=axis)
        elif old != target:
            weights = _weights(old, target, method).astype(x.dtype)
            moved = library.tensordot(x, weights, axes=((x.ndim + axis,), (1,)))
            x = library.moveaxis(moved, -1, axis)
    return x


def middle(x: Any, size: tuple[int, int], rows: int = -3) -> Any:
    """Returns the largest part around the middle that has the proportions of `size`."""
    height, width = x.shape[rows], x.shape[rows + 1]
    cut = (
        max(min(height, int(width * size[0] / size[1])), 1),
        max(min(width, int(height * size[1] / size[0])), 1),
    )
    index = [slice(None)] * x.ndim
    for axis, old, new in zip((rows, rows + 1), (height, width), cut, strict=True):
        start = (old - new) // 2
        index[axis] = slice(start, start + new)
    return x[tuple(index)]


def padded(x: np.ndarray, size: tuple[int, int], rows: int = -3) -> np.ndarray:
    """Returns an image with zeros around it, in the proportions of `size`."""
    height, width = x.shape[rows], x.shape[rows + 1]
    more = (
        (max(height, int(width * size[0] / size[1])) - height) // 2,
        (max(width, int(height * size[1] / size[0])) - width) // 2,
    )
    around = [(0, 0)] * x.ndim
    around[rows], around[rows + 1] = (more[0],) * 2, (more[1],) * 2
    return np.pad(x, around)


def smart_resize(
    x: Any,
    size: Any,
    interpolation: str = "bilinear",
    data_format: str = "channels_last",
    **kwargs: Any,
) -> Any:
    """Returns images of another size, not distorted: what does not fit is cut off around.

    Args:
        x: `(height, width, channels)` or a batch of such, of NumPy or JAX.
        size: `(height, width)`.
        interpolation: "bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", ...
        data_format: "channels_first" for `(channels, height, width)`.

    >>> smart_resize(np.ones((6, 9, 3)), (4, 4)).shape
    (4, 4, 3)
    """
    kwargs.pop("backend_module", None)
    if kwargs:
        raise UnexpectedArgumentError("smart_resize", received=", ".join(kwargs))
    if np.size(size) != 2:
        raise ArgumentError("smart_resize: size", repr(size), "(height, width)")
    array = x if isinstance(x, jax.Array) else np.asarray(x)
    if array.ndim not in (3, 4):
        raise ShapeError("smart_resize", array.shape, "(height, width, channels), or a batch")
    target = (int(size[0]), int(size[1]))
    rows = -3 if data_format == "channels_last" else -2
    return resize(middle(array, target, rows), target, interpolation, rows)
