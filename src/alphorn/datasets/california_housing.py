"""California housing: median prices of 20,640 districts."""

import numpy as np

from alphorn.datasets.source import arrays_in, cut_in_two, fetched, shuffled
from alphorn.errors import ArgumentError

__all__ = ["load_data"]

_HASH = "1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f"
Part = tuple[np.ndarray, np.ndarray]


def load_data(
    version: str = "large",
    path: str = "california_housing.npz",
    test_split: float = 0.2,
    seed: int = 113,
) -> tuple[Part, Part]:
    """Returns `(x_train, y_train), (x_test, y_test)`: 8 features a district, and its price.

    Args:
        version: "large", or "small" for the first 600.
        path: Name of the file in the cache.
        test_split: The share for the test.
        seed: Of the order.
    """
    if version not in ("small", "large"):
        raise ArgumentError("version", repr(version), "'small' or 'large'")
    found = arrays_in(fetched(path, "california_housing.npz", _HASH))
    rows = slice(600 if version == "small" else None)
    x, y = shuffled(np.random.RandomState(seed), found["x"][rows], found["y"][rows])
    return cut_in_two(x, y, test_split)
