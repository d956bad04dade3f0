"""Weights in files: `.weights.h5` as Keras 3 lays them out, shards of it, `.safetensors`."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py

from alphorn.core.layer import Layer
from alphorn.core.variable import Variable
from alphorn.distribution.processes import leads
from alphorn.errors import ArgumentError, ShapeError, UnexpectedArgumentError
from alphorn.files import whole_file
from alphorn.models.model import Model
from alphorn.optimizers import Optimizer
from alphorn.saving.legacy_weights import LegacyWeights, is_legacy, write_legacy
from alphorn.saving.places import OPTIMIZER, Holder, holders, optimizer_holders
from alphorn.saving.stores import (
    Entry,
    H5Store,
    Shards,
    Store,
    assign,
    h5_file,
    tensors_file,
    write_h5,
    write_shards,
    write_tensors,
)
from alphorn.training.orbax import is_orbax, read_weights

__all__ = ["load_weights", "save_weights"]

# Readers of files by how their names end; `saving.archive` adds `.keras`.
Opener = Callable[[Path], contextlib.AbstractContextManager[Store]]
OPENERS: dict[str, Opener] = {}


def _h5(path: Path) -> contextlib.AbstractContextManager[Store]:
    return h5_file(path, path.name)


@contextlib.contextmanager
def _shards(path: Path) -> Iterator[Store]:
    with contextlib.ExitStack() as files:
        yield Shards(path, files)


OPENERS |= {".h5": _h5, ".hdf5": _h5, ".weights.json": _shards, ".safetensors": tensors_file}


def save_weights(
    model: Layer,
    filepath: Any,
    overwrite: bool = True,
    max_shard_size: float | None = None,
    **kwargs: Any,
) -> None:
    """Writes the weights of a model, and of its optimizer; files are written beside and renamed.

    Args:
        model: A built model or layer.
        filepath: Ends in `.weights.h5`, `.safetensors`, or `.weights.json` for shards; another
            `.h5` is laid out as by Keras 2.
        overwrite: Whether a file that is there is replaced.
        max_shard_size: How many GB a file may have; the weights then stand in several.
        **kwargs: `objects_to_skip`, parts that are left out.

    Raises:
        ArgumentError: another ending, or a file that is there with `overwrite=False`.
    """
    leave = _left_out("save_weights", kwargs)
    path = _checked(filepath, (".h5", ".hdf5", ".weights.json", ".safetensors"))
    if (max_shard_size is not None) != path.name.endswith(".json"):
        raise ArgumentError(
            "save_weights: max_shard_size",
            received=f"{max_shard_size} for {path.name}",
            expected="a number of GB, together with a name that ends in .weights.json",
        )
    model.need_built("save_weights")
    may_write("save_weights", path, overwrite)
    parts = [*holders(model, leave), *optimizer_holders(model, leave)]
    if max_shard_size is not None:
        write_shards(path, parts, max_shard_size * 2**30)
        return
    with whole_file(path) as beside:
        if path.name.endswith(".safetensors"):
            write_tensors(beside, parts)
            return
        with h5py.File(beside, "w") as file:
            if path.name.endswith(".weights.h5"):
                write_h5(file, parts)
            else:
                write_legacy(file, model, leave)


def load_weights(
    model: Layer,
    filepath: Any,
    skip_mismatch: bool = False,
    by_name: bool = False,
    **kwargs: Any,
) -> None:
    """Reads the weights of a model. Nothing changes unless all of them fit.

    The optimizer's state is read as well, where the model has one of the same kind.

    Args:
        model: Built as when they were written.
        filepath: Ends in `.weights.h5`, `.weights.json`, `.safetensors`, `.keras`, or is an `.h5`
            file of Keras 2; or the folder of an `OrbaxCheckpoint`, or a step in it.
        skip_mismatch: Whether weights of other shapes, or that are not there, are left alone.
        by_name: Whether layers take the weights of layers that had their names, wherever they
            stood, and the others stay as they are; for HDF5.
        **kwargs: `objects_to_skip`, parts that stay as they are.

    Raises:
        FileError: one that is damaged, or that was made to do harm.
        ArgumentError: no such file, or a weight that is not in it.
        ShapeError: a weight of another shape.
    """
    leave = _left_out("load_weights", kwargs)
    if is_orbax(Path(filepath)):
        if skip_mismatch or by_name or leave:
            raise ArgumentError(
                "load_weights: skip_mismatch, by_name, objects_to_skip",
                received=f"{filepath}, which is read as a whole",
                expected="none of them",
                fix="load_model(directory).save_weights('m.weights.h5'), and load that",
            )
        model.need_built("load_weights")
        return read_weights(model, Path(filepath))
    path = _checked(filepath, tuple(OPENERS))
    model.need_built("load_weights")
    if not path.exists():
        raise ArgumentError("load_weights", received=str(path), expected="a file that exists")
    opener = next(o for ending, o in OPENERS.items() if path.name.endswith(ending))
    with opener(path) as store:
        if isinstance(store, H5Store) and is_legacy(store):
            found = LegacyWeights(store).fitting(model, skip_mismatch, by_name, leave)
            assign(found, fresh=False)
            return
        read_into(model, store, path.name, skip_mismatch, by_name, leave)


def read_into(
    model: Layer,
    store: Store,
    name: str,
    skip_mismatch: bool = False,
    by_name: bool = False,
    leave: Sequence[Any] = (),
    fresh: bool = False,
) -> None:
    """Gives a model the weights of an open file.

    Args:
        model, skip_mismatch, by_name: As in `load_weights`.
        store: The file.
        name: Its name, for errors.
        leave: Parts that stay as they are.
        fresh: Whether nobody has the model yet: then no second copy of all weights is held.
    """
    parts = _by_name(model, store, name) if by_name else holders(model, leave)
    found = _fitting(model, parts, store, name, skip_mismatch)
    if not by_name and optimizer_holders(model, leave):
        found += _of_optimizer(model, store, name)
    assign(found, fresh)


def _by_name(model: Layer, store: Store, name: str) -> list[Holder]:
    known = store.named()
    if not known:
        raise ArgumentError(
            "load_weights: by_name",
            received=f"{name}, which does not say what its layers were called",
            expected="an .h5 or .keras file",
        )
    found = []
    for layer in model._family():
        if layer is not model and not isinstance(layer, Model) and layer.name in known:
            where = known[layer.name]
            found += [
                Holder(f"{where}/{p.where}" if p.where else where, p.name, p.variables)
                for p in holders(layer)
            ]
    unique: dict[int, Holder] = {}
    for part in found:
        unique.update((id(v), part) for v in part.variables if id(v) not in unique)
    return list({id(part): part for part in unique.values()}.values())


def _of_optimizer(model: Any, store: Store, name: str) -> list[tuple[Variable, Entry]]:
    """Returns the optimizer's state in the file; none where it has none, or another's."""
    optimizer: Optimizer = model.optimizer
    count = store.count(f"{OPTIMIZER}/vars")
    if not count:
        return []
    if not optimizer.built and count > len(optimizer.variables):
        optimizer.build(model.trainable_variables)
    variables = optimizer.variables
    entries = [store.entry(f"{OPTIMIZER}/vars/{i}") for i in range(count)]
    fits = len(variables) == count and all(
        e is not None and e.shape == v.shape for v, e in zip(variables, entries, strict=False)
    )
    if not fits:
        warnings.warn(
            f"{name}: the state of the optimizer in it does not fit {optimizer.name} of"
            f" '{model.name}', which starts anew: it belongs to another optimizer, or to weights"
            " of which others are trainable",
            stacklevel=5,
        )
        return []
    return [(v, e) for v, e in zip(variables, entries, strict=True) if e is not None]


def _fitting(
    model: Layer, parts: Sequence[Holder], store: Store, name: str, skip_mismatch: bool
) -> list[tuple[Variable, Entry]]:
    """Returns the Variables with their arrays in the file; raises where one does not fit."""
    weights = set(model.weights)
    values: list[tuple[Variable, Entry]] = []
    for part in parts:
        for i, variable in enumerate(part.variables):
            place = part.place(i)
            found = store.entry(place)
            if found is None:
                # Keras writes the state of a generator only where something is drawn.
                if skip_mismatch or variable not in weights:
                    continue
                raise ArgumentError(
                    f"load_weights: '{variable.path}'",
                    received=f"{name}, which has no array of numbers at {place}",
                    expected="a file of the same model",
                    fix="build the model as it was, or skip_mismatch=True",
                )
            if found.shape != variable.shape:
                if skip_mismatch:
                    continue
                raise ShapeError(
                    f"load_weights: '{variable.path}'",
                    received=f"shape {found.shape} at {place} of {name}",
                    expected=f"shape {variable.shape}",
                    fix="build the model as it was, or skip_mismatch=True",
                )
            values.append((variable, found))
    return values


def may_write(what: str, path: Path, overwrite: bool) -> None:
    """Makes the folder of a file; raises where the file is there and must stay."""
    if path.exists() and not overwrite and leads():
        raise ArgumentError(what, f"{path}, which exists", "a new name, or overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)


def _checked(filepath: Any, endings: tuple[str, ...]) -> Path:
    path = Path(filepath)
    if not path.name.endswith(endings):
        raise ArgumentError(
            "weights", received=str(path), expected=f"a name that ends in {' or '.join(endings)}"
        )
    return path


def _left_out(what: str, kwargs: dict[str, Any]) -> list[Any]:
    leave = list(kwargs.pop("objects_to_skip", None) or ())
    if kwargs:
        raise UnexpectedArgumentError(what, ", ".join(kwargs), "its own arguments")
    return leave


Model.weights_writer = staticmethod(save_weights)
Model.weights_reader = staticmethod(load_weights)
