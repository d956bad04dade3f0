"""The few shapes that batches of rows of unequal lengths are cut or padded to.

A shape is a compilation, and every step of padding is work: few shapes, close to what batches need.
They are chosen from the lengths alone, so that a run that is begun again has the same.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

# How many shapes there are at most, and what another one must save to be worth its compilation.
_MOST_SHAPES = 5
_LEAST_GAIN = 0.05
_BATCHES_A_SHAPE = 8
_ROWS_A_SHAPE = 128
# Batches that are looked at, where their rows are drawn anew each epoch.
_SAMPLE = 256
# Whether computing fewer steps, the second number instead of the first, is worth a compilation.
_Pays = Callable[[float, float], bool]
# Batches among whose rows `fit(group_by_length=True)` looks for those of like lengths.
WINDOW = 50


def rounded_up(sizes: Any, digits: int = 3) -> np.ndarray:
    """Returns sizes rounded up to a few binary digits: at most a quarter more, and seldom new.

    >>> rounded_up([3, 9, 30, 200]).tolist()
    [3, 10, 32, 224]
    """
    sizes = np.maximum(np.asarray(sizes, np.int64), 1)
    unit = 2 ** np.maximum(np.floor(np.log2(sizes)).astype(np.int64) - digits + 1, 0)
    return -(-sizes // unit) * unit


class Shapes:
    """The few shapes that the batches of a table are cut or padded to.

    Args:
        sizes: `(rows, levels)`, what each row needs.
        batch_size: Rows a batch.
        order: How rows come: "as they stand", "shuffled", "sorted" (longest first) or "grouped"
            (as `fit(group_by_length=True)` draws them).
        padding_cost: What a padded step costs, as a share of a valid one.

    >>> rows = np.array([[3]] * 300 + [[200]] * 20)
    >>> Shapes(rows, 10, "as they stand").chosen.tolist()
    [[3], [200]]
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        order: str = "as they stand",
        padding_cost: float = 1.0,
    ):
        self.sizes, self.batch_size, self.order = sizes, batch_size, order
        whole = len(sizes) // batch_size
        if len(sizes) <= batch_size:
            self.chosen = rounded_up(sizes.max(0))[None]
            return
        rows = sampled_rows(sizes, batch_size, order)
        calls = len(sizes) // _ROWS_A_SHAPE if order == "sorted" else whole // _BATCHES_A_SHAPE
        most = min(_MOST_SHAPES, 1 + calls)
        chosen = _chosen(sizes[rows], sizes.max(0), most, padding_cost)
        self.chosen = np.maximum(chosen, 1)

    def covering(self, index: Any) -> np.ndarray:
        """Returns the smallest of the shapes into which the rows at `index` fit."""
        drawn = self.order in ("shuffled", "grouped")
        if drawn and len(index) < self.batch_size:  # the last rows: one program, not one a shape
            return self.chosen[-1]
        longest = self.sizes[index].max(0)
        return next(shape for shape in self.chosen if (shape >= longest).all())


def sampled_rows(sizes: np.ndarray, batch_size: int, order: str) -> np.ndarray:
    """Returns rows of batches as they may come, `(batches, batch_size)`; arguments as of `Shapes`."""
    # The sample is of its own seed: the same table has the same shapes in every run.
    random = np.random.default_rng(0)
    if order == "shuffled":
        return random.integers(0, len(sizes), (_SAMPLE, batch_size))
    index = {"sorted": sorted_rows, "grouped": grouped_rows(batch_size, random)}
    at = index.get(order, lambda s: np.arange(len(s)))(sizes)
    whole = len(sizes) // batch_size
    return at[: whole * batch_size].reshape(whole, batch_size)


def sorted_rows(sizes: np.ndarray) -> np.ndarray:
    """Returns the order of rows by their lengths, longest first; equal ones as they stand.

    >>> sorted_rows(np.array([[2], [5], [2], [3]])).tolist()
    [1, 3, 0, 2]
    """
    return np.lexsort((np.arange(len(sizes)), *(-sizes.T[::-1]), -sizes.prod(1)))


