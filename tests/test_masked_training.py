"""Losses and metrics in training: figures of a padded batch are those of its rows alone."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alphorn
from alphorn import ops
from rows_training import (
    BATCH,
    CLASSES,
    FLAT_METRICS,
    LABEL_METRICS,
    LOSSES,
    METRICS,
    STEPS,
    WHOLE_LOSSES,
    pair,
    step_mask,
    weights,
)
from test_metrics import close

layers = alphorn.layers
PADDING = -9.0
MASK = step_mask()
BY_ROW, BY_STEP = weights()
TABLE = {0: 0.5, 1: 2.0, 2: 1.5}
# Kinds whose predictions have classes on the last axis; others are tested as figures alone.
KINDS = sorted({r.data for r in (*LOSSES, *METRICS)})
# Their values are no values of steps.
COUPLED = ("time", "rows")


def masked_identity(*outputs: str) -> Any:
    """Returns a model whose outputs are its input, masked where it holds PADDING."""
    x = alphorn.Input((None, CLASSES))
    h = layers.Masking(PADDING)(x)
    h = layers.Dense(CLASSES, use_bias=False, kernel_initializer="identity")(h)
    return alphorn.Model(x, [layers.Activation("linear", name=name)(h) for name in outputs])


def of_kind(kind: str) -> Any:
    """Returns a model compiled with every loss and metric of a kind of data."""
    losses = [r for r in (*LOSSES, *WHOLE_LOSSES) if r.data == kind and r.label not in COUPLED]
    losses = [r for r in losses if r.name not in ("CTC", "Circle")]
    metrics = [r for r in (*METRICS, *FLAT_METRICS) if r.data == kind]
    metrics += LABEL_METRICS if kind == "binary" else []
    names = [f"out{i}" for i in range(max(len(losses), 1))]
    made: list[Any] = [r.make(alphorn.losses) for r in losses]
    made = made or [alphorn.losses.SparseCategoricalCrossentropy(from_logits=True)]
    weighed = [r.make(alphorn.metrics) for r in metrics]
    own = metrics[0].make(alphorn.metrics)  # one that weights do not touch
    for number, metric in enumerate([own, *weighed]):
        metric.name = f"m{number}"
    model = masked_identity(*names)
    model.compile(
        alphorn.optimizers.SGD(0.0),
        made,
        metrics={"out0": own},
        weighted_metrics={"out0": weighed},
    )
    return model


def classes_of(true: np.ndarray) -> np.ndarray:
    return true if true.ndim == 2 else true.argmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_the_steps_alone(kind: str) -> None:
    """Every loss and metric; mask alone, with weights of rows, of steps, with class weights."""
    model = of_kind(kind)
    true, pred = pair(kind)
    padded = np.where(MASK[..., None], pred, PADDING)
    dirty = np.where(MASK[..., None] if true.ndim == 3 else MASK, true, 1).astype(true.dtype)
    flat = pred[MASK][:, None], true[MASK][:, None]
    ones = np.ones((BATCH, STEPS), "float32")
    by_class = np.vectorize(TABLE.get)(classes_of(true)).astype("float32")
    modes: dict[str, tuple[Any, np.ndarray]] = {
        "mask": ({}, ones),
        "rows": ({"sample_weight": BY_ROW}, ones * BY_ROW[:, None]),
        "steps": ({"sample_weight": BY_STEP}, BY_STEP),
    }
    if kind in ("one-hot", "class"):
        modes["classes"] = {"class_weight": TABLE}, by_class
        modes["classes and rows"] = (
            {"class_weight": TABLE, "sample_weight": BY_ROW},
            by_class * BY_ROW[:, None],
        )
    options = {"batch_size": 64, "verbose": 0}
    for mode, (sent, weight) in modes.items():
        alone = model.evaluate(
            *flat, sample_weight=weight[MASK][:, None], return_dict=True, **options
        )
        if "class_weight" in sent:
            found = model.train_on_batch(padded, dirty, return_dict=True, **sent)
        else:
            found = model.evaluate(padded, dirty, return_dict=True, **options, **sent)
        assert set(found) == set(alone)
        for name, figure in alone.items():
            close(found[name], figure, 2e-5, f"{mode}: {name}")


# --- fit, evaluate and the two on one batch


@functools.cache
def tagger() -> Any:
    """Returns a masked tagger at learning rate 0, with a dropout-free start of its own."""
    model = alphorn.Sequential(
        [
            alphorn.Input((None, 2)),
            layers.Masking(),
            layers.SimpleRNN(3, return_sequences=True),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(
        alphorn.optimizers.SGD(0.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy", "sparse_categorical_crossentropy"],
    )
    return model


def sentences(lengths: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs and labels of rows of unequal lengths, and which steps exist."""
    random = np.random.default_rng(seed)
    mask = np.arange(STEPS) < np.asarray(lengths)[:, None]
    x = random.normal(size=(len(lengths), STEPS, 2)) * mask[..., None]
    return x.astype("float32"), random.integers(0, CLASSES, mask.shape).astype("int32"), mask


