"""Layers, one family a room."""

from typing import Any

from alphorn.core.layer import Layer
from alphorn.layers.activation import (
    ELU,
    Activation,
    LeakyReLU,
    PReLU,
    ReLU,
    Softmax,
    ThresholdedReLU,
)
from alphorn.layers.attention import AdditiveAttention, Attention
from alphorn.layers.cells import GRUCell, LSTMCell, SimpleRNNCell, StackedRNNCells
from alphorn.layers.convolution import Conv1D, Conv2D
from alphorn.layers.core import Identity, Input, InputLayer
from alphorn.layers.cudnn import CuDNNGRU, CuDNNLSTM
from alphorn.layers.dense import Dense, TimeDistributedDense
from alphorn.layers.einsum_dense import EinsumDense
from alphorn.layers.embedding import Embedding, Masking
from alphorn.layers.lambda_ import Lambda
from alphorn.layers.mask_tools import (
    FirstStep,
    GlobalAttentionPooling1D,
    LastStep,
    RemoveMask,
    RestoreMask,
)
from alphorn.layers.merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from alphorn.layers.multi_head import GroupQueryAttention, MultiHeadAttention
from alphorn.layers.noise import (
    ActivityRegularization,
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
from alphorn.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
    UnitNormalization,
)
from alphorn.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    MaxPooling1D,
    MaxPooling2D,
)
from alphorn.layers.recurrent import GRU, LSTM, RNN, SimpleRNN
from alphorn.layers.reshaping import (
    Cropping1D,
    Flatten,
    Permute,
    RepeatVector,
    Reshape,
    UpSampling1D,
    ZeroPadding1D,
)
from alphorn.layers.spectral_normalization import SpectralNormalization
from alphorn.layers.wrappers import Bidirectional, TimeDistributed, Wrapper
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import register, serialize_object

# Other names of the same layers, from Keras and from older Keras.
AvgPool1D, AvgPool2D = AveragePooling1D, AveragePooling2D
MaxPool1D, MaxPool2D = MaxPooling1D, MaxPooling2D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
GlobalMaxPool1D, GlobalMaxPool2D = GlobalMaxPooling1D, GlobalMaxPooling2D
Convolution1D, Convolution2D = Conv1D, Conv2D
GroupedQueryAttention = GroupQueryAttention
for _alias in [
    "AvgPool1D",
    "AvgPool2D",
    "MaxPool1D",
    "MaxPool2D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "Convolution1D",
    "Convolution2D",
    "GroupedQueryAttention",
]:
    register("layers", globals()[_alias], _alias)

__all__ = [
    "ELU",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "ActivityRegularization",
    "Add",
    "AdditiveAttention",
    "AlphaDropout",
    "Attention",
    "Average",
    "AveragePooling1D",
    "AveragePooling2D",
    "AvgPool1D",
    "AvgPool2D",
    "BatchNormalization",
    "Bidirectional",
    "Concatenate",
    "Conv1D",
    "Conv2D",
    "Convolution1D",
    "Convolution2D",
    "Cropping1D",
    "CuDNNGRU",
    "CuDNNLSTM",
    "Dense",
    "Dot",
    "Dropout",
    "EinsumDense",
    "Embedding",
    "FirstStep",
    "Flatten",
    "GRUCell",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAttentionPooling1D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GroupNormalization",
    "GroupQueryAttention",
    "GroupedQueryAttention",
    "Identity",
    "Input",
    "InputLayer",
    "LSTMCell",
    "Lambda",
    "LastStep",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPooling1D",
    "MaxPooling2D",
    "Maximum",
    "Minimum",
    "MultiHeadAttention",
    "Multiply",
    "PReLU",
    "Permute",
    "RMSNormalization",
    "ReLU",
    "RemoveMask",
    "RepeatVector",
    "Reshape",
    "RestoreMask",
    "SimpleRNN",
    "SimpleRNNCell",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "SpectralNormalization",
    "StackedRNNCells",
    "Subtract",
    "ThresholdedReLU",
    "TimeDistributed",
    "TimeDistributedDense",
    "UnitNormalization",
    "UpSampling1D",
    "Wrapper",
    "ZeroPadding1D",
    "add",
    "average",
    "concatenate",
    "deserialize",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "serialize",
    "subtract",
]


def serialize(layer: Layer) -> dict[str, Any]:
    """Returns a description of a layer for files."""
    return serialize_object(layer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the layer that `serialize` described."""
    return _deserialize(config, "layers", custom_objects)
