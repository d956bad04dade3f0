"""The update rules: Keras's names and arguments, Optax's steps where it has them."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import jax.numpy as jnp
import optax
from jax import Array

from alphorn import initializers
from alphorn.core.variable import Variable, unwrap
from alphorn.errors import ArgumentError, StateError, UnexpectedArgumentError
from alphorn.naming import register
from alphorn.optimizers.base import COMMON, Optimizer

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LazyAdam",
    "Lion",
    "Nadam",
    "RMSprop",
]

Slots = dict[str, Array]


class _Rule(Optimizer):
    """An optimizer whose step for one weight is a pure function of arrays, `update`.

    Its state is slots: Variables like the weights, by names.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    first_slot_value = 0.0
    if TYPE_CHECKING:

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    def slot_groups(self) -> Sequence[tuple[str, ...]]:
        """Returns the slots as files hold them: those of a group together, weight by weight."""
        return [self.slots]

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the slots."""
        if self.built:
            return
        super().build(variables)
        self._slots: dict[str, list[Variable]] = {}
        start = initializers.Constant(self.first_slot_value)
        for names in self.slot_groups():
            columns = self.add_optimizer_variables(variables, names, start)
            self._slots |= dict(zip(names, columns, strict=True))

    def update_step(self, gradient: Array, variable: Variable, learning_rate: Array) -> None:
        """Updates a weight and its slots."""
        own = {name: row[self._get_variable_index(variable)] for name, row in self._slots.items()}
        step = jnp.asarray(unwrap(self.iterations))
        slots = {name: slot.value for name, slot in own.items()}
        rows = self._rows.get(variable)
        if rows is None:
            change, after = self.update(step, learning_rate, gradient, slots)
            variable.assign_add(change)
        else:
            taken = {n: s.at[rows].get(mode="fill", fill_value=0) for n, s in slots.items()}
            change, after = self.update(step, learning_rate, gradient, taken)
            variable.assign(variable.value.at[rows].add(change, mode="drop"))
            after = {n: s.at[rows].set(after[n], mode="drop") for n, s in slots.items()}
        for name, slot in own.items():
            slot.assign(after[name])

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns what is added to the weight, and the slots after it."""
        raise StateError(f"{type(self).__name__} has no update()")


def arguments(**own: Any) -> Callable[[type], type]:
    """Gives an optimizer its own arguments, then those that all have, in Keras's order."""

    def decorate(cls: type) -> type:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
        defaults = own | {k: v for k, v in COMMON.items() if k not in own} | {"name": None}
        named = [inspect.Parameter(k, kind, default=v) for k, v in defaults.items()]
        signature = inspect.Signature(named)
        names = tuple(k for k in own if k not in (*COMMON, "learning_rate"))
        cast(Any, cls).own_arguments = names

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            self.convert_arguments(kwargs)
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise UnexpectedArgumentError(
                    f"{cls.__name__}: {error}", expected=f"{cls.__name__}{signature}"
                ) from None
            bound.apply_defaults()
            given = bound.arguments
            for name in names:
                setattr(self, name, given.pop(name))
            Optimizer.__init__(self, **given)
            self.after_init()

        visible = inspect.Signature([inspect.Parameter("self", kind), *named, rest])
        cast(Any, __init__).__signature__ = visible
        cast(Any, cls).__init__ = __init__
        return register("optimizers", cls, cls.__name__, cls.__name__.lower())

    return decorate


def _run(rule: optax.GradientTransformation, grad: Array, state: Any) -> tuple[Array, Any]:
    """Takes a step by an Optax rule, whose state has fields that its type does not tell."""
    return cast(tuple[Array, Any], rule.update(grad, state))


