"""Layers of one's own: config and copies, masks, JAX inside, random numbers."""

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
X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
SEQUENCE = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], bool)


class Scale(keras.Layer):
    """As small as a layer with a weight can be."""

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factor")

    def call(self, inputs):
        return inputs * self.factor


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
TRAVELLERS = [c for c in LAYERS if c.name != "Lambda" and hasattr(peer.layers, c.name)]


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
