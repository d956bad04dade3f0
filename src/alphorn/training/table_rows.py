"""Embeddings of which a step touches the rows of its batch alone, in gradient and update.

The gradient of a lookup is a table of zeros with a few rows in it, and an update of all of it reads
and writes each row and each moment. Where only lookups of inputs read a table, a step takes the rows
that the batch names, differentiates by them, and updates them.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.core.masked import fill_masked, mask_of, unmask
from alphorn.core.variable import Variable
from alphorn.distribution.current import distribution
from alphorn.layers.embedding import Embedding
from alphorn.training.cutting import own_figures
from alphorn.training.known import overridden, own_code

# An update by rows costs about as much as one of so many times as many rows at once.
_ROWS_COST = 4


def tables_by_rows(model: Any) -> dict[Variable, list[int]]:
    """Returns the tables of which a step may update some rows, and the inputs that look them up.

    Args:
        model: Compiled and prepared.
    """
    if not model.optimizer.updates_rows:
        return {}
    why = _reads_unseen(model)
    tables = {} if why else _looked_up(model.graph)
    if not tables and model.optimizer.rows_must_rest:
        warnings.warn(
            f"{type(model.optimizer).__name__} updates all rows of all weights of '{model.name}', as"
            f" its base does: {why or 'it has no table that inputs look up, and nothing else reads'}",
            stacklevel=4,
        )
    return tables


def _reads_unseen(model: Any) -> str:
    """Returns what may read a table without being seen; "" for nothing."""
    graph = getattr(model, "graph", None)
    if graph is None:
        return "its call is code of your own"
    if distribution() is not None:
        return "its weights lie on several devices"
    own = overridden(model, "__call__", "call", "train_step", "compute_loss", "compute_metrics")
    if own:
        return f"{own} is code of your own"
    code = (own_code(node.operation) for node in graph.nodes)
    return own_figures(model, in_batches=False) or next(filter(None, code), "")


def _looked_up(graph: Any) -> dict[Variable, list[int]]:
    places = {id(s): i for i, s in enumerate(graph.input_symbols)}
    found: dict[Variable, list[int]] = {}
    closed = set(graph.variables)
    for node in graph.nodes:
        layer = node.operation
        if isinstance(layer, Embedding) and id(node.inputs[0]) in places and _is_plain(layer):
            found.setdefault(layer.embeddings, []).append(places[id(node.inputs[0])])
        else:
            closed.update(getattr(layer, "variables", ()))
    return {table: where for table, where in found.items() if table not in closed}


def _is_plain(layer: Embedding) -> bool:
    table = layer.embeddings
    return table.trainable and table.regularizer is None and table.constraint is None


def rows_of_batch(
    model: Any, tables: Mapping[Variable, list[int]], trained: Sequence[Variable], x: Any
) -> dict[Variable, Array]:
    """Returns the rows that a batch names, sorted; behind them numbers that no row has.

    Args:
        model: The model.
        tables: As `tables_by_rows` gives them.
        trained: The weights of the step: a table that is frozen meanwhile stays whole.
        x: The batch's inputs.
    """
    values = model.graph.flatten(x, f"Model '{model.name}'") if tables else []
    found, trainable = {}, set(trained)
    for table, places in tables.items():
        if table not in trainable:
            continue
        ids = [fill_masked(unmask(values[p]), mask_of(values[p])).reshape(-1) for p in places]
        named = jnp.concatenate(ids).astype(jnp.int32)
        rows = table.shape[0]
        if model.optimizer.rows_must_rest or _ROWS_COST * named.size < rows:
            found[table] = jnp.unique(named, size=min(named.size, rows), fill_value=rows)
    return found
