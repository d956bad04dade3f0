"""Two runs beside each other, row by row: how far they differ, and where that begins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphorn.checking.running import Record, Seen, is_floating
from alphorn.core.masked import Masked, is_masked, unmask
from alphorn.ops.table import Operation


@dataclass(frozen=True)
class Rows:
    """Which rows of two runs belong together.

    Args:
        pairs: `(row of the batch, row of the other run)`.
        count, others: How many rows each run has.
        extents: The first valid step of each row of the batch, and the one after its last.
        steps: The number of steps of the batch.
    """

    pairs: Sequence[tuple[int, int]]
    count: int
    others: int
    extents: Sequence[tuple[int, int]]
    steps: int


@dataclass(frozen=True)
class Difference:
    """The largest difference, by the largest value: in which row, and the two values.

    Args:
        size: Relative; infinite where the numbers of valid values differ, or only one is finite.
        row: Of the batch.
        here, there: In the batch, and in the other run.
        counts: Whether these are numbers of valid values.
    """

    size: float = 0.0
    row: int = 0
    here: float = 0.0
    there: float = 0.0
    counts: bool = False


def largest(differences: list[Difference]) -> Difference:
    """Returns the largest, or none."""
    return max(differences, key=lambda d: d.size, default=Difference())


def difference(batch: Any, other: Any, rows: Rows) -> Difference:
    """Compares what one layer gave in two runs, valid steps with valid steps.

    Args:
        batch: An array or Masked `(count or a multiple, ...)`.
        other: The same from the other run.
        rows: Which rows belong together.
    """
    a, b = np.asarray(unmask(batch)), np.asarray(unmask(other))
    if not a.ndim or not b.ndim or a.shape[0] % rows.count or b.shape[0] % rows.others:
        return Difference()  # no rows
    found = []
    scale = _scale(a, batch)
    for i, j in rows.pairs:
        for here, there in _parts(batch, other, i, j, rows):
            found.append(_between(here, there, i, scale))
    return largest(found)


def _scale(a: np.ndarray, batch: Any) -> float:
    values = a[np.asarray(batch.mask)] if is_masked(batch) else a
    if values.dtype == bool:
        return 1.0
    sizes = np.abs(values[np.isfinite(values)].astype(np.float64))
    return float(sizes.max(initial=0.0)) or 1.0


def _between(here: np.ndarray, there: np.ndarray, row: int, scale: float) -> Difference:
    if here.shape != there.shape:
        return Difference(np.inf, row, here.size, there.size, counts=True)
    if not here.size:
        return Difference()
    here, there = here.astype(np.float64).ravel(), there.astype(np.float64).ravel()
    same = (here == there) | (np.isnan(here) & np.isnan(there))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(here - there) / scale)
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    at = int(gaps.argmax())
    return Difference(float(gaps[at]), row, float(here[at]), float(there[at]))


def _parts(batch: Any, other: Any, i: int, j: int, rows: Rows) -> Any:
    """Yields what belongs to row `i`: one pair, or one for each part of rows that were unfolded."""
    a, b = np.asarray(unmask(batch)), np.asarray(unmask(other))
    many, more = a.shape[0] // rows.count, b.shape[0] // rows.others
    start, stop = rows.extents[i]
    first = start if many > 1 and many == rows.steps and more <= stop - start else 0
    for part in range(min(many - first, more)):
        p, q = i * many + first + part, j * more + part
        masks = [
            np.asarray(x.mask)[k] if is_masked(x) else None for x, k in ((batch, p), (other, q))
        ]
        yield _valid(a[p], b[q], *masks, extent=(start, stop), steps=rows.steps)


def _valid(
    a: np.ndarray, b: np.ndarray, in_a: Any, in_b: Any, extent: tuple[int, int], steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the valid steps of both; without masks, those that both have."""
    if in_a is None and in_b is None:
        return _common(a, b, extent, steps)
    if in_a is not None and in_b is not None:
        return a[in_a], b[in_b]
    known: Any = in_a if in_b is None else in_b
    if known.ndim > min(a.ndim, b.ndim):
        return a.reshape(-1)[:0], b.reshape(-1)[:0]
    if in_a is not None and a.shape[: known.ndim] != b.shape[: known.ndim]:
        return a[in_a], b.reshape(-1, *b.shape[in_a.ndim :])  # b came alone: all of it exists
    if in_b is not None and extent[0] and len(a) == steps and len(b) < steps:
        a = a[extent[0] :]
    block = tuple(slice(0, min(m, n)) for m, n in zip(a.shape, known.shape, strict=False))
    return a[block][known[block]], b[block][known[block]]


