"""One row a layer: how it is made, what it is called on, and what it cannot promise.

`name` is the class, `make(L)` gives the layer from a namespace of layers (ours or Keras's), `inputs`
says what data it takes, `exempt` why a property of the promise does not hold, by its name.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Case:
    """A layer in one configuration."""

    name: str
    make: Callable[[Any], Any]
    inputs: str = "sequence"
    exempt: dict[str, str] = field(default_factory=dict)
    oracle: bool = True
    tolerance: float = 1e-5
    label: str = ""

    def __str__(self) -> str:
        return f"{self.name}{'-' if self.label else ''}{self.label}"


WIDTH = "its width depends on the length: a row alone has another shape"
MOVED = "time is no longer the first axis: a row alone has another shape"
ENDED = "ends the mask on purpose: padding counts as steps from there on"

CONVOLUTIONS = """
    valid valid/strides=2 valid/dilation_rate=2/kernel_size=2 same same/strides=2 same/strides=3
    same/dilation_rate=2 causal causal/strides=2 causal/dilation_rate=2
"""
SHORTER = "valid same same/strides=2 valid/strides=2 same/dilation_rate=2"
TRANSPOSED = """
    valid same valid/strides=2 same/strides=2 same/strides=3 valid/dilation_rate=2
    same/dilation_rate=2 valid/strides=2/output_padding=1 same/strides=2/output_padding=0
    same/kernel_size=2 valid/strides=3/kernel_size=2 same/strides=2/kernel_size=2
    same/strides=3/kernel_size=2 same/strides=3/kernel_size=2/output_padding=1
