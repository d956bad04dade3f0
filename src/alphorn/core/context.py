"""What holds while calls run: the training phase, the path of names, the layer that is called."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

_training: contextvars.ContextVar[bool | None] = contextvars.ContextVar("training", default=None)
current_path: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("path", default=())
# The layer whose call is running: what draws without a seed draws for it.
running_layer: contextvars.ContextVar[Any] = contextvars.ContextVar("running_layer", default=None)


@contextlib.contextmanager
def set_context(variable: contextvars.ContextVar, value: Any) -> Iterator[None]:
    """Sets a context variable while the context lasts."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def training_phase(training: bool | None) -> contextlib.AbstractContextManager:
    """Returns a context in which calls that say nothing about `training` get this."""
    return set_context(_training, training)


def training_now() -> bool | None:
    """Returns what calls that say nothing about `training` get here; None where nobody said."""
    return _training.get()


def set_training(training: bool | None) -> None:
    """Sets what calls that say nothing about `training` get from now on."""
    _training.set(training)
