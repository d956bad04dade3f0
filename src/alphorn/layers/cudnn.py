"""CuDNNLSTM and CuDNNGRU, as Keras 2 has them: on any device, with any mask."""

import jax.numpy as jnp
from jax import Array

from alphorn.constraints import AsConstraint
from alphorn.initializers import AsInitializer
from alphorn.layers.cells import GRUCell, LSTMCell
from alphorn.layers.recurrent import _Fused
from alphorn.regularizers import AsRegularizer

__all__ = ["CuDNNGRU", "CuDNNLSTM"]


def read_by_cudnn(kernel: Array, gates: int) -> Array:
    """Returns a kernel as cuDNN reads it: each gate's numbers, row by row, as `(units, inputs)`."""
    size, width = kernel.shape
    parts = kernel.reshape(size, gates, width // gates)
    turned = [parts[:, g].reshape(width // gates, size).T for g in range(gates)]
    return jnp.concatenate(turned, 1)


class _CuDNNLSTMCell(LSTMCell):
    before_forget = 5

    def bias_shape(self) -> tuple[int, ...]:
        """Both products have a bias."""
        return (8 * self.units,)

    def kernels(self) -> tuple[Array, Array]:
        """Returns the kernels as cuDNN reads them."""
        first, second = super().kernels()
        return read_by_cudnn(first, 4), read_by_cudnn(second, 4)

    def biases(self) -> tuple[Array | None, Array | None]:
        """Returns the sum of both biases, and no second."""
        assert self.bias is not None
        return self.bias.value.reshape(2, -1).sum(0), None


class _CuDNNGRUCell(GRUCell):
    def bias_shape(self) -> tuple[int, ...]:
        """Both products have a bias."""
        return (6 * self.units,)

    def kernels(self) -> tuple[Array, Array]:
        """Returns the kernels as cuDNN reads them."""
        first, second = super().kernels()
        return read_by_cudnn(first, 3), read_by_cudnn(second, 3)

    def biases(self) -> tuple[Array | None, Array | None]:
        """Returns the biases of the inputs' projection and of the states'."""
        assert self.bias is not None
        first, second = self.bias.value.reshape(2, -1)
        return first, second


class _CuDNN(_Fused):
    unroll = False

    def cell_name(self) -> str:
        """Returns the cell's name in paths of weights."""
        return f"{self.cell_class.__name__[6:-4].lower()}_cell"


class CuDNNLSTM(_CuDNN):
    """`LSTM` with the arguments and weights of Keras 2's layer for cuDNN.

    Args:
        units: Size of the state.
        kernel_*, recurrent_*, bias_*: Initializers, regularizers, constraints of the weights.
        unit_forget_bias: Whether the forget gate's bias starts at 1.
        activity_regularizer: Penalty on the output.
        return_sequences, return_state, go_backwards, stateful: As in `RNN`.

    Takes `(batch, time, features)` with any mask, returns `(batch, units)`, or
    `(batch, time, units)` with the mask of the input. Weights saved by Keras 2 give what they gave
    there: the bias has `8 * units` numbers, and kernels lie as cuDNN reads them.

    >>> CuDNNLSTM(4)(jnp.ones((2, 3, 5))).shape
    (2, 4)
    """

    cell_class = _CuDNNLSTMCell
    units: int
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
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False


class CuDNNGRU(_CuDNN):
    """`GRU(reset_after=True)` with the arguments and weights of Keras 2's layer for cuDNN.

    Args:
        units: Size of the state.
        kernel_*, recurrent_*, bias_*: Initializers, regularizers, constraints of the weights.
        activity_regularizer: Penalty on the output.
        return_sequences, return_state, go_backwards, stateful: As in `RNN`.

    Takes `(batch, time, features)` with any mask, returns `(batch, units)`, or
    `(batch, time, units)` with the mask of the input. Weights saved by Keras 2 give what they gave
    there: the bias has `6 * units` numbers, and kernels lie as cuDNN reads them.
    """

    cell_class = _CuDNNGRUCell
    units: int
    kernel_initializer: AsInitializer = "glorot_uniform"
    recurrent_initializer: AsInitializer = "orthogonal"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    recurrent_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
