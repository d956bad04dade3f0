"""Metrics that count right and wrong at thresholds: Precision, Recall, AUC and their kin.

A target counts as positive above 0.5.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.errors import ArgumentError, ShapeError, StateError
from alphorn.fields import attribute
from alphorn.loading import take
from alphorn.losses.pairs import counted, plain_pair, weights_for
from alphorn.metrics.base import Metric
from alphorn.naming import serialize

__all__ = [
    "AUC",
    "FalseNegatives",
    "FalsePositives",
    "Precision",
    "Recall",
    "TrueNegatives",
    "TruePositives",
]

_LOWEST = -1e10


def _divide(a: Array, b: Array) -> Array:
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _best(pred: Array, k: int) -> Array:
    """Returns predictions with all but the `k` largest of the last axis as low as can be."""
    places = jax.lax.top_k(pred, k)[1]
    chosen = jax.nn.one_hot(places, pred.shape[-1], dtype=jnp.bool_).any(-2)
    return jnp.where(chosen, pred, _LOWEST)


def _counts(limits: np.ndarray, true: Array, pred: Array, weight: Array) -> dict[str, Array]:
    """Counts, by weight, what each limit calls rightly and wrongly: `(limits, columns)` each.

    Args:
        limits: A prediction above one is called positive.
        true: Targets, `(entries, columns)` booleans.
        pred: Predictions of that shape.
        weight: Weights of that shape.
    """
    order = np.argsort(limits)
    back = np.argsort(order)
    pred = jnp.where(jnp.isnan(pred), -jnp.inf, pred)
    passed = jnp.searchsorted(jnp.asarray(limits[order]), pred, side="left")  # limits below
    columns = jnp.arange(pred.shape[1])[None]
    found: dict[str, Array] = {}
    for kind, right, wrong in (
        (True, "true_positives", "false_negatives"),
        (False, "false_positives", "true_negatives"),
    ):
        row = jnp.where(true == kind, weight, 0)
        by_limits = jnp.zeros((len(limits) + 1, pred.shape[1]), row.dtype)
        by_limits = by_limits.at[passed, columns].add(row)
        found[right] = jnp.cumsum(by_limits[::-1], axis=0)[::-1][1:][back]
        found[wrong] = jnp.cumsum(by_limits, axis=0)[:-1][back]
    return found


class _Thresholded(Metric):
    kept: ClassVar[tuple[str, ...]]  # the figures that this one sums
    if TYPE_CHECKING:
        thresholds: Any = attribute()
        name: str | None = attribute()
        dtype: Any = attribute()

    def _start(self, default: float) -> list[float]:
        """Makes this a metric, and reads and returns the thresholds."""
        Metric.__init__(self, self.dtype, self.name)
        given = self.init_thresholds = self.thresholds
        self.thresholds = [float(t) for t in np.atleast_1d(default if given is None else given)]
        if given is not None and any(not 0 <= t <= 1 for t in self.thresholds):
            raise ArgumentError(
                f"{type(self).__name__}: thresholds", repr(given), "numbers between 0 and 1"
            )
        return self.thresholds

    def _make_sums(self, *columns: Any) -> None:
        shape = (len(self.thresholds), *columns)
        self._kept = [self.add_variable(shape, name=name) for name in self.kept]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, with the thresholds as they were given."""
        return super().get_config() | {"thresholds": serialize(self.init_thresholds)}

    def _entries(
        self, y_true: Any, y_pred: Any, sample_weight: Any, columns: bool = False
    ) -> tuple[Array, Array, Array]:
        """Returns targets, predictions and weights, `(entries, columns)`; padding weighs 0."""
        true, pred, mask = plain_pair(y_true, y_pred, counted(sample_weight, y_pred))
        if true.shape != pred.shape:
            raise ShapeError(
                f"{type(self).__name__}: targets and predictions do not fit together",
                received=f"y_true {tuple(true.shape)}, y_pred {tuple(pred.shape)}",
                expected="equal shapes",
            )
        weight = weights_for(pred.astype(self.dtype), mask, sample_weight)
        weight = jnp.ones(pred.shape, self.dtype) if weight is None else weight
        if (top_k := getattr(self, "top_k", None)) is not None:
            pred = _best(pred, top_k)
        if (class_id := getattr(self, "class_id", None)) is not None:
            if pred.ndim < 2:
                raise ShapeError(
                    f"{type(self).__name__}: class_id={class_id}",
                    received=f"y_pred {tuple(pred.shape)}",
                    expected="classes on the last axis: (rows, classes)",
                )
            true, pred, weight = (v[..., class_id] for v in (true, pred, weight))
        width = pred.shape[-1] if columns else 1
        return (true > 0.5).reshape(-1, width), pred.reshape(-1, width), weight.reshape(-1, width)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        entries = self._entries(y_true, y_pred, sample_weight)
        counts = _counts(np.array(self.thresholds, np.float32), *entries)
        for name, variable in zip(self._figures(), self._kept, strict=True):
            variable.assign_add(counts[name][:, 0])

    def _figures(self) -> tuple[str, ...]:
        return self.kept

    def _several(self, figure: Array) -> Array:
        return figure if len(self.thresholds) > 1 else figure[0]


