"""The rows of a batch in groups of like lengths inside the step, where no layer skips padding itself.

The longest of 32 rows is nearly always as long as the longest of all, so that to cut whole batches
saves little. Rows that stand in order of their lengths can be cut group by group.
"""

import contextvars
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from alphorn.core.context import set_context
from alphorn.kernels.device import on_cpu
from alphorn.layers.embedding import Embedding
from alphorn.layers.normalization import BatchNormalization
from alphorn.layers.recurrent import GRU, LSTM, SimpleRNN, _Recurrent
from alphorn.layers.wrappers import Bidirectional, TimeDistributed
from alphorn.training.lengths import Lengths
from alphorn.training.shapes import rounded_up, sampled_rows, sorted_rows

# A program in groups takes as long to compile as so many batches save, or a few times as many.
ENOUGH_BATCHES = 32
# Each group is the model once more in the program: compiled once, but not for nothing.
_MOST_GROUPS = 3
_LEAST_GAIN = 0.07
# What a padded step costs that is skipped: its lookup and its room; and where it is put out.
_SKIPPED_COST = 1 / 32
_OUTPUT_COST = 1 / 16
# Groups begin at multiples of a batch's eighth; below so many rows a product is slow.
_PARTS = 8
_LEAST_ROWS = 4
# Shares of batches for which groups are made; the others run whole.
_SHARES = (0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Groups:
    """How a batch is parted: static, so that it is part of a program's key.

    Args:
        rows: How many each group has, one group after another, the longest first.
        sizes: For each group the sizes of a table's lengths.
        steps: For each group and input: which steps it keeps, `(start, stop)` for each axis of time.
        front: Whether padding stands in front.
    """

    rows: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    steps: tuple[tuple[tuple[tuple[int, int], ...], ...], ...]
    front: bool = False

    @property
    def spans(self) -> list[slice]:
        """The rows of each group among those of the batch."""
        stops = itertools.accumulate(self.rows)
        return [slice(stop - count, stop) for count, stop in zip(self.rows, stops, strict=True)]

    def split(self, value: Any, place: int) -> list[Any]:
        """Returns what each group has of the input at a place."""

        def part(array: Array, span: slice, ends: Sequence[tuple[int, int]]) -> Array:
            return array[(span, *(slice(*e) for e in ends[: array.ndim - 1]))]

        return [
            jax.tree.map(lambda a, span=span, own=own: part(a, span, own[place]), value)
            for span, own in zip(self.spans, self.steps, strict=True)
        ]


_now: contextvars.ContextVar[Groups | None] = contextvars.ContextVar("groups", default=None)


def in_groups(groups: Groups | None) -> AbstractContextManager[None]:
    """Returns a context in which the model that is called next runs in groups of rows."""
    return set_context(_now, groups)


def groups_now() -> Groups | None:
    """Returns the groups in which a model is to run, or None."""
    return _now.get()


def runs_whole(operation: Any) -> bool:
    """Returns whether a layer runs on all rows at once: it measures them, or skips padding itself."""
    return isinstance(operation, BatchNormalization | _Recurrent | Bidirectional)


def can_part(graph: Any) -> bool:
    """Returns whether a graph may run in groups: all that its layers keep of a batch is seeds."""
    return not any(
        not v.path.endswith("seed_generator_state")
        for node in graph.nodes
        if not isinstance(node.operation, BatchNormalization)
        for v in getattr(node.operation, "non_trainable_variables", ())
    )


def pay(graph: Any) -> bool:
    """Returns whether most of the work at steps is done by layers that run group by group."""
    return sum(-size if runs_whole(op) else size for op, size in _work_at_steps(graph)) > 0


def padding_cost(graph: Any) -> float:
    """Returns about what a padded step costs, as a share of a valid one."""
    work = list(_work_at_steps(graph))
    skipped = sum(size for operation, size in work if _skips_padding(operation))
    if not skipped or not on_cpu():
        return 1.0
    least = _SKIPPED_COST + _OUTPUT_COST * any(s.ndim > 2 for s in graph.output_symbols)
    return max(1 - skipped / sum(size for _, size in work), least)


def _work_at_steps(graph: Any, inside: bool = False) -> Iterator[tuple[Any, int]]:
    """Yields the layers that run at steps, each with its multiplications a step.

    Args:
        graph: A model's.
        inside: Whether all of it runs at steps.
    """
    for node in graph.nodes:
        operation, within = node.operation, inside
        while isinstance(operation, TimeDistributed):
            operation, within = operation.layer, True
        inner = getattr(operation, "graph", None)
        if inner is not None:
            yield from _work_at_steps(inner, within)
        elif not isinstance(operation, Embedding) and (within or _has_steps(node)):
            variables = getattr(operation, "variables", ())
            yield operation, sum(v.size for v in variables if v.ndim > 1)


def _has_steps(node: Any) -> bool:
    return any(len(s.shape) > 2 for s in node.inputs)


def _skips_padding(operation: Any) -> bool:
    if isinstance(operation, Bidirectional):
        operation = operation.forward_layer
    return isinstance(operation, SimpleRNN | GRU | LSTM)


class Grouping:
    """The groups of a table's batches, chosen once from its lengths.

    Args:
        lengths: Of the table's rows.
        inputs: The model's inputs in the table, in the order of its graph.
        batch_size: Rows a batch.
        order: How rows come, as in `Shapes`.
    """

    def __init__(self, lengths: Lengths, inputs: Sequence[Any], batch_size: int, order: str):
        self._needs, self._batch_size = lengths.needs, batch_size
        self._whole = lengths.largest(batch_size, order)
        sample = _by_length(self._needs, sampled_rows(self._needs, batch_size, order))
        rows, sizes = _best(sample, self._whole)
        steps = tuple(
            tuple(self._ends(lengths, lengths.columns_of(leaf), own) for leaf in inputs)
            for own in sizes
        )
        sizes = tuple(tuple(own) for own in sizes.tolist())
        self.groups = Groups(rows, sizes, steps, lengths.front) if len(rows) > 1 else None

    def _ends(
        self, lengths: Lengths, columns: Sequence[int], sizes: np.ndarray
    ) -> tuple[tuple[int, int], ...]:
        whole = [int(self._whole[c]) for c in columns]
        kept = [int(sizes[c]) for c in columns]
        fronts = [lengths.stands_in_front(c) for c in columns]
        return tuple(
            (full - n, full) if front else (0, n)
            for full, n, front in zip(whole, kept, fronts, strict=True)
        )

    def of(self, rows: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, Groups | None]:
        """Returns a batch's rows, longest first, and its groups; as they are where it has none.

        Args:
            rows: Of the table.
            sizes: What they are cut or padded to.
        """
        if self.groups is None or len(rows) != self._batch_size or (sizes != self._whole).any():
            return rows, None
        ordered = rows[sorted_rows(self._needs[rows])]
        starts = [span.start for span in self.groups.spans]
        need = np.maximum.reduceat(self._needs[ordered], starts, 0)
        fits = (need <= np.array(self.groups.sizes)).all()
        return (ordered, self.groups) if fits else (rows, None)


def _by_length(needs: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Returns what the rows of batches need, `(batches, rows, columns)`, longest first."""
    found = needs[batches]
    order = np.argsort(-found.prod(-1), axis=1, kind="stable")
    return np.take_along_axis(found, order[..., None], 1)


def _best(needs: np.ndarray, whole: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns the rows and sizes of the groups with which batches have the fewest steps.

    Args:
        needs: Of batches, longest first.
        whole: The sizes of a batch that is not parted.
    """
    count = needs.shape[1]
    rows, sizes, cost = (count,), whole[None], float(count * whole.prod())
    unit = max(count // _PARTS, _LEAST_ROWS)
    for number in range(2, _MOST_GROUPS + 1):
        found = (rows, sizes, cost)
        for inner in itertools.combinations(range(unit, count, unit), number - 1):
            starts = [0, *inner]
            parts = np.diff([*starts, count])
            longest = np.maximum.reduceat(needs, starts, 1)
            for share in _SHARES:
                own = rounded_up(np.quantile(longest, share, axis=0, method="higher"), 4)
                own = np.minimum(own, whole)
                own[0] = whole
                fits = (longest <= own).all((1, 2)).mean()
                steps = fits * (parts * own.prod(-1)).sum() + (1 - fits) * count * whole.prod()
                if steps < found[2]:
                    found = tuple(map(int, parts)), own, float(steps)
        if found[2] > (1 - _LEAST_GAIN) * cost:
            break
        rows, sizes, cost = found
    return rows, sizes
