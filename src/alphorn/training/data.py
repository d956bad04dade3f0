"""Data for training and prediction, whatever form it comes in, as batches of arrays.

Lists of sequences of unequal lengths stay lists until a batch is cut; the batch is then padded at
the end to one of a few lengths and carries its mask. Padded arrays are cut to such lengths, where
`trimming` shows that this changes nothing.
"""

import copy
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from alphorn.core.masked import Masked
from alphorn.errors import DataError
from alphorn.training.groups import Grouping, Groups
from alphorn.training.lengths import Lengths, is_table_leaf
from alphorn.training.ragged import Ragged, equal_lengths
from alphorn.training.shapes import grouped_rows, sorted_rows


@dataclass(frozen=True)
class Batch:
    """Inputs, targets and weights of some rows; each a structure of arrays, or None.

    Args:
        x, y, weight: The rows.
        groups: Those in which the model runs on them, where they stand by length.
    """

    x: Any
    y: Any = None
    weight: Any = None
    groups: Groups | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return jax.tree.leaves(self.x)[0].shape[0]


@dataclass(frozen=True)
class Block:
    """One batch, or several of one shape one after another, taken when they are first asked for.

    Args:
        take: Returns their rows.
        count: How many batches.
        rows: Which rows of the table; None where there is no table.
        sizes: What they are cut or padded to, a number for each of the table's lengths.
        groups: As of their Batch.
        steps: Of a stream's inputs: as they were given, as they run, and valid; None where no table
            of lengths is behind them.
    """

    take: Callable[[], Batch]
    count: int = 1
    rows: np.ndarray | None = None
    sizes: np.ndarray | None = None
    groups: Groups | None = None
    steps: tuple[int, int, int] | None = None

    @cached_property
    def batch(self) -> Batch:
        """The rows."""
        return self.take()

    @property
    def program(self) -> Hashable:
        """What tells which program runs it."""
        sizes = None if self.sizes is None else tuple(self.sizes.tolist())
        rows = self.batch.rows if self.rows is None else len(self.rows)
        return sizes, rows, self.count, self.groups


def as_table(value: Any, name: str, inputs: int = 1) -> Any:
    """Returns data in a form that rows can be taken from: arrays, Ragged, or structures of them.

    Args:
        value: Arrays, lists, dicts, pandas objects, Masked.
        name: For errors.
        inputs: How many inputs the model has: a list of as many arrays is one for each.
    """
    if value is None or isinstance(value, np.ndarray | jax.Array | Masked | Ragged):
        return _plain_numbers(value, name)
    if isinstance(value, dict):
        return {k: as_table(v, f"{name}['{k}']") for k, v in value.items()}
    if hasattr(value, "to_numpy"):
        return _plain_numbers(value.to_numpy(), name)
    if isinstance(value, list | tuple):
        arrays = bool(value) and all(is_table(v) for v in value)
        if arrays and (isinstance(value, tuple) or len(value) == inputs):
            return type(value)(as_table(v, f"{name}[{i}]") for i, v in enumerate(value))
        if inputs > 1 and len(value) == inputs:
            return [as_table(v, f"{name}[{i}]") for i, v in enumerate(value)]
        return _rows_of_list(list(value), name)
    if hasattr(value, "__array__"):
        return _plain_numbers(np.asarray(value), name)
    raise DataError(
        name,
        received=f"{type(value).__name__}",
        expected="an array, a list of sequences, a dict of them, a DataFrame or a generator",
    )


def is_table(value: Any) -> bool:
    """Returns whether `value` is one array, Masked or pandas object."""
    return isinstance(value, np.ndarray | jax.Array | Masked) or hasattr(value, "to_numpy")


def _rows_of_list(rows: list[Any], name: str) -> Any:
    if rows and not isinstance(rows[0], list | tuple) and np.ndim(rows[0]) == 0:
        return _plain_numbers(np.asarray(rows), name)
    if rows and equal_lengths(rows):
        return _plain_numbers(np.asarray(rows), name)
    return Ragged(rows, name)


def _plain_numbers(value: Any, name: str) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            if value.ndim == 1 and len(value) and np.ndim(value[0]):
                return Ragged(list(value), name)
            try:
                value = value.astype(np.float32)
            except (TypeError, ValueError):
                strange = next((v for v in value.reshape(-1) if not _is_number(v)), value)
                raise DataError(
                    name,
                    received=f"an object array holding {strange!r}",
                    expected="numbers",
                    fix="encode categories and text as numbers first",
                ) from None
        if value.dtype.kind in "US":
            raise DataError(
                name,
                received=f"text: {value.reshape(-1)[:1]}",
                expected="numbers",
                fix="turn words into ids by preprocessing.text.Tokenizer",
            )
        if value.dtype == np.float64:
            return value.astype(np.float32)
        if value.dtype in (np.int64, np.uint64):
            return value.astype(np.int32)
    return value


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def rows_in(table: Any) -> int | None:
    """Returns the number of rows of a table, or None for nothing."""
    leaves = jax.tree.leaves(table, is_leaf=is_table_leaf)
    return len(leaves[0]) if leaves else None


