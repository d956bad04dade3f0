"""Lambda: config without code, and the arguments that Keras has."""

import json
import os
import subprocess
import sys

import keras as peer
import numpy as np
import pytest

import alphorn as keras
from alphorn import ArgumentError, Masked, layers, ops
from alphorn.core.masked import is_masked

X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], bool)


def doubled(x, by=2.0):
    return x * by


def closure(factor):
    def scaled(x):
        return x * factor

    return scaled


@keras.saving.register_keras_serializable("mine")
def registered(x):
    return x + 1.0


FUNCTIONS = {
    "named": doubled,
    "expression": lambda x: x - 1.0,
    "closure": closure(3.0),
    "registered": registered,
    "op": ops.tanh,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_config_gives_the_layer_again(name):
    layer = layers.Lambda(FUNCTIONS[name], name="lam")
    config = json.loads(json.dumps(layer.get_config()))
    twin = layers.Lambda.from_config(config)
    assert twin is not layer and twin.name == "lam"
    np.testing.assert_array_equal(twin(X), layer(X))
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layer(inputs))
    for copy in (keras.Model.from_config(model.get_config()), keras.models.clone_model(model)):
        np.testing.assert_array_equal(copy(X), layer(X))


def test_a_named_function_stands_in_the_config_as_in_keras():
    ours = layers.Lambda(doubled, arguments={"by": 3.0}, output_shape=(5, 3)).get_config()
    theirs = peer.layers.Lambda(doubled, arguments={"by": 3.0}, output_shape=(5, 3)).get_config()
    for name in ("arguments", "output_shape"):
        assert ours[name] == theirs[name]
    for key in ("class_name", "config"):
        assert ours["function"][key] == theirs["function"][key]
    assert ours["function"]["module"] == __name__
    there = peer.layers.Lambda.from_config(ours, custom_objects={"doubled": doubled})
    here = layers.Lambda.from_config(theirs, custom_objects={"doubled": doubled})
    np.testing.assert_array_equal(there(X), here(X))


def elsewhere(config, *lines):
    """Loads a config in another process."""
    program = "\n".join(
        [
            "import json, sys, numpy as np, alphorn as keras",
            "config = json.loads(sys.argv[1])",
            *lines,
            "print(np.asarray(layer(np.ones((1, 2), 'float32'))).tolist())",
        ]
    )
    return subprocess.run(
        [sys.executable, "-c", program, json.dumps(config)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # modules of tests as well
    )


def test_another_process_needs_to_know_the_function():
    load = "layer = keras.layers.Lambda.from_config(config"
    for function in (doubled, FUNCTIONS["expression"]):
        config = layers.Lambda(function).get_config()
        told = elsewhere(config, load + ")").stderr
        for part in ("custom_objects={", "register_keras_serializable", "safe_mode=False"):
            assert part in told
    config = layers.Lambda(doubled).get_config()
    assert elsewhere(config, load + ", safe_mode=False)").stdout.strip() == "[[2.0, 2.0]]"
    given = load + ", custom_objects={'doubled': lambda x: x * 5})"
    assert elsewhere(config, given).stdout.strip() == "[[5.0, 5.0]]"


@pytest.mark.filterwarnings("ignore")
def test_byte_code_in_a_file_of_keras_runs_only_where_the_caller_trusts_it():
    config = peer.layers.Lambda(lambda x, by=2: x * by, name="twice").get_config()
    for safe_mode in (None, True):
        with pytest.raises(ArgumentError, match=r"(?s)'twice'.*not run.*custom_objects"):
            layers.Lambda.from_config(config, safe_mode=safe_mode)
    for known in ("<lambda>", "twice"):
        layer = layers.Lambda.from_config(config, custom_objects={known: doubled})
        np.testing.assert_array_equal(layer(X), X * 2)
    layer = layers.Lambda.from_config(config, safe_mode=False)
    np.testing.assert_array_equal(layer(X), X * 2)
    factor = np.float32(3)
    config = peer.layers.Lambda(lambda x: ops.square(x) * factor).get_config()
    np.testing.assert_allclose(layers.Lambda.from_config(config, safe_mode=False)(X), X * X * 3)


def test_output_shape_arguments_and_training():
    for K in (keras, peer):
        inputs = K.Input((5, 3))
        for shape, wanted in (((7,), (None, 7)), (lambda s: (s[0], s[2], 9), (None, 3, 9))):
            layer = K.layers.Lambda(lambda x: x, output_shape=shape)
            assert tuple(layer.compute_output_shape((None, 5, 3))) == wanted
            assert layer(inputs).shape == wanted

        def trains(x, by, training=None):
            return x * (by if training else 0.0)

        layer = K.layers.Lambda(trains, arguments={"by": 3.0})
        np.testing.assert_array_equal(layer(X, training=True), X * 3)
        np.testing.assert_array_equal(layer(X, training=False), X * 0)
    with pytest.raises(ArgumentError, match="a function"):
        layers.Lambda(3)


def test_masks_by_argument_and_by_function():
    given = Masked(X, MASK)
    pooled = layers.Lambda(lambda x: ops.mean(x, axis=1))(given)
    assert not is_masked(pooled)
    np.testing.assert_allclose(pooled[0], X[0, :3].mean(0), atol=1e-6)

    def first_two(x, mask=None):
        assert not is_masked(x)
        return x[:, :2]

    out = layers.Lambda(first_two, mask=lambda x, mask: mask[:, :2])(given)
    np.testing.assert_array_equal(out.mask, MASK[:, :2])
    fixed = np.array([[True, False], [True, True]])
    np.testing.assert_array_equal(layers.Lambda(first_two, mask=fixed)(given).mask, fixed)

    def pair(xs, mask=None):
        assert [m is None for m in mask] == [False, True]
        return xs[0] + xs[1]

    assert not is_masked(layers.Lambda(pair)([given, X]))
