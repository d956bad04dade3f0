"""Metric: figures over many batches. Valid steps count, padding never does."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from alphorn.config import as_policy, floatx
from alphorn.core.masked import is_masked
from alphorn.core.scope import EAGER, current_scope, current_trace
from alphorn.core.tracking import Tracked
from alphorn.core.transforms import functional
from alphorn.core.variable import Variable, unwrap
from alphorn.errors import ArgumentError, StateError
from alphorn.fields import accepts
from alphorn.losses.pairs import values_of, weighted_sums, weights_for
from alphorn.naming import (
    auto_name,
    deserialize,
    lookup,
    names_of,
    register,
    resolve,
    snake_case,
)

__all__ = ["Mean", "MeanMetricWrapper", "Metric", "Sum"]


class Metric(Tracked):
    """Base of metrics: write `update_state(y_true, y_pred, sample_weight=None)` and `result()`.

    Args:
        dtype: Of the sums; by default float32.
        name: For logs.

    Make the sums by `self.total = self.add_variable((), "zeros", name="total")`.
    """

    is_metric: ClassVar[bool] = True
    trainable = True

    def __init__(self, dtype: Any = None, name: str | None = None):
        self.name = name or auto_name(snake_case(type(self).__name__))
        self.dtype = as_policy(dtype or floatx()).compute_dtype

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers built-in classes."""
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("alphorn.") and not cls.__name__.startswith("_"):
            register("metrics", cls)

    def add_variable(
        self,
        shape: Sequence[int] = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str = "sum",
        name: str | None = None,
    ) -> Variable:
        """Makes a Variable that the metric owns."""
        variable = Variable(
            resolve("initializers", initializer),
            tuple(shape),
            dtype or self.dtype,
            trainable=False,
            autocast=False,
            aggregation=aggregation,
            name=name,
        )
        variable.path = f"{self.name.replace('/', '>')}/{variable.name}"
        vars(self).setdefault("_sums", []).append(variable)
        return variable

    @property
    def variables(self) -> list[Variable]:
        """All sums, those of the metrics that this one is made of too."""
        inner = [v for m in self.metrics for v in m.variables]
        return list(dict.fromkeys([*super().variables, *inner]))

    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: Any = None,
        dtype: Any = None,
        name: Any = None,
    ) -> Variable:
        """Is `add_variable`."""
        return self.add_variable(shape, initializer or "zeros", dtype, name=name)

    def prepare(self, y_true: Any, y_pred: Any) -> None:
        """Makes state that depends on shapes; a hook, called before a step is compiled.

        Args:
            y_true: Targets, or what has their shape.
            y_pred: Predictions, or what has their shape (and `masked`, the rank of its mask).
        """

    def update_state(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a batch in; override it."""
        raise ArgumentError(f"{type(self).__name__} has no update_state")

    def result(self) -> Any:
        """Returns the figure so far; override it."""
        raise ArgumentError(f"{type(self).__name__} has no result")

    def reset_state(self) -> None:
        """Starts again."""
        for variable in self.variables:
            variable.assign(jnp.zeros(variable.shape, variable.dtype))

    def reset_states(self) -> None:
        """Is `reset_state`, as it was called."""
        self.reset_state()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a batch in and returns the figure so far."""
        self.update_state(*args, **kwargs)
        return self.result()

    def stateless_update_state(
        self, metric_variables: Sequence[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Returns the Variables' values after a batch: a pure function."""
        return self._purely(metric_variables, lambda: self.update_state(*args, **kwargs))[1]

    def stateless_result(self, metric_variables: Sequence[Any]) -> Any:
        """Returns the figure for the Variables' values."""
        return self._purely(metric_variables, self.result)[0]

    def can_prepare(self, missing: str) -> None:
        """Raises StateError where state that is made now would be lost: while JAX traces.

        Args:
            missing: What is not known yet, for the error.
        """
        if current_scope() is not None or current_trace() != EAGER:
            raise StateError(
                f"{type(self).__name__} '{self.name}': {missing} is not known before it is traced",
                fix="call metric.prepare(y_true, y_pred) with examples (or their shapes) first;"
                " compile(metrics=[...]) does it",
            )

    def _purely(self, values: Sequence[Any], fn: Callable) -> tuple[Any, list[Array]]:
        if len(values) != len(self.variables):
            raise StateError(
                f"{self.name}: metric_variables",
                received=f"{len(values)} values",
                expected=f"{len(self.variables)}, one a Variable",
            )
        return functional(fn, self.variables)(list(values))

    def stateless_reset_state(self) -> list[Array]:
        """Returns the values to start from."""
        values = [v.slot for v in self.variables]
        return functional(self.reset_state, self.variables)(values)[1]

    def base_config(self) -> dict[str, Any]:
        """Returns name and type."""
        own = {"name": self.name, "dtype": self.dtype}
        return {k: v for k, v in own.items() if accepts(type(self), k)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def _sums(values: Any, sample_weight: Any, dtype: Any) -> tuple[Array, Array]:
    """Returns the sum of values times weights, and that of the weights."""
    mask = values.mask if is_masked(values) else None
    data = jnp.asarray(values.fill(0) if is_masked(values) else unwrap(values), dtype)
    return weighted_sums(data, weights_for(data, mask, sample_weight))


class Mean(Metric):
    """The mean of values.

    >>> metric = Mean()
    >>> metric.update_state([1.0, 3.0])
    >>> metric.result()
    Array(2., dtype=float32)
    """

    def __init__(self, name: str | None = "mean", dtype: Any = None):
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Takes values in, each with its weight."""
        self.add_sums(*_sums(values, sample_weight, self.dtype))

    def add_sums(self, total: Any, count: Any) -> None:
        """Takes a sum of values and the sum of their weights in."""
        self.total.assign_add(total)
        self.count.assign_add(count)

    def result(self) -> Array:
        """Returns the mean, 0 for nothing."""
        count = self.count.value
        return jnp.where(count == 0, 0, self.total.value / jnp.where(count == 0, 1, count))


class Sum(Metric):
    """The sum of values."""

    def __init__(self, name: str | None = "sum", dtype: Any = None):
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Takes values in, each with its weight."""
        self.total.assign_add(_sums(values, sample_weight, self.dtype)[0])

    def result(self) -> Array:
        """Returns the sum."""
        return self.total.value


class MeanMetricWrapper(Mean):
    """The mean of a function `(y_true, y_pred) -> values`.

    Args:
        fn: The function; where predictions are Masked it receives the `Masked` itself.
        name, dtype: As for all metrics.
        **kwargs: Passed to the function.
    """

    def __init__(self, fn: Callable, name: str | None = None, dtype: Any = None, **kwargs: Any):
        super().__init__(name, dtype)
        self._fn = fn
        self._fn_kwargs = kwargs

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Takes a batch in."""
        values, mask = values_of(self._fn, y_true, y_pred, sample_weight, self._fn_kwargs)
        values = values.astype(self.dtype)
        self.add_sums(*weighted_sums(values, weights_for(values, mask, sample_weight)))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes a metric from `get_config()`."""
        fn = config.get("fn")
        return super().from_config(config if fn is None else config | {"fn": function_of(fn)})


def function_of(config: Any) -> Any:
    """Returns the function that a config describes, by its name or in the form of files."""
    name = config["config"] if isinstance(config, dict) else config
    kind = next((k for k in ("losses", "functions") if name in names_of(k)), "functions")
    return lookup(kind, name) if isinstance(config, str) else deserialize(config, kind)
