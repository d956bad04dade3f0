"""Targets and predictions of unlike rank: Keras's numbers, and the promise."""

from typing import Any

import keras
import numpy as np

import alphorn
from alphorn.core.masked import Masked
from rows_training import BATCH, LENGTHS, STEPS, pair, step_mask, weights


def close(a: Any, b: Any, tolerance: float = 1e-5, what: str = "") -> None:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, what
    assert np.isfinite(a).all(), what
    assert np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1), what


def test_one_number_a_row_is_one_value_a_row() -> None:
    true, pred = pair("binary", (BATCH, 1))
    rows, _ = weights()
    for name in ("MeanSquaredError", "BinaryCrossentropy"):
        for reduction in ("sum_over_batch_size", "sum", "none"):
            ours = getattr(alphorn.losses, name)(reduction=reduction)
            theirs = getattr(keras.losses, name)(reduction=reduction)
            close(ours(true[:, 0], pred[:, 0], rows), theirs(true, pred, rows))
            mask = np.arange(BATCH) < 2
            masked = Masked.trusted(np.where(mask, pred[:, 0], np.nan), mask)
            found = ours(true[:, 0], masked)
            close(found[:2] if reduction == "none" else found, ours(true[:2], pred[:2]))


def test_scores_of_steps_may_have_a_last_axis_of_one() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(size=(BATCH, STEPS, 1)).astype("float32")
    true = np.eye(STEPS, dtype="float32")[[4, 1, 3, 0]]
    ours, theirs = (
        m.losses.CategoricalCrossentropy(from_logits=True, reduction="none")
        for m in (alphorn, keras)
    )
    close(ours(true, logits), theirs(true, logits))
    mask = step_mask()
    found = ours(true, Masked.trusted(np.where(mask[..., None], logits, np.nan), mask))
    for i, n in enumerate(LENGTHS):
        close(found[i : i + 1], theirs(true[i : i + 1, :n], logits[i : i + 1, :n]))
