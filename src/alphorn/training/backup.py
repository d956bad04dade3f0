"""BackupAndRestore: a run that was killed goes on to the same bits."""

import json
import os
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from alphorn.distribution.processes import leads
from alphorn.errors import ArgumentError, FileError
from alphorn.files import written_beside
from alphorn.training.background import Background
from alphorn.training.events import Callback
from alphorn.training.position import Saved, as_type

__all__ = ["BackupAndRestore"]

# The last two are NumPy's of a header that is no Python.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError),
    *(SyntaxError, tokenize.TokenError),
)


class BackupAndRestore(Callback):
    """Writes where training is, and goes on from there when `fit` is called again.

    A run that was killed and started again ends with the weights, bit for bit, of one that was
    not: weights, optimizer, metrics, seeds, the order of the epoch's rows and the step in it come
    back, and what the other callbacks have counted. A file is written beside and renamed, so that
    there is always a whole one; when training is done, it is removed. Training goes on as soon as
    its state is copied; of backups that are due while one is written, the last is written next.

    Args:
        backup_dir: A folder for this run alone.
        save_freq: "epoch", or a number of batches.
        double_checkpoint: Whether the backup before the last one is kept as well, for a disk that
            loses what was written.
        delete_checkpoint: Whether the backup is removed when training is done.

    >>> import tempfile, numpy as np, alphorn as keras
    >>> x, folder = np.ones((8, 2), "float32"), tempfile.mkdtemp()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> def stop(epoch, logs):
    ...     if epoch == 1:
    ...         raise KeyboardInterrupt
    >>> callbacks = [
    ...     keras.callbacks.BackupAndRestore(folder),
    ...     keras.callbacks.LambdaCallback(on_epoch_begin=stop),
    ... ]
    >>> try:
    ...     _ = model.fit(x, x[:, :1], epochs=3, verbose=0, callbacks=callbacks)
    ... except KeyboardInterrupt:
    ...     pass
    >>> model.fit(x, x[:, :1], epochs=3, verbose=0, callbacks=callbacks[:1]).epoch
    [1, 2]
    """

    comes_last = True

    def __init__(
        self,
        backup_dir: Any,
        save_freq: Any = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ):
        super().__init__()
        if not backup_dir:
            raise ArgumentError("BackupAndRestore: backup_dir", repr(backup_dir), "a folder")
        number = isinstance(save_freq, int) and save_freq > 0
        if save_freq != "epoch" and not number:
            raise ArgumentError(
                "BackupAndRestore: save_freq", repr(save_freq), "'epoch' or a number from 1"
            )
        self.backup_dir, self.save_freq = os.fspath(backup_dir), save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._latest = Path(self.backup_dir) / "latest.npz"
        self._previous = Path(self.backup_dir) / "previous.npz"
        self._batches = 0
        self._files = Background("BackupAndRestore")

    @property
    def wants_batches(self) -> bool:
        """Only with a number as `save_freq`."""
        return self.save_freq != "epoch"

    def on_train_begin(self, logs: Any = None) -> None:
        """Goes to the last whole backup, if there is one.

        Raises:
            FileError: there are backups, and none is whole.
            ArgumentError: it is that of another model.
        """
        self._batches = 0
        self._sweep()
        damaged: list[tuple[Path, Exception]] = []
        for path in (self._latest, self._previous):
            if not path.exists():
                continue
            try:
                saved = _read(path)
            except _DAMAGED as error:
                damaged.append((path, error))
                continue
            if damaged:
                warnings.warn(
                    f"BackupAndRestore: {damaged[0][0]} is damaged ({damaged[0][1]}); training goes"
                    f" on from {path}",
                    stacklevel=2,
                )
            self.model.fit_position.resume(saved, str(path))
            return
        if damaged:
            path, error = damaged[0]
            raise FileError(
                f"BackupAndRestore: {path}",
                received=f"{type(error).__name__}: {error}",
                expected="a whole backup",
                fix="remove it, and training begins anew; double_checkpoint=True keeps two",
            ) from error

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Writes every so many batches."""
        self._batches += 1
        if self._batches == self.save_freq:
            self._batches = 0
            self._write()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes after the epoch."""
        if self.save_freq == "epoch":
            self._write()

    def on_train_error(self) -> None:
        """Waits for the last backup."""
        self._files.wait()

    def on_train_end(self, logs: Any = None) -> None:
        """Removes the backup."""
        self._files.wait()
        if self.delete_checkpoint and leads():
            self._sweep()
            for path in (self._latest, self._previous):
                path.unlink(missing_ok=True)
            folder = Path(self.backup_dir)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _sweep(self) -> None:
        """Removes what a killed run has begun to write."""
        if not leads():
            return
        for part in Path(self.backup_dir).glob(f"{self._latest.name}.*.part"):
            part.unlink(missing_ok=True)

    def _write(self) -> None:
        saved = self.model.fit_position.state()
        self._files.write(self._latest, lambda: self._write_file(saved))

    def _write_file(self, saved: Saved) -> None:
        try:
            self._latest.parent.mkdir(parents=True, exist_ok=True)
            with written_beside(self._latest) as beside:
                _save(saved, beside)
                if self.double_checkpoint and self._latest.exists() and leads():
                    os.replace(self._latest, self._previous)
        except OSError as error:
            kept = next((p for p in (self._latest, self._previous) if p.exists()), None)
            size = sum(a.nbytes for a in saved.arrays)
            raise FileError(
                f"BackupAndRestore: {self._latest} could not be written",
                received=f"{type(error).__name__}: {error}",
                expected=f"a folder that takes {size / 2**20:.1f} MB more",
                fix=f"make room and start again: {kept or 'no backup'} was left as it was",
            ) from error


def _save(saved: Saved, path: Path) -> None:
    """Writes a position, each part with its checksum, and waits until the disk has it."""
    facts = saved.facts | {"dtypes": [str(a.dtype) for a in saved.arrays]}
    parts: dict[str, Any] = {str(i): a for i, a in enumerate(saved.arrays)}
    parts["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **parts)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> Saved:
    with path.open("rb") as whole, np.load(whole, allow_pickle=False) as file:
        facts = json.loads(file["facts"].tobytes())
        return Saved(facts, [as_type(file[str(i)], d) for i, d in enumerate(facts["dtypes"])])
