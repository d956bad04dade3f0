"""Shifts of channels and of brightness."""

from typing import Any

import numpy as np

from alphorn.errors import ArgumentError
from alphorn.preprocessing.image.arrays import array_to_img, img_to_array
from alphorn.preprocessing.image.packages import pillow_enhance

__all__ = [
    "apply_brightness_shift",
    "apply_channel_shift",
    "random_brightness",
    "random_channel_shift",
]


def apply_channel_shift(x: Any, intensity: float, channel_axis: int = 0) -> np.ndarray:
    """Returns an image with a number added, within the image's own smallest and largest value.

    Args:
        x: An image; all its channels are shifted alike, so `channel_axis` may be any.
        intensity: The number.
        channel_axis: Which axis the channels are.

    >>> apply_channel_shift(np.array([[[0.0, 5.0]]]), 2)
    array([[[2., 5.]]])
    """
    x = np.asarray(x)
    return shifted(x, intensity, None)


def shifted(x: np.ndarray, intensity: float, out: np.ndarray | None) -> np.ndarray:
    """Returns `apply_channel_shift`, in `out` if there is one, which may be the image itself."""
    if x.dtype.kind == "f":  # only one of the limits can be passed
        limit, within = (x.max(), np.minimum) if intensity > 0 else (x.min(), np.maximum)
        out = np.add(x, intensity, out=out)
        return within(out, limit, out=out)
    low, high = x.min(), x.max()
    out = np.add(x, intensity, out=out)
    return np.clip(out, low, high, out=out)


def random_channel_shift(x: Any, intensity_range: float, channel_axis: int = 0) -> np.ndarray:
    """Returns an image with a number added that is drawn from `-intensity_range` to it.

    Args:
        x: An image.
        intensity_range: The largest number.
        channel_axis: Which axis the channels are.
    """
    intensity = np.random.uniform(-intensity_range, intensity_range)
    return apply_channel_shift(x, intensity, channel_axis)


def apply_brightness_shift(
    x: Any, brightness: float, scale: bool = True, data_format: str | None = None
) -> np.ndarray:
    """Returns an image made brighter or darker, with values from 0 to 255.

    Args:
        x: `(height, width, channels)`.
        brightness: 0 is black, 1 changes nothing.
        scale: Whether the image's values are first spread over 0 to 255. Else they are only where
            they lie outside, and brought back afterwards.
        data_format: "channels_first" for `(channels, height, width)`; None for the default.
    """
    x = np.asarray(x)
    low, high = np.min(x), np.max(x)
    outside = bool(low < 0 or high > 255)
    image = array_to_img(x, data_format, scale=scale or outside)
    bright = pillow_enhance().Brightness(image).enhance(brightness)
    out = img_to_array(bright, data_format)
    if not scale and outside:
        out = out / 255 * (high - low) + low
    return out


def random_brightness(x: Any, brightness_range: Any, scale: bool = True) -> np.ndarray:
    """Returns an image made brighter or darker by a factor drawn from a range.

    Args:
        x: `(height, width, channels)`.
        brightness_range: The smallest and the largest factor.
        scale: As in `apply_brightness_shift`.
    """
    check_brightness_range("random_brightness", brightness_range)
    return apply_brightness_shift(x, np.random.uniform(*brightness_range), scale)


def check_brightness_range(where: str, brightness_range: Any) -> None:
    """Raises an error for what is no pair of numbers."""
    if not isinstance(brightness_range, tuple | list) or len(brightness_range) != 2:
        raise ArgumentError(
            f"{where}: brightness_range",
            repr(brightness_range),
            "the smallest and the largest factor",
        )
