"""Optimizer: state, clipping, decay, means and accumulation around an update rule.

The state is a flat list of Variables, so that a training step passes and donates it as it does the
weights.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jax import Array

from alphorn.core.transforms import functional
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError, DataError, UnexpectedArgumentError
from alphorn.fields import Configurable
from alphorn.naming import auto_name, register, resolve, serialize_object, snake_case
from alphorn.schedules import LearningRateSchedule

Slots = dict[str, list[Array]]


class Optimizer(Configurable):
    """Base of optimizers: `update` turns gradients into steps, by Optax where it has the rule.

    Args:
        learning_rate: A number, a schedule, or a function of nothing.
        weight_decay: Share of each weight taken off a step, times the learning rate.
        clipnorm, clipvalue, global_clipnorm: Bounds of each gradient's norm, of each entry, of
            the norm of all gradients together.
        use_ema, ema_momentum, ema_overwrite_frequency: Keeps running means of the weights.
        loss_scale_factor: Multiplies the loss, and divides the gradients.
        gradient_accumulation_steps: Updates with the mean gradient of so many steps.
        name: By default the class name in snake case, counted.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    first_slot_value = 0.0

    def after_init(self) -> None:
        """Checks the arguments and makes step and learning rate."""
        given = [n for n in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(self, n)]
        if len(given) > 1:
            raise ArgumentError(
                type(self).__name__, received=", ".join(given), expected="one way of clipping"
            )
        self.iterations = self._scalar(0, jnp.int32, "iteration")
        rate = self.learning_rate_
        self._schedule = rate if callable(rate) else None
        self._rate = None
        if self._schedule is None:
            self._rate = self._scalar(rate, jnp.float32, "learning_rate")
        self._slots: dict[str, list[Variable]] = {}
        self._trained: list[Variable] = []
        self._averages: list[Variable] = []
        self._sums: list[Variable] = []
        self._excluded: set[Variable] = set()

    # --- state

    @property
    def variables(self) -> list[Variable]:
        """All state, in Keras's order: step, learning rate, means and sums, then the slots."""
        found = [self.iterations] + ([] if self._rate is None else [self._rate])
        return found + self._averages + self._sums + self._slot_order()

    def _slot_order(self) -> list[Variable]:
        return [
            self._slots[slot][i]
            for group in self.slot_groups()
            for i in range(len(self._trained))
            for slot in group
        ]

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the state for `variables`."""
        if self.built:
            return
        self._trained = list(variables)
        self._slots = {s: [self._like(v, s) for v in self._trained] for s in self.slot_names()}
        if self.use_ema:
            self._averages = [self._like(v, "average", v.slot) for v in self._trained]
        if self.gradient_accumulation_steps:
            self._sums = [self._like(v, "gradient_accumulator", 0.0) for v in self._trained]
        self.built = True

    def slot_names(self) -> tuple[str, ...]:
        """Returns the names of the slots in use."""
        return self.slots

    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        """Returns the slots as files hold them: those of a group stand together, weight by weight."""
        return (self.slot_names(),)

    def _scalar(self, value: Any, dtype: Any, name: str) -> Variable:
        made = Variable(jnp.asarray(value, dtype), trainable=False, name=name, autocast=False)
        made.path = f"{self.name}/{name}"
        return made

    def _like(self, variable: Variable, slot: str, value: Any = None) -> Variable:
        start = self.first_slot_value if value is None else value
        array = jnp.broadcast_to(jnp.asarray(start, variable.dtype), variable.shape)
        name = f"{variable.path.replace('/', '_')}_{slot}"
        made = Variable(array, dtype=variable.dtype, trainable=False, name=name, autocast=False)
        made.path = f"{self.name}/{name}"
        return made

    @property
    def learning_rate(self) -> Any:
        """The learning rate now; setting it changes it, unless a schedule rules it."""
        if self._schedule is None:
            return self._rate
        return self._rate_now()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if "_rate" not in vars(self):
            self.learning_rate_ = resolve("schedules", value) if isinstance(value, dict) else value
            return
        if self._rate is None and not callable(value):
            raise ArgumentError(
                f"{self.name}: learning_rate follows a schedule",
                received=repr(value),
                expected="a schedule",
                fix="make the optimizer with a number to set it later",
            )
        if callable(value):
            self._schedule, self.learning_rate_ = value, value
        else:
            assert self._rate is not None
            self._rate.assign(jnp.asarray(value, jnp.float32))

    lr = learning_rate

    def _rate_now(self) -> Array:
        if self._schedule is None:
            assert self._rate is not None
            return self._rate.value
        if isinstance(self._schedule, LearningRateSchedule):
            return jnp.asarray(self._schedule(self.iterations.value), jnp.float32)
        return jnp.asarray(self._schedule(), jnp.float32)

    # --- updates

    def update(
        self, step: Array, rate: Array, grads: list[Array], weights: list[Array], slots: Slots
    ) -> tuple[list[Array], Slots]:
        """Returns what is added to the weights, and the slots after it; override it."""
        raise ArgumentError(
            f"{type(self).__name__} has no update",
            fix="write update(self, step, rate, grads, weights, slots)",
        )

    def scale_loss(self, loss: Any) -> Any:
        """Returns the loss times the loss scale."""
        return loss * self.loss_scale_factor if self.loss_scale_factor else loss

    def exclude_from_weight_decay(
        self, var_list: Iterable[Variable] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Leaves weights out of the decay, by themselves or by parts of their names."""
        self._excluded |= set(var_list or ())
        patterns = list(var_names or ())
        self._excluded_names = [*getattr(self, "_excluded_names", []), *patterns]

    def _decays(self, variable: Variable) -> bool:
        names = getattr(self, "_excluded_names", [])
        return variable not in self._excluded and not any(
            re.search(n, variable.name) for n in names
        )

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Any:
        """Updates each Variable by its gradient; returns the number of steps."""
        grads, variables = zip(*grads_and_vars, strict=True)
        self.apply(list(grads), list(variables))
        return self.iterations.value

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None
    ) -> None:
        """Updates the Variables by their gradients, in order; None leaves one as it is."""
        if not self.built:
            if trainable_variables is None:
                raise ArgumentError(
                    f"{self.name}.apply before build", fix="give it the trainable_variables"
                )
            self.build(trainable_variables)
        variables = self._trained if trainable_variables is None else list(trainable_variables)
        if len(grads) != len(variables):
            raise DataError(
                f"{self.name}.apply", f"{len(grads)} gradients", f"{len(variables)} of them"
            )
        self._check_known(variables)
        pairs = [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        if not pairs:
            raise DataError(f"{self.name}.apply", received="no gradients", expected="at least one")
        grads = [jnp.asarray(g) for g, _ in pairs]
        variables = [v for _, v in pairs]
        if self.loss_scale_factor:
            grads = [g / self.loss_scale_factor for g in grads]
        if self.gradient_accumulation_steps:
            self._apply_accumulated(grads, variables)
        else:
            self._step(grads, variables)

    def _check_known(self, variables: list[Variable]) -> None:
        strange = [v.path for v in variables if v not in self._index]
        if strange:
            raise ArgumentError(
                f"{self.name} was built for other variables",
                received=", ".join(strange[:3]),
                expected=f"some of the {len(self._trained)} that it was built for",
                fix="make a new optimizer, or compile the model again",
            )

    @property
    def _index(self) -> dict[Variable, int]:
        return {v: i for i, v in enumerate(self._trained)}

    def _apply_accumulated(self, grads: list[Array], variables: list[Variable]) -> None:
        places = [self._index[v] for v in variables]
        sums = [self._sums[i] for i in places]
        steps = int(self.gradient_accumulation_steps)
        total = [s.value + g for s, g in zip(sums, grads, strict=True)]
        due = (self.iterations.value + 1) % steps == 0
        state = list(dict.fromkeys([*variables, *self.variables]))

        def step() -> None:
            self._step([t / steps for t in total], variables)

        def wait() -> None:
            self.iterations.assign_add(1)

        values = [v.value for v in state]
        _, new = jax.lax.cond(
            due, lambda s: functional(step, state)(s), lambda s: functional(wait, state)(s), values
        )
        for variable, value in zip(state, new, strict=True):
            variable.assign(value)
        for s, t in zip(sums, total, strict=True):
            s.assign(jnp.where(due, jnp.zeros_like(t), t))

    def _step(self, grads: list[Array], variables: list[Variable]) -> None:
        index = self._index
        rate, count = self._rate_now(), self.iterations.value
        step = count // int(self.gradient_accumulation_steps or 1)
        grads = self._clipped(grads)
        weights = [v.value for v in variables]
        places = [index[v] for v in variables]
        if self.weight_decay:
            weights = [
                w - (w * self.weight_decay * rate).astype(w.dtype) if self._decays(v) else w
                for v, w in zip(variables, weights, strict=True)
            ]
        slots = {s: [row[i].value for i in places] for s, row in self._slots.items()}
        grads = [g.astype(w.dtype) for g, w in zip(grads, weights, strict=True)]
        updates, after = self.update(step, rate, grads, weights, slots)
        for variable, weight, change in zip(variables, weights, updates, strict=True):
            value = weight + change.astype(weight.dtype)
            if variable.constraint is not None:
                value = variable.constraint(value)
            variable.assign(value)
        for name, values in after.items():
            for i, value in zip(places, values, strict=True):
                self._slots[name][i].assign(value)
        self.iterations.assign(count + 1)
        if self.use_ema:
            self._average(variables, places)

    def _clipped(self, grads: list[Array]) -> list[Array]:
        if self.clipnorm:
            norms = [jnp.sqrt(jnp.sum(jnp.square(g))) for g in grads]
            return [
                g * (self.clipnorm / jnp.maximum(n, self.clipnorm))
                for g, n in zip(grads, norms, strict=True)
            ]
        if self.global_clipnorm:
            total = optax.tree.norm(grads)
            return [
                g * (self.global_clipnorm / jnp.maximum(total, self.global_clipnorm)) for g in grads
            ]
        if self.clipvalue:
            return [jnp.clip(g, -self.clipvalue, self.clipvalue) for g in grads]
        return grads

    def _average(self, variables: list[Variable], places: list[int]) -> None:
        step = self.iterations.value
        # The first step takes the weight itself, as Keras does.
        keep = jnp.where(step == 1, 0.0, self.ema_momentum).astype(jnp.float32)
        for variable, i in zip(variables, places, strict=True):
            average = self._averages[i]
            average.assign(keep * average.value + (1 - keep) * variable.value)
            if self.ema_overwrite_frequency:
                due = step % self.ema_overwrite_frequency == 0
                variable.assign(jnp.where(due, average.value, variable.value))

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Puts the running means into the weights, at the end of training with `use_ema`."""
        if self.use_ema and self.built:
            for variable in var_list:
                variable.assign(self._averages[self._index[variable]].value)

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Any
    ) -> tuple[list[Any], list[Any]]:
        """Returns new weights and new state from values: a pure function."""
        everything = [*self._trained, *self.variables]
        values = [*trainable_variables, *optimizer_variables]
        _, new = functional(lambda: self.apply(grads, self._trained), everything)(values)
        count = len(self._trained)
        return new[:count], new[count:]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, with the learning rate as it is now."""
        config = super().get_config()
        if self._rate is not None:
            config["learning_rate"] = float(self._rate.slot)
        else:
            config["learning_rate"] = serialize_object(self._schedule)
        return config


_COMMON: dict[str, Any] = {
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


def arguments(**own: Any) -> Callable[[type], type]:
    """Gives an optimizer its own arguments, then those that all have, in Keras's order."""

    def decorate(cls: type) -> type:
        defaults = own | {k: v for k, v in _COMMON.items() if k not in own}
        defaults = {k: v for k, v in defaults.items() if k != "name"} | {"name": None}
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature(
            [inspect.Parameter(k, kind, default=v) for k, v in defaults.items()]
        )

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise UnexpectedArgumentError(
                    f"{cls.__name__}: {error}", expected=f"{cls.__name__}{signature}"
                ) from None
            bound.apply_defaults()
            self.built = False
            for name, value in bound.arguments.items():
                setattr(self, name, value)
            if self.name is None:
                self.name = auto_name(snake_case(cls.__name__))
            self.after_init()

        own_self = inspect.Parameter("self", kind)
        rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
        __init__.__signature__ = inspect.Signature(  # pyright: ignore
            [own_self, *signature.parameters.values(), rest]
        )
        cls.__init__ = __init__
        return register("optimizers", cls, cls.__name__, cls.__name__.lower())

    return decorate
