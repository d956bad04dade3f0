"""Normalization over time and in groups, and of kernels: valid entries count, as in Keras."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from alphorn import layers
from promise import close

T, F = 6, 4
X = np.random.default_rng(0).normal(size=(3, T, F)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1]], bool)
ROWS = [(i, X[i : i + 1, MASK[i]]) for i in range(3)]  # each four steps long


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.GroupNormalization(2),
        lambda: layers.GroupNormalization(-1, center=False),
        lambda: layers.LayerNormalization(axis=1, center=False, scale=False),
        lambda: layers.UnitNormalization(axis=1),
        lambda: layers.UnitNormalization(axis=(1, 2)),
    ],
)
def test_statistics_over_time_are_those_of_the_row_alone(make: Any) -> None:
    layer = make()
    together = layer(np.where(MASK[..., None], X, np.nan), mask=MASK)
    assert (np.asarray(together.mask) == MASK).all()
    for i, row in ROWS:
        assert close(np.asarray(together.data)[i][MASK[i]], layer(row)[0], 1e-5)


def test_single_features_may_be_missing() -> None:
    entries = np.random.default_rng(1).random((3, T, F)) > 0.3
    x = np.where(entries, X, np.nan)
    grouped = layers.GroupNormalization(2, epsilon=0.0, center=False, scale=False)
    out = np.asarray(grouped(x, mask=entries).data)
    for i in range(3):
        for part in (slice(0, 2), slice(2, 4)):
            known = X[i, :, part][entries[i, :, part]]
            wanted = (known - known.mean()) / known.std()
            assert close(out[i, :, part][entries[i, :, part]], wanted, 1e-5)
    rms = np.asarray(layers.RMSNormalization(epsilon=0.0)(x, mask=entries).data)
    for i in range(3):
        for t in range(T):
            known = X[i, t][entries[i, t]]
            if known.size:
                wanted = known / np.sqrt(np.square(known).mean())
                assert close(rms[i, t][entries[i, t]], wanted, 1e-5)


def test_the_mean_square_over_time_counts_valid_steps() -> None:
    layer = layers.RMSNormalization(axis=1)
    together = np.asarray(layer(np.where(MASK[..., None], X, np.nan), mask=MASK).data)
    for i, row in ROWS:
        wanted = row[0] / np.sqrt(np.square(row[0]).mean(0) + 1e-6)
        assert close(together[i][MASK[i]], wanted, 1e-5)


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        *(("GroupNormalization", a) for a in (-1, 1, 2)),
        *(("LayerNormalization", a) for a in (-1, 1, (1, 2))),
        *(("RMSNormalization", a) for a in (-1, 2, (1, 2))),  # Keras's own fails on 1
    ],
)
def test_axes_are_keras_s(name: str, axis: Any) -> None:
    options = {"groups": 2} if name == "GroupNormalization" else {}
    ours = getattr(layers, name)(axis=axis, **options)
    theirs = getattr(keras.layers, name)(axis=axis, **options)
    ours.build(X.shape)
    theirs.build(X.shape)
    values = [np.linspace(0.5, 2, w.size).reshape(w.shape) for w in ours.weights]
    ours.set_weights(values)
    theirs.set_weights(values)
    assert close(ours(X), theirs(X), 1e-5)
    again = type(ours).from_config(ours.get_config())
    assert again.get_config() == ours.get_config()


def test_wrong_groups_are_named() -> None:
    with pytest.raises(alphorn.ArgumentError, match="groups"):
        layers.GroupNormalization(0)
    with pytest.raises(alphorn.ShapeError, match=r"4 features[\s\S]*multiple of 3"):
        layers.GroupNormalization(3)(X)
    with pytest.raises(alphorn.ShapeError, match="known number"):
        layers.GroupNormalization(2)(alphorn.Input((T, None)))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda L: L.Dense(3, activation="tanh"), (3, F)),
        (lambda L: L.Conv1D(3, 2), (3, T, F)),
    ],
    ids=["dense", "conv"],
)
def test_a_training_call_with_a_divided_kernel_is_keras_s(make: Any, shape: tuple) -> None:
    x = np.random.default_rng(2).normal(size=shape).astype("float32")
    ours = layers.SpectralNormalization(make(layers), power_iterations=2)
    theirs = keras.layers.SpectralNormalization(make(keras.layers), power_iterations=2)
    ours.build(x.shape)
    theirs.build(x.shape)
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    random = np.random.default_rng(3)
    values = [random.normal(size=w.shape).astype("float32") for w in ours.weights]

    def loss(layer: Any, trainable: list, others: list) -> Any:
        out, state = layer.stateless_call(trainable, others, x, training=True)
        return jnp.sum(jnp.square(out) * jnp.arange(1, 4)), (out, state)

    found = []
    for layer in (ours, theirs):
        layer.set_weights(values)
        trainable = [v.value for v in layer.trainable_variables]
        others = [v.value for v in layer.non_trainable_variables]
        run = jax.grad(lambda t, o, layer=layer: loss(layer, t, o), has_aux=True)
        grads, (out, state) = run(trainable, others)
        found.append([out, *state, *grads])
    for a, b in zip(*found, strict=True):
        assert close(a, b, 1e-4)


def test_training_and_use_divide_by_the_same_number() -> None:
    layer = layers.SpectralNormalization(layers.Dense(3, use_bias=False), power_iterations=30)
    layer.build((None, F))
    layer.layer.set_weights([np.random.default_rng(4).normal(size=(F, 3)) * 9])
    raw = layer.layer.get_weights()[0]
    used = layer(X[:, 0])
    assert close(used, layer(X[:, 0], training=True), 1e-4)
    assert close(used, X[:, 0] @ raw / np.linalg.svd(raw)[1][0], 1e-4)
    assert (layer.layer.get_weights()[0] == raw).all()


def test_a_divided_kernel_trains_and_its_mask_goes_on() -> None:
    inputs = alphorn.Input((None,), dtype="int32")
    embedded = layers.SpectralNormalization(layers.Embedding(9, F, mask_zero=True))(inputs)
    assert embedded.masked == 2
    hidden = layers.SpectralNormalization(layers.Dense(3, activation="tanh"))(embedded)
    model = alphorn.Model(inputs, layers.Dense(1)(layers.LSTM(3)(hidden)))
    model.compile("sgd", "mse")
    ids = np.array([[1, 2, 3, 0], [4, 5, 0, 0], [6, 0, 0, 0]])
    before = [np.array(w) for w in model.get_weights()]
    model.fit(ids, np.ones((3, 1)), verbose=0)
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    alone = model.predict(ids[1:2, :2], verbose=0)
    assert close(model.predict(ids, verbose=0)[1], alone[0], 1e-5)
    again = alphorn.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert close(again.predict(ids, verbose=0), model.predict(ids, verbose=0), 1e-6)


def test_what_has_no_kernel_cannot_be_divided() -> None:
    with pytest.raises(alphorn.ArgumentError, match=r"no kernel[\s\S]*TimeDistributed\(Spectral"):
        layers.SpectralNormalization(layers.TimeDistributed(layers.Dense(2)))(X)
    with pytest.raises(alphorn.ArgumentError, match="power_iterations"):
        layers.SpectralNormalization(layers.Dense(2), power_iterations=0)
