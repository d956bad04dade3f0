"""Optimizers and schedules: Keras's numbers, step by step, and the state that files hold."""

import inspect
import operator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from alphorn.constraints import NonNeg
from nets import steps_taken, straight
from rows_training import COMMON, OPTIMIZERS, Row

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


def test_every_optimizer_has_a_row() -> None:
    public = {n for n in alphorn.optimizers.__all__ if n[0].isupper()}
    own = {"LazyAdam"}  # tests/test_table_rows.py
    assert public - {"Optimizer", "LossScaleOptimizer"} - own == {r.name for r in OPTIMIZERS}


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
    keras.utils.clear_session(free_memory=False)
    ours, theirs = built(row, alphorn), built(row, keras)
    assert ours.name == theirs.name
    described = [
        [(v.path, v.name, tuple(v.shape), v.dtype) for v in o.variables] for o in (ours, theirs)
    ]
    if row.name == "Nadam":  # Keras gives the product of momentums no name of its own
        assert described[0].pop()[1] == "u_product"
        assert described[1].pop()[0] == "variable"
    assert described[0] == described[1]


def test_apply_in_every_way() -> None:
    grads = [g[0] for g in gradients()]
    found = []
    for way in ("apply", "pairs", "built", "partly"):
        optimizer, weights = alphorn.optimizers.Adam(0.1), variables()
        if way == "apply":
            optimizer.apply(grads, weights)
        elif way == "pairs":
            assert int(optimizer.apply_gradients(zip(grads, weights, strict=True))) == 1
        elif way == "built":
            optimizer.build(weights)
            optimizer.apply(grads)
        else:
            optimizer.build(weights)
            optimizer.apply([grads[0], None], weights)
            optimizer.apply_gradients([(None, weights[0]), (grads[1], weights[1])])
            assert int(optimizer.iterations) == 2
            close(weights[0], found[0][0])
            continue
        found.append([np.asarray(w) for w in weights])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            close(a, b)
    empty = alphorn.optimizers.SGD()
    empty.apply([], [])
    assert int(empty.iterations) == 0


def test_constraints_hold_after_an_update() -> None:
    results = []
    for namespace, constraint in ((alphorn, NonNeg()), (keras, keras.constraints.NonNeg())):
        weights = variables(namespace)
        weights[0].constraint = constraint
        optimizer = namespace.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.6)
        for i in range(2):
            optimizer.apply([jnp.asarray(g[i]) for g in gradients()], weights)
        results.append([*map(np.asarray, weights), *map(np.asarray, optimizer.variables)])
    assert results[0][0].min() == 0.0
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_weights_without_decay() -> None:
    zeros = [np.zeros(s, "float32") for s in SHAPES.values()]
    for how in ("names", "variables"):
        weights = variables()
        optimizer = alphorn.optimizers.SGD(0.5, weight_decay=0.1)
        options = {"var_names": ["bia"]} if how == "names" else {"var_list": [weights[1]]}
        optimizer.exclude_from_weight_decay(**options)
        optimizer.apply(zeros, weights)
        close(weights[0], start()[0] * 0.95)
        close(weights[1], start()[1])
        with pytest.raises(alphorn.StateError, match="exclude_from_weight_decay"):
            optimizer.exclude_from_weight_decay(var_names=["kernel"])


def test_averages_are_put_in_at_the_end_of_fit() -> None:
    x = np.ones((4, 2), "float32")
    model = alphorn.Sequential([alphorn.Input((2,)), alphorn.layers.Dense(1)])
    inner = alphorn.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    for optimizer in (inner, alphorn.optimizers.LossScaleOptimizer(inner, 8.0)):
        model.compile(optimizer, "mse")
        model.fit(x, x[:, :1], epochs=2, batch_size=2, verbose=0)
        averages = [v for v in inner.variables if v.name.endswith("average")]
        for weight, average in zip(model.trainable_variables, averages, strict=True):
            close(weight, average)


# --- a loss scale that moves


def test_gradients_that_are_not_finite_skip_a_step() -> None:
    optimizer = alphorn.optimizers.LossScaleOptimizer(
        alphorn.optimizers.SGD(0.5, momentum=0.9), initial_scale=8.0, dynamic_growth_steps=2
    )
    weights = variables()
    close(optimizer.scale_loss(2.0), 16.0)
    bad = [
        g[0] * np.where(np.arange(3) == 1, bad, 1)
        for g, bad in zip(gradients(), (np.inf, np.nan), strict=True)
    ]
    optimizer.apply(bad, weights)
    for weight, first in zip(weights, start(), strict=True):
        close(weight, first)
    assert (float(optimizer.dynamic_scale), int(optimizer.iterations)) == (4.0, 0)
    good = [4.0 * g[0] for g in gradients()]
    optimizer.apply(good, weights)
    for weight, first, g in zip(weights, start(), gradients(), strict=True):
        close(weight, first - 0.5 * g[0])
    optimizer.apply(good, weights)
    assert (float(optimizer.dynamic_scale), int(optimizer.iterations)) == (8.0, 2)


