"""Callbacks: each against Keras's, driven by the same figures, and in a real fit."""

import csv
import io
import json
import signal

import keras
import numpy as np
import pytest
from rich.console import Console

import alphorn
from alphorn.callbacks import (
    Callback,
    CallbackList,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ProgbarLogger,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from alphorn.errors import ArgumentError, StateError
from alphorn.training.step import Logs
from nets import X, Y, compiled, gap, line, ready

BOTH = pytest.mark.parametrize("K", [alphorn, keras], ids=["alphorn", "keras"])
FALLING = [1.0, 0.8, 0.79, 0.795, 0.6, 0.61, 0.62, 0.63, 0.5, 0.55, 0.54, 0.56, 0.57, 0.58]
RISING = [0.1, 0.2, 0.2, 0.21, 0.4, 0.3, 0.35, 0.39, 0.38, 0.5, 0.5, 0.5, 0.5, 0.5]


class Rates:
    learning_rate = 1.0


class Stand:
    """What callbacks see of a model."""

    metrics = ()
    stop_training = False

    def __init__(self):
        self.optimizer = Rates()
        self.weights = [np.zeros(1)]

    def get_weights(self):
        return [w.copy() for w in self.weights]

    def set_weights(self, weights):
        self.weights = weights


def driven(callback, figures, name="val_loss") -> tuple:
    """Tells a callback of epochs until it stops; returns what it did and left."""
    model, seen = Stand(), []
    callback.set_model(model)
    callback.set_params({"epochs": len(figures), "steps": 1, "verbose": 0})
    callback.on_train_begin()
    for epoch, figure in enumerate(figures):
        callback.on_epoch_begin(epoch)
        model.weights = [np.full(1, float(epoch))]
        logs = {"loss": 1.0, name: figure}
        callback.on_epoch_end(epoch, logs)
        seen.append((model.optimizer.learning_rate, logs))
        if model.stop_training:
            break
    callback.on_train_end()
    return seen, float(model.weights[0][0]), model.stop_training


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patience": 3},
        {"patience": 2, "min_delta": 0.015},
        {"patience": 3, "restore_best_weights": True},
        {"patience": 2, "baseline": 0.7},
        {"patience": 20, "restore_best_weights": True},
        {"start_from_epoch": 5, "patience": 1, "restore_best_weights": True},
        {"monitor": "val_accuracy", "patience": 3, "mode": "max"},
        {"monitor": "val_accuracy", "patience": 4, "mode": "max", "min_delta": 0.05},
        {"mode": "min", "patience": 1},
    ],
    ids=str,
)
def test_early_stopping_is_keras_s(options, capsys):
    name = options.get("monitor", "val_loss")
    figures = RISING if name == "val_accuracy" else FALLING
    ours, theirs = (K.callbacks.EarlyStopping(**options) for K in (alphorn, keras))
    assert driven(ours, figures, name) == driven(theirs, figures, name)
    for attribute in ("wait", "stopped_epoch", "best_epoch", "best", "patience", "monitor"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 1},
        {"patience": 2, "factor": 0.5, "cooldown": 2},
        {"patience": 1, "factor": 0.3, "min_lr": 0.2},
        {"patience": 2, "min_delta": 0.015},
        {"monitor": "val_accuracy", "patience": 1, "mode": "max"},
    ],
    ids=str,
)
def test_reduce_lr_on_plateau_is_keras_s(options):
    name = options.get("monitor", "val_loss")
    figures = RISING if name == "val_accuracy" else FALLING
    ours, theirs = (K.callbacks.ReduceLROnPlateau(**options) for K in (alphorn, keras))
    assert driven(ours, figures, name) == driven(theirs, figures, name)
    with pytest.raises(ArgumentError, match="factor"):
        ReduceLROnPlateau(factor=1.0)


