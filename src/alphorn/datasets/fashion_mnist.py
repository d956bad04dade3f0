"""Fashion-MNIST: 70,000 pictures of clothes."""

import gzip
import os

import numpy as np

from alphorn.datasets.source import fetched

__all__ = ["load_data"]

Part = tuple[np.ndarray, np.ndarray]


def load_data() -> tuple[Part, Part]:
    """Returns `(x_train, y_train), (x_test, y_test)`: `(60000, 28, 28)` and `(10000, 28, 28)`.

    The classes: T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot.
    """
    return _part("train"), _part("t10k")


def _part(which: str) -> Part:
    labels = _bytes(f"{which}-labels-idx1-ubyte.gz", 8)
    return _bytes(f"{which}-images-idx3-ubyte.gz", 16).reshape(len(labels), 28, 28), labels


def _bytes(name: str, header: int) -> np.ndarray:
    path = fetched(name, name, cache_subdir=os.path.join("datasets", "fashion-mnist"))
    with gzip.open(path, "rb") as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)
