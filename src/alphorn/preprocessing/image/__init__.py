"""Images: files, arrays, random transforms, batches for training."""

import importlib
import importlib.util
from typing import Any

from alphorn.errors import missing
from alphorn.preprocessing.image.affine import (
    apply_affine_transform,
    random_rotation,
    random_shear,
    random_shift,
    random_zoom,
    transform_matrix_offset_center,
)
from alphorn.preprocessing.image.arrays import array_to_img, flip_axis, img_to_array
from alphorn.preprocessing.image.color import (
    apply_brightness_shift,
    apply_channel_shift,
    random_brightness,
    random_channel_shift,
)
from alphorn.preprocessing.image.files import list_pictures, load_img, save_img
from alphorn.preprocessing.image.folders import DirectoryIterator
from alphorn.preprocessing.image.frames import DataFrameIterator
from alphorn.preprocessing.image.generator import ImageDataGenerator
from alphorn.preprocessing.image.iterators import Iterator
from alphorn.preprocessing.image.memory import NumpyArrayIterator
from alphorn.preprocessing.image.resize import smart_resize

__all__ = [
    "DataFrameIterator",
    "DirectoryIterator",
    "ImageDataGenerator",
    "Iterator",
    "NumpyArrayIterator",
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "array_to_img",
    "flip_axis",
    "img_to_array",
    "list_pictures",
    "load_img",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "save_img",
    "smart_resize",
    "transform_matrix_offset_center",
]

# Modules that programs of Keras 2 find here, imported when they are asked for. Their `K`, the
# backend, is put in by the backend itself.
_MODULES = {
    "linalg": "scipy.linalg",
    "multiprocessing": "multiprocessing",
    "ndi": "scipy.ndimage",
    "np": "numpy",
    "os": "os",
    "pil_image": "PIL.Image",
    "re": "re",
    "threading": "threading",
    "warnings": "warnings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    top = _MODULES[name].partition(".")[0]
    if importlib.util.find_spec(top) is None:
        raise missing(f"image.{name}", _MODULES[name], "image")
    return importlib.import_module(_MODULES[name])
