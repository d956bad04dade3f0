"""The batches of a stream, each cut or padded to one of a few lengths, so that programs stay few."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from alphorn.core.any_size import any_size
from alphorn.core.masked import Masked, is_masked, unmask
from alphorn.distribution.current import distribution
from alphorn.kernels.device import on_cpu
from alphorn.training.cutting import Cutting, allowed, output_sizes
from alphorn.training.data import Batch, Block
from alphorn.training.shapes import rounded_up
from alphorn.training.step import SMALL_STEP, work_of
from alphorn.training.trimming import Cut, Trimming

# Of one length, in batches that are all padded to it, a cut must leave this part at most.
_LARGEST_CUT = 0.75


class Rounding:
    """What is cut of a stream's batches at their end, or added there.

    How many steps the batches to come have is not known: while all have had one number, it stays,
    unless a step is large and a quarter may go; once it has differed, it is rounded up.

    Args:
        model: Prepared for the batches.
        step: "train_step", "test_step" or "predict_step".
    """

    def __init__(self, model: Any, step: str):
        self.model, self.step = model, step
        self.active, self.why = False, ""
        self._met: dict[tuple[int, int], int] = {}  # by input and axis; 0 for several

    @property
    def met(self) -> list[list[int]]:
        """What was met so far, for a run that goes on: input, axis, its only size or 0."""
        return [[*key, size] for key, size in self._met.items()]

    def resume(self, met: list[list[int]]) -> None:
        """Goes on where a run was that had met this."""
        self._met = {(place, axis): size for place, axis, size in met}

    def taken(self, block: Block) -> Block:
        """Returns a block with the batch as it runs."""
        batch, self.active = block.batch, False
        found = self._allowed(batch)
        self.why = found.why
        if not found.cuts:
            return block
        leaves = self.model.graph.flatten(batch.x, f"Model '{self.model.name}'")
        valid = {cut.place: cut.valid(leaves[cut.place]) for cut in found.cuts}
        sizes = self._sizes(batch, found.cuts, valid)
        x = self._resized(batch.x, leaves, found.cuts, sizes)
        if x is None or not self._fits(x, batch.x):
            return block
        self.active = x is not batch.x
        steps = np.sum([_steps(valid[c.place], c.axes, sizes) for c in found.cuts], 0)
        new = replace(batch, x=x)
        return Block(lambda: new, sizes=np.array(list(sizes.values())), steps=tuple(steps.tolist()))

    def _allowed(self, batch: Batch) -> Trimming:
        if distribution() is not None:
            return Trimming(why="processes have batches of their own")
        if not on_cpu() and any(isinstance(a, jax.Array) for a in jax.tree.leaves(batch.x)):
            return Trimming(why="batches lie on a device")
        found = allowed(self.model, batch.x, self.step)
        if found.cuts and any(found.outputs):
            return Trimming(why="an output has steps, and batches are those of a generator")
        return found

    def _sizes(
        self, batch: Batch, cuts: tuple[Cut, ...], valid: dict[int, np.ndarray]
    ) -> dict[tuple[int, int], int]:
        """Returns sizes by axis and size before; inputs of equal sizes stay equal."""
        needs: dict[tuple[int, int], int] = {}
        several: set[tuple[int, int]] = set()
        for cut in cuts:
            mask = valid[cut.place]
            for axis in cut.axes:
                full = mask.shape[axis]
                key = axis, full
                if self._met.setdefault((cut.place, axis), full) != full:
                    self._met[cut.place, axis] = 0
                if not self._met[cut.place, axis]:
                    several.add(key)
                others = tuple(a for a in range(mask.ndim) if a != axis)
                steps = np.flatnonzero(mask.any(others))
                needs[key] = max(needs.get(key, 0), int(steps[-1]) + 1 if len(steps) else 1)
        found = {key: int(rounded_up(needs[key])) for key in several}
        single = needs.keys() - several
        if single:
            small = work_of(self.model.variables, batch) < SMALL_STEP
            found |= {key: key[1] if small else _cut(needs[key], key[1]) for key in single}
        return {key: found[key] for key in needs}

    def _resized(
        self, x: Any, leaves: list[Any], cuts: tuple[Cut, ...], sizes: dict[tuple[int, int], int]
    ) -> Any:
        """Returns inputs of those sizes, themselves where they have them; None for none."""
        if all(size == full for (_, full), size in sizes.items()):
            return x
        new: dict[int, Any] = {}
        for cut in cuts:
            leaf = leaves[cut.place]
            shape = list(np.shape(unmask(leaf)))
            for axis in cut.axes:
                shape[axis] = sizes[axis, shape[axis]]
            padding = 0 if is_masked(leaf) else cut.padding
            if padding is None:
                return None
            new[id(leaf)] = _of_shape(leaf, shape, padding)
        return jax.tree.map(lambda leaf: new.get(id(leaf), leaf), x, is_leaf=is_masked)

    def _fits(self, x: Any, given: Any) -> bool:
        if x is given:
            return True
        try:
            return output_sizes(self.model, x) == output_sizes(self.model, given)
        except Exception:  # whatever it says: a window is longer than the batch
            return False


def running(cutting: Cutting | Rounding) -> AbstractContextManager[None]:
    """Returns a context for steps: where batches are cut, they may be of any size."""
    return any_size() if cutting.active else nullcontext()


def _cut(need: int, full: int) -> int:
    """Returns to what a size is cut, itself where too little would go."""
    size = int(rounded_up(need, 2))
    return size if size <= _LARGEST_CUT * full else full


def _of_shape(leaf: Any, shape: list[int], padding: Any) -> Any:
    """Returns an array cut or padded behind to a shape."""
    if isinstance(leaf, Masked):
        mask = _of_shape(leaf.mask, shape[: leaf.mask.ndim], False)
        return Masked.trusted(_of_shape(leaf.data, shape, padding), mask)
    array = np.asarray(leaf)
    new = np.full(shape, padding, array.dtype)
    kept = tuple(slice(min(a, b)) for a, b in zip(array.shape, shape, strict=True))
    new[kept] = array[kept]
    return new


def _steps(
    valid: np.ndarray, axes: tuple[int, ...], sizes: dict[tuple[int, int], int]
) -> tuple[int, int, int]:
    """Returns how many steps an input has: as given, as it runs, and valid."""
    full = [valid.shape[axis] for axis in axes]
    new = [sizes[axis, size] for axis, size in zip(axes, full, strict=True)]
    rows = len(valid)
    return rows * int(np.prod(full)), rows * int(np.prod(new)), int(valid.sum())
