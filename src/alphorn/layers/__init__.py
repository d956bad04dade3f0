"""Layers, one family a room."""

from alphorn.core.layer import Layer
from alphorn.layers.cells import GRUCell, LSTMCell, SimpleRNNCell, StackedRNNCells
from alphorn.layers.core import Identity, Input, InputLayer
from alphorn.layers.dense import Dense
from alphorn.layers.embedding import Embedding, Masking
from alphorn.layers.recurrent import GRU, LSTM, RNN, SimpleRNN
from alphorn.layers.wrappers import Bidirectional, TimeDistributed, Wrapper
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import serialize_object as serialize

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Dense",
    "Embedding",
    "GRUCell",
    "Identity",
    "Input",
    "InputLayer",
    "LSTMCell",
    "Layer",
    "Masking",
    "SimpleRNN",
    "SimpleRNNCell",
    "StackedRNNCells",
    "TimeDistributed",
    "Wrapper",
    "deserialize",
    "serialize",
]


def deserialize(config: object, custom_objects: dict | None = None) -> object:
    """Returns the layer that `serialize` described."""
    return _deserialize(config, "layers", custom_objects)
