"""Callbacks: what is done between the steps and epochs of training."""

import csv
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alphorn.distribution.processes import leads
from alphorn.errors import ArgumentError, StateError
from alphorn.training.events import EVENTS, Callback, CallbackList, History
from alphorn.training.interrupts import interrupts_held
from alphorn.training.monitors import Watcher

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]


class EarlyStopping(Watcher):
    """Ends training when a figure no longer gets better.

    Args:
        monitor: The figure.
        min_delta: What counts as better.
        patience: Epochs to wait.
        verbose: Whether it says so.
        mode: "min", "max" or "auto", by the figure's name.
        baseline: What must be beaten.
        restore_best_weights: Whether the best epoch's weights come back.
        start_from_epoch: Epochs before it watches.
    """

    backed_up = ("wait", "stopped_epoch", "best_epoch", "best", "best_weights")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.on_train_begin()

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew."""
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = None
        self.best_weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compares, and ends training."""
        now = self._figure(logs)
        if now is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self._is_better(now, self.best):
            self.best, self.best_epoch = now, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._is_better(now, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Brings the best weights back."""
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Weights of the best epoch come back: {self.best_epoch + 1}.")
            with interrupts_held():
                self.model.set_weights(self.best_weights)


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Args:
        schedule: `(epoch, learning_rate) -> learning_rate`, or of the epoch alone.
        verbose: Whether it says so.
    """

    def __init__(self, schedule: Callable, verbose: int = 0):
        super().__init__()
        self.schedule, self.verbose = schedule, verbose
        self._takes_rate = _takes(schedule, 2)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets the rate."""
        now = _rate(self.model)
        rate = self.schedule(epoch, now) if self._takes_rate else self.schedule(epoch)
        if np.ndim(rate) or not isinstance(rate, float | int | np.number | jax.Array):
            raise ArgumentError(
                "LearningRateScheduler: schedule", f"{rate!r} for epoch {epoch}", "a number"
            )
        self.model.optimizer.learning_rate = rate = float(rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {rate}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the rate to the figures."""
        if logs is not None:
            logs["learning_rate"] = _rate(self.model)


def _rate(model: Any) -> float:
    return float(np.asarray(model.optimizer.learning_rate))


def _takes(function: Callable, count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # built in: it says nothing of its arguments
        return True
    return True


class ReduceLROnPlateau(Watcher):
    """Lowers the learning rate when a figure no longer gets better.

    Args:
        monitor: The figure.
        factor: By which the rate is multiplied, below 1.
        patience: Epochs to wait.
        verbose: Whether it says so.
        mode: "min", "max" or "auto".
        min_delta: What counts as better.
        cooldown: Epochs of rest after a change.
        min_lr: The lowest rate.
    """

    backed_up = ("best", "wait", "resting")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        if factor >= 1.0:
            raise ArgumentError("ReduceLROnPlateau: factor", received=factor, expected="below 1")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self.on_train_begin()

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew."""
        self.best, self.wait, self.resting = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compares, and lowers the rate."""
        rate = _rate(self.model)
        if logs is not None:
            logs["learning_rate"] = rate
        now = self._figure(logs)
        if now is None:
            return
        if self.resting:
            self.resting -= 1
            self.wait = 0
        if self._is_better(now, self.best):
            self.best, self.wait = now, 0
        elif not self.resting:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                lower = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = lower
                self.resting, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate {lower}")


class CSVLogger(Callback):
    """Writes each epoch's figures as a row of a CSV file.

    Args:
        filename: Where.
        separator: Between columns.
        append: Whether rows are added to a file that is there.
    """

    def __init__(self, filename: Any, separator: str = ",", append: bool = False):
        super().__init__()
        self.filename, self.separator, self.append = os.fspath(filename), separator, append
        self._columns: list[str] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Empties the file, or reads its columns."""
        if not leads():
            return
        path = Path(self.filename)
        self._columns = None
        if self.append and path.exists() and path.stat().st_size:
            with path.open(newline="") as file:
                self._columns = next(csv.reader(file, delimiter=self.separator))[1:]
        else:
            path.write_text("")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds a row."""
        if not leads():
            return
        logs = dict(logs or {})
        with open(self.filename, "a", newline="") as file:
            writer = csv.writer(file, delimiter=self.separator)
            if self._columns is None:
                self._columns = sorted(logs)
                if not any(name.startswith("val_") for name in logs):  # validation may come later
                    self._columns += [f"val_{name}" for name in self._columns]
                writer.writerow(["epoch", *self._columns])
            writer.writerow([epoch, *(_cell(logs.get(c, "NA")) for c in self._columns)])


def _cell(value: Any) -> Any:
    return value if np.ndim(value) == 0 else f'"[{", ".join(map(str, np.asarray(value)))}]"'


class LambdaCallback(Callback):
    """Functions as a callback.

    Args:
        on_epoch_begin, on_epoch_end, on_train_begin, on_train_end, on_train_batch_begin,
        on_train_batch_end: Called with what the method of that name gets.
        **kwargs: Further events by their names.
    """

    def __init__(
        self,
        on_epoch_begin: Callable | None = None,
        on_epoch_end: Callable | None = None,
        on_train_begin: Callable | None = None,
        on_train_end: Callable | None = None,
        on_train_batch_begin: Callable | None = None,
        on_train_batch_end: Callable | None = None,
        **kwargs: Any,
    ):
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        } | kwargs
        strange = [k for k in given if k not in EVENTS]
        if strange:
            raise ArgumentError("LambdaCallback", ", ".join(strange), f"some of {EVENTS}")
        self._batchwise = any("batch" in k and v is not None for k, v in given.items())
        for name, function in given.items():
            if function is not None:
                setattr(self, name, function)

    @property
    def wants_batches(self) -> bool:
        """Where a function for batches was given."""
        return self._batchwise


class TerminateOnNaN(Callback):
    """Ends training at the first loss that is not a number, and says at which step.

    Args:
        raise_error: Whether it raises StateError instead.
    """

    def __init__(self, raise_error: bool = False):
        super().__init__()
        self.raise_error = raise_error
        self._epoch = 0
        self.stopped_step: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at the loss."""
        loss = (logs or {}).get("loss")
        if loss is None or np.isfinite(loss):
            return
        self.stopped_step = batch
        where = f"Epoch {self._epoch + 1}, batch {batch}: the loss is {loss}"
        if self.raise_error:
            raise StateError(
                where,
                expected="a finite number",
                fix="look for NaN in x and y, lower the learning rate, or clip gradients: clipnorm=1",
            )
        self.model.stop_training = True
        print(f"{where}; training ends.")
