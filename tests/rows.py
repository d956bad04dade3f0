"""Layers of the rows of `cases`, built with known weights, and what one compiled call says of them."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import alphorn
from alphorn.core.masked import is_masked
from cases import Case

ROWS, TIME, FEATURES = 3, 6, 4
# A program runs once here: to make it fast costs more than it gives.
QUICK = {"xla_backend_optimization_level": 0}
SHAPES = {
    "vector": (FEATURES,),
    "ids": (TIME,),
    "grid": (TIME, 3, FEATURES),
    "solid": (TIME, 3, 2, FEATURES),
    "movie": (TIME, 2, 3, 2, FEATURES),
    "nested": (TIME, 5, FEATURES),
}


def shape_of(case: Case) -> tuple[int, ...]:
    """Returns the shape of one example."""
    return SHAPES.get(case.inputs, (TIME, FEATURES))


def plain_data(case: Case) -> np.ndarray:
    """Returns `ROWS` examples of `TIME` steps without padding."""
    random = np.random.default_rng(0)
    if case.inputs == "ids":
        return random.integers(1, 20, (ROWS, TIME)).astype("int32")
    return random.normal(size=(ROWS, *shape_of(case))).astype("float32")


def arguments(case: Case, *xs: Any) -> tuple:
    """Returns what the layer is called on: one sequence, a list of two, or two arguments."""
    two = xs if len(xs) == 2 else xs * 2
    return {"pair": (list(two),), "two": two}.get(case.inputs, xs[:1])


def symbols(case: Case, namespace: Any, time: int | None = None) -> tuple:
    """Returns the symbolic arguments of the row, from our Input or Keras's."""
    shape = shape_of(case)
    if case.inputs != "vector":
        shape = (time, *shape[1:])
    dtype = "int32" if case.inputs == "ids" else "float32"
    return arguments(case, *(namespace.Input(shape, dtype=dtype) for _ in range(2)))


def weights_for(layer: Any, seed: int = 1) -> list[np.ndarray]:
    """Returns positive values like the layer's weights: a variance is never below 0."""
    random = np.random.default_rng(seed)
    return [
        np.abs(random.normal(size=w.shape)).astype("float32") * 0.5 + 0.1 for w in layer.weights
    ]


def _zeros(self: Any, shape: tuple, dtype: Any = None) -> np.ndarray:
    return np.zeros(shape, dtype or "float32")


@contextlib.contextmanager
def without_draws(namespace: Any) -> Iterator[None]:
    """First values are zeros: a draw costs a compilation a shape, and is replaced at once."""
    with contextlib.ExitStack() as stack:
        for name in ("VarianceScaling", "Orthogonal", "RandomUniform"):
            initializer = getattr(namespace.initializers, name)
            stack.enter_context(mock.patch.object(initializer, "__call__", _zeros))
        yield


def built(case: Case, namespace: Any = alphorn, seed: int = 1) -> Any:
    """Returns the row's layer, built from symbols, with `weights_for` it."""
    with without_draws(namespace):
        layer = case.make(namespace.layers)
        layer(*symbols(case, namespace, TIME))
    layer.set_weights(weights_for(layer, seed))
    return layer


@dataclass(frozen=True)
class Facts:
    """Outputs, the gradients of their weighted sum by weights and by inputs, and the state."""

    outputs: list[np.ndarray]
    by_weights: list[np.ndarray]
    by_inputs: list[np.ndarray]
    state: list[np.ndarray]


def facts_function(case: Case, layer: Any, mask: Any = None, **options: Any) -> Any:
    """Returns the pure function `(trainable, others, x) -> Facts`, as a tuple, of either library.

    With a mask `(ROWS, TIME)`, outputs are 0 where they are steps that the mask leaves out.
    """
    takes_mask = isinstance(layer, alphorn.Layer) or "mask" in signature(layer.call).parameters
    if mask is not None and takes_mask:
        options["mask"] = [mask, mask] if case.inputs == "pair" else mask

    def plain(out: Any) -> Any:
        out = out.data if is_masked(out) else out
        if mask is None or out.shape[:2] != mask.shape or out.ndim < 3:
            return out
        return jnp.where(mask[..., None], out, 0)

    def loss(trainable: list, x: Any, others: list) -> Any:
        out, state = layer.stateless_call(trainable, others, *arguments(case, x), **options)
        outs = [plain(o) for o in jax.tree.leaves(out, is_leaf=is_masked)]
        # Neither symmetric nor constant, so that no gradient vanishes by chance.
        parts = [
            jnp.sum(
                o.astype("float32") * np.cos(np.arange(o.size)).astype("float32").reshape(o.shape)
            )
            for o in outs
        ]
        return sum(parts, start=jnp.zeros(())), (outs, state)

    def run(trainable: list, others: list, x: Any) -> tuple:
        by = (0,) if case.inputs == "ids" else (0, 1)
        found, (outs, state) = jax.grad(loss, by, has_aux=True)(trainable, x, others)
        return outs, found[0], list(found[1:]), state

    return run


def state_of(layer: Any) -> list[list[jax.Array]]:
    """Returns the values of a layer of either library: trainable ones, and the others."""
    return [
        [jnp.asarray(v.value) for v in variables]
        for variables in (layer.trainable_variables, layer.non_trainable_variables)
    ]


def facts_of(case: Case, layer: Any, x: np.ndarray, **options: Any) -> Facts:
    """Returns what one compiled call says."""
    program = jax.jit(facts_function(case, layer, **options), compiler_options=QUICK)
    found = program(*state_of(layer), x)
    return Facts(*([np.asarray(v) for v in part] for part in found))


@functools.cache
def our_facts(case: Case) -> Facts:
    """Returns what the row's own layer says of `plain_data`, in inference."""
    return facts_of(case, built(case), plain_data(case))


def close(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> bool:
    """Returns whether two arrays agree, relative to the largest value."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return False
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return bool(np.abs(a - b).max(initial=0) <= tolerance * np.abs(b).max(initial=1e-30))