def test_a_fixed_loss_scale_changes_no_step() -> None:
    plain, scaled = alphorn.optimizers.SGD(0.5), alphorn.optimizers.SGD(0.5, loss_scale_factor=4.0)
    close(plain.scale_loss(3.0), 3.0)
    close(scaled.scale_loss(3.0), 12.0)
    close(steps_taken(straight(scaled), 2), steps_taken(straight(plain), 2))


# --- names and files


@pytest.mark.parametrize(
    "row", [r for r in [*OPTIMIZERS, *COMMON] if r.label != "callable"], ids=str
)
def test_configs_travel_both_ways(row: Row) -> None:
    keras.utils.clear_session(free_memory=False)
    ours, theirs = row.make(alphorn.optimizers), row.make(keras.optimizers)
    config = alphorn.optimizers.serialize(ours)
    assert config == keras.optimizers.serialize(theirs)
    again = alphorn.optimizers.deserialize(config)
    assert type(again) is type(ours)
    assert again.get_config() == ours.get_config()
    assert alphorn.optimizers.get(keras.optimizers.serialize(theirs)).name == ours.name
    assert keras.optimizers.deserialize(config).name == ours.name


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
    keras.utils.clear_session(free_memory=False)
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


def test_an_optimizer_of_ones_own() -> None:
    optimizer, weights = Signs(0.1, clipvalue=0.5), variables()
    optimizer.build(weights)
    names = [v.path for v in optimizer.variables]
    assert names == [
        f"signs/{n}" for n in ("iteration", "learning_rate", "kernel_mean", "bias_mean", "total")
    ]
    grads = gradients()
    weights, state = walk(optimizer, grads)
    mean, clipped = np.zeros(SHAPES["kernel"]), np.clip(grads[0], -0.5, 0.5)
    kernel = start()[0]
    for i in range(5):
        mean = 0.5 * mean + 0.5 * clipped[i]
        kernel = kernel - 0.1 * np.sign(mean)
        close(weights[0][i], kernel)
    close(state[4][-1], sum(np.abs(np.clip(g, -0.5, 0.5)).sum() for g in grads), 1e-5)
    config = alphorn.optimizers.serialize(optimizer)
    again = alphorn.optimizers.deserialize(config, {"Signs": Signs})
    assert (again.beta, again.clipvalue) == (0.5, 0.5)
    model = straight(Signs(0.25))
    close(steps_taken(model, 2), [0.25, 0.25])


