"""Watcher: what callbacks that compare a figure with its best so far have in common."""

import math
import warnings
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError
from alphorn.training.events import Callback

_RISING = "acc auc precision recall f1 fbeta iou r2 dice similarity sensitivity specificity".split()
_FALLING = (
    "loss error mse mae mape msle rmse crossentropy divergence poisson hinge perplexity".split()
)


class Watcher(Callback):
    """Base of callbacks that compare a figure with its best so far.

    Args:
        monitor: The figure.
        mode: "min", "max" or "auto", by the figure's name.
        min_delta: What counts as better.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0):
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ArgumentError(
                f"{type(self).__name__}: mode", repr(mode), "'auto', 'min' or 'max'"
            )
        self.monitor, self.mode = monitor, mode
        self.min_delta = abs(min_delta)
        self.best: float | None = None

    def _direction(self) -> str:
        """Whether more is better, by the name of the figure or the class of the metric."""
        if self.mode != "auto":
            return self.mode
        name = self.monitor.removeprefix("val_")
        model = self.model
        classes = (
            [type(m).__name__ for m in model.metrics if m.name == name]
            if hasattr(model, "metrics")
            else []
        )
        for word in (name, *classes):
            if any(part in word.lower() for part in _FALLING):
                return "min"
            if any(part in word.lower() for part in _RISING):
                return "max"
        raise ArgumentError(
            f"{type(self).__name__}: monitor",
            received=f"{self.monitor!r}, of which nobody knows whether more is better",
            expected="mode='max' or mode='min' beside it",
        )

    def _is_better(self, now: float, best: float | None) -> bool:
        if best is None:
            return not math.isnan(now)
        if self._direction() == "max":
            return now - self.min_delta > best
        return now + self.min_delta < best

    def _figure(self, logs: Any) -> float | None:
        """Returns the figure, or warns that there is none: validation may not be due."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            warnings.warn(
                f"{type(self).__name__}: monitor='{self.monitor}' is not among the figures of this"
                f" epoch: {', '.join(logs or {})}; those of validation need validation_data or"
                " validation_split",
                stacklevel=2,
            )
            return None
        if np.ndim(value):
            raise ArgumentError(
                f"{type(self).__name__}: monitor='{self.monitor}'",
                received=f"an array of shape {np.shape(value)}",
                expected="a figure that is one number",
            )
        return float(value)
