"""Convolutions channel by channel, alone or before one across channels."""

from typing import Any

from jax import Array

from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.initializers import AsInitializer
from alphorn.kernels.convolution import convolve, convolve_depthwise
from alphorn.layers.convolution import _Convolution
from alphorn.regularizers import AsRegularizer

__all__ = ["DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"]


class _Depthwise(_Convolution):
    dilates_strided = True

    def make_kernels(self, channels: int) -> int:
        """Makes the kernel, `(*window, channels, depth_multiplier)`."""
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.kernel = self.add_field_weight("kernel", shape, fields="depthwise")
        return channels * self.depth_multiplier

    def convolved(self, inputs: Array, mask: Array | None) -> Array:
        """Returns the windows' sums, channel by channel."""
        self.check_fits(inputs, mask)
        return convolve_depthwise(inputs, self.kernel.value, mask=mask, **self.window_options())


class _Separable(_Convolution):
    dilates_strided = True

    def make_kernels(self, channels: int) -> int:
        """Makes the kernel of the windows and that across channels."""
        deep = channels * self.depth_multiplier
        self.depthwise_kernel = self.add_field_weight(
            "depthwise_kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            fields="depthwise",
        )
        self.pointwise_kernel = self.add_field_weight(
            "pointwise_kernel", ((1,) * self.rank) + (deep, self.filters), fields="pointwise"
        )
        return self.filters

    def convolved(self, inputs: Array, mask: Array | None) -> Array:
        """Returns the windows' sums, channel by channel and then across channels."""
        self.check_fits(inputs, mask)
        kernel, options = self.depthwise_kernel.value, self.window_options()
        deep = convolve_depthwise(inputs, kernel, mask=mask, **options)
        return convolve(deep, self.pointwise_kernel.value, data_format=self.data_format)


class DepthwiseConv1D(_Depthwise):
    """Convolution over time of each feature by itself.

    Args:
        kernel_size: Steps of a window.
        strides: Steps between windows.
        padding: "valid", "same" or "causal".
        depth_multiplier: How many outputs a feature has.
        data_format: "channels_last" or "channels_first".
        dilation_rate: Steps between the taps of a window.
        activation: A name or function.
        use_bias: Whether a bias is added.
        *_initializer, *_regularizer, *_constraint: Of the weights.

    Takes `(batch, time, features)`, returns `(batch, windows, features * depth_multiplier)` with a
    mask as that of `Conv1D`.

    >>> import numpy as np
    >>> DepthwiseConv1D(3, depth_multiplier=2)(np.ones((1, 5, 4))).shape
    (1, 3, 8)
    """

    rank = 1
    paddings = ("valid", "same", "causal")
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    depth_multiplier: int = 1
    data_format: Any = None
    dilation_rate: Any = 1
    activation: AsActivation = None
    use_bias: bool = True
    depthwise_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    depthwise_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    depthwise_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None


class DepthwiseConv2D(_Depthwise):
    """Convolution over two axes of each channel by itself.

    Args:
        kernel_size, strides, dilation_rate: One number, or one an axis.
        padding: "valid" or "same".
        depth_multiplier: How many outputs a channel has.
        data_format: "channels_last" or "channels_first".
        activation: A name or function.
        use_bias: Whether a bias is added.
        *_initializer, *_regularizer, *_constraint: Of the weights.

    Under a `(batch, time)` mask the first of the two axes is time.
    """

    rank = 2
    kernel_size: Any
    strides: Any = (1, 1)
    padding: str = "valid"
    depth_multiplier: int = 1
    data_format: Any = None
    dilation_rate: Any = (1, 1)
    activation: AsActivation = None
    use_bias: bool = True
    depthwise_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    depthwise_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    depthwise_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None


class SeparableConv1D(_Separable):
    """Convolution over time of each feature by itself, then one across features.

    Args:
        filters: Size of the output's features.
        kernel_size: Steps of a window.
        strides: Steps between windows.
        padding: "valid", "same" or "causal".
        data_format: "channels_last" or "channels_first".
        dilation_rate: Steps between the taps of a window.
        depth_multiplier: How many features the first convolution makes of each.
        activation: A name or function.
        use_bias: Whether a bias is added.
        *_initializer, *_regularizer, *_constraint: Of the weights.

    Takes `(batch, time, features)`, returns `(batch, windows, filters)` with a mask as that of
    `Conv1D`.

    >>> import numpy as np
    >>> SeparableConv1D(6, 3, padding="causal")(np.ones((1, 5, 4))).shape
    (1, 5, 6)
    """

    rank = 1
    paddings = ("valid", "same", "causal")
    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: Any = None
    dilation_rate: Any = 1
    depth_multiplier: int = 1
    activation: AsActivation = None
    use_bias: bool = True
    depthwise_initializer: AsInitializer = "glorot_uniform"
    pointwise_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    depthwise_regularizer: AsRegularizer = None
    pointwise_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    depthwise_constraint: AsConstraint = None
    pointwise_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None


class SeparableConv2D(_Separable):
    """Convolution over two axes of each channel by itself, then one across channels.

    Args:
        filters: Size of the output's channels.
        kernel_size, strides, dilation_rate: One number, or one an axis.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
        depth_multiplier: How many channels the first convolution makes of each.
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
    data_format: Any = None
    dilation_rate: Any = (1, 1)
    depth_multiplier: int = 1
    activation: AsActivation = None
    use_bias: bool = True
    depthwise_initializer: AsInitializer = "glorot_uniform"
    pointwise_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    depthwise_regularizer: AsRegularizer = None
    pointwise_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    depthwise_constraint: AsConstraint = None
    pointwise_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
