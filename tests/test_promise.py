"""The promise, over all rows of `cases`: outputs, masks, gradients and state updates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alphorn as keras
from cases import LAYERS, TRAINING, WINDOWLESS, Case
from promise import (
    LONGER,
    TIME,
    Result,
    Subject,
    agree,
    alike,
    close,
    padded,
    rows_of,
    subject,
    with_junk,
)

SEQUENCES = [c for c in LAYERS if c.inputs != "vector"]


def every_case(*parts: str, among: frozenset[str] | None = None):
    """Runs a test for all rows but those that say, with a reason, why a part has no meaning."""
    chosen = [
        c
        for c in SEQUENCES
        if not set(parts) & set(c.exempt) and (among is None or c.name in among)
    ]
    return pytest.mark.parametrize("case", chosen, ids=str)


def batch_of(case: Case, time: int = TIME, front: bool = False) -> tuple[np.ndarray, np.ndarray]:
    return padded(rows_of(case.inputs), time, front)


def same_gradients(a: Result, b: Result, tolerance: float) -> bool:
    """Whether two results have the same gradients and state."""
    if not (alike(a.by_weights, b.by_weights, tolerance) and agree(a.state, b.state, tolerance)):
        return False
    if a.by_inputs is None or b.by_inputs is None:
        return a.by_inputs is b.by_inputs
    shared = min(a.by_inputs.shape[1], b.by_inputs.shape[1])
    left, right = a.by_inputs[:, :shared], b.by_inputs[:, :shared]
    return close(left, right, tolerance) and not np.any(a.by_inputs[:, shared:])


def rows_are_as_alone(case: Case, layer: Subject, together: Result, tolerance: float) -> None:
    for i, row in enumerate(rows_of(case.inputs)):
        alone = layer(row[None], gradients=False)
        assert agree(together.row(i), alone.row(0), tolerance), (i, len(row))


@every_case("alone")
def test_each_row_gets_what_it_would_get_alone(case: Case) -> None:
    layer = subject(case)
    together = layer(*batch_of(case))
    rows_are_as_alone(case, layer, together, case.tolerance)


@every_case("alone")
def test_padding_may_stand_in_front(case: Case) -> None:
    layer = subject(case)
    together = layer(*batch_of(case, front=True))
    rows_are_as_alone(case, layer, together, case.tolerance)


@every_case("alone")
def test_bfloat16_holds_the_promise(case: Case) -> None:
    layer = subject(case, "mixed_bfloat16")
    rows_are_as_alone(case, layer, layer(*batch_of(case), gradients=False), 2e-2)


def check_more_padding(case: Case, training: bool) -> None:
    layer = subject(case)
    short = layer(*batch_of(case), training=training)
    long = layer(*batch_of(case, LONGER), training=training)
    for i in range(len(rows_of(case.inputs))):
        assert agree(long.row(i), short.row(i), case.tolerance)
    assert same_gradients(long, short, case.tolerance)


@every_case("padding")
def test_more_padding_changes_nothing(case: Case) -> None:
    check_more_padding(case, training=False)


@every_case("padding", among=TRAINING)
def test_more_padding_changes_nothing_in_training(case: Case) -> None:
    assert subject(case).others
    check_more_padding(case, training=True)


@every_case()
def test_junk_in_padding_changes_nothing(case: Case) -> None:
    layer = subject(case)
    x, mask = batch_of(case)
    clean = layer(x, mask)
    for junk in (1e3, -7.0):
        dirty = layer(with_junk(x, mask, junk), mask)
        for i in range(len(x)):
            assert agree(dirty.row(i), clean.row(i), case.tolerance)
        assert same_gradients(dirty, clean, case.tolerance)
        if dirty.by_inputs is not None:
            assert not np.any(dirty.by_inputs[~mask])


@every_case()
def test_order_of_rows_changes_nothing(case: Case) -> None:
    layer, order = subject(case), [2, 0, 3, 1]
    x, mask = batch_of(case)
    plain, turned = layer(x, mask), layer(x[order], mask[order])
    for place, i in enumerate(order):
        assert agree(turned.row(place), plain.row(i), case.tolerance)
    assert alike(turned.by_weights, plain.by_weights, case.tolerance)


@every_case()
def test_an_empty_row_makes_no_nan_and_changes_no_other(case: Case) -> None:
    layer = subject(case)
    x, mask = batch_of(case)
    full = layer(x, mask)
    mask[1] = False
    holed = layer(x, mask)
    for data, _ in holed.outputs:
        assert np.isfinite(data).all()
    assert all(np.isfinite(g).all() for g in holed.by_weights)
    if "alone" not in case.exempt:
        for i in (0, 2, 3):
            assert agree(holed.row(i), full.row(i), case.tolerance)
    if holed.by_inputs is not None:
        assert np.isfinite(holed.by_inputs).all()
        assert not np.any(holed.by_inputs[1])


@every_case()
@settings(max_examples=6, deadline=None)
@given(bits=st.lists(st.booleans(), min_size=4 * TIME, max_size=4 * TIME))
def test_missing_steps_contribute_nothing(case: Case, bits: list[bool]) -> None:
    """Whatever the mask: junk is not seen, and more padding changes nothing."""
    layer = subject(case)
    mask = np.array(bits).reshape(4, TIME)
    x = with_junk(batch_of(case)[0] + 1, mask, 0)
    clean, dirty = layer(x, mask), layer(with_junk(x, mask, 1e3), mask)
    for i in range(4):
        assert agree(dirty.row(i), clean.row(i), case.tolerance)
    assert same_gradients(dirty, clean, case.tolerance)
    if "padding" in case.exempt:
        return
    tail = np.zeros((4, LONGER - TIME, *x.shape[2:]), x.dtype)
    long = layer(np.concatenate([x, tail], 1), np.pad(mask, ((0, 0), (0, LONGER - TIME))))
    for i in range(4):
        assert agree(long.row(i), clean.row(i), case.tolerance)
    assert same_gradients(long, clean, case.tolerance)
    if case.name in WINDOWLESS and case.label != "window":
        compact = padded([x[i][mask[i]] for i in range(4)], TIME)
        packed = layer(*compact)
        for i in range(4):
            assert agree(packed.row(i), clean.row(i), case.tolerance)
        assert alike(packed.by_weights, clean.by_weights, case.tolerance)


@pytest.mark.parametrize("junk", [1e3, np.inf, np.nan], ids=["large", "inf", "nan"])
@pytest.mark.parametrize("way", ["Masked", "mask="])
def test_padding_is_finite_from_where_a_mask_is_born(way: str, junk: float) -> None:
    x, mask = padded(rows_of("sequence"), TIME)
    dirty = with_junk(x, mask, junk)
    layer = keras.layers.Dense(3)
    made = layer(keras.Masked(dirty, mask)) if way == "Masked" else layer(dirty, mask=mask)
    assert close(made.fill(0), layer(keras.Masked(x, mask)).fill(0), 1e-6)
    assert np.isfinite(np.asarray(made.data)).all()


def test_the_attention_of_old_notes_holds_the_promise() -> None:
    layers = keras.layers
    inputs = keras.Input((TIME, 4))
    h = layers.Masking()(inputs)
    scores = layers.Activation("softmax")(layers.Flatten()(layers.Dense(1)(h)))
    weights = layers.Permute((2, 1))(layers.RepeatVector(4)(scores))
    pooled = layers.Lambda(lambda x: keras.ops.sum(x, axis=1))(layers.Multiply()([h, weights]))
    model = keras.Model(inputs, pooled)
    kernel = np.asarray(model.get_layer(index=2).get_weights()[0])
    rows = rows_of("sequence")
    out = model.predict(padded(rows, TIME)[0], verbose=0)
    for i, row in enumerate(rows):
        score = row @ kernel
        share = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
        assert close(out[i], (row * share).sum(0), 1e-5)
