"""Weights as Keras 2 lays them out in HDF5: a group for each layer, arrays in their order."""

import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np

from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError, FileError, ShapeError
from alphorn.layers.cells import GRUCell, LSTMCell
from alphorn.layers.cudnn import read_by_cudnn
from alphorn.optimizers import Optimizer
from alphorn.saving.places import KERAS2
from alphorn.saving.stores import Entry, H5Store, whole_h5

WEIGHTS, OPTIMIZER = "model_weights", "optimizer_weights"
# Arrays of the model itself, beside those of its layers.
_TOP = "top_level_model_weights"
Turn = Callable[[np.ndarray], np.ndarray]
# An attribute of HDF5 holds 64 KiB; longer lists stand in several, numbered.
_ATTRIBUTE = 64_000


def is_legacy(store: H5Store) -> bool:
    """Returns whether an open file is laid out as by Keras 2."""
    names = ("layer_names", "layer_names0")
    with whole_h5(store.name):
        return WEIGHTS in store.file or any(name in store.file.attrs for name in names)


class LegacyWeights:
    """The weights of an open file.

    Args:
        store: A whole model, or weights alone.
    """

    def __init__(self, store: H5Store):
        self.store, self.name = store, store.name
        with whole_h5(self.name):
            self.root = WEIGHTS if WEIGHTS in store.file else ""
        version = self.attribute(self.root, "keras_version")
        if isinstance(version, str) and version.startswith("1."):
            raise FileError(
                f"{self.name} was written by Keras {version}",
                expected="a file of Keras 2, which orders weights in another way",
                fix="open and save it with Keras 2",
            )

    def place(self, *parts: str) -> str:
        """Returns a place in the file."""
        return "/".join(part for part in (self.root, *parts) if part)

    def attribute(self, place: str, name: str) -> Any:
        """Returns an attribute of a group as text or a list of texts, or None."""
        with whole_h5(self.name):
            group = self.store.group(place)
            return None if group is None else self.store.texts(group, name)

    def names(self, place: str, name: str) -> list[str]:
        """Returns a list of names that may stand in several attributes."""
        whole = self.attribute(place, name)
        if whole is not None:
            return list(whole) if isinstance(whole, list) else [whole]
        parts = (self.attribute(place, f"{name}{i}") for i in itertools.count())
        return [n for part in itertools.takewhile(lambda p: p is not None, parts) for n in part]

    def entries(self, place: str) -> list[Entry]:
        """Returns the arrays of a group, in their order."""
        found = []
        for name in self.names(place, "weight_names"):
            entry = self.store.entry(f"{place}/{name}")
            if entry is None:
                raise FileError(
                    f"{self.name}: {place}",
                    received=f"the name {name!r} without an array of numbers",
                    expected="a file that is whole",
                )
            found.append(entry)
        return found

    def fitting(
        self,
        model: Any,
        skip_mismatch: bool = False,
        by_name: bool = False,
        leave: Sequence[Any] = (),
    ) -> list[tuple[Variable, Entry]]:
        """Returns the weights of a model with their arrays; raises where one does not fit.

        Args:
            model, skip_mismatch, by_name: As in `load_weights`.
            leave: Layers that stay as they are.
        """
        known = self.names(self.root, "layer_names")
        skipped = {id(layer) for layer in leave}
        layers = [layer for layer in model.layers if id(layer) not in skipped]
        if by_name:
            named = set(known)
            pairs = [(x, self.entries(self.place(x.name))) for x in layers if x.name in named]
        else:
            held = [(n, e) for n in known if (e := self.entries(self.place(n)))]
            layers = [layer for layer in layers if _weights(layer)]
            if leave:
                kept = {layer.name for layer in layers}
                held = [(n, e) for n, e in held if n in kept]
            if len(held) != len(layers):
                raise ArgumentError(
                    f"load_weights of '{model.name}'",
                    received=f"{self.name} with {len(held)} layers that have weights",
                    expected=f"{len(layers)}, as in the model",
                    fix="build the model as it was, or by_name=True",
                )
            pairs = [(x, e) for x, (_, e) in zip(layers, held, strict=True)]
        found = []
        for layer, entries in pairs:
            found += self._of_layer(layer, entries, skip_mismatch)
        top = self.entries(self.place(_TOP))
        if top and not by_name:
            found += self._matched(model.name, model._own_variables(), top, skip_mismatch)
        return found

    def _of_layer(
        self, layer: Any, entries: list[Entry], skip_mismatch: bool
    ) -> list[tuple[Variable, Entry]]:
        variables = _weights(layer)
        if len(variables) == len(entries):
            entries = _converted(layer, variables, entries)
        return self._matched(layer.name, variables, entries, skip_mismatch)

    def _matched(
        self, name: str, variables: list[Variable], entries: list[Entry], skip_mismatch: bool
    ) -> list[tuple[Variable, Entry]]:
        if len(variables) != len(entries):
            if skip_mismatch:
                return []
            raise ArgumentError(
                f"load_weights: '{name}'",
                received=f"{len(entries)} arrays in {self.name}",
                expected=f"{len(variables)}",
                fix="build the model as it was, or skip_mismatch=True",
            )
        found = []
        for variable, entry in zip(variables, entries, strict=True):
            if entry.shape == variable.shape:
                found.append((variable, entry))
            elif not skip_mismatch:
                raise ShapeError(
                    f"load_weights: '{variable.path}'",
                    received=f"shape {entry.shape} in {self.name}",
                    expected=f"shape {variable.shape}",
                    fix="build the model as it was, or skip_mismatch=True",
                )
        return found

    def of_optimizer(self, model: Any) -> list[tuple[Variable, Entry]]:
        """Returns the optimizer's state; warns where its meaning is not clear."""
        names = self.names(OPTIMIZER, "weight_names")
        optimizer: Optimizer | None = model.optimizer
        if not names or optimizer is None:
            return []
        entries = self.entries(OPTIMIZER)
        optimizer.build(model.trainable_variables)
        found = _by_order(optimizer, names, entries) or _by_slots(optimizer, names, entries)
        if found is None:
            warnings.warn(
                f"{self.name}: what it holds of the optimizer is not the state of"
                f" {optimizer.name}, which starts anew",
                stacklevel=5,
            )
        return found or []


