"""A look inside models: K.function, Model(inputs, outputs), capture, and what layers tell."""

import keras
import numpy as np
import pytest

import alphorn
from alphorn import backend as K
from alphorn import layers

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 4)).astype("float32")
STEPS = RANDOM.normal(size=(2, 5, 3)).astype("float32")
MASK = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], bool)


def nested() -> tuple:
    """Returns an inner model, and an outer one that calls it."""
    inner = alphorn.Sequential(
        [alphorn.Input((4,)), layers.Dense(3, "tanh", name="a"), layers.Dense(2, name="b")],
        name="inner",
    )
    inputs = alphorn.Input((4,), name="x")
    middle = layers.Dense(4, "tanh", name="before")(inputs)
    return inner, alphorn.Model(inputs, layers.Dense(1, name="after")(inner(middle)))


def test_a_function_gives_what_a_model_gives_and_what_keras_gives() -> None:
    _, model = nested()
    wanted = [layer.output for layer in model.layers[1:2]] + [model.output]
    by_function = K.function([model.input], wanted)([X])
    by_model = alphorn.Model(model.input, wanted).predict(X, verbose=0)
    with_mask = K.function(model.input, wanted)(X)
    for a, b, c in zip(by_function, by_model, with_mask, strict=True):
        assert isinstance(a, np.ndarray)
        np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_array_equal(a, c)
    kernel, bias = model.get_layer("before").get_weights()
    np.testing.assert_allclose(by_function[0], np.tanh(X @ kernel + bias), rtol=1e-5)


def test_outputs_inside_inner_models() -> None:
    inner, model = nested()
    hidden = inner.get_layer("a").output
    before = K.function([model.input], [model.get_layer("before").output])([X])[0]
    kernel, bias = inner.get_layer("a").get_weights()
    expected = np.tanh(before @ kernel + bias)
    np.testing.assert_allclose(K.function([model.input], [hidden])([X])[0], expected, rtol=1e-5)
    again = alphorn.Model(model.input, hidden).predict(X, verbose=0)
    np.testing.assert_allclose(again, expected, rtol=1e-5)
    caught = model.capture(X, layers=["inner/a", inner.get_layer("b"), "after"])
    np.testing.assert_allclose(caught["inner/a"], expected, rtol=1e-5)
    np.testing.assert_allclose(caught["after"], model.predict(X, verbose=0), rtol=1e-5)
    assert list(caught) == ["inner/a", "b", "after"]
    # The look inside left no calls behind.
    assert inner.get_layer("a").get_output_at(0) is hidden
    with pytest.raises(alphorn.ArgumentError, match="1 calls"):
        inner.get_layer("a").get_output_at(1)


def test_an_inner_model_that_is_called_twice_could_be_either() -> None:
    inner, model = nested()
    both = alphorn.Model(model.input, inner(model.get_layer("before").output) + inner(model.input))
    with pytest.raises(alphorn.ArgumentError, match=r"called 3 times[\s\S]*capture"):
        K.function([both.input], [inner.get_layer("a").output])
    caught = both.capture(X, layers=["a"])["a"]
    assert [c.shape for c in caught] == [(3, 3), (3, 3)]


def test_the_learning_phase_is_an_input() -> None:
    inputs = alphorn.Input((4,))
    model = alphorn.Model(inputs, layers.Dropout(0.5)(inputs))
    run = K.function([model.input, K.learning_phase()], [model.output])
    np.testing.assert_array_equal(run([X, 0])[0], X)
    first, second = run([X, 1])[0], run([X, True])[0]
    assert (first == 0).any() and (first != second).any()
    with K.learning_phase_scope(1):
        assert K.learning_phase() == 1
        assert (K.function([model.input], [model.output])([X])[0] == 0).any()


