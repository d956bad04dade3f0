"""Metric: figures over many batches. Valid steps count, padding never does."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from alphorn.core.masked import is_masked
from alphorn.core.tracking import Tracked
from alphorn.core.transforms import functional
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError
from alphorn.losses import plain_pair, same_rank, weights_for
from alphorn.naming import auto_name, register, resolve, snake_case

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
        self.dtype = jnp.dtype(dtype or "float32").name

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
            name=name,
        )
        variable.path = f"{self.name}/{variable.name}"
        vars(self).setdefault("_sums", []).append(variable)
        return variable

    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: Any = None,
        dtype: Any = None,
        name: Any = None,
    ) -> Variable:
        """Is `add_variable`."""
        return self.add_variable(shape, initializer or "zeros", dtype, name=name)

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

    reset_states = reset_state

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a batch in and returns the figure so far."""
        self.update_state(*args, **kwargs)
        return self.result()

    def stateless_update_state(
        self, metric_variables: Sequence[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Returns the Variables' values after a batch: a pure function."""
        pure = functional(lambda: self.update_state(*args, **kwargs), self.variables)
        return pure(list(metric_variables))[1]

    def stateless_result(self, metric_variables: Sequence[Any]) -> Any:
        """Returns the figure for the Variables' values."""
        return functional(self.result, self.variables)(list(metric_variables))[0]

    def stateless_reset_state(self) -> list[Array]:
        """Returns the values to start from."""
        values = [v.slot for v in self.variables]
        return functional(self.reset_state, self.variables)(values)[1]

    def base_config(self) -> dict[str, Any]:
        """Returns name and type."""
        return {"name": self.name, "dtype": self.dtype}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class _Total(Metric):
    def take(self, values: Any, sample_weight: Any) -> tuple[Array, Array]:
        """Returns the sum of values times weights, and that of the weights."""
        mask = values.mask if is_masked(values) else None
        data = jnp.asarray(values.fill(0) if is_masked(values) else values)
        data = data.astype(self.dtype)
        weight = weights_for(data, mask, sample_weight)
        if weight is None:
            return jnp.sum(data), jnp.asarray(data.size, self.dtype)
        return jnp.sum(jnp.where(weight == 0, 0, data * weight)), jnp.sum(weight)


class Mean(_Total):
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
        self.add_sums(*self.take(values, sample_weight))

    def add_sums(self, total: Any, count: Any) -> None:
        """Takes a sum of values and the sum of their weights in."""
        self.total.assign_add(total)
        self.count.assign_add(count)

    def result(self) -> Array:
        """Returns the mean, 0 for nothing."""
        count = self.count.value
        return jnp.where(count == 0, 0, self.total.value / jnp.where(count == 0, 1, count))


class Sum(_Total):
    """The sum of values."""

    def __init__(self, name: str | None = "sum", dtype: Any = None):
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Takes values in, each with its weight."""
        self.total.assign_add(self.take(values, sample_weight)[0])

    def result(self) -> Array:
        """Returns the sum."""
        return self.total.value


class MeanMetricWrapper(Mean):
    """The mean of a function `(y_true, y_pred) -> values`.

    Args:
        fn: The function; it sees arrays whose padding is harmless.
        name, dtype: As for all metrics.
        **kwargs: Passed to the function.
    """

    fill: ClassVar[float] = 0.5

    def __init__(self, fn: Callable, name: str | None = None, dtype: Any = None, **kwargs: Any):
        super().__init__(name or getattr(fn, "__name__", "metric"), dtype)
        self._fn = getattr(fn, "plain", fn)
        self._fn_kwargs = kwargs

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        true, pred, mask = plain_pair(y_true, y_pred, self.fill)
        true, pred = same_rank(true, pred)
        values = jnp.asarray(self._fn(true, pred, **self._fn_kwargs)).astype(self.dtype)
        weight = weights_for(values, mask, sample_weight)
        if weight is None:
            self.add_sums(jnp.sum(values), values.size)
        else:
            self.add_sums(jnp.sum(jnp.where(weight == 0, 0, values * weight)), jnp.sum(weight))
