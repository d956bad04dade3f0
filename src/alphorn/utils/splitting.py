"""Data in two parts."""

import random
from typing import Any

import jax
import numpy as np

from alphorn.errors import ArgumentError, ShapeError


def split_dataset(
    dataset: Any,
    left_size: float | None = None,
    right_size: float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Returns data in two parts, each in the form in which it came.

    Args:
        dataset: An array, or arrays with one row for each other's in a tuple, list or dict; or a
            list of rows, of unequal lengths too.
        left_size, right_size: Of the parts: a number of rows, or a fraction. One is enough.
        shuffle: Whether rows are put in a random order first.
        seed: Of the order.

    Raises:
        ArgumentError: sizes that mean nothing, or leave a part empty.
        ShapeError: arrays of unequal numbers of rows.

    `fit` takes the parts: `model.fit(*left, validation_data=right)` for a tuple `(x, y)`.

    >>> left, right = split_dataset((np.arange(5), np.arange(5) * 10), left_size=0.6)
    >>> left, right
    ((array([0, 1, 2]), array([ 0, 10, 20])), (array([3, 4]), array([30, 40])))
    """
    listed = isinstance(dataset, list) and not any(hasattr(part, "shape") for part in dataset)
    arrays = [np.arange(len(dataset))] if listed else jax.tree.leaves(dataset)
    if not arrays or not all(hasattr(array, "shape") for array in arrays):
        raise ArgumentError(
            "split_dataset: dataset",
            received=f"{type(dataset).__name__}",
            expected="arrays, or a list of rows",
        )
    rows = {len(array) for array in arrays}
    if len(rows) != 1:
        raise ShapeError(
            "split_dataset: arrays of unequal numbers of rows",
            received=", ".join(str(len(array)) for array in arrays),
            expected="one row for each row",
        )
    count = rows.pop()
    left, right = _sizes(left_size, right_size, count)
    order = list(range(count))
    if shuffle:
        random.Random(seed).shuffle(order)

    def part(chosen: list[int]) -> Any:
        if listed:
            return [dataset[i] for i in chosen]
        return jax.tree.map(lambda array: array[np.array(chosen)], dataset)

    return part(order[:left]), part(order[count - right :])


def _sizes(left: float | None, right: float | None, count: int) -> tuple[int, int]:
    def rows(name: str, size: float) -> int:
        fraction = isinstance(size, float)
        if not (0 < size < 1 if fraction else 0 < size < count):
            raise ArgumentError(
                f"split_dataset: {name}",
                received=f"{size} of {count} rows",
                expected=f"a fraction between 0 and 1, or a number of rows from 1 to {count - 1}",
            )
        return round(size * count) if fraction else int(size)

    if left is None and right is None:
        raise ArgumentError("split_dataset: left_size, right_size", "None", "one of the two")
    first = None if left is None else rows("left_size", left)
    second = None if right is None else rows("right_size", right)
    if first is None or second is None:
        first = count - second if first is None and second is not None else first
        second = count - first if second is None and first is not None else second
    assert first is not None and second is not None
    if first + second > count or not first or not second:
        raise ArgumentError(
            "split_dataset",
            received=f"left_size={left}, right_size={right} of {count} rows",
            expected="two parts with rows in each, which do not overlap",
        )
    return first, second
