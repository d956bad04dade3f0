"""How the batches of one run are cut, sorted and merged: only where the results stay the same."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from alphorn.config import trim_padding
from alphorn.core.any_size import any_size
from alphorn.core.masked import Masked, is_masked, unmask
from alphorn.core.symbol import infer
from alphorn.distribution.current import distribution
from alphorn.distribution.placing import own_rows
from alphorn.kernels.device import on_cpu
from alphorn.layers.recurrent import _Recurrent
from alphorn.layers.wrappers import Bidirectional
from alphorn.training.compiled import outputs_of
from alphorn.training.data import Batch, Block, Table
from alphorn.training.groups import ENOUGH_BATCHES, Grouping, can_part, padding_cost, pay
from alphorn.training.known import coupling, is_ours, named, overridden
from alphorn.training.preparing import batch_is_fixed, symbols_like
from alphorn.training.ragged import Ragged
from alphorn.training.step import SMALL_STEP, work_of
from alphorn.training.trimming import Trimming, trimming_of

# Batches are merged until a call takes so many multiplications: its dispatch is nothing then.
_LARGE_CALL = 4 * SMALL_STEP
# What a merged batch may hold: bytes of what its layers give, and rows.
_MOST_BYTES = 2**25
_MOST_ROWS = 1024
# A batch of rows of unequal lengths is at most this part of all: else few are alike in length.
_SHARE = 8
_OWN_ROWS = "each process has rows of its own"


class Cutting:
    """What is cut of the batches of a table, and of their targets.

    Args:
        model: Prepared for the data.
        data: The table, whose lengths are set.
        step: "train_step", "test_step" or "predict_step".
    """

    def __init__(self, model: Any, data: Any, step: str):
        self.model, self.data, self.step = model, data, step
        apart = own_rows(distribution())
        self.trimming = Trimming(why=_OWN_ROWS) if apart else allowed(model, data.tables[0], step)
        self.why = self.trimming.why
        self.full: list[tuple[int | None, ...]] = []
        self._groupings: dict[str, Grouping] = {}
        repeats = step == "predict_step" and model._repeats()
        self._limit()
        if self.trimming.cuts:
            leaves = model.graph.flatten(data.tables[0], f"Model '{model.name}'")
            self.full = output_sizes(model, data.whole(slice(0, 1)).x, data.batch_size)
            moved = any(self.trimming.outputs) and self.trimming.shifts
            front = not moved and not (self.trimming.draws and step == "train_step")
            data.lengths.add(leaves, self.trimming.cuts, front)
        if data.lengths and getattr(model, "graph", None) is not None:
            known = _known(model)
            if known.padding_cost is None:
                known.padding_cost = padding_cost(model.graph)
            data.lengths.padding_cost = known.padding_cost
        # A recurrent layer repeats behind a row's end what one padded step shows.
        data.lengths.margin = int(repeats and (data.ragged or any(self.trimming.outputs)))

    def _limit(self) -> None:
        """Has lists padded to the number of steps that an input names, or less where that will do."""
        graph = getattr(self.model, "graph", None)
        if graph is None or not self.data.ragged:
            return
        leaves = graph.flatten(self.data.tables[0], f"Model '{self.model.name}'")
        cut = {c.place: c.axes for c in self.trimming.cuts}
        for place, (leaf, symbol) in enumerate(zip(leaves, graph.input_symbols, strict=True)):
            if isinstance(leaf, Ragged) and symbol.ndim > leaf.levels:
                levels = tuple(range(1, leaf.levels + 1))
                named_sizes = symbol.shape[1 : leaf.levels + 1]
                self.data.lengths.limit(leaf, named_sizes, cut.get(place) == levels)

    @property
    def active(self) -> bool:
        """Whether batches may be shorter than the model's inputs say."""
        return bool(self.data.lengths.cut) or self.data.lengths.limited

    def settle(self, order: str, batch_size: int | None = None) -> None:
        """Leaves out lengths that are too short for the model's windows.

        Args:
            order: How rows come, as in `Shapes`.
            batch_size: By default the table's.
        """
        if not self.active:
            return
        shapes = self.data.lengths.shapes(batch_size or self.data.batch_size, order)
        while len(shapes.chosen) and not self._fits(np.minimum(shapes.chosen[0], self._most())):
            shapes.chosen = shapes.chosen[1:]
        if not len(shapes.chosen):
            shapes.chosen = self._most()[None]

    def _most(self) -> np.ndarray:
        return self.data.lengths.full

    def _fits(self, sizes: np.ndarray) -> bool:
        """Returns whether the model runs at these sizes as it does on whole batches."""
        if (sizes == self._most()).all():
            return True
        try:
            x = self.data.cut_to(np.arange(1), sizes).x
            found = output_sizes(self.model, x, self.data.batch_size)
        except Exception:  # whatever it says: a window is longer than the batch
            return False
        for cut, now, full in zip(self.trimming.outputs, found, self.full, strict=True):
            if (not cut and now != full) or 0 in now:
                return False
        return True

    def taken(self, block: Block) -> Block:
        """Returns a block with targets and weights of steps cut as the outputs are."""
        if self.step == "predict_step" or not self.active or not any(self.trimming.outputs):
            return block
        return replace(block, take=lambda: self._with_targets(block.batch))

    def _with_targets(self, batch: Batch) -> Batch:
        sizes = output_sizes(self.model, batch.x, self.data.batch_size)
        front = self.data.lengths.front
        new: dict[int, Any] = {}
        losses = (
            self.model.compiled_loss.losses if self.model.compiled_loss else [None] * len(sizes)
        )
        for tree in (batch.y, batch.weight):
            leaves = self.model._by_output(tree, len(sizes))
            for i, (leaf, now, full) in enumerate(zip(leaves, sizes, self.full, strict=True)):
                aligned = tree is batch.y and "alignment" in _homes(losses[i])
                if self.trimming.outputs[i] and leaf is not None and not aligned:
                    new[id(leaf)] = _cut_leaf(leaf, now, full, front)

        def again(leaf: Any) -> Any:
            return new.get(id(leaf), leaf)

        y, weight = (jax.tree.map(again, t, is_leaf=is_masked) for t in (batch.y, batch.weight))
        return replace(batch, y=y, weight=weight)

    def sorts(self) -> str:
        """Returns why rows may not be sorted or merged; "" where they may."""
        if not trim_padding():
            return "config.trim_padding() is off"
        if own_rows(distribution()):
            return _OWN_ROWS
        known = _known(self.model)
        if known.coupling is None:
            known.coupling = coupling(self.model)
        why = known.coupling or _own_methods(self.model, self.step)
        if why or self.step == "predict_step":
            return why
        return own_figures(self.model, in_batches=True)

    def grouping(self, order: str, batches: int) -> Grouping | None:
        """Returns how the batches of training are parted by length; None where that does not pay.

        Args:
            order: How rows come, as in `Shapes`.
            batches: How many are to come.
        """
        data = self.data
        if not self.trimming.cuts or order == "grouped" or batches < ENOUGH_BATCHES:
            return None
        if not on_cpu() or distribution() is not None or self.model.run_eagerly or self.sorts():
            return None
        sample = data.whole(slice(0, data.batch_size))
        if not (can_part(self.model.graph) and pay(self.model.graph)):
            return None
        if work_of(self.model.variables, sample) < SMALL_STEP:
            return None
        if order not in self._groupings:
            inputs = self.model.graph.flatten(data.tables[0], f"Model '{self.model.name}'")
            self._groupings[order] = Grouping(data.lengths, inputs, data.batch_size, order)
        found = self._groupings[order]
        return found if found.groups is not None else None

    def rows_a_call(self) -> int:
        """Returns how many rows go into a call where rows are independent.

        Twice as many as long as a call is small and what layers give fits into 32 MB. A batch of
        rows of unequal lengths is an eighth of all at most, so that they are alike.
        """
        data = self.data
        size, most = data.batch_size, min(_MOST_ROWS, data.rows)
        if data.lengths:
            most = min(most, data.rows // _SHARE)
        if 2 * size > most:
            return size
        a_row = _bytes_a_row(self.model, data)
        work = work_of(self.model.variables, data.whole(slice(0, 1)))
        while 2 * size <= most and 2 * size * a_row <= _MOST_BYTES and size * work < _LARGE_CALL:
            size *= 2
        return size


def output_sizes(model: Any, x: Any, batch_size: int | None = None) -> list[Any]:
    """Returns the shapes of a model's outputs without the batch axis, for inputs of such shapes.

    Args:
        model: The model.
        x: Its inputs.
        batch_size: For a model that takes one only; by default that of `x`.
    """
    leaves = outputs_of(x)
    known = _known(model).sizes
    key = tuple((np.shape(unmask(leaf))[1:], is_masked(leaf)) for leaf in leaves)
    if key not in known:
        rows = (batch_size or np.shape(unmask(leaves[0]))[0]) if batch_is_fixed(model) else None
        symbols = symbols_like(x, rows, any_steps=False)
        with any_size():
            spec = infer(model._enter, (symbols,), {"training": False})
        known[key] = [s.shape[1:] for s in outputs_of(spec)]
    return known[key]


def allowed(model: Any, x: Any, step: str) -> Trimming:
    """Returns what may be cut in a step, with why not.

    Args:
        model: The model.
        x: Its inputs, a table or a batch.
        step: "train_step", "test_step" or "predict_step".
    """
    graph = getattr(model, "graph", None)
    if not trim_padding():
        return Trimming(why="config.trim_padding() is off")
    if graph is None:
        return Trimming(why=f"the call of '{model.name}' is code of your own")
    try:
        leaves = graph.flatten(x, f"Model '{model.name}'")
    except Exception:  # the step itself says what does not fit
        return Trimming(why="the data do not fit the inputs")
    for leaf, symbol in zip(leaves, graph.input_symbols, strict=True):
        if isinstance(leaf, Ragged):
            continue
        shape = np.shape(unmask(leaf))
        if len(shape) != len(symbol.shape) or any(
            s not in (None, n) for s, n in zip(symbol.shape[1:], shape[1:], strict=True)
        ):
            return Trimming(why="the data do not fit the inputs")
    if isinstance(leaves[0], np.memmap) or len({id(leaf) for leaf in leaves}) < len(leaves):
        return Trimming(why="an array is several inputs, or lies in a file")
    ranks = tuple(_rank(leaf) for leaf in leaves)
    found = _proof(model, ranks)
    if found.cuts:
        why = _own_methods(model, step)
        if not why and any(found.outputs):
            why = _unfit_outputs(model, step)
        if why:
            return Trimming(why=why)
    return found


@dataclass
class _Known:
    """What was found of a model's graph, once."""

    graph: Any
    proofs: dict[tuple[int, ...], Trimming] = field(default_factory=dict)
    sizes: dict[Any, list[tuple[int | None, ...]]] = field(default_factory=dict)
    coupling: str | None = None
    padding_cost: float | None = None


def _known(model: Any) -> _Known:
    """Returns what is known of a model, nothing where its graph is another one than before."""
    kept = vars(model).get("_trimmings")
    if kept is None or kept.graph is not model.graph:
        kept = model._trimmings = _Known(model.graph)
    return kept


def _proof(model: Any, ranks: tuple[int, ...]) -> Trimming:
    """Returns what `trimming_of` does, found once for each graph."""
    proofs = _known(model).proofs
    if ranks not in proofs:
        proofs[ranks] = trimming_of(model, ranks)
    return proofs[ranks]


def _own_methods(model: Any, step: str) -> str:
    names = [step] if step == "predict_step" else [step, "compute_loss", "compute_metrics"]
    own = overridden(model, *names)
    return f"{own} of '{model.name}' is code of your own" if own else ""


def _unfit_outputs(model: Any, step: str) -> str:
    """Returns why outputs with steps may not be cut; "" where they may."""
    if step != "predict_step":
        return own_figures(model, in_batches=False)
    if not model._repeats():
        return ""
    last = [s.node.operation for s in model.graph.output_symbols]
    other = next((op for op in last if not isinstance(op, _Recurrent | Bidirectional)), None)
    return f"{named(other)} gives something at padded steps" if other is not None else ""


def own_figures(model: Any, in_batches: bool) -> str:
    """Returns which loss or metric is code of the user's own; "" for none.

    Args:
        model: Compiled and prepared.
        in_batches: Whether figures that depend on which rows stand together count as well.
    """
    losses = model.compiled_loss.losses if model.compiled_loss is not None else []
    metrics = model.compiled_metrics.metrics if model.compiled_metrics is not None else []
    for loss in losses:
        function = getattr(loss, "fn", None)
        if loss is None:
            continue
        if not is_ours(loss) or not (function is None or is_ours(function)):
            return f"the loss {loss.name} is code of your own"
        if in_batches and ("batches" in _homes(loss) or loss.reduction == "sum"):
            return f"the loss {loss.name} is one of whole batches"
    for metric in metrics:
        function = getattr(metric, "_fn", None)
        if function is not None and not is_ours(function):
            return f"the metric {metric.name} is a function of your own"
        if not in_batches and not is_ours(metric):
            return f"the metric {metric.name} is a class of your own"
    if in_batches and any(m.activity_regularizer is not None for m in model._family()):
        return "a layer adds a loss of whole batches"
    return ""


def _homes(loss: Any) -> list[str]:
    """Returns the rooms of losses in which a loss and its function are written."""
    parts = [type(loss), getattr(loss, "fn", None), getattr(loss, "function", None)]
    return [(getattr(p, "__module__", None) or "").split(".")[-1] for p in parts]


def _rank(leaf: Any) -> int:
    if isinstance(leaf, Ragged):
        return leaf.levels + 1
    return leaf.mask.ndim if is_masked(leaf) else 0


def _cut_leaf(leaf: Any, now: tuple, full: tuple, front: bool) -> Any:
    """Returns targets or weights of steps, cut in the axes in which the output is."""
    if isinstance(leaf, Masked):
        data, mask = (_cut_leaf(part, now, full, front) for part in (leaf.data, leaf.mask))
        return Masked.trusted(data, mask)
    at: list[slice] = [slice(None)]
    for size, small, large in zip(leaf.shape[1:], now, full, strict=False):
        if small == large:
            at.append(slice(None))
        elif size != large:
            return leaf  # not a value a step
        else:
            at.append(slice(large - small, None) if front else slice(0, small))
    return leaf[tuple(at)]


def _bytes_a_row(model: Any, data: Table) -> float:
    """Returns about how much the layers of a graph give for one row, in bytes."""
    longest = int(data.lengths.full.max()) if data.lengths else 1
    steps = max(longest, 1)
    total = 0
    outer = max((s.shape[1] or steps for s in model.graph.input_symbols if s.ndim > 2), default=1)
    for owner in [model, *(m for m in model._family() if m is not model)]:
        graph = getattr(owner, "graph", None)
        times = 1 if owner is model else outer  # an inner model may run once a step
        for node in graph.nodes if graph is not None else []:
            for symbol in jax.tree.leaves(node.outputs):
                total += times * math.prod(steps if s is None else s for s in symbol.shape[1:])
            heads = getattr(node.operation, "num_heads", 0)
            total += heads * steps * steps if isinstance(heads, int) else 0
    return 4.0 * max(total, 1)
