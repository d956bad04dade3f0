"""Ctrl-C held back where it would leave things half done."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back until the end: it comes when what is done is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[Any, Any]] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None:  # set by no Python code: not ours to hold
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received and callable(before):
            before(*received[0])
        elif received:
            signal.raise_signal(signal.SIGINT)
