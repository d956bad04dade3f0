"""BackupAndRestore: runs that end early and go on end with the weights of one that did not."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import alphorn
from alphorn import layers
from alphorn.callbacks import (
    BackupAndRestore,
    Callback,
    EarlyStopping,
    LearningRateScheduler,
    ReduceLROnPlateau,
)
from alphorn.errors import ArgumentError, FileError
from alphorn.training import backup
from nets import FEATURES, X, Y

RUN = Path(__file__).parent / "killed_run.py"
# How many kills a run must outlive; `KILLS=50 pytest tests/test_backup.py -k killed` asks for more.
KILLS = int(os.environ.get("KILLS", "2"))
EPOCHS = 3


class Stop(Callback):
    """Ends a run as Ctrl-C does, after so many batches."""

    def __init__(self, after: int):
        super().__init__()
        self.left = after

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1


class StopEpoch(Callback):
    """Ends a run when an epoch begins; it does not ask to be told of batches."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == EPOCHS - 1:
            raise KeyboardInterrupt


def net(seed: int, units: int = 1, **options: Any) -> Any:
    """A new model, as another process would make it."""
    alphorn.utils.set_random_seed(seed)
    model = alphorn.Sequential(
        [
            alphorn.Input((FEATURES,)),
            layers.Dropout(0.3),
            layers.BatchNormalization(),
            layers.Dense(units),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"], **options)
    return model


def run(model: Any, folder: Path, *others: Any, data: Any = (X, Y), **options: Any) -> Any:
    kept = {"save_freq": options.pop("save_freq", "epoch")}
    callbacks = [BackupAndRestore(folder, **kept), *others]
    options = {"epochs": EPOCHS, "verbose": 0, **options}
    if isinstance(data, tuple):
        options.setdefault("batch_size", 3)
    data = data if isinstance(data, tuple) else (data,)
    return model.fit(*data, callbacks=callbacks, **options)


def state(model: Any) -> list[bytes]:
    kept = [*model.variables, *model.optimizer.variables]
    kept += [v for m in model.metrics for v in m.variables]
    return [np.asarray(v.value).tobytes() for v in kept]


def interrupted(folder: Path, stop: Callback, *others: Any, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(net(1), folder, *others, stop, **options)
    assert [p.name for p in folder.iterdir()] == ["latest.npz"]


@pytest.mark.parametrize("case", [(1, 6), (2, 5), (4, 4), (3, 11), ("epoch", 9)], ids=str)
def test_a_run_goes_on_where_it_was(case: Any, tmp_path: Path) -> None:
    save_freq, after = case
    whole = net(1)
    figures = run(whole, tmp_path, Stop(99), save_freq=save_freq).history
    drawn = np.random.rand()
    assert not tmp_path.exists()
    interrupted(tmp_path, Stop(after), save_freq=save_freq)
    again = net(2)
    history = run(again, tmp_path, Stop(99), save_freq=save_freq)
    assert state(again) == state(whole)
    assert np.random.rand() == drawn
    assert not tmp_path.exists()
    first = history.epoch[0]
    assert {k: v[first:] for k, v in figures.items()} == history.history


@pytest.mark.parametrize("steps", ["auto", 2])
def test_steps_of_one_call_stay_together(steps: Any, tmp_path: Path) -> None:
    options = {"steps_per_execution": steps}
    whole = net(1, **options)
    run(whole, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(net(1, **options), tmp_path, StopEpoch())
    again = net(2, **options)
    assert run(again, tmp_path).epoch == [EPOCHS - 1]
    assert state(again) == state(whole)


def counting() -> list[Callback]:
    return [
        ReduceLROnPlateau("loss", patience=1, min_delta=10.0),
        EarlyStopping("loss", patience=2, min_delta=10.0, restore_best_weights=True),
        LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    ]


@pytest.mark.parametrize("case", [("epoch", 9), (2, 11)], ids=str)
def test_what_other_callbacks_have_counted_comes_back(case: Any, tmp_path: Path) -> None:
    save_freq, after = case
    options: dict[str, Any] = {"save_freq": save_freq, "epochs": 5}
    whole = net(1)
    ends = run(whole, tmp_path, *counting(), Stop(99), **options).epoch[-1]
    assert ends == 2
    interrupted(tmp_path, Stop(after), *counting(), **options)
    again = net(2)
    assert run(again, tmp_path, *counting(), Stop(99), **options).epoch[-1] == ends
    assert state(again) == state(whole)


def endless() -> Iterator[Any]:
    own = np.random.default_rng(3)
    while True:
        rows = own.permutation(len(X))[:3]
        yield X[rows], Y[rows]


class Numbered(alphorn.utils.PyDataset):
    """Shuffles its rows after each epoch, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.rows, self.made = np.random.default_rng(3), np.arange(len(X)), 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> Any:
        self.made += 1
        rows = self.rows[number * 3 : number * 3 + 3]
        return X[rows] + np.random.rand() / 10, Y[rows]

    def on_epoch_end(self) -> None:
        self.own.shuffle(self.rows)


class Loader:
    """Starts again with each epoch."""

    def __iter__(self) -> Iterator[Any]:
        for rows in np.random.permutation(9).reshape(3, 3):
            yield X[rows], Y[rows]


@pytest.mark.parametrize("case", [(1, 6), ("epoch", 6)], ids=str)
@pytest.mark.parametrize("source", [endless, Numbered, Loader])
def test_sources_of_batches_go_on(source: Callable, case: Any, tmp_path: Path) -> None:
    save_freq, after = case
    options: dict[str, Any] = {"save_freq": save_freq}
    if source is endless:
        options["steps_per_epoch"] = 4
    whole = net(1)
    run(whole, tmp_path, Stop(99), data=source(), **options)
    interrupted(tmp_path, Stop(after), data=source(), **options)
    data, again = source(), net(2)
    run(again, tmp_path, Stop(99), data=data, **options)
    assert state(again) == state(whole)
    if source is Numbered:  # one batch for its shapes, and those that were left
        assert data.made == 1 + (12 - after if save_freq == 1 else 8)


def test_what_a_killed_run_has_begun_to_write_is_not_chosen(tmp_path: Path) -> None:
    whole = net(1)
    run(whole, tmp_path, Stop(99))
    interrupted(tmp_path, Stop(9))
    again = net(2)
    torn = (tmp_path / "latest.npz").read_bytes()[:500]
    (tmp_path / "latest.npz.123-456.part").write_bytes(torn)
    run(again, tmp_path, Stop(99))
    assert state(again) == state(whole)
    assert not tmp_path.exists()


@pytest.mark.parametrize("harm", ["cut", "changed", "emptied"])
def test_a_damaged_file_is_not_chosen(harm: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        net(1).fit(
            *(X, Y, 3),
            epochs=EPOCHS,
            verbose=0,
            callbacks=[BackupAndRestore(tmp_path, 2, double_checkpoint=True), Stop(9)],
        )
    latest = tmp_path / "latest.npz"
    content = bytearray(latest.read_bytes())
    content[len(content) // 2] ^= 1
    latest.write_bytes({"cut": content[:700], "changed": content, "emptied": b""}[harm])
    again = net(2)
    with pytest.warns(UserWarning, match="latest.npz is damaged"):
        run(again, tmp_path, Stop(99), save_freq=2)
    whole = net(1)
    run(whole, tmp_path, Stop(99), save_freq=2)
    assert state(again) == state(whole)
    tmp_path.mkdir()
    latest.write_bytes(content[:700])
    with pytest.raises(FileError, match=r"latest\.npz[\s\S]*a whole backup[\s\S]*remove it"):
        run(net(2), tmp_path)


def test_a_header_that_does_not_end_is_damage(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "latest.npz", "w") as file:
        header = b"\x93NUMPY\x01\x00\x40\x00" + b"{'descr': ('<f4', \n".ljust(64)
        file.writestr("facts.npy", header)
    with pytest.raises(FileError, match=r"latest\.npz[\s\S]*a whole backup"):
        run(net(2), tmp_path)


def test_a_full_disk_leaves_the_last_backup(tmp_path: Path, monkeypatch: Any) -> None:
    written = []

    def full(saved: Any, path: Path) -> None:
        if written:
            path.write_bytes(b"PK and no more")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        save(saved, path)

    save = backup._save
    with monkeypatch.context() as patch, pytest.raises(FileError) as error:
        patch.setattr(backup, "_save", full)
        run(net(1), tmp_path, Stop(99), save_freq=3)
    for part in ("could not be written", "No space left", "latest.npz was left"):
        assert part in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["latest.npz"]
    again = net(2)
    run(again, tmp_path, Stop(99), save_freq=3)
    whole = net(1)
    run(whole, tmp_path, Stop(99), save_freq=3)
    assert state(again) == state(whole)


def test_a_backup_of_something_else_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path, Stop(6), save_freq=2)
    before = (tmp_path / "latest.npz").read_bytes()
    with pytest.raises(ArgumentError, match=r"another model[\s\S]*\(3, 1\)[\s\S]*\(3, 2\)"):
        run(net(1, units=2), tmp_path, save_freq=2)
    other = net(1)
    other.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match=r"state of Adam[\s\S]*SGD"):
        run(other, tmp_path, save_freq=2)
    with pytest.raises(
        ArgumentError, match=r"within epoch 2: batch_size[\s\S]*2[\s\S]*3, as before"
    ):
        run(net(1), tmp_path, save_freq=2, batch_size=2)
    assert (tmp_path / "latest.npz").read_bytes() == before
    for options in ({"save_freq": 0}, {"save_freq": "batch"}, {"save_freq": False}):
        with pytest.raises(ArgumentError, match="'epoch' or a number"):
            BackupAndRestore(tmp_path, **options)
    with pytest.raises(ArgumentError, match="a folder"):
        BackupAndRestore("")


def test_a_backup_stays_where_it_is_asked_to_as_in_keras(tmp_path: Path) -> None:
    for K, folder in ((alphorn, tmp_path / "ours"), (keras, tmp_path / "theirs")):
        model = K.Sequential([K.Input((FEATURES,)), K.layers.Dense(1)])
        model.compile("sgd", "mse")
        kept = K.callbacks.BackupAndRestore(str(folder), delete_checkpoint=False)
        model.fit(X, Y, epochs=2, verbose=0, callbacks=kept)
        weights = model.get_weights()
        assert model.fit(X, Y, epochs=2, verbose=0, callbacks=kept).epoch == []
        assert model.fit(X, Y, epochs=3, verbose=0, callbacks=kept).epoch == [2]
        assert any((a != b).any() for a, b in zip(weights, model.get_weights(), strict=True))
        (folder / "mine.txt").write_text("")
        kept.delete_checkpoint = True
        model.fit(X, Y, epochs=4, verbose=0, callbacks=kept)
    assert [p.name for p in (tmp_path / "ours").iterdir()] == ["mine.txt"]  # Keras's takes it along


def started(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, RUN, folder], stdout=subprocess.PIPE, text=True)


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Ragged sequences, an LSTM, Dropout, BatchNormalization, shuffled; SIGKILL."""
    when, kills, whole, folder = random.Random(KILLS), 0, "", tmp_path / "whole"
    while True:
        with started(folder) as process:
            assert process.stdout is not None
            process.stdout.readline()  # its first batch is done
            if whole and kills < KILLS:
                time.sleep(when.uniform(0.0, 0.5))
                process.send_signal(signal.SIGKILL)
            said = process.stdout.read()
        if process.returncode == -signal.SIGKILL:
            kills += 1
            continue
        assert process.returncode == 0
        assert not folder.exists()
        whole = whole or said
        assert said.startswith("done")
        assert said == whole
        if kills >= KILLS:
            break
        folder = tmp_path / "killed"
