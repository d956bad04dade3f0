"""Whole models in `.keras` archives, as Keras 3 writes them."""

import contextlib
import datetime
import io
import json
import lzma
import shutil
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py

from alphorn.errors import ArgumentError, FileError
from alphorn.files import whole_file
from alphorn.layers.lambda_ import Lambda
from alphorn.models.model import Model
from alphorn.saving.configs import model_from, model_json, parsed
from alphorn.saving.legacy_h5 import load_h5, save_h5
from alphorn.saving.places import KERAS3, holders, optimizer_holders
from alphorn.saving.stores import Store, h5_file, whole, write_h5
from alphorn.saving.weights import OPENERS, may_write, read_into
from alphorn.training.orbax import is_orbax, read_facts, read_weights

__all__ = ["load_model", "save_model"]

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LEGACY = (".h5", ".hdf5")
# A member may be compressed; one that grows more than this is a trap.
_EXPANSION, _SMALL = 100, 1 << 20
_LIMITS = {CONFIG: 1 << 28, WEIGHTS: 1 << 62}
# Weights that a small file may make: what is not in files, such as states of metrics.
_SPARE = 1 << 26


def save_model(
    model: Any, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
) -> None:
    """Writes a model: what makes it, its weights, how it was compiled, its optimizer's state.

    The file is written beside and renamed: whatever happens, the old one or the new one is there.

    Args:
        model: Any model; classes and functions of your own are noted by their names.
        filepath: Ends in `.keras`; in `.h5` for the form of Keras 2; or a folder, with
            `zipped=False`.
        overwrite: Whether a file that is there is replaced.
        zipped: False writes a folder of three files.
        **kwargs: None.

    Raises:
        ArgumentError: another ending, or a file that is there with `overwrite=False`.
    """
    if kwargs:
        raise ArgumentError("save_model", ", ".join(kwargs), "its own arguments")
    path = Path(filepath)
    legacy = path.suffix in _LEGACY and not zipped and not path.name.endswith(".weights.h5")
    if not legacy and (zipped is not False) != (path.suffix == ".keras"):
        raise ArgumentError(
            "save_model",
            received=str(path),
            expected="a name that ends in .keras or .h5; with zipped=False, a folder",
            fix="model.save('model.keras'), or save_weights('model.weights.h5') for weights alone",
        )
    model.need_built("save_model")
    may_write("save_model", path, overwrite)
    if legacy:
        _tell_of_functions_left_behind(model, path.name)
        save_h5(model, path)
        return
    config = model_json(model)
    _tell_of_functions_left_behind(model, path.name)
    now = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    metadata = json.dumps({"keras_version": KERAS3, "date_saved": now})
    texts = {METADATA: metadata, CONFIG: config}
    parts = [*holders(model), *optimizer_holders(model)]
    if zipped is False:
        path.mkdir(exist_ok=True)
        with contextlib.ExitStack() as together:
            for name, text in texts.items():
                beside = together.enter_context(whole_file(path / name))
                beside.write_text(text, encoding="utf-8")
            beside = together.enter_context(whole_file(path / WEIGHTS))
            with h5py.File(beside, "w") as file:
                write_h5(file, parts)
        return
    with whole_file(path) as beside, tempfile.TemporaryFile(dir=path.parent) as scratch:
        with h5py.File(scratch, "w") as file:
            write_h5(file, parts)
        scratch.seek(0)
        with zipfile.ZipFile(beside, "w") as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
            with archive.open(WEIGHTS, "w", force_zip64=True) as member:
                shutil.copyfileobj(scratch, member, 1 << 20)


def _tell_of_functions_left_behind(model: Any, name: str) -> None:
    lambdas = [layer for layer in model._family() if isinstance(layer, Lambda)]
    left = [layer.name for layer in lambdas if layer.is_known_here_alone]
    if left:
        warnings.warn(
            f"{name}: the functions of {', '.join(left)} are not in the file, since code never is:"
            f" another process needs custom_objects={{{left[0]!r}: function}} to open it; a `def`"
            " at the top of a module with @register_keras_serializable() is found by its name",
            stacklevel=4,
        )


