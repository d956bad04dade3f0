"""Sequential, functional and subclassed models: what they are made of, what they say of themselves."""

from typing import Any

import jax
import keras
import numpy as np
import pytest

import alphorn
from alphorn.core.masked import Masked
from alphorn.errors import ArgumentError, ShapeError, StateError
from alphorn.layers import (
    LSTM,
    Add,
    Dense,
    Embedding,
)
from nets import (
    FEATURES,
    IDS,
    LABELS,
    WORDS,
    X,
    Y,
    compiled,
    forked,
    gap,
    mlp,
    rnn,
    start,
)

BOTH = pytest.mark.parametrize("K", [alphorn, keras], ids=["alphorn", "keras"])


@BOTH
def test_a_sequential_grows_and_shrinks(K):
    model = K.Sequential(name="stack")
    assert (model.name, model.layers, model.built) == ("stack", [], False)
    model.add(K.layers.Dense(4, input_shape=(FEATURES,)))
    model.add(K.layers.Dense(2))
    assert (model.input_shape, model.output_shape) == ((None, 3), (None, 2))
    model.pop()
    assert (model.output_shape, len(model.layers), model.built) == ((None, 4), 1, True)
    model.add(K.layers.Dense(5))
    assert [w.shape for w in model.get_weights()] == [(3, 4), (4,), (4, 5), (5,)]
    assert np.asarray(model(X)).shape == (10, 5)


@BOTH
def test_a_sequential_begins_with_an_input_or_is_built_by_data(K):
    first = K.Sequential([K.Input((FEATURES,)), K.layers.Dense(2)])
    assert first.built and len(first.layers) == 1
    later = K.Sequential([K.layers.Dense(4), K.layers.Dense(2)])
    assert not later.built
    later(X)
    assert later.built
    assert [w.shape for w in later.get_weights()] == [(3, 4), (4,), (4, 2), (2,)]
    declared = K.Sequential([K.layers.Dense(4), K.layers.Dense(2)])
    declared.build((None, FEATURES))
    assert (declared.input_shape, declared.output_shape) == ((None, 3), (None, 2))


def test_data_build_a_sequential_for_any_batch_and_any_length():
    model = alphorn.Sequential([Embedding(WORDS, 4, mask_zero=True), LSTM(3), Dense(1)])
    model.compile("sgd", "mse")
    model.fit(IDS[:8], Y[:8], batch_size=4, verbose=0)
    assert (model.input_shape[0], model.output_shape) == (None, (None, 1))
    assert model.predict(IDS[:3, :4], verbose=0).shape == (3, 1)


def test_old_ways_to_say_the_input():
    for options in ({"input_dim": 3}, {"input_shape": (3,)}, {"batch_input_shape": (None, 3)}):
        assert alphorn.Sequential([Dense(4, **options)]).output_shape == (None, 4)
    model = alphorn.Sequential([Embedding(WORDS, 2, input_length=6), Dense(1)])
    model(IDS)
    assert model.output_shape[1:] == (6, 1)


def test_a_sequential_refuses_what_has_no_place():
    model = alphorn.Sequential([Dense(3, name="a")])
    with pytest.raises(ArgumentError, match="two layers have one name"):
        model.add(Dense(3, name="a"))
    with pytest.raises(ArgumentError, match="an Input after layers"):
        model.add(alphorn.Input((3,)))
    with pytest.raises(ArgumentError, match="a layer, e"):
        model.add("dense")
    with pytest.raises(ArgumentError, match="no layers"):
        alphorn.Sequential().pop()


@BOTH
def test_shared_layers_and_models_as_layers(K):
    inner = mlp(K)
    a, b = K.Input((FEATURES,)), K.Input((FEATURES,))
    shared = K.layers.Dense(2)
    summed = K.layers.Add()([shared(inner(a)), shared(inner(b))])
    model = K.Model([a, b], summed)
    assert model.count_params() == inner.count_params() + shared.count_params()
    assert inner in model.layers
    assert len(model.layers) == 5
    model.set_weights(start(model))
    doubled = model.predict([X, X], verbose=0)
    single = K.Model(a, shared(inner(a))).predict(X, verbose=0)
    assert gap(doubled, 2 * single) < 1e-6


@BOTH
def test_dicts_in_and_out(K):
    model = forked(K, names=True)
    model.set_weights(start(model))
    out = model({"a": X, "b": X[::-1].copy()})
    assert list(out) == ["u", "v"]
    lists = K.Model(list(model.input.values()), list(model.output.values()))
    assert gap(np.asarray(out["u"]), np.asarray(lists([X, X[::-1].copy()])[0])) < 1e-6


