"""Whether a graph may run on other sizes than its inputs name: shorter ones, where that is proven."""

import contextvars
from contextlib import AbstractContextManager

from alphorn.core.context import set_context

_any_size: contextvars.ContextVar[bool] = contextvars.ContextVar("any_size", default=False)


def any_size() -> AbstractContextManager[None]:
    """Returns a context in which graphs take inputs of any number of steps."""
    return set_context(_any_size, True)


def takes_any_size() -> bool:
    """Returns whether inputs may have another number of steps than their graph says."""
    return _any_size.get()
