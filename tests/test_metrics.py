"""Metrics: Keras's numbers, the promise under masks, and what `compile` and users do with them."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from alphorn import ops
from alphorn.core.masked import Masked
from alphorn.metrics import as_metric
from rows_training import (
    BATCH,
    CLASSES,
    FLAT_METRICS,
    LABEL_METRICS,
    LENGTHS,
    METRICS,
    STEPS,
    Row,
    pair,
    step_mask,
    weights,
)

BASES = {"Metric", "Mean", "Sum", "MeanMetricWrapper"}
# Kinds of data whose entries stand each for itself, and do not for a class beside others.
BY_ENTRY = {"labels", "binary", "binary logits", "real", "positive", "signs", "counts"}
# Those with arguments that must be given.
BY_NAME_ONLY = {
    *("IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU", "PrecisionAtRecall", "RecallAtPrecision"),
    *("SensitivityAtSpecificity", "SpecificityAtSensitivity"),
}
COMPARING = ("CosineSimilarity", "PearsonCorrelation", "ConcordanceCorrelation")


def close(a: Any, b: Any, tolerance: float = 1e-5, what: str = "") -> None:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, what
    assert np.isfinite(a).all(), what
    assert np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1), what


def test_every_metric_has_a_row() -> None:
    public = {n for n in alphorn.metrics.__all__ if n[0].isupper()} - BASES
    assert public == {r.name for r in (*METRICS, *FLAT_METRICS)}


def measured(metric: Any, *batches: tuple) -> Any:
    """Returns what a metric says after batches of `(y_true, y_pred, sample_weight)`."""
    state = [jnp.zeros(v.shape, v.dtype) for v in metric.variables]
    for batch in batches:
        state = metric.stateless_update_state(state, *batch)
    return metric.stateless_result(state)


def programs(row: Row) -> Any:
    """Returns a compiled function that takes a batch into the metric in every way, and Keras's."""
    ours, theirs = row.make(alphorn.metrics), row.make(keras.metrics)
    alone = row.data in BY_ENTRY and row.name not in COMPARING
    alone &= "class_id" not in ours.get_config() and row.label != "label weights"

    def took(metric: Any, state: Any, *batch: Any) -> tuple[Any, Any]:
        zeros = [jnp.zeros(v.shape, v.dtype) for v in metric.variables]
        state = metric.stateless_update_state(zeros if state is None else state, *batch)
        return metric.stateless_result(state), state

    @jax.jit
    def run(states: dict, clean: Any, dirty: Any, flat: Any, mask: Any, weights: dict) -> dict:
        (true, pred), (junk_true, junk_pred) = clean, dirty
        masked = Masked.trusted(junk_pred, mask)
        keep = weights["keras"]
        found = {
            "plain": took(ours, states.get("plain"), true, pred),
            "rows": took(ours, states.get("rows"), true, pred, weights["rows"]),
            "masked": took(ours, states.get("masked"), junk_true, masked, weights["steps"]),
            "flat": took(ours, states.get("flat"), *flat),
            "keras": took(theirs, states.get("keras"), true, pred),
            "keras weighted": took(theirs, states.get("keras weighted"), true, pred, keep),
        }
        if alone:
            one = junk_true[..., 0], Masked.trusted(junk_pred[..., 0], mask), weights["steps"]
            found["one"] = took(ours, states.get("one"), *one)
            only = true[..., :1], pred[..., :1], keep
            found["keras one"] = took(theirs, states.get("keras one"), *only)
        return found

    def walk(batches: list, junk: float | None = None, **weights: Any) -> dict[str, Any]:
        states: dict = {}
        for true, pred, mask in batches:
            dirty = [x if junk is None else spoiled(x, mask, junk) for x in (true, pred)]
            flat = [x[step_mask()] for x in (true, pred)]
            found = run(states, (true, pred), dirty, flat, mask, weights)
            states = {k: state for k, (_, state) in found.items()}
        return {k: np.squeeze(result) for k, (result, _) in found.items()}

    return walk


def spoiled(x: np.ndarray, mask: np.ndarray, junk: float) -> np.ndarray:
    filled = x.copy()
    filled[~mask] = junk if x.dtype.kind == "f" else 99
    return filled


