"""The base class: what a layer of one's own may rely on, as in Keras."""

import os
import threading

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras as peer
import numpy as np
import pytest

import alphorn as keras
from alphorn.core.masked import Masked

L = keras.layers
BOTH = pytest.mark.parametrize("K", [keras, peer], ids=["alphorn", "keras"])
X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
SEQUENCE = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], bool)


def linear(K):
    """The layer of Keras's guide."""

    class Linear(K.layers.Layer):
        def __init__(self, units=4, **kwargs):
            super().__init__(**kwargs)
            self.units = units

        def build(self, input_shape):
            self.w = self.add_weight(shape=(input_shape[-1], self.units), name="w")
            self.b = self.add_weight(shape=(self.units,), initializer="zeros", name="b")

        def call(self, inputs):
            return K.ops.matmul(inputs, self.w) + self.b

    return Linear


# --- weights, names, switches


@BOTH
def test_add_weight_takes_every_argument(K):
    peer.utils.clear_session(free_memory=False)
    layer = K.layers.Layer(name="q")
    layer.built = True
    layer.add_weight((2, 3), "ones", name="a")
    layer.add_weight(shape=[2], initializer="ones", dtype="int32", name="b")
    layer.add_weight(shape=(2,), initializer="ones", trainable=False, name="c")
    layer.add_weight(shape=(2,), initializer="ones", regularizer="l2", name="d")
    layer.add_weight(shape=(2,), constraint="non_neg", name="e")
    layer.add_weight(name="f")
    layer.add_weight(shape=(2,), autocast=False, aggregation="mean", name="g")
    layer.add_weight(shape=(1,), dtype="bool", name="h")
    layer.add_weight(
        shape=(2, 2), initializer=lambda shape, dtype=None: np.full(shape, 7, dtype), name="i"
    )
    facts = [(w.path, tuple(w.shape), np.asarray(w).dtype.name, w.trainable) for w in layer.weights]
    assert facts == [
        ("q/a", (2, 3), "float32", True),
        ("q/b", (2,), "int32", True),
        ("q/d", (2,), "float32", True),
        ("q/e", (2,), "float32", True),
        ("q/f", (), "float32", True),
        ("q/g", (2,), "float32", True),
        ("q/h", (1,), "bool", True),
        ("q/i", (2, 2), "float32", True),
        ("q/c", (2,), "float32", False),
    ]
    assert [float(x) for x in layer.losses] == pytest.approx([0.02])
    assert layer.count_params() == 22
    assert np.asarray(layer.weights[7]).tolist() == [[7, 7], [7, 7]]
    assert layer.weights[3].constraint is not None


@BOTH
def test_weights_stand_in_keras_s_order(K):
    class Own(K.layers.Layer):
        def __init__(self):
            super().__init__(name="own")
            self.parts = [K.layers.Dense(2, name="a"), K.layers.BatchNormalization(name="n")]
            self.table = {"x": K.layers.Dense(3, name="x"), "y": K.layers.Dense(2, name="y")}
            self.last = (K.layers.Dense(1, name="t"),)

        def build(self, input_shape):
            self.still = self.add_weight(shape=(1,), trainable=False, name="still")
            self.w = self.add_weight(shape=(2,), name="w")

        def call(self, x):
            for layer in self.parts:
                x = layer(x)
            return self.last[0](x) + K.ops.sum(self.table["y"](x)) + K.ops.sum(self.table["x"](x))

    layer = Own()
    layer(X)
    order = "w still a/kernel a/bias n/gamma n/beta n/moving_mean n/moving_variance".split()
    order += "x/kernel x/bias y/kernel y/bias t/kernel t/bias".split()
    assert [w.path for w in layer.weights] == [f"own/{name}" for name in order]
    assert [w.name for w in layer.non_trainable_weights] == [
        "still",
        "moving_mean",
        "moving_variance",
    ]


