"""Attention in all its forms: Keras's numbers, and each row as it would be alone."""

from typing import Any

import jax
import keras
import numpy as np
import pytest

import alphorn
from alphorn.core.masked import mask_of, unmask
from promise import close
from rows import without_draws

RANDOM = np.random.default_rng(0)
B, T, S, F = 3, 5, 7, 4
Q = RANDOM.normal(size=(B, T, F)).astype("float32")
V = RANDOM.normal(size=(B, S, F)).astype("float32")
SEEN = RANDOM.random((B, T, S)) > 0.3
QUERIES, KEYS = (3, 5, 1), (7, 2, 4)
Q_MASK = np.arange(T) < np.array(QUERIES)[:, None]
V_MASK = np.arange(S) < np.array(KEYS)[:, None]

MAKERS = {
    "multi": lambda L: L.MultiHeadAttention(2, 3),
    "multi_gate": lambda L: L.MultiHeadAttention(2, 3, output_shape=5, use_gate=True),
    "grouped": lambda L: L.GroupQueryAttention(3, 4, 2),
    "grouped_one": lambda L: L.GroupQueryAttention(3, 2, 1, use_gate=True, sliding_window=3),
    "dot": lambda L: L.Attention(use_scale=True),
    "concat": lambda L: L.Attention(score_mode="concat"),
    "additive": lambda L: L.AdditiveAttention(),
}
HEADED = [name for name in MAKERS if name.startswith(("multi", "grouped"))]
OPTIONS = {
    "plain": {},
    "causal": {"use_causal_mask": True},
    "scores": {"return_attention_scores": True},
    "all": {"use_causal_mask": True, "return_attention_scores": True},
}


def arguments(name: str, query: Any, value: Any) -> tuple:
    return (query, value) if name in HEADED else ([query, value],)


def built(name: str, namespace: Any, cross: bool = True) -> Any:
    with without_draws(namespace):
        layer = MAKERS[name](namespace.layers)
        layer(*arguments(name, Q, V if cross else Q))
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(size=w.shape) * 0.5 for w in layer.weights])
    return layer


def parts(result: Any) -> list[np.ndarray]:
    found = result if isinstance(result, list | tuple) else [result]
    return [np.asarray(unmask(r)) for r in found]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cross", [True, False], ids=["cross", "self"])
@pytest.mark.parametrize("name", MAKERS)
def test_values_are_keras_s(name: str, cross: bool, option: str) -> None:
    given = arguments(name, Q, V if cross else Q)
    ours, theirs = (
        parts(built(name, namespace, cross)(*given, **OPTIONS[option]))
        for namespace in (alphorn, keras)
    )
    assert len(ours) == len(theirs)
    assert all(close(a, b, 1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", HEADED)
def test_pairs_may_be_closed(name: str) -> None:
    ours, theirs = built(name, alphorn), built(name, keras)
    for pairs in (SEEN, SEEN.astype("int32")):
        found = [
            parts(f(Q, V, attention_mask=pairs, return_attention_scores=True))
            for f in (ours, theirs)
        ]
        if name != "grouped_one":  # where its window sees nothing, ours gives zeros
            assert all(close(a, b, 1e-5) for a, b in zip(*found, strict=True))
        weights = found[0][1]
        assert not weights[np.broadcast_to(~SEEN[:, None], weights.shape)].any()
    masked = ours(alphorn.Masked(Q, Q_MASK), alphorn.Masked(V, V_MASK), attention_mask=SEEN)
    for i, (n, m) in enumerate(zip(QUERIES, KEYS, strict=True)):
        alone = ours(Q[i : i + 1, :n], V[i : i + 1, :m], attention_mask=SEEN[i : i + 1, :n, :m])
        assert close(np.asarray(masked.data)[i, :n], alone[0], 1e-5)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", MAKERS)
def test_rows_of_two_masked_sequences_are_as_alone(name: str, option: str) -> None:
    layer = built(name, alphorn)
    query = alphorn.Masked(np.where(Q_MASK[..., None], Q, np.nan), Q_MASK)
    value = alphorn.Masked(np.where(V_MASK[..., None], V, np.nan), V_MASK)
    together = layer(*arguments(name, query, value), **OPTIONS[option])
    first = together[0] if isinstance(together, tuple) else together
    assert (np.asarray(mask_of(first)) == Q_MASK).all()
    out, *scores = parts(together)
    for i, (n, m) in enumerate(zip(QUERIES, KEYS, strict=True)):
        given = arguments(name, Q[i : i + 1, :n], V[i : i + 1, :m])
        wanted, *weights = parts(layer(*given, **OPTIONS[option]))
        assert close(out[i, :n], wanted[0], 1e-5)
        for a, b in zip(scores, weights, strict=True):
            assert close(a[i, ..., :n, :m], b[0], 1e-5)
            assert not a[i, ..., m:].any()


@pytest.mark.parametrize("name", MAKERS)
def test_in_a_graph_masks_come_with_the_sequences(name: str) -> None:
    q, v = (alphorn.Input((None, F)) for _ in range(2))
    masks = [alphorn.Input((None,), dtype="bool") for _ in range(2)]
    layer = built(name, alphorn)
    if name in HEADED:
        out = layer(q, v, query_mask=masks[0], value_mask=masks[1])
    else:
        out = layer([q, v], mask=masks)
    model = alphorn.Model([q, v, *masks], out)
    found = model([Q, V, Q_MASK, V_MASK])
    wanted = layer(*arguments(name, alphorn.Masked(Q, Q_MASK), alphorn.Masked(V, V_MASK)))
    assert close(np.asarray(found)[Q_MASK], np.asarray(wanted)[Q_MASK], 1e-5)
    again = alphorn.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert close(again([Q, V, Q_MASK, V_MASK]), found, 1e-6)


@pytest.mark.parametrize("name", HEADED)
def test_first_values_are_bounded_as_keras_s(name: str) -> None:
    sizes = []
    for namespace in (alphorn, keras):
        layer = MAKERS[name](namespace.layers)
        layer(np.ones((1, 2, 64), "float32"), np.ones((1, 2, 64), "float32"))
        sizes.append([np.abs(np.asarray(w)).max() for w in layer.weights])
    assert close(sizes[0], sizes[1], 0.2)


@pytest.mark.parametrize("name", HEADED)
def test_gradients_of_junk_are_zero(name: str) -> None:
    layer = built(name, alphorn)

    def loss(x: Any) -> Any:
        return alphorn.ops.sum(layer(alphorn.Masked(x, Q_MASK), alphorn.Masked(x, Q_MASK)) ** 2)

    x = np.where(Q_MASK[..., None], Q, 1e3)
    grads = np.asarray(jax.grad(loss)(x))
    assert np.isfinite(grads).all()
    assert not grads[~Q_MASK].any()
    assert grads[Q_MASK].any()


def test_wrong_heads_are_named() -> None:
    with pytest.raises(alphorn.ArgumentError, match=r"3 for 2 of keys"):
        alphorn.layers.GroupQueryAttention(4, 3, 2)
    with pytest.raises(alphorn.ArgumentError, match="num_key_value_heads"):
        alphorn.layers.GroupQueryAttention(4, 4, 0)
    with pytest.raises(alphorn.ArgumentError, match="sliding_window"):
        alphorn.layers.GroupQueryAttention(4, 4, 2, sliding_window=-1)
    with pytest.raises(alphorn.ShapeError, match=r"batch, time, features"):
        alphorn.layers.GroupQueryAttention(4, 4, 2)(Q[:, 0], Q)
