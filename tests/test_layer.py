"""The base class: what a layer of one's own may rely on, as in Keras."""

import copy
import os
import pickle

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras as peer
import numpy as np
import pytest

import alphorn as keras
from alphorn.core.masked import Masked, is_masked
from cases import LAYERS

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


class Scale(keras.Layer):
    """As small as a layer with a weight can be."""

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")

    def call(self, inputs):
        return inputs * self.factor


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


# --- config and copies


def test_arguments_of_any_form_come_back_from_the_config():
    class Wraps(keras.Layer):
        def __init__(self, inner, *sizes, mode="a", **kwargs):
            super().__init__(**kwargs)
            self.inner, self.sizes, self.mode = inner, sizes, mode

        def call(self, x):
            return self.inner(x)

        @classmethod
        def from_config(cls, config):
            config = dict(config)
            inner = keras.layers.deserialize(config.pop("inner"))
            sizes = config.pop("sizes", ())
            return cls(inner, *sizes, **config)

    layer = Wraps(L.Dense(3, name="in"), 1, 2, mode="b", name="w", trainable=False)
    twin = Wraps.from_config(layer.get_config())
    assert twin.inner is not layer.inner
    assert (twin.inner.units, twin.sizes, twin.mode) == (3, (1, 2), "b")
    assert (twin.name, twin.trainable) == ("w", False)


# Each library's own description of a layer is the other's.
TRAVELLERS = [c for c in LAYERS if c.name not in ("Lambda",)]


@pytest.mark.parametrize("case", TRAVELLERS, ids=str)
def test_descriptions_travel_both_ways(case):
    ours, theirs = case.make(L), case.make(peer.layers)
    here = L.deserialize(peer.layers.serialize(theirs)).get_config()
    there = peer.layers.deserialize(L.serialize(ours)).get_config()
    for config, given in ((here, theirs.get_config()), (there, ours.get_config())):
        shared = {k: v for k, v in config.items() if k in given}
        known = ("name", "trainable", "dtype")
        assert {k: v for k, v in shared.items() if k not in known and not _nested(v)} == {
            k: given[k] for k in shared if k not in known and not _nested(given[k])
        }


def _nested(value):
    return isinstance(value, dict | list)


@pytest.mark.parametrize("case", [c for c in LAYERS if c.name != "Lambda"], ids=str)
def test_layers_can_be_copied_and_pickled(case):
    layer = case.make(L)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin is not layer
        assert twin.get_config() == layer.get_config()


def test_copies_of_a_built_layer_share_nothing():
    layer = L.Dense(2)
    layer(X)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert np.allclose(twin(X), layer(X))
        twin.kernel.assign(np.zeros((3, 2)))
        assert np.asarray(layer.kernel).any()


# --- masks in layers of one's own


def test_a_layer_without_a_rule_carries_the_mask_by_ops():
    out = Scale()(SEQUENCE, mask=MASK)
    assert np.array_equal(out.mask, MASK)

    class Mean(keras.Layer):
        def call(self, x):
            return keras.ops.mean(x, axis=1)

    mean = Mean()(SEQUENCE, mask=MASK)
    assert not is_masked(mean)
    assert np.allclose(mean[0], SEQUENCE[0, :3].mean(0), atol=1e-6)


def test_raw_jnp_in_a_layer_raises_and_names_the_line_to_write():
    class Raw(keras.Layer):
        def call(self, x):
            return jnp.mean(x, axis=1)

    with pytest.raises(keras.MaskError, match=r"(?s)jnp.mean.*ops.mean.*unmask"):
        Raw()(SEQUENCE, mask=MASK)


