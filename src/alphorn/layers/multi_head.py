"""Attention with several heads: each with its own keys, or groups of heads that share theirs."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Family, Layer
from alphorn.core.masked import fill_masked
from alphorn.core.random import SeedGenerator
from alphorn.core.rules import Call, choose, first_mask
from alphorn.errors import ArgumentError, ShapeError
from alphorn.initializers import AsInitializer
from alphorn.kernels.attention import attention_output, dot_product_attention
from alphorn.kernels.products import project
from alphorn.layers.attention import weights_kept
from alphorn.layers.einsum_dense import with_fans
from alphorn.regularizers import AsRegularizer

__all__ = ["GroupQueryAttention", "MultiHeadAttention"]


class _Projection(Layer):
    """One of the products of an attention with heads, with its kernel and bias."""

    def __init__(self, owner: Any, sizes: tuple[int, ...], **kwargs: Any):
        super().__init__(**kwargs)
        self._options = owner.weight_options()
        self._use_bias = owner.use_bias
        self._sizes = sizes

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        inputs = tuple(input_shape)
        kernel, bias = self._options
        shape = (*inputs, *self._sizes)
        count = len(inputs)
        first = with_fans(kernel["initializer"], range(count), range(count, len(shape)))
        self.kernel = self.add_weight(shape, **kernel | {"initializer": first}, name="kernel")
        self.bias = None
        if self._use_bias:
            self.bias = self.add_weight(self._sizes, **bias, name="bias")

    def project(self, x: Array) -> Array:
        """Returns `x` times the kernel, contracted over its last axes."""
        count = self.kernel.ndim - len(self._sizes)
        y = project(x, self.kernel.value, count)
        return y if self.bias is None else y + self.bias.value


class _HeadedAttention(Family):
    """What both kinds share; the fields are those of the subclasses."""

    masking = choose

    def after_init(self) -> None:
        """Checks the arguments."""
        where = type(self).__name__
        for name in self.counts:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{where}: {name}", repr(value), "an integer > 0")
        if self.flash_attention:
            raise ArgumentError(
                f"{where}: flash_attention", "True", "None: chosen where it is faster"
            )
        window = self.sliding_window
        if window is not None and (not isinstance(window, int) or window < 1):
            raise ArgumentError(f"{where}: sliding_window", repr(window), "None or an integer > 0")
        self.seed_generator = SeedGenerator(self.seed)

    def weight_options(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the arguments of kernels and of biases."""
        kernel, bias = (
            {k: getattr(self, f"{what}_{k}") for k in ("initializer", "regularizer", "constraint")}
            for what in ("kernel", "bias")
        )
        return kernel, bias

    def heads(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], Any]:
        """Returns number and size of the heads of queries, keys and values, and the output's size."""
        raise ArgumentError(f"{type(self).__name__} does not say what heads it has")

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Makes the projections."""
        key_shape = value_shape if key_shape is None else key_shape
        for shape in (query_shape, value_shape, key_shape):
            if len(shape) != 3:
                raise ShapeError(
                    f"{type(self).__name__} '{self.name}'",
                    received=f"shape {tuple(shape)}",
                    expected="(batch, time, features)",
                )
        self.input_spec = InputSpec(ndim=3, axes={-1: query_shape[-1]})
        queries, keys, values, size = self.heads()
        size = (query_shape[-1],) if size is None else size
        size = (size,) if isinstance(size, int) else tuple(size)
        joined = (queries[0], values[1])

        def made(name: str, sizes: tuple[int, ...], features: Any) -> _Projection:
            projection = _Projection(self, sizes, name=name, dtype=self.dtype_policy)
            projection.build(features if isinstance(features, tuple) else (features,))
            return projection

        self.query_dense = made("query", queries, query_shape[-1])
        self.key_dense = made("key", keys, key_shape[-1])
        self.gate_dense = made("gate", joined, query_shape[-1]) if self.use_gate else None
        self.value_dense = made("value", values, value_shape[-1])
        self.output_dense = made("attention_output", size, joined)

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
        query = fill_masked(query, query_mask)
        q = self.query_dense.project(query)
        k = self.key_dense.project(fill_masked(key, seen))
        v = self.value_dense.project(fill_masked(value, seen))
        if k.shape[2] != q.shape[2]:
            k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], 2) for x in (k, v))
        keep = None
        if training and self.dropout:
            shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
            keep = weights_kept(self, shape)
        options: dict[str, Any] = {
            "scale": 1 / math.sqrt(q.shape[-1]),
            "query_mask": query_mask,
            "key_mask": seen,
            "attention_mask": self._within_window(attention_mask, q.shape[1], k.shape[1]),
            "causal": use_causal_mask,
            "keep": keep,
            "keep_rate": 1 - self.dropout,
        }
        weights = None
        if return_attention_scores:
            output, weights = dot_product_attention(q, k, v, **options)
        else:
            output = attention_output(q, k, v, **options)
        if self.gate_dense is not None:
            output = output * jax.nn.sigmoid(self.gate_dense.project(query))
        output = self.output_dense.project(output)
        return (output, weights) if return_attention_scores else output

    def _within_window(self, attention_mask: Any, queries: int, keys: int) -> Array | None:
        if self.sliding_window is None:
            return attention_mask
        distance = jnp.arange(queries)[:, None] - jnp.arange(keys)
        near = jnp.abs(distance) < self.sliding_window
        return near if attention_mask is None else near & attention_mask.astype(bool)


class MultiHeadAttention(_HeadedAttention):
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

    counts = ("num_heads", "key_dim")
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

    def after_init(self) -> None:
        """Checks the arguments."""
        super().after_init()
        if self.value_dim is None:
            self.value_dim = self.key_dim
        axes = self.attention_axes
        if axes is not None and tuple([axes] if isinstance(axes, int) else axes) != (1,):
            raise ArgumentError("MultiHeadAttention: attention_axes", axes, "None or 1: time")

    def heads(self) -> Any:
        """Returns number and size of the heads of queries, keys and values, and the output's size."""
        pair = (self.num_heads, self.key_dim)
        return pair, pair, (self.num_heads, self.value_dim), self.output_shape