def test_inputs_go_by_name_too():
    model = forked(alphorn)
    by_name = model.predict({"b": X[::-1].copy(), "a": X}, verbose=0)
    assert gap(by_name, model.predict([X, X[::-1].copy()], verbose=0)) == 0
    assert model.input_names == ["a", "b"]
    assert model.output_names == ["p", "q"]


def test_get_layer_by_name_and_place():
    model = mlp(alphorn)
    assert model.get_layer("hidden") is model.get_layer(index=1) is model.layers[1]
    assert model.get_layer(index=-1).name == "out"
    with pytest.raises(ArgumentError, match=r"'hiden'\n.*one of x, hidden, out"):
        model.get_layer("hiden")
    with pytest.raises(ArgumentError, match="index 7"):
        model.get_layer(index=7)
    with pytest.raises(ArgumentError, match="a name or an index"):
        model.get_layer()
    with pytest.raises(ArgumentError, match="a name or an index"):
        model.get_layer("hidden", 1)


def test_a_clone_has_the_layers_and_weights_of_its_own():
    model = mlp(alphorn)
    clone = alphorn.models.clone_model(model)
    assert [layer.name for layer in clone.layers] == [layer.name for layer in model.layers]
    clone.set_weights(start(model))
    assert gap(clone.get_weights()[0], model.get_weights()[0]) > 1e-3
    x = alphorn.Input((FEATURES,))
    assert alphorn.models.clone_model(model, input_tensors=x).input is x
    narrow = alphorn.models.clone_model(
        model,
        clone_function=lambda layer: (
            Dense(2, name="hidden")
            if layer.name == "hidden"
            else type(layer).from_config(layer.get_config())
        ),
    )
    assert narrow.get_layer("hidden").kernel.shape == (FEATURES, 2)


@BOTH
@pytest.mark.parametrize("built", [True, False])
def test_a_clone_of_a_sequential_is_one(K, built):
    model = K.Sequential([K.layers.Dense(4, name="a"), K.layers.Dense(2, name="b")], name="stack")
    if built:
        model(X)
    clone = K.models.clone_model(model)
    assert type(clone) is K.Sequential
    assert clone.built is built
    assert [layer.name for layer in clone.layers] == ["a", "b"]
    assert clone.layers[0] is not model.layers[0]
    assert np.asarray(clone(X)).shape == (10, 2)


def test_config_makes_the_model_again():
    for model in (mlp(alphorn), rnn(alphorn), forked(alphorn), forked(alphorn, True)):
        again = type(model).from_config(model.get_config())
        again.set_weights(start(model))
        model.set_weights(start(model))
        data = (
            IDS
            if len(model.input_names) == 1 and model.input_shape[1] is None
            else X
            if len(model.input_names) == 1
            else {"a": X, "b": X}
        )
        expected, found = (jax.tree.leaves(m.predict(data, verbose=0)) for m in (model, again))
        assert gap(found, expected) == 0


class Residual(alphorn.Model):
    """Layers in lists and dicts."""

    def __init__(self, width=4):
        super().__init__()
        self.stack = [Dense(width, "tanh"), [Dense(width, "tanh")]]
        self.heads = {"main": Dense(1)}

    def call(self, inputs, training=False):
        first, (second,) = self.stack
        hidden = first(inputs)
        return self.heads["main"](hidden + second(hidden))


def test_layers_in_lists_and_dicts_are_trained_as_in_keras():
    class Theirs(keras.Model):
        def __init__(self, width=4):
            super().__init__()
            self.stack = [keras.layers.Dense(width, "tanh"), [keras.layers.Dense(width, "tanh")]]
            self.heads = {"main": keras.layers.Dense(1)}

        call = Residual.call

    histories, weights = [], []
    for model in (Residual(), Theirs()):
        model(X)
        assert len(model.layers) == 3
        model.set_weights(start(model))
        model.compile("adam", "mse")
        histories.append(model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history)
        weights.append(model.get_weights())
    assert gap(histories[0]["loss"], histories[1]["loss"]) < 1e-5
    assert gap(*weights) < 1e-5


def test_a_model_of_what_a_layer_inside_gives():
    model = rnn(alphorn)
    model.set_weights(start(model))
    states = alphorn.Model(model.input, model.get_layer(index=2).output)
    vectors = alphorn.Model(model.inputs, [model.get_layer(index=1).output, model.output])
    whole = model.predict(IDS, verbose=0)
    found, end = vectors.predict(IDS, verbose=0)
    assert gap(end, whole) == 0
    assert not found[IDS == 0].any()
    table = model.get_layer(index=1).get_weights()[0]
    assert gap(found[IDS != 0], table[IDS[IDS != 0]]) == 0
    kernel, bias = model.layers[-1].get_weights()
    logits = states.predict(IDS, verbose=0) @ kernel + bias
    assert gap(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), whole) < 1e-5


