"""Activations as layers."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn import activations
from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.core.layer import Layer
from alphorn.core.masked import Masked, unmask
from alphorn.core.rules import nest, preserve
from alphorn.errors import ArgumentError
from alphorn.initializers import AsInitializer
from alphorn.regularizers import AsRegularizer

__all__ = ["ELU", "Activation", "LeakyReLU", "PReLU", "ReLU", "Softmax", "ThresholdedReLU"]


class Activation(Layer):
    """Applies an activation by name or function; the mask stays.

    Args:
        activation: E.g. "relu". "softmax" over an axis of time counts valid steps only.
    """

    activation: AsActivation
    masking = nest

    def call(self, inputs: Any) -> Any:
        """Returns the activated data."""
        return self.activation(inputs)


class ReLU(Layer):
    """`max(x, 0)`, with a slope below, a bound above and a threshold where they are asked for."""

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0
    masking = preserve

    def call(self, inputs: Array) -> Array:
        """Returns the activated data."""
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(Layer):
    """`x` above 0, `negative_slope * x` below."""

    negative_slope: float = 0.3
    masking = preserve

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Takes Keras 2's `alpha`."""
        if "alpha" in kwargs:
            kwargs["negative_slope"] = kwargs.pop("alpha")

    def call(self, inputs: Array) -> Array:
        """Returns the activated data."""
        return activations.leaky_relu(inputs, self.negative_slope)


class ELU(Layer):
    """`x` above 0, `alpha * (exp(x) - 1)` below."""

    alpha: float = 1.0
    masking = preserve

    def call(self, inputs: Array) -> Array:
        """Returns the activated data."""
        return activations.elu(inputs, self.alpha)


class ThresholdedReLU(Layer):
    """`x` above `theta`, else 0 (Konda et al., 2015); a layer of Keras 2."""

    theta: float = 1.0
    masking = preserve

    def after_init(self) -> None:
        """Checks the threshold."""
        if self.theta is None or self.theta < 0:
            raise ArgumentError(
                f"ThresholdedReLU '{self.name}': theta", repr(self.theta), "at least 0"
            )

    def call(self, inputs: Array) -> Array:
        """Returns the activated data."""
        return jnp.where(inputs > self.theta, inputs, jnp.zeros_like(inputs))


class PReLU(Layer):
    """`x` above 0, a learned slope times `x` below (He et al., 2015).

    Args:
        alpha_initializer, alpha_regularizer, alpha_constraint: Of the slopes.
        shared_axes: Axes along which slopes are shared; time must be among them where its
            length varies.
    """

    alpha_initializer: AsInitializer = "Zeros"
    alpha_regularizer: AsRegularizer = None
    alpha_constraint: AsConstraint = None
    shared_axes: Any = None
    masking = preserve

    def build(self, input_shape: Any) -> None:
        """Makes the slopes."""
        shape = list(input_shape[1:])
        for axis in self.shared_axes or ():
            shape[axis - 1] = 1
        self.alpha = self.add_weight(
            shape,
            self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
            name="alpha",
        )

    def call(self, inputs: Array) -> Array:
        """Returns the activated data."""
        return jnp.maximum(inputs, 0) + self.alpha.value * jnp.minimum(inputs, 0)


class Softmax(Layer):
    """Softmax along an axis; over time it is of the valid steps.

    Args:
        axis: One axis, or several.

    A `mask` beside the inputs says which entries count.
    """

    axis: Any = -1
    masking = nest

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the shares."""
        if mask is not None and not isinstance(inputs, Masked):
            inputs = Masked(inputs, jnp.asarray(mask).astype(bool))
        axis = tuple(self.axis) if isinstance(self.axis, list | tuple) else self.axis
        rank = unmask(inputs).ndim
        for a in axis if isinstance(axis, tuple) else (axis,):
            if not -rank <= a < rank:
                raise ArgumentError(f"Softmax '{self.name}': axis", a, f"below rank {rank}")
        return activations.softmax(inputs, axis)
