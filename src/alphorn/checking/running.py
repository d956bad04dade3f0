"""Runs of a model under a watch: outputs, what each layer got and gave, loss and gradients.

All state is an argument, and what a run writes is dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from alphorn.core.masked import Masked, is_masked, unmask
from alphorn.core.rules import choose
from alphorn.core.tracking import _unique
from alphorn.core.transforms import functional
from alphorn.core.watching import Watch, watching
from alphorn.models.model import Model
from alphorn.training.compiled import outputs_of


@dataclass
class Seen:
    """One call of a layer: what it got and gave, as arrays and Masked."""

    operation: Any
    parent: int | None
    sources: set[int]
    given: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    # The gradient of the loss by each floating output.
    slopes: list[Any] = field(default_factory=list)


@dataclass
class Record:
    """One run: outputs, visits, and `(visit, whether it ended)` in order; loss, gradients."""

    outputs: list[Any]
    visits: list[Seen]
    events: list[tuple[int, bool]]
    loss: Any = None
    gradients: list[Any] = field(default_factory=list)


class Runner:
    """Runs a model without changing it.

    Args:
        model: Built.
        training: What it is called with.
    """

    def __init__(self, model: Model, training: bool):
        self.model, self.training = model, training
        self.trainable = model.trainable_variables
        metrics = [v for m in model.metrics for v in m.variables]
        known = set(self.trainable)
        others = [v for v in (*model.variables, *metrics) if v not in known]
        self.variables = [*self.trainable, *_unique(others)]
        self._static: dict[Any, Any] = {}
        compiled = (lambda f: f) if model.run_eagerly else jax.jit
        self._forward = compiled(self._forward_values)
        self._backward = compiled(self._loss_values)

    def __call__(self, x: Any, y: Any = None, weight: Any = None, junk: Any = None) -> Record:
        """Returns what a run gives.

        Args:
            x, y, weight: A batch; with `y`, loss and gradients are found as well.
            junk: What stands in padding behind each layer but recurrent ones, which repeat there.
        """
        values = [v.slot for v in self.variables]
        outputs, seen = jax.device_get(self._forward(values, x, junk))
        record = self._record(outputs, seen, x, junk)
        if y is not None:
            shifts = [
                jnp.zeros(unmask(o).shape, unmask(o).dtype)
                for visit in record.visits
                for o in visit.outputs
                if is_floating(o)
            ]
            loss, gradients, slopes = jax.device_get(
                self._backward(values, self._by_end(record, shifts), x, y, weight, junk)
            )
            record.loss, record.gradients = loss, gradients
            left = iter(slopes)
            for at, ended in record.events:
                if ended:
                    visit = record.visits[at]
                    visit.slopes = [next(left) for o in visit.outputs if is_floating(o)]
        return record

    @staticmethod
    def _by_end(record: Record, shifts: list[Any]) -> list[Any]:
        """Returns the shifts in the order in which visits end."""
        each = iter(shifts)
        own = [[next(each) for o in v.outputs if is_floating(o)] for v in record.visits]
        return [shift for at, ended in record.events if ended for shift in own[at]]

    def _forward_values(self, values: list, x: Any, junk: Any) -> Any:
        def run() -> Any:
            with watching(_stir(junk)) as watch:
                outputs = self.model(x, training=self.training)
            self._static[_key(x, junk)] = _static(watch)
            return outputs_of(outputs), [(v.given, v.outputs) for v in watch.visits]

        return functional(run, self.variables)(values)[0]

    def _loss_values(self, values: list, shifts: list, x: Any, y: Any, weight: Any, junk: Any):
        count = len(self.trainable)

        def pure(trainable: list, shifts: list) -> Any:
            def run() -> Any:
                with watching(_stir(junk, iter(shifts))):
                    outputs = self.model(x, training=self.training)
                return self.model.compute_loss(x, y, outputs, weight, training=self.training)

            return functional(run, self.variables)([*trainable, *values[count:]])[0]

        loss, (gradients, slopes) = jax.value_and_grad(pure, argnums=(0, 1))(values[:count], shifts)
        return loss, gradients, slopes

    def _record(self, outputs: Any, seen: Any, x: Any, junk: Any) -> Record:
        static, events = self._static[_key(x, junk)]
        visits = [
            Seen(*entry, given=given, outputs=gave)
            for entry, (given, gave) in zip(static, seen, strict=True)
        ]
        return Record(outputs, visits, events)


def _key(x: Any, junk: Any) -> Any:
    leaves, structure = jax.tree.flatten(x)
    return structure, tuple((a.shape, str(a.dtype)) for a in leaves), junk is None


def _static(watch: Watch) -> tuple[list[tuple], list[tuple[int, bool]]]:
    """Returns of each visit its operation, its parent's place, and the places of its sources."""
    places = {id(v): i for i, v in enumerate(watch.visits)}
    made: dict[int, int] = {}
    entries: list[Any] = [None] * len(watch.visits)
    for visit, ended in watch.events:
        at = places[id(visit)]
        if ended:
            made.update((id(unmask(x)), at) for x in visit.outputs)
        else:
            parent = None if visit.parent is None else places[id(visit.parent)]
            sources = {made[id(unmask(x))] for x in visit.given if id(unmask(x)) in made}
            entries[at] = (visit.operation, parent, sources)
    return entries, [(places[id(v)], ended) for v, ended in watch.events]


def _stir(junk: Any, shifts: Any = None) -> Callable[[Any, Any], Any] | None:
    """Returns what changes outputs: shifts that are zero, by which to differentiate, and junk."""
    if junk is None and shifts is None:
        return None

    def change(operation: Any, x: Any) -> Any:
        data = unmask(x)
        if not is_floating(x):
            return x
        if shifts is not None:
            data = data + next(shifts)
        if not is_masked(x):
            return data
        repeats = isinstance(operation, Model) or getattr(operation, "masking", None) is choose
        if junk is not None and not repeats:
            wide = x.mask.reshape(x.mask.shape + (1,) * (data.ndim - x.mask.ndim))
            data = jnp.where(wide, data, jnp.asarray(junk, data.dtype))
        return Masked.trusted(data, x.mask)

    return change


def is_floating(x: Any) -> bool:
    """Returns whether `x`, an array or Masked, holds real numbers."""
    return jnp.issubdtype(unmask(x).dtype, jnp.floating)
