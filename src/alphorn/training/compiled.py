"""What `compile` says: losses and metrics for each output, found by name, summed over an epoch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.core.masked import Masked, extent, is_masked, unmask
from alphorn.errors import ArgumentError, DataError
from alphorn.losses import Loss, as_loss
from alphorn.metrics import Mean, Metric, as_metric

# Losses whose targets are class numbers.
_WITH_CLASS_NUMBERS = (
    "SparseCategoricalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CTC",
)


def outputs_of(tree: Any) -> list[Any]:
    """Returns the outputs of a model as a list."""
    return jax.tree.leaves(tree, is_leaf=is_masked)


def per_output(
    what: str, given: Any, names: list[str], keys: list[str], default: Any = None
) -> list:
    """Spreads an argument of `compile` or `fit` over the outputs.

    Args:
        what: The argument, for errors.
        given: One for all, a list, or a dict by output names.
        names: Names of the outputs.
        keys: Keys of the outputs' dict, if they are one.
        default: For outputs that a dict leaves out.
    """
    if isinstance(given, dict):
        strange = [k for k in given if k not in names and k not in keys]
        if strange:
            raise ArgumentError(
                f"compile: {what}", f"{strange}", f"names of outputs: {', '.join(keys or names)}"
            )
        pick = dict(zip(keys or names, names, strict=True))
        return [given.get(k, given.get(n, default)) for k, n in pick.items()]
    if isinstance(given, list | tuple):
        if len(given) != len(names):
            raise ArgumentError(
                f"compile: {what}", f"{len(given)} of them", f"one for each of {names}"
            )
        return list(given)
    return [given] * len(names)


class CompiledLoss:
    """The sum of the outputs' losses, and a running mean of each.

    Args:
        loss: What `compile` got.
        weights: `loss_weights`.
        names, keys: Of the outputs.
    """

    def __init__(self, loss: Any, weights: Any, names: list[str], keys: list[str]):
        self.names = names
        if loss is not None and not isinstance(loss, dict | list | tuple) and len(names) > 1:
            loss = [loss] * len(names)
        self.losses = [as_loss(x) for x in per_output("loss", loss, names, keys)]
        self.weights = per_output("loss_weights", weights, names, keys)
        if wrong := [w for w in self.weights if isinstance(w, str)]:
            raise ArgumentError(
                "compile: loss_weights", repr(wrong[0]), "numbers", "metrics=[...] by its name"
            )
        several = sum(loss is not None for loss in self.losses) > 1
        self._trackers = [
            Mean(name=f"{name}_loss") if several and loss is not None else None
            for name, loss in zip(names, self.losses, strict=True)
        ]

    @property
    def trackers(self) -> list[Mean]:
        """The running means, where several outputs have a loss."""
        return [t for t in self._trackers if t is not None]

    @property
    def factors(self) -> list[float]:
        """By what the losses are multiplied in the total."""
        pairs = zip(self.weights, self.losses, strict=True)
        return [1.0 if w is None else w for w, loss in pairs if loss is not None]

    def __call__(self, y: list, predictions: list, weights: list) -> tuple[Array, Array]:
        """Returns the sum of values of each loss, and the sum of their weights: `(losses,)` each.

        The running means take them in, where they may be written: not inside a gradient that does
        not carry them.
        """
        sums = []
        for i, loss in enumerate(self.losses):
            if loss is None:
                continue
            found = self._sums(loss, y[i], predictions[i], weights[i])
            sums.append([jnp.asarray(v, jnp.float32) for v in found])
            tracker = self._trackers[i]
            if tracker is not None and tracker.total.writable:
                tracker.add_sums(*found)
        return jnp.stack([total for total, _ in sums]), jnp.stack([weight for _, weight in sums])

    @staticmethod
    def _sums(loss: Loss, y: Any, prediction: Any, weight: Any) -> tuple[Array, Array]:
        if type(loss).__call__ is Loss.__call__:
            return loss.weighted_sum(y, prediction, weight)
        value = loss(y, prediction, weight)
        count = jnp.asarray(unmask(prediction).shape[0], value.dtype)
        return value * count, count

    def check_labels(self, y: list, predictions: list) -> None:
        """Raises DataError for class numbers that the outputs do not have.

        Args:
            y: A batch of targets on the host.
            predictions: What stands for the outputs, with shapes.
        """
        for loss, labels, output, name in zip(self.losses, y, predictions, self.names, strict=True):
            if type(loss).__name__ not in _WITH_CLASS_NUMBERS or labels is None:
                continue
            classes = output.shape[-1]
            values = np.asarray(labels.data if is_masked(labels) else labels)
            if is_masked(labels):
                values = values[np.asarray(labels.mask)]
            values = values[values != getattr(loss, "ignore_class", None)]
            if values.dtype.kind == "f" and not np.array_equal(values, np.trunc(values)):
                raise DataError(
                    f"labels of '{name}'",
                    received=f"class {values[values != np.trunc(values)][0]}",
                    expected=f"whole numbers from 0 to {classes - 1}",
                    fix="for one-hot rows or probabilities use loss='categorical_crossentropy'",
                )
            if classes and values.size and (values.max() >= classes or values.min() < 0):
                worst = values.max() if values.max() >= classes else values.min()
                raise DataError(
                    f"labels of '{name}'",
                    received=f"class {worst}",
                    expected=f"0 to {classes - 1}: the output has {classes} classes",
                    fix=f"number the classes from 0, or give the last layer {int(worst) + 1} units"
                    if worst > 0
                    else "number the classes from 0; a mask or ignore_class leaves steps out",
                )


def means(sums: Array, weights: Array) -> Array:
    """Returns sums by their weights, 0 for nothing."""
    return jnp.where(weights == 0, 0, sums / jnp.where(weights == 0, 1, weights))


class TotalLoss(Mean):
    """The loss over an epoch: the outputs' own means times their factors, and what layers add.

    A sum of means over an epoch, not a mean of sums over batches: outputs may differ in how many
    valid steps a batch of them has. `update_state(loss)`, as steps of users call it, is a mean.
    """

    def __init__(self) -> None:
        super().__init__(name="loss")
        self.factors: Array | None = None

    def expect(self, factors: list[float]) -> None:
        """Makes room for the sums of the outputs that have a loss."""
        self.factors = jnp.asarray(factors, jnp.float32)
        self.sums = self.add_variable(self.factors.shape, name="sums")
        self.weights_ = self.add_variable(self.factors.shape, name="weights")

    def add_batch(self, loss: Array, sums: tuple[Array, Array] | None, rows: int) -> None:
        """Takes a batch in.

        Args:
            loss: All of it.
            sums: What `CompiledLoss` gave, None where a user's `compute_loss` used it otherwise.
            rows: What the rest of the loss weighs.
        """
        loss = loss.astype(jnp.float32)
        if sums is not None and self.factors is not None:
            self.sums.assign_add(sums[0])
            self.weights_.assign_add(sums[1])
            outputs = jnp.sum(means(*sums) * self.factors)
            loss = jnp.where(loss == outputs, 0, loss - outputs)  # infinite ones too
        self.add_sums(loss * rows, rows)

    def result(self) -> Array:
        """Returns the total so far."""
        if self.factors is None:
            return super().result()
        return super().result() + jnp.sum(
            means(self.sums.value, self.weights_.value) * self.factors
        )


class CompiledMetrics:
    """The metrics of each output.

    Args:
        metrics: Counted without sample weights.
        weighted: Counted with them.
        losses: The outputs' losses, by which "accuracy" is understood.
        names, keys: Of the outputs.
    """

    def __init__(
        self, metrics: Any, weighted: Any, losses: list, names: list[str], keys: list[str]
    ):
        self.names, self.losses = names, losses
        self.plain = self._spread("metrics", metrics, names, keys)
        self.weighted = self._spread("weighted_metrics", weighted, names, keys)
        self.pairs: list[tuple[int, bool, str, Metric]] = []

    @staticmethod
    def _spread(what: str, given: Any, names: list[str], keys: list[str]) -> list[list[Any]]:
        if given is None:
            return [[] for _ in names]
        if (
            isinstance(given, list | tuple)
            and len(names) > 1
            and not any(isinstance(g, list | tuple) for g in given)
        ):
            found = list(given) if len(given) == len(names) else [list(given)] * len(names)
        elif len(names) == 1 and not isinstance(given, dict):
            found = [given]
        else:
            found = per_output(what, given, names, keys)
        as_lists = [g if isinstance(g, list | tuple) else [g] for g in found]
        return [[m for m in row if m is not None] for row in as_lists]

    def build(self, y: list, predictions: list) -> None:
        """Makes the metrics, when the shapes of targets and outputs are known."""
        seen: dict[str, int] = {}
        for weighted, rows in ((False, self.plain), (True, self.weighted)):
            for i, row in enumerate(rows):
                for identifier in row:
                    metric = self._metric(identifier, self.losses[i], y[i], predictions[i])
                    if y[i] is not None:
                        metric.prepare(y[i], predictions[i])
                    prefix = f"{self.names[i]}_" if len(self.names) > 1 else ""
                    own = identifier if isinstance(identifier, str) else metric.name
                    name = prefix + own
                    if weighted and name in seen:
                        name = f"{prefix}weighted_{own}"
                    count = seen.get(name, 0)
                    seen[name] = count + 1
                    name = f"{name}_{count}" if count else name
                    self.pairs.append((i, weighted, name, metric))

    def _metric(self, identifier: Any, loss: Any, y: Any, prediction: Any) -> Metric:
        kinds = {"accuracy": "Accuracy", "acc": "Accuracy"} | dict.fromkeys(
            ("crossentropy", "ce"), "Crossentropy"
        )
        if not isinstance(identifier, str) or identifier not in kinds:
            return as_metric(identifier)
        return as_metric(self._task(loss, y, prediction) + kinds[identifier])

    @staticmethod
    def _task(loss: Any, y: Any, prediction: Any) -> str:
        shape = tuple(prediction.shape)
        labels = tuple(y.shape) if y is not None else shape
        if type(loss).__name__.startswith("Binary") or shape[-1] == 1:
            return "Binary"
        if type(loss).__name__.startswith("Sparse"):
            return "SparseCategorical"
        if len(labels) < len(shape) or labels[-1] == 1:
            return "SparseCategorical"
        return "Categorical"

    @property
    def metrics(self) -> list[Metric]:
        """All of them."""
        return [m for *_, m in self.pairs]

    def update(self, y: list, predictions: list, weights: list) -> None:
        """Takes a batch in."""
        for i, weighted, _, metric in self.pairs:
            if y[i] is None:
                continue
            metric.update_state(y[i], predictions[i], weights[i] if weighted else None)

    def results(self) -> dict[str, Any]:
        """Returns the figures by name."""
        found: dict[str, Any] = {}
        for *_, name, metric in self.pairs:
            value = metric.result()
            found |= value if isinstance(value, dict) else {name: value}
        return found


def fill_outputs(outputs: Any, repeat: bool) -> Any:
    """Returns predictions as plain arrays: invalid steps are zeros.

    Args:
        outputs: What the model gave.
        repeat: Whether masked steps keep what stands there: a recurrent layer repeats.
    """

    def plain(x: Any) -> Any:
        if not isinstance(x, Masked):
            return x
        return x.data if repeat else x.fill(0)

    return jax.tree.map(plain, outputs, is_leaf=is_masked)


def used_steps(output: Any) -> Array:
    """Returns how many steps the longest row of an output has, a number for each axis of time."""
    if not isinstance(output, Masked):
        return jnp.zeros(0, jnp.int32)
    axes = range(1, output.mask.ndim)
    others = [tuple(a for a in range(output.mask.ndim) if a != axis) for axis in axes]
    return jnp.array([extent(jnp.any(output.mask, o)[None])[1][0] for o in others], jnp.int32)