def _weights(layer: Any) -> list[Variable]:
    """Returns the weights of a layer in Keras 2's order."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


# --- recurrent layers of one bias or two, as cuDNN reads them or not


def _converted(layer: Any, variables: list[Variable], entries: list[Entry]) -> list[Entry]:
    """Returns arrays in which cells have the form that they have in `layer`."""
    at = {id(v): i for i, v in enumerate(variables)}
    entries = list(entries)
    for cell in layer._family():
        if not isinstance(cell, LSTMCell | GRUCell) or cell.bias is None:
            continue
        places = [at.get(id(v)) for v in (cell.kernel, cell.recurrent_kernel, cell.bias)]
        if any(place is None for place in places):
            continue
        kernel, recurrent, bias = (entries[i] for i in places if i is not None)
        change = _change(cell, bias.shape)
        if change is not None:
            turns = change[0], change[0], change[1]
            shapes = kernel.shape, recurrent.shape, cell.bias.shape
            for place, entry, shape, turn in zip(
                places, (kernel, recurrent, bias), shapes, turns, strict=True
            ):
                assert place is not None
                entries[place] = Entry(shape, _turned(entry, turn))
    return entries


def _turned(entry: Entry, turn: Turn) -> Callable[[], np.ndarray]:
    return lambda: turn(entry.read())


def _change(cell: Any, found: tuple[int, ...]) -> tuple[Turn, Turn] | None:
    """Returns what changes the kernels and the bias; None where nothing must."""
    wanted, units = cell.bias.shape, cell.units
    gates = 4 if isinstance(cell, LSTMCell) else 3
    if found == wanted:
        return None
    one, two = (gates * units,), (2 * gates * units,)
    if gates == 4 and (found, wanted) == (two, one):
        return _from_cudnn(gates), lambda b: b.reshape(2, -1).sum(0)
    if gates == 4 and (found, wanted) == (one, two):
        return _to_cudnn(gates), lambda b: np.tile(b / 2, 2)
    if gates == 3 and (found, wanted) == (two, (2, *one)):
        return _from_cudnn(gates), lambda b: b.reshape(wanted)
    if gates == 3 and (found, wanted) == ((2, *one), two):
        return _to_cudnn(gates), lambda b: b.reshape(wanted)
    return None


def _from_cudnn(gates: int) -> Turn:
    """Returns what turns kernels that lie as cuDNN reads them."""
    return lambda kernel: np.asarray(read_by_cudnn(jnp.asarray(kernel), gates))


def _to_cudnn(gates: int) -> Turn:
    """Returns what lays kernels as cuDNN reads them."""

    def turn(kernel: np.ndarray) -> np.ndarray:
        size, width = kernel.shape
        parts = kernel.reshape(size, gates, width // gates).swapaxes(0, 1)
        turned = [np.ascontiguousarray(part.T).reshape(size, width // gates) for part in parts]
        return np.concatenate(turned, 1)

    return turn


# --- optimizers

# Names of slots in Keras 2, of its optimizers before 2.11 as well.
_SLOTS = {
    "accum_grad": "accumulated_grad",
    "accum_var": "accumulated_delta_var",
    "m": "momentum",
    "mg": "average_gradient",
    "rms": "velocity",
    "u": "norm",
    "v": "velocity",
    "vhat": "velocity_hat",
}


def _by_order(
    optimizer: Any, names: list[str], entries: list[Entry]
) -> list[tuple[Variable, Entry]] | None:
    """Returns the state in the order of Keras 3's files, if that is what it is."""
    variables = optimizer.variables
    shapes = [v.shape for v in variables] == [e.shape for e in entries]
    if not shapes or len(names) < 2 or "learning_rate" not in names[1]:
        return None
    return list(zip(variables, entries, strict=True))


