"""Masks by hand, on arrays and in graphs, in every form in which a user writes them."""

from typing import Any

import jax
import numpy as np
import pytest

import alphorn as keras
from alphorn import layers as L
from alphorn import ops
from alphorn.core.masked import mask_of, unmask
from promise import close

B, T, F = 3, 5, 4
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(B, T, F)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 1, 1, 1]], bool)
ROWS = [X[i][MASK[i]][None] for i in range(B)]
JUNK = np.where(MASK[..., None], X, 1e3)


def sequence() -> Any:
    return keras.Masked(JUNK, MASK)


def graph(build: Any) -> Any:
    """Returns a model of data and mask, both symbolic, made again from its config."""
    x, m = keras.Input((None, F)), keras.Input((None,), dtype="bool")
    model = keras.Model([x, m], build(x, m))
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    first, second = model([X, MASK]), again([X, MASK])
    assert (mask_of(first) is None) == (mask_of(second) is None)
    assert close(unmask(first), unmask(second), 1e-6)
    return model


# --- the layers


def test_a_mask_is_removed_and_put_back() -> None:
    plain = L.RemoveMask()(sequence())
    assert mask_of(plain) is None
    assert close(plain, np.where(MASK[..., None], X, 0), 0)
    out = L.RestoreMask()([plain * 2.0 + 1.0, sequence()])
    assert (np.asarray(out.mask) == MASK).all()
    assert close(out.data, np.where(MASK[..., None], X * 2 + 1, 0), 1e-6)
    assert mask_of(L.RestoreMask()([X, X])) is None
    narrower = keras.Masked(X, MASK & (np.arange(T) < 3))
    both = L.RestoreMask()([narrower, sequence()])
    assert (np.asarray(both.mask) == (MASK & (np.arange(T) < 3))).all()
    with pytest.raises(keras.MaskError, match="leave RemoveMask out"):
        L.RestoreMask()([X[:, 1:], sequence()])
    with pytest.raises(keras.ShapeError, match="masked sequence"):
        L.RestoreMask()(X)


@pytest.mark.parametrize(("layer", "op"), [(L.LastStep, ops.last), (L.FirstStep, ops.first)])
def test_steps_are_those_of_the_row(layer: Any, op: Any) -> None:
    out = layer()(sequence())
    at = 0 if layer is L.FirstStep else -1
    for i, row in enumerate(ROWS):
        assert close(out[i], row[0, at], 0)
    assert close(out, op(sequence()), 0)
    assert close(layer()(X), X[:, at], 0)
    empty = layer()(keras.Masked(X, np.zeros((B, T), bool)))
    assert not np.asarray(empty).any()


def test_pooling_by_learned_attention() -> None:
    layer = L.GlobalAttentionPooling1D(6)
    layer.build((None, None, F))
    kernel, bias, context = (RANDOM.normal(size=w.shape) for w in layer.weights)
    assert [w.name for w in layer.weights] == ["kernel", "bias", "context"]
    layer.set_weights([kernel, bias, context])
    out, weights = layer(sequence(), return_attention_scores=True)
    assert mask_of(weights) is None
    for i, row in enumerate(ROWS):
        score = (np.tanh(row[0] @ kernel + bias) @ context)[:, 0]
        share = np.exp(score) / np.exp(score).sum()
        assert close(out[i], share @ row[0], 1e-5)
        assert close(np.asarray(weights)[i][MASK[i]], share, 1e-5)
    assert not np.asarray(weights)[~MASK].any()
    assert not np.asarray(layer(keras.Masked(X, np.zeros((B, T), bool)))).any()
    with pytest.raises(keras.ShapeError, match="batch, time, features"):
        L.GlobalAttentionPooling1D()(X[:, 0])
    with pytest.raises(keras.ArgumentError, match="units"):
        L.GlobalAttentionPooling1D(0)


