"""The calls of one run over data: the blocks that go into them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphorn.training.data import Block, Table
from alphorn.training.groups import Grouping


@dataclass(frozen=True)
class Calls:
    """What goes into the calls of a run.

    Args:
        data: A Table or Stream.
        rows: The order of its rows, None for as they stand.
        size: Batches a call.
        limit: How many batches, None for all.
        order: Of what kind the order is, as in `Shapes`.
        skip: The batch to begin with; a Stream stands there already.
        grouping: How batches are parted by length.
    """

    data: Any
    rows: Any
    size: int
    limit: int | None = None
    order: str = "as they stand"
    skip: int = 0
    grouping: Grouping | None = None

    def __iter__(self) -> Iterator[Block]:
        done = self.skip
        for block in self.data.blocks(self._rows(), self.size, self.order, self.grouping):
            if self.limit is not None and done >= self.limit:
                return
            yield block
            done += block.count

    def kinds(self) -> Iterator[Block]:
        """Yields the first block of each program that the calls need; of a Stream none is known."""
        seen = set()
        for block in self if isinstance(self.data, Table) else ():
            if block.program not in seen:
                seen.add(block.program)
                yield block

    def _rows(self) -> Any:
        if not isinstance(self.data, Table) or not (self.skip or self.limit is not None):
            return self.rows
        size = self.data.batch_size
        until = None if self.limit is None else self.limit * size
        rows = np.arange(self.data.rows) if self.rows is None else self.rows
        return rows[self.skip * size : until]
