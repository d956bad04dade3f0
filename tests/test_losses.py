"""Losses: Keras's numbers where nothing is masked, the promise where something is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from alphorn import ops
from alphorn.core.masked import Masked
from alphorn.losses import as_loss
from rows_training import (
    BATCH,
    CLASSES,
    LENGTHS,
    LOSSES,
    STEPS,
    WHOLE_LOSSES,
    Row,
    pair,
    step_mask,
    weights,
)

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)
# These compare the entries of an axis with each other; the others take each entry by itself.
COMPARING = {
    "CategoricalHinge",
    "KLDivergence",
    "CosineSimilarity",
    "CategoricalCrossentropy",
    "SparseCategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
}
OVER_TIME = [r for r in LOSSES if r.label == "time"]
BY_STEP = [r for r in LOSSES if r.label != "time"]


def close(a: Any, b: Any, tolerance: float = 1e-5, what: str = "") -> None:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, what
    assert np.isfinite(a).all(), what
    assert np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1), what


def test_every_loss_has_a_row() -> None:
    public = {n for n in alphorn.losses.__all__ if n[0].isupper()} - {"Loss"}
    assert public == {r.name for r in (*LOSSES, *WHOLE_LOSSES)}


# --- against Keras


@pytest.mark.parametrize("row", LOSSES, ids=str)
def test_values_and_gradients_are_keras_s(row: Row) -> None:
    true, pred = pair(row.data)
    rows, steps = weights()
    if row.label == "time":
        steps = weights()[1][:, :CLASSES]

    def run(namespace: Any, by_row: Any, true: Any, pred: Any, steps: Any) -> list:
        losses = [row.make(namespace, reduction=r) for r in REDUCTIONS]
        found = [x(true, pred, w) for x in losses for w in (None, by_row, steps)]
        return [*found, jax.grad(lambda p: losses[0](true, p, steps))(pred)]

    @jax.jit
    def both(*args: Any) -> Any:
        # Keras has no weights of rows for values of steps: they are written out.
        by_step = np.repeat(rows[:, None], steps.shape[1], 1)
        return run(alphorn.losses, rows, *args), run(keras.losses, by_step, *args)

    for ours, theirs in zip(*both(true, pred, steps), strict=True):
        close(ours, theirs, row.tolerance)


FUNCTIONS = {
    "mean_squared_error": "real",
    "mean_absolute_error": "real",
    "mean_absolute_percentage_error": "positive",
    "mean_squared_logarithmic_error": "positive",
    "huber": "real",
    "log_cosh": "real",
    "hinge": "signs",
    "squared_hinge": "signs",
    "categorical_hinge": "one-hot logits",
    "kl_divergence": "shares",
    "poisson": "counts",
    "cosine_similarity": "real",
    "binary_crossentropy": "binary",
    "binary_focal_crossentropy": "binary",
    "categorical_focal_crossentropy": "one-hot",
    "categorical_crossentropy": "one-hot",
    "sparse_categorical_crossentropy": "class",
}


def test_functions_are_keras_s() -> None:
    public = {n for n in alphorn.losses.__all__ if n[0].islower()}
    others = {"categorical_generalized_cross_entropy", "circle", "ctc", "dice", "tversky"}
    assert public - {"get", "serialize", "deserialize"} - others == set(FUNCTIONS)
    data = {name: pair(kind) for name, kind in FUNCTIONS.items()}

    @jax.jit
    def both(data: dict) -> list:
        return [
            [getattr(m, name)(*xs) for name, xs in data.items()]
            for m in (alphorn.losses, keras.losses)
        ]

    for ours, theirs in zip(*both(data), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(
    ("true_shape", "pred_shape"),
    [((BATCH,), (BATCH, 1)), ((BATCH, 1), (BATCH,)), ((BATCH, 1), (BATCH, 1))],
)
def test_a_last_axis_of_one_may_be_missing(true_shape: tuple, pred_shape: tuple) -> None:
    true, pred = pair("binary", (BATCH,))
    rows, _ = weights()
    args = (true.reshape(true_shape), pred.reshape(pred_shape), rows)
    for name in ("MeanSquaredError", "BinaryCrossentropy"):
        ours, theirs = (
            getattr(m, name)(reduction="none")(*args) for m in (alphorn.losses, keras.losses)
        )
        close(ours, theirs)


def test_labels_of_steps_may_lack_the_last_axis_and_be_weighted() -> None:
    true, pred = pair("binary", (BATCH, STEPS))
    _, steps = weights()
    found = alphorn.losses.BinaryCrossentropy()(true, pred[..., None], steps)
    close(found, keras.losses.BinaryCrossentropy()(true[..., None], pred[..., None], steps))


def test_targets_and_predictions_may_be_lists() -> None:
    assert float(alphorn.losses.MeanSquaredError()([[0.0, 1.0]], [[1.0, 1.0]])) == 0.5


# --- types


def test_dtype_of_the_result() -> None:
    true, pred = pair("real")
    for dtype in ("float32", "float16", "bfloat16"):
        assert alphorn.losses.MeanSquaredError(dtype=dtype)(true, pred).dtype == dtype
    narrow = jnp.asarray(pred, jnp.bfloat16)
    assert alphorn.losses.MeanSquaredError()(true, narrow).dtype == jnp.float32
    policy = alphorn.DTypePolicy("mixed_bfloat16")
    assert alphorn.losses.MeanSquaredError(dtype=policy)(true, pred).dtype == jnp.bfloat16


def test_floatx_is_the_default_dtype() -> None:
    alphorn.config.set_floatx("float16")
    try:
        assert alphorn.losses.Huber().dtype == "float16"
    finally:
        alphorn.config.set_floatx("float32")


def test_class_numbers_stay_whole_in_16_bits() -> None:
    loss = alphorn.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="bfloat16")
    logits = np.zeros((1, 260), "float32")
    logits[0, 257] = 50.0
    assert float(loss(np.array([257]), logits)) == 0.0


def test_targets_of_small_integers_do_not_wrap() -> None:
    class Shifted(alphorn.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return jnp.square(y_true - 2 - y_pred)

    assert float(Shifted()(np.array([[1]], "uint8"), np.array([[0.0]], "float32"))) == 1.0


# --- the promise


def masked_facts(row: Row) -> Any:
    """Returns a compiled function that says what the loss gives under masks."""
    make = functools.partial(row.make, alphorn.losses)
    mean, total, weighted, plain = (
        make(reduction=r) for r in ("mean", "sum", "mean_with_sample_weight", "none")
    )

    @jax.jit
    def run(true: Any, pred: Any, mask: Any, rows: Any, steps: Any) -> dict[str, Any]:
        def of(loss: Any, p: Any, weight: Any = None) -> Any:
            return loss(true, Masked.trusted(p, mask), weight)

        two, whole = (2, BATCH // 2), mask[:, 2]
        spoiled = jnp.where(whole[:, None, None], pred, jnp.nan)

        def nested(p: Any) -> Any:
            inner = Masked.trusted(p.reshape(*two, *p.shape[1:]), whole.reshape(two))
            return mean(true.reshape(*two, *true.shape[1:]), inner)

        value_and_grad = jax.value_and_grad
        return {
            "each": plain(true, pred),
            "slope": jax.grad(lambda p: jnp.sum(plain(true, p)))(pred),
            "mean": value_and_grad(lambda p: of(mean, p))(pred),
            "rows": of(mean, pred, rows),
            "steps": value_and_grad(lambda p: of(mean, p, steps))(pred),
            "sum": of(total, pred, steps),
            "weighted": of(weighted, pred, steps),
            "none": of(plain, pred, steps),
            "targets": mean(Masked.trusted(true, mask), pred, rows),
            "nested": value_and_grad(nested)(spoiled),
            "zero weight": value_and_grad(lambda p: total(true, p, jnp.where(mask, steps, 0)))(
                pred
            ),
        }

    return run


def dirty(x: np.ndarray, mask: np.ndarray, junk: float) -> np.ndarray:
    filled = x.copy()
    filled[~mask] = junk if x.dtype.kind == "f" else 99
    return filled


@pytest.mark.parametrize("row", BY_STEP, ids=str)
def test_masked_steps_do_not_exist(row: Row) -> None:
    run = masked_facts(row)
    true, pred = pair(row.data)
    rows, steps = weights()
    mask = step_mask()
    clean = jax.device_get(run(true, pred, mask, rows, steps))
    each, slope = clean["each"], clean["slope"]
    counts = true != 1 if row.label == "ignore" else np.full((BATCH, STEPS), True)
    kept = mask & counts
    count = kept.sum()
    by_step = each * steps * kept
    whole = mask[:, 2:3] & counts
    expected = {
        "mean": ((each * kept).sum() / count, slope * kept[..., None] / count),
        "rows": (each * rows[:, None] * kept).sum() / count,
        "steps": (by_step.sum() / count, slope * (steps * kept)[..., None] / count),
        "sum": by_step.sum(),
        "weighted": by_step.sum() / (steps * kept).sum(),
        "none": by_step,
        "targets": (each * rows[:, None] * kept).sum() / count,
        "nested": ((each * whole).sum() / whole.sum(), slope * whole[..., None] / whole.sum()),
        "zero weight": (by_step.sum(), slope * (steps * mask)[..., None]),
    }
    for junk in (None, 1e3, np.inf, np.nan):
        found = clean
        if junk is not None:
            args = (dirty(x, mask, junk) for x in (true, pred))
            found = run(*args, mask, rows, dirty(steps, mask, junk))
        for name, wanted in expected.items():
            if name == "nested" and junk is not None:
                continue  # another mask: what is junk here is valid there
            a, b = jax.tree.leaves(found[name]), jax.tree.leaves(wanted)
            for x, y in zip(a, b, strict=True):
                close(x, y, row.tolerance, f"{name}, {junk}")
    nothing = run(dirty(true, mask & False, np.nan), pred, mask & False, rows, steps)
    for name in expected:
        for x in jax.tree.leaves(nothing[name]):
            close(x, np.zeros(x.shape), 0, name)


def with_class_in_reach(true: np.ndarray) -> np.ndarray:
    """Returns targets whose class, a step, exists in its row."""
    lengths = np.array(LENGTHS)
    if true.ndim == 1:
        return (true % lengths).astype("int32")
    if set(np.unique(true)) <= {0.0, 1.0} and (true.sum(-1) == 1).all():
        return np.eye(STEPS, dtype="float32")[true.argmax(-1) % lengths]
    return true


@pytest.mark.parametrize("row", BY_STEP, ids=str)
def test_outputs_of_one_number_a_step(row: Row) -> None:
    """`(B, T)` with a `(B, T)` mask: entries by themselves, or compared among the valid ones."""
    true, pred = pair(row.data, (BATCH, STEPS))
    true, mask = with_class_in_reach(true), step_mask()
    mean, each = row.make(alphorn.losses), row.make(alphorn.losses, reduction="none")

    @jax.jit
    def run(true: Any, pred: Any) -> Any:
        def loss(p: Any) -> Any:
            return mean(true, Masked.trusted(p, mask))

        return jax.value_and_grad(loss)(pred)

    @jax.jit
    def alone(true: Any, pred: Any) -> Any:
        if row.name not in COMPARING:
            return each(true[..., None], pred[..., None])
        cut = [slice(None, n) for n in LENGTHS]
        whole = true.ndim == 1
        return jnp.stack(
            [
                each(true[i : i + 1] if whole else true[i : i + 1, n], pred[i : i + 1, n])[0]
                for i, n in enumerate(cut)
            ]
        )

    values = np.asarray(alone(true, pred))
    kept = (true != 1) if row.label == "ignore" else (mask if values.ndim == 2 else np.ones(BATCH))
    expected = (values * kept).sum() / kept.sum()
    slope = np.asarray(jax.grad(lambda p: jnp.sum(alone(true, p) * kept) / kept.sum())(pred))
    for junk in (0.5, 1e3, np.inf, np.nan):
        filled = dirty(true, mask, junk) if true.ndim == 2 else true
        value, grad = run(filled, dirty(pred, mask, junk))
        close(value, expected, row.tolerance, str(junk))
        close(grad, slope, row.tolerance, str(junk))


@pytest.mark.parametrize("row", OVER_TIME, ids=str)
def test_an_axis_of_masked_steps_is_reduced_over_the_valid_ones(row: Row) -> None:
    true, pred = pair(row.data)
    mask = step_mask()
    mean, each = row.make(alphorn.losses), row.make(alphorn.losses, reduction="none")

    @jax.jit
    def run(true: Any, pred: Any) -> Any:
        return jax.value_and_grad(lambda p: mean(true, Masked.trusted(p, mask)))(pred)

    @jax.jit
    def alone(true: Any, pred: Any) -> Any:
        cut = [(slice(i, i + 1), slice(None, n)) for i, n in enumerate(LENGTHS)]
        values = jnp.concatenate([each(true[c], pred[c]) for c in cut])
        if row.name in COMPARING:
            return jnp.mean(values)
        lengths = jnp.asarray(LENGTHS)[:, None]  # each step counts once, whatever its row
        return jnp.sum(values * lengths) / (jnp.sum(lengths) * CLASSES)

    expected, slope = jax.value_and_grad(alone, 1)(true, jnp.asarray(pred))
    for junk in (0.5, 1e3, np.inf, np.nan):
        value, grad = run(dirty(true, mask, junk), dirty(pred, mask, junk))
        close(value, expected, row.tolerance, str(junk))
        close(grad, slope, row.tolerance, str(junk))


def test_functions_keep_or_reduce_masks() -> None:
    true, pred = pair("real")
    mask = step_mask()
    kept = alphorn.losses.mean_squared_error(true, Masked(pred, mask))
    assert isinstance(kept, Masked)
    assert kept.shape == (BATCH, STEPS)
    close(kept.fill(0), np.square(true - pred).mean(-1) * mask)
    reduced = alphorn.losses.mean_squared_error(true[..., 0], Masked(pred[..., 0], mask))
    rows = [np.square(true - pred)[i, :n, 0].mean() for i, n in enumerate(LENGTHS)]
    close(reduced.data if isinstance(reduced, Masked) else reduced, rows)


# --- losses of one's own


class Smoothness(alphorn.losses.Loss):
    """The mean step from one prediction to the next one's square, and the error."""

    def __init__(self, rate: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        self.table = jnp.ones(3)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.square(y_true - y_pred), axis=-1) * self.rate


