"""Small models and data of which distributed and undistributed runs are compared."""

from typing import Any

import numpy as np

import alphorn

layers = alphorn.layers


def small_rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns padded sequences of unequal lengths, one of them empty, and labels of their steps."""
    random = np.random.default_rng(0)
    # Every four rows have one without padding: all batches of so many have one shape.
    mask = np.arange(5) < np.array([5, 1, 5, 5, 0, 5, 2, 5])[:count, None]
    x = random.normal(size=(count, 5, 2)) * mask[..., None]
    return x.astype("float32"), random.integers(0, 3, mask.shape).astype("int32")


def tagger(*middle: Any) -> Any:
    """Returns a compiled model of a mask, what is given, and a softmax a step."""
    dense = layers.Dense(3, activation="softmax")
    model = alphorn.Sequential([alphorn.Input((5, 2)), layers.Masking(), *middle, dense])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def trained(*callbacks: Any) -> tuple[Any, dict[str, Any]]:
    """Returns a model that is trained, by one process or two, and what came of it."""
    alphorn.config.set_random_seed(0)
    model = tagger(layers.LSTM(3, return_sequences=True, recurrent_initializer="ones"))
    x, y = small_rows(8)
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=callbacks).history
    weights = {f"weight {i}": w for i, w in enumerate(model.get_weights())}
    return model, {"loss": history["loss"], **weights}
