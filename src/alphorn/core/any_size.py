"""Whether a graph may run on other sizes than its inputs name: shorter ones, where that is proven."""

import contextlib
import contextvars
from collections.abc import Iterator

_any_size: contextvars.ContextVar[bool] = contextvars.ContextVar("any_size", default=False)


@contextlib.contextmanager
def any_size() -> Iterator[None]:
    """Lets graphs take inputs of any number of steps while the context lasts."""
    token = _any_size.set(True)
    try:
        yield
    finally:
        _any_size.reset(token)


def takes_any_size() -> bool:
    """Returns whether inputs may have another number of steps than their graph says."""
    return _any_size.get()
