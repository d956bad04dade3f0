"""Arrays in files by their places: HDF5, HDF5 in several files, safetensors.

Reading trusts nothing: no link is followed out of a file, no array is read whose size the file
cannot hold, and what is not an array of numbers is no array.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from alphorn.core.variable import Variable
from alphorn.errors import AlphornError, ArgumentError, FileError, not_installed
from alphorn.files import whole_file
from alphorn.saving.attributes import Attributes
from alphorn.saving.places import Holder
from alphorn.training.interrupts import interrupts_held

_MAP_LIMIT = 1 << 28


@dataclass(frozen=True)
class Entry:
    """An array in a file that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def assign(pairs: Iterable[tuple[Variable, Entry]], fresh: bool) -> None:
    """Puts arrays into Variables, all or none; `fresh` holds no second copy of them."""
    values = ((variable, entry.read()) for variable, entry in pairs)
    with interrupts_held():
        for variable, value in values if fresh else list(values):
            if fresh:  # its first value goes before the other comes
                variable.rebind(jax.ShapeDtypeStruct(variable.shape, variable.dtype))  # pyright: ignore[reportArgumentType]
            variable.assign(value)


class Store:
    """Arrays of a file by their places."""

    def entry(self, place: str) -> Entry | None:
        """Returns the array at a place, e.g. `layers/dense/vars/0`, or None.

        Raises:
            FileError: for what only a file that was tampered with holds there.
        """
        raise ArgumentError("Store has no entry")

    def count(self, group: str) -> int:
        """Returns how many arrays stand at a place, e.g. `optimizer/vars`."""
        found = 0
        while self.entry(f"{group}/{found}") is not None:
            found += 1
        return found

    def named(self) -> dict[str, str]:
        """Returns the places of layers by the names that they had; empty where none is noted."""
        return {}