@BOTH
def test_trainable_reaches_all_parts_before_and_after_building(K):
    class Block(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense, self.norm = K.layers.Dense(2), K.layers.BatchNormalization()

        def call(self, x, training=None):
            return self.norm(self.dense(x), training=training)

    block = Block()
    block.trainable = False
    block(X)
    assert len(block.trainable_weights) == 0
    assert not block.dense.trainable
    block.trainable = True
    assert (len(block.trainable_weights), len(block.non_trainable_weights)) == (4, 2)
    block.norm.trainable = False
    before = np.asarray(block.norm.moving_mean).copy()
    frozen = block(X, training=True)
    assert np.array_equal(block.norm.moving_mean, before)
    assert np.allclose(frozen, block(X, training=False))
    dense = K.layers.Dense(2, trainable=False)
    dense.build((None, 3))
    assert dense.trainable_weights == []
    dense.trainable = True
    assert len(dense.trainable_weights) == 2


@BOTH
@pytest.mark.parametrize("name", ["a/b", 3])
def test_a_name_is_a_string_without_slashes(K, name):
    with pytest.raises(ValueError, match="name"):
        K.layers.Dense(2, name=name)


def test_a_layer_that_forgot_its_base_says_so():
    class Forgot(keras.Layer):
        def __init__(self):
            pass

        def call(self, x):
            return x

    with pytest.raises(keras.StateError, match=r"super\(\).__init__"):
        Forgot()(X)


def test_states_that_are_set_as_attributes_are_found():
    class Counting(keras.Layer):
        def __init__(self):
            super().__init__()
            self.factor = keras.Variable(np.ones(3, "float32"), name="factor")
            self.calls = keras.Variable(0, trainable=False, dtype="int32", name="calls")
            self.mean = keras.metrics.Mean(name="mean")
            self.seed_generator = keras.random.SeedGenerator(3)

        def call(self, x):
            self.calls.assign_add(1)
            self.mean.update_state(x)
            return x * self.factor + keras.random.normal(x.shape, seed=self.seed_generator)

    layer = Counting()
    first, second = layer(X), layer(X)
    assert int(layer.calls.value) == 2
    assert float(layer.mean.result()) == pytest.approx(X.mean(), abs=1e-6)
    assert [w.name for w in layer.weights] == ["factor", "calls"]
    assert len(layer.variables) == 3
    assert not np.allclose(first, second)


def test_the_metrics_of_a_compiled_model_are_no_affair_of_the_model_around():
    class Counts(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.mean = L.Dense(1), keras.metrics.Mean(name="own")

        def call(self, x):
            return self.dense(x)

    inner, inputs = Counts(), keras.Input((3,))
    inner.compile("sgd", "mse", metrics=["mae"])
    inner.evaluate(X, X[:, :1], verbose=0)
    outer = keras.Model(inputs, inner(inputs))
    assert [m.name for m in outer.metrics] == ["own"]


# --- losses


@BOTH
def test_losses_are_those_of_the_last_call(K):
    class Adds(K.layers.Layer):
        def call(self, x):
            self.add_loss(K.ops.sum(x))
            return x

    class Outer(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = Adds()

        def call(self, x):
            return self.inner(x)

    outer = Outer()
    assert outer.losses == []
    outer(X)
    outer(2 * X)
    assert [float(x) for x in outer.losses] == pytest.approx([2 * X.sum()], rel=1e-5)


@BOTH
def test_penalties_of_weights_and_of_the_output_a_row(K):
    layer = K.layers.Dense(2, kernel_regularizer=K.regularizers.L2(0.1), activity_regularizer="l1")
    layer.build((None, 3))
    kernel = np.arange(6, dtype="float32").reshape(3, 2)
    layer.set_weights([kernel, np.zeros(2, "float32")])
    layer(X)
    penalties = [0.01 * np.abs(X @ kernel).sum() / len(X), 0.1 * (kernel**2).sum()]
    assert sorted(float(x) for x in layer.losses) == pytest.approx(sorted(penalties), rel=1e-5)


def test_the_penalty_of_an_output_counts_valid_steps_and_rows_that_exist():
    layer = L.Dense(2, activity_regularizer="l2", use_bias=False)
    layer(Masked(SEQUENCE, MASK))
    out = SEQUENCE @ np.asarray(layer.kernel)
    alone = [0.01 * (out[i][MASK[i]] ** 2).sum() for i in range(2)]
    assert float(layer.losses[0]) == pytest.approx(sum(alone) / 2, rel=1e-5)
    # Folded away, a padded step is a row: more padding must not thin the penalty out.
    figures = []
    for pad in (0, 3):
        wrapped = L.TimeDistributed(layer)
        wrapped(np.pad(SEQUENCE, ((0, 0), (0, pad), (0, 0))), mask=np.pad(MASK, ((0, 0), (0, pad))))
        figures.append(float(wrapped.losses[0]))
    assert figures[0] == pytest.approx(sum(alone) / MASK.sum(), rel=1e-5)
    assert figures[1] == pytest.approx(figures[0], rel=1e-6)


@BOTH
def test_fans_of_chosen_axes(K):
    shape, limits = (30, 2, 50), {"fan_in": 30, "fan_out": 50, "fan_avg": 40}
    for mode, fan in limits.items():
        draw = K.initializers.VarianceScaling(
            mode=mode, distribution="uniform", seed=1, input_axes=(0,), output_axes=(2,)
        )(shape)
        assert 3 / np.abs(np.asarray(draw)).max() ** 2 == pytest.approx(fan, rel=1e-2)


# --- building


@BOTH
def test_build_gets_the_shapes_of_what_came(K):
    class OfDict(K.layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(input_shape["a"][-1], input_shape["b"][-1]))

        def call(self, x):
            return K.ops.matmul(x["a"], self.w) + x["b"]

    class OfList(K.layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(input_shape[0][-1], input_shape[1][-1]))

        def call(self, x):
            return K.ops.matmul(x[0], self.w) + x[1]

    class OfTwo(K.layers.Layer):
        def build(self, a_shape, b_shape):
            self.w = self.add_weight(shape=(a_shape[-1], b_shape[-1]))

        def call(self, a, b):
            return K.ops.matmul(a, self.w) + b

    two = X[:, :2]
    for layer, args, kwargs in (
        (OfDict(), ({"a": X, "b": two},), {}),
        (OfList(), ([X, two],), {}),
        (OfTwo(), (X, two), {}),
        (OfTwo(), (X,), {"b": two}),
        (OfTwo(), (), {"b": two, "a": X}),
    ):
        assert tuple(layer(*args, **kwargs).shape) == (4, 2)
        assert [tuple(w.shape) for w in layer.weights] == [(3, 2)]


@BOTH
def test_build_may_be_called_by_hand(K):
    layer = linear(K)(5, name="lin")
    layer.build((None, 3))
    assert layer.built
    first = layer.get_weights()
    layer(X)
    assert all(np.array_equal(a, b) for a, b in zip(first, layer.get_weights(), strict=True))

    class Holds(K.layers.Layer):
        def build(self, input_shape):
            self.inner = K.layers.Dense(2)
            self.inner.build(input_shape)
            super().build(input_shape)

        def call(self, x):
            return self.inner(x)

    holds = Holds(name="holds")
    holds.build((None, 3))
    assert [w.name for w in holds.weights] == ["kernel", "bias"]
    assert tuple(holds(X).shape) == (4, 2)


@pytest.mark.parametrize("way", ["jit", "grad", "vmap", "scan", "functional"])
def test_a_layer_may_be_built_inside_a_transform(way):
    layer = linear(keras)(2)
    run = {
        "jit": lambda: keras.jit(layer)(X),
        "grad": lambda: jax.grad(lambda x: jnp.sum(layer(x)))(jnp.asarray(X)),
        "vmap": lambda: jax.vmap(lambda row: layer(row[None]))(jnp.asarray(X)),
        "scan": lambda: jax.lax.scan(lambda c, row: (c, layer(row[None])), 0, jnp.asarray(X)),
        "functional": lambda: keras.functional(layer, [])([], X),
    }[way]
    try:
        run()
    except keras.StateError as error:  # built all the same, and the way out is named
        assert way in ("vmap", "scan"), error
    assert layer.built
    assert not any(isinstance(w.value, jax.core.Tracer) for w in layer.weights)
    assert layer(X).shape == (4, 2)


def test_threads_build_a_layer_once():
    layer, start, outs = L.Dense(2), threading.Barrier(4), []

    def run():
        start.wait()
        outs.append(np.asarray(layer(X)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(layer.weights) == 2
    assert len(outs) == 4
    assert all(np.array_equal(out, outs[0]) for out in outs)


# --- calling


@BOTH
def test_training_flows_from_the_outermost_call(K):
    seen = []

    class Inner(K.layers.Layer):
        def call(self, x, training=None):
            seen.append(training)
            return x

    class Middle(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def call(self, x):
            return self.inner(x)

    class Outer(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.middle = Middle()

        def call(self, x, training=True):
            return self.middle(x)

    outer, middle = Outer(), Middle()
    _ = outer(X), middle(X)
    seen.clear()
    outer(X)
    outer(X, training=False)
    middle(X, training=True)
    middle(X)
    assert seen == [True, False, True, None]


@BOTH
def test_calls_of_many_forms(K):
    class Structured(K.layers.Layer):
        def call(self, x, *, scale=None, flag=False):
            first = x["a"][0] + x["b"]["c"][1]
            return {"o": first if scale is None else first * scale, "p": (x["a"][1], [first])}

    class Spread(K.layers.Layer):
        def call(self, *xs):
            return sum(xs)

    given = {"a": [X, 2 * X], "b": {"c": (X, 3 * X)}}
    out = Structured()(given, scale=X, flag=True)
    assert np.allclose(out["o"], 4 * X * X)
    assert np.allclose(out["p"][0], 2 * X)
    assert np.allclose(Spread()(X, X, X), 3 * X)
    a, b = K.Input((3,)), K.Input((3,))
    model = K.Model([a, b], Spread()(a, b))
    assert np.allclose(model([X, X]), 2 * X)
    with pytest.raises(TypeError, match="foo"):
        K.layers.Dense(2)(X, foo=3)


@BOTH
def test_a_layer_in_two_models_is_one_layer(K):
    dense = K.layers.Dense(2)
    a, b = K.Input((3,)), K.Input((3,))
    one, two = K.Model(a, dense(a)), K.Model(b, dense(b))
    one.set_weights([np.ones((3, 2), "float32"), np.zeros(2, "float32")])
    assert np.allclose(two(X), np.repeat(X.sum(1, keepdims=True), 2, 1), atol=1e-5)


# --- types


@BOTH
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_policies_set_the_types_of_weights_inputs_and_outputs(K, policy):
    seen = {}

    class Sees(K.layers.Layer):
        def build(self, x_shape, i_shape):
            self.w = self.add_weight(shape=(3,), initializer="ones")
            self.n = self.add_weight(shape=(3,), autocast=False)

        def call(self, x, i):
            types = (x, i, self.w + 0, self.n + 0)
            seen.update(zip("xiwn", (str(v.dtype) for v in types), strict=True))
            return x * self.w

    layer = Sees(dtype=policy)
    out = layer(X, np.arange(3))
    compute = policy.removeprefix("mixed_")
    variable = "float32" if policy.startswith("mixed") else policy
    assert (layer.compute_dtype, layer.variable_dtype, layer.dtype) == (compute, variable, variable)
    assert seen == {"x": compute, "i": "int32", "w": compute, "n": variable}
    assert str(out.dtype) == compute
    assert str(np.asarray(layer.w.value).dtype) == variable


@BOTH
def test_inputs_are_left_alone_without_autocast(K):
    class Sees(K.layers.Layer):
        def call(self, x):
            self.seen = str(x.dtype)
            return x

    loose, plain = Sees(dtype="mixed_bfloat16", autocast=False), Sees()
    _ = loose(X), plain(X.astype("float16"))
    assert (loose.seen, plain.seen) == ("float32", "float32")
