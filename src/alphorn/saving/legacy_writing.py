"""Configs of models in the words of Keras 2, which Keras 3 understands as well."""

import inspect
import warnings
from typing import Any

from alphorn.naming import names_of
from alphorn.saving.places import KERAS2, KERAS3

__all__ = ["written_for_keras2"]

# Arguments that Keras 2 does not have, with the values that say nothing.
_NEW: dict[str, tuple[Any, ...]] = {
    "autocast": (True,),
    "flash_attention": (None,),
    "input_axes": (None,),
    "lora_alpha": (None,),
    "lora_rank": (None,),
    "optional": (False,),
    "output_axes": (None,),
    "quantization_config": (None,),
    "quantization_mode": (None,),
    "seed": (None,),
    "synchronized": (False,),
    "use_cudnn": ("auto", True, False),
    "use_gate": (False,),
    "zero_output_for_mask": (False,),
    "loss_scale_factor": (None,),
    "gradient_accumulation_steps": (None,),
}


class _OnlyKeras3Error(Exception):
    """What Keras 2 has no words for."""


def written_for_keras2(model: Any, described: dict) -> tuple[dict, dict | None, str]:
    """Returns the config of a model, what `compile` said, and the version whose words they are.

    Where Keras 2 has no words for the model, they are those of Keras 3.

    Args:
        model: The model.
        described: Its description in Keras 3's form.
    """
    compiled = described.get("compile_config")
    try:
        config = _model(described)
        return config, _training(compiled, _older), KERAS2
    except _OnlyKeras3Error as error:
        warnings.warn(
            f"'{model.name}' holds {error}, for which Keras 2 has no words: Keras 3 and this"
            " library open the .h5 file, tf_keras does not",
            stacklevel=6,
        )
        config = {k: v for k, v in described.items() if k != "compile_config"}
        return config, _training(compiled, lambda value: value), KERAS3


def _training(compiled: dict | None, words: Any) -> dict | None:
    if not compiled:
        return None
    optimizer = compiled["optimizer"]
    known = ("loss", "loss_weights", "metrics", "weighted_metrics")
    if words is _older:
        named = _optimizer(optimizer)
    else:
        named = {k: optimizer[k] for k in ("class_name", "config")}
    return {k: words(compiled[k]) for k in known} | {"optimizer_config": named}


# Optimizers of Keras 2 in all its versions, and what only later ones take.
_OPTIMIZERS = "SGD RMSprop Adam Adamax Nadam Adagrad Adadelta Ftrl".split()
_LATER = {
    "ema_overwrite_frequency": None,
    "gradient_accumulation_steps": None,
    "loss_scale_factor": None,
    "use_ema": False,
    "weight_decay": None,
}


def _optimizer(entry: dict) -> dict:
    name, config = entry["class_name"], entry["config"]
    if name not in _OPTIMIZERS:
        raise _OnlyKeras3Error(f"the optimizer {name}")
    kept = {}
    for argument, value in config.items():
        if argument in _LATER and value != _LATER[argument]:
            raise _OnlyKeras3Error(f"{argument} of {name}")
        clipping = argument in ("clipnorm", "clipvalue", "global_clipnorm")
        if argument not in (*_LATER, "ema_momentum") and not (clipping and value is None):
            kept[argument] = _older(value)
    return {"class_name": name, "config": kept}


