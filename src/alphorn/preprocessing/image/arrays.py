"""Pictures as arrays and back."""

from typing import Any

import numpy as np

from alphorn import config
from alphorn.errors import ArgumentError, ShapeError
from alphorn.preprocessing.image.packages import pillow

__all__ = ["array_to_img", "flip_axis", "img_to_array"]


def img_to_array(img: Any, data_format: str | None = None, dtype: Any = None) -> np.ndarray:
    """Returns a Pillow image as an array, `(height, width, channels)`.

    Args:
        img: An image, or an array of 2 or 3 axes.
        data_format: "channels_first" for `(channels, height, width)`; None for the default.
        dtype: Of the array; None for `floatx()`.

    >>> img_to_array(np.zeros((4, 5))).shape
    (4, 5, 1)
    """
    layout = config.standardize_data_format(data_format)
    x = np.asarray(img, dtype=dtype or config.floatx())
    if x.ndim == 2:
        x = x[..., None]
    elif x.ndim != 3:
        raise ShapeError("img_to_array", x.shape, "(height, width) or (height, width, channels)")
    return x.transpose(2, 0, 1) if layout == "channels_first" else x


def array_to_img(
    x: Any, data_format: str | None = None, scale: bool = True, dtype: Any = None
) -> Any:
    """Returns an array as a Pillow image.

    Args:
        x: `(height, width, channels)` of 1, 3 or 4 channels.
        data_format: "channels_first" for `(channels, height, width)`; None for the default.
        scale: Whether the smallest value becomes 0 and the largest 255. Else values are taken as
            they are; one channel with values above 255 becomes a 32-bit image.
        dtype: What is computed in; None for `floatx()`.

    >>> array_to_img(np.ones((4, 5, 3))).size
    (5, 4)
    """
    layout = config.standardize_data_format(data_format)
    x = np.asarray(x, dtype=dtype or config.floatx())
    if x.ndim != 3:
        raise ShapeError(
            "array_to_img", x.shape, "one image, (height, width, channels)", "take one: images[0]"
        )
    if layout == "channels_first":
        x = x.transpose(1, 2, 0)
    if x.shape[2] not in (1, 3, 4):
        raise ShapeError(
            "array_to_img",
            received=f"{x.shape[2]} channels, as data_format is {layout!r}",
            expected="1, 3 or 4 channels",
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ArgumentError("array_to_img", "infinities or NaN", "finite values")
    if scale:
        x = x - np.min(x)
        largest = np.max(x)
        if largest != 0:
            x = x / largest
        x = x * 255
    image = pillow()
    if x.shape[2] == 1:
        whole = "int32" if np.max(x) > 255 else "uint8"
        return image.fromarray(_as_integers(x[:, :, 0], whole))
    return image.fromarray(_as_integers(x, "uint8"))


def _as_integers(x: np.ndarray, dtype: str) -> np.ndarray:
    # By way of 64 bits: what a negative float becomes as uint8 would depend on the machine.
    return np.ascontiguousarray(x.astype("int64").astype(dtype))


def flip_axis(x: Any, axis: int) -> np.ndarray:
    """Returns an array with one axis reversed, as a view.

    >>> flip_axis([[1, 2], [3, 4]], 1).tolist()
    [[2, 1], [4, 3]]
    """
    return np.flip(np.asarray(x), axis)
