"""Data for training and prediction, whatever form it comes in, as batches of arrays.

Lists of sequences of unequal lengths stay lists until a batch is cut; the batch is then padded at
the end to one of a few lengths and carries its mask.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from alphorn.core.masked import Masked, is_masked
from alphorn.errors import DataError
from alphorn.training.ragged import Ragged, Shapes, equal_lengths
from alphorn.training.workers import made_ahead, wants_workers


@dataclass(frozen=True)
class Batch:
    """Inputs, targets and weights of some rows; each a structure of arrays, or None."""

    x: Any
    y: Any = None
    weight: Any = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return jax.tree.leaves(self.x)[0].shape[0]


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


def is_table_leaf(x: Any) -> bool:
    """Returns whether `x` is one table, not a structure of tables."""
    return is_masked(x) or isinstance(x, Ragged)


def rows_in(table: Any) -> int | None:
    """Returns the number of rows of a table, or None for nothing."""
    leaves = jax.tree.leaves(table, is_leaf=is_table_leaf)
    return len(leaves[0]) if leaves else None


def take_rows(table: Any, index: Any, sizes: Iterator[Any] | None = None) -> Any:
    """Returns some rows of a table.

    Args:
        table: Arrays, Ragged, or a structure of them.
        index: A slice or integers.
        sizes: What each Ragged is padded to, in their order.
    """

    def take(leaf: Any) -> Any:
        if isinstance(leaf, Ragged):
            chosen = np.arange(len(leaf))[index] if isinstance(index, slice) else index
            return leaf.take(chosen, None if sizes is None else next(sizes))
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
        leaves = jax.tree.leaves(self.tables, is_leaf=is_table_leaf)
        self._ragged = [leaf for leaf in leaves if isinstance(leaf, Ragged)]
        self._shapes: dict[bool, Shapes] = {}

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-self.rows // self.batch_size)

    @property
    def ragged(self) -> bool:
        """Whether batches differ in their lengths."""
        return bool(self._ragged)

    def batch(self, index: Any, shuffled: bool = False) -> Batch:
        """Returns the rows at `index`, ragged ones padded to one of a few shapes.

        Args:
            index: A slice or integers.
            shuffled: Whether batches are drawn anew each epoch.
        """
        if not self._ragged:
            return Batch(*(take_rows(t, index) for t in self.tables))
        if shuffled not in self._shapes:
            sizes = np.concatenate([leaf.sizes for leaf in self._ragged], axis=1)
            self._shapes[shuffled] = Shapes(sizes, self.batch_size, shuffled)
        rows = np.arange(self.rows)[index] if isinstance(index, slice) else index
        ends = np.cumsum([leaf.levels for leaf in self._ragged])[:-1]
        sizes = iter(np.split(self._shapes[shuffled].covering(rows), ends))
        return Batch(*(take_rows(t, rows, sizes) for t in self.tables))

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

    def part(self, rows: slice) -> "Table":
        """Returns some of the rows, as a view."""

        def cut(leaf: Any) -> Any:
            return leaf.part(rows) if isinstance(leaf, Ragged) else take_rows(leaf, rows)

        x, y, weight = (jax.tree.map(cut, t, is_leaf=is_table_leaf) for t in self.tables)
        return Table(x, y, weight, self.batch_size)

    def blocks(self, order: np.ndarray | None, size: int) -> Iterator[tuple[Batch, int]]:
        """Yields `(rows of up to `size` whole batches, number of batches)`.

        Args:
            order: The order of the rows, None for as they stand.
            size: Batches a block; a last batch with fewer rows comes alone.
        """
        whole = self.rows // self.batch_size
        start = 0
        while start < self.rows:
            left = whole - start // self.batch_size
            count = min(size, left) if left > 0 else 1
            stop = min(start + count * self.batch_size, self.rows)
            index = slice(start, stop) if order is None else order[start:stop]
            yield self.batch(index, shuffled=order is not None), count
            start = stop


class Stream:
    """Data that comes by and by: a generator, a PyDataset, a loader of another library.

    Args:
        source: Yields `x`, `(x, y)` or `(x, y, sample_weight)`, each with its batch axis.
        steps: Batches an epoch; None for the source's own length, or until it ends.
    """

    ragged = True
    batch_size: int | None = None

    def __init__(self, source: Any, steps: int | None = None):
        self.source = source
        self.known = len(source) if hasattr(source, "__len__") else None
        if self.known is None:
            self.known = getattr(source, "num_batches", None)
        self.steps = steps or self.known
        # Batches whose order may be drawn: a PyDataset's. Others have an order of their own.
        self.rows = self.known if hasattr(source, "use_multiprocessing") else None
        self.iterator: Iterator[Any] | None = None

    def _next(self, order: np.ndarray | None) -> Iterator[Any]:
        numbers = itertools.count() if self.known is None else range(self.known)
        if order is not None:
            numbers = order.tolist()
        if hasattr(self.source, "__getitem__") and wants_workers(self.source):
            return made_ahead(self.source, numbers)
        if hasattr(self.source, "__getitem__") and self.known is not None:
            return (self.source[i] for i in numbers)
        if hasattr(self.source, "as_numpy_iterator"):
            return self.source.as_numpy_iterator()
        return iter(self.source)

    def blocks(self, order: np.ndarray | None, size: int) -> Iterator[tuple[Batch, int]]:
        """Yields batches one at a time; a source that never ends goes on where it was.

        Args:
            order: The order of a PyDataset's batches, None for as they stand.
            size: 1.
        """
        if hasattr(self.source, "on_epoch_begin"):
            self.source.on_epoch_begin()
        unnumbered = getattr(self.source, "num_batches", 0) is None
        endless = self.known is None and (iter_is_self(self.source) or unnumbered)
        if self.iterator is None or not endless:
            self.iterator = self._next(order)
        seen = 0
        while self.steps is None or seen < self.steps:
            item = next(self.iterator, _END)
            if item is _END:
                break
            yield as_batch(item), 1
            seen += 1
        if hasattr(self.source, "on_epoch_end"):
            self.source.on_epoch_end()


_END = object()


def iter_is_self(source: Any) -> bool:
    """Returns whether `source` is an iterator, which cannot start again."""
    return isinstance(source, Iterator)


def as_batch(item: Any) -> Batch:
    """Returns what a stream yielded as a Batch."""
    parts = item if isinstance(item, tuple) else (item,)
    if not 1 <= len(parts) <= 3:
        raise DataError(
            "a batch from the data",
            received=f"a tuple of {len(parts)}",
            expected="x, (x, y) or (x, y, sample_weight)",
        )
    names = ("x", "y", "sample_weight")
    tables = [_whole(as_table(p, n)) for p, n in zip(parts, names, strict=False)]
    return Batch(*tables)


def _whole(table: Any) -> Any:
    return jax.tree.map(
        lambda leaf: leaf.take(range(len(leaf))) if isinstance(leaf, Ragged) else leaf,
        table,
        is_leaf=is_table_leaf,
    )


def is_stream(x: Any) -> bool:
    """Returns whether `x` yields batches, and is no table of rows."""
    if is_table(x) or isinstance(x, list | tuple | dict | Ragged) or x is None:
        return False
    return isinstance(x, Iterable) or hasattr(x, "__getitem__")


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