def test_a_look_changes_nothing() -> None:
    model = alphorn.Sequential(
        [
            alphorn.Input((5, 3), batch_size=2),
            layers.BatchNormalization(),
            layers.LSTM(2, stateful=True),
        ]
    )
    run = K.function([model.input, K.learning_phase()], [model.output])
    before = [v.numpy() for v in model.variables]
    first, second = (run([STEPS, 1])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    model.capture(STEPS, training=True)
    model.run_eagerly = True
    model.programs.clear()
    model.capture(STEPS, training=True)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_function_is_compiled_once_for_each_shape() -> None:
    traced = []

    def watched(x):
        traced.append(x.shape)
        return x * 2

    inputs = alphorn.Input((4,))
    run = K.function([inputs], [layers.Lambda(watched)(inputs)])
    traced.clear()
    for rows in (3, 3, 2, 3):
        run([X[:rows]])
    assert traced == [(3, 4), (2, 4)]


def test_updates_and_structures() -> None:
    inputs = alphorn.Input((4,))
    total = K.variable(1.0)
    run = K.function(
        {"x": inputs}, {"twice": inputs * 2, "kept": total}, [K.update_add(total, K.sum(inputs))]
    )
    for seen in (1.0, 1.0 + X.sum()):
        found = run({"x": X})
        np.testing.assert_allclose(found["kept"], seen, rtol=1e-5)
        np.testing.assert_allclose(found["twice"], 2 * X)
    np.testing.assert_allclose(K.get_value(total), 1 + 2 * X.sum(), rtol=1e-5)


def test_an_update_that_has_been_made_is_refused() -> None:
    inputs, count = alphorn.Input((4,)), K.variable(0.0)
    run = K.function([inputs], [inputs * 2], [(count, lambda: count + 1)])
    run([X]), run([X])
    assert count.numpy() == 2
    with pytest.raises(alphorn.ArgumentError, match="lambda: variable"):
        K.function([inputs], [inputs * 2], [K.update_add(count, 1)])


def test_a_function_with_wrong_data_says_which() -> None:
    inputs = alphorn.Input((4,))
    run = K.function([inputs], [inputs * 2])
    with pytest.raises(alphorn.DataError, match="2 inputs"):
        run([X, X])
    with pytest.raises(alphorn.ShapeError, match="4"):
        run([X[:, :3]])
    with pytest.raises(alphorn.ArgumentError, match="not among `inputs`"):
        K.function([alphorn.Input((4,))], [inputs * 2])


def test_masks_go_in_and_plain_arrays_come_out() -> None:
    inputs = alphorn.Input((None, 3))
    h = layers.Masking()(inputs)
    model = alphorn.Model(inputs, [layers.LSTM(2, return_sequences=True)(h), K.mean(h, axis=1)])
    run = K.function([inputs], [h * 1, *model.outputs])
    data = np.where(MASK[..., None], STEPS, 0)
    steps, states, mean = run([data])
    np.testing.assert_allclose(mean[0], STEPS[0, :2].mean(0), rtol=1e-5)
    assert not steps[~MASK].any() and states[~MASK].any()  # a recurrent layer repeats
    alone = alphorn.Model(inputs, model.outputs[0]).predict(data, verbose=0)
    np.testing.assert_allclose(states, alone, rtol=1e-5)
    rows = [STEPS[0, :2], STEPS[1, :4]]
    np.testing.assert_allclose(run([rows])[2], mean, rtol=1e-5)
    junk = alphorn.Masked(np.where(MASK[..., None], STEPS, np.nan), MASK)
    for a, b in zip(run([junk]), (steps, states, mean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_gradients_of_symbols() -> None:
    _, model = nested()
    hidden, weight = model.get_layer("before").output, model.get_layer("after").kernel
    loss = K.sum(K.square(model.output))
    found = K.gradients(loss, [model.input, hidden, weight])
    run = K.function([model.input], [*found, *K.gradients(loss, model.trainable_weights)])
    by_input, by_hidden, by_weight, *rest = run([X])
    assert by_hidden.shape == (3, 4)
    peer = alphorn.value_and_grad(lambda: K.sum(K.square(model(X))), model.trainable_variables)()[1]
    for a, b in zip(rest, peer, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(by_weight, rest[-2], rtol=1e-5)
    kernel = model.get_layer("before").kernel.numpy()
    h = K.function([model.input], [hidden])([X])[0]
    np.testing.assert_allclose(by_input, (by_hidden * (1 - h**2)) @ kernel.T, rtol=1e-4)
    with pytest.raises(alphorn.ArgumentError, match="on the way"):
        K.gradients(loss, [alphorn.Input((4,))])
    with pytest.raises(alphorn.ArgumentError, match="value_and_grad"):
        K.gradients(X, [weight])


def test_gradients_skip_padding() -> None:
    inputs = alphorn.Input((None, 3))
    h = layers.Masking()(inputs)
    gradient = K.gradients(K.sum(h * h), h)[0]
    data = np.where(MASK[..., None], STEPS, 0)
    np.testing.assert_allclose(K.function([inputs], [gradient])([data])[0], 2 * data, rtol=1e-6)


class Own(alphorn.Model):
    """A model without a graph."""

    def __init__(self, **options):
        super().__init__(**options)
        self.embed = layers.Embedding(10, 4, mask_zero=True, name="embed")
        self.lstm = layers.LSTM(3, name="lstm")
        self.out = layers.Dense(1, name="out")

    def call(self, x):
        h = self.lstm(self.embed(x))
        return self.out(h) + self.out(h * 2)


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
def test_capture_of_a_model_of_ones_own(eager: bool) -> None:
    model = Own()
    model.compile(run_eagerly=eager)
    ids = [[1, 2, 3], [4]]
    found = model.capture(ids)
    assert set(found) == {"embed", "lstm", "out"}
    vectors = model.embed.embeddings.numpy()
    np.testing.assert_allclose(found["embed"][0, :3], vectors[[1, 2, 3]])
    assert not found["embed"][1, 1:].any()
    once, twice = found["out"]
    np.testing.assert_allclose(once + twice, model.predict(ids, verbose=0), rtol=1e-5)
    with pytest.raises(alphorn.ArgumentError, match=r"'dense'[\s\S]*embed, lstm, out"):
        model.capture(ids, layers=["dense"])
    with pytest.raises(alphorn.ArgumentError, match="inside a loop"):
        model.capture(ids, layers=[model.lstm.cell])


def test_what_layers_tell_of_their_calls() -> None:
    dense = layers.Dense(2)
    a, b = alphorn.Input((4,)), alphorn.Input((None, 4))
    first, second = dense(a), dense(b)
    assert dense.input is a and dense.output is first
    assert dense.get_input_at(1) is b and dense.get_output_at(1) is second
    assert dense.input_shape == (None, 4) and dense.output_shape == (None, 2)
    assert dense.get_output_shape_at(1) == (None, None, 2)
    assert dense.get_input_shape_at(0) == (None, 4)

    class Sized(alphorn.Layer):
        def __init__(self):
            super().__init__()
            self.output_shape = "mine"

        def call(self, x):
            return x

    assert Sized().output_shape == "mine"


def test_losses_of_symbols_train_as_in_keras() -> None:
    inputs = alphorn.Input((4,))
    dense = layers.Dense(4, kernel_initializer="ones")
    outputs = dense(inputs)
    model = alphorn.Model(inputs, outputs)
    model.add_loss(K.mean(K.square(outputs - inputs)))
    model.compile(alphorn.optimizers.SGD(0.1))
    figure = model.evaluate(X, verbose=0)
    rows = np.repeat(X.sum(1, keepdims=True), 4, 1)
    np.testing.assert_allclose(figure, np.mean((rows - X) ** 2), rtol=1e-5)
    for again in (
        alphorn.Model.from_config(model.get_config()),
        alphorn.models.clone_model(model),
    ):
        again.compile("sgd")
        np.testing.assert_allclose(again.evaluate(X, verbose=0), figure, rtol=1e-5)
    history = model.fit(X, epochs=3, verbose=0).history["loss"]
    assert history[0] > history[1] > history[2]

    class Added(keras.layers.Layer):
        def call(self, pair):
            self.add_loss(keras.ops.mean(keras.ops.square(pair[0] - pair[1])))
            return pair[0]

    peer_inputs = keras.Input((4,))
    peer_dense = keras.layers.Dense(4, kernel_initializer="ones")
    peer = keras.Model(peer_inputs, Added()([peer_dense(peer_inputs), peer_inputs]))
    peer.compile(keras.optimizers.SGD(0.1))
    peer.fit(X, epochs=3, verbose=0)
    np.testing.assert_allclose(dense.kernel.numpy(), peer_dense.kernel.numpy(), rtol=1e-4)
