"""Layers that draw random numbers while training. A prefix of a row gets the same draws."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.config import standardize_data_format
from alphorn.core.layer import Family, Layer
from alphorn.core.random import SeedGenerator, draw_steps
from alphorn.core.rules import preserve
from alphorn.errors import ArgumentError, ShapeError
from alphorn.regularizers import L1L2

__all__ = [
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
]


class _Noise(Family):
    masking = preserve
    old_names: ClassVar[dict[str, str]] = {"p": "rate", "sigma": "stddev"}

    def after_init(self) -> None:
        """Checks the rate and makes the generator."""
        if not 0 <= self.rate <= 1:
            raise ArgumentError(
                f"{type(self).__name__} '{self.name}': rate", self.rate, "between 0 and 1"
            )
        self.seed_generator = SeedGenerator(self.seed)

    def draw(self, draw: Callable[..., Array], shape: Any, **options: Any) -> Array:
        """Draws time first."""
        key = self.seed_generator.next()
        return draw_steps(functools.partial(draw, key, **options), shape)

    def keep(self, shape: Any, rate: float) -> Array:
        """Draws what stays."""
        key = self.seed_generator.next()
        return draw_steps(lambda s: jax.random.bernoulli(key, 1 - rate, s), shape)


class Dropout(_Noise):
    """Sets a share of the entries to 0 while training, and scales the rest up.

    Args:
        rate: The share.
        noise_shape: Axes of size 1 share one draw.
        seed: Of the draws.
    """

    rate: float
    noise_shape: Any = None
    seed: Any = None

    def call(self, inputs: Array, training: bool | None = False) -> Array:
        """Returns the data, with dropped entries while training."""
        if not training or not self.rate:
            return inputs
        return self.dropped(inputs, self.shape_of_noise(inputs))

    def shape_of_noise(self, x: Array) -> tuple[int, ...]:
        """Returns the shape of the draw."""
        if self.noise_shape is None:
            return x.shape
        if len(self.noise_shape) != x.ndim:
            raise ShapeError(
                f"Dropout '{self.name}': noise_shape",
                received=self.noise_shape,
                expected=f"{x.ndim} sizes, as the data have",
            )
        return tuple(n if s is None else s for s, n in zip(self.noise_shape, x.shape, strict=True))

    def dropped(self, x: Array, shape: tuple[int, ...]) -> Array:
        """Returns the data with dropped entries."""
        if self.rate >= 1:
            return jnp.zeros_like(x)
        scale = jnp.asarray(1 / (1 - self.rate), x.dtype)
        return jnp.where(self.keep(shape, self.rate), x * scale, jnp.zeros_like(x))


class _Spatial(_Noise):
    def base_config(self) -> dict[str, Any]:
        """Leaves `trainable` out, which Keras's class does not take."""
        config = super().base_config()
        del config["trainable"]
        return config

    def call(self, inputs: Array, training: bool | None = False) -> Array:
        """Returns the data, with dropped features while training."""
        if inputs.ndim != self.rank + 2:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}'",
                received=f"shape {tuple(inputs.shape)}",
                expected=f"rank {self.rank + 2}",
            )
        if not training or not self.rate:
            return inputs
        first = getattr(self, "data_format", None) == "channels_first"
        ones = (1,) * self.rank
        shape = (*inputs.shape[:2], *ones) if first else (inputs.shape[0], *ones, inputs.shape[-1])
        scale = jnp.asarray(1 / max(1 - self.rate, 1e-7), inputs.dtype)
        return jnp.where(self.keep(shape, self.rate), inputs * scale, jnp.zeros_like(inputs))


class SpatialDropout1D(_Spatial):
    """Drops whole features of a sequence while training, `(batch, time, features)`."""

    rank = 1
    rate: float
    seed: Any = None


class _SpatialMaps(_Spatial):
    def after_init(self) -> None:
        """Checks the rate and the layout."""
        super().after_init()
        self.data_format = standardize_data_format(self.data_format)


class SpatialDropout2D(_SpatialMaps):
    """Drops whole feature maps of images while training, `(batch, rows, columns, features)`."""

    rank = 2
    rate: float
    data_format: Any = None
    seed: Any = None


class SpatialDropout3D(_SpatialMaps):
    """Drops whole feature maps of volumes, or of films `(batch, time, rows, columns, features)`."""

    rank = 3
    rate: float
    data_format: Any = None
    seed: Any = None


class GaussianNoise(_Noise):
    """Adds normal noise while training.

    Args:
        stddev: Of the noise.
        seed: Of the draws.
    """

    stddev: float
    seed: Any = None

    def after_init(self) -> None:
        """Checks the deviation and makes the generator."""
        if self.stddev < 0:
            raise ArgumentError(f"GaussianNoise '{self.name}': stddev", self.stddev, "at least 0")
        self.seed_generator = SeedGenerator(self.seed)

    def call(self, inputs: Array, training: bool | None = False) -> Array:
        """Returns the data, with noise while training."""
        if not training or not self.stddev:
            return inputs
        noise = self.draw(jax.random.normal, inputs.shape, dtype=inputs.dtype)
        return inputs + jnp.asarray(self.stddev, inputs.dtype) * noise


class GaussianDropout(_Noise):
    """Multiplies by normal noise around 1 while training (Srivastava et al., 2014)."""

    rate: float
    seed: Any = None

    def call(self, inputs: Array, training: bool | None = False) -> Array:
        """Returns the data, times noise while training."""
        if not training or not self.rate:
            return inputs
        deviation = (self.rate / (1 - self.rate)) ** 0.5
        noise = self.draw(jax.random.normal, inputs.shape, dtype=inputs.dtype)
        return inputs * (1 + jnp.asarray(deviation, inputs.dtype) * noise)


class AlphaDropout(_Noise):
    """Dropout that keeps mean and variance of SELU activations (Klambauer et al., 2017)."""

    rate: float
    noise_shape: Any = None
    seed: Any = None

    def call(self, inputs: Array, training: bool | None = False) -> Array:
        """Returns the data, with dropped entries while training."""
        if not training or not self.rate:
            return inputs
        saturation = -1.6732632423543772 * 1.0507009873554805
        shape = inputs.shape if self.noise_shape is None else tuple(self.noise_shape)
        kept = self.keep(shape, self.rate)
        scale = ((1 - self.rate) * (1 + self.rate * saturation**2)) ** -0.5
        shift = -scale * saturation * self.rate
        x = jnp.where(kept, inputs, jnp.asarray(saturation, inputs.dtype))
        return jnp.asarray(scale, x.dtype) * x + jnp.asarray(shift, x.dtype)


class ActivityRegularization(Layer):
    """Returns its input and adds a penalty on it to the losses; padding adds nothing."""

    l1: float = 0.0
    l2: float = 0.0
    masking = preserve

    def after_init(self) -> None:
        """Makes the penalty."""
        self.activity_regularizer = L1L2(self.l1, self.l2)

    def base_config(self) -> dict[str, Any]:
        """Leaves the penalty out: it follows from the arguments."""
        config = super().base_config()
        config.pop("activity_regularizer", None)
        return config

    def call(self, inputs: Array) -> Array:
        """Returns `inputs`."""
        return inputs
