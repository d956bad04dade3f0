"""Initializers: first values of weights, by shape and type.

With an integer seed an initializer gives the same values at every call, as in Keras; without one it
draws a seed from the process's stream (`set_random_seed`) when it is made.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.config import draw_seed, floatx
from alphorn.core.random import SeedGenerator, as_key
from alphorn.core.variable import SMALL_BYTES
from alphorn.errors import ArgumentError
from alphorn.fields import Configurable, Converter
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import register, resolve, snake_case
from alphorn.naming import serialize as _serialize

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "deserialize",
    "get",
    "serialize",
]

Shape = Sequence[int]


class Initializer(Configurable):
    """Base of initializers: write `__call__(shape, dtype=None)`."""

    also: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers built-in classes under their names."""
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__ and not cls.__name__.startswith("_"):
            register("initializers", cls, cls.__name__, snake_case(cls.__name__), *cls.also)

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns an array."""
        raise ArgumentError(
            f"{type(self).__name__} has no __call__", fix="write __call__(self, shape, dtype=None)"
        )

    def clone(self) -> "Initializer":
        """Returns another one like this."""
        return type(self).from_config(self.get_config())


def _filled(shape: Shape, value: int, dtype: Any) -> Array:
    dtype = jnp.dtype(dtype or floatx())
    if np.prod(shape) * dtype.itemsize > SMALL_BYTES:
        return jnp.full(shape, value, dtype)
    return jax.device_put(np.full(shape, value, dtype))


class Zeros(Initializer):
    """Zeros.

    >>> Zeros()((2,))
    Array([0., 0.], dtype=float32)
    """

    also = ("zero",)

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns zeros."""
        return _filled(shape, 0, dtype)


class Ones(Initializer):
    """Ones."""

    also = ("one",)

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns ones."""
        return _filled(shape, 1, dtype)


class Constant(Initializer):
    """One value everywhere."""

    value: Any = 0.0

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns the value, broadcast."""
        return jnp.broadcast_to(jnp.asarray(self.value, dtype or floatx()), tuple(shape))


class Identity(Initializer):
    """The identity matrix, times `gain`."""

    also = ("IdentityInitializer",)
    gain: float = 1.0

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns a matrix with `gain` on its diagonal."""
        if len(shape) != 2:
            raise ArgumentError("Identity", received=f"shape {tuple(shape)}", expected="two axes")
        return self.gain * jnp.eye(*shape, dtype=dtype or floatx())


class _Random(Initializer):
    """Base of those that draw: remembers a seed."""

    seed: Any = None

    def after_init(self) -> None:
        self._seed = draw_seed() if self.seed is None else self.seed

    def _key(self) -> Array:
        return as_key(self._seed)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments; a generator is written as its seed."""
        config = super().get_config()
        seed = self.seed
        return config | {"seed": _serialize(seed) if isinstance(seed, SeedGenerator) else seed}


class RandomNormal(_Random):
    """Draws from a normal distribution."""

    also = ("normal",)

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None):
        self.mean, self.stddev, self.seed = mean, stddev, seed
        self.after_init()

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns the draw."""
        return self.mean + self.stddev * jax.random.normal(self._key(), shape, dtype or floatx())


class TruncatedNormal(_Random):
    """Draws from a normal distribution, within two standard deviations."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None):
        self.mean, self.stddev, self.seed = mean, stddev, seed
        self.after_init()

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns the draw."""
        draw = jax.random.truncated_normal(self._key(), -2.0, 2.0, shape, dtype or floatx())
        return self.mean + self.stddev * draw


class RandomUniform(_Random):
    """Draws evenly from an interval."""

    also = ("uniform",)

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None):
        self.minval, self.maxval, self.seed = minval, maxval, seed
        self.after_init()

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns the draw."""
        return jax.random.uniform(self._key(), shape, dtype or floatx(), self.minval, self.maxval)


