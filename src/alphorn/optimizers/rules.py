"""The update rules: Keras's names and arguments, Optax's steps where it has them."""

from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from alphorn.core.variable import Variable
from alphorn.optimizers.base import Optimizer, Slots, arguments

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Nadam", "RMSprop"]


def _scaled(updates: Any, factor: Any) -> list[Array]:
    return [u * factor for u in updates]


@arguments(learning_rate=0.01, momentum=0.0, nesterov=False)
class SGD(Optimizer):
    """Steps down the gradient, with momentum where it is asked for (and Nesterov's)."""

    def slot_names(self) -> tuple[str, ...]:
        """Momentum, where there is one."""
        return ("momentum",) if self.momentum else ()

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns the steps and the momentum."""
        steps = _scaled(grads, -rate)
        if not self.momentum:
            return steps, {}
        rule = optax.trace(self.momentum, self.nesterov)
        updates, state = rule.update(steps, optax.TraceState(slots["momentum"]))
        return updates, {"momentum": state.trace}  # pyright: ignore


@arguments(learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False)
class RMSprop(Optimizer):
    """Divides each gradient by the root of its running mean square (Hinton, 2012)."""

    def slot_names(self) -> tuple[str, ...]:
        """Mean squares, then momentum and mean gradients where they are used."""
        extra = ("momentum",) if self.momentum else ()
        return ("velocity", *extra, *(("average_gradient",) if self.centered else ()))

    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        """Each slot by itself."""
        return tuple((slot,) for slot in self.slot_names())

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns the steps and the slots."""
        after: Slots = {}
        if self.centered:
            rule = optax.scale_by_stddev(self.rho, self.epsilon, eps_in_sqrt=True)
            mean = slots["average_gradient"]
            updates, state = rule.update(
                grads, optax.ScaleByRStdDevState(mu=mean, nu=slots["velocity"])
            )
            after["average_gradient"] = state.mu  # pyright: ignore
        else:
            rule = optax.scale_by_rms(self.rho, self.epsilon, eps_in_sqrt=True)
            updates, state = rule.update(grads, optax.ScaleByRmsState(slots["velocity"]))
        after["velocity"] = state.nu  # pyright: ignore
        steps = _scaled(updates, rate)
        if self.momentum:
            steps, trace = optax.trace(self.momentum).update(
                steps, optax.TraceState(slots["momentum"])
            )
            after["momentum"] = trace.trace  # pyright: ignore
        return [-s for s in steps], after  # pyright: ignore[reportGeneralTypeIssues]


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False)
class Adam(Optimizer):
    """Kingma and Ba (2014); with `amsgrad`, Reddi et al. (2018)."""

    def slot_names(self) -> tuple[str, ...]:
        """First and second moments."""
        return ("momentum", "velocity", *(("velocity_hat",) if self.amsgrad else ()))

    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        """The moments together, their maxima behind."""
        return (self.slot_names()[:2], self.slot_names()[2:])

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns the steps and the moments."""
        count = (step + 1).astype(jnp.float32)
        second = jnp.sqrt(1 - self.beta_2**count)
        # Keras adds epsilon before the correction of the second moment, Optax after it.
        rule = optax.scale_by_adam(self.beta_1, self.beta_2, self.epsilon / second)
        state = optax.ScaleByAdamState(step, slots["momentum"], slots["velocity"])
        updates, state = rule.update(grads, state)
        after: Slots = {"momentum": state.mu, "velocity": state.nu}  # pyright: ignore
        if self.amsgrad:
            largest = [
                jnp.maximum(a, b)
                for a, b in zip(slots["velocity_hat"], after["velocity"], strict=True)
            ]
            after["velocity_hat"] = largest
            factor = second / (1 - self.beta_1**count)
            updates = [
                m * factor / (jnp.sqrt(v) + self.epsilon)
                for m, v in zip(after["momentum"], largest, strict=True)
            ]
        return _scaled(updates, -rate), after


@arguments(
    learning_rate=0.001,
    weight_decay=0.004,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-7,
    amsgrad=False,
)
class AdamW(Adam):
    """Adam with weight decay beside the gradient (Loshchilov and Hutter, 2017)."""


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
class Adamax(Optimizer):
    """Adam by the largest gradient instead of the mean square (Kingma and Ba, 2014)."""

    slots = ("momentum", "norm")

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns the steps and the moments."""
        count = (step + 1).astype(jnp.float32)
        means = optax.update_moment(grads, slots["momentum"], self.beta_1, 1)
        norms = [
            jnp.maximum(self.beta_2 * n, jnp.abs(g))
            for n, g in zip(slots["norm"], grads, strict=True)
        ]
        factor = -rate / (1 - self.beta_1**count)
        steps = [m * factor / (n + self.epsilon) for m, n in zip(means, norms, strict=True)]
        return steps, {"momentum": means, "norm": norms}  # pyright: ignore


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
class Nadam(Optimizer):
    """Adam with Nesterov's momentum (Dozat, 2015), its momentum warmed up as Keras does."""

    slots = ("momentum", "velocity")

    def after_init(self) -> None:
        """Makes the product of momentums so far."""
        super().after_init()
        self._product = self._scalar(1, jnp.float32, "u_product")

    @property
    def variables(self) -> list[Variable]:
        """All state; the product of momentums comes last."""
        return [*super().variables, self._product]

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns the steps and the moments."""
        count = (step + 1).astype(jnp.float32)
        now = self.beta_1 * (1 - 0.5 * 0.96**count)
        following = self.beta_1 * (1 - 0.5 * 0.96 ** (count + 1))
        product = self._product.value * now
        self._product.assign(product)
        means = optax.update_moment(grads, slots["momentum"], self.beta_1, 1)
        squares = optax.update_moment(grads, slots["velocity"], self.beta_2, 2)
        correction = 1 - self.beta_2**count
        steps = []
        for g, m, v in zip(grads, means, squares, strict=True):  # pyright: ignore
            ahead = following * m / (1 - product * following) + (1 - now) * g / (1 - product)
            steps.append(-rate * ahead / (jnp.sqrt(v / correction) + self.epsilon))
        return steps, {"momentum": means, "velocity": squares}  # pyright: ignore


@arguments(learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7)
class Adagrad(Optimizer):
    """Divides each gradient by the root of its sum of squares (Duchi et al., 2011)."""

    slots = ("accumulator",)

    def after_init(self) -> None:
        """Notes the first value of the sums."""
        super().after_init()
        self.first_slot_value = self.initial_accumulator_value

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns the steps and the sums."""
        rule = optax.scale_by_rss(self.initial_accumulator_value, self.epsilon)
        updates, state = rule.update(grads, optax.ScaleByRssState(slots["accumulator"]))
        return _scaled(updates, -rate), {"accumulator": state.sum_of_squares}  # pyright: ignore


@arguments(learning_rate=0.001, rho=0.95, epsilon=1e-7)
class Adadelta(Optimizer):
    """Scales steps by the ratio of past steps to past gradients (Zeiler, 2012)."""

    slots = ("accumulated_grad", "accumulated_delta_var")

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns the steps and the means."""
        rule = optax.scale_by_adadelta(self.rho, self.epsilon)
        state = optax.ScaleByAdaDeltaState(
            slots["accumulated_grad"], slots["accumulated_delta_var"]
        )
        updates, state = rule.update(grads, state)
        after = {"accumulated_grad": state.e_g, "accumulated_delta_var": state.e_x}  # pyright: ignore
        return _scaled(updates, -rate), after


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.99)
class Lion(Optimizer):
    """Steps by the sign of a momentum (Chen et al., 2023)."""

    slots = ("momentum",)

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns the steps and the momentum."""
        rule = optax.scale_by_lion(self.beta_1, self.beta_2)
        updates, state = rule.update(grads, optax.ScaleByLionState(step, slots["momentum"]))
        return _scaled(updates, -rate), {"momentum": state.mu}  # pyright: ignore
