"""Ctrl-C, threads, memory: nothing is lost and nothing grows."""

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import tracemalloc

import jax
import numpy as np
import pytest

import alphorn
from alphorn.errors import ArgumentError
from alphorn.layers import Dense
from nets import X, Y, compiled, gap, line, ready

LONG_X, LONG_Y = np.repeat(X, 100, 0), np.repeat(Y, 100, 0)
SHORT_STEPS = {"batch_size": 5, "verbose": 0}


@pytest.fixture(scope="module")
def busy():
    """A model whose every step is a call of its own."""
    model = compiled(line, optimizer="adam", loss="mse", steps_per_execution=1)
    model.fit(X, Y, **SHORT_STEPS)
    return model


def test_ctrl_c_at_any_moment_leaves_a_model_that_trains_on(busy):
    when = random.Random(0)
    epochs = 0
    for _ in range(50):
        timer = threading.Timer(when.uniform(0, 0.06), os.kill, (os.getpid(), signal.SIGINT))
        try:
            with pytest.raises(KeyboardInterrupt):
                timer.start()
                busy.fit(X, Y, epochs=1_000_000, **SHORT_STEPS)
        finally:
            timer.join()
        assert all(np.isfinite(w).all() for w in busy.get_weights())
        assert all(len(v) == len(busy.history.epoch) for v in busy.history.history.values())
        epochs = max(epochs, len(busy.history.epoch))
    assert epochs > 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert np.isfinite(busy.fit(X, Y, **SHORT_STEPS).history["loss"]).all()


def test_ctrl_c_between_steps_keeps_the_last_step_and_the_epochs_so_far(busy):
    weights = []

    class Press(alphorn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append(self.model.get_weights())
            if len(weights) == 5:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        busy.fit(X, Y, epochs=9, callbacks=[Press()], **SHORT_STEPS)
    assert gap(busy.get_weights(), weights[-1]) == 0
    assert len(busy.history.history["loss"]) == 2
    assert busy.history.epoch == [0, 1]


def test_a_signal_during_a_step_waits_for_the_step():
    class Interrupting(alphorn.Sequential):
        def call(self, inputs, training=None, mask=None):
            if training:
                signal.raise_signal(signal.SIGINT)
            return super().call(inputs, training)

    model = Interrupting([alphorn.Input((3,)), Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=1)
    before = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, **SHORT_STEPS)
    assert gap(model.get_weights(), before) > 0
    assert int(model.optimizer.iterations) == 1


def test_prediction_in_a_thread_while_another_trains(busy):
    found, errors, done = [], [], threading.Event()

    def predict():
        while not done.is_set():
            try:
                found.append(busy.predict(X, verbose=0))
            except Exception as error:
                errors.append(error)

    busy.predict(X, verbose=0)
    thread = threading.Thread(target=predict)
    thread.start()
    busy.fit(LONG_X, LONG_Y, epochs=2, **SHORT_STEPS)
    done.set()
    thread.join()
    assert errors == []
    assert len(found) > 3
    assert np.isfinite(found).all()


def test_two_models_in_two_threads_equal_their_runs_alone():
    def run(seed):
        model = alphorn.Sequential([alphorn.Input((3,)), Dense(1)])
        model.set_weights([np.full((3, 1), seed, "float32"), np.zeros(1, "float32")])
        model.compile(alphorn.optimizers.SGD(0.1), "mse", steps_per_execution=1)
        return model.fit(X, Y * seed, epochs=3, shuffle=False, **SHORT_STEPS).history["loss"]

    alone = [run(1), run(2)]
    together = {}
    threads = [threading.Thread(target=lambda s=s: together.update({s: run(s)})) for s in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[1], together[2]] == alone


def grown(work, first: int, times: int) -> tuple[int, int]:
    """Runs `work` until it is warm, then `times` more: the growth in arrays and in bytes.

    Tracing begins before the warm runs: else what replaces older objects would count as new. What
    leaks grows in every half of the runs; a table of JAX's that is enlarged once does so in one.
    """
    arrays, sizes = [], []
    tracemalloc.start()
    try:
        for runs in (first, times // 2, times // 2):
            for _ in range(runs):
                work()
            gc.collect()
            arrays.append(len(jax.live_arrays()))
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return arrays[2] - arrays[0], 2 * min(sizes[1] - sizes[0], sizes[2] - sizes[1])


def test_predictions_leave_nothing_behind():
    model = ready()
    arrays, size = grown(lambda: model.predict(X, verbose=0), 20, 1_000)
    assert arrays == 0
    assert size < 40_000


def test_training_leaves_its_history_and_nothing_else():
    model = compiled(line, optimizer="adam", loss="mse", metrics=["mae"], steps_per_execution=1)
    arrays, size = grown(lambda: model.fit(X, Y, epochs=25, **SHORT_STEPS), 16, 8)
    assert arrays == 0
    assert size < 40_000  # 400 steps, 200 epochs


def test_models_that_are_dropped_are_gone():
    def build():
        model = alphorn.Sequential([alphorn.Input((3,)), Dense(4, "tanh"), Dense(1)])
        model(X)

    arrays, size = grown(build, 5, 200)
    assert arrays == 0
    assert size < 200 * 1_000


def test_models_that_were_trained_and_dropped_are_gone():
    def train():
        model = alphorn.Sequential([alphorn.Input((3,)), Dense(1)])
        model.compile("adam", "mse")
        model.fit(X, Y, verbose=0)

    arrays, _ = grown(train, 1, 2)
    assert arrays == 0


@pytest.mark.parametrize("disposition", [signal.SIG_DFL, signal.SIG_IGN])
def test_held_interrupts_go_where_they_would_have_gone(disposition):
    program = f"""
import signal
import subprocess
import sys
from alphorn.training.interrupts import interrupts_held
signal.signal(signal.SIGINT, signal.{disposition.name})
with interrupts_held():
    signal.raise_signal(signal.SIGINT)
    print("held", flush=True)
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "held"
    ignored = disposition is signal.SIG_IGN
    assert ("went on" in done.stdout) is ignored
    assert done.returncode == (0 if ignored else -signal.SIGINT)


def test_an_error_of_compile_is_said_again_and_leaves_a_model_that_may_be_compiled_anew():
    model = alphorn.Sequential([alphorn.Input((3,)), Dense(1)])
    model.compile("sgd", "mse", metrics=["mae", "acuracy"])
    for _ in range(2):
        with pytest.raises(ArgumentError, match="acuracy"):
            model.fit(X, Y, verbose=0)
    model.compile("sgd", "mse", metrics=["mae"])
    assert set(model.fit(X, Y, verbose=0).history) == {"loss", "mae"}
