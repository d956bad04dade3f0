"""Keras's own mask protocol: one class body on the layers of both libraries."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras as peer
import numpy as np
import pytest

import alphorn as keras

pytestmark = pytest.mark.filterwarnings("ignore:Layer:UserWarning")
IDS = np.array([[3, 1, 4, 0, 0], [2, 7, 1, 8, 0], [5, 0, 0, 0, 0]], "int32")


def supports(K):
    class Supports(K.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True

        def call(self, x):
            return K.ops.tanh(x) + 1

    return Supports


def asks(K):
    class Asks(K.layers.Layer):
        def call(self, x, mask=None):
            weights = K.ops.expand_dims(K.ops.cast(mask, "float32"), -1)
            return K.ops.sum(x * weights, axis=1) / K.ops.sum(weights, axis=1)

    return Asks


def asks_and_supports(K):
    class AsksAndSupports(K.layers.Layer):
        supports_masking = True

        def call(self, x, mask=None):
            return x if mask is None else x * K.ops.cast(K.ops.expand_dims(mask, -1), x.dtype)

    return AsksAndSupports


def ends(K):
    class Ends(K.layers.Layer):
        def compute_mask(self, inputs, mask=None):
            return None

        def call(self, x, mask=None):
            return x if mask is None else K.ops.where(K.ops.expand_dims(mask, -1), x, 0.0)

    return Ends


def halves(K):
    class Halves(K.layers.Layer):
        """Every second step, and of the mask too."""

        def compute_mask(self, inputs, mask=None):
            return None if mask is None else mask[:, ::2]

        def call(self, x):
            return x[:, ::2]

    return Halves


def makes(K):
    class Makes(K.layers.Layer):
        def compute_mask(self, inputs, mask=None):
            return K.ops.any(K.ops.not_equal(inputs, 0.0), axis=-1)

        def call(self, x):
            return x

    return Makes


def results(body, K, tail):
    K.utils.set_random_seed(4)
    table = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    inputs = K.Input((None,), dtype="int32")
    x = K.layers.Embedding(10, 3, mask_zero=True, name="table")(inputs)
    x = body(K)(name="own")(x)
    model = K.Model(inputs, tail(K)(x))
    model.get_layer("table").set_weights([table])
    for layer in model.layers[3:]:
        layer.set_weights([np.full(w.shape, 0.3, "float32") for w in layer.get_weights()])
    model.compile("sgd", "mse")
    target = np.zeros((3, *model.output_shape[1:]), "float32")
    loss = model.fit(IDS, target, verbose=0, shuffle=False).history["loss"][0]
    return model.predict(IDS, verbose=0), loss


@pytest.mark.parametrize(
    ("body", "over_time"),
    [
        (supports, True),
        (asks, False),
        (asks_and_supports, True),
        (ends, True),
        (halves, True),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_layer_of_ones_own_does_what_it_does_in_keras(body, over_time):
    def tail(K):
        return K.layers.LSTM(2) if over_time else K.layers.Dense(2)

    (ours, our_loss), (theirs, their_loss) = (results(body, K, tail) for K in (keras, peer))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert our_loss == pytest.approx(their_loss, rel=1e-4)


def test_a_mask_that_a_layer_makes_itself():
    x = np.array([[[1.0, 2.0], [0.0, 0.0]], [[0.0, 3.0], [4.0, 0.0]]], "float32")
    for K in (keras, peer):
        inputs = K.Input((2, 2))
        out = K.layers.GlobalAveragePooling1D()(makes(K)()(inputs))
        found = np.asarray(K.Model(inputs, out)(x))
        np.testing.assert_allclose(found, [[1.0, 2.0], [2.0, 1.5]], atol=1e-6)
