"""`check_padding`: the promise, tested on a user's own model and data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.text import Text

from alphorn.checking.batches import inputs_of, stretched, taken
from alphorn.checking.comparing import (
    Culprit,
    Difference,
    Rows,
    difference,
    first_bad_slope,
    first_difference,
    largest,
)
from alphorn.checking.running import Record, Runner
from alphorn.checking.wording import Check, Found, accusation, advice, figure, named, visit_of
from alphorn.core.masked import is_masked
from alphorn.errors import AlphornError, ArgumentError
from alphorn.models.model import Model
from alphorn.training.compiled import TotalLoss
from alphorn.training.data import Table
from alphorn.training.preparing import batch_is_fixed
from alphorn.training.streams import Stream

__all__ = ["Check", "PaddingCheck", "check_padding"]

# Rows that are looked at, and different lengths that are run alone: each is a compilation.
_ROWS, _LENGTHS = 32, 8
_JUNK = 1e3


@dataclass(frozen=True)
class PaddingCheck:
    """What `check_padding` found.

    Args:
        holds: Whether padding changes nothing.
        layer: The name of the first layer that breaks it, or None.
        largest_difference: Of all checks, by the largest value.
        checks: Each check.
        verdict: The sentence that was printed.
        reads_padding: The name of a layer that is right only because of what stands in its padding.
    """

    holds: bool
    layer: str | None
    largest_difference: float
    checks: tuple[Check, ...]
    verdict: str
    reads_padding: str | None = None

    def __bool__(self) -> bool:
        return self.holds


def check_padding(
    model: Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    training: bool = False,
    tolerance: float | None = None,
    verbose: bool = True,
) -> PaddingCheck:
    """Tests on your own model and data that padding changes nothing, and names who breaks it.

    Each row is run alone, the batch with more padding, and with junk (1e3, NaN) in its padding.
    With targets, the loss and the gradients of all weights must be the same as well. Up to 32 rows
    are looked at, and rows of up to 8 lengths are run alone. Weights, states, seeds, metrics and
    optimizer stay as they are.

    Args:
        model: Any model.
        x: As `fit` takes it: lists of unequal rows, padded arrays, dicts, several inputs.
        y, sample_weight: As `fit` takes them; with `y` the model must be compiled.
        training: What the model is called with. In training a row is not run alone: statistics
            over the batch and dropout are not its own.
        tolerance: What may differ, by the largest value: 1e-5, or 2e-2 in 16 bits.
        verbose: Whether the verdict is printed.

    Returns:
        A `PaddingCheck`: `holds`, `layer`, `largest_difference`, `checks`; true where it holds.

    Raises:
        DataError: the model never makes a mask of `x`, or the data do not fit together.
        StateError: `y` for a model that is not compiled.

    >>> from alphorn import layers
    >>> from alphorn.models import Sequential
    >>> model = Sequential([layers.Embedding(9, 4, mask_zero=True), layers.GRU(3)])
    >>> check_padding(model, [[1, 2], [3], [4, 5, 6]], verbose=False).holds
    True
    """
    if not isinstance(model, Model):
        raise ArgumentError("check_padding: model", type(model).__name__, "a model")
    if sample_weight is not None and y is None:
        raise ArgumentError("check_padding", "sample_weight without y", "both, or neither")
    if y is not None:
        model._need_compiled("check_padding with y")
    batch = _batch_of(model, x, y, sample_weight)
    with _kept(model):
        model._prepare(batch, False)
        checks = _Checks(model, batch, training, tolerance)
        found = list(checks.run())
    result = _result(found, checks)
    if verbose:
        _show(result)
    return result


def _batch_of(model: Model, x: Any, y: Any, weight: Any) -> Any:
    data = model._data(x, y, weight, _ROWS, what="check_padding")
    if isinstance(data, Stream):
        return next(data.blocks(None, 1)).batch
    assert isinstance(data, Table)
    rows = np.unique(np.linspace(0, data.rows - 1, min(data.rows, _ROWS)).astype(int))
    return data.batch(rows)


@contextmanager
def _kept(model: Model) -> Iterator[None]:
    """Leaves what preparing a model for its first batch sets as it was."""
    names = (
        "compiled_loss compiled_metrics _loss_tracker _prepared _tables _output_keys _output_names"
        " _output_spec _compile_arguments"
    ).split()
    before = {n: v for n, v in vars(model).items() if n in names}
    if model.compiled and model.compiled_loss is None:
        model._loss_tracker = TotalLoss()
        model._compile_arguments = before["_compile_arguments"] | {
            "metrics": None,
            "weighted_metrics": None,
        }
    try:
        yield
    finally:
        for name in names:
            vars(model).pop(name, None)
        vars(model).update(before)


class _Checks:
    """The runs of one batch in its other forms."""

    def __init__(self, model: Model, batch: Any, training: bool, tolerance: float | None):
        self.model, self.batch, self.training = model, batch, training
        wide = np.dtype(model.compute_dtype).itemsize > 2
        self.tolerance = tolerance if tolerance is not None else 1e-5 if wide else 2e-2
        self.run_once = Runner(model, training)
        self.base = self.run_once(batch.x, batch.y, batch.weight)
        self.inputs = inputs_of(model, batch.x, self.base)
        timed = max((i for i in self.inputs if i.mask is not None), key=lambda i: i.data.shape[1])
        self.rows = len(timed.data)
        self.steps = timed.data.shape[1]
        self.extents = [timed.steps(row) for row in range(self.rows)]
        self.keys = [tuple(i.alone(row).shape for i in self.inputs) for row in range(self.rows)]
        self.structure = jax.tree.structure(batch.x, is_leaf=is_masked)
        self.ran_alone: list[int] = []

    def run(self) -> Iterator[Found]:
        """Yields what each check found."""
        if not self.training and not batch_is_fixed(self.model):
            yield from self._alone()
        if any(i.mask is not None and i.resizable for i in self.inputs):
            yield from self._again("more padding", [i.padded().whole() for i in self.inputs])
        for junk, name in ((_JUNK, "1e3"), (np.nan, "NaN")):
            given = [i.padded().with_junk(junk) for i in self.inputs]
            yield from self._again(f"{name} in padding", given)
        yield from self._between()

    def _alone(self) -> Iterator[Found]:
        """Runs rows alone: all of a few lengths, the shortest and the longest among them."""
        present = [r for r in range(self.rows) if self.extents[r][1] > self.extents[r][0]]
        lengths = sorted({self.keys[r] for r in present})
        places = np.linspace(0, len(lengths) - 1, min(len(lengths), _LENGTHS)).astype(int)
        chosen = {lengths[i] for i in places}
        found = []
        for row in present:
            if self.keys[row] not in chosen:
                continue
            x = self._structured([i.alone(row) for i in self.inputs])
            try:
                other = self.run_once(x)
            except (AlphornError, TypeError, ValueError) as error:
                message = (str(error).splitlines() or [""])[0]
                says = f"not run: the model takes no row of {self._length(row)} steps: {message}"
                yield Found(Check("alone", True, 0.0, says))
                return
            self.ran_alone.append(row)
            pairs = Rows([(row, 0)], self.rows, 1, self.extents, self.steps)
            found.append(self._outputs("alone", other, pairs))
        if found:
            yield max(found, key=lambda f: f.check.largest_difference)
        if self.base.loss is not None and not _finite(self.base.loss, *self.base.gradients):
            yield self._poison(present)

    def _length(self, row: int) -> int:
        start, stop = self.extents[row]
        return stop - start

    def _structured(self, leaves: list[Any]) -> Any:
        return jax.tree.unflatten(self.structure, leaves)

    def _again(self, name: str, leaves: list[Any]) -> Iterator[Found]:
        """Runs the batch in another form; compares outputs, loss and gradients."""
        x = self._structured(leaves)
        y, weight = self.batch.y, self.batch.weight
        try:
            if y is not None:
                after = self.run_once(x).outputs
                y, weight = (stretched(t, self.base.outputs, after) for t in (y, weight))
            other = self.run_once(x, y, weight)
        except (AlphornError, TypeError, ValueError) as error:
            says = f"not run: {(str(error).splitlines() or [''])[0]}"
            yield Found(Check(name, True, 0.0, says))
            return
        pairs = Rows(self._same(), self.rows, self.rows, self.extents, self.steps)
        yield self._outputs(name, other, pairs)
        if other.loss is not None:
            yield self._loss(name, other, pairs)

    def _same(self) -> list[tuple[int, int]]:
        return [(row, row) for row in range(self.rows)]

    def _outputs(self, name: str, other: Record, rows: Rows) -> Found:
        pairs = zip(self.base.outputs, other.outputs, strict=True)
        found = largest([difference(a, b, rows) for a, b in pairs])
        holds = found.size <= self.tolerance
        says = f"outputs differ by at most {figure(found.size)}"
        check = Check(f"{name}: outputs", holds, found.size, says)
        if holds:
            return Found(check)
        culprit = first_difference(self.base, other, rows, self.tolerance)
        culprit = culprit or Culprit(self.base.visits[0], None, found)
        return Found(check, culprit, culprit.difference)

    def _loss(self, name: str, other: Record, rows: Rows) -> Found:
        here = [self.base.loss, *self.base.gradients]
        there = [other.loss, *other.gradients]
        one = Rows([(0, 0)], 1, 1, [(0, 0)], 0)
        sizes = [
            Difference() if i and self._is_rounding(a, b) else difference(a[None], b[None], one)
            for i, (a, b) in enumerate(
                zip(map(np.asarray, here), map(np.asarray, there), strict=True)
            )
        ]
        worst = largest(sizes)
        holds = worst.size <= self.tolerance
        says = f"loss and gradients differ by at most {figure(worst.size)}"
        culprit = None
        if not holds:
            culprit = first_difference(self.base, other, rows, self.tolerance)
            culprit = culprit or first_bad_slope(self.base, other, rows, self.tolerance)
            culprit = culprit or self.base.visits[0]
            what = "the loss" if sizes[0].size > self.tolerance else "gradients"
            says = f"{what}: {worst.here:.4g} in the batch, {worst.there:.4g} with {name}"
        return Found(Check(f"{name}: loss and gradients", holds, worst.size, says), culprit, worst)

    def _is_rounding(self, *gradients: np.ndarray) -> bool:
        """Whether gradients are 0 but for rounding, beside the largest of all weights."""
        both, all_of_them = (
            np.max([np.abs(np.asarray(g, np.float64)).max(initial=0.0) for g in parts])
            for parts in (gradients, self.base.gradients)
        )
        return bool(both <= self.tolerance * all_of_them)

    def _poison(self, rows: list[int]) -> Found:
        """Says whether padding is why the loss or gradients are not finite: a row alone has none."""
        name = "alone: loss and gradients"
        for row in rows:
            x = self._structured([i.alone(row) for i in self.inputs])
            after = self.run_once(x).outputs
            parts = (self.batch.y, self.batch.weight)
            y, weight = (taken(t, self.base.outputs, after, row) for t in parts)
            other = self.run_once(x, y, weight)
            if not _finite(other.loss, *other.gradients):
                says = f"the loss or gradients of row {row} are not finite without padding either"
                return Found(Check(name, True, 0.0, says))
        says = (
            "the loss or gradients are not finite in the batch, though those of each row alone are"
        )
        pairs = Rows(self._same(), self.rows, self.rows, self.extents, self.steps)
        culprit = first_bad_slope(self.base, None, pairs, self.tolerance)
        return Found(Check(name, False, np.inf, says), culprit or self.base.visits[0])

    def _between(self) -> Iterator[Found]:
        other = self.run_once(self.batch.x, junk=_JUNK)
        pairs = Rows(self._same(), self.rows, self.rows, self.extents, self.steps)
        found = self._outputs("1e3 between layers", other, pairs)
        yield found


def _finite(*arrays: Any) -> bool:
    return all(np.isfinite(np.asarray(a, np.float64)).all() for a in arrays)


# --- what is said


def _result(found: list[Found], checks: _Checks) -> PaddingCheck:
    between = found[-1]
    counted = [f for f in found if f is not between]
    broken = next((f for f in counted if not f.check.holds), None)
    worst = max((f.check.largest_difference for f in counted), default=0.0)
    reads = None
    if broken is not None:
        visit = visit_of(broken)
        verdict = accusation(broken)
    else:
        visit = None
        lengths = len({checks.keys[r] for r in range(checks.rows)})
        many = "length" if lengths == 1 else "lengths"
        verdict = f"holds: {checks.rows} rows, {lengths} {many}, outputs differ by at most "
        verdict += figure(max((_size(f, "outputs") for f in counted), default=0.0))
        if checks.base.loss is not None:
            verdict += ", loss and gradients by " + figure(
                max((_size(f, "gradients") for f in counted), default=0.0)
            )
        if not between.check.holds:
            reader = visit_of(between)
            reads = reader.operation.name
            verdict += (
                f"\nbut {named(reader)} reads padding, and is right only because of what stands"
                f" there. {advice(reader)}"
            )
    name = None if visit is None else visit.operation.name
    every = tuple(f.check for f in found)
    return PaddingCheck(broken is None, name, worst, every, verdict, reads)


def _size(found: Found, what: str) -> float:
    return found.check.largest_difference if found.check.name.endswith(what) else 0.0


def _show(result: PaddingCheck) -> None:
    console = Console()
    word, rest = result.verdict.split(" " if not result.holds else ":", 1)
    mark = "bold green" if result.holds else "bold red"
    separator = ":" if result.holds else " "
    console.print(Text.assemble((word, mark), f"{separator}{rest}"), soft_wrap=True)
    for check in result.checks:
        state = "holds" if check.holds else "differs"
        line = f"  {check.name.split(':')[0]:<20} {state:<8} {check.says}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
