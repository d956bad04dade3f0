"""Pictures of models: their layers, and what becomes of masks."""

from dataclasses import replace
from typing import Any

from alphorn.core.door import symbols_of
from alphorn.core.symbol import symbols_like
from alphorn.errors import ArgumentError, UnexpectedArgumentError
from alphorn.flow import Stop, first_argument, flow_of
from alphorn.models.model import Model
from alphorn.summary import in_range
from alphorn.training.data import Table
from alphorn.viz.boxes import Shown
from alphorn.viz.drawing import draw
from alphorn.viz.picture import Picture

# Rows of which the shapes are looked at.
_ROWS = 32
# How edges are drawn, by Graphviz's words for it.
_SPLINES = {"ortho": "ortho"} | dict.fromkeys(("curved", "spline", "true", True), "curved")
_SPLINES |= dict.fromkeys(("line", "polyline", "false", False), "line")
DIRECTIONS = ("TB", "LR", "BT", "RL")


def mask_flow(
    model: Model,
    to_file: Any = None,
    input_shape: Any = None,
    x: Any = None,
    expand_nested: bool = False,
) -> Picture:
    """Draws what becomes of masks on their way through a model. Nothing is computed.

    Each box is a layer, or an op on a mask: its output's shape, and whether a mask is born,
    carried, resampled, joined, used, ended or refused there, with the mask's shape and the reason.

    Args:
        model: Functional, Sequential, or of your own; what is not built is built.
        to_file: Where to write it: `.html`, `.svg` or `.png`.
        input_shape: With the batch axis; or a structure of shapes. By default that of the model's
            inputs, or of the data on which it was called.
        x: Data instead: lists of unequal rows bring a mask.
        expand_nested: Whether the layers of inner models are drawn.

    Returns:
        The picture; the last line of a notebook's cell shows it.

    Raises:
        StateError: a model of your own that was never called, without `x` and `input_shape`.

    >>> from alphorn import layers
    >>> from alphorn.models import Sequential
    >>> model = Sequential([layers.Embedding(9, 4, mask_zero=True), layers.GRU(3)])
    >>> picture = mask_flow(model, input_shape=(None, None))
    >>> "born (None, None)" in picture.svg
    True
    """
    _check_model("mask_flow", model)
    if x is not None and input_shape is not None:
        raise ArgumentError("mask_flow", received="x and input_shape", expected="one of them")
    arguments = None
    if x is not None:
        table = Table(x, batch_size=_ROWS, inputs=model._inputs_count())
        batch = table.batch(slice(0, min(table.rows, _ROWS)))
        arguments = first_argument(model, symbols_like(batch.x))
    elif input_shape is not None:
        first = model.layers[0] if model.graph is None and model.layers else model
        arguments = first_argument(model, symbols_of(first, input_shape))
    title = f"Masks in {model.name} ({type(model).__name__})"
    shown = Shown(title, why=True, inner=expand_nested)
    return _picture(flow_of(model, arguments), shown, to_file)


def plot_model(
    model: Model,
    to_file: Any = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: float = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: Any = "ortho",
    show_masks: bool = True,
    **kwargs: Any,
) -> Picture:
    """Draws the layers of a model and what leads from one to another. No program is needed for it.

    A layer that is called twice has two boxes, each marked as shared. A model of your own is drawn
    as it was last called.

    Args:
        model: Functional, Sequential, or of your own and called once.
        to_file: Where to write it: `.png` (with the extra `viz`), `.svg`, `.html`; or None.
        show_shapes: Whether boxes say the shapes of what comes in and out, without masks.
        show_dtype: Whether they say the outputs' types.
        show_layer_names: Whether they say names beside classes.
        rankdir: Where edges lead: "TB" down, "LR" to the right, "BT" or "RL".
        expand_nested: Whether the layers of inner models are drawn inside them.
        dpi: Dots per inch of a PNG.
        show_layer_activations: Whether boxes say activations.
        show_trainable: Whether they say if training changes the layer.
        splines: How edges are drawn: "ortho", "curved" or "line".
        show_masks: Whether edges and boxes say what becomes of masks, where there are any.
        **kwargs: `layer_range` of Keras 2: names of the first and the last layer, or patterns.

    Returns:
        The picture, also where it is written; the last line of a notebook's cell shows it.

    Raises:
        StateError: a model that is not built.
        ImportError: a PNG without the extra.

    >>> from alphorn import Input, Sequential, layers
    >>> model = Sequential([Input((4,)), layers.Dense(3, "relu")], name="small")
    >>> picture = plot_model(model, to_file=None, show_shapes=True, show_layer_activations=True)
    >>> "(None, 4) → (None, 3)" in picture.svg
    True
    """
    flow = asked_flow("plot_model", model, rankdir, kwargs)
    if splines not in _SPLINES:
        raise ArgumentError("plot_model: splines", repr(splines), "'ortho', 'curved' or 'line'")
    shown = Shown(
        names=show_layer_names,
        takes=show_shapes,
        gives=show_shapes,
        dtypes=show_dtype,
        activations=show_layer_activations,
        trainable=show_trainable,
        masks=show_masks,
        inner=expand_nested,
        rankdir=rankdir,
        splines=_SPLINES[splines],
    )
    return _picture(flow, shown, to_file, dpi)


def _picture(flow: Stop, shown: Shown, to_file: Any, dpi: float = 200) -> Picture:
    picture = Picture(shown.title or f"{flow.name} ({flow.kind})", draw(flow, shown), dpi)
    if to_file is not None:
        picture.save(to_file)
    return picture


def _check_model(function: str, model: Any) -> None:
    """Raises for what is no model."""
    if not isinstance(model, Model):
        raise ArgumentError(
            f"{function}: model",
            received=type(model).__name__,
            expected="a model",
            fix="alphorn.Sequential([layer]) makes one of a layer",
        )


def asked_flow(function: str, model: Any, rankdir: Any, kwargs: dict[str, Any]) -> Stop:
    """Returns the stop of a model, as a function is asked for it.

    Args:
        function: Its name, for errors.
        model: A model.
        rankdir: Where edges are to lead.
        kwargs: `layer_range` of Keras 2, names of the first and the last layer.
    """
    _check_model(function, model)
    if rankdir not in DIRECTIONS:
        raise ArgumentError(
            f"{function}: rankdir", repr(rankdir), f"one of {', '.join(DIRECTIONS)}"
        )
    wanted = kwargs.pop("layer_range", None)
    if kwargs:
        raise UnexpectedArgumentError(function, ", ".join(kwargs), "its own arguments")
    flow = flow_of(model)
    part = in_range(function, [s.name for s in flow.children], wanted)
    start = part.start or 0
    return replace(flow, children=tuple(_from(start, stop) for stop in flow.children[part]))


def _from(start: int, stop: Stop) -> Stop:
    """Returns a stop whose siblings begin with another."""
    kept = [e for e in stop.edges if e.source is not None and e.source >= start]
    edges = tuple(replace(e, source=e.source - start) for e in kept if e.source is not None)
    return replace(stop, edges=edges)
