"""ModelCheckpoint: the model in files, as training goes on, which does not wait for them."""

import os
from pathlib import Path
from typing import Any

from alphorn.core.scope import open_scope
from alphorn.errors import ArgumentError
from alphorn.training.background import Background
from alphorn.training.monitors import Watcher

__all__ = ["ModelCheckpoint"]


class Saver(Watcher):
    """Base of callbacks that write the model, when it is due or better than before."""

    backed_up = ("best", "_batches")

    def __init__(
        self,
        monitor: str,
        verbose: int,
        save_best_only: bool,
        save_weights_only: bool,
        mode: str,
        save_freq: Any,
        initial_value_threshold: float | None,
        save_on_background: bool,
    ):
        super().__init__(monitor, mode)
        self.verbose, self.save_freq = verbose, save_freq
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.save_on_background = save_on_background
        self.best = initial_value_threshold
        self._batches = self._epoch = 0
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ArgumentError(
                f"{type(self).__name__}: save_freq", repr(save_freq), "'epoch' or a number"
            )

    def write(self, epoch: int, logs: Any, batch: int | None, said: str) -> None:
        """Writes the model.

        Args:
            epoch: Of now, from 0.
            logs: The figures.
            batch: In the epoch, from 0, or None after its last.
            said: What is said of it where it is said.
        """

    def check(self) -> None:
        """Raises where something could not be written."""

    @property
    def wants_batches(self) -> bool:
        """Only with a number as `save_freq`."""
        return self.save_freq != "epoch"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Writes every so many batches."""
        self.check()
        if self.save_freq != "epoch":
            self._batches += 1
            if self._batches >= self.save_freq:
                self._batches = 0
                self._write_better(self._epoch, logs, batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes after the epoch."""
        self.check()
        if self.save_freq == "epoch":
            self._write_better(epoch, logs, None)

    def _write_better(self, epoch: int, logs: Any, batch: int | None) -> None:
        said = ""
        if self.save_best_only:
            now = self._figure(logs)
            if now is not None:
                if not self._is_better(now, self.best):
                    if self.verbose:
                        print(f"Epoch {epoch + 1}: {self.monitor} {now:.5f} is not better")
                    return
                self.best, said = now, f" with {self.monitor} {now:.5f}"
        self.write(epoch, logs, batch, said)


class ModelCheckpoint(Saver):
    """Writes the model as training goes on, beside and then renamed.

    Training goes on as soon as the weights are copied. All files are there when `fit` returns, or
    ends by an error; where one could not be written, `fit` raises and names it.

    Args:
        filepath: May name the epoch and figures: `"{epoch:02d}-{val_loss:.2f}.keras"`.
        monitor: The figure for `save_best_only`.
        verbose: Whether it says so.
        save_best_only: Whether only better epochs are written.
        save_weights_only: Whether weights alone are written, to `.weights.h5` or `.safetensors`.
        mode: "min", "max" or "auto".
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: What must be beaten first.
        save_on_background: Whether training goes on meanwhile; False has each file there before
            the next callback is called. Where two copies wait for the disk, training waits too.
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
        save_on_background: bool = True,
    ):
        super().__init__(
            monitor,
            verbose,
            save_best_only,
            save_weights_only,
            mode,
            save_freq,
            initial_value_threshold,
            save_on_background,
        )
        self.filepath, self._files = os.fspath(filepath), Background("ModelCheckpoint")
        endings = (".weights.h5", ".safetensors") if save_weights_only else (".keras",)
        if not self.filepath.endswith(endings):
            raise ArgumentError(
                f"ModelCheckpoint: filepath, with save_weights_only={save_weights_only}",
                received=repr(self.filepath),
                expected=f"a name that ends in {' or '.join(endings)}",
            )

    def check(self) -> None:
        """Raises FileError where a file could not be written."""
        self._files.check()

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

    def write(self, epoch: int, logs: Any, batch: int | None, said: str) -> None:
        """Writes the file."""
        path = self._path(epoch, dict(logs or {}), batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        model = self.model
        save = model.save_weights if self.save_weights_only else model.save

        def write() -> None:
            save(path, overwrite=True)
            if self.verbose:
                print(f"Epoch {epoch + 1}: written to {path}{said}")

        # Outside of fit nobody says when training has ended.
        if self.save_on_background and getattr(model, "fit_position", None) is not None:
            values = {v: v.numpy() for v in model.fit_position.variables}

            def write_copies() -> None:
                with open_scope(values):
                    write()

            self._files.write(path, write_copies)
        else:
            write()

    def on_train_end(self, logs: Any = None) -> None:
        """Waits for the files."""
        self._files.wait()

    on_train_error = on_train_end
