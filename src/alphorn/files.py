"""Files that are whole: written beside, then renamed."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from alphorn.distribution.processes import agreed, leads
from alphorn.errors import AlphornError, FileError


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which then becomes `path`; after an error, nothing has changed.

    Of several processes that share a model all come here, since they gather its weights together;
    what process 0 wrote is kept, and the others go on when it is there.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with written_beside(path) as beside:
    ...     _ = beside.write_text("whole")
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('whole', 1)
    """
    name = f"{path.name}.{os.getpid()}-{threading.get_ident()}.part"
    beside, done = path.with_name(name) if leads() else Path(tempfile.gettempdir(), name), "not"
    try:
        yield beside
        if leads():
            os.replace(beside, path)
        done = "written"
    finally:
        beside.unlink(missing_ok=True)
        kept = agreed(path.name, done)
    if kept != done:
        raise FileError(f"{path} was not written", "an error in process 0", "a file", "see there")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Is `written_beside` for libraries of which each says a full disk in its own way.

    Raises:
        FileError: where the file could not be written.
    """
    try:
        with written_beside(path) as beside:
            yield beside
    except AlphornError:
        raise
    except Exception as error:
        raise FileError(
            f"{path} could not be written",
            received=f"{type(error).__name__}: {error}",
            expected="a folder with room for the file",
            fix="make room and save again: what stood there before was left as it was",
        ) from error
