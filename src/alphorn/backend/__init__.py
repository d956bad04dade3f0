"""Keras 2's backend, `from alphorn import backend as K`: its functions on JAX, which know masks.

Most are rows of a table on `ops`, and take arrays, Masked sequences and Symbols.
"""

import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

from alphorn import config, ops
from alphorn.backend import graphs, network, rows, state
from alphorn.backend.graphs import *  # noqa: F403
from alphorn.backend.network import *  # noqa: F403
from alphorn.backend.state import *  # noqa: F403
from alphorn.backend.state import reset_uids, set_training
from alphorn.config import floatx
from alphorn.naming import register
from alphorn.preprocessing import image


def backend() -> str:
    """Returns "jax"."""
    return "jax"


def clear_session(free_memory: bool = True) -> None:
    """Starts names and the learning phase again. Models that nobody holds are freed by themselves."""
    reset_uids()
    set_training(None)


def standardize_dtype(dtype: Any) -> str:
    """Returns the name of a number type; `floatx()` for None.

    >>> standardize_dtype(np.float32), standardize_dtype(int)
    ('float32', 'int32')
    """
    if dtype is None:
        return floatx()
    plain = {bool: "bool", int: "int32", float: floatx()}
    return plain[dtype] if dtype in plain else jnp.dtype(dtype).name


def is_float_dtype(dtype: Any) -> bool:
    """Returns whether a number type is one of floats."""
    return bool(jnp.issubdtype(standardize_dtype(dtype), jnp.floating))


def is_int_dtype(dtype: Any) -> bool:
    """Returns whether a number type is one of integers."""
    return bool(jnp.issubdtype(standardize_dtype(dtype), jnp.integer))


def result_type(*dtypes: Any) -> str:
    """Returns the number type of a sum of arrays of these types."""
    types = [np.dtype(standardize_dtype(d)) for d in dtypes] or [np.dtype("float32")]
    return jnp.result_type(*types).name


def _made(name: str, summary: str, function: Any) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__module__ = __name__
    function.__doc__ = f"{summary}\n\nMask: as in the ops behind it."
    return register("backend", function, name)


_TABLE = {name: getattr(ops, name) for name in rows.SAME}
_SETTINGS = "epsilon floatx image_data_format set_epsilon set_floatx set_image_data_format"
_TABLE |= {name: getattr(config, name) for name in _SETTINGS.split()}
_TABLE |= {name: _made(name, *row) for name, row in rows.ROWS.items()}
globals().update(_TABLE)
__all__ = sorted(  # for tools: `__init__.pyi`
    [
        *(_TABLE.keys() | {*state.__all__, *network.__all__, *graphs.__all__}),
        "backend",
        "clear_session",
        "is_float_dtype",
        "is_int_dtype",
        "result_type",
        "standardize_dtype",
    ]
)

image.K = sys.modules[__name__]  # pyright: ignore[reportAttributeAccessIssue]


def __getattr__(name: str) -> Any:
    way = f"; {rows.GONE[name]}" if name in rows.GONE else ""
    raise AttributeError(f"alphorn.backend has no '{name}'{way}")