class H5Store(Store):
    """An open HDF5 file.

    Args:
        file: The file.
        name: For errors.
        attributes: Of its groups.
    """

    def __init__(self, file: h5py.File, name: str, attributes: Attributes):
        self.file, self.name, self.attributes = file, name, attributes

    def _found(self, place: str) -> Any:
        here: Any = self.file
        for part in place.split("/"):
            if not isinstance(here, h5py.Group):
                return None
            link = here.get(part, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                kind = "external link" if isinstance(link, h5py.ExternalLink) else "soft link"
                raise self._refused(place, f"an {kind}" if kind[0] == "e" else f"a {kind}")
            here = here[part]
        return here

    def group(self, place: str) -> h5py.Group | None:
        """Returns the group at a place, the file itself without one; None where there is none."""
        found = self._found(place) if place else self.file
        return found if isinstance(found, h5py.Group) else None

    def texts(self, group: h5py.Group, name: str) -> str | list[str] | None:
        """Returns the text, or the texts, in an attribute of a group; None where there are none."""
        with whole_h5(self.name):
            header = h5py.h5o.get_info(group.id).addr  # pyright: ignore[reportAttributeAccessIssue]
            return self.attributes.texts(header, name)

    def _refused(self, place: str, what: str, fix: str = "") -> FileError:
        return FileError(
            f"{self.name}: {place}",
            received=what,
            expected="an array that stands in this file itself, in one piece",
            fix=fix or "no library writes such a file: do not trust where it came from",
        )

    def entry(self, place: str) -> Entry | None:
        """Returns the array at a place, or None."""
        with whole_h5(self.name):
            return self._entry(place)

    def _entry(self, place: str) -> Entry | None:
        found = self._found(place)
        if not isinstance(found, h5py.Dataset):
            return None
        bfloat16 = found.dtype.kind == "V" and found.dtype.itemsize == 2 and not found.dtype.names
        if found.dtype.kind not in "fiubc" and not bfloat16:
            return None
        layout = found.id.get_create_plist()
        if found.is_virtual or layout.get_external_count():
            raise self._refused(place, "an array whose values stand in other files")
        if layout.get_layout() == h5py.h5d.CHUNKED:
            # The library dies of damaged ones, and neither Keras writes any.
            raise self._refused(
                place, "an array in chunks", "h5repack --layout=CONTI OLD.h5 NEW.h5"
            )
        claimed = math.prod(found.shape) * found.dtype.itemsize

        def read() -> np.ndarray:
            if claimed > self.attributes.size:
                raise self._refused(place, f"{claimed} bytes, more than the file: {found.shape}")
            with whole_h5(self.name):
                value = np.asarray(found[()])
            return value.view(jnp.bfloat16) if bfloat16 else value

        return Entry(tuple(found.shape), read)

    def named(self) -> dict[str, str]:
        """Returns the places of layers by the names in the file."""
        with whole_h5(self.name):
            return self._named()

    def _named(self) -> dict[str, str]:
        found: dict[str, str] = {}
        stack: list[tuple[str, h5py.Group]] = [("", self.file)]
        seen: set[Any] = set()
        while stack:
            where, group = stack.pop()
            if group.id in seen:
                continue
            seen.add(group.id)
            for key in map(str, group):
                place = f"{where}/{key}" if where else key
                inner = self._found(place)
                if not isinstance(inner, h5py.Group):
                    continue
                if key == "vars":
                    name = self.texts(inner, "name")
                    if isinstance(name, str):
                        found.setdefault(name, where)
                else:
                    stack.append((place, inner))
        return found


class Shards(Store):
    """Several HDF5 files beside a map of what stands where.

    Args:
        path: Of the map, `model.weights.json`.
        files: Closes the shards when they are no longer needed.
    """

    def __init__(self, path: Path, files: contextlib.ExitStack):
        if path.stat().st_size > _MAP_LIMIT:
            raise FileError(f"{path.name}", f"{path.stat().st_size} bytes", "a map of shards")
        try:
            self.map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileError(
                f"{path.name}", f"no map of shards: {error}", "JSON with a weight_map"
            ) from None
        self.path, self.files = path, files
        self.open: dict[str, H5Store] = {}

    def entry(self, place: str) -> Entry | None:
        """Returns the array at a place, from the shard that the map names."""
        group = place.rpartition("/")[0]
        names = self.map.get(f"/{group}", []) if isinstance(self.map, dict) else []
        for name in names if isinstance(names, list) else [names]:
            found = self._shard(name).entry(place)
            if found is not None:
                return found
        return None

    def _shard(self, name: Any) -> H5Store:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".h5"):
            raise FileError(
                f"{self.path.name}: a shard",
                received=repr(name),
                expected="the name of an .h5 file in the same folder",
                fix="no library writes such a file: do not trust where it came from",
            )
        if name not in self.open:
            beside = self.path.with_name(name)
            self.open[name] = self.files.enter_context(h5_file(beside, name))
        return self.open[name]


class Tensors(Store):
    """An open safetensors file."""

    def __init__(self, file: Any):
        self.file = file
        self.names = set(file.keys())

    def entry(self, place: str) -> Entry | None:
        """Returns the array at a place, or None."""
        if place not in self.names:
            return None
        shape = tuple(self.file.get_slice(place).get_shape())
        return Entry(shape, lambda: np.asarray(self.file.get_tensor(place)))


@contextlib.contextmanager
def whole(name: str, kind: str, *errors: type[Exception]) -> Iterator[None]:
    """Turns what a library says of a damaged file into an error that says what to do.

    Args:
        name: Of the file.
        kind: What it should be.
        *errors: What the library raises.
    """
    try:
        yield
    except errors as error:
        if isinstance(error, AlphornError):
            raise
        raise FileError(
            f"load_weights: {name}",
            received=f"{error}",
            expected=f"a whole {kind}",
            fix="it was cut short or is of another kind: save the model or its weights again",
        ) from None


def whole_h5(name: str) -> contextlib.AbstractContextManager[None]:
    """Turns what h5py says of a damaged file into an error that says what to do."""
    return whole(name, "HDF5 file", Exception)


