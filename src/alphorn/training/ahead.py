"""Programs compiled before they are needed, beside each other and beside the steps."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax

from alphorn.distribution.current import distribution
from alphorn.program_cache import after_compilations

_pool: list[ThreadPoolExecutor] = []
_worker = threading.local()
_held_up = 0.0


def seconds_held_up() -> float:
    """Returns for how long steps have waited until now for programs to be traced and compiled."""
    return _held_up


def _note(seconds: float) -> None:
    global _held_up
    if not getattr(_worker, "aside", False):
        _held_up += seconds


after_compilations(_note)


@contextlib.contextmanager
def _holding_up() -> Iterator[None]:
    begun, before = time.perf_counter(), _held_up
    try:
        yield
    finally:
        _note(time.perf_counter() - begun - (_held_up - before))


# One compilation keeps two cores busy, and so does the run that asks; each takes memory.
_CORES = 2
_MOST_WORKERS = 4


def _workers_to_spare() -> int:
    return min((os.cpu_count() or 1) // _CORES - 1, _MOST_WORKERS)


def compiles_ahead() -> bool:
    """Returns whether there are cores to spare; several processes meet in each step as it is."""
    return _workers_to_spare() > 0 and distribution() is None


class Ahead:
    """The programs of one compiled function that are on their way.

    Traced here, since what is traced belongs to this thread, and compiled on another.

    Args:
        run: What `jax.jit` made; or a plain function, which has no programs.
    """

    def __init__(self, run: Callable):
        self._run = run
        self._begun: set[Hashable] = set()
        self._coming: dict[Hashable, Future[Any]] = {}

    def begin(self, values: list, batch: Any, *static: Any) -> None:
        """Has the program for these arguments compiled, unless it was once."""
        key = _key(batch, static)
        if key in self._begun or not hasattr(self._run, "trace"):
            return
        self._begun.add(key)
        run: Any = self._run
        # What is wrong is told where the step runs.
        with contextlib.suppress(Exception), _holding_up():
            lowered = run.trace(values, batch, *static).lower()
            self._coming[key] = _workers().submit(lowered.compile)

    def meet(self, batch: Any, *static: Any) -> None:
        """Waits for the program of these arguments, if it is on its way: JAX finds it then."""
        if self._coming and (future := self._coming.pop(_key(batch, static), None)):
            with _holding_up():
                wait([future])

    def leave(self) -> None:
        """Lets go of what has not begun to compile."""
        for future in self._coming.values():
            future.cancel()
        self._coming.clear()


def _key(batch: Any, static: tuple) -> Hashable:
    leaves, structure = jax.tree.flatten(batch)
    return structure, static, tuple((a.shape, a.dtype) for a in leaves)


def _workers() -> ThreadPoolExecutor:
    if not _pool:

        def begin() -> None:
            _worker.aside = True

        _pool.append(ThreadPoolExecutor(_workers_to_spare(), "programs", begin))
    return _pool[0]
