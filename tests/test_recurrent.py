"""Recurrent layers, their cells, Bidirectional and TimeDistributed."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import inspect

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
import alphorn.layers.cells as cells
import alphorn.layers.recurrent as recurrent
import alphorn.layers.wrappers as wrappers
from alphorn.core.layer import Layer
from alphorn.core.masked import Masked, mask_of, unmask
from alphorn.core.transforms import functional, value_and_grad
from alphorn.errors import ArgumentError, ShapeError, StateError
from alphorn.layers.cells import GRUCell, LSTMCell, SimpleRNNCell, StackedRNNCells
from alphorn.layers.core import Input
from alphorn.layers.dense import Dense
from alphorn.layers.recurrent import GRU, LSTM, RNN, SimpleRNN
from alphorn.layers.wrappers import Bidirectional, TimeDistributed

B, T, F, U = 3, 6, 4, 5
X = np.random.default_rng(0).normal(size=(B, T, F)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1]], bool)
ROWS = [(i, X[i : i + 1, MASK[i]]) for i in range(B)]  # each four steps long
TURNED = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 1]], bool)


def flat(result):
    """Plain arrays of a result."""
    found = result if isinstance(result, list | tuple) else [result]
    return [np.asarray(unmask(r), np.float32) for r in found]


def close(actual, desired, tolerance=1e-5):
    actual, desired = flat(actual), flat(desired)
    assert [a.shape for a in actual] == [d.shape for d in desired]
    for a, d in zip(actual, desired, strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a - d).max(initial=0) <= tolerance * max(1.0, np.abs(d).max(initial=0))


def pair(ours, theirs, shape=(B, T, F)):
    """Both layers built, with the same random weights."""
    rng = np.random.default_rng(1)
    for layer in (ours, theirs):
        if not layer.built:
            layer.build(shape)
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    values = [rng.normal(size=w.shape).astype("float32") * 0.4 for w in theirs.weights]
    theirs.set_weights(values)
    ours.set_weights(values)
    return ours, theirs


@pytest.mark.parametrize(
    "name",
    [
        *("SimpleRNNCell", "LSTMCell", "GRUCell", "StackedRNNCells"),
        *("RNN", "SimpleRNN", "LSTM", "GRU", "Bidirectional", "TimeDistributed", "Wrapper"),
    ],
)
def test_signatures_are_keras(name):
    ours = next(getattr(m, name) for m in (cells, recurrent, wrappers) if name in m.__all__)
    theirs = getattr(keras.layers, name)
    described = [
        [(p.name, p.default) for p in inspect.signature(c.__init__).parameters.values()]
        for c in (ours, theirs)
    ]
    assert described[0] == described[1]


VARIANTS = {
    "plain": {},
    "sequences": {"return_sequences": True, "return_state": True},
    "unroll": {"unroll": True, "use_bias": False, "return_sequences": True},
    "activation": {"activation": "relu", "return_state": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU", "GRU_before"])
def test_values_are_keras(name, variant):
    options = VARIANTS[variant] | ({"reset_after": False} if name == "GRU_before" else {})
    name = name.removesuffix("_before")
    ours, theirs = pair(
        getattr(recurrent, name)(U, **options), getattr(keras.layers, name)(U, **options)
    )
    close(ours(X), theirs(X))
    masked = ours(X, mask=MASK)
    close(masked, theirs(X, mask=jnp.asarray(MASK)))
    first = masked[0] if isinstance(masked, tuple) else masked
    if options.get("return_sequences"):
        np.testing.assert_array_equal(first.mask, MASK)
    else:
        assert mask_of(first) is None
    if isinstance(masked, tuple):
        assert all(mask_of(s) is None for s in masked[1:])


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_weight_names_and_first_values_are_keras(name):
    ours, theirs = getattr(recurrent, name)(U, name="r"), getattr(keras.layers, name)(U, name="r")
    ours.build((B, T, F))
    theirs.build((B, T, F))
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    np.testing.assert_array_equal(ours.cell.bias, theirs.cell.bias)
    product = ours.cell.recurrent_kernel.value @ ours.cell.recurrent_kernel.value.T
    np.testing.assert_allclose(product, np.eye(U), atol=1e-5)  # orthogonal rows
    assert LSTM(U, unit_forget_bias=False, weights=None)(X).shape == (B, U)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU", "Bidirectional"])
def test_gradients_are_keras(name):
    if name == "Bidirectional":
        ours = Bidirectional(LSTM(U, return_sequences=True))
        theirs = keras.layers.Bidirectional(keras.layers.LSTM(U, return_sequences=True))
    else:
        ours = getattr(recurrent, name)(U, return_sequences=True)
        theirs = getattr(keras.layers, name)(U, return_sequences=True)
    ours, theirs = pair(ours, theirs)
    mask = jnp.asarray(np.arange(T) < np.array([[6], [4], [1]]))

    def weigh(y):
        return jnp.sum(jnp.where(mask[..., None], y, 0) ** 2)

    def their_loss(weights):
        y, _ = theirs.stateless_call(weights, theirs.non_trainable_variables, X, mask=mask)
        return weigh(y)

    wanted = jax.jit(jax.grad(their_loss))([w.value for w in theirs.trainable_variables])
    _, got = value_and_grad(lambda: weigh(ours(X, mask=mask).data), ours.trainable_variables)()
    close(got, wanted)


def makers():
    """Layers that must give each row what it gets alone, all of them with `return_sequences`."""
    both = {"return_sequences": True}
    return {
        "SimpleRNN": lambda: SimpleRNN(U, **both),
        "LSTM": lambda: LSTM(U, **both),
        "GRU_before": lambda: GRU(U, reset_after=False, **both),
        "backwards": lambda: GRU(U, go_backwards=True, **both),
        "unroll": lambda: LSTM(U, unroll=True, go_backwards=True, **both),
        "zero": lambda: LSTM(U, zero_output_for_mask=True, **both),
        "RNN": lambda: RNN([GRUCell(3), LSTMCell(U)], **both),
        "RNN_backwards": lambda: RNN(LSTMCell(U), go_backwards=True, **both),
        "Bidirectional": lambda: Bidirectional(LSTM(U, **both)),
        "Bidirectional_RNN": lambda: Bidirectional(RNN(GRUCell(U), **both), merge_mode="ave"),
        "Bidirectional_turned": lambda: Bidirectional(GRU(U, go_backwards=True, **both)),
        "TimeDistributed": lambda: TimeDistributed(Dense(2, activation="softplus")),
    }


@pytest.mark.parametrize("name", makers())
def test_each_row_is_as_alone_whatever_the_junk(name):
    layer = makers()[name]()
    layer(X[:1])
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) * 0.4 for w in layer.weights])
    call = jax.jit(functional(layer, layer.variables))
    values = [v.value for v in layer.variables]

    def padded(junk):
        return call(values, Masked.trusted(jnp.where(MASK[..., None], X, junk), MASK))[0]

    outputs = padded(0.0)
    turned = getattr(layer, "go_backwards", False) or name == "Bidirectional_turned"
    np.testing.assert_array_equal(outputs.mask, TURNED if turned else MASK)
    for i, row in ROWS:
        close(outputs.data[i][outputs.mask[i]], call(values, row)[0][0])
    if name == "zero":
        assert not np.asarray(outputs.data)[~MASK].any()
    close(Masked(padded(1e3).data, outputs.mask), Masked(outputs.data, outputs.mask))
    more = np.pad(MASK, ((0, 0), (0, 2)))
    longer = call(values, Masked(np.pad(X, ((0, 0), (0, 2), (0, 0)), constant_values=9.0), more))[0]
    valid = np.asarray(outputs.mask)
    close(longer.data[:, :T][valid], outputs.data[valid])


def test_last_outputs_and_states_are_those_of_the_row_alone():
    for layer in (
        LSTM(U, return_state=True),
        LSTM(U, return_state=True, go_backwards=True, zero_output_for_mask=True),
        RNN(GRUCell(U), return_state=True, zero_output_for_mask=True),
        Bidirectional(GRU(U, return_state=True)),
    ):
        together = layer(np.where(MASK[..., None], X, np.nan), mask=MASK)
        for i, row in ROWS:
            close([t[i : i + 1] for t in together], layer(row))
    empty = LSTM(U, return_state=True)(X, mask=np.zeros((B, T), bool))
    assert not any(np.asarray(e).any() for e in empty)


def test_a_mask_of_single_features_leaves_whole_steps():
    parts = np.ones((B, T, F), bool)
    parts[0, 1, 2] = parts[1, 3:] = False
    layer = LSTM(U, return_sequences=True)
    outputs = layer(np.where(parts, X, np.nan), mask=parts)
    np.testing.assert_array_equal(outputs.mask, parts.any(-1))
    close(outputs, layer(np.where(parts, X, 0), mask=parts.any(-1)))


def test_kinds_of_input():
    layer = LSTM(U)
    close(layer(np.ones((2, 3, F), "int32")), layer(np.ones((2, 3, F), "float32")))
    assert not np.asarray(layer(np.ones((2, 0, F), "float32"))).any()
    assert not np.asarray(RNN(LSTMCell(U))(np.ones((2, 0, F), "float32"))).any()


def test_initial_states():
    h, c = np.random.default_rng(3).normal(size=(2, B, U)).astype("float32")
    ours, theirs = pair(LSTM(U), keras.layers.LSTM(U))
    close(ours(X, initial_state=[h, c]), theirs(X, initial_state=[h, c]))
    with pytest.raises(ShapeError, match="initial_state"):
        ours(X, initial_state=[h])
    with pytest.raises(ShapeError, match=r"\(3, 5\), \(3, 5\)"):
        ours(X, initial_state=[h, c[:, :2]])
    sequence = Input((None, F))
    output, *states = LSTM(U, return_state=True)(sequence)
    decoded = LSTM(U, return_sequences=True)(sequence, initial_state=states)
    assert output.shape == (None, U)
    assert decoded.shape == (None, None, U)
    assert [s.shape for s in ours.get_initial_state(B)] == [(B, U)] * 2


@pytest.mark.parametrize("name", ["LSTM", "GRU", "Bidirectional", "RNN"])
def test_stateful(name):
    def make(layers):
        if name == "Bidirectional":
            return layers.Bidirectional(layers.GRU(U, stateful=True))
        if name == "RNN":
            return layers.RNN([layers.GRUCell(3), layers.LSTMCell(U)], stateful=True)
        return getattr(layers, name)(U, stateful=True)

    class layers:
        LSTM, GRU, RNN, GRUCell, LSTMCell = LSTM, GRU, RNN, GRUCell, LSTMCell
        Bidirectional = Bidirectional

    ours, theirs = pair(make(layers), make(keras.layers))
    first = theirs(X)
    close(ours(X), first)
    for mask in (jnp.asarray(MASK), None):
        close(ours(X, mask=mask), theirs(X, mask=mask))
    ours.reset_state()
    close(ours(X), first)
    with pytest.raises(ShapeError, match="batch of 2"):
        ours(X[:2])


def test_states_are_kept_from_batch_to_batch_of_fit_and_predict():
    layers = alphorn.layers
    model = alphorn.Sequential(
        [alphorn.Input(batch_shape=(2, 3, 2)), layers.SimpleRNN(4, stateful=True), layers.Dense(1)]
    )
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
    outputs = [np.asarray(model(x[:2])), np.asarray(model(x[2:]))]
    wanted = np.asarray(model.layers[0].states[0].value)
    model.layers[0].reset_state()
    assert np.allclose(model.predict(x, batch_size=2, verbose=0), np.concatenate(outputs))
    assert np.allclose(model.layers[0].states[0].value, wanted)
    model.layers[0].reset_state()
    model.compile(alphorn.optimizers.SGD(0.0), "mse")
    model.fit(x, x[:, 0, :1], batch_size=2, shuffle=False, verbose=0)
    assert np.allclose(model.layers[0].states[0].value, wanted)


def test_stateful_goes_on_where_the_row_ended():
    layer = LSTM(U, stateful=True)
    layer(X, mask=MASK)
    state = LSTM(U, return_state=True)
    state.build((B, T, F))
    state.set_weights(layer.get_weights())
    for i, row in ROWS:
        close([s.value[i : i + 1] for s in layer.states], state(row)[1:])
    # Under jit the states travel with the other Variables.
    layer.reset_states()
    run = jax.jit(functional(lambda x: layer(x), layer.variables))
    _, new = run([v.value for v in layer.variables], X)
    wanted = layer(X)
    assert float(jnp.abs(layer.states[0].value - wanted).max()) == 0
    kept = dict(zip(layer.variables, new, strict=True))
    close(kept[layer.states[0]], wanted)
    with pytest.raises(StateError, match="batch size"):
        LSTM(U, stateful=True)(Input((None, F)))


@pytest.mark.parametrize("inside_rnn", [False, True])
def test_dropout_is_drawn_once_a_sequence(inside_rnn):
    def make():
        options = {"activation": None, "recurrent_initializer": "zeros", "seed": 1, "dropout": 0.5}
        if inside_rnn:
            return RNN(SimpleRNNCell(8, **options), return_sequences=True)
        return SimpleRNN(8, return_sequences=True, **options)

    layer, same = make(), make()
    ones = np.ones((4, 5, 16), "float32")
    dropped = np.asarray(layer(ones, training=True))
    assert (dropped == dropped[:, :1]).all()
    assert (dropped[0] != dropped[1]).any()
    assert (np.asarray(layer(ones, training=True)) != dropped).any()
    same(ones)
    same.set_weights(layer.get_weights())
    longer = np.asarray(same(np.ones((4, 9, 16), "float32"), training=True))
    np.testing.assert_allclose(longer[:, :5], dropped, rtol=1e-6)
    close(layer(ones), layer(ones, training=False), 0)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU", "GRU_before"])
def test_recurrent_dropout(name):
    options = {"reset_after": False} if name == "GRU_before" else {}
    make = getattr(recurrent, name.removesuffix("_before"))
    layer = make(U, recurrent_dropout=0.5, seed=2, return_sequences=True, **options)
    layer(X)
    before = layer.seed_generator.state.value
    outputs = layer(X, training=True)
    layer.seed_generator.state.assign(before)
    _, kept = layer.cell.dropout_masks(B, "float32", True)
    assert set(np.unique(kept)) == {0.0, 2.0}
    states, wanted = layer.get_initial_state(B), []
    for t in range(T):
        output, states = layer.cell.step(X[:, t], states, kept)
        wanted.append(output)
    close(outputs, np.stack(wanted, 1))
    close(layer(X, training=False), layer(X), 0)


class Dropping(Layer):
    """A user's cell: layers without a build of their own, noise at every step."""

    state_size = U

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = Dense(U, activation="tanh")
        self.generator = recurrent.RNN(GRUCell(1)).cell.seed_generator

    def call(self, inputs, states, training=False):
        h = self.dense(jnp.concatenate([inputs, states[0]], -1))
        if training:
            h = h * jax.random.bernoulli(self.generator.next(), 0.5, h.shape)
        return h, [h]


