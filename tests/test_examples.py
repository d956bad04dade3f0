"""The examples on small data: they learn, and padding changes nothing."""

import numpy as np
import pytest

import custom_cell
import custom_layer
import own_training
import plain_jax
import two_optimizers


def padded(rows, more):
    """Returns sequences in one array, with more steps of zeros than the longest needs."""
    length = max(map(len, rows)) + more
    return np.stack([np.pad(np.array(r, "int32"), (0, length - len(r))) for r in rows])


def same_with_padding(model, rows):
    tight, wide = (model.predict(padded(rows, more), verbose=0) for more in (0, 5))
    if tight.ndim == 3:
        wide = wide[:, : tight.shape[1]]
    np.testing.assert_allclose(wide, tight, atol=1e-5)


@pytest.mark.parametrize("example", [custom_layer, plain_jax], ids=lambda e: e.__name__)
def test_a_layer_of_ones_own_learns(example) -> None:
    model, accuracy = example.main(rows=1280, epochs=2)
    assert accuracy > 0.9
    same_with_padding(model, custom_layer.make_texts(8, seed=3)[0])


def test_a_cell_of_ones_own_learns() -> None:
    model, error = custom_cell.main(rows=192, epochs=6, units=1)
    assert error < 0.2
    signals, _ = custom_cell.make_signals(6, seed=3)
    together = model.predict(signals, verbose=0)
    alone = [model.predict(s[None], verbose=0)[0] for s in signals[:2]]
    np.testing.assert_allclose(together[:2], alone, atol=1e-5)


def test_a_training_step_of_ones_own_learns() -> None:
    model, history = own_training.main(rows=512, epochs=5)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["right"][-1] > 0.8
    same_with_padding(model, own_training.make_texts(6, seed=3))


def test_two_nets_learn_from_each_other() -> None:
    model, made = two_optimizers.main(rows=1024, epochs=12)
    assert np.abs(made.mean(0) - two_optimizers.CENTER).max() < 0.7
    assert int(model.optimizer.iterations) == int(model.judge_optimizer.iterations) == 96
