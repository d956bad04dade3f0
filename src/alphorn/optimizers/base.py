"""Optimizer: clipping, decay, means and accumulation around the step of one weight."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jax import Array

from alphorn import initializers
from alphorn.core.transforms import functional
from alphorn.core.variable import Variable, unwrap
from alphorn.errors import (
    ArgumentError,
    DataError,
    ShapeError,
    StateError,
    UnexpectedArgumentError,
)
from alphorn.naming import (
    auto_name,
    custom_object_scope,
    serialize,
    snake_case,
)
from alphorn.optimizers.state import State
from alphorn.schedules import LearningRateSchedule


def only_if(condition: Any, step: Callable[[], None], variables: Sequence[Variable]) -> None:
    """Runs `step`, and takes back what it wrote where `condition`, which may be traced, is false."""
    before = [v.value for v in variables]
    step()
    for variable, old in zip(variables, before, strict=True):
        variable.assign(jnp.where(condition, variable.value, old))


class Optimizer(State):
    """Base of optimizers: write `update_step(gradient, variable, learning_rate)`.

    State is made in `build(variables)`, after `super().build(variables)`, by `add_variable` or
    `add_variable_from_reference`.

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

    own_arguments: ClassVar[tuple[str, ...]] = ()
    # Keras 2's: a step's rate is the learning rate by `1 + decay * iterations`.
    decay = 0.0
    # Changes with what a compiled step has taken in for good: the schedule.
    revision = 0

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        self.convert_arguments(kwargs)
        if kwargs:
            raise UnexpectedArgumentError(
                type(self).__name__,
                received=", ".join(kwargs),
                expected=f"{type(self).__name__}{inspect.signature(type(self))}",
            )
        super().__init__(name or auto_name(snake_case(type(self).__name__)))
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = use_ema
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._check_arguments()
        self._trainable_variables: list[Variable] = []
        self._averages: list[Variable | None] = []
        self._sums: list[Variable] = []
        self._rows: dict[Variable, Array] = {}
        self._not_decaying: tuple[set[Variable], list[str]] = (set(), [])
        self._iterations = self.add_variable((), dtype="int32", name="iteration")
        self._schedule = learning_rate if callable(learning_rate) else None
        self._rate: Variable | None = None
        if self._schedule is None:
            first = initializers.Constant(self._checked_rate(learning_rate))
            self._rate = self.add_variable((), first, "float32", name="learning_rate")

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Renames or drops arguments of Keras 2, in place."""
        if "lr" in kwargs:
            kwargs["learning_rate"] = kwargs.pop("lr")
        if kwargs.get("epsilon", 0) is None:  # Keras 2's word for its default
            del kwargs["epsilon"]
        if "decay" in kwargs:
            self.decay = float(kwargs.pop("decay") or 0.0)

    def _check_arguments(self) -> None:
        kind = type(self).__name__
        clips = ("clipnorm", "clipvalue", "global_clipnorm")
        given = [n for n in clips if getattr(self, n) is not None]
        if len(given) > 1:
            raise ArgumentError(kind, ", ".join(given), "one way of clipping")
        steps, often = self.gradient_accumulation_steps, self.ema_overwrite_frequency
        for name, wrong, expected in (
            ("gradient_accumulation_steps", steps and steps < 2, "a whole number above 1"),
            ("ema_momentum", not 0 <= self.ema_momentum <= 1, "a number between 0 and 1"),
            ("ema_overwrite_frequency", often is not None and often < 1, "a whole number above 0"),
        ):
            if wrong:
                raise ArgumentError(f"{kind}: {name}", repr(getattr(self, name)), expected)

    def _checked_rate(self, value: Any) -> Any:
        try:
            number = jnp.asarray(unwrap(value), jnp.float32)
        except (TypeError, ValueError):
            number = None
        if number is None or number.shape:
            raise ArgumentError(
                f"{self.name}: learning_rate", repr(value), "a number, a schedule or a function"
            )
        return number

    # --- state

    @property
    def iterations(self) -> Any:
        """The number of updates so far."""
        if self.gradient_accumulation_steps:
            return self._iterations.value // self.gradient_accumulation_steps
        return self._iterations

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the state for `variables`; extend it for state of your own."""
        if self.built:
            return
        self._trainable_variables = list(variables)
        self._index = {v: i for i, v in enumerate(variables)}
        if self.use_ema:
            self._averages = self.add_optimizer_variables(variables, "average")
        if self.gradient_accumulation_steps:
            self._sums = [
                self.add_variable_from_reference(v, "gradient_accumulator") for v in variables
            ]
        self.built = True

    # --- the learning rate

    @property
    def learning_rate(self) -> Any:
        """The learning rate now; setting it changes it, unless a schedule rules it."""
        return self._rate_now() if self._rate is None else self._rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if callable(value):
            self._variables = [v for v in self._variables if v is not self._rate]
            self._schedule, self._rate = value, None
            self.revision += 1
        elif self._rate is None:
            raise ArgumentError(
                f"{self.name}: learning_rate follows a schedule",
                received=repr(value),
                expected="a schedule",
                fix="make the optimizer with a number to set it later",
            )
        else:
            self._rate.assign(self._checked_rate(value))

    lr = learning_rate

    def _rate_now(self) -> Array:
        if self._rate is not None:
            rate = self._rate.value
            return rate / (1 + self.decay * self._iterations.value) if self.decay else rate
        schedule: Any = self._schedule
        by_step = isinstance(schedule, LearningRateSchedule)
        rate = schedule(self._iterations.value) if by_step else schedule()
        return jnp.asarray(rate, jnp.float32)

    # --- updates

    # Whether a row of a table whose gradient is 0 may stay as it is, and its state with it; and
    # whether it has to, because all rows at once would be another rule.
    rows_may_rest = rows_must_rest = False

    @property
    def updates_rows(self) -> bool:
        """Whether tables may be given the gradients of some of their rows."""
        all_rows = self.weight_decay or self.use_ema or self.gradient_accumulation_steps
        return self.rows_may_rest and not all_rows

    def apply_rows(
        self, grads: Sequence[Any], variables: Sequence[Variable], rows: Mapping[Variable, Array]
    ) -> None:
        """Updates as `apply` does, and of tables only some rows.

        Args:
            grads: In the order of `variables`; of tables those of the rows.
            variables: The weights.
            rows: By table, the numbers of its rows; those beyond its end are left out.
        """
        self._rows = dict(rows)
        try:
            self.apply(grads, variables)
        finally:
            self._rows = {}

    def update_step(self, gradient: Array, variable: Variable, learning_rate: Array) -> None:
        """Updates a weight by its gradient; override it."""
        raise ArgumentError(
            f"{type(self).__name__} has no update_step",
            fix="write update_step(self, gradient, variable, learning_rate)",
        )

    def scale_loss(self, loss: Any) -> Any:
        """Returns the loss times the loss scale."""
        return loss * self.loss_scale_factor if self.loss_scale_factor else loss

    def exclude_from_weight_decay(
        self, var_list: Iterable[Variable] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Leaves weights out of the decay, by themselves or by parts of their names."""
        if self.built:
            raise StateError(
                f"{self.name}.exclude_from_weight_decay after build",
                fix="call it before the first step",
            )
        self._not_decaying = set(var_list or ()), list(var_names or ())

    def _decays(self, variable: Variable) -> bool:
        variables, patterns = self._not_decaying
        return variable not in variables and not any(re.search(p, variable.name) for p in patterns)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Any:
        """Updates each Variable by its gradient; returns the counter of steps."""
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])
        return self._iterations

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None
    ) -> None:
        """Updates the Variables by their gradients, in order; None leaves one as it is."""
        if len(grads) == 0:
            return
        pairs = self._pairs(grads, trainable_variables)
        for gradient, variable in pairs:
            if variable.overwrite_with_gradient:
                variable.assign(gradient)
        pairs = [(g, v) for g, v in pairs if not v.overwrite_with_gradient]
        variables = [v for _, v in pairs]
        scale = self.loss_scale_factor
        gradients = [g / scale if scale else g for g, _ in pairs]
        if self.gradient_accumulation_steps:
            self._accumulate(gradients, variables)
        else:
            self._update(gradients, variables)
        if self.use_ema:
            self._average()
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable.value))
        self._iterations.assign_add(1)

    def _pairs(
        self, grads: Sequence[Any], variables: Sequence[Variable] | None
    ) -> list[tuple[Array, Variable]]:
        """Returns gradients, checked, with their Variables."""
        self._build_for(variables)
        known = self._trainable_variables if variables is None else list(variables)
        if len(grads) != len(known):
            raise DataError(
                f"{self.name}.apply", f"{len(grads)} gradients", f"{len(known)} of them"
            )
        if strange := [v.path for v in known if v not in self._index]:
            raise ArgumentError(
                f"{self.name} was built for other variables",
                received=", ".join(strange[:3]),
                expected=f"some of the {len(self._index)} that it was built for",
                fix="make a new optimizer, or compile the model again",
            )
        pairs = zip(grads, known, strict=True)
        pairs = [(jnp.asarray(unwrap(g)), v) for g, v in pairs if g is not None]
        if not pairs:
            raise DataError(f"{self.name}.apply", received="no gradients", expected="at least one")
        for gradient, variable in pairs:
            rows = self._rows.get(variable)
            shape = variable.shape if rows is None else (*rows.shape, *variable.shape[1:])
            if gradient.shape != shape:
                raise ShapeError(
                    f"{self.name}.apply: the gradient of '{variable.path}'",
                    received=f"shape {gradient.shape}",
                    expected=f"shape {shape}",
                )
        return pairs

    def _build_for(self, variables: Sequence[Variable] | None) -> None:
        if self.built:
            return
        if variables is None:
            raise ArgumentError(
                f"{self.name}.apply before build", fix="give it the trainable_variables"
            )
        self.build(variables)

    def _accumulate(self, gradients: list[Array], variables: list[Variable]) -> None:
        steps: Any = self.gradient_accumulation_steps
        sums = [self._sums[self._index[v]] for v in variables]
        totals = [s.value + g for s, g in zip(sums, gradients, strict=True)]
        due = (self._iterations.value + 1) % steps == 0
        means = [t / steps for t in totals]
        only_if(due, lambda: self._update(means, variables), [*variables, *self.variables])
        for held, total in zip(sums, totals, strict=True):
            held.assign(jnp.where(due, 0, total))

    def _update(self, gradients: list[Array], variables: list[Variable]) -> None:
        rate = self._rate_now()
        gradients = self._clipped(gradients)
        for variable in variables:
            if self.weight_decay and self._decays(variable):
                variable.assign_sub(variable.value * self.weight_decay * rate)
        self._update_each(gradients, variables, rate)

    def _update_each(self, gradients: list[Array], variables: list[Variable], rate: Array) -> None:
        for gradient, variable in zip(gradients, variables, strict=True):
            self.update_step(gradient.astype(variable.dtype), variable, rate)

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

    def _average(self) -> None:
        step = jnp.asarray(unwrap(self.iterations))
        # The first step takes the weight itself, as Keras does.
        keep = jnp.where(step == 0, 0.0, self.ema_momentum).astype(jnp.float32)
        for variable, average in zip(self._trainable_variables, self._averages, strict=True):
            if average is None:
                continue
            average.assign(keep * average.value + (1 - keep) * variable.value)
            if self.ema_overwrite_frequency:
                due = (step + 1) % self.ema_overwrite_frequency == 0
                variable.assign(jnp.where(due, average.value, variable.value))

    def finalize_variable_values(self, var_list: Iterable[Variable]) -> None:
        """Puts the running means into the weights, at the end of training with `use_ema`."""
        if self.use_ema and int(self._iterations) > 0:
            for variable in var_list:
                average = self._averages[self._index[variable]]
                if average is not None:
                    variable.assign(average.value)

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Any
    ) -> tuple[list[Any], list[Any]]:
        """Returns new weights and new state from values: a pure function."""
        where = f"{self.name}.stateless_apply"
        if not self.built:
            raise StateError(f"{where} before build", fix="optimizer.build(trainable_variables)")
        weights, state = self._trainable_variables, self.variables
        for name, values, known in (
            ("optimizer_variables", optimizer_variables, state),
            ("trainable_variables", trainable_variables, weights),
        ):
            if len(values) != len(known):
                raise StateError(
                    f"{where}: {name}", f"{len(values)} values", f"{len(known)}, one a Variable"
                )
        pure = functional(lambda: self.apply(grads, weights), [*weights, *state])
        new = pure([*trainable_variables, *optimizer_variables])[1]
        return new[: len(weights)], new[len(weights) :]

    # --- config

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, with the learning rate as it is now."""
        rate = self._schedule if self._rate is None else float(self._rate.settled)
        own = {n: getattr(self, n) for n in (*COMMON, *self.own_arguments)}
        config = {"name": self.name, "learning_rate": rate, **own}
        if self.decay:
            config["decay"] = self.decay
        parameters = inspect.signature(type(self).__init__).parameters.values()
        unnamed = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
        captured = {k: v for k, v in self._captured_arguments().items() if k not in unnamed}
        self.convert_arguments(captured)
        return {k: serialize(v) for k, v in (captured | config).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        """Makes an optimizer, without state, from `get_config()`."""
        with custom_object_scope(custom_objects):
            return super().from_config(config)


COMMON: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(Optimizer.__init__).parameters.items()
    if name not in ("self", "learning_rate", "name", "kwargs")
}
