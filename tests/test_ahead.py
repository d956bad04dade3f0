"""Programs that a run is going to need are compiled beside each other."""

import os
import threading
import time

import numpy as np
import pytest

import alphorn as keras
from alphorn.program_cache import after_compilations
from alphorn.training import ahead, step

ROWS = [np.arange(1, n + 1) for n in [2, 2, 2, 3, 9, 9, 9, 8] * 16 + [30] * 3]
Y = np.arange(len(ROWS)).reshape(-1, 1) % 2

_compiled: list[str] = []
after_compilations(lambda seconds: _compiled.append(threading.current_thread().name))


@pytest.fixture
def compiled():
    """The threads on which programs are compiled."""
    _compiled.clear()
    return _compiled


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    """Enough for one compilation beside the steps."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(ahead, "_pool", [])


def new_model(**options):
    keras.utils.set_random_seed(0)
    table = keras.layers.Embedding(40, 4, mask_zero=True)
    model = keras.Sequential(
        [keras.Input((None,)), table, keras.layers.LSTM(3), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse", **options)
    return model


def run(model, **options):
    """Returns the figures of training, evaluation and prediction."""
    history = model.fit(ROWS, Y, batch_size=8, verbose=0, epochs=2, **options).history
    figure = model.evaluate(ROWS, Y, batch_size=8, verbose=0)
    return [*history["loss"], figure, *model.predict(ROWS, batch_size=8, verbose=0).ravel()]


def test_each_length_is_compiled_once_and_beside_the_others(compiled, monkeypatch):
    model = new_model()
    found = run(model, group_by_length=True)
    aside = [name for name in compiled if name.startswith("programs")]
    trained = model.programs.values()
    assert len(trained) == 3
    begun = [len(program.ahead._begun) for program in trained]
    assert min(begun) >= 2
    assert len(aside) == sum(begun)
    compiled.clear()
    again = []
    with monkeypatch.context() as patched:
        patched.setattr(ahead, "_workers", lambda: again.append("asked"))
        run(model, group_by_length=True)
    assert compiled == again == []

    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    np.testing.assert_array_equal(found, run(new_model(), group_by_length=True))
    assert compiled
    assert not any(name.startswith("programs") for name in compiled)


def test_blocks_of_several_batches_and_a_last_one_are_compiled_beside_each_other(compiled):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8 * 18 + 1, 3)), np.ones((8 * 18 + 1, 1)), batch_size=8, verbose=0)
    (program,) = model.programs.values()
    assert {static for _, static, _ in program.ahead._begun} == {(16,), (2,), (1,)}


def test_a_step_waits_for_its_own_program(monkeypatch):
    slowly = []

    class Slow:
        def submit(self, job):
            def late():
                time.sleep(0.3)
                slowly.append(job())
                return slowly[-1]

            return pool.submit(late)

    pool = ahead._workers()
    monkeypatch.setattr(ahead, "_workers", Slow)
    before = ahead.seconds_held_up()
    model = new_model()
    model.fit(ROWS, Y, batch_size=8, verbose=0)
    (program,) = model.programs.values()
    assert len(slowly) == len(program.ahead._begun) >= 2
    assert ahead.seconds_held_up() - before >= 0.3


def test_what_has_not_begun_is_left_when_training_stops(monkeypatch):
    begin = threading.Event()
    pool = ahead._workers()
    pool.submit(begin.wait)  # the only worker has other work
    asked = []

    class Busy:
        def submit(self, job):
            asked.append(pool.submit(job))
            if len(asked) == 1:  # the first step's own
                begin.set()
                asked[0].result()
                begin.clear()
                pool.submit(begin.wait)
            return asked[-1]

    monkeypatch.setattr(ahead, "_workers", Busy)
    model = new_model()
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", True)
    )
    model.fit(ROWS, Y, batch_size=8, verbose=0, callbacks=[stop])
    begin.set()
    assert len(asked) >= 2
    assert all(future.cancelled() for future in asked[1:])
    model.fit(ROWS, Y, batch_size=8, verbose=0)


def test_an_error_comes_where_the_step_runs():
    seen = []

    class Picky(keras.Model):
        def __init__(self):
            super().__init__()
            self.table = keras.layers.Embedding(40, 1)

        def call(self, x):
            return keras.ops.mean(self.table(x), axis=1)

        def train_step(self, data):
            if data[0].shape[1] > 20:
                raise ValueError("too long for me")
            return super().train_step(data)

    model = Picky()
    model.compile("sgd", "mse")
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    with pytest.raises(ValueError, match="too long for me"):
        model.fit(ROWS, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[note])
    assert len(seen) == 16


@pytest.mark.parametrize("name", ["cpu_count", "distribution"])
def test_few_cores_or_several_processes_compile_in_turn(monkeypatch, name):
    if name == "cpu_count":
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
    else:
        monkeypatch.setattr(ahead, "distribution", object)
    assert not ahead.compiles_ahead()
    model = new_model()
    model.fit(ROWS, Y, batch_size=8, verbose=0)
    (program,) = model.programs.values()
    assert not program.ahead._begun


def test_a_step_that_runs_eagerly_has_no_programs():
    model = new_model(run_eagerly=True)
    model.fit(ROWS[:20], Y[:20], batch_size=8, verbose=0)
    (program,) = model.programs.values()
    assert isinstance(program, step.Program)
    program.begin(step.Batch(np.ones((8, 3), "int32"), np.ones((8, 1))), 1)
    assert not program.ahead._begun
