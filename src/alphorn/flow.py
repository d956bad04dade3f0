"""The way of masks through a model: what each layer does with them, found without computing."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from alphorn.core.layer import Layer
from alphorn.core.masked import is_masked, unmask
from alphorn.core.rules import nest
from alphorn.core.symbol import infer, symbols_in, unknown_sizes_in
from alphorn.core.watching import Visit, mask_shape, watched, watching
from alphorn.errors import MaskError, StateError
from alphorn.layers import attention, embedding, merging, multi_head
from alphorn.models.model import Model
from alphorn.ops.table import TABLE, Operation

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Edge:
    """What a stop takes from another.

    Args:
        source: The place of the other among its siblings; None for the input of what is around.
        mask: The shape of the mask that comes along, or None.
        loose: Whether code between layers stands in between, so that the source is only likely.
    """

    source: int | None
    mask: Shape | None = None
    loose: bool = False


@dataclass(frozen=True)
class Stop:
    """One call of a layer on the way.

    Args:
        operation: The layer or op.
        name, kind: Its name and class; of a wrapper, with the class inside.
        takes: The shape of each input.
        shapes, dtypes, masks: Of each output.
        fate: What becomes of the mask, in a word: born, carried, resampled, joined, used, ended,
            refused; empty where there is none.
        why: The same in a line.
        edges: Where its inputs come from.
        children: The stops inside, of a model.
        gives: Whether an output of it is one of what is around.
    """

    operation: Any
    name: str
    kind: str
    takes: tuple[Shape, ...] = ()
    shapes: tuple[Shape, ...] = ()
    dtypes: tuple[str, ...] = ()
    masks: tuple[Shape | None, ...] = ()
    fate: str = ""
    why: str = ""
    edges: tuple[Edge, ...] = ()
    children: tuple["Stop", ...] = ()
    gives: bool = False

    @property
    def mask(self) -> Shape | None:
        """The shape of the first mask that comes out, or None."""
        return next((m for m in self.masks if m is not None), None)

    def walk(self) -> Iterator["Stop"]:
        """Yields the stops inside, each before those inside it."""
        stack = list(reversed(self.children))
        while stack:
            stop = stack.pop()
            yield stop
            stack.extend(reversed(stop.children))


@dataclass(frozen=True)
class Leaf:
    """A stop that stands for itself in a flat graph.

    Args:
        stop: It.
        above: The stops of inner models in which it is, from outside to inside.
        sources: What it takes: other leaves, each with the shape of the mask that comes along.
    """

    stop: Stop
    above: tuple[Stop, ...] = ()
    sources: tuple[tuple["Leaf", Shape | None], ...] = ()


def leaves_of(flow: Stop, inner: bool = True) -> list[Leaf]:
    """Returns what is in a model as a flat graph, in the order of its calls.

    Args:
        flow: The stop of the model.
        inner: Whether layers of inner models stand for these.
    """
    found: list[Leaf] = []

    def ends(stops: tuple[Stop, ...], above: tuple[Stop, ...], outer: tuple) -> list[list[Leaf]]:
        made: list[list[Leaf]] = []
        for stop in stops:
            sources: dict[int, tuple[Leaf, Shape | None]] = {}
            for edge in stop.edges:
                given = (
                    outer if edge.source is None else [(x, edge.mask) for x in made[edge.source]]
                )
                sources |= {id(leaf): (leaf, mask) for leaf, mask in given}
            if inner and stop.children:
                inside = ends(stop.children, (*above, stop), tuple(sources.values()))
                out = [
                    x for s, xs in zip(stop.children, inside, strict=True) if s.gives for x in xs
                ]
            else:
                out = [Leaf(stop, above, tuple(sources.values()))]
                found.extend(out)
            made.append(out)
        return made

    ends(flow.children, (), ())
    return found


def arguments_of(model: Model) -> dict[str, Any] | None:
    """Returns what `model` is called on, as Symbols by name; None where it is not known yet.

    With the masks of its last calls: lists of unequal sequences bring one.
    """
    seen = model.seen_arguments
    if model.graph is None:
        return seen
    if seen is None or not any(s.masked for s in symbols_in(seen)):
        return first_argument(model, model.graph.inputs)
    return first_argument(model, next(iter(seen.values())))


def first_argument(model: Model, inputs: Any) -> dict[str, Any]:
    """Returns the inputs by the name of the argument, in the structure of the model's graph."""
    first = model._spec.first
    assert first is not None
    if model.graph is None:
        return {first: inputs}
    values = model.graph.flatten(inputs, f"Model '{model.name}'")
    structure = jax.tree.structure(model.graph.inputs)
    return {first: jax.tree.unflatten(structure, values)}