def _older(value: Any) -> Any:
    """Returns plain data with the objects in it in Keras 2's words."""
    if isinstance(value, list | tuple):
        return [_older(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "class_name" in value and "config" in value:
        made = _object(value)
        if isinstance(made, dict) and "config" in made:  # Keras 3 looks inner layers up by it
            known = {k: value[k] for k in ("module", "registered_name") if k in value}
            return known | made
        return made
    return {k: _older(v) for k, v in value.items()}


def _object(entry: dict) -> Any:
    name, config = entry["class_name"], entry["config"]
    if name == "DTypePolicy":
        return config["name"]
    if name == "function":
        return entry["registered_name"] or config
    if name in ("__lambda__", "__slice__", "__numpy__", "__bytes__", "__ellipsis__"):
        return entry
    if "layers" in config:
        return _model(entry)
    made = {k: v for k, v in config.items() if not _says_nothing(k, v)}
    if name == "InputLayer":
        made = {k: made[k] for k in ("batch_shape", "dtype", "name", "sparse") if k in made}
        made["ragged"] = False
    if "batch_shape" in made:
        made["batch_input_shape"] = made.pop("batch_shape")
    if name == "LeakyReLU" and "negative_slope" in made:
        made["alpha"] = made.pop("negative_slope")
    if name == "Lambda":
        made = _lambda(made)
    if name in names_of("losses"):
        made.pop("dtype", None)
    made = {k: _activation(_older(v)) for k, v in made.items()}
    return {"class_name": entry.get("registered_name") or name, "config": made}


def _says_nothing(name: str, value: Any) -> bool:
    return name in _NEW and any(value is v or value == v for v in _NEW[name])


def _activation(value: Any) -> Any:
    if value == "hard_sigmoid":
        raise _OnlyKeras3Error("Keras 3's hard_sigmoid, another function than Keras 2's")
    return "hard_sigmoid" if value == "keras2_hard_sigmoid" else value


def _lambda(config: dict) -> dict:
    function = config["function"]
    if not isinstance(function, dict) or function.get("class_name") != "function":
        raise _OnlyKeras3Error("a Lambda of a function of the library")
    config = config | {
        "function": function["config"],
        "function_type": "function",
        "module": function.get("module"),
    }
    if isinstance(config.get("output_shape"), dict) or config.get("mask") is not None:
        raise _OnlyKeras3Error("a Lambda with a mask, or a function for its shape")
    return config | {"output_shape_type": "raw"}


def _model(entry: dict) -> dict:
    """Returns a model; layers of one that is a graph with their calls as lists."""
    config = entry["config"]
    plain = {k: config[k] for k in ("name", "trainable") if k in config}
    if "input_layers" not in config:
        if entry["class_name"] != "Sequential":
            raise _OnlyKeras3Error(f"a {entry['class_name']}")
        layers = [_object(layer) for layer in config["layers"]]
        return {"class_name": "Sequential", "config": plain | {"layers": layers}}
    if config.get("losses"):
        raise _OnlyKeras3Error("add_loss on symbols")
    name = entry.get("registered_name") or entry["class_name"]
    return {"class_name": name, "config": plain | _graph(config)}


def _graph(config: dict) -> dict:
    kinds = {e["config"]["name"]: e for e in config["layers"]}
    begins = {name: int("layers" in e["config"]) for name, e in kinds.items()}
    layers = []
    for entry in config["layers"]:
        if str(entry.get("module")).startswith("keras.src.ops") or "Operation" in str(
            entry["class_name"]
        ):
            raise _OnlyKeras3Error(f"the op {entry['class_name']} between layers")
        calls = [_call(entry["class_name"], node, begins) for node in entry["inbound_nodes"]]
        made = _object(entry)
        layers.append(made | {"name": entry["config"]["name"], "inbound_nodes": calls})

    def ends(tree: Any) -> Any:
        if len(tree) == 3 and isinstance(tree[0], str):
            shift = int(kinds[tree[0]]["class_name"] == "Sequential")
            return [[tree[0], tree[1] + shift, tree[2]]]
        if isinstance(tree, dict):
            raise _OnlyKeras3Error("inputs or outputs by names")
        return [end for branch in tree for end in ends(branch)]

    return {"layers": layers} | {k: ends(config[k]) for k in ("input_layers", "output_layers")}


def _call(class_name: str, node: dict, begins: dict[str, int]) -> list:
    """Returns a call as Keras 2 writes it: its inputs, each with the named arguments."""
    args, kwargs = list(node["args"]), dict(node["kwargs"])
    if len(args) > 1:
        target = names_of("layers").get(class_name)
        if target is None:
            raise _OnlyKeras3Error(f"a call of {class_name} with several arguments")
        parameters = list(inspect.signature(target.call).parameters)[1:]
        kwargs |= dict(zip(parameters[1:], args[1:], strict=False))
    first = args[0] if args else kwargs.pop(next(iter(kwargs)))

    def place(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [place(v) for v in x]
        if isinstance(x, dict) and x.get("class_name") == "__keras_tensor__":
            name, index, at = x["config"]["keras_history"]
            return [name, index + begins[name], at]
        return _older(x)

    inputs = list(first) if isinstance(first, list | tuple) else [first]
    if not all(isinstance(x, dict) and x.get("class_name") == "__keras_tensor__" for x in inputs):
        raise _OnlyKeras3Error(f"a call of {class_name} on what is no list of layers' outputs")
    options = {k: place(v) for k, v in kwargs.items()}
    return [[*place(x), options] for x in inputs]
