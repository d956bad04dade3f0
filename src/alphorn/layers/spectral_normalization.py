"""SpectralNormalization: a layer whose kernel has a largest singular value of 1."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from alphorn import initializers
from alphorn.core.context import training_phase
from alphorn.core.input_spec import InputSpec
from alphorn.core.rules import nest
from alphorn.core.transforms import functional
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError
from alphorn.layers.wrappers import Wrapper

__all__ = ["SpectralNormalization"]


def _unit(x: Array) -> Array:
    return x * lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x)), jnp.asarray(1e-12, x.dtype)))


class SpectralNormalization(Wrapper):
    """Divides a layer's kernel by its largest singular value (Miyato et al., 2018).

    Args:
        layer: With a `kernel` or `embeddings`, of at least two axes.
        power_iterations: How often the estimate of the singular vector is improved a call.

    Takes and returns what the layer does, with its masks. While training it remembers the vector;
    the kernel itself stays as it is, and its gradient knows of the division. In use it divides as
    well, so that training and use compute the same.

    >>> from alphorn.layers.dense import Dense
    >>> layer = SpectralNormalization(Dense(2, kernel_initializer="ones", use_bias=False))
    >>> jnp.round(layer(jnp.ones((1, 2))), 5)
    Array([[1., 1.]], dtype=float32)
    """

    masking = nest
    layer: Any
    power_iterations: int = 1

    def after_init(self) -> None:
        """Checks the layer and the number."""
        super().after_init()
        if not isinstance(self.power_iterations, int) or self.power_iterations < 1:
            raise ArgumentError(
                f"SpectralNormalization '{self.name}': power_iterations",
                received=repr(self.power_iterations),
                expected="an integer > 0",
            )

    def build(self, input_shape: Any) -> None:
        """Builds the layer and makes the vector."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.input_spec = InputSpec(min_ndim=1, axes={-1: input_shape[-1]})
        kernel = getattr(self.layer, "kernel", getattr(self.layer, "embeddings", None))
        if not isinstance(kernel, Variable) or kernel.ndim < 2:
            raise ArgumentError(
                f"SpectralNormalization '{self.name}': layer",
                received=f"{type(self.layer).__name__}, which has no kernel of its own",
                expected="a layer with a kernel or embeddings: Dense, Conv1D, Embedding, ...",
                fix="wrap the layer that has it: TimeDistributed(SpectralNormalization(Dense(3)))",
            )
        self.kernel = kernel
        self.vector_u = self.add_weight(
            (1, kernel.shape[-1]),
            initializers.TruncatedNormal(stddev=0.02),
            trainable=False,
            autocast=False,
            dtype=kernel.dtype,
            name="vector_u",
        )

    def normalized_weights(self) -> tuple[Array, Array]:
        """Returns the singular vector, improved, and the kernel divided by the singular value."""
        kernel, right = self.kernel._read(), self.vector_u._read()
        matrix = kernel.reshape(-1, kernel.shape[-1])
        fixed = lax.stop_gradient(matrix)
        left = jnp.zeros((1, fixed.shape[0]), fixed.dtype)
        for _ in range(self.power_iterations):
            left = _unit(right @ fixed.T)
            right = _unit(left @ fixed)
        sigma = (left @ matrix @ right.T)[0, 0]
        some = sigma != 0
        normalized = kernel / jnp.where(some, sigma, jnp.ones_like(sigma))
        old = self.vector_u._read()
        return jnp.where(some, right, old), jnp.where(some, normalized, kernel)

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        """Returns what the layer gives with the divided kernel."""
        vector, normalized = self.normalized_weights()
        if training:
            self.vector_u.assign(vector)
        variables = self.layer.variables
        given = [normalized if v is self.kernel else v._read() for v in variables]

        def run() -> Any:
            with training_phase(training):
                return self.layer(inputs)

        outputs, new = functional(run, variables)(given)
        for variable, before, after in zip(variables, given, new, strict=True):
            if after is not before and variable is not self.kernel:
                variable.assign(after)
        return outputs