def test_keras_s_mask_protocol_in_each_of_its_forms():
    class Asks(keras.Layer):
        def call(self, inputs, mask=None):
            assert mask is None or not is_masked(inputs)
            return inputs if mask is None else jnp.where(mask[..., None], inputs, 0)

    class AsksInPlace(keras.Layer):
        def call(self, inputs, mask):
            return jnp.sum(inputs * mask[..., None], 1)

    class Supports(keras.Layer):
        supports_masking = True

        def call(self, inputs):
            return jnp.tanh(inputs)

    class SupportsByInit(keras.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def call(self, inputs):
            return jnp.tanh(inputs)

    class Ends(keras.Layer):
        def compute_mask(self, inputs, mask=None):
            return None

        def call(self, inputs):
            return jnp.tanh(inputs)

    class Wrong(keras.Layer):
        def compute_mask(self, inputs, mask=None):
            return mask[:, :2]

        def call(self, inputs):
            return inputs

    class Two(keras.Layer):
        def call(self, a, b, a_mask=None, b_mask=None):
            self.seen = (a_mask, b_mask)
            return a + b

    def masked():
        return Masked(SEQUENCE, MASK)

    assert np.array_equal(Asks()(masked()).mask, MASK)
    assert np.allclose(Asks()(SEQUENCE, mask=MASK).data[0, 3:], 0)
    assert AsksInPlace()(SEQUENCE, MASK).shape == (2, 3)
    assert np.array_equal(Supports()(masked()).mask, MASK)
    assert np.array_equal(SupportsByInit()(masked()).mask, MASK)
    assert not is_masked(Ends()(masked()))
    with pytest.raises(keras.MaskError, match="prefix"):
        Wrong()(masked())
    two = Two()
    two(masked(), SEQUENCE)
    assert np.array_equal(two.seen[0], MASK)
    assert two.seen[1] is None
    assert np.array_equal(L.Dense(2).compute_mask(SEQUENCE, MASK), MASK)
    assert L.LSTM(2).compute_mask(SEQUENCE, MASK) is None
    assert np.array_equal(
        L.Embedding(9, 2, mask_zero=True).compute_mask([[3, 0]])[0], [True, False]
    )


# --- JAX inside a layer


class Jaxish(keras.Layer):
    """A user's layer that is full of JAX."""

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(3, 3), initializer="glorot_uniform")
        self.fast = jax.jit(lambda x: jnp.dot(x, self.w))

    def call(self, x):
        x = self.fast(x)
        x = jax.checkpoint(lambda v: jnp.tanh(v @ self.w))(x)
        x = jax.lax.cond(jnp.sum(x) > 0, lambda v: v @ self.w, lambda v: v - self.w[0], x)
        return jax.lax.scan(lambda c, r: (c, r * self.w[1]), 0, x)[1]


def test_jax_inside_a_layer_sees_todays_weights():
    layer = Jaxish()

    def by_hand(w):
        x = np.tanh(X @ w @ w)
        x = x @ w if x.sum() > 0 else x - w[0]
        return x * w[1]

    fast = keras.jit(layer)
    for seed in (0, 1):
        w = np.random.default_rng(seed).normal(size=(3, 3)).astype("float32")
        layer.w.assign(w)
        assert np.allclose(layer(X), by_hand(w), atol=1e-5)
        assert np.allclose(fast(X), by_hand(w), atol=1e-5)
        assert np.allclose(layer.stateless_call([w], [], X)[0], by_hand(w), atol=1e-5)

    def loss(values, row):
        return jnp.sum(layer.stateless_call(values, [], row[None])[0] ** 2)

    rows = jax.vmap(jax.grad(loss), (None, 0))([layer.w.value], jnp.asarray(X))
    assert rows[0].shape == (4, 3, 3)
    assert np.isfinite(rows[0]).all()


def test_state_written_in_a_layers_checkpoint_needs_lifted():
    class Counts(keras.Layer):
        def __init__(self, lift):
            super().__init__()
            self.count = self.add_weight(initializer="zeros", trainable=False, name="count")
            self.lift = lift

        def step(self, x):
            self.count.assign_add(1)
            return x * 2

        def call(self, x):
            if self.lift:
                return keras.lifted(jax.checkpoint, self.step, [self.count])(x)
            return jax.checkpoint(self.step)(x)

    layer = Counts(True)
    _ = layer(X), keras.jit(layer)(X)
    assert float(layer.count) == 2
    with pytest.raises(keras.StateError, match="lifted"):
        keras.jit(Counts(False))(X)


def test_random_numbers_are_keras_s_functions():
    random, seed = keras.random, 1
    draws = {
        "normal": random.normal((400,), 2.0, 0.5, seed=seed),
        "truncated_normal": random.truncated_normal((400,), 2.0, 0.5, seed=seed),
        "uniform": random.uniform((400,), 1.0, 3.0, seed=seed),
        "randint": random.randint((400,), 1, 4, seed=seed),
        "gamma": random.gamma((400,), 2.0, seed=seed),
        "beta": random.beta((400,), 2.0, 2.0, seed=seed) * 4,
        "binomial": random.binomial((400,), 4, 0.5, seed=seed),
        "categorical": random.categorical(np.log([[0.0001, 0.0001, 1]]), 400, seed=seed)[0],
    }
    for name, draw in draws.items():
        assert draw.shape == (400,), name
        assert abs(float(jnp.mean(draw)) - 2) < 0.2, name
    assert set(np.asarray(draws["randint"])) == {1, 2, 3}
    assert np.array_equal(random.normal((3,), seed=2), random.normal((3,), seed=2))
    assert not np.array_equal(random.normal((3,)), random.normal((3,)))
    assert sorted(np.asarray(random.shuffle(jnp.arange(9), seed=1))) == list(range(9))
    kept = random.dropout(Masked(SEQUENCE, MASK), 0.5, seed=1)
    assert np.array_equal(kept.mask, MASK)
    for draw in (random.normal, random.uniform):
        assert np.array_equal(draw((2, 7, 3), seed=1)[:, :5], draw((2, 5, 3), seed=1))
    with pytest.raises(keras.StateError, match="SeedGenerator"):
        jax.jit(lambda: random.normal((2,)))()
    with pytest.raises(keras.MaskError, match="shuffle"):
        random.shuffle(Masked(SEQUENCE, MASK), axis=1)
