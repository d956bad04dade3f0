"""One row a loss, metric, optimizer and schedule: how it is made, on what data, and its exemptions.

`make` takes a namespace (ours or Keras's), so that the oracle is made by the same line. `exempt`
says why a property does not hold, by the property's name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BATCH, STEPS, CLASSES = 4, 5, 3
SHAPE = (BATCH, STEPS, CLASSES)
LENGTHS = (5, 2, 4, 3)


@dataclass(frozen=True)
class Row:
    """A loss, metric, optimizer or schedule in one configuration."""

    make: Callable[[Any], Any]
    data: str = "real"
    label: str = ""
    tolerance: float = 1e-5
    exempt: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The class, e.g. "Huber": the first name that `make` asks its namespace for."""
        return next(n for n in self.make.__code__.co_names if n[0].isupper())

    def __str__(self) -> str:
        return f"{self.name}{'-' if self.label else ''}{self.label}"


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


def pair(kind: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns targets and predictions; classes stand on the last axis."""
    random = np.random.default_rng(seed)
    real = random.normal(size=shape)
    classes = random.integers(0, shape[-1], shape[:-1])
    yes = random.integers(0, 2, shape)
    made: dict[str, tuple[Any, Any]] = {
        "real": (random.normal(size=shape), real),
        "binary": (yes, random.uniform(0.05, 0.95, shape)),
        "binary logits": (yes, 2 * real),
        "labels": (yes, random.integers(0, 2, shape)),
        "signs": (2 * yes - 1, real),
        "one-hot": (np.eye(shape[-1])[classes], _softmax(real)),
        "one-hot logits": (np.eye(shape[-1])[classes], real),
        "class": (classes, _softmax(real)),
        "class logits": (classes, real),
        "yes": (yes[..., 0], random.uniform(0.05, 0.95, shape[:-1])),
        "classes": (classes, random.integers(0, shape[-1], shape[:-1])),
        "sorted": (classes, np.argsort(-real, -1)),
        "shares": (_softmax(random.normal(size=shape)), _softmax(real)),
        "counts": (random.poisson(2.0, shape), random.uniform(0.2, 3.0, shape)),
        "positive": (random.uniform(0.5, 2.0, shape), random.uniform(0.2, 3.0, shape)),
    }
    true, pred = made[kind]
    whole = "class" in kind or kind == "sorted"
    return true.astype("int32" if whole else "float32"), pred.astype("float32")


def step_mask() -> np.ndarray:
    """Returns which of the steps of a batch exist: rows of unequal lengths."""
    return np.arange(STEPS) < np.array(LENGTHS)[:, None]


def weights(seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Returns a weight for each row and one for each step."""
    random = np.random.default_rng(seed)
    rows, steps = random.uniform(0.2, 2.0, (BATCH,)), random.uniform(0.2, 2.0, (BATCH, STEPS))
    return rows.astype("float32"), steps.astype("float32")


LOSSES = [
    Row(lambda M, **k: M.MeanSquaredError(**k)),
    Row(lambda M, **k: M.MeanAbsoluteError(**k)),
    Row(lambda M, **k: M.MeanAbsolutePercentageError(**k), "positive"),
    Row(lambda M, **k: M.MeanSquaredLogarithmicError(**k), "positive"),
    Row(lambda M, **k: M.Huber(**k)),
    Row(lambda M, **k: M.Huber(delta=0.3, **k), label="delta"),
    Row(lambda M, **k: M.LogCosh(**k)),
    Row(lambda M, **k: M.Hinge(**k), "signs"),
    Row(lambda M, **k: M.Hinge(**k), "labels", label="zeros and ones"),
    Row(lambda M, **k: M.SquaredHinge(**k), "signs"),
    Row(lambda M, **k: M.CategoricalHinge(**k), "one-hot logits"),
    Row(lambda M, **k: M.KLDivergence(**k), "shares"),
    Row(lambda M, **k: M.Poisson(**k), "counts"),
    Row(lambda M, **k: M.CosineSimilarity(**k)),
    Row(lambda M, **k: M.CosineSimilarity(axis=1, **k), label="time"),
    Row(lambda M, **k: M.BinaryCrossentropy(**k), "binary"),
    Row(lambda M, **k: M.BinaryCrossentropy(label_smoothing=0.1, **k), "binary", label="smooth"),
    Row(lambda M, **k: M.BinaryCrossentropy(True, 0.1, **k), "binary logits", label="logits"),
    Row(lambda M, **k: M.BinaryCrossentropy(axis=1, **k), "binary", label="time"),
    Row(lambda M, **k: M.CategoricalCrossentropy(**k), "one-hot"),
    Row(lambda M, **k: M.CategoricalCrossentropy(False, 0.1, **k), "one-hot", label="smooth"),
    Row(lambda M, **k: M.CategoricalCrossentropy(True, 0.1, **k), "one-hot logits", label="logits"),
    Row(
        lambda M, **k: M.CategoricalCrossentropy(from_logits=True, axis=1, **k),
        "one-hot logits",
        label="time",
    ),
    Row(lambda M, **k: M.SparseCategoricalCrossentropy(**k), "class"),
    Row(lambda M, **k: M.SparseCategoricalCrossentropy(True, **k), "class logits", label="logits"),
    Row(
        lambda M, **k: M.SparseCategoricalCrossentropy(ignore_class=1, **k), "class", label="ignore"
    ),
    Row(lambda M, **k: M.BinaryFocalCrossentropy(**k), "binary"),
    Row(lambda M, **k: M.BinaryFocalCrossentropy(True, **k), "binary", label="balanced"),
    Row(
        lambda M, **k: M.BinaryFocalCrossentropy(False, 0.3, 1.5, True, 0.1, **k),
        "binary logits",
        label="logits",
    ),
    Row(lambda M, **k: M.CategoricalFocalCrossentropy(**k), "one-hot"),
    Row(
        lambda M, **k: M.CategoricalFocalCrossentropy(0.3, 1.5, True, 0.1, **k),
        "one-hot logits",
        label="logits",
    ),
    Row(lambda M, **k: M.CategoricalGeneralizedCrossEntropy(**k), "class"),
    Row(lambda M, **k: M.CategoricalGeneralizedCrossEntropy(0.2, **k), "class", label="q"),
]

# Losses whose values are no values of steps: of a row, of the batch, of pairs.
WHOLE_LOSSES = [
    Row(lambda M, **k: M.Dice(**k), "binary"),
    Row(lambda M, **k: M.Dice(axis=(1, 2), **k), "binary", label="rows"),
    Row(lambda M, **k: M.Dice(axis=-1, **k), "binary", label="steps"),
    Row(lambda M, **k: M.Tversky(0.3, 0.8, **k), "binary"),
    Row(lambda M, **k: M.Tversky(0.3, 0.8, axis=[1, 2], **k), "binary", label="rows"),
    Row(lambda M, **k: M.CTC(**k)),
    Row(lambda M, **k: M.Circle(**k)),
    Row(lambda M, **k: M.Circle(20.0, 0.2, False, **k), label="itself"),
]

METRICS = [
    Row(lambda M: M.Accuracy(), "labels"),
    Row(lambda M: M.BinaryAccuracy(), "binary"),
    Row(lambda M: M.BinaryAccuracy(threshold=0.3), "binary", label="threshold"),
    Row(lambda M: M.CategoricalAccuracy(), "one-hot"),
    Row(lambda M: M.SparseCategoricalAccuracy(), "class"),
    Row(lambda M: M.TopKCategoricalAccuracy(k=2), "one-hot"),
    Row(lambda M: M.SparseTopKCategoricalAccuracy(k=2), "class"),
    Row(
        lambda M: M.SparseTopKCategoricalAccuracy(k=2, from_sorted_ids=True),
        "sorted",
        label="sorted",
    ),
    Row(lambda M: M.MeanSquaredError()),
    Row(lambda M: M.RootMeanSquaredError()),
    Row(lambda M: M.MeanAbsoluteError()),
    Row(lambda M: M.MeanAbsolutePercentageError(), "positive"),
    Row(lambda M: M.MeanSquaredLogarithmicError(), "positive"),
    Row(lambda M: M.LogCoshError()),
    Row(lambda M: M.CosineSimilarity()),
    Row(lambda M: M.Hinge(), "signs"),
    Row(lambda M: M.SquaredHinge(), "signs"),
    Row(lambda M: M.CategoricalHinge(), "one-hot logits"),
    Row(lambda M: M.KLDivergence(), "shares"),
    Row(lambda M: M.Poisson(), "counts"),
    Row(lambda M: M.BinaryCrossentropy(), "binary"),
    Row(
        lambda M: M.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
        "binary logits",
        label="logits",
    ),
    Row(lambda M: M.CategoricalCrossentropy(), "one-hot"),
    Row(
        lambda M: M.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        "one-hot logits",
        label="logits",
    ),
    Row(lambda M: M.SparseCategoricalCrossentropy(), "class"),
    Row(
        lambda M: M.SparseCategoricalCrossentropy(from_logits=True),
        "class logits",
        label="logits",
    ),
    Row(lambda M: M.SparseCategoricalCrossentropy(ignore_class=1), "class", label="ignore"),
    Row(lambda M: M.TruePositives(), "binary"),
    Row(lambda M: M.TrueNegatives(), "binary"),
    Row(lambda M: M.FalsePositives(thresholds=0.7), "binary"),
    Row(lambda M: M.FalseNegatives(thresholds=[0.2, 0.6]), "binary"),
    Row(lambda M: M.Precision(), "binary"),
    Row(lambda M: M.Precision(thresholds=[0.2, 0.6]), "binary", label="thresholds"),
    Row(lambda M: M.Precision(top_k=2, class_id=1), "binary", label="top"),
    Row(lambda M: M.Recall(), "binary"),
    Row(lambda M: M.Recall(thresholds=0.6, class_id=2), "binary", label="class"),
    Row(lambda M: M.Recall(top_k=1), "one-hot", label="top"),
    Row(lambda M: M.AUC(), "binary"),
    Row(lambda M: M.AUC(num_thresholds=7, summation_method="minoring"), "binary", label="minor"),
    Row(lambda M: M.AUC(num_thresholds=7, summation_method="majoring"), "binary", label="major"),
    Row(lambda M: M.AUC(curve="PR", num_thresholds=20), "binary", label="pr"),
    Row(
        lambda M: M.AUC(curve="PR", summation_method="majoring", thresholds=[0.1, 0.35, 0.8]),
        "binary",
        label="pr thresholds",
    ),
    Row(lambda M: M.AUC(curve="PRGAIN", num_thresholds=7), "binary", label="gain"),
    Row(lambda M: M.AUC(from_logits=True, num_thresholds=20), "binary logits", label="logits"),
    Row(
        lambda M: M.AUC(num_thresholds=7, label_weights=[1.0, 0.2, 2.0]),
        "binary",
        label="label weights",
    ),
]

METRICS += [
    Row(lambda M: M.SensitivityAtSpecificity(0.4), "binary"),
    Row(lambda M: M.SpecificityAtSensitivity(0.4, num_thresholds=20), "binary"),
    Row(lambda M: M.PrecisionAtRecall(0.6, num_thresholds=1), "binary"),
    Row(lambda M: M.PrecisionAtRecall(0.6, 20, class_id=1), "binary", label="class"),
    Row(lambda M: M.RecallAtPrecision(0.5), "binary"),
    Row(lambda M: M.PearsonCorrelation()),
    Row(lambda M: M.ConcordanceCorrelation()),
]

# Metrics that take rows of columns in Keras, `(rows, columns)`, or one number a row.
FLAT_METRICS = [
    Row(lambda M: M.BinaryIoU(dtype="float32"), "yes"),
    Row(lambda M: M.BinaryIoU([1], 0.3, dtype="float32"), "yes", label="threshold"),
    Row(lambda M: M.MeanIoU(CLASSES, dtype="float32"), "classes"),
    Row(lambda M: M.MeanIoU(CLASSES, dtype="float32", sparse_y_pred=False), "class"),
    Row(lambda M: M.IoU(3, [0, 2], None, "float32", 1, sparse_y_pred=False), "class"),
    Row(lambda M: M.OneHotIoU(CLASSES, [0, 2], dtype="float32"), "one-hot"),
    Row(lambda M: M.OneHotMeanIoU(CLASSES, dtype="float32", ignore_class=0), "one-hot"),
    Row(lambda M: M.F1Score(), "one-hot"),
    Row(lambda M: M.F1Score("micro", 0.4), "binary", label="micro"),
    Row(lambda M: M.FBetaScore("macro", 2.0), "one-hot"),
    Row(lambda M: M.FBetaScore("weighted", 0.5, 0.3), "binary", label="weighted"),
    Row(lambda M: M.R2Score()),
    Row(lambda M: M.R2Score(None, 2), label="adjusted"),
    Row(lambda M: M.R2Score("variance_weighted_average"), label="variance"),
]

# Metrics over `(rows, labels)`: Keras gives them no axis for steps.
LABEL_METRICS = [
    Row(lambda M: M.AUC(num_thresholds=7, multi_label=True, num_labels=3), label="labels"),
    Row(
        lambda M: M.AUC(
            num_thresholds=7,
            curve="PR",
            multi_label=True,
            num_labels=3,
            label_weights=[1.0, 0.2, 2.0],
        ),
        label="weighted labels",
    ),
]

OPTIMIZERS = [
    Row(lambda M, **k: M.SGD(0.1, **k)),
    Row(lambda M, **k: M.SGD(0.1, momentum=0.9, **k), label="momentum"),
    Row(lambda M, **k: M.SGD(0.1, momentum=0.9, nesterov=True, **k), label="nesterov"),
    Row(lambda M, **k: M.RMSprop(0.01, **k)),
    Row(lambda M, **k: M.RMSprop(0.01, centered=True, **k), label="centered"),
    Row(lambda M, **k: M.RMSprop(0.01, momentum=0.8, centered=True, **k), label="momentum"),
    Row(lambda M, **k: M.Adam(0.05, **k)),
    Row(lambda M, **k: M.Adam(0.05, beta_1=0.8, epsilon=1e-3, **k), label="epsilon"),
    Row(lambda M, **k: M.Adam(0.05, amsgrad=True, **k), label="amsgrad"),
    Row(lambda M, **k: M.AdamW(0.05, **k)),
    Row(lambda M, **k: M.Adamax(0.05, **k)),
    Row(lambda M, **k: M.Nadam(0.05, **k)),
    Row(lambda M, **k: M.Adagrad(0.1, initial_accumulator_value=0.2, **k)),
    Row(lambda M, **k: M.Adadelta(0.5, **k)),
    Row(lambda M, **k: M.Lion(0.05, **k)),
]

# What all optimizers have, shown on one with moments.
COMMON = [
    Row(lambda M: M.Adam(0.05, clipnorm=0.5), label="clipnorm"),
    Row(lambda M: M.Adam(0.05, clipvalue=0.3), label="clipvalue"),
    Row(lambda M: M.Adam(0.05, global_clipnorm=0.5), label="global clipnorm"),
    Row(lambda M: M.Adam(0.05, weight_decay=0.2), label="decay"),
    Row(lambda M: M.Adam(0.05, loss_scale_factor=8.0), label="scale"),
    Row(lambda M: M.Adam(0.05, use_ema=True, ema_momentum=0.7), label="averages"),
    Row(
        lambda M: M.SGD(0.1, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=2),
        label="averages put in",
    ),
    Row(
        lambda M: M.Adam(0.05, gradient_accumulation_steps=2, weight_decay=0.2),
        label="accumulation",
    ),
    Row(
        lambda M: M.Adam(
            M.schedules.ExponentialDecay(0.1, 2, 0.5), gradient_accumulation_steps=2, clipnorm=0.5
        ),
        label="accumulation under a schedule",
    ),
    Row(
        lambda M: M.SGD(0.1, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.7),
        label="averages under accumulation",
    ),
    Row(lambda M: M.Nadam(M.schedules.CosineDecay(0.1, 4)), label="schedule"),
    Row(lambda M: M.SGD(lambda: 0.03), label="callable"),
    Row(lambda M: M.LossScaleOptimizer(M.Adam(0.05), 8.0, 2), label="dynamic"),
]

SCHEDULES = [
    Row(lambda S: S.ExponentialDecay(0.1, 5, 0.5)),
    Row(lambda S: S.ExponentialDecay(0.1, 5, 0.5, staircase=True), label="stairs"),
    Row(lambda S: S.InverseTimeDecay(0.1, 5, 0.5)),
    Row(lambda S: S.InverseTimeDecay(0.1, 5, 0.5, staircase=True), label="stairs"),
    Row(lambda S: S.PiecewiseConstantDecay([3, 9], [1.0, 0.5, 0.1])),
    Row(lambda S: S.PolynomialDecay(0.1, 8)),
    Row(lambda S: S.PolynomialDecay(0.1, 8, 0.01, power=2.0, cycle=True), label="cycle"),
    Row(lambda S: S.CosineDecay(0.1, 10)),
    Row(lambda S: S.CosineDecay(0.1, 10, alpha=0.2), label="alpha"),
    Row(
        lambda S: S.CosineDecay(0.01, 10, alpha=0.1, warmup_target=0.1, warmup_steps=4),
        label="warm-up",
    ),
    Row(lambda S: S.CosineDecayRestarts(0.1, 4)),
    Row(lambda S: S.CosineDecayRestarts(0.1, 4, 1.0, 0.5, 0.1), label="equal"),
    Row(lambda S: S.CosineDecayRestarts(0.1, 4, t_mul=1.5, m_mul=0.8), label="longer"),
]