def take_rows(table: Any, index: Any) -> Any:
    """Returns some rows of a table: arrays, Ragged, or a structure of them.

    Args:
        table: The table.
        index: A slice or integers.
    """

    def take(leaf: Any) -> Any:
        if isinstance(leaf, Ragged):
            return leaf.take(np.arange(len(leaf))[index] if isinstance(index, slice) else index)
        if isinstance(leaf, Masked):
            return Masked.trusted(leaf.data[index], leaf.mask[index])
        return leaf[index]

    return jax.tree.map(take, table, is_leaf=is_table_leaf)


class Table:
    """Data that is all there: rows in memory, cut into batches in any order.

    Args:
        x, y, weight: What `fit` got.
        batch_size: Rows a batch.
        inputs, outputs: How many the model has.

    Raises:
        DataError: no rows, or x, y and weight of unequal numbers of rows.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weight: Any = None,
        batch_size: int | None = None,
        inputs: int = 1,
        outputs: int = 1,
    ):
        self.counts = inputs, outputs
        self.tables = (
            as_table(x, "x", inputs),
            as_table(y, "y", outputs),
            as_table(weight, "sample_weight", outputs),
        )
        self.batch_size = 32 if batch_size is None else batch_size
        if not isinstance(self.batch_size, int | np.integer) or self.batch_size < 1:
            raise DataError(
                "batch_size", received=batch_size, expected="a whole number, at least 1"
            )
        counts: dict[str, int] = {}
        for name, table in zip(("x", "y", "sample_weight"), self.tables, strict=True):
            for leaf in jax.tree.leaves(table, is_leaf=is_table_leaf):
                if np.ndim(leaf) == 0 and not isinstance(leaf, Ragged):
                    raise DataError(name, received=f"{leaf!r}", expected="an array of rows")
                counts.setdefault(name, len(leaf))
                if len(leaf) != counts[name] or counts[name] != next(iter(counts.values())):
                    raise DataError(
                        "the data have unequal numbers of rows",
                        received=", ".join(
                            f"{k}: {v}" for k, v in {**counts, name: len(leaf)}.items()
                        ),
                        expected="as many targets and weights as inputs",
                    )
        self.rows = next(iter(counts.values()), 0)
        if not self.rows:
            raise DataError("the data are empty", received="0 rows", expected="at least 1")
        self.lengths = Lengths(self.tables, self.rows)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-self.rows // self.batch_size)

    @property
    def ragged(self) -> bool:
        """Whether rows come as lists of unequal lengths."""
        return bool(self.lengths.ragged)

    def batch(self, index: Any, order: str = "as they stand") -> Batch:
        """Returns the rows at `index`, cut or padded to one of a few shapes.

        Args:
            index: A slice or integers.
            order: How rows come, as in `Shapes`.
        """
        if not self.lengths:
            return Batch(*(take_rows(t, index) for t in self.tables))
        rows = np.arange(self.rows)[index] if isinstance(index, slice) else index
        return self.cut_to(rows, self.lengths.covering(rows, self.batch_size, order))

    def whole(self, index: Any) -> Batch:
        """Returns the rows at `index` with all their padding."""
        if not self.lengths.cut:
            return self.batch(index)
        rows = np.arange(self.rows)[index] if isinstance(index, slice) else index
        return self.cut_to(rows, self.lengths.full)

    def cut_to(self, rows: np.ndarray, sizes: np.ndarray) -> Batch:
        """Returns rows, their lengths cut or padded to `sizes`."""

        def take(leaf: Any, whole: bool) -> Any:
            columns = self.lengths.columns_of(leaf)
            wanted = [int(sizes[c]) for c in columns]
            if isinstance(leaf, Ragged):
                return leaf.take(rows, wanted)
            if whole or not columns:  # an array may be inputs and targets
                return take_rows(leaf, rows)
            at = self.lengths.slices(columns, wanted)
            if isinstance(leaf, Masked):
                mask = np.asarray(leaf.mask)[(slice(None), *at)][rows]
                return Masked.trusted(np.asarray(leaf.data)[(slice(None), *at)][rows], mask)
            return leaf[(slice(None), *at)][rows]

        x, *others = self.tables
        parts = [(x, False), *((t, True) for t in others)]
        return Batch(
            *(
                jax.tree.map(partial(take, whole=whole), t, is_leaf=is_table_leaf)
                for t, whole in parts
            )
        )

    def split(self, fraction: float) -> tuple["Table", "Table"]:
        """Returns the first rows, and the last `fraction` of them."""
        cut = int(self.rows * (1 - fraction))
        if not 0 < fraction < 1 or not 0 < cut < self.rows:
            raise DataError(
                "validation_split",
                received=f"{fraction} of {self.rows} rows",
                expected="a fraction that leaves rows on both sides",
            )
        return self.part(slice(0, cut)), self.part(slice(cut, None))

    def merged(self, batch_size: int) -> "Table":
        """Returns the same rows in batches of another size, as a view."""
        table = copy.copy(self)
        table.batch_size = batch_size
        return table

    def part(self, rows: slice) -> "Table":
        """Returns some of the rows, as a view."""

        def cut(leaf: Any) -> Any:
            return leaf.part(rows) if isinstance(leaf, Ragged) else take_rows(leaf, rows)

        x, y, weight = (jax.tree.map(cut, t, is_leaf=is_table_leaf) for t in self.tables)
        return Table(x, y, weight, self.batch_size, *self.counts)

    def order(self, kind: str, random: Any = None, longest_first: bool = False) -> Any:
        """Returns the order of rows of one epoch, None for as they stand.

        Args:
            kind: As in `Shapes`.
            random: Decides what is drawn.
            longest_first: Whether a grouped order begins with the longest batch.
        """
        if kind == "shuffled":
            return random.permutation(self.rows)
        if kind == "sorted":
            return sorted_rows(self.lengths.needs)
        if kind == "grouped":
            return grouped_rows(self.batch_size, random, longest_first)(self.lengths.needs)
        return None

    def blocks(
        self,
        rows: Any,
        size: int,
        order: str = "as they stand",
        grouping: Grouping | None = None,
    ) -> Iterator[Block]:
        """Yields up to `size` whole batches of one shape at a time.

        Args:
            rows: The order of the rows, or of some of them; None for as they stand.
            size: Batches a block; a last batch with fewer rows comes alone.
            order: Of what kind that order is, as in `Shapes`.
            grouping: How batches are parted, which then come one by one.
        """
        rows = np.arange(self.rows) if rows is None else rows
        whole = len(rows) // self.batch_size
        run: list[np.ndarray] = []
        shape: Any = None
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            now = self._shape(part, order)
            if run and (len(run) == size or now != shape or start == whole * self.batch_size):
                yield self._block(run, order, grouping)
                run = []
            run.append(part)
            shape = now
        if run:
            yield self._block(run, order, grouping)

    def _shape(self, rows: np.ndarray, order: str) -> Any:
        if not self.lengths:
            return None
        return self.lengths.covering(rows, self.batch_size, order).tolist()

    def _block(self, run: list[np.ndarray], order: str, grouping: Grouping | None) -> Block:
        rows, groups = np.concatenate(run), None
        if not self.lengths:
            return Block(partial(self.batch, rows), len(run), rows)
        sizes = self.lengths.covering(run[0], self.batch_size, order)
        if grouping is not None:
            rows, groups = grouping.of(rows, sizes)

        def take() -> Batch:
            return replace(self.cut_to(rows, sizes), groups=groups)

        return Block(take, len(run), rows, sizes, groups)


def class_weights(y: Any, weight: Any, table: dict[int, float], one_hot: bool) -> Any:
    """Returns sample weights with the weight of each row's (or step's) class multiplied in.

    Args:
        y: The labels of one output.
        weight: Of rows or steps, or None.
        table: Weights by class number; 1 for those that are not in it.
        one_hot: Whether the last axis of the labels is that of the classes.
    """
    if not (isinstance(y, Masked) or hasattr(y, "__array__")):
        raise DataError(
            "class_weight",
            received="no targets" if y is None else f"targets of {len(y)} outputs",
            expected="the labels of one output",
            fix="write the weights as sample_weight, one array for each output",
        )
    labels = np.asarray(y.data if isinstance(y, Masked) else y)
    if one_hot and labels.shape[-1] > 1:
        labels = labels.argmax(-1)
    elif labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    found = np.vectorize(lambda c: table.get(int(c), 1.0), otypes=[np.float32])(labels)
    return (
        found
        if weight is None
        else found
        * np.asarray(weight, np.float32).reshape(
            np.shape(weight) + (1,) * (found.ndim - np.ndim(weight))
        )
    )
