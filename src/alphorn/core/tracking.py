"""Who owns what: the Variables, layers, metrics and generators that hang on an object's attributes.

Nothing is recorded when an attribute is set: the attributes are walked when somebody asks, so that
lists and dicts may grow later.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from alphorn.core.random import SeedGenerator
from alphorn.core.variable import Variable
from alphorn.errors import ShapeError, StateError
from alphorn.fields import Configurable, attribute

# Most attributes are of types that hold nothing: to pass them by at once makes a walk cheap.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, type(len), type(lambda: None)})


class Tracked(Configurable):
    """Base of layers and metrics: finds its Variables and parts by walking its attributes."""

    # Attributes that speak of others without owning them.
    untracked: ClassVar[frozenset[str]] = frozenset({"_captured"})
    is_metric: ClassVar[bool] = False
    if TYPE_CHECKING:
        trainable: bool = attribute()

    def _parts(self) -> list[Any]:
        found: dict[int, Any] = {}
        for name, value in vars(self).items():
            if type(value) in _PLAIN or name in self.untracked:
                continue
            if isinstance(value, _MEMBERS):
                found[id(value)] = value
            elif isinstance(value, list | tuple | dict):
                found.update((id(m), m) for m in _members(value))
        return list(found.values())

    def _own_variables(self) -> list[Variable]:
        """Own Variables: those born trainable first, each group in order of birth."""
        own = [p for p in self._parts() if isinstance(p, Variable)]
        return sorted(own, key=lambda v: not getattr(v, "born_trainable", v.trainable))

    @property
    def _layers(self) -> list[Any]:
        return [p for p in self._parts() if isinstance(p, Tracked) and not p.is_metric]

    @property
    def metrics(self) -> list[Any]:
        """The metrics, own ones first."""
        return self._metrics_within()

    def _metrics_within(self) -> list[Any]:
        """Those set as attributes: what an inner model was compiled with is its own affair."""
        found = [p for p in self._parts() if isinstance(p, Tracked) and p.is_metric]
        return _unique(found + [m for layer in self._layers for m in layer._metrics_within()])

    @property
    def weights(self) -> list[Variable]:
        """The Variables that files hold: all but the states of random generators."""
        found = self._own_variables()
        return _unique(found + [v for layer in self._layers for v in layer.weights])

    @property
    def variables(self) -> list[Variable]:
        """All Variables: weights and the states of random generators; no metrics."""
        found = self._own_variables()
        found += [p.state for p in self._parts() if isinstance(p, SeedGenerator)]
        return _unique(found + [v for layer in self._layers for v in layer.variables])

    @property
    def trainable_variables(self) -> list[Variable]:
        """The Variables that training changes; none where `trainable` is False."""
        if not self.trainable:
            return []
        own = [v for v in self._own_variables() if v.trainable]
        return _unique(own + [v for layer in self._layers for v in layer.trainable_variables])

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """The other Variables, states of random generators among them."""
        trainable = set(self.trainable_variables)
        return [v for v in self.variables if v not in trainable]

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that training changes."""
        trainable = set(self.trainable_variables)
        return [v for v in self.weights if v in trainable]

    @trainable_weights.setter
    def trainable_weights(self, variables: list[Variable]) -> None:
        """Names own Variables that training changes, as layers of Keras 1 did."""
        for variable in variables:
            variable.trainable = variable.born_trainable = True
        vars(self).setdefault("_weights", []).extend(variables)

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that training leaves alone."""
        trainable = set(self.trainable_variables)
        return [v for v in self.weights if v not in trainable]

    @non_trainable_weights.setter
    def non_trainable_weights(self, variables: list[Variable]) -> None:
        """Names own Variables that training leaves alone, as layers of Keras 1 did."""
        for variable in variables:
            variable.trainable = variable.born_trainable = False
        vars(self).setdefault("_weights", []).extend(variables)

    @property
    def _trainable_weights(self) -> list[Variable]:
        """Keras 2's list of own Variables, to which layers of users append."""
        return vars(self).setdefault("_weights", [])

    def need_built(self, what: str) -> None:
        """Raises StateError where there are no weights yet."""
        if not vars(self).get("built", True):
            raise StateError(
                f"{what} of {type(self).__name__} '{getattr(self, 'name', '')}', which is not built",
                expected="weights, which it has when the size of its input is known",
                fix="call it once on data, or build(input_shape)",
            )

    def count_params(self) -> int:
        """Returns the number of entries of all weights."""
        self.need_built("count_params")
        return sum(v.size for v in self.weights)

    def get_weights(self) -> list[np.ndarray]:
        """Returns copies of the weights, in Keras's order."""
        self.need_built("get_weights")
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: list[Any]) -> None:
        """Sets the weights from arrays in the order of `get_weights()`."""
        self.need_built("set_weights")
        variables = self.weights
        who = f"set_weights of {type(self).__name__} '{getattr(self, 'name', '')}'"
        if len(weights) != len(variables):
            raise ShapeError(
                who, received=f"{len(weights)} arrays", expected=f"{len(variables)} arrays"
            )
        for variable, value in zip(variables, weights, strict=True):
            if np.shape(value) != variable.shape:
                raise ShapeError(
                    f"{who}: '{variable.path}'",
                    received=f"shape {np.shape(value)}",
                    expected=f"shape {variable.shape}",
                )
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)


_MEMBERS = (Variable, Tracked, SeedGenerator)


def _members(value: Any) -> Iterator[Any]:
    if isinstance(value, _MEMBERS):
        yield value
    elif isinstance(value, list | tuple):
        for v in value:
            yield from _members(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _members(v)


def _unique(items: list[Any]) -> list[Any]:
    return list({id(i): i for i in items}.values())
