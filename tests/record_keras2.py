"""Writes tests/data/keras2: models of Keras 2 in `.h5` files, with inputs and predictions.

Needs tf_keras, which is no dependency of the tests: run it in an environment of its own.

    python tests/record_keras2.py
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import tf_keras as keras
from tf_keras import layers

TO = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "keras2"
WORDS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [6, 2, 1, 3, 4]], "int32")


def numbers(*shape: int) -> np.ndarray:
    """Returns numbers that are the same at each run."""
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def written(name: str, model: keras.Model, *x: np.ndarray, steps: int = 0) -> None:
    """Trains a model a little, and writes it with what it makes of `x`."""
    given = list(x) if len(x) > 1 else x[0]
    targets = [np.zeros(p.shape, "float32") + 0.5 for p in listed(model.predict(given, verbose=0))]
    targets = targets if len(targets) > 1 else targets[0]
    for _ in range(steps):
        model.train_on_batch(given, targets)
    for i, weight in enumerate(model.weights):  # what starts at zero would hide a wrong order
        if weight.dtype.is_floating and not np.any(weight.numpy()):
            weight.assign(0.1 * np.random.default_rng(i).normal(size=weight.shape))
    model.save(TO / f"{name}.h5", save_format="h5")
    predictions = listed(model.predict(given, verbose=0))
    arrays = {f"x{i}": v for i, v in enumerate(x)} | {f"y{i}": v for i, v in enumerate(predictions)}
    if steps:
        model.train_on_batch(given, targets)
        after = listed(model.predict(given, verbose=0))
        arrays |= {f"after{i}": v for i, v in enumerate(after)}
    np.savez_compressed(TO / f"{name}.npz", **arrays)
    with h5py.File(TO / f"{name}.h5") as file:
        print(name, (TO / f"{name}.h5").stat().st_size, list(file))


def listed(x: object) -> list:
    """Returns a list of one or several."""
    return list(x) if isinstance(x, list | tuple) else [x]


def trained() -> keras.Model:
    """Returns a compiled functional model."""
    words = keras.Input((5,), dtype="int32", name="words")
    x = layers.Embedding(7, 3, mask_zero=True)(words)
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
    x = layers.BatchNormalization()(x)
    x = layers.LSTM(2, return_sequences=False)(x)
    model = keras.Model(words, layers.Dense(1, activation="sigmoid")(x))
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


def words_lstm() -> keras.Model:
    """Returns a Sequential model."""
    return keras.Sequential(
        [
            layers.Embedding(7, 3, mask_zero=True, input_length=5),
            layers.LSTM(2, recurrent_activation="hard_sigmoid"),
            layers.Dense(2, activation="softmax", kernel_regularizer="l2"),
        ]
    )


def convolutions() -> keras.Model:
    """Returns a compiled Sequential model of images."""
    model = keras.Sequential(
        [
            layers.Conv2D(2, 3, padding="same", input_shape=(4, 4, 1), activation="relu"),
            # fused, TensorFlow corrects the moving variance by n / (n - 1), which Keras never does
            layers.BatchNormalization(momentum=0.9, fused=False),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(2),
            layers.Flatten(),
            layers.Dense(2),
            layers.LeakyReLU(alpha=0.2),
        ]
    )
    model.compile(keras.optimizers.legacy.SGD(0.1, momentum=0.9), "mse")
    return model


def several() -> keras.Model:
    """Returns a model of two inputs and outputs, an inner model used twice and a shared layer."""
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    inside = keras.Input((3,))
    shared = layers.Dense(2, activation="tanh", name="shared")
    inner = keras.Model(inside, layers.BatchNormalization(name="bn")(shared(inside)), name="inner")
    left, right = inner(a), inner(b)
    column = keras.Sequential([layers.Dense(2, input_shape=(2,), name="in_column")], name="column")
    joined = layers.Concatenate(axis=-1)([column(left), right, layers.Add()([a, b])])
    out = [layers.Dense(1, name="one")(joined), layers.Dot(axes=1, name="two")([left, right])]
    return keras.Model([a, b], out, name="several")


def masked_gru(reset_after: bool) -> keras.Model:
    """Returns a model of a masked sequence."""
    return keras.Sequential(
        [
            layers.Masking(0.0, input_shape=(4, 2)),
            layers.GRU(3, return_sequences=True, reset_after=reset_after),
            layers.TimeDistributed(layers.Dense(2)),
            layers.Bidirectional(
                layers.GRU(2, reset_after=reset_after, recurrent_activation="sigmoid"),
                merge_mode="sum",
            ),
        ]
    )


def cells() -> keras.Model:
    """Returns a model of stacked cells, and states that pass from layer to layer."""
    x = keras.Input((4, 2))
    stacked = layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)], return_sequences=True)(x)
    _, h, c = layers.LSTM(2, return_state=True, name="encoder")(stacked)
    decoded = layers.LSTM(2, return_sequences=True, name="decoder")(x, initial_state=[h, c])
    attended = layers.Attention()([decoded, stacked[..., :2]])
    return keras.Model(x, layers.MultiHeadAttention(1, 2)(attended * 2.0, decoded + 1.0))


def main() -> None:
    """Writes them all."""
    keras.utils.set_random_seed(0)
    TO.mkdir(parents=True, exist_ok=True)
    steps = numbers(3, 4, 2)
    steps[0, 2:] = 0
    written("trained", trained(), WORDS, steps=3)
    model = words_lstm()
    model.build((None, 5))
    written("words_lstm", model, WORDS)
    written("convolutions", convolutions(), numbers(3, 4, 4, 1), steps=2)
    written("several", several(), numbers(2, 3), numbers(3, 3)[:2])
    written("gru_before", masked_gru(False), steps)
    written("gru_after", masked_gru(True), steps)
    written("cells", cells(), steps)


if __name__ == "__main__":
    main()
