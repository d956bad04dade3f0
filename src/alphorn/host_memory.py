"""Memory of programs that run on a CPU, kept from one run to the next.

XLA asks for a program's whole room anew each time that it runs, and gives it back. The C library's
allocator maps what is large, and unmaps it: the pages then cost up to a quarter of a training step. A
thread of JAX's own has a heap that ends at 64 MB; the main thread's grows, so that larger programs gain
where JAX's asynchronous dispatch is off and they run on the thread that calls them.
"""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax

from alphorn.program_cache import after_compilations

# Of <malloc.h>: what is freed at the end of the heap is kept up to the first, and what is smaller
# than the second comes from the heap. A user who sets either in the environment is heard.
_THRESHOLDS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
_KEPT_BYTES = 2**30
_LONG_SECONDS = 0.1
_ELSEWHERE = "jax_cpu_enable_async_dispatch"


def ready(arguments: Any) -> Any:
    """Returns arrays that have arrived, where programs run on the calling thread.

    A program that waits for one would run elsewhere.
    """
    if jax.default_backend() != "cpu" or jax.config.read(_ELSEWHERE):
        return arguments
    return jax.block_until_ready(
        jax.tree.map(lambda a: a if isinstance(a, jax.Array) else jax.device_put(a), arguments)
    )


@functools.cache
def keep_memory() -> None:
    """Has the C library keep a process's freed memory, up to 1 GB, where it is glibc.

    What compiling needed is given back: some 100 MB, which would lie beside what training needs.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        after_compilations(functools.partial(_give_back, library.malloc_trim))
        if any(name in os.environ for name in _THRESHOLDS):
            return
        for parameter in _THRESHOLDS.values():
            library.mallopt(parameter, _KEPT_BYTES)


def _give_back(trim: Callable[[int], Any], seconds: float) -> None:
    if seconds > _LONG_SECONDS:
        trim(0)
