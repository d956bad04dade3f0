"""Attention: masked keys are not looked at; a row without keys gets zeros."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Layer
from alphorn.core.random import SeedGenerator, draw_pairs
from alphorn.core.rules import Call, choose, first_mask, join
from alphorn.errors import ArgumentError, ShapeError
from alphorn.initializers import AsInitializer
from alphorn.kernels.attention import additive_scores, attend, dot_product_attention
from alphorn.regularizers import AsRegularizer

__all__ = ["AdditiveAttention", "Attention", "MultiHeadAttention"]


def _kept(layer: Any, shape: tuple[int, ...]) -> Array:
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
            keep = _kept(self, scores.shape)
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


class _Projection(Layer):
    """One of the products of MultiHeadAttention, with its kernel and bias."""

    def __init__(self, owner: Any, heads_shape: tuple[int, ...], last: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self._owner_options = owner.weight_options()
        self._use_bias = owner.use_bias
        self._heads_shape, self._last = heads_shape, last

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        inputs = tuple(input_shape)
        kernel, bias = self._owner_options
        shape = (*inputs, *self._heads_shape)
        self.kernel = self.add_weight(shape, **kernel, name="kernel")
        self.bias = None
        if self._use_bias:
            self.bias = self.add_weight(self._heads_shape, **bias, name="bias")

    def project(self, x: Array) -> Array:
        """Returns `x` times the kernel, contracted over its last axes."""
        count = self.kernel.ndim - len(self._heads_shape)
        y = jnp.tensordot(x, self.kernel.value, count)
        return y if self.bias is None else y + self.bias.value


class MultiHeadAttention(Layer):
    """Attention with several heads (Vaswani et al., 2017).

    Args:
        num_heads: How many.
        key_dim: Size of a head's queries and keys.
        value_dim: Size of a head's values, by default `key_dim`.
        dropout: Share of the weights that is dropped while training.
        use_bias: Whether projections have biases.
        output_shape: Size of the output's features, by default the query's.
        attention_axes: Only time, axis 1.
        sliding_window: Each query sees the keys less than so many steps before or after it.
        flash_attention: None or False; True where the device has it.
        *_initializer, *_regularizer, *_constraint: Of the weights.
        use_gate: Whether heads are multiplied by a learned sigmoid of the query.
        seed: Of the dropout.

    Called on query, value and key (by default the value), `(batch, time, features)` each, masked or
    not; returns `(batch, query time, features)` with the query's mask.
    """

    num_heads: int
    key_dim: int
    value_dim: int | None = None
    dropout: float = 0.0
    use_bias: bool = True
    output_shape: Any = None
    attention_axes: Any = None
    sliding_window: int | None = None
    flash_attention: bool | None = None
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    use_gate: bool = False
    seed: Any = None

    file_names: ClassVar[dict[str, str]] = {"gate_dense": "_gate_dense"}
    masking = choose

    def after_init(self) -> None:
        """Checks the arguments."""
        for name in ("num_heads", "key_dim"):
            if getattr(self, name) < 1:
                raise ArgumentError(
                    f"MultiHeadAttention: {name}", getattr(self, name), "an integer > 0"
                )
        if self.value_dim is None:
            self.value_dim = self.key_dim
        axes = self.attention_axes
        if axes is not None and tuple([axes] if isinstance(axes, int) else axes) != (1,):
            raise ArgumentError("MultiHeadAttention: attention_axes", axes, "None or 1: time")
        if self.flash_attention:
            raise ArgumentError(
                "MultiHeadAttention: flash_attention", "True", "None: chosen where it is faster"
            )
        window = self.sliding_window
        if window is not None and (not isinstance(window, int) or window < 1):
            raise ArgumentError(
                "MultiHeadAttention: sliding_window", repr(window), "None or an integer > 0"
            )
        self.seed_generator = SeedGenerator(self.seed)

    def weight_options(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the arguments of kernels and of biases."""
        kernel, bias = (
            {k: getattr(self, f"{what}_{k}") for k in ("initializer", "regularizer", "constraint")}
            for what in ("kernel", "bias")
        )
        return kernel, bias

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Makes the four projections."""
        key_shape = value_shape if key_shape is None else key_shape
        for shape in (query_shape, value_shape, key_shape):
            if len(shape) != 3:
                raise ShapeError(
                    f"MultiHeadAttention '{self.name}'",
                    received=f"shape {tuple(shape)}",
                    expected="(batch, time, features)",
                )
        self.input_spec = InputSpec(ndim=3, axes={-1: query_shape[-1]})
        heads, dim, values = self.num_heads, self.key_dim, self.value_dim
        assert values is not None
        size = self.output_shape
        size = (query_shape[-1],) if size is None else size
        size = (size,) if isinstance(size, int) else tuple(size)
        options = {"dtype": self.dtype_policy}
        self.query_dense = _Projection(self, (heads, dim), False, name="query", **options)
        self.key_dense = _Projection(self, (heads, dim), False, name="key", **options)
        self.gate_dense = None
        if self.use_gate:
            self.gate_dense = _Projection(self, (heads, values), False, name="gate", **options)
            self.gate_dense.build((query_shape[-1],))
        self.value_dense = _Projection(self, (heads, values), False, name="value", **options)
        self.output_dense = _Projection(self, size, True, name="attention_output", **options)
        self.query_dense.build((query_shape[-1],))
        self.key_dense.build((key_shape[-1],))
        self.value_dense.build((value_shape[-1],))
        self.output_dense.build((heads, values))

    def chosen_mask(self, call: Call) -> Any:
        """The query's mask."""
        mask = first_mask(call.masks)
        return (mask, None) if isinstance(call.outputs, tuple) and mask is not None else mask

    def call(
        self,
        query: Array,
        value: Array,
        key: Array | None = None,
        query_mask: Array | None = None,
        value_mask: Array | None = None,
        key_mask: Array | None = None,
        attention_mask: Array | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        """Returns the output, and the weights `(batch, heads, query, key)` where wanted."""
        key = value if key is None else key
        masks = [m for m in (value_mask, key_mask) if m is not None]
        seen = None if not masks else (masks[0] if len(masks) == 1 else masks[0] & masks[1])

        def clean(x: Array, mask: Array | None) -> Array:
            return x if mask is None else jnp.where(mask[..., None], x, jnp.zeros_like(x))

        q = self.query_dense.project(clean(query, query_mask))
        k = self.key_dense.project(clean(key, seen))
        v = self.value_dense.project(clean(value, seen))
        keep = None
        if training and self.dropout:
            shape = (q.shape[0], self.num_heads, q.shape[1], k.shape[1])
            keep = _kept(self, shape)
        output, weights = dot_product_attention(
            q,
            k,
            v,
            scale=1 / math.sqrt(self.key_dim),
            query_mask=query_mask,
            key_mask=seen,
            attention_mask=self._within_window(attention_mask, q.shape[1], k.shape[1]),
            causal=use_causal_mask,
            keep=keep,
            keep_rate=1 - self.dropout,
        )
        if self.gate_dense is not None:
            output = output * jax.nn.sigmoid(self.gate_dense.project(clean(query, query_mask)))
        output = self.output_dense.project(output)
        return (output, weights) if return_attention_scores else output

    def _within_window(self, attention_mask: Any, queries: int, keys: int) -> Array | None:
        if self.sliding_window is None:
            return attention_mask
        distance = jnp.arange(queries)[:, None] - jnp.arange(keys)
        near = jnp.abs(distance) < self.sliding_window
        return near if attention_mask is None else near & attention_mask.astype(bool)
