"""Weights in `.weights.h5` files, as Keras 3 lays them out."""

from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np

from alphorn.core.layer import Layer
from alphorn.core.random import SeedGenerator
from alphorn.core.tracking import Tracked
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError, ShapeError
from alphorn.files import written_beside
from alphorn.models.model import Model
from alphorn.models.sequential import Sequential
from alphorn.naming import snake_case
from alphorn.training.interrupts import interrupts_held

__all__ = ["load_weights", "save_weights"]


def _children(layer: Any) -> list[tuple[str, Any]]:
    """Parts with their names in the file; what comes twice counts where it comes first.

    The order is Keras's: `layers` before all else in graphs, among the other attributes by the
    alphabet in subclasses, private ones last. Built-in layers have Keras's names, without `_`.
    """
    built_in = type(layer).__module__.startswith("alphorn.")
    renamed = layer.file_names if isinstance(layer, Layer) else {}
    attributes = {
        renamed.get(name, name.lstrip("_") if built_in else name): value
        for name, value in sorted(vars(layer).items(), key=lambda n: (n[0].startswith("_"), n[0]))
        if name not in layer.untracked and not name.startswith("__")
    }
    if isinstance(layer, Model):
        graph = layer.graph is not None or isinstance(layer, Sequential)
        attributes["layers"] = layer.layers
        first = "layers" if graph else ""
        ordered = sorted(attributes, key=lambda n: (n != first, n.startswith("_"), n))
        attributes = {name: attributes[name] for name in ordered}
    return [part for name, value in attributes.items() for part in _parts(name, value)]


def _parts(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Tracked | SeedGenerator):
        return [(path, value)]
    if not isinstance(value, list | tuple | dict):
        return []
    counts: dict[str, int] = {}
    found: list[tuple[str, Any]] = []
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, Tracked | SeedGenerator):
            name = snake_case(type(item).__name__)
        elif isinstance(item, list | tuple | dict):
            name = "container"
        else:
            continue
        count = counts.get(name, 0)
        counts[name] = count + 1
        found += _parts(f"{path}/{name}_{count}" if count else f"{path}/{name}", item)
    return found


def _walk(layer: Any, path: str, seen: set[int]) -> list[tuple[str, list[Variable]]]:
    if id(layer) in seen:
        return []
    seen.add(id(layer))
    if isinstance(layer, SeedGenerator):
        return [(path, [layer.state])]
    found = [(path, layer._own_variables())]
    for name, part in _children(layer):
        found += _walk(part, f"{path}/{name}" if path else name, seen)
    return found


def save_weights(model: Layer, filepath: Any, overwrite: bool = True) -> None:
    """Writes the weights of a model; the file is written beside and renamed.

    Args:
        model: A built model or layer.
        filepath: Ends in `.weights.h5`.
        overwrite: Whether a file that is there is replaced.

    Raises:
        ArgumentError: another ending, or a file that is there with `overwrite=False`.
    """
    path = _checked(filepath)
    model.need_built("save_weights")
    if path.exists() and not overwrite:
        raise ArgumentError(
            "save_weights", f"{path}, which exists", "a new name, or overwrite=True"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside, h5py.File(beside, "w") as file:
        for where, variables in _walk(model, "", set()):
            if variables:
                group = file.require_group(f"{where}/vars" if where else "vars")
                for i, variable in enumerate(variables):
                    entry = group.create_dataset(str(i), data=variable.numpy())
                    if variable.dtype == jnp.bfloat16:  # HDF5 has no such type
                        entry.attrs["dtype"] = "bfloat16"


def load_weights(model: Layer, filepath: Any, skip_mismatch: bool = False) -> None:
    """Reads the weights of a model. Nothing changes unless all of them fit.

    Args:
        model: Built as when they were written.
        filepath: Ends in `.weights.h5`.
        skip_mismatch: Whether weights of other shapes, or that are not there, are left alone.

    Raises:
        ArgumentError: no such file, one that is damaged, or a weight that is not in it.
        ShapeError: a weight of another shape.
    """
    path = _checked(filepath)
    model.need_built("load_weights")
    if not path.exists():
        raise ArgumentError("load_weights", received=str(path), expected="a file that exists")
    try:
        with h5py.File(path, "r") as file:
            values = _fitting(model, file, path.name, skip_mismatch)
    except OSError as error:
        raise ArgumentError(
            "load_weights",
            received=f"{path}: {error}",
            expected="a whole HDF5 file",
            fix="it was cut short or is of another kind: write it again by save_weights",
        ) from None
    with interrupts_held():
        for variable, value in values:
            variable.assign(value)


def _fitting(
    model: Layer, file: h5py.File, name: str, skip_mismatch: bool
) -> list[tuple[Variable, np.ndarray]]:
    """Returns the Variables with their values in the file; raises where one does not fit."""
    weights = set(model.weights)
    values: list[tuple[Variable, np.ndarray]] = []
    for where, variables in _walk(model, "", set()):
        for i, variable in enumerate(variables):
            place = f"{where}/vars/{i}" if where else f"vars/{i}"
            found = file.get(place)
            if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiubcV":
                # Keras writes the state of a generator only where something is drawn.
                if skip_mismatch or (found is None and variable not in weights):
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
            value = np.asarray(found)
            values.append(
                (variable, value.view(jnp.bfloat16) if value.dtype.kind == "V" else value)
            )
    return values


def _checked(filepath: Any) -> Path:
    path = Path(filepath)
    if not path.name.endswith(".weights.h5"):
        raise ArgumentError(
            "weights", received=str(path), expected="a name that ends in .weights.h5"
        )
    return path


Model.weights_writer = staticmethod(save_weights)
Model.weights_reader = staticmethod(load_weights)
