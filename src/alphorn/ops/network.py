"""Ops of networks on several arrays: attention, statistics, rankings, CTC."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from alphorn.core.masked import Masked, fill_masked, mask_of, unmask
from alphorn.kernels.attention import dot_product_attention as attention
from alphorn.ops.elementwise import float_like
from alphorn.ops.rules import per_step, refusal
from alphorn.ops.table import Op, Rule, row


def _attend(op: Op, arguments: dict[str, Any]) -> Any:
    query, key, value = (arguments[n] for n in ("query", "key", "value"))
    keys = [m for m in (mask_of(key), mask_of(value)) if m is not None]
    if any(isinstance(arguments[n], Masked) for n in ("bias", "mask")):
        raise refusal(op, "a masked bias or mask", "plain data: ops.unmask(mask)")
    if any(m.ndim != 2 for m in (*keys, mask_of(query)) if m is not None):
        raise refusal(op, "masks of other shapes", "masks (batch, time)")
    plain = {n: x.fill(0) if isinstance(x, Masked) else x for n, x in arguments.items()}
    out = _attention(
        plain,
        mask_of(query),
        None if not keys else keys[0] if len(keys) == 1 else keys[0] & keys[1],
    )
    mask = mask_of(query)
    return out if mask is None else Masked.trusted(fill_masked(out, mask), mask)


def _attention(given: dict[str, Any], query_mask: Any = None, key_mask: Any = None) -> Array:
    if given["attn_logits_soft_cap"] is not None:
        raise ValueError(
            "ops.dot_product_attention: attn_logits_soft_cap belongs to kernels of TPUs"
        )
    out, _ = attention(
        *(given[n] for n in ("query", "key", "value")),
        scale=given["scale"],
        bias=given["bias"],
        query_mask=query_mask,
        key_mask=key_mask,
        attention_mask=given["mask"],
        causal=given["is_causal"],
    )
    return out


@row(
    Rule(_attend, "of keys hides them; the result has that of the queries."),
    arrays=("query", "key", "value", "bias", "mask"),
)
def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Any:
    """Returns attention of `(B, T, H, D)` queries over `(B, S, H, D)` keys and values."""
    return _attention(locals())


def _normalized(op: Op, arguments: dict[str, Any]) -> Any:
    x = arguments["x"]
    if not isinstance(x, Masked) or any(isinstance(arguments[n], Masked) for n in op.arrays[1:]):
        raise refusal(op, "masked statistics", "plain data: ops.unmask(mean)")
    if arguments["axis"] % x.ndim < x.mask.ndim:
        raise refusal(op, f"axis={arguments['axis']} is masked", "name an axis of features")
    out = op.with_arrays(arguments, x.fill(0), *(arguments[n] for n in op.arrays[1:]))
    return Masked.trusted(fill_masked(out, x.mask), x.mask)


@row(Rule(_normalized, "stays."), arrays=("x", "mean", "variance", "offset", "scale"))
def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    axis: int,
    offset: Any = None,
    scale: Any = None,
    epsilon: float = 1e-3,
) -> Any:
    """Returns `(x - mean) / sqrt(variance + epsilon) * scale + offset`, vectors along `axis`."""
    others = [a for a in range(x.ndim) if a != axis % x.ndim]
    mean, variance, offset, scale = (
        v if v is None else jnp.expand_dims(v, others) for v in (mean, variance, offset, scale)
    )
    factor = jax.lax.rsqrt(variance + epsilon)
    factor = factor if scale is None else factor * scale
    shift = -mean * factor if offset is None else offset - mean * factor
    return x * factor + shift


@row(per_step((0, 0), None), arrays=("targets", "predictions"))
def in_top_k(targets: Any, predictions: Any, k: int) -> Any:
    """Returns whether each target is among the `k` classes with the largest predictions."""
    own = jnp.take_along_axis(predictions, targets[..., None], -1)
    return jnp.sum(predictions > own, -1) < k


def _lengths(x: Any, given: Any) -> Any:
    """Returns lengths: those given, or of the mask; steps must stand in front."""
    if given is not None:
        return unmask(given)
    return x.extent[1] if isinstance(x, Masked) else jnp.full(x.shape[:1], x.shape[1], jnp.int32)


def _ctc(op: Op, arguments: dict[str, Any]) -> Any:
    target, output = arguments["target"], arguments["output"]
    lengths = {
        "target_length": _lengths(target, arguments["target_length"]),
        "output_length": _lengths(output, arguments["output_length"]),
    }
    plain = {n: x.fill(0) if isinstance(x, Masked) else x for n, x in arguments.items()}
    return op.call_plain(plain | lengths)


@row(
    Rule(_ctc, "gives the lengths, where they are None."),
    arrays=("target", "output", "target_length", "output_length"),
)
def ctc_loss(
    target: Any, output: Any, target_length: Any, output_length: Any, mask_index: int = 0
) -> Any:
    """Returns the connectionist temporal classification loss of each row, `(B,)`.

    `target` is `(B, L)` classes, `output` `(B, T, C)` logits; lengths may be None: all steps, or
    those that a mask says. `mask_index` is the blank.
    """
    target_length, output_length = _lengths(target, target_length), _lengths(output, output_length)

    def absent(x: Any, lengths: Any) -> Array:
        return (jnp.arange(x.shape[1]) >= lengths[:, None]).astype(output.dtype)

    return optax.ctc_loss(
        float_like(output),
        absent(output, output_length),
        target.astype(jnp.int32),
        absent(target, target_length),
        blank_id=mask_index,
    )
