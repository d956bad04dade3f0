"""LossScaleOptimizer: 16-bit gradients that do not vanish."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from alphorn.core.variable import Variable
from alphorn.optimizers.base import Optimizer, arguments


@arguments(inner_optimizer=None, initial_scale=32768.0, dynamic_growth_steps=2000)
class LossScaleOptimizer(Optimizer):
    """Scales the loss of another optimizer, so that 16-bit gradients do not vanish.

    A step whose gradients are not finite is left out and halves the scale.

    Args:
        inner_optimizer: The one that updates.
        initial_scale: The first scale.
        dynamic_growth_steps: Finite steps after which the scale doubles.
        name: By default `loss_scale_optimizer`.
    """

    learning_rate_ = 0.0

    def after_init(self) -> None:
        """Makes scale and counter."""
        super().after_init()
        self.dynamic_scale = self._scalar(self.initial_scale, jnp.float32, "dynamic_scale")
        self.step_counter = self._scalar(0, jnp.int32, "step_counter")

    @property
    def variables(self) -> list[Variable]:
        """Own state, counter and scale, then the inner optimizer's."""
        own = [*super().variables, self.step_counter, self.dynamic_scale]
        return [*own, *self.inner_optimizer.variables]

    @property
    def learning_rate(self) -> Any:
        """That of the inner optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the inner optimizer's state."""
        self.inner_optimizer.build(variables)
        self._trained = self.inner_optimizer._trained
        self.built = True

    def scale_loss(self, loss: Any) -> Any:
        """Returns the loss times the scale."""
        return loss * self.dynamic_scale.value

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None
    ) -> None:
        """Updates by unscaled gradients, if they are finite."""
        if not self.built:
            self.build(list(trainable_variables or ()))
        scale = self.dynamic_scale.value
        plain = [None if g is None else g.astype(jnp.float32) / scale for g in grads]
        finite = functools.reduce(
            jnp.logical_and, [jnp.all(jnp.isfinite(g)) for g in plain if g is not None]
        )
        state = list(dict.fromkeys([*self._trained, *self.inner_optimizer.variables]))
        before = [v.value for v in state]
        safe = [None if g is None else jnp.where(finite, g, 0) for g in plain]
        self.inner_optimizer.apply(safe, trainable_variables)
        for variable, old in zip(state, before, strict=True):
            variable.assign(jnp.where(finite, variable.value, old))
        count = jnp.where(finite, self.step_counter.value + 1, 0)
        grow = count >= self.dynamic_growth_steps
        changed = jnp.where(finite, jnp.where(grow, scale * 2, scale), scale / 2)
        self.dynamic_scale.assign(jnp.maximum(changed, 1e-6))
        self.step_counter.assign(jnp.where(grow, 0, count))
