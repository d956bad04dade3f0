"""Rows of a table by number."""

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from alphorn.core.masked import fill_masked


def lookup(
    table: Array, ids: Array, *, mask: Array | None = None, dtype: DTypeLike | None = None
) -> Array:
    """Takes `table[ids]`.

    The gradient is one scatter-add into the table, in the table's own dtype: rows looked up often
    in a batch are summed in float32 also where the result is 16-bit.

    Args:
        table: `(rows, F)`.
        ids: integers of any shape, such as `(B, T)`.
        mask: boolean, its shape a prefix of that of `ids`.
        dtype: of the result; None for that of the table.

    Returns:
        `(*ids.shape, F)`; 0 where masked, whatever the id. Elsewhere an id outside
        `[0, rows)` gives NaN.

    >>> table = jnp.array([[1.0], [2.0]])
    >>> lookup(table, jnp.array([1, 7, -1]), mask=jnp.array([True, True, False])).ravel()
    Array([ 2., nan,  0.], dtype=float32)
    """
    # A compiled lookup cannot raise. Clipping, or wrapping negative ids as jnp.take does, would
    # train on some other row without a word; NaN is seen at the first loss.
    rows = table.at[fill_masked(ids, mask)].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )
    return fill_masked(rows.astype(dtype or table.dtype), mask)
