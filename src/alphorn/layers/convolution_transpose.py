"""Transposed convolutions: every step spread over a window of outputs."""

from typing import Any

import numpy as np
from jax import Array

from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.errors import ArgumentError
from alphorn.initializers import AsInitializer
from alphorn.kernels.convolution import convolve_transposed
from alphorn.kernels.geometry import transposed_mask
from alphorn.layers.convolution import _Convolution
from alphorn.regularizers import AsRegularizer

__all__ = ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]


class _Transposed(_Convolution):
    """What transposed convolutions of all ranks share."""

    def after_init(self) -> None:
        """Checks the arguments."""
        super().after_init()
        if self.output_padding is None:
            return
        given = self.output_padding
        ends = (given,) * self.rank if isinstance(given, int | np.integer) else tuple(given)
        if len(ends) != self.rank or any(
            not 0 <= end < stride for end, stride in zip(ends, self.strides, strict=True)
        ):
            raise ArgumentError(
                self._argument("output_padding"),
                received=given,
                expected=f"below strides={self.strides}, for each axis",
            )
        self.output_padding = tuple(int(end) for end in ends)

    def make_kernels(self, channels: int) -> int:
        """Makes the kernel, `(*window, filters, channels)`."""
        self.kernel = self.add_field_weight("kernel", (*self.kernel_size, self.filters, channels))
        return self.filters

    def convolved(self, inputs: Array, mask: Array | None) -> Array:
        """Returns the sums of the windows that the steps are spread over."""
        return convolve_transposed(
            inputs,
            self.kernel.value,
            output_padding=self.output_padding,
            mask=mask,
            **self.window_options(),
        )

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """What the row alone would have, but for the outputs of missing steps alone."""
        if mask is None or mask.ndim == 1:
            return mask
        window = (self.kernel_size[0], self.strides[0], self.dilation_rate[0], self.padding)
        end = None if self.output_padding is None else self.output_padding[0]
        return transposed_mask(mask, *window, end)


class Conv1DTranspose(_Transposed):
    """Transposed convolution over time: `(batch, time, features)` to about `time * strides` steps.

    Args:
        filters: Size of the output's features.
        kernel_size: Steps of a window.
        strides: Outputs between the windows of two steps.
        padding: "valid", or "same" for `time * strides` outputs.
        output_padding: Outputs added at the end, by Keras's own rule where None.
        data_format: "channels_last" or "channels_first".
        dilation_rate: Outputs between the taps of a window.
        activation: A name or function.
        use_bias: Whether a bias is added.
        *_initializer, *_regularizer, *_constraint: Of the weights.

    With a mask each row has as many outputs as it would have alone; an output that only missing
    steps fall on is missing.

    >>> Conv1DTranspose(4, 3, strides=2, padding="same")(np.ones((1, 5, 2))).shape
    (1, 10, 4)
    """

    rank = 1
    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    output_padding: Any = None
    data_format: Any = None
    dilation_rate: Any = 1
    activation: AsActivation = None
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None


class Conv2DTranspose(_Transposed):
    """Transposed convolution over two axes.

    Args:
        filters: Size of the output's channels.
        kernel_size, strides, output_padding, dilation_rate: One number, or one an axis.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
        activation: A name or function.
        use_bias: Whether a bias is added.
        *_initializer, *_regularizer, *_constraint: Of the weights.

    Under a `(batch, time)` mask the first of the two axes is time.
    """

    rank = 2
    filters: int
    kernel_size: Any
    strides: Any = (1, 1)
    padding: str = "valid"
    output_padding: Any = None
    data_format: Any = None
    dilation_rate: Any = (1, 1)
    activation: AsActivation = None
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None


class Conv3DTranspose(_Transposed):
    """Transposed convolution over three axes. Arguments as in `Conv2DTranspose`."""

    rank = 3
    filters: int
    kernel_size: Any
    strides: Any = (1, 1, 1)
    padding: str = "valid"
    data_format: Any = None
    output_padding: Any = None
    dilation_rate: Any = (1, 1, 1)
    activation: AsActivation = None
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
