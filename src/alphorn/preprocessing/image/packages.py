"""The packages that images need: imported where they are used, named where they are missing."""

from functools import cache
from typing import Any

__all__ = ["opencv", "pillow", "pillow_enhance", "scipy_ndimage", "scipy_signal"]


def _missing(package: str, use: str) -> ImportError:
    return ImportError(f"{use} needs {package}: pip install alphorn[image]")


def pillow() -> Any:
    """Returns Pillow's module of images."""
    try:
        from PIL import Image
    except ImportError as error:
        raise _missing("Pillow", "reading and writing images") from error
    return Image


def pillow_enhance() -> Any:
    """Returns Pillow's module that changes brightness."""
    try:
        from PIL import ImageEnhance
    except ImportError as error:
        raise _missing("Pillow", "a change of brightness") from error
    return ImageEnhance


def scipy_ndimage() -> Any:
    """Returns SciPy's module of images."""
    try:
        from scipy import ndimage
    except ImportError as error:
        raise _missing("SciPy", "an affine transform of images") from error
    return ndimage


def scipy_signal() -> Any:
    """Returns SciPy's module of signals."""
    try:
        from scipy import signal
    except ImportError as error:
        raise _missing("SciPy", "sound at another sampling rate") from error
    return signal


@cache
def opencv() -> Any:
    """Returns OpenCV, or None where it is not installed: it only makes things fast."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2
