"""LossScaleOptimizer: 16-bit gradients that do not vanish."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp

from alphorn import initializers
from alphorn.core.variable import Variable, unwrap
from alphorn.errors import ArgumentError
from alphorn.naming import register, serialize
from alphorn.optimizers.base import COMMON, Optimizer, only_if


class LossScaleOptimizer(Optimizer):
    """Scales the loss of another optimizer, so that 16-bit gradients do not vanish.

    A step whose gradients are not finite is left out and halves the scale.

    Args:
        inner_optimizer: The one that updates.
        initial_scale: The first scale.
        dynamic_growth_steps: Finite steps after which the scale doubles.
        name: By default `loss_scale_optimizer`.
    """

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **kwargs: Any,
    ):
        if not isinstance(inner_optimizer, Optimizer):
            raise ArgumentError(
                "LossScaleOptimizer: inner_optimizer", repr(inner_optimizer), "an Optimizer"
            )
        if inner_optimizer.rows_must_rest:
            raise ArgumentError(
                "LossScaleOptimizer: inner_optimizer",
                received=type(inner_optimizer).__name__,
                expected="an optimizer of whole tables",
                fix="Adam, or dtype_policy 'mixed_bfloat16', which needs no scale",
            )
        for argument, value in kwargs.items():
            # Old files name the defaults.
            if argument not in COMMON or value != COMMON[argument]:
                raise ArgumentError(
                    f"LossScaleOptimizer: {argument}",
                    received=repr(value),
                    expected="no such argument",
                    fix="give it to the inner_optimizer",
                )
        super().__init__(0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.initial_scale, self.dynamic_growth_steps = initial_scale, dynamic_growth_steps
        inner_optimizer.loss_scale_factor = None  # else gradients would be divided twice
        self.step_counter = self.add_variable((), dtype="int32", name="step_counter")
        first = initializers.Constant(initial_scale)
        self.dynamic_scale = self.add_variable((), first, "float32", name="dynamic_scale")

    @property
    def variables(self) -> list[Variable]:
        """Own state, counter and scale, then the inner optimizer's."""
        return [*super().variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        """The inner optimizer's number of updates."""
        return self.inner_optimizer.iterations

    @property
    def revision(self) -> int:
        """That of the inner optimizer."""
        return self.inner_optimizer.revision

    @property
    def learning_rate(self) -> Any:
        """That of the inner optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    lr = learning_rate

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the inner optimizer's state."""
        self.inner_optimizer.build(variables)
        super().build(variables)

    def scale_loss(self, loss: Any) -> Any:
        """Returns the loss times the scale."""
        return loss * self.dynamic_scale.value

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None
    ) -> None:
        """Updates by unscaled gradients, if they are finite."""
        self._build_for(trainable_variables)
        inner, scale = self.inner_optimizer, self.dynamic_scale.value
        plain = [None if g is None else jnp.asarray(unwrap(g), jnp.float32) / scale for g in grads]
        finite = jnp.array([jnp.isfinite(g).all() for g in plain if g is not None]).all()
        state = [*self._trainable_variables, *inner.variables]
        only_if(finite, lambda: inner.apply(plain, trainable_variables), state)
        count = jnp.where(finite, self.step_counter.value + 1, 0)
        grow = count >= self.dynamic_growth_steps
        self.dynamic_scale.assign(jnp.where(finite, jnp.where(grow, scale * 2, scale), scale / 2))
        self.step_counter.assign(jnp.where(grow, 0, count))

    def finalize_variable_values(self, var_list: Iterable[Variable]) -> None:
        """Puts the inner optimizer's running means into the weights."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this optimizer again."""
        return {
            "name": self.name,
            "inner_optimizer": serialize(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }


register("optimizers", LossScaleOptimizer, "LossScaleOptimizer", "lossscaleoptimizer")
