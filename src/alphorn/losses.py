"""Losses: what training minimizes. Valid steps count, padding never does."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.core.masked import Masked, fill_masked, is_masked, unmask
from alphorn.core.variable import unwrap
from alphorn.errors import ArgumentError, ShapeError
from alphorn.fields import Configurable
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import lookup, names_of, register, serialize_object, snake_case

__all__ = ["Loss", "deserialize", "get", "serialize"]

_TINY = 1e-7
_REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)


def joined_mask(y_true: Any, y_pred: Any) -> Array | None:
    """Returns where both targets and predictions are valid."""
    masks = [m.mask for m in (y_true, y_pred) if is_masked(m)]
    if not masks:
        return None
    rank = min(m.ndim for m in masks)
    trimmed = [m if m.ndim == rank else m.any(tuple(range(rank, m.ndim))) for m in masks]
    return functools.reduce(jnp.logical_and, trimmed)


def same_rank(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Drops a last axis of size 1 that only one of the two has."""
    if y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] == 1:
        return y_true, jnp.squeeze(y_pred, -1)
    if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        return jnp.squeeze(y_true, -1), y_pred
    return y_true, y_pred


def plain_pair(y_true: Any, y_pred: Any, fill: float = 0.5) -> tuple[Array, Array, Array | None]:
    """Returns targets and predictions with harmless padding, and where both are valid."""
    y_true, y_pred = (x if is_masked(x) else jnp.asarray(unwrap(x)) for x in (y_true, y_pred))
    mask = joined_mask(y_true, y_pred)
    true, pred = unmask(y_true), unmask(y_pred)
    if not jnp.issubdtype(pred.dtype, jnp.floating):
        pred = pred.astype(jnp.float32)
    if mask is not None:
        true = fill_masked(true, mask, 0)
        pred = fill_masked(pred, mask, fill)
    return true, pred, mask


def weights_for(values: Array, mask: Array | None, sample_weight: Any) -> Array | None:
    """Returns the weight of each value: sample weight times mask; None where all weigh 1."""
    weight = None
    if sample_weight is not None:
        weight = jnp.asarray(unmask(unwrap(sample_weight))).astype(values.dtype)
        if weight.ndim == values.ndim + 1 and weight.shape[-1] == 1:
            weight = weight[..., 0]
        if weight.ndim > values.ndim:
            raise ShapeError(
                "sample_weight",
                received=f"shape {tuple(weight.shape)}",
                expected=f"a prefix of the losses' shape {tuple(values.shape)}",
            )
        weight = weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim))
        weight = jnp.broadcast_to(weight, values.shape)
    if mask is not None:
        if mask.ndim > values.ndim:
            mask = mask.any(tuple(range(values.ndim, mask.ndim)))
        valid = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
        valid = jnp.broadcast_to(valid, values.shape)
        # Weights of padding may be anything: they do not count.
        ones = jnp.ones(values.shape, values.dtype) if weight is None else weight
        weight = jnp.where(valid, ones, jnp.zeros_like(ones))
    return weight