def _by_slots(
    optimizer: Any, names: list[str], entries: list[Entry]
) -> list[tuple[Variable, Entry]] | None:
    """Returns the state by the names of Keras 2: `Adam/m/dense/kernel:0`, `Adam/dense/kernel/m:0`."""
    if not re.search(r"(^|/)(iter|iteration|iterations)(:0)?$", names[0]) or entries[0].shape:
        return None
    slots: dict[str, list[Entry]] = {}
    for name, entry in zip(names[1:], entries[1:], strict=True):
        parts = name.removesuffix(":0").split("/")
        said = parts[1] if names[0].startswith("iteration") and len(parts) > 2 else parts[-1]
        slots.setdefault(_SLOTS.get(said, said), []).append(entry)
    own: dict[str, list[Variable]] = getattr(optimizer, "_slots", {})
    if "norm" in own and "norm" not in slots:  # Adamax before 2.11
        slots["norm"] = slots.pop("velocity", [])
    found = [(optimizer._iterations, entries[0])]
    for name, variables in own.items():
        given = slots.get(name, [])
        if [v.shape for v in variables] != [e.shape for e in given]:
            return None
        found += zip(variables, given, strict=True)
    if len(found) != 1 + sum(map(len, own.values())) or _has_more(optimizer, own):
        return None
    return found


def _has_more(optimizer: Any, slots: dict[str, list[Variable]]) -> bool:
    """Returns whether an optimizer holds state beside its slots, which Keras 2 does not write."""
    known = {id(v) for column in slots.values() for v in column}
    known |= {id(optimizer._iterations), id(optimizer._rate)}
    return any(id(v) not in known for v in optimizer.variables)


# --- writing


def write_legacy(
    group: h5py.Group, model: Any, leave: Sequence[Any] = (), version: str = KERAS2
) -> None:
    """Writes the weights of a model into an open group, but for those of the layers in `leave`."""
    group.attrs["backend"] = "tensorflow"
    group.attrs["keras_version"] = version
    skipped = {id(layer) for layer in leave}
    layers = [layer for layer in model.layers if id(layer) not in skipped]
    _put_names(group, "layer_names", [layer.name for layer in layers])
    for layer in layers:
        _put(group.create_group(layer.name), _weights(layer))
    _put(group.create_group(_TOP), list(model._own_variables()))


def write_optimizer(file: h5py.File, optimizer: Any) -> None:
    """Writes an optimizer's state into an open file, in the order of Keras 2 before 2.11.

    Later ones and tf_keras read it as well.
    """
    own: dict[str, list[Variable]] = getattr(optimizer, "_slots", {})
    if not optimizer.built or not own or _has_more(optimizer, own):
        return
    short = {full: name for name, full in _SLOTS.items()} | {"norm": "v"}
    if not {"velocity_hat", "norm"} & set(own) and set(own) != {"momentum", "velocity"}:
        del short["momentum"]  # only Adam's kin call it so
    kind = type(optimizer).__name__
    if kind == "RMSprop":
        short |= {"velocity": "rms", "momentum": "momentum"}
    named = [(f"{kind}/iter:0", optimizer._iterations)]
    for slot, variables in own.items():
        named += [
            (f"{kind}/{weight.path}/{short.get(slot, slot)}:0", variable)
            for weight, variable in zip(optimizer._trainable_variables, variables, strict=True)
        ]
    group = file.create_group(OPTIMIZER)
    _put_named(group, named)


def _put(group: h5py.Group, variables: Sequence[Variable]) -> None:
    _put_named(group, list(_unlike(variables)))


def _unlike(variables: Sequence[Variable]) -> Iterator[tuple[str, Variable]]:
    """Yields weights with their paths, no two alike and none a part of another."""
    seen: set[str] = set()
    for variable in variables:
        name, count = f"{variable.path}:0", 0
        while name in seen:
            count += 1
            name = f"{variable.path}_{count}:0"
        seen.add(name)
        yield name, variable


def _put_named(group: h5py.Group, named: list[tuple[str, Variable]]) -> None:
    _put_names(group, "weight_names", [name for name, _ in named])
    for name, variable in named:
        value = variable.numpy()
        group.create_dataset(name, data=value if value.dtype.kind in "fiub" else np.float32(value))


def _put_names(group: h5py.Group, name: str, values: list[str]) -> None:
    data = [value.encode("utf-8") for value in values]
    longest = max(map(len, data), default=1)
    step = max(1, _ATTRIBUTE // max(longest, 1))
    if len(data) <= step:
        group.attrs[name] = np.asarray(data, dtype=f"S{max(longest, 1)}")
        return
    for i in range(math.ceil(len(data) / step)):
        group.attrs[f"{name}{i}"] = np.asarray(data[i * step : (i + 1) * step])
