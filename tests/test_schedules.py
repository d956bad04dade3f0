"""Learning rates: Keras's schedules, and what setting a rate does to a compiled step."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from nets import steps_taken, straight
from rows_training import SCHEDULES, Row

TOLERANCE = 1e-6


def close(a: Any, b: Any, tolerance: float = TOLERANCE, what: str = "") -> None:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, what
    assert np.isfinite(a).all(), what
    assert np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1), what


def test_every_schedule_has_a_row() -> None:
    schedules = {n for n in alphorn.optimizers.schedules.__all__ if n[0].isupper()}
    assert schedules - {"LearningRateSchedule"} == {r.name for r in SCHEDULES}


@pytest.mark.parametrize("row", SCHEDULES, ids=str)
def test_schedules_are_keras_s(row: Row) -> None:
    ours, theirs = row.make(alphorn.optimizers.schedules), row.make(keras.optimizers.schedules)
    steps = np.arange(20)

    @jax.jit
    def run(steps: Any) -> Any:
        return jax.lax.map(lambda s: (ours(s), theirs(s)), steps)

    for kind in ("int32", "float32"):
        a, b = run(steps.astype(kind))
        assert a.dtype == jnp.float32
        close(a, b)
    assert float(ours(3)) == pytest.approx(float(a[3]), rel=1e-6)


@pytest.mark.parametrize("row", SCHEDULES, ids=str)
def test_configs_of_schedules_travel_both_ways(row: Row) -> None:
    ours, theirs = row.make(alphorn.optimizers.schedules), row.make(keras.optimizers.schedules)
    config = alphorn.optimizers.schedules.serialize(ours)
    assert config == keras.optimizers.schedules.serialize(theirs)
    again = alphorn.optimizers.schedules.deserialize(config)
    assert type(again) is type(ours)
    assert again.get_config() == ours.get_config()


class Halving(alphorn.optimizers.schedules.LearningRateSchedule):
    def __init__(self, first: float = 1.0):
        self.first = first

    def __call__(self, step: Any) -> Any:
        return self.first * jnp.power(0.5, jnp.asarray(step, jnp.float32))

    def get_config(self) -> dict:
        return {"first": self.first}


def test_a_learning_rate_that_is_set_holds_from_the_next_step() -> None:
    model = straight(alphorn.optimizers.SGD(0.5))
    close(steps_taken(model, 1), [0.5])
    model.optimizer.learning_rate = 0.25
    close(steps_taken(model, 1), [0.25])
    model.optimizer.learning_rate.assign(0.125)
    close(steps_taken(model, 1), [0.125])
    model.optimizer.lr = jnp.float32(1.0)
    close(steps_taken(model, 1), [1.0])
    assert len(model.programs) == 1
    model.optimizer.learning_rate = Halving(2.0)  # steps 4 and 5
    close(steps_taken(model, 2), [2.0 / 16, 2.0 / 32])
    model.optimizer.learning_rate = Halving(4.0)
    close(steps_taken(model, 1), [4.0 / 64])
    close(model.optimizer.learning_rate, 4.0 / 128)


def test_a_schedule_in_fit_and_under_a_dynamic_scale() -> None:
    close(steps_taken(straight(alphorn.optimizers.SGD(Halving())), 3), [1.0, 0.5, 0.25])
    dynamic = alphorn.optimizers.LossScaleOptimizer(alphorn.optimizers.SGD(0.5))
    model = straight(dynamic)
    close(steps_taken(model, 1), [0.5])
    dynamic.learning_rate = 0.25
    close(steps_taken(model, 1), [0.25])
    close(dynamic.learning_rate, 0.25)


def test_a_learning_rate_of_a_schedule_cannot_be_set() -> None:
    for rate in (Halving(), lambda: 0.1):
        optimizer = alphorn.optimizers.SGD(rate)
        with pytest.raises(alphorn.ArgumentError, match="learning_rate"):
            optimizer.learning_rate = 0.1


def test_bad_arguments_are_named() -> None:
    schedules = alphorn.optimizers.schedules
    for make in (
        lambda S: S.ExponentialDecay(0.1, 0, 0.5),
        lambda S: S.InverseTimeDecay(0.1, 0, 0.5),
        lambda S: S.PolynomialDecay(0.1, 0),
        lambda S: S.CosineDecay(0.1, 0),
        lambda S: S.CosineDecayRestarts(0.1, 0),
    ):
        with pytest.raises(alphorn.ArgumentError, match="decay_steps"):
            make(schedules)
    with pytest.raises(alphorn.ArgumentError, match="PiecewiseConstantDecay"):
        schedules.PiecewiseConstantDecay([1], [0.1])