class VarianceScaling(_Random):
    """Draws with a variance of `scale / fan`, so that signals keep their size through layers.

    Args:
        scale: Positive.
        mode: Which fan: fan_in, fan_out or fan_avg.
        distribution: truncated_normal, untruncated_normal or uniform.
        seed: As for all initializers.
        input_axes, output_axes: Those of a weight that count as inputs and as outputs; both or
            neither, by default the last but one and the last, times the window before them.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        modes = ("fan_in", "fan_out", "fan_avg")
        distributions = ("truncated_normal", "untruncated_normal", "uniform", "normal")
        for name, value, known in (
            ("mode", mode, modes),
            ("distribution", distribution, distributions),
        ):
            if value not in known:
                raise ArgumentError(
                    f"{type(self).__name__}: {name}", repr(value), f"one of {', '.join(known)}"
                )
        if scale <= 0:
            raise ArgumentError(f"{type(self).__name__}: scale", scale, "a positive number")
        if (input_axes is None) != (output_axes is None):
            raise ArgumentError(
                f"{type(self).__name__}: input_axes and output_axes",
                received=f"{input_axes} and {output_axes}",
                expected="both or neither",
            )
        self.scale, self.mode, self.distribution, self.seed = scale, mode, distribution, seed
        self.input_axes, self.output_axes = input_axes, output_axes
        self.after_init()

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns the draw."""
        dtype = dtype or floatx()
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return jax.random.uniform(self._key(), shape, dtype, -limit, limit)
        if self.distribution == "untruncated_normal":
            return math.sqrt(variance) * jax.random.normal(self._key(), shape, dtype)
        # The deviation of a standard normal cut at two is 0.8796...
        deviation = math.sqrt(variance) / 0.87962566103423978
        return deviation * jax.random.truncated_normal(self._key(), -2.0, 2.0, shape, dtype)


def compute_fans(
    shape: Shape,
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
) -> tuple[int, int]:
    """Returns the numbers of inputs and outputs of one unit of a weight.

    >>> compute_fans((3, 16, 32))
    (48, 96)
    >>> compute_fans((3, 16, 32), [0], [1, 2])
    (3, 512)
    """
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[a] for a in input_axes), math.prod(shape[a] for a in output_axes)
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def _scaling(name: str, scale: float, mode: str, distribution: str, doc: str) -> type:
    def __init__(
        self: Any,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        VarianceScaling.__init__(self, scale, mode, distribution, seed, input_axes, output_axes)

    namespace = {"__init__": __init__, "__doc__": doc, "__module__": __name__}
    return type(name, (VarianceScaling,), namespace)


GlorotUniform = _scaling(
    "GlorotUniform", 1.0, "fan_avg", "uniform", "Glorot and Bengio (2010), even."
)
GlorotNormal = _scaling(
    "GlorotNormal", 1.0, "fan_avg", "truncated_normal", "Glorot and Bengio (2010), normal."
)
HeUniform = _scaling("HeUniform", 2.0, "fan_in", "uniform", "He et al. (2015), even.")
HeNormal = _scaling("HeNormal", 2.0, "fan_in", "truncated_normal", "He et al. (2015), normal.")
LecunUniform = _scaling("LecunUniform", 1.0, "fan_in", "uniform", "LeCun et al. (1998), even.")
LecunNormal = _scaling(
    "LecunNormal", 1.0, "fan_in", "truncated_normal", "LeCun et al. (1998), normal."
)


class Orthogonal(_Random):
    """An orthogonal matrix, times `gain` (Saxe et al., 2014).

    Axes before the last are taken as one.
    """

    also = ("OrthogonalInitializer",)

    def __init__(self, gain: float = 1.0, seed: Any = None):
        self.gain, self.seed = gain, seed
        self.after_init()

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Returns the matrix."""
        if len(shape) < 2:
            raise ArgumentError(
                "Orthogonal", received=f"shape {tuple(shape)}", expected="at least two axes"
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        matrix = _orthogonal(self._key(), self.gain, rows, columns)
        return matrix.reshape(shape).astype(dtype or floatx())


@functools.partial(jax.jit, static_argnums=(2, 3))
def _orthogonal(key: Array, gain: float, rows: int, columns: int) -> Array:
    q, r = jnp.linalg.qr(jax.random.normal(key, (max(rows, columns), min(rows, columns))))
    q = q * jnp.sign(jnp.diag(r))
    return gain * (q.T if rows < columns else q)


def get(identifier: Any) -> Callable | None:
    """Returns the initializer behind a name, a config, a class, an object or an array."""
    if isinstance(identifier, np.ndarray | Array):
        return Constant(identifier)
    return resolve("initializers", identifier)


def serialize(initializer: Any) -> Any:
    """Returns a description of an initializer for files."""
    return _serialize(initializer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the initializer that `serialize` described."""
    return _deserialize(config, "initializers", custom_objects)


AsInitializer = Annotated[Any, Converter(get)]
