"""Boston housing: prices of 506 houses."""

import numpy as np

from alphorn.datasets.source import arrays_in, cut_in_two, fetched, shuffled

__all__ = ["load_data"]

_HASH = "f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5"
Part = tuple[np.ndarray, np.ndarray]


def load_data(
    path: str = "boston_housing.npz", test_split: float = 0.2, seed: int = 113
) -> tuple[Part, Part]:
    """Returns `(x_train, y_train), (x_test, y_test)`: 13 features a house, and its price.

    One of the features speaks of race: for lessons on ethics only; else use `california_housing`.

    Args:
        path: Name of the file in the cache.
        test_split: The share for the test.
        seed: Of the order.
    """
    found = arrays_in(fetched(path, "boston_housing.npz", _HASH))
    x, y = shuffled(np.random.RandomState(seed), found["x"], found["y"])
    return cut_in_two(x, y, test_split)
