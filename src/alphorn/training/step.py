"""The compiled training step: state in, state out, donated; several batches a call by a scan."""

import functools
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from alphorn.core.transforms import functional
from alphorn.core.variable import Variable, hold, share_lock
from alphorn.distribution.current import distribution
from alphorn.distribution.placing import (
    gathered,
    in_place,
    kept_in_place,
    parted,
    rows_here,
    settle,
    spread,
    stacked,
)
from alphorn.host_memory import keep_memory, ready
from alphorn.kernels.device import on_cpu, slow_in_loops
from alphorn.program_cache import keep_programs
from alphorn.training.ahead import Ahead
from alphorn.training.data import Batch
from alphorn.training.interrupts import interrupts_held
from alphorn.training.lanes import lanes

# Below so many multiplications a step costs less than its dispatch: then several go in a call.
SMALL_STEP = 3e7
_STEPS_PER_CALL = 16

keep_programs()
jax.tree_util.register_dataclass(Batch, ["x", "y", "weight"], ["groups"])


class Logs(dict[str, Any]):
    """Figures on the device, which turn into floats when they are first read."""

    def __init__(self, values: Mapping[str, Any]):
        super().__init__(values)
        self._device: dict[str, Any] | None = dict(values)

    def _read(self) -> "Logs":
        if self._device is not None:
            host, self._device = jax.device_get(self._device), None
            super().update({k: _number(v) for k, v in host.items()})
        return self

    @property
    def ready(self) -> bool:
        """Whether reading would not wait for the device."""
        values = (self._device or {}).values()
        return all(v.is_ready() for v in values if hasattr(v, "is_ready"))

    def wait(self) -> None:
        """Waits until the device has them."""
        jax.block_until_ready(self._device)

    def __iter__(self) -> Iterator[str]:  # also keeps `dict(logs)` from copying what is not read
        return super().__iter__()


def _reading(name: str) -> Callable:
    method = getattr(dict, name)

    @functools.wraps(method)
    def read(self: Logs, *args: Any, **kwargs: Any) -> Any:
        return method(self._read(), *args, **kwargs)

    return read


for _name in (
    "__getitem__ __setitem__ __delitem__ __eq__ __ne__ __or__ __ior__ __ror__ __repr__ __reversed__"
    " clear copy get items pop popitem setdefault update values"
).split():
    setattr(Logs, _name, _reading(_name))


