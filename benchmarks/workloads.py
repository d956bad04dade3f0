"""One workload on one module that speaks Keras, as a line of JSON.

    python -m benchmarks.workloads alphorn lstm

The source is the same for every module: only the import differs. `import_s` is the time of the
import alone, `first_s` that of the first epoch (compilation included), `train_us` and `predict_us`
the best of several later epochs, a sample. `loss` shows that the same work was done.
"""

import argparse
import importlib
import json
import os
import resource
import time
from typing import Any

import numpy as np

from benchmarks.data import TIME, WORDS, inputs_and_targets, seconds

os.environ.setdefault("KERAS_BACKEND", "jax")


def text_model(keras: Any, name: str) -> Any:
    """Returns a model of `(batch, 200)` ids that ends in one number."""
    layers = keras.layers
    words = keras.Input((TIME,), dtype="int32")
    h = layers.Embedding(WORDS, 128, mask_zero=True)(words)
    if name == "lstm":
        h = layers.LSTM(128)(h)
    elif name == "gru":
        h = layers.GRU(128)(h)
    elif name == "bilstm":
        h = layers.Bidirectional(layers.LSTM(64, return_sequences=True))(h)
        h = layers.Bidirectional(layers.LSTM(64))(h)
    elif name == "textcnn":
        windows = [layers.Conv1D(64, width, activation="relu")(h) for width in (3, 4, 5)]
        h = layers.Concatenate()([layers.GlobalMaxPooling1D()(w) for w in windows])
    elif name == "transformer":
        for _ in range(2):
            n = layers.LayerNormalization()(h)
            h = layers.Add()([h, layers.MultiHeadAttention(4, 32)(n, n)])
            n = layers.LayerNormalization()(h)
            h = layers.Add()([h, layers.Dense(128)(layers.Dense(256, activation="gelu")(n))])
        h = layers.GlobalAveragePooling1D()(h)
    model = keras.Model(words, layers.Dense(1, activation="sigmoid")(h))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def tagger(keras: Any) -> Any:
    """Returns a model that gives each word one of nine classes."""
    layers = keras.layers
    words = keras.Input((TIME,), dtype="int32")
    h = layers.Embedding(WORDS, 64, mask_zero=True)(words)
    h = layers.Bidirectional(layers.LSTM(64, return_sequences=True))(h)
    model = keras.Model(words, layers.TimeDistributed(layers.Dense(9, activation="softmax"))(h))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def hierarchical(keras: Any) -> Any:
    """Returns a model of documents of 12 sentences of 30 words."""
    layers = keras.layers
    words = keras.Input((30,), dtype="int32")
    h = layers.Embedding(WORDS, 100, mask_zero=True)(words)
    sentence = keras.Model(words, layers.Bidirectional(layers.GRU(50))(h))
    document = keras.Input((12, 30), dtype="int32")
    h = layers.Bidirectional(layers.GRU(50))(layers.TimeDistributed(sentence)(document))
    model = keras.Model(document, layers.Dense(1, activation="sigmoid")(h))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def perceptron(keras: Any) -> Any:
    """Returns a 784-128-64-1 network."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(128, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def images(keras: Any) -> Any:
    """Returns a small convolutional network."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


OTHERS = {"mlp": perceptron, "han": hierarchical, "tagger": tagger, "cnn2d": images}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("workload")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--grouped", action="store_true", help="fit(group_by_length=True)")
    options = parser.parse_args()

    began = time.perf_counter()
    keras = importlib.import_module(options.module)
    figures: dict[str, Any] = {"import_s": time.perf_counter() - began}
    if options.workload != "import":
        keras.utils.set_random_seed(11)
        x, y = inputs_and_targets(options.workload, options.samples)
        made = OTHERS.get(options.workload)
        model = text_model(keras, options.workload) if made is None else made(keras)
        grouped = {"group_by_length": True} if options.grouped else {}

        def fit() -> None:
            model.fit(x, y, batch_size=options.batch, verbose=0, **grouped)

        def predict() -> None:
            model.predict(x, batch_size=options.batch, verbose=0)

        figures["first_s"] = seconds(fit)
        fit()
        figures["train_us"] = min(seconds(fit) for _ in range(options.epochs)) / len(x) * 1e6
        predict()
        figures["predict_us"] = min(seconds(predict) for _ in range(2)) / len(x) * 1e6
        loss = model.evaluate(x, y, batch_size=options.batch, verbose=0)
        figures["loss"] = float(np.ravel(loss)[0])
        if options.module == "alphorn" and options.workload not in ("mlp", "cnn2d"):
            model.fit(x, y, batch_size=options.batch, verbose=0, **grouped)
            figures["left_out"] = model.padding_report.share_left_out
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
