"""The table of Keras 2's functions of arrays: each row is a name, a sentence, and its op.

Rows are written on `ops`, so they take arrays, Masked sequences and Symbols as ops do.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from alphorn import ops
from alphorn.config import epsilon as _epsilon
from alphorn.config import floatx
from alphorn.core.function_call import call_on_symbols
from alphorn.core.masked import is_masked
from alphorn.core.symbol import is_symbol, symbols_in
from alphorn.core.variable import unwrap
from alphorn.errors import ArgumentError

# Ops whose name and arguments are those of Keras 2.
SAME = (
    "abs all any binary_crossentropy categorical_crossentropy cos elu exp is_tensor log logsumexp max"
    " mean min prod round sigmoid sign sin softmax softplus softsign"
    " sparse_categorical_crossentropy square squeeze std sum tanh var"
).split()


def _sizes(shape: Any) -> tuple:
    """Returns a shape for `ops.reshape`: one size that is not known is found."""
    return tuple(-1 if n is None else n for n in shape)


def _each(function: Callable, x: Any) -> Any:
    return type(x)(map(function, x)) if isinstance(x, list | tuple) else function(x)


def _relu(x: Any, alpha: float, max_value: float | None, threshold: float) -> Any:
    out = ops.where(x >= threshold, x, alpha * (x - threshold))
    return out if max_value is None else ops.minimum(out, max_value)


def _batch_dot(x: Any, y: Any, axes: Any) -> Any:
    if axes is None:
        axes = (len(x.shape) - 1, len(y.shape) - (1 if len(y.shape) == 2 else 2))
    a, b = (axes, axes) if isinstance(axes, int) else axes
    a, b = a % len(x.shape), b % len(y.shape)
    if a == 0 or b == 0:
        raise ArgumentError("K.batch_dot: axes", f"{axes}", "no batch axis: they count from 1")
    left = list("abcdefg"[: len(x.shape)])
    right = ["a", *"tuvwxyz"[: len(y.shape) - 1]]
    left[a] = right[b] = "s"
    rest = [n for n in left if n != "s"] + [n for n in right[1:] if n != "s"]
    out = ops.einsum(f"{''.join(left)},{''.join(right)}->{''.join(rest)}", x, y)
    return ops.expand_dims(out, 1) if len(rest) == 1 else out


def _bias_add(x: Any, bias: Any, data_format: str | None) -> Any:
    if data_format == "channels_first" and len(x.shape) > 2:
        if len(bias.shape) > 1:
            bias = ops.moveaxis(bias, -1, 0)
        else:
            bias = ops.reshape(bias, (-1, *[1] * (len(x.shape) - 2)))
    return x + bias


def _one_like(x: Any, like: Any) -> Any:
    for _ in range(len(like.shape) - len(x.shape)):
        x = ops.expand_dims(x, -1)
    return x


def _padded(x: Any, padding: Any, first: int) -> Any:
    widths = [(0, 0)] * len(x.shape)
    for axis, width in enumerate(padding, first):
        widths[axis] = (width, width) if isinstance(width, int) else tuple(width)
    return ops.pad(x, widths)


def _spatial(padding: Any, rank: int, data_format: str | None) -> tuple:
    padding = (padding,) * rank if isinstance(padding, int) else tuple(padding)
    return padding, 2 if data_format == "channels_first" else 1


def _cast(x: Any, dtype: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return x.astype(dtype)
    return ops.cast(x, dtype)


def _shape(x: Any) -> tuple:
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)


def _count(x: Any) -> int:
    return int(np.prod([int(n) for n in x.shape]))


def _value(x: Any) -> Any:
    if symbols_in(x):
        raise ArgumentError(
            "K.eval of a Symbol",
            received=repr(x),
            expected="numbers",
            fix="K.function(inputs, [x])(data), or Model(inputs, x).predict(data)",
        )
    return np.array(x.data if is_masked(x) else unwrap(x))


def _focal(target: Any, output: Any, alpha: float, gamma: float, logits: bool, axis: int) -> Any:
    p = ops.softmax(output, axis) if logits else output / ops.sum(output, axis, keepdims=True)
    p = ops.clip(p, _epsilon(), 1 - _epsilon())
    return ops.sum(-target * ops.log(p) * alpha * (1 - p) ** gamma, axis)


def _binary_focal(target: Any, output: Any, balance: bool, alpha: float, gamma: float) -> Any:
    near = target * output + (1 - target) * (1 - output)
    loss = (1 - near) ** gamma * ops.binary_crossentropy(target, output)
    return loss * (target * alpha + (1 - target) * (1 - alpha)) if balance else loss


def _normalized(x: Any, mean: Any, var: Any, beta: Any, gamma: Any, axis: int, least: float) -> Any:
    def flat(v: Any) -> Any:
        return v if v is None or len(v.shape) == 1 else ops.reshape(v, (-1,))

    return ops.batch_normalization(x, flat(mean), flat(var), axis, flat(beta), flat(gamma), least)


def _normalized_in_training(x: Any, gamma: Any, beta: Any, axes: Any, least: float) -> Any:
    mean, variance = ops.moments(x, axes, keepdims=True)
    out = (x - mean) * ops.rsqrt(variance + least)
    kept = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
    if gamma is not None:
        out = out * ops.reshape(gamma, _sizes(kept))
    if beta is not None:
        out = out + ops.reshape(beta, _sizes(kept))
    return out, ops.squeeze(mean, tuple(axes)), ops.squeeze(variance, tuple(axes))


def _reversed(x: Any, axes: Any) -> Any:
    for axis in (axes,) if isinstance(axes, int) else axes:
        x = ops.flip(x, axis)
    return x


def _switch(condition: Any, then: Any, otherwise: Any) -> Any:
    if not is_symbol(condition):
        condition = ops.cast(condition, "bool")
        if condition.ndim == 0 and callable(then) and callable(otherwise):
            return ops.cond(condition, then, otherwise)
    then = then() if callable(then) else then
    otherwise = otherwise() if callable(otherwise) else otherwise
    return ops.where(_one_like(condition, then), then, otherwise)


def _flat(x: Any) -> Any:
    rest = x.shape[1:]
    if None in rest:  # a Symbol: arrays will know
        return call_on_symbols(ROWS["batch_flatten"][1], (x,), {})
    return ops.reshape(x, (-1, int(np.prod(rest))))


def _gathered(reference: Any, indices: Any) -> Any:
    return ops.take(reference, _cast(indices, "int32"), 0)


ROWS: dict[str, tuple[str, Callable]] = {
    # entries
    "cast": ("Returns `x` as numbers of another type.", lambda x, dtype: _cast(x, dtype)),
    "cast_to_floatx": (
        "Returns `x` as numbers of the default float type.",
        lambda x: _cast(x if hasattr(x, "dtype") else np.asarray(x), floatx()),
    ),
    "clip": (
        "Returns `x` between two bounds.",
        lambda x, min_value=None, max_value=None: ops.clip(
            x,
            -np.inf if min_value is None else min_value,
            np.inf if max_value is None else max_value,
        ),
    ),
    "hard_sigmoid": (
        "Returns Keras 2's: `0.2 x + 0.5`, between 0 and 1.",
        lambda x: ops.clip(0.2 * x + 0.5, 0.0, 1.0),
    ),
    "maximum": ("Returns the larger of two entries.", lambda x, y: ops.maximum(x, y)),
    "minimum": ("Returns the smaller of two entries.", lambda x, y: ops.minimum(x, y)),
    "identity": ("Returns `x`.", lambda x, name=None: x),
    "pow": ("Returns `x` to the power `a`.", lambda x, a: ops.power(x, a)),
    "relu": (
        "Returns `x` from the threshold up to `max_value`, `alpha` times what is below.",
        lambda x, alpha=0.0, max_value=None, threshold=0.0: _relu(x, alpha, max_value, threshold),
    ),
    "sqrt": ("Returns the root, of negative numbers 0.", lambda x: ops.sqrt(ops.maximum(x, 0.0))),
    "stop_gradient": (
        "Returns the same numbers, which gradients do not pass; of a list each.",
        lambda variables: _each(ops.stop_gradient, variables),
    ),
    # comparisons
    "equal": ("Returns where `x` is `y`.", lambda x, y: ops.equal(x, y)),
    "greater": ("Returns where `x` is above `y`.", lambda x, y: ops.greater(x, y)),
    "greater_equal": ("Returns where `x` is not below `y`.", lambda x, y: ops.greater_equal(x, y)),
    "in_top_k": (
        "Returns whether each target is among the `k` largest predictions.",
        lambda predictions, targets, k: ops.in_top_k(targets, predictions, k),
    ),
    "less": ("Returns where `x` is below `y`.", lambda x, y: ops.less(x, y)),
    "less_equal": ("Returns where `x` is not above `y`.", lambda x, y: ops.less_equal(x, y)),
    "not_equal": ("Returns where `x` is not `y`.", lambda x, y: ops.not_equal(x, y)),
    "switch": (
        "Returns one of two where a condition holds, the other elsewhere; functions are called.",
        lambda condition, then_expression, else_expression: _switch(
            condition, then_expression, else_expression
        ),
    ),
    # along axes
    "argmax": ("Returns the place of the maximum.", lambda x, axis=-1: ops.argmax(x, axis)),
    "argmin": ("Returns the place of the minimum.", lambda x, axis=-1: ops.argmin(x, axis)),
    "cumprod": ("Returns running products.", lambda x, axis=0: ops.cumprod(x, axis)),
    "cumsum": ("Returns running sums.", lambda x, axis=0: ops.cumsum(x, axis)),
    "l2_normalize": (
        "Returns `x` by its norm.",
        lambda x, axis=None: (
            x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis, keepdims=True), 1e-12))
        ),
    ),
    "reverse": ("Returns `x` turned around along axes.", lambda x, axes: _reversed(x, axes)),
    # products
    "batch_dot": (
        "Returns products row by row: `axes` of `x` and `y` are summed over.",
        lambda x, y, axes=None: _batch_dot(x, y, axes),
    ),
    "bias_add": (
        "Returns `x` plus a bias a channel.",
        lambda x, bias, data_format=None: _bias_add(x, bias, data_format),
    ),
    "dot": ("Returns the product of the last axis of `x` by `y`.", lambda x, y: ops.dot(x, y)),
    # shapes
    "batch_flatten": ("Returns `(batch, all the rest)`.", lambda x: _flat(x)),
    "concatenate": (
        "Returns tensors joined along an axis.",
        lambda tensors, axis=-1: ops.concatenate(tensors, axis),
    ),
    "expand_dims": (
        "Returns `x` with a new axis of size 1.",
        lambda x, axis=-1: ops.expand_dims(x, axis),
    ),
    "flatten": ("Returns all entries in a row.", lambda x: ops.reshape(x, (-1,))),
    "gather": (
        "Returns the rows of `reference` at indices.",
        lambda reference, indices: _gathered(reference, indices),
    ),
    "one_hot": (
        "Returns 1 at each class, 0 elsewhere, on a new last axis.",
        lambda indices, num_classes: ops.one_hot(_cast(indices, "int32"), num_classes),
    ),
    "permute_dimensions": (
        "Returns `x` with its axes in another order.",
        lambda x, pattern: ops.transpose(x, pattern),
    ),
    "repeat": (
        "Returns `(batch, n, features)` of `(batch, features)`.",
        lambda x, n: ops.repeat(ops.expand_dims(x, 1), n, 1),
    ),
    "repeat_elements": (
        "Returns `x` with each entry along an axis several times.",
        lambda x, rep, axis: ops.repeat(x, rep, axis),
    ),
    "reshape": (
        "Returns the entries in another shape; one size may be -1.",
        lambda x, shape: ops.reshape(x, _sizes(shape)),
    ),
    "spatial_2d_padding": (
        "Returns images with zeros around.",
        lambda x, padding=((1, 1), (1, 1)), data_format=None: _padded(
            x, *_spatial(padding, 2, data_format)
        ),
    ),
    "spatial_3d_padding": (
        "Returns volumes with zeros around.",
        lambda x, padding=((1, 1), (1, 1), (1, 1)), data_format=None: _padded(
            x, *_spatial(padding, 3, data_format)
        ),
    ),
    "stack": ("Returns tensors along a new axis.", lambda x, axis=0: ops.stack(x, axis)),
    "temporal_padding": (
        "Returns sequences with zeros before and after.",
        lambda x, padding=(1, 1): _padded(x, (padding,), 1),
    ),
    "tile": ("Returns `x` several times along its axes.", lambda x, n: ops.tile(x, n)),
    "transpose": ("Returns `x` with its axes turned around.", lambda x: ops.transpose(x)),
    # statistics and losses
    "batch_normalization": (
        "Returns `x` by a mean and a variance, times `gamma`, plus `beta`.",
        lambda x, mean, var, beta, gamma, axis=-1, epsilon=1e-3: _normalized(
            x, mean, var, beta, gamma, axis, epsilon
        ),
    ),
    "binary_focal_crossentropy": (
        "Returns crossentropies that count what is wrong more.",
        lambda target, output, apply_class_balancing=False, alpha=0.25, gamma=2.0, from_logits=False: (
            _binary_focal(
                target,
                ops.sigmoid(output) if from_logits else output,
                apply_class_balancing,
                alpha,
                gamma,
            )
        ),
    ),
    "categorical_focal_crossentropy": (
        "Returns crossentropies that count what is wrong more.",
        lambda target, output, alpha=0.25, gamma=2.0, from_logits=False, axis=-1: _focal(
            target, output, alpha, gamma, from_logits, axis
        ),
    ),
    "normalize_batch_in_training": (
        "Returns `x` by its own mean and variance over axes, with both.",
        lambda x, gamma, beta, reduction_axes, epsilon=1e-3: _normalized_in_training(
            x, gamma, beta, reduction_axes, epsilon
        ),
    ),
    # like others, and numbers
    "arange": (
        "Returns the numbers from `start` up to, not with, `stop`.",
        lambda start, stop=None, step=1, dtype="int32": ops.arange(start, stop, step, dtype),
    ),
    "constant": (
        "Returns an array of a value.",
        lambda value, dtype=None, shape=None, name=None: ops.broadcast_to(
            ops.convert_to_tensor(value, dtype or floatx()),
            np.shape(value) if shape is None else shape,
        ),
    ),
    "ones_like": (
        "Returns ones in the shape of `x`.",
        lambda x, dtype=None, name=None: ops.ones_like(x, dtype),
    ),
    "zeros_like": (
        "Returns zeros in the shape of `x`.",
        lambda x, dtype=None, name=None: ops.zeros_like(x, dtype),
    ),
    # what a tensor is
    "count_params": ("Returns the number of entries.", lambda x: _count(x)),
    "dtype": ("Returns the name of the number type.", lambda x: np.dtype(x.dtype).name),
    "eval": ("Returns the numbers as a NumPy array.", lambda x: _value(x)),
    "int_shape": ("Returns the shape; None for sizes not known.", lambda x: _shape(x)),
    "is_sparse": ("Returns False: arrays are dense.", lambda tensor: False),
    "ndim": ("Returns the number of axes.", lambda x: len(_shape(x))),
    "shape": (
        "Returns the shape as a tuple; None for sizes of a Symbol that are not known.",
        lambda x: _shape(x),
    ),
    "to_dense": ("Returns `tensor`: arrays are dense.", lambda tensor: tensor),
}

# Names of Keras 2 that have no meaning here, and what to use.
GONE: dict[str, str] = {
    "get_session": "there are no sessions: K.function, or model.predict",
    "set_session": "there are no sessions: XLA_FLAGS and jax.config hold JAX's settings",
    "tf": "alphorn.ops, or jax.numpy as jnp",
    "th": "alphorn.ops, or jax.numpy as jnp",
    "enable_tf_random_generator": "random numbers come from keras.random.SeedGenerator",
    "is_placeholder": "K.is_keras_tensor(x)",
    "get_graph": "model.graph",
    "control_dependencies": "assignments happen in their order",
}
