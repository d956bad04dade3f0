"""JAX's transforms over all rows: jit, grad, vmap, scan, leaks, types.

What only has to trace is traced and not compiled.
"""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphorn
from alphorn.core.masked import is_masked
from cases import LAYERS, Case
from rows import (
    QUICK,
    arguments,
    built,
    close,
    facts_function,
    plain_data,
    state_of,
    symbols,
    without_draws,
)

EVERY = pytest.mark.parametrize("case", LAYERS, ids=str)


def outputs_of(out: Any) -> list[Any]:
    return [o.data if is_masked(o) else o for o in jax.tree.leaves(out, is_leaf=is_masked)]


@contextlib.contextmanager
def leaks_checked() -> Iterator[None]:
    """Fails on tracers that leak; looks at new objects only, not at all that other tests left."""
    gc.freeze()
    try:
        with jax.checking_leaks():
            yield
    finally:
        gc.unfreeze()


@EVERY
def test_jit_and_vmap_give_what_eager_gives(case: Case) -> None:
    layer, x = built(case), plain_data(case)

    def call(values: list, x: Any) -> list[Any]:
        return outputs_of(layer.stateless_call(*values, *arguments(case, x))[0])

    def both(values: list, x: Any) -> tuple:
        one = jax.vmap(lambda row: [o[0] for o in call(values, row[None])])(x)
        return call(values, x), one

    eager = [np.asarray(o) for o in outputs_of(layer(*arguments(case, x)))]
    jitted, mapped = jax.jit(both, compiler_options=QUICK)(state_of(layer), x)
    for a, b, c in zip(eager, jitted, mapped, strict=True):
        assert close(np.asarray(b), a, case.tolerance)
        assert close(np.asarray(c), a, case.tolerance)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@EVERY
def test_nothing_leaks_and_no_type_is_promoted_silently(case: Case, policy: str) -> None:
    alphorn.config.set_dtype_policy(policy)
    layer, x = built(case), plain_data(case)
    values = state_of(layer)
    for training in (False, True):
        program = facts_function(case, layer, training=training)
        with leaks_checked(), jax.numpy_dtype_promotion("strict"):
            outputs, by_weights, by_inputs, state = jax.eval_shape(program, *values, x)
        expected = jnp.dtype(layer.compute_dtype)
        if case.name == "TimeDistributed" or jnp.issubdtype(expected, jnp.floating):
            assert {o.dtype for o in outputs} == {expected}
        assert [g.dtype for g in by_weights] == [v.dtype for v in values[0]]
        assert [s.dtype for s in state] == [v.dtype for v in values[1]]
        assert all(g.dtype == x.dtype for g in by_inputs)


# RNN runs any cell, and carries all that the cell may read: those must then be in the scope.
@pytest.mark.parametrize("case", [c for c in LAYERS if c.name != "RNN"], ids=str)
def test_layers_build_inside_a_trace_and_stay(case: Case) -> None:
    layer = case.make(alphorn.layers)

    def call(x: Any) -> list[Any]:
        return outputs_of(layer(*arguments(case, x)))

    with without_draws(alphorn), leaks_checked():
        jax.eval_shape(alphorn.functional(call, []), [], plain_data(case))
        twin = case.make(alphorn.layers)
        twin(*symbols(case, alphorn, plain_data(case).shape[1]))
    assert layer.built
    assert [w.shape for w in layer.weights] == [w.shape for w in twin.weights]
    for variable in layer.variables:
        assert not isinstance(variable.value, jax.core.Tracer)
