"""What padding cost in a run of fit, evaluate or predict."""

from dataclasses import dataclass, field
from typing import Any

from alphorn.training.data import Block
from alphorn.training.lengths import Lengths


@dataclass
class PaddingReport:
    """How much padding a run computed; steps of all its inputs and epochs.

    Args:
        padded: Steps with all padding, each row as long as the longest of all.
        computed: Steps that were computed.
        valid: Steps that are no padding.
        lengths: The lengths to which batches were cut or padded, one number for each axis of time.
        groups: How many rows each group has, where a step runs batches in groups of like lengths.
        programs: How many programs ran: one for each length, number of rows and of batches a call.
        why: Why padding was left in place; "" where it was cut.

    >>> PaddingReport(padded=200, computed=120, valid=100).share_left_out
    0.8
    """

    padded: int = 0
    computed: int = 0
    valid: int = 0
    lengths: list[tuple[int, ...]] = field(default_factory=list)
    groups: tuple[int, ...] = ()
    programs: int = 0
    why: str = ""
    _seen: set[Any] = field(default_factory=set, repr=False)

    @property
    def share_left_out(self) -> float:
        """The share of all padding that was not computed; 0 where there is none."""
        padding = self.padded - self.valid
        return (self.padded - self.computed) / padding if padding else 0.0

    def note(self, block: Block, lengths: Lengths | None) -> None:
        """Counts a call on a block of a table."""
        self._seen.add(block.program)
        self.programs = len(self._seen)
        counted = block.steps or _counted(block, lengths)
        if block.sizes is None or counted is None:
            return
        key = tuple(block.sizes.tolist())
        if key not in self.lengths:
            self.lengths = sorted([*self.lengths, key])
        if block.groups is not None:
            self.groups = block.groups.rows
        self.padded, self.computed, self.valid = (
            before + now
            for before, now in zip((self.padded, self.computed, self.valid), counted, strict=True)
        )

    def __str__(self) -> str:
        if not self.lengths:
            return f"no lengths; {self.programs} programs" + (f"; {self.why}" if self.why else "")
        lengths = ", ".join("x".join(map(str, size)) for size in self.lengths)
        if self.groups:
            lengths += f" in groups of {', '.join(map(str, self.groups))} rows"
        return (
            f"{self.share_left_out:.0%} of the padding left out; lengths {lengths};"
            f" {self.programs} programs" + (f"; {self.why}" if self.why else "")
        )


def _counted(block: Block, lengths: Lengths | None) -> tuple[int, int, int] | None:
    """Returns the steps of rows of a table: with all padding, as they run, and valid."""
    if block.sizes is None or block.rows is None or lengths is None:
        return None
    padded, computed, valid = lengths.steps(block.rows, block.sizes)
    if block.groups is not None:
        parts = zip(block.groups.spans, block.groups.sizes, strict=True)
        computed = sum(lengths.steps(block.rows[span], sizes)[1] for span, sizes in parts)
    return padded, computed, valid