@arguments(learning_rate=0.01, momentum=0.0, nesterov=False)
class SGD(_Rule):
    """Steps down the gradient, with momentum where it is asked for (and Nesterov's)."""

    def after_init(self) -> None:
        """Checks the momentum."""
        if not 0 <= self.momentum <= 1:
            raise ArgumentError("SGD: momentum", self.momentum, "a number between 0 and 1")

    @property
    def rows_may_rest(self) -> bool:
        """Without momentum."""
        return not self.momentum

    def slot_groups(self) -> Sequence[tuple[str, ...]]:
        """Momentum, where there is one."""
        return [("momentum",)] if self.momentum else []

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns the change and the momentum."""
        if not self.momentum:
            return -rate * grad, {}
        rule = optax.trace(self.momentum, self.nesterov)
        change, state = _run(rule, -rate * grad, optax.TraceState(slots["momentum"]))
        return change, {"momentum": state.trace}


@arguments(learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False)
class RMSprop(_Rule):
    """Divides each gradient by the root of its running mean square (Hinton, 2012)."""

    def slot_groups(self) -> Sequence[tuple[str, ...]]:
        """Mean squares, then momentum and mean gradients where they are used."""
        used = {"velocity": True, "momentum": self.momentum, "average_gradient": self.centered}
        return [(name,) for name, needed in used.items() if needed]

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns the change and the slots."""
        after: Slots = {}
        if self.centered:
            rule = optax.scale_by_stddev(self.rho, self.epsilon, eps_in_sqrt=True)
            means = optax.ScaleByRStdDevState(mu=slots["average_gradient"], nu=slots["velocity"])
            scaled, state = _run(rule, grad, means)
            after["average_gradient"] = state.mu
        else:
            rule = optax.scale_by_rms(self.rho, self.epsilon, eps_in_sqrt=True)
            scaled, state = _run(rule, grad, optax.ScaleByRmsState(slots["velocity"]))
        after["velocity"] = state.nu
        scaled = rate * scaled
        if self.momentum:
            trace = optax.TraceState(slots["momentum"])
            scaled, trace = _run(optax.trace(self.momentum), scaled, trace)
            after["momentum"] = trace.trace
        return -scaled, after


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False)
class Adam(_Rule):
    """Kingma and Ba (2014); with `amsgrad`, Reddi et al. (2018)."""

    def slot_groups(self) -> Sequence[tuple[str, ...]]:
        """The moments together, the maxima of the second behind."""
        return [("momentum", "velocity"), *([("velocity_hat",)] if self.amsgrad else [])]

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns the change and the moments."""
        count = (step + 1).astype(jnp.float32)
        second = jnp.sqrt(1 - self.beta_2**count)
        # Keras adds epsilon before the correction of the second moment, Optax after it.
        rule = optax.scale_by_adam(self.beta_1, self.beta_2, self.epsilon / second)
        moments = optax.ScaleByAdamState(step, slots["momentum"], slots["velocity"])
        scaled, state = _run(rule, grad, moments)
        after: Slots = {"momentum": state.mu, "velocity": state.nu}
        if self.amsgrad:
            largest = jnp.maximum(slots["velocity_hat"], state.nu)
            after["velocity_hat"] = largest
            factor = second / (1 - self.beta_1**count)
            scaled = state.mu * factor / (jnp.sqrt(largest) + self.epsilon)
        return -rate * scaled, after


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False)
class LazyAdam(Adam):
    """Adam that updates those rows of an Embedding alone that a batch looks up.

    Adam moves every row of a table in every step, by the moments that it has; here a row rests, and
    its moments too, until a batch names it again. With many words that is the larger part of a step.
    The rule is that of TensorFlow Addons' `LazyAdam` and of PyTorch's `SparseAdam`; weights that are
    no tables of looked-up rows are updated as by `Adam`.

    A table is updated by rows where inputs of a functional model look it up, and nothing else reads
    it: no regularizer or constraint on it, no layer, loss or `train_step` of your own.

    Raises:
        ArgumentError: `weight_decay`, `use_ema` or `gradient_accumulation_steps`, which reach all
            rows.
    """

    rows_may_rest = rows_must_rest = True

    def after_init(self) -> None:
        """Refuses what reaches all rows."""
        for name in ("weight_decay", "use_ema", "gradient_accumulation_steps"):
            if getattr(self, name):
                raise ArgumentError(
                    f"LazyAdam: {name}",
                    repr(getattr(self, name)),
                    "updates of some rows",
                    "use Adam",
                )


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

    def after_init(self) -> None:
        """Checks the decay."""
        if self.weight_decay is None:
            raise ArgumentError("AdamW: weight_decay", "None", "a number", "use Adam")


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
class Adamax(_Rule):
    """Adam by the largest gradient instead of the mean square (Kingma and Ba, 2014)."""

    slots = ("momentum", "norm")

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns the change and the moments."""
        count = (step + 1).astype(jnp.float32)
        mean = _mean(slots["momentum"], grad, self.beta_1)
        norm = jnp.maximum(self.beta_2 * slots["norm"], jnp.abs(grad))
        change = -rate * mean / ((1 - self.beta_1**count) * (norm + self.epsilon))
        return change, {"momentum": mean, "norm": norm}


