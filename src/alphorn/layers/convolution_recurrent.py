"""ConvLSTM: an LSTM whose products are convolutions, over sequences of lines, images or volumes."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.masked import fill_masked
from alphorn.core.rules import refuse_nested
from alphorn.errors import ShapeError
from alphorn.initializers import AsInitializer
from alphorn.layers.convolution_cell import ConvLSTMCell
from alphorn.layers.recurrent import _Fused, _last
from alphorn.regularizers import AsRegularizer

__all__ = ["ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"]


class _ConvLSTM(_Fused):
    """What ConvLSTMs of all ranks share."""

    if TYPE_CHECKING:  # each subclass has its own
        rank: int

    cell_class = ConvLSTMCell

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Takes what Keras's recurrent base takes by name."""
        super().convert_arguments(kwargs)
        self.unroll = bool(kwargs.pop("unroll", False))

    def after_init(self) -> None:
        """Makes the cell, which checks the arguments."""
        self.rank = type(self).rank  # an argument of the cell
        super().after_init()
        for name in ("kernel_size", "strides", "dilation_rate", "padding", "data_format"):
            setattr(self, name, getattr(self.cell, name))

    def cell_name(self) -> str:
        """Returns the cell's name in paths of weights."""
        return "conv_lstm_cell"

    def base_config(self) -> dict[str, Any]:
        """Adds `unroll`."""
        return super().base_config() | {"unroll": self.unroll}

    def _check(self, shape: Any) -> None:
        if len(shape) != self.rank + 3:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}'",
                received=f"shape {tuple(shape)}",
                expected=f"rank {self.rank + 3}: (batch, time, {self.rank} axes, channels)",
            )

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Builds the cell on one step."""
        self._check(sequences_shape)
        step_shape = tuple(sequences_shape[2:])
        if not self.cell.built:
            self.cell.build((sequences_shape[0], *step_shape))
        self.input_spec = InputSpec(shape=(None, None, *step_shape))
        self._keep_states(sequences_shape[0])

    def call(
        self, sequences: Array, initial_state: Any = None, mask: Any = None, training: Any = False
    ) -> Any:
        """Runs the cell: the output, then the states where `return_state` is set."""
        self._check(sequences.shape)
        refuse_nested(self, mask)
        cell = self.cell
        if not jnp.issubdtype(sequences.dtype, jnp.floating):
            sequences = sequences.astype(self.compute_dtype)
        states = self._starting_states(initial_state, sequences.shape[0])
        states = [cell.to_last(s).astype(sequences.dtype) for s in states]
        first = cell.data_format == "channels_first"
        x = jnp.moveaxis(sequences, 2, -1) if first else sequences
        # One draw a sequence: the same entries are dropped at every step.
        kept, state_kept = cell.dropout_masks(x.shape[0], x.dtype, training)
        steps, new = self._scan_steps(
            lambda projected, states: cell.step(projected, states, state_kept),
            cell.project(fill_masked(x, mask), kept),
            mask,
            states,
            self.zero_output_for_mask,
        )
        new = [cell.to_given(s) for s in new]
        if self.return_sequences:
            output = jnp.moveaxis(steps, -1, 2) if first else steps
        else:
            output = cell.to_given(_last(steps, mask))
        self._store_states(new)
        return (output, *new) if self.return_state else output


class ConvLSTM1D(_ConvLSTM):
    """Convolutional LSTM over sequences of lines. Arguments as in `ConvLSTM2D`.

    Takes `(batch, time, width, channels)`.
    """

    rank = 1
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
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False


class ConvLSTM2D(_ConvLSTM):
    """Convolutional LSTM over sequences of images (Shi et al., 2015).

    Args:
        filters: Size of the states' channels.
        kernel_size, strides, dilation_rate: One number, or one an axis.
        padding: "valid" or "same", for the inputs; states are always padded to keep their size.
        data_format: "channels_last" or "channels_first", of each step.
        activation, recurrent_activation: Of the cell, and of its gates.
        use_bias: Whether a bias is added.
        unit_forget_bias: Whether the forget gate's bias starts at 1.
        kernel_*, recurrent_*, bias_*: Initializers, regularizers, constraints of the weights.
        activity_regularizer: Penalty on the output.
        dropout, recurrent_dropout: Shares dropped, one draw a sequence and gate.
        seed: Of the dropouts.
        return_sequences, return_state, go_backwards, stateful: As in `RNN`.

    Takes `(batch, time, height, width, channels)`, with a mask `(batch, time)`: a masked step
    repeats states and output. Returns `(batch, new height, new width, filters)`, or all outputs,
    `(batch, time, ...)`, with the mask of the input.

    >>> import numpy as np
    >>> ConvLSTM2D(4, 3, padding="same")(np.ones((2, 3, 6, 5, 1))).shape
    (2, 6, 5, 4)
    """

    rank = 2
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
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False


class ConvLSTM3D(_ConvLSTM):
    """Convolutional LSTM over sequences of volumes. Arguments as in `ConvLSTM2D`.

    Takes `(batch, time, depth, height, width, channels)`.
    """

    rank = 3
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
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
