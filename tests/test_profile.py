"""callbacks.Profile: where the time of training went."""

import time

import numpy as np
import pytest

import alphorn as keras


def small_model(*layers):
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_a_device_that_waits_for_slow_batches_is_seen():
    def batches():
        for _ in range(6):
            time.sleep(0.05)
            yield np.ones((4, 3), "float32"), np.ones((4, 1), "float32")

    model = small_model(keras.Input((3,)))
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)  # compiled
    profile = keras.callbacks.Profile(verbose=0)
    model.fit(batches(), verbose=0, callbacks=[profile])
    (epoch,) = profile.epochs
    assert epoch.steps == 6
    assert epoch.making >= 6 * 0.05
    assert 0.25 <= epoch.waiting <= epoch.making
    assert epoch.total >= epoch.waiting + epoch.computing - 1e-3
    assert epoch.waiting_share == epoch.waiting / epoch.total
    assert epoch.computed == epoch.valid == 0  # a generator's lengths are not counted


def test_compilation_and_padding_are_counted(capsys, tmp_path):
    rows = [np.arange(1, n + 1) for n in (2, 9, 3, 4, 9, 5, 1, 2)]
    model = small_model(keras.layers.Embedding(10, 4, mask_zero=True), keras.layers.LSTM(3))
    picture = tmp_path / "profile.png"
    profile = keras.callbacks.Profile(plot=picture)
    model.fit(rows, np.ones((8, 1)), batch_size=4, epochs=2, verbose=0, callbacks=[profile])
    first, second = profile.epochs
    assert first.compiling > second.compiling == 0
    assert (first.valid, second.valid) == (35, 35)
    assert first.computed >= 35
    assert first.padding_share == pytest.approx(1 - 35 / first.computed)
    assert second.tokens_per_second == 35 / second.total
    shown = capsys.readouterr().out
    assert "waiting" in shown
    assert f"{first.padding_share:.0%}" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_it_changes_no_number_and_can_be_used_again():
    x, y = np.random.default_rng(0).normal(size=(2, 96, 3, 1)).astype("float32")

    def losses(callbacks):
        keras.utils.set_random_seed(3)
        model = small_model(keras.Input((3,)))
        return model.fit(x[..., 0], y[:, 0], epochs=2, verbose=0, callbacks=callbacks).history

    profile = keras.callbacks.Profile(verbose=0)
    wanted = losses([])
    for _ in range(2):
        assert losses([profile]) == wanted
        assert len(profile.epochs) == 2
