"""evaluate, predict, and single batches: the loops that leave weights alone, and what fit shares."""

import contextlib
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import jax
import numpy as np

from alphorn.core.masked import is_masked
from alphorn.core.rules import choose
from alphorn.distribution.processes import leads
from alphorn.errors import ArgumentError, DataError, UnexpectedArgumentError
from alphorn.training.ahead import compiles_ahead
from alphorn.training.calls import Calls
from alphorn.training.compiled import fill_outputs, used_steps
from alphorn.training.cutting import Cutting
from alphorn.training.data import Batch, Block, Table
from alphorn.training.events import Callback, CallbackList, History
from alphorn.training.lanes import IN_FLIGHT
from alphorn.training.outputs import Collected
from alphorn.training.progress import ProgressBar
from alphorn.training.report import PaddingReport
from alphorn.training.rounding import Rounding, running
from alphorn.training.step import Logs, steps_per_call
from alphorn.training.stepping import Steps


class Measuring(Steps):
    """What a compiled model measures and predicts."""

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
        events = CallbackList([callbacks, bar(verbose)], model=self, steps=steps or data.steps)
        figures = self._evaluate(data, steps, events)
        return _told(figures, return_dict)

    def _evaluate(self, data: Any, limit: int | None, events: CallbackList) -> dict:
        self.reset_metrics()
        self.padding_report = PaddingReport()
        events("test_begin")
        logs, step, program, first = Logs({}), 0, None, None
        if isinstance(data, Table):
            first = data.whole(slice(0, data.batch_size))
            self._prepare(first, False)
            program = self._program("test_step")
        cutting, data, order, times = self._arranged(data, "test_step", limit, events)
        told = _wants(events, "test") or self.run_eagerly
        size = 1
        if first is not None and not told and times == 1:
            size = steps_per_call(self.steps_per_execution, self.variables, first)
        calls = Calls(data, data.order(order), size, limit, order)
        with self._compiled_ahead(program, calls, cutting, attrgetter("batch")):
            for block in calls:
                if program is None:
                    self._prepare(block.batch, False)
                    program = self._program("test_step")
                block = cutting.taken(block)
                self._note_block(block, data, cutting)
                events("test_batch_begin", step)
                with running(cutting):
                    logs = program(block.batch, block.count)
                step += block.count * times
                events("test_batch_end", step - 1, logs)
        figures = dict(logs)
        events("test_end", figures)
        return figures

    def _arranged(
        self, data: Any, step: str, limit: int | None, events: CallbackList
    ) -> tuple[Cutting | Rounding, Any, str, int]:
        """Returns how data are cut, the data in batches as they run, the order of their rows, and
        how many batches of the size that was asked for go into one.
        """
        cutting = self._cutting(data, step)
        if isinstance(cutting, Rounding):
            return cutting, data, "as they stand", 1
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
        events = CallbackList([callbacks, bar(verbose)], model=self, steps=steps or data.steps)
        self.padding_report = PaddingReport()
        events("predict_begin")
        used: list[Any] = []
        program, ragged = None, data.ragged
        if isinstance(data, Table):
            self._prepare(Batch(data.whole(slice(0, data.batch_size)).x), False)
            program = self._program("predict_step")
        cutting, data, order, times = self._arranged(data, "predict_step", steps, events)
        full = cutting.full if isinstance(cutting, Cutting) and cutting.active else None
        front = isinstance(data, Table) and data.lengths.front
        results = Collected(self._repeats(), front, IN_FLIGHT)
        step = 0
        calls = Calls(data, data.order(order), 1, steps, order)

        def batch_of(block: Block) -> Batch:
            return Batch(block.batch.x)

        with self._compiled_ahead(program, calls, cutting, batch_of):
            for block in calls:
                if program is None:
                    self._prepare(batch_of(block), False)
                    program = self._program("predict_step")
                block = cutting.taken(block)
                self._note_block(block, data, cutting)
                events("predict_batch_begin", step)
                with running(cutting):
                    outputs = program(batch_of(block))
                results.add(fill_outputs(outputs, self._repeats()), block.rows)
                if ragged:
                    used.append(jax.tree.map(used_steps, outputs, is_leaf=is_masked))
                events("predict_batch_end", step)
                step += times
        events("predict_end")
        if not step:
            raise DataError("predict", received="no batches", expected="at least one")
        joined = results.joined(None if ragged else full)
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
        return _told(figures, return_dict)

    def _cutting(self, data: Any, step: str) -> Cutting | Rounding:
        """Returns how the batches of data are cut in a step, found once for each data."""
        kept = getattr(data, "cutting", None)
        if kept is None or kept.step != step or kept.model is not self:
            table = isinstance(data, Table)
            kept = data.cutting = Cutting(self, data, step) if table else Rounding(self, step)
        return kept

    def _note_block(self, block: Block, data: Any, cutting: Cutting | Rounding) -> None:
        """Counts in the report what a call computes."""
        report = self.padding_report = self.padding_report or PaddingReport()
        report.why = "" if cutting.active else cutting.why
        report.note(block, data.lengths if isinstance(data, Table) else None)

    @contextlib.contextmanager
    def _compiled_ahead(
        self,
        program: Any,
        calls: Calls,
        cutting: Cutting | Rounding,
        batch_of: Callable[[Block], Batch],
    ) -> Iterator[None]:
        """Has the programs of several kinds of calls compiled beside each other meanwhile."""
        if program is None or self.run_eagerly or not compiles_ahead():
            yield
            return
        kinds = list(calls.kinds())
        with running(cutting):
            for block in kinds if len(kinds) > 1 else []:
                program.begin(batch_of(cutting.taken(block)), block.count)
        try:
            yield
        finally:
            program.ahead.leave()


def bar(verbose: Any) -> ProgressBar | None:
    """Returns what `verbose` asks for."""
    if verbose not in ("auto", 0, 1, 2):
        raise ArgumentError("verbose", repr(verbose), "'auto', 0, 1 or 2")
    if verbose == 0 or not leads():
        return None
    return ProgressBar(1 if verbose == "auto" else int(verbose))


def _told(figures: dict[str, Any], by_name: bool) -> Any:
    """Returns figures by name, or as a list, one by itself."""
    values = list(figures.values())
    return figures if by_name else values[0] if len(values) == 1 else values


def _wants(events: CallbackList, phase: str) -> bool:
    """Returns whether a callback is to be told of each batch of a phase: test or predict."""
    names = [f"on_{phase}_batch_{when}" for when in ("begin", "end")]
    others = [c for c in events.callbacks if not isinstance(c, ProgressBar | History)]
    told = any(getattr(type(c), n, None) is not getattr(Callback, n) for c in others for n in names)
    return told or events.wants_batches


def _cut(output: np.ndarray, *used: Any) -> np.ndarray:
    """Returns the output without the steps that no row of any batch has."""
    sizes = np.max([np.asarray(u) for u in used], 0)
    return output[(slice(None), *map(slice, sizes))]
