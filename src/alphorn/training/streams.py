"""Data that come by and by: generators, PyDatasets, loaders of other libraries."""

import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from alphorn.errors import DataError
from alphorn.training.data import Batch, Block, as_table, is_table, is_table_leaf
from alphorn.training.ragged import Ragged
from alphorn.training.workers import made_ahead, wants_workers


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
        self.iterator: Iterator[Any] | None = None
        self._begun: int | None = None

    @property
    def endless(self) -> bool:
        """Whether the source cannot start again: an epoch goes on where the last one ended."""
        unnumbered = getattr(self.source, "num_batches", 0) is None
        return self.known is None and (iter_is_self(self.source) or unnumbered)

    def order(self, kind: str, random: Any = None, longest_first: bool = False) -> Any:
        """Returns the order of batches of one epoch, None for as they stand.

        Only that of a PyDataset may be drawn: other sources have an order of their own.

        Args:
            kind: As in `Shapes`.
            random: Decides what is drawn.
            longest_first: Of rows alone.
        """
        drawn = kind == "shuffled" and self.known and hasattr(self.source, "use_multiprocessing")
        return random.permutation(self.known) if drawn else None

    def _next(self, numbers: Iterable[int]) -> Iterator[Any]:
        if self._by_number:
            ahead = wants_workers(self.source)
            return made_ahead(self.source, numbers) if ahead else (self.source[i] for i in numbers)
        if hasattr(self.source, "as_numpy_iterator"):
            return self.source.as_numpy_iterator()
        return iter(self.source)

    def blocks(
        self, rows: np.ndarray | None, size: int, order: str = "", grouping: None = None
    ) -> Iterator[Block]:
        """Yields batches one at a time; a source that never ends goes on where it was.

        Args:
            rows: The order of a PyDataset's batches, None for as they stand.
            size: 1.
            order: Of what kind that order is, as in `Shapes`.
        """
        if self._begun is None:
            self.begin(rows)
        for item in self._items():
            yield Block(partial(as_batch, item))
        if hasattr(self.source, "on_epoch_end"):
            self.source.on_epoch_end()

    def begin(self, rows: np.ndarray | None, skip: int = 0) -> None:
        """Begins an epoch behind its first batches; `blocks` goes on there.

        Args:
            rows: As in `blocks`.
            skip: How many batches. Those that a source makes by number are not made.
        """
        if hasattr(self.source, "on_epoch_begin"):
            self.source.on_epoch_begin()
        self._begun = skip
        if self.iterator is None or not self.endless:
            numbers = itertools.count() if self.known is None else range(self.known)
            if rows is not None:
                numbers = rows.tolist()
            if self._by_number:
                numbers, skip = itertools.islice(numbers, skip, None), 0
            self.iterator = self._next(numbers)
        for _ in range(skip):
            next(self.iterator, None)

    def replay(self, epochs: int) -> Batch:
        """Does again what some epochs have done to the source; returns a batch of it, for shapes.

        An iterator's batches are drawn and thrown away; `on_epoch_begin` and `on_epoch_end` of a
        PyDataset are called.
        """
        item: Any = _END
        for _ in range(epochs):
            if self.endless:
                self.begin(None)
                for last in self._items():
                    item = last
            elif hasattr(self.source, "on_epoch_begin"):
                self.source.on_epoch_begin()
            if hasattr(self.source, "on_epoch_end"):
                self.source.on_epoch_end()
        if not self.endless:
            item = next(iter(self._next(range(1))), _END)
        elif item is _END:
            self.iterator = (
                self._next(itertools.count()) if self.iterator is None else self.iterator
            )
            item = next(self.iterator, _END)
            self.iterator = itertools.chain([item], self.iterator)
        if item is _END:
            raise DataError("fit", received="no batches", expected="at least one")
        return as_batch(item)

    @property
    def _by_number(self) -> bool:
        indexed = hasattr(self.source, "__getitem__")
        return indexed and (wants_workers(self.source) or self.known is not None)

    def _items(self) -> Iterator[Any]:
        """Yields what is left of the epoch that has begun."""
        seen, self._begun = self._begun or 0, None
        assert self.iterator is not None
        while self.steps is None or seen < self.steps:
            item = next(self.iterator, _END)
            if item is _END:
                return
            yield item
            seen += 1


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
