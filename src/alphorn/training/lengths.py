"""The lengths of a table's rows, and how far its padding is cut off."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from alphorn.core.masked import is_masked
from alphorn.training.ragged import Ragged
from alphorn.training.shapes import Shapes
from alphorn.training.trimming import Cut


def is_table_leaf(x: Any) -> bool:
    """Returns whether `x` is one table, not a structure of tables."""
    return is_masked(x) or isinstance(x, Ragged)


@dataclass
class _Column:
    """The lengths of all rows along one axis of one or several tables.

    Args:
        need: Of each row: how many steps hold all valid ones.
        most: The size of the axis; None for lists, which have none.
        front: Whether padding stands in front.
    """

    need: np.ndarray
    most: int | None = None
    front: bool = False


class Lengths:
    """The lengths of the rows of tables.

    Args:
        tables: Structures of arrays, Masked and Ragged.
        rows: How many rows they have.
    """

    def __init__(self, tables: Any, rows: int):
        leaves = jax.tree.leaves(tables, is_leaf=is_table_leaf)
        self.ragged = [leaf for leaf in leaves if isinstance(leaf, Ragged)]
        self.cut: list[Any] = []
        self.limited = False  # whether lists go where a number of steps is named
        self.margin = 0
        self.padding_cost = 1.0  # of a step that no row needs, as a share of a valid one
        self._rows = rows
        self._columns = [_Column(c) for leaf in self.ragged for c in leaf.sizes.T]
        self._places: dict[int, list[int]] = {}
        for leaf in self.ragged:
            start = sum(len(p) for p in self._places.values())
            self._places[id(leaf)] = list(range(start, start + leaf.levels))
        self._inputs = {id(leaf) for leaf in jax.tree.leaves(tables[0], is_leaf=is_table_leaf)}
        self._valid: dict[int, np.ndarray] = {}
        self._shapes: dict[Any, Shapes] = {}

    def __bool__(self) -> bool:
        return bool(self._columns)

    @property
    def needs(self) -> np.ndarray:
        """What each row needs, `(rows, columns)`."""
        return np.stack([c.need for c in self._columns], 1)

    @property
    def full(self) -> np.ndarray:
        """The sizes without any cut."""
        return np.array([c.need.max() if c.most is None else c.most for c in self._columns])

    def columns_of(self, leaf: Any) -> list[int]:
        """Returns which columns are the lengths of a table's axes."""
        return self._places.get(id(leaf), [])

    def add(self, leaves: Sequence[Any], cuts: Sequence[Cut], front: bool) -> None:
        """Lets arrays be cut.

        Args:
            leaves: The inputs of the model, in its order.
            cuts: Of them.
            front: Whether padding in front may go as well.
        """
        tied: dict[tuple[int, int], int] = {}
        for cut in cuts:
            leaf = leaves[cut.place]
            if isinstance(leaf, Ragged) or id(leaf) in self._places:
                continue
            valid = cut.valid(leaf)
            self._valid[id(leaf)] = valid.reshape(len(valid), -1).sum(1)
            places = []
            for axis in cut.axes:
                others = tuple(a for a in range(1, valid.ndim) if a != axis)
                present = np.asarray(valid.any(others))
                column = _column(present, front and len(cut.axes) == 1)
                place = tied.setdefault((axis, leaf.shape[axis]), len(self._columns))
                if place == len(self._columns):
                    self._columns.append(column)
                else:
                    self._columns[place] = _together(self._columns[place], column)
                places.append(place)
            self._places[id(leaf)] = places
            self.cut.append(leaf)
        self._shapes.clear()

    def limit(self, leaf: Ragged, sizes: Sequence[int | None], shorter: bool) -> None:
        """Has rows of a list padded to what a model names.

        Args:
            leaf: The rows.
            sizes: The model's, a number or None for each level.
            shorter: Whether less than that will do.
        """
        for place, size in zip(self.columns_of(leaf), sizes, strict=True):
            column = self._columns[place]
            if size is None or column.need.max(initial=0) > size:
                continue
            self.limited = True
            need = column.need if shorter else np.full_like(column.need, size)
            self._columns[place] = _Column(need, size)
        self._shapes.clear()

    def shapes(self, batch_size: int, order: str) -> Shapes:
        """Returns the shapes of batches, chosen once for each way in which rows come."""
        key = batch_size, order, self.margin, self.padding_cost
        if key not in self._shapes:
            needs = self.needs + self.margin
            self._shapes[key] = Shapes(needs, batch_size, order, self.padding_cost)
        return self._shapes[key]

    def covering(self, rows: np.ndarray, batch_size: int, order: str) -> np.ndarray:
        """Returns the sizes to which a batch of `rows` is cut or padded."""
        return self._within(self.shapes(batch_size, order).covering(rows))

    def largest(self, batch_size: int, order: str) -> np.ndarray:
        """Returns the largest sizes to which batches are cut or padded."""
        return self._within(self.shapes(batch_size, order).chosen[-1])

    def _within(self, sizes: np.ndarray) -> np.ndarray:
        most = [s if c.most is None else c.most for s, c in zip(sizes, self._columns, strict=True)]
        return np.minimum(sizes, most)

    def slices(self, columns: Sequence[int], sizes: Sequence[int]) -> list[slice]:
        """Returns what is left of the axes of an array."""
        found = []
        for place, size in zip(columns, sizes, strict=True):
            column = self._columns[place]
            assert column.most is not None
            found.append(slice(column.most - size, None) if column.front else slice(0, size))
        return found

    def stands_in_front(self, column: int) -> bool:
        """Returns whether padding of a column is cut in front."""
        return self._columns[column].front

    @property
    def front(self) -> bool:
        """Whether padding is cut in front."""
        return any(c.front for c in self._columns)

    def steps(self, rows: np.ndarray, sizes: Sequence[int] | np.ndarray) -> tuple[int, int, int]:
        """Returns how many steps of inputs rows have: padded to the longest, as cut, and valid."""
        padded = computed = valid = 0
        for leaf in (*self.ragged, *self.cut):
            if id(leaf) not in self._inputs:
                continue
            columns = self.columns_of(leaf)
            padded += len(rows) * math.prod(int(self.full[c]) for c in columns)
            computed += len(rows) * math.prod(int(sizes[c]) for c in columns)
            counts = leaf.counts if isinstance(leaf, Ragged) else self._valid[id(leaf)]
            valid += int(counts[rows].sum())
        return padded, computed, valid


def _column(present: np.ndarray, front: bool) -> _Column:
    """Returns the lengths of rows by `(rows, time)`, from the side that holds more padding."""
    steps = present.shape[1]
    some = present.any(1)
    stop = np.where(some, steps - present[:, ::-1].argmax(1), 0)
    start = np.where(some, present.argmax(1), steps)
    if front and start.sum() > (steps - stop).sum():
        return _Column(steps - start, steps, True)
    return _Column(stop, steps)


def _together(a: _Column, b: _Column) -> _Column:
    """Returns the column of two inputs that are cut alike."""
    if a.front == b.front:
        return _Column(np.maximum(a.need, b.need), a.most, a.front)
    assert a.most is not None
    return _Column(np.full_like(a.need, a.most), a.most)
