"""The best of one figure where another reaches a level: precision at a recall and their kin."""

from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.errors import ArgumentError
from alphorn.fields import attribute
from alphorn.loading import take
from alphorn.metrics.base import Metric
from alphorn.metrics.confusion import _counts, _divide, _Thresholded

__all__ = [
    "PrecisionAtRecall",
    "RecallAtPrecision",
    "SensitivityAtSpecificity",
    "SpecificityAtSensitivity",
]


class _AtLevel(_Thresholded):
    kept = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    init_thresholds = None
    level: ClassVar[str]  # the argument that says which level the other figure must reach
    figures: ClassVar[tuple[str, str]]  # the figure that must reach it, and the one looked for
    if TYPE_CHECKING:
        num_thresholds: int = attribute()
        class_id: int | None = attribute()

    def after_init(self) -> None:
        """Checks the arguments and makes the sums."""
        Metric.__init__(self, self.dtype, self.name)
        level, count = getattr(self, self.level), self.num_thresholds
        if not 0 <= level <= 1:
            raise ArgumentError(
                f"{type(self).__name__}: {self.level}", repr(level), "a number from 0 to 1"
            )
        if count <= 0:
            raise ArgumentError(f"{type(self).__name__}: num_thresholds", repr(count), "from 1")
        take(f"{type(self).__name__}: num_thresholds", (count,), 32)
        self.thresholds = [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
        self._make_sums()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {k: v for k, v in super().get_config().items() if k != "thresholds"}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        true, pred, weight = self._entries(y_true, y_pred, sample_weight)
        limits = np.array(self.thresholds, np.float32)
        counts = _counts(limits, true, jnp.clip(pred, 0, 1), weight)
        for name, variable in zip(self.kept, self._kept, strict=True):
            variable.assign_add(counts[name][:, 0])

    def result(self) -> Array:
        """Returns the best figure, 0 where the level is never reached."""
        tp, fp, tn, fn = (v.value for v in self._kept)
        figures = {
            "sensitivity": _divide(tp, tp + fn),
            "specificity": _divide(tn, tn + fp),
            "precision": _divide(tp, tp + fp),
            "recall": _divide(tp, tp + fn),
        }
        reached, wanted = (figures[name] for name in self.figures)
        return jnp.max(jnp.where(reached >= getattr(self, self.level), wanted, 0), initial=0)


class SensitivityAtSpecificity(_AtLevel):
    """The best sensitivity where the specificity is at least so much.

    Args:
        specificity: The level.
        num_thresholds: How many thresholds are tried.
        class_id: Looks at one class only.
        name, dtype: As for all metrics.
    """

    level, figures = "specificity", ("specificity", "sensitivity")
    specificity: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: Any = None


class SpecificityAtSensitivity(_AtLevel):
    """The best specificity where the sensitivity is at least so much.

    Args:
        sensitivity: The level.
        num_thresholds: How many thresholds are tried.
        class_id: Looks at one class only.
        name, dtype: As for all metrics.
    """

    level, figures = "sensitivity", ("sensitivity", "specificity")
    sensitivity: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: Any = None


class PrecisionAtRecall(_AtLevel):
    """The best precision where the recall is at least so much.

    Args:
        recall: The level.
        num_thresholds: How many thresholds are tried.
        class_id: Looks at one class only.
        name, dtype: As for all metrics.
    """

    level, figures = "recall", ("recall", "precision")
    recall: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: Any = None


class RecallAtPrecision(_AtLevel):
    """The best recall where the precision is at least so much.

    Args:
        precision: The level.
        num_thresholds: How many thresholds are tried.
        class_id: Looks at one class only.
        name, dtype: As for all metrics.
    """

    level, figures = "precision", ("precision", "recall")
    precision: float
    num_thresholds: int = 200
    class_id: int | None = None
    name: str | None = None
    dtype: Any = None