class Centered(alphorn.optimizers.Adam):
    """Changes the gradient, leaves the rest to Adam, and holds a Variable that nobody listed."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)

    def build(self, variables: Any) -> None:
        super().build(variables)
        self.steps = alphorn.Variable(0, name="steps", trainable=False)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.steps.assign_add(1)
        super().update_step(gradient - jnp.mean(gradient), variable, learning_rate)


def test_a_built_in_optimizer_may_be_extended() -> None:
    optimizer, plain = Centered(0.05), alphorn.optimizers.Adam(0.05)
    assert optimizer.name == "centered"
    for o in (optimizer, plain):
        o.build(variables())
    grads = gradients()
    centered = [g - g.mean(tuple(range(1, g.ndim)), keepdims=True) for g in grads]
    (ours, state), (wanted, _) = walk(optimizer, grads), walk(plain, centered)
    for a, b in zip(ours, wanted, strict=True):
        close(a, b)
    close(state[-1], [2, 4, 6, 8, 10])
    with alphorn.utils.custom_object_scope({"Centered": Centered}):
        assert type(alphorn.optimizers.get("Centered")) is Centered
        again = alphorn.optimizers.deserialize(alphorn.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    close(again.learning_rate, 0.05)


def test_state_from_the_references() -> None:
    optimizer, theirs = alphorn.optimizers.SGD(), keras.optimizers.SGD()
    made = []
    for o, namespace in ((optimizer, alphorn), (theirs, keras)):
        weights = variables(namespace)
        o.build(weights)
        first, second = o.add_optimizer_variables(weights, ["a", "b"], ["ones", "zeros"])
        o.add_variable_from_reference(weights[0], initializer="ones")
        o.add_variable((2,), name="free")
        assert [o._get_variable_index(w) for w in weights] == [0, 1]
        assert [len(first), len(second)] == [2, 2]
        made.append([(v.name, tuple(v.shape), np.asarray(v).tolist()) for v in o.variables])
    assert made[0] == made[1]
    with pytest.raises(alphorn.ArgumentError, match="2 initializers"):
        optimizer.add_optimizer_variables(variables(), ["a"], ["ones", "zeros"])
    optimizer.set_weights([np.full(v.shape, 2) for v in optimizer.variables])
    assert all((np.asarray(v) == 2).all() for v in optimizer.variables)
    with pytest.raises(alphorn.DataError, match=r"sgd\.set_weights"):
        optimizer.set_weights([1])
    with pytest.raises(alphorn.ArgumentError, match="update_step"):
        alphorn.Optimizer(0.1).apply(start(), variables())


def test_a_variable_may_ask_for_its_gradient_as_value() -> None:
    found = []
    for namespace in (alphorn, keras):
        weights = variables(namespace)
        weights[0].overwrite_with_gradient = True
        optimizer = namespace.optimizers.Adam(0.1, loss_scale_factor=2.0, clipnorm=0.1)
        optimizer.apply([jnp.asarray(g[0]) for g in gradients()], weights)
        found.append([*map(np.asarray, weights), *map(np.asarray, optimizer.variables)])
    close(found[0][0], gradients()[0][0])
    for a, b in zip(*found, strict=True):
        close(a, b)


def test_arguments_of_keras_2() -> None:
    optimizer = alphorn.optimizers.Adam(lr=0.25, decay=0.0)
    close(optimizer.learning_rate, 0.25)
    assert type(optimizer).from_config(optimizer.get_config()).learning_rate.numpy() == 0.25
    optimizer = alphorn.optimizers.SGD(lr=0.1, decay=0.5)
    weight = alphorn.Variable(1.0)
    for _ in range(3):  # by 0.1 / 1, 0.1 / 1.5, 0.1 / 2
        optimizer.apply([1.0], [weight])
    close(weight.numpy(), 1 - 0.1 - 0.1 / 1.5 - 0.05)
    assert type(optimizer).from_config(optimizer.get_config()).decay == 0.5
    optimizer.lr = 0.2
    close(optimizer.lr, 0.2)


def test_signatures_are_keras_s() -> None:
    def described(target: Any) -> list:
        parameters = inspect.signature(target).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    for room in ("optimizers", "optimizers.schedules"):
        ours, theirs = (operator.attrgetter(room)(m) for m in (alphorn, keras))
        for name in ours.__all__:
            if name not in ("schedules", "LearningRateSchedule"):
                like = name.removeprefix("Lazy")
                assert described(getattr(ours, name)) == described(getattr(theirs, like)), name


# --- bad input


def test_bad_arguments_are_named() -> None:
    M = alphorn.optimizers
    with pytest.raises(alphorn.ArgumentError, match=r"Adam[\s\S]*clipnorm, clipvalue"):
        M.Adam(clipnorm=1.0, clipvalue=0.5)
    with pytest.raises(alphorn.UnexpectedArgumentError, match=r"Adam[\s\S]*momentun"):
        M.Adam(momentun=0.9)
    with pytest.raises(alphorn.ArgumentError, match="gradient_accumulation_steps"):
        M.SGD(gradient_accumulation_steps=1)
    with pytest.raises(alphorn.ArgumentError, match="ema_momentum"):
        M.SGD(use_ema=True, ema_momentum=1.5)
    with pytest.raises(alphorn.ArgumentError, match="ema_overwrite_frequency"):
        M.SGD(use_ema=True, ema_overwrite_frequency=0)
    with pytest.raises(alphorn.ArgumentError, match="learning_rate"):
        M.SGD("fast")
    with pytest.raises(alphorn.ArgumentError, match=r"clipnorm[\s\S]*inner_optimizer"):
        M.LossScaleOptimizer(M.SGD(), clipnorm=1.0)
    with pytest.raises(TypeError, match="inner_optimizer"):
        M.LossScaleOptimizer()
    with pytest.raises(alphorn.ArgumentError, match="inner_optimizer"):
        M.LossScaleOptimizer("adam")
    for name, wrong in (
        ("SGD: momentum", lambda: M.SGD(momentum=-0.5)),
        ("Lion: beta_1", lambda: M.Lion(beta_1=0.0)),
        ("AdamW: weight_decay", lambda: M.AdamW(weight_decay=None)),
        ("sgd: learning_rate", lambda: setattr(M.SGD(name="sgd"), "learning_rate", [0.1, 0.2])),
    ):
        with pytest.raises(alphorn.ArgumentError, match=name):
            wrong()


def test_gradients_that_do_not_fit_are_named() -> None:
    weights, grads = variables(), [g[0] for g in gradients()]
    optimizer = alphorn.optimizers.SGD(name="mine")
    with pytest.raises(alphorn.ArgumentError, match=r"mine.apply before build"):
        optimizer.apply(grads)
    with pytest.raises(alphorn.StateError, match=r"mine.stateless_apply before build"):
        optimizer.stateless_apply([], grads, start())
    optimizer.build(weights)
    with pytest.raises(alphorn.DataError, match=r"mine.apply[\s\S]*1 gradients[\s\S]*2"):
        optimizer.apply(grads[:1])
    with pytest.raises(alphorn.DataError, match="no gradients"):
        optimizer.apply([None, None])
    with pytest.raises(alphorn.ArgumentError, match="built for other variables"):
        optimizer.apply(grads, variables())
    with pytest.raises(alphorn.ShapeError, match=r"mine.apply[\s\S]*kernel[\s\S]*\(3,\)"):
        optimizer.apply([grads[1], grads[0]])
    with pytest.raises(alphorn.StateError, match="stateless_apply"):
        optimizer.stateless_apply([0], grads, start())
