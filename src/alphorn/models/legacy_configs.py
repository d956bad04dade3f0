"""Configs of Keras 2, brought into the form of Keras 3: layers, graphs, what was compiled."""

import re
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.errors import FileError
from alphorn.naming import get_registered_object, names_of, register

__all__ = ["graph_of_keras2", "is_keras2", "layers_of_keras2", "training_of_keras2"]


def keras2_hard_sigmoid(x: Array) -> Array:
    """Returns Keras 2's `hard_sigmoid`, `clip(0.2 * x + 0.5, 0, 1)`; Keras 3's has slope 1/6."""
    return jnp.clip(0.2 * x + 0.5, 0.0, 1.0)


register("activations", keras2_hard_sigmoid)

_RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}
# Arguments that are gone, with the values that say what is meant without them.
_GONE: dict[str, tuple[Any, ...]] = {
    "adjustment": (None,),
    "causal": (False,),
    "fused": (None, True, False),
    "softmax_robust_masking": (False,),
    "implementation": (0, 1, 2),
    "input_dtype": (None, "float32", "int32"),
    "num_constants": (None, 0),
    "renorm": (False,),
    "renorm_clipping": (None, {}),
    "renorm_momentum": (0.99,),
    "time_major": (False,),
    "virtual_batch_size": (None,),
}
_BUILT_WITH = ("query_shape", "key_shape", "value_shape")
_RECURRENT = frozenset(
    """RNN SimpleRNN LSTM GRU CuDNNLSTM CuDNNGRU ConvLSTM1D ConvLSTM2D ConvLSTM3D
    Bidirectional""".split()
)
_GRAPHS = ("Functional", "Model")
_BINARY = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.divide": "TrueDivide",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
    "math.multiply": "Multiply",
    "math.pow": "Power",
    "math.subtract": "Subtract",
    "math.truediv": "TrueDivide",
}
_UNARY = {
    f"{room}.{name}": name.capitalize()
    for room, names in {
        "math": "abs cos exp log negative rsqrt sigmoid sin softplus sqrt square tanh",
        "nn": "elu relu selu sigmoid softmax softplus tanh",
    }.items()
    for name in names.split()
}
# A function of TensorFlow, the op that it is here, and what its arguments are called there.
_FUNCTIONS: dict[str, tuple[str, dict[str, str]]] = {
    **{name: (op, {"axis": "axis"}) for name, op in _UNARY.items()},
    **{
        f"math.reduce_{name}": (name.capitalize(), {"axis": "axis", "keepdims": "keepdims"})
        for name in ("max", "mean", "min", "prod", "sum")
    },
    "cast": ("Cast", {"dtype": "dtype"}),
    "clip_by_value": ("Clip", {"clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "compat.v1.transpose": ("Transpose", {"perm": "axes"}),
    "concat": ("Concatenate", {"axis": "axis"}),
    "expand_dims": ("ExpandDims", {"axis": "axis"}),
    "reshape": ("Reshape", {"shape": "newshape"}),
    "squeeze": ("Squeeze", {"axis": "axis"}),
    "stack": ("Stack", {"axis": "axis"}),
    "transpose": ("Transpose", {"perm": "axes"}),
}


def is_keras2(config: Any) -> bool:
    """Returns whether the config of a Sequential or functional model is in Keras 2's form."""
    entries = config if isinstance(config, list) else config.get("layers", ())
    if any(isinstance(node, list) for e in entries for node in e.get("inbound_nodes", ())):
        return True
    # Keras 3 leaves modules out as well, in .h5 files.
    return any("module" not in e for e in entries) and not any(map(_is_keras3, entries))


def _is_keras3(entry: dict) -> bool:
    config = entry["config"]
    dtype = config.get("dtype") if isinstance(config, dict) else None
    policy = isinstance(dtype, dict) and dtype.get("class_name") == "DTypePolicy"
    return bool(entry.get("inbound_nodes")) or policy or "batch_shape" in config


def layers_of_keras2(entries: list[dict]) -> list[dict]:
    """Returns the entries of a Sequential model in Keras 3's form."""
    return [_renewed(entry) for entry in entries]


def _renewed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renewed(v) for v in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("class_name"), str) and isinstance(value.get("config"), dict | list):
        return _object(value)
    return {k: _renewed(v) for k, v in value.items()}


def _object(entry: dict) -> dict:
    """Returns the entry of a layer, an initializer, ... in Keras 3's form."""
    name, config = _class_name(entry["class_name"]), entry["config"]
    renewed = {k: v for k, v in entry.items() if k not in ("build_config", "shared_object_id")}
    renewed |= {"module": entry.get("module"), "class_name": name}
    if isinstance(config, list) or "layers" in config:  # a model, which renews itself
        return renewed
    if name in ("Policy", "PolicyV1"):
        return config["name"]
    custom = get_registered_object(name) is not None
    if name == "Lambda":
        config = _lambda(config)
    elif not custom:
        config = _plain(name, config)
    config = {k: _activation(k, _renewed(v)) for k, v in config.items()}
    return renewed | {"config": config}


def _class_name(name: str) -> str:
    bare = name.removeprefix("Custom>")
    if bare != name and get_registered_object(name) is not None:
        return name
    return _RENAMED.get(bare, bare)


def _activation(name: str, value: Any) -> Any:
    hard = value == "hard_sigmoid" and name in ("activation", "recurrent_activation")
    return "keras2_hard_sigmoid" if hard else value


def _plain(name: str, config: dict) -> dict:
    """Returns the arguments that a built-in class takes today."""
    config = dict(config)
    if name in names_of("initializers") and name not in names_of("layers"):
        config.pop("dtype", None)
        if config.get("distribution") == "normal":
            config["distribution"] = "truncated_normal"
        return config
    if name == "InputLayer" and "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
        config = {k: v for k, v in config.items() if k not in ("ragged", "sparse", "optional")}
    if config.get("groups") == 1 and re.search("Depthwise|Separable|Transpose", name):
        del config["groups"]
    if name == "MultiHeadAttention":  # shapes that it was built with
        config = {k: v for k, v in config.items() if k not in _BUILT_WITH}
    axis = config.get("axis")
    if name == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    for argument, neutral in _GONE.items():
        if argument not in config:
            continue
        if not any(config[argument] == value for value in neutral):
            raise FileError(
                f"{name} '{config.get('name')}' of a model of Keras 2",
                received=f"{argument}={config[argument]!r}, which Keras 3 does not have",
                expected=f"{argument}={neutral[0]!r}",
            )
        del config[argument]
    return config


def _lambda(config: dict) -> dict:
    kept = {k: v for k, v in config.items() if k in ("name", "trainable", "dtype", "arguments")}
    for part in ("function", "output_shape", "mask"):
        value, kind = config.get(part), config.get(f"{part}_type")
        module = config.get("module" if part == "function" else f"{part}_module")
        if kind == "lambda" and isinstance(value, list):
            code = dict(zip(("code", "defaults", "closure"), value, strict=False))
            value = {"class_name": "__lambda__", "config": code}
        elif kind == "function" and isinstance(value, str):
            value = {"class_name": "function", "config": value, "module": module}
        if value is not None:
            kept[part] = value
    return kept


def graph_of_keras2(config: dict) -> dict:
    """Returns the config of a functional model in Keras 3's form."""
    nodes = _Nodes(config)
    layers = [nodes.entry(entry) for entry in config["layers"]]
    ends = {k: nodes.end(config[k]) for k in ("input_layers", "output_layers")}
    return config | {"layers": layers} | ends


def _is_place(x: Any) -> bool:
    return (
        isinstance(x, list)
        and len(x) in (3, 4)
        and isinstance(x[0], str)
        and isinstance(x[1], int)
        and (len(x) == 3 or isinstance(x[3], dict))
    )


_CONSTANT = "_CONSTANT_VALUE"


class _Nodes:
    """The calls of a graph: lists in Keras 2, arguments by their names in Keras 3.

    Keras 2 counts the calls of a model inside from one, where it knew its inputs before the first;
    which ones did cannot be seen but by the numbers that are used.
    """

    def __init__(self, config: dict):
        self.entries = {e.get("name") or e["config"]["name"]: e for e in config["layers"]}
        highest: dict[str, int] = {}
        stack: list[Any] = [config["input_layers"], config["output_layers"]]
        stack += [entry.get("inbound_nodes", []) for entry in self.entries.values()]
        while stack:
            x = stack.pop()
            if self.is_place(x):
                highest[x[0]] = max(x[1], highest.get(x[0], 0))
            if isinstance(x, list | dict):
                stack += x.values() if isinstance(x, dict) else x
        self.first: dict[str, int] = {}
        self.graphs: set[str] = set()
        for name, entry in self.entries.items():
            calls = max(1, len(entry.get("inbound_nodes", [])))
            self.first[name] = max(0, highest.get(name, 0) - calls + 1)
            if entry["class_name"] in _GRAPHS or "input_layers" in entry["config"]:
                self.graphs.add(name)

    def is_place(self, x: Any) -> bool:
        return _is_place(x) and x[0] in self.entries

    def history(self, place: list) -> list:
        name, index, at = place[:3]
        return [name, index - self.first[name], at]

    def end(self, tree: Any) -> Any:
        """Returns where the inputs or outputs come from, counted as Keras 3 does there."""
        if self.is_place(tree):
            name, index, at = self.history(tree)
            return [name, index + (name in self.graphs), at]
        if isinstance(tree, dict):
            return {k: self.end(v) for k, v in tree.items()}
        return [self.end(x) for x in tree]

    def value(self, x: Any) -> Any:
        """Returns an argument of a call, its symbols by where they come from."""
        if _is_place(x) and x[0] == _CONSTANT:
            return x[2]
        if self.is_place(x):
            config = {"keras_history": self.history(x)}
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(x, dict):
            return {k: self.value(v) for k, v in x.items()}
        return [self.value(v) for v in x] if isinstance(x, list) else x

    def options(self, node: Any) -> dict[str, Any]:
        """Returns the named arguments of a call, which stand with each of its inputs."""
        if _is_place(node):
            return dict(node[3]) if len(node) == 4 else {}
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return next((found for x in inner if (found := self.options(x))), {})

    def entry(self, entry: dict) -> dict:
        """Returns the entry of a layer, with its calls."""
        name = entry.get("name") or entry["config"]["name"]
        nodes = entry.get("inbound_nodes", [])
        if entry["class_name"] in ("TFOpLambda", "SlicingOpLambda"):
            return self.operation(name, entry["config"]["function"], nodes[0])
        calls = [self.call(entry["class_name"], node) for node in nodes]
        return _renewed(entry) | {"name": name, "inbound_nodes": calls}

    def call(self, class_name: str, node: Any) -> dict:
        options = {
            k: self.value(v)
            for k, v in self.options(node).items()
            if v is not None or k not in ("mask", "training")
        }
        given = self.value(node)
        if isinstance(given, list) and len(given) == 1:
            given = given[0]
        elif isinstance(given, list) and class_name in _RECURRENT:
            given, options["initial_state"] = given[0], given[1:]
        return {"args": [given], "kwargs": options}

    def operation(self, name: str, function: str, node: Any) -> dict:
        """Returns the entry of a function of TensorFlow between layers."""
        call = self.call("", node)
        given = {k: v for k, v in call["kwargs"].items() if k != "name" and v is not None}
        args, static = call["args"], {}
        if function == "__operators__.getitem":
            op = "GetItem"
            args = [*args, _key(given.pop("slice_spec"))]
        elif function in _BINARY:
            op = _BINARY[function]
            args = [*args, given.pop("y", None)]
        elif function == "linalg.matmul":
            op = "Matmul"
            args = [*args, given.pop("b", None)]
            given = {k: v for k, v in given.items() if v is not False}
        else:
            op, names = _FUNCTIONS.get(function, ("", {}))
            static = {names[k]: given.pop(k) for k in list(given) if k in names}
        if not op or given:
            raise FileError(
                f"'{name}' in a model of Keras 2",
                received=f"tf.{function}({', '.join(given)})",
                expected="a function of TensorFlow that has a counterpart in `ops`",
                fix="make the model by its code, and load_weights from the file",
            )
        return {
            "module": "keras.src.ops.numpy",
            "class_name": op,
            "config": {"name": name} | static,
            "name": name,
            "inbound_nodes": [{"args": args, "kwargs": {}}],
        }


def _key(spec: Any) -> Any:
    """Returns an index in Keras 3's form."""
    if isinstance(spec, list):
        return [_key(s) for s in spec]
    if isinstance(spec, dict) and {"start", "stop", "step"} <= set(spec):
        return {"class_name": "__slice__", "config": dict(spec)}
    if isinstance(spec, dict) and spec.get("class_name") == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    return spec


def training_of_keras2(config: dict) -> dict[str, Any]:
    """Returns what Keras 2 noted of `compile` in the form of Keras 3."""
    if "optimizer_config" not in config:  # Keras 3's own, in an .h5 file
        return config
    metrics = config.get("metrics")
    if isinstance(metrics, list) and len(metrics) == 1 and isinstance(metrics[0], list):
        metrics = metrics[0]
    return {
        "optimizer": _optimizer(config["optimizer_config"]),
        "loss": _loss(config.get("loss")),
        "loss_weights": config.get("loss_weights"),
        "metrics": _metric(metrics),
        "weighted_metrics": _metric(config.get("weighted_metrics")),
    }


def _optimizer(entry: dict) -> dict:
    config = {
        k: _renewed(v)
        for k, v in entry["config"].items()
        if k not in ("jit_compile", "is_legacy_optimizer") and (k != "epsilon" or v is not None)
    }
    if "lr" in config:
        config["learning_rate"] = config.pop("lr")
    if not config.get("decay"):
        config.pop("decay", None)
    return {"module": None, "class_name": _class_name(entry["class_name"]), "config": config}


def _loss(value: Any) -> Any:
    if isinstance(value, list):
        return [_loss(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value or "config" not in value:
        return {k: _loss(v) for k, v in value.items()}
    config = value["config"]
    if isinstance(config, dict) and config.get("reduction") == "auto":
        config = config | {"reduction": "sum_over_batch_size"}
    return {"module": None} | value | {"config": config}


def _metric(value: Any) -> Any:
    if isinstance(value, list):
        return [_metric(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        return {k: _metric(v) for k, v in value.items()}
    config = value["config"]
    if value["class_name"] in ("MeanMetricWrapper", "SumOverBatchSizeMetricWrapper"):
        known = names_of("metrics")
        return config["name"] if config["name"] in known else config["fn"]
    return {"module": None} | value
