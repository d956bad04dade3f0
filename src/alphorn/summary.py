"""`model.summary()`: layers, outputs, masks and weights as a table."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alphorn.config import trim_padding
from alphorn.core.layer import Layer
from alphorn.core.symbol import symbols_in
from alphorn.errors import ArgumentError
from alphorn.flow import Stop, arguments_of, flow_of
from alphorn.layers.core import InputLayer
from alphorn.models.graph import nodes_of
from alphorn.models.model import Model
from alphorn.models.sequential import Sequential
from alphorn.training.trimming import trimming_of

__all__ = ["print_summary"]


@dataclass
class _Row:
    """A layer or op, how deep it stands, its stops, and its node in a graph."""

    operation: Any
    depth: int
    node: Any = None
    stops: list[Stop] = field(default_factory=list)


def print_summary(
    model: Model,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
    masks: bool | None = None,
) -> None:
    """Prints a table of the layers, with a column that shows what becomes of masks.

    Args:
        model: Any model.
        line_length: Width of the table.
        positions: Where each column ends: shares of the width, or numbers of characters.
        print_fn: Takes the text instead of the screen.
        expand_nested: Whether layers of inner models are listed.
        show_trainable: Whether a column says what training changes.
        layer_range: Names of the first and the last layer to list, or patterns of them.
        masks: Whether a column shows masks; by default where there are any.

    Raises:
        ArgumentError: a layer range that names no layer; positions that do not grow.
    """
    flow, trouble = _flow(model)
    masked = flow is not None and any(s.fate for s in flow.walk())
    columns = ["Layer (type)", "Output Shape"]
    columns += ["Mask"] if masks or (masks is None and masked) else []
    columns += ["Param #"]
    columns += ["Connected to"] if _branches(model) else []
    columns += ["Trainable"] if show_trainable else []
    console = Console(width=line_length, record=print_fn is not None)
    table = Table(show_lines=True)
    for column, width in zip(columns, _widths(positions, columns, console.width), strict=True):
        justify = {"Param #": "right", "Trainable": "center"}.get(column, "left")
        table.add_column(column, justify=justify, width=width, overflow="fold")  # pyright: ignore[reportArgumentType]
    rows = list(_rows(model, flow, expand_nested))
    names = [row.operation.name for row in rows]
    for row in rows[in_range("summary", names, layer_range)]:
        cells = _cells(row)
        table.add_row(*(Text(cells[column]) for column in columns))
    lines = [f" {name}: {_size(variables)}" for name, variables in _totals(model)]
    refused = [s for s in flow.walk() if s.fate == "refused"] if flow is not None else []
    if refused and masks is not False:
        lines.append(f" Mask refused in {refused[-1].kind} '{refused[-1].name}': {refused[-1].why}")
    if masked and masks is not False and not refused:
        lines.append(f" Padding: {_padding(model)}")
    if masks and trouble:
        lines.append(f" Masks are not shown: {trouble}")
    title = Text.assemble("Model: ", (f'"{model.name}"', "bold"))
    if print_fn is None:
        console.print(title, table)
        for line in lines:
            console.print(line, highlight=False)
        return
    with console.capture() as captured:
        console.print(title, table)
    print_fn("\n".join([captured.get().rstrip("\n"), *lines]))


def _flow(model: Model) -> tuple[Stop | None, str]:
    """Returns the way of masks, or None and why there is none."""
    if arguments_of(model) is None:
        return None, "call the model once on data"
    try:
        return flow_of(model), ""
    except Exception as error:  # of the user's call on shapes alone: the rest is still true
        return None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _padding(model: Model) -> str:
    """Returns whether padding is left out in training, and why not."""
    why = "config.trim_padding() is off"
    if trim_padding():
        symbols = model.graph.input_symbols if model.graph is not None else []
        seen = symbols_in(model.seen_arguments or {})
        known = seen if len(seen) == len(symbols) else symbols
        found = trimming_of(model, [s.masked for s in known] or [0])
        if found.cuts:
            inner = f"; not inside steps, because {found.why}" if found.why else ""
            return f"batches are cut to their longest row{inner}"
        why = found.why
    return f"computed, because {why}"


def _branches(model: Model) -> bool:
    """Returns whether layers need to say what they are connected to."""
    return model.graph is not None and not isinstance(model, Sequential)


def _rows(model: Model, flow: Stop | None, expand: bool) -> Iterator[_Row]:
    """Yields the rows of a model's layers, those of inner models behind them where wanted."""
    stack: list[_Row] = []

    def push(owner: Model, stops: tuple[Stop, ...], depth: int) -> None:
        found: dict[int, _Row] = {}
        for operation in _operations(owner, stops):
            found.setdefault(id(operation), _Row(operation, depth))
        for stop in stops:
            if id(stop.operation) in found:
                found[id(stop.operation)].stops.append(stop)
        for node in reversed(nodes_of(owner.graph) if owner.graph is not None else []):
            if id(node.operation) in found:
                found[id(node.operation)].node = node
        stack.extend(reversed(found.values()))

    push(model, flow.children if flow is not None else (), 0)
    while stack:
        row = stack.pop()
        yield row
        inner = getattr(row.operation, "layer", row.operation)
        if expand and isinstance(inner, Model):
            push(inner, row.stops[0].children if row.stops else (), row.depth + 1)