def _common(
    a: np.ndarray, b: np.ndarray, extent: tuple[int, int], steps: int
) -> tuple[np.ndarray, np.ndarray]:
    if a.ndim != b.ndim:
        return a.reshape(-1)[:0], b.reshape(-1)[:0]
    if extent[0] and a.shape != b.shape:  # padding in front
        start = extent[0] if a.shape[0] == steps else max(a.shape[0] - b.shape[0], 0)
        a = a[start:]
    block = tuple(slice(0, min(m, n)) for m, n in zip(a.shape, b.shape, strict=True))
    return a[block], b[block]


def _slope(visit: Seen, i: int) -> Any:
    """Returns a slope with the mask of its output."""
    output = [o for o in visit.outputs if is_floating(o)][i]
    return Masked.trusted(visit.slopes[i], output.mask) if is_masked(output) else visit.slopes[i]


@dataclass(frozen=True)
class Culprit:
    """Where two runs begin to differ.

    Args:
        visit: The call of the layer in whose output it shows, or of the model whose own code
            changed something between its layers.
        before: The layer that then got something else, or None.
        difference: How much.
    """

    visit: Seen
    before: Seen | None
    difference: Difference


def _steady(record: Record) -> list[tuple[int, bool]]:
    """Returns the events of layers and of ops in graphs: other ops are seen on a Masked alone."""

    def steady(visit: Seen) -> bool:
        if not isinstance(visit.operation, Operation) or visit.parent is None:
            return True
        return getattr(record.visits[visit.parent].operation, "graph", None) is not None

    return [event for event in record.events if steady(record.visits[event[0]])]


def first_difference(batch: Record, other: Record, rows: Rows, tolerance: float) -> Culprit | None:
    """Returns where two runs begin to differ, in the order in which layers ran."""
    for (at, ended), (place, also) in zip(_steady(batch), _steady(other), strict=False):
        visit, twin = batch.visits[at], other.visits[place]
        if also != ended or twin.operation is not visit.operation:
            return None  # the model's own code went another way
        if visit.parent is None and not ended:
            continue  # the data themselves
        pairs = zip(*((v.outputs if ended else v.given) for v in (visit, twin)), strict=False)
        found = largest([difference(a, b, rows) for a, b in pairs])
        if found.size > tolerance:
            if ended:
                return Culprit(visit, None, found)
            return Culprit(batch.visits[visit.parent or 0], visit, found)
    return None


def first_bad_slope(
    batch: Record, other: Record | None, rows: Rows, tolerance: float
) -> Seen | None:
    """Returns the layer behind which gradients are as they should be, and before which not.

    Args:
        batch: The run of the batch.
        other: The run to compare with; None to look for what is not finite.
        rows: Which rows belong together.
        tolerance: What may differ.
    """

    def unlike(visit: Seen, twin: Seen, i: int) -> bool:
        if other is None:
            return not np.isfinite(visit.slopes[i]).all()
        return difference(_slope(visit, i), _slope(twin, i), rows).size > tolerance

    def at_padding(visit: Seen, twin: Seen, i: int) -> bool:
        slope = _slope(visit, i)
        return is_masked(slope) and bool(np.any(slope.data[~slope.mask]))

    return _behind_last(batch, other or batch, unlike) or _behind_last(batch, batch, at_padding)


def _behind_last(
    batch: Record, other: Record, wrong: Callable[[Seen, Seen, int], bool]
) -> Seen | None:
    """Returns the layer that takes what the last visit with a wrong slope gave."""
    bad: int | None = None
    for (at, ended), (place, _) in zip(_steady(batch), _steady(other), strict=False):
        visit, twin = batch.visits[at], other.visits[place]
        if ended and any(wrong(visit, twin, i) for i in range(len(visit.slopes))):
            bad = at
    if bad is None:
        return None
    takers = [v for v in batch.visits if bad in v.sources]
    places = {id(v): i for i, v in enumerate(batch.visits)}
    leaves = [v for v in takers if not any(w.parent == places[id(v)] for w in batch.visits)]
    return next(iter(leaves or takers), batch.visits[0])
