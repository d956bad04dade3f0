"""Loss: what training minimizes, as an object. Valid steps count, padding never does."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.config import as_policy, floatx
from alphorn.errors import ArgumentError
from alphorn.fields import Configurable, accepts
from alphorn.losses.pairs import values_of, weighted_sums, weights_for
from alphorn.naming import deserialize, lookup, register, snake_case

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)


class Loss(Configurable):
    """Base of losses: write `call(y_true, y_pred)`, which returns a value for each sample or step.

    Args:
        name: For logs.
        reduction: "sum_over_batch_size" or "mean" (the mean over valid entries), "sum",
            "mean_with_sample_weight" (divided by the weights' sum) or "none".
        dtype: In which it is computed.

    Where predictions are Masked, `call` receives the `Masked` itself: `ops.*` know what to do, and
    the mean is over valid steps. Values of steps that `call` unmasked on purpose are masked again.
    """

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        self.name = name or snake_case(type(self).__name__)
        self.reduction = reduction
        self.dtype = dtype
        self.settle()

    def settle(self) -> None:
        """Checks the reduction and finds the type."""
        if self.reduction not in REDUCTIONS:
            raise ArgumentError(
                f"{type(self).__name__}: reduction",
                received=repr(self.reduction),
                expected=", ".join(map(repr, REDUCTIONS)),
            )
        self.dtype = as_policy(self.dtype or floatx()).compute_dtype

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns a value for each sample or step."""
        raise ArgumentError(
            f"{type(self).__name__} has no call", fix="write call(self, y_true, y_pred)"
        )

    def values(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> tuple[Array, Array | None]:
        """Returns the loss of each sample or step, and which are valid."""
        return values_of(self.call, y_true, y_pred, sample_weight, dtype=self.dtype)

    def weights(self, values: Array, mask: Array | None, sample_weight: Any) -> Array | None:
        """Returns the weight of each value, None where all weigh 1."""
        return weights_for(values, mask, sample_weight)

    def weighted_sum(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> tuple[Array, Array]:
        """Returns `(sum, weight)`, with the loss their quotient: epochs add both up.

        For "sum" the weight is 1.
        """
        values, mask = self.values(y_true, y_pred, sample_weight)
        total, weight = weighted_sums(values, self.weights(values, mask, sample_weight))
        if self.reduction == "sum":
            return total, jnp.ones((), total.dtype)
        if self.reduction == "mean_with_sample_weight":
            return total, weight
        return total, weighted_sums(values, self.weights(values, mask, None))[1]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Array:
        """Returns the reduced loss, or a value a sample with "none"."""
        if self.reduction in ("none", None):
            values, mask = self.values(y_true, y_pred, sample_weight)
            weight = self.weights(values, mask, sample_weight)
            return values if weight is None else jnp.where(weight == 0, 0, values * weight)
        total, count = self.weighted_sum(y_true, y_pred, sample_weight)
        return jnp.where(count == 0, 0, total / jnp.where(count == 0, 1, count))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the loss again; the type where it is not the default."""
        config = super().get_config()
        config.pop("dtype", None)
        own = {"name": self.name, "reduction": self.reduction}
        if self.dtype != floatx():
            own["dtype"] = self.dtype
        own = {k: v for k, v in own.items() if accepts(type(self), k)}
        return own | {k: v for k, v in config.items() if k not in own}


class LossFunctionWrapper(Loss):
    """A function `(y_true, y_pred) -> values` as a loss.

    Args:
        fn: The function; where predictions are Masked it receives the `Masked` itself.
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
        super().__init__(name or getattr(fn, "__name__", None), reduction, dtype)
        self.fn = fn
        self._kwargs = kwargs

    def values(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> tuple[Array, Array | None]:
        """Returns the function's values, and which are valid."""
        return values_of(self.fn, y_true, y_pred, sample_weight, self._kwargs, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the function's values."""
        return self.fn(y_true, y_pred, **self._kwargs)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LossFunctionWrapper":
        """Makes a loss from `get_config()`."""
        fn = config["fn"]
        fn = lookup("losses", fn) if isinstance(fn, str) else deserialize(fn, "losses")
        return cls(fn, **{k: deserialize(v) for k, v in config.items() if k != "fn"})


register("losses", LossFunctionWrapper)
