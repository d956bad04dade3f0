"""Graphs of models in the language of Graphviz."""

from typing import Any

from alphorn.errors import missing
from alphorn.flow import Stop, leaves_of
from alphorn.models.model import Model
from alphorn.viz.boxes import Box, Shown, badge, safe
from alphorn.viz.models import asked_flow
from alphorn.viz.style import COLOURS, FATES


def model_to_dot(
    model: Model,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: float = 200,
    subgraph: bool = False,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: Any = "ortho",
    show_masks: bool = True,
    **kwargs: Any,
) -> Any:
    """Returns a model as a graph of pydot: to change it, or for Graphviz to draw.

    Nodes are named by `str(id(layer))`: one for each layer, however often it is called.

    Args:
        model: Functional, Sequential, or of your own and called once.
        show_shapes, show_dtype, show_layer_names, show_layer_activations, show_trainable: As in
            `plot_model`.
        rankdir, dpi, splines: Given to Graphviz.
        expand_nested: Whether inner models are clusters of their layers.
        subgraph: Whether the model is a `pydot.Cluster` for another graph.
        show_masks, **kwargs: As in `plot_model`.

    Returns:
        A `pydot.Dot`, or a `pydot.Cluster`.

    Raises:
        StateError: a model that is not built.
        ImportError: without the extra `viz`.

    >>> from alphorn import Input, Sequential, layers
    >>> model = Sequential([Input((4,)), layers.Dense(3)], name="small")
    >>> dot = model_to_dot(model)
    >>> [len(dot.get_node_list()), len(dot.get_edge_list())]
    [2, 1]
    """
    try:
        import pydot
    except ImportError as error:
        raise missing("model_to_dot", "pydot", "viz") from error
    flow = asked_flow("model_to_dot", model, rankdir, kwargs)
    shown = Shown(
        names=show_layer_names,
        takes=show_shapes,
        gives=show_shapes,
        dtypes=show_dtype,
        activations=show_layer_activations,
        trainable=show_trainable,
        masks=show_masks,
        inner=expand_nested,
    )
    if subgraph:
        dot: Any = _cluster(pydot, flow)
    else:
        dot = pydot.Dot(rankdir=rankdir, concentrate=True, dpi=dpi, splines=splines)
    graphs, nodes, edges = {}, set(), set()
    for leaf in leaves_of(flow, expand_nested):
        graph = dot
        for stop in leaf.above:
            if _name(stop) not in graphs:
                graphs[_name(stop)] = _cluster(pydot, stop)
                graph.add_subgraph(graphs[_name(stop)])
            graph = graphs[_name(stop)]
        name = _name(leaf.stop)
        if name not in nodes:
            nodes.add(name)
            graph.add_node(_node(pydot, name, Box(leaf.stop, shown)))
        for source, mask in leaf.sources:
            pair = _name(source.stop), name
            if pair not in edges:
                edges.add(pair)
                masked = (
                    {"color": COLOURS["mask"][0], "penwidth": 2.5} if show_masks and mask else {}
                )
                dot.add_edge(pydot.Edge(*pair, **masked))
    return dot


def _node(pydot: Any, name: str, box: Box) -> Any:
    stop, kind = box.stop, f"<b>{safe(box.kind)}</b>"
    named = f"<b>{safe(stop.name)}</b> ({safe(box.kind)})"
    cells = [f"<td>{named if box.shown.names else kind}</td>"]
    cells += [f"<td>{safe(text)}</td>" for _, text in box.lines]
    if box.shown.masks and stop.fate:
        ground, ink = FATES[stop.fate][:2]
        text = f'<font color="{ink}"><b>{safe(badge(stop))}</b></font>'
        cells.append(f'<td bgcolor="{ground}">{text}</td>')
    rows = "".join(f"<tr>{cell}</tr>" for cell in cells)
    table = f'<table border="0" cellborder="1" cellspacing="0" cellpadding="7">{rows}</table>'
    return pydot.Node(name, label=f"<{table}>", shape="plain", fontname="Helvetica", margin=0)


def _name(stop: Stop) -> str:
    """Returns the name of a node: by the layer; data that comes to a model of one's own has none."""
    return stop.name if stop.operation is None else str(id(stop.operation))


def _cluster(pydot: Any, stop: Stop) -> Any:
    label = f"<<b>{safe(stop.name)}</b> ({safe(stop.kind)})>"
    return pydot.Cluster(
        str(id(stop.operation)), label=label, style="dashed", labeljust="l", fontname="Helvetica"
    )
