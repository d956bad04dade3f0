"""What holds while configs are read or written: how far they are trusted, what they share."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from alphorn.errors import FileError


@dataclass
class Reading:
    """A config that is being read.

    Args:
        safe: Whether nothing in it may run as code; False only by the word of a caller.
        budget: Bytes of Variables that it may still make; None for as many as it likes.
        shared: What was made of the objects that stand in several places.
    """

    safe: bool = True
    budget: int | None = None
    shared: dict[int, Any] = field(default_factory=dict)


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)
_written: ContextVar[dict[int, tuple[Any, dict]] | None] = ContextVar("written", default=None)


@contextlib.contextmanager
def reading(safe: bool = True, budget: int | None = None, anew: bool = True) -> Iterator[None]:
    """Configs are read under these terms while the context lasts.

    Args:
        safe, budget: As in `Reading`.
        anew: False leaves the terms of a reading that is under way as they are.
    """
    if not anew and _reading.get() is not None:
        yield
        return
    token = _reading.set(Reading(safe, budget))
    try:
        yield
    finally:
        _reading.reset(token)


def is_safe() -> bool | None:
    """Returns whether what is being read may run no code; None where nothing is being read."""
    now = _reading.get()
    return None if now is None else now.safe


def take(where: str, shape: Sequence[int], itemsize: int) -> None:
    """Takes the bytes of a new Variable off the budget of the file that asks for it.

    Raises:
        FileError: where the file is too small to hold such a weight.
    """
    now = _reading.get()
    if now is None or now.budget is None:
        return
    now.budget -= math.prod(shape) * itemsize
    if now.budget < 0:
        raise FileError(
            f"{where} of a model in a file",
            received=f"shape {tuple(shape)}",
            expected="weights that the file, or the machine, is large enough to hold",
            fix="the file is damaged, or was made to exhaust memory",
        )


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Objects that are met twice while the context lasts are written as one."""
    token = _written.set({})
    try:
        yield
    finally:
        _written.reset(token)


def note_written(target: Any, config: dict) -> dict:
    """Returns the config of an object, marked where the object was written before."""
    known = _written.get()
    if known is not None:
        key = id(target)
        if key in known:
            config["shared_object_id"] = known[key][1]["shared_object_id"] = key
        else:
            known[key] = (target, config)
    return config


def shared(config: dict, cls: type) -> Any:
    """Returns the object that was made of another place's config of the same object, or None."""
    now, key = _reading.get(), config.get("shared_object_id")
    found = now.shared.get(key) if now is not None and isinstance(key, int) else None
    return found if isinstance(found, cls) else None


def note_read(config: dict, made: Any) -> None:
    """Keeps an object for other places that share it."""
    now, key = _reading.get(), config.get("shared_object_id")
    if now is not None and isinstance(key, int):
        now.shared[key] = made
