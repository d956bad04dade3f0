"""`check_padding`: the promise, tested on a model and data of one's own."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from alphorn.core.masked import Masked, extent, is_masked, mask_of, unmask
from alphorn.core.transforms import functional, value_and_grad
from alphorn.core.variable import Variable
from alphorn.core.watching import Visit, Watch, watching
from alphorn.errors import ArgumentError, DataError
from alphorn.layers.embedding import Embedding, Masking
from alphorn.models.model import Model
from alphorn.ops.table import Operation
from alphorn.training.data import Batch, Stream
from alphorn.training.stepping import unpack

__all__ = ["Comparison", "PaddingReport", "check_padding"]

# Rows that are looked at, rows that also run alone, steps of padding that are added.
_ROWS, _ALONE, _MORE = 32, 8, 3


@dataclass(frozen=True)
class Comparison:
    """One change of the padding, and what it changed.

    Args:
        change: What was done: more padding, other numbers in it, a row alone.
        what: Which result was compared: outputs, loss or gradients.
        difference: The largest, relative to the largest value.
        example: The place of it and both values, in a line; empty where they are equal.
    """

    change: str
    what: str
    difference: float
    example: str = ""


@dataclass(frozen=True)
class PaddingReport:
    """What `check_padding` found; as text it is the verdict.

    Args:
        model: The model's name.
        holds: Whether padding changed nothing.
        layer: The name of the first layer that padding changed, or None.
        checks: All comparisons.
        verdict: What a person should know and do.
    """

    model: str
    holds: bool
    layer: str | None
    checks: tuple[Comparison, ...]
    verdict: str

    @property
    def largest_difference(self) -> float:
        """Over all comparisons."""
        return max((c.difference for c in self.checks), default=0.0)

    def __str__(self) -> str:
        return self.verdict


def check_padding(
    model: Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    training: bool = False,
    tolerance: float | None = None,
    print_fn: Callable[[str], Any] | None = None,
) -> PaddingReport:
    """Tests that padding changes nothing of what a model gives for data, and says what does.

    More padding is put behind the rows, other numbers are put into padding, and rows run alone. The
    outputs over valid steps are compared, and with targets the loss and the gradients. Weights,
    states, seeds and metrics stay as they are.

    Args:
        model: Any model; compiled, if the loss is to be tested.
        x: Data as `fit` takes them: lists of unequal rows, padded arrays for a model that begins
            with `Masking` or `Embedding(mask_zero=True)`, several inputs. Up to 32 rows are used.
        y, sample_weight: As in `fit`.
        training: Whether layers do what they do in training; rows then do not run alone.
        tolerance: How far results may differ, relative to the largest; by default 1e-4, in 16 bits
            0.03.
        print_fn: Takes the verdict instead of the screen.

    Returns:
        A report: whether it holds, and if not, the first layer that padding changed.

    Raises:
        DataError: nothing in `x` is padding to this model.

    >>> from alphorn import layers, ops
    >>> from alphorn.models import Sequential
    >>> model = Sequential([layers.Embedding(9, 4, mask_zero=True), layers.GRU(3)])
    >>> check_padding(model, [[1, 2], [3, 4, 5]], print_fn=lambda text: None).holds
    True
    >>> def newest(x):
    ...     return ops.unmask(x)[:, -1]
    >>> model = Sequential([layers.Embedding(9, 4, mask_zero=True), layers.Lambda(newest, name="newest")])
    >>> check_padding(model, [[1, 2], [3, 4, 5]], print_fn=lambda text: None).layer
    'newest'
    """
    if not isinstance(model, Model):
        raise ArgumentError(
            "check_padding: model", type(model).__name__, "a model", "Sequential([layer])"
        )
    table = model._data(x, y, sample_weight, None, what="check_padding")
    if isinstance(table, Stream):
        raise DataError(
            "check_padding: x",
            received=type(x).__name__,
            expected="arrays or lists",
            fix="take one batch: check_padding(model, *next(iter(data)))",
        )
    batch = table.batch(slice(0, min(table.rows, _ROWS)))
    model._prepare(batch, training)
    if tolerance is None:
        tolerance = 1e-4 if np.dtype(model.compute_dtype).itemsize > 2 else 0.03
    run = _Runner(model, training)
    base = run.outputs(batch)
    changes = _Changes(model, batch, _paddings(model, batch, base))
    checks: list[Comparison] = []
    broken: tuple[Visit, Comparison] | None = None
    for change in changes.all(alone=not training):
        seen = run.outputs(change.batch)
        found = _compared(base.visits[0], seen.visits[0], change)
        if found.difference > tolerance and broken is None:
            broken = _first_changed(base, seen, change, tolerance)
        checks.append(replace(found, what="outputs"))
        if change.row is None and run.has_loss(batch):
            checks += run.losses_compared(batch, change)
    report = _report(model, batch, checks, broken, tolerance)
    _say(report, print_fn)
    return report


# --- what is padding, and how it is changed


@dataclass(frozen=True)
class _Padding:
    """Which entries of an input are padding: its mask, and what stands for an absent step."""

    mask: np.ndarray
    value: Any
    carried: bool  # the input is a Masked


@dataclass(frozen=True)
class _Change:
    """A batch whose padding is another, and the row that it holds; None for all rows."""

    name: str
    batch: Batch
    row: int | None = None


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=is_masked)


def _paddings(model: Model, batch: Batch, base: Watch) -> list[_Padding | None]:
    """Returns for each input what is padding in it, or None where nothing is."""
    top = base.visits[0]
    found: list[_Padding | None] = []
    for i, leaf in enumerate(_leaves(batch.x)):
        if is_masked(leaf):
            found.append(_Padding(np.asarray(leaf.mask), 0, True))
            continue
        same = {id(unmask(v[i])) for v in (top.given, top.inputs) if i < len(v)}
        found.append(next(_births(top, same), None))
    if not any(found):
        raise DataError(
            f"check_padding of '{model.name}'",
            received="data in which nothing is padding to this model",
            expected="lists of unequal rows; or a model that begins with Masking or"
            " Embedding(mask_zero=True)",
        )
    return found


def _births(top: Visit, inputs: set[int]) -> Iterator[_Padding]:
    """Yields the masks that layers make of an input, which is known by its identities."""
    stack = list(reversed(top.children))
    while stack:
        visit = stack.pop()
        direct = any(id(unmask(x)) in inputs for x in visit.given)
        mask = next((x.mask for x in visit.outputs if is_masked(x)), None)
        makers = [v.operation for v in _walk(visit) if isinstance(v.operation, Embedding | Masking)]
        if direct and mask is not None and makers:
            value = getattr(makers[0], "mask_value", 0)
            yield _Padding(np.asarray(mask), value, False)
        stack.extend(reversed(visit.children))


def _walk(visit: Visit) -> Iterator[Visit]:
    yield visit
    for inner in visit.children:
        yield from _walk(inner)


class _Changes:
    """The batch with its padding changed in several ways.

    Args:
        model: Whose inputs they are.
        batch: The data as they came.
        paddings: What is padding in each input.
    """

    def __init__(self, model: Model, batch: Batch, paddings: list[_Padding | None]):
        self.batch, self.paddings = batch, paddings
        symbols = model.graph.input_symbols if model.graph is not None else []
        sizes = [s.shape[1] for s in symbols if len(s.shape) > 1]
        widens = getattr(model, "_deferred", False)  # built on data, it takes other lengths too
        known = len(sizes) == len(paddings) and not widens
        # An input of a fixed number of steps takes neither more nor fewer.
        self.free = not known or all(
            p is None or n is None for p, n in zip(paddings, sizes, strict=True)
        )

    def all(self, alone: bool) -> Iterator[_Change]:
        """Yields the changes; those of single rows where wanted."""
        if self.free:
            yield _Change("more padding", self._mapped(_longer))
        if any(p is not None and p.carried for p in self.paddings):
            yield _Change("other numbers in padding", self._mapped(_with_junk))
        if alone and self.free:
            for row in self._rows():
                batch = self._mapped(lambda leaf, p, row=row: _cut(leaf, p, row))
                yield _Change(f"row {row} alone", batch, row)

    def _mapped(self, change: Callable[[Any, _Padding | None], Any]) -> Batch:
        leaves = _leaves(self.batch.x)
        structure = jax.tree.structure(self.batch.x, is_leaf=is_masked)
        pairs = zip(leaves, self.paddings, strict=True)
        changed = [change(leaf, p) for leaf, p in pairs]
        x = jax.tree.unflatten(structure, changed)
        return replace(self.batch, x=x)

    def _rows(self) -> list[int]:
        """Returns rows with steps, of as many lengths as there are."""
        masks = [p.mask.reshape(len(p.mask), -1) for p in self.paddings if p is not None]
        lengths = [m.sum(1) for m in masks]
        whole = [i for i in range(len(lengths[0])) if all(n[i] for n in lengths)]
        first = {tuple(n[i] for n in lengths): i for i in reversed(whole)}
        rows = [*first.values(), *(i for i in whole if i not in first.values())]
        return sorted(rows[:_ALONE])


def _longer(leaf: Any, padding: _Padding | None) -> Any:
    """Returns an input with more padding behind its steps, on each axis of its mask."""
    if padding is None:
        return leaf
    rank = padding.mask.ndim
    widths = [(0, 0), *[(0, _MORE)] * (rank - 1)]
    data = np.asarray(unmask(leaf))
    rest = [(0, 0)] * (data.ndim - rank)
    data = np.pad(data, [*widths, *rest], constant_values=padding.value)
    return Masked.trusted(data, np.pad(padding.mask, widths)) if padding.carried else data


def _with_junk(leaf: Any, padding: _Padding | None) -> Any:
    if padding is None or not padding.carried:
        return leaf
    data, mask = np.asarray(leaf.data), padding.mask
    valid = mask.reshape(mask.shape + (1,) * (data.ndim - mask.ndim))
    kept = data[mask]
    junk = 1e3 if data.dtype.kind == "f" else kept.max(initial=0)
    return Masked.trusted(np.where(valid, data, np.asarray(junk, data.dtype)), mask)


def _cut(leaf: Any, padding: _Padding | None, row: int) -> Any:
    """Returns one row of an input, without the padding round it."""
    if padding is None:
        return leaf[row : row + 1]
    index: list[slice] = [slice(row, row + 1)]
    mask = padding.mask[row]
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        start, stop = extent(jnp.asarray(mask.any(others)))
        index.append(slice(int(start), int(stop)))
    if not padding.carried:
        return np.asarray(leaf)[tuple(index)]
    return Masked.trusted(np.asarray(leaf.data)[tuple(index)], padding.mask[tuple(index)])


# --- running the model without changing it


@dataclass
class _Runner:
    """Runs a model; what it writes is dropped."""

    model: Model
    training: bool
    _base: Any = field(default=None, init=False)

    def _variables(self) -> list[Variable]:
        counted = [v for m in self.model.metrics for v in m.variables]
        return list(dict.fromkeys([*self.model.variables, *counted]))

    def _pure(self, fn: Callable[[], Any]) -> Any:
        variables = self._variables()
        return functional(fn, variables)([v.value for v in variables])[0]

    def outputs(self, batch: Batch) -> Watch:
        """Returns the calls of all layers on a batch."""
        with watching() as watch:
            self._pure(lambda: self.model(batch.x, training=self.training))
        return watch

    def has_loss(self, batch: Batch) -> bool:
        """Whether there is a loss to compare."""
        return self.model.compiled and self.model.loss is not None and batch.y is not None

    def _loss(self, batch: Batch) -> tuple[float, list[np.ndarray]]:
        x, y, weight = unpack((batch.x, batch.y, batch.weight))

        def loss() -> Any:
            y_pred = self.model(x, training=self.training)
            steps = [p.shape[1] for p in _leaves(y_pred) if is_masked(p)]
            targets, weights = (_as_long(t, steps) for t in (y, weight))
            return self.model.compute_loss(x, targets, y_pred, weights, training=self.training)

        trained = self.model.trainable_variables
        value, gradients = self._pure(lambda: value_and_grad(loss, trained)())
        return float(value), [np.asarray(g, np.float32) for g in gradients]

    def losses_compared(self, batch: Batch, change: _Change) -> list[Comparison]:
        """Returns how loss and gradients differ on the changed batch."""
        if self._base is None:
            self._base = self._loss(batch)
        (loss, gradients), (other, others) = self._base, self._loss(change.batch)
        apart = abs(loss - other) / max(abs(loss), 1e-6)
        example = f"{loss:.4g} became {other:.4g}" if apart else ""
        largest = max((float(np.abs(g).max(initial=0)) for g in gradients), default=0.0)
        pairs = zip(gradients, others, strict=True)
        worst = max((_distance(a, b) for a, b in pairs), default=0.0) / max(largest, 1e-6)
        return [
            Comparison(change.name, "loss", apart if math.isfinite(apart) else math.inf, example),
            Comparison(change.name, "gradients", worst),
        ]


def _as_long(targets: Any, steps: list[int]) -> Any:
    """Returns targets or weights with zeros behind them, for outputs of more steps."""

    def longer(leaf: Any) -> Any:
        if np.ndim(unmask(leaf)) < 2 or len(set(steps)) != 1:
            return leaf
        more = steps[0] - leaf.shape[1]
        if more <= 0 or leaf.shape[1] < 2:
            return leaf

        def pad(a: Any) -> Any:
            return jnp.pad(jnp.asarray(a), [(0, 0), (0, more), *[(0, 0)] * (a.ndim - 2)])

        return Masked.trusted(pad(leaf.data), pad(leaf.mask)) if is_masked(leaf) else pad(leaf)

    return jax.tree.map(longer, targets, is_leaf=is_masked)


# --- comparing


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # infinities that were there before and after
        found = float(np.abs(a - b).max(initial=0))
    return found if math.isfinite(found) else math.inf


def _valid_steps(x: Any, row: int) -> np.ndarray:
    """Returns what a row holds at its valid steps."""
    data = np.asarray(unmask(x))[row]
    mask = mask_of(x)
    if mask is None:
        return data
    return data[np.asarray(mask)[row]] if mask.ndim > 1 else data[None][: int(mask[row])]


def _compared(base: Visit, seen: Visit, change: _Change) -> Comparison:
    """Compares what a layer gave, row by row, over valid steps."""
    worst, example = 0.0, ""
    for a, b in zip(base.outputs, seen.outputs, strict=False):
        values = np.abs(np.asarray(unmask(a), np.float32))
        scale = float(values.max(initial=1e-6, where=np.isfinite(values)))
        rows = range(a.shape[0]) if change.row is None else [change.row]
        for row in rows:
            p = _valid_steps(a, row)
            q = _valid_steps(b, row if change.row is None else 0)
            if is_masked(a) and is_masked(b) and len(p) != len(q):
                return Comparison(
                    change.name, "", math.inf, f"row {row} has {len(p)} valid steps, then {len(q)}"
                )
            common = tuple(slice(0, min(m, n)) for m, n in zip(p.shape, q.shape, strict=False))
            p, q = (v[common].astype(np.float32) for v in (p, q))
            apart = _distance(p, q) / scale
            if apart > worst:
                worst = apart
                with np.errstate(invalid="ignore"):
                    largest = np.nan_to_num(abs(p - q), nan=np.inf).argmax()
                at = np.unravel_index(int(largest), p.shape)
                example = f"row {row}: {p[at]:.4g} became {q[at]:.4g}"
    return Comparison(change.name, "", worst, example)


def _first_changed(
    base: Watch, seen: Watch, change: _Change, tolerance: float
) -> tuple[Visit, Comparison] | None:
    """Returns the first call, inner ones before those around them, that gave something else."""
    ended, other = ([v for v, end in w.events if end] for w in (base, seen))
    if [_named(v) for v in ended] != [_named(v) for v in other]:
        return None
    rows = base.visits[0].outputs[0].shape[0]
    wanted = rows if change.row is None else 1
    for a, b in zip(ended, other, strict=True):
        whole = all(x.ndim and x.shape[0] == rows for x in a.outputs)
        if not whole or not all(x.ndim and x.shape[0] == wanted for x in b.outputs):
            continue  # rows that a wrapper folded: the wrapper answers for them
        found = _compared(a, b, change)
        if found.difference > tolerance:
            return _layer_round(a), found
    return None


def _named(visit: Visit) -> tuple[type, str]:
    operation = visit.operation
    op = operation.op if isinstance(operation, Operation) else operation.name
    return type(operation), op


def _layer_round(visit: Visit) -> Visit:
    """Returns the call itself, or of an op inside a layer's call that of the layer."""
    while isinstance(visit.operation, Operation) and not isinstance(
        visit.parent and visit.parent.operation, Model
    ):
        assert visit.parent is not None
        visit = visit.parent
    return visit


