"""Normalization. Statistics over time count valid steps only."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Layer
from alphorn.core.masked import expand_to, fill_masked
from alphorn.core.rules import preserve
from alphorn.errors import ArgumentError, ShapeError
from alphorn.initializers import AsInitializer
from alphorn.kernels.moments import masked_mean, moments, standardized, sum_dtype
from alphorn.layers import older
from alphorn.regularizers import AsRegularizer

__all__ = [
    "BatchNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "UnitNormalization",
]


class BatchNormalization(Layer):
    """Makes each feature's mean 0 and variance 1 (Ioffe and Szegedy, 2015).

    Training takes them from the valid steps of the batch, and keeps running means for use.

    Args:
        axis: That of the features.
        momentum: Of the running means.
        epsilon: Added to the variance.
        center, scale: Whether there are an offset beta and a factor gamma.
        *_initializer, *_regularizer, *_constraint: Of the weights.
        synchronized: Replicas are JAX's, and always agree.

    Not trainable, it uses the running means in training too.
    """

    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: AsInitializer = "zeros"
    gamma_initializer: AsInitializer = "ones"
    moving_mean_initializer: AsInitializer = "zeros"
    moving_variance_initializer: AsInitializer = "ones"
    beta_regularizer: AsRegularizer = None
    gamma_regularizer: AsRegularizer = None
    beta_constraint: AsConstraint = None
    gamma_constraint: AsConstraint = None
    synchronized: bool = False

    masking = preserve
    old_names = older.NORMALIZATION

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Takes the names of early Keras, and its `mode=0`."""
        super().convert_arguments(kwargs)
        if kwargs.get("mode", 0) == 0:
            kwargs.pop("mode", None)

    def build(self, input_shape: Any) -> None:
        """Makes gamma, beta and the running means."""
        size = input_shape[self.axis]
        if size is None:
            raise ShapeError(
                f"BatchNormalization '{self.name}': axis {self.axis}",
                received=f"shape {tuple(input_shape)}",
                expected="a known number of features",
            )
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: size})
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_field_weight("gamma", (size,), autocast=False)
        if self.center:
            self.beta = self.add_field_weight("beta", (size,), autocast=False)
        self.moving_mean = self.add_weight(
            (size,),
            self.moving_mean_initializer,
            trainable=False,
            autocast=False,
            name="moving_mean",
        )
        self.moving_variance = self.add_weight(
            (size,),
            self.moving_variance_initializer,
            trainable=False,
            autocast=False,
            name="moving_variance",
        )

    def call(self, inputs: Array, training: bool | None = None, mask: Array | None = None) -> Array:
        """Returns the normalized data."""
        axis = self.axis % inputs.ndim
        if mask is not None and axis < mask.ndim:
            raise ArgumentError(
                f"BatchNormalization '{self.name}': axis", self.axis, "an axis of features"
            )
        # 16-bit sums over a batch are too coarse.
        x = inputs.astype(jnp.float32) if inputs.dtype.itemsize < 4 else inputs
        shape = [1] * inputs.ndim
        shape[axis] = inputs.shape[axis]
        if training and self.trainable:
            axes = tuple(a for a in range(inputs.ndim) if a != axis)
            mean, variance = moments(x, axes, mask)
            if mask is None:
                self._remember(mean, variance, jnp.ones((), bool))
            else:  # an empty batch teaches nothing
                self._remember(mean, variance, jnp.any(mask))
        else:
            mean, variance = self.moving_mean.value, self.moving_variance.value
        factor = lax.rsqrt(variance + self.epsilon).astype(x.dtype)
        if self.gamma is not None:
            factor = factor * self.gamma.value
        y = (x - mean.astype(x.dtype).reshape(shape)) * factor.reshape(shape)
        if self.beta is not None:
            y = y + self.beta.value.reshape(shape)
        return y.astype(inputs.dtype)

    def _remember(self, mean: Array, variance: Array, some: Array) -> None:
        share = jnp.where(some, jnp.asarray(1 - self.momentum, jnp.float32), 0)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            now = lax.stop_gradient(now).astype(moving.dtype)
            moving.assign(moving.value + share.astype(moving.dtype) * (now - moving.value))


