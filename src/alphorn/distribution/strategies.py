"""What lies where: the batch in parts and the weights whole, or the weights in parts as well."""

import contextlib
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from alphorn.distribution.current import hold_from_now_on, holding
from alphorn.distribution.mesh import DeviceMesh, LayoutMap, TensorLayout, list_devices
from alphorn.distribution.placing import Placed
from alphorn.errors import ArgumentError, UnexpectedArgumentError


class Distribution:
    """Base of distributions: how the rows of batches and the Variables lie on a mesh.

    Args:
        device_mesh: The devices.
        batch_dim_name: The axis of the mesh over which the rows of a batch are spread.
        auto_shard_dataset: Whether each process has all rows of the data and its devices take
            their part of each batch; with False each has rows of its own, and a batch is what they
            have together.
    """

    def __init__(self, device_mesh: DeviceMesh, batch_dim_name: str, auto_shard_dataset: bool):
        if not isinstance(device_mesh, DeviceMesh):
            raise ArgumentError(
                f"{type(self).__name__}: device_mesh", repr(device_mesh), "a DeviceMesh"
            )
        if batch_dim_name not in device_mesh.axis_names:
            raise ArgumentError(
                f"{type(self).__name__}: batch_dim_name",
                repr(batch_dim_name),
                f"an axis of the mesh: {device_mesh.axis_names}",
            )
        self.device_mesh, self.batch_dim_name = device_mesh, batch_dim_name
        self.auto_shard_dataset = auto_shard_dataset

    @property
    def num_model_replicas(self) -> int:
        """Into how many parts the rows of a batch go."""
        return self.device_mesh.size_of(self.batch_dim_name)

    @functools.cached_property
    def num_processes(self) -> int:
        """How many processes the devices belong to."""
        return len({d.process_index for d in self.device_mesh.backend_mesh.devices.flat})

    @property
    def data_shard_id(self) -> int:
        """Which part of the data this process would read, were each to read its own."""
        parts = min(self.num_model_replicas, self.num_processes)
        return jax.process_index() * parts // self.num_processes

    def get_data_layout(self, data_shape: Sequence[Any]) -> TensorLayout:
        """Returns the layout of data: rows spread, all other axes whole."""
        axes = [self.batch_dim_name, *[None] * (len(data_shape) - 1)]
        return TensorLayout(axes[: len(data_shape)], self.device_mesh)

    def get_variable_layout(self, variable: Any) -> TensorLayout:
        """Returns the layout of a Variable; by default that which it has, or whole everywhere."""
        given = variable.layout
        if given is not None and given.device_mesh is self.device_mesh:
            return given
        return TensorLayout([None] * variable.ndim, self.device_mesh)

    def get_tensor_layout(self, path: str) -> TensorLayout | None:
        """Returns the layout of what a layer gives, by `layer/output`; None leaves it to XLA."""
        return None

    def look_at(self, paths: Sequence[str]) -> None:
        """Is told the paths of the Variables of each program; a hook."""

    def scope(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which this distribution holds."""
        return holding(self)

    def distribute_dataset(self, dataset: Any) -> Placed:
        """Returns data whose batches lie on the devices, for loops of your own.

        `fit`, `evaluate` and `predict` place what they are given themselves.

        Args:
            dataset: Yields arrays, or structures of them.
        """
        return Placed(dataset, self)

    def distribute_tf_dataset(self, dataset: Any) -> Placed:
        """Is `distribute_dataset`."""
        return self.distribute_dataset(dataset)

    def rows(self, axis: int = 0) -> NamedSharding:
        """Returns JAX's layout of arrays whose rows stand on an axis."""
        spec = PartitionSpec(*[None] * axis, self.batch_dim_name)
        return NamedSharding(self.device_mesh.backend_mesh, spec)

    @functools.cached_property
    def whole(self) -> NamedSharding:
        """JAX's layout of what each device has all of."""
        return NamedSharding(self.device_mesh.backend_mesh, PartitionSpec())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} device_mesh={self.device_mesh}>"