def _mean(mean: Array, value: Array, share: Any) -> Array:
    return mean + (value - mean) * (1 - share)


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
class Nadam(_Rule):
    """Adam with Nesterov's momentum (Dozat, 2015), its momentum warmed up as Keras does."""

    slots = ("momentum", "velocity")

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the slots, then the product of the momentums so far."""
        if not self.built:
            super().build(variables)
            self._product = self.add_variable((), "ones", "float32", name="u_product")

    def _momentum_at(self, count: Array) -> Array:
        return self.beta_1 * (1 - 0.5 * 0.96**count)

    def _update_each(self, gradients: list[Array], variables: list[Variable], rate: Array) -> None:
        count = (jnp.asarray(unwrap(self.iterations)) + 1).astype(jnp.float32)
        self._product.assign(self._product.value * self._momentum_at(count))
        super()._update_each(gradients, variables, rate)

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns the change and the moments."""
        count = (step + 1).astype(jnp.float32)
        now, following = self._momentum_at(count), self._momentum_at(count + 1)
        product = self._product.value
        # Rounded before 1 - beta, as in the correction: else the first steps are 1e-5 off.
        beta_1, beta_2 = jnp.float32(self.beta_1), jnp.float32(self.beta_2)
        mean = _mean(slots["momentum"], grad, beta_1)
        square = _mean(slots["velocity"], jnp.square(grad), beta_2)
        ahead = following * mean / (1 - product * following) + (1 - now) * grad / (1 - product)
        root = jnp.sqrt(square / (1 - beta_2**count))
        return -rate * ahead / (root + self.epsilon), {"momentum": mean, "velocity": square}


@arguments(learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7)
class Adagrad(_Rule):
    """Divides each gradient by the root of its sum of squares (Duchi et al., 2011)."""

    slots = ("accumulator",)
    rows_may_rest = True

    def after_init(self) -> None:
        """Notes the first value of the sums."""
        self.first_slot_value = self.initial_accumulator_value

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns the change and the sums."""
        rule = optax.scale_by_rss(self.initial_accumulator_value, self.epsilon)
        scaled, state = _run(rule, grad, optax.ScaleByRssState(slots["accumulator"]))
        return -rate * scaled, {"accumulator": state.sum_of_squares}


@arguments(learning_rate=0.001, rho=0.95, epsilon=1e-7)
class Adadelta(_Rule):
    """Scales steps by the ratio of past steps to past gradients (Zeiler, 2012)."""

    slots = ("accumulated_grad", "accumulated_delta_var")

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns the change and the means."""
        rule = optax.scale_by_adadelta(self.rho, self.epsilon)
        means = optax.ScaleByAdaDeltaState(*(slots[name] for name in self.slots))
        scaled, state = _run(rule, grad, means)
        after = {"accumulated_grad": state.e_g, "accumulated_delta_var": state.e_x}
        return -rate * scaled, after


@arguments(learning_rate=0.001, beta_1=0.9, beta_2=0.99)
class Lion(_Rule):
    """Steps by the sign of a momentum (Chen et al., 2023)."""

    slots = ("momentum",)

    def after_init(self) -> None:
        """Checks the momentum."""
        if not 0 < self.beta_1 <= 1:
            raise ArgumentError("Lion: beta_1", self.beta_1, "a number above 0, at most 1")

    def update(self, step: Array, rate: Array, grad: Array, slots: Slots) -> tuple[Array, Slots]:
        """Returns the change and the momentum."""
        rule = optax.scale_by_lion(self.beta_1, self.beta_2)
        scaled, state = _run(rule, grad, optax.ScaleByLionState(step, slots["momentum"]))
        return -rate * scaled, {"momentum": state.mu}