@pytest.mark.parametrize(
    "schedule", [lambda epoch: 1.0 / (epoch + 1), lambda epoch, rate: rate * 0.5]
)
def test_learning_rate_scheduler_is_keras_s(schedule):
    ours, theirs = (K.callbacks.LearningRateScheduler(schedule) for K in (alphorn, keras))
    assert driven(ours, FALLING[:4]) == driven(theirs, FALLING[:4])


def test_a_schedule_that_fails_says_why():
    def broken(epoch, rate):
        return rate + "1"

    with pytest.raises(TypeError, match="unsupported operand"):
        driven(LearningRateScheduler(broken), FALLING)
    with pytest.raises(ArgumentError, match=r"schedule[\s\S]*None for epoch 0"):
        driven(LearningRateScheduler(lambda epoch: None), FALLING)


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("validated", [False, True])
def test_csv_logger_writes_keras_s_files(tmp_path, append, validated):
    found = []
    for K in (alphorn, keras):
        path = tmp_path / f"{K.__name__}.csv"
        for _ in range(2):
            logger = K.callbacks.CSVLogger(path, separator=";", append=append)
            driven(logger, FALLING[:3], "val_loss" if validated else "accuracy")
        found.append(path.read_text().splitlines())
    assert found[0] == found[1]
    assert len(found[0]) == (7 if append else 4)


def test_csv_logger_writes_arrays_as_keras_does(tmp_path):
    found = []
    for K in (alphorn, keras):
        path = tmp_path / f"{K.__name__}.csv"
        logger = K.callbacks.CSVLogger(path)
        logger.on_train_begin()
        logger.on_epoch_end(0, {"f1": np.array([0.5, 0.25])})
        logger.on_train_end()
        found.append(list(csv.reader(io.StringIO(path.read_text()))))
    assert found[0] == found[1]


def test_a_figure_that_is_not_there_is_warned_of_and_waited_for():
    for make in (EarlyStopping, ReduceLROnPlateau):
        with pytest.warns(UserWarning, match="val_loss.*loss, accuracy.*validation_data"):
            _, _, stopped = driven(make(), [0.5] * 3, "accuracy")
        assert not stopped
    stopping = EarlyStopping("val_loss", patience=1)
    model = ready()
    with pytest.warns(UserWarning, match="not among the figures of this epoch"):
        history = model.fit(
            X, Y, epochs=8, verbose=0, validation_data=(X, Y), validation_freq=2, callbacks=stopping
        ).history
    assert len(history["loss"]) == 8
    assert len(history["val_loss"]) == 4


def test_more_is_better_or_less_by_the_name_or_the_metric():
    names = {
        "val_loss": False,
        "p_loss": False,
        "accuracy": True,
        "val_auc_1": True,
        "mean_absolute_error": False,
        "cosine_similarity": True,
        "sparse_categorical_crossentropy": False,
    }
    for name, rises in names.items():
        watcher = EarlyStopping(name)
        watcher.set_model(Stand())
        assert watcher._is_better(2.0, 1.0) is rises
    model = Stand()
    model.metrics = (alphorn.metrics.AUC(name="quality"),)
    watcher = EarlyStopping("val_quality")
    watcher.set_model(model)
    assert watcher._is_better(2.0, 1.0)
    watcher = EarlyStopping("val_thing")
    watcher.set_model(model)
    with pytest.raises(ArgumentError, match=r"'val_thing'[\s\S]*mode='max' or mode='min'"):
        watcher._is_better(2.0, 1.0)
    with pytest.raises(ArgumentError, match=r"EarlyStopping: mode[\s\S]*'best'"):
        EarlyStopping(mode="best")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"save_best_only": True},
        {"save_best_only": True, "initial_value_threshold": 0.7},
        {"save_best_only": True, "monitor": "val_accuracy", "mode": "max"},
    ],
    ids=str,
)
def test_model_checkpoint_writes_when_keras_does(tmp_path, options):
    name = options.get("monitor", "val_loss")
    figures = RISING if name == "val_accuracy" else FALLING
    found = []
    for K in (alphorn, keras):
        written = []
        path = str(tmp_path / ("{epoch:02d}-{" + name + ":.2f}.weights.h5"))
        callback = K.callbacks.ModelCheckpoint(path, save_weights_only=True, **options)
        Stand.save_weights = lambda self, path, overwrite, w=written: w.append(str(path))
        try:
            driven(callback, figures, name)
        finally:
            del Stand.save_weights
        found.append((written, callback.best))
    assert found[0] == found[1]


