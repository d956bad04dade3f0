"""What layers demand of their inputs: the same inputs pass and fail as in Keras."""

from typing import Any

import keras
import numpy as np
import pytest

import alphorn
from alphorn import layers
from alphorn.errors import ShapeError

SPECS: list[dict[str, Any]] = [
    {},
    {"ndim": 2},
    {"min_ndim": 3},
    {"max_ndim": 2},
    {"min_ndim": 2, "axes": {-1: 4}},
    {"axes": {1: 3, -1: None}},
    {"axes": {2: 4}},
    {"shape": (None, 4)},
    {"shape": (2, 3, 4)},
]
SHAPES = [(2,), (2, 1), (2, 3), (2, 4), (2, 3, 1), (2, 3, 4), (3, 3, 4), (2, 3, 4, 4)]


def accepts(namespace: Any, spec: dict[str, Any], shape: tuple[int, ...]) -> bool:
    class Open(namespace.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.input_spec = namespace.InputSpec(**spec)

        def call(self, x: Any) -> Any:
            return x

    try:
        Open()(np.zeros(shape, "float32"))
    except (ValueError, IndexError):  # Keras's own, where an axis is missing
        return False
    return True


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_what_keras_accepts_is_accepted(spec: dict[str, Any]) -> None:
    for shape in SHAPES:
        assert accepts(alphorn, spec, shape) == accepts(keras, spec, shape), shape
    ours, theirs = alphorn.InputSpec(**spec), keras.InputSpec(**spec)
    assert ours.get_config() == theirs.get_config()
    assert alphorn.InputSpec.from_config(ours.get_config()).get_config() == ours.get_config()


def test_a_last_axis_of_one_may_come_and_go() -> None:
    flat = {"shape": (None, 1), "allow_last_axis_squeeze": True}
    wide = {"shape": (None, 3), "allow_last_axis_squeeze": True}
    assert [s for s in SHAPES if accepts(alphorn, flat, s)] == [(2,), (2, 1)]
    assert [s for s in SHAPES if accepts(alphorn, wide, s)] == [(2, 3), (2, 3, 1)]
    for spec in (flat, wide):
        assert all(accepts(keras, spec, s) for s in SHAPES if accepts(alphorn, spec, s))


def test_several_inputs_have_several_specs() -> None:
    class Pair(alphorn.Layer):
        def __init__(self) -> None:
            super().__init__()
            left = alphorn.InputSpec(ndim=2, name="left")
            self.input_spec = [left, alphorn.InputSpec(dtype="int32", optional=True)]

        def call(self, pair: Any) -> Any:
            return pair[0]

    a, ids = np.zeros((2, 3), "float32"), np.zeros((2,), "int32")
    pair = Pair()
    assert pair([a, ids]).shape == (2, 3)
    assert pair([a, None]).shape == (2, 3)
    with pytest.raises(ShapeError, match=r"'left'\s.*\(2, 3, 1\)\s.*2 axes"):
        pair([a[..., None], ids])
    with pytest.raises(ShapeError, match=r"type float32\s.*type int32"):
        pair([a, a])
    with pytest.raises(ShapeError, match=r"1 inputs\s.*2 inputs"):
        pair([a])


BUILT = {
    "Dense": lambda: layers.Dense(2),
    "Conv1D": lambda: layers.Conv1D(2, 3),
    "LSTM": lambda: layers.LSTM(2),
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "LayerNormalization": lambda: layers.LayerNormalization(),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_built_layer_names_data_of_another_size(name: str) -> None:
    layer = BUILT[name]()
    layer.build((None, 6, 4))
    assert layer(alphorn.Input((6, 4))).shape[0] is None
    inputs = [
        np.zeros((2, 6, 5), "float32"),
        np.zeros((2, 6, 4, 5), "float32"),
        alphorn.Input((6, 5)),
        alphorn.Masked(np.zeros((2, 6, 5), "float32"), np.ones((2, 6), bool)),
    ]
    for x in inputs:
        shape = str(tuple(x.shape)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ShapeError, match=rf"{name} '.*\s.*{shape}\s.*size 4 on axis -?\d"):
            layer(x)