def expected(model: Any, x: Any, y: Any, mask: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Returns the tagger's figures by hand, from each row alone."""
    pred = np.zeros((*y.shape, CLASSES))
    for i, n in enumerate(mask.sum(1)):
        if n:
            pred[i, :n] = np.asarray(alphorn.unmask(model(x[i : i + 1, :n])))[0]
    each = -np.log(np.where(mask, np.take_along_axis(pred, y[..., None], -1)[..., 0], 1))
    right = pred.argmax(-1) == y
    count, total = max(mask.sum(), 1), (weight * mask).sum()
    return {
        "loss": (each * weight * mask).sum() / count,
        "accuracy": (right * mask).sum() / count,
        "weighted_accuracy": (right * weight * mask).sum() / total if total else 0.0,
        "sparse_categorical_crossentropy": (each * weight * mask).sum() / total if total else 0.0,
    }


def test_fit_and_evaluate_give_the_figures_of_the_rows_alone() -> None:
    model = tagger()
    x, y, mask = sentences([5, 1, 3, 2, 4, 1])
    weight = np.random.default_rng(3).uniform(0.2, 2, y.shape).astype("float32")
    for sent in (None, weight[:, 0], weight):
        full = np.ones(y.shape) if sent is None else sent.reshape(6, -1) * np.ones(y.shape)
        wanted = expected(model, x, y, mask, full)
        options = {"sample_weight": sent, "batch_size": 4, "verbose": 0}
        history = model.fit(x, y, shuffle=True, **options).history
        evaluated = model.evaluate(x, y, return_dict=True, **options)
        model.reset_metrics()
        one = model.train_on_batch(x, y, sent, return_dict=True)
        model.reset_metrics()
        other = model.test_on_batch(x, y, sent, return_dict=True)
        for name, figure in wanted.items():
            for found in (history[name][0], evaluated[name], one[name], other[name]):
                close(found, figure, what=name)


@given(
    lengths=st.lists(st.integers(0, STEPS), min_size=6, max_size=6),
    batch_size=st.sampled_from([2, 3, 6]),
    order=st.permutations(range(6)),
    by_step=st.booleans(),
    seed=st.integers(0, 99),
)
def test_evaluate_depends_on_neither_batch_size_nor_order(
    lengths: list[int], batch_size: int, order: list[int], by_step: bool, seed: int
) -> None:
    model = tagger()
    x, y, mask = sentences(lengths, seed)
    random = np.random.default_rng(seed)
    weight = random.choice([0.0, 0.5, 1.0, 3.0], y.shape if by_step else (6,)).astype("float32")
    wanted = expected(model, x, y, mask, weight.reshape(6, -1) * np.ones(y.shape))
    found = model.evaluate(
        x[order],
        y[order],
        sample_weight=weight[order],
        batch_size=batch_size,
        verbose=0,
        return_dict=True,
    )
    for name, figure in wanted.items():
        close(found[name], figure, 2e-5, name)


# --- what the loss is made of


def test_every_reduction() -> None:
    kinds = ("sum", "sum_over_batch_size", "mean", "mean_with_sample_weight", "none", None)
    model = masked_identity(*(f"out{i}" for i in range(len(kinds))))
    mse = alphorn.losses.MeanSquaredError
    model.compile("sgd", [mse(reduction=kind) for kind in kinds])
    true, pred = pair("real")
    padded = np.where(MASK[..., None], pred, PADDING)
    values = np.square(true - pred).mean(-1) * MASK
    for sent, weight in (
        (None, np.ones_like(MASK)),
        (BY_ROW, BY_ROW[:, None]),
        (BY_STEP, BY_STEP),
    ):
        total, weight = (values * weight).sum(), (weight * MASK).sum()
        wanted = [total, *[total / MASK.sum()] * 2, total / weight, *[total / MASK.sum()] * 2]
        found = model.evaluate(padded, true, sample_weight=sent, verbose=0, return_dict=True)
        for i, figure in enumerate(wanted):
            close(found[f"out{i}_loss"], figure)
        close(found["loss"], sum(wanted))


def test_outputs_with_different_masks_and_one_without() -> None:
    a, b, c = (alphorn.Input((None, 2), name=n) for n in "abc")
    outputs = [
        layers.Activation("linear", name=n)(layers.Masking()(x)) for n, x in (("p", a), ("q", b))
    ]
    model = alphorn.Model([a, b, c], [*outputs, layers.Activation("linear", name="r")(c)])
    model.compile("sgd", ["mse", "mae", "mse"], loss_weights=[1.0, 2.0, 0.5], metrics=[["mae"]] * 3)
    random = np.random.default_rng(4)
    masks = [np.arange(STEPS) < np.array(n)[:, None] for n in ([5, 2, 1, 3], [1, 1, 4, 2], [5] * 4)]
    x = [(random.normal(size=(4, STEPS, 2)) * m[..., None]).astype("float32") for m in masks]
    y = [random.normal(size=v.shape).astype("float32") for v in x]
    gaps = [np.abs(p - t).mean(-1)[m].mean() for p, t, m in zip(x, y, masks, strict=True)]
    squares = [np.square(p - t).mean(-1)[m].mean() for p, t, m in zip(x, y, masks, strict=True)]
    for size in (1, 3, 4):
        found = model.evaluate(x, y, batch_size=size, verbose=0, return_dict=True)
        for name, figure in zip("pqr", gaps, strict=True):
            close(found[f"{name}_mae"], figure)
        close(found["loss"], squares[0] + 2 * gaps[1] + 0.5 * squares[2])


def test_outputs_of_more_axes_than_their_mask() -> None:
    x = alphorn.Input((None, 2))
    h = layers.TimeDistributed(layers.RepeatVector(3))(layers.Masking()(x))
    model = alphorn.Model(x, layers.Activation("linear")(h))
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mae"])
    data, _, mask = sentences([5, 2, 3])
    true = np.random.default_rng(5).normal(size=(3, STEPS, 3, 2)).astype("float32")
    weight = BY_STEP[:3]
    gap = data[:, :, None] - true
    for sent in (None, weight[:, 0], weight):
        full = np.ones((3, 1)) if sent is None else sent.reshape(3, -1)
        full = full * np.ones((3, STEPS))
        found = model.evaluate(
            data, true, sample_weight=sent, batch_size=2, verbose=0, return_dict=True
        )
        by_step = np.square(gap).mean((-1, -2))
        close(found["loss"], (by_step * full)[mask].sum() / mask.sum())
        close(found["mae"], np.abs(gap).mean((-1, -2))[mask].mean())
        weighed = (np.abs(gap).mean((-1, -2)) * full)[mask].sum() / full[mask].sum()
        close(found["weighted_mae"], weighed)


class Penalty(alphorn.Layer):
    """Adds the mean square of what goes through it, as users write it."""

    def call(self, x: Any) -> Any:
        self.add_loss(ops.mean(ops.square(x)))
        return x


def test_what_layers_add_counts_valid_steps() -> None:
    x = alphorn.Input((None, 2))
    h = layers.Masking()(x)
    regular = layers.Activation("linear", activity_regularizer=alphorn.regularizers.L2(0.5))
    dense = layers.Dense(2, kernel_initializer="identity", kernel_regularizer="l2")
    model = alphorn.Model(x, dense(regular(Penalty()(h))))
    model.compile(alphorn.optimizers.SGD(0.0), "mse")
    data, _, mask = sentences([4, 4, 2, 2])
    true = np.zeros_like(data)
    squares = np.square(data)
    penalty = 0.01 * 2
    mse = squares.mean(-1)[mask].mean()
    activity = 0.5 * squares.sum() / 4
    wanted = mse + squares[mask].mean() + activity + penalty
    close(model.evaluate(data, true, verbose=0), wanted)
    close(model.test_on_batch(data, true), wanted)
    close(model.train_on_batch(data, true), wanted)
    longer = np.pad(data, ((0, 0), (0, 3), (0, 0)))
    close(model.evaluate(longer, np.zeros_like(longer), verbose=0), wanted)
    history = model.fit(data, true, batch_size=2, shuffle=False, verbose=0).history
    by_batch = [squares[i : i + 2][mask[i : i + 2]].mean() for i in (0, 2)]
    close(history["loss"][0], mse + np.mean(by_batch) + activity + penalty)


def test_ctc_trains_on_sequences_of_unequal_length() -> None:
    random = np.random.default_rng(6)
    rows = [random.normal(size=(n, 2)).astype("float32") for n in (6, 4, 7)]
    labels = np.array([[1, 2, 0], [2, 0, 0], [1, 1, 2]], "int32")
    model = alphorn.Sequential([alphorn.Input((None, 2)), layers.Masking(), layers.Dense(3)])
    model.compile(alphorn.optimizers.SGD(0.0), "ctc")
    alone = [model.evaluate(r[None], y[None], verbose=0) for r, y in zip(rows, labels, strict=True)]
    close(model.evaluate(rows, labels, verbose=0), np.mean(alone))
    close(model.fit(rows, labels, batch_size=2, verbose=0).history["loss"][0], np.mean(alone))
    with pytest.raises(alphorn.DataError, match="class 3"):
        model.fit(rows, labels + 1, verbose=0)


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
