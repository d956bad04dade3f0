"""What users of Keras have asked for since 2015 about masks, one test a complaint.

Each shows that Keras's answer depends on the padding, loses the mask or raises, and that ours is
what each row gets alone.
"""

import contextlib
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax.numpy as jnp
import keras as peer
import numpy as np
import pytest

import alphorn as keras
from alphorn import ops
from alphorn.core.masked import is_masked

# Keras says that a layer destroys the mask, and goes on.
pytestmark = pytest.mark.filterwarnings("ignore:Layer:UserWarning")
FEATURES = 4
RANDOM = np.random.default_rng(0)
ROWS = [RANDOM.normal(size=(n, FEATURES)).astype("float32") + 1 for n in (3, 5, 6)]
MASK = np.arange(9) < np.array([[3], [5], [6]])


def padded(rows=ROWS, time=9):
    return np.stack([np.pad(r, ((0, time - len(r)), (0, 0))) for r in rows])


def model_of(K, *layers):
    K.utils.set_random_seed(3)
    return K.Sequential([K.Input((None, FEATURES)), K.layers.Masking(), *layers])


def dependence(model, rows=ROWS):
    """How far a padded batch's answers are from those of the rows alone, over what a row has."""
    together = np.asarray(model(padded(rows)))
    alone = [np.asarray(model(r[None]))[0] for r in rows]
    return max(
        float(np.abs(t[: len(a)] - a).max()) if a.ndim > 1 else float(np.abs(t - a).max())
        for t, a in zip(together, alone, strict=True)
    )


def agrees_here_not_there(build, rows=ROWS):
    assert dependence(build(keras), rows) < 1e-5
    assert dependence(build(peer), rows) > 1e-3


def test_convolution_ignores_masks():
    agrees_here_not_there(
        lambda K: model_of(
            K,
            K.layers.Conv1D(5, 3, padding="same", bias_initializer="ones"),
            K.layers.Conv1D(5, 3, padding="same"),
            K.layers.GlobalAveragePooling1D(),
        )
    )


def test_flatten_and_reshape_drop_the_mask():
    def weights_of(K):
        inputs = K.Input((9, FEATURES))
        x = K.layers.Masking()(inputs)
        scores = K.layers.Flatten()(K.layers.Dense(1, kernel_initializer="ones")(x))
        weights = K.layers.Softmax()(scores)
        return K.Model(inputs, weights)

    ours, theirs = (np.asarray(weights_of(K)(padded())) for K in (keras, peer))
    wanted = np.where(MASK, np.exp(padded().sum(-1)), 0)
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(ours, wanted, atol=1e-5)
    assert np.abs(theirs - wanted).max() > 1e-3


@pytest.mark.parametrize("name", ["GlobalMaxPooling1D", "GlobalAveragePooling1D"])
def test_global_pooling_ignores_the_mask(name):
    below = [r - 5 for r in ROWS]  # the zeros of padding would be the largest
    build = lambda K: model_of(K, getattr(K.layers, name)())  # noqa: E731
    assert dependence(build(keras), below) < 1e-5
    if name == "GlobalMaxPooling1D":
        assert dependence(build(peer), below) > 1e-3


def test_windows_of_pooling_ignore_the_mask():
    agrees_here_not_there(
        lambda K: model_of(
            K,
            K.layers.Dense(4, bias_initializer="ones"),
            K.layers.AveragePooling1D(2, 1, padding="same"),
            K.layers.LSTM(3),
        )
    )


def test_a_mask_is_lost_without_a_word():
    def build(K):
        class Pool(K.layers.Layer):
            def call(self, x):
                return jnp.mean(x, axis=1)

        return model_of(K, Pool())

    with pytest.raises(keras.MaskError, match=r"(?s)jnp\.mean.*ops\.mean"):
        build(keras)
    assert dependence(build(peer)) > 1e-3


def test_operators_and_merges_drop_the_mask():
    def operators(K):
        inputs = K.Input((None, FEATURES))
        x = K.layers.Masking()(inputs)
        return K.Model(inputs, K.layers.GlobalAveragePooling1D()(x * 2 + 1))

    def with_an_unmasked_branch(K, merge):
        inputs = K.Input((None, FEATURES))
        x = K.layers.Masking()(inputs)
        joined = merge([x, K.layers.Activation("sigmoid")(inputs)])
        return K.Model(inputs, K.layers.GlobalAveragePooling1D()(joined))

    agrees_here_not_there(operators)
    for name in ("Add", "Concatenate"):
        agrees_here_not_there(
            lambda K, name=name: with_an_unmasked_branch(K, getattr(K.layers, name)())
        )


def test_hierarchical_models_count_empty_sentences():
    def build(K):
        K.utils.set_random_seed(3)
        words = K.Input((None,), dtype="int32")
        h = K.layers.Embedding(20, 4, mask_zero=True)(words)
        sentence = K.Model(words, K.layers.GRU(4, bias_initializer="ones")(h))
        document = K.Input((None, 4), dtype="int32")
        h = K.layers.TimeDistributed(sentence)(document)
        return K.Model(document, K.layers.GlobalAveragePooling1D()(h))

    text = np.array([[[3, 1, 4, 0], [5, 9, 0, 0]]], "int32")
    longer = np.pad(text, ((0, 0), (0, 3), (0, 0)))
    ours, theirs = build(keras), build(peer)
    np.testing.assert_allclose(ours(longer), ours(text), atol=1e-6)
    assert np.abs(np.asarray(theirs(longer)) - np.asarray(theirs(text))).max() > 1e-3


