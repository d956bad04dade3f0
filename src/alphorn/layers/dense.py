"""Dense: a product with a matrix, at every step."""

from typing import Any

from jax import Array

from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Layer
from alphorn.core.rules import preserve
from alphorn.errors import ArgumentError, ShapeError
from alphorn.initializers import AsInitializer
from alphorn.kernels.products import project
from alphorn.layers import older
from alphorn.regularizers import AsRegularizer

__all__ = ["Dense", "TimeDistributedDense"]


class Dense(Layer):
    """`activation(x @ kernel + bias)` along the last axis.

    Args:
        units: Size of the output's last axis.
        activation: A name or function; None for none.
        use_bias: Whether a bias is added.
        kernel_initializer, bias_initializer: First values.
        kernel_regularizer, bias_regularizer: Penalties.
        activity_regularizer: Penalty on the output.
        kernel_constraint, bias_constraint: Applied after each update.

    Takes `(..., features)`, returns `(..., units)`; a mask of steps stays. A mask that covers the
    features themselves counts masked ones as 0 and ends there.

    >>> Dense(4)(jnp.ones((2, 3))).shape
    (2, 4)
    """

    units: int
    activation: AsActivation = None
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None

    masking = preserve
    touches_last_axis = True
    old_names = older.DENSE

    def after_init(self) -> None:
        """Checks the size."""
        if isinstance(self.units, bool) or int(self.units) != self.units or self.units < 1:
            raise ArgumentError(
                f"Dense '{self.name}': units", received=repr(self.units), expected="an integer > 0"
            )

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        if len(input_shape) < 2:
            raise ShapeError(
                f"Dense '{self.name}'",
                received=f"shape {input_shape}",
                expected="(batch, ..., features)",
                fix="add a batch axis: x[None]",
            )
        if input_shape[-1] is None:
            raise ShapeError(
                f"Dense '{self.name}': the number of features is unknown",
                received=f"shape {input_shape}",
                expected="a known last axis",
                fix="after Flatten of a sequence of any length, pool over time instead"
                " (GlobalAveragePooling1D), or fix the length in Input(shape=...)",
            )
        self.input_spec = InputSpec(min_ndim=2, axes={-1: input_shape[-1]})
        self.kernel = self.add_field_weight("kernel", (input_shape[-1], self.units))
        self.bias = None
        if self.use_bias:
            self.bias = self.add_field_weight("bias", (self.units,))

    def call(self, inputs: Array, training: bool | None = None) -> Array:
        """Returns `(..., units)`."""
        x = project(inputs, self.kernel.value)
        if self.bias is not None:
            x = x + self.bias.value
        return self.activation(x)


class TimeDistributedDense(Dense):
    """Is `Dense` on sequences, by its name in the first versions of Keras.

    Args as in `Dense`; the size may be called `output_dim`. Takes `(batch, time, features)`, returns
    `(batch, time, units)` with the mask of the input.

    >>> TimeDistributedDense(output_dim=4)(jnp.ones((2, 5, 3))).shape
    (2, 5, 4)
    """

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        if len(input_shape) != 3:
            raise ShapeError(
                f"TimeDistributedDense '{self.name}'",
                received=f"shape {tuple(input_shape)}",
                expected="(batch, time, features)",
                fix="Dense takes data of any rank",
            )
        super().build(input_shape)
