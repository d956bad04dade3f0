"""The installed Keras as the oracle: unmasked values, gradients, shapes, weights of every row."""

from typing import Any

import keras
import numpy as np
import pytest

import alphorn
from cases import LAYERS, Case
from rows import TIME, built, close, facts_of, our_facts, plain_data, symbols, without_draws

ORACLE = [c for c in LAYERS if c.oracle]


def same(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float) -> None:
    """Asserts that all agree; what is 0 but for rounding, beside the largest, is 0 in both."""
    assert len(ours) == len(theirs)
    rounding = tolerance * max((np.abs(b).max(initial=0) for b in theirs), default=0)
    for a, b in zip(ours, theirs, strict=True):
        nothing = a.shape == b.shape and max(np.abs(x).max(initial=0) for x in (a, b)) <= rounding
        assert nothing or close(a, b, tolerance)


@pytest.mark.parametrize("case", ORACLE, ids=str)
def test_values_and_gradients_are_keras_s(case: Case) -> None:
    ours = our_facts(case)
    theirs = facts_of(case, built(case, keras), plain_data(case))
    same(ours.outputs, theirs.outputs, case.tolerance)
    same(ours.by_weights, theirs.by_weights, case.tolerance)
    same(ours.by_inputs, theirs.by_inputs, case.tolerance)


# Where Keras's own masks do what a row alone would give.
MASKED = """
LSTM LSTM-sequences GRU GRU-before SimpleRNN RNN Bidirectional Bidirectional-sum
LayerNormalization Attention AdditiveAttention GlobalAveragePooling1D
""".split()
MASK = np.arange(TIME) < np.array([[6], [2], [4]])


@pytest.mark.parametrize("case", [c for c in LAYERS if str(c) in MASKED], ids=str)
def test_masked_values_and_gradients_are_keras_s(case: Case) -> None:
    ours, theirs = (
        facts_of(case, built(case, namespace), plain_data(case), mask=MASK)
        for namespace in (alphorn, keras)
    )
    same(ours.outputs, theirs.outputs, case.tolerance)
    same(ours.by_weights, theirs.by_weights, case.tolerance)
    same(ours.by_inputs, theirs.by_inputs, case.tolerance)


@pytest.mark.parametrize("mask", [None, MASK], ids=["plain", "masked"])
def test_batch_normalization_trains_as_keras_s(mask: np.ndarray | None) -> None:
    case = next(c for c in LAYERS if c.name == "BatchNormalization")
    ours, theirs = (
        facts_of(case, built(case, namespace), plain_data(case), mask=mask, training=True)
        for namespace in (alphorn, keras)
    )
    same(ours.outputs, theirs.outputs, 1e-5)
    same(ours.by_weights, theirs.by_weights, 1e-5)
    same(ours.by_inputs, theirs.by_inputs, 1e-5)
    same(ours.state, theirs.state, 1e-5)


def shapes(tree: Any) -> list[tuple]:
    return [tuple(x.shape) for x in (tree if isinstance(tree, list | tuple) else [tree])]


@pytest.mark.parametrize("case", ORACLE, ids=str)
def test_shapes_and_weights_are_keras_s(case: Case) -> None:
    keras.utils.clear_session(free_memory=False)  # automatic names count from 0 in both
    found = []
    for namespace in (alphorn, keras):
        with without_draws(namespace):
            layer = case.make(namespace.layers)
            args = symbols(case, namespace)
            out = layer(*args)
        given = [[x.shape for x in a] if isinstance(a, list) else a.shape for a in args]
        declared = layer.compute_output_shape(*given)
        names = [(w.name, w.path, tuple(w.shape)) for w in layer.weights]
        trainable = [w.path for w in layer.trainable_weights]
        found.append((shapes(out), tuple(declared), names, trainable))
    assert found[0] == found[1]
