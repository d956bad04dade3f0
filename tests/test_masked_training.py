"""Losses and metrics in training: figures of a padded batch are those of its rows alone."""

from typing import Any

import numpy as np

import alphorn
from rows_training import BATCH, CLASSES, STEPS, step_mask, weights
from test_metrics import close


def sequence_model() -> Any:
    model = alphorn.Sequential(
        [
            alphorn.Input((STEPS, 2)),
            alphorn.layers.Masking(),
            alphorn.layers.Dense(CLASSES, activation="softmax", kernel_initializer="ones"),
        ]
    )
    kernel = np.random.default_rng(1).normal(size=(2, CLASSES)).astype("float32")
    model.set_weights([kernel, np.zeros(CLASSES, "float32")])
    return model


def test_class_weights_and_masks_and_sample_weights_multiply() -> None:
    model = sequence_model()
    mask = step_mask()
    random = np.random.default_rng(2)
    x = random.normal(size=(BATCH, STEPS, 2)).astype("float32") * mask[..., None]
    y = random.integers(0, CLASSES, (BATCH, STEPS)).astype("int32")
    rows, _ = weights()
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=False)
    by_class = {0: 0.5, 1: 2.0, 2: 1.0}
    pred = np.asarray(alphorn.unmask(model(x)))
    each = -np.log(np.take_along_axis(pred, y[..., None], -1)[..., 0])
    factor = np.vectorize(by_class.get)(y) * mask
    expected = (each * factor).sum() / mask.sum()
    close(model.train_on_batch(x, y, class_weight=by_class), expected)
    model.set_weights(sequence_model().get_weights())
    close(
        model.test_on_batch(x, y, sample_weight=rows),
        (each * rows[:, None] * mask).sum() / mask.sum(),
    )
