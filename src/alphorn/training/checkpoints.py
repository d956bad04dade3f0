"""ModelCheckpoint: the model in files, as training goes on."""

import os
from pathlib import Path
from typing import Any

from alphorn.errors import ArgumentError
from alphorn.training.monitors import Watcher

__all__ = ["ModelCheckpoint"]


class ModelCheckpoint(Watcher):
    """Writes the model as training goes on, beside and then renamed.

    Args:
        filepath: May name the epoch and figures: `"{epoch:02d}-{val_loss:.2f}.keras"`.
        monitor: The figure for `save_best_only`.
        verbose: Whether it says so.
        save_best_only: Whether only better epochs are written.
        save_weights_only: Whether weights alone are written, to `.weights.h5` or `.safetensors`.
        mode: "min", "max" or "auto".
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: What must be beaten first.
    """

    backed_up = ("best", "_batches")

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
        super().__init__(monitor, mode)
        self.filepath, self.verbose = os.fspath(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.save_freq = save_freq
        self.best = initial_value_threshold
        self._batches = self._epoch = 0
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ArgumentError(
                "ModelCheckpoint: save_freq", repr(save_freq), "'epoch' or a number"
            )
        endings = (".weights.h5", ".safetensors") if save_weights_only else (".keras",)
        if not self.filepath.endswith(endings):
            raise ArgumentError(
                f"ModelCheckpoint: filepath, with save_weights_only={save_weights_only}",
                received=repr(self.filepath),
                expected=f"a name that ends in {' or '.join(endings)}",
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
            if self._batches >= self.save_freq:
                self._batches = 0
                self._write(self._epoch, logs, batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes after the epoch."""
        if self.save_freq == "epoch":
            self._write(epoch, logs, None)

    def _path(self, epoch: int, logs: dict[str, Any], batch: int | None) -> Path:
        names = {"epoch": epoch + 1} | ({} if batch is None else {"batch": batch + 1}) | logs
        try:
            return Path(self.filepath.format(**names))
        except KeyError as error:
            raise ArgumentError(
                f"ModelCheckpoint: filepath {self.filepath!r}",
                received=f"{error}, which has no value now",
                expected=f"some of {', '.join(names)}",
            ) from None

    def _write(self, epoch: int, logs: Any, batch: int | None) -> None:
        path, said = self._path(epoch, dict(logs or {}), batch), ""
        if self.save_best_only:
            now = self._figure(logs)
            if now is not None:
                if not self._is_better(now, self.best):
                    if self.verbose:
                        print(f"Epoch {epoch + 1}: {self.monitor} {now:.5f} is not better")
                    return
                self.best, said = now, f" with {self.monitor} {now:.5f}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write = self.model.save_weights if self.save_weights_only else self.model.save
        write(path, overwrite=True)
        if self.verbose:
            print(f"Epoch {epoch + 1}: written to {path}{said}")
