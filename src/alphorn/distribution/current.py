"""The distribution that holds now: one for the process, and before it that of an open scope."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

_set: list[Any] = [None]
_NONE_OPEN = object()
_opened: contextvars.ContextVar[Any] = contextvars.ContextVar("distribution", default=_NONE_OPEN)


def distribution() -> Any:
    """Returns the distribution that holds here, None where there is none.

    >>> distribution() is None
    True
    """
    opened = _opened.get()
    return _set[0] if opened is _NONE_OPEN else opened


def hold_from_now_on(value: Any) -> None:
    """Sets the process's distribution; an open scope has its own."""
    _set[0] = value


@contextlib.contextmanager
def holding(value: Any) -> Iterator[None]:
    """Has a distribution hold in this thread while the context lasts."""
    token = _opened.set(value)
    try:
        yield
    finally:
        _opened.reset(token)
