"""CTC: the likelihood of label sequences that are not aligned with the steps."""

from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from alphorn.core.masked import fill_masked, mask_of, unmask, with_mask
from alphorn.core.variable import unwrap
from alphorn.errors import ShapeError
from alphorn.losses.pairs import counted, cut_mask, pair_function
from alphorn.naming import register

__all__ = ["ctc"]


def _packed(labels: Array, known: Array) -> tuple[Array, Array]:
    """Returns each row's labels in front, and which places hold one."""
    order = jnp.argsort(~known, axis=-1, stable=True)
    return jnp.take_along_axis(labels, order, -1), jnp.take_along_axis(known, order, -1)


@pair_function("whole")
def ctc(y_true: Any, y_pred: Any, weight: Any = None) -> Any:
    """Returns minus the log likelihood of each row's labels, `(batch,)`.

    Args:
        y_true: Class numbers `(batch, labels)`; 0, and what is masked, is no label.
        y_pred: Logits `(batch, time, classes)` of which class 0 is the blank; masked steps do not
            exist.
        weight: Rows that weigh 0 may hold anything.

    Returns:
        The values; Masked where `y_pred` is: rows without a step are no rows.

    >>> from alphorn.core.masked import Masked
    >>> mask = jnp.array([[True, True, False]])
    >>> value = ctc(jnp.array([[1]]), Masked(jnp.zeros((1, 3, 2)), mask))
    >>> jnp.exp(-value.data).round(2)  # three of the four paths of two steps
    Array([0.75], dtype=float32)
    """
    labels, logits = (jnp.asarray(unmask(unwrap(x))) for x in (y_true, y_pred))
    if labels.ndim != 2 or logits.ndim != 3 or len(labels) != len(logits):
        raise ShapeError(
            "loss ctc",
            received=f"y_true {tuple(labels.shape)}, y_pred {tuple(logits.shape)}",
            expected="y_true (batch, labels), y_pred (batch, time, classes)",
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    known, steps = mask_of(y_true), mask_of(y_pred)
    rows = counted(weight, y_pred, steps=False)
    there = jnp.ones(logits.shape[:2], bool) if rows is None else rows[:, None]
    if steps is not None:
        there = there & (cut_mask(steps, 2) if steps.ndim > 1 else steps[:, None])
    there = jnp.broadcast_to(there, logits.shape[:2])
    labels = fill_masked(labels, known).astype(jnp.int32)
    labels, known = _packed(labels, labels != 0)
    logits = fill_masked(logits, there)
    absent = ((~there).astype(logits.dtype), (~known).astype(logits.dtype))
    values = optax.ctc_loss(logits, absent[0], labels, absent[1])
    exists = None if steps is None else there.any(-1)
    if exists is None and rows is None:
        return values
    values = jnp.where(there.any(-1), values, 0)
    return with_mask(values, exists)


register("losses", ctc, "ctc")