@pytest.mark.parametrize("row", METRICS, ids=str)
def test_keras_s_numbers_and_the_promise(row: Row) -> None:
    walk = programs(row)
    batches = [pair(row.data, seed=s) for s in (0, 1)]
    mask = step_mask()
    masked = [(*b, mask) for b in batches]
    full = [(*b, np.full_like(mask, True)) for b in batches]
    rows, steps = weights()
    ones = np.ones_like(steps)

    def same(found: dict, ours: str, theirs: str, what: str = "") -> None:
        close(found[ours], found[theirs], row.tolerance, f"{ours}, {what}")

    found = walk(full, rows=rows, steps=steps, keras=np.repeat(rows[:, None], STEPS, 1))
    same(found, "rows", "keras weighted")
    if row.label != "ignore":  # Keras counts ignored classes where there are no weights
        same(found, "plain", "keras")
    found = walk(full, rows=rows, steps=steps, keras=steps)
    same(found, "masked", "keras weighted", "all valid")
    same(walk(masked, rows=rows, steps=ones, keras=ones), "masked", "flat")
    for junk in (1e3, np.inf, np.nan):
        weighed = {"steps": spoiled(steps, mask, junk), "keras": steps * mask, "rows": rows}
        found = walk(masked, junk, **weighed)
        same(found, "masked", "keras weighted", str(junk))
        if "one" in found:
            same(found, "one", "keras one", str(junk))
    halves = [
        (*batch, mask & np.isin(np.arange(BATCH), chosen)[:, None])
        for batch in reversed(batches)
        for chosen in ((2, 0), (3, 1))
    ]
    other = walk(halves, np.nan, rows=rows, steps=steps, keras=steps)
    close(other["masked"], found["masked"], row.tolerance, "other batches")


@pytest.mark.parametrize("row", LABEL_METRICS, ids=str)
def test_metrics_of_many_labels(row: Row) -> None:
    ours, theirs = row.make(alphorn.metrics), row.make(keras.metrics)
    true, pred = pair("binary")
    mask = step_mask()
    _, steps = weights()

    @jax.jit
    def run(pred: Any) -> Any:
        flat = true.reshape(-1, CLASSES), pred.reshape(-1, CLASSES)
        weighed = [*flat, (mask * steps).reshape(-1)]
        masked = true, Masked.trusted(jnp.where(mask[..., None], pred, jnp.nan), mask), steps
        return (
            (measured(ours, (*flat, None)), measured(theirs, (*flat, None))),
            (measured(ours, masked), measured(theirs, weighed)),
        )

    for a, b in run(pred):
        close(a, b)


def test_mean_and_sum() -> None:
    values = np.arange(20, dtype="float32").reshape(BATCH, STEPS)
    rows, steps = weights()
    mask = step_mask()
    for name in ("Mean", "Sum"):
        ours, theirs = getattr(alphorn.metrics, name)(), getattr(keras.metrics, name)()
        assert ours.name == theirs.name
        for args in ((values,), (values, rows), (values[0], steps[0]), ([1.0, 3.0],), (2.0,)):
            close(ours(*args), theirs(*args))
            close(ours(*args), theirs(*args))  # the same once more
            ours.reset_state()
            theirs.reset_state()
        ours.reset_state()
        theirs.reset_state()
        close(ours.result(), theirs.result())
        ours.update_state(Masked.trusted(np.where(mask, values, np.nan), mask), steps)
        theirs.update_state(values, steps * mask)
        close(ours.result(), theirs.result())


def test_a_last_axis_of_one_may_be_missing() -> None:
    true, pred = pair("binary", (BATCH,))
    rows, _ = weights()
    for name in ("MeanSquaredError", "BinaryAccuracy", "AUC", "Precision"):
        for shapes in (((BATCH,), (BATCH, 1)), ((BATCH, 1), (BATCH,)), ((BATCH,), (BATCH,))):
            args = (true.reshape(shapes[0]), pred.reshape(shapes[1]), rows)
            # Keras takes the mean of a batch of numbers for one value.
            theirs = getattr(keras.metrics, name)()(true[:, None], pred[:, None], rows)
            close(getattr(alphorn.metrics, name)()(*args), theirs)


