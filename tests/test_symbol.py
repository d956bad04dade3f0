"""Symbols: shapes of any size, masks known beforehand, graphs of any depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphorn as keras
from alphorn import Layer, Masked, MaskError, ShapeError, Variable, layers, ops
from alphorn.core.symbol import Symbol, infer, symbols_in, topological_order


class Function(Layer):
    """A user's layer: any function of arrays, and weights that it makes while it is called."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


def shape_of(function, shape=(None, None, 4), dtype=None):
    out = Function(function)(keras.Input(shape[1:], batch_size=shape[0], dtype=dtype))
    return out.shape if isinstance(out, Symbol) else [o.shape for o in out]


CONVOLUTION = layers.Conv1D(3, 3, strides=4)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: x, (None, None, 4)),
        (CONVOLUTION, (None, None, 3)),
        (layers.Conv1D(3, 15), (None, None, 3)),
        (lambda x: x[:, ::8], (None, None, 4)),
        (lambda x: x[:, :100], (None, 100, 4)),
        (lambda x: x[:, -1], (None, 4)),
        (lambda x: x[:, 1:], (None, None, 4)),
        (lambda x: x[:3], (3, None, 4)),
        (layers.Reshape((2, -1)), (None, 2, None)),
        (layers.Reshape((-1, 2)), (None, None, 2)),
        (lambda x: x.reshape(-1, 4), (None, 4)),
        (lambda x: x.reshape(x.shape[0], -1), (None, None)),
        (lambda x: jnp.concatenate([x, x], 1), (None, None, 4)),
        (lambda x: jnp.pad(x, ((0, 0), (1, 1), (0, 0))), (None, None, 4)),
        (lambda x: x @ jnp.swapaxes(x, 1, 2), (None, None, None)),
        (lambda x: x if x.shape[1] > 2 else x[..., :1], (None, None, 4)),
        (lambda x: jnp.zeros((x.shape[0], 7)), (None, 7)),
        (lambda x: np.zeros(x.shape[1:]) + x, (None, None, 4)),
        (lambda x: jnp.arange(x.shape[1]), (None,)),
        (lambda x: jax.lax.associative_scan(jnp.add, x, axis=1), (None, None, 4)),
        (lambda x: jnp.mean(x, axis=(1, 2)), (None,)),
        (lambda x: (x, x.sum(1)), [(None, None, 4), (None, 4)]),
        (lambda x: jnp.float32(1), ()),
        (layers.LSTM(3), (None, 3)),
        (lambda x: layers.Dense(5040)(x), (None, None, 5040)),
        (lambda x: layers.Dense(3)(layers.Dense(5040)(x)), (None, None, 3)),
    ],
)
def test_unknown_sizes_stay_unknown_and_others_static(function, wanted):
    assert shape_of(function) == wanted


@pytest.mark.parametrize("known", [24, 60, 240, 5040, 7560])
def test_known_sizes_are_known_whatever_stands_for_others(known):
    assert shape_of(lambda x: x * 2, (None, None, known)) == (None, None, known)
    assert shape_of(lambda x: x[:, ::8], (known, None, 4)) == (known, None, 4)
    made = layers.Dense(2)
    assert shape_of(lambda x: made(x), (known, 3, known)) == (known, 3, 2)
    assert made.kernel.shape == (known, 2)
    seen = []

    class Seer(Layer):
        def build(self, input_shape):
            seen.append(input_shape)

        def call(self, x):
            return x

    assert shape_of(lambda x: Seer()(x), (known, None, 4)) == (known, None, 4)
    assert seen[0] == (known, None, 4)


