"""CIFAR-100: 60,000 small colour pictures of a hundred classes in twenty groups."""

import os

import numpy as np

from alphorn.datasets.cifar import batches, folder
from alphorn.errors import ArgumentError

__all__ = ["load_data"]

_HASH = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
Part = tuple[np.ndarray, np.ndarray]


def load_data(label_mode: str = "fine") -> tuple[Part, Part]:
    """Returns `(x_train, y_train), (x_test, y_test)`: `(50000, 32, 32, 3)` and labels `(50000, 1)`.

    Args:
        label_mode: "fine" for the classes, "coarse" for their groups.
    """
    if label_mode not in ("fine", "coarse"):
        raise ArgumentError("label_mode", repr(label_mode), "'fine' or 'coarse'")
    place = folder("cifar-100", "cifar-100-python", _HASH)
    labels = f"{label_mode}_labels"
    train, test = (batches([os.path.join(place, name)], labels) for name in ("train", "test"))
    return train, test
