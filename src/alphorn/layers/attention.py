"""Attention: masked keys are not looked at; a row without keys gets zeros."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.core.layer import Layer
from alphorn.core.random import SeedGenerator, draw_pairs
from alphorn.core.rules import Call, join
from alphorn.errors import ArgumentError, ShapeError
from alphorn.kernels.attention import additive_scores, attend

__all__ = ["AdditiveAttention", "Attention"]


def weights_kept(layer: Any, shape: tuple[int, ...]) -> Array:
    """Draws which weights `(..., query time, key time)` the dropout of `layer` lets pass."""

    def draw(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.bernoulli(key, 1 - layer.dropout, shape)

    return draw_pairs(layer.seed_generator.next(), draw, shape)


class Attention(Layer):
    """Dot-product attention of queries to keys (Luong et al., 2015).

    Args:
        use_scale: Whether scores are multiplied by a learned number.
        score_mode: "dot", or "concat" for tanh of the sum.
        dropout: Share of the weights that is dropped while training.
        seed: Of the dropout.

    Takes `[query, value]` or `[query, value, key]`, `(batch, time, features)` each, with a list of
    masks; returns `(batch, query time, features)` with the query's mask.
    """

    use_scale: bool = False
    score_mode: str = "dot"
    dropout: float = 0.0
    seed: Any = None

    masking = join

    def after_init(self) -> None:
        """Checks the arguments."""
        if self.score_mode not in ("dot", "concat"):
            raise ArgumentError(
                f"{type(self).__name__}: score_mode", repr(self.score_mode), "'dot' or 'concat'"
            )
        self.seed_generator = SeedGenerator(self.seed)

    def build(self, input_shape: Any) -> None:
        """Makes the scale."""
        self._check(input_shape)
        self.scale = self.concat_score_weight = None
        if self.use_scale:
            self.scale = self.add_weight((), "ones", name="scale")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight((), "ones", name="concat_score_weight")

    def _check(self, shapes: Any) -> None:
        if not isinstance(shapes, list | tuple) or len(shapes) not in (2, 3):
            raise ShapeError(
                f"{type(self).__name__} '{self.name}'",
                received=f"{shapes}",
                expected="[query, value] or [query, value, key]",
            )

    def joined_mask(self, call: Call) -> Any:
        """The query's mask."""
        mask = call.masks[0] if isinstance(call.masks, list | tuple) else None
        return (mask, None) if isinstance(call.outputs, tuple) and mask is not None else mask

    def scores(self, query: Array, key: Array, masks: list) -> Array:
        """Returns `(batch, query time, key time)`."""
        if self.score_mode == "dot":
            scores = jnp.einsum("btf,bsf->bts", query, key)
            return scores if self.scale is None else scores * self.scale.value
        scale = jnp.ones((), query.dtype) if self.scale is None else self.scale.value
        assert self.concat_score_weight is not None
        weight = self.concat_score_weight.value.astype(query.dtype)
        return weight * additive_scores(scale * query, scale * key).astype(query.dtype)

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        training: bool | None = False,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        """Returns the values as the queries see them, and the weights where they are wanted."""
        query, value = inputs[0], inputs[1]
        key = inputs[2] if len(inputs) > 2 else value
        masks = [None, None] if mask is None else list(mask)
        query, key, value = (
            x if m is None else jnp.where(m[..., None], x, jnp.zeros_like(x))
            for x, m in ((query, masks[0]), (key, masks[1]), (value, masks[1]))
        )
        scores = self.scores(query, key, masks)
        keep = None
        if training and self.dropout:
            keep = weights_kept(self, scores.shape)
        output, weights = attend(
            scores,
            value,
            query_mask=masks[0],
            key_mask=masks[1],
            causal=use_causal_mask,
            keep=keep,
            keep_rate=1 - self.dropout,
        )
        if not return_attention_scores:
            return output
        if keep is not None:
            weights = jnp.where(keep, weights / (1 - self.dropout), jnp.zeros_like(weights))
        return output, weights


class AdditiveAttention(Attention):
    """Attention by the tanh of sums (Bahdanau et al., 2015).

    Args:
        use_scale: Whether sums are weighted by learned numbers, one a feature.
        dropout: Share of the weights that is dropped while training.
        seed: Of the dropout.
    """

    def __init__(
        self, use_scale: bool = True, dropout: float = 0.0, seed: Any = None, **kwargs: Any
    ):
        Layer.__init__(self, **kwargs)
        self.use_scale, self.dropout, self.seed = use_scale, dropout, seed
        self.score_mode = "dot"
        self.seed_generator = SeedGenerator(seed)

    def build(self, input_shape: Any) -> None:
        """Makes the scale."""
        self._check(input_shape)
        self.scale = None
        if self.use_scale:
            self.scale = self.add_weight((input_shape[0][-1],), "glorot_uniform", name="scale")

    def scores(self, query: Array, key: Array, masks: list) -> Array:
        """Returns `(batch, query time, key time)`."""
        return additive_scores(query, key, None if self.scale is None else self.scale.value)
