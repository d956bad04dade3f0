"""The promise, over all rows of `cases`: padding, junk, alone, never lost; values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alphorn as keras
from alphorn.core.masked import is_masked
from cases import LAYERS, Case
from promise import arguments, close, data_for, leaves, padded, valid_part

SEQUENCES = [c for c in LAYERS if c.inputs != "vector"]
LENGTHS = [5, 3, 6, 4]


def build(case: Case, seed: int = 1) -> keras.Layer:
    keras.utils.set_random_seed(seed)
    layer = case.make(keras.layers)
    layer(*arguments(case.inputs, x=data_for(case.inputs, 2, 6)))
    random = np.random.default_rng(seed)
    layer.set_weights(
        [np.abs(random.normal(size=w.shape)).astype("float32") * 0.5 + 0.1 for w in layer.weights]
    )
    return layer


def rows_of(case: Case, lengths: list[int]) -> list[np.ndarray]:
    whole = data_for(case.inputs, len(lengths), max(lengths), seed=3)
    return [whole[i, :n] for i, n in enumerate(lengths)]


def call(case: Case, layer: keras.Layer, x: object, mask: object) -> list:
    return leaves(layer(*arguments(case.inputs, x=x, mask=mask)))


@pytest.mark.parametrize("junk", [1e3, np.inf, np.nan], ids=["large", "inf", "nan"])
@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_junk_in_padding_changes_nothing(case: Case, junk: float) -> None:
    layer = build(case)
    rows = rows_of(case, LENGTHS)
    clean, mask = padded(rows, 7, False, 0)
    dirty, _ = padded(rows, 7, False, 13 if case.inputs == "ids" else junk)
    # A Masked that is made for users is filled where it is born.
    outs = [
        leaves(layer(*[_masked(a, mask) for a in arguments(case.inputs, x=x)]))
        for x in (clean, dirty)
    ]
    for a, b in zip(*outs, strict=True):
        assert is_masked(a) == is_masked(b)
        for i in range(len(rows)):
            assert close(valid_part(b, i), valid_part(a, i), case.tolerance)


def _masked(value: object, mask: np.ndarray) -> object:
    if isinstance(value, list):
        return [keras.Masked(v, mask) for v in value]
    return keras.Masked(value, mask)


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_each_row_gets_what_it_would_get_alone(case: Case) -> None:
    if "alone" in case.exempt:
        assert case.exempt["alone"]
        return
    layer = build(case)
    rows = rows_of(case, LENGTHS)
    together = call(case, layer, *padded(rows, 8, False, 0))
    for i, row in enumerate(rows):
        alone = call(case, layer, row[None], None)
        for a, b in zip(together, alone, strict=True):
            assert close(valid_part(a, i), valid_part(b, 0), case.tolerance), (i, len(row))


@pytest.mark.parametrize("case", [c for c in SEQUENCES if c.front], ids=str)
def test_padding_may_stand_in_front(case: Case) -> None:
    if "alone" in case.exempt:
        assert case.exempt["alone"]
        return
    layer = build(case)
    rows = rows_of(case, LENGTHS)
    together = call(case, layer, *padded(rows, 8, True, 0))
    for i, row in enumerate(rows):
        alone = call(case, layer, row[None], None)
        for a, b in zip(together, alone, strict=True):
            assert close(valid_part(a, i), valid_part(b, 0), case.tolerance), (i, len(row))


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_more_padding_changes_neither_values_nor_gradients(case: Case) -> None:
    if "padding" in case.exempt:
        assert case.exempt["padding"]
        return
    layer = build(case)
    rows = rows_of(case, LENGTHS)
    found = []
    for time in (6, 11):
        batch, mask = padded(rows, time, False, 0)

        def loss(values: list, x: object, mask: np.ndarray = mask) -> jax.Array:
            pure = keras.functional(
                lambda: layer(*arguments(case.inputs, x=x, mask=mask)), layer.variables
            )
            outs = leaves(pure(values)[0])
            return sum(
                (jnp.sum(jnp.square(o.fill(0) if is_masked(o) else o)) for o in outs),
                start=jnp.zeros(()),
            )

        values = [v.value for v in layer.variables]
        trainable = [i for i, v in enumerate(layer.variables) if v.trainable]

        def by_weights(some: list, x: object, loss=loss, values=values) -> jax.Array:
            full = list(values)
            for i, value in zip(trainable, some, strict=True):
                full[i] = value
            return loss(full, x)

        some = [values[i] for i in trainable]
        value, grads = jax.value_and_grad(by_weights)(some, batch)
        out = [value, *grads]
        if case.inputs != "ids":
            out.append(jax.grad(loss, 1)(values, jnp.asarray(batch))[:, :6])
        found.append(out)
    for a, b in zip(*found, strict=True):
        assert close(b, a, max(case.tolerance, 2e-5))


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_order_of_rows_and_jit_change_nothing(case: Case) -> None:
    layer = build(case)
    rows = rows_of(case, LENGTHS)
    batch, mask = padded(rows, 7, False, 0)
    order = [2, 0, 3, 1]
    plain = call(case, layer, batch, mask)
    turned = call(case, layer, batch[order], mask[order])
    pure = keras.functional(
        lambda x, m: layer(*arguments(case.inputs, x=x, mask=m)), layer.variables
    )

    def compiled(values: list, x: jax.Array, m: jax.Array) -> object:
        wrapped = keras.Masked.trusted(x, m)
        args = {"pair": ([wrapped, wrapped],), "two": (wrapped, wrapped)}
        return keras.functional(lambda: layer(*args.get(case.inputs, (wrapped,))), layer.variables)(
            values
        )[0]

    assert callable(pure)
    jitted = leaves(jax.jit(compiled)([v.value for v in layer.variables], batch, mask))
    for a, b, c in zip(plain, turned, jitted, strict=True):
        for place, i in enumerate(order):
            assert close(valid_part(b, place), valid_part(a, i), case.tolerance)
            assert close(valid_part(c, i), valid_part(a, i), case.tolerance)


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_bfloat16_holds_the_promise(case: Case) -> None:
    if "alone" in case.exempt or case.inputs == "ids":
        return
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = build(case)
        rows = rows_of(case, LENGTHS)
        together = call(case, layer, *padded(rows, 8, False, 0))
        for i, row in enumerate(rows):
            alone = call(case, layer, row[None], None)
            for a, b in zip(together, alone, strict=True):
                assert close(
                    np.asarray(valid_part(a, i), np.float32),
                    np.asarray(valid_part(b, 0), np.float32),
                    2e-2,
                )
    finally:
        keras.config.set_dtype_policy(None)


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_an_empty_row_makes_no_nan(case: Case) -> None:
    layer = build(case)
    batch, mask = padded(rows_of(case, LENGTHS), 7, False, 0)
    mask[1] = False
    for out in call(case, layer, batch, mask):
        assert np.isfinite(np.asarray(out.data if is_masked(out) else out)).all()


HOLED = ["LSTM", "GRU", "Dense", "GlobalMaxPooling1D", "GlobalAveragePooling1D", "Bidirectional"]


@pytest.mark.parametrize("case", [c for c in SEQUENCES if c.name in HOLED], ids=str)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_missing_steps_contribute_nothing(case: Case, data: st.DataObject) -> None:
    """Layers without windows: a row with holes gives what the row without those steps gives."""
    layer = build(case)
    time = data.draw(st.integers(2, 7))
    holes = data.draw(st.lists(st.booleans(), min_size=time, max_size=time))
    mask = np.array([holes, [True] * time])
    mask[0, data.draw(st.integers(0, time - 1))] = True
    batch = data_for(case.inputs, 2, time, seed=time)
    together = call(case, layer, batch, mask)
    alone = call(case, layer, batch[:1][:, mask[0]], None)
    for a, b in zip(together, alone, strict=True):
        assert close(valid_part(a, 0), valid_part(b, 0), case.tolerance)


def test_the_attention_of_old_notes_holds_the_promise() -> None:
    layers = keras.layers
    inputs = keras.Input((None, 4))
    fixed = keras.Input((8, 4))
    del inputs
    h = layers.Masking()(fixed)
    scores = layers.Activation("softmax")(layers.Flatten()(layers.Dense(1)(h)))
    weights = layers.Permute((2, 1))(layers.RepeatVector(4)(scores))
    pooled = layers.Lambda(lambda x: keras.ops.sum(x, axis=1))(layers.Multiply()([h, weights]))
    model = keras.Model(fixed, pooled)
    kernel = np.asarray(model.get_layer(index=2).get_weights()[0])
    random = np.random.default_rng(0)
    rows = [random.normal(size=(n, 4)).astype("float32") for n in (3, 8, 5)]
    batch, _ = padded(rows, 8, False, 0)
    out = np.asarray(model(batch))
    for i, row in enumerate(rows):
        score = row @ kernel
        share = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
        assert close(out[i], (row * share).sum(0), 1e-5)
