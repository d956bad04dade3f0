"""EinsumDense: equations, sizes, biases and first values as in Keras; the mask goes with its axes."""

from typing import Any

import keras
import numpy as np
import pytest

import alphorn
from alphorn import layers
from promise import close

B, T, N, F = 2, 5, 3, 4
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(B, T, F)).astype("float32")
GRID = RANDOM.normal(size=(B, T, N, F)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 0, 1]], bool)


@pytest.mark.parametrize(
    ("equation", "size", "bias", "x"),
    [
        ("bf,fe->be", 3, "e", X[:, 0]),
        ("btf,fe->bte", (None, 3), "e", X),
        ("btf,fhd->bthd", (None, 2, 3), "hd", X),
        ("bthd,hde->bte", (None, 5), None, GRID),
        ("btf,ts->bsf", (3, F), "s", X),
        ("btf,tfe->bte", (T, 3), "te", X),
        ("btf,fe->bet", (3, None), "e", X),
        ("btf,te->be", 3, "e", X),
        ("ab...,bc->ac...", 3, "c", X),
        ("...f,fe->...e", 3, "e", X),
    ],
)
def test_equations_are_keras_s(equation: str, size: Any, bias: Any, x: np.ndarray) -> None:
    ours = layers.EinsumDense(equation, size, bias_axes=bias, activation="tanh")
    theirs = keras.layers.EinsumDense(equation, size, bias_axes=bias, activation="tanh")
    ours.build(x.shape)
    theirs.build(x.shape)
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    # First values: bounded by the fans.
    if ours.kernel.size > 20:
        assert close(np.abs(ours.kernel).max(), np.abs(np.asarray(theirs.kernel)).max(), 0.3)
    values = [RANDOM.normal(size=w.shape).astype("float32") for w in ours.weights]
    ours.set_weights(values)
    theirs.set_weights(values)
    assert close(ours(x), theirs(x), 1e-5)
    ours_config, their_config = ours.get_config(), theirs.get_config()
    for name in ("equation", "output_shape", "bias_axes"):
        assert ours_config[name] == their_config[name]
    again = layers.EinsumDense.from_config(ours_config)
    again.build(x.shape)
    again.set_weights(values)
    assert close(again(x), ours(x), 1e-6)


def test_dots_stand_for_any_axes() -> None:
    layer = layers.EinsumDense("...f,fe->...e", 3, bias_axes="e")
    assert layer(alphorn.Input((None, N, F))).shape == (None, None, N, 3)
    wanted = GRID @ np.asarray(layer.kernel)
    assert close(layer(GRID), wanted, 1e-5)
    out = layer(GRID, mask=MASK)
    assert (np.asarray(out.mask) == MASK).all()


@pytest.mark.parametrize("junk", [0.0, 1e3, np.nan])
def test_masked_steps_are_zero_where_time_is_summed(junk: float) -> None:
    layer = layers.EinsumDense("btf,ts->bsf", (3, F))
    out = layer(np.where(MASK[..., None], X, junk), mask=MASK)
    assert not isinstance(out, alphorn.Masked)
    wanted = np.einsum("btf,ts->bsf", np.where(MASK[..., None], X, 0), np.asarray(layer.kernel))
    assert close(out, wanted, 1e-5)
    assert layer(alphorn.Input((T, F)), mask=alphorn.Input((T,), dtype="bool")).masked == 0


def test_the_mask_goes_with_its_axes() -> None:
    turned = layers.EinsumDense("btf,fe->bet", (3, None))(X, mask=MASK)
    assert turned.mask.shape == (B, 3, T)
    assert (np.asarray(turned.mask) == MASK[:, None]).all()
    words = np.arange(N) < np.array([[[2], [1], [0], [0], [0]], [[3], [2], [1], [0], [0]]])
    summed = layers.EinsumDense("btnf,nfe->bte", (None, 2))(GRID, mask=words)
    assert (np.asarray(summed.mask) == words.any(-1)).all()


def test_softmax_over_a_masked_axis_counts_what_is_valid() -> None:
    layer = layers.EinsumDense("btf,fe->bet", (3, None), activation="softmax")
    out = np.asarray(layer(X, mask=MASK).fill(0))
    alone = np.asarray(layer(X[:1, :3]))
    assert close(out[0, :, :3], alone[0], 1e-5)
    assert not out[0, :, 3:].any()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(alphorn.MaskError, match=r"rows first[\s\S]*unmask"):
        layers.EinsumDense("btf,fe->tbe", (None, 3))(X, mask=MASK)
    with pytest.raises(alphorn.ArgumentError, match="equation"):
        layers.EinsumDense("btf->bt", 3)(X)
    with pytest.raises(alphorn.ShapeError, match="3 axes"):
        layers.EinsumDense("btf,fe->bte", (None, 3))(X[0])
    with pytest.raises(alphorn.ShapeError, match=r"kernel's axis 't'[\s\S]*Input\(\(steps"):
        layers.EinsumDense("btf,ts->bsf", (3, F))(alphorn.Input((None, F)))
    with pytest.raises(alphorn.ShapeError, match=r"axis 't'[\s\S]*5 in the input, 7"):
        layers.EinsumDense("btf,fe->bte", (7, 3))(X)
    with pytest.raises(alphorn.ArgumentError, match="bias_axes"):
        layers.EinsumDense("btf,fe->bte", (None, 3), bias_axes="x")(X)
    with pytest.raises(alphorn.ArgumentError, match="output_shape"):
        layers.EinsumDense("btf,fe->bte", 3)(X)
    with pytest.raises(alphorn.ArgumentError, match="'z' in one term only"):
        layers.EinsumDense("btf,fe->btz", (None, 3))(X)
