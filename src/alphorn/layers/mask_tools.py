"""Masks by hand, and what is read from a sequence by its own steps."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Layer
from alphorn.core.masked import Masked, fill_masked, mask_of, unmask
from alphorn.core.rules import nest, reduce
from alphorn.errors import ArgumentError, MaskError, ShapeError
from alphorn.initializers import AsInitializer
from alphorn.kernels.attention import masked_softmax
from alphorn.ops.steps import first, last
from alphorn.regularizers import AsRegularizer

__all__ = ["FirstStep", "GlobalAttentionPooling1D", "LastStep", "RemoveMask", "RestoreMask"]


class RemoveMask(Layer):
    """Gives the data without their mask: padding counts as steps, of zeros, from here on.

    `RestoreMask` puts a mask back. `alphorn.unmask` ends a mask as well, and leaves in padding what
    stands there.

    >>> RemoveMask()(Masked(jnp.ones((1, 2)), jnp.array([[True, False]])))
    Array([[1., 0.]], dtype=float32)
    """

    masking = nest

    def call(self, inputs: Any) -> Any:
        """Returns the data, with zeros for padding."""
        return fill_masked(unmask(inputs), mask_of(inputs))


class RestoreMask(Layer):
    """Gives the first of two inputs the mask of the second.

    Takes `[data, masked]`, which agree in the axes of the mask, e.g. `(batch, time)`; returns the
    data with that mask, padding set to zero. A mask that the data have already must hold as well.

    >>> sequence = Masked(jnp.ones((1, 2)), jnp.array([[True, False]]))
    >>> RestoreMask()([RemoveMask()(sequence) + 1.0, sequence]).data
    Array([[2., 0.]], dtype=float32)
    """

    masking = nest

    def build(self, input_shape: Any) -> None:
        """Checks that there are two inputs."""
        pair = isinstance(input_shape, list | tuple) and len(input_shape) == 2
        if not pair or not all(isinstance(s, list | tuple) for s in input_shape):
            raise ShapeError(
                f"RestoreMask '{self.name}'", f"shapes {input_shape}", "[data, masked sequence]"
            )

    def call(self, inputs: Any) -> Any:
        """Returns the data with the mask."""
        data, source = inputs
        mask = mask_of(source)
        if mask is None:
            return data
        if tuple(unmask(data).shape[: mask.ndim]) != tuple(mask.shape):
            raise MaskError(
                f"RestoreMask '{self.name}': the mask does not fit the data",
                received=f"data {tuple(unmask(data).shape)}, mask {tuple(mask.shape)}",
                expected="as many rows and steps in both",
                fix="a layer that changes the number of steps carries the mask by itself:"
                " leave RemoveMask out",
            )
        return Masked(data, mask)


class LastStep(Layer):
    """Gives each row's own last valid step: `(batch, time, features)` to `(batch, features)`.

    An empty row gives zeros; of nested sequences the outer mask is left.

    >>> LastStep()(Masked(jnp.array([[[1.0], [2.0], [9.0]]]), jnp.array([[True, True, False]])))
    Array([[2.]], dtype=float32)
    """

    masking = nest

    def call(self, inputs: Any) -> Any:
        """Returns the last step."""
        return last(inputs)


class FirstStep(Layer):
    """Gives each row's own first valid step: `(batch, time, features)` to `(batch, features)`.

    An empty row gives zeros; of nested sequences the outer mask is left.
    """

    masking = nest

    def call(self, inputs: Any) -> Any:
        """Returns the first step."""
        return first(inputs)


class GlobalAttentionPooling1D(Layer):
    """The mean of a row's steps, weighted by learned attention (Yang et al., 2016).

    Scores are `tanh(x W + b) u`, weights their softmax over the valid steps: the pooling of
    hierarchical attention networks.

    Args:
        units: Size of the hidden layer of the scores; by default the number of features.
        use_bias: Whether it has a bias.
        kernel_initializer, bias_initializer, context_initializer: First values of W, b and u.
        kernel_regularizer, bias_regularizer, context_regularizer: Penalties.
        kernel_constraint, bias_constraint, context_constraint: Applied after each update.

    Takes `(batch, time, features)`, returns `(batch, features)`; zeros for a row without steps.
    With `return_attention_scores=True` the weights `(batch, time)` follow.

    >>> GlobalAttentionPooling1D()(jnp.ones((2, 3, 4))).shape
    (2, 4)
    """

    units: int | None = None
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    context_initializer: AsInitializer = "glorot_uniform"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    context_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    context_constraint: AsConstraint = None

    masking = reduce

    def after_init(self) -> None:
        """Checks the size."""
        if self.units is not None and (not isinstance(self.units, int) or self.units < 1):
            raise ArgumentError(
                f"GlobalAttentionPooling1D '{self.name}': units",
                received=repr(self.units),
                expected="an integer > 0, or None for the number of features",
            )

    def build(self, input_shape: Any) -> None:
        """Makes kernel, bias and context vector."""
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ShapeError(
                f"GlobalAttentionPooling1D '{self.name}'",
                received=f"shape {tuple(input_shape)}",
                expected="(batch, time, features) with known features",
            )
        features = input_shape[-1]
        self.input_spec = InputSpec(ndim=3, axes={-1: features})
        units = self.units or features
        self.kernel = self.add_field_weight("kernel", (features, units))
        self.bias = self.add_field_weight("bias", (units,)) if self.use_bias else None
        self.context = self.add_field_weight("context", (units, 1))

    def call(
        self, inputs: Array, mask: Array | None = None, return_attention_scores: bool = False
    ) -> Any:
        """Returns the weighted mean of the steps, and the weights where they are wanted."""
        steps = None if mask is None else jnp.any(mask, tuple(range(2, mask.ndim)))
        x = fill_masked(inputs, mask)
        hidden = x @ self.kernel.value
        hidden = hidden if self.bias is None else hidden + self.bias.value
        scores = (jnp.tanh(hidden) @ self.context.value)[..., 0]
        weights = masked_softmax(scores, steps).astype(inputs.dtype)
        pooled = jnp.einsum("bt,btf->bf", weights, x)
        return (pooled, weights) if return_attention_scores else pooled
