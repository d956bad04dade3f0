"""Learning rates that change with the step."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.errors import ArgumentError
from alphorn.fields import Configurable
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import register, serialize_object

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "deserialize",
    "serialize",
]


class LearningRateSchedule(Configurable):
    """Base of schedules: write `__call__(step)`, which returns a learning rate."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers built-in classes."""
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            register("schedules", cls)

    def __call__(self, step: Any) -> Array:
        """Returns the learning rate at `step`."""
        raise ArgumentError(f"{type(self).__name__} has no __call__", fix="write __call__(step)")


class _Decay(LearningRateSchedule):
    def after_init(self) -> None:
        """Checks the steps."""
        for name in ("decay_steps", "first_decay_steps"):
            steps = getattr(self, name, None)
            if steps is not None and steps <= 0:
                raise ArgumentError(f"{type(self).__name__}: {name}", steps, "a number above 0")


def _share(step: Any, steps: float, staircase: bool = False) -> Array:
    share = jnp.asarray(step, jnp.float32) / steps
    return jnp.floor(share) if staircase else share


class ExponentialDecay(_Decay):
    """`initial * rate ** (step / steps)`."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "ExponentialDecay"

    def __call__(self, step: Any) -> Array:
        """Returns the learning rate at `step`."""
        share = _share(step, self.decay_steps, self.staircase)
        return self.initial_learning_rate * jnp.power(jnp.float32(self.decay_rate), share)


class InverseTimeDecay(_Decay):
    """`initial / (1 + rate * step / steps)`."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "InverseTimeDecay"

    def __call__(self, step: Any) -> Array:
        """Returns the learning rate at `step`."""
        share = _share(step, self.decay_steps, self.staircase)
        return self.initial_learning_rate / (1 + self.decay_rate * share)


class PiecewiseConstantDecay(LearningRateSchedule):
    """One value up to each boundary, and one after the last."""

    boundaries: Sequence[float]
    values: Sequence[float]
    name: str = "PiecewiseConstant"

    def after_init(self) -> None:
        """Checks the lengths."""
        if len(self.values) != len(self.boundaries) + 1:
            raise ArgumentError(
                "PiecewiseConstantDecay",
                received=f"{len(self.boundaries)} boundaries and {len(self.values)} values",
                expected="one value more than boundaries",
            )

    def __call__(self, step: Any) -> Array:
        """Returns the learning rate at `step`."""
        passed = jnp.sum(jnp.asarray(step) > jnp.asarray(self.boundaries))
        return jnp.asarray(self.values, jnp.float32)[passed]


class PolynomialDecay(_Decay):
    """From the initial rate to an end along `(1 - step / steps) ** power`."""

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str = "PolynomialDecay"

    def __call__(self, step: Any) -> Array:
        """Returns the learning rate at `step`."""
        share = _share(step, self.decay_steps)
        if self.cycle:
            share = share / jnp.maximum(jnp.ceil(share), 1)
        left = jnp.power(1 - jnp.minimum(share, 1), self.power)
        return (self.initial_learning_rate - self.end_learning_rate) * left + self.end_learning_rate


class CosineDecay(_Decay):
    """Half a cosine down, after a warm-up where one is asked for (Loshchilov and Hutter, 2016)."""

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: str = "CosineDecay"
    warmup_target: Any = None
    warmup_steps: float = 0

    def __call__(self, step: Any) -> Array:
        """Returns the learning rate at `step`."""
        step = jnp.asarray(step, jnp.float32)
        top = self.initial_learning_rate if self.warmup_target is None else self.warmup_target
        after = step - (0 if self.warmup_target is None else self.warmup_steps)
        share = jnp.clip(after / self.decay_steps, 0, 1)
        cosine = 0.5 * (1 + jnp.cos(math.pi * share))
        decayed = top * ((1 - self.alpha) * cosine + self.alpha)
        if self.warmup_target is None:
            return decayed
        rise = jnp.minimum(step / max(self.warmup_steps, 1), 1)
        warming = self.initial_learning_rate + (top - self.initial_learning_rate) * rise
        return jnp.where(step < self.warmup_steps, warming, decayed)


class CosineDecayRestarts(_Decay):
    """Cosine decays one after another, each `t_mul` times as long (SGDR)."""

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str = "SGDRDecay"

    def __call__(self, step: Any) -> Array:
        """Returns the learning rate at `step`."""
        share = _share(step, self.first_decay_steps)
        if self.t_mul == 1.0:
            restart = jnp.floor(share)
            share = share - restart
        else:
            restart = jnp.floor(
                jnp.log(1 - share * (1 - self.t_mul)) / jnp.log(jnp.float32(self.t_mul))
            )
            passed = (1 - self.t_mul**restart) / (1 - self.t_mul)
            share = (share - passed) / self.t_mul**restart
        cosine = 0.5 * self.m_mul**restart * (1 + jnp.cos(math.pi * share))
        return self.initial_learning_rate * ((1 - self.alpha) * cosine + self.alpha)


def serialize(learning_rate_schedule: LearningRateSchedule) -> dict:
    """Returns a description of a schedule for files."""
    return serialize_object(learning_rate_schedule)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the schedule that `serialize` described."""
    return _deserialize(config, "schedules", custom_objects)