def test_models_in_models_are_cloned_layer_by_layer():
    inner = mlp(alphorn)
    x = alphorn.Input((FEATURES,))
    outer = alphorn.Model(x, Dense(1)(inner(x)))
    for recursive in (False, True):
        clone = alphorn.models.clone_model(outer, recursive=recursive)
        assert len(clone.weights) == len(outer.weights)
        assert not {id(w) for w in clone.weights} & {id(w) for w in outer.weights}
        clone.set_weights(outer.get_weights())
        assert gap(clone.predict(X, verbose=0), outer.predict(X, verbose=0)) == 0


@pytest.mark.parametrize(
    "make", [lambda: alphorn.Sequential([Dense(2)]), Residual, lambda: Dense(2)]
)
def test_what_is_not_built_has_no_weights_to_give(make, tmp_path):
    thing = make()
    calls = [thing.get_weights, thing.count_params, lambda: thing.set_weights([X])]
    if isinstance(thing, alphorn.Model):
        calls.append(lambda: thing.save_weights(tmp_path / "model.weights.h5"))
    for call in calls:
        with pytest.raises(StateError, match=r"not built[\s\S]*build\(input_shape\)"):
            call()
    thing.build((None, FEATURES)) if not isinstance(thing, Residual) else thing(X)
    assert thing.count_params() > 0


def test_graphs_that_cannot_be():
    a, b = alphorn.Input((3,), name="a"), alphorn.Input((3,), name="b")
    with pytest.raises(ArgumentError, match=r"not among `inputs`[\s\S]*'b' of shape \(None, 3\)"):
        alphorn.Model(a, Add()([a, b]))
    with pytest.raises(ArgumentError, match=r"two layers have one name[\s\S]*'d'"):
        alphorn.Model(a, Dense(3, name="d")(Dense(3, name="d")(a)))
    with pytest.raises(ArgumentError, match="inputs without outputs"):
        alphorn.Model(a)
    with pytest.raises(ArgumentError, match="what Input"):
        alphorn.Model(X, Dense(1)(a))
    with pytest.raises(StateError, match=r"no call\(\)"):
        alphorn.Model()(X)
    with pytest.raises(StateError, match="has no inputs"):
        _ = Residual().inputs


def test_a_model_checks_what_comes_in():
    model = mlp(alphorn)
    for data in (X[:, :2], X[:, None]):
        shape = str((None, *data.shape[1:])).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ShapeError, match=rf"input 'x'[\s\S]*{shape}[\s\S]*\(None, 3\)"):
            model.predict(data, verbose=0)
        with pytest.raises(ShapeError, match=r"input 'x'[\s\S]*\(None, 3\)"):
            model(data)
    assert model.predict(X.astype("float64"), verbose=0).dtype == np.float32


def test_a_mask_goes_through_models_as_layers():
    inner = alphorn.Sequential([alphorn.Input((None, 4)), Dense(3)])
    x = alphorn.Input((None,), dtype="int32")
    model = alphorn.Model(x, inner(Embedding(WORDS, 4, mask_zero=True)(x)))
    out = model(IDS)
    assert isinstance(out, Masked)
    assert (np.asarray(out.mask) == (IDS != 0)).all()


def test_a_long_chain_of_layers():
    x = h = alphorn.Input((2,))
    for _ in range(300):
        h = alphorn.layers.Identity()(h)
    model = alphorn.Model(x, h)
    assert len(model.layers) == 301
    assert model(X[:, :2]).shape == (10, 2)


def test_labels_may_have_an_axis_of_one():
    model = compiled(mlp, optimizer="sgd", loss="sparse_categorical_crossentropy")
    flat = model.evaluate(X, LABELS, verbose=0)
    assert model.evaluate(X, LABELS[:, None], verbose=0) == pytest.approx(flat, rel=1e-6)


def test_annotated_attributes_of_models_are_not_their_arguments():
    class Stack(alphorn.Sequential):
        gate: Any = None

    class Part(alphorn.Model):
        size: int = 3

    x = alphorn.Input((3,))
    assert len(Stack([Dense(2)]).layers) == 1
    part = Part(x, Dense(2)(x))
    assert part.size == 3
    assert part(np.ones((1, 3))).shape == (1, 2)
