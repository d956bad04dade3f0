"""Programs written for Keras run as they are: `python -m alphorn script.py [arguments]`."""

import runpy
import sys
from pathlib import Path

from alphorn.legacy.finder import install

__all__ = ["install", "run_module", "run_script"]


def run_script(path: str, arguments: list[str]) -> dict:
    """Runs a program in which `import keras`, `tensorflow.keras`, ... mean Alphorn.

    Args:
        path: The program.
        arguments: Its own.

    Returns:
        The names that it leaves.
    """
    install()
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).resolve().parent))
    return runpy.run_path(path, run_name="__main__")


def run_module(name: str, arguments: list[str]) -> dict:
    """Runs a module as `python -m` does; otherwise as `run_script`."""
    install()
    sys.argv = [name, *arguments]
    return runpy.run_module(name, run_name="__main__", alter_sys=True)
