"""Small helpers, under Keras's names."""

from typing import Any

import numpy as np

from alphorn.config import set_random_seed
from alphorn.errors import ArgumentError
from alphorn.naming import (
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    reset_names,
)
from alphorn.preprocessing.datasets import (
    audio_dataset_from_directory,
    image_dataset_from_directory,
    text_dataset_from_directory,
)
from alphorn.preprocessing.image import array_to_img, img_to_array, load_img, save_img
from alphorn.preprocessing.py_dataset import PyDataset
from alphorn.preprocessing.sequence import pad_sequences
from alphorn.preprocessing.windows import timeseries_dataset_from_array
from alphorn.serialization import deserialize_keras_object, serialize_keras_object
from alphorn.utils.downloads import get_file
from alphorn.utils.splitting import split_dataset
from alphorn.viz.dot import model_to_dot
from alphorn.viz.models import plot_model

CustomObjectScope = custom_object_scope
Sequence = PyDataset  # the name before Keras 3

__all__ = [
    "CustomObjectScope",
    "PyDataset",
    "Sequence",
    "array_to_img",
    "audio_dataset_from_directory",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_file",
    "get_registered_name",
    "get_registered_object",
    "image_dataset_from_directory",
    "img_to_array",
    "load_img",
    "model_to_dot",
    "normalize",
    "pad_sequences",
    "plot_model",
    "register_keras_serializable",
    "save_img",
    "serialize_keras_object",
    "set_random_seed",
    "split_dataset",
    "text_dataset_from_directory",
    "timeseries_dataset_from_array",
    "to_categorical",
]


def clear_session(free_memory: bool = True) -> None:
    """Starts the automatic names again."""
    reset_names()


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Returns class numbers as one-hot rows.

    Args:
        x: Integers; a last axis of size 1 goes.
        num_classes: By default the largest number + 1.

    >>> to_categorical([0, 2])
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    labels = np.asarray(x, dtype="int64")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    classes = num_classes or int(labels.max(initial=-1)) + 1
    if labels.size and (labels.max() >= classes or labels.min() < 0):
        raise ArgumentError(
            "to_categorical", f"classes {labels.min()} to {labels.max()}", f"0 to {classes - 1}"
        )
    rows = np.zeros((*labels.shape, classes))
    np.put_along_axis(rows, labels[..., None], 1, axis=-1)
    return rows


def normalize(x: Any, axis: int = -1, order: int = 2) -> np.ndarray:
    """Returns an array over its norm along an axis; zeros stay zeros.

    >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    array = np.atleast_1d(np.asarray(x))
    norms = np.atleast_1d(np.linalg.norm(array, order, axis))
    norms[norms == 0] = 1
    return array / np.expand_dims(norms, axis)
