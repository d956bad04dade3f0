"""Batches in a drawn order, epoch after epoch; those to come are made on threads meanwhile."""

import os
import threading
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator as Endless
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, StateError

__all__ = ["Iterator"]


@dataclass
class _Ahead:
    """A batch that is being made: its place, where its random numbers came from, the work."""

    index: int
    random: Any
    work: Future


class Iterator:
    """Batches of `n` rows: `iterator[i]` in `fit`, `next(iterator)` by hand, without an end.

    Args:
        n: Rows.
        batch_size: Rows a batch; the last of an epoch may have fewer.
        shuffle: Whether rows are drawn in a new order each epoch.
        seed: Makes order and transforms the same each time; batch `k` since the beginning draws
            from `seed + k`. None for NumPy's global generator.

    A class of one's own writes `_get_batches_of_transformed_samples(index_array)`.

    Attributes:
        batch_index: The next batch's place in the epoch, for `next`.
        total_batches_seen: Batches since the beginning.
        index_array: The order of the rows in this epoch.
        workers: Threads that make batches ahead of `fit`.
        max_queue_size: How many batches are made ahead.
    """

    white_list_formats = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
    max_queue_size = 4

    def __init__(self, n: int, batch_size: int, shuffle: bool, seed: int | None):
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ArgumentError("batch_size", repr(batch_size), "a whole number, at least 1")
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.batch_index = 0
        self.total_batches_seen = 0
        self.lock = threading.RLock()
        self.index_array: Any = None
        self.index_generator = self._flow_index()
        self.workers = min(4, os.cpu_count() or 1)
        self._random: Any = np.random
        self._last = -1
        self._ahead: deque[_Ahead] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return -(-self.n // self.batch_size)

    def __getitem__(self, idx: int) -> Any:
        """Returns batch `idx` of this epoch."""
        size = len(self)
        if not -size <= idx < size:
            raise ArgumentError(f"batch {idx}", received=f"{size} batches", expected="one of them")
        idx %= size
        with self.lock:
            in_order = idx == self._last + 1
            self._last = idx
            if self._ahead and self._ahead[0].index != idx:
                self._forget_ahead()
            if self._ahead:
                self._top_up(idx + 1)
                batch = self._ahead.popleft()
                self._random = batch.random
            elif self._can_look_ahead() and in_order and idx:
                self._top_up(idx)
                batch = self._ahead.popleft()
                self._random = batch.random
            else:
                self._begin_batch()
                return self._get_batches_of_transformed_samples(self._rows_of(idx))
        return batch.work.result()

    def on_epoch_end(self) -> None:
        """Draws the order of the next epoch."""
        with self.lock:
            self._forget_ahead()
            self._last = -1
            self._set_index_array()

    def reset(self) -> None:
        """Starts the epoch of `next` again."""
        self.batch_index = 0

    def __iter__(self) -> "Iterator":
        """Returns itself: it has no end."""
        return self

    def __next__(self) -> Any:
        """Returns the next batch."""
        return self.next()

    def next(self) -> Any:
        """Returns the next batch."""
        with self.lock:
            self._forget_ahead()
            return self._get_batches_of_transformed_samples(next(self.index_generator))

    def _set_index_array(self) -> None:
        self.index_array = self._random.permutation(self.n) if self.shuffle else np.arange(self.n)

    def _begin_batch(self) -> None:
        if self.seed is not None:
            self._random = self._seeded(self.seed + self.total_batches_seen)
        self.total_batches_seen += 1

    def _seeded(self, seed: int) -> Any:
        """Returns where random numbers come from after `seed`.

        What a class of one's own draws comes from NumPy's global generator.
        """
        np.random.seed(seed)
        return np.random

    def _rows_of(self, idx: int) -> np.ndarray:
        if self.index_array is None:
            self._set_index_array()
        order: Any = self.index_array
        return order[self.batch_size * idx : self.batch_size * (idx + 1)]

    def _flow_index(self) -> Endless[np.ndarray]:
        self.reset()
        while True:
            self._begin_batch()
            if self.batch_index == 0:
                self._set_index_array()
            start = self.batch_index * self.batch_size % self.n if self.n else 0
            more = self.n > start + self.batch_size
            self.batch_index = self.batch_index + 1 if more else 0
            yield self.index_array[start : start + self.batch_size]

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        """Returns the batch of some rows: what a class of one's own writes."""
        raise StateError(
            f"{type(self).__name__} does not say how a batch is made",
            fix="write its method _get_batches_of_transformed_samples(self, index_array)",
        )

    def _can_look_ahead(self) -> bool:
        """Returns whether batches may be made before they are asked for, with the same numbers."""
        return False

    def _planned(self, index_array: np.ndarray) -> Callable[[], Any]:
        """Returns what makes a batch, with all that is random already drawn."""
        return lambda: self._get_batches_of_transformed_samples(index_array)

    def _threads(self) -> int:
        return self.workers

    def _top_up(self, idx: int) -> None:
        """Has batches made from `idx` on that are not under way, none beyond this epoch."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads(), "alphorn-images")
        first = self._ahead[-1].index + 1 if self._ahead else idx
        for index in range(first, min(idx + 1 + self.max_queue_size, len(self))):
            self._begin_batch()
            work = self._planned(self._rows_of(index))
            self._ahead.append(_Ahead(index, self._random, self._pool.submit(work)))

    def _forget_ahead(self) -> None:
        for batch in self._ahead:
            batch.work.cancel()
        self.total_batches_seen -= len(self._ahead)
        self._ahead.clear()

    def __getstate__(self) -> dict:
        """Returns what a copy needs: no threads, and no batches that are being made."""
        with self.lock:
            state = dict(self.__dict__)
            state["total_batches_seen"] -= len(self._ahead)
        for name in ("lock", "index_generator", "_ahead", "_pool", "_random"):
            del state[name]
        return state

    def __setstate__(self, state: dict) -> None:
        """Makes a copy."""
        self.__dict__.update(state)
        self.lock = threading.RLock()
        self._ahead, self._pool, self._random = deque(), None, np.random
        place = self.batch_index
        self.index_generator = self._flow_index()
        self.batch_index = place
