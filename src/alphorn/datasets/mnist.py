"""MNIST: 70,000 handwritten digits."""

import numpy as np

from alphorn.datasets.source import arrays_in, fetched

__all__ = ["load_data"]

_HASH = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
Part = tuple[np.ndarray, np.ndarray]


def load_data(path: str = "mnist.npz") -> tuple[Part, Part]:
    """Returns `(x_train, y_train), (x_test, y_test)`: `(60000, 28, 28)` and `(10000, 28, 28)`.

    Args:
        path: Name of the file in the cache.
    """
    found = arrays_in(fetched(path, "mnist.npz", _HASH))
    return (found["x_train"], found["y_train"]), (found["x_test"], found["y_test"])