def test_backward_recurrent_layers_keep_the_mask_unturned():
    agrees_here_not_there(
        lambda K: model_of(
            K,
            K.layers.LSTM(4, go_backwards=True, return_sequences=True),
            K.layers.GlobalAveragePooling1D(),
        )
    )


def test_batch_statistics_count_padding():
    model = model_of(keras, keras.layers.BatchNormalization())
    model(padded(), training=True)
    steps = np.concatenate(ROWS)
    np.testing.assert_allclose(
        model.layers[-1].moving_mean, 0.01 * steps.mean(0), atol=1e-6, rtol=1e-4
    )


def test_lambdas_and_own_layers_lose_the_mask():
    def by_lambda(K):
        return model_of(
            K,
            K.layers.Lambda(lambda x: K.ops.tanh(x) + 1),
            K.layers.Lambda(lambda x: K.ops.mean(x, axis=1)),
        )

    def by_layer(K):
        class Attention(K.layers.Layer):
            def call(self, x):
                return K.ops.sum(K.ops.softmax(x, axis=1) * x, axis=1)

        return model_of(K, Attention())

    agrees_here_not_there(by_lambda)
    agrees_here_not_there(by_layer)


def test_a_softmax_layer_after_a_mask_raises():
    assert dependence(model_of(keras, keras.layers.Softmax(axis=1))) < 1e-5
    with pytest.raises(Exception, match=r"(?i)broadcast|incompatible"):
        dependence(model_of(peer, peer.layers.Softmax(axis=1)))


def test_a_loss_of_outputs_with_more_axes_raises():
    target = np.zeros((3, 9, 2, 2), "float32")

    def loss(K):
        K.utils.set_random_seed(3)
        model = K.Sequential(
            [K.Input((9, FEATURES)), K.layers.Masking(), K.layers.Reshape((9, 2, 2))]
        )
        model.compile("sgd", "mse")
        return model.evaluate(padded(), target, verbose=0)

    wanted = np.mean(np.concatenate(ROWS) ** 2)
    assert loss(keras) == pytest.approx(wanted, rel=1e-5)
    with contextlib.suppress(ValueError):  # it raises
        assert loss(peer) != pytest.approx(wanted, rel=1e-2)


def test_metrics_ignore_masks_and_fit_differs_from_evaluate():
    target = (RANDOM.uniform(size=(3, 9, 1)) > 0.5).astype("float32")
    target[~MASK] = 1.0

    def figures(K):
        model = model_of(K, K.layers.Dense(1, activation="sigmoid"))
        metrics = ["accuracy", K.metrics.AUC(name="auc"), K.metrics.Precision(name="precision")]
        model.compile(K.optimizers.SGD(0.0), "binary_crossentropy", metrics=metrics)
        seen = model.fit(padded(), target, batch_size=3, verbose=0).history
        after = model.evaluate(padded(), target, batch_size=3, verbose=0, return_dict=True)
        steps = model.predict(np.concatenate(ROWS)[None], verbose=0)[0, :, 0]
        true = target[MASK][:, 0]
        accuracy = np.mean((steps > 0.5) == true)
        precision = np.sum((steps > 0.5) * true) / max(np.sum(steps > 0.5), 1)
        wanted = {"accuracy": accuracy, "precision": precision}
        both = ({n: h[-1] for n, h in seen.items()}, after)
        gaps = [abs(found[k] - v) for k, v in wanted.items() for found in both]
        gaps.append(abs(seen["auc"][-1] - after["auc"]))
        return max(gaps)

    assert figures(keras) < 1e-5
    assert figures(peer) > 1e-3


def test_weights_of_rows_and_classes_raise_on_sequences():
    target = (RANDOM.uniform(size=(3, 9)) > 0.5).astype("int32")

    def loss(K, **weights):
        model = model_of(K, K.layers.Dense(2, activation="softmax", kernel_initializer="ones"))
        model.compile(K.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        return model.fit(padded(), target, verbose=0, **weights).history["loss"][0]

    row_weights = np.array([1.0, 0.0, 0.0], "float32")
    assert np.isfinite(loss(keras, sample_weight=row_weights))
    assert loss(keras, class_weight={0: 0.0, 1: 0.0}) == pytest.approx(0.0)
    for weights in ({"sample_weight": row_weights}, {"class_weight": {0: 0.0, 1: 0.0}}):
        with pytest.raises(Exception, match=r"(?i)broadcast|shape|incompatible"):
            loss(peer, **weights)


def test_ctc_uses_the_padded_length_of_every_row():
    labels, lengths = np.array([[1, 2], [2, 1], [1, 1]]), np.array([2, 2, 2])
    masked = keras.Masked(padded(), MASK)
    together = ops.ctc_loss(labels, masked, lengths, None)
    for i, row in enumerate(ROWS):
        alone = peer.ops.ctc_loss(labels[i : i + 1], row[None], lengths[:1], np.array([len(row)]))
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-5)
    assert not is_masked(together)


def test_convlstm_refuses_a_mask_of_steps():
    clips = RANDOM.normal(size=(2, 6, 5, 2)).astype("float32")
    mask = np.arange(6) < np.array([[3], [6]])

    def answer(K, x, **options):
        K.utils.set_random_seed(3)
        return np.asarray(K.layers.ConvLSTM1D(3, 2)(x, **options))

    together = answer(keras, clips, mask=mask)
    np.testing.assert_allclose(together[:1], answer(keras, clips[:1, :3]), atol=1e-6)
    with pytest.raises(Exception, match=r"broadcast|[Ii]ncompatible"):
        answer(peer, clips, mask=mask)
