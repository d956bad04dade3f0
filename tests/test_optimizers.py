"""Optimizers and schedules: Keras's numbers, step by step, and the state that files hold."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from rows_training import COMMON, OPTIMIZERS, SCHEDULES, Row

SHAPES = {"kernel": (2, 3), "bias": (3,)}
TOLERANCE = 1e-6


def close(a: Any, b: Any, tolerance: float = TOLERANCE, what: str = "") -> None:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, what
    assert np.isfinite(a).all(), what
    assert np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1), what


def start() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=s).astype("float32") for s in SHAPES.values()]


def gradients(steps: int = 5) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.normal(size=(steps, *s)).astype("float32") for s in SHAPES.values()]


def variables(namespace: Any = alphorn) -> list[Any]:
    return [namespace.Variable(x, name=n) for n, x in zip(SHAPES, start(), strict=True)]


def built(row: Row, namespace: Any) -> Any:
    optimizer = row.make(namespace.optimizers)
    optimizer.build(variables(namespace))
    return optimizer


def walk(optimizer: Any, grads: list) -> Any:
    """Returns the weights and the optimizer's state after each of the steps."""
    state = [v.value for v in optimizer.variables]

    @jax.jit
    def run(weights: list, state: list) -> Any:
        def step(carry: Any, grads: Any) -> Any:
            carry = optimizer.stateless_apply(carry[1], grads, carry[0])
            return carry, carry

        return jax.lax.scan(step, (weights, state), grads)[1]

    return jax.device_get(run(start(), state))


def test_every_optimizer_and_schedule_has_a_row() -> None:
    public = {n for n in alphorn.optimizers.__all__ if n[0].isupper()}
    assert public - {"Optimizer", "LossScaleOptimizer"} == {r.name for r in OPTIMIZERS}
    schedules = {n for n in alphorn.optimizers.schedules.__all__ if n[0].isupper()}
    assert schedules - {"LearningRateSchedule"} == {r.name for r in SCHEDULES}


@pytest.mark.parametrize("row", [*OPTIMIZERS, *COMMON], ids=str)
def test_weights_and_state_are_keras_s_after_each_step(row: Row) -> None:
    grads = gradients()
    if row.label == "dynamic":
        grads[0][2, 0, 0] = np.inf
    ours, theirs = (walk(built(row, m), grads) for m in (alphorn, keras))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        close(a, b, max(row.tolerance / 10, TOLERANCE))


@pytest.mark.parametrize("row", [*OPTIMIZERS, *COMMON], ids=str)
def test_state_has_keras_s_order_and_names(row: Row) -> None:
    keras.utils.clear_session()
    ours, theirs = built(row, alphorn), built(row, keras)
    assert ours.name == theirs.name
    described = [
        [(v.path, v.name, tuple(v.shape), v.dtype) for v in o.variables] for o in (ours, theirs)
    ]
    if row.name == "Nadam":  # Keras gives the product of momentums no name of its own
        assert described[0].pop()[1] == "u_product"
        assert described[1].pop()[0] == "variable"
    assert described[0] == described[1]


# --- learning rates


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


def steps_taken(model: Any, count: int) -> list[float]:
    """Returns how far each of `count` steps of a constant gradient of 1 went."""
    x, kernel = np.ones((1, 1), "float32"), model.trainable_variables[0]
    found = []
    for _ in range(count):
        before = float(kernel.value[0, 0])
        model.fit(x, x, verbose=0)
        found.append(before - float(kernel.value[0, 0]))
    return found


def straight(optimizer: Any) -> Any:
    model = alphorn.Sequential([alphorn.Input((1,)), alphorn.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, lambda y_true, y_pred: y_pred)
    return model


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


# --- a loss scale that moves


def test_a_fixed_loss_scale_changes_no_step() -> None:
    plain, scaled = alphorn.optimizers.SGD(0.5), alphorn.optimizers.SGD(0.5, loss_scale_factor=4.0)
    close(plain.scale_loss(3.0), 3.0)
    close(scaled.scale_loss(3.0), 12.0)
    close(steps_taken(straight(scaled), 2), steps_taken(straight(plain), 2))


# --- names and files


def test_a_restored_config_has_the_learning_rate_of_now() -> None:
    optimizer = alphorn.optimizers.Adam(0.5)
    optimizer.learning_rate = 0.25
    assert type(optimizer).from_config(optimizer.get_config()).learning_rate.numpy() == 0.25


def test_every_name_stands_for_what_it_does_in_keras() -> None:
    for row in OPTIMIZERS:
        for name in (row.name, row.name.lower(), row.name.upper()):
            ours, theirs = alphorn.optimizers.get(name), keras.optimizers.get(name)
            assert type(ours).__name__ == type(theirs).__name__
    made = alphorn.optimizers.SGD()
    assert alphorn.optimizers.get(made) is made
    assert type(alphorn.optimizers.get(alphorn.optimizers.Adam)) is alphorn.optimizers.Adam
    with pytest.raises(alphorn.ArgumentError, match="'adam'"):
        alphorn.optimizers.get("adamm")
    with pytest.raises(alphorn.ArgumentError, match="optimizer"):
        alphorn.optimizers.get(3)


def test_automatic_names() -> None:
    keras.utils.clear_session()
    for name in ("SGD", "RMSprop", "AdamW", "SGD"):
        assert getattr(alphorn.optimizers, name)().name == getattr(keras.optimizers, name)().name
    assert alphorn.optimizers.SGD(name="mine").variables[0].path == "mine/iteration"


# --- optimizers of one's own


class Signs(alphorn.Optimizer):
    """In the form that Keras's guide shows: state of its own and one step a weight."""

    def __init__(self, learning_rate: float = 0.1, beta: float = 0.5, **kwargs: Any):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta = beta

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.means = self.add_optimizer_variables(variables, "mean")
        self.total = self.add_variable((), name="total")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        mean = self.means[self._get_variable_index(variable)]
        self.assign(mean, self.beta * mean + (1 - self.beta) * gradient)
        self.assign_add(self.total, jnp.sum(jnp.abs(gradient)))
        self.assign_sub(variable, learning_rate * jnp.sign(mean))

    def get_config(self) -> dict:
        return super().get_config() | {"beta": self.beta}


# --- bad input
