"""What a model is told of a batch before its steps run: forms of data, shapes, targets."""

from typing import Any

import jax
import numpy as np

from alphorn.core.masked import is_masked, unmask
from alphorn.core.symbol import Symbol
from alphorn.errors import DataError
from alphorn.training.compiled import outputs_of
from alphorn.training.data import Batch


def packed(batch: Batch) -> Any:
    """Returns what a step is given, as Keras has it: `x`, `(x, y)` or `(x, y, sample_weight)`."""
    if batch.weight is not None:
        return batch.x, batch.y, batch.weight
    if batch.y is not None:
        return batch.x, batch.y
    return (batch.x,) if isinstance(batch.x, list | tuple) else batch.x


def unpack(data: Any) -> tuple[Any, Any, Any]:
    """Returns `(x, y, sample_weight)` from what a step got, None for what is missing."""
    parts = data if isinstance(data, tuple) else (data,)
    x, y, weight, *_ = (*parts, None, None)
    return x, y, weight


def rows_of(y_pred: Any) -> int:
    """Returns the number of rows of a model's outputs."""
    return unmask(outputs_of(y_pred)[0]).shape[0]


def batch_is_fixed(model: Any) -> bool:
    """Returns whether a model takes one batch size only: it keeps states, or its Input says so."""
    graph = getattr(model, "graph", None)
    if graph is not None and any(s.shape[0] is not None for s in graph.input_symbols):
        return True
    return any(getattr(layer, "stateful", False) for layer in model._family())


def symbols_like(x: Any, rows: int | None, any_steps: bool = True) -> Any:
    """Returns Symbols for inputs; with `any_steps`, masked ones take any number of steps."""

    def like(leaf: Any) -> Symbol:
        rank = leaf.mask.ndim if is_masked(leaf) else 0
        sizes = list(np.shape(unmask(leaf))[1:])
        if any_steps and rank:
            sizes[: rank - 1] = [None] * (rank - 1)
        return Symbol((rows, *sizes), leaf.dtype, rank)

    return jax.tree.map(like, x, is_leaf=is_masked)


def check_targets(y: list, outputs: list, names: list[str], losses: list) -> None:
    """Raises DataError where targets are missing or have another shape than their output."""
    for labels, output, name, loss in zip(y, outputs, names, losses, strict=True):
        if loss is None:
            continue
        if labels is None:
            raise DataError(
                f"targets of '{name}'",
                received="none",
                expected="targets, because the output has a loss",
                fix=f"y={{'{name}': ...}}, or loss={{'{name}': None}} in compile",
            )
        kind = getattr(type(loss), "__name__", "")
        given, wanted = np.shape(unmask(labels)), tuple(output.shape)
        if not type(loss).__module__.startswith("alphorn.") or kind == "LossFunctionWrapper":
            continue
        if kind == "CategoricalCrossentropy" and len(given) < len(wanted):
            raise DataError(
                f"targets of '{name}'",
                received=f"shape {given}",
                expected=f"shape {wanted}: one-hot rows",
                fix="for class numbers compile with loss='sparse_categorical_crossentropy'",
            )
        pairs = list(zip(given, wanted, strict=False))[1:]
        if len(given) == len(wanted) and any(n not in (None, g) for g, n in pairs):
            numbers = ("Sparse", "Circle", "CategoricalGeneralized")  # one a row or step
            if kind.startswith(numbers) and given[-1] == 1:
                continue
            raise DataError(
                f"targets of '{name}'",
                received=f"shape {given}",
                expected=f"shape {wanted}, that of the output (None is any size)",
                fix="give the last layer as many units as a target has numbers; class numbers want"
                " loss='sparse_categorical_crossentropy'",
            )