def test_model_checkpoint_by_batches_writes_when_keras_does(tmp_path):
    found = []
    for K in (alphorn, keras):
        written = []
        callback = K.callbacks.ModelCheckpoint(
            str(tmp_path / "{epoch}-{batch}.weights.h5"), save_weights_only=True, save_freq=3
        )
        Stand.save_weights = lambda self, path, overwrite, w=written: w.append(str(path))
        try:
            callback.set_model(Stand())
            callback.on_train_begin()
            for epoch in range(3):
                callback.on_epoch_begin(epoch)
                for batch in range(4):
                    callback.on_train_batch_begin(batch)
                    callback.on_train_batch_end(batch, {"loss": 1.0})
                callback._direction = callback._set_monitor_op = lambda: "min"
                callback.on_epoch_end(epoch, {"loss": 1.0})
        finally:
            del Stand.save_weights
        found.append(written)
    assert found[0] == found[1]
    assert len(found[0]) == 4


def test_functions_of_epoch_and_logs_may_be_called_at_the_beginning_too():
    seen = []

    def note(*given):
        seen.append(given)

    callback = LambdaCallback(on_epoch_begin=lambda epoch, logs: note(epoch, logs))
    ready().fit(X, Y, verbose=0, epochs=2, callbacks=callback)
    assert seen == [(0, {}), (1, {})]


def test_model_checkpoint_writes_whole_models(tmp_path):
    model = ready()
    path = str(tmp_path / "{epoch}-{loss:.2f}.keras")
    history = model.fit(X, Y, verbose=0, epochs=2, callbacks=ModelCheckpoint(path)).history
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"{i + 1}-{loss:.2f}.keras" for i, loss in enumerate(history["loss"])]
    twin = alphorn.models.load_model(tmp_path / names[1])
    assert gap(twin.get_weights(), model.get_weights()) == 0
    assert int(twin.optimizer.iterations) == int(model.optimizer.iterations)


def test_model_checkpoint_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(ArgumentError, match=r"save_weights_only=False[\s\S]*ends in \.keras"):
        ModelCheckpoint(tmp_path / "m.weights.h5")
    with pytest.raises(ArgumentError, match=r"ends in \.weights\.h5"):
        ModelCheckpoint(tmp_path / "model.h5", save_weights_only=True)
    with pytest.raises(ArgumentError, match="'epoch' or a number"):
        ModelCheckpoint(tmp_path / "m.weights.h5", save_weights_only=True, save_freq="batch")
    path = str(tmp_path / "{val_f1}.weights.h5")
    with pytest.raises(ArgumentError, match=r"'val_f1'[\s\S]*epoch, loss"):
        ready().fit(X, Y, verbose=0, callbacks=ModelCheckpoint(path, save_weights_only=True))


def test_checkpoints_of_a_fit_hold_the_weights_of_their_epochs(tmp_path, capsys):
    model, kept = ready(), []
    path = str(tmp_path / "in" / "{epoch}.weights.h5")
    callbacks = [
        ModelCheckpoint(path, save_weights_only=True, verbose=1),
        LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights())),
    ]
    model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    assert "Epoch 2: written to" in capsys.readouterr().out
    for epoch in (0, 1):
        model.load_weights(path.format(epoch=epoch + 1))
        assert gap(model.get_weights(), kept[epoch]) == 0


