"""`model.summary()`: layers, outputs, masks and weights as a table."""

from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from alphorn.core.rules import nest
from alphorn.core.symbol import is_symbol, symbols_in
from alphorn.models.model import Model

__all__ = ["print_summary"]

# Rules that change a mask on its way, in words.
_CHANGES = {"resample": "resampled", "join": "joined"}


def _mask_note(layer: Any) -> str:
    """Where a mask is born, carried, used or ended."""
    if not layer.inbound_nodes:
        return "-"
    node = layer.inbound_nodes[0]
    given = any(s.masked for s in node.inputs)
    out = any(s.masked for s in symbols_in(node.outputs))
    rule = layer.masking
    if out and not given:
        return "born"
    if out:
        return _CHANGES.get(rule.name if rule else "", "carried")
    if given:
        return "used, ends here" if rule is None or rule is nest or rule.steps else "ends here"
    return "-"


def _shape(layer: Any) -> str:
    if not layer.inbound_nodes:
        return "?"
    shapes = jax.tree.map(lambda s: str(s.shape), layer.inbound_nodes[0].outputs, is_leaf=is_symbol)
    return ", ".join(jax.tree.leaves(shapes))


def _size(variables: list[Any]) -> str:
    entries = sum(v.size for v in variables)
    size = float(sum(v.slot.nbytes for v in variables))
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{entries:,} ({size:.2f} {unit})"
        size /= 1024
    return ""


def print_summary(
    model: Model,
    line_length: int | None = None,
    positions: Any = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: tuple[str, str] | None = None,
) -> None:
    """Prints a table of the layers, with a column that shows what becomes of masks.

    Args:
        model: Any model.
        line_length: Width of the table.
        positions: Relative widths of the columns.
        print_fn: Takes the text instead of the screen.
        expand_nested: Whether layers of inner models are listed.
        show_trainable: Whether a column says what training changes.
        layer_range: Names of the first and the last layer to list.
    """
    table = Table(title=f"Model: {model.name}", title_justify="left")
    columns = ["Layer (type)", "Output shape", "Mask", "Weights", "Connected to"]
    columns += ["Trainable"] if show_trainable else []
    for i, column in enumerate(columns):
        ratio = None if positions is None or i >= len(positions) else int(100 * positions[i])
        table.add_column(
            column, justify="right" if column == "Weights" else "left", ratio=ratio, overflow="fold"
        )
    layers = model.layers
    if layer_range is not None:
        names = [layer.name for layer in layers]
        first, last = names.index(layer_range[0]), names.index(layer_range[1])
        layers = layers[first : last + 1]

    def add(layer: Any, indent: str) -> None:
        sources = ""
        if layer.inbound_nodes:
            sources = ", ".join(
                s.node.operation.name for s in layer.inbound_nodes[0].inputs if s.node is not None
            )
        row = [
            f"{indent}{layer.name} ({type(layer).__name__})",
            _shape(layer),
            _mask_note(layer),
            f"{layer.count_params():,}" if layer.built else "not built",
            sources,
        ]
        table.add_row(*row, *(["yes" if layer.trainable else "no"] if show_trainable else []))
        inner = layer if isinstance(layer, Model) else getattr(layer, "layer", None)
        if expand_nested and isinstance(inner, Model):
            for part in inner.layers:
                add(part, indent + "  ")

    for layer in layers:
        add(layer, "")
    console = Console(width=line_length, record=print_fn is not None, quiet=False)
    lines = [
        f"Weights: {_size(model.weights)}",
        f"Trainable: {_size(model.trainable_weights)}",
        f"Others: {_size(model.non_trainable_weights)}",
    ]
    if print_fn is None:
        console.print(table)
        for line in lines:
            console.print(line, highlight=False)
        return
    with console.capture() as captured:
        console.print(table)
    print_fn("\n".join([captured.get(), *lines]))


Model.summary_printer = staticmethod(print_summary)