def load_model(
    filepath: Any,
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """Returns the model in a file that this library, Keras 3 or Keras 2 wrote.

    No code runs that stands in the file, and nothing is imported that it names.

    Args:
        filepath: Of a `.keras` archive, of a folder that `zipped=False` or
            `OrbaxCheckpoint` wrote, or of an `.h5` file.
        custom_objects: Classes and functions of your own, by their names.
        compile: Whether the model is compiled as it was, with the optimizer's state.
        safe_mode: False lets Python code in the file run (lambdas): only for files you trust.

    Raises:
        FileError: where the file is damaged, names what is not known here, or was made to do harm.
    """
    path = Path(filepath)
    if not path.exists():
        raise ArgumentError("load_model", received=str(path), expected="a file that exists")
    if path.suffix in _LEGACY and path.is_file():
        return load_h5(path, custom_objects, compile, safe_mode, _SPARE)
    if is_orbax(path):
        config = read_facts(path)["model"]
        if config is None:
            raise FileError(f"{path}", "weights alone", "a model", "model.load_weights(directory)")
        budget = 2 * sum(p.stat().st_size for p in path.rglob("*")) + _SPARE
        config = parsed(config, f"{path.name}")
        model = model_from(config, path.name, custom_objects, compile, safe_mode, budget)
        read_weights(model, path)
        return model
    if path.suffix != ".keras" and not (path / CONFIG).is_file():
        raise ArgumentError(
            "load_model",
            received=str(path),
            expected="a name that ends in .keras or .h5",
            fix="for weights alone, make the model and call load_weights",
        )
    with _members(path) as members:
        config = parsed(members.read(CONFIG), f"{path.name}: {CONFIG}")
        weights = members.size(WEIGHTS)
        budget = 2 * weights + _SPARE
        model = model_from(config, path.name, custom_objects, compile, safe_mode, budget)
        with members.open(WEIGHTS) as source, h5_file(source, path.name) as store:
            if model.built:
                read_into(model, store, path.name, fresh=True)
            elif store.named() and any(store.count(f"{p}/vars") for p in store.named().values()):
                raise FileError(
                    f"{path.name}: '{model.name}' has no weights yet, but the file has",
                    expected="a config that says the size of the input",
                    fix="write build_from_config(self, config) in its class, or make its layers'"
                    " weights in build(self, input_shape)",
                )
    return model


# What zipfile raises for what is no archive, or is one no longer; RuntimeError for encrypted
# members and for ways of compression that it does not know.
_DAMAGED = (
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
)


class _Folder:
    """The members of a model that stand in a folder."""

    def __init__(self, path: Path):
        self.path = path

    def size(self, name: str) -> int:
        """Returns the size of a member; raises where there is none, or a link."""
        member = self.path / name
        if not member.is_file() or member.is_symlink():
            raise FileError(f"{self.path.name}", f"no file {name}", "what save_model wrote")
        if member.stat().st_size > _LIMITS[name]:
            raise FileError(f"{self.path.name}: {name}", f"{member.stat().st_size} bytes", "less")
        return member.stat().st_size

    def read(self, name: str) -> bytes:
        """Returns a member."""
        self.size(name)
        return (self.path / name).read_bytes()

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Yields what h5py opens."""
        self.size(name)
        yield self.path / name


class _Archive:
    """The members of a zip archive, by fixed names: nothing is unpacked into the file system."""

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        self.archive, self.path = archive, path

    def _info(self, name: str) -> zipfile.ZipInfo:
        try:
            info = self.archive.getinfo(name)
        except KeyError:
            raise FileError(
                f"{self.path.name}",
                received=f"an archive without {name}",
                expected="a model that save_model wrote",
            ) from None
        stored = min(info.compress_size, self.path.stat().st_size)
        if info.file_size > min(max(_SMALL, _EXPANSION * stored), _LIMITS[name]):
            raise FileError(
                f"{self.path.name}: {name}",
                received=f"{stored} bytes that claim to be {info.file_size}",
                expected="an archive whose parts are about as large as they say",
                fix="no library writes such a file: do not trust where it came from",
            )
        return info

    def size(self, name: str) -> int:
        """Returns the size of a member, which the archive is large enough to hold."""
        return self._info(name).file_size

    def read(self, name: str) -> bytes:
        """Returns a member, its checksum proved."""
        info = self._info(name)
        with _whole_zip(self.path):
            return self.archive.read(info)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Yields what h5py opens: the archive's own bytes where they are as they were."""
        info = self._info(name)
        if info.compress_type != zipfile.ZIP_STORED:
            yield io.BytesIO(self.read(name))
            return
        with _whole_zip(self.path), self.archive.open(info) as member:
            while member.read(1 << 20):  # which proves its checksum
                pass
        with self.path.open("rb") as file:
            file.seek(info.header_offset + 26)
            lengths = struct.unpack("<HH", file.read(4))
            yield _Part(file, info.header_offset + 30 + sum(lengths), info.file_size)


class _Part(io.RawIOBase):
    """Some bytes of an open file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int):
        self._file, self._start, self._size, self._at = file, start, size, 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice) -> bytes:
        start, stop, _ = where.indices(self._size)
        self._file.seek(self._start + start)
        return self._file.read(stop - start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(offset + (0, self._at, self._size)[whence], 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)[: max(self._size - self._at, 0)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(room)  # pyright: ignore[reportAttributeAccessIssue]
        self._at += count
        return count


@contextlib.contextmanager
def _members(path: Path) -> Iterator[_Folder | _Archive]:
    if path.is_dir():
        yield _Folder(path)
        return
    with _whole_zip(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield _Archive(archive, path)


def _whole_zip(path: Path) -> contextlib.AbstractContextManager[None]:
    return whole(path.name, ".keras archive", *_DAMAGED)


@contextlib.contextmanager
def _archived(path: Path) -> Iterator[Store]:
    with (
        _members(path) as members,
        members.open(WEIGHTS) as source,
        h5_file(source, path.name) as store,
    ):
        yield store


OPENERS[".keras"] = _archived
Model.model_writer = staticmethod(save_model)
