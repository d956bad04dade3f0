"""CIFAR-10: 60,000 small colour pictures of ten classes."""

import os

import numpy as np

from alphorn.datasets.cifar import batches, folder

__all__ = ["load_data"]

_HASH = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
Part = tuple[np.ndarray, np.ndarray]


def load_data() -> tuple[Part, Part]:
    """Returns `(x_train, y_train), (x_test, y_test)`: `(50000, 32, 32, 3)` and labels `(50000, 1)`.

    The classes: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.
    """
    place = folder("cifar-10", "cifar-10-batches-py", _HASH)
    train = [os.path.join(place, f"data_batch_{i}") for i in range(1, 6)]
    return batches(train, "labels"), batches([os.path.join(place, "test_batch")], "labels")
