"""Figures of Matplotlib in one style, and the curves of a run."""

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, missing
from alphorn.files import written_beside

INK, FAINT, PAPER = "#1f2933", "#9aa5b1", "#ffffff"
SERIES = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#1971c2", "#e67700", "#495057")
_DPI = 150


@functools.cache
def _class() -> type:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("a chart", "Matplotlib", "viz") from error

    class Chart(Figure):
        """A figure that needs no window and no pyplot, and shows itself in a notebook."""

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            FigureCanvasAgg(self)

        def _repr_png_(self) -> bytes:
            self.savefig(buffer := io.BytesIO(), format="png", dpi=_DPI)
            return buffer.getvalue()

    return Chart


def new_chart(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, list]:
    """Returns a figure and its axes, without frames.

    Args:
        width, height: In inches.
        rows, columns: Of axes.
    """
    figure = _class()(figsize=(width, height), layout="constrained", facecolor=PAPER)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK)
    return figure, panels


def finished(figure: Any, to_file: Any) -> Any:
    """Returns a figure, which is written where a path is given: PNG, SVG, PDF by its ending."""
    if to_file is not None:
        path = Path(to_file)
        kind = path.suffix.lower().removeprefix(".")
        known = figure.canvas.get_supported_filetypes()
        if kind not in known:
            raise ArgumentError(
                "a chart's file", str(path), f"a name that ends with .{', .'.join(known)}"
            )
        with written_beside(path) as beside:
            figure.savefig(beside, format=kind, dpi=_DPI)
    return figure


def curves(
    history: Any, metrics: Sequence[str] | None = None, title: str = "", to_file: Any = None
) -> Any:
    """Draws the figures of each epoch, a panel for each, training and validation in it.

    Args:
        history: What `fit` returns, or its `history`; or several of them by the names of runs.
        metrics: Names of figures without `val_`; all by default.
        title: Above all.
        to_file: Where to write it: `.png`, `.svg`, `.pdf`.

    Returns:
        A figure of Matplotlib; the last line of a notebook's cell shows it.

    Raises:
        ArgumentError: no figures, or a metric that is not among them.
        ImportError: without the extra `viz`.

    >>> figure = curves({"loss": [1.0, 0.5], "val_loss": [1.1, 0.8], "accuracy": [0.4, 0.7]})
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['loss', 'accuracy']
    """
    several = isinstance(history, Mapping) and all(_is_run(run) for run in history.values())
    runs: dict[str, Any] = dict(history) if several and history else {"": history}
    tables = {name: getattr(run, "history", run) for name, run in runs.items()}
    known = list(dict.fromkeys(n.removeprefix("val_") for table in tables.values() for n in table))
    wanted = known if metrics is None else list(metrics)
    if not wanted or set(wanted) - set(known):
        raise ArgumentError(
            "curves: metrics",
            received=repr(wanted),
            expected=f"some of {', '.join(known) or 'none'}",
        )
    columns = min(len(wanted), 3)
    rows = -(-len(wanted) // columns)
    figure, panels = new_chart(1 + 3.6 * columns, 0.4 + 2.8 * rows, rows, columns)
    for axes, metric in zip(panels, wanted, strict=False):
        for colour, (name, run) in enumerate(runs.items()):
            _draw_run(axes, run, metric, name, SERIES[colour % len(SERIES)])
        axes.set_title(metric, loc="left", color=INK)
        axes.set_xlabel("epoch", color=INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color=FAINT, alpha=0.3)
    for axes in panels[len(wanted) :]:
        axes.remove()
    if len(panels[0].lines) > 1:
        panels[0].legend(frameon=False, labelcolor=INK)
    if title:
        figure.suptitle(title, color=INK)
    return finished(figure, to_file)


def _is_run(found: Any) -> bool:
    return isinstance(found, Mapping) or hasattr(found, "history")


def _draw_run(axes: Any, run: Any, metric: str, name: str, colour: str) -> None:
    """Draws a figure of a run: one run in two colours, several in a colour each."""
    table = getattr(run, "history", run)
    longest = max(map(len, table.values()))
    marker = "o" if longest <= 40 else None
    for prefix, what in (("", "training"), ("val_", "validation")):
        values = table.get(prefix + metric)
        if values is None:
            continue
        second = prefix and not name
        epochs = _epochs(len(values), longest, getattr(run, "epochs_of", {}).get(prefix + metric))
        axes.plot(
            epochs,
            np.asarray(values, float),
            color=SERIES[1] if second else colour,
            linestyle="--" if prefix and name else "-",
            marker=marker,
            markersize=3.5,
            label=f"{name} {what}".strip(),
        )


def _epochs(count: int, longest: int, known: list[int] | None) -> np.ndarray:
    """Returns the numbers of the epochs of figures: known, or evenly apart up to the last."""
    if known is not None and len(known) == count and all(np.diff(known) > 0):
        return np.asarray(known) + 1
    return np.arange(1, count + 1) * (longest // count)