def test_a_users_cell():
    layer = RNN(Dropping(), return_sequences=True, return_state=True)
    outputs, state = layer(X, mask=MASK)
    assert [w.shape for w in layer.weights] == [(F + U, U), (U,)]
    close(state, outputs.data[:, -1])
    for i, row in ROWS:
        close(outputs.data[i][MASK[i]], layer(row)[0][0])
    _, grads = value_and_grad(
        lambda: jnp.sum(layer(X, mask=MASK)[0].data ** 2), layer.trainable_variables
    )()
    assert all(np.abs(np.asarray(g)).max() > 0 for g in grads)
    start = layer.cell.generator.state.value
    noisy = np.asarray(layer(X, training=True)[0])
    assert int(layer.cell.generator.state.value[1] - start[1]) == T
    assert (noisy == 0).any()
    assert ((noisy[:, 1:] == 0) != (noisy[:, :-1] == 0)).any()


def test_cells_are_keras():
    rng = np.random.default_rng(4)
    for name, states in (("SimpleRNNCell", 1), ("LSTMCell", 2), ("GRUCell", 1)):
        ours, theirs = pair(getattr(cells, name)(U), getattr(keras.layers, name)(U), shape=(B, F))
        given = [rng.normal(size=(B, U)).astype("float32") for _ in range(states)]
        (a, new_a), (b, new_b) = ours(X[:, 0], given), theirs(X[:, 0], given)
        close([a, *new_a], [b, *new_b])
        assert ours.state_size == theirs.state_size
        assert ours.output_size == theirs.output_size

    def stack(m):
        return m.StackedRNNCells([m.LSTMCell(3), m.GRUCell(U)])

    options = {"return_sequences": True, "return_state": True}
    ours, theirs = pair(
        RNN(stack(cells), **options), keras.layers.RNN(stack(keras.layers), **options)
    )
    (y, *states), (wanted, *their_states) = ours(X), theirs(X)
    close(y, wanted)
    close(jax.tree.leaves(states), jax.tree.leaves(their_states))
    assert ours.cell.state_size == theirs.cell.state_size


