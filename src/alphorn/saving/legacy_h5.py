"""Whole models in `.h5` files: what Keras 2 wrote, and what it and Keras 3 read."""

import json
from pathlib import Path
from typing import Any

import h5py

from alphorn.errors import FileError
from alphorn.files import whole_file
from alphorn.loading import writing
from alphorn.models.legacy_configs import training_of_keras2
from alphorn.naming import serialize
from alphorn.saving.configs import model_from, parsed
from alphorn.saving.legacy_weights import (
    WEIGHTS,
    LegacyWeights,
    write_legacy,
    write_optimizer,
)
from alphorn.saving.legacy_writing import written_for_keras2
from alphorn.saving.stores import assign, h5_file
from alphorn.serialization import told

__all__ = ["load_h5", "save_h5"]


def load_h5(
    path: Path,
    custom_objects: dict[str, Any] | None,
    compile: bool,
    safe_mode: bool,
    spare: int,
) -> Any:
    """Returns the model in an `.h5` file.

    Args:
        path: Of a file that `model.save` of Keras 2, Keras 3 or this library wrote.
        custom_objects, compile, safe_mode: As in `load_model`.
        spare: Bytes of weights that it may make beside twice its own size.
    """
    with h5_file(path, path.name) as store:
        weights = LegacyWeights(store)
        text = weights.attribute("", "model_config")
        if not isinstance(text, str):
            raise FileError(
                f"{path.name} holds no model",
                received="weights alone, or another kind of file",
                expected="what model.save() wrote",
                fix="make the model by its code, then model.load_weights",
            )
        config = parsed(text, f"{path.name}: model_config")
        training = weights.attribute("", "training_config") if compile else None
        if isinstance(config, dict) and isinstance(training, str):
            noted = parsed(training, f"{path.name}: training_config")
            if not isinstance(noted, dict):
                raise FileError(f"{path.name}: training_config", "no object", "what save() wrote")
            with told(path.name):
                config["compile_config"] = training_of_keras2(noted)
        budget = 2 * path.stat().st_size + spare
        model = model_from(config, path.name, custom_objects, compile, safe_mode, budget)
        if model.built:
            assign(weights.fitting(model), fresh=True)
            assign(weights.of_optimizer(model), fresh=True)
        elif any(
            weights.entries(weights.place(n)) for n in weights.names(weights.root, "layer_names")
        ):
            raise FileError(
                f"{path.name}: '{model.name}' has no weights yet, but the file has",
                expected="a config that says the size of the input",
                fix="make the model by its code, call it once, then load_weights",
            )
    return model


def save_h5(model: Any, path: Path) -> None:
    """Writes a model as Keras 2 lays it out.

    What only Keras 3 can say (ops between layers) is written in its words, and tf_keras will not
    open it.

    Args:
        model: Any built model.
        path: Ends in `.h5`.
    """
    with writing():
        described = serialize(model)
    config, training, version = written_for_keras2(model, described)
    with whole_file(path) as beside, h5py.File(beside, "w") as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = version
        file.attrs["model_config"] = json.dumps(config)
        write_legacy(file.create_group(WEIGHTS), model, version=version)
        if training:
            file.attrs["training_config"] = json.dumps(training)
            write_optimizer(file, model.optimizer)
