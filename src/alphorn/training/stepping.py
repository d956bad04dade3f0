"""compile and the steps: one batch through loss, gradients and metrics, compiled once."""

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn import optimizers
from alphorn.core import symbol
from alphorn.core.any_size import any_size
from alphorn.core.masked import has_masked, is_masked, unmask
from alphorn.core.tracking import Tracked, _unique
from alphorn.core.transforms import value_and_grad
from alphorn.distribution.current import distribution
from alphorn.distribution.placing import own_rows
from alphorn.distribution.processes import check_same
from alphorn.errors import ArgumentError, DataError, StateError
from alphorn.fields import attribute
from alphorn.layers.embedding import Embedding, tables_hold
from alphorn.training.compiled import (
    CompiledLoss,
    CompiledMetrics,
    TotalLoss,
    means,
    outputs_of,
)
from alphorn.training.data import Batch, Table, class_weights
from alphorn.training.events import History
from alphorn.training.groups import in_groups
from alphorn.training.interrupts import interrupts_held
from alphorn.training.position import Position
from alphorn.training.preparing import (
    batch_is_fixed,
    check_targets,
    packed,
    rows_of,
    symbols_like,
    unpack,
)
from alphorn.training.report import PaddingReport
from alphorn.training.step import Prediction, Program
from alphorn.training.streams import Stream, is_stream
from alphorn.training.table_rows import rows_of_batch, tables_by_rows