@pytest.mark.parametrize(
    "build",
    [
        lambda x, m: L.LastStep()(L.Identity()(x, mask=m)),
        lambda x, m: L.FirstStep()(x, mask=m),
        lambda x, m: L.GlobalAttentionPooling1D()(x, mask=m),
        lambda x, m: L.GlobalMaxPooling1D()(
            L.RestoreMask()([L.Dense(3)(L.RemoveMask()(x, mask=m)), L.Identity()(x, mask=m)])
        ),
        lambda x, m: ops.last(keras.with_mask(x, m)),
        lambda x, m: L.LSTM(3)(keras.with_mask(x, m)),
        lambda x, m: ops.mean(keras.with_mask(x, m) * 2.0 + 1.0, axis=1),
        lambda x, m: ops.sum(ops.exp(-keras.with_mask(x, m)) / 3.0, axis=1),
    ],
)
def test_tools_in_a_graph_give_what_the_row_alone_gets(build: Any) -> None:
    model = graph(build)
    together = np.asarray(unmask(model([JUNK, MASK])))
    for i, row in enumerate(ROWS):
        alone = np.asarray(unmask(model([row, np.ones(row.shape[:2], bool)])))
        assert close(together[i], alone[0], 1e-5)


# --- the functions


def test_functions_stand_at_the_top() -> None:
    x = keras.with_mask(X, MASK)
    assert (np.asarray(x.mask) == MASK).all()
    assert keras.lengths(x).tolist() == [3, 2, 5]
    assert keras.lengths(x).dtype == np.int32
    assert keras.lengths(X).tolist() == [T] * B
    assert close(keras.unmask(x), np.where(MASK[..., None], X, 0), 0)
    assert keras.with_mask is ops.with_mask
    narrower = keras.with_mask(x, np.arange(T)[None].repeat(B, 0) < 2)
    assert (np.asarray(narrower.mask) == (MASK & (np.arange(T) < 2))).all()
    with pytest.raises(keras.ShapeError, match="does not fit"):
        keras.with_mask(X, MASK[:, :3])


def test_functions_make_nodes_of_symbols() -> None:
    x, m = keras.Input((None, F)), keras.Input((None,), dtype="bool")
    masked = keras.with_mask(x, m)
    assert (masked.shape, masked.masked) == ((None, None, F), 2)
    assert keras.unmask(masked).masked == 0
    assert keras.lengths(masked).shape == (None,)
    model = keras.Model([x, m], keras.unmask(masked))
    assert close(model([JUNK, MASK]), np.where(MASK[..., None], X, 0), 0)


# --- layer(x, mask=m)

TAKING = {
    "Dense": lambda: L.Dense(3),
    "Activation": lambda: L.Activation("tanh"),
    "Conv1D": lambda: L.Conv1D(3, 3, padding="same"),
    "LSTM": lambda: L.LSTM(3, return_sequences=True),
    "GlobalAveragePooling1D": lambda: L.GlobalAveragePooling1D(),
    "Bidirectional": lambda: L.Bidirectional(L.GRU(2)),
    "TimeDistributed": lambda: L.TimeDistributed(L.Dense(2)),
    "Softmax": lambda: L.Softmax(axis=1),
    "GroupNormalization": lambda: L.GroupNormalization(2),
    "EinsumDense": lambda: L.EinsumDense("btf,fe->bte", (None, 3)),
    "Masking": lambda: L.Masking(7.0),
    "Sequential": lambda: keras.Sequential([L.Dense(3), L.LSTM(2)]),
}


def test_a_lambda_takes_a_symbolic_mask() -> None:
    x, m = keras.Input((None, F)), keras.Input((None,), dtype="bool")
    model = keras.Model([x, m], L.Lambda(lambda v: ops.mean(v * 2.0, axis=1))(x, mask=m))
    for i, row in enumerate(ROWS):
        assert close(np.asarray(model([JUNK, MASK]))[i], 2 * row[0].mean(0), 1e-5)


@pytest.mark.parametrize("name", TAKING)
def test_a_mask_may_be_symbolic(name: str) -> None:
    layer = TAKING[name]()
    model = graph(lambda x, m: layer(x, mask=m))
    wanted, found = layer(JUNK, mask=MASK), model([JUNK, MASK])
    assert (mask_of(found) is None) == (mask_of(wanted) is None)
    assert close(unmask(found), unmask(wanted), 1e-6)
    assert model.outputs[0].masked == (0 if mask_of(wanted) is None else wanted.mask.ndim)
    eager = np.asarray(model.predict([JUNK, MASK], verbose=0))
    filled = wanted.fill(0) if mask_of(wanted) is not None else wanted
    if name != "LSTM":  # which repeats its output
        assert close(eager, filled, 1e-5)