@contextlib.contextmanager
def h5_file(source: Any, name: str) -> Iterator[H5Store]:
    """Opens an HDF5 file, or what holds one, to read.

    Args:
        source: Its path, or an open file.
        name: For errors.

    Raises:
        FileError: where it is damaged or of another kind.
    """
    with contextlib.ExitStack() as opened:
        with whole_h5(name):
            file = opened.enter_context(h5py.File(source, "r"))
            raw = source
            if not hasattr(source, "read"):
                raw = opened.enter_context(open(source, "rb"))
            attributes = Attributes(raw, file.userblock_size)
        yield H5Store(file, name, attributes)


def write_h5(file: h5py.File, parts: Sequence[Holder]) -> None:
    """Writes the Variables of a model into an open HDF5 file."""
    for part in parts:
        group = _group(file, part)
        for i, variable in enumerate(part.variables):
            _put(group, i, variable)


def _group(file: h5py.File, part: Holder) -> h5py.Group:
    group = file.require_group(part.group)
    group.attrs["name"] = part.name
    return group


def _put(group: h5py.Group, index: int, variable: Any) -> None:
    entry = group.create_dataset(str(index), data=variable.numpy())
    if variable.dtype == jnp.bfloat16:  # HDF5 has no such type
        entry.attrs["dtype"] = "bfloat16"


def write_shards(path: Path, parts: Sequence[Holder], limit: float) -> None:
    """Writes Variables into files of at most `limit` bytes each, and the map beside them.

    They are renamed together when all of them are written, the map last.
    """
    base = path.stem.replace(".weights", "")
    shards: list[list[tuple[Holder, int]]] = [[]]
    room = limit
    places: dict[str, Any] = {}
    for part in parts:
        for i, variable in enumerate(part.variables):
            size = variable.size * variable.dtype.itemsize
            if size > limit:
                raise ArgumentError(
                    "save_weights: max_shard_size",
                    received=f"{limit / 2**30:g} GB for '{variable.path}' of {size / 2**30:g}",
                    expected="room for the largest weight in one file",
                )
            if size > room:
                shards.append([])
                room = limit
            room -= size
            shards[-1].append((part, i))
            names = places.setdefault(f"/{part.group}", [])
            name = _shard_name(base, len(shards) - 1)
            if name not in names:
                names.append(name)
    with contextlib.ExitStack() as together:  # renamed together, once all are written
        target = together.enter_context(whole_file(path))
        besides = [
            together.enter_context(whole_file(path.with_name(_shard_name(base, i))))
            for i in range(len(shards))
        ]
        for beside, held in zip(besides, shards, strict=True):
            with h5py.File(beside, "w") as file:
                for part, i in held:
                    _put(_group(file, part), i, part.variables[i])
        total = sum(v.size * v.dtype.itemsize for part in parts for v in part.variables)
        weight_map = {k: v[0] if len(v) == 1 else v for k, v in places.items()}
        described = {"metadata": {"total_size": total}, "weight_map": weight_map}
        target.write_text(json.dumps(described, indent=4), encoding="utf-8")


def _shard_name(base: str, index: int) -> str:
    return f"{base}_{index:05}.weights.h5"


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise not_installed("weights in .safetensors", "safetensors", "safetensors") from None
    return safetensors


def write_tensors(path: Path, parts: Sequence[Holder]) -> None:
    """Writes Variables into a safetensors file, by the same places as in HDF5."""
    arrays = {
        part.place(i): np.ascontiguousarray(v.numpy()) if v.shape else v.numpy()
        for part in parts
        for i, v in enumerate(part.variables)
    }
    _safetensors().numpy.save_file(arrays, os.fspath(path), {"format": "keras"})


@contextlib.contextmanager
def tensors_file(path: Path) -> Iterator[Tensors]:
    """Opens a safetensors file to read."""
    library = _safetensors()
    errors = (library.SafetensorError, OSError)
    with whole(path.name, "safetensors file", *errors):
        file = library.safe_open(os.fspath(path), "numpy")
    with file as opened:
        yield Tensors(opened)