class LayerNormalization(Layer):
    """Makes the mean of each step's features 0 and their variance 1 (Ba et al., 2016).

    Args:
        axis: One axis or several; over time, valid steps count.
        epsilon: Added to the variance.
        center, scale: Whether there are an offset beta and a factor gamma.
        *_initializer, *_regularizer, *_constraint: Of the weights.
    """

    axis: Any = -1
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: AsInitializer = "zeros"
    gamma_initializer: AsInitializer = "ones"
    beta_regularizer: AsRegularizer = None
    gamma_regularizer: AsRegularizer = None
    beta_constraint: AsConstraint = None
    gamma_constraint: AsConstraint = None

    masking = preserve

    def _axes(self, rank: int) -> list[int]:
        given = [self.axis] if isinstance(self.axis, int) else list(self.axis)
        return sorted(a % rank for a in given)

    def build(self, input_shape: Any) -> None:
        """Makes gamma and beta."""
        axes = self._axes(len(input_shape))
        shape = tuple(input_shape[a] for a in axes)
        # Without weights a size may change from call to call, e.g. that of time.
        fixed = zip(axes, shape, strict=True) if self.scale or self.center else ()
        self.input_spec = InputSpec(ndim=len(input_shape), axes=dict(fixed))
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_field_weight("gamma", shape, autocast=False)
        if self.center:
            self.beta = self.add_field_weight("beta", shape, autocast=False)

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the normalized data."""
        axes = self._axes(inputs.ndim)
        x = inputs.astype(jnp.float32) if inputs.dtype.itemsize < 4 else inputs
        counted = mask if mask is not None and any(a < mask.ndim for a in axes) else None
        y = standardized(x, counted, tuple(axes), self.epsilon)
        shape = [n if a in axes else 1 for a, n in enumerate(inputs.shape)]
        if self.gamma is not None:
            y = y * self.gamma.value.reshape(shape)
        if self.beta is not None:
            y = y + self.beta.value.reshape(shape)
        if counted is not None:
            y = jnp.where(expand_to(counted, y.ndim), y, jnp.zeros_like(y))
        return y.astype(inputs.dtype)


class GroupNormalization(Layer):
    """Makes mean 0 and variance 1 of each group of a row's features (Wu and He, 2018).

    Args:
        groups: How many; -1 for one a feature (instance normalization).
        axis: That of the features.
        epsilon: Added to the variance.
        center, scale: Whether there are an offset beta and a factor gamma.
        *_initializer, *_regularizer, *_constraint: Of the weights.

    Takes `(batch, ..., features)`. Mean and variance of a row are over its own valid steps and the
    features of the group; the mask stays.

    >>> GroupNormalization(2)(jnp.ones((1, 3, 4))).shape
    (1, 3, 4)
    """

    groups: int = 32
    axis: int = -1
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: AsInitializer = "zeros"
    gamma_initializer: AsInitializer = "ones"
    beta_regularizer: AsRegularizer = None
    gamma_regularizer: AsRegularizer = None
    beta_constraint: AsConstraint = None
    gamma_constraint: AsConstraint = None

    masking = preserve

    def after_init(self) -> None:
        """Checks the number of groups."""
        if not isinstance(self.groups, int) or (self.groups < 1 and self.groups != -1):
            raise ArgumentError(
                f"GroupNormalization '{self.name}': groups",
                received=repr(self.groups),
                expected="an integer > 0, or -1 for one group a feature",
            )

    def build(self, input_shape: Any) -> None:
        """Makes gamma and beta."""
        size = input_shape[self.axis]
        if size is None:
            raise ShapeError(
                f"GroupNormalization '{self.name}': axis {self.axis}",
                received=f"shape {tuple(input_shape)}",
                expected="a known number of features",
            )
        if self.groups == -1:
            self.groups = size
        if size % self.groups:
            raise ShapeError(
                f"GroupNormalization '{self.name}': {self.groups} groups",
                received=f"{size} features",
                expected=f"a multiple of {self.groups}",
                fix="groups=..., a divisor of the number of features",
            )
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: size})
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_field_weight("gamma", (size,), autocast=False)
        if self.center:
            self.beta = self.add_field_weight("beta", (size,), autocast=False)

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the normalized data."""
        axis = self.axis % inputs.ndim

        def grouped(x: Array) -> Array:
            size = x.shape[axis] // self.groups
            return x.reshape(*x.shape[:axis], self.groups, size, *x.shape[axis + 1 :])

        x = inputs.astype(jnp.float32) if inputs.dtype.itemsize < 4 else inputs
        counted = grouped(mask) if mask is not None and mask.ndim > axis else mask
        axes = tuple(a for a in range(1, inputs.ndim + 1) if a != axis)
        y = standardized(grouped(x), counted, axes, self.epsilon).reshape(inputs.shape)
        shape = [n if a == axis else 1 for a, n in enumerate(inputs.shape)]
        if self.gamma is not None:
            y = y * self.gamma.value.reshape(shape)
        if self.beta is not None:
            y = y + self.beta.value.reshape(shape)
        return fill_masked(y, mask).astype(inputs.dtype)


