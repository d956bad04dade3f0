"""fit: the loop over data and epochs, for anything with `call` and Variables."""

import warnings
from collections import deque
from typing import Any

import numpy as np

from alphorn.distribution.processes import agreed, check_same
from alphorn.errors import ArgumentError, DataError, UnexpectedArgumentError
from alphorn.training.calls import Calls
from alphorn.training.cutting import Cutting
from alphorn.training.data import Batch, Block, Table, is_table
from alphorn.training.events import CallbackList, History
from alphorn.training.known import keeps_state, named
from alphorn.training.lanes import IN_FLIGHT
from alphorn.training.measuring import Measuring, bar
from alphorn.training.position import Position
from alphorn.training.report import PaddingReport
from alphorn.training.rounding import running
from alphorn.training.step import Logs, steps_per_call
from alphorn.training.streams import Stream, is_stream
from alphorn.training.workers import set_workers


class Trainer(Measuring):
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
        order = np.random.default_rng(int(agreed("fit", str(np.random.randint(2**31)))))
        kind = self._kind_of_order(data, shuffle, group_by_length)
        self.stop_training = False
        self.padding_report = PaddingReport()
        steps = steps_per_epoch or data.steps
        events = CallbackList(
            [callbacks, bar(verbose)],
            add_history=True,
            model=self,
            epochs=epochs,
            steps=steps,
            verbose=verbose,
        )
        self.history = history = next(c for c in events.callbacks if isinstance(c, History))
        position = Position(self, data, order, initial_epoch, events.callbacks)
        self.fit_position = position
        events("train_begin")
        check_same(
            "where fit begins",
            f"epoch {position.epoch}, step {position.step}",
            "backup_dir must be a folder that all processes see",
        )
        try:
            while position.epoch < epochs and not position.stopped:
                epoch = position.epoch
                if not position.step:
                    position.begin()
                    self.reset_metrics()
                events("epoch_begin", epoch)
                rows = data.order(kind, order, longest_first=epoch == 0)
                planned = (epochs - initial_epoch) * (steps or 0)
                logs = self._epoch(
                    position, rows, kind, steps_per_epoch, planned, class_weight, events
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
                    report = self.padding_report
                    values = self._evaluate(validation, validation_steps, events)
                    self.padding_report = report
                    figures |= {f"val_{k}": v for k, v in values.items()}
                position.end()
                events("epoch_end", epoch, figures)
                if self.stop_training:
                    break
        except BaseException as error:
            _tell_of(error, events.callbacks)
            raise
        finally:
            self.fit_position = None  # it holds the data
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

    def _epoch(
        self,
        position: Position,
        rows: Any,
        order: str,
        limit: int | None,
        planned: int,
        weights: Any,
        events: CallbackList,
    ) -> Logs | None:
        data, skip = position.data, position.step
        logs = Logs(position.logs) if skip else None
        program, first, size, grouping = None, None, 1, None
        plan: dict[str, Any] = {"order": order, "steps_per_epoch": limit}
        if isinstance(data, Table):
            first = data.whole(slice(0, data.batch_size))
            self._prepare(first, True)
            program = self._program("train_step")
        cutting = self._cutting(data, "train_step")
        if isinstance(cutting, Cutting):
            cutting.settle(order)
            grouping = cutting.grouping(order, planned)
            lengths = data.lengths
            several = lengths and len(lengths.shapes(data.batch_size, order).chosen) > 1
            alone = several or grouping or events.wants_batches or self.run_eagerly
            if first is not None and not alone:
                size = steps_per_call(self.steps_per_execution, self.variables, first)
            shapes = lengths.shapes(data.batch_size, order).chosen.tolist() if lengths else []
            plan |= {"rows": data.rows, "batch_size": data.batch_size, "lengths": shapes}
        position.keep(plan | {"steps a call": size}, rows)
        flying: deque[Logs] = deque()
        calls = Calls(data, rows, size, limit, order, skip, grouping)

        def batch_of(block: Block) -> Batch:
            return self._with_class_weights(block.batch, weights) if weights else block.batch

        with self._compiled_ahead(program, calls, cutting, batch_of):
            for block in calls:
                if program is None:
                    self._prepare(block.batch, True)
                    program = self._program("train_step")
                block = cutting.taken(block)
                self._note_block(block, data, cutting)
                batch = batch_of(block)
                events("train_batch_begin", position.step)
                with running(cutting):
                    logs = program(batch, block.count)
                position.step += block.count
                position.logs = logs
                flying.append(logs)
                if len(flying) > IN_FLIGHT:
                    flying.popleft().wait()
                events("train_batch_end", position.step - 1, logs)
                if self.stop_training:
                    break
        return logs


def _tell_of(error: BaseException, callbacks: list[Any]) -> None:
    """Has callbacks put things in order; what goes wrong there is noted at the error."""
    for callback in callbacks:
        try:
            getattr(callback, "on_train_error", lambda: None)()
        except Exception as another:
            error.add_note(str(another))


def _due(frequency: Any, epoch: int) -> bool:
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency
