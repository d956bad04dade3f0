"""What programs for Keras use of TensorFlow beside `tf.keras`, on ops. Used where it is absent."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import alphorn
from alphorn import backend, ops, random, utils
from alphorn.errors import ArgumentError


def _axis(name: str, axis: Any, keepdims: Any, old: dict[str, Any]) -> dict[str, Any]:
    """Returns `axis` and `keepdims`, by whichever of their names they came."""
    axis = old.pop("reduction_indices", axis)
    keepdims = old.pop("keep_dims", keepdims)
    old.pop("name", None)
    if old:
        raise TypeError(f"tf.{name} takes no {', '.join(old)}")
    return {"axis": tuple(axis) if isinstance(axis, list) else axis, "keepdims": bool(keepdims)}


def _reduction(name: str) -> Callable:
    op = getattr(ops, name)

    def reduce(input_tensor: Any, axis: Any = None, keepdims: bool = False, **old: Any) -> Any:
        return op(input_tensor, **_axis(f"reduce_{name}", axis, keepdims, old))

    return reduce


def _matmul(
    a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False, name: Any = None
) -> Any:
    a, b = (ops.swapaxes(x, -1, -2) if t else x for x, t in ((a, transpose_a), (b, transpose_b)))
    return ops.matmul(a, b)


def _concat(values: Any, axis: Any, name: Any = None) -> Any:
    if isinstance(values, int):  # tf.concat(axis, values), before 1.0
        values, axis = axis, values
    return ops.concatenate(list(values), axis)


def _split(value: Any, num_or_size_splits: Any, axis: int = 0, name: Any = None) -> Any:
    parts = num_or_size_splits
    return ops.split(value, parts if isinstance(parts, int) else list(np.cumsum(parts)[:-1]), axis)


def _one_hot(indices: Any, depth: int, axis: Any = None, dtype: Any = None, **named: Any) -> Any:
    if set(named) - {"name"}:
        raise TypeError(f"tf.one_hot takes no {', '.join(named)}")
    return ops.one_hot(indices, depth, -1 if axis is None else axis, dtype)


def _where(condition: Any, x: Any = None, y: Any = None, name: Any = None) -> Any:
    if x is None:
        return ops.stack(ops.nonzero(condition), -1)
    return ops.where(condition, x, y)


def _cond(pred: Any, true_fn: Any = None, false_fn: Any = None, name: Any = None) -> Any:
    return backend.switch(pred, true_fn, false_fn)


def _logits(kind: str) -> Callable:
    def loss(labels: Any = None, logits: Any = None, axis: int = -1, name: Any = None) -> Any:
        if kind == "sigmoid":
            return ops.binary_crossentropy(labels, logits, from_logits=True)
        function = getattr(ops, kind)
        return function(labels, logits, from_logits=True, axis=axis)

    return loss


def _moments(x: Any, axes: Any, keepdims: bool = False, **old: Any) -> Any:
    return ops.moments(x, list(axes), bool(old.get("keep_dims", keepdims)))


def _dropout(x: Any, keep_prob: Any = None, rate: Any = None, seed: Any = None, **_: Any) -> Any:
    return backend.dropout(x, 1 - keep_prob if rate is None else rate, seed=seed)


def _normal(
    shape: Any,
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: Any = None,
    seed: Any = None,
    name: Any = None,
) -> Any:
    return backend.random_normal(shape, mean, stddev, dtype, seed)


def _uniform(
    shape: Any,
    minval: float = 0.0,
    maxval: float = 1.0,
    dtype: Any = None,
    seed: Any = None,
    name: Any = None,
) -> Any:
    return backend.random_uniform(shape, minval, maxval, dtype, seed)


def _variable(
    initial_value: Any = None, trainable: bool = True, name: Any = None, dtype: Any = None, **_: Any
) -> Any:
    value = initial_value() if callable(initial_value) else initial_value
    return alphorn.Variable(np.asarray(value), dtype=dtype, trainable=trainable, name=name)


def _function(func: Any = None, **_: Any) -> Any:
    """Returns the function: `fit` compiles what it uses, `alphorn.jit` a function by itself."""
    return func if func is not None else lambda f: f


def _print(*values: Any, **_: Any) -> None:
    print(*values)


_SAME = """abs add ceil cos cosh cumsum divide einsum equal exp expand_dims eye floor greater
greater_equal less less_equal linspace log logical_and logical_not logical_or maximum minimum
multiply not_equal ones_like reshape rsqrt sigmoid sign sin sinh sqrt square squeeze stack
stop_gradient subtract tan tanh tile zeros_like""".split()


def _named(function: Callable) -> Callable:
    """Returns an op that takes TensorFlow's `name`, which only labels, as well."""

    def call(*args: Any, name: Any = None, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _rows() -> dict[str, Any]:
    found: dict[str, Any] = {name: _named(getattr(ops, name)) for name in _SAME}
    kinds = ("mean", "sum", "max", "min", "prod", "any", "all", "logsumexp", "std", "var")
    found |= {f"reduce_{kind}": _reduction(kind) for kind in kinds}
    found["reduce_variance"] = found.pop("reduce_var")
    return found | {
        "argmax": lambda input, axis=0, **_: ops.argmax(input, axis),
        "argmin": lambda input, axis=0, **_: ops.argmin(input, axis),
        "batch_matmul": _matmul,
        "cast": lambda x, dtype, name=None: ops.cast(x, dtype),
        "clip_by_value": lambda t, clip_value_min, clip_value_max, name=None: ops.clip(
            t, clip_value_min, clip_value_max
        ),
        "concat": _concat,
        "cond": _cond,
        "constant": lambda value, dtype=None, shape=None, name=None: backend.constant(
            value, dtype or jnp.asarray(value).dtype, shape
        ),
        "convert_to_tensor": lambda value, dtype=None, name=None: ops.convert_to_tensor(
            value, dtype
        ),
        "erf": _named(ops.erf),
        "fill": lambda dims, value, name=None: ops.full(dims, value),
        "function": _function,
        "gather": lambda params, indices, axis=0, name=None: ops.take(params, indices, axis),
        "identity": lambda input, name=None: input,
        "is_tensor": backend.is_tensor,
        "matmul": _matmul,
        "negative": _named(ops.negative),
        "norm": lambda tensor, ord=None, axis=None, keepdims=False, name=None: ops.norm(
            tensor, None if ord == "euclidean" else ord, axis, keepdims
        ),
        "ones": lambda shape, dtype="float32", name=None: ops.ones(shape, dtype),
        "pad": lambda tensor, paddings, mode="CONSTANT", constant_values=0, name=None: ops.pad(
            tensor, paddings, mode.lower(), constant_values if mode == "CONSTANT" else None
        ),
        "pow": lambda x, y, name=None: ops.power(x, y),
        "print": _print,
        "range": lambda *numbers, dtype=None, name=None: ops.arange(*numbers, dtype=dtype),
        "rank": lambda input, name=None: backend.ndim(input),
        "repeat": lambda input, repeats, axis=None, name=None: ops.repeat(input, repeats, axis),
        "reverse": lambda tensor, axis, name=None: backend.reverse(tensor, axis),
        "round": _named(ops.round),
        "scalar_mul": lambda scalar, x, name=None: x * scalar,
        "set_random_seed": utils.set_random_seed,
        "shape": lambda input, out_type=None, name=None: backend.shape(input),
        "size": lambda input, out_type=None, name=None: ops.size(input),
        "split": _split,
        "one_hot": _one_hot,
        "tensordot": lambda a, b, axes, name=None: ops.tensordot(a, b, axes),
        "transpose": lambda a, perm=None, name=None: ops.transpose(a, perm),
        "truediv": _named(ops.true_divide),
        "unstack": lambda value, num=None, axis=0, name=None: ops.unstack(value, num, axis),
        "where": _where,
        "zeros": lambda shape, dtype="float32", name=None: ops.zeros(shape, dtype),
        "random_normal": _normal,
        "random_uniform": _uniform,
        "name_scope": backend.name_scope,
        "Variable": _variable,
        "Tensor": alphorn.KerasTensor,
        "newaxis": None,
        "__version__": "2.15.0",
        "executing_eagerly": lambda: True,
        "device": lambda name: contextlib.nullcontext(),
    }


_TYPES = "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 bool".split()
_ROWS = _rows()
_MATH = {n: _ROWS[n] for n in (*_SAME, *_ROWS) if n.startswith("reduce_") or n in _SAME} | {
    "pow": _ROWS["pow"],
    "argmax": _ROWS["argmax"],
    "erf": _ROWS["erf"],
    "l2_normalize": lambda x, axis=None, epsilon=1e-12, name=None, **_: backend.l2_normalize(
        x, axis
    ),
    "softplus": _named(ops.softplus),
    "top_k": lambda input, k=1, sorted=True, name=None: ops.top_k(input, k, sorted),
    "is_nan": _named(ops.isnan),
    "divide_no_nan": _named(ops.divide_no_nan),
}
_NN = {
    name: _named(getattr(ops, name))
    for name in "elu gelu relu relu6 selu sigmoid silu swish softplus softsign tanh".split()
} | {
    "dropout": _dropout,
    "l2_normalize": _MATH["l2_normalize"],
    "leaky_relu": lambda features, alpha=0.2, name=None: ops.leaky_relu(features, alpha),
    "log_softmax": lambda logits, axis=-1, name=None: ops.log_softmax(logits, axis),
    "softmax": lambda logits, axis=-1, name=None: ops.softmax(logits, axis),
    "moments": _moments,
    "embedding_lookup": lambda params, ids, name=None: ops.take(params, ids, 0),
    "sigmoid_cross_entropy_with_logits": _logits("sigmoid"),
    "softmax_cross_entropy_with_logits": _logits("categorical_crossentropy"),
    "softmax_cross_entropy_with_logits_v2": _logits("categorical_crossentropy"),
    "sparse_softmax_cross_entropy_with_logits": _logits("sparse_categorical_crossentropy"),
    "top_k": _MATH["top_k"],
    "bias_add": lambda value, bias, data_format=None, name=None: backend.bias_add(value, bias),
}
_RANDOM = {
    "normal": _normal,
    "uniform": _uniform,
    "set_seed": utils.set_random_seed,
    "shuffle": lambda value, seed=None, name=None: random.shuffle(value, seed=seed),
    "truncated_normal": lambda shape, mean=0.0, stddev=1.0, dtype=None, seed=None, name=None: (
        backend.truncated_normal(shape, mean, stddev, dtype, seed)
    ),
}
_LINALG = {name: _ROWS[name] for name in ("matmul", "norm", "tensordot", "einsum")} | {
    "l2_normalize": _MATH["l2_normalize"]
}

# By module, relative to `tensorflow`.
NAMES: dict[str, dict[str, Any]] = {
    "": _ROWS | {name: jnp.dtype(name) for name in _TYPES},
    "math": _MATH,
    "nn": _NN,
    "random": _RANDOM,
    "linalg": _LINALG,
    "compat": {},
    "logging": {"set_verbosity": lambda level: None, "ERROR": 40, "WARN": 30, "INFO": 20},
    "test": {"is_gpu_available": lambda *_: False},
    "config": {"list_physical_devices": lambda kind=None: []},
    "python": {},
    "contrib": {},
}
NAMES["compat.v1"] = NAMES["compat.v2"] = NAMES[""]
NAMES["compat.v1.logging"] = NAMES["logging"]

# What took the place of other names.
GONE: dict[str, str] = {
    "GradientTape": "alphorn.value_and_grad(function, variables), or jax.grad",
    "Session": "K.function(inputs, outputs), or model.predict: there are no sessions",
    "InteractiveSession": "K.function(inputs, outputs): there are no sessions",
    "ConfigProto": "nothing: JAX takes memory as XLA_PYTHON_CLIENT_MEM_FRACTION says",
    "GPUOptions": "nothing: JAX takes memory as XLA_PYTHON_CLIENT_MEM_FRACTION says",
    "placeholder": "keras.Input(shape=...), or K.placeholder",
    "get_default_graph": "nothing: models may be used in any thread",
    "global_variables_initializer": "nothing: Variables have their first values at once",
    "while_loop": "ops.while_loop, whose condition and body take the same",
    "scan": "ops.scan, or K.rnn",
    "map_fn": "K.map_fn(function, elements)",
    "gradients": "K.gradients(loss, variables) for Symbols",
    "data": "arrays, lists of sequences, generators or utils.PyDataset go into fit",
    "io": "numpy and the standard library",
    "image": "ops, or preprocessing.image",
    "distribute": "alphorn.distribution: set_distribution(DataParallel())",
    "py_func": "jax.pure_callback",
    "train": "keras.optimizers, keras.callbacks.ModelCheckpoint",
    "layers": "keras.layers",
    "boolean_mask": "ops.where, which keeps the shape, or ops.with_mask",
    "sequence_mask": "ops.arange(steps) < lengths[:, None]",
    "RaggedTensor": "lists of unequal sequences, which go into fit as they are",
    "SparseTensor": "dense arrays",
}


def refuse(name: str) -> ArgumentError:
    """Returns the error for a name that is not there."""
    return ArgumentError(
        f"tf.{name} is not there: TensorFlow is not installed, and this program runs on Alphorn",
        fix=GONE.get(name.split(".")[0], "the functions of alphorn.ops, or jax.numpy"),
    )
