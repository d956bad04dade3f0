"""What alphorn and Keras both have takes the same arguments: names, order, kinds, defaults."""

import inspect
from typing import Any

import keras
import numpy as np
import pytest

import alphorn
from test_house import ROOMS


def shared() -> dict[str, tuple[Any, Any]]:
    """Returns our object and Keras's by place, e.g. "layers.Dense", "Model.fit"; each once."""
    found: dict[str, tuple[Any, Any]] = {}
    seen: set[tuple[int, int]] = set()

    def put(place: str, ours: Any, theirs: Any) -> None:
        if (id(ours), id(theirs)) not in seen and callable(ours) and callable(theirs):
            seen.add((id(ours), id(theirs)))
            found[place] = ours, theirs

    for path, room in ROOMS.items():
        peer: Any = keras
        for part in path.split(".")[1:]:
            peer = getattr(peer, part, None)
        for name in room.__all__:
            ours, theirs = getattr(room, name), getattr(peer, name, None)
            place = f"{path}.{name}".removeprefix("alphorn.")
            put(place, ours, theirs)
            if inspect.isclass(ours) and inspect.isclass(theirs):
                for method in sorted(set(dir(ours)) & set(dir(theirs))):
                    if not method.startswith("_"):
                        pair = (inspect.getattr_static(c, method) for c in (ours, theirs))
                        put(f"{place}.{method}", *(getattr(m, "__func__", m) for m in pair))
    return found


SHARED = shared()

# Methods that take the same by any of the names that layers have for it, in one place for all.
GENERIC = {
    "compute_output_shape": "one for all layers: input_shape= or <argument>_shape=",
    "compute_output_spec": "one for all layers: what call takes",
    "compute_mask": "one for all layers: the inputs, then their mask",
}
# What layers with **kwargs take by name, where Keras lists it or takes it in **kwargs as well.
COMMON = frozenset("name dtype weights kwargs".split())
LOW_RANK = "no low-rank adapters and no quantization"

# Place: what differs ("order" for the order), and why.
DIFFERENCES = {
    "KerasTensor": (
        "dtype kwargs masked name ragged record_history sparse",
        "dense arrays, with a mask or none",
    ),
    "KerasTensor.reshape": ("newshape shape", "sizes may come one by one as well, as in NumPy"),
    "KerasTensor.squeeze": ("args axis kwargs", "the methods of Masked and Symbol are the ops"),
    "Layer": ("args", "nothing comes by position"),
    "Layer.add_weight": (
        "aggregation args autocast constraint dtype initializer name overwrite_with_gradient regularizer shape trainable",
        "they may come by position, as in Keras 3.0",
    ),
    "Metric.add_variable": ("initializer shape", "a scalar that begins at 0 is the common case"),
    "Model": ("inputs outputs", "the arguments of a functional model, by name"),
    "Model.build": ("input_shape", "a functional model is built already"),
    "Model.call": (
        "args inputs kwargs training",
        "the call of a functional model; subclasses write their own",
    ),
    "Model.compile": (
        "sample_weight_mode steps_per_execution",
        "Keras 2's; and auto: several small steps a call, the same numbers",
    ),
    "Model.fit": (
        "group_by_length old",
        "rows of like lengths together; and arguments of older Keras by their names, e.g. nb_epoch",
    ),
    "Model.predict_step": ("state", "Keras 2's: the data alone, state is the model's own"),
    "Model.summary": ("masks", "what becomes of masks stands in a column of its own"),
    "Model.test_step": ("state", "Keras 2's: the data alone, state is the model's own"),
    "Model.train_step": ("state", "Keras 2's: the data alone, state is the model's own"),
    "Sequential": (
        "args kwargs layers name trainable",
        "said in full: Keras has a __new__ in front",
    ),
    "Sequential.call": ("kwargs", "layers in a row take data and training only"),
    "Variable": ("kwargs", "nothing comes by names that are not known"),
    "callbacks.ModelCheckpoint": ("save_on_background", "as Keras's OrbaxCheckpoint has it"),
    "callbacks.OrbaxCheckpoint": (
        "resume",
        "fit goes on from the last step, as BackupAndRestore does",
    ),
    "callbacks.ProgbarLogger": ("verbose", "given to it, where Keras reads it from fit"),
    "callbacks.ReduceLROnPlateau": ("kwargs", "only old names in Keras"),
    "callbacks.TensorBoard": ("old", "arguments of Keras 2, which Keras 3 refuses"),
    "layers.GRU.get_initial_state": ("batch_size", "one row by default"),
    "layers.AdditiveAttention": ("seed", "said in full: in Keras it comes in **kwargs"),
    "layers.BatchNormalization": (
        "renorm renorm_clipping renorm_momentum",
        "batch renormalization is not written",
    ),
    "layers.Dense": ("lora_alpha lora_rank quantization_config", LOW_RANK),
    "layers.EinsumDense": (
        "gptq_unpacked_column_size lora_alpha lora_rank quantization_config",
        LOW_RANK,
    ),
    "layers.Embedding": ("lora_alpha lora_rank quantization_config", LOW_RANK),
    "layers.SimpleRNNCell.call": (
        "inputs sequence",
        "one name for all cells, that of LSTMCell in Keras",
    ),
    "layers.StackedRNNCells.call": ("kwargs", "cells take inputs, states and training"),
    "layers.Wrapper.build": ("input_shape", "a wrapped layer must know its input"),
    "ops.layer_normalization": ("kwargs", "only old names in Keras"),
    "ops.multi_hot": ("kwargs", "only old names in Keras"),
    "preprocessing.image_dataset_from_directory": (
        "on_error",
        "broken files may be left out",
    ),
    "preprocessing.image.load_img": (
        "grayscale",
        "Keras 2's way to write color_mode='grayscale'",
    ),
    "random.SeedGenerator": ("kwargs", "only options of other backends in Keras"),
    "models.model_from_json": ("safe_mode", "said where a text with lambdas is read"),
    "saving.load_weights": ("by_name", "said in full: in Keras it comes in **kwargs"),
    "utils.model_to_dot": ("show_masks", "what becomes of masks is drawn too"),
    "utils.plot_model": ("show_masks", "what becomes of masks is drawn too"),
    "utils.split_dataset": ("preferred_backend", "parts come in the form of the data"),
    "preprocessing.timeseries_dataset_from_array": (
        "format",
        "one form, which needs no other library",
    ),
    "optimizers.Adadelta.update_step": ("grad gradient", "one name in all rules"),
    **{
        f"optimizers.{name}.build": ("var_list variables", "by position, as training calls it")
        for name in "Adadelta Adagrad Adam Adamax Lion LossScaleOptimizer Nadam RMSprop".split()
    },
}


