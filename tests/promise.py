"""Data for the rows of `cases`: batches of unequal rows, and each row alone."""

from typing import Any

import jax
import numpy as np

import alphorn as keras
from alphorn.core.masked import is_masked

FEATURES = 4
SHAPES = {
    "sequence": (FEATURES,),
    "pair": (FEATURES,),
    "two": (FEATURES,),
    "grid": (3, FEATURES),
    "nested": (5, FEATURES),
    "ids": (),
}


def data_for(kind: str, rows: int, time: int, seed: int = 0) -> np.ndarray:
    """Returns `(rows, time, ...)` without padding."""
    random = np.random.default_rng(seed)
    if kind == "ids":
        return random.integers(1, 20, (rows, time)).astype("int32")
    return random.normal(size=(rows, time, *SHAPES[kind])).astype("float32")


def arguments(kind: str, *, x: Any, mask: Any = None) -> tuple:
    """Returns what the layer is called on: one sequence, a list of two, or two arguments."""
    value = x if mask is None else keras.Masked.trusted(x, np.asarray(mask))
    if kind == "pair":
        return ([value, value],)
    return (value, value) if kind == "two" else (value,)


def padded(rows: list[np.ndarray], time: int, front: bool, junk: Any) -> tuple[Any, Any]:
    """Returns rows as one batch with `junk` round them, and its mask."""
    batch = np.full((len(rows), time, *rows[0].shape[1:]), junk).astype(rows[0].dtype)
    mask = np.zeros((len(rows), time), bool)
    for i, row in enumerate(rows):
        at = time - len(row) if front else 0
        batch[i, at : at + len(row)] = row
        mask[i, at : at + len(row)] = True
    return batch, mask


def leaves(out: Any) -> list[Any]:
    """Returns outputs as a list of arrays and Masked."""
    return jax.tree.leaves(out, is_leaf=is_masked)


def valid_part(out: Any, row: int) -> np.ndarray:
    """Returns the steps of one row that exist, or the row where time is gone."""
    if is_masked(out):
        mask = np.asarray(out.mask)[row]
        return np.asarray(out.data)[row][mask] if mask.ndim else np.asarray(out.data)[row]
    return np.asarray(out)[row]


def close(a: Any, b: Any, tolerance: float) -> bool:
    """Returns whether two arrays agree, relative to the largest value."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return False
    if not np.isfinite(a).all():
        return False
    scale = max(np.abs(b).max(initial=0), 1.0)
    return bool(np.abs(a - b).max(initial=0) <= tolerance * scale)
