"""compile and the steps: one batch through loss, gradients and metrics, compiled once."""

import inspect
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn import optimizers
from alphorn.core import symbol
from alphorn.core.masked import Masked, is_masked, unmask
from alphorn.core.symbol import Symbol
from alphorn.core.tracking import _unique
from alphorn.core.transforms import value_and_grad
from alphorn.core.variable import Variable
from alphorn.errors import DataError, StateError
from alphorn.metrics import Mean
from alphorn.training.compiled import CompiledLoss, CompiledMetrics, outputs_of
from alphorn.training.data import Batch, Stream, Table, is_stream
from alphorn.training.events import History
from alphorn.training.step import Prediction, Program


class Steps:
    """What `compile` adds to a model: the loss, the metrics, the steps on one batch."""

    trainer_attributes = frozenset(
        ["optimizer", "compiled_loss", "compiled_metrics", "loss_tracker", "history", "programs"]
    )
    optimizer: Any = None
    loss: Any = None
    compiled_loss: CompiledLoss | None = None
    compiled_metrics: CompiledMetrics | None = None
    stop_training = False
    history: History | None = None
    run_eagerly = False

    if TYPE_CHECKING:
        name: str
        graph: Any
        trainable_variables: list[Variable]
        variables: list[Variable]
        losses: list[Any]
        dtype_policy: Any

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
        """
        self.optimizer = optimizers.get(optimizer)
        scaled = isinstance(self.optimizer, optimizers.LossScaleOptimizer)
        if auto_scale_loss and self.dtype_policy.name == "mixed_float16" and not scaled:
            self.optimizer = optimizers.LossScaleOptimizer(self.optimizer)
        self.loss = loss
        self.run_eagerly = bool(run_eagerly) or jit_compile is False
        self.steps_per_execution = steps_per_execution
        self._compile_arguments = {
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        self.compiled_loss = self.compiled_metrics = None
        self.loss_tracker = Mean(name="loss")
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
        own = super().metrics  # pyright: ignore[reportAttributeAccessIssue]
        found = [self.loss_tracker] if self.compiled else []
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
        called = {id(m): n for *_, n, m in self.compiled_metrics.pairs}
        return [called.get(id(m), m.name) for m in self.metrics]  # pyright: ignore[reportReturnType]

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

        def forward() -> tuple[Any, tuple[Any, Any]]:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
            return self.optimizer.scale_loss(loss), (y_pred, loss)

        variables = self.trainable_variables
        (_, (y_pred, loss)), grads = value_and_grad(forward, variables, has_aux=True)()
        self._track_loss(loss, y_pred)
        self.optimizer.apply(grads, variables)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Runs one step of evaluation; override it for your own."""
        x, y, sample_weight = unpack(data)
        y_pred = self(x, training=False)
        if y is not None or self.losses:
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
            self._track_loss(loss, y_pred)
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
        self._loss_weight = None
        if self.compiled_loss is not None and y is not None:
            predictions = outputs_of(y_pred)
            weights = self._by_output(sample_weight, len(predictions))
            total, self._loss_weight = self.compiled_loss(
                self._by_output(y, len(predictions)), predictions, weights
            )
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

    def _track_loss(self, loss: Any, y_pred: Any) -> None:
        weight, self._loss_weight = getattr(self, "_loss_weight", None), None
        if weight is None:
            weight = unmask(outputs_of(y_pred)[0]).shape[0]
        weight = jnp.asarray(weight, jnp.float32)
        self.loss_tracker.add_sums(loss.astype(jnp.float32) * weight, weight)

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
        found = {"loss": self.loss_tracker.result()} if self.compiled else {}
        if self.compiled_loss is not None:
            found |= {t.name: t.result() for t in self.compiled_loss.trackers}
        if self.compiled_metrics is not None:
            found |= self.compiled_metrics.results()
            listed = {id(m) for m in self.compiled_metrics.metrics}
        else:
            listed = set()
        for metric in super().metrics:  # pyright: ignore[reportAttributeAccessIssue]
            if id(metric) not in listed:
                value = metric.result()
                found |= value if isinstance(value, dict) else {metric.name: value}
        return found

    def run_step(self, step: str, batch: Batch) -> Any:
        """Runs one of the steps on a batch, whichever of Keras's two forms it has."""
        data = packed(batch)
        method = getattr(self, step)
        if len(inspect.signature(method).parameters) < 2:
            return method(data)
        groups = [
            self.trainable_variables,
            self.non_trainable_variables,  # pyright: ignore[reportAttributeAccessIssue]
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
        if getattr(self, "_prepared", False) is not self.optimizer:
            if self.run_eagerly:
                spec = self(batch.x, training=False)
            else:
                rows = batch.rows if _batch_is_fixed(self) else None
                inputs = _symbols_like(batch.x, rows)
                spec = symbol.infer(self._enter, (inputs,), {"training": False})
            keys = sorted(spec) if isinstance(spec, dict) else []
            self._output_keys = keys
            outputs = [spec[k] for k in keys] if keys else outputs_of(spec)
            graph = getattr(self, "graph", None)
            if graph is not None and not keys:
                self._output_names = [s.node.operation.name for s in graph.output_symbols]
            else:
                self._output_names = keys or [f"output_{i + 1}" for i in range(len(outputs))]
            self._output_spec = outputs
            self._prepared = self.optimizer
        outputs = self._output_spec
        if not self.compiled or batch.y is None:
            return
        names, keys = self._output_names, self._output_keys
        options = self._compile_arguments
        if self.compiled_loss is None:
            self.compiled_loss = CompiledLoss(self.loss, options["loss_weights"], names, keys)
            self.compiled_metrics = CompiledMetrics(
                options["metrics"],
                options["weighted_metrics"],
                self.compiled_loss.losses,
                names,
                keys,
            )
        y = self._by_output(batch.y, len(outputs))
        assert self.compiled_metrics is not None
        self.compiled_metrics.build(y, outputs)
        self.compiled_loss.check_labels(y, outputs)
        if training:
            _check_targets(y, outputs, self._output_names, self.compiled_loss.losses)

    def _program(self, step: str) -> Any:
        if step == "predict_step":
            kept = [v for m in self.metrics for v in m.variables]  # a call may count
            variables = _unique([*self.variables, *kept])
        else:
            if step == "train_step" and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
            sums = [v for m in self.metrics for v in m.variables]
            state = self.optimizer.variables if step == "train_step" else []
            variables = _unique([*self.variables, *state, *sums])
        switches = tuple(v in set(self.trainable_variables) for v in self.variables)
        key = (step, tuple(map(id, variables)), switches, self.run_eagerly)
        programs = vars(self).setdefault("programs", {})
        if key not in programs:
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
        outputs = len(y) if isinstance(y, list | tuple | dict) and self._several_outputs(y) else 1
        return Table(x, y, weight, batch_size, self._inputs_count(), outputs)

    def _several_outputs(self, y: Any) -> bool:
        graph = getattr(self, "graph", None)
        return graph is None or len(graph.output_symbols) == len(y)


def packed(batch: Batch) -> Any:
    """Returns what a step is given, as Keras has it: `x`, `(x, y)` or `(x, y, sample_weight)`."""
    if batch.weight is not None:
        return batch.x, batch.y, batch.weight
    if batch.y is not None:
        return batch.x, batch.y
    return (batch.x,) if isinstance(batch.x, list | tuple) else batch.x


def unpack(data: Any) -> tuple[Any, Any, Any]:
    """Returns `(x, y, sample_weight)` from what a step got, None for what is missing."""
    parts = data if isinstance(data, tuple) else (data,)
    return (*parts, None, None)[:3]  # pyright: ignore[reportReturnType]


def _batch_is_fixed(model: Any) -> bool:
    """Returns whether a model takes one batch size only: it keeps states, or its Input says so."""
    graph = getattr(model, "graph", None)
    if graph is not None and any(s.shape[0] is not None for s in graph.input_symbols):
        return True
    return any(getattr(layer, "stateful", False) for layer in model._family())


def _symbols_like(x: Any, rows: int | None) -> Any:
    def like(leaf: Any) -> Symbol:
        if is_masked(leaf):
            rank = leaf.mask.ndim
            return Symbol((rows, *[None] * (rank - 1), *leaf.shape[rank:]), leaf.dtype, rank)
        return Symbol((rows, *np.shape(leaf)[1:]), leaf.dtype)

    return jax.tree.map(like, x, is_leaf=is_masked)


def _check_targets(y: list, outputs: list, names: list[str], losses: list) -> None:
    """Raises DataError where targets of one number a row meet several outputs a row."""
    for labels, output, name, loss in zip(y, outputs, names, losses, strict=True):
        if labels is None or loss is None or isinstance(labels, Masked):
            continue
        if type(loss).__name__ == "CategoricalCrossentropy" and np.ndim(labels) < len(output.shape):
            raise DataError(
                f"targets of '{name}'",
                received=f"shape {np.shape(labels)}",
                expected=f"shape {output.shape}: one-hot rows",
                fix="for class numbers compile with loss='sparse_categorical_crossentropy'",
            )