class GroupQueryAttention(_HeadedAttention):
    """Attention whose heads share keys and values in groups (Ainslie et al., 2023).

    Args:
        head_dim: Size of a head.
        num_query_heads: How many heads of queries.
        num_key_value_heads: How many of keys and values, a divisor of `num_query_heads`.
        dropout: Share of the weights that is dropped while training.
        use_bias: Whether projections have biases.
        sliding_window: Each query sees the keys less than so many steps before or after it.
        flash_attention: None or False; True where the device has it.
        *_initializer, *_regularizer, *_constraint: Of the weights.
        use_gate: Whether heads are multiplied by a learned sigmoid of the query.
        seed: Of the dropout.

    Called on query, value and key (by default the value), `(batch, time, features)` each, masked or
    not; returns `(batch, query time, features)` with the query's mask.

    >>> x = jnp.ones((1, 3, 6))
    >>> GroupQueryAttention(4, num_query_heads=4, num_key_value_heads=2)(x, x).shape
    (1, 3, 6)
    """

    counts = ("head_dim", "num_query_heads", "num_key_value_heads")
    head_dim: int
    num_query_heads: int
    num_key_value_heads: int
    dropout: float = 0.0
    use_bias: bool = True
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

    file_names: ClassVar[dict[str, str]] = {
        f"{n}_dense": f"_{n}_dense" for n in ("query", "key", "gate", "value", "output")
    }

    def after_init(self) -> None:
        """Checks the arguments."""
        super().after_init()
        if self.num_query_heads % self.num_key_value_heads:
            raise ArgumentError(
                "GroupQueryAttention: num_query_heads",
                received=f"{self.num_query_heads} for {self.num_key_value_heads} of keys and values",
                expected="a multiple of num_key_value_heads",
            )

    def heads(self) -> Any:
        """Returns number and size of the heads of queries, keys and values, and the output's size."""
        shared = (self.num_key_value_heads, self.head_dim)
        return (self.num_query_heads, self.head_dim), shared, shared, None