class Loss(Configurable):
    """Base of losses: write `call(y_true, y_pred)`, which returns a value for each sample or step.

    Args:
        name: For logs.
        reduction: "sum_over_batch_size" (the mean over valid entries), "sum", "mean",
            "mean_with_sample_weight" or "none".
        dtype: Of the result.

    Predictions may be Masked: the mean is then over valid steps, and padding has no gradient.
    """

    fill: ClassVar[float] = 0.5  # what predictions in padding are taken to be

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        if reduction not in _REDUCTIONS:
            raise ArgumentError(
                f"{type(self).__name__}: reduction",
                received=repr(reduction),
                expected=", ".join(map(repr, _REDUCTIONS)),
            )
        self.name = name or snake_case(type(self).__name__)
        self.reduction = reduction
        self.dtype = jnp.dtype(dtype or "float32").name

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Returns a value for each sample or step."""
        raise ArgumentError(
            f"{type(self).__name__} has no call", fix="write call(self, y_true, y_pred)"
        )

    def values(self, y_true: Any, y_pred: Any) -> tuple[Array, Array | None]:
        """Returns the loss of each sample or step, and which are valid."""
        true, pred, mask = plain_pair(y_true, y_pred, self.fill)
        pred = pred.astype(self.dtype)
        true, pred = same_rank(true, pred)
        return jnp.asarray(self.call(true, pred)), mask

    def weighted_sum(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> tuple[Array, Array]:
        """Returns `(sum, weight)`, with the loss their quotient: epochs add both up.

        For "sum" the weight is 1.
        """
        values, mask = self.values(y_true, y_pred)
        weight = weights_for(values, mask, sample_weight)
        total = jnp.sum(values if weight is None else jnp.where(weight == 0, 0, values * weight))
        if self.reduction == "sum":
            return total, jnp.ones((), total.dtype)
        if self.reduction == "mean_with_sample_weight":
            count = values.size if weight is None else jnp.sum(weight)
        elif mask is None:
            count = values.size
        else:
            count = jnp.sum(weights_for(values, mask, None))  # pyright: ignore
        return total, jnp.asarray(count, total.dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Array:
        """Returns the reduced loss, or a value a sample with "none"."""
        if self.reduction in ("none", None):
            values, mask = self.values(y_true, y_pred)
            weight = weights_for(values, mask, sample_weight)
            return values if weight is None else jnp.where(weight == 0, 0, values * weight)
        total, count = self.weighted_sum(y_true, y_pred, sample_weight)
        return jnp.where(count == 0, 0, total / jnp.where(count == 0, 1, count))

    def get_config(self) -> dict[str, Any]:
        """Returns name and reduction, and the arguments of the loss."""
        own = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "dtype"}
        return {"name": own.pop("name"), "reduction": own.pop("reduction")} | own


class LossFunctionWrapper(Loss):
    """A function `(y_true, y_pred) -> values` as a loss.

    Args:
        fn: The function.
        reduction, name, dtype: As for all losses.
        **kwargs: Passed to the function.
    """

    def __init__(
        self,
        fn: Callable,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        super().__init__(name or getattr(fn, "__name__", "loss"), reduction, dtype)
        self._fn, self._kwargs = fn, kwargs

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Returns the function's values."""
        return self._fn(y_true, y_pred, **self._kwargs)


def _check_shapes(name: str, y_true: Array, y_pred: Array) -> None:
    try:
        np.broadcast_shapes(y_true.shape, y_pred.shape)
    except ValueError:
        raise ShapeError(
            f"loss {name}: targets and predictions do not fit together",
            received=f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}",
            expected="equal shapes",
            fix="for class numbers as targets use sparse_categorical_crossentropy",
        ) from None


