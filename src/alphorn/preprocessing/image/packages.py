"""The packages that images need: imported where they are used, named where they are missing."""

from functools import cache
from typing import Any

from alphorn.errors import missing

__all__ = ["opencv", "pillow", "pillow_enhance", "scipy_ndimage", "scipy_signal"]


def pillow() -> Any:
    """Returns Pillow's module of images."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing("reading and writing images", "Pillow", "image") from error
    return Image


def pillow_enhance() -> Any:
    """Returns Pillow's module that changes brightness."""
    try:
        from PIL import ImageEnhance
    except ImportError as error:
        raise missing("a change of brightness", "Pillow", "image") from error
    return ImageEnhance


def scipy_ndimage() -> Any:
    """Returns SciPy's module of images."""
    try:
        from scipy import ndimage
    except ImportError as error:
        raise missing("an affine transform of images", "SciPy", "image") from error
    return ndimage


def scipy_signal() -> Any:
    """Returns SciPy's module of signals."""
    try:
        from scipy import signal
    except ImportError as error:
        raise missing("sound at another sampling rate", "SciPy", "image") from error
    return signal


@cache
def opencv() -> Any:
    """Returns OpenCV, or None where it is not installed: it only makes things fast."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2