def test_figures_of_batches_of_unequal_size_are_those_of_all_rows() -> None:
    true, pred = pair("real", (BATCH, 1))
    metric = alphorn.metrics.MeanSquaredError()
    metric.update_state(true[:1, 0], pred[:1])
    metric.update_state(true[1:, 0], pred[1:])
    close(metric.result(), np.square(true - pred).mean())


FUNCTIONS = {
    "binary_accuracy": "binary",
    "categorical_accuracy": "one-hot",
    "sparse_categorical_accuracy": "class",
    "top_k_categorical_accuracy": "one-hot",
    "sparse_top_k_categorical_accuracy": "class",
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
    "binary_crossentropy": "binary",
    "binary_focal_crossentropy": "binary",
    "categorical_focal_crossentropy": "one-hot",
    "concordance_correlation": "real",
    "pearson_correlation": "real",
    "categorical_crossentropy": "one-hot",
    "sparse_categorical_crossentropy": "class",
}


def test_functions_are_keras_s() -> None:
    public = {n for n in alphorn.metrics.__all__ if n[0].islower()}
    assert public - {"get", "serialize", "deserialize"} == set(FUNCTIONS)
    data = {name: pair(kind) for name, kind in FUNCTIONS.items()}

    @jax.jit
    def both(data: dict) -> Any:
        found = []
        for m in (alphorn.metrics, keras.metrics):
            options = {"k": 2}
            found.append(
                [
                    getattr(m, name)(*xs, **(options if "top_k" in name else {}))
                    for name, xs in data.items()
                ]
            )
        return found

    for ours, theirs in zip(*both(data), strict=True):
        close(ours, theirs)


def test_functions_keep_masks() -> None:
    true, pred = pair("class")
    found = alphorn.metrics.sparse_categorical_accuracy(true, Masked(pred, step_mask()))
    assert isinstance(found, Masked)
    close(found.fill(0), (true == pred.argmax(-1)) * step_mask())


# --- names and files

SHORT = ["mse", "MSE", "mae", "MAE", "mape", "MAPE", "msle", "MSLE", "bce", "BCE"]


def test_every_name_stands_for_what_it_does_in_keras() -> None:
    keras.utils.clear_session(free_memory=False)
    names = set(SHORT)
    classes = {r.name for r in (*METRICS, *FLAT_METRICS)} | {"Mean", "Sum"}
    for cls in classes - BY_NAME_ONLY:
        names |= {n for n, c in keras.src.metrics.ALL_OBJECTS_DICT.items() if c.__name__ == cls}
    assert len(names) > 60
    for name in names:
        ours, theirs = alphorn.metrics.get(name), keras.metrics.get(name)
        assert type(ours).__name__ == type(theirs).__name__, name
        assert ours.name == theirs.name
    assert alphorn.metrics.get(None) is None
    with pytest.raises(alphorn.ArgumentError, match="precision"):
        alphorn.metrics.get("precison")


@pytest.mark.parametrize("row", [*METRICS, *FLAT_METRICS, *LABEL_METRICS], ids=str)
def test_configs_travel_both_ways(row: Row) -> None:
    keras.utils.clear_session(free_memory=False)
    ours, theirs = row.make(alphorn.metrics), row.make(keras.metrics)
    assert ours.name == theirs.name
    config = alphorn.metrics.serialize(ours)
    again = alphorn.metrics.deserialize(config)
    assert type(again) is type(ours)
    assert again.get_config() == ours.get_config()
    opened = keras.metrics.deserialize(config)
    back = alphorn.metrics.get(keras.metrics.serialize(theirs))
    for wanted, found in ((theirs, opened), (ours, back)):
        wanted, found = wanted.get_config(), found.get_config()
        given = [c.pop("label_weights", None) for c in (wanted, found)]
        close(*(0 if w is None else w for w in given))
        assert {k: v for k, v in wanted.items() if k != "fn"}.items() <= found.items()


def test_variables_have_keras_s_names_and_shapes() -> None:
    keras.utils.clear_session(free_memory=False)
    for row in METRICS:
        ours, theirs = row.make(alphorn.metrics), row.make(keras.metrics)
        named = [[(v.name, tuple(v.shape), v.path) for v in m.variables] for m in (ours, theirs)]
        assert named[0] == named[1], row.name
        for name in ("thresholds", "top_k", "class_id", "num_thresholds"):
            if hasattr(theirs, name):
                close(getattr(ours, name) or 0, getattr(theirs, name) or 0, what=name)


