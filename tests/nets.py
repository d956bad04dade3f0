"""Small nets for the tests of models and training: the same in either library, with one start."""

import functools
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import alphorn

_random = np.random.default_rng(0)
ROWS, FEATURES, TIME, WORDS, CLASSES = 10, 3, 6, 8, 3
X = _random.normal(size=(ROWS, FEATURES)).astype("float32")
Y = _random.normal(size=(ROWS, 1)).astype("float32")
LABELS = _random.integers(0, CLASSES, ROWS).astype("int32")
IDS = np.array(
    [
        [3, 1, 2, 5, 0, 0],
        [1, 4, 0, 0, 0, 0],
        [2, 2, 7, 2, 2, 2],
        [7, 6, 5, 0, 0, 0],
        [1, 2, 3, 4, 5, 0],
    ]
    * 2,
    "int32",
)
RAGGED = [[int(i) for i in row if i] for row in IDS]
STEP_LABELS = _random.integers(0, CLASSES, (ROWS, TIME)).astype("int32")
WEIGHTS = _random.uniform(0.2, 2, ROWS).astype("float32")
STEP_WEIGHTS = _random.uniform(0.2, 2, (ROWS, TIME)).astype("float32")
CLASS_WEIGHTS = {0: 1.0, 1: 2.0, 2: 0.5}
CLASSIFYING = {
    "optimizer": "adam",
    "loss": "sparse_categorical_crossentropy",
    "metrics": ["accuracy"],
}


def mlp(K: Any) -> Any:
    """A classifier of vectors."""
    x = K.Input((FEATURES,), name="x")
    hidden = K.layers.Dense(4, activation="tanh", name="hidden")(x)
    return K.Model(x, K.layers.Dense(CLASSES, activation="softmax", name="out")(hidden))


def line(K: Any) -> Any:
    """A linear model: the cheapest that trains."""
    return K.Sequential([K.Input((FEATURES,)), K.layers.Dense(1, name="dense")])


def rnn(K: Any) -> Any:
    """A classifier of sequences of ids; 0 is padding."""
    x = K.Input((None,), dtype="int32", name="x")
    vectors = K.layers.Embedding(WORDS, 4, mask_zero=True)(x)
    return K.Model(x, K.layers.Dense(CLASSES, activation="softmax")(K.layers.LSTM(3)(vectors)))


def tagger(K: Any) -> Any:
    """A classifier of the steps of sequences."""
    x = K.Input((None,), dtype="int32", name="x")
    vectors = K.layers.Embedding(WORDS, 4, mask_zero=True)(x)
    states = K.layers.SimpleRNN(3, return_sequences=True)(vectors)
    return K.Model(x, K.layers.Dense(CLASSES, activation="softmax")(states))


def forked(K: Any, names: bool = False) -> Any:
    """Two inputs, two outputs: in lists, or in dicts."""
    a, b = K.Input((FEATURES,), name="a"), K.Input((FEATURES,), name="b")
    hidden = K.layers.Dense(4, activation="tanh")(K.layers.Concatenate()([a, b]))
    p = K.layers.Dense(1, name="p")(hidden)
    q = K.layers.Dense(CLASSES, activation="softmax", name="q")(hidden)
    if names:
        return K.Model({"a": a, "b": b}, {"u": p, "v": q})
    return K.Model([a, b], [p, q])


def start(model: Any) -> list[np.ndarray]:
    """Returns weights for a model, always the same."""
    random = np.random.default_rng(1)
    return [random.normal(size=w.shape).astype("float32") * 0.5 for w in model.weights]


def compiled(make: Callable, library: Any = alphorn, **options: Any) -> Any:
    """Returns a model with the weights of `start`, compiled."""
    model = make(library)
    model.set_weights(start(model))
    model.compile(**options)
    model.optimizer.build(model.trainable_variables)
    return model


class Twins:
    """A net in both libraries, which can begin again without being compiled again."""

    def __init__(self, make: Callable, **options: Any):
        self.ours = compiled(make, alphorn, **options)
        self.theirs = compiled(make, keras, **options)
        self._fresh = [
            (variable, np.array(variable.value))
            for model in (self.ours, self.theirs)
            for variable in (*model.weights, *model.optimizer.variables)
        ]

    def fit(self, *args: Any, **options: Any) -> tuple[dict, dict]:
        """Trains both from the start; returns both histories."""
        for variable, value in self._fresh:
            variable.assign(value)
        options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0} | options
        return tuple(m.fit(*args, **options).history for m in (self.ours, self.theirs))


@functools.cache
def _kept(make: Callable, loss: str) -> Any:
    return compiled(make, optimizer=alphorn.optimizers.SGD(0.1), loss=loss, metrics=None)


def ready(make: Callable = line, loss: str = "mse") -> Any:
    """Returns our model of `make`, compiled with SGD once for all tests, as it was at first."""
    model = _kept(make, loss)
    model.set_weights(start(model))
    model.optimizer.iterations.assign(0)
    model.optimizer.learning_rate = 0.1
    model.stop_training = False
    return model


def gap(ours: Any, theirs: Any) -> float:
    """Returns the largest difference of two arrays or lists of arrays, relative to the largest."""
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, list) else [(ours, theirs)]
    found = 0.0
    for a, b in pairs:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        found = max(found, np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30))
    return found


def steps_taken(model: Any, count: int) -> list[float]:
    """Returns how far each of `count` steps of a constant gradient of 1 went."""
    x, kernel = np.ones((1, 1), "float32"), model.trainable_variables[0]
    found = []
    for _ in range(count):
        before = float(kernel.value[0, 0])
        model.fit(x, x, verbose=0)
        found.append(before - float(kernel.value[0, 0]))
    return found


def straight(optimizer: Any) -> Any:
    """Returns a compiled model of one weight, whose gradient is 1."""
    model = alphorn.Sequential([alphorn.Input((1,)), alphorn.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, lambda y_true, y_pred: y_pred)
    return model
