"""Where the classic data sets come from, and what their files have in common."""

import io
import pickle
import zipfile
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, DataError
from alphorn.utils.downloads import get_file

__all__ = ["arrays_in", "cut_in_two", "fetched", "shuffled", "unpickled"]

_BASE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
# All that an array of lists of numbers is made of: nothing else in a pickle is run.
_HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


def fetched(
    path: str, name: str, file_hash: str | None = None, cache_subdir: str = "datasets"
) -> str:
    """Returns where one of the public files is.

    Args:
        path: Its name in the cache.
        name: Its name where it comes from.
        file_hash: What its hash must be.
        cache_subdir: Folder in the cache.
    """
    return get_file(path, _BASE + name, file_hash=file_hash, cache_subdir=cache_subdir)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise DataError(
                "a file of a data set would run code",
                received=f"{module}.{name}",
                expected="arrays and lists of numbers",
                fix="delete the file: it is not the public one",
            )
        return super().find_class(module, name)


def unpickled(file: Any, encoding: str = "ASCII") -> Any:
    """Returns what a pickle of arrays, lists and dicts holds; anything else is refused."""
    return _Unpickler(file, encoding=encoding).load()


def arrays_in(path: str) -> dict[str, np.ndarray]:
    """Returns the arrays in an .npz file, also those of lists of unequal lengths."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()
            }
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is broken", str(error), "an .npz file", "delete it") from error


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0
    if version[0] != 1:
        header = np.lib.format.read_array_header_2_0
    _, _, dtype = header(file)
    if dtype.hasobject:
        return unpickled(file)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def shuffled(source: np.random.RandomState, *columns: np.ndarray) -> list[np.ndarray]:
    """Returns arrays in another order, the same one for all."""
    order = np.arange(len(columns[0]))
    source.shuffle(order)
    return [column[order] for column in columns]


def cut_in_two(x: Any, y: Any, test_split: float) -> tuple:
    """Returns `(x_train, y_train), (x_test, y_test)`, the last share for the test."""
    if not 0 <= test_split < 1:
        raise ArgumentError("test_split", test_split, "a fraction: at least 0, below 1")
    cut = int(len(x) * (1 - test_split))
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])