class Steps(Tracked if TYPE_CHECKING else object):
    """What `compile` adds to a model: the loss, the metrics, the steps on one batch."""

    trainer_attributes = frozenset(
        (
            "optimizer compiled_loss compiled_metrics _loss_tracker history programs"
            " padding_report _trimmings fit_position _row_tables"
        ).split()
    )
    optimizer: Any = None
    loss: Any = None
    compiled_loss: CompiledLoss | None = None
    compiled_metrics: CompiledMetrics | None = None
    stop_training = False
    history: History | None = None
    run_eagerly = False
    padding_report: PaddingReport | None = None
    fit_position: Position | None = None
    _noted_sums: list[Any] | None = None
    _row_tables: Mapping[Any, list[int]] = MappingProxyType({})

    if TYPE_CHECKING:
        name: str = attribute()
        graph: Any = attribute()
        losses: list[Any] = attribute()
        dtype_policy: Any = attribute()

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Calls the model."""

        def _enter(self, *args: Any, **kwargs: Any) -> Any: ...

    # --- compile

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: Any = "auto",
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
        sample_weight_mode: Any = None,
    ) -> None:
        """Says how the model is trained.

        Args:
            optimizer: A name or an object.
            loss: A name, function or object; a list or dict of them for several outputs.
            loss_weights: Numbers by which the outputs' losses are multiplied.
            metrics: Names, functions or objects, in the structure of the outputs.
            weighted_metrics: Those that count sample weights.
            run_eagerly: Whether steps run without compilation, to look inside.
            steps_per_execution: Batches a compiled call; "auto" takes several where steps are
                small and nobody wants to be told of each.
            jit_compile: False is `run_eagerly`.
            auto_scale_loss: Whether mixed_float16 gets a `LossScaleOptimizer`.
            sample_weight_mode: Keras 2's: weights `(rows, time)` are known by their shape.
        """
        if _are_metrics(loss_weights):  # by position in Keras 2
            loss_weights, metrics = metrics, loss_weights
        self.optimizer = optimizers.get(optimizer)
        scaled = isinstance(self.optimizer, optimizers.LossScaleOptimizer)
        if auto_scale_loss and self.dtype_policy.name == "mixed_float16" and not scaled:
            self.optimizer = optimizers.LossScaleOptimizer(self.optimizer)
        self.loss = loss
        self.run_eagerly = bool(run_eagerly) or jit_compile is False
        count = steps_per_execution
        if count != "auto" and not (isinstance(count, int) and count > 0):
            raise ArgumentError(
                "compile: steps_per_execution", repr(count), "'auto' or a number from 1"
            )
        self.steps_per_execution = steps_per_execution
        self._compile_arguments = {
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        self.compiled_loss = self.compiled_metrics = None
        self._loss_tracker = TotalLoss()
        self.programs: dict[Any, Any] = {}
        self.stop_training = False

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self.optimizer is not None

    def _need_compiled(self, what: str) -> None:
        if not self.compiled:
            raise StateError(
                f"{what} of '{self.name}' before compile",
                expected="an optimizer and a loss",
                fix="model.compile('adam', 'mse'), or the loss that suits the last layer",
            )

    @property
    def metrics(self) -> list[Any]:
        """The loss's mean, the metrics of `compile`, then the model's own."""
        own = super().metrics
        found = [self._loss_tracker] if self.compiled else []
        if self.compiled_loss is not None:
            found += self.compiled_loss.trackers
        if self.compiled_metrics is not None:
            found += self.compiled_metrics.metrics
        return _unique(found + own)

    @property
    def metrics_names(self) -> list[str]:
        """Names of the figures that `evaluate` returns."""
        names = [m.name for m in self.metrics]
        if self.compiled_metrics is None:
            return names
        called = {id(metric): name for _, _, name, metric in self.compiled_metrics.pairs}
        return [called.get(id(m)) or str(m.name) for m in self.metrics]

    def reset_metrics(self) -> None:
        """Starts all metrics again."""
        for metric in self.metrics:
            metric.reset_state()

    # --- one step

    def train_step(self, data: Any) -> dict[str, Any]:
        """Runs one step of training; override it for your own.

        Args:
            data: `(x, y, sample_weight)`.

        Returns:
            Figures by name.
        """
        x, y, sample_weight = unpack(data)

        def forward() -> tuple[Any, tuple[Any, Any, Any]]:
            y_pred = self(x, training=True)
            loss, sums = self._loss_and_sums(x, y, y_pred, sample_weight)
            return self.optimizer.scale_loss(loss), (y_pred, loss, sums)

        variables = self.trainable_variables
        rows = rows_of_batch(self, self._row_tables, variables, x)
        taken = {t: t.value.at[r].get(mode="fill", fill_value=0) for t, r in rows.items()}
        with tables_hold(rows):
            run = value_and_grad(forward, variables, has_aux=True, at=taken)
            (_, (y_pred, loss, sums)), grads = run()
        self._loss_tracker.add_batch(loss, sums, rows_of(y_pred))
        if rows:
            self.optimizer.apply_rows(grads, variables, rows)
        else:
            self.optimizer.apply(grads, variables)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Runs one step of evaluation; override it for your own."""
        x, y, sample_weight = unpack(data)
        y_pred = self(x, training=False)
        if y is not None or self.losses:
            loss, sums = self._loss_and_sums(x, y, y_pred, sample_weight, training=False)
            self._loss_tracker.add_batch(loss, sums, rows_of(y_pred))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def predict_step(self, data: Any) -> Any:
        """Runs one step of prediction; override it for your own."""
        return self(unpack(data)[0], training=False)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of a batch: that of `compile`, and what layers add."""
        total = None
        if self.compiled_loss is not None and self.compiled_loss.factors and y is not None:
            predictions = outputs_of(y_pred)
            weights = self._by_output(sample_weight, len(predictions))
            sums = self.compiled_loss(self._by_output(y, len(predictions)), predictions, weights)
            if self._noted_sums is not None:
                self._noted_sums.append(sums)
            total = jnp.sum(means(*sums) * jnp.asarray(self.compiled_loss.factors, jnp.float32))
        for value in self.losses:
            value = jnp.sum(value)
            total = value if total is None else total + value
        if total is None:
            raise StateError(
                f"'{self.name}' has no loss to minimize",
                received="y=None" if self.loss is not None else "no loss in compile",
                expected="a loss and targets, or losses added by layers",
                fix="model.compile(optimizer, loss='mse') and model.fit(x, y)",
            )
        return total

    def _loss_and_sums(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Returns what `compute_loss` does, and the outputs' sums that are behind it, if one is."""
        self._noted_sums = noted = []
        try:
            loss = self.compute_loss(*args, **kwargs)
        finally:
            self._noted_sums = None
        return loss, noted[0] if len(noted) == 1 else None

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        """Takes a batch into the metrics and returns all figures."""
        if self.compiled_metrics is not None and y is not None:
            predictions = outputs_of(y_pred)
            count = len(predictions)
            self.compiled_metrics.update(
                self._by_output(y, count), predictions, self._by_output(sample_weight, count)
            )
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the figures so far."""
        found = {"loss": self._loss_tracker.result()} if self.compiled else {}
        if self.compiled_loss is not None:
            found |= {t.name: t.result() for t in self.compiled_loss.trackers}
        if self.compiled_metrics is not None:
            found |= self.compiled_metrics.results()
            listed = {id(m) for m in self.compiled_metrics.metrics}
        else:
            listed = set()
        for metric in super().metrics:
            if id(metric) not in listed:
                value = metric.result()
                found |= value if isinstance(value, dict) else {metric.name: value}
        return found

    def run_step(self, step: str, batch: Batch) -> Any:
        """Runs one of the steps on a batch, whichever of Keras's two forms it has."""
        data = packed(batch)
        method = getattr(self, step)
        if len(inspect.signature(method).parameters) < 2:
            with in_groups(batch.groups):
                return method(data)
        groups = [
            self.trainable_variables,
            self.non_trainable_variables,
            *([self.optimizer.variables] if step == "train_step" else []),
            [v for m in self.metrics for v in m.variables],
        ]
        out, state = method(tuple([v.value for v in group] for group in groups), data)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return out

    # --- names and structures of outputs

    def _by_output(self, tree: Any, count: int) -> list[Any]:
        if tree is None:
            return [None] * count
        if isinstance(tree, dict):
            keys = self._output_keys or self._output_names
            if any(k in tree for k in keys):
                return [tree.get(k) for k in keys]
            names = self._output_names
            if any(n in tree for n in names):
                return [tree.get(n) for n in names]
            raise DataError(
                "targets or weights by name", list(tree), f"names of outputs: {', '.join(keys)}"
            )
        leaves = jax.tree.leaves(tree, is_leaf=is_masked)
        if len(leaves) == 1 and count > 1:
            return leaves * count
        if len(leaves) != count:
            raise DataError("targets or weights", f"{len(leaves)} of them", f"{count} outputs")
        return leaves

    def _prepare(self, batch: Batch, training: bool) -> None:
        """Builds what is not built, once the shapes are known from a first batch."""
        sizes = tuple(np.shape(unmask(v))[1:] for v in outputs_of(batch.x))
        if getattr(self, "_prepared", False) is not self.optimizer:
            self._output_specs: dict[Any, list[Any]] = {}
        if sizes not in self._output_specs:  # batches may differ in how many steps they have
            if self.run_eagerly:
                spec = self(batch.x, training=False)
            else:
                rows = batch.rows if batch_is_fixed(self) else None
                inputs = symbols_like(batch.x, rows)
                # Rows of unequal lengths may stand where an input names a number of steps.
                with any_size() if has_masked(batch.x) else nullcontext():
                    spec = symbol.infer(self._enter, (inputs,), {"training": False})
            keys = sorted(spec) if isinstance(spec, dict) else []
            self._output_keys = keys
            outputs = [spec[k] for k in keys] if keys else outputs_of(spec)
            graph = getattr(self, "graph", None)
            if graph is not None and not keys:
                self._output_names = [s.node.operation.name for s in graph.output_symbols]
            else:
                self._output_names = keys or [f"output_{i + 1}" for i in range(len(outputs))]
            self._output_specs[sizes] = outputs
            self._tables = self._tables_of_ids()
            self._prepared = self.optimizer
        self._output_spec = outputs = self._output_specs[sizes]
        self._check_ids(batch.x)
        if not self.compiled or batch.y is None:
            return
        names, keys = self._output_names, self._output_keys
        options = self._compile_arguments
        y = self._by_output(batch.y, len(outputs))
        if self.compiled_loss is None:
            loss = CompiledLoss(self.loss, options["loss_weights"], names, keys)
            metrics = CompiledMetrics(
                options["metrics"], options["weighted_metrics"], loss.losses, names, keys
            )
            metrics.build(y, outputs)
            with interrupts_held():  # all of it, or after an error or Ctrl-C nothing
                if loss.factors:
                    self._loss_tracker.expect(loss.factors)
                self.compiled_loss, self.compiled_metrics = loss, metrics
        check_targets(y, outputs, self._output_names, self.compiled_loss.losses)
        self.compiled_loss.check_labels(y, outputs)

    def _tables_of_ids(self) -> list[tuple[int, Embedding]]:
        """Returns the Embeddings that look up inputs, each with the input's place."""
        graph = getattr(self, "graph", None)
        if graph is None:
            return []
        places = {id(s): i for i, s in enumerate(graph.input_symbols)}
        nodes = [n for n in graph.nodes if isinstance(n.operation, Embedding)]
        return [
            (places[id(s)], n.operation) for n in nodes for s in n.inputs[:1] if id(s) in places
        ]

    def _check_ids(self, x: Any) -> None:
        """Raises ArgumentError for ids that an Embedding does not have: traced, none can say so."""
        if not self._tables:
            return
        values = self.graph.flatten(x, f"Model '{self.name}'")
        for place, table in self._tables:
            value = values[place]
            mask = np.asarray(value.mask) if is_masked(value) else None
            table.check_ids(np.asarray(unmask(value)), mask)

    def _with_class_weights(self, batch: Batch, table: dict[int, float]) -> Batch:
        output, rank = self._output_spec[0], np.ndim(batch.y)
        masked = output.mask.ndim if is_masked(output) else getattr(output, "masked", 0)
        one_hot = len(output.shape) == rank and rank > max(masked, 1)
        return replace(batch, weight=class_weights(batch.y, batch.weight, table, one_hot))

    def _optimizers_state(self) -> list[Any]:
        """Returns the state of the optimizer, and of others that a step of one's own may use."""
        held = [o for o in vars(self).values() if isinstance(o, optimizers.Optimizer)]
        return [v for o in (self.optimizer, *held) for v in o.variables]

    def _program(self, step: str) -> Any:
        own, trainable = self.variables, set(self.trainable_variables)
        if step == "predict_step":
            kept = [v for m in self.metrics for v in m.variables]  # a call may count
            variables = _unique([*own, *kept])
        else:
            if step == "train_step" and not self.optimizer.built:
                with interrupts_held():
                    self.optimizer.build(self.trainable_variables)
            sums = [v for m in self.metrics for v in m.variables]
            state = self._optimizers_state() if step == "train_step" else []
            variables = _unique([*own, *state, *sums])
        switches = tuple(v in trainable for v in own)
        revision = self.optimizer.revision if step == "train_step" else 0
        places = distribution()
        key = (step, tuple(map(id, variables)), switches, self.run_eagerly, revision, places)
        programs = vars(self).setdefault("programs", {})
        if key not in programs:
            if step == "train_step":
                self._row_tables = tables_by_rows(self)
            kind = Prediction if step == "predict_step" else None
            made = (
                kind(self, variables)
                if kind
                else Program(self, step, variables, eager=self.run_eagerly)
            )
            programs[key] = made
        return programs[key]

    def _inputs_count(self) -> int:
        graph = getattr(self, "graph", None)
        return len(graph.input_symbols) if graph is not None else 1

    def _data(
        self, x: Any, y: Any, weight: Any, batch_size: Any, steps: Any = None, what: str = "fit"
    ) -> Any:
        if isinstance(x, Table | Stream):
            return x
        if x is None:
            raise DataError(what, received="x=None", expected="data")
        if is_stream(x):
            if y is not None:
                raise DataError(
                    what,
                    received=f"{type(x).__name__} and y",
                    expected="targets inside the data: yield (x, y)",
                )
            return Stream(x, steps)
        if hasattr(x, "columns") and self._inputs_count() > 1:  # a DataFrame: inputs by its columns
            x = {name: x[name] for name in x.columns}
        outputs = len(y) if isinstance(y, list | tuple | dict) and self._several_outputs(y) else 1
        table = Table(x, y, weight, batch_size, self._inputs_count(), outputs)
        if table.ragged and own_rows(distribution()):
            raise DataError(
                what,
                received="lists of unequal sequences with auto_shard_dataset=False",
                expected="padded arrays: processes would pad to lengths of their own",
                fix="give all rows in every process, with auto_shard_dataset=True",
            )
        check_same(
            f"the data of {what}",
            f"{table.rows} rows in batches of {table.batch_size}",
            "give each process as many rows",
        )
        return table

    def _several_outputs(self, y: Any) -> bool:
        graph = getattr(self, "graph", None)
        return graph is None or len(graph.output_symbols) == len(y)


def _are_metrics(given: Any) -> bool:
    return isinstance(given, list) and any(isinstance(g, str) or callable(g) for g in given)
