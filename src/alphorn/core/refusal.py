"""What functions of jnp, jax.lax and NumPy are told that meet a Masked or a Symbol."""

import sys
from collections.abc import Callable
from typing import Any

from jax import Array

from alphorn.naming import names_of

# Where functions of other libraries live, and how users write that.
_PREFIXES = (
    ("jax._src.numpy.linalg", "jnp.linalg"),
    ("jax._src.numpy.fft", "jnp.fft"),
    ("jax._src.numpy", "jnp"),
    ("jax._src.nn", "jax.nn"),
    ("jax._src.lax", "jax.lax"),
    ("jax._src.scipy.special", "jax.scipy.special"),
    ("jax._src.random", "jax.random"),
    ("jax._src.image", "jax.image"),
    ("jax._src.ops", "jax.ops"),
    ("jax", "jax"),
    ("numpy.linalg", "np.linalg"),
    ("numpy.fft", "np.fft"),
    ("numpy", "np"),
)
# Frames of JAX that stand around the function that was called.
_AROUND = ("reraise_with_filtered_traceback", "cache_miss", "__call__", "<lambda>")
# The op that stands for a library's function, where the names differ.
_SAME = {
    "asarray": "",
    "array": "",
    "lax.max": "maximum",
    "lax.min": "minimum",
    "lax.reduce_sum": "sum",
    "lax.reduce_max": "max",
    "lax.reduce_min": "min",
    "lax.reduce_prod": "prod",
    "lax.select": "where",
    "lax.rem": "mod",
    "lax.neg": "negative",
    "lax.sub": "subtract",
    "lax.mul": "multiply",
    "lax.div": "divide",
    "lax.pow": "power",
    "lax.integer_pow": "power",
    "lax.logistic": "sigmoid",
    "lax.rev": "flip",
    "concat": "concatenate",
    "permute_dims": "transpose",
}


def library_call() -> str:
    """Returns the outermost jax or numpy function above the caller, as users write it: `jnp.mean`."""
    frames = []
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] in ("jax", "numpy"):
            frames.append(frame)
        elif frames:
            break
        frame = frame.f_back
    for frame in reversed(frames):
        module, name = frame.f_globals["__name__"], frame.f_code.co_name
        if name in _AROUND:
            target = frame.f_locals.get("fun", frame.f_locals.get("self"))
            module = getattr(target, "__module__", None) or ""
            if name == "cache_miss" and module.split(".")[0] not in ("jax", "numpy"):
                return "jax.jit"  # of a function of the user's
            name = getattr(target, "__name__", name)
        public = name not in _AROUND and not name.startswith("_")
        if public and module.split(".")[0] in ("jax", "numpy"):
            return as_written(module, name)
    return ""


def as_written(module: str, name: str) -> str:
    """Returns a function of a library as users write it.

    >>> as_written("jax._src.numpy.reductions", "mean")
    'jnp.mean'
    """
    return f"{next(short for long, short in _PREFIXES if module.startswith(long))}.{name}"


def op_for(what: str) -> str:
    """Returns the op that stands for a library's function: `ops.mean` for `jnp.mean`; "" for none."""
    prefix, _, name = what.rpartition(".")
    op = _SAME.get(f"{prefix.removeprefix('jax.')}.{name}", _SAME.get(name, name))
    return f"ops.{op}" if op in names_of("functions") else ""


def refuses_arrays(value: Any) -> Callable[[], Array]:
    """Answers `__jax_array__`: absent for JAX's operators, which then ask ours; else an error.

    A method that raises would break `array + masked`: JAX's operators call it before they give
    way to ours.
    """
    if asked_by_operator(3):
        raise AttributeError("__jax_array__")
    raise value.refusal(library_call() or "jax")


def asked_by_operator(depth: int = 2) -> bool:
    """Returns whether the property that calls this was asked for by an operator of JAX's arrays."""
    frame = sys._getframe(depth)
    for _ in range(3):
        if frame is None:
            break
        if frame.f_code.co_name.startswith("_operator_"):
            return True
        frame = frame.f_back
    return False


def refuse_canonicalization(value: Any) -> Any:
    """Answers `jax.lax` functions, which do not ask for `__jax_array__`."""
    raise value.refusal(library_call() or "jax.lax")


_REFLECTED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "eq": "eq", "ne": "ne"}
_UFUNC_OPERATORS = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "truediv",
    "floor_divide": "floordiv",
    "remainder": "mod",
    "power": "pow",
    "matmul": "matmul",
    "negative": "neg",
    "absolute": "abs",
    "invert": "invert",
    "equal": "eq",
    "not_equal": "ne",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
}


def answer_ufunc(value: Any, ufunc: Any, method: str, inputs: tuple, kwargs: dict) -> Any:
    """Answers a NumPy ufunc that met `value`: those of operators by the operator, no others."""
    operator = _UFUNC_OPERATORS.get(ufunc.__name__)
    if operator is None or method != "__call__" or kwargs:
        raise value.refusal(f"np.{ufunc.__name__}")
    left, *rest = inputs
    if isinstance(left, type(value)):
        return getattr(left, f"__{operator}__")(*rest)
    reflected = _REFLECTED.get(operator, f"r{operator}")
    return getattr(rest[0], f"__{reflected}__")(left)
