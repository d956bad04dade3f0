"""Rows of unequal lengths: lists until a batch is cut, then padded at the end to one of few shapes.

A shape is a compilation, and every step of padding is work: few shapes, close to what batches need.
"""

import copy
from typing import Any

import numpy as np

from alphorn.core.masked import Masked
from alphorn.errors import DataError

# Shapes that a table's batches are padded to, and what another one must save to be worth it.
_MOST_SHAPES = 4
_LEAST_GAIN = 0.05
_BATCHES_A_SHAPE = 8
_SAMPLE = 256


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

    def part(self, rows: slice) -> "Ragged":
        """Returns some of the rows, as a view."""
        part = copy.copy(self)
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


def rounded_up(sizes: Any) -> np.ndarray:
    """Returns sizes rounded up to three binary digits: at most a quarter more, and seldom new.

    >>> rounded_up([3, 9, 30, 200]).tolist()
    [3, 10, 32, 224]
    """
    sizes = np.maximum(np.asarray(sizes, np.int64), 1)
    unit = 2 ** np.maximum(np.floor(np.log2(sizes)).astype(np.int64) - 2, 0)
    return -(-sizes // unit) * unit


class Shapes:
    """The few shapes that the batches of a table are padded to.

    Args:
        sizes: `(rows, levels)`, what each row needs.
        batch_size: Rows a batch.
        shuffled: Whether batches are drawn anew each epoch, or are the rows as they stand.

    >>> rows = np.array([[3]] * 300 + [[200]] * 20)
    >>> Shapes(rows, 10, shuffled=False).chosen.tolist()
    [[3], [200]]
    """

    def __init__(self, sizes: np.ndarray, batch_size: int, shuffled: bool):
        self.sizes, self.batch_size = sizes, batch_size
        whole = len(sizes) // batch_size
        if len(sizes) <= batch_size:
            self.chosen = rounded_up(sizes.max(0))[None]
            return
        if shuffled:  # of its own seed: the same table has the same shapes in every run
            rows = np.random.default_rng(0).integers(0, len(sizes), (_SAMPLE, batch_size))
        else:
            rows = np.arange(whole * batch_size).reshape(whole, batch_size)
        most = min(_MOST_SHAPES, 1 + whole // _BATCHES_A_SHAPE)
        self.chosen = _chosen(sizes[rows].max(1), sizes.max(0), most)

    def covering(self, index: Any) -> np.ndarray:
        """Returns the smallest of the shapes into which the rows at `index` fit."""
        if len(index) < self.batch_size:  # the last rows: one program more, not one a shape
            return self.chosen[-1]
        longest = self.sizes[index].max(0)
        return next(shape for shape in self.chosen if (shape >= longest).all())


def _chosen(longest: np.ndarray, largest: np.ndarray, most: int) -> np.ndarray:
    """Returns shapes for batches of which each needs a row of `longest`: greedily the best.

    The largest is always among them, and stands last.
    """
    columns, back = np.unique(np.vstack([longest, largest]), axis=1, return_inverse=True)
    longest, largest = columns[:-1], columns[-1]  # inputs of equal lengths are one
    steps = [
        np.unique(np.minimum(rounded_up(np.quantile(column, np.linspace(0, 1, 17))), top))
        for column, top in zip(longest.T, largest, strict=True)
    ]
    candidates = np.stack(np.meshgrid(*steps), -1).reshape(-1, len(largest))
    covers = (candidates[:, None] >= longest[None]).all(-1)
    volumes = candidates.prod(-1).astype(float)
    chosen, cost = [largest], np.full(len(longest), float(largest.prod()))
    while len(chosen) < most:
        costs = np.where(covers, np.minimum(volumes[:, None], cost), cost)
        best = costs.sum(1).argmin()
        if costs[best].sum() > (1 - _LEAST_GAIN) * cost.sum():
            break
        chosen.append(candidates[best])
        cost = costs[best]
    chosen.sort(key=lambda shape: shape.prod())
    return np.array(chosen)[:, back.reshape(-1)]


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
    if sample.dtype.kind in "OUS":
        raise DataError(
            f"{name}: rows of unequal lengths",
            received=f"{sample.reshape(-1)[0]!r} among the steps",
            expected="numbers",
            fix="turn words into ids by preprocessing.text.Tokenizer().texts_to_sequences",
        )
    if sample.dtype.kind == "f" or float in kinds:
        return np.float32
    return np.int32 if sample.dtype.kind in "iu" else sample.dtype


def _fill(data: np.ndarray, mask: np.ndarray, rows: Any, axes: int) -> None:
    for i, row in enumerate(rows):
        if not len(row):
            continue
        if axes == 1:
            data[i, : len(row)] = row
            mask[i, : len(row)] = True
        else:
            _fill(data[i], mask[i], row, axes - 1)
