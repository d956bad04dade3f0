"""Recurrences over several blocks of rows and chunks of steps: as one plain scan gives them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphorn.kernels import gates, recurrence
from alphorn.kernels.blocks import block_shape
from alphorn.kernels.gates import lstm
from recurrences import KINDS, U, close, compiled, problem, reference, run, scalar


def many_rows(kind):
    """A problem of several blocks and chunks, and a mask with rows of every sort."""
    rng = np.random.default_rng(3)
    batch, steps = 19, 70
    step, length = np.arange(steps), rng.integers(0, steps + 1, (batch, 1))
    mask = step < length
    mask[::3] = mask[::3, ::-1]  # padded in front
    mask[1::4] &= rng.random((5, steps)) < 0.8  # with missing steps
    mask[5], mask[6] = False, True
    return problem(kind, batch=batch, steps=steps), mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_chunks_are_one_plain_scan(kind, masked):
    p, mask = many_rows(kind)
    assert block_shape(*mask.shape, 100, masked).blocks == (3 if masked else 1)
    close(compiled(run, kind, masked)(p, mask), compiled(reference, kind, masked)(p, mask), 2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_states_that_enter_products_with_entries_dropped(kind):
    p, mask = many_rows(kind)
    drop = jnp.asarray(np.random.default_rng(5).integers(0, 2, (len(mask), U)) * 2.0, jnp.float32)

    def both(f):
        def loss(p):
            out = f(kind, p, mask, drop=drop)
            return scalar(out), out

        return jax.jit(jax.grad(loss, has_aux=True))(p)

    close(both(run), both(reference), 2e-5)


@pytest.mark.parametrize("sequences", [False, True])
def test_long_sequences_keep_the_states_between_chunks_alone(sequences, monkeypatch):
    p, mask = many_rows("lstm")

    def traced():
        def loss(p, mask):
            weights = (p["kernel"], p["recurrent_kernel"], p["bias"])
            args = (p["x"], mask, *p["states"], *weights)
            return scalar(lstm.__wrapped__(*args, sequences=sequences))

        return jax.make_jaxpr(jax.grad(loss))(p, mask), jax.jit(jax.grad(loss))(p, mask)

    (kept, wanted) = traced()
    monkeypatch.setattr(recurrence, "_SAVED_BYTES", 0)
    again, got = traced()
    close(got, wanted, 2e-5)
    blocks, rows, chunk, steps = block_shape(*mask.shape, 4 * U * 4 * U, True)
    carry = f"f32[{blocks * (steps + 1)},{rows},{U}]"
    assert str(kept).count(carry) > str(again).count(carry)
    assert f"f32[{blocks * (steps // chunk)},{rows},{U}]" in str(again)


@pytest.mark.parametrize("sequences", [False, True])
def test_more_steps_than_numbers_for_them_are_run_one_after_another(sequences, monkeypatch):
    p, mask = many_rows("lstm")
    weights = (p["kernel"], p["recurrent_kernel"], p["bias"])
    args = (p["x"], jnp.asarray(mask), *p["states"], *weights)
    options = {"sequences": sequences, "go_backwards": True}
    wanted = lstm(*args, **options)
    monkeypatch.setattr(gates, "_MOST_PLACES", 0)
    close(jax.jit(lambda *args: lstm.__wrapped__(*args, **options))(*args), wanted)