def _function(*names: str, fill: float = 0.5) -> Callable[[Callable], Callable]:
    """Makes a public function of targets and predictions from one of plain arrays."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def loss(y_true: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
            true, pred, mask = plain_pair(y_true, y_pred, fill)
            true, pred = same_rank(true, pred)
            values = function(true, pred, *args, **kwargs)
            return values if mask is None else Masked(values, _cut(mask, values))

        loss.plain = function  # pyright: ignore[reportFunctionMemberAccess]
        __all__.append(function.__name__)
        return register("losses", loss, function.__name__, *names)

    return decorate


def _cut(mask: Array, values: Array) -> Array:
    return mask if mask.ndim <= values.ndim else mask.any(tuple(range(values.ndim, mask.ndim)))


def _pointwise(name: str, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    _check_shapes(name, y_true, y_pred)
    return y_true.astype(y_pred.dtype), y_pred


@_function("mse", "MSE")
def mean_squared_error(y_true: Array, y_pred: Array) -> Array:
    """Returns `mean((y_true - y_pred)²)` over the last axis."""
    t, p = _pointwise("mean_squared_error", y_true, y_pred)
    return jnp.mean(jnp.square(t - p), -1)


@_function("mae", "MAE")
def mean_absolute_error(y_true: Array, y_pred: Array) -> Array:
    """Returns `mean(|y_true - y_pred|)` over the last axis."""
    t, p = _pointwise("mean_absolute_error", y_true, y_pred)
    return jnp.mean(jnp.abs(t - p), -1)


@_function("mape", "MAPE")
def mean_absolute_percentage_error(y_true: Array, y_pred: Array) -> Array:
    """Returns `100 * mean(|y_true - y_pred| / |y_true|)` over the last axis."""
    t, p = _pointwise("mean_absolute_percentage_error", y_true, y_pred)
    return 100.0 * jnp.mean(jnp.abs((t - p) / jnp.maximum(jnp.abs(t), _TINY)), -1)


@_function("msle", "MSLE")
def mean_squared_logarithmic_error(y_true: Array, y_pred: Array) -> Array:
    """Returns `mean((log(y_true + 1) - log(y_pred + 1))²)` over the last axis."""
    t, p = _pointwise("mean_squared_logarithmic_error", y_true, y_pred)
    logs = (jnp.log(jnp.maximum(v, _TINY) + 1) for v in (p, t))
    return jnp.mean(jnp.square(next(logs) - next(logs)), -1)


@_function()
def huber(y_true: Array, y_pred: Array, delta: float = 1.0) -> Array:
    """Returns squares near 0 and straight lines beyond `delta`, the mean over the last axis."""
    t, p = _pointwise("huber", y_true, y_pred)
    gap = jnp.abs(t - p)
    delta = jnp.asarray(delta, p.dtype)  # pyright: ignore[reportAssignmentType]
    return jnp.mean(
        jnp.where(gap <= delta, 0.5 * jnp.square(gap), delta * gap - 0.5 * jnp.square(delta)), -1
    )


@_function("logcosh")
def log_cosh(y_true: Array, y_pred: Array) -> Array:
    """Returns `mean(log(cosh(y_pred - y_true)))` over the last axis."""
    t, p = _pointwise("log_cosh", y_true, y_pred)
    gap = p - t
    return jnp.mean(gap + jax.nn.softplus(-2.0 * gap) - jnp.log(jnp.asarray(2.0, p.dtype)), -1)


def _signs(y_true: Array) -> Array:
    """Labels of 0 and 1 as -1 and 1; others as they are."""
    binary = jnp.all((y_true == 0) | (y_true == 1))
    return jnp.where(binary, 2.0 * y_true - 1.0, y_true)


@_function()
def hinge(y_true: Array, y_pred: Array) -> Array:
    """Returns `mean(max(1 - y_true * y_pred, 0))` over the last axis."""
    t, p = _pointwise("hinge", y_true, y_pred)
    return jnp.mean(jnp.maximum(1.0 - _signs(t) * p, 0.0), -1)


@_function()
def squared_hinge(y_true: Array, y_pred: Array) -> Array:
    """Returns `mean(max(1 - y_true * y_pred, 0)²)` over the last axis."""
    t, p = _pointwise("squared_hinge", y_true, y_pred)
    return jnp.mean(jnp.square(jnp.maximum(1.0 - _signs(t) * p, 0.0)), -1)


@_function()
def categorical_hinge(y_true: Array, y_pred: Array) -> Array:
    """Returns `max(largest wrong - right + 1, 0)`."""
    t, p = _pointwise("categorical_hinge", y_true, y_pred)
    return jnp.maximum(jnp.max((1.0 - t) * p, -1) - jnp.sum(t * p, -1) + 1.0, 0.0)


@_function("kld", "KLD", "kullback_leibler_divergence")
def kl_divergence(y_true: Array, y_pred: Array) -> Array:
    """Returns `sum(y_true * log(y_true / y_pred))` over the last axis."""
    t, p = (jnp.clip(v, _TINY, 1) for v in _pointwise("kl_divergence", y_true, y_pred))
    return jnp.sum(t * jnp.log(t / p), -1)


@_function()
def poisson(y_true: Array, y_pred: Array) -> Array:
    """Returns `mean(y_pred - y_true * log(y_pred))` over the last axis."""
    t, p = _pointwise("poisson", y_true, y_pred)
    return jnp.mean(p - t * jnp.log(p + _TINY), -1)


@_function(fill=1.0)
def cosine_similarity(y_true: Array, y_pred: Array, axis: int = -1) -> Array:
    """Returns the cosine of the angle between targets and predictions."""
    t, p = _pointwise("cosine_similarity", y_true, y_pred)

    def unit(v: Array) -> Array:
        squares = jnp.sum(jnp.square(v), axis, keepdims=True)
        return v * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))

    return jnp.sum(unit(t) * unit(p), axis)


@_function("bce", "BCE")
def binary_crossentropy(
    y_true: Array,
    y_pred: Array,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Returns the mean crossentropy with probabilities (or logits) over `axis`."""
    t, p = _pointwise("binary_crossentropy", y_true, y_pred)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return jnp.mean(jax.nn.softplus(p) - p * t, axis)
    p = jnp.clip(p, _TINY, 1 - _TINY)
    return jnp.mean(-(t * jnp.log(p) + (1 - t) * jnp.log(1 - p)), axis)


