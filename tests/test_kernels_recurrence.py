"""The recurrent kernels: Keras unmasked, rows alone masked, gradients by a plain scan."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import functools
import re

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from alphorn.kernels import gates
from alphorn.kernels.stepping import reverse_by_extent, scan_cell
from recurrences import (
    KINDS,
    MASK,
    B,
    F,
    T,
    U,
    close,
    compiled,
    plain_step,
    problem,
    reference,
    run,
    scalar,
)


def keras_layer(kind, **options):
    """The installed Keras's layer with the problem's weights."""
    name = {"simple": "SimpleRNN", "lstm": "LSTM"}.get(kind, "GRU")
    if name == "GRU":
        options["reset_after"] = kind == "gru"
    p = problem(kind)
    layer = getattr(keras.layers, name)(U, return_state=True, **options)
    layer.build((B, T, F))
    layer.set_weights([np.asarray(p[k]) for k in ("kernel", "recurrent_kernel", "bias")])
    return layer


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_unmasked_is_keras(kind, go_backwards):
    p = problem(kind)
    layer = keras_layer(kind, return_sequences=True, go_backwards=go_backwards)
    wanted, *states = layer(p["x"], initial_state=p["states"])
    got = compiled(run, kind, False, go_backwards=go_backwards)(p, MASK)[0]
    close(got, (wanted, tuple(states)))
    last = run(kind, p, go_backwards=go_backwards, sequences=False)
    close(last, (wanted[:, -1], tuple(states)))


@pytest.mark.parametrize("kind", KINDS)
def test_masked_is_keras(kind):
    p = problem(kind)
    wanted, *states = keras_layer(kind, return_sequences=True)(
        p["x"], mask=jnp.asarray(MASK), initial_state=p["states"]
    )
    (outputs, last), _ = compiled(run, kind)(p, MASK)
    # Before the first valid step Keras puts out the first state, we zeros: no output yet.
    begun = np.cumsum(MASK, 1)[..., None] > 0
    close((outputs, last), (np.where(begun, wanted, 0), tuple(states)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_keras(kind):
    p = problem(kind)
    layer = keras_layer(kind, return_sequences=True)
    order = ("kernel", "recurrent_kernel", "bias")

    def loss(weights, x):
        (outputs, *states), _ = layer.stateless_call(
            weights,
            layer.non_trainable_variables,
            x,
            mask=jnp.asarray(MASK),
            initial_state=p["states"],
        )
        return scalar((jnp.where(MASK[..., None], outputs, 0), states))

    def ours(p):
        outputs, states = run(kind, p, MASK)
        return scalar((jnp.where(MASK[..., None], outputs, 0), states))

    wanted = jax.jit(jax.grad(loss, (0, 1)))([p[k] for k in order], p["x"])
    got = jax.jit(jax.grad(ours))(p)
    close(([got[k] for k in order], got["x"]), wanted)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_a_plain_scan(kind, masked):
    p = problem(kind)
    close(compiled(run, kind, masked)(p, MASK), compiled(reference, kind, masked)(p, MASK))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("simple", "relu"),
        ("simple", "softsign"),
        ("lstm", "relu"),
        ("lstm", "softsign"),
        ("gru", "linear"),
        ("gru", "relu"),
        ("gru_before", "linear"),
    ],
)
def test_other_activations(kind, name):
    act = {"relu": jax.nn.relu, "linear": None, "softsign": jax.nn.soft_sign}[name]
    options, plain = {"activation": act}, {"act": act or jnp.asarray}
    if kind != "simple":
        options["recurrent_activation"] = plain["gate"] = jax.nn.hard_sigmoid
        if name == "relu":  # derivatives from outputs on one side, by JAX on the other
            options["recurrent_activation"] = plain["gate"] = jax.nn.sigmoid
    p = jax.tree.map(lambda a: a * 0.5, problem(kind))
    got = compiled(run, kind, **options)(p, MASK)
    close(got, compiled(reference, kind, **plain)(p, MASK))


@pytest.mark.parametrize("kind", KINDS)
def test_second_order(kind):
    def penalty(f, p):
        g = jax.grad(lambda p: scalar(f(kind, p, MASK)))(p)
        return sum(jnp.sum(a**2) for a in jax.tree.leaves(g))

    p = problem(kind)
    got = jax.jit(jax.grad(functools.partial(penalty, run)))(p)
    wanted = jax.jit(jax.grad(functools.partial(penalty, reference)))(p)
    close(got, wanted, 3e-5)  # squares of sums


def test_second_order_of_an_activation_that_jax_differentiates():
    def penalty(f, p, **options):
        g = jax.grad(lambda p: scalar(f("lstm", p, MASK, **options)))(p)
        return sum(jnp.sum(a**2) for a in jax.tree.leaves(g))

    p = problem("lstm")
    got = jax.jit(jax.grad(lambda p: penalty(run, p, activation=jax.nn.soft_sign)))(p)
    close(got, jax.jit(jax.grad(lambda p: penalty(reference, p, act=jax.nn.soft_sign)))(p))


def test_third_order():
    with jax.enable_x64(True):  # small numbers left over from large ones
        third_order(problem("simple", np.float64))


def third_order(p):

    def along(f, weight, order):

        def g(k):
            return scalar(f("simple", p | {"recurrent_kernel": k}, MASK))

        for _ in range(order):
            g = (lambda h: lambda k: jnp.sum(jax.grad(h)(k) * weight))(g)
        return g(p["recurrent_kernel"])

    weight = jnp.sin(jnp.arange(U * U, dtype=jnp.float64)).reshape(U, U)

    def third(f):
        return float(jax.jit(lambda weight: along(f, weight, 3))(weight))

    assert third(run) == pytest.approx(third(reference), rel=1e-12)


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_junk_and_more_padding_change_nothing(kind, go_backwards):
    p = problem(kind)
    wide = np.pad(MASK, ((0, 0), (0, 3)))
    x = np.pad(np.asarray(p["x"]), ((0, 0), (0, 3), (0, 0)))
    both = compiled(run, kind, go_backwards=go_backwards, sequences=False)
    result, wanted = both(p, MASK)
    for junk in (1e3, np.inf, np.nan):
        again, got = both(p | {"x": jnp.where(wide[..., None], x, junk)}, wide)
        close(again, result)
        assert not np.asarray(got["x"])[~wide].any()
        close(got | {"x": got["x"][:, :T]}, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("go_backwards", [False, True])
def test_each_row_is_as_alone(kind, go_backwards):
    p = problem(kind)
    (outputs, states), _ = compiled(run, kind, go_backwards=go_backwards)(p, MASK)
    turned = np.asarray(reverse_by_extent(jnp.asarray(MASK), jnp.asarray(MASK)))
    valid = turned if go_backwards else MASK
    alone_run = jax.jit(lambda p: run(kind, p, go_backwards=go_backwards))
    for row in range(3):
        steps = np.asarray(p["x"])[row : row + 1, MASK[row]]
        alone = p | {"x": jnp.asarray(steps), "states": [s[row : row + 1] for s in p["states"]]}
        wanted, last = alone_run(alone)
        close(outputs[row][valid[row]], wanted[0])
        close([s[row] for s in states], [s[0] for s in last])


@pytest.mark.parametrize("kind", KINDS)
def test_what_masked_steps_put_out(kind):
    p = problem(kind)
    outputs = np.asarray(run(kind, p, MASK)[0])
    assert (outputs[0, 4:] == outputs[0, 3]).all()
    assert not outputs[1, :3].any()
    assert (outputs[2, 2] == outputs[2, 1]).all()
    zeros = np.asarray(run(kind, p, MASK, zero_output_for_mask=True)[0])
    np.testing.assert_array_equal(zeros, np.where(MASK[..., None], outputs, 0))
    last = run(kind, p, MASK, zero_output_for_mask=True, sequences=False)[0]
    close(last[0], outputs[0, 3])
    # A row without steps: no output, and the states that it came with.
    empty, states = run(kind, p, MASK, sequences=False)
    assert not np.asarray(empty[3]).any()
    close([s[3] for s in states], [s[3] for s in p["states"]], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_steps_at_all(kind):
    p = problem(kind) | {"x": jnp.zeros((B, 0, F))}
    outputs, states = run(kind, p)
    assert outputs.shape == (B, 0, U)
    close(states, tuple(p["states"]), 0)
    close(run(kind, p, sequences=False)[0], jnp.zeros((B, U)))


@pytest.mark.parametrize("kind", KINDS)
def test_vmap(kind):
    ps = [problem(kind, seed=s) for s in range(3)]
    masks = np.stack([MASK, np.roll(MASK, 1, 0), ~MASK])
    grad = jax.grad(lambda p, mask: scalar(run(kind, p, mask)))
    single, grad = grad, jax.jit(grad)
    got = jax.jit(jax.vmap(single))(jax.tree.map(lambda *a: jnp.stack(a), *ps), jnp.asarray(masks))
    wanted = [grad(p, m) for p, m in zip(ps, masks, strict=True)]
    close(got, jax.tree.map(lambda *a: jnp.stack(a), *wanted))
    # Over the weights alone: an ensemble on one batch.
    kernels = jnp.stack([q["recurrent_kernel"] for q in ps])
    got = jax.vmap(lambda k: single(ps[0] | {"recurrent_kernel": k}, MASK)["x"])
    got = jax.jit(got)(kernels)
    close(got[1], grad(ps[0] | {"recurrent_kernel": kernels[1]}, MASK)["x"])


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, jnp.bfloat16) for kind in KINDS), ("lstm", jnp.float16)]
)
def test_sixteen_bits(kind, dtype):
    p = jax.tree.map(lambda a: (a * 0.5).astype(dtype), problem(kind))
    exact = jax.tree.map(lambda a: a.astype(jnp.float32), p)

    def total(p):
        return (lambda out: (jnp.sum(out[0].astype(jnp.float32)), out))(run(kind, p, MASK))

    both = jax.jit(jax.grad(total, has_aux=True))
    with jax.numpy_dtype_promotion("strict"):
        got, out = both(p)
    wanted, out_wanted = both(exact)
    close(out, out_wanted, 2e-2)
    assert {a.dtype for a in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    close(got, wanted, 2e-2)


def test_sums_over_many_steps_keep_their_small_parts():
    p = {
        "x": jnp.ones((8, 512, 1), jnp.bfloat16),
        "states": [jnp.zeros((8, 1), jnp.bfloat16)],
        "kernel": jnp.full((1, 1), 0.25, jnp.bfloat16),
        "recurrent_kernel": jnp.zeros((1, 1), jnp.bfloat16),
        "bias": jnp.zeros((1,), jnp.bfloat16),
    }

    def total(p):
        return jnp.sum(run("simple", p, activation=None)[0].astype(jnp.float32))

    got = jax.grad(total)(p)
    # XLA's CPU adds in float32 anyway; elsewhere the type of the sum decides.
    assert not re.search(r"bf16\[[\d,]*\] = reduce_sum", str(jax.make_jaxpr(jax.grad(total))(p)))
    # 4096 ones: a sum in bfloat16 stops at 256.
    assert float(got["bias"][0]) == 4096
    assert float(got["kernel"][0, 0]) == 4096
    assert float(got["recurrent_kernel"][0, 0]) == 8 * 511 * 0.25 + 2  # rounded to 8 bits


def test_the_loop_ends_at_the_longest_row():
    p, mask = problem("lstm"), np.zeros((B, T), bool)
    mask[:, :2] = True
    seen = []

    def watched(x):
        jax.debug.callback(lambda: seen.append(1))
        return jnp.tanh(x)

    jax.block_until_ready(run("simple", problem("simple"), mask, activation=watched))
    jax.effects_barrier()
    assert len(seen) == 2
    text = jax.jit(jax.grad(lambda p, m: scalar(run("lstm", p, m)))).lower(p, mask).as_text()
    # Over blocks, their chunks and their steps, forth and back; nothing is run once more.
    assert text.count("stablehlo.while") == 6


def test_reversal_by_extent():
    mask = jnp.asarray(MASK)
    steps = jnp.broadcast_to(jnp.arange(T), (B, T))
    np.testing.assert_array_equal(
        reverse_by_extent(steps, mask),
        [
            [3, 2, 1, 0, 4, 5, 6],
            [0, 1, 2, 6, 5, 4, 3],
            [0, 5, 4, 3, 2, 1, 6],
            [0, 1, 2, 3, 4, 5, 6],
        ],
    )
    np.testing.assert_array_equal(reverse_by_extent(steps), np.asarray(steps)[:, ::-1])
    x = problem("lstm")["x"]
    np.testing.assert_array_equal(reverse_by_extent(reverse_by_extent(x, mask), mask), x)


@pytest.mark.parametrize(("unroll", "go_backwards"), [(False, True), (True, False)])
def test_any_cell_as_the_fused_one(unroll, go_backwards):
    p = problem("lstm")

    def loose(kind, p, mask, **options):
        def step(x, states):
            new = plain_step("lstm", p, x, states)
            return new[0], new

        return scan_cell(
            step,
            p["x"],
            jnp.asarray(mask),
            tuple(p["states"]),
            **options,
        )

    got = compiled(loose, "lstm", unroll=unroll, go_backwards=go_backwards)(p, MASK)
    close(got, compiled(run, "lstm", go_backwards=go_backwards)(p, MASK))


def test_any_cell_on_structures():
    mask = jnp.asarray(MASK)
    x = {"a": jnp.ones((B, T, 2)), "n": jnp.ones((B, T), jnp.int32)}

    def step(now, states):
        total = {"sum": states["sum"] + now["a"], "count": states["count"] + now["n"]}
        return (total["sum"], total["count"]), total

    start = {"sum": jnp.zeros((B, 2)), "count": jnp.zeros(B, jnp.int32)}
    (sums, counts), last = scan_cell(step, x, mask, start)
    np.testing.assert_array_equal(counts, np.cumsum(MASK, 1))
    np.testing.assert_array_equal(sums[..., 0], np.cumsum(MASK, 1))
    np.testing.assert_array_equal(last["count"], MASK.sum(1))
    (_, zeroed), _ = scan_cell(step, x, mask, start, zero_output_for_mask=True)
    np.testing.assert_array_equal(zeroed, np.where(MASK, np.cumsum(MASK, 1), 0))


def test_a_cell_with_poles_has_finite_gradients_under_padding():
    def total(x, scale):
        def step(now, states):
            unit = now / jnp.linalg.norm(now, axis=-1, keepdims=True)
            new = states + jnp.log(jnp.abs(unit)) * scale
            return new, new

        outputs, last = scan_cell(step, x, jnp.asarray(MASK), jnp.zeros((B, F)))
        return jnp.sum(outputs**2) + jnp.sum(last)

    x = jnp.where(MASK[..., None], problem("lstm")["x"], jnp.nan)
    by_x, by_scale = jax.grad(total, (0, 1))(x, jnp.float32(1.5))
    assert np.isfinite(np.asarray(by_x)).all()
    assert not np.asarray(by_x)[~MASK].any()
    assert np.isfinite(by_scale)


def test_the_gates_of_a_gru_are_a_pass_of_their_own():
    """Within the pass that writes the state XLA's CPU computes them one number at a time."""
    units, rows = 16, 8
    x, mask = jnp.ones((rows, 40, 4)), jnp.ones((rows, 40), bool)
    weights = jnp.ones((4, 3 * units)), jnp.ones((units, 3 * units)), jnp.ones((2, 3 * units))
    layer = jax.jit(lambda *a: gates.gru(*a, sequences=False)[0])
    text = layer.lower(x, mask, jnp.zeros((rows, units)), *weights).compile().as_text()
    (computing,) = (p for p in text.split("\n\n") if re.search(r"f32\[8,32\]\S* tanh\(", p))
    assert re.search(r"ROOT \S+ = f32\[8,32\]", computing)