class DataParallel(Distribution):
    """Rows of a batch on all devices, the weights on each.

    Args:
        device_mesh: By default all devices in a row; of a mesh of more axes the first is used.
        devices: Names of devices, where there is no mesh.
        auto_shard_dataset: Whether each process has all rows of the data and its devices take
            their part of each batch; with False each has rows of its own.

    >>> import alphorn as keras
    >>> with DataParallel(devices=["cpu:0"]).scope():
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.weights[0].layout.axes
    (None, None)
    """

    def __init__(
        self,
        device_mesh: DeviceMesh | None = None,
        devices: Sequence[Any] | None = None,
        auto_shard_dataset: bool = True,
    ):
        if device_mesh is None:
            names = list_devices() if devices is None else list(devices)
            device_mesh = DeviceMesh((len(names),), ["batch"], names)
        elif isinstance(device_mesh, DeviceMesh) and len(device_mesh.shape) > 1:
            warnings.warn(
                f"DataParallel spreads rows over '{device_mesh.axis_names[0]}', the first axis of"
                f" {device_mesh}; devices along the others do the same work",
                stacklevel=2,
            )
        axes = getattr(device_mesh, "axis_names", [""])
        super().__init__(device_mesh, axes[0], auto_shard_dataset)


class ModelParallel(Distribution):
    """Rows of a batch over one axis of a mesh, weights over others as their paths say.

    What an optimizer keeps for a weight lies as the weight does.

    Args:
        layout_map: Layouts by paths; what none matches is whole on every device.
        batch_dim_name: The axis for rows, by default the first.
        auto_shard_dataset: As in `DataParallel`.
        **kwargs: `device_mesh`, as older programs say it: that of the layouts.

    >>> import alphorn as keras
    >>> layouts = LayoutMap(DeviceMesh((1, 1), ["batch", "model"], ["cpu:0"]))
    >>> layouts[".*kernel"] = (None, "model")
    >>> with ModelParallel(layout_map=layouts).scope():
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    >>> [w.layout.axes for w in model.weights]
    [(None, 'model'), (None,)]
    """

    def __init__(
        self,
        *,
        layout_map: LayoutMap | None = None,
        batch_dim_name: str | None = None,
        auto_shard_dataset: bool = True,
        **kwargs: Any,
    ):
        if not isinstance(layout_map, LayoutMap):
            raise ArgumentError("ModelParallel: layout_map", repr(layout_map), "a LayoutMap")
        mesh = layout_map.device_mesh
        if kwargs.pop("device_mesh", mesh) is not mesh:
            raise ArgumentError("ModelParallel: device_mesh", "another", "that of layout_map")
        if kwargs:
            raise UnexpectedArgumentError("ModelParallel", ", ".join(kwargs), "its own arguments")
        super().__init__(mesh, batch_dim_name or mesh.axis_names[0], auto_shard_dataset)
        self.layout_map = layout_map

    def get_variable_layout(self, variable: Any) -> TensorLayout:
        """Returns the layout whose key matches the path; of an optimizer's state the weight's."""
        found = self.layout_map[(variable.follows or variable).path]
        return super().get_variable_layout(variable) if found is None else found

    def look_at(self, paths: Sequence[str]) -> None:
        """Warns where no key matches any of the paths: nothing would be spread."""
        if not any(path in self.layout_map for path in paths):
            warnings.warn(
                f"no key of the LayoutMap, {list(self.layout_map)}, matches a Variable, and all are"
                f" whole on every device; keys match whole paths: {', '.join(paths[:4])}, ...",
                stacklevel=2,
            )

    def get_tensor_layout(self, path: str) -> TensorLayout | None:
        """Returns the layout whose key matches."""
        return self.layout_map[path]


def set_distribution(value: Distribution | None) -> None:
    """Has a distribution hold from now on, in all threads; None ends it.

    Args:
        value: What `distribution()` then returns, outside of a `scope()`.
    """
    if value is not None and not isinstance(value, Distribution):
        raise ArgumentError(
            "set_distribution", repr(value), "a DataParallel, a ModelParallel or None"
        )
    hold_from_now_on(value)
