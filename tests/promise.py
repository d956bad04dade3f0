"""A layer of `cases` under test: batches of unequal rows, and the programs that all tests share.

Compiling costs more than running, so a layer is compiled once for each of a few shapes, outputs,
gradients and state updates together, and every test draws its masks and junk within these shapes.
Where only outputs are looked at, gradients, two thirds of a program, are left out.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import alphorn as keras
from alphorn.core.masked import is_masked
from cases import Case

FEATURES = 4
TIME, LONGER = 8, 11
LENGTHS = (5, 3, 5, 3)
SHAPES = {
    "sequence": (FEATURES,),
    "pair": (FEATURES,),
    "two": (FEATURES,),
    "grid": (3, FEATURES),
    "solid": (3, 2, FEATURES),
    "movie": (2, 3, 2, FEATURES),
    "nested": (5, FEATURES),
    "ids": (),
}


def data_for(kind: str, rows: int, time: int, seed: int = 0) -> np.ndarray:
    """Returns `(rows, time, ...)` without padding."""
    random = np.random.default_rng(seed)
    if kind == "ids":
        return random.integers(1, 20, (rows, time)).astype("int32")
    return random.normal(size=(rows, time, *SHAPES[kind])).astype("float32")


def arguments(kind: str, x: Any) -> tuple:
    """Returns what the layer is called on: one sequence, a list of two, or two arguments."""
    return {"pair": ([x, x],), "two": (x, x)}.get(kind, (x,))


def rows_of(kind: str) -> list[np.ndarray]:
    """Returns one row for each of `LENGTHS`."""
    whole = data_for(kind, len(LENGTHS), max(LENGTHS), seed=3)
    return [whole[i, :n] for i, n in enumerate(LENGTHS)]


def padded(rows: list[np.ndarray], time: int, front: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows as one batch with zeros round them, and its mask."""
    batch = np.zeros((len(rows), time, *rows[0].shape[1:]), rows[0].dtype)
    mask = np.zeros((len(rows), time), bool)
    for i, row in enumerate(rows):
        at = time - len(row) if front else 0
        batch[i, at : at + len(row)] = row
        mask[i, at : at + len(row)] = True
    return batch, mask


def with_junk(x: np.ndarray, mask: np.ndarray, junk: float) -> np.ndarray:
    """Returns the batch with `junk` in masked positions; ids get another id."""
    wide = mask.reshape(mask.shape + (1,) * (x.ndim - 2))
    return np.where(wide, x, 13 if x.dtype.kind == "i" else junk).astype(x.dtype)


class Result(NamedTuple):
    """What one call gives: `(data, mask or None)` of each output, gradients, new state."""

    outputs: list[tuple[np.ndarray, np.ndarray | None]]
    by_weights: list[np.ndarray]
    by_inputs: np.ndarray | None
    state: list[np.ndarray]

    def row(self, i: int) -> list[np.ndarray]:
        """Returns the steps of one row that exist, or the row where time is gone."""
        return [
            data[i] if mask is None or not mask[i].ndim else data[i][mask[i]]
            for data, mask in self.outputs
        ]


class Subject:
    """A built layer and its compiled program.

    Args:
        case: The row of `cases`.
        policy: Number types.
    """

    def __init__(self, case: Case, policy: str = "float32"):
        self.case, self.kind = case, case.inputs
        keras.utils.set_random_seed(1)
        keras.config.set_dtype_policy(policy)
        try:
            self.layer = case.make(keras.layers)
            symbol = keras.KerasTensor(
                (None, None, *SHAPES[self.kind]), "int32" if self.kind == "ids" else None
            )
            self.layer(*arguments(self.kind, symbol))
        finally:
            keras.config.set_dtype_policy(None)
        random = np.random.default_rng(1)
        self.layer.set_weights(
            [
                np.abs(random.normal(size=w.shape)).astype("float32") * 0.5 + 0.1
                for w in self.layer.weights
            ]
        )
        self.trainable = self.layer.trainable_variables
        self.others = self.layer.non_trainable_variables
        self.values = [[v.numpy() for v in group] for group in (self.trainable, self.others)]
        self._run = jax.jit(self._traced, static_argnames=("training", "gradients"))

    def _traced(self, values: Any, x: Any, mask: Any, training: bool, gradients: bool) -> Any:
        def loss(trainable: list, x: Any) -> tuple[Any, Any]:
            given = x if mask is None else keras.Masked.trusted(x, mask)
            outputs, state = self.layer.stateless_call(
                trainable, values[1], *arguments(self.kind, given), training=training
            )
            leaves = jax.tree.leaves(outputs, is_leaf=is_masked)
            plain = [o.fill(0) if is_masked(o) else o for o in leaves]
            # Unequal cotangents: a permutation of steps or features would not go unseen.
            total = sum(
                jnp.sum(jnp.square(o.astype(jnp.float32)) * (1 + jnp.arange(o.shape[-1])))
                for o in plain
            )
            pairs = [(o.data, o.mask) if is_masked(o) else (o, None) for o in leaves]
            return total, (pairs, state)

        if not gradients:
            _, (pairs, state) = loss(values[0], x)
            return pairs, [], None, state
        integers = jnp.issubdtype(x.dtype, jnp.integer)
        wanted = 0 if integers else (0, 1)
        (_, (pairs, state)), grads = jax.value_and_grad(loss, wanted, has_aux=True)(values[0], x)
        by_weights, by_inputs = (grads, None) if integers else grads
        return pairs, by_weights, by_inputs, state

    def __call__(
        self, x: Any, mask: Any = None, training: bool = False, gradients: bool = True
    ) -> Result:
        """Calls the layer; `x` may hold finite junk where `mask` is False."""
        out = self._run(self.values, x, mask, training=training, gradients=gradients)
        return Result(*jax.tree.map(np.asarray, out))


@functools.lru_cache(maxsize=4)
def subject(case: Case, policy: str = "float32") -> Subject:
    """Returns the layer of a row, built and compiled once: its tests run in a row."""
    return Subject(case, policy)


def close(a: Any, b: Any, tolerance: float, scale: float = 1.0) -> bool:
    """Returns whether two arrays agree, relative to the largest value; neither may hold NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return False
    scale = max(np.abs(b).max(initial=0), scale)
    return bool(np.abs(a - b).max(initial=0) <= tolerance * scale)


def agree(a: list[np.ndarray], b: list[np.ndarray], tolerance: float) -> bool:
    """Returns whether two lists of arrays agree."""
    return len(a) == len(b) and all(close(x, y, tolerance) for x, y in zip(a, b, strict=True))


def alike(a: list[np.ndarray], b: list[np.ndarray], tolerance: float) -> bool:
    """Returns whether gradients agree, relative to the largest of all: some are sums to zero."""
    scale = max((float(np.abs(g).max(initial=0)) for g in b), default=1.0)
    return len(a) == len(b) and all(
        close(x, y, tolerance, max(scale, 1.0)) for x, y in zip(a, b, strict=True)
    )
