"""Real text without a download: the docstrings of the running Python's standard library."""

import ast
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "asyncio",
    "concurrent",
    "ctypes",
    "distutils",
    "email",
    "encodings",
    "http",
    "idlelib",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "tkinter",
    "unittest",
    "urllib",
    "xml",
)
CLASSES = 8
FEWEST_WORDS, MOST_WORDS = 5, 800


def _documented(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def read(folder: Path | None = None) -> dict[str, list[str]]:
    """Returns the docstrings of each package, without repetitions."""
    library = folder or Path(sysconfig.get_paths()["stdlib"])
    seen: set[str] = set()
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((library / package).rglob("*.py")):
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            for text in _documented(tree):
                key = " ".join(text.lower().split())
                if key not in seen and FEWEST_WORDS <= len(key.split()) <= MOST_WORDS:
                    seen.add(key)
                    found.setdefault(package, []).append(text)
    return found


def load(seed: int = 7) -> tuple[list[str], list[str]]:
    """Returns texts and the packages that they come from, shuffled: the largest packages."""
    found = read()
    largest = sorted(found, key=lambda p: len(found[p]), reverse=True)[:CLASSES]
    pairs = [(text, package) for package in sorted(largest) for text in found[package]]
    random.Random(seed).shuffle(pairs)
    return [t for t, _ in pairs], [p for _, p in pairs]


def sentences(text: str) -> list[str]:
    """Returns a text's sentences: parted by full stops, blank lines and bullets."""
    parts = re.split(r"(?<=[.!?:;])\s+|\n\s*\n|\n\s*[-*]\s", text)
    return [p.strip() for p in parts if re.search(r"\w", p)]
