"""Graphs of models in the language of Graphviz."""

from typing import Any

from alphorn.errors import missing
from alphorn.flow import Stop
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
    _Writer(pydot, dot, shown).add(dot, flow.children, {})
    return dot


class _Writer:
    """Puts the stops of a model into a graph.

    Args:
        pydot: The package.
        dot: The whole graph; edges stand in it, nodes in it or in its clusters.
        shown: What is shown.
    """

    def __init__(self, pydot: Any, dot: Any, shown: Shown):
        self.pydot, self.dot, self.shown = pydot, dot, shown
        self.known: set[Any] = set()  # nodes and edges

    def add(self, graph: Any, stops: tuple[Stop, ...], outer: dict[str, bool]) -> None:
        """Adds stops.

        Args:
            graph: The graph or cluster in which they stand.
            stops: Those of a model.
            outer: What leads into the model: nodes, and whether a mask comes from them.
        """
        for stop in stops:
            sources: dict[str, bool] = {}
            for edge in stop.edges:
                if edge.source is None:
                    sources |= outer
                else:
                    masked = self.shown.masks and edge.mask is not None
                    sources |= dict.fromkeys(self._ends(stops[edge.source]), masked)
            if self._opened(stop):
                cluster = _cluster(self.pydot, stop)
                self.add(cluster, stop.children, sources)
                if self._is_new(cluster.get_name()):
                    graph.add_subgraph(cluster)
                continue
            name = _name(stop)
            if self._is_new(name):
                graph.add_node(self._node(name, stop))
            for source, masked in sources.items():
                if self._is_new((source, name)):
                    self.dot.add_edge(self._edge(source, name, masked))

    def _is_new(self, thing: Any) -> bool:
        known = thing in self.known
        self.known.add(thing)
        return not known

    def _opened(self, stop: Stop) -> bool:
        return self.shown.inner and bool(stop.children)

    def _ends(self, stop: Stop) -> list[str]:
        """Returns the nodes from which the outputs of a stop come."""
        if not self._opened(stop):
            return [_name(stop)]
        return [name for inner in stop.children if inner.gives for name in self._ends(inner)]

    def _edge(self, source: str, target: str, masked: bool) -> Any:
        colour = {"color": COLOURS["mask"][0], "penwidth": 2.5} if masked else {}
        return self.pydot.Edge(source, target, **colour)

    def _node(self, name: str, stop: Stop) -> Any:
        box = Box(stop, self.shown)
        heading = f"<b>{safe(stop.name)}</b> ({safe(box.kind)})"
        cells = [f"<td>{heading if self.shown.names else f'<b>{safe(box.kind)}</b>'}</td>"]
        cells += [f"<td>{safe(text)}</td>" for _, text in box.lines]
        if self.shown.masks and stop.fate:
            ground, ink = FATES[stop.fate][:2]
            text = f'<font color="{ink}"><b>{safe(badge(stop))}</b></font>'
            cells.append(f'<td bgcolor="{ground}">{text}</td>')
        rows = "".join(f"<tr>{cell}</tr>" for cell in cells)
        table = f'<table border="0" cellborder="1" cellspacing="0" cellpadding="7">{rows}</table>'
        return self.pydot.Node(
            name, label=f"<{table}>", shape="plain", fontname="Helvetica", margin=0
        )


def _name(stop: Stop) -> str:
    """Returns the name of a node: by the layer; data that comes to a model of one's own has none."""
    return stop.name if stop.operation is None else str(id(stop.operation))


def _cluster(pydot: Any, stop: Stop) -> Any:
    label = f"<<b>{safe(stop.name)}</b> ({safe(stop.kind)})>"
    return pydot.Cluster(
        str(id(stop.operation)), label=label, style="dashed", labeljust="l", fontname="Helvetica"
    )