def whole_batch(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.square(y_true - y_pred))


def test_losses_of_ones_own_receive_the_mask() -> None:
    true, pred = pair("real")
    mask = step_mask()
    squares = np.square(true - pred)
    masked = Masked(pred, mask)
    expected = squares[mask].mean()
    close(Smoothness()(true, masked), expected / 2)
    close(as_loss(whole_batch)(true, masked), expected)
    by_step = as_loss(lambda t, p: ops.mean(ops.square(t - p), -1))
    _, steps = weights()
    close(by_step(true, masked, steps), (squares.mean(-1) * steps * mask).sum() / mask.sum())


def test_jnp_in_a_loss_of_ones_own_would_lose_the_mask() -> None:
    true, pred = pair("real")
    loss = as_loss(lambda t, p: jnp.mean(jnp.square(t - p), -1))
    close(loss(true, pred), np.square(true - pred).mean())
    with pytest.raises(alphorn.MaskError, match=r"ops\."):
        loss(true, Masked(pred, step_mask()))
    plain = as_loss(lambda t, p: jnp.mean(jnp.square(alphorn.unmask(t) - alphorn.unmask(p)), -1))
    mask = step_mask()
    close(plain(true, Masked(pred, mask)), np.square(true - pred)[mask].mean())


# --- names and files

