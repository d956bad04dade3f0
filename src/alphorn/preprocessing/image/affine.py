"""Rotation, shift, shear and zoom: one affine transform, by OpenCV where it gives SciPy's numbers."""

import math
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, ShapeError
from alphorn.preprocessing.image.packages import opencv, scipy_ndimage

__all__ = [
    "apply_affine_transform",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "transform_matrix_offset_center",
]

FILL_MODES = (
    "constant",
    "nearest",
    "reflect",
    "wrap",
    "mirror",
    "grid-constant",
    "grid-mirror",
    "grid-wrap",
)
# SciPy's ways to go on beyond the edge, in OpenCV's words. "constant" and "wrap" have none.
_BORDERS = {
    "nearest": "BORDER_REPLICATE",
    "reflect": "BORDER_REFLECT",
    "grid-mirror": "BORDER_REFLECT",
    "mirror": "BORDER_REFLECT_101",
    "grid-wrap": "BORDER_WRAP",
    "grid-constant": "BORDER_CONSTANT",
}
# OpenCV may keep coordinates in 16 bits.
_FARTHEST = 30_000


def check_fill_mode(where: str, fill_mode: str) -> None:
    """Raises an error for a fill mode that does not exist."""
    if fill_mode not in FILL_MODES:
        raise ArgumentError(f"{where}: fill_mode", repr(fill_mode), f"one of {FILL_MODES}")


def transform_matrix_offset_center(matrix: Any, x: float, y: float) -> np.ndarray:
    """Returns a transform about the centre of an image instead of about its corner.

    Args:
        matrix: `(3, 3)`.
        x: Height of the image.
        y: Width of the image.

    >>> transform_matrix_offset_center(np.diag([2, 2, 1]), 4, 4)
    array([[ 2. ,  0. , -2.5],
           [ 0. ,  2. , -2.5],
           [ 0. ,  0. ,  1. ]])
    """
    center = np.array([x / 2 + 0.5, y / 2 + 0.5])
    to, back = np.eye(3), np.eye(3)
    to[:2, 2], back[:2, 2] = center, -center
    return to @ np.asarray(matrix) @ back


def _matrix(
    theta: float, tx: float, ty: float, shear: float, zx: float, zy: float, size: tuple[int, int]
) -> np.ndarray | None:
    """Returns rotation, then shift, shear and zoom about the centre; None for nothing to do.

    It is the upper part of a matrix, `(2, 3)`; `size` is height and width.
    """
    if theta == tx == ty == shear == 0 and zx == zy == 1:
        return None
    angle, tilt = math.radians(theta), math.radians(shear)
    c, s = math.cos(angle), math.sin(angle)
    across, along = math.sin(tilt), math.cos(tilt)
    # Most images of a flow have one of their own: floats are faster here than arrays of 9.
    (a, b), (d, e) = (
        (c * zx, (-c * across - s * along) * zy),
        (s * zx, (-s * across + c * along) * zy),
    )
    y, x = size[0] / 2 + 0.5, size[1] / 2 + 0.5
    rows, columns = c * tx - s * ty, s * tx + c * ty
    return np.array([[a, b, rows + y - a * y - b * x], [d, e, columns + x - d * y - e * x]])


def apply_affine_transform(
    x: Any,
    theta: float = 0,
    tx: float = 0,
    ty: float = 0,
    shear: float = 0,
    zx: float = 1,
    zy: float = 1,
    row_axis: int = 0,
    col_axis: int = 1,
    channel_axis: int = 2,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
) -> np.ndarray:
    """Returns an image that is rotated, shifted, sheared and zoomed, in its own shape and type.

    Args:
        x: `(height, width, channels)`, or other axes as told.
        theta: Degrees of rotation.
        tx, ty: Rows and columns by which what is read is shifted.
        shear: Degrees.
        zx, zy: Zoom of rows and of columns; below 1 enlarges.
        row_axis, col_axis, channel_axis: Which axis is which.
        fill_mode: "nearest", "constant", "reflect", "wrap", or another mode of SciPy: what stands
            beyond the edges.
        cval: What "constant" puts there.
        order: Of the splines: 0 nearest, 1 linear, up to 5.

    >>> apply_affine_transform(np.arange(4.0).reshape(2, 2, 1), tx=1)[..., 0]
    array([[2., 3.],
           [2., 3.]])
    """
    check_fill_mode("apply_affine_transform", fill_mode)
    x = np.asarray(x)
    if x.ndim != 3:
        raise ShapeError("apply_affine_transform", x.shape, "one image of 3 axes")
    axes = (row_axis, col_axis, channel_axis)
    moves = (theta, tx, ty, shear, zx, zy)
    return transformed(x, moves, (False, False), axes, fill_mode, cval, order)


