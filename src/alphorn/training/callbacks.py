"""Callbacks: what is done between the steps and epochs of training."""

import csv
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, StateError
from alphorn.training.events import EVENTS, Callback, CallbackList, History

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]


def _better(monitor: str, mode: str, min_delta: float = 0.0) -> tuple[Callable, float]:
    """Returns `(is_better(now, best), worst)` for a figure."""
    if mode not in ("auto", "min", "max"):
        raise ArgumentError("mode", received=repr(mode), expected="'auto', 'min' or 'max'")
    rising = ("acc", "auc", "precision", "recall", "f1", "iou", "fbeta", "r2")
    if mode == "auto":
        mode = "max" if any(r in monitor.lower() for r in rising) else "min"
    delta = abs(min_delta)
    if mode == "max":
        return (lambda now, best: now - delta > best), -math.inf
    return (lambda now, best: now + delta < best), math.inf


def _monitored(who: str, monitor: str, logs: Any) -> float | None:
    logs = dict(logs or {})
    if monitor not in logs:
        known = ", ".join(logs)
        raise ArgumentError(
            f"{who}: monitor",
            received=repr(monitor),
            expected=f"one of {known}",
            fix="validation figures need validation_data or validation_split",
        )
    return float(np.asarray(logs[monitor]))


class EarlyStopping(Callback):
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
        super().__init__()
        self.monitor, self.patience, self.verbose = monitor, patience, verbose
        self.min_delta, self.mode, self.baseline = min_delta, mode, baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._is_better, self._worst = _better(monitor, mode, min_delta)
        self.on_train_begin()

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew."""
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = self._worst
        self.best_weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compares, and ends training."""
        if epoch < self.start_from_epoch:
            return
        now = _monitored("EarlyStopping", self.monitor, logs)
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
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(Callback):
    """Writes the model's weights as training goes on, beside and then renamed.

    Args:
        filepath: May name the epoch and figures: `"{epoch:02d}-{val_loss:.2f}.weights.h5"`.
        monitor: The figure for `save_best_only`.
        verbose: Whether it says so.
        save_best_only: Whether only better epochs are written.
        save_weights_only: Whether weights or the whole model are written.
        mode: "min", "max" or "auto".
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: What must be beaten first.
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
    ):
        super().__init__()
        self.filepath, self.monitor, self.verbose = os.fspath(filepath), monitor, verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.save_freq = save_freq
        self._is_better, worst = _better(monitor, mode)
        self.best = worst if initial_value_threshold is None else initial_value_threshold
        self._batches = self._epoch = 0
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ArgumentError(
                "ModelCheckpoint: save_freq", repr(save_freq), "'epoch' or a number"
            )
        ending = ".weights.h5" if save_weights_only else ".keras"
        if not self.filepath.endswith(ending):
            raise ArgumentError(
                "ModelCheckpoint: filepath", received=self.filepath, expected=f"ending in {ending}"
            )

    @property
    def wants_batches(self) -> bool:
        """Only with a number as `save_freq`."""
        return self.save_freq != "epoch"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Writes every so many batches."""
        if self.save_freq != "epoch":
            self._batches += 1
            if self._batches % self.save_freq == 0:
                self._write(self._epoch, logs, batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes after the epoch."""
        if self.save_freq == "epoch":
            self._write(epoch, logs, None)

    def _write(self, epoch: int, logs: Any, batch: int | None) -> None:
        if self.save_best_only:
            now = _monitored("ModelCheckpoint", self.monitor, logs)
            if not self._is_better(now, self.best):
                return
            self.best = now
        names = dict(logs or {}) | ({} if batch is None else {"batch": batch + 1})
        path = Path(self.filepath.format(epoch=epoch + 1, **names))
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)
        if self.verbose:
            print(f"Epoch {epoch + 1}: written to {path}")


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Args:
        schedule: `(epoch, learning_rate) -> learning_rate`, or of the epoch alone.
        verbose: Whether it says so.
    """

    def __init__(self, schedule: Callable, verbose: int = 0):
        super().__init__()
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets the rate."""
        now = float(np.asarray(self.model.optimizer.learning_rate))
        try:
            rate = self.schedule(epoch, now)
        except TypeError:
            rate = self.schedule(epoch)
        if not isinstance(rate, float | np.floating | int):
            raise ArgumentError("LearningRateScheduler", repr(rate), "a number from the schedule")
        self.model.optimizer.learning_rate = rate
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {rate}")


class ReduceLROnPlateau(Callback):
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
        super().__init__()
        if factor >= 1.0:
            raise ArgumentError("ReduceLROnPlateau: factor", received=factor, expected="below 1")
        self.monitor, self.factor, self.patience, self.verbose = monitor, factor, patience, verbose
        self.min_delta, self.cooldown, self.min_lr = min_delta, cooldown, min_lr
        self._is_better, self._worst = _better(monitor, mode, min_delta)
        self.on_train_begin()

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew."""
        self.best, self.wait, self.resting = self._worst, 0, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compares, and lowers the rate."""
        now = _monitored("ReduceLROnPlateau", self.monitor, logs)
        if self.resting:
            self.resting -= 1
            self.wait = 0
        if self._is_better(now, self.best):
            self.best, self.wait = now, 0
        elif not self.resting:
            self.wait += 1
            rate = float(np.asarray(self.model.optimizer.learning_rate))
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
        path = Path(self.filename)
        self._columns = None
        if self.append and path.exists() and path.stat().st_size:
            with path.open(newline="") as file:
                self._columns = next(csv.reader(file, delimiter=self.separator))[1:]
        else:
            path.write_text("")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds a row."""
        logs = dict(logs or {})
        with open(self.filename, "a", newline="") as file:
            writer = csv.writer(file, delimiter=self.separator)
            if self._columns is None:
                self._columns = list(logs)
                writer.writerow(["epoch", *self._columns])
            writer.writerow([epoch, *(_cell(logs.get(c, "NA")) for c in self._columns)])


def _cell(value: Any) -> Any:
    return value if np.ndim(value) == 0 else f'"{np.asarray(value).tolist()}"'


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
        raise_error: Whether it raises RuntimeError there, so that no callback sees an orderly end.
    """

    def __init__(self, raise_error: bool = False):
        super().__init__()
        self.raise_error = raise_error

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at the loss."""
        loss = dict(logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            if self.raise_error:
                raise StateError(f"Batch {batch}: the loss is {loss}")
            self.stopped_step = batch
            self.model.stop_training = True
            print(f"Batch {batch}: the loss is {loss}; training ends.")
