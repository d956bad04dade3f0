"""Names: how they are made, found and written into files, as in Keras."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras as peer
import numpy as np
import pytest

import alphorn as keras
from alphorn import naming
from alphorn.layers import __all__ as LAYERS

CLASSES = [n for n in LAYERS if isinstance(getattr(keras.layers, n), type)]


@pytest.mark.parametrize("K", [keras, peer], ids=["alphorn", "keras"])
def test_automatic_names_count_each_class(K):
    peer.utils.clear_session(free_memory=False)
    L = K.layers

    class MyHTTPLayer2D(L.Layer):
        def call(self, x):
            return x

    made = [L.Dense(1), L.Dense(1), L.Dense(1, name="own"), L.Dense(1), MyHTTPLayer2D()]
    names = [layer.name for layer in made]
    assert names == ["dense", "dense_1", "own", "dense_2", "my_http_layer2d"]


def test_class_names_are_spelled_as_keras_spells_them():
    for name in CLASSES:
        if hasattr(peer.layers, name):
            theirs = peer.src.utils.naming.to_snake_case(getattr(peer.layers, name).__name__)
            assert naming.snake_case(getattr(keras.layers, name).__name__) == theirs


def test_every_layer_is_found_by_its_name():
    for name in CLASSES:
        if name not in ("Layer", "Wrapper"):
            assert naming.lookup("layers", name) is getattr(keras.layers, name)
    for kind, known in (("initializers", "he_normal"), ("regularizers", "l2")):
        assert callable(naming.resolve(kind, known))


@pytest.mark.parametrize(
    ("get", "wrong", "near"),
    [
        (keras.initializers.get, "glorot_unifrm", "glorot_uniform"),
        (keras.activations.get, "rellu", "relu"),
        (keras.constraints.get, "unit_nrm", "unit_norm"),
    ],
)
def test_a_wrong_name_is_answered_by_near_ones(get, wrong, near):
    with pytest.raises(keras.ArgumentError, match=f"(?s){wrong}.*did you mean.*{near}"):
        get(wrong)


def test_own_objects_are_found_where_they_are_registered_or_given():
    @naming.register_keras_serializable("mine")
    class Shift(keras.Layer):
        def __init__(self, by=1, **kwargs):
            super().__init__(**kwargs)
            self.by = by

        def call(self, x):
            return x + self.by

    class Other(keras.Layer):
        def call(self, x):
            return x

    config = keras.layers.serialize(Shift(3, name="s"))
    assert config["registered_name"] == "mine>Shift"
    twin = keras.layers.deserialize(config)
    assert (type(twin), twin.by, twin.name) == (Shift, 3, "s")
    config = keras.layers.serialize(Other())
    with pytest.raises(keras.FileError, match=r"custom_objects=\{'Other': Other\}"):
        keras.layers.deserialize(config)
    assert type(keras.layers.deserialize(config, {"Other": Other})) is Other
    with naming.custom_object_scope({"Other": Other}):
        assert type(keras.layers.deserialize(config)) is Other
    assert naming.get_registered_object("Other") is None


def test_plain_data_are_written_as_by_keras():
    values = [1, 2.5, "a", None, True, (1, 2), [1, (2, 3)], {"a": (1,)}, np.float32(2), slice(1, 2)]
    for value in values[:-2]:
        assert naming.serialize(value) == peer.saving.serialize_keras_object(value)
    for value in values:
        assert naming.deserialize(naming.serialize(value)) == value
    assert naming.deserialize({"class_name": "__tuple__", "items": [1, 2]}) == (1, 2)
    array = np.arange(3, dtype="int32")
    assert np.array_equal(naming.deserialize(naming.serialize(array)), array)