def flow_of(model: Model, arguments: dict[str, Any] | None = None) -> Stop:
    """Returns the stop of `model`, with those of its layers inside.

    Args:
        model: Any model; nothing is computed and no state changes.
        arguments: What it is called on, as Symbols by name; by default what `arguments_of` gives.

    Raises:
        StateError: where the inputs are not known.
    """
    arguments = arguments_of(model) if arguments is None else arguments
    if arguments is None:
        raise StateError(
            f"the way through {type(model).__name__} '{model.name}', whose inputs are not known",
            expected="a functional model, or one that was called",
            fix="call it once on data, or give x or input_shape",
        )
    found: list[Stop] = []

    def run(values: dict[str, Any]) -> Any:
        with watching() as watch, contextlib.suppress(MaskError):
            try:
                model._enter(**({"training": False} | values))
            except MaskError:
                if watch.top is None:  # a Sequential, whose graph cannot be made
                    watched(model, values, values, lambda: model.call(*values.values()))
        assert watch.top is not None
        found.append(_stop_of(watch.top, model))
        return jnp.zeros(())

    infer(run, (arguments,), {})
    return _merged(*found[-2:])


def _stop_of(top: Visit, model: Model) -> Stop:
    """Returns the top visit as a stop whose first children are the inputs."""
    symbols = model.graph.input_symbols if model.graph is not None else []
    names = [s.name for s in symbols]
    layers = [s.node.operation if s.node is not None else None for s in symbols]
    if len(names) != len(top.inputs):
        several = len(top.inputs) > 1
        names = [f"input_{i + 1}" if several else "input" for i in range(len(top.inputs))]
        layers = [None] * len(names)
    inputs = tuple(
        Stop(
            layer,
            name,
            "InputLayer",
            **_outputs([x]),
            fate="born" if is_masked(x) else "",
            why="it comes with the data" if is_masked(x) else "",
        )
        for layer, name, x in zip(layers, names, top.inputs, strict=True)
    )
    begin = {id(unmask(x)): i for i, x in enumerate(top.inputs)}
    begin |= {id(unmask(x)): i for i, x in enumerate(top.given) if i < len(inputs)}
    fate, why = _fate(top, ())
    return Stop(
        model,
        model.name,
        type(model).__name__,
        _shapes(top.inputs),
        **_outputs(top.outputs),
        fate=fate,
        why=why,
        children=_siblings(top, begin, inputs),
    )


def _shapes(values: list[Any]) -> tuple[Shape, ...]:
    return tuple(tuple(x.shape) for x in values)


def _outputs(values: list[Any]) -> dict[str, Any]:
    return {
        "shapes": _shapes(values),
        "dtypes": tuple(str(x.dtype) for x in values),
        "masks": tuple(map(mask_shape, values)),
    }


def _kind(operation: Any) -> str:
    """Returns the class of a layer, with that of the layer inside a wrapper."""
    if isinstance(operation, Operation):
        return f"ops.{operation.op}"
    kind, inner = type(operation).__name__, getattr(operation, "layer", None)
    return f"{kind}({type(inner).__name__})" if isinstance(inner, Layer) else kind


def _siblings(parent: Visit, begin: Mapping[int, int | None], known: tuple[Stop, ...]) -> tuple:
    """Returns `known` and the stops of the visits inside `parent`.

    Args:
        parent: The visit of a model.
        begin: The places that the inputs of the parent come from, by their identity.
        known: The stops that stand before.
    """
    places: dict[int, int | None] = dict(begin)
    masks = {id(unmask(x)): mask_shape(x) for x in (*parent.inputs, *parent.given)}
    wanted = {id(unmask(x)) for x in parent.outputs}
    stops = list(known)
    last: int | None = 0 if known else None
    for visit in parent.children:
        edges: dict[int | None, Edge] = {}
        for x in visit.given:
            mask = mask_shape(x)
            if id(unmask(x)) in places:
                place = places[id(unmask(x))]
                edges[place] = Edge(place, mask or masks.get(id(unmask(x))))
            elif not isinstance(x, Tracer) and not is_masked(x):
                continue  # a constant
            elif last not in edges:
                edges[last] = Edge(last, mask, loose=True)
        stop = _inner_stop(visit, tuple(edges.values()), wanted)
        stops.append(_unmasked_before(stop, stops))
        last = len(stops) - 1
        for x in visit.outputs:
            places[id(unmask(x))] = last
            masks[id(unmask(x))] = mask_shape(x)
    if parent.error is not None and all(v.error is None for v in parent.children):
        edge = Edge(last, stops[last].mask if last is not None else None, loose=True)
        kind, why = type(parent.operation).__name__, _message(parent.error)
        stops.append(Stop(None, "call", kind, fate="refused", why=why, edges=(edge,)))
    if parent.outputs and len(stops) > len(known) and not any(s.gives for s in stops[len(known) :]):
        stops[-1] = replace(stops[-1], gives=True)
    return tuple(stops)


def _unmasked_before(stop: Stop, others: list[Stop]) -> Stop:
    """Returns the stop, as an end where code between layers took the mask away."""
    sources = [others[e.source].mask for e in stop.edges if e.loose and e.source is not None]
    if stop.fate or not any(sources) or any(e.mask for e in stop.edges):
        return stop
    why = "the mask ended before, in the call around: check_padding tests that"
    return replace(stop, fate="ended", why=why)


def _message(error: MaskError) -> str:
    return unknown_sizes_in("; ".join(line.strip() for line in str(error).splitlines()))