def different(place: str) -> set[str]:
    """Returns the parameters that one side lacks, or that differ in kind or default."""
    ours, theirs = (dict(inspect.signature(o).parameters) for o in SHARED[place])
    if place.endswith(".call"):
        ours.pop("mask", None)  # masks come to all of ours
        theirs.pop("mask", None)
    if place.startswith("layers.") and "kwargs" in ours:
        theirs = {n: p for n, p in theirs.items() if n in ours or n not in COMMON}
        ours = {n: p for n, p in ours.items() if n in theirs or n not in COMMON}
    both = [n for n in theirs if n in ours]
    found = set(ours) ^ set(theirs)
    found |= {n for n in both if repr(ours[n].default) != repr(theirs[n].default)}
    found |= {n for n in both if ours[n].kind != theirs[n].kind}
    return found | ({"order"} if both != [n for n in ours if n in theirs] else set())


@pytest.mark.parametrize("place", [p for p in SHARED if p.split(".")[-1] not in GENERIC])
def test_arguments_are_keras_s(place: str) -> None:
    allowed = set(DIFFERENCES.get(place, ("", ""))[0].split())
    assert different(place) == allowed


def test_differences_have_places_and_reasons() -> None:
    assert not set(DIFFERENCES) - set(SHARED)
    assert all(len(reason.split()) >= 3 for _, reason in DIFFERENCES.values())


@pytest.mark.parametrize("name", ["GlorotUniform", "HeUniform", "LecunUniform"])
def test_fans_may_be_named(name: str) -> None:
    ours, theirs = (
        getattr(library.initializers, name)(seed=1, input_axes=[0], output_axes=[1, 2])
        for library in (alphorn, keras)
    )
    draws = [np.abs(np.asarray(make((40, 8, 9)))).max() for make in (ours, theirs)]
    assert draws[0] == pytest.approx(draws[1], rel=1e-2)  # both reach the limit nearly
    assert ours.get_config()["input_axes"] == [0]
    with pytest.raises(alphorn.ArgumentError, match="both or neither"):
        getattr(alphorn.initializers, name)(input_axes=[0])


def test_classes_without_arguments_take_none() -> None:
    for make in (alphorn.constraints.NonNeg, alphorn.initializers.Zeros, alphorn.Regularizer):
        assert make().get_config() == {}
        with pytest.raises(TypeError, match="argument"):
            make(3)


class Thrice(alphorn.Layer):
    def call(self, x: Any) -> Any:
        return x * 3.0


class Cell(alphorn.Layer):
    state_size = output_size = 2

    def call(self, inputs: Any, states: Any) -> Any:
        return inputs * 2.0, states


@pytest.mark.parametrize(
    "layer",
    [
        alphorn.layers.TimeDistributed(Thrice()),
        alphorn.layers.RNN(Cell()),
        alphorn.layers.Bidirectional(alphorn.layers.RNN(Cell())),
        alphorn.layers.StackedRNNCells([Cell()]),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_inside_may_be_named_for_one_call(layer: Any) -> None:
    config = layer.get_config()
    known = {"Thrice": Thrice, "Cell": Cell}
    again = type(layer).from_config(config, custom_objects=known)
    assert again.get_config() == config
    assert not set(alphorn.utils.get_custom_objects()) & set(known)
    with pytest.raises(alphorn.ArgumentError, match=r"a config names the class"):
        type(layer).from_config(config)


def test_a_window_is_a_positive_number() -> None:
    with pytest.raises(alphorn.ArgumentError, match="sliding_window"):
        alphorn.layers.MultiHeadAttention(2, 3, sliding_window=0)
