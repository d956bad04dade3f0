"""Modules by the names that programs import, which hand out what is here."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import alphorn
from alphorn import scikit_learn
from alphorn.legacy import tables, tensorflow


def _rooms(module: ModuleType = alphorn, path: str = "") -> Iterator[tuple[str, ModuleType]]:
    yield path, module
    for name in module.__all__:
        inner = getattr(module, name)
        if isinstance(inner, ModuleType):
            yield from _rooms(inner, f"{path}.{name}".strip("."))


class Alias(ModuleType):
    """A module that hands out the names of others.

    Args:
        name: By which it is imported.
        path: The same, relative to its root.
        rooms: Whose names it has.
        names: Further names; they come first.
    """

    def __init__(self, name: str, path: str, rooms: list[ModuleType], names: dict[str, Any]):
        super().__init__(name, rooms[0].__doc__ if rooms else None)
        self.__path__ = []
        vars(self).update(_alias_path=path, _alias_rooms=rooms)
        vars(self).update(names)
        listed = [n for room in rooms for n in room.__all__]
        self.__all__ = sorted({*listed, *(n for n in names if not n.startswith("_"))})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for room in vars(self)["_alias_rooms"]:
            if name in room.__all__ and not isinstance(getattr(room, name), ModuleType):
                return getattr(room, name)
        full = f"{self.__name__}.{name}"
        if _known(full):
            return importlib.import_module(full)
        for room in vars(self)["_alias_rooms"]:
            found = getattr(room, name, None)
            own = isinstance(found, ModuleType) and found.__name__.startswith("alphorn.")
            if found is not None and (not own or found in _ROOMS.values()):
                return found
        raise AttributeError(_missing(full))

    def __dir__(self) -> list[str]:
        return self.__all__


_ROOMS = dict(_rooms()) | {"scikit_learn": scikit_learn}


def _below(full: str, root: str) -> str | None:
    """Returns the path below a root, or None."""
    if full == root:
        return ""
    return full.removeprefix(f"{root}.") if full.startswith(f"{root}.") else None


def _keras_path(full: str) -> str | None:
    found = [p for root in tables.ROOTS if (p := _below(full, root)) is not None]
    return found[0] if found else None


def _is_keras_module(path: str) -> bool:
    return path in _ROOMS or path in tables.MODULES


def _known(full: str) -> bool:
    """Returns whether there is such a module."""
    path = _keras_path(full)
    if path is not None:
        return _is_keras_module(path)
    path = _below(full, "tensorflow")
    return path is not None and (path in tensorflow.NAMES or path == "keras")


def _missing(full: str) -> str:
    """Returns what to say of a name that is not there."""
    path = _keras_path(full)
    if path is None:
        return str(tensorflow.refuse(_below(full, "tensorflow") or full))
    name = path.split(".")[-1]
    room = path.split(".")[0]
    ways = [tables.GONE.get(key) for key in (path, f"{room}.{name}", room, f"layers.{name}")]
    way = next((w for w in ways if w), None)
    return f"{full} is not in Alphorn" + (f"; in its place: {way}" if way else "")


def _make(full: str) -> Alias:
    path = _keras_path(full)
    if path is None:
        path = _below(full, "tensorflow") or ""
        return Alias(full, path, [], tensorflow.NAMES[path])
    if path in tables.MODULES:
        rooms = ["" if r == "top" else r for r in tables.MODULES[path]]
    else:
        rooms = [path]
    names: dict[str, Any] = {}
    for room in reversed(rooms):
        names |= tables.NAMES.get(room, {})
    return Alias(full, path, [_ROOMS[r] for r in rooms], names)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of Keras, and TensorFlow's where it is absent, here."""

    def __init__(self) -> None:
        self.takes_tensorflow = importlib.machinery.PathFinder.find_spec("tensorflow") is None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns a spec for a name of Keras or TensorFlow.

        Raises:
            ImportError: for what is not there, with what took its place.
        """
        of_tensorflow = self.takes_tensorflow and _below(fullname, "tensorflow") is not None
        if _keras_path(fullname) is None and not of_tensorflow:
            return None
        if not _known(fullname):
            raise ImportError(_missing(fullname), name=fullname)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Makes the module."""
        return _make(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: an alias asks for names when it is asked."""


def install() -> Finder:
    """Has `keras` and its kin mean Alphorn in this process, and returns the finder."""
    finder = Finder()
    sys.meta_path.insert(0, finder)
    return finder