class RMSNormalization(Layer):
    """Divides each step's features by the root of their mean square (Zhang and Sennrich, 2019).

    Args:
        axis: One axis or several; over time, valid steps count.
        epsilon: Added to the mean square.

    Takes `(batch, ..., features)`, returns the same shape times a learned scale; the mask stays.

    >>> RMSNormalization(epsilon=0.0)(jnp.array([[1.0, -1.0]]))
    Array([[ 1., -1.]], dtype=float32)
    """

    axis: Any = -1
    epsilon: float = 1e-6

    masking = preserve

    def _axes(self, rank: int) -> list[int]:
        given = [self.axis] if isinstance(self.axis, int) else list(self.axis)
        return sorted(a % rank for a in given)

    def build(self, input_shape: Any) -> None:
        """Makes the scale."""
        axes = self._axes(len(input_shape))
        self.scale = self.add_weight([input_shape[a] for a in axes], "ones", name="scale")
        sizes = {a: input_shape[a] for a in axes}
        self.input_spec = InputSpec(ndim=len(input_shape), axes=sizes)

    def call(self, x: Array, mask: Array | None = None) -> Array:
        """Returns the normalized data."""
        axes = self._axes(x.ndim)
        # Filled also where features alone are reduced: squares of junk overflow.
        wide = fill_masked(x, mask).astype(sum_dtype(x))
        squares = masked_mean(jnp.square(wide), axes, mask, keepdims=True)
        y = wide * lax.rsqrt(squares + jnp.asarray(self.epsilon, wide.dtype))
        shape = [n if a in axes else 1 for a, n in enumerate(x.shape)]
        return (y * self.scale.value.reshape(shape).astype(y.dtype)).astype(x.dtype)


class UnitNormalization(Layer):
    """Scales each step's features to norm 1.

    Args:
        axis: One axis or several.
    """

    axis: Any = -1
    masking = preserve

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the normalized data."""
        axes = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        x = inputs
        if mask is not None:
            crossed = any(a % x.ndim < mask.ndim for a in axes)
            fill = jnp.zeros_like(x) if crossed else jnp.ones_like(x)
            x = jnp.where(expand_to(mask, x.ndim), x, fill)
        squares = jnp.sum(jnp.square(x), axes, keepdims=True)
        return x * lax.rsqrt(jnp.maximum(squares, jnp.asarray(1e-12, x.dtype)))
