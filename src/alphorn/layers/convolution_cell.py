"""One step of an LSTM whose products are convolutions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.activations import AsActivation
from alphorn.config import standardize_data_format
from alphorn.constraints import AsConstraint
from alphorn.errors import ArgumentError, ShapeError, StateError
from alphorn.initializers import AsInitializer
from alphorn.kernels import cells
from alphorn.kernels.convolution import convolve
from alphorn.kernels.geometry import output_length, per_axis
from alphorn.layers.cells import Masks, _Cell, bias_of_gates
from alphorn.regularizers import AsRegularizer

__all__ = ["ConvLSTMCell"]


class ConvLSTMCell(_Cell):
    """One step of a convolutional LSTM (Shi et al., 2015).

    Args:
        rank: The number of spatial axes.
        filters: Size of the states' channels.

    The others as in `ConvLSTM2D`. Called on `(batch, *spatial, channels)` and the states `[h, c]`.
    """

    gates = 4
    states = 2
    rank: int
    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: Any = None
    dilation_rate: Any = 1
    activation: AsActivation = "tanh"
    recurrent_activation: AsActivation = "sigmoid"
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    recurrent_initializer: AsInitializer = "orthogonal"
    bias_initializer: AsInitializer = "zeros"
    unit_forget_bias: bool = True
    kernel_regularizer: AsRegularizer = None
    recurrent_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None

    def after_init(self) -> None:
        """Checks the arguments."""
        for name in ("kernel_size", "strides", "dilation_rate"):
            setattr(self, name, per_axis(getattr(self, name), self.rank, name))
        self.data_format = standardize_data_format(self.data_format)
        self.padding = str(self.padding).lower()
        if self.padding not in ("valid", "same"):
            raise ArgumentError("ConvLSTM: padding", repr(self.padding), "'valid' or 'same'")
        if self.filters < 1:
            raise ArgumentError("ConvLSTM: filters", self.filters, "an integer > 0")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ArgumentError(
                "ConvLSTM: strides and dilation_rate",
                received=f"{self.strides} and {self.dilation_rate}",
                expected="one of them 1",
            )
        self.units = self.filters
        self.input_sizes: tuple[int, ...] = ()
        self.state_sizes: tuple[int, ...] = ()
        super().after_init()

    @property
    def state_size(self) -> Any:
        """The shapes of the states of one row, once built."""
        return [self._given_shape()] * 2

    @property
    def output_size(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The shape of the output of one row, once built."""
        return self._given_shape()

    def _given_shape(self) -> tuple[int, ...]:
        first = self.data_format == "channels_first"
        return (self.filters, *self.state_sizes) if first else (*self.state_sizes, self.filters)

    def to_last(self, x: Array) -> Array:
        """Moves the channels of a step last."""
        return jnp.moveaxis(x, 1, -1) if self.data_format == "channels_first" else x

    def to_given(self, x: Array) -> Array:
        """Moves the channels of a step to where the user has them."""
        return jnp.moveaxis(x, -1, 1) if self.data_format == "channels_first" else x

    def build(self, input_shape: Any) -> None:
        """Makes kernels and bias."""
        if None in input_shape[1:] or len(input_shape) != self.rank + 2:
            raise ShapeError(
                f"ConvLSTM '{self.name}': the size of a step is unknown or of another rank",
                received=f"steps of shape {tuple(input_shape[1:])}",
                expected=f"{self.rank} spatial axes and channels, of known sizes",
                fix="name the sizes in Input(shape=...)",
            )
        last = self.data_format == "channels_last"
        *sizes, channels = input_shape[1:] if last else (*input_shape[2:], input_shape[1])
        windows = zip(sizes, self.kernel_size, self.strides, self.dilation_rate, strict=True)
        self.input_sizes = (*sizes, channels)
        self.state_sizes = tuple(output_length(*w, padding=self.padding) for w in windows)
        if 0 in self.state_sizes:
            raise ShapeError(
                f"ConvLSTM '{self.name}': no window fits",
                received=f"steps of shape {tuple(input_shape[1:])}",
                expected=f"at least kernel_size={self.kernel_size}",
                fix="padding='same', or a smaller kernel",
            )
        width = self.gates * self.filters
        self.kernel = self.add_field_weight("kernel", (*self.kernel_size, channels, width))
        self.recurrent_kernel = self.add_field_weight(
            "recurrent_kernel", (*self.kernel_size, self.filters, width), fields="recurrent"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_field_weight("bias", (width,), initializer=self.first_bias)

    def first_bias(self, shape: Any, dtype: Any = None) -> Array:
        """Returns the initializer's values, with ones for the forget gate."""
        if not self.unit_forget_bias:
            return self.bias_initializer(shape, dtype=dtype)
        return bias_of_gates(self.bias_initializer, self.filters, dtype)

    def get_initial_state(self, batch_size: int | None = None) -> list[Array]:
        """Returns zeros for both states."""
        if not self.state_sizes:
            raise StateError(
                f"ConvLSTM '{self.name}': the sizes of the states are not known before it is built",
                fix="call it on data, or build(input_shape)",
            )
        shape = (1 if batch_size is None else batch_size, *self._given_shape())
        return [jnp.zeros(shape, self.compute_dtype)] * 2

    def dropout_masks(self, batch: int, dtype: Any, training: bool | None) -> Masks:
        """Draws what inputs and states are times, for each gate by itself, channels last."""

        def draw(rate: float, sizes: tuple[int, ...]) -> Array | None:
            if not training or not rate:
                return None
            shape = (batch, *sizes[:-1], self.gates * sizes[-1])
            keep = jax.random.bernoulli(self.seed_generator.next(), 1 - rate, shape)
            return keep.astype(dtype) * jnp.asarray(1 / max(1 - rate, 1e-7), dtype)

        states = (*self.state_sizes, self.filters)
        return draw(self.dropout, self.input_sizes), draw(self.recurrent_dropout, states)

    def maths(self) -> cells.Cell:
        """Returns the maths of one step."""
        return cells.lstm_cell(**self.activations())

    def project(self, x: Array, kept: Array | None) -> Array:
        """Returns the inputs' part of the gates, for one step or for `(batch, time, ...)`."""
        groups = 1
        if kept is not None:
            kept = kept[:, None] if x.ndim > kept.ndim else kept
            x, groups = jnp.concatenate([x] * self.gates, -1) * kept, self.gates
        outer, inner = x.shape[: -self.rank - 1], x.shape[-self.rank - 1 :]
        y = convolve(
            x.reshape(math.prod(outer), *inner),
            self.kernel.value,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=groups,
        )
        y = y if self.bias is None else y + self.bias.value
        return y.reshape(*outer, *y.shape[1:])

    def step(self, x: Array, states: list[Array], kept: Array | None) -> tuple[Array, list[Array]]:
        """Computes one step from the inputs' part of the gates, channels last."""
        seen, groups = states[0], 1
        if kept is not None:
            seen, groups = jnp.concatenate([seen] * self.gates, -1) * kept, self.gates
        recurrent = convolve(seen, self.recurrent_kernel.value, padding="same", groups=groups)
        new, _ = self.maths().forward(x, lambda seen: recurrent, states[0], tuple(states))
        return new[0], list(new)

    def call(
        self, inputs: Array, states: Any, training: bool | None = False
    ) -> tuple[Array, list[Array]]:
        """Computes one step: `(output, states)`."""
        kept, state_kept = self.drawn_masks(inputs, training)
        projected = self.project(self.to_last(inputs), kept)
        _, new = self.step(projected, [self.to_last(s) for s in states], state_kept)
        new = [self.to_given(s) for s in new]
        return new[0], new