class _Count(_Thresholded):
    kept = ("accumulator",)
    figure: ClassVar[str]

    def after_init(self) -> None:
        """Makes the sums."""
        self._start(0.5)
        self._make_sums()

    def _figures(self) -> tuple[str, ...]:
        return (self.figure,)

    def result(self) -> Array:
        """Returns the count."""
        return self._several(self._kept[0].value)


class TruePositives(_Count):
    """How many positives are called so."""

    figure = "true_positives"
    thresholds: Any = None
    name: str | None = None
    dtype: Any = None


class TrueNegatives(_Count):
    """How many negatives are called so."""

    figure = "true_negatives"
    thresholds: Any = None
    name: str | None = None
    dtype: Any = None


class FalsePositives(_Count):
    """How many negatives are called positive."""

    figure = "false_positives"
    thresholds: Any = None
    name: str | None = None
    dtype: Any = None


class FalseNegatives(_Count):
    """How many positives are called negative."""

    figure = "false_negatives"
    thresholds: Any = None
    name: str | None = None
    dtype: Any = None


class _Ratio(_Thresholded):
    if TYPE_CHECKING:
        top_k: int | None = attribute()

    def after_init(self) -> None:
        """Makes the sums."""
        self._start(0.5 if self.top_k is None else _LOWEST)
        self._make_sums()

    def result(self) -> Array:
        """Returns the ratio, 0 for nothing."""
        hits, others = (v.value for v in self._kept)
        return self._several(_divide(hits, hits + others))


class Precision(_Ratio):
    """The share of true ones among those called positive.

    Args:
        thresholds: Above one a prediction is called positive; several give several figures.
        top_k: Calls the `top_k` likeliest classes positive instead.
        class_id: Looks at one class only.
        name, dtype: As for all metrics.
    """

    kept = ("true_positives", "false_positives")
    thresholds: Any = None
    top_k: int | None = None
    class_id: int | None = None
    name: str | None = None
    dtype: Any = None


class Recall(_Ratio):
    """The share of those called positive among the positives.

    Args:
        thresholds: Above one a prediction is called positive; several give several figures.
        top_k: Calls the `top_k` likeliest classes positive instead.
        class_id: Looks at one class only.
        name, dtype: As for all metrics.
    """

    kept = ("true_positives", "false_negatives")
    thresholds: Any = None
    top_k: int | None = None
    class_id: int | None = None
    name: str | None = None
    dtype: Any = None


