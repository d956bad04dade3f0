"""Convolutions: every row as if it were alone, whatever the padding."""

from typing import Any, ClassVar

from jax import Array

from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Family
from alphorn.core.rules import resample
from alphorn.errors import ArgumentError, ShapeError, StateError
from alphorn.initializers import AsInitializer
from alphorn.kernels.convolution import convolve
from alphorn.kernels.geometry import is_shorter, per_axis, resampled_mask, span
from alphorn.layers import older
from alphorn.layers.layout import check_rank, mask_of_windows, set_layout
from alphorn.regularizers import AsRegularizer

__all__ = ["Conv1D", "Conv2D", "Conv3D"]


class _Convolution(Family):
    """What convolutions of all ranks and kinds share."""

    masking = resample
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")
    dilates_strided: ClassVar[bool] = False
    old_names = older.CONVOLUTION

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Takes the names of early Keras, which gave each size of a window its own."""
        super().convert_arguments(kwargs)
        sizes = [kwargs.pop(n) for n in older.SIZES if n in kwargs]
        if sizes:
            kwargs["kernel_size"] = tuple(sizes)

    def after_init(self) -> None:
        """Checks the arguments."""
        set_layout(self, resample)
        for name in ("kernel_size", "strides", "dilation_rate"):
            setattr(self, name, per_axis(getattr(self, name), self.rank, name))
        self.padding = str(self.padding).lower()
        if self.padding not in self.paddings:
            raise ArgumentError(
                self._argument("padding"), repr(self.padding), f"one of {self.paddings}"
            )
        for name in ("filters", "depth_multiplier"):
            if getattr(self, name, 1) < 1:
                raise ArgumentError(self._argument(name), getattr(self, name), "an integer > 0")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1 and not self.dilates_strided:
            raise ArgumentError(
                self._argument("strides and dilation_rate"),
                received=f"{self.strides} and {self.dilation_rate}",
                expected="one of them 1",
            )

    def _argument(self, name: str) -> str:
        return f"{type(self).__name__}: {name}"

    def build(self, input_shape: Any) -> None:
        """Makes kernels and bias."""
        check_rank(self, input_shape)
        axis = -1 if self.data_format == "channels_last" else 1
        channels = input_shape[axis]
        if channels is None:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}': the number of channels is unknown",
                received=f"shape {tuple(input_shape)}",
                expected=f"a known size on axis {axis}",
            )
        self.input_spec = InputSpec(ndim=self.rank + 2, axes={axis: channels})
        filters = self.make_kernels(channels)
        self.bias = self.add_field_weight("bias", (filters,)) if self.use_bias else None

    def make_kernels(self, channels: int) -> int:
        """Makes the kernels for inputs of `channels`; returns the output's number of them."""
        raise StateError(f"{type(self).__name__} does not say what kernels it has")

    def convolved(self, inputs: Array, mask: Array | None) -> Array:
        """Returns the windows' sums without bias."""
        raise StateError(f"{type(self).__name__} does not say what it does with its kernels")

    def window_options(self) -> dict[str, Any]:
        """Returns what the kernel of a convolution takes by name."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "dilation": self.dilation_rate,
            "data_format": self.data_format,
        }

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """A window is valid where the row alone has it and it holds a valid step."""
        if mask is None or mask.ndim == 1:
            return mask
        return resampled_mask(
            mask, self.kernel_size[0], self.strides[0], self.dilation_rate[0], self.padding
        )

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the windows' sums."""
        check_rank(self, inputs.shape)
        y = self.convolved(inputs, mask_of_windows(self, mask))
        if self.bias is not None:
            last = self.data_format == "channels_last"
            bias = self.bias.value
            y = y + (bias if last else bias.reshape(-1, *(1,) * self.rank))
        return self.activation(y)

    def check_fits(self, inputs: Array, mask: Array | None) -> None:
        """Raises ShapeError where "valid" has no window."""
        if self.padding != "valid":
            return
        last = self.data_format == "channels_last"
        spatial = inputs.shape[1:-1] if last else inputs.shape[2:]
        for axis, (size, width, dilation) in enumerate(
            zip(spatial, self.kernel_size, self.dilation_rate, strict=True)
        ):
            # Rows shorter than a window have no output: so has a batch of such rows.
            absent = mask is not None and axis == 0
            if is_shorter(size, span(width, dilation)) and not absent:
                raise ShapeError(
                    f"{type(self).__name__} '{self.name}': no window fits",
                    received=f"shape {tuple(inputs.shape)}",
                    expected=f"at least {span(width, dilation)} steps",
                    fix="padding='same', or a smaller kernel",
                )


class _Grouped(_Convolution):
    """Conv1D, Conv2D, Conv3D."""

    def after_init(self) -> None:
        """Checks the arguments."""
        super().after_init()
        if self.groups < 1 or self.filters % self.groups:
            raise ArgumentError(
                self._argument("filters"), self.filters, f"a multiple of groups={self.groups}"
            )

    def make_kernels(self, channels: int) -> int:
        """Makes the kernel, `(*window, channels / groups, filters)`."""
        if channels % self.groups:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}'",
                received=f"{channels} channels",
                expected=f"a multiple of groups={self.groups}",
            )
        self.kernel = self.add_field_weight(
            "kernel", (*self.kernel_size, channels // self.groups, self.filters)
        )
        return self.filters

    def convolved(self, inputs: Array, mask: Array | None) -> Array:
        """Returns the windows' sums without bias."""
        self.check_fits(inputs, mask)
        kernel = self.kernel.value
        return convolve(inputs, kernel, groups=self.groups, mask=mask, **self.window_options())


class Conv1D(_Grouped):
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
    paddings = ("valid", "same", "causal")
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


class Conv2D(_Grouped):
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


class Conv3D(_Grouped):
    """Convolution over three axes.

    Args:
        filters: Size of the output's channels.
        kernel_size, strides, dilation_rate: One number, or one an axis.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
        groups: Groups of channels that are convolved apart.
        activation: A name or function.
        use_bias: Whether a bias is added.
        *_initializer, *_regularizer, *_constraint: Of the weights.

    Under a `(batch, time)` mask the first of the three axes is time.
    """

    rank = 3
    filters: int
    kernel_size: Any
    strides: Any = (1, 1, 1)
    padding: str = "valid"
    data_format: Any = None
    dilation_rate: Any = (1, 1, 1)
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
