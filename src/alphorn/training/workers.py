"""Batches made ahead by threads or processes, and handed out in their order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent import futures
from importlib import import_module
from itertools import islice
from typing import Any


def wants_workers(source: Any) -> bool:
    """Returns whether a dataset asks for its batches to be made by others, as a PyDataset may.

    Iterators of images have workers too, and threads of their own for them.
    """
    if not hasattr(source, "use_multiprocessing"):
        return False
    return source.workers > 1 or (source.workers > 0 and source.use_multiprocessing)


def set_workers(source: Any, workers: int = 1, max_queue_size: int = 10, **_: Any) -> None:
    """Has the batches of a PyDataset made by threads, as arguments of Keras 2 ask for.

    Args:
        source: Data of any form; others than a PyDataset make their batches themselves.
        workers: How many.
        max_queue_size: How many batches are made ahead.
        **_: `use_multiprocessing`: threads give the same batches, and processes would run a
            program without `if __name__ == "__main__":` again.
    """
    if workers > 1 and hasattr(source, "use_multiprocessing") and not wants_workers(source):
        source.workers, source.max_queue_size = workers, max_queue_size


def made_ahead(source: Any, numbers: Iterable[int]) -> Iterator[Any]:
    """Yields `source[number]` for each number, made by `source.workers` threads or processes.

    Args:
        source: A PyDataset.
        numbers: Of the batches, in the order in which they come; there may be no end.

    At most `source.max_queue_size` batches wait. Processes are started afresh, not forked: JAX has
    threads, which a fork would not survive.
    """
    numbers = iter(numbers)
    with _executor(source) as executor:
        make = _make if source.use_multiprocessing else source.__getitem__
        waiting: deque[Any] = deque()
        try:
            for number in islice(numbers, max(source.max_queue_size, source.workers)):
                waiting.append(executor.submit(make, number))
            while waiting:
                batch = waiting.popleft().result()
                for number in islice(numbers, 1):
                    waiting.append(executor.submit(make, number))
                yield batch
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def _executor(source: Any) -> futures.Executor:
    # Threads and processes are imported when they are asked for: they cost 10 ms.
    if not source.use_multiprocessing:
        return futures.ThreadPoolExecutor(source.workers)
    context = import_module("multiprocessing").get_context("spawn")
    return futures.ProcessPoolExecutor(
        source.workers, context, initializer=_take, initargs=(source,)
    )


_held: list[Any] = []  # in a worker process: the dataset, sent once


def _take(source: Any) -> None:
    _held[:] = [source]


def _make(number: int) -> Any:
    return _held[0][number]
