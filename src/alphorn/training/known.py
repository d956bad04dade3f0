"""What is known of the code in a model: whose it is, whether it draws, whether it couples rows."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from alphorn.core.layer import Layer
from alphorn.core.symbol import is_symbol
from alphorn.layers.lambda_ import Lambda
from alphorn.layers.normalization import BatchNormalization
from alphorn.layers.recurrent import RNN
from alphorn.ops.table import TABLE, Operation

# Of functions in a layer's fields, those that never see its data.
_OF_WEIGHTS = ("initializer", "regularizer", "constraint")
# Ops that treat each step for itself or go over time by the mask, whatever the number of steps.
_STEPWISE = (
    "alphorn.ops.elementwise",
    "alphorn.ops.reduction",
    "alphorn.ops.nn",
    "alphorn.ops.steps",
)
_RATES = ("rate", "dropout", "recurrent_dropout", "stddev")


def named(operation: Any) -> str:
    """Returns a layer or op as messages name it.

    >>> named(Operation("log", name="log_1"))
    "ops.log 'log_1'"
    """
    kind = f"ops.{operation.op}" if isinstance(operation, Operation) else type(operation).__name__
    return f"{kind} '{getattr(operation, 'name', kind)}'"


def is_ours(function: Any) -> bool:
    """Returns whether a function or object is of this package, of JAX or of NumPy."""
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", None) or type(function).__module__
    return module.split(".")[0] in ("alphorn", "jax", "jaxlib", "numpy")


def members(layer: Any) -> Iterator[Layer]:
    """Yields a layer and those inside it that see more of a sequence than one step."""
    family = layer._family() if isinstance(layer, Layer) else []
    cells = [m.cell for m in family if isinstance(m, RNN) and isinstance(m.cell, Layer)]
    inside = {id(part) for cell in cells for part in cell._family()}
    return (m for m in family if id(m) not in inside)


def own_code(operation: Any) -> str:
    """Returns what code of the user's own sees the data in a layer or op; "" for none."""
    if isinstance(operation, Operation):
        return ""
    if not isinstance(operation, Layer):
        return f"{named(operation)} is not known"
    for member in members(operation):
        if isinstance(member, Lambda):
            return f"{named(member)} runs a function of your own"
        if member.user_defined:
            return f"{named(member)} is a class of your own"
        if getattr(member, "graph", None) is not None:
            continue
        for field, value in vars(member).items():
            unseen = field.endswith(_OF_WEIGHTS) and field != "activity_regularizer"
            if (
                callable(value)
                and not isinstance(value, Layer)
                and not unseen
                and not is_ours(value)
            ):
                return f"{named(member)} has {field}= a function of your own"
    return ""


def draws(layer: Any) -> bool:
    """Returns whether a layer, or one inside it, draws random numbers while training."""
    family = layer._family() if isinstance(layer, Layer) else []
    rates = [getattr(m, name, 0) for m in family for name in _RATES]
    return any(isinstance(r, int | float) and r > 0 for r in rates)


def has_moments(layer: Any) -> bool:
    """Returns whether a layer, or one inside it, measures its batches while training."""
    family = layer._family() if isinstance(layer, Layer) else []
    return any(isinstance(m, BatchNormalization) for m in family)


def keeps_state(layer: Any) -> Layer | None:
    """Returns the layer that keeps states from batch to batch, or None."""
    family = layer._family() if isinstance(layer, Layer) else []
    return next((m for m in family if getattr(m, "stateful", False)), None)


def goes_by_steps(op: str) -> bool:
    """Returns whether an op gives the same for a row, however many steps of padding follow."""
    return op in TABLE and getattr(TABLE[op].plain, "__module__", "") in _STEPWISE


def overridden(model: Any, *methods: str) -> str:
    """Returns which of a model's methods are the user's own, the first of them; "" for none."""
    for name in methods:
        if not is_ours(getattr(type(model), name)):
            return name
    return ""


def coupling(model: Any) -> str:
    """Returns why rows of a batch may depend on each other at inference; "" where they do not."""
    graph = getattr(model, "graph", None)
    if graph is None:
        return "its call is code of your own"
    if any(s.shape[0] is not None for s in graph.input_symbols):
        return "its inputs fix the batch size"
    own = overridden(model, "__call__", "call")
    if own:
        return f"{own} is overridden"
    stateful = keeps_state(model)
    if stateful is not None:
        return f"{named(stateful)} keeps states from batch to batch"
    for owner in [model, *(m for m in model._family() if m is not model)]:
        inner = getattr(owner, "graph", None)
        for node in inner.nodes if inner is not None else []:
            why = own_code(node.operation) or _coupled_node(node)
            if why:
                return why
    return ""


def _coupled_node(node: Any) -> str:
    operation = node.operation
    if node.kwargs.get("training") or any(a is True for a in node.args):
        return f"{named(operation)} is called with training=True"
    if isinstance(operation, Operation):
        return "" if _keeps_rows(node) else f"{named(operation)} may go across rows"
    for member in operation._family():
        axes = [getattr(member, name, None) for name in ("axis", "axes")]
        if 0 in jax.tree.leaves(axes):
            return f"{named(member)} goes over axis 0"
    return ""


def _keeps_rows(node: Any) -> bool:
    """Returns whether an op of a graph gives each row from that row alone."""
    op = TABLE[node.operation.op]
    ranks = {len(s.shape) for s in node.inputs}
    rank = max(ranks)
    leaves = jax.tree.leaves((node.args, node.kwargs))
    constants = [np.shape(x) for x in leaves if hasattr(x, "dtype") and not is_symbol(x)]
    if len(ranks) != 1 or not goes_by_steps(op.name):
        return False
    if any(len(shape) > rank or (len(shape) == rank and shape[0] != 1) for shape in constants):
        return False
    if getattr(op.plain, "__module__", "") != "alphorn.ops.elementwise" and op.arrays != ("x",):
        return False
    bound = op.signature.bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    if "axes" in bound.arguments:
        return False
    if "axis" not in bound.arguments:
        return True
    axis = bound.arguments["axis"]
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return all(isinstance(a, int) and a % rank != 0 for a in axes)
