"""Predictions that need nothing of each other run beside each other."""

import contextlib
import itertools
import os

import numpy as np
import pytest
from jaxlib import xla_client

import alphorn as keras
from alphorn.training import lanes

X = np.random.default_rng(0).normal(size=(10, 4, 3)).astype("float32")


@pytest.fixture
def streams(monkeypatch):
    """The streams that are asked for, on a machine of two cores."""
    asked, stream = [], xla_client.execution_stream_id

    @contextlib.contextmanager
    def noted(number):
        asked.append(number)
        with stream(number):
            yield

    monkeypatch.setattr(xla_client, "execution_stream_id", noted)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return asked


def predicted(layer):
    model = keras.Sequential([keras.Input((4, 3), batch_size=2), layer])
    told = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs: None)
    found = model.predict(X, batch_size=2, verbose=0, callbacks=[told])
    return model, found


def alone(model):
    return np.concatenate([model(x) for x in np.split(X, 5)])


def test_calls_take_turns_and_give_what_the_model_gives(streams):
    model, found = predicted(keras.layers.LSTM(5))
    assert streams == [1, 2, 1, 2, 1]
    np.testing.assert_allclose(found, alone(model), atol=1e-6)


def test_a_stateful_layer_goes_on_from_the_call_before(streams):
    model, found = predicted(keras.layers.LSTM(5, stateful=True))
    assert len(streams) == 5
    model.reset_states()
    np.testing.assert_allclose(found, alone(model), atol=1e-6)


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (os, "cpu_count", lambda: 1),
        (lanes, "on_cpu", lambda: False),
        (lanes, "distribution", object),
        (xla_client, "execution_stream_id", None),
    ],
)
def test_one_core_or_several_devices_run_calls_in_turn(streams, monkeypatch, where, name, value):
    monkeypatch.setattr(where, name, value)
    for lane in itertools.islice(lanes.lanes(), 3):
        with lane:
            pass
    assert streams == []
