"""The compiled training step: state in, state out, donated; several batches a call by a scan."""

import contextlib
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from alphorn.core.transforms import functional
from alphorn.core.variable import Variable, hold, share_lock
from alphorn.training.data import Batch

# Below so many multiplications a step costs less than its dispatch: then several go in a call.
_SMALL_STEP = 3e7
_STEPS_PER_CALL = 16

jax.tree_util.register_dataclass(Batch, ["x", "y", "weight"], [])


class Logs(Mapping[str, Any]):
    """Figures on the device, which turn into floats when they are first read."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = dict(values)
        self._floats: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._floats is None:
            host = jax.device_get(self._values)
            self._floats = {k: _number(v) for k, v in host.items()}
        return self._floats

    @property
    def ready(self) -> bool:
        """Whether reading would not wait for the device."""
        return self._floats is not None or all(
            v.is_ready()  # pyright: ignore[reportAttributeAccessIssue]
            for v in self._values.values()
            if isinstance(v, jax.Array)  # pyright: ignore[reportAttributeAccessIssue]
        )

    def wait(self) -> None:
        """Waits until the device has them."""
        jax.block_until_ready(list(self._values.values()))

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._read())


def _number(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back: between dispatch and rebinding the weights are in nobody's hands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[Any, Any]] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None:  # set by no Python code: not ours to hold
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received and callable(before):
        before(*received[0])


class Program:
    """One compiled step of a model, over a fixed list of Variables.

    Args:
        model: Held weakly: a step that held it would keep its arrays alive.
        step: The name of the model's method: `train_step`, `test_step`.
        variables: All that the step reads or writes.
        eager: Whether it runs without compilation.
    """

    def __init__(self, model: Any, step: str, variables: list[Variable], eager: bool = False):
        self.variables = variables
        share_lock(variables)
        self.names: list[str] = []
        self._run = _compiled(weakref.ref(model), weakref.ref(self), step, eager)

    def __call__(self, batches: Batch, count: int) -> Logs:
        """Runs the step and puts the new values into the slots.

        Args:
            batches: One batch, or `count` of equal shapes, one after another along the rows.
            count: How many batches.
        """
        with interrupts_held(), hold(self.variables):
            state, figures = self._run([v.slot for v in self.variables], batches, count)
            for variable, value in zip(self.variables, state, strict=True):
                variable.rebind(value)
        return Logs(dict(zip(self.names, figures, strict=True)))


def _compiled(model: Any, program: Any, step: str, eager: bool) -> Callable:
    def one(values: list, batch: Batch) -> tuple[list, list]:
        owner, calling = model(), program()
        logs, new = functional(lambda: owner.run_step(step, batch), calling.variables)(values)
        calling.names = list(logs)
        return new, list(logs.values())

    def run(values: list, batches: Batch, count: int) -> tuple[list, list]:
        if count == 1:
            return one(values, batches)
        stacked = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), batches)
        values, figures = jax.lax.scan(one, values, stacked)
        return values, [f[-1] for f in figures]

    return run if eager else jax.jit(run, static_argnums=2, donate_argnums=0)


class Prediction:
    """The compiled forward pass of a model.

    Values that it writes (states of stateful layers, seeds) are put back; weights are not donated.
    """

    def __init__(self, model: Any, variables: list[Variable]):
        self.variables = variables
        share_lock(variables)
        self.written: list[int] = []
        self._run = self._compiled(weakref.ref(model), weakref.ref(self), variables)

    @staticmethod
    def _compiled(model: Any, program: Any, variables: list[Variable]) -> Callable:
        def run(values: list, batch: Batch) -> tuple[Any, list]:
            owner = model()
            outputs, new = functional(lambda: owner.run_step("predict_step", batch), variables)(
                values
            )
            written = [i for i, v in enumerate(new) if v is not values[i]]
            program().written = written
            return outputs, [new[i] for i in written]

        return jax.jit(run)

    def __call__(self, batch: Batch) -> Any:
        """Returns the model's outputs for a batch."""
        with interrupts_held(), hold(self.variables):
            outputs, new = self._run([v.slot for v in self.variables], batch)
            for i, value in zip(self.written, new, strict=True):
                self.variables[i].rebind(value)
        return outputs


def steps_per_call(wanted: Any, variables: list[Variable], batch: Batch) -> int:
    """Returns how many batches go into a call.

    Args:
        wanted: A number, or "auto": many where a step is small, by its size, never by a clock.
        variables: The model's.
        batch: A sample.
    """
    if wanted != "auto":
        return max(int(wanted), 1)
    rows = batch.rows
    positions = max(
        (int(np.prod(a.shape[1:-1])) for a in jax.tree.leaves(batch.x) if np.ndim(a) > 1),
        default=1,
    )
    work = sum(v.size for v in variables if v.ndim > 1) * rows * positions
    return _STEPS_PER_CALL if work < _SMALL_STEP else 1
