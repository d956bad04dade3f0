"""Archives of a small model, and how to write them again with something wrong inside."""

import io
import json
import zipfile

import h5py
import pytest

import alphorn
from alphorn import saving
from nets import CLASSIFYING, mlp, start

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def make_archive(path):
    """Writes a compiled model; returns the path."""
    model = mlp(alphorn)
    model.set_weights(start(model))
    model.compile(**CLASSIFYING)
    model.save(path)
    return path


def members(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewritten(path, compression=zipfile.ZIP_STORED, **changes):
    """Writes an archive again with other members: `config` by a function, the rest as bytes."""
    held = members(path)
    if "config" in changes:
        config = json.loads(held[CONFIG])
        changes["config"](config)
        held[CONFIG] = json.dumps(config).encode()
    if "text" in changes:
        held[CONFIG] = changes["text"]
    if "weights" in changes:
        held[WEIGHTS] = changes["weights"](held[WEIGHTS])
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in held.items():
            file.writestr(name, content)
    return path


def refused(path, match, **options):
    with pytest.raises(alphorn.FileError, match=match) as caught:
        saving.load_model(path, **options)
    assert "Traceback" not in str(caught.value)


def of_class(name, **values):
    def change(config):
        entry = config["config"]["layers"][1]
        entry.update(module="keras.layers", class_name=name, config={"name": "hidden", **values})

    return change


def with_weight(make):
    """Returns a change of a weights file that puts something else in place of a kernel."""

    def change(content):
        held = io.BytesIO(content)
        with h5py.File(held, "a") as file:
            del file["layers/dense/vars/0"]
            make(file, file["layers/dense/vars"])
        return held.getvalue()

    return change