@BOTH
def test_logs_are_dicts_that_callbacks_may_add_to(K):
    """As callbacks that measure F1 after each epoch do."""

    class F1(K.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_f1"] = 0.5 + epoch

        def on_train_batch_end(self, batch, logs=None):
            assert isinstance(logs, dict)
            assert type(logs["loss"]) is float
            assert logs.get("none", 3) == 3
            json.dumps(logs)

    model = compiled(line, K, optimizer="sgd", loss="mse")
    schedule = K.callbacks.LearningRateScheduler(lambda epoch: 0.25 / (epoch + 1))
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[F1(), schedule]).history
    assert history["val_f1"] == [0.5, 1.5]
    assert history["learning_rate"] == [0.25, 0.125]


def test_logs_become_floats_whichever_way_they_are_read():
    def logs():
        return Logs({"loss": alphorn.ops.ones(()), "f1": alphorn.ops.ones((2,))})

    ways = {
        "dict": dict,
        "star": lambda x: {**x},
        "copy": lambda x: x.copy(),
        "items": lambda x: dict(x.items()),
        "or": lambda x: x | {},
        "ror": lambda x: {} | x,
        "update": lambda x: [d := {}, d.update(x)][0],
        "iter": lambda x: {k: x[k] for k in x},
        "get": lambda x: {k: x.get(k) for k in x},
        "values": lambda x: dict(zip(x, x.values(), strict=True)),
    }
    for name, way in ways.items():
        read = way(logs())
        assert list(read) == ["loss", "f1"], name
        assert type(read["loss"]) is float, name
        assert isinstance(read["f1"], np.ndarray), name
    assert repr(Logs({"loss": alphorn.ops.ones(())})) == "{'loss': 1.0}"
    assert Logs({"loss": alphorn.ops.ones(())}) == {"loss": 1.0}
    assert len(logs()) == 2 and "loss" in logs()
    held = logs()
    held.wait()
    assert held.ready


@BOTH
def test_events_come_in_keras_s_order_with_its_arguments(K, request):
    calls = request.config.__dict__.setdefault("_order", {})
    seen = []

    class Noted(K.callbacks.Callback):
        def __getattribute__(self, name):
            found = super().__getattribute__(name)
            if name.startswith("on_"):

                def noted(*args, **kwargs):
                    given = [a for a in args if isinstance(a, int)]
                    seen.append((name, *given, sorted(kwargs.get("logs") or [])))
                    return found(*args, **kwargs)

                return noted
            return found

        def on_batch_end(self, batch, logs=None):
            """Keras 2's name: the bases call it."""

    model = compiled(line, K, optimizer="sgd", loss="mse")
    callback = Noted()
    options = {"batch_size": 5, "verbose": 0, "callbacks": [callback]}
    model.fit(X, Y, epochs=2, validation_data=(X, Y), **options)
    assert callback.params == {"verbose": 0, "epochs": 2, "steps": 2}
    model.evaluate(X, Y, **options)
    model.predict(X, **options)
    calls[K.__name__] = [(name, *rest[:-1]) for name, *rest in seen]
    assert ("on_batch_end", 1) in calls[K.__name__]
    if len(calls) == 2:
        assert calls.pop("alphorn") == calls.pop("keras")