def grouped_rows(
    batch_size: int, random: np.random.Generator, longest_first: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that draws an order in which rows of like lengths stand together.

    All rows are shuffled; within windows of 50 batches they are sorted by length; then whole
    batches are shuffled, so that neighbours are not alike. Rows that fill no batch stay last.

    Args:
        batch_size: Rows a batch.
        random: Decides the order.
        longest_first: Whether the batch with the longest row comes first.
    """

    def order(sizes: np.ndarray) -> np.ndarray:
        rows = random.permutation(len(sizes))
        step = WINDOW * batch_size
        windows = [rows[i : i + step] for i in range(0, len(rows), step)]
        rows = np.concatenate([w[sorted_rows(sizes[w])] for w in windows])
        whole = len(rows) // batch_size
        batches = rows[: whole * batch_size].reshape(whole, batch_size)
        places = random.permutation(whole)
        if longest_first and whole:
            need = sizes[batches].max(1).prod(1)
            first = int(need.argmax())
            places = np.concatenate([[first], places[places != first]])
        return np.concatenate([batches[places].reshape(-1), rows[whole * batch_size :]])

    return order


def _chosen(needs: np.ndarray, largest: np.ndarray, most: int, padding_cost: float) -> np.ndarray:
    """Returns shapes for batches; the largest stands last.

    Args:
        needs: Of batches, `(batches, rows, columns)`.
        largest: What the largest of all rows need.
        most: How many shapes.
        padding_cost: As of `Shapes`.
    """
    longest = needs.max(1)
    _, first, back = np.unique(  # inputs of equal lengths are one
        np.vstack([longest, largest]), axis=1, return_index=True, return_inverse=True
    )
    longest, largest = longest[:, first], largest[first]
    valid = needs[..., first].prod(-1).mean(1).sum()

    def cost(steps: float) -> float:
        return valid + padding_cost * (steps - valid)

    def pays(before: float, after: float) -> bool:
        return cost(after) < (1 - _LEAST_GAIN) * cost(before)

    if len(largest) == 1:
        found = _best_lengths(longest[:, 0], int(largest[0]), most, pays)[:, None]
    else:
        found = _greedy_shapes(longest, largest, most, pays)
    return found[:, back.reshape(-1)]


def _best_lengths(longest: np.ndarray, largest: int, most: int, pays: _Pays) -> np.ndarray:
    """Returns the lengths for which the steps computed are fewest, by dynamic programming."""
    wanted = np.minimum(rounded_up(longest, 4), max(largest, 1))
    lengths, counts = np.unique(np.append(wanted, max(largest, 1)), return_counts=True)
    counts[-1] -= 1
    before = np.concatenate([[0], np.cumsum(counts)])
    # cost[j]: of the batches up to length j, with length j the largest; `cuts` are the chosen ones.
    cost = (before[1:] * lengths).astype(float)
    cuts = [(j,) for j in range(len(lengths))]
    best, chosen = cost[-1], cuts[-1]
    for _ in range(1, min(most, len(lengths))):
        costs = cost[:, None] + (before[None, 1:] - before[1:, None]) * lengths[None]
        costs[np.tril_indices(len(lengths))] = np.inf
        last = costs.argmin(0)
        cuts = [(*cuts[last[j]], j) for j in range(len(lengths))]
        cost = costs[last, np.arange(len(lengths))]
        if not pays(best, cost[-1]):
            break
        best, chosen = cost[-1], cuts[-1]
    return lengths[list(chosen)]


def _greedy_shapes(longest: np.ndarray, largest: np.ndarray, most: int, pays: _Pays) -> np.ndarray:
    """Returns shapes of several axes, one after another the best; the largest stands last."""
    steps = [
        np.unique(np.minimum(rounded_up(np.quantile(column, np.linspace(0, 1, 17))), top))
        for column, top in zip(longest.T, largest, strict=True)
    ]
    candidates = np.stack(np.meshgrid(*steps), -1).reshape(-1, len(largest))
    covers = (candidates[:, None] >= longest[None]).all(-1)
    volumes = candidates.prod(-1).astype(float)
    chosen, cost = [largest], np.full(len(longest), float(largest.prod()))
    while len(chosen) < most:
        costs = np.where(covers, np.minimum(volumes[:, None], cost), cost)
        best = costs.sum(1).argmin()
        if not pays(cost.sum(), costs[best].sum()):
            break
        chosen.append(candidates[best])
        cost = costs[best]
    chosen.sort(key=lambda shape: shape.prod())
    return np.array(chosen)