def test_mixed_precision():
    for layer in (
        LSTM(U, dtype="mixed_bfloat16"),
        Bidirectional(GRU(U, dtype="mixed_bfloat16"), dtype="mixed_bfloat16"),
        SimpleRNN(U, recurrent_dropout=0.2, dtype="mixed_bfloat16"),
    ):
        outputs = layer(X, mask=MASK, training=True)
        assert outputs.dtype == jnp.bfloat16
    _, grads = value_and_grad(lambda: jnp.sum(layer(X, mask=MASK)), layer.trainable_variables)()
    assert {g.dtype.name for g in grads} == {"float32"}
    exact, half = LSTM(U), LSTM(U, dtype="mixed_bfloat16")
    exact(X)
    half(X)
    half.set_weights(exact.get_weights())
    close(half(X, mask=MASK), exact(X, mask=MASK), 2e-2)


def test_configs_make_the_same_layer():
    for layer in (
        LSTM(U, dropout=0.1, kernel_regularizer="l2", zero_output_for_mask=True, seed=3),
        GRU(U, reset_after=False, implementation=2, activation="relu"),
        SimpleRNN(U, use_bias=False, bias_constraint=None),
        RNN([LSTMCell(3), GRUCell(U)], go_backwards=True),
        TimeDistributed(Dense(2)),
    ):
        copy = type(layer).from_config(layer.get_config())
        assert copy.get_config() == layer.get_config()
        layer(X)
        copy(X)
        copy.set_weights(layer.get_weights())
        close(copy(X, mask=MASK), layer(X, mask=MASK), 0)
    assert LSTM(U, zero_output_for_mask=True).get_config()["zero_output_for_mask"] is True