# --- saying


def _report(
    model: Model,
    batch: Batch,
    checks: list[Comparison],
    broken: tuple[Visit, Comparison] | None,
    tolerance: float,
) -> PaddingReport:
    wrong = [c for c in checks if c.difference > tolerance]
    if not wrong:
        worst = {c.what: 0.0 for c in checks}
        for c in checks:
            worst[c.what] = max(worst[c.what], c.difference)
        figures = ", ".join(f"{what} {apart:.1e}" for what, apart in worst.items())
        changes = ", ".join(
            dict.fromkeys("rows alone" if c.change[:3] == "row" else c.change for c in checks)
        )
        text = (
            f"Padding changes nothing in '{model.name}'.\n"
            f"  tried: {changes}, on {batch.rows} rows\n"
            f"  largest differences, relative: {figures}"
        )
        if not checks:
            text = (
                f"Nothing could be tried on '{model.name}': its Input has a fixed number of steps.\n"
                "  to mend it: Input((None, ...)) lets rows be of any length"
            )
        return PaddingReport(model.name, True, None, tuple(checks), text)
    first, layer = wrong[0], None
    if broken is None:
        lines = [f"Padding changes '{model.name}': {first.what}, by {first.change}."]
        lines += [f"  {first.example}"] if first.example else []
        if first.what != "outputs":
            lines += [
                "  its outputs are right: look at what is added to the loss (add_loss), at a loss"
                " or a layer's gradient of your own"
            ]
    else:
        visit, found = broken
        layer = getattr(visit.operation, "name", type(visit.operation).__name__)
        lines = [
            f"Padding changes '{model.name}', first at layer '{layer}'"
            f" ({type(visit.operation).__name__}), by {found.change}.",
            f"  {found.example}",
            f"  to mend it: {_way_out(visit)}",
        ]
    return PaddingReport(model.name, False, layer, tuple(checks), "\n".join(lines))


def _way_out(visit: Visit) -> str:
    if not any(is_masked(x) for x in visit.inputs):
        return (
            "no mask comes to it: model.summary(masks=True) shows where it ended, and with"
            " `with_mask` or RestoreMask it goes on"
        )
    if getattr(visit.operation, "user_defined", False):
        return (
            "its call reads padding: on ops (ops.mean(x, axis=1), ops.last(x)) it would be"
            " skipped; unmask(x), x.data and np.asarray(x) hand it on"
        )
    return "its outputs depend on other rows or on the number of steps, by what it is"


def _say(report: PaddingReport, print_fn: Callable[[str], Any] | None) -> None:
    if print_fn is not None:
        print_fn(report.verdict)
        return
    first, *rest = report.verdict.split("\n")
    console = Console()
    console.print(first, style="bold green" if report.holds else "bold red", highlight=False)
    for line in rest:
        console.print(line, highlight=False)
