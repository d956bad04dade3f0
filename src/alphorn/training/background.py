"""Files that are written beside training: by one thread, in the order in which they were due."""

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from alphorn.distribution.processes import several
from alphorn.errors import FileError

Job = tuple[Path, "Future[None]"]

# Copies of a model that may wait for the disk, before training waits for it too.
_MOST = 2

# One for all: what was due later is never there without what was due before.
_thread = ThreadPoolExecutor(1, "files")


class Background:
    """The files of one callback.

    Args:
        owner: Its name, for errors.
    """

    def __init__(self, owner: str):
        self.owner = owner
        self._jobs: list[Job] = []

    def write(self, path: Path, job: Callable[[], None]) -> None:
        """Has a file written; one that has not begun and would be replaced by it is left out.

        Several processes write at once, all of them here: each must meet the others at each file.

        Raises:
            FileError: where one before could not be written.
        """
        if several():
            return job()
        for earlier, future in self._jobs:
            if earlier == path:
                future.cancel()
        self.check()
        while len(self._jobs) >= _MOST:
            self._end(self._jobs.pop(0))
        self._jobs.append((path, _thread.submit(contextvars.copy_context().run, job)))

    def check(self) -> None:
        """Raises FileError where a file could not be written."""
        self._end(*(job for job in self._jobs if job[1].done()))

    def wait(self) -> None:
        """Waits until all are written; raises as `check` does."""
        self._end(*self._jobs)

    def _end(self, *jobs: Job) -> None:
        """Waits for jobs, all of them, and raises what the first that failed has raised."""
        errors = [(path, f.exception()) for path, f in jobs if not f.cancelled()]
        self._jobs = [job for job in self._jobs if job not in jobs]
        for path, error in errors:
            if isinstance(error, FileError) and str(path) in str(error):
                raise error
            if error is not None:
                raise FileError(
                    f"{self.owner}: {path} could not be written",
                    received=f"{type(error).__name__}: {error}",
                    fix="what stood there before was left as it was",
                ) from error