def test_a_callback_list_is_keras_s():
    seen = []
    given = [
        LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["a"]))),
        [LambdaCallback(on_batch_end=lambda batch, logs: seen.append(batch))],
    ]
    model = Stand()
    listed = CallbackList(given, add_history=True, add_progbar=True, model=model, epochs=3, steps=1)
    kinds = [type(c) for c in listed.callbacks]
    assert kinds == [LambdaCallback, LambdaCallback, History, ProgbarLogger]
    assert all(c.model is model and c.params["epochs"] == 3 for c in listed.callbacks)
    listed.on_train_begin()
    listed.on_epoch_begin(0)
    listed.on_epoch_end(0, logs={"a": 1.0})
    listed.on_train_batch_end(4, {"a": 1.0})
    assert seen == [(0, 1.0), 4]
    assert listed.callbacks[2].history == {"a": [1.0]}
    history = ready().fit(X, Y, verbose=0, callbacks=CallbackList([[History()]]))
    assert set(history.history) == {"loss"}
    with pytest.raises(ArgumentError, match=r"callbacks\n.*'stop'[\s\S]*LambdaCallback"):
        ready().fit(X, Y, verbose=0, callbacks=["stop"])
    with pytest.raises(ArgumentError, match="on_epoch_over"):
        LambdaCallback(on_epoch_over=print)


def test_a_history_of_the_user_is_the_one_that_is_returned():
    mine = History()
    model = ready()
    assert model.fit(X, Y, verbose=0, callbacks=[mine]) is mine is model.history
    model.fit(X, Y, verbose=0, callbacks=[mine], epochs=2)
    assert len(mine.history["loss"]) == 3
    assert mine.epoch == [0, 1]


def test_a_loss_that_is_no_number_ends_training_and_says_where(capsys):
    model = ready()
    bad = X.copy()
    bad[7] = np.nan
    stop = TerminateOnNaN()
    options = {"batch_size": 5, "epochs": 3, "verbose": 0, "shuffle": False}
    history = model.fit(bad, Y, callbacks=[stop], **options)
    assert "Epoch 1, batch 1: the loss is nan" in capsys.readouterr().out
    assert stop.stopped_step == 1
    assert len(history.epoch) == 1
    with pytest.raises(StateError, match=r"Epoch 1, batch 1: the loss is nan[\s\S]*clipnorm"):
        ready().fit(bad, Y, callbacks=[TerminateOnNaN(raise_error=True)], **options)


def test_stop_training_ends_the_epoch_and_the_next_fit_begins_anew():
    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    model = ready()
    model.fit(X, Y, batch_size=2, epochs=4, verbose=0, callbacks=[Stop()])
    assert int(model.optimizer.iterations) == 2
    model.fit(X, Y, batch_size=2, epochs=1, verbose=0)
    assert int(model.optimizer.iterations) == 7


def test_piped_output_is_a_plain_line_an_epoch(capsys):
    model = ready()
    for verbose in (1, 2, "auto"):
        model.fit(X, Y, batch_size=4, epochs=2, verbose=verbose, validation_data=(X, Y))
        out = capsys.readouterr().out
        lines = out.splitlines()
        assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
        assert all("3 steps" in line and "val_loss: " in line for line in lines)
        assert "\x1b" not in out and "\r" not in out
    model.evaluate(X, Y, verbose=2)
    assert "Evaluate - 1 steps" in capsys.readouterr().out
    model.predict(X, verbose=2)
    assert "Predict - 1 steps" in capsys.readouterr().out
    model.fit(X, Y, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        "alphorn.training.progress.Console",
        lambda file: Console(file=screen, force_terminal=True, width=100),
    )
    ready().fit(X, Y, batch_size=4, epochs=2, verbose=1)
    shown = screen.getvalue()
    assert "Epoch 2/2" in shown and "3/3" in shown and "loss: " in shown
    assert "\x1b" in shown


def test_ctrl_c_while_figures_are_added_adds_all_of_them():
    history = History()

    figures = {"a": 1.0, "b": 2.0}
    lists = [type("L", (list,), {"append": _append_and_press})() for _ in figures]
    history.history = dict(zip(figures, lists, strict=True))
    with pytest.raises(KeyboardInterrupt):
        history.on_epoch_end(0, figures)
    assert [list(v) for v in history.history.values()] == [[1.0], [2.0]]
    assert history.epoch == [0]


def _append_and_press(self, value):
    list.append(self, value)
    signal.raise_signal(signal.SIGINT)
