"""Masks that are hard to get right: nested, of rows, two at once, of nothing, in odd places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphorn as keras
from alphorn.core.masked import Masked, is_masked

L = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(4, 7, 3)).astype("float32")
Z = RANDOM.normal(size=(4, 5, 3)).astype("float32")
DOCUMENTS = RANDOM.normal(size=(3, 4, 5, 2)).astype("float32")
HOLES = np.array(
    [[0, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0]],
    bool,
)
OTHERS = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 0, 1, 0]], bool)
WORDS = RANDOM.integers(0, 2, (3, 4, 5)).astype(bool)
WORDS[0, 2:] = False


def junk(x, mask, value=1e3):
    """Returns the data with junk where the mask is False."""
    spread = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return np.where(spread, x, value).astype(x.dtype)


def masked(x, mask):
    return Masked(junk(x, mask), mask)


def leaves(out):
    return jax.tree.leaves(out, is_leaf=is_masked)


def data(x):
    return np.asarray(x.data if is_masked(x) else x, np.float32)


def close(a, b, tolerance=1e-5):
    a, b = data(a), data(b)
    assert a.shape == b.shape
    assert np.isfinite(a).all()
    assert np.abs(a - b).max(initial=0) <= tolerance * max(1.0, np.abs(b).max(initial=0))


# --- batches of nothing

SMALL = {
    "Conv1D": lambda: L.Conv1D(2, 3),
    "MaxPooling1D": lambda: L.MaxPooling1D(2, padding="same"),
    "GlobalMaxPooling1D": lambda: L.GlobalMaxPooling1D(),
    "BatchNormalization": lambda: L.BatchNormalization(),
    "Softmax": lambda: L.Softmax(axis=1),
    "LSTM": lambda: L.LSTM(2),
    "unrolled": lambda: L.LSTM(2, unroll=True, return_sequences=True),
    "Bidirectional": lambda: L.Bidirectional(L.GRU(2, return_sequences=True)),
    "RNN": lambda: L.RNN([L.LSTMCell(2), L.GRUCell(2)]),
    "TimeDistributed": lambda: L.TimeDistributed(L.Dense(2)),
    "Cropping1D": lambda: L.Cropping1D(1),
}


@pytest.mark.parametrize("name", SMALL)
def test_no_rows_no_steps_one_step(name):
    layer = SMALL[name]()
    layer.build((None, None, 3))
    for rows, steps in ((0, 2), (2, 0), (2, 1)):
        for valid in (True, False):
            mask = np.full((rows, steps), valid)
            for out in leaves(layer(Masked(np.ones((rows, steps, 3), "float32"), mask))):
                assert np.isfinite(data(out)).all()
                assert out.shape[0] == rows


def test_rows_shorter_than_a_window_have_no_output():
    layer = L.Conv1D(2, 3)
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
    long = layer(masked(X[:2, :4], mask))
    assert not long.mask.any()
    short = layer(masked(X[:2, :2], mask[:, :2]))
    assert short.shape == (2, 0, 2)
    with pytest.raises(keras.ShapeError, match="no window fits"):
        layer(X[:2, :2])


# --- nested masks


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (lambda: L.Reshape((-1, 2)), WORDS.reshape(3, 20)),
        (lambda: L.Reshape((4, 10)), WORDS.any(-1)),
        (lambda: L.Reshape((-1, 1)), np.repeat(WORDS.reshape(3, 20), 2, 1)),
        (lambda: L.Reshape((2, 2, 5, 2)), WORDS.reshape(3, 2, 2, 5)),
        (lambda: L.Permute((2, 1, 3)), WORDS.swapaxes(1, 2)),
        (lambda: L.Permute((1, 3, 2)), WORDS.any(-1)),
        (lambda: L.Permute((3, 1, 2)), None),
        (lambda: L.Flatten(), None),
    ],
)
def test_moved_axes_take_their_mask_along(layer, wanted):
    layer = layer()
    out = layer(masked(DOCUMENTS, WORDS))
    close(out, layer(np.where(WORDS[..., None], DOCUMENTS, 0)))
    assert is_masked(out) == (wanted is not None)
    if wanted is not None:
        assert np.array_equal(out.mask, wanted)
    rows = layer(Masked(DOCUMENTS, np.array([True, False, True])))
    assert rows.mask.tolist() == [True, False, True]


def test_a_repeated_row_keeps_the_mask_of_rows():
    out = L.RepeatVector(3)(Masked(X[:, 0], np.array([True, False, True, True])))
    assert out.mask.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    "make", [lambda: L.Conv2D(2, 2), lambda: L.MaxPooling2D(2), lambda: L.AveragePooling2D(2)]
)
def test_windows_over_nested_masks_are_refused(make):
    with pytest.raises(keras.MaskError, match=r"(?s)nested mask.*TimeDistributed"):
        make()(masked(DOCUMENTS, WORDS))


def test_words_of_sentences_of_documents():
    layer = L.TimeDistributed(L.LSTM(2))
    out = layer(masked(DOCUMENTS, WORDS))
    assert np.array_equal(out.mask, WORDS.any(-1))
    for i, j in np.argwhere(WORDS.any(-1))[:5]:
        close(out.data[i, j], layer.layer(DOCUMENTS[i, j][WORDS[i, j]][None])[0])
    rows = np.array([True, False, True])
    assert np.array_equal(L.TimeDistributed(L.Dense(2))(DOCUMENTS, mask=rows).mask[:, 0], rows)


# --- two masks


@pytest.mark.parametrize("kind", ["Attention", "AdditiveAttention", "MultiHeadAttention"])
def test_attention_between_two_masked_sequences(kind):
    layer = L.MultiHeadAttention(2, 2) if kind == "MultiHeadAttention" else getattr(L, kind)()

    def call(q, v, **options):
        return layer(q, v, **options) if kind == "MultiHeadAttention" else layer([q, v], **options)

    out, weights = call(masked(X, HOLES), masked(Z, OTHERS), return_attention_scores=True)
    assert np.array_equal(out.mask, HOLES)
    assert np.isfinite(np.asarray(weights)).all()
    unseen = ~OTHERS[:, None, None] if weights.ndim == 4 else ~OTHERS[:, None]
    assert not np.where(unseen, weights, 0).any()
    for i in range(3):
        alone = call(X[i : i + 1][:, HOLES[i]], Z[i : i + 1][:, OTHERS[i]])
        close(out.data[i][HOLES[i]], alone[0])


def test_causal_attention_of_rows_padded_in_front():
    layer = L.MultiHeadAttention(2, 2)
    mask = np.arange(7) >= np.array([[2]] * 4)
    x = masked(X, mask)
    out = layer(x, x, use_causal_mask=True)
    close(out.data[:, 2:], layer(X[:, 2:], X[:, 2:], use_causal_mask=True))


@pytest.mark.parametrize("kind", ["Attention", "MultiHeadAttention"])
def test_dropped_attention_does_not_depend_on_the_padding(kind):
    outs = []
    layer = (
        L.MultiHeadAttention(2, 2, dropout=0.5, seed=3)
        if kind == "MultiHeadAttention"
        else L.Attention(dropout=0.5, seed=3)
    )
    for pad in (0, 4):
        if kind == "MultiHeadAttention" and not layer.built:
            layer.build((None, None, 3), (None, None, 3))
        layer.seed_generator.state.assign(np.array([3, 0], "uint32"))
        x = Masked(
            np.pad(X, ((0, 0), (0, pad), (0, 0))), np.pad(np.ones((4, 7), bool), ((0, 0), (0, pad)))
        )
        out = layer(x, x, training=True) if layer.weights else layer([x, x], training=True)
        outs.append(out.data[:, :7])
    close(outs[0], outs[1])


def test_sequences_joined_in_time():
    joined = L.Concatenate(axis=1)([masked(X, HOLES), Z])
    assert np.array_equal(joined.mask, np.concatenate([HOLES, np.ones_like(OTHERS)], 1))
    layer = L.LSTM(2)
    out = layer(joined)
    for i in range(4):
        close(out[i], layer(np.concatenate([X[i][HOLES[i]], Z[i]])[None])[0])


def test_products_over_time_count_valid_steps():
    out = L.Dot(axes=1)([masked(X, HOLES), masked(X, HOLES)])
    for i in range(4):
        close(out[i], X[i][HOLES[i]].T @ X[i][HOLES[i]])
    units = L.Dot(axes=1, normalize=True)([masked(X, HOLES), masked(X, HOLES)])
    assert np.isfinite(data(units)).all()
    rows = L.Dot(axes=2)([masked(X, HOLES), masked(Z, OTHERS)])
    assert np.array_equal(rows.mask, HOLES[:, :, None] & OTHERS[:, None])
    like = L.Dot(axes=2)([X, masked(np.pad(Z, ((0, 0), (0, 2), (0, 0))), HOLES)])
    assert np.array_equal(like.mask, np.broadcast_to(HOLES[:, None], (4, 7, 7)))


@pytest.mark.parametrize("one_masked", [True, False])
def test_attention_by_hand_looks_at_valid_steps(one_masked):
    query = Z if one_masked else masked(Z, OTHERS)
    weights = L.Softmax()(L.Dot(axes=2)([query, masked(X, HOLES)]))
    seen = L.Dot(axes=(2, 1))([weights, masked(X, HOLES)])
    assert seen.mask.shape == (4, 5)
    for i in range(3):
        score = Z[i] @ X[i][HOLES[i]].T
        share = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
        wanted = share @ X[i][HOLES[i]]
        valid = np.ones(5, bool) if one_masked else OTHERS[i]
        close(data(seen)[i][valid], wanted[valid])


MERGES = {
    "Add": lambda x, y: x + y,
    "Subtract": lambda x, y: x - y,
    "Multiply": lambda x, y: x * y,
    "Average": lambda x, y: (x + y) / 2,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Concatenate": lambda x, y: np.concatenate([x, y], -1),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", MERGES)
def test_an_unmasked_branch_makes_no_claim(name, turned):
    plain = RANDOM.normal(size=X.shape).astype("float32")
    pair, arrays = [masked(X, HOLES), plain], [X, plain]
    if turned:
        pair, arrays = pair[::-1], arrays[::-1]
    out = getattr(L, name)()(pair)
    assert np.array_equal(out.mask, HOLES)
    close(data(out)[HOLES], MERGES[name](*arrays)[HOLES])
    shape = L.Input((None, 3))
    mask = L.Input((None,), dtype="bool")
    assert getattr(L, name)()([shape, shape], mask=[mask, None]).masked == 2


# --- recurrence


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_masked_sequence_begins_at_given_states(kind, backwards):
    options = {"return_sequences": True, "return_state": True, "go_backwards": backwards}
    layer = getattr(L, kind)(2, **options)
    count = 2 if kind == "LSTM" else 1
    given = [RANDOM.normal(size=(4, 2)).astype("float32") for _ in range(count)]
    out, *states = layer(masked(X, HOLES), initial_state=given)
    for i in range(3):
        alone, *last = layer(X[i : i + 1][:, HOLES[i]], initial_state=[s[i : i + 1] for s in given])
        close(out.data[i][np.asarray(out.mask)[i]], alone[0])
        for state, end in zip(states, last, strict=True):
            close(state[i], end[0])
    for state, first in zip(states, given, strict=True):
        close(state[3], first[3])


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_both_ways_with_holes_in_every_merge_mode(merge_mode):
    layer = L.Bidirectional(
        L.GRU(2, return_sequences=True, return_state=True), merge_mode=merge_mode
    )
    outs = leaves(layer(masked(X, HOLES)))
    for i in range(3):
        alone = leaves(layer(X[i : i + 1][:, HOLES[i]]))
        for out, one in zip(outs, alone, strict=True):
            assert is_masked(out) == (out.ndim == 3)
            close(data(out)[i][HOLES[i]] if out.ndim == 3 else data(out)[i], data(one)[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_stay_finite_and_keep_their_type(dtype):
    x = Masked(junk(X, HOLES, 6e4), HOLES)
    for layer in (
        L.GRU(2, return_sequences=True, dtype=dtype),
        L.BatchNormalization(dtype=dtype),
        L.Conv1D(2, 3, padding="same", dtype=dtype),
        L.GlobalMaxPooling1D(dtype=dtype),
        L.GlobalAveragePooling1D(dtype=dtype),
        L.Softmax(axis=1, dtype=dtype),
        L.MaxPooling1D(2, padding="same", dtype=dtype),
    ):
        out = layer(x, training=True)
        assert out.dtype == jnp.dtype(dtype)
        assert np.isfinite(data(out)).all()
