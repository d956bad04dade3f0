"""OrbaxCheckpoint: steps in a folder, which models are read from and training goes on from."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alphorn
from alphorn import layers
from alphorn.callbacks import EarlyStopping, LambdaCallback, OrbaxCheckpoint
from alphorn.errors import AlphornError, ArgumentError, FileError
from nets import FEATURES, X, Y, gap
from test_backup import Stop


def net(units: int = 1, optimizer: Any = "adam", seed: int = 0) -> Any:
    """A new model that draws, as another process would make it."""
    alphorn.utils.set_random_seed(seed)
    kernel = {"kernel_initializer": "ones"}
    model = alphorn.Sequential(
        [alphorn.Input((FEATURES,)), layers.Dropout(0.3), layers.Dense(units, **kernel)]
    )
    model.compile(optimizer, "mse")
    return model


def fit(model: Any, *callbacks: Any, epochs: int = 3) -> Any:
    return model.fit(X, Y, batch_size=3, epochs=epochs, verbose=0, callbacks=list(callbacks))


def steps(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir())


def state(model: Any) -> list[np.ndarray]:
    return [np.asarray(v.value) for v in (*model.weights, *model.optimizer.variables)]


def test_a_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Also the draws of dropout, the order of rows within the epoch, and what others count."""

    def watch() -> list[Any]:
        early = EarlyStopping("loss", patience=9, restore_best_weights=True)
        return [early, OrbaxCheckpoint(tmp_path, save_freq=3, resume=True)]

    fit(whole := net(), watch()[0])
    with pytest.raises(KeyboardInterrupt):
        fit(net(), Stop(7), *watch())
    assert steps(tmp_path) == ["6"]
    fit(again := net(seed=1), *watch())
    assert gap(state(again), state(whole)) == 0
    assert fit(again, *watch(), epochs=4).epoch == [2, 3]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[Any]]:
    """A folder of three steps of which two are kept, its model, and its state after each."""
    folder, model, states = tmp_path_factory.mktemp("steps"), net(), []
    note = LambdaCallback(on_epoch_end=lambda epoch, logs: states.append(state(model)))
    fit(model, note, OrbaxCheckpoint(folder, max_to_keep=2))
    return folder, model, states


def test_models_and_weights_are_read(kept: Any) -> None:
    folder, model, states = kept
    assert steps(folder) == ["1", "2"]
    loaded = alphorn.models.load_model(folder)
    assert gap(state(loaded), states[2]) == 0
    assert gap(loaded.predict(X, verbose=0), model.predict(X, verbose=0)) == 0
    assert alphorn.models.load_model(folder, compile=False).optimizer is None
    other = net()
    other.load_weights(folder / "1")
    assert gap(state(other), states[1]) == 0
    other = net(optimizer="sgd")
    with pytest.warns(UserWarning, match="state of Adam in it does not fit sgd"):
        other.load_weights(folder)
    assert gap(other.get_weights(), model.get_weights()) == 0


def test_better_epochs_alone_and_weights_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = net()
    best = OrbaxCheckpoint(
        tmp_path, "loss", 1, True, "max", save_on_background=False, save_weights_only=True
    )
    losses = fit(model, best).history["loss"]
    better = [i for i, loss in enumerate(losses) if loss == max(losses[: i + 1])]
    assert steps(tmp_path) == [str(better[-1])]
    assert f"Epoch 1: step 0 written to {tmp_path} with loss" in capsys.readouterr().out
    net().load_weights(tmp_path)
    with pytest.raises(FileError, match=r"weights alone[\s\S]*load_weights"):
        alphorn.models.load_model(tmp_path)
    with pytest.raises(ArgumentError, match="weights alone"):
        fit(net(), OrbaxCheckpoint(tmp_path, resume=True))


def test_what_does_not_fit_is_told(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kept[0]
    model = net(units=2)
    before = model.get_weights()
    with pytest.raises(ArgumentError, match=r"\(3, 1\)[\s\S]*\(3, 2\)"):
        model.load_weights(folder)
    assert gap(model.get_weights(), before) == 0
    with pytest.raises(ArgumentError, match=r"skip_mismatch[\s\S]*m\.weights\.h5"):
        model.load_weights(folder, skip_mismatch=True)
    with pytest.raises(ArgumentError, match=r"of another model[\s\S]*name another"):
        fit(net(optimizer="sgd"), OrbaxCheckpoint(folder, resume=True))
    with pytest.raises(ArgumentError, match=r"step 0, where step 2 is there[\s\S]*resume=True"):
        fit(net(), OrbaxCheckpoint(folder))
    with pytest.raises(ArgumentError, match="save_freq"):
        OrbaxCheckpoint(folder, save_freq="batch")
    with pytest.raises(ArgumentError, match="resume"):
        OrbaxCheckpoint(folder, resume=True, save_weights_only=True)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    for attempt in (lambda: OrbaxCheckpoint(folder), lambda: model.load_weights(folder)):
        with pytest.raises(ImportError, match=r"pip install 'alphorn\[orbax\]'"):
            attempt()


# Orbax closes its loop at the first array that fails; TensorStore tells it of the others after.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", ["facts/metadata", "weights/manifest.ocdbt"])
def test_a_damaged_step_is_told(case: str, tmp_path: Path) -> None:
    fit(net(), OrbaxCheckpoint(tmp_path, save_on_background=False), epochs=1)
    damaged = tmp_path / "0" / case
    damaged.write_bytes(damaged.read_bytes()[:9])
    model = net()
    with pytest.raises(AlphornError, match="could not be read"):
        model.load_weights(tmp_path)
    assert gap(model.get_weights(), net().get_weights()) == 0


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileError, match=r"file could not be opened"):
        fit(net(), OrbaxCheckpoint(tmp_path / "file"), epochs=1)

    class Full:
        """A manager whose thread found the disk full."""

        def check_for_errors(self) -> None:
            raise OSError("disk full")

        wait_until_finished = close = check_for_errors

    callback = OrbaxCheckpoint(tmp_path / "steps")
    for step in (callback.on_epoch_end, callback.on_train_batch_end, callback.on_train_end):
        callback._manager = Full()
        with pytest.raises(FileError, match=r"steps could not be written[\s\S]*disk full"):
            step(0)