UNLISTED = "CategoricalGeneralizedCrossEntropy"  # Keras does not know it by name
STRINGS = [
    *("mse", "MSE", "mae", "MAE", "mape", "MAPE", "msle", "MSLE", "bce", "BCE", "kld", "KLD"),
    *FUNCTIONS,
    *("circle", "ctc", "dice", "tversky"),
    *dict.fromkeys(r.name for r in (*LOSSES, *WHOLE_LOSSES) if r.name != UNLISTED),
]


def test_every_name_stands_for_what_it_does_in_keras() -> None:
    for name in STRINGS:
        ours, theirs = alphorn.losses.get(name), keras.losses.get(name)
        called = [getattr(x, "__name__", type(x).__name__) for x in (ours, theirs)]
        assert called[0] == called[1], name
    known = {
        n for n in keras.src.losses.ALL_OBJECTS_DICT if n.lower() in {s.lower() for s in STRINGS}
    }
    for name in known:
        assert alphorn.losses.get(name) is not None
    assert alphorn.losses.get(None) is None


@pytest.mark.parametrize("row", [*LOSSES, *WHOLE_LOSSES], ids=str)
def test_configs_travel_both_ways(row: Row) -> None:
    ours = row.make(alphorn.losses, reduction="sum", name="mine")
    theirs = row.make(keras.losses, reduction="sum", name="mine")
    config = alphorn.losses.serialize(ours)
    assert keras.losses.serialize(theirs)["config"].items() <= config["config"].items()
    for loss in (
        alphorn.losses.deserialize(config),
        type(ours).from_config(ours.get_config()),
        alphorn.losses.get(keras.losses.serialize(theirs)),
    ):
        assert type(loss) is type(ours)
        assert (loss.name, loss.reduction) == ("mine", "sum")
    again = alphorn.losses.deserialize(config)
    assert again.get_config() == ours.get_config()
    if row.name != UNLISTED:
        assert keras.losses.deserialize(config).name == "mine"


