"""Convolutions: every row as if it were alone, whatever the padding."""

from typing import TYPE_CHECKING, Any

from jax import Array

from alphorn.activations import AsActivation
from alphorn.config import standardize_data_format
from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Layer
from alphorn.core.rules import refuse_nested, resample
from alphorn.errors import ArgumentError, MaskError, ShapeError
from alphorn.initializers import AsInitializer
from alphorn.kernels.convolution import convolve
from alphorn.kernels.geometry import per_axis, resampled_mask
from alphorn.regularizers import AsRegularizer

__all__ = ["Conv1D", "Conv2D"]


class _Convolution(Layer):
    """What convolutions of all ranks share."""

    if TYPE_CHECKING:  # the fields are those of the subclasses

        def __getattr__(self, name: str) -> Any: ...

    masking = resample

    def after_init(self) -> None:
        """Checks the arguments."""
        name = type(self).__name__
        self.kernel_size = per_axis(self.kernel_size, self.rank, "kernel_size")
        self.strides = per_axis(self.strides, self.rank, "strides")
        self.dilation_rate = per_axis(self.dilation_rate, self.rank, "dilation_rate")
        self.data_format = standardize_data_format(self.data_format)
        self.padding = str(self.padding).lower()
        allowed = ("valid", "same", "causal") if self.rank == 1 else ("valid", "same")
        if self.padding not in allowed:
            raise ArgumentError(f"{name}: padding", repr(self.padding), f"one of {allowed}")
        if self.filters < 1 or self.filters % self.groups:
            raise ArgumentError(
                f"{name}: filters", self.filters, f"a positive multiple of groups={self.groups}"
            )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ArgumentError(
                f"{name}: strides and dilation_rate",
                received=f"{self.strides} and {self.dilation_rate}",
                expected="one of them 1",
            )

    def _channels(self, shape: Any) -> Any:
        return shape[-1 if self.data_format == "channels_last" else 1]

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        if len(input_shape) != self.rank + 2:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}'",
                received=f"shape {tuple(input_shape)}",
                expected=f"rank {self.rank + 2}: (batch, "
                + ("time, features)" if self.rank == 1 else "height, width, channels)"),
                fix="add an axis: x[..., None]",
            )
        channels = self._channels(input_shape)
        if channels is None or channels % self.groups:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}'",
                received=f"{channels} channels",
                expected=f"a known multiple of groups={self.groups}",
            )
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = InputSpec(ndim=self.rank + 2, axes={axis: channels})
        self.kernel = self.add_field_weight(
            "kernel", (*self.kernel_size, channels // self.groups, self.filters)
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_field_weight("bias", (self.filters,))

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """A window is valid where the row alone has it and it holds a valid step."""
        if mask is None:
            return None
        return resampled_mask(
            mask, self.kernel_size[0], self.strides[0], self.dilation_rate[0], self.padding
        )

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the windows' sums."""
        last = self.data_format == "channels_last"
        if mask is not None and not last:
            raise MaskError(
                f"{type(self).__name__} '{self.name}': a mask with channels_first",
                received=f"data {tuple(inputs.shape)}",
                expected="(batch, time, features)",
                fix="data_format='channels_last'",
            )
        refuse_nested(self, mask)
        spatial = inputs.shape[1:-1] if last else inputs.shape[2:]
        if self.padding == "valid":
            for axis, (size, width, dilation) in enumerate(
                zip(spatial, self.kernel_size, self.dilation_rate, strict=True)
            ):
                # Rows shorter than a window have no output: so has a batch of such rows.
                absent = mask is not None and axis == 0
                if size < (width - 1) * dilation + 1 and not absent:
                    raise ShapeError(
                        f"{type(self).__name__} '{self.name}': no window fits",
                        received=f"shape {tuple(inputs.shape)}",
                        expected=f"at least {(width - 1) * dilation + 1} steps",
                        fix="padding='same', or a smaller kernel",
                    )
        y = convolve(
            inputs,
            self.kernel.value,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
            mask=mask,
        )
        if self.bias is not None:
            bias = self.bias.value
            y = y + (bias if last else bias.reshape(-1, *(1,) * self.rank))
        return self.activation(y)


class Conv1D(_Convolution):
    """Convolution over time.

    Args:
        filters: Size of the output's features.
        kernel_size: Steps of a window.
        strides: Steps between windows.
        padding: "valid", "same" or "causal".
        data_format: "channels_last" or "channels_first".
        dilation_rate: Steps between the taps of a window.
        groups: Groups of features that are convolved apart.
        activation: A name or function.
        use_bias: Whether a bias is added.
        *_initializer, *_regularizer, *_constraint: Of the weights.

    Takes `(batch, time, features)`. With a mask each row gets the windows that it would get alone,
    also with "same" and strides; a window is valid where it holds a valid step.
    """

    rank = 1
    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: Any = None
    dilation_rate: Any = 1
    groups: int = 1
    activation: AsActivation = None
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None


class Conv2D(_Convolution):
    """Convolution over two axes.

    Args:
        filters: Size of the output's channels.
        kernel_size, strides, dilation_rate: One number, or one an axis.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
        groups: Groups of channels that are convolved apart.
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
    groups: int = 1
    activation: AsActivation = None
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
