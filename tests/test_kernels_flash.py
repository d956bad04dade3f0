"""Fused attention: the packing of rows, and which attention it takes.

The kernel needs a GPU; here XLA's plain attention stands in for it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphorn.kernels import flash
from alphorn.kernels.attention import attention_output

B, T, H, D = 3, 6, 2, 8
MASK = jnp.asarray([[1, 1, 1, 1, 0, 0], [0, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]], bool)


@pytest.fixture
def on_cuda(monkeypatch):
    monkeypatch.setattr(flash, "on_cuda", lambda: True)
    monkeypatch.setattr(flash, "_IMPLEMENTATION", "xla")


def draws(dtype=jnp.bfloat16, steps=(T, T, T)):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(B, s, H, D)), dtype) for s in steps]


@pytest.mark.parametrize(
    "masks",
    [
        {"query_mask": MASK, "key_mask": MASK},
        {"query_mask": MASK, "key_mask": MASK, "causal": True},
        {"query_mask": MASK, "key_mask": MASK[::-1]},
        {"key_mask": MASK},
        {"causal": True},
        {},
    ],
    ids=lambda masks: " ".join(masks) or "none",
)
def test_is_the_plain_one(on_cuda, monkeypatch, masks):
    junk = MASK if "query_mask" in masks else jnp.ones_like(MASK)
    given = [jnp.where(junk[..., None, None], x, jnp.nan) for x in draws()]
    given[1:] = [
        jnp.where(masks["key_mask"][..., None, None], x, jnp.nan) if "key_mask" in masks else x
        for x in draws()[1:]
    ]
    taken = []

    def loss(query, key, value):
        output = attention_output(query, key, value, **masks)
        return jnp.sum(output.astype(jnp.float32) ** 2), output

    def both():
        # Traced anew each time: the choice is made at trace time.
        return jax.jit(jax.grad(lambda *a: loss(*a), (0, 1, 2), has_aux=True))(*given)

    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda *a, kernel=jax.nn.dot_product_attention, **k: (taken.append(k), kernel(*a, **k))[1],
    )
    got = both()
    assert len(taken) == 1
    monkeypatch.setattr(flash, "on_cuda", lambda: False)
    wanted = both()
    assert len(taken) == 1
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype == jnp.bfloat16
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.abs(a - b).max() <= 2e-2 * np.abs(b).max()


def test_what_it_takes(on_cuda):
    def taken(*steps, dtype=jnp.bfloat16, query_mask=None, key_mask=None, causal=False):
        given = draws(dtype, steps or (T, T, T))
        return flash.runs(*given, query_mask=query_mask, key_mask=key_mask, causal=causal)

    assert taken()
    assert taken(4, T, T)
    assert taken(query_mask=MASK, key_mask=MASK, causal=True)
    # Steps move apart: which keys are earlier is then unknown.
    assert not taken(key_mask=MASK, causal=True)
    assert not taken(4, T, T, causal=True)
    assert not taken(dtype=jnp.float32)
    assert not flash.runs(
        *(x[..., :4] for x in draws()), query_mask=None, key_mask=None, causal=False
    )
