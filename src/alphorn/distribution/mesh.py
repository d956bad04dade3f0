"""Devices in a grid, and how the axes of an array lie on it."""

import functools
import math
import re
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alphorn.errors import ArgumentError, ShapeError


def list_devices(device_type: str | None = None) -> list[str]:
    """Returns the names of all devices, those of other processes too.

    Args:
        device_type: "cpu", "gpu" or "tpu"; by default the best there is.

    >>> list_devices("cpu")[0]
    'cpu:0'
    """
    try:
        return [_name(d) for d in jax.devices(device_type and device_type.lower())]
    except RuntimeError as error:
        there = sorted({d.platform for d in jax.devices()} | {"cpu"})
        raise ArgumentError("device_type", repr(device_type), f"one of {there}") from error


def get_device_count(device_type: str | None = None) -> int:
    """Returns how many devices there are, those of other processes too.

    >>> get_device_count("cpu") == len(list_devices("cpu"))
    True
    """
    return len(list_devices(device_type))


def _name(device: Any) -> str:
    return f"{device.platform}:{device.id}"


def _device(name: Any) -> Any:
    if isinstance(name, jax.Device):
        return name
    found = {_name(d): d for d in (*jax.devices(), *jax.devices("cpu"))}
    if name not in found:
        raise ArgumentError("DeviceMesh: devices", repr(name), f"one of {list_devices()}")
    return found[name]


class DeviceMesh:
    """Devices in a grid whose axes have names.

    Args:
        shape: How many devices each axis has.
        axis_names: A name for each axis.
        devices: Names, as `list_devices` gives them; all devices by default.

    >>> DeviceMesh((1, 1), ["batch", "model"], ["cpu:0"])
    <DeviceMesh shape=(1, 1), axis_names=['batch', 'model']>
    """

    def __init__(self, shape: Sequence[int], axis_names: Sequence[str], devices: Any = None):
        shape, names = tuple(shape or ()), list(axis_names or ())
        if not shape or len(shape) != len(names) or len(set(names)) < len(names):
            raise ArgumentError(
                "DeviceMesh: shape and axis_names",
                f"{shape} and {names}",
                "a size and a name for each axis, all names different",
            )
        given = np.array([_device(d) for d in (list_devices() if devices is None else devices)])
        if math.prod(shape) != len(given):
            raise ArgumentError(
                "DeviceMesh: shape",
                f"{shape}, which holds {math.prod(shape)} devices",
                f"a shape for {len(given)}",
                f"shape=({len(given)},), or devices=list_devices()[:{math.prod(shape)}]",
            )
        self._mesh = Mesh(given.reshape(shape), names)

    @property
    def shape(self) -> tuple[int, ...]:
        """How many devices each axis has."""
        return self._mesh.devices.shape

    @property
    def axis_names(self) -> list[str]:
        """The names of the axes."""
        return list(self._mesh.axis_names)

    @property
    def devices(self) -> np.ndarray:
        """The names of the devices, in the shape of the mesh."""
        return np.vectorize(_name, otypes=[object])(self._mesh.devices)

    @property
    def backend_mesh(self) -> Mesh:
        """JAX's own mesh."""
        return self._mesh

    def size_of(self, axes: Any) -> int:
        """Returns over how many devices an entry of a layout spreads: a name, names or None."""
        names = [] if axes is None else [axes] if isinstance(axes, str) else axes
        return math.prod(self._mesh.shape[n] for n in names)

    def __repr__(self) -> str:
        return f"<DeviceMesh shape={self.shape}, axis_names={self.axis_names}>"


