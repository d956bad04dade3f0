"""Losses and metrics whose values are no values of steps: Keras's numbers, and the promise."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from alphorn.core.masked import Masked
from rows_training import (
    BATCH,
    CLASSES,
    FLAT_METRICS,
    LENGTHS,
    STEPS,
    WHOLE_LOSSES,
    Row,
    pair,
    step_mask,
    weights,
)
from test_metrics import close, spoiled

JUNK = (1e3, np.inf, np.nan)
REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "none")
LABELS = np.array([[1, 2, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0], [2, 1, 2, 0]], "int32")
CUT = [slice(None, n) for n in LENGTHS]


def data_of(row: Row) -> tuple[Any, Any]:
    """Returns targets and predictions of a loss: those of CTC and Circle are of their own kind."""
    if row.name == "CTC":
        return LABELS, pair("real")[1]
    if row.name == "Circle":
        points = pair("real")[1]
        points /= np.linalg.norm(points, axis=-1, keepdims=True)
        return pair("class")[0], points
    return pair(row.data)


@pytest.mark.parametrize("row", WHOLE_LOSSES, ids=str)
def test_losses_are_keras_s(row: Row) -> None:
    true, pred = data_of(row)
    if row.name == "Circle":
        true, pred = true[:, 0], pred[:, 0]

    @jax.jit
    def run(true: Any, pred: Any) -> Any:
        found = []
        for m in (alphorn.losses, keras.losses):
            losses = [row.make(m, reduction=r) for r in REDUCTIONS]
            slope = jax.grad(lambda p, loss=losses[0]: loss(true, p))(pred)
            found.append([*(loss(true, pred) for loss in losses), slope])
        return found

    for ours, theirs in zip(*run(true, pred), strict=True):
        close(ours, theirs, 1e-5)


def alone(row: Row, true: np.ndarray, pred: np.ndarray) -> Any:
    """Returns the values of the rows by themselves, and how much each counts."""
    each = row.make(alphorn.losses, reduction="none")
    mask = step_mask()
    if row.name == "CTC" or row.label == "rows":
        rows = [(true[i : i + 1], pred[i : i + 1, n]) for i, n in enumerate(CUT)]
        return np.concatenate(
            [
                each(t if row.name == "CTC" else t[:, n], p)
                for (t, p), n in zip(rows, CUT, strict=True)
            ]
        )
    return np.asarray(each(true[mask], pred[mask]))


@pytest.mark.parametrize("row", WHOLE_LOSSES, ids=str)
def test_masked_steps_do_not_exist_for_losses(row: Row) -> None:
    true, pred = data_of(row)
    mask = step_mask()
    by_row, by_step = weights()
    mean, total = (row.make(alphorn.losses, reduction=r) for r in ("mean", "sum"))
    values = alone(row, true, pred)
    counts = values > 0 if row.name == "Circle" else np.ones_like(values)
    own = by_row if len(np.shape(values)) and len(values) == BATCH else by_row.repeat(LENGTHS)
    weighed = values * own if np.ndim(values) else values

    @jax.jit
    def run(true: Any, pred: Any, by_step: Any) -> dict[str, Any]:
        def loss(p: Any) -> Any:
            return mean(true, Masked.trusted(p, mask))

        found: dict[str, Any] = {"mean": loss(pred), "slope": jax.grad(loss)(pred)}
        if np.ndim(values):
            found["rows"] = total(true, Masked.trusted(pred, mask), by_row)
        if row.name != "CTC":
            found["zeros"] = mean(true, pred, jnp.where(mask, 1.0, 0.0))
            found["steps"] = total(true, Masked.trusted(pred, mask), by_step)
        return found

    clean = run(true, pred, by_step)
    close(clean["mean"], values.sum() / counts.sum())
    if np.ndim(values):
        close(clean["rows"], weighed.sum())
    assert not np.asarray(clean["slope"])[~mask].any()
    if row.label != "steps" and row.name in ("Dice", "Tversky"):
        close(clean["zeros"], clean["mean"])  # a weight of 0 is no entry
    for junk in JUNK:
        spoilt = true if row.name == "CTC" else spoiled(true, mask, junk)
        found = run(spoilt, spoiled(pred, mask, junk), spoiled(by_step, mask, junk))
        for name in {"mean", "slope", "rows", "steps"} & set(clean):
            close(found[name], clean[name], what=f"{name}, {junk}")
    nothing = mean(true, Masked(pred, mask & False))
    close(nothing, 0.0)


def test_ctc_reads_lengths_from_masks() -> None:
    _, logits = data_of(WHOLE_LOSSES[5])
    each = alphorn.losses.CTC(reduction="none")
    plain = each(LABELS, logits)
    close(each(Masked(np.where(LABELS == 0, 2, LABELS), LABELS != 0), logits), plain)
    close(each(LABELS[:, [0, 3, 1, 2]], logits), plain)  # zeros between are no labels
    mask = step_mask()
    shifted = np.array([np.roll(x, STEPS - n, 0) for x, n in zip(logits, LENGTHS, strict=True)])
    behind = each(LABELS, Masked(shifted, mask[:, ::-1]))
    close(behind, each(LABELS, Masked(logits, mask)))
    gaps = np.array([[1, 0, 1, 1, 0]] * BATCH, bool)
    close(each(LABELS, Masked(logits, gaps)), each(LABELS, logits[:, [0, 2, 3]]))
    empty = mask & np.array([1, 0, 1, 1], bool)[:, None]
    mean = alphorn.losses.CTC()(LABELS, Masked(logits, empty))
    close(mean, np.delete(np.asarray(each(LABELS, Masked(logits, mask))), 1).mean())
    with pytest.raises(alphorn.ShapeError, match=r"loss ctc[\s\S]*\(batch, labels\)"):
        each(LABELS[..., None], logits)


def test_partners_of_circle_may_be_others() -> None:
    true, points = data_of(WHOLE_LOSSES[6])
    ours, theirs = (
        m.losses.circle(true[:, 0], points[:, 0], true[:, 1], points[:, 1], False)
        for m in (alphorn, keras)
    )
    close(ours.fill(0), theirs)
    rows = np.array([1, 1, 0, 1], bool)
    masked = alphorn.losses.circle(true[:, 0], Masked(points[:, 0], rows))
    close(masked.data[rows], keras.losses.circle(true[rows, 0], points[rows, 0]))


# --- metrics


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
@pytest.mark.parametrize("row", FLAT_METRICS, ids=str)
def test_each_valid_step_is_a_row(row: Row) -> None:
    ours, theirs = row.make(alphorn.metrics), row.make(keras.metrics)
    mask = step_mask()
    by_row, by_step = weights()
    batches = [pair(row.data, seed=s) for s in (0, 1)]
    shared = row.data in ("yes", "classes", "class", "one-hot", "real", "binary")
    assert shared
    ours.prepare(*batches[0])
    start = [jnp.zeros(v.shape, v.dtype) for v in ours.variables]
    update = jax.jit(ours.stateless_update_state)

    def measured(*given: tuple) -> Any:
        state = start
        for batch in given:
            state = update(state, *batch)
        return np.asarray(ours.stateless_result(state))

    def expected(*given: tuple) -> Any:
        theirs.reset_state()
        for batch in given:
            theirs.update_state(*batch)
        return np.asarray(theirs.result())

    flat = [(t.reshape(-1, *t.shape[2:]), p.reshape(-1, *p.shape[2:])) for t, p in batches]
    close(measured(*flat), expected(*flat), row.tolerance)
    close(measured(*batches), expected(*flat), row.tolerance)
    heavy = [(*b, by_step.reshape(-1)) for b in flat]
    close(measured(*((*b, by_step) for b in batches)), expected(*heavy), row.tolerance)
    kept = [(t[mask], p[mask]) for t, p in batches]
    wanted = expected(*((*b, by_step[mask]) for b in kept))
    for junk in JUNK:
        given = [
            (spoiled(t, mask, junk), Masked(jnp.asarray(spoiled(p, mask, junk)), mask), w)
            for t, p in batches
            for w in (spoiled(by_step, mask, junk),)
        ]
        close(measured(*given), wanted, row.tolerance, str(junk))
    rows = expected(*((*b, by_row.repeat(LENGTHS)) for b in kept))
    close(measured(*((t, Masked(p, mask), by_row) for t, p in batches)), rows, row.tolerance)
    halves = [
        (t[n], Masked(p[n], mask[n]), by_step[n])
        for t, p in reversed(batches)
        for n in ([2, 0], [3, 1])
    ]
    close(measured(*halves), wanted, row.tolerance, "other batches")
    assert np.isfinite(measured((batches[0][0], Masked(batches[0][1], mask & False)))).all()


def test_iou_counts_fractions_of_weights_whatever_its_type() -> None:
    true, pred = pair("classes")
    whole, real = (alphorn.metrics.MeanIoU(CLASSES, dtype=d) for d in (None, "float32"))
    weight = weights()[1]
    close(whole(true, pred, weight), real(true, pred, weight))
    assert whole.get_config()["dtype"] == "int32"


def test_one_number_a_step_is_one_column() -> None:
    true, pred = pair("real", (BATCH, STEPS))
    mask = step_mask()
    metric = alphorn.metrics.R2Score()
    found = metric(true, Masked(pred, mask))
    close(found, keras.metrics.R2Score()(true[mask][:, None], pred[mask][:, None]))
    assert metric.count.shape == (1,)


def test_correlations_over_time_count_valid_steps() -> None:
    true, pred = pair("real")
    mask = step_mask()
    for name in ("pearson_correlation", "concordance_correlation"):
        function = getattr(alphorn.metrics, name)
        found = function(spoiled(true, mask, np.nan), Masked(jnp.asarray(pred), mask), axis=1)
        for i, n in enumerate(LENGTHS):
            theirs = getattr(keras.metrics, name)(true[i : i + 1, :n], pred[i : i + 1, :n], axis=1)
            close(alphorn.unmask(found)[i : i + 1], theirs, 1e-4)
        close(function(np.ones((2, 3)), np.ones((2, 3))), np.zeros(2))


def test_columns_are_counted_before_a_step_is_compiled() -> None:
    x, y = pair("binary", (8, CLASSES))
    model = alphorn.Sequential(
        [alphorn.Input((CLASSES,)), alphorn.layers.Dense(CLASSES, "sigmoid")]
    )
    auc = {"multi_label": True, "num_thresholds": 7}
    made = ["f1_score", alphorn.metrics.R2Score(), alphorn.metrics.AUC(**auc)]
    model.compile("sgd", "binary_crossentropy", metrics=made)
    logs = model.evaluate(y, x, batch_size=3, return_dict=True, verbose=0)
    pred = np.asarray(model(y))
    for name, theirs in (
        ("f1_score", keras.metrics.F1Score()),
        ("r2_score", keras.metrics.R2Score()),
        ("auc", keras.metrics.AUC(**auc)),
    ):
        close(logs[name], theirs(x, pred))
    with pytest.raises(alphorn.StateError, match=r"prepare\(y_true, y_pred\)"):
        jax.jit(lambda p: alphorn.metrics.F1Score()(x, p))(pred)