def _operations(model: Model, stops: tuple[Stop, ...]) -> list[Any]:
    """Returns layers and ops in Keras's order; of a subclass, as its call runs them."""
    if isinstance(model, Sequential):
        return model.layers
    if model.graph is not None:
        return model.graph.operations
    visited = [s.operation for s in stops if s.operation is not None]
    return [*visited, *model.layers]


def in_range(function: str, names: list[str], wanted: Any) -> slice:
    """Returns the places from the first layer to the last that are wanted.

    Args:
        function: Whose argument it is.
        names: Of all layers.
        wanted: Two names, or patterns of them; None for all.
    """
    if wanted is None:
        return slice(None)
    where = f"{function}: layer_range"
    if isinstance(wanted, str) or len(wanted) != 2:
        raise ArgumentError(where, repr(wanted), "two names: the first, the last")
    first = [i for i, name in enumerate(names) if re.match(wanted[0], name)]
    last = [i for i, name in enumerate(names) if re.match(wanted[1], name)]
    if not first or not last:
        raise ArgumentError(
            where,
            received=repr(tuple(wanted)),
            expected=f"names of layers: {', '.join(names)}",
        )
    return slice(min(first), max(last) + 1)


def _widths(positions: Sequence[float] | None, columns: list[str], whole: int) -> list[int | None]:
    """Returns the columns' widths from where they end; their borders are within."""
    if positions is None:
        return [None] * len(columns)
    ends = [0, *positions][: len(columns) + 1]
    if any(b <= a for a, b in pairwise(ends)):
        raise ArgumentError("summary: positions", repr(positions), "numbers that grow")
    scale = whole if positions[-1] <= 1 else 1
    borders = [4] + [3] * len(columns)
    spans = zip(pairwise(ends), borders, strict=False)
    widths: list[int | None] = [max(round((b - a) * scale) - n, 1) for (a, b), n in spans]
    return widths + [None] * (len(columns) - len(widths))


def _cells(row: _Row) -> dict[str, str]:
    """Returns what stands in each column."""
    operation = row.operation
    indent = "   " * row.depth + "└ " if row.depth else ""
    kind = getattr(operation, "op", type(operation).__name__)
    variables, count, trains = [], "0", "-"
    if isinstance(operation, Layer):
        kind, variables = type(operation).__name__, operation.weights
        count = f"{operation.count_params():,}" if operation.built else "0 (unbuilt)"
    if variables:
        trains = "Y" if operation.trainable else "N"
    sources = [s.node.operation.name for s in row.node.inputs if s.node] if row.node else []
    return {
        "Layer (type)": f"{indent}{operation.name} ({kind})",
        "Output Shape": _shapes(row),
        "Mask": "-"
        if isinstance(operation, InputLayer) and not row.stops
        else _mask_note(row.stops),
        "Param #": count,
        "Connected to": ", ".join(dict.fromkeys(sources)) or "-",
        "Trainable": trains,
    }


def _shapes(row: _Row) -> str:
    if row.stops and row.stops[0].shapes:
        return ", ".join(map(str, row.stops[0].shapes))
    outputs = symbols_in(row.node.outputs) if row.node is not None else []
    return ", ".join(str(s.shape) for s in outputs) or "?"


def _mask_note(stops: list[Stop]) -> str:
    """What becomes of the mask, and its shape where one comes out."""
    if not stops:
        return "?"
    fates = dict.fromkeys(s.fate for s in stops if s.fate)
    mask = next((s.mask for s in stops if s.mask is not None), None)
    return "\n".join([", ".join(fates) or "-", *([str(mask)] if mask is not None else [])])


def _totals(model: Model) -> Iterator[tuple[str, list[Any]]]:
    optimizer = getattr(model.optimizer, "variables", []) if model.optimizer is not None else []
    yield "Total params", [*model.weights, *optimizer]
    yield "Trainable params", model.trainable_weights
    yield "Non-trainable params", model.non_trainable_weights
    if optimizer:
        yield "Optimizer params", optimizer


def _size(variables: list[Any]) -> str:
    entries = sum(v.size for v in variables)
    size = float(sum(v.slot.nbytes for v in variables))
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{entries:,} ({size:.2f} {unit})"
        size /= 1024
    return ""


Model.summary_printer = staticmethod(print_summary)