def test_a_mask_of_known_size_may_be_an_array_in_a_graph() -> None:
    inputs = keras.Input((T, F), batch_size=B)
    model = keras.Model(inputs, L.GlobalAveragePooling1D()(inputs, mask=MASK))
    assert close(model(JUNK)[0], ROWS[0][0].mean(0), 1e-5)
    with pytest.raises(keras.MaskError, match=r"mask=[\s\S]*Input"):
        L.Dense(3)(keras.Input((None, F)), mask=MASK)


def test_several_inputs_take_a_list_of_masks() -> None:
    out = L.Add()([X, X], mask=[MASK, None])
    assert (np.asarray(out.mask) == MASK).all()
    with pytest.raises(keras.MaskError, match="a mask for each"):
        L.Add()([X, X], mask=MASK)
    x, m = keras.Input((None, F)), keras.Input((None,), dtype="bool")
    assert L.Add()([x, x], mask=[m, m]).masked == 2
    with pytest.raises(keras.MaskError, match="a mask for each"):
        L.Add()([x, x], mask=m)


# --- operators on symbols


def test_operators_on_symbols_keep_the_mask() -> None:
    x, m = keras.Input((None, F)), keras.Input((None,), dtype="bool")
    h = keras.with_mask(x, m)
    kept = [
        h * 2 + 1,
        1 - h,
        -h,
        abs(h),
        h / 3,
        2 / h,
        h**2,
        h + x,
        x * h,
        h > 0,
        h[..., :2],
        h @ X[0].T,
    ]
    assert [k.masked for k in kept] == [2] * len(kept)
    assert h.sum(1).masked == 0
    for index in (np.s_[:, 1:], np.s_[:, -1], np.s_[:, ::2]):
        with pytest.raises(keras.MaskError, match="padding"):
            h[index]


# --- the attention of many notes


def k_sum(x: Any, axis: int) -> Any:
    """Sum as a backend module has it."""
    return ops.sum(x, axis=axis)


@pytest.mark.parametrize("reduction", ["ops", "K", "method"])
@pytest.mark.parametrize("length", [None, T], ids=["any", "fixed"])
def test_the_attention_of_old_notes(reduction: str, length: int | None) -> None:
    total = {
        "ops": lambda v: ops.sum(v, axis=1),
        "K": lambda v: k_sum(v, axis=1),
        "method": lambda v: v.sum(axis=1),
    }[reduction]
    inputs = keras.Input((length, F))
    hidden = L.LSTM(F, return_sequences=True)(L.Masking(0.0)(inputs))
    score = L.Activation("softmax")(L.Flatten()(L.Dense(1, activation="tanh")(hidden)))
    share = L.Permute([2, 1])(L.RepeatVector(F)(score))
    model = keras.Model(inputs, L.Lambda(total)(L.Multiply()([hidden, share])))
    variables = model.trainable_variables
    values = [RANDOM.normal(size=v.shape).astype("float32") for v in variables]
    others = [v.value for v in model.non_trainable_variables]
    padded = np.zeros((B, T, F), "float32")
    for i, row in enumerate(ROWS):
        padded[i, : row.shape[1]] = row[0]

    def loss(values: list, x: Any, i: int = 0) -> Any:
        out, _ = model.stateless_call(values, others, x)
        return (out[i] ** 2).sum(), out

    slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for i, row in enumerate(ROWS):
        (together, out), grads = slopes(values, padded, i)
        alone_x = np.pad(row, ((0, 0), (0, T - row.shape[1]), (0, 0))) if length else row
        (alone, own), wanted = slopes(values, alone_x)
        assert close(out[i], own[0], 1e-5)
        assert close(together, alone, 1e-5)
        assert all(close(a, b, 1e-4) for a, b in zip(grads, wanted, strict=True))
    # By hand, on the outputs of the recurrence alone.
    inner = keras.Model(inputs, hidden)
    kernel, bias = values[-2:]
    for v, value in zip(variables, values, strict=True):
        v.assign(value)
    states = np.asarray(unmask(inner(padded)))
    for i, row in enumerate(ROWS):
        h = states[i, : row.shape[1]]
        points = np.tanh(h @ kernel + bias)[:, 0]
        weights = np.exp(points) / np.exp(points).sum()
        assert close(np.asarray(model(padded))[i], weights @ h, 1e-5)