class AUC(_Thresholded):
    """The area under the ROC or the precision-recall curve, by thresholds.

    Args:
        num_thresholds: How many.
        curve: "ROC", "PR" or "PRGAIN".
        summation_method: "interpolation", "minoring" or "majoring".
        name, dtype: As for all metrics.
        thresholds: Thresholds of your own.
        multi_label: Whether each column is a question of its own; the areas are then averaged.
        num_labels: Columns, with `multi_label`; by default those of the first batch.
        label_weights: Weights of the columns.
        from_logits: Whether predictions are logits.
    """

    kept = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    num_thresholds: int = 200
    curve: str = "ROC"
    summation_method: str = "interpolation"
    name: str | None = None
    dtype: Any = None
    thresholds: Any = None
    multi_label: bool = False
    num_labels: int | None = None
    label_weights: Any = None
    from_logits: bool = False

    def after_init(self) -> None:
        """Checks the arguments and makes the sums."""
        curve, method = self.curve, self.summation_method
        self.curve, self.summation_method = curve.upper(), method.lower()
        for name, given, known in (
            ("curve", curve, ("ROC", "PR", "PRGAIN")),
            ("summation_method", method, ("interpolation", "minoring", "majoring")),
        ):
            if getattr(self, name) not in known:
                raise ArgumentError(f"AUC: {name}", repr(given), f"one of {', '.join(known)}")
        if self.thresholds is None and self.num_thresholds <= 1:
            raise ArgumentError("AUC: num_thresholds", self.num_thresholds, "at least 2")
        if self.label_weights is not None:
            self.label_weights = np.asarray(self.label_weights).tolist()
        take("AUC: num_thresholds", (self.num_thresholds,), 32)
        limits = self._start(0.5)
        between = self.num_thresholds - 1
        inner = [(i + 1) / between for i in range(between - 1)]
        if self.init_thresholds is not None:
            inner = sorted(limits)
        # All predictions lie above the first and none above the last.
        self.thresholds = [-1e-7, *inner, 1 + 1e-7]
        self.num_thresholds = len(self.thresholds)
        if not self.multi_label or self.num_labels:
            self._make_sums(*([self.num_labels] if self.multi_label else []))

    def prepare(self, y_true: Any, y_pred: Any) -> None:
        """Makes the sums, a column a label, if `num_labels` did not say how many."""
        if "_kept" not in vars(self):
            self.can_prepare("num_labels")
            self._make_sums((getattr(y_pred, "shape", None) or np.shape(y_pred))[-1])

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        self.prepare(y_true, y_pred)
        columns = self.multi_label or self.label_weights is not None
        true, pred, weight = self._entries(y_true, y_pred, sample_weight, columns)
        if self.label_weights is not None and not self.multi_label:
            weight = weight * jnp.asarray(self.label_weights, weight.dtype)
            true, pred, weight = (v.reshape(-1, 1) for v in (true, pred, weight))
        pred = jax.nn.sigmoid(pred) if self.from_logits else jnp.clip(pred, 0, 1)
        counts = _counts(np.array(self.thresholds, np.float32), true, pred, weight)
        for name, variable in zip(self.kept, self._kept, strict=True):
            variable.assign_add(counts[name] if self.multi_label else counts[name][:, 0])

    def result(self) -> Array:
        """Returns the area."""
        if "_kept" not in vars(self):
            raise StateError(f"AUC '{self.name}' has seen nothing yet", fix="update_state first")
        tp, fp, tn, fn = (v.value for v in self._kept)
        if self.curve == "PR" and self.summation_method == "interpolation":
            areas = self._interpolated(tp, fp, fn)
        else:
            x, y = self._curve(tp, fp, tn, fn)
            if self.summation_method == "interpolation":
                heights = (y[:-1] + y[1:]) / 2
            elif self.summation_method == "minoring":
                heights = jnp.minimum(y[:-1], y[1:])
            else:
                heights = jnp.maximum(y[:-1], y[1:])
            areas = jnp.sum((x[:-1] - x[1:]) * heights, 0)
        if not self.multi_label:
            return areas
        if self.label_weights is None:
            return jnp.mean(areas)
        weights = jnp.asarray(self.label_weights, areas.dtype)
        return _divide(jnp.sum(areas * weights), jnp.sum(weights))

    def _curve(self, tp: Array, fp: Array, tn: Array, fn: Array) -> tuple[Array, Array]:
        recall = _divide(tp, tp + fn)
        if self.curve == "ROC":
            return _divide(fp, fp + tn), recall
        if self.curve == "PR":
            return recall, _divide(tp, tp + fp)
        # Flach and Kull (2015); where nothing is found, recall gains 0 and precision 1.
        odds = _divide(tp + fn, tn + fp)
        found = tp > 0
        recall = jnp.where(found, 1 - odds * _divide(fn, tp), 0)
        return jnp.maximum(recall, 0), jnp.where(found, 1 - odds * _divide(fp, tp), 1)

    def _interpolated(self, tp: Array, fp: Array, fn: Array) -> Array:
        """Davis and Goadrich (2006): true positives, not precision, vary linearly."""
        dtp = tp[:-1] - tp[1:]
        called = tp + fp
        slope = _divide(dtp, jnp.maximum(called[:-1] - called[1:], 0))
        start = tp[1:] - slope * called[1:]
        both = (called[:-1] > 0) & (called[1:] > 0)
        ratio = jnp.where(both, _divide(called[:-1], jnp.maximum(called[1:], 0)), 1)
        ratio = jnp.where(ratio == 0, 1, ratio)
        grown = slope * (dtp + start * jnp.log(ratio))
        return jnp.sum(_divide(grown, jnp.maximum(tp[1:] + fn[1:], 0)), 0)
