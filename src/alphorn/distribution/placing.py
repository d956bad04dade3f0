"""The one place that places arrays: Variables by their layouts, batches by their rows.

Rows that do not divide by the devices go to all of them whole; inside the step XLA parts them
unevenly, so that each device has its share of the work and no row is counted that was not given.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from alphorn.distribution.current import distribution
from alphorn.distribution.mesh import TensorLayout
from alphorn.distribution.processes import check_same, on_host, several
from alphorn.errors import DataError


def put(value: Any, sharding: NamedSharding) -> jax.Array:
    """Returns an array as it lies on the devices; every process has all of it."""
    if isinstance(value, jax.Array) and value.sharding == sharding:
        return value
    if sharding.is_fully_addressable or not getattr(value, "is_fully_addressable", True):
        return jax.device_put(value, sharding)
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def distribute_tensor(tensor: Any, layout: Any) -> jax.Array:
    """Returns an array laid out over the devices; inside a compiled function, asks XLA to.

    Args:
        tensor: An array.
        layout: A `TensorLayout`, or a layout of JAX's.
    """
    if isinstance(layout, TensorLayout):
        layout.check("distribute_tensor", np.shape(tensor))
        layout = layout.backend_layout
    if isinstance(tensor, Tracer):
        return jax.lax.with_sharding_constraint(tensor, layout)
    return put(tensor, layout)


def place(variables: Sequence[Any]) -> None:
    """Lays Variables out as the distribution says, those too that were made before it was set."""
    now = distribution()
    if now is None:
        return
    for variable in variables:
        if variable.layout is None or variable.layout.device_mesh is not now.device_mesh:
            variable.lay_out(now.get_variable_layout(variable))


def settle(variables: Sequence[Any]) -> None:
    """Lays Variables out for a program.

    Raises:
        StateError: the processes do not have the same values.
    """
    place(variables)
    now = distribution()
    if now is not None:
        now.look_at([v.path for v in variables])
    whole = [v.slot for v in variables if v.slot.is_fully_replicated] if several() else []
    check_same(
        "the weights",
        f"checksum {zlib.crc32(b''.join(on_host(a).tobytes() for a in whole))}",
        "begin with alphorn.distribution.initialize(...), or load the same file in all",
    )


def kept_in_place(variables: Sequence[Any]) -> dict[str, Any]:
    """Returns the options of `jax.jit` for a step that gives `(values of variables, figures)`."""
    now = distribution()
    if now is None:
        return {}
    return {"out_shardings": ([v.layout.backend_layout for v in variables], now.whole)}


def spread(batches: Any, count: int = 1, compare: bool = False) -> Any:
    """Returns batches on the devices.

    Args:
        batches: One, or several in a row; those that go to several devices get an axis of their own
            before the rows, so that each device has rows of each.
        count: How many.
        compare: Whether the processes make sure that they have the same rows.
    """
    now = distribution()
    if compare and several():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(batches)]
        sums = [] if own_rows(now) else [zlib.crc32(a.tobytes()) for a in leaves]
        check_same(
            "a batch",
            f"shapes {[a.shape for a in leaves]}, checksums {sums}",
            "give all rows in every process; DataParallel(auto_shard_dataset=False) where each has"
            " its own, and as many",
        )
    if now is None:
        return batches
    if count > 1:
        batches = _one_by_one(batches, count)
    return jax.tree.map(lambda a: _spread(a, now, int(count > 1)), batches)


def stacked(batches: Any, count: int) -> Any:
    """Returns traced batches in a row with an axis of their own, if `spread` gave them none."""
    return _one_by_one(batches, count) if distribution() is None else batches


def _one_by_one(batches: Any, count: int) -> Any:
    return jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), batches)


def _spread(array: Any, now: Any, axis: int = 0) -> jax.Array:
    sharding, parts = now.rows(axis), now.num_model_replicas
    if own_rows(now):
        array, here = np.asarray(array), max(parts // now.num_processes, 1)
        if array.shape[axis] % here == 0:
            return jax.make_array_from_process_local_data(sharding, array)
        if axis:
            raise DataError(
                "batch_size", array.shape[axis], f"a multiple of this process's {here} devices"
            )
        array = multihost_utils.process_allgather(array, tiled=True)
    return put(array, sharding if array.shape[axis] % parts == 0 else now.whole)


def own_rows(now: Any) -> bool:
    """Returns whether each of several processes has rows of its own under a distribution."""
    return now is not None and now.num_processes > 1 and not now.auto_shard_dataset


def parted(batch: Any) -> Any:
    """Has XLA part a traced batch by its rows, evenly or not."""
    now = distribution()
    return batch if now is None else _constrained(batch, now.rows())


def in_place(variable: Any, value: Any) -> Any:
    """Has XLA lay a Variable's traced new value out as the old one is."""
    layout = variable.layout
    return value if layout is None else _constrained(value, layout.backend_layout)