def test_configs_of_functions_and_losses_of_ones_own() -> None:
    for function in (alphorn.losses.mean_squared_error, alphorn.losses.huber):
        found = alphorn.losses.deserialize(alphorn.losses.serialize(function))
        assert found is function
    loss = Smoothness(rate=0.25, reduction="sum")
    config = alphorn.losses.serialize(loss)
    again = alphorn.losses.deserialize(config, {"Smoothness": Smoothness})
    assert (again.rate, again.reduction) == (0.25, "sum")
    wrapped = as_loss(whole_batch)
    config = alphorn.losses.serialize(wrapped)
    again = alphorn.losses.deserialize(config, {"whole_batch": whole_batch})
    true, pred = pair("real")
    close(again(true, pred), wrapped(true, pred))
    half = alphorn.losses.Huber(dtype="bfloat16")
    assert type(half).from_config(half.get_config()).dtype == "bfloat16"


# --- bad input


def test_bad_input_is_named() -> None:
    losses = alphorn.losses
    with pytest.raises(alphorn.ArgumentError, match=r"Huber: reduction[\s\S]*'average'"):
        losses.Huber(reduction="average")
    with pytest.raises(alphorn.ArgumentError, match="mean_squared_error"):
        losses.get("mean_square_error")
    with pytest.raises(alphorn.ShapeError, match="sparse_categorical_crossentropy"):
        losses.CategoricalCrossentropy()(np.zeros((2,), "int32"), np.ones((2, 3), "float32"))
    with pytest.raises(alphorn.ShapeError, match=r"categorical_crossentropy[\s\S]*one-hot"):
        losses.SparseCategoricalCrossentropy()(np.zeros((2, 3)), np.ones((2, 3), "float32"))
    with pytest.raises(alphorn.ShapeError, match=r"y_true \(2, 3\), y_pred \(2, 4\)"):
        losses.MeanSquaredError()(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(alphorn.ShapeError, match="sample_weight"):
        losses.MeanSquaredError()(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 3, 4)))
    with pytest.raises(alphorn.ShapeError, match="sample_weight"):
        losses.MeanSquaredError()(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((3,)))
    with pytest.raises(alphorn.ArgumentError, match="no call"):
        alphorn.Loss()(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(alphorn.ArgumentError, match="loss"):
        as_loss(3.0)
