"""A recurrence to test kernels with, and the same written as a plain scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alphorn.kernels.gates import gru, lstm, simple_rnn

B, T, F, U = 4, 7, 3, 5
GATES = {"simple": 1, "lstm": 4, "gru": 3, "gru_before": 3}
KINDS = list(GATES)
MASK = np.array(
    [
        [1, 1, 1, 1, 0, 0, 0],  # padded behind
        [0, 0, 0, 1, 1, 1, 1],  # padded in front
        [0, 1, 0, 1, 1, 1, 0],  # a hole within
        [0, 0, 0, 0, 0, 0, 0],  # empty
    ],
    bool,
)


def problem(kind, dtype=np.float32, seed=0, batch=B, steps=T):
    """Arguments as a dict: x, states, kernel, recurrent_kernel, bias."""
    rng = np.random.default_rng(seed)
    width = GATES[kind] * U

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) * 0.5, dtype)

    return {
        "x": draw(batch, steps, F) * 2,
        "states": [draw(batch, U) for _ in range(2 if kind == "lstm" else 1)],
        "kernel": draw(F, width),
        "recurrent_kernel": draw(U, width),
        "bias": draw(2, width) if kind == "gru" else draw(width),
    }


def run(kind, p, mask=None, **options):
    """The kernel under test: `(outputs, states)`."""
    args = (p["x"], None if mask is None else jnp.asarray(mask), *p["states"])
    args = (*args, p["kernel"], p["recurrent_kernel"], p["bias"])
    if kind == "simple":
        return simple_rnn(*args, **options)
    if kind == "lstm":
        return lstm(*args, **options)
    return gru(*args, reset_after=kind == "gru", **options)


@functools.cache
def compiled(f, kind, masked=True, **options):
    """`f` jitted, as a function of problem and mask: `(result, gradients of scalar)`."""

    def both(p, mask):
        def loss(p):
            result = f(kind, p, mask if masked else None, **options)
            return scalar(result), result

        grads, result = jax.grad(loss, has_aux=True)(p)
        return result, grads

    return jax.jit(both)


def plain_step(kind, p, x, states, act=jnp.tanh, gate=jax.nn.sigmoid, drop=1):
    """One step, written out from the papers; `drop` multiplies the state that enters products."""
    W, U_, b, h = p["kernel"], p["recurrent_kernel"], p["bias"], states[0] * drop
    if kind == "simple":
        return (act(x @ W + h @ U_ + b),)
    if kind == "lstm":
        i, f, c, o = jnp.split(x @ W + h @ U_ + b, 4, -1)
        carry = gate(f) * states[1] + gate(i) * act(c)
        return gate(o) * act(carry), carry
    if kind == "gru":
        xz, xr, xh = jnp.split(x @ W + b[0], 3, -1)
        hz, hr, hh = jnp.split(h @ U_ + b[1], 3, -1)
        z = gate(xz + hz)
        return (z * states[0] + (1 - z) * act(xh + gate(xr + hr) * hh),)
    xz, xr, xh = jnp.split(x @ W + b, 3, -1)
    uz, ur, uh = jnp.split(U_, 3, -1)
    z, r = gate(xz + h @ uz), gate(xr + h @ ur)
    return (z * states[0] + (1 - z) * act(xh + (r * h) @ uh),)


def reference(kind, p, mask=None, **options):
    """The kernel as a plain scan that JAX differentiates."""
    mask = jnp.ones(p["x"].shape[:2], bool) if mask is None else jnp.asarray(mask)

    def step(carry, now):
        states, previous = carry
        x, valid = now
        new = plain_step(kind, p, x, states, **options)

        def pick(n, o):
            return jnp.where(valid[:, None], n, o)

        states = tuple(map(pick, new, states))
        output = pick(new[0], previous)
        return (states, output), output

    x = jnp.where(mask[..., None], p["x"], 0)
    start = (tuple(p["states"]), jnp.zeros_like(p["states"][0]))
    (states, _), outputs = lax.scan(step, start, (jnp.swapaxes(x, 0, 1), mask.T))
    return jnp.swapaxes(outputs, 0, 1), states


def scalar(result):
    """A number on which every output and state acts differently."""
    outputs, states = result
    weights = jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape)
    return jnp.sum(weights * outputs**2) + sum(jnp.sum(s**3) for s in states)


def close(actual, desired, tolerance=1e-5):
    """Relative to the largest value, leaf by leaf."""
    leaves, wanted = jax.tree.leaves(actual), jax.tree.leaves(desired)
    assert len(leaves) == len(wanted)
    for a, b in zip(leaves, wanted, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        assert np.abs(a - b).max(initial=0) <= tolerance * max(1.0, np.abs(b).max(initial=0))