def transformed(
    x: np.ndarray,
    moves: tuple[float, float, float, float, float, float],
    flips: tuple[bool, bool],
    axes: tuple[int, int, int],
    mode: str,
    cval: float,
    order: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Returns an image transformed and then flipped; in `out`, or as the image itself, if it can.

    Args:
        x: One image.
        moves: theta, tx, ty, shear, zx and zy of `apply_affine_transform`.
        flips: Whether rows and whether columns come in the opposite order.
        axes: Of rows, columns and channels.
        mode, cval, order: As in `apply_affine_transform`.
        out: Of the shape of the image, or None.
    """
    image = x.transpose(axes)
    matrix = _matrix(*moves, image.shape[:2])
    if matrix is not None and _is_for_opencv(image, matrix, order):
        for axis, flip in enumerate(flips):
            if flip:  # the last place is read where the first would be
                matrix[:, 2] += matrix[:, axis] * (image.shape[axis] - 1)
                matrix[:, axis] *= -1
        flips = (False, False)
        target = None if out is None else out.transpose(axes)
        image = _by_opencv(image, matrix, mode, cval, target)
        if image is target and out is not None:
            return out
    elif matrix is None and any(flips) and axes == (0, 1, 2) and _can_flip(x, out):
        # NumPy copies an image with reversed columns pixel by pixel.
        flipped = opencv().flip(x, -1 if all(flips) else int(flips[1]), dst=out)
        return flipped.reshape(x.shape) if out is None else out
    elif matrix is not None:
        image = _by_scipy(image, matrix, mode, cval, order)
    found = image.transpose(np.argsort(axes))
    for axis, flip in zip(axes, flips, strict=False):
        found = np.flip(found, axis) if flip else found
    return found


def _can_flip(x: np.ndarray, out: np.ndarray | None) -> bool:
    fits = out is None or (out.flags.c_contiguous and out.dtype == x.dtype)
    return (
        x.dtype == np.float32 and x.size > 0 and x.shape[2] <= 4 and fits and opencv() is not None
    )


def _by_scipy(x: np.ndarray, matrix: np.ndarray, mode: str, cval: float, order: int) -> np.ndarray:
    small = x.dtype == np.float16
    source = x.astype(np.float32) if small else x
    ndimage = scipy_ndimage()
    out = np.empty_like(source, order="C")
    for channel in range(x.shape[2]):
        out[..., channel] = ndimage.affine_transform(
            source[..., channel], matrix, order=order, mode=mode, cval=cval
        )
    return out.astype(x.dtype) if small else out


def _is_for_opencv(x: np.ndarray, matrix: np.ndarray, order: int) -> bool:
    """Returns whether OpenCV gives SciPy's numbers, and can hold the places that are read."""
    if order != 1 or x.dtype != np.float32 or opencv() is None:
        return False
    height, width, channels = x.shape
    farthest = max(
        abs(a) * height + abs(b) * width + abs(offset) for a, b, offset in matrix.tolist()
    )
    return 0 < channels <= 4 and farthest < _FARTHEST > max(height, width)


def _places(shape: tuple[int, ...], matrix: np.ndarray, axis: int) -> np.ndarray:
    # In the order in which SciPy adds: what lies just at an edge is on the same side of it.
    rows = matrix[axis, 2] + matrix[axis, 0] * np.arange(shape[0])
    return rows[:, None] + matrix[axis, 1] * np.arange(shape[1])


def _by_opencv(
    x: np.ndarray, matrix: np.ndarray, mode: str, cval: float, out: np.ndarray | None = None
) -> np.ndarray:
    """Returns `(height, width, channels)` read at `matrix @ (row, column, 1)`, if it can in `out`."""
    cv2 = opencv()
    height, width = x.shape[:2]
    x = np.ascontiguousarray(x)
    if mode == "wrap":
        found = cv2.remap(
            x,
            _wrapped(_places(x.shape, matrix, 1), width),
            _wrapped(_places(x.shape, matrix, 0), height),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return found.reshape(x.shape)
    if out is not None and not (out.flags.c_contiguous and out.dtype == x.dtype):
        out = None
    warped = cv2.warpAffine(
        x,
        matrix[::-1, [1, 0, 2]],  # columns before rows
        (width, height),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=getattr(cv2, _BORDERS.get(mode, "BORDER_REPLICATE")),
        borderValue=(cval,) * 4,
    )
    inside = out is not None and (warped is out or np.shares_memory(out, warped))
    found = out if inside else warped.reshape(x.shape)
    if mode == "constant":  # nothing is blended with what lies beyond the edge
        rows, columns = (_places(x.shape, matrix, axis) for axis in (0, 1))
        beyond = (rows < 0) | (rows > height - 1) | (columns < 0) | (columns > width - 1)
        found[beyond] = cval
    return found


def _wrapped(places: np.ndarray, size: int) -> np.ndarray:
    """Returns places brought into an axis by SciPy's "wrap", whose period is one step short."""
    period = max(size - 1, 1)
    low, high = places < 0, places > size - 1
    with np.errstate(invalid="ignore"):
        places = np.where(low, places + period * (np.trunc(-places / period) + 1), places)
        places = np.where(high, places - period * np.trunc(places / period), places)
    return (places if size > 1 else np.zeros_like(places)).astype(np.float32)


def random_rotation(
    x: Any,
    rg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> np.ndarray:
    """Returns an image rotated by an angle drawn from `-rg` to `rg` degrees.

    Args:
        x: `(channels, height, width)`, or other axes as told.
        rg: The largest angle.
        row_axis, col_axis, channel_axis: Which axis is which.
        fill_mode, cval, interpolation_order: As in `apply_affine_transform`.
    """
    theta = np.random.uniform(-rg, rg)
    axes = (row_axis, col_axis, channel_axis)
    return apply_affine_transform(
        x, theta, 0, 0, 0, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_shift(
    x: Any,
    wrg: float,
    hrg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> np.ndarray:
    """Returns an image shifted by up to `wrg` of its width and `hrg` of its height.

    Args:
        x: `(channels, height, width)`, or other axes as told.
        wrg, hrg: Fractions of width and height.
        row_axis, col_axis, channel_axis: Which axis is which.
        fill_mode, cval, interpolation_order: As in `apply_affine_transform`.
    """
    tx = np.random.uniform(-hrg, hrg) * np.shape(x)[row_axis]
    ty = np.random.uniform(-wrg, wrg) * np.shape(x)[col_axis]
    axes = (row_axis, col_axis, channel_axis)
    return apply_affine_transform(
        x, 0, tx, ty, 0, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_shear(
    x: Any,
    intensity: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> np.ndarray:
    """Returns an image sheared by an angle drawn from `-intensity` to `intensity` degrees.

    Args:
        x: `(channels, height, width)`, or other axes as told.
        intensity: The largest angle.
        row_axis, col_axis, channel_axis: Which axis is which.
        fill_mode, cval, interpolation_order: As in `apply_affine_transform`.
    """
    shear = np.random.uniform(-intensity, intensity)
    axes = (row_axis, col_axis, channel_axis)
    return apply_affine_transform(
        x, 0, 0, 0, shear, 1, 1, *axes, fill_mode, cval, interpolation_order
    )


def random_zoom(
    x: Any,
    zoom_range: Any,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> np.ndarray:
    """Returns an image zoomed by factors drawn for height and for width.

    Args:
        x: `(channels, height, width)`, or other axes as told.
        zoom_range: The smallest and the largest factor; below 1 enlarges.
        row_axis, col_axis, channel_axis: Which axis is which.
        fill_mode, cval, interpolation_order: As in `apply_affine_transform`.
    """
    if np.size(zoom_range) != 2:
        raise ArgumentError(
            "random_zoom: zoom_range", repr(zoom_range), "the smallest and the largest factor"
        )
    low, high = zoom_range
    zx, zy = (1, 1) if low == 1 and high == 1 else np.random.uniform(low, high, 2)
    axes = (row_axis, col_axis, channel_axis)
    return apply_affine_transform(
        x, 0, 0, 0, 0, zx, zy, *axes, fill_mode, cval, interpolation_order
    )
