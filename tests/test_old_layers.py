"""Layers that older Keras had: the numbers are those of today's layers with the same weights."""

from typing import Any

import numpy as np
import pytest

import alphorn
from alphorn import layers
from promise import close

B, T, F, U = 3, 6, 4, 5
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(B, T, F)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1]], bool)


def converted(kernel: np.ndarray, gates: int) -> np.ndarray:
    """Keras 2's own way from a kernel for cuDNN to one of LSTM or GRU."""
    parts = np.hsplit(kernel, gates)
    return np.hstack([k.T.reshape(k.shape, order="F") for k in parts])


OPTIONS: list[dict[str, Any]] = [
    {},
    {"return_sequences": True, "return_state": True},
    {"return_sequences": True, "go_backwards": True},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("name", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_weights_of_keras_2_give_what_they_gave(name: str, gates: int, options: dict) -> None:
    old, new = (getattr(layers, f"{kind}{name}")(U, **options) for kind in ("CuDNN", ""))
    old.build((None, None, F))
    new.build((None, None, F))
    assert [w.shape for w in old.weights] == [(F, gates * U), (U, gates * U), (2 * gates * U,)]
    kernel, recurrent, bias = (RANDOM.normal(size=w.shape) * 0.5 for w in old.weights)
    old.set_weights([kernel, recurrent, bias])
    both = bias.reshape(2, -1)
    new.set_weights(
        [
            converted(kernel, gates),
            converted(recurrent, gates),
            both if name == "GRU" else both.sum(0),
        ]
    )
    for mask in (None, MASK):
        found, wanted = old(X, mask=mask), new(X, mask=mask)
        pairs = zip(found, wanted, strict=True) if "return_state" in options else [(found, wanted)]
        assert all(close(a, b, 1e-5) for a, b in pairs)
    again = type(old).from_config(old.get_config())
    assert again.get_config() == old.get_config()


def test_cudnn_layers_begin_and_run_as_in_keras_2() -> None:
    layer = layers.CuDNNLSTM(U)
    layer.build((None, None, F))
    bias = layer.get_weights()[2]
    assert bias.tolist() == [0.0] * 5 * U + [1.0] * U + [0.0] * 2 * U
    assert not layers.CuDNNLSTM(U, unit_forget_bias=False)(X[:, :0]).any()
    inputs = alphorn.Input((None, F), batch_size=B)
    model = alphorn.Model(inputs, layers.CuDNNGRU(U, stateful=True)(inputs))
    first, second = (np.asarray(model(X)) for _ in range(2))
    assert (first != second).any()
    both = layers.Bidirectional(layers.CuDNNLSTM(U))
    assert both(X).shape == (B, 2 * U)
    with pytest.raises(alphorn.UnexpectedArgumentError, match="activation"):
        layers.CuDNNLSTM(U, activation="relu")


def test_dense_by_its_first_names() -> None:
    layer = layers.TimeDistributedDense(
        output_dim=3, init="he_normal", W_regularizer="l2", b_constraint="non_neg", input_dim=F
    )
    out = layer(X, mask=MASK)
    assert (np.asarray(out.mask) == MASK).all()
    kernel, bias = layer.get_weights()
    assert close(np.asarray(out.data)[MASK], (X @ kernel + bias)[MASK], 1e-5)
    assert layer.kernel_regularizer is not None
    assert layer.losses
    again = layers.TimeDistributedDense.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    with pytest.raises(alphorn.ShapeError, match="Dense takes data of any rank"):
        layers.TimeDistributedDense(3)(X[:, 0])


def test_a_relu_with_a_threshold() -> None:
    x = np.array([[-1.0, 0.5, 1.0, 1.5]], "float32")
    assert layers.ThresholdedReLU()(x).tolist() == [[0.0, 0.0, 0.0, 1.5]]
    assert layers.ThresholdedReLU(theta=0.2)(x).tolist() == [[0.0, 0.5, 1.0, 1.5]]
    with pytest.raises(alphorn.ArgumentError, match="theta"):
        layers.ThresholdedReLU(-1.0)
