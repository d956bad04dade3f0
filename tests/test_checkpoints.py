"""Files that are written beside training, and disks that are full."""

import contextlib
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import alphorn
from alphorn import layers
from alphorn.callbacks import BackupAndRestore, LambdaCallback, ModelCheckpoint
from alphorn.core.scope import open_scope
from alphorn.core.transforms import functional
from alphorn.errors import FileError
from nets import FEATURES, X, Y, gap, ready


class Gated(alphorn.Sequential):
    """Writes its weights when it may."""

    gate = threading.Event()

    def save_weights(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        assert Gated.gate.wait(60)
        super().save_weights(filepath, overwrite)


def gated() -> Any:
    Gated.gate = threading.Event()
    model = Gated([alphorn.Input((FEATURES,)), layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    return model


def weights_in(path: Path) -> list[np.ndarray]:
    model = ready()
    model.load_weights(path)
    return model.get_weights()


def test_training_goes_on_while_its_weights_are_written(tmp_path: Path) -> None:
    model, kept = gated(), []

    def note(epoch: int, logs: Any) -> None:
        kept.append(model.get_weights())
        if epoch == 1:
            assert not list(tmp_path.glob("*.h5"))
            Gated.gate.set()

    path = str(tmp_path / "{epoch}.weights.h5")
    callbacks = [ModelCheckpoint(path, save_weights_only=True), LambdaCallback(on_epoch_end=note)]
    model.fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
    assert len(list(tmp_path.iterdir())) == 4
    assert all(gap(weights_in(tmp_path / f"{i + 1}.weights.h5"), kept[i]) == 0 for i in range(4))


def test_of_files_that_replace_each_other_the_last_is_written(tmp_path: Path) -> None:
    model, path = gated(), tmp_path / "last.weights.h5"
    callbacks = [
        ModelCheckpoint(path, save_weights_only=True),
        LambdaCallback(on_epoch_end=lambda epoch, logs: epoch == 5 and Gated.gate.set()),
    ]
    model.fit(X, Y, epochs=6, verbose=0, callbacks=callbacks)
    assert gap(weights_in(path), model.get_weights()) == 0


def test_what_is_under_way_when_training_ends_early_is_written(tmp_path: Path) -> None:
    model, path = gated(), tmp_path / "last.weights.h5"

    def stop(epoch: int, logs: Any) -> None:
        Gated.gate.set()
        raise KeyboardInterrupt

    callbacks = [
        ModelCheckpoint(path, save_weights_only=True),
        LambdaCallback(on_epoch_end=stop),
    ]
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, verbose=0, callbacks=callbacks)
    assert gap(weights_in(path), model.get_weights()) == 0


@pytest.mark.parametrize("case", [1, 2], ids=lambda n: f"epochs={n}")
def test_what_the_writer_raises_names_the_file(case: int, tmp_path: Path) -> None:
    class Failing(alphorn.Sequential):
        def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
            raise ValueError("no such thing")

    model = Failing([alphorn.Input((FEATURES,)), layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    path = tmp_path / "mine.keras"
    with pytest.raises(FileError, match=r"ModelCheckpoint: .*mine\.keras[\s\S]*no such thing"):
        model.fit(X, Y, epochs=case, verbose=0, callbacks=ModelCheckpoint(path))


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Lets no file grow beyond so many bytes, as a quota or a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def wide() -> Any:
    """A model whose file has more than 80 kB."""
    model = alphorn.Sequential(
        [
            alphorn.Input((FEATURES,)),
            layers.Dense(7000, kernel_initializer="ones"),
            layers.Dense(1, kernel_initializer="ones"),
        ]
    )
    model.compile("sgd", "mse")
    return model


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(
    "case", "m.keras m.h5 m.weights.h5 w.h5 m.safetensors m.weights.json".split()
)
def test_a_full_disk_leaves_the_file_that_was_there(case: str, tmp_path: Path) -> None:
    model = wide()
    write = {
        "m.keras": model.save,
        "m.h5": model.save,
        "m.weights.json": lambda path: model.save_weights(path, max_shard_size=1),
    }.get(case, model.save_weights)
    write(tmp_path / case)
    before = files_in(tmp_path)
    model.set_weights([w + 1 for w in model.get_weights()])
    with (
        full_disk(50_000),
        pytest.raises(FileError, match=r"could not be written[\s\S]*make room"),
    ):
        write(tmp_path / case)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("case", ["checkpoint", "backup"])
def test_a_full_disk_leaves_the_last_file_of_training(case: str, tmp_path: Path) -> None:
    if case == "backup":
        callback: Any = BackupAndRestore(tmp_path, delete_checkpoint=False)
    else:
        callback = ModelCheckpoint(tmp_path / "m.keras")
    model, before = wide(), {}
    model.fit(X, Y, verbose=0, callbacks=callback)
    before |= files_in(tmp_path)
    assert len(before) == 1
    with (
        full_disk(50_000),
        pytest.raises(FileError, match=f"{next(iter(before))}[\\s\\S]*left as it was"),
    ):
        model.fit(X, Y, epochs=3, verbose=0, callbacks=callback)
    assert files_in(tmp_path) == before


def test_a_config_is_that_of_the_copies_that_are_written():
    optimizer, told = alphorn.optimizers.SGD(0.5), []
    with open_scope({optimizer._rate: np.float32(0.25)}):
        assert optimizer.get_config()["learning_rate"] == 0.25
    # While JAX traces there is no number: the slot's holds.
    pure = functional(lambda: told.append(optimizer.get_config()), [optimizer._rate])
    jax.jit(pure)([np.float32(0.25)])
    assert told[0]["learning_rate"] == 0.5
