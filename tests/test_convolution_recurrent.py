"""ConvLSTM: states, layouts, dropout and its cell, beside Keras's."""

from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from alphorn.layers import RNN, ConvLSTM1D, ConvLSTM2D
from alphorn.layers.convolution_cell import ConvLSTMCell

RANDOM = np.random.default_rng(0)
MOVIES: Any = RANDOM.normal(size=(2, 4, 5, 3, 2)).astype(np.float32)
LINES: Any = MOVIES[..., 0, :]


def pair(name: str, x: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """Returns our layer and Keras's with the same weights."""
    made = [getattr(library.layers, name)(*args, **kwargs) for library in (alphorn, keras)]
    for layer in made:
        layer.build(x.shape)
    random = np.random.default_rng(1)
    weights = [random.normal(size=w.shape).astype(np.float32) for w in made[0].get_weights()]
    for layer in made:
        layer.set_weights(weights)
    return made


def close(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("backwards", [False, True])
def test_channels_may_come_first(backwards: bool) -> None:
    x = np.moveaxis(MOVIES, -1, 2)
    options: dict[str, Any] = {"data_format": "channels_first", "return_sequences": True}
    layers = pair(
        "ConvLSTM2D", x, 3, 2, 2, "same", go_backwards=backwards, return_state=True, **options
    )
    first = [RANDOM.normal(size=(2, 3, 3, 2)).astype(np.float32) for _ in range(2)]
    ours, theirs = (layer(x, initial_state=first) for layer in layers)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)
    mask = np.array([[True] * 4, [True] * 2 + [False] * 2])
    together = layers[0](x, mask=mask)[0]
    assert np.array_equal(together.mask, mask)
    close(together.data[1:, :2], layers[0](x[1:, :2])[0])


def test_states_are_kept_from_batch_to_batch() -> None:
    layers = pair("ConvLSTM1D", LINES, 3, 2, stateful=True)
    for x in (LINES, -LINES):
        ours, theirs = (layer(x) for layer in layers)
        close(ours, theirs)
    for layer in layers:
        layer.reset_state()
    close(layers[0](LINES), layers[1](LINES))
    assert len(layers[0].weights) == len(layers[1].weights) == 3


def test_config_is_keras_s() -> None:
    ours, theirs = pair("ConvLSTM2D", MOVIES, 3, 2, padding="SAME", dilation_rate=2, unroll=True)
    assert set(ours.get_config()) - {"activity_regularizer"} == set(theirs.get_config()) - {
        "activity_regularizer"
    }
    for name in ("kernel_size", "padding", "data_format", "dilation_rate", "unroll", "strides"):
        assert ours.get_config()[name] == theirs.get_config()[name]
    again = ConvLSTM2D.from_config(ours.get_config())
    again.build(MOVIES.shape)
    again.set_weights(ours.get_weights())
    close(again(MOVIES), theirs(MOVIES))


def test_each_gate_drops_entries_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = ConvLSTMCell(1, 3, 2, dropout=0.5, recurrent_dropout=0.5)
    cell.build((2, 5, 2))
    cell.set_weights([RANDOM.normal(size=w.shape) for w in cell.get_weights()])
    masks = cell.dropout_masks(2, jnp.float32, training=True)
    assert [m.shape for m in masks if m is not None] == [(2, 5, 8), (2, 4, 12)]
    assert {float(v) for m in masks if m is not None for v in m.ravel()} == {0.0, 2.0}
    monkeypatch.setattr(cell, "dropout_masks", lambda *args: masks)
    h, c = (jnp.asarray(RANDOM.normal(size=(2, 4, 3)).astype(np.float32)) for _ in range(2))
    x = jnp.asarray(LINES[:, 0])
    kernel, recurrent, bias = (np.asarray(w) for w in cell.get_weights())
    gates = []
    for g in range(4):
        mine = slice(3 * g, 3 * g + 3)
        seen, known = (
            np.asarray(a * m[..., a.shape[-1] * g : a.shape[-1] * (g + 1)])
            for a, m in zip((x, h), masks, strict=True)
            if m is not None
        )
        known = np.pad(known, [(0, 0), (0, 1), (0, 0)])
        gates.append(
            sum(seen[:, tap : tap + 4] @ kernel[tap, :, mine] for tap in range(2))
            + sum(known[:, tap : tap + 4] @ recurrent[tap, :, mine] for tap in range(2))
            + bias[mine]
        )
    i, f, o = (1 / (1 + np.exp(-gates[g])) for g in (0, 1, 3))
    carry = f * np.asarray(c) + i * np.tanh(gates[2])
    output, states = cell(x, [h, c], training=True)
    close(output, o * np.tanh(carry))
    close(states[1], carry)


@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
def test_dropout_does_not_depend_on_padding(rate: str) -> None:
    def run(steps: int) -> np.ndarray:
        alphorn.utils.set_random_seed(1)
        layer = ConvLSTM1D(3, 2, return_sequences=True, **{rate: 0.5})
        x = np.pad(LINES, [(0, 0), (0, steps), (0, 0), (0, 0)])
        mask = np.arange(4 + steps) < np.array([[4], [2]])
        layer(x)
        alphorn.utils.set_random_seed(1)
        out = layer(x, mask=mask, training=True)
        assert np.abs(np.asarray(layer(x, mask=mask).data - out.data)).max() > 1e-3
        return np.asarray(out.fill(0))[:, :4]

    close(run(0), run(3))


def test_its_cell_may_be_run_by_rnn() -> None:
    layer = ConvLSTM1D(3, 2, padding="same", return_sequences=True)
    expected = layer(LINES)
    other = RNN(ConvLSTMCell(1, 3, 2, padding="same"), return_sequences=True)
    other.build(LINES.shape)
    other.set_weights(layer.get_weights())
    close(other(LINES), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvLSTM1D(2, 2)(LINES[..., 0]), r"(?s)\(2, 4, 5\).*rank 4"),
        (lambda: ConvLSTM1D(2, 2)(alphorn.Input((4, None, 2))), "name the sizes"),
        (lambda: ConvLSTM1D(2, 7)(LINES), "no window fits"),
        (lambda: ConvLSTM1D(2, 2, padding="causal"), "causal"),
        (lambda: ConvLSTM1D(2, 2, 2, dilation_rate=2), "one of them 1"),
        (lambda: ConvLSTM1D(0, 2), "filters"),
        (lambda: ConvLSTM1D(2, 2).get_initial_state(2), "before it is built"),
        (lambda: ConvLSTM1D(2, 2)(LINES, mask=np.ones((2, 4, 5), bool)), "nested mask"),
    ],
)
def test_errors_say_what_is_wrong(call: Any, message: str) -> None:
    with pytest.raises(alphorn.errors.AlphornError, match=message):
        call()