def gathered(outputs: Any) -> Any:
    """Has XLA gather traced outputs, where other processes have parts of them."""
    now = distribution()
    return outputs if now is None or now.num_processes == 1 else _constrained(outputs, now.whole)


def rows_here(outputs: Any) -> Any:
    """Returns of gathered outputs the rows that this process gave, where it has its own."""
    now = distribution()
    if not own_rows(now):
        return outputs
    count, number = min(now.num_model_replicas, now.num_processes), now.data_shard_id
    return jax.tree.map(lambda a: jnp.split(a, count)[number], outputs)


def laid(outputs: Any, path: str) -> Any:
    """Returns what a layer gives, laid out as the distribution says for its path."""
    layout = distribution().get_tensor_layout(f"{path}/output")
    if layout is None:
        return outputs
    return jax.tree.map(lambda a: distribute_tensor(a, layout), outputs)


def _constrained(tree: Any, sharding: NamedSharding) -> Any:
    def constrained(leaf: Any) -> Any:
        traced = isinstance(leaf, Tracer)
        return jax.lax.with_sharding_constraint(leaf, sharding) if traced else leaf

    return jax.tree.map(constrained, tree)


def by_rows(fn: Callable[[Any, Any], Any], rows: Any, shared: Any) -> Any:
    """Returns `fn(rows, shared)`, on each device for the rows that it has.

    For what sorts rows or runs them in blocks: over all rows XLA would gather them first.

    Args:
        fn: Treats each row by itself.
        rows: A structure of arrays `(B, ...)`; results are such too.
        shared: What all rows use.
    """
    now, count = distribution(), jax.tree.leaves(rows)[0].shape[0]
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(rows))
    if now is None or not traced or not isinstance(count, int) or now.num_model_replicas == 1:
        return fn(rows, shared)
    mesh, spec = now.device_mesh.backend_mesh, PartitionSpec(now.batch_dim_name)
    missing = -count % now.num_model_replicas
    if missing:
        rows = jax.tree.map(lambda a: jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1)), rows)
    run = jax.shard_map(
        fn, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec, check_vma=False
    )
    out = run(rows, shared)
    return jax.tree.map(lambda a: a[:count], out) if missing else out


class Placed:
    """Data whose batches lie on the devices.

    Args:
        dataset: Yields arrays, or structures of them.
        on: The distribution.
    """

    def __init__(self, dataset: Any, on: Any):
        self.dataset, self._on = dataset, on

    @property
    def num_batches(self) -> int | None:
        """How many batches there are, None where that is not known."""
        return len(self.dataset) if hasattr(self.dataset, "__len__") else None

    def as_numpy_iterator(self) -> Iterator[Any]:
        """Yields the batches as they come, for `fit`, which places them itself."""
        source = self.dataset
        yield from source.as_numpy_iterator() if hasattr(source, "as_numpy_iterator") else source

    def __iter__(self) -> Iterator[Any]:
        for batch in self.as_numpy_iterator():
            yield jax.tree.map(lambda a: _spread(np.asarray(a), self._on), batch)