def test_a_loop_over_time_has_a_shape():
    steps = []

    def loop(x):
        steps.append(x.shape[1])
        return sum(x[:, t] for t in range(0, x.shape[1], x.shape[1] // 4))

    assert shape_of(loop) == (None, 4)
    assert len(steps) == 2


def test_inner_layers_are_built_for_any_length():
    inner = layers.Dense(2)
    outer = Function(lambda x: inner(x[:, ::2]))
    symbol = outer(keras.Input((None, 4)))
    assert symbol.shape == (None, None, 2)
    assert inner.kernel.shape == (4, 2)
    model = keras.Model(symbol.node.inputs[0], symbol)
    for time in (3, 8):
        assert model(np.ones((2, time, 4))).shape == (2, (time + 1) // 2, 2)


def test_inference_computes_and_changes_nothing():
    seeds, count = keras.SeedGenerator(1), Variable(0)

    def function(x):
        count.assign_add(1)
        outer.add_loss(jnp.sum(x))
        return x + jax.random.normal(seeds.next(), x.shape)

    outer = Function(function)
    before = seeds.state.numpy()
    assert outer(keras.Input((None, 4))).shape == (None, None, 4)
    np.testing.assert_array_equal(seeds.state.numpy(), before)
    assert int(count) == 0 and outer.losses == []


def test_types_and_masks_are_inferred():
    ids = keras.Input((None,), dtype="int32")
    assert (ids.dtype, ids.masked, ids.ndim) == ("int32", 0, 2)
    embedded = layers.Embedding(5, 2, mask_zero=True)(ids)
    assert (embedded.dtype, embedded.masked) == ("float32", 2)
    assert layers.LSTM(3)(embedded).masked == 0
    assert layers.LSTM(3, return_sequences=True)(embedded).masked == 2
    assert layers.Dense(2, dtype="mixed_bfloat16")(embedded).dtype == "bfloat16"
    assert (embedded > 0).dtype == "bool" and ops.argmax(embedded, -1).dtype == "int32"
    mask = keras.Input((None,), dtype="bool")
    masked = layers.Dense(2)(keras.Input((None, 4)), mask=mask)
    assert masked.masked == 2
    assert repr(masked) == "<Symbol shape=(None, None, 2), dtype=float32, masked=2>"
    with pytest.raises(MaskError, match=r"ops\.last"):
        embedded[:, -1]
    with pytest.raises(MaskError, match=r"(?s)jnp\.mean.*ops\.mean"):
        Function(lambda x: jnp.mean(x, 1))(embedded)


def test_a_users_output_shape_wins():
    class Known(Layer):
        def compute_output_shape(self, input_shape):
            return (input_shape[0], 7)

        def call(self, x):
            return jnp.ones((x.shape[0], 7)) * float(np.asarray(x).sum())  # needs real numbers

    class Narrow(Function):
        def compute_output_shape(self, input_shape):
            return (*input_shape[:-1], None)

    x = keras.Input((None, 4))
    out = Known()(x)
    assert out.shape == (None, 7) and out.dtype == "float32"
    assert keras.Model(x, out)(np.ones((2, 3, 4)))[0, 0] == 24
    assert Narrow(lambda x: x.astype("int32"))(x).shape == (None, None, None)
    assert Narrow(lambda x: x.astype("int32"))(x).dtype == "int32"

    class Two(Layer):
        def compute_output_shape(self, input_shape):
            return {"a": (input_shape[0], 2), "b": (input_shape[0], 3)}

        def call(self, x):
            return {"a": x[:, 0, :2], "b": x[:, 0, :3]}

    two = Two()(x)
    assert (two["a"].shape, two["b"].shape) == ((None, 2), (None, 3))
    assert Function(lambda x: x[:, 0]).compute_output_shape((None, 5, 4)) == (None, 4)


def test_graphs_of_any_depth():
    x = h = keras.Input((2,))
    for _ in range(1200):
        h = h + 1.0
    assert len(topological_order([h], [x])) == 1200
    model = keras.Model(x, h)
    out = jax.eval_shape(model.stateless_call, [], [], jax.ShapeDtypeStruct((3, 2), "float32"))
    assert out[0].shape == (3, 2)


def test_topological_order_counts_shared_parts_once():
    x = keras.Input((2,))
    a = x * 2
    b, c = a + 1, a + 2
    d = b * c
    order = topological_order([d, a], [x])
    assert [n.operation.op for n in order] == ["multiply", "add", "add", "multiply"]
    assert topological_order([d], [b, c]) == [d.node]
    assert [id(s) for s in d.node.inputs] == [id(b), id(c)]
    assert symbols_in({"k": [x, (a, 3)]}) == [x, a]


def test_a_graph_sees_living_variables():
    scale, dense = Variable(2.0), layers.Dense(2, use_bias=False, kernel_initializer="ones")
    x = keras.Input((2,))
    model = keras.Model(x, dense(x) * scale + ops.matmul(x, dense.kernel))
    assert model.weights == [scale, dense.kernel] == model.trainable_variables
    data = np.ones((1, 2), "float32")
    for value in (2.0, 5.0):
        scale.assign(value)
        for out in (model(data), model.predict(data, verbose=0)):
            assert out.tolist() == [[2 * value + 2] * 2]


def test_an_unknown_axis_into_dense_is_explained():
    flat = layers.Flatten()(keras.Input((None, 4)))
    assert flat.shape == (None, None)
    inside = Function(lambda x: layers.Dense(3)(layers.Flatten()(x)))
    for call in (lambda: layers.Dense(3)(flat), lambda: inside(keras.Input((None, 4)))):
        with pytest.raises(ShapeError, match=r"(?s)number of features.*GlobalAveragePooling1D"):
            call()


def test_errors_in_user_code_tell_of_the_stand_ins():
    def wrong(x):
        return x + jnp.ones((3, 4))

    with pytest.raises(ValueError, match="broadcast") as error:
        shape_of(wrong)
    assert any("5040" in note for note in error.value.__notes__)
    with pytest.raises(ZeroDivisionError):
        shape_of(lambda x: 1 // 0)


def symbol():
    return keras.Input((None, 4))


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda s: bool(s), ShapeError, r"ops\.where"),
        (lambda s: 1 if s > 0 else 2, ShapeError, r"ops\.where"),
        (lambda s: len(s), ShapeError, "known first size"),
        (lambda s: list(s), ShapeError, r"iterated.*\n.*ops\.split"),
        (lambda s: jnp.tanh(s), MaskError, r"jnp\.tanh cannot take.*\n.*use ops\.tanh"),
        (lambda s: jnp.mean(s, axis=1), MaskError, r"use ops\.mean"),
        (lambda s: jax.nn.relu(s), MaskError, r"jax\.nn\.relu.*\n.*use ops\.relu"),
        (lambda s: jax.lax.exp(s), MaskError, r"jax\.lax\.exp.*\n.*use ops\.exp"),
        (lambda s: jnp.fft.fft(s), MaskError, r"jnp\.fft\.fft.*\n.*Lambda"),
        (lambda s: jnp.asarray(s), MaskError, "jnp.asarray"),
        (lambda s: np.asarray(s), MaskError, "np.asarray"),
        (lambda s: np.mean(s), MaskError, r"np\.mean.*\n.*use ops\.mean"),
        (lambda s: np.sin(s), MaskError, r"np\.sin.*\n.*use ops\.sin"),
        (lambda s: jax.jit(lambda x: x)(s), MaskError, "jax.jit cannot take"),
        (lambda s: jnp.stack([s, s]), MaskError, r"use ops\.stack"),
    ],
)
def test_what_a_symbol_cannot_do(use, error, message):
    with pytest.raises(error, match=message):
        use(symbol())


def test_operators_from_either_side():
    s, four = symbol(), np.arange(4, dtype="float32")
    both = [
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: four * x,
        lambda x: x * four,
        lambda x: jnp.asarray(four) - x,
        lambda x: np.float32(2) * x,
        lambda x: np.add(x, 1),
        lambda x: np.subtract(four, x),
        lambda x: x @ np.ones((4, 4), "float32"),
        lambda x: x**2 / 3 // 1 % 5,
        lambda x: -abs(x),
        lambda x: Variable(four) * x,
    ]
    outs = [f(s) for f in both]
    assert all(isinstance(o, Symbol) and o.shape == (None, None, 4) for o in outs)
    data = np.linspace(-1, 1, 24, dtype="float32").reshape(2, 3, 4)
    found = keras.Model(s, outs).predict(data, verbose=0)
    for out, f in zip(found, both, strict=True):
        np.testing.assert_allclose(out, f(jnp.asarray(data)), rtol=1e-6)
    assert s == s and (s == symbol()) is False and s in [s] and len({s: 1}) == 1
    masked = Masked(data[:1, :1], np.ones((1, 1), bool)) + s
    assert masked.masked == 2


def test_methods_and_indices_become_nodes():
    s = symbol()
    assert s[:, 0].shape == (None, 4) and s[..., None].shape == (None, None, 4, 1)
    assert s.mean(axis=1).shape == (None, 4) and s.T.shape == (4, None, None)
    assert s.astype("int32").dtype == "int32"
    assert s.reshape(-1, 2, 2).shape == (None, 2, 2)
    assert len(Symbol((3, 4))) == 3 and Symbol((3, 4)).size == 12 and s.size is None


def test_infer_takes_any_structure():
    def function(pair, *, scale):
        return {"sum": pair["a"] * scale + pair["b"], "none": None}

    out = infer(function, ({"a": symbol(), "b": np.ones(4)},), {"scale": 2})
    assert out["sum"].shape == (None, None, 4) and out["none"] is None
