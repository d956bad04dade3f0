"""A user's batch in other forms that must give the same: each row alone, more padding, junk in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from alphorn.checking.running import Record
from alphorn.core.masked import Masked, is_masked
from alphorn.errors import DataError
from alphorn.models.model import Model

# Steps of padding that are added along each axis of a mask.
MORE = 3


@dataclass(frozen=True)
class Input:
    """One input of the batch.

    Args:
        data: `(batch, ...)`, as the user has it.
        mask: Which steps exist, or None; found in the model where it is born there.
        given: Whether the mask comes with the data.
        pad: What padding holds.
        resizable: Whether the model takes another number of steps.
    """

    data: np.ndarray
    mask: np.ndarray | None
    given: bool
    pad: float = 0.0
    resizable: bool = True

    def steps(self, row: int) -> tuple[int, int]:
        """Returns the first valid step of a row and the one after its last."""
        if self.mask is None:
            return 0, self.data.shape[1] if self.data.ndim > 1 else 0
        alive = self.mask[row].reshape(self.mask.shape[1], -1).any(-1)
        found = np.flatnonzero(alive)
        return (int(found[0]), int(found[-1]) + 1) if found.size else (0, 0)

    def whole(self) -> Any:
        """Returns the input as the user has it."""
        return Masked.trusted(self.data, self.mask) if self.given else self.data

    def alone(self, row: int) -> Any:
        """Returns `(1, ...)`: a row by itself, cut to its own length; plain where all of it exists."""
        data, mask = self.data[row : row + 1], self.mask
        if mask is None:
            return data
        mask = mask[row : row + 1]
        if self.resizable:
            start, stop = self.steps(row)
            data, mask = data[:, start:stop], mask[:, start:stop]
            for axis in range(2, mask.ndim):  # the parts of a row: as long as its longest
                others = tuple(a for a in range(mask.ndim) if a != axis)
                end = int(np.flatnonzero(mask.any(others))[-1]) + 1
                cut = (slice(None),) * axis + (slice(0, end),)
                data, mask = data[cut], mask[cut]
        return data if mask.all() or not self.given else Masked.trusted(data, mask)

    def padded(self) -> "Input":
        """Returns the input with more padding at the end."""
        if self.mask is None or not self.resizable:
            return self
        more = [(0, 0)] + [(0, MORE)] * (self.mask.ndim - 1)
        rest = [(0, 0)] * (self.data.ndim - self.mask.ndim)
        data = np.pad(self.data, more + rest, constant_values=self.pad)
        return Input(data, np.pad(self.mask, more), self.given, self.pad)

    def with_junk(self, junk: float) -> Any:
        """Returns the input with junk in its padding, and the mask that says so."""
        if self.mask is None:
            return self.data
        wide = self.mask.reshape(self.mask.shape + (1,) * (self.data.ndim - self.mask.ndim))
        other = self.data.max(initial=0) if self.data.dtype.kind in "iub" else junk
        return Masked(np.where(wide, self.data, other).astype(self.data.dtype), self.mask)


def inputs_of(model: Model, x: Any, record: Record) -> list[Input]:
    """Returns the inputs of a batch with the masks that they bring or that are born on them.

    Args:
        model: Which takes them.
        x: A structure of arrays and Masked.
        record: Of the model's call on `x`.

    Raises:
        DataError: no input has a mask.
    """
    leaves = jax.tree.leaves(x, is_leaf=is_masked)
    sizes: list[Any] = [(None, None)] * len(leaves)
    if model.graph is not None:
        sizes = [s.shape for s in jax.tree.leaves(model.graph.inputs)]
        if isinstance(x, dict) and not isinstance(model.graph.inputs, dict):
            by_name = {s.name: s.shape for s in model.graph.input_symbols}
            sizes = [by_name[name] for name in sorted(x)]
    found = []
    for leaf, size in zip(leaves, sizes, strict=True):
        fixed = len(size) > 1 and size[1] is not None and not vars(model).get("_deferred", False)
        if is_masked(leaf):
            data, mask = np.asarray(leaf.data), np.asarray(leaf.mask)
            found.append(Input(data, mask, True, 0.0, not fixed))
        else:
            mask, pad = _born_on(np.asarray(leaf), record)
            found.append(Input(np.asarray(leaf), mask, False, pad, not fixed))
    if all(i.mask is None for i in found):
        raise DataError(
            f"check_padding of '{model.name}'",
            received="data in which no step is padding, as far as the model says",
            expected="a mask: without one, all of the data counts, and padding cannot be told",
            fix="begin with Embedding(mask_zero=True) or Masking(), or give lists of unequal rows",
        )
    return found


def _born_on(x: np.ndarray, record: Record) -> tuple[np.ndarray | None, float]:
    """Returns the finest mask that a layer makes of `x`, and what padding holds; or None."""
    best: np.ndarray | None = None
    pad = 0.0
    for operation, given, mask in _births(record):
        same = given.size == x.size and np.array_equal(given.ravel(), x.ravel(), equal_nan=False)
        ranks = [k for k in range(2, x.ndim + 1) if np.prod(x.shape[:k]) == mask.size]
        if not ranks or not (same or (mask.shape[:2] == x.shape[:2] and best is None)):
            continue
        fine = mask.reshape(x.shape[: ranks[0]])
        if best is None or fine.size > best.size:
            best, pad = fine, float(getattr(operation, "mask_value", 0.0) or 0.0)
    if best is not None and not best.all():
        pad = float(x[~best].ravel()[0])
    return best, pad


def _births(record: Record) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    for visit in record.visits:
        if any(is_masked(x) for x in visit.given):
            continue
        for out in visit.outputs:
            if is_masked(out):
                for given in visit.given:
                    yield visit.operation, np.asarray(given), np.asarray(out.mask)


def stretched(tree: Any, before: list[Any], after: list[Any]) -> Any:
    """Returns targets or weights with room for the steps of padding that outputs got.

    Args:
        tree: A structure of arrays and Masked, or None.
        before, after: The outputs without more padding and with it.
    """
    sizes = {
        (axis, a.shape[axis]): b.shape[axis]
        for a, b in zip(before, after, strict=True)
        if is_masked(a)
        for axis in range(1, a.mask.ndim)
    }

    def stretch(leaf: Any) -> Any:
        data = np.asarray(leaf.data if is_masked(leaf) else leaf)
        more = [(0, 0)] * data.ndim
        for axis in range(1, data.ndim):
            size = data.shape[axis]
            if (axis, size) not in sizes:
                break
            more[axis] = (0, sizes[axis, size] - size)
        data = np.pad(data, more)
        if not is_masked(leaf):
            return data
        return Masked.trusted(data, np.pad(np.asarray(leaf.mask), more[: leaf.mask.ndim]))

    return jax.tree.map(stretch, tree, is_leaf=is_masked)


def taken(tree: Any, before: list[Any], after: list[Any], row: int) -> Any:
    """Returns the targets or weights of one row, cut to the steps of the row's own outputs."""
    sizes = {
        a.shape[1]: b.shape[1]
        for a, b in zip(before, after, strict=True)
        if is_masked(a) and a.mask.ndim > 1
    }

    def cut(leaf: Any) -> Any:
        data = leaf[row : row + 1] if not is_masked(leaf) else np.asarray(leaf.data)[row : row + 1]
        if data.ndim > 1 and data.shape[1] in sizes:
            data = data[:, : sizes[data.shape[1]]]
        return data

    return jax.tree.map(cut, tree, is_leaf=is_masked)