"""
POOLS = "valid valid/strides=2 valid/strides=1 same same/strides=1 same/strides=2"


def windows(name: str, kinds: str, **fixed: Any) -> list[Case]:
    """Returns a row for each way of padding and its options, e.g. "same/strides=2"."""

    def make(L: Any, options: dict[str, Any]) -> Any:
        return getattr(L, name)(**options)

    found = []
    for kind in kinds.split():
        padding, *given = kind.split("/")
        options = {key: int(value) for key, value in (o.split("=") for o in given)}
        options = fixed | options | {"padding": padding}
        found.append(Case(name, functools.partial(make, options=options), label=kind))
    return found


def interpolated(kind: str, L: Any) -> Any:
    """Returns an upsampling of this kind."""
    return L.UpSampling2D((3, 2), interpolation=kind)


LAYERS = [
    Case("Identity", lambda L: L.Identity()),
    Case("Dense", lambda L: L.Dense(3, activation="tanh")),
    Case("TimeDistributedDense", lambda L: L.TimeDistributedDense(3), oracle=False),
    Case("EinsumDense", lambda L: L.EinsumDense("btf,fe->bte", (None, 3), "tanh", "e")),
    Case("EinsumDense", lambda L: L.EinsumDense("...f,fe->...e", 3), label="dots"),
    Case(
        "EinsumDense",
        lambda L: L.EinsumDense("btnf,nfe->bte", (None, 3), bias_axes="e"),
        inputs="grid",
        label="two",
    ),
    Case("Activation", lambda L: L.Activation("softmax")),
    Case("Activation", lambda L: L.Activation("relu"), label="relu"),
    Case("ReLU", lambda L: L.ReLU(negative_slope=0.1, max_value=0.8)),
    Case("LeakyReLU", lambda L: L.LeakyReLU()),
    Case("ELU", lambda L: L.ELU()),
    Case("PReLU", lambda L: L.PReLU(shared_axes=[1])),
    Case("ThresholdedReLU", lambda L: L.ThresholdedReLU(0.3), oracle=False),
    Case("Softmax", lambda L: L.Softmax()),
    Case("Softmax", lambda L: L.Softmax(axis=1), label="time"),
    Case("Softmax", lambda L: L.Softmax(axis=(1, 2)), label="both"),
    Case("Embedding", lambda L: L.Embedding(20, 4), inputs="ids"),
    Case("Embedding", lambda L: L.Embedding(20, 4, mask_zero=True), inputs="ids", label="zero"),
    Case("Masking", lambda L: L.Masking(0.0)),
    Case("Lambda", lambda L: L.Lambda(lambda x: x * 2.0 + 1.0)),
    Case("Dropout", lambda L: L.Dropout(0.5)),
    Case("SpatialDropout1D", lambda L: L.SpatialDropout1D(0.5)),
    Case("SpatialDropout2D", lambda L: L.SpatialDropout2D(0.5), inputs="grid"),
    Case("SpatialDropout3D", lambda L: L.SpatialDropout3D(0.5), inputs="solid"),
    Case("GaussianDropout", lambda L: L.GaussianDropout(0.5)),
    Case("GaussianNoise", lambda L: L.GaussianNoise(0.5)),
    Case("AlphaDropout", lambda L: L.AlphaDropout(0.5)),
    Case("ActivityRegularization", lambda L: L.ActivityRegularization(0.1, 0.1)),
    Case("LayerNormalization", lambda L: L.LayerNormalization()),
    Case(
        "LayerNormalization",
        lambda L: L.LayerNormalization(axis=1, center=False, scale=False),
        label="time",
    ),
    Case("RMSNormalization", lambda L: L.RMSNormalization()),
    Case("GroupNormalization", lambda L: L.GroupNormalization(2)),
    Case("GroupNormalization", lambda L: L.GroupNormalization(-1), inputs="grid", label="instance"),
    Case("BatchNormalization", lambda L: L.BatchNormalization()),
    Case("BatchNormalization", lambda L: L.BatchNormalization(axis=2), inputs="grid", label="axis"),
    Case(
        "SpectralNormalization",
        lambda L: L.SpectralNormalization(L.Dense(3, activation="tanh")),
        oracle=False,
    ),
    Case("UnitNormalization", lambda L: L.UnitNormalization()),
    Case("Flatten", lambda L: L.Flatten(), exempt={"padding": WIDTH, "alone": WIDTH}),
    Case("Reshape", lambda L: L.Reshape((-1, 2, 2))),
    Case("Permute", lambda L: L.Permute((2, 1)), exempt={"padding": MOVED, "alone": MOVED}),
    Case("RepeatVector", lambda L: L.RepeatVector(3), inputs="vector"),
    Case("ZeroPadding1D", lambda L: L.ZeroPadding1D((1, 2))),
    Case("ZeroPadding2D", lambda L: L.ZeroPadding2D(((1, 2), (0, 1))), inputs="grid"),
    Case("ZeroPadding3D", lambda L: L.ZeroPadding3D((1, 0, 2)), inputs="solid"),
    Case("Cropping1D", lambda L: L.Cropping1D((1, 1))),
    Case("Cropping2D", lambda L: L.Cropping2D(((1, 0), (0, 2))), inputs="grid"),
    Case("Cropping3D", lambda L: L.Cropping3D(((0, 2), (1, 0), (0, 1))), inputs="solid"),
    Case("UpSampling1D", lambda L: L.UpSampling1D(2)),
    Case("UpSampling2D", lambda L: L.UpSampling2D((2, 3)), inputs="grid"),
    *[
        Case("UpSampling2D", functools.partial(interpolated, kind), "grid", label=kind)
        for kind in ("bilinear", "bicubic", "lanczos3", "lanczos5")
    ],
    Case("UpSampling3D", lambda L: L.UpSampling3D((3, 1, 2)), inputs="solid"),
    Case("Concatenate", lambda L: L.Concatenate(), inputs="pair"),
    Case("Add", lambda L: L.Add(), inputs="pair"),
    Case("Subtract", lambda L: L.Subtract(), inputs="pair"),
    Case("Multiply", lambda L: L.Multiply(), inputs="pair"),
    Case("Average", lambda L: L.Average(), inputs="pair"),
    Case("Maximum", lambda L: L.Maximum(), inputs="pair"),
    Case("Minimum", lambda L: L.Minimum(), inputs="pair"),
    Case("Concatenate", lambda L: L.Concatenate(axis=1), inputs="pair", label="time"),
    Case("Dot", lambda L: L.Dot(axes=1), inputs="pair"),
    Case("Dot", lambda L: L.Dot(axes=1, normalize=True), inputs="pair", label="normalized"),
    Case(
        "Dot",
        lambda L: L.Dot(axes=2),
        inputs="pair",
        exempt={"padding": WIDTH, "alone": WIDTH},
        label="features",
    ),
    *windows("Conv1D", CONVOLUTIONS, filters=3, kernel_size=3),
    Case("Conv1D", lambda L: L.Conv1D(4, 2, groups=2), label="groups"),
    Case("Conv2D", lambda L: L.Conv2D(3, (2, 2), padding="same"), inputs="grid"),
    Case("Conv2D", lambda L: L.Conv2D(4, (3, 2), (2, 1), groups=2), "grid", label="strided"),
    Case("Conv2D", lambda L: L.Conv2D(3, 2, 2, "same"), "grid", label="same2"),
    Case("Conv3D", lambda L: L.Conv3D(3, 2, (2, 1, 1), "same"), inputs="solid"),
    *windows("DepthwiseConv1D", SHORTER, kernel_size=3),
    Case("DepthwiseConv1D", lambda L: L.DepthwiseConv1D(2, depth_multiplier=3), label="deep"),
    Case("DepthwiseConv2D", lambda L: L.DepthwiseConv2D(2, depth_multiplier=2), inputs="grid"),
    *windows("SeparableConv1D", SHORTER, filters=3, kernel_size=3),
    Case("SeparableConv1D", lambda L: L.SeparableConv1D(3, 2, depth_multiplier=2), label="deep"),
    Case("SeparableConv2D", lambda L: L.SeparableConv2D(3, 2, 2, "same"), inputs="grid"),
    *windows("Conv1DTranspose", TRANSPOSED, filters=3, kernel_size=3),
    Case("Conv2DTranspose", lambda L: L.Conv2DTranspose(3, (3, 2), (2, 1)), inputs="grid"),
    Case("Conv2DTranspose", lambda L: L.Conv2DTranspose(3, 2, 2, "same"), "grid", label="same2"),
    Case("Conv3DTranspose", lambda L: L.Conv3DTranspose(2, 2, 2), inputs="solid"),
    *windows("MaxPooling1D", POOLS, pool_size=3),
    *windows("AveragePooling1D", POOLS, pool_size=3),
    Case("MaxPooling2D", lambda L: L.MaxPooling2D((2, 1), (1, 1)), inputs="grid"),
    Case("MaxPooling2D", lambda L: L.MaxPooling2D(2, padding="same"), "grid", label="same2"),
    Case("AveragePooling2D", lambda L: L.AveragePooling2D((2, 1), (1, 1)), inputs="grid"),
    Case("AveragePooling2D", lambda L: L.AveragePooling2D(2, None, "same"), "grid", label="same2"),
    Case("MaxPooling3D", lambda L: L.MaxPooling3D(2), inputs="solid"),
    Case("AveragePooling3D", lambda L: L.AveragePooling3D(2, 1, "same"), inputs="solid"),
    Case("AdaptiveMaxPooling1D", lambda L: L.AdaptiveMaxPooling1D(3)),
    Case("AdaptiveMaxPooling1D", lambda L: L.AdaptiveMaxPooling1D(4), label="overlap"),
    Case("AdaptiveAveragePooling1D", lambda L: L.AdaptiveAveragePooling1D(2)),
    Case("AdaptiveAveragePooling1D", lambda L: L.AdaptiveAveragePooling1D(4), label="overlap"),
    Case("AdaptiveMaxPooling2D", lambda L: L.AdaptiveMaxPooling2D((2, 1)), inputs="grid"),
    Case("AdaptiveAveragePooling2D", lambda L: L.AdaptiveAveragePooling2D(2), inputs="grid"),
    Case("AdaptiveMaxPooling3D", lambda L: L.AdaptiveMaxPooling3D((2, 3, 1)), inputs="solid"),
    Case("AdaptiveAveragePooling3D", lambda L: L.AdaptiveAveragePooling3D(2), inputs="solid"),
    Case("GlobalMaxPooling1D", lambda L: L.GlobalMaxPooling1D()),
    Case("GlobalAveragePooling1D", lambda L: L.GlobalAveragePooling1D()),
    Case("GlobalAveragePooling1D", lambda L: L.GlobalAveragePooling1D(keepdims=True), label="kept"),
    Case("GlobalMaxPooling2D", lambda L: L.GlobalMaxPooling2D(), inputs="grid"),
    Case("GlobalAveragePooling2D", lambda L: L.GlobalAveragePooling2D(), inputs="grid"),
    Case("GlobalMaxPooling3D", lambda L: L.GlobalMaxPooling3D(), inputs="solid"),
    Case("GlobalAveragePooling3D", lambda L: L.GlobalAveragePooling3D(), inputs="solid"),
    Case("GlobalAttentionPooling1D", lambda L: L.GlobalAttentionPooling1D(3), oracle=False),
    Case("LastStep", lambda L: L.LastStep(), oracle=False),
    Case("FirstStep", lambda L: L.FirstStep(), oracle=False),
    Case("RestoreMask", lambda L: L.RestoreMask(), inputs="pair", oracle=False),
    Case(
        "RemoveMask",
        lambda L: L.RemoveMask(),
        oracle=False,
        exempt={"padding": ENDED, "alone": ENDED},
    ),
    Case("SimpleRNN", lambda L: L.SimpleRNN(3)),
    Case("LSTM", lambda L: L.LSTM(3)),
    Case("LSTM", lambda L: L.LSTM(3, return_sequences=True), label="sequences"),
    Case("LSTM", lambda L: L.LSTM(3, return_sequences=True, go_backwards=True), label="backwards"),
    Case("GRU", lambda L: L.GRU(3, return_sequences=True)),
    Case("GRU", lambda L: L.GRU(3, reset_after=False), label="before"),
    Case("CuDNNLSTM", lambda L: L.CuDNNLSTM(3, return_sequences=True), oracle=False),
    Case("CuDNNGRU", lambda L: L.CuDNNGRU(3), oracle=False),
    Case("RNN", lambda L: L.RNN(L.LSTMCell(3), return_sequences=True)),
    Case("RNN", lambda L: L.RNN([L.GRUCell(3), L.SimpleRNNCell(2)]), label="stacked"),
    Case("ConvLSTM1D", lambda L: L.ConvLSTM1D(2, 2), inputs="grid"),
    Case(
        "ConvLSTM1D",
        lambda L: L.ConvLSTM1D(2, 3, 2, "same", return_sequences=True),
        inputs="grid",
        label="sequences",
    ),
    Case(
        "ConvLSTM1D",
        lambda L: L.ConvLSTM1D(2, 2, go_backwards=True, return_sequences=True),
        inputs="grid",
        label="backwards",
    ),
    Case("ConvLSTM2D", lambda L: L.ConvLSTM2D(2, (2, 1), padding="same"), inputs="solid"),
    Case(
        "ConvLSTM2D",
        # Where tanh saturates, 1 - y * y leaves three digits of seven: these do not cancel.
        lambda L: L.ConvLSTM2D(
            2, 2, activation="softsign", recurrent_activation="hard_sigmoid", return_state=True
        ),
        "solid",
        label="state",
    ),
    Case("ConvLSTM3D", lambda L: L.ConvLSTM3D(2, 2, use_bias=False), inputs="movie"),
    Case("Bidirectional", lambda L: L.Bidirectional(L.LSTM(3, return_sequences=True))),
    Case(
        "Bidirectional",
        lambda L: L.Bidirectional(L.ConvLSTM1D(2, 2, return_sequences=True)),
        inputs="grid",
        label="windows",
    ),
    Case("Bidirectional", lambda L: L.Bidirectional(L.GRU(3), merge_mode="sum"), label="sum"),
    Case(
        "Bidirectional",
        lambda L: L.Bidirectional(L.GRU(3, return_sequences=True, return_state=True), None),
        label="apart",
    ),
    Case("Bidirectional", lambda L: L.Bidirectional(L.SimpleRNN(3), "mul"), label="mul"),
    Case(
        "Bidirectional",
        lambda L: L.Bidirectional(
            L.LSTM(3, return_sequences=True),
            "ave",
            backward_layer=L.GRU(3, return_sequences=True, go_backwards=True),
        ),
        label="unlike",
    ),
    Case(
        "LSTM",
        lambda L: L.LSTM(3, return_sequences=True, return_state=True, go_backwards=True),
        label="states",
    ),
    Case("SimpleRNN", lambda L: L.SimpleRNN(2, unroll=True), label="unrolled"),
    Case("TimeDistributed", lambda L: L.TimeDistributed(L.Dense(3))),
    Case(
        "TimeDistributed", lambda L: L.TimeDistributed(L.BatchNormalization()), label="statistics"
    ),
    Case("TimeDistributed", lambda L: L.TimeDistributed(L.LSTM(3)), inputs="nested", label="lstm"),
    Case("MultiHeadAttention", lambda L: L.MultiHeadAttention(2, 3), inputs="two"),
    Case(
        "MultiHeadAttention",
        lambda L: L.MultiHeadAttention(2, 3, sliding_window=2, use_gate=True),
        inputs="two",
        label="window",
    ),
    Case(
        "GroupQueryAttention",
        lambda L: L.GroupQueryAttention(3, 4, 2),
        inputs="two",
    ),
    Case(
        "GroupQueryAttention",
        lambda L: L.GroupQueryAttention(3, 4, 1, sliding_window=2, use_gate=True, use_bias=False),
        inputs="two",
        label="window",
    ),
    Case("Attention", lambda L: L.Attention(), inputs="pair"),
    Case("Attention", lambda L: L.Attention(True, "concat"), inputs="pair", label="concat"),
    Case("AdditiveAttention", lambda L: L.AdditiveAttention(), inputs="pair"),
]

# Layers that see steps one by one, or in their order: missing steps might as well not be there.
WINDOWLESS = frozenset(
    """
    GlobalAttentionPooling1D LastStep FirstStep CuDNNGRU CuDNNLSTM ThresholdedReLU TimeDistributedDense Identity Dense EinsumDense Activation ReLU LeakyReLU ELU PReLU Softmax Lambda LayerNormalization
    BatchNormalization UnitNormalization GlobalMaxPooling1D GlobalAveragePooling1D SimpleRNN LSTM
    GRU RNN ConvLSTM1D ConvLSTM2D ConvLSTM3D Bidirectional TimeDistributed MultiHeadAttention
    GroupQueryAttention Attention AdditiveAttention Concatenate Add Multiply Average Maximum
    RMSNormalization GroupNormalization SpectralNormalization
    """.split()
)

# Layers that do something else while training.
TRAINING = frozenset(
    """
    AlphaDropout BatchNormalization Dropout GaussianDropout GaussianNoise SpatialDropout1D
    SpatialDropout2D SpatialDropout3D SpectralNormalization
    """.split()
)

# Classes that no data pass through by themselves, and other names of layers above.
WITHOUT_ROW = {
    "Wrapper": "the base of wrappers, which computes nothing",
    "InputLayer": "no data pass through it: it makes a Symbol",
    "ConvLSTMCell": "one step: it is run by ConvLSTM2D",
    "LSTMCell": "one step: it is run by RNN",
    "GRUCell": "one step: it is run by RNN",
    "SimpleRNNCell": "one step: it is run by RNN",
    "StackedRNNCells": "one step: it is run by RNN",
    "Model": "a graph of layers: test_models has rows of its own",
    "Sequential": "a graph of layers: test_models has rows of its own",
}
