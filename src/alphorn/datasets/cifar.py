"""What CIFAR-10 and CIFAR-100 have in common."""

import os

import numpy as np

from alphorn import config
from alphorn.datasets.source import unpickled
from alphorn.utils.downloads import get_file

__all__ = ["batches", "folder"]


def folder(name: str, inner: str, file_hash: str) -> str:
    """Returns where the files of an archive are."""
    origin = f"https://www.cs.toronto.edu/~kriz/{name}-python.tar.gz"
    target = f"{inner}-target"
    return os.path.join(get_file(target, origin, extract=True, file_hash=file_hash), inner)


def batches(paths: list[str], labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, `(rows, 32, 32, 3)`, and their classes, `(rows, 1)`."""
    images, classes = [], []
    for path in paths:
        with open(path, "rb") as file:
            found = unpickled(file, "bytes")
        images.append(found[b"data"].reshape(-1, 3, 32, 32))
        classes += found[labels.encode()]
    x = np.concatenate(images)
    if config.image_data_format() == "channels_last":
        x = x.transpose(0, 2, 3, 1)
    return x, np.array(classes, "uint8")[:, None]