def test_automatic_names() -> None:
    keras.utils.clear_session(free_memory=False)
    for _ in range(2):
        for name in ("Precision", "AUC", "TruePositives"):
            ours, theirs = getattr(alphorn.metrics, name)(), getattr(keras.metrics, name)()
            assert ours.name == theirs.name


# --- metrics of one's own


class FScore(alphorn.Metric):
    """Made of two others."""

    def __init__(self, name: str = "f_score", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.precision = alphorn.metrics.Precision()
        self.recall = alphorn.metrics.Recall()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.precision.update_state(y_true, y_pred, sample_weight)
        self.recall.update_state(y_true, y_pred, sample_weight)

    def result(self) -> Any:
        p, r = self.precision.result(), self.recall.result()
        return 2 * p * r / (p + r + 1e-7)


class Largest(alphorn.Metric):
    """Written on jax arrays, with both ways to make a sum."""

    def __init__(self, scale: float = 1.0, name: str = "largest", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.scale = scale
        self.largest = self.add_weight(name="largest", initializer="zeros")
        self.seen = self.add_variable((2,), "zeros", dtype="int32", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        error = ops.max(ops.abs(y_true - y_pred))
        self.largest.assign(jnp.maximum(self.largest, error))
        self.seen.assign(self.seen + jnp.array([1, 2]))

    def result(self) -> Any:
        return {"largest": self.largest * self.scale, "batches": self.seen[0]}


def test_a_metric_of_metrics() -> None:
    true, pred = pair("binary", (BATCH, 1))
    metric = FScore()
    assert len(metric.variables) == 4
    first = metric(true, pred)
    metric.reset_state()
    close(metric.result(), 0.0)
    close(metric(true, pred), first)
    close(jax.jit(lambda t, p: measured(metric, (t, p)))(true, pred), first)


def dense(units: int = 1) -> Any:
    model = alphorn.Sequential([alphorn.Input((3,)), alphorn.layers.Dense(units, "sigmoid")])
    model.set_weights(
        [np.linspace(-1, 1, 3 * units, dtype="float32").reshape(3, units), np.zeros(units)]
    )
    return model


def test_own_metrics_in_fit_evaluate_and_train_on_batch() -> None:
    x, _ = pair("real", (8, 3))
    y = (x[:, :1] > 0).astype("float32")
    model = dense()
    by_hand = lambda t, p: ops.mean(ops.abs(t - p), axis=-1)  # noqa: E731
    model.compile("sgd", "mse", metrics=[FScore(), Largest(2.0), by_hand, "mae", "AUC", None])
    pred = np.asarray(model(x))
    logs = model.evaluate(x, y, batch_size=3, return_dict=True, verbose=0)
    close(logs["largest"], 2 * np.abs(y - pred).max())
    assert logs["batches"] == 3
    close(logs["<lambda>"], np.abs(y - pred).mean())
    close(logs["mae"], np.abs(y - pred).mean())
    hits = (pred > 0.5) & (y == 1)
    close(logs["f_score"], 2 * hits.sum() / ((pred > 0.5).sum() + y.sum()))
    close(logs["AUC"], keras.metrics.AUC()(y, pred))
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False).history
    assert history["batches"] == [2, 2]


def test_configs_of_metrics_of_ones_own() -> None:
    metric = Largest(3.0, dtype="float32")
    again = alphorn.metrics.deserialize(alphorn.metrics.serialize(metric), {"Largest": Largest})
    assert (again.scale, again.name) == (3.0, "largest")

    def ratio(y_true: Any, y_pred: Any, by: float = 1.0) -> Any:
        return y_pred / y_true * by

    wrapped = alphorn.metrics.MeanMetricWrapper(ratio, name="ratio", by=2.0)
    config = alphorn.metrics.serialize(wrapped)
    again = alphorn.metrics.deserialize(config, {"ratio": ratio})
    close(again([[2.0]], [[1.0]]), 1.0)
    function = alphorn.metrics.binary_accuracy
    assert alphorn.metrics.deserialize(alphorn.metrics.serialize(function)) is function


def test_functions_of_ones_own_receive_the_mask() -> None:
    true, pred = pair("real")
    mask = step_mask()
    metric = as_metric(lambda t, p: ops.mean(ops.square(t - p)), "whole")
    assert metric.name == "whole"
    close(metric(true, Masked(pred, mask)), np.square(true - pred)[mask].mean())
    raw = as_metric(lambda t, p: jnp.mean(jnp.square(t - p), -1))
    with pytest.raises(alphorn.MaskError, match=r"ops\."):
        raw.update_state(true, Masked(pred, mask))


# --- in compile


def test_weights_count_only_in_weighted_metrics() -> None:
    x, _ = pair("real", (8, 3))
    y = (x[:, 0] > 0).astype("float32")
    weight = np.linspace(0.1, 2, 8, dtype="float32")
    model = dense()
    model.compile(
        "sgd", "binary_crossentropy", metrics=["accuracy"], weighted_metrics=["acc", "mse"]
    )
    logs = model.evaluate(x, y, sample_weight=weight, batch_size=3, return_dict=True, verbose=0)
    pred = np.asarray(model(x))[:, 0]
    right = (pred > 0.5) == y
    close(logs["accuracy"], right.mean())
    close(logs["acc"], (right * weight).sum() / weight.sum())
    close(logs["mse"], (np.square(y - pred) * weight).sum() / weight.sum())


def test_evaluate_counts_valid_steps_whatever_the_batches() -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(BATCH, STEPS, 2)).astype("float32") * step_mask()[..., None]
    y = random.integers(0, CLASSES, (BATCH, STEPS)).astype("int32")
    model = alphorn.Sequential(
        [
            alphorn.Input((STEPS, 2)),
            alphorn.layers.Masking(),
            alphorn.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    pred = np.asarray(alphorn.unmask(model(x)))
    right = (pred.argmax(-1) == y)[step_mask()].mean()
    each = -np.log(np.take_along_axis(pred, y[..., None], -1)[..., 0])[step_mask()].mean()
    for size, order in ((1, [0, 1, 2, 3]), (3, [3, 1, 0, 2]), (4, [0, 1, 2, 3])):
        loss, accuracy = model.evaluate(x[order], y[order], batch_size=size, verbose=0)
        close(accuracy, right)
        close(loss, each)
    assert sum(LENGTHS) == step_mask().sum()


# --- bad input


def test_bad_input_is_named() -> None:
    metrics = alphorn.metrics
    with pytest.raises(alphorn.ArgumentError, match=r"Precision: thresholds[\s\S]*1.5"):
        metrics.Precision(thresholds=[0.5, 1.5])
    with pytest.raises(alphorn.ArgumentError, match=r"AUC: curve[\s\S]*'ROCK'"):
        metrics.AUC(curve="ROCK")
    with pytest.raises(alphorn.ArgumentError, match="AUC: summation_method"):
        metrics.AUC(summation_method="minor")
    with pytest.raises(alphorn.ArgumentError, match="AUC: num_thresholds"):
        metrics.AUC(num_thresholds=1)
    for make in (lambda: metrics.FBetaScore(beta=1), lambda: metrics.F1Score("mean")):
        with pytest.raises(alphorn.ArgumentError, match=r"Score: (beta|average)"):
            make()
    with pytest.raises(alphorn.ArgumentError, match="IoU: target_class_ids"):
        metrics.IoU(2, [2])
    with pytest.raises(alphorn.ArgumentError, match="PrecisionAtRecall: recall"):
        metrics.PrecisionAtRecall(1.5)
    with pytest.raises(alphorn.StateError, match="seen nothing"):
        metrics.R2Score().result()
    with pytest.raises(alphorn.ShapeError, match="class_id"):
        metrics.Precision(class_id=1).update_state(np.zeros(4), np.zeros(4))
    with pytest.raises(alphorn.ShapeError, match="y_true"):
        metrics.AUC().update_state(np.zeros((4, 3)), np.zeros((4, 2)))
    with pytest.raises(alphorn.ArgumentError, match="update_state"):
        alphorn.Metric(name="mine").update_state(1, 2)
    with pytest.raises(alphorn.StateError, match="mean"):
        alphorn.metrics.Mean().stateless_result([1.0])
    with pytest.raises(alphorn.ArgumentError, match="metric"):
        as_metric(3.0)
