"""Python's lists of numbers: many of them read, many of them made."""

import gc
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["matrix_of_whole_numbers", "uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Lets Python's garbage collector rest while lists are made: it would look at each thrice."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def matrix_of_whole_numbers(
    rows: list[Any], width: int, gap_first: bool, cut_first: bool, kind: np.dtype
) -> np.ndarray | None:
    """Returns `(rows, width)`, 0 where a row has nothing; None for other than lists of small ints.

    Args:
        rows: To be lists of whole numbers from 0 up to what 32 bits hold.
        width: Longer rows are cut.
        gap_first, cut_first: Whether short rows are filled, and long ones cut, at their beginning.
        kind: Of the matrix: integers, floats or booleans.
    """
    if not width or set(map(type, rows)) != {list}:
        return None
    # Python's own arrays read integers in a third of the time that NumPy takes. Rows are read where
    # they are to stand, so that nothing is moved afterwards.
    numbers = array("I")
    read, fill = numbers.fromlist, numbers.frombytes
    zeros = memoryview(bytes(numbers.itemsize * width))
    try:
        for row in rows:
            length = len(row)
            if length > width:
                read(row[-width:] if cut_first else row[:width])
            elif gap_first:
                fill(zeros[numbers.itemsize * length :])
                read(row)
            else:
                read(row)
                fill(zeros[numbers.itemsize * length :])
    except (TypeError, OverflowError):
        return None
    matrix = np.frombuffer(numbers, np.uintc).reshape(len(rows), width)
    if kind.kind in "iu" and matrix.max() > np.iinfo(kind).max:
        return None
    return matrix.view(kind) if kind in (np.intc, np.uintc) else matrix.astype(kind)
