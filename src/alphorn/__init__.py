"""Alphorn: Keras for variable-length data, on JAX. `import alphorn as keras`."""

from alphorn import (
    activations,
    backend,
    callbacks,
    config,
    constraints,
    datasets,
    distribution,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    preprocessing,
    random,
    regularizers,
    saving,
    summary,
    utils,
    viz,
    wrappers,
)
from alphorn.checking import check_padding
from alphorn.config import DTypePolicy
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Layer
from alphorn.core.masked import Masked
from alphorn.core.random import SeedGenerator
from alphorn.core.symbol import Symbol as KerasTensor
from alphorn.core.transforms import functional, jit, lifted, lifted_scan, value_and_grad
from alphorn.core.variable import Variable
from alphorn.errors import (
    ArgumentError,
    AssignmentError,
    DataError,
    FileError,
    MaskError,
    ShapeError,
    StateError,
    UnexpectedArgumentError,
)
from alphorn.initializers import Initializer
from alphorn.layers.core import Input, InputLayer
from alphorn.losses import Loss
from alphorn.metrics import Metric
from alphorn.models import Functional, Model, Sequential
from alphorn.ops.steps import lengths, unmask, with_mask
from alphorn.optimizers import Optimizer
from alphorn.regularizers import Regularizer

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "AssignmentError",
    "DTypePolicy",
    "DataError",
    "FileError",
    "Functional",
    "Initializer",
    "Input",
    "InputLayer",
    "InputSpec",
    "KerasTensor",
    "Layer",
    "Loss",
    "MaskError",
    "Masked",
    "Metric",
    "Model",
    "Optimizer",
    "Regularizer",
    "SeedGenerator",
    "Sequential",
    "ShapeError",
    "StateError",
    "UnexpectedArgumentError",
    "Variable",
    "activations",
    "backend",
    "callbacks",
    "check_padding",
    "config",
    "constraints",
    "datasets",
    "distribution",
    "functional",
    "initializers",
    "jit",
    "layers",
    "lengths",
    "lifted",
    "lifted_scan",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "preprocessing",
    "random",
    "regularizers",
    "saving",
    "summary",
    "unmask",
    "utils",
    "value_and_grad",
    "viz",
    "with_mask",
    "wrappers",
]
