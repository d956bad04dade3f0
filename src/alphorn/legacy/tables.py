"""Where older Keras had its names: one table of modules, one of names, one of what took whose place.

Paths are relative to `keras`, which `tensorflow.keras` and `tf_keras` are as well.
"""

from collections.abc import Callable
from typing import Any

import alphorn
from alphorn import config, layers, naming
from alphorn.backend import rows
from alphorn.errors import ArgumentError, UnexpectedArgumentError

# Names by which programs import Keras.
ROOTS = (
    "keras",
    "tensorflow.keras",
    "tensorflow.python.keras",
    "tensorflow.contrib.keras",
    "tf_keras",
)

# Old modules: the rooms in which their names are now.
MODULES: dict[str, tuple[str, ...]] = {
    old: tuple(rooms.split())
    for olds, rooms in {
        """layers.advanced_activations layers.convolutional layers.convolutional_recurrent
        layers.core layers.cudnn_recurrent layers.embeddings layers.local layers.merge
        layers.noise layers.normalization layers.pooling layers.recurrent layers.wrappers
        layers.experimental.preprocessing layers.experimental layers.preprocessing""": "layers",
        """engine engine.base_layer engine.functional engine.input_layer engine.network
        engine.sequential engine.topology engine.training legacy.layers""": "layers models top",
        """utils.conv_utils utils.data_utils utils.generic_utils utils.io_utils utils.layer_utils
        utils.np_utils utils.vis_utils utils.all_utils""": "utils",
        "objectives": "losses",
        "initializations": "initializers",
        "callbacks.callbacks": "callbacks",
        "backend.tensorflow_backend backend.common backend.load_backend": "backend",
        "optimizers.legacy optimizers.experimental": "optimizers",
        "wrappers.scikit_learn": "scikit_learn",
        "legacy legacy.interfaces": "top",
        "api": "top",
    }.items()
    for old in olds.split()
}


def merge(
    inputs: Any, mode: str = "sum", concat_axis: int = -1, dot_axes: Any = -1, **others: Any
) -> Any:
    """Is Keras 1's function: `mode` is sum, mul, concat, ave, dot, cos or max."""
    kinds: dict[str, Callable] = {
        "sum": layers.add,
        "mul": layers.multiply,
        "concat": lambda x, **o: layers.concatenate(x, axis=concat_axis, **o),
        "ave": layers.average,
        "dot": lambda x, **o: layers.dot(x, axes=dot_axes, **o),
        "cos": lambda x, **o: layers.dot(x, axes=dot_axes, normalize=True, **o),
        "max": layers.maximum,
    }
    if mode not in kinds:
        raise ArgumentError(
            "merge: mode",
            received=repr(mode),
            expected=f"one of {', '.join(kinds)}",
            fix="a function of your own goes into layers.Lambda",
        )
    if unknown := set(others) - {"name", "output_shape"}:
        raise UnexpectedArgumentError("merge", ", ".join(unknown), "inputs, mode, axes and name")
    return kinds[mode](inputs, **({"name": others["name"]} if others.get("name") else {}))


def Convolution2D(
    nb_filter: int, nb_row: Any, nb_col: Any = None, *args: Any, **kwargs: Any
) -> Any:
    """Is Keras 1's layer, whose window comes as two numbers; of today's arguments Conv2D."""
    if isinstance(nb_row, int) and isinstance(nb_col, int):
        args = (nb_filter, (nb_row, nb_col), *args)
    else:
        args = (nb_filter, nb_row, *(() if nb_col is None else (nb_col, *args)))
    return layers.Conv2D(*args, **kwargs)


def image_dim_ordering() -> str:
    """Returns Keras 1's word for the layout of images: "tf" for channels last, "th" for first."""
    return "tf" if config.image_data_format() == "channels_last" else "th"


def set_image_dim_ordering(dim_ordering: str) -> None:
    """Sets the layout of images by Keras 1's words, "tf" or "th"."""
    layouts = {"tf": "channels_last", "th": "channels_first"}
    config.set_image_data_format(layouts.get(dim_ordering, dim_ordering))


class Reduction:
    """Names of what becomes of the values of a loss."""

    AUTO = SUM_OVER_BATCH_SIZE = "sum_over_batch_size"
    NONE = "none"
    SUM = "sum"


def _short_losses() -> dict[str, Any]:
    known = naming.names_of("losses")
    short = (
        "mse MSE mae MAE mape MAPE msle MSLE kld KLD logcosh kullback_leibler_divergence".split()
    )
    return {name: known[name] for name in short} | {"cosine_proximity": known["cosine_similarity"]}


def _of_kind(kind: str) -> dict[str, Any]:
    return {n: v for n, v in naming.names_of(kind).items() if n[0].islower()}


# By room: names of older Keras that stand elsewhere now, or nowhere.
NAMES: dict[str, dict[str, Any]] = {
    "": {"__version__": "2.3.1", "Input": alphorn.Input, "Layer": alphorn.Layer},
    "layers": {"InputSpec": alphorn.InputSpec, "merge": merge, "Convolution2D": Convolution2D},
    "backend": {
        "image_dim_ordering": image_dim_ordering,
        "set_image_dim_ordering": set_image_dim_ordering,
    },
    "losses": _short_losses() | {"Reduction": Reduction},
    "metrics": _short_losses(),
    "initializers": _of_kind("initializers"),
    "constraints": _of_kind("constraints"),
    "activations": _of_kind("activations"),
    "models": {"Input": alphorn.Input},
}

# Names without a meaning here, and what to use.
GONE: dict[str, str] = {
    "layers.Highway": "a layer of your own, or Dense and Multiply",
    "layers.LocallyConnected1D": "a layer of your own on K.local_conv1d",
    "layers.LocallyConnected2D": "a layer of your own on K.local_conv2d",
    "layers.MaxoutDense": "Dense(units * pieces), Reshape and a Lambda on ops.max",
    "layers.Merge": "layers.concatenate, add, multiply, dot, ... of Symbols, in Model(inputs, outputs)",
    "layers.RandomHeight": "layers of preprocessing.image, or a layer of your own",
    "layers.AbstractRNNCell": "alphorn.Layer with state_size and call(inputs, states)",
    "models.model_from_yaml": "to_json and model_from_json",
    "models.Graph": "Model(inputs, outputs)",
    "utils.GeneratorEnqueuer": "utils.PyDataset(workers=...)",
    "utils.HDF5Matrix": "h5py: file['x'][:] for an array, or utils.PyDataset for a part at a time",
    "utils.OrderedEnqueuer": "utils.PyDataset(workers=...)",
    "utils.multi_gpu_model": "alphorn.distribution: set_distribution(DataParallel())",
    "utils.get_source_inputs": "model.inputs",
    "callbacks.BaseLogger": "History, which fit returns",
    "callbacks.RemoteMonitor": "a LambdaCallback",
    "optimizers.TFOptimizer": "the optimizers of this room, or an Optimizer of your own on Optax",
    "export": "model.export(path, format='stablehlo')",
    "applications": "a model of your own, and load_weights",
    "estimator": "model.fit",
    "experimental": "the names in the other rooms",
    "mixed_precision": "dtype='mixed_bfloat16', or config.set_dtype_policy('mixed_bfloat16')",
    "regularizers.WeightRegularizer": "regularizers.l2, l1 or l1_l2",
    "regularizers.activity_l1": "regularizers.l1",
    "regularizers.activity_l2": "regularizers.l2",
} | {f"backend.{name}": way for name, way in rows.GONE.items()}
