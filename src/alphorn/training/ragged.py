"""Rows of unequal lengths: lists until a batch is cut, then padded at the end."""

import copy
import functools
import numbers
from typing import Any

import numpy as np

from alphorn.core.masked import Masked
from alphorn.errors import DataError
from alphorn.training.shapes import rounded_up


class Ragged:
    """Rows of unequal lengths: nested lists of numbers, or arrays that differ in their first axis.

    Args:
        rows: One sequence a row, nested as deep as documents of sentences of words.
        name: For errors.

    >>> documents = Ragged([[[3, 1], [2]], [[5, 6, 7]]])
    >>> documents.sizes.tolist()
    [[2, 2], [1, 3]]
    >>> documents.take([0], (2, 3)).mask.tolist()
    [[[True, True, False], [True, False, False]]]
    """

    def __init__(self, rows: list[Any], name: str = "x"):
        self.rows = rows
        self.levels = _depth(rows) - 1
        # (rows, levels): a row's own length, that of its longest part, ...
        self.sizes = np.array([_sizes(row, self.levels) for row in rows], np.int64)
        inner = np.asarray(_first_leaf(rows))
        self.inner_shape = inner.shape[1:] if inner.ndim > 1 else ()
        self.dtype = _number_type(rows, name)

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """How many steps each row has, those inside steps counted."""
        return np.array([_count(row, self.levels) for row in self.rows], np.int64)

    def part(self, rows: slice) -> "Ragged":
        """Returns some of the rows, as a view."""
        part = copy.copy(self)
        vars(part).pop("counts", None)
        part.rows, part.sizes = self.rows[rows], self.sizes[rows]
        return part

    def take(self, index: Any, sizes: Any = None) -> Masked:
        """Returns rows with their mask.

        Args:
            index: Which.
            sizes: What they are padded to, a number a level; by default what they need, rounded
                up to sizes that other batches are likely to share.
        """
        index = np.asarray(index)
        if sizes is None:
            sizes = rounded_up(self.sizes[index].max(0, initial=0))
        data = np.zeros((len(index), *sizes, *self.inner_shape), self.dtype)
        mask = np.zeros((len(index), *sizes), bool)
        _fill(data, mask, [self.rows[i] for i in index], self.levels)
        return Masked.trusted(data, mask)


def _depth(rows: Any) -> int:
    """Levels of nesting down to the steps: 2 for rows of steps, 3 for documents of sentences."""
    depth, level = 1, rows
    while True:
        inner: Any = next((r for r in level if not isinstance(r, list | tuple) or len(r)), None)
        if isinstance(inner, np.ndarray) or hasattr(inner, "__array__"):
            return depth + 1 if np.ndim(inner) else depth
        if not isinstance(inner, list | tuple):
            return depth
        depth, level = depth + 1, [v for r in level for v in r]


def _sizes(row: Any, levels: int) -> list[int]:
    if levels == 1:
        return [len(row)]
    inner = [_sizes(part, levels - 1) for part in row]
    return [len(row), *map(max, zip([0] * (levels - 1), *inner, strict=True))]


def _count(row: Any, levels: int) -> int:
    return len(row) if levels == 1 else sum(_count(part, levels - 1) for part in row)


def equal_lengths(rows: list[Any]) -> bool:
    """Returns whether rows make an array as they are."""
    if isinstance(_first_leaf(rows), np.ndarray):
        return all(np.shape(r) == np.shape(rows[0]) for r in rows)
    level = rows
    for _ in range(_depth(rows) - 1):
        if len({len(r) for r in level}) > 1:
            return False
        level = [v for r in level for v in r]
    return True


def _first_leaf(rows: Any) -> Any:
    while isinstance(rows, list | tuple) and len(rows):
        rows = next((r for r in rows if not isinstance(r, list | tuple) or len(r)), 0)
    return rows


def _number_type(rows: Any, name: str) -> Any:
    level = rows
    while level and isinstance(level[0], list | tuple):
        level = [v for r in level for v in r]
    sample = np.asarray(level[0]) if level else np.zeros(())
    kinds = {type(v) for v in level} if sample.ndim == 0 else set()
    strange = {kind for kind in kinds if not _is_number(kind)}
    if strange or sample.dtype.kind in "OUS":
        step = next((v for v in level if type(v) in strange), sample.reshape(-1)[0])
        raise DataError(
            f"{name}: rows of unequal lengths",
            received=f"{step!r} among the steps",
            expected="numbers",
            fix="turn words into ids by preprocessing.text.Tokenizer().texts_to_sequences",
        )
    if sample.dtype.kind == "f" or float in kinds:
        return np.float32
    return np.int32 if sample.dtype.kind in "iu" else sample.dtype


def _is_number(kind: type) -> bool:
    return not issubclass(kind, str | bytes) and (
        issubclass(kind, numbers.Number) or hasattr(kind, "__array__")
    )


def _fill(data: np.ndarray, mask: np.ndarray, rows: Any, axes: int) -> None:
    for i, row in enumerate(rows):
        if not len(row):
            continue
        if axes == 1:
            data[i, : len(row)] = row
            mask[i, : len(row)] = True
        else:
            _fill(data[i], mask[i], row, axes - 1)
