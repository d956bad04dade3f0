"""Where fit is: all that a run needs to go on from there to the same bits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn.config import generator_states, set_generator_states
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError
from alphorn.training.data import Table
from alphorn.training.interrupts import interrupts_held
from alphorn.training.rounding import Rounding


@dataclass
class Saved:
    """A position as a file can hold it.

    Args:
        facts: Plain values.
        arrays: First those of the Variables.
    """

    facts: dict[str, Any]
    arrays: list[Any] = field(default_factory=list)


class Position:
    """Where fit is, owned by fit: the epoch, the step in it, how its batches come.

    The order of an epoch is not kept but drawn again, from the states that the generators had when
    it began.

    Args:
        model: In training.
        data: A Table or Stream.
        order: The generator that draws the order of rows.
        epoch: The first.
        callbacks: Of the run.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        order: np.random.Generator,
        epoch: int,
        callbacks: Sequence[Any],
    ):
        self.model, self.data, self.order, self.callbacks = model, data, order, callbacks
        self.first = self.epoch = epoch
        self.step = 0
        self.stopped = False
        self.logs: Mapping[str, Any] = {}
        self._plan: dict[str, Any] = {}
        self._begun: dict[str, Any] = {}
        self._saved: Saved | None = None

    def begin(self) -> None:
        """Notes the generators at the beginning of an epoch."""
        self._begun = self._generators()

    def end(self) -> None:
        """Goes to the next epoch."""
        self.epoch, self.step, self.logs = self.epoch + 1, 0, {}

    def keep(self, plan: dict[str, Any], rows: Any) -> None:
        """Notes how the batches of an epoch come; one that goes on must find them as they were.

        Args:
            plan: What says which rows are in which batch, and what they are padded to.
            rows: The order of the epoch.
        """
        saved, self._saved = self._saved, None
        if saved is not None and self.step:
            before = saved.facts["plan"]
            for name in sorted({*plan, *before}):
                if plan.get(name) != before.get(name):
                    raise ArgumentError(
                        f"fit goes on within epoch {self.epoch + 1}: {name}",
                        received=repr(plan.get(name)),
                        expected=f"{before.get(name)!r}, as before",
                        fix="give fit what it was given before, or remove the backup",
                    )
            if not isinstance(self.data, Table):
                self.data.begin(rows, self.step)
            self._assign(saved)  # callbacks have had this epoch's beginning twice
            self._set_generators(saved.facts["now"])
        cutting = getattr(self.data, "cutting", None)
        if saved is not None and isinstance(cutting, Rounding):
            cutting.resume(saved.facts.get("met", []))
        self._plan = plan

    def state(self, value: Callable[[Variable], Any] = Variable.numpy) -> Saved:
        """Returns all that `resume` needs, with the `value` of each Variable."""
        variables, now = self.variables, self._generators()
        arrays = [value(v) for v in variables]
        logs = {name: np.asarray(value).tolist() for name, value in dict(self.logs).items()}
        facts = {
            "epoch": self.epoch,
            "step": self.step,
            "first": self.first,
            "stopped": bool(self.model.stop_training),
            "logs": logs,
            "plan": self._plan,
            "met": getattr(getattr(self.data, "cutting", None), "met", []),
            "begun": self._begun if self.step else now,
            "now": now,
            "optimizer": type(self.model.optimizer).__name__,
            "variables": [
                [v.path, list(v.shape), str(a.dtype)] for v, a in _pairs(variables, arrays)
            ],
            "callbacks": {
                name: {k: _packed(getattr(c, k), arrays, f"{name}.{k}") for k in type(c).backed_up}
                for name, c in self._by_name()
            },
        }
        return Saved(facts, arrays)

    def resume(
        self, saved: Saved, where: str, read: Callable[[list[Variable]], list[Any]] | None = None
    ) -> None:
        """Goes to a state that was kept.

        Args:
            saved: What `state` returned.
            where: For errors.
            read: Gives its arrays, where they come later: when the Variables are there.

        Raises:
            ArgumentError: it is that of another model.
        """
        facts = saved.facts
        if isinstance(self.data, Table):
            sample = self.data.whole(slice(0, self.data.batch_size))
        else:
            sample = self.data.replay(facts["epoch"] - facts["first"])
        self.model._prepare(sample, True)
        self._check(facts, where)
        if read is not None:
            saved.arrays = read(self.variables)
        self.epoch, self.step, self.first = facts["epoch"], facts["step"], facts["first"]
        self.stopped, self.logs = facts["stopped"], facts["logs"]
        self._begun, self._saved = facts["begun"], saved
        self._assign(saved)
        for name, callback in self._by_name():
            for key, value in facts["callbacks"].get(name, {}).items():
                setattr(callback, key, _unpacked(value, saved.arrays))
        self._set_generators(self._begun)

    def _check(self, facts: dict[str, Any], where: str) -> None:
        optimizer = type(self.model.optimizer).__name__
        now = [(v.path, list(v.shape), str(np.dtype(v.dtype))) for v in self.variables]
        before = [tuple(v) for v in facts["variables"]]
        other = ""
        if facts["optimizer"] != optimizer:
            other = f"the state of {facts['optimizer']}, where the model has {optimizer}"
        for (path, shape, dtype), (old, old_shape, old_dtype) in zip(now, before, strict=False):
            if not other and (shape, dtype) != (old_shape, old_dtype):
                other = f"{old} {tuple(old_shape)} {old_dtype} for {path} {tuple(shape)} {dtype}"
        if not other and len(now) != len(before):
            other = f"{len(before)} Variables, where the model and its training have {len(now)}"
        if other:
            raise ArgumentError(
                f"the backup {where} is of another model",
                received=other,
                expected="the model, compiled as it was when the backup was written",
                fix="build and compile it as it was; or name another backup_dir, or remove this one",
            )

    @property
    def variables(self) -> list[Variable]:
        """All that a step of training reads or writes."""
        return self.model._program("train_step").variables

    def _assign(self, saved: Saved) -> None:
        with interrupts_held():
            for variable, value in zip(self.variables, saved.arrays, strict=False):
                variable.assign(value)

    def _generators(self) -> dict[str, Any]:
        return {**generator_states(), "order": self.order.bit_generator.state}

    def _set_generators(self, states: dict[str, Any]) -> None:
        set_generator_states(states)
        self.order.bit_generator.state = states["order"]

    def _by_name(self) -> list[tuple[str, Any]]:
        """Returns the callbacks that have something to keep, by class and number."""
        found: list[tuple[str, Any]] = []
        counts: dict[str, int] = {}
        for callback in self.callbacks:
            kind = type(callback).__name__
            if getattr(type(callback), "backed_up", ()):
                counts[kind] = count = counts.get(kind, 0) + 1
                found.append((f"{kind} {count}", callback))
        return found


def _pairs(variables: list[Variable], arrays: list[Any]) -> Any:
    return list(zip(variables, arrays, strict=True))


def _packed(value: Any, arrays: list[np.ndarray], where: str) -> Any:
    """Returns a value for JSON, arrays as their numbers in a list that they are put into."""
    if isinstance(value, np.ndarray | jax.Array):
        arrays.append(np.asarray(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, list | tuple):
        return [_packed(v, arrays, where) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ArgumentError(
        f"backed_up: {where}",
        received=type(value).__name__,
        expected="a number, a text, None, an array, or a list of them",
    )


def _unpacked(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        return arrays[value["array"]]
    return [_unpacked(v, arrays) for v in value] if isinstance(value, list) else value


def as_type(array: np.ndarray, name: str) -> np.ndarray:
    """Returns an array as the number type that it had before a file made it plain bytes."""
    return array.view(jnp.dtype(name)) if array.dtype.kind == "V" else array