class TensorLayout:
    """Over which axes of a mesh the axes of an array are spread.

    Args:
        axes: For each axis of the array the name of a mesh's axis, or None for whole.
        device_mesh: The mesh; a `LayoutMap` fills in its own.

    >>> TensorLayout((None, "model"), DeviceMesh((1,), ["model"], ["cpu:0"])).axes
    (None, 'model')
    """

    def __init__(self, axes: Sequence[Any], device_mesh: DeviceMesh | None = None):
        self._axes = tuple(axes)
        self._mesh: DeviceMesh | None = None
        if device_mesh is not None:
            self.device_mesh = device_mesh

    @property
    def axes(self) -> tuple[Any, ...]:
        """The axes of the mesh, one for each of the array's."""
        return self._axes

    @property
    def device_mesh(self) -> DeviceMesh | None:
        """The mesh, set once."""
        return self._mesh

    @device_mesh.setter
    def device_mesh(self, mesh: DeviceMesh) -> None:
        if self._mesh is not None:
            raise ArgumentError(
                "TensorLayout: device_mesh", repr(mesh), f"nothing: it has {self._mesh}"
            )
        named = [n for a in self._axes if a is not None for n in ([a] if isinstance(a, str) else a)]
        if strange := [n for n in named if n not in mesh.axis_names]:
            raise ArgumentError(
                "TensorLayout: axes",
                f"{strange[0]!r} in {self._axes}",
                f"None, or the name of an axis of the mesh: {mesh.axis_names}",
            )
        self._mesh = mesh

    @functools.cached_property
    def backend_layout(self) -> NamedSharding:
        """JAX's own layout."""
        if self._mesh is None:
            raise ArgumentError(
                "TensorLayout: device_mesh", "none", "a DeviceMesh", "TensorLayout(axes, mesh)"
            )
        return NamedSharding(self._mesh.backend_mesh, PartitionSpec(*self._axes))

    def check(self, what: str, shape: tuple[int, ...]) -> None:
        """Raises ShapeError where an array of this shape cannot lie so."""
        if len(shape) != len(self._axes):
            raise ShapeError(
                f"{what}: a layout of rank {len(self._axes)}",
                f"{self._axes} for shape {shape}",
                f"{len(shape)} entries, None for an axis that stays whole",
            )
        assert self._mesh is not None
        for axis, (size, name) in enumerate(zip(shape, self._axes, strict=True)):
            if size % self._mesh.size_of(name):
                raise ShapeError(
                    f"{what}: axis {axis} is spread over '{name}'",
                    f"size {size}",
                    f"a multiple of its {self._mesh.size_of(name)} devices",
                    "give the axis None, or the layer another size",
                )

    def __repr__(self) -> str:
        return f"<TensorLayout axes={self._axes}, device_mesh={self._mesh}>"


class LayoutMap(MutableMapping):
    """Layouts by paths of Variables; a key is a path, or a regular expression for whole paths.

    `layer/output` is the path of what a layer gives.

    Args:
        device_mesh: For layouts that have none of their own.

    >>> layouts = LayoutMap(DeviceMesh((1,), ["model"], ["cpu:0"]))
    >>> layouts[".*kernel"] = (None, "model")
    >>> layouts["dense/kernel"].axes, layouts["dense/bias"]
    ((None, 'model'), None)
    """

    def __init__(self, device_mesh: DeviceMesh):
        self._mesh = device_mesh
        self._layouts: dict[str, TensorLayout] = {}

    @property
    def device_mesh(self) -> DeviceMesh:
        """The mesh."""
        return self._mesh

    def __getitem__(self, key: str) -> TensorLayout | None:
        if key in self._layouts:
            return self._layouts[key]
        found = [k for k in self._layouts if re.fullmatch(k, key)]
        if len(found) > 1:
            raise ArgumentError(
                f"LayoutMap: '{key}'", f"the keys {found}, which all match it", "one that does"
            )
        return self._layouts[found[0]] if found else None

    def __setitem__(self, key: str, layout: Any) -> None:
        if key in self._layouts:
            raise ArgumentError(
                f"LayoutMap: '{key}'", "a second layout", "one a key", f"del layouts[{key!r}] first"
            )
        if isinstance(layout, tuple):
            layout = TensorLayout(layout)
        if not isinstance(layout, TensorLayout):
            raise ArgumentError(
                f"LayoutMap: '{key}'", repr(layout), "a TensorLayout, or the tuple of its axes"
            )
        if layout.device_mesh is None:
            layout.device_mesh = self._mesh
        self._layouts[key] = layout

    def __delitem__(self, key: str) -> None:
        del self._layouts[key]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self[key] is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._layouts)

    def __len__(self) -> int:
        return len(self._layouts)
