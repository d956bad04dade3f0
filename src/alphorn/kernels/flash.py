"""cuDNN's fused attention under any mask: scores are computed and used where they are.

Letters: `B` batch, `T` query steps, `S` key steps, `H` heads, `D` features of a head.

The kernel takes rows of unequal length that begin at the first step. A masked key is not seen, so
that keys without the masked ones give the same: each row's valid steps are moved to the front, and
what comes out is put back.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.kernels.device import on_cuda

_IMPLEMENTATION = "cudnn"
_MOST_FEATURES = 128


def runs(
    query: Array,
    key: Array,
    value: Array,
    *,
    query_mask: Array | None,
    key_mask: Array | None,
    causal: bool,
) -> bool:
    """Returns whether the kernel has this attention, and the default device has the kernel."""
    features = query.shape[-1]
    return (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and query.dtype == key.dtype == value.dtype
        and value.shape == key.shape
        and features <= _MOST_FEATURES
        and not features % 8
        # Which keys are earlier is known by their places: both sides must move alike.
        and (not causal or (query_mask is key_mask and query.shape[1] == key.shape[1]))
        and on_cuda()
    )


@jax.custom_vjp
def _moved(x: Array, there: tuple[Array, Array], back: tuple[Array, Array]) -> Array:
    """Returns `(B, steps, H, D)` with steps from elsewhere in their rows, zeros where none come.

    Args:
        x: `(B, steps, H, D)`.
        there: For each step, `(B, steps)`, which one comes there, and whether one does.
        back: The same of the way back, which gradients go: it needs no sums.
    """
    source, taken = (value[..., None, None] for value in there)
    return jnp.where(taken, jnp.take_along_axis(x, source, axis=1), 0)


def _moved_forward(x: Array, *ways: Any) -> tuple[Array, Any]:
    return _moved(x, *ways), ways


def _moved_backward(ways: Any, dmoved: Array) -> tuple[Array, None, None]:
    there, back = ways
    return _moved(dmoved, back, there), None, None


_moved.defvjp(_moved_forward, _moved_backward)


class _Packing(NamedTuple):
    """How valid steps are moved to the front and back, as `_moved` takes it, and their number."""

    there: tuple[Array, Array]
    back: tuple[Array, Array]
    lengths: Array

    def pack(self, x: Array) -> Array:
        """Returns each row's valid steps first, zeros behind them."""
        return _moved(x, self.there, self.back)

    def place(self, x: Array) -> Array:
        """Returns packed steps where they stood, zeros where nothing was."""
        return _moved(x, self.back, self.there)


def _packing(mask: Array | None) -> _Packing | None:
    if mask is None:
        return None
    count = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
    lengths = count[:, -1:]
    source = jnp.argsort(~mask, axis=1, stable=True)
    packed = jnp.arange(mask.shape[1])[None] < lengths
    # The kernel takes at least one step a row; what an empty row gives is not read.
    least = jnp.maximum(lengths[:, 0], 1)
    return _Packing((source, packed), (jnp.maximum(count - 1, 0), mask), least)


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    scale: float,
    query_mask: Array | None,
    key_mask: Array | None,
    causal: bool,
) -> Array:
    """Returns what `attention.attention_output` does, where it `runs`."""
    keys = _packing(key_mask)
    queries = keys if query_mask is key_mask else _packing(query_mask)
    output = jax.nn.dot_product_attention(
        query if queries is None else queries.pack(query),
        *(x if keys is None else keys.pack(x) for x in (key, value)),
        scale=scale,
        is_causal=causal,
        query_seq_lengths=None if queries is None else queries.lengths,
        key_value_seq_lengths=None if keys is None else keys.lengths,
        implementation=_IMPLEMENTATION,
    )
    if queries is not None:
        output = queries.place(output)
    if key_mask is None or query_mask is key_mask:
        return output
    return jnp.where(jnp.any(key_mask, 1)[:, None, None, None], output, 0)
