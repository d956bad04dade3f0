"""Attention: scores, a softmax over the keys that may be seen, a weighted sum of values.

Letters: `B` batch, `T` query steps, `S` key steps, `H` heads, `D` features of a head. The
single-head form leaves out the axis `H` everywhere.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import fill_masked
from alphorn.kernels import flash
from alphorn.kernels.formulations import in_blocks, suits_cpu
from alphorn.kernels.moments import sum_dtype


def visible_pairs(
    queries: int,
    keys: int,
    *,
    query_mask: Array | None = None,
    key_mask: Array | None = None,
    attention_mask: Array | None = None,
    causal: bool = False,
) -> Array | None:
    """Says which query may look at which key.

    Args:
        queries: T.
        keys: S.
        query_mask: `(B, T)`; a masked query sees nothing.
        key_mask: `(B, S)`; a masked key is not seen.
        attention_mask: `(T, S)`, `(B, T, S)` or `(B, H, T, S)`, True (or not 0) where seen.
        causal: query t sees keys 0 to t only.

    Returns:
        Boolean that broadcasts to `(B, H, T, S)`, or None where everything is seen.

    >>> visible_pairs(2, 2, causal=True, key_mask=jnp.array([[False, True]])).tolist()
    [[[[False, False], [False, True]]]]
    """
    parts = []
    if query_mask is not None:
        parts.append(query_mask[:, None, :, None])
    if key_mask is not None:
        parts.append(key_mask[:, None, None, :])
    if attention_mask is not None:
        pairs = attention_mask.astype(bool)
        parts.append({2: pairs[None, None], 3: pairs[:, None]}.get(pairs.ndim, pairs))
    if causal:
        parts.append(jnp.tri(queries, keys, dtype=bool)[None, None])
    seen = parts[0] if parts else None
    for part in parts[1:]:
        seen = seen & part
    return seen


def masked_softmax(scores: Array, mask: Array | None = None, axis: int = -1) -> Array:
    """Takes the softmax over the entries where `mask` is True, in float32 for 16-bit scores.

    Args:
        scores: any shape; junk in masked entries changes neither the result nor a gradient.
        mask: boolean, broadcasts to `scores`.
        axis: the axis of the softmax.

    Returns:
        As `scores`, in float32 where they are 16-bit: 0 at masked entries, all 0 where nothing is
        valid.

    >>> masked_softmax(jnp.array([[0.0, 0.0, 9.0]]), jnp.array([[True, True, False]])).tolist()
    [[0.5, 0.5, 0.0]]
    >>> masked_softmax(jnp.array([1.0, 2.0]), jnp.array([False, False])).tolist()
    [0.0, 0.0]
    """
    scores = scores.astype(sum_dtype(scores))
    if mask is None:
        return jax.nn.softmax(scores, axis)
    # Filled with the lowest number, not -inf: a row of nothing is then uniform and finite, with a
    # finite gradient, before the outer `where` makes both 0.
    lowest = jnp.finfo(scores.dtype).min
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.asarray(lowest, scores.dtype)), axis)
    return jnp.where(mask, weights, jnp.zeros_like(weights))


def attend(
    scores: Array,
    value: Array,
    *,
    query_mask: Array | None = None,
    key_mask: Array | None = None,
    attention_mask: Array | None = None,
    causal: bool = False,
    keep: Array | None = None,
    keep_rate: float = 1.0,
) -> tuple[Array, Array]:
    """Turns scores into weights, and values into their weighted sums.

    Args:
        scores: `(B, H, T, S)`, or `(B, T, S)` for one head.
        value: `(B, S, H, D)`, or `(B, S, D)` for one head.
        query_mask: as in `visible_pairs`, like the next three.
        key_mask: `(B, S)`.
        attention_mask: `(T, S)`, `(B, T, S)` or `(B, H, T, S)`.
        causal: no query sees later keys.
        keep: boolean, broadcasts to the scores: which weights dropout lets pass.
        keep_rate: what weights that pass are divided by.

    Returns:
        `(output, weights)`: `(B, T, H, D)` or `(B, T, D)` in the dtype of `value`, and the weights
        in the shape of the scores, before dropout. Where a query is masked or sees no key, both
        are 0.

    >>> output, weights = attend(
    ...     jnp.zeros((1, 1, 3)),
    ...     jnp.array([[[1.0], [2.0], [jnp.nan]]]),
    ...     key_mask=jnp.array([[True, True, False]]),
    ... )
    >>> output.tolist(), weights.tolist()
    ([[[1.5]]], [[[0.5, 0.5, 0.0]]])
    """
    if scores.ndim == 3:
        if attention_mask is not None and attention_mask.ndim == 4:
            raise ValueError(
                f"attention_mask of shape {attention_mask.shape} has an axis of heads: expected "
                "(T, S) or (B, T, S) for attention with one head"
            )
        output, weights = attend(
            scores[:, None],
            value[:, :, None],
            query_mask=query_mask,
            key_mask=key_mask,
            attention_mask=attention_mask,
            causal=causal,
            keep=None if keep is None else keep[:, None],
            keep_rate=keep_rate,
        )
        return output[:, :, 0], weights[:, 0]
    seen = visible_pairs(
        *scores.shape[-2:],
        query_mask=query_mask,
        key_mask=key_mask,
        attention_mask=attention_mask,
        causal=causal,
    )
    weights = masked_softmax(scores, seen)
    passed = weights
    if keep is not None:
        passed = jnp.where(keep, weights / keep_rate, jnp.zeros_like(weights))
    output = jnp.einsum(
        "bhts,bshd->bthd",
        passed.astype(value.dtype),
        fill_masked(value, key_mask),
        preferred_element_type=weights.dtype,
    )
    return output.astype(value.dtype), weights


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    scale: float | Array | None = None,
    bias: Array | None = None,
    query_mask: Array | None = None,
    key_mask: Array | None = None,
    attention_mask: Array | None = None,
    causal: bool = False,
    keep: Array | None = None,
    keep_rate: float = 1.0,
) -> tuple[Array, Array]:
    """Scaled dot-product attention with any number of heads.

    `softmax(scale · Q Kᵀ + bias) V` (Vaswani et al., "Attention is all you need", 2017).

    Args:
        query: `(B, T, H, D)`, or `(B, T, D)` for one head; key and value are alike.
        key: `(B, S, H, D)`.
        value: `(B, S, H, D)`; its D may be another one.
        scale: of the scores; None for `1 / sqrt(D)`.
        bias: added to the scores, broadcasts to them; -inf closes a pair.
        query_mask: as in `visible_pairs`, like the next three.
        key_mask: `(B, S)`.
        attention_mask: `(T, S)`, `(B, T, S)` or `(B, H, T, S)`.
        causal: no query sees later keys.
        keep: dropout, as in `attend`.
        keep_rate: as in `attend`.

    Returns:
        `(output, weights)` as in `attend`.

    >>> x = jnp.array([[[1.0, 0.0], [jnp.inf, 0.0]]])
    >>> mask = jnp.array([[True, False]])
    >>> output, weights = dot_product_attention(x, x, x, query_mask=mask, key_mask=mask)
    >>> output.tolist()
    [[[1.0, 0.0], [0.0, 0.0]]]
    """
    if scale is None:
        scale = query.shape[-1] ** -0.5
    # Junk that only the softmax hid would still reach the gradients, as 0 · NaN.
    query, key = fill_masked(query, query_mask), fill_masked(key, key_mask)
    wide = sum_dtype(query)
    shape = "bthd,bshd->bhts" if query.ndim == 4 else "btd,bsd->bts"
    scores = jnp.einsum(shape, query, key, preferred_element_type=wide)
    scores = scores * jnp.asarray(scale, wide)
    if bias is not None:
        scores, attention_mask = _add_bias(scores, bias, attention_mask)
    return attend(
        scores,
        value,
        query_mask=query_mask,
        key_mask=key_mask,
        attention_mask=attention_mask,
        causal=causal,
        keep=keep,
        keep_rate=keep_rate,
    )


def attention_output(
    query: Array,
    key: Array,
    value: Array,
    *,
    scale: float | Array | None = None,
    query_mask: Array | None = None,
    key_mask: Array | None = None,
    attention_mask: Array | None = None,
    causal: bool = False,
    keep: Array | None = None,
    keep_rate: float = 1.0,
) -> Array:
    """Returns the output of `dot_product_attention`, without weights and therefore cheaper.

    Scores are never kept: on NVIDIA's devices numbers of 16 bits go through cuDNN; on a CPU rows
    of the batch are worked on in blocks that stay in its cache, and the gradient computes a block's
    scores again. Sums are divided after the product with the values, not before it.

    Args:
        query: `(B, T, H, D)`; all arguments are as in `dot_product_attention`.

    >>> x = jnp.array([[[[1.0]], [[jnp.inf]]]])
    >>> mask = jnp.array([[True, False]])
    >>> attention_output(x, x, x, query_mask=mask, key_mask=mask).ravel().tolist()
    [1.0, 0.0]
    """
    chosen: Any = query.shape[-1] ** -0.5 if scale is None else scale
    masks: Any = {"query_mask": query_mask, "key_mask": key_mask, "causal": causal}
    plain = attention_mask is None and keep is None and isinstance(chosen, float)
    if plain and flash.runs(query, key, value, **masks):
        return flash.attend(query, key, value, scale=chosen, **masks)
    given: dict[str, Any] = {
        "query": query,
        "key": key,
        "value": value,
        "query_mask": query_mask,
        "key_mask": key_mask,
        "attention_mask": attention_mask,
        "keep": keep,
    }
    batch = query.shape[0]
    shared: dict[str, Any] = {
        name: x
        for name, x in given.items()
        if x is None or (name in ("attention_mask", "keep") and (x.ndim < 3 or x.shape[0] != batch))
    }
    own = {name: x for name, x in given.items() if name not in shared}

    def attend_block(own: dict[str, Any], shared: dict[str, Any]) -> Array:
        return _output(**own, **shared, causal=causal, keep_rate=keep_rate)

    shared["scale"] = chosen
    if not suits_cpu(query, key, value):
        return attend_block(own, shared)
    size = query.shape[2] * query.shape[1] * key.shape[1] * sum_dtype(query).itemsize
    return in_blocks(attend_block, own, shared, size)


def _output(
    query: Array,
    key: Array,
    value: Array,
    *,
    scale: float | Array,
    query_mask: Array | None,
    key_mask: Array | None,
    attention_mask: Array | None,
    causal: bool,
    keep: Array | None,
    keep_rate: float,
) -> Array:
    wide = sum_dtype(query)
    q, k, v = (
        fill_masked(x, mask).swapaxes(1, 2)
        for x, mask in ((query, query_mask), (key, key_mask), (value, key_mask))
    )
    q = q * jnp.asarray(scale, q.dtype)
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k, preferred_element_type=wide)
    seen = visible_pairs(
        *scores.shape[-2:], key_mask=key_mask, attention_mask=attention_mask, causal=causal
    )
    if seen is not None:
        # Filled as in `masked_softmax`; exp makes 0 of it in every row that sees something.
        scores = jnp.where(seen, scores, jnp.asarray(jnp.finfo(wide).min, wide))
    highest = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if keep is not None:
        weights = jnp.where(keep, weights / keep_rate, jnp.zeros_like(weights))
    output = jnp.einsum(
        "bhts,bhsd->bhtd", weights.astype(value.dtype), v, preferred_element_type=wide
    )
    output = output / total
    if seen is not None:
        output = jnp.where(jnp.any(seen, axis=-1, keepdims=True), output, jnp.zeros_like(output))
    return fill_masked(output.swapaxes(1, 2), query_mask).astype(value.dtype)


def additive_scores(
    query: Array,
    key: Array,
    scale: Array | None = None,
    *,
    query_mask: Array | None = None,
    key_mask: Array | None = None,
) -> Array:
    """Scores of additive attention: `sum(scale * tanh(query + key))` over the features.

    Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and
    translate" (2015).

    Args:
        query: `(B, T, D)`.
        key: `(B, S, D)`.
        scale: `(D,)`; None for ones.
        query_mask: `(B, T)`; masked queries count as 0.
        key_mask: `(B, S)`; masked keys count as 0.

    Returns:
        `(B, T, S)` for `attend`, in float32 where the input is 16-bit.

    >>> additive_scores(jnp.zeros((1, 1, 2)), jnp.full((1, 1, 2), jnp.inf)).tolist()
    [[[2.0]]]
    """
    query, key = fill_masked(query, query_mask), fill_masked(key, key_mask)
    features = jnp.tanh(query[:, :, None] + key[:, None])  # (B, T, S, D)
    wide = sum_dtype(features)
    if scale is None:
        return jnp.sum(features, axis=-1, dtype=wide)
    return jnp.einsum("btsd,d->bts", features, scale, preferred_element_type=wide)


def _add_bias(
    scores: Array, bias: Array, attention_mask: Array | None
) -> tuple[Array, Array | None]:
    """Adds a bias, and turns its -inf into closed pairs, whose softmax has no NaN."""
    closed = jnp.isneginf(bias)
    added = scores + jnp.where(closed, jnp.zeros_like(bias), bias).astype(scores.dtype)
    seen = jnp.broadcast_to(~closed, scores.shape)
    if attention_mask is not None:
        pairs = attention_mask.astype(bool)
        seen = seen & (pairs[:, None] if pairs.ndim == 3 and scores.ndim == 4 else pairs)
    return added, seen
