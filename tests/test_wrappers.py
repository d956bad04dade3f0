"""Bidirectional and TimeDistributed: Keras's numbers, and where the mask goes."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from alphorn.core.layer import Layer
from alphorn.core.masked import Masked, mask_of, unmask
from alphorn.core.transforms import functional
from alphorn.errors import ArgumentError
from alphorn.layers.convolution import Conv1D
from alphorn.layers.core import Input
from alphorn.layers.dense import Dense
from alphorn.layers.embedding import Embedding
from alphorn.layers.recurrent import GRU, LSTM
from alphorn.layers.wrappers import Bidirectional, TimeDistributed
from alphorn.models import Sequential

B, T, F, U = 3, 6, 4, 5
X = np.random.default_rng(0).normal(size=(B, T, F)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1]], bool)


def flat(result):
    """Plain arrays of a result."""
    found = result if isinstance(result, list | tuple) else [result]
    return [np.asarray(unmask(r), np.float32) for r in found]


def close(actual, desired, tolerance=1e-5):
    actual, desired = flat(actual), flat(desired)
    assert [a.shape for a in actual] == [d.shape for d in desired]
    for a, d in zip(actual, desired, strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a - d).max(initial=0) <= tolerance * max(1.0, np.abs(d).max(initial=0))


def pair(ours, theirs, shape=(B, T, F)):
    """Both layers built, with the same random weights."""
    rng = np.random.default_rng(1)
    for layer in (ours, theirs):
        if not layer.built:
            layer.build(shape)
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    values = [rng.normal(size=w.shape).astype("float32") * 0.4 for w in theirs.weights]
    theirs.set_weights(values)
    ours.set_weights(values)
    return ours, theirs


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_bidirectional_is_keras(merge_mode):
    for options in (
        {},
        {"return_sequences": True, "return_state": True},
    ):
        ours, theirs = pair(
            Bidirectional(LSTM(U, **options), merge_mode=merge_mode, name="b"),
            keras.layers.Bidirectional(
                keras.layers.LSTM(U, **options), merge_mode=merge_mode, name="b"
            ),
        )
        close(ours(X), theirs(X))
        masked = ours(X, mask=MASK)
        for leaf in jax.tree.leaves(masked, is_leaf=lambda m: isinstance(m, Masked)):
            assert (mask_of(leaf) is not None) == (leaf.ndim == 3)


def test_bidirectional_options():
    states = list(np.random.default_rng(5).normal(size=(4, B, U)).astype("float32"))
    ours, theirs = pair(Bidirectional(LSTM(U)), keras.layers.Bidirectional(keras.layers.LSTM(U)))
    close(ours(X, initial_state=states), theirs(X, initial_state=states))
    again = Bidirectional(LSTM(U), weights=ours.get_weights())
    close(again(X), ours(X))
    other, theirs = pair(
        Bidirectional(LSTM(U), backward_layer=GRU(3, go_backwards=True)),
        keras.layers.Bidirectional(
            keras.layers.LSTM(U), backward_layer=keras.layers.GRU(3, go_backwards=True)
        ),
    )
    close(other(X), theirs(X))
    options = {"return_sequences": True}
    turned, theirs = pair(
        Bidirectional(LSTM(U, go_backwards=True, **options), backward_layer=GRU(U, **options)),
        keras.layers.Bidirectional(
            keras.layers.LSTM(U, go_backwards=True, **options),
            backward_layer=keras.layers.GRU(U, **options),
        ),
    )
    close(turned(X), theirs(X))
    for layer in (ours, other, turned):
        copy = type(layer).from_config(layer.get_config())
        copy.build((B, T, F))
        copy.set_weights(layer.get_weights())
        close(copy(X), layer(X))
    with pytest.raises(ArgumentError, match="merge_mode"):
        Bidirectional(LSTM(U), merge_mode="max")
    with pytest.raises(ArgumentError, match="recurrent layer"):
        Bidirectional(Dense(3))
    with pytest.raises(ArgumentError, match="one direction"):
        Bidirectional(LSTM(U), backward_layer=LSTM(U))
    with pytest.raises(ArgumentError, match="return_state"):
        Bidirectional(LSTM(U), backward_layer=LSTM(U, go_backwards=True, return_state=True))


def test_time_distributed_is_keras():
    x = np.random.default_rng(6).normal(size=(B, T, 3, F)).astype("float32")
    for make in (
        lambda layers: layers.TimeDistributed(layers.Dense(2)),
        lambda layers: layers.TimeDistributed(layers.LSTM(U, return_sequences=True)),
    ):

        class layers:
            Dense, LSTM, TimeDistributed = Dense, LSTM, TimeDistributed

        ours, theirs = pair(make(layers), make(keras.layers), x.shape)
        close(ours(x), theirs(x))
        masked = ours(np.where(MASK[..., None, None], x, np.nan), mask=MASK)
        inside = (slice(None), slice(None), *[None] * (masked.mask.ndim - 2))
        np.testing.assert_array_equal(masked.mask, np.broadcast_to(MASK[inside], masked.mask.shape))
        close(masked.data[MASK], theirs(x)[jnp.asarray(MASK)])
        assert not np.asarray(masked.data)[~MASK].any()


def test_time_distributed_hands_on_the_rest_of_the_mask():
    words = np.array([[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]], bool)
    x = np.random.default_rng(7).normal(size=(2, 2, 3, F)).astype("float32")
    sentences = TimeDistributed(Bidirectional(GRU(U)))
    documents = GRU(U)
    outputs = sentences(np.where(words[..., None], x, np.nan), mask=words)
    np.testing.assert_array_equal(outputs.mask, words.any(-1))
    close(outputs.data[0, 1], sentences(x[:1, 1:, :1])[0, 0])
    close(documents(outputs)[1:], documents(sentences(x[1:, :1])))
    kept = TimeDistributed(LSTM(U, return_sequences=True))(x, mask=words)
    np.testing.assert_array_equal(kept.mask, words)
    assert not np.asarray(kept.data)[1, 1].any()


def test_time_distributed_sees_masks_that_are_born_inside():
    class Sentences(Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.embedding = Embedding(9, F, mask_zero=True)
            self.recurrent = GRU(U)

        def call(self, ids):
            return self.recurrent(self.embedding(ids))

    ids = np.array([[[1, 2, 0], [3, 0, 0], [0, 0, 0]], [[4, 5, 6], [0, 0, 0], [0, 0, 0]]])
    inner = Sentences()
    layer = TimeDistributed(inner)
    eager = layer(ids)
    jitted, _ = jax.jit(functional(layer, layer.variables))([v.value for v in layer.variables], ids)
    for outputs in (eager, jitted):
        np.testing.assert_array_equal(outputs.mask, ids.any(-1))
        close(outputs.data[0, 1], inner(ids[0, 1:2, :1])[0])
        assert not np.asarray(outputs.data)[~ids.any(-1)].any()
    assert layer(Input((None, None), dtype="int32")).masked
    embedded = TimeDistributed(Embedding(9, F, mask_zero=True))(ids)
    np.testing.assert_array_equal(embedded.mask, ids > 0)


def test_time_distributed_tells_the_inner_layer_which_rows_exist():
    seen = []

    class Watching(Layer):
        def call(self, rows):
            seen.append(mask_of(rows))
            return rows

    TimeDistributed(Watching())(X, mask=MASK)
    np.testing.assert_array_equal(seen[-1], MASK.reshape(-1))
    rows = TimeDistributed(Watching())(X, mask=MASK.any(1) & [True, False, True])
    np.testing.assert_array_equal(rows.mask, [[True] * T, [False] * T, [True] * T])


WORDS = np.array([[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]], bool)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimeDistributed(Conv1D(2, 2, padding="same")),
        lambda: TimeDistributed(TimeDistributed(Dense(2, activation="tanh"))),
        lambda: TimeDistributed(LSTM(U, return_sequences=True)),
        lambda: TimeDistributed(Sequential([Dense(3), GRU(U, return_sequences=True)])),
    ],
    ids=["Conv1D", "twice", "LSTM", "Sequential"],
)
def test_sentences_of_documents_are_as_alone(make):
    layer = make()
    x = np.random.default_rng(8).normal(size=(2, 2, 3, F)).astype("float32")
    together = layer(np.where(WORDS[..., None], x, np.nan), mask=WORDS)
    np.testing.assert_array_equal(together.mask, WORDS)
    for i, j, length in ((0, 0, 2), (0, 1, 1), (1, 0, 3)):
        alone = layer(x[i : i + 1, j : j + 1, :length])
        close(together.data[i, j, :length], alone[0, 0])
