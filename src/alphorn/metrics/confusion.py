"""Metrics that count right and wrong at thresholds: Precision, Recall, AUC and their kin."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.errors import ArgumentError
from alphorn.losses import plain_pair, same_rank, weights_for
from alphorn.metrics.base import Metric
from alphorn.naming import register

__all__ = [
    "AUC",
    "FalseNegatives",
    "FalsePositives",
    "Precision",
    "Recall",
    "TrueNegatives",
    "TruePositives",
]


def _flat_entries(
    y_true: Any, y_pred: Any, sample_weight: Any, class_id: int | None, top_k: int | None
) -> tuple[Array, Array, Array]:
    """Targets, predictions and weights, each `(entries,)`; padding weighs 0."""
    true, pred, mask = plain_pair(y_true, y_pred)
    true, pred = same_rank(true, pred)
    weight = weights_for(pred, mask, sample_weight)
    weight = jnp.ones(pred.shape, jnp.float32) if weight is None else weight
    if top_k is not None:
        kth = jnp.sort(pred, -1)[..., -top_k][..., None]
        pred = jnp.where(pred >= kth, pred, -jnp.inf)
    if class_id is not None:
        true, pred, weight = (v[..., class_id] for v in (true, pred, weight))
    return true.reshape(-1) > 0.5, pred.reshape(-1), weight.reshape(-1).astype(jnp.float32)


class _Thresholded(Metric):
    def _thresholds(self, thresholds: Any, default: float) -> None:
        given = [default if thresholds is None else thresholds]
        found = list(given[0]) if isinstance(given[0], list | tuple) else given
        if any(t < 0 or t > 1 for t in found):
            raise ArgumentError(
                f"{type(self).__name__}: thresholds", repr(thresholds), "numbers between 0 and 1"
            )
        self.thresholds = thresholds
        self._limits = np.array(found, np.float32)

    def _several(self, figure: Array) -> Array:
        return figure if isinstance(self.thresholds, list | tuple) else figure[0]

    def counts(self, true: Array, pred: Array, weight: Array, right: bool, called: bool) -> Array:
        """Returns how many targets that are `right` are called so at each threshold."""
        above = pred[None] > jnp.asarray(self._limits)[:, None]
        chosen = (true == right)[None] & (above == called)
        return jnp.sum(jnp.where(chosen, weight[None], 0), 1)


class _Count(_Thresholded):
    right: bool
    called: bool

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None):
        super().__init__(dtype, name)
        self._thresholds(thresholds, 0.5)
        self.accumulator = self.add_variable((len(self._limits),), name="accumulator")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        entries = _flat_entries(y_true, y_pred, sample_weight, None, None)
        self.accumulator.assign_add(self.counts(*entries, self.right, self.called))

    def result(self) -> Array:
        """Returns the count."""
        return self._several(self.accumulator.value)


class TruePositives(_Count):
    """How many positives are called so."""

    right, called = True, True


class TrueNegatives(_Count):
    """How many negatives are called so."""

    right, called = False, False


class FalsePositives(_Count):
    """How many negatives are called positive."""

    right, called = False, True


class FalseNegatives(_Count):
    """How many positives are called negative."""

    right, called = True, False


class _Ratio(_Thresholded):
    missed: tuple[bool, bool]

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(dtype, name)
        self._thresholds(thresholds, 0.5 if top_k is None else 0.0)
        if top_k is not None and thresholds is None:
            self._limits = np.array([-np.inf], np.float32)
        self.top_k, self.class_id = top_k, class_id
        self.true_positives = self.add_variable((len(self._limits),), name="true_positives")
        self.others = self.add_variable((len(self._limits),), name="others")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        entries = _flat_entries(y_true, y_pred, sample_weight, self.class_id, self.top_k)
        self.true_positives.assign_add(self.counts(*entries, True, True))
        self.others.assign_add(self.counts(*entries, *self.missed))

    def result(self) -> Array:
        """Returns the ratio, 0 for nothing."""
        hits = self.true_positives.value
        total = hits + self.others.value
        return self._several(jnp.where(total == 0, 0, hits / jnp.where(total == 0, 1, total)))


class Precision(_Ratio):
    """The share of true ones among those called positive."""

    missed = (False, True)


class Recall(_Ratio):
    """The share of those called positive among the positives."""

    missed = (True, False)


class AUC(_Thresholded):
    """The area under the ROC or the precision-recall curve, by thresholds.

    Args:
        num_thresholds: How many.
        curve: "ROC" or "PR".
        summation_method: "interpolation", "minoring" or "majoring".
        name, dtype: As for all metrics.
        thresholds: Thresholds of your own.
        multi_label: Whether each column is a question of its own; the areas are then averaged.
        num_labels: Columns, with `multi_label`.
        label_weights: Weights of the columns.
        from_logits: Whether predictions are logits.
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ):
        super().__init__(dtype, name)
        for argument, value, known in (
            ("curve", curve, ("ROC", "PR")),
            ("summation_method", summation_method, ("interpolation", "minoring", "majoring")),
        ):
            if value not in known:
                raise ArgumentError(f"AUC: {argument}", repr(value), f"one of {', '.join(known)}")
        if thresholds is None and num_thresholds <= 1:
            raise ArgumentError("AUC: num_thresholds", num_thresholds, "at least 2")
        if multi_label and num_labels is None:
            raise ArgumentError("AUC: num_labels", "None with multi_label", "how many columns")
        self.curve, self.summation_method = curve, summation_method
        self.multi_label, self.num_labels = multi_label, num_labels
        self.label_weights, self.from_logits = label_weights, from_logits
        inner = (
            [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
            if thresholds is None
            else sorted(thresholds)
        )
        self.num_thresholds = len(inner) + 2
        self._limits = np.array([-1e-7, *inner, 1 + 1e-7], np.float32)
        columns = (num_labels,) if multi_label else ()
        for figure in ("true_positives", "false_positives", "true_negatives", "false_negatives"):
            shape = (self.num_thresholds, *columns)  # pyright: ignore
            setattr(self, figure, self.add_variable(shape, name=figure))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        if not self.multi_label:
            true, pred, weight = _flat_entries(y_true, y_pred, sample_weight, None, None)
            true, pred, weight = true[:, None], pred[:, None], weight[:, None]
        else:
            plain_true, plain_pred, mask = plain_pair(y_true, y_pred)
            weight = weights_for(plain_pred, mask, sample_weight)
            weight = jnp.ones(plain_pred.shape) if weight is None else weight
            columns = plain_pred.shape[-1]
            true, pred, weight = (
                v.reshape(-1, columns) for v in (plain_true > 0.5, plain_pred, weight)
            )
        if self.from_logits:
            pred = 1 / (1 + jnp.exp(-pred))
        above = pred[None] > jnp.asarray(self._limits)[:, None, None]
        for figure, right, called in (
            ("true_positives", True, True),
            ("false_positives", False, True),
            ("true_negatives", False, False),
            ("false_negatives", True, False),
        ):
            chosen = (true == right)[None] & (above == called)
            count = jnp.sum(jnp.where(chosen, weight[None], 0), 1)
            variable = getattr(self, figure)
            variable.assign_add(count if self.multi_label else count[:, 0])

    def result(self) -> Array:
        """Returns the area."""
        tp, fp = self.true_positives.value, self.false_positives.value  # pyright: ignore
        tn, fn = self.true_negatives.value, self.false_negatives.value  # pyright: ignore
        if self.curve == "PR" and self.summation_method == "interpolation":
            areas = self._interpolated(tp, fp, fn)
        else:
            recall = _divide(tp, tp + fn)
            if self.curve == "ROC":
                x, y = _divide(fp, fp + tn), recall
            else:
                x, y = recall, _divide(tp, tp + fp)
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


def _divide(a: Array, b: Array) -> Array:
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


for _class in (AUC, Precision, Recall):
    register("metrics", _class, _class.__name__.lower(), _class.__name__)
