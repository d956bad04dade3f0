"""Compiled programs kept on disk, so that a script that starts again compiles nothing.

JAX keeps them; this says where, at the first compilation and not at the import. Settings of JAX's
own, in the environment or in `jax.config`, win.
"""

import contextlib
import hashlib
import os
import platform
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from alphorn.config import compilation_cache

_COMPILED = "/jax/core/compile/backend_compile_duration"
_EVENT = "/jax/compilation_cache/compile_requests_use_cache"
_FOLDER = "jax_compilation_cache_dir"
_SHORTEST = "jax_persistent_cache_min_compile_time_secs"
# When the folder holds more, the oldest go until it holds half.
_MOST_BYTES = 2**31
_done: list[Path | None] = []


def after_compilations(heard: Callable[[float], object]) -> None:
    """Has a function told of each program's compilation, once it is done: of its seconds."""

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            heard(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)


def keep_programs() -> None:
    """Has compiled programs kept from the first compilation on."""
    jax.monitoring.register_event_listener(_at_compilation)


def _at_compilation(event: str, **kwargs: Any) -> None:
    if event != _EVENT or _done:
        return
    _done.append(None)
    folder = compilation_cache()
    if folder is None or getattr(jax.config, _FOLDER):
        return
    folder = folder / _machine()
    with contextlib.suppress(OSError):  # no place to write: programs live as long as the process
        if not _is_private(folder):
            return
        _prune(folder)
        jax.config.update(_FOLDER, str(folder))
        if _SHORTEST.upper() not in os.environ and getattr(jax.config, _SHORTEST) == 1.0:
            jax.config.update(_SHORTEST, 0.0)  # small programs are many, and wait as long together
        # Processes that start together may read what another is still writing: they compile instead.
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
        _done[0] = folder


def _is_private(folder: Path) -> bool:
    """Makes the folder where it is missing; returns whether nobody else may write into it."""
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return mine and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _machine() -> str:
    """Returns a name for this kind of processor, whose programs may not run on another."""
    text = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                text += line
                break
    return f"programs-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _prune(folder: Path) -> None:
    files = [(f.stat().st_mtime, f.stat().st_size, f.path) for f in os.scandir(folder)]
    held = sum(size for _, size, _ in files)
    if held <= _MOST_BYTES:
        return
    for _, size, path in sorted(files):
        with contextlib.suppress(OSError):
            os.unlink(path)
        held -= size
        if held <= _MOST_BYTES // 2:
            return
