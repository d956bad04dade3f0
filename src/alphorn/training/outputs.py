"""The outputs of `predict`, put together from batches of any lengths and in any order of rows."""

import itertools
from typing import Any

import jax
import numpy as np


class Collected:
    """Rows of outputs as they come.

    Args:
        repeats: Whether steps behind the last one are like it: a recurrent layer repeats.
        front: Whether batches were cut in front.
        in_flight: Calls that may be under way on the device.
    """

    def __init__(self, repeats: bool, front: bool, in_flight: int):
        self.repeats, self.front, self._in_flight = repeats, front, in_flight
        self._parts: list[Any] = []
        self._rows: list[Any] = []

    def add(self, outputs: Any, rows: np.ndarray | None) -> None:
        """Takes the outputs of some rows of the table, or of those that come next."""
        self._parts.append(outputs)
        self._rows.append(rows)
        if len(self._parts) > self._in_flight:
            self._parts[-self._in_flight] = jax.device_get(self._parts[-self._in_flight])

    def joined(self, sizes: Any = None) -> Any:
        """Returns all rows in their order.

        Args:
            sizes: The outputs' shapes without the batch axis, in their structure; by default the
                largest that came.
        """
        structure = jax.tree.structure(self._parts[0])
        outputs = zip(*map(jax.tree.leaves, self._parts), strict=True)
        sizes = [None] * structure.num_leaves if sizes is None else sizes
        joined = [self._whole(parts, s) for parts, s in zip(outputs, sizes, strict=True)]
        return jax.tree.unflatten(structure, joined)

    def _whole(self, given: tuple, size: tuple[int, ...] | None) -> np.ndarray:
        parts = [np.asarray(p) for p in given]
        if size is None:
            size = tuple(max(sizes) for sizes in zip(*(p.shape[1:] for p in parts), strict=True))
        rows = self._rows
        if rows[0] is None:
            ends = np.cumsum([0, *map(len, parts)])
            rows = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
        if len(parts) == 1 and parts[0].shape[1:] == size and (np.diff(rows[0]) == 1).all():
            return parts[0]
        out = np.zeros((sum(map(len, parts)), *size), parts[0].dtype)
        for part, at in zip(parts, rows, strict=True):
            inside = [slice(0, n) for n in part.shape[1:]]
            beyond = slice(part.shape[1], None) if part.ndim > 1 else slice(0)
            if self.front and part.ndim > 1:
                cut = size[0] - part.shape[1]
                inside[0], beyond = slice(cut, None), slice(0, cut)
            out[(at, *inside)] = part
            if self.repeats and part.ndim > 1 and part.shape[1] != size[0] and part.shape[1]:
                edge = part[:, :1] if self.front else part[:, -1:]
                out[(at, beyond, *inside[1:])] = edge
        return out