def test_activations_with_weights():
    class Slope(Layer):
        def build(self, input_shape):
            self.slope = self.add_weight(shape=(), initializer="ones", name="slope")

        def call(self, x):
            return jnp.tanh(x * self.slope)

    act = Slope()
    act.build(None)
    layer, plain = LSTM(U, activation=act), LSTM(U)
    layer(X)
    plain(X)
    plain.set_weights([w.value for w in layer.weights if w is not act.slope])
    close(layer(X, mask=MASK), plain(X, mask=MASK))
    _, (grad,) = value_and_grad(lambda: jnp.sum(layer(X)), [act.slope])()
    assert float(jnp.abs(grad)) > 0


def test_errors_name_the_layer_and_the_way_out():
    with pytest.raises(ShapeError, match=r"LSTM 'mine'[\s\S]*\(3, 4\)[\s\S]*feature axis"):
        LSTM(U, name="mine")(X[:, 0])
    with pytest.raises(ShapeError, match="RNN"):
        RNN(LSTMCell(U))(X[:, 0])
    with pytest.raises(ShapeError, match="features is unknown"):
        GRU(U)(Input((None, None)))
    with pytest.raises(ArgumentError, match="units"):
        GRU(-1)
    with pytest.raises(ArgumentError, match="RNN: cell"):
        RNN(Dense(3))
    with pytest.raises(ArgumentError, match="cells"):
        StackedRNNCells([LSTMCell(2), "gru"])
    with pytest.raises(ArgumentError, match="TimeDistributed: layer"):
        TimeDistributed(np.tanh)
    with pytest.raises(ShapeError, match="TimeDistributed"):
        TimeDistributed(Dense(3))(np.ones(3, "float32"))
    with pytest.raises(ArgumentError, match="use_cudnn"):
        LSTM(U, use_cudnn=True)
    with pytest.raises(ArgumentError, match="time_major"):
        LSTM(U, time_major=True)