def _number(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


class _OnDevices:
    """What runs on the devices over a fixed list of Variables.

    Args:
        variables: All that it reads or writes.
    """

    _run: Callable

    def __init__(self, variables: list[Variable]):
        self.variables = variables
        share_lock(variables)
        settle(variables)
        keep_memory()
        self._met = False

    @functools.cached_property
    def ahead(self) -> Ahead:
        """The programs that are compiled before they are needed."""
        return Ahead(self._run)

    def begin(self, batches: Batch, count: int = 1) -> None:
        """Has the program compiled that runs so many batches, beside what is done meanwhile."""
        with interrupts_held(), hold(self.variables):
            for part, *static in itertools.islice(self._calls(batches, count), 1):
                self.ahead.begin(self._values(), self._spread(part, *static), *static)

    def _calls(self, batches: Batch, count: int) -> Iterator[tuple[Any, ...]]:
        """Yields what goes into one call each."""
        yield (batches,)

    def _values(self) -> list[Any]:
        return [v.slot for v in self.variables]

    def _spread(self, batches: Batch, count: int = 1) -> Batch:
        met, self._met = self._met, True
        return ready(spread(batches, count, compare=not met))


class Program(_OnDevices):
    """One compiled step of a model, over a fixed list of Variables.

    Args:
        model: Held weakly: a step that held it would keep its arrays alive.
        step: The name of the model's method: `train_step`, `test_step`.
        variables: All that the step reads or writes.
        eager: Whether it runs without compilation.
    """

    def __init__(self, model: Any, step: str, variables: list[Variable], eager: bool = False):
        super().__init__(variables)
        self.names: list[str] = []
        self._apart: bool | None = None
        self._run = _compiled(
            weakref.ref(model), weakref.ref(self), step, eager, kept_in_place(variables)
        )

    def __call__(self, batches: Batch, count: int) -> Logs:
        """Runs the step and puts the new values into the slots.

        Args:
            batches: One batch, or `count` of equal shapes, one after another along the rows.
            count: How many batches.
        """
        figures: list[Any] = []
        with interrupts_held(), hold(self.variables):
            for part, steps in self._calls(batches, count):
                part = self._spread(part, steps)
                self.ahead.meet(part, steps)
                state, figures = self._run(self._values(), part, steps)
                for variable, value in zip(self.variables, state, strict=True):
                    variable.rebind(value)
        return Logs(dict(zip(self.names, figures, strict=True)))

    def _calls(self, batches: Batch, count: int) -> Iterator[tuple[Batch, int]]:
        """Yields what goes into one call each: all, or where a loop would be slow each batch."""
        if count > 1 and self._apart is None:
            self._apart = distribution() is None and self._slow_in_a_loop(batches, count)
        if count == 1 or not self._apart:
            yield batches, count
            return
        rows = batches.rows // count
        for start in range(0, batches.rows, rows):
            yield jax.tree.map(lambda a, at=start: a[at : at + rows], batches), 1

    def _slow_in_a_loop(self, batches: Batch, count: int) -> bool:
        run: Any = self._run
        if not on_cpu() or not hasattr(run, "trace"):  # run_eagerly
            return False
        return slow_in_loops(run.trace(self._values(), batches, count).jaxpr)


def _compiled(model: Any, program: Any, step: str, eager: bool, kept: dict) -> Callable:
    def one(values: list, batch: Batch) -> tuple[list, list]:
        owner, calling, batch = model(), program(), parted(batch)
        logs, new = functional(lambda: owner.run_step(step, batch), calling.variables)(values)
        calling.names = list(logs)
        return new, list(logs.values())

    def run(values: list, batches: Batch, count: int) -> tuple[list, list]:
        if count == 1:
            return one(values, batches)
        values, figures = jax.lax.scan(one, values, stacked(batches, count))
        return values, [f[-1] for f in figures]

    return run if eager else jax.jit(run, static_argnums=2, donate_argnums=0, **kept)


class Prediction(_OnDevices):
    """The compiled forward pass of a model.

    Values that it writes (states of stateful layers, seeds) are put back; weights are not donated.
    Calls that need nothing of each other run beside each other.
    """

    def __init__(self, model: Any, variables: list[Variable]):
        super().__init__(variables)
        self.written: list[int] = []
        self._lanes = lanes()
        self._run = self._compiled(weakref.ref(model), weakref.ref(self), variables)

    @staticmethod
    def _compiled(model: Any, program: Any, variables: list[Variable]) -> Callable:
        def run(values: list, batch: Batch) -> tuple[Any, list]:
            owner, batch = model(), parted(batch)
            outputs, new = functional(lambda: owner.run_step("predict_step", batch), variables)(
                values
            )
            written = [i for i, v in enumerate(new) if v is not values[i]]
            program().written = written
            return gathered(outputs), [in_place(variables[i], new[i]) for i in written]

        return jax.jit(run)

    def __call__(self, batch: Batch) -> Any:
        """Returns the model's outputs for a batch."""
        batch = self._spread(batch)
        with interrupts_held(), hold(self.variables):
            self.ahead.meet(batch)
            with next(self._lanes):
                outputs, new = self._run(self._values(), batch)
            for i, value in zip(self.written, new, strict=True):
                self.variables[i].rebind(value)
        return rows_here(outputs)


def steps_per_call(wanted: Any, variables: list[Variable], batch: Batch) -> int:
    """Returns how many batches go into a call.

    Args:
        wanted: A number, or "auto": many where a step is small, by its size, never by a clock.
        variables: The model's.
        batch: A sample.
    """
    if wanted != "auto":
        return wanted
    return _STEPS_PER_CALL if work_of(variables, batch) < SMALL_STEP else 1


def work_of(variables: list[Variable], batch: Batch) -> int:
    """Returns about how many multiplications a step takes."""
    positions = max(
        (int(np.prod(a.shape[1:-1])) for a in jax.tree.leaves(batch.x) if np.ndim(a) > 1),
        default=1,
    )
    return sum(v.size for v in variables if v.ndim > 1) * batch.rows * positions
