"""fit, evaluate, predict: the loops over data, for anything with `call` and Variables."""

import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np

from alphorn.core.any_size import any_size
from alphorn.core.masked import is_masked
from alphorn.core.rules import choose
from alphorn.errors import ArgumentError, DataError, UnexpectedArgumentError
from alphorn.training.compiled import fill_outputs, used_steps
from alphorn.training.cutting import Cutting
from alphorn.training.data import Batch, Block, Table, is_table
from alphorn.training.events import Callback, CallbackList, History
from alphorn.training.known import keeps_state, named
from alphorn.training.outputs import Collected
from alphorn.training.progress import ProgressBar
from alphorn.training.report import PaddingReport
from alphorn.training.step import Logs, steps_per_call
from alphorn.training.stepping import Steps
from alphorn.training.streams import Stream, is_stream
from alphorn.training.workers import set_workers

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
        group_by_length: bool = False,
        **old: Any,
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
            group_by_length: Whether rows of like lengths are trained together, so that hardly any
                padding is computed. All rows are shuffled; within windows of 50 batches they are
                sorted by length; then whole batches are shuffled. The longest batch comes first
                in the first epoch, so that memory runs out then or never.
            **old: Names of older Keras: `nb_epoch`, and `workers`, `max_queue_size`,
                `use_multiprocessing` for a `PyDataset`.

        Returns:
            A `History` with the figures of each epoch.

        Raises:
            StateError: before `compile`.
            DataError: empty data, unequal numbers of rows, labels that the outputs do not have.
            ArgumentError: `group_by_length` where rows have no lengths, or may not change places.
        """
        self._need_compiled("fit")
        epochs = old.pop("nb_epoch", epochs)
        if strange := set(old) - {"workers", "max_queue_size", "use_multiprocessing"}:
            raise UnexpectedArgumentError("fit", ", ".join(strange), "its own arguments")
        for source in (x, validation_data):
            set_workers(source, **old)
        data = self._data(x, y, sample_weight, batch_size, steps_per_epoch)
        if validation_split and validation_data is None:
            if isinstance(data, Stream):
                raise DataError("validation_split", "a generator", "data with a known end")
            data, validation = data.split(validation_split)
            validation.batch_size = validation_batch_size or data.batch_size
        else:
            validation = self._validation(validation_data, validation_batch_size or batch_size)
        order = np.random.default_rng(np.random.randint(2**31))
        kind = self._kind_of_order(data, shuffle, group_by_length)
        self.stop_training = False
        self.padding_report = PaddingReport()
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
                rows = data.order(kind, order, longest_first=epoch == 0)
                logs = self._epoch(data, rows, kind, steps_per_epoch, class_weight, events)
                if logs is None:
                    warnings.warn(
                        f"the data ended before epoch {epoch + 1}: an iterator goes on where it is;"
                        " make it endless and say steps_per_epoch, or give an object with __iter__",
                        stacklevel=2,
                    )
                    break
                figures = dict(logs)
                if validation is not None and _due(validation_freq, epoch):
                    report = self.padding_report
                    values = self._evaluate(validation, validation_steps, events)
                    self.padding_report = report
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

    def _kind_of_order(self, data: Any, shuffle: bool, grouped: bool) -> str:
        """Returns how rows come, as in `Shapes`."""
        if not grouped:
            return "shuffled" if shuffle else "as they stand"
        fix = "leave group_by_length out"
        if not isinstance(data, Table):
            raise ArgumentError(
                "fit: group_by_length",
                received=f"True with {type(getattr(data, 'source', data)).__name__}",
                expected="rows in memory: arrays, or lists of sequences",
                fix="sort rows by length in the generator, or give all of them",
            )
        if not shuffle:
            raise ArgumentError(
                "fit: group_by_length", "True with shuffle=False", "one of them", fix
            )
        self._prepare(data.whole(slice(0, data.batch_size)), True)
        stateful = keeps_state(self)
        if stateful is not None:
            raise ArgumentError(
                "fit: group_by_length",
                received=f"True with {named(stateful)}, which keeps states from batch to batch",
                expected="rows that may change places",
                fix=fix,
            )
        cutting = self._cutting(data, "train_step")
        if not data.lengths:
            raise ArgumentError(
                "fit: group_by_length",
                received=f"True, but no lengths of rows are known: {cutting.why}",
                expected="lists of unequal sequences, or padding that may be cut",
                fix=fix,
            )
        return "grouped"

    def _cutting(self, data: Any, step: str) -> Cutting:
        """Returns how the batches of a table are cut in a step, found once for each table."""
        kept = getattr(data, "cutting", None)
        if kept is None or kept.step != step or kept.model is not self:
            kept = data.cutting = Cutting(self, data, step)
        return kept

    def _epoch(
        self,
        data: Any,
        rows: Any,
        order: str,
        limit: int | None,
        weights: Any,
        events: CallbackList,
    ) -> Logs | None:
        logs, step = None, 0
        program, size, cutting = None, 1, None
        if isinstance(data, Table):
            first = data.whole(slice(0, data.batch_size))
            self._prepare(first, True)
            program = self._program("train_step")
            cutting = self._cutting(data, "train_step")
            cutting.settle(order)
            lengths = data.lengths
            several = lengths and len(lengths.shapes(data.batch_size, order).chosen) > 1
            alone = several or events.wants_batches or self.run_eagerly
            size = 1 if alone else steps_per_call(self.steps_per_execution, self.variables, first)
        flying: deque[Logs] = deque()
        for block in self._blocks(data, rows, size, limit, order):
            batch = block.batch
            if program is None:
                self._prepare(batch, True)
                program = self._program("train_step")
            if cutting is not None:
                batch = cutting.with_targets(block)
            if weights:
                batch = self._with_class_weights(batch, weights)
            self._note_block(block, data, cutting)
            events("train_batch_begin", step)
            with any_size() if cutting is not None and cutting.active else nullcontext():
                logs = program(batch, block.count)
            step += block.count
            flying.append(logs)
            if len(flying) > _IN_FLIGHT:
                flying.popleft().wait()
            events("train_batch_end", step - 1, logs)
            if self.stop_training:
                break
        return logs

    def _note_block(self, block: Block, data: Any, cutting: Cutting | None) -> None:
        """Counts in the report what a call computes."""
        report = self.padding_report = self.padding_report or PaddingReport()
        report.why = cutting.why if cutting is not None and not cutting.active else ""
        report.note(block, data.lengths if isinstance(data, Table) else None)

    @staticmethod
    def _blocks(
        data: Any, rows: Any, size: int, limit: int | None, order: str = "as they stand"
    ) -> Iterator[Block]:
        if isinstance(data, Table) and limit is not None:
            rows = (np.arange(data.rows) if rows is None else rows)[: limit * data.batch_size]
        done = 0
        for block in data.blocks(rows, size, order):
            if limit is not None and done >= limit:
                return
            yield block
            done += block.count

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
        self.padding_report = PaddingReport()
        events("test_begin")
        logs, step, program = Logs({}), 0, None
        cutting, order, size = None, "as they stand", 1
        times = 1
        if isinstance(data, Table):
            first = data.whole(slice(0, data.batch_size))
            self._prepare(first, False)
            program = self._program("test_step")
            cutting, data, order, times = self._arranged(data, "test_step", limit, events)
            told = _wants(events, "test") or self.run_eagerly
            size = 1 if told else steps_per_call(self.steps_per_execution, self.variables, first)
            size = size if times == 1 else 1
        rows = data.order(order)
        for block in self._blocks(data, rows, size, limit, order):
            batch = block.batch
            if program is None:
                self._prepare(batch, False)
                program = self._program("test_step")
            if cutting is not None:
                batch = cutting.with_targets(block)
            self._note_block(block, data, cutting)
            events("test_batch_begin", step)
            with any_size() if cutting is not None and cutting.active else nullcontext():
                logs = program(batch, block.count)
            step += block.count * times
            events("test_batch_end", step - 1, logs)
        figures = dict(logs)
        events("test_end", figures)
        return figures

    def _arranged(
        self, data: Table, step: str, limit: int | None, events: CallbackList
    ) -> tuple[Cutting, Table, str, int]:
        """Returns how a table is cut, the table in batches as they run, the order of its rows, and
        how many batches of the size that was asked for go into one.
        """
        cutting = self._cutting(data, step)
        partly = limit is not None and limit < data.steps
        if partly or cutting.sorts():
            cutting.settle("as they stand")
            return cutting, data, "as they stand", 1
        order = "sorted" if data.lengths else "as they stand"
        asked = data.batch_size
        told = _wants(events, step.removesuffix("_step")) or self.run_eagerly
        rows = asked if told else cutting.rows_a_call()
        if rows != asked:
            data = data.merged(rows)
        cutting.settle(order, data.batch_size)
        return cutting, data, order, rows // asked

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
        self.padding_report = PaddingReport()
        events("predict_begin")
        used: list[Any] = []
        program, cutting, order, times, rows = None, None, "as they stand", 1, None
        ragged = data.ragged
        if isinstance(data, Table):
            self._prepare(Batch(data.whole(slice(0, data.batch_size)).x), False)
            program = self._program("predict_step")
            cutting, data, order, times = self._arranged(data, "predict_step", steps, events)
            rows = data.order(order)
        active = cutting is not None and cutting.active
        front = isinstance(data, Table) and data.lengths.front
        results = Collected(self._repeats(), front, _IN_FLIGHT)
        step = 0
        for block in self._blocks(data, rows, 1, steps, order):
            batch = Batch(block.batch.x)
            if program is None:
                self._prepare(batch, False)
                program = self._program("predict_step")
            self._note_block(block, data, cutting)
            events("predict_batch_begin", step)
            with any_size() if active else nullcontext():
                outputs = program(batch)
            results.add(fill_outputs(outputs, self._repeats()), block.rows)
            if ragged:
                used.append(jax.tree.map(used_steps, outputs, is_leaf=is_masked))
            events("predict_batch_end", step)
            step += times
        events("predict_end")
        if not step:
            raise DataError("predict", received="no batches", expected="at least one")
        sizes = cutting.full if cutting is not None and active and not ragged else None
        joined = results.joined(sizes)
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


def _wants(events: CallbackList, phase: str) -> bool:
    """Returns whether a callback is to be told of each batch of a phase: test or predict."""
    names = [f"on_{phase}_batch_{when}" for when in ("begin", "end")]
    others = [c for c in events.callbacks if not isinstance(c, ProgressBar | History)]
    told = any(getattr(type(c), n, None) is not getattr(Callback, n) for c in others for n in names)
    return told or events.wants_batches


def _due(frequency: Any, epoch: int) -> bool:
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency


def _cut(output: np.ndarray, *used: Any) -> np.ndarray:
    """Returns the output without the steps that no row of any batch has."""
    sizes = np.max([np.asarray(u) for u in used], 0)
    return output[(slice(None), *map(slice, sizes))]
