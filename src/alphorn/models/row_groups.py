"""A graph on the rows of a batch in groups of like lengths, each cut to its longest row.

What needs all rows runs on all of them at once: layers that measure a batch. So do those that skip
padding by themselves, and Embeddings, whose gradient is a table and best made once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.core.masked import is_masked, mask_of, unmask
from alphorn.core.symbol import Node
from alphorn.layers.embedding import Embedding
from alphorn.models.graph import Graph, called
from alphorn.training.groups import Groups, groups_now, in_groups, runs_whole


class Parts:
    """What stands for one value of a graph: the value of each group."""

    def __init__(self, values: Sequence[Any]):
        self.values = list(values)


def values_of(graph: Graph, inputs: Any, where: str) -> dict[int, Any]:
    """Returns what stands for a graph's Symbols, of which the outputs and losses are of all rows.

    Args:
        graph: Of a model.
        inputs: Of a whole batch.
        where: The model's name, for errors.
    """
    groups = groups_now()
    if groups is None:
        return graph.values(inputs, where)
    with in_groups(None):
        given = graph.fitted_inputs(inputs, where)
        parts = [Parts(groups.split(value, place)) for place, value in enumerate(given)]
        values = graph.computed(parts, lambda *call: _called_by_group(groups, *call))
    ends = [*graph.output_symbols, *graph.losses]
    return values | {id(s): _joined(values[id(s)], groups) for s in ends}


def _called_by_group(groups: Groups, node: Node, args: tuple, kwargs: dict) -> Any:
    given = [x for x in jax.tree.leaves((args, kwargs), is_leaf=is_masked) if isinstance(x, Parts)]
    if not given:
        return called(node, args, kwargs)
    if isinstance(node.operation, Embedding) and _covered(given[0]):
        return _looked_up(node, args, kwargs)
    if runs_whole(node.operation):
        whole = _mapped(lambda part: _joined(part, groups), (args, kwargs))
        out = called(node, *whole)
        return jax.tree.map(lambda x: _parted(x, given[0], groups), out, is_leaf=is_masked)
    outputs = [
        called(node, *_mapped(lambda part, g=group: part.values[g], (args, kwargs)))
        for group in range(len(groups.rows))
    ]
    return jax.tree.map(lambda *values: Parts(values), *outputs, is_leaf=is_masked)


def _mapped(function: Callable[[Parts], Any], tree: Any) -> Any:
    def replaced(leaf: Any) -> Any:
        return function(leaf) if isinstance(leaf, Parts) else leaf

    return jax.tree.map(replaced, tree, is_leaf=is_masked)


def _covered(ids: Parts) -> bool:
    """Returns whether ids have no mask, or one that says something of each id."""
    return all(mask_of(x) is None or mask_of(x).ndim == x.ndim for x in ids.values)


def _looked_up(node: Node, args: tuple, kwargs: dict) -> Parts:
    """Returns the vectors of the ids of all groups, from one lookup."""
    ids, *others = args
    shapes = [unmask(part).shape for part in ids.values]
    flat = jax.tree.map(
        lambda *arrays: jnp.concatenate([a.reshape(1, -1) for a in arrays], 1), *ids.values
    )
    found = called(node, (flat, *others), kwargs)
    values, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        values.append(
            jax.tree.map(
                lambda a, at=(start, stop), to=shape: a[0, slice(*at)].reshape(*to, *a.shape[2:]),
                found,
            )
        )
        start = stop
    return Parts(values)


def _joined(part: Any, groups: Groups) -> Any:
    """Returns the rows of all groups, padded to the longest; masks of that padding are False."""

    def join(*arrays: Array) -> Array:
        sizes = [max(axis) for axis in zip(*(a.shape[1:] for a in arrays), strict=True)]
        padded = []
        for array in arrays:
            missing = [size - now for size, now in zip(sizes, array.shape[1:], strict=True)]
            ends = [(n, 0) if groups.front else (0, n) for n in missing]
            padded.append(jnp.pad(array, [(0, 0), *ends]))
        return jnp.concatenate(padded)

    return jax.tree.map(join, *part.values) if isinstance(part, Parts) else part


def _parted(value: Any, like: Parts, groups: Groups) -> Parts:
    """Returns what each group has of a value of all rows, whose steps are those of `like`."""
    steps = mask_of(value).ndim - 1 if is_masked(value) else 0

    def part(array: Array, span: slice, sizes: tuple[int, ...]) -> Array:
        kept = [
            slice(full - size, None) if groups.front else slice(size)
            for full, size in zip(array.shape[1:], sizes, strict=False)
        ]
        return array[(span, *kept)]

    values = []
    for span, own in zip(groups.spans, like.values, strict=True):
        sizes = unmask(own).shape[1 : steps + 1]
        values.append(jax.tree.map(lambda a, at=span, n=sizes: part(a, at, n), value))
    return Parts(values)
