"""What a check found, in words that say what to write instead."""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from alphorn.checking.batches import MORE
from alphorn.checking.comparing import Culprit, Difference
from alphorn.checking.running import Seen
from alphorn.core.refusal import op_for
from alphorn.layers.lambda_ import Lambda
from alphorn.models.model import Model
from alphorn.ops.table import TABLE


@dataclass(frozen=True)
class Check:
    """One way in which the batch was run again.

    Args:
        name: "alone", "more padding", "1e3 in padding", "NaN in padding", or
            "1e3 between layers", which warns only; behind a colon what was compared.
        holds: Whether it gave the same.
        largest_difference: By the largest value.
        says: What came out, in a line.
    """

    name: str
    holds: bool
    largest_difference: float
    says: str


@dataclass
class Found:
    """A check with what it found."""

    check: Check
    culprit: Culprit | Seen | None = None
    difference: Difference | None = None


def visit_of(found: Found) -> Seen:
    """Returns the call that is to blame."""
    culprit = found.culprit
    assert culprit is not None
    return culprit.visit if isinstance(culprit, Culprit) else culprit


def figure(size: float) -> str:
    """Returns a difference with one digit: `3e-7`, `0.4`."""
    return f"{size:.1g}".replace("e-0", "e-").replace("e+0", "e+")


def named(visit: Seen) -> str:
    """Returns a layer's name and class."""
    return f"'{visit.operation.name}' ({type(visit.operation).__name__})"


def accusation(found: Found) -> str:
    """Returns who breaks the promise, how it shows, and what to write instead."""
    visit = visit_of(found)
    where = f"BROKEN at layer {named(visit)}"
    if isinstance(visit.operation, Model):
        where = f"BROKEN in the call of {named(visit)}"
    if isinstance(found.culprit, Culprit) and found.culprit.before is not None:
        where += f", before {named(found.culprit.before)}"
    kind = found.check.name.split(":")[0]
    gap = found.difference
    if gap is None or not isinstance(found.culprit, Culprit):
        says = found.check.says
    elif gap.counts:
        says = (
            f"row {gap.row} has {gap.there:g} valid values {_form(kind)}, in the batch {gap.here:g}"
        )
    else:
        says = f"row {gap.row} {_form(kind)} gives {gap.there:.4g}, in the batch {gap.here:.4g}"
    way = _SLOPE if found.check.largest_difference == math.inf and gap is None else advice(visit)
    return f"{where}: {says}. {way}"


_SLOPE = (
    "Its call computes on padding what has no finite slope there: give padding a harmless value"
    " first, e.g. x.fill(1), or write it on ops"
)


def _form(kind: str) -> str:
    if kind == "more padding":
        return f"with {MORE} more steps of padding"
    return kind if kind == "alone" else f"with {kind}"


def advice(visit: Seen) -> str:
    """Returns what to write instead."""
    operation = visit.operation
    if not getattr(operation, "user_defined", False) or getattr(operation, "masking", None):
        return (
            "This layer is one of the library's: please report it, or see the end of docs/masks.md"
            " for what cannot hold, and why"
        )
    function: Callable = type(operation).call
    if isinstance(operation, Lambda):
        function = operation.function
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = ""
    for written in re.findall(r"\b((?:jnp|np|jax\.nn|lax)\.\w+)\(", source):
        op = op_for(written)
        if op and TABLE[op.removeprefix("ops.")].rule.says != "stays.":
            return (
                f"Its call reads padding: {written} of plain data. Use {op} of the masked sequence,"
                " without unmask: it skips padding"
            )
    if "mask" in inspect.signature(function).parameters:
        return "Its call has `mask`: use it wherever time is summed, or take ops.mean(x, axis=1)"
    return (
        "Its call reads padding: use ops.mean(x, axis=1), ops.last(x) and the like, which skip it,"
        " or x.fill(0), instead of unmask(x) or x.data"
    )