def _inner_stop(visit: Visit, edges: tuple[Edge, ...], wanted: set[int]) -> Stop:
    operation = visit.operation
    inside = _model_visit(visit)
    children: tuple[Stop, ...] = ()
    if inside is not None:
        begin = dict.fromkeys((id(unmask(x)) for x in (*inside.inputs, *inside.given)), None)
        children = _siblings(inside, begin, ())
    fate, why = _fate(visit, children)
    return Stop(
        operation,
        getattr(operation, "name", None) or type(operation).__name__,
        _kind(operation),
        _shapes(visit.inputs),
        **_outputs(visit.outputs),
        fate=fate,
        why=why,
        edges=edges,
        children=children,
        gives=any(id(unmask(x)) in wanted for x in visit.outputs),
    )


def _model_visit(visit: Visit) -> Visit | None:
    """Returns the visit of the model that a layer is, or holds as its `layer`."""
    if isinstance(visit.operation, Model):
        return visit
    inner = getattr(visit.operation, "layer", None)
    if not isinstance(inner, Model):
        return None
    return next((v for v in visit.children if v.operation is inner), None)


def _merged(small: Stop, large: Stop | None = None) -> Stop:
    """Returns a stop with None for the sizes in which two runs differ."""
    if large is None:
        return small

    def shape(a: Any, b: Any) -> Any:
        if a is None or b is None or len(a) != len(b):
            return a
        return tuple(m if m == n else None for m, n in zip(a, b, strict=True))

    pairs = zip(small.children, large.children, strict=False)
    edges = zip(small.edges, large.edges, strict=False)
    return replace(
        small,
        takes=tuple(map(shape, small.takes, large.takes)),
        shapes=tuple(map(shape, small.shapes, large.shapes)),
        masks=tuple(map(shape, small.masks, large.masks)),
        edges=tuple(replace(a, mask=shape(a.mask, b.mask)) for a, b in edges),
        children=tuple(_merged(a, b) for a, b in pairs),
    )


# --- what became of a mask


def _fate(visit: Visit, children: tuple[Stop, ...]) -> tuple[str, str]:
    """Returns what became of the mask in a word, and why in a line."""
    if visit.error is not None:
        inner = any(c.fate == "refused" for c in children)
        return "refused", "by a layer inside" if inner else _message(visit.error)
    given = next((x.mask for x in visit.inputs if is_masked(x)), None)
    out = next((x.mask for x in visit.outputs if is_masked(x)), None)
    if given is None and out is None:
        return "", ""
    operation = visit.operation
    rule: Any = getattr(operation, "masking", None)
    name, steps = (rule.name, rule.steps) if rule is not None else ("", False)
    if given is None:
        return "born", _birth(operation, rule, children)
    if out is not None:
        if name == "join":
            return "joined", _joining(operation, out.shape != given.shape)
        if name == "resample" and steps:
            return "resampled", "a step is valid where its window is one of the row alone"
        if name == "create":
            return "joined", "valid where it already was, and here as well"
        return "carried", _carrying(operation, name, children)
    kept = any(tuple(x.shape[: given.ndim]) == tuple(given.shape) for x in visit.outputs)
    if children:
        used = any(c.fate == "used" for stop in children for c in (stop, *stop.walk()))
        return ("used" if used and not kept else "ended"), "by a layer inside"
    if name == "resample" and not steps:
        return "ended", "the steps are gone; padding became zeros"
    if kept:
        return "ended", "the steps stay, unmasked: what follows takes padding for data"
    if name == "choose":
        return "used", "each row's own last state; time is gone"
    return "used", "over the valid steps; time is gone" if rule else _own_end(operation)


def _own_end(operation: Any) -> str:
    if isinstance(operation, Operation):
        return "over the valid steps; time is gone"
    return "time is gone, as its own call has it: check_padding tests that"


def _birth(operation: Any, rule: Any, children: tuple[Stop, ...]) -> str:
    if isinstance(operation, embedding.Embedding):
        return "mask_zero: ids other than 0 are valid"
    if isinstance(operation, embedding.Masking):
        return f"steps that are not all {operation.mask_value:g} are valid"
    if children:
        return "by a layer inside"
    return "a step is valid where one inside it is" if rule is nest else "its own call makes it"


def _joining(operation: Any, changed: bool) -> str:
    if isinstance(operation, merging.Concatenate):
        return "one behind the other" if changed else "valid where all masked inputs are"
    if isinstance(operation, attention.Attention):
        return _ATTENTION
    return "valid where any masked input is"


_ATTENTION = "keys are masked; the query's mask goes on"
_WAYS = {
    "preserve": "step by step",
    "choose": "a masked step repeats the state",
    "nest": "a step is valid where one inside it is",
    "resample": "the steps are where they were",
}


def _carrying(operation: Any, rule: str, children: tuple[Stop, ...]) -> str:
    if children:
        return "by its layers"
    if isinstance(operation, Operation):
        return TABLE[operation.op].rule.says.rstrip(".")
    if isinstance(operation, multi_head.MultiHeadAttention | multi_head.GroupQueryAttention):
        return _ATTENTION
    return _WAYS.get(rule) or "its own call carries it"