def _log_probabilities(p: Array, from_logits: bool, axis: int) -> Array:
    if from_logits:
        return jax.nn.log_softmax(p, axis)
    p = p / jnp.sum(p, axis, keepdims=True)
    return jnp.log(jnp.clip(p, _TINY, 1 - _TINY))


@_function()
def categorical_crossentropy(
    y_true: Array,
    y_pred: Array,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Returns the crossentropy with a distribution over the classes on `axis`."""
    if y_true.shape != y_pred.shape:
        raise ShapeError(
            "loss categorical_crossentropy",
            received=f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}",
            expected="equal shapes: one-hot targets",
            fix="for class numbers use sparse_categorical_crossentropy",
        )
    t = y_true.astype(y_pred.dtype)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + label_smoothing / y_pred.shape[axis]
    return -jnp.sum(t * _log_probabilities(y_pred, from_logits, axis), axis)


@_function()
def sparse_categorical_crossentropy(
    y_true: Array,
    y_pred: Array,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Array:
    """Returns the crossentropy with class numbers; those of `ignore_class` count as 0."""
    if y_true.ndim == y_pred.ndim and y_true.shape[axis] == 1:
        y_true = jnp.squeeze(y_true, axis)
    expected = tuple(s for a, s in enumerate(y_pred.shape) if a != axis % y_pred.ndim)
    if y_true.shape != expected:
        raise ShapeError(
            "loss sparse_categorical_crossentropy",
            received=f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}",
            expected=f"y_true {expected}: one class number for each prediction",
            fix="for one-hot targets use categorical_crossentropy",
        )
    labels = y_true.astype(jnp.int32)
    safe = labels if ignore_class is None else jnp.where(labels == ignore_class, 0, labels)
    logs = _log_probabilities(y_pred, from_logits, axis)
    values = -jnp.squeeze(jnp.take_along_axis(logs, jnp.expand_dims(safe, axis), axis), axis)
    return values if ignore_class is None else jnp.where(labels == ignore_class, 0, values)


class _Wrapped(Loss):
    function: ClassVar[Callable]
    options: ClassVar[tuple[str, ...]] = ()

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Returns the function's values."""
        return type(self).function(y_true, y_pred, **{k: getattr(self, k) for k in self.options})


def _loss_class(
    name: str, function: Callable, doc: str, *, called: str = "", last: str = "", **defaults: Any
) -> Any:
    """Makes a loss class of a function.

    Its options come first (`last` behind the reduction), then reduction, name and dtype.
    """
    plain = function.plain  # pyright: ignore[reportFunctionMemberAccess]
    called = called or snake_case(name)
    given = "".join(f"{k}={v!r}, " for k, v in defaults.items() if k != last)
    after = f"{last}={defaults[last]!r}, " if last else ""
    stored = "\n".join(f"    self.{k} = {k}" for k in defaults)
    order = f"{given}reduction='sum_over_batch_size', {after}name={called!r}, dtype=None"
    scope: dict[str, Any] = {"Loss": Loss}
    source = (
        f"def __init__(self, {order}):\n    Loss.__init__(self, name, reduction, dtype)\n{stored}"
    )
    exec(source, scope)  # from our own table
    namespace = {
        "__init__": scope["__init__"],
        "__doc__": doc,
        "__module__": __name__,
        "function": staticmethod(plain),
        "options": tuple(defaults),
    }
    cls = type(name, (_Wrapped,), namespace)
    register("losses", cls, name)
    __all__.append(name)
    return cls


MeanSquaredError = _loss_class("MeanSquaredError", mean_squared_error, "Mean of squared errors.")
MeanAbsoluteError = _loss_class("MeanAbsoluteError", mean_absolute_error, "Mean of errors.")
MeanAbsolutePercentageError = _loss_class(
    "MeanAbsolutePercentageError", mean_absolute_percentage_error, "Mean of errors in percent."
)
MeanSquaredLogarithmicError = _loss_class(
    "MeanSquaredLogarithmicError", mean_squared_logarithmic_error, "Squared errors of logarithms."
)
Huber = _loss_class(
    "Huber", huber, "Squares near 0, lines beyond `delta`.", called="huber_loss", delta=1.0
)
LogCosh = _loss_class("LogCosh", log_cosh, "Logarithm of the hyperbolic cosine of the error.")
Hinge = _loss_class("Hinge", hinge, "Margin of 1 for labels -1 and 1.")
SquaredHinge = _loss_class("SquaredHinge", squared_hinge, "Squared margin.")
CategoricalHinge = _loss_class("CategoricalHinge", categorical_hinge, "Margin between classes.")
KLDivergence = _loss_class("KLDivergence", kl_divergence, "Kullback-Leibler divergence.")
Poisson = _loss_class("Poisson", poisson, "Negative log likelihood of counts.")
BinaryCrossentropy = _loss_class(
    "BinaryCrossentropy",
    binary_crossentropy,
    "Crossentropy of yes-or-no targets with probabilities, or logits.",
    from_logits=False,
    label_smoothing=0.0,
    axis=-1,
)
CategoricalCrossentropy = _loss_class(
    "CategoricalCrossentropy",
    categorical_crossentropy,
    "Crossentropy of one-hot targets.",
    from_logits=False,
    label_smoothing=0.0,
    axis=-1,
)
SparseCategoricalCrossentropy = _loss_class(
    "SparseCategoricalCrossentropy",
    sparse_categorical_crossentropy,
    "Crossentropy of class numbers.",
    last="axis",
    from_logits=False,
    ignore_class=None,
    axis=-1,
)


class CosineSimilarity(_Wrapped):
    """Minus the cosine of the angle between targets and predictions."""

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cosine_similarity",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)
        self.axis = axis

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Returns minus the cosine."""
        plain = cosine_similarity.plain  # pyright: ignore[reportFunctionMemberAccess]
        return -plain(y_true, y_pred, self.axis)


register("losses", CosineSimilarity, "CosineSimilarity")
__all__ += ["CosineSimilarity"]


def get(identifier: Any) -> Any:
    """Returns the loss behind a name, a config, a class, a function or an object; None as it is."""
    if isinstance(identifier, str):
        identifier = lookup("losses", identifier)
    elif isinstance(identifier, dict):
        identifier = deserialize(identifier)
    return identifier() if isinstance(identifier, type) else identifier


def as_loss(identifier: Any) -> Loss | None:
    """Returns any form of a loss as an object."""
    found = get(identifier)
    if found is None or isinstance(found, Loss):
        return found
    if not callable(found):
        raise ArgumentError("loss", received=repr(identifier), expected="a name, function or Loss")
    plain = getattr(found, "plain", None)
    for cls in names_of("losses").values():
        if plain is not None and isinstance(cls, type) and getattr(cls, "function", None) is plain:
            return cls(name=found.__name__)
    return LossFunctionWrapper(found)


def serialize(loss: Any) -> Any:
    """Returns a description of a loss for files."""
    return serialize_object(loss) if isinstance(loss, Loss) else getattr(loss, "__name__", loss)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the loss that `serialize` described."""
    if isinstance(config, str):
        return get(config)
    return _deserialize(config, "losses", custom_objects)
