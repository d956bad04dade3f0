"""Files that are whole: written beside, then renamed."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from alphorn.errors import AlphornError, FileError


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which then becomes `path`; after an error, nothing has changed.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with written_beside(path) as beside:
    ...     _ = beside.write_text("whole")
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('whole', 1)
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


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
