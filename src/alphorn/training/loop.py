"""fit, evaluate, predict: the loops over data, for anything with `call` and Variables."""

import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from alphorn.core.masked import is_masked
from alphorn.core.rules import choose
from alphorn.errors import ArgumentError, DataError, UnexpectedArgumentError
from alphorn.training.compiled import fill_outputs, used_steps
from alphorn.training.data import Batch, Stream, Table, is_stream, is_table
from alphorn.training.events import CallbackList, History
from alphorn.training.progress import ProgressBar
from alphorn.training.step import Logs, steps_per_call
from alphorn.training.stepping import Steps

# Calls that may be under way on the device: more would only pile up batches.
_IN_FLIGHT = 4


class Trainer(Steps):
    """What `compile` and `fit` add to a model."""

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
    ) -> History:
        """Trains the model.

        Args:
            x: Arrays, lists of unequal sequences (they are padded and masked for you), dicts,
                DataFrames, or a generator of batches.
            y: Targets, as many as rows in `x`.
            batch_size: Rows a step, 32 by default.
            epochs: The epoch to end with.
            verbose: 0 silent, 1 a bar, 2 a line an epoch.
            callbacks: What is done meanwhile.
            validation_split: The share of the last rows that is kept for validation.
            validation_data: `(x, y)` or `(x, y, sample_weight)`.
            shuffle: Whether rows, or the batches of a `PyDataset`, come in a new order each epoch.
            class_weight: Weights by class number.
            sample_weight: `(rows,)`, or `(rows, time)` for steps.
            initial_epoch: The epoch to begin with.
            steps_per_epoch: Batches an epoch, for data without an end.
            validation_steps: Batches of validation.
            validation_batch_size: Rows a step of validation.
            validation_freq: Epochs between validations, or a list of epochs.

        Returns:
            A `History` with the figures of each epoch.

        Raises:
            StateError: before `compile`.
            DataError: empty data, unequal numbers of rows, labels that the outputs do not have.
        """
        self._need_compiled("fit")
        data = self._data(x, y, sample_weight, batch_size, steps_per_epoch)
        if validation_split and validation_data is None:
            if isinstance(data, Stream):
                raise DataError("validation_split", "a generator", "data with a known end")
            data, validation = data.split(validation_split)
            validation.batch_size = validation_batch_size or data.batch_size
        else:
            validation = self._validation(validation_data, validation_batch_size or batch_size)
        order = np.random.default_rng(np.random.randint(2**31))
        self.stop_training = False
        steps = steps_per_epoch or data.steps
        events = CallbackList(
            [callbacks, _bar(verbose)],
            add_history=True,
            model=self,
            epochs=epochs,
            steps=steps,
            verbose=verbose,
        )
        self.history = history = next(c for c in events.callbacks if isinstance(c, History))
        events("train_begin")
        try:
            for epoch in range(initial_epoch, epochs):
                self.reset_metrics()
                events("epoch_begin", epoch)
                logs = self._epoch(
                    data, order if shuffle else None, steps_per_epoch, class_weight, events
                )
                if logs is None:
                    warnings.warn(
                        f"the data ended before epoch {epoch + 1}: an iterator goes on where it is;"
                        " make it endless and say steps_per_epoch, or give an object with __iter__",
                        stacklevel=2,
                    )
                    break
                figures = dict(logs)
                if validation is not None and _due(validation_freq, epoch):
                    values = self._evaluate(validation, validation_steps, events)
                    figures |= {f"val_{k}": v for k, v in values.items()}
                events("epoch_end", epoch, figures)
                if self.stop_training:
                    break
        except BaseException:
            for callback in events.callbacks:
                if isinstance(callback, ProgressBar):
                    callback.on_train_end()
            raise
        self.optimizer.finalize_variable_values(self.trainable_variables)
        events("train_end", {k: v[-1] for k, v in history.history.items()})
        return history

    def _validation(self, given: Any, batch_size: int | None) -> Any:
        if given is None:
            return None
        alone = is_table(given) or (isinstance(given, tuple) and len(given) == 1)
        if alone and self.loss is not None:
            raise DataError(
                "validation_data",
                received="inputs without targets",
                expected="(x, y) or (x, y, sample_weight)",
            )
        if isinstance(given, tuple | list) and 2 <= len(given) <= 3 and not is_stream(given):
            x, y, weight = (*given, None)[:3]
            return self._data(x, y, weight, batch_size, what="validation_data")
        return self._data(given, None, None, batch_size, what="validation_data")

    def _epoch(
        self, data: Any, order: Any, limit: int | None, weights: Any, events: CallbackList
    ) -> Logs | None:
        logs, step = None, 0
        program, size = None, 1
        rows = order.permutation(data.rows) if order is not None and data.rows else None
        if isinstance(data, Table):
            first = data.batch(slice(0, data.batch_size), shuffled=rows is not None)
            self._prepare(first, True)
            program = self._program("train_step")
            alone = data.ragged or events.wants_batches or self.run_eagerly
            size = 1 if alone else steps_per_call(self.steps_per_execution, self.variables, first)
        flying: deque[Logs] = deque()
        for batch, count in self._blocks(data, rows, size, limit):
            if program is None:
                self._prepare(batch, True)
                program = self._program("train_step")
            if weights:
                batch = self._with_class_weights(batch, weights)
            events("train_batch_begin", step)
            logs = program(batch, count)
            step += count
            flying.append(logs)
            if len(flying) > _IN_FLIGHT:
                flying.popleft().wait()
            events("train_batch_end", step - 1, logs)
            if self.stop_training:
                break
        return logs

    @staticmethod
    def _blocks(data: Any, rows: Any, size: int, limit: int | None) -> Iterator[tuple[Batch, int]]:
        done = 0
        for batch, count in data.blocks(rows, size):
            if limit is not None and done >= limit:
                return
            yield batch, count
            done += count

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Measures the loss and the metrics.

        Figures are sums over all valid entries: they depend neither on the batch size nor on the
        order.

        Args:
            x, y, batch_size, sample_weight: As in `fit`.
            verbose: 0 silent, 1 a bar, 2 a line.
            steps: Batches, for data without an end.
            callbacks: What is done meanwhile.
            return_dict: Whether figures come by name, or as a list in the order of
                `metrics_names` (the loss alone as a number).
        """
        if kwargs:
            raise UnexpectedArgumentError("evaluate", ", ".join(kwargs), "its own arguments")
        self._need_compiled("evaluate")
        data = self._data(x, y, sample_weight, batch_size, steps, "evaluate")
        events = CallbackList([callbacks, _bar(verbose)], model=self, steps=steps or data.steps)
        figures = self._evaluate(data, steps, events)
        if return_dict:
            return figures
        values = list(figures.values())
        return values[0] if len(values) == 1 else values

    def _evaluate(self, data: Any, limit: int | None, events: CallbackList) -> dict:
        self.reset_metrics()
        events("test_begin")
        logs, step, program = Logs({}), 0, None
        for batch, count in self._blocks(data, None, 1, limit):
            if program is None:
                self._prepare(batch, False)
                program = self._program("test_step")
            events("test_batch_begin", step)
            logs = program(batch, count)
            events("test_batch_end", step, logs)
            step += count
        figures = dict(logs)
        events("test_end", figures)
        return figures

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Returns the outputs for all rows, as NumPy arrays; invalid steps are zeros.

        Args:
            x: As in `fit`.
            batch_size: Rows a step, 32 by default.
            verbose: 0 silent, 1 a bar, 2 a line.
            steps: Batches, for data without an end.
            callbacks: What is done meanwhile.
        """
        data = self._data(x, None, None, batch_size, steps, "predict")
        events = CallbackList([callbacks, _bar(verbose)], model=self, steps=steps or data.steps)
        events("predict_begin")
        results: list[Any] = []
        used: list[Any] = []
        program = None
        for step, (batch, _) in enumerate(self._blocks(data, None, 1, steps)):
            batch = Batch(batch.x)
            if program is None:
                self._prepare(batch, False)
                program = self._program("predict_step")
            events("predict_batch_begin", step)
            outputs = program(batch)
            results.append(fill_outputs(outputs, self._repeats()))
            if data.ragged:
                used.append(jax.tree.map(used_steps, outputs, is_leaf=is_masked))
            if len(results) > _IN_FLIGHT:
                results[-_IN_FLIGHT] = jax.device_get(results[-_IN_FLIGHT])
            events("predict_batch_end", step)
        events("predict_end")
        if not results:
            raise DataError("predict", received="no batches", expected="at least one")
        joined = jax.tree.map(_joined, *results)
        return jax.tree.map(_cut, joined, *used) if used else joined

    def _repeats(self) -> bool:
        graph = getattr(self, "graph", None)
        if graph is None:
            return False
        last = [s.node.operation for s in graph.output_symbols if s.node is not None]
        return all(getattr(op, "masking", None) is choose for op in last)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Runs one step of training on one batch; returns its figures."""
        self._need_compiled("train_on_batch")
        return self._on_batch("train_step", x, y, sample_weight, class_weight, return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Runs one step of evaluation on one batch; returns its figures."""
        self._need_compiled("test_on_batch")
        return self._on_batch("test_step", x, y, sample_weight, None, return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """Returns the outputs for one batch, as NumPy arrays."""
        return self.predict(x, batch_size=Table(x, inputs=self._inputs_count()).rows, verbose=0)

    def _on_batch(
        self, step: str, x: Any, y: Any, weight: Any, by_class: Any, return_dict: bool
    ) -> Any:
        data = self._data(x, y, weight, None, what=step)
        batch = data.batch(slice(0, data.rows))
        self._prepare(batch, step == "train_step")
        if by_class:
            batch = self._with_class_weights(batch, by_class)
        self.reset_metrics()
        figures = dict(self._program(step)(batch, 1))
        if return_dict:
            return figures
        values = list(figures.values())
        return values[0] if len(values) == 1 else values


def _bar(verbose: Any) -> ProgressBar | None:
    if verbose not in ("auto", 0, 1, 2):
        raise ArgumentError("verbose", repr(verbose), "'auto', 0, 1 or 2")
    return None if verbose == 0 else ProgressBar(1 if verbose == "auto" else int(verbose))


def _due(frequency: Any, epoch: int) -> bool:
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency


def _cut(output: np.ndarray, *used: Any) -> np.ndarray:
    """Returns the output without the steps that no row of any batch has."""
    sizes = np.max([np.asarray(u) for u in used], 0)
    return output[(slice(None), *map(slice, sizes))]


def _joined(*parts: Any) -> np.ndarray:
    arrays = [np.asarray(p) for p in parts]
    shape = [max(sizes) for sizes in zip(*(a.shape[1:] for a in arrays), strict=True)]
    padded = [
        a
        if list(a.shape[1:]) == shape
        else np.pad(a, [(0, 0), *((0, s - n) for s, n in zip(shape, a.shape[1:], strict=True))])
        for a in arrays
    ]
    return padded[0] if len(padded) == 1 else np.concatenate(padded)
