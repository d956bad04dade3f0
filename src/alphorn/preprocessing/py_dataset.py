"""A dataset that makes each batch when it is asked for."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from alphorn.errors import StateError


class PyDataset:
    """Batches made by Python code: write `__getitem__`, which makes one, and `__len__`.

    `fit`, `evaluate` and `predict` take it. In place of `__len__` there may be a property
    `num_batches`, which is None for batches without end. `on_epoch_begin` and `on_epoch_end` may be
    written, too, e.g. to reorder.

    Args:
        workers: How many threads or processes make batches in `fit`; 1 for none.
        use_multiprocessing: Processes in place of threads; the dataset must be picklable, and
            a script must start its work under `if __name__ == "__main__":`.
        max_queue_size: How many batches are made ahead.

    >>> class Squares(PyDataset):
    ...     def __len__(self):
    ...         return 3
    ...
    ...     def __getitem__(self, index):
    ...         return index**2
    >>> list(Squares(workers=2))
    [0, 1, 4]
    """

    # For subclasses that do not call this __init__.
    workers: int = 1
    use_multiprocessing: bool = False
    max_queue_size: int = 10

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ):
        self.workers, self.use_multiprocessing = workers, use_multiprocessing
        self.max_queue_size = max_queue_size

    def __getitem__(self, index: int) -> Any:
        """Returns batch `index`; to be written."""
        raise StateError(
            f"{type(self).__name__} cannot make batches", fix="write __getitem__(self, index)"
        )

    @property
    def num_batches(self) -> int | None:
        """The number of batches, None if there is no end."""
        if hasattr(self, "__len__"):
            return len(self)  # pyright: ignore[reportArgumentType]
        raise StateError(
            f"{type(self).__name__} does not say how many batches there are",
            fix="write __len__(self), or a property num_batches that is None for no end",
        )

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches in their order, made here."""
        batches = self.num_batches
        return (self[i] for i in (count() if batches is None else range(batches)))

    def on_epoch_begin(self) -> None:
        """Is called before each epoch."""

    def on_epoch_end(self) -> None:
        """Is called after each epoch."""
