"""Ops in the configs of models: calls of ops as Keras 3 writes its operations, and back."""

import functools
from typing import Any

from alphorn.errors import FileError
from alphorn.naming import get_registered_object, serialize, serialize_object
from alphorn.ops.table import PUBLIC, TABLE, Operation

# Rooms of Keras's operations; the others stand in `numpy`.
_ROOMS = {
    "core": """cast cond associative_scan convert_to_tensor fori_loop map saturate_cast scan scatter
        scatter_update slice slice_update stop_gradient switch unstack vectorized_map while_loop""",
    "linalg": """cholesky cholesky_inverse det eig eigh inv jvp lstsq lu_factor matrix_rank norm
        pinv qr solve solve_triangular svd""",
    "math": """cdist erf erfc erfinv extract_sequences fft fft2 ifft2 in_top_k irfft logdet
        logsumexp rfft rsqrt segment_max segment_min segment_prod segment_sum top_k
        view_as_complex view_as_real""",
    "nn": """average_pool binary_crossentropy categorical_crossentropy celu conv ctc_loss
        depth_to_space depthwise_conv dot_product_attention elu fold gelu glu hard_shrink
        hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid log_softmax max_pool moments
        multi_hot normalize one_hot polar psnr relu relu6 selu separable_conv sigmoid silu soft_shrink softmax
        softplus softsign space_to_depth sparse_categorical_crossentropy sparse_plus
        sparse_sigmoid sparsemax squareplus tanh_shrink threshold unfold""",
}
_ROOM_OF = {op: room for room, ops in _ROOMS.items() for op in ops.split()}
_SPELLED = {
    c.lower(): c
    for c in "JVP IsIn SVD CDist AllClose SearchSorted FFT FFT2 IFFT2 RFFT IRFFT PSNR".split()
} | {"ctc_loss": "CTCLoss"}
# Arguments that the call takes, beside or in place of the arrays of the table.
_CALLED = {
    "arange": ("start", "stop", "step"),
    "bincount": ("x",),
    "clip": ("x",),
    "digitize": ("x", "bins"),
    "dot_product_attention": ("query", "key", "value", "bias", "mask", "scale"),
    "fft": ("x",),
    "fft2": ("x",),
    "full": ("fill_value",),
    "full_like": ("x", "fill_value"),
    "geomspace": ("start", "stop"),
    "get_item": ("x", "key"),
    "ifft2": ("x",),
    "irfft": ("x",),
    "isclose": ("x1", "x2", "rtol", "atol"),
    "isin": ("x1", "x2"),
    "linspace": ("start", "stop"),
    "logspace": ("start", "stop"),
    "pad": ("x", "constant_values"),
    "slice": ("inputs", "start_indices"),
    "slice_update": ("inputs", "start_indices", "updates"),
    "trapezoid": ("y",),
}
# Ours alone, or no class of their own in Keras.
WITHOUT_CLASS = frozenset(
    """
    associative_scan bartlett batch_normalization blackman cond custom_gradient dtype empty eye
    first fori_loop hamming hanning hard_swish identity is_tensor jvp kaiser last
    layer_normalization lengths map ones rms_normalization scan shape swish switch take_steps tri
    unmask valid vectorize vectorized_map while_loop with_mask zeros convert_to_numpy
    """.split()
)
_PREFIX = "keras.src.ops."


def is_operation(entry: dict) -> bool:
    """Returns whether an entry of a model's config is a call of an op, not a layer."""
    module = str(entry.get("module") or "")
    return module.startswith(_PREFIX) or entry.get("class_name") == "Operation"


def operation_entry(
    operation: Any, args: tuple, kwargs: dict
) -> tuple[dict[str, Any], tuple, dict]:
    """Returns the entry of a call of an op, and the arguments that stand with the call.

    Args:
        operation: The `Operation`.
        args, kwargs: Of the call.
    """
    name = operation.op
    if name in WITHOUT_CLASS:
        return serialize_object(operation) | {"module": "alphorn.ops"}, args, kwargs
    bound = TABLE[name].signature.bind(*args, **kwargs)
    bound.apply_defaults()
    room, spelled, called, static = keras_operation(name)
    parameters = TABLE[name].signature.parameters
    given: list[Any] = []
    for argument in called:
        value = bound.arguments[argument]
        several = parameters[argument].kind is parameters[argument].VAR_POSITIONAL
        given += value if several else [value]
    while given and given[-1] is None:
        given.pop()
    entry = {
        "module": f"{_PREFIX}{room}",
        "class_name": spelled,
        "config": {"name": operation.name} | {k: serialize(bound.arguments[k]) for k in static},
        "registered_name": spelled,
    }
    return entry, tuple(given), {}


def keras_operation(name: str) -> tuple[str, str, tuple[str, ...], tuple[str, ...]]:
    """Returns room and class of an op in Keras, what its call takes, and what its config holds."""
    spelled = _SPELLED.get(name) or "".join(part.capitalize() for part in name.split("_"))
    called = _CALLED.get(name, TABLE[name].arrays)
    known = [n for n in TABLE[name].signature.parameters if n != "kwargs"]  # JAX's own, of einsum
    return _ROOM_OF.get(name, "numpy"), spelled, called, tuple(n for n in known if n not in called)


@functools.cache
def _names() -> dict[str, str]:
    return {name.replace("_", ""): name for name in TABLE}


def operation_from(entry: dict) -> Any:
    """Returns a function `(*args, **kwargs)` that calls the op which an entry names."""
    config = dict(entry["config"])
    name, op = config.pop("name", None), config.pop("op", None)
    own = get_registered_object(str(entry.get("registered_name") or entry["class_name"]))
    if own is not None:
        return own.from_config(entry["config"])
    if entry["class_name"] != "Operation":
        op = _names().get(str(entry["class_name"]).lower())
    if op not in TABLE or op not in PUBLIC:
        raise FileError(
            f"the config of a model calls the op {entry['class_name']!r}",
            received=f"{entry.get('module')}",
            expected="one of `ops`",
            fix="put it into a layer of your own",
        )
    operation = Operation(op, name)
    static = {k: tuples(v) for k, v in config.items()}

    def call(*args: Any, **kwargs: Any) -> Any:
        if op == "get_item":
            args = (args[0], *map(tuples, args[1:]))
        if op == "einsum":
            args = (static["subscripts"], *args)
            return operation(*args, **kwargs)
        return operation(*args, **static, **kwargs)

    return call


def tuples(value: Any) -> Any:
    """Returns lists as tuples: files know only lists."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
