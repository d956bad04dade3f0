"""Where optimizers keep their state: a flat list of Variables, named and ordered as in Keras.

A training step passes and donates it as it does the weights.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError, DataError
from alphorn.fields import Configurable
from alphorn.naming import resolve


class State(Configurable):
    """Makes, lists and sets an optimizer's Variables."""

    def __init__(self, name: str):
        self.name = name
        self.built = False
        self._variables: list[Variable] = []
        self._index: dict[Variable, int] = {}

    @property
    def variables(self) -> list[Variable]:
        """All state, in Keras's order: step, learning rate, then in order of birth."""
        own = [v for v in vars(self).values() if isinstance(v, Variable)]
        return list(dict.fromkeys([*self._variables, *own]))

    def _get_variable_index(self, variable: Variable) -> int:
        return self._index[variable]

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> Variable:
        """Makes a Variable of the optimizer's state."""
        variable = Variable(
            resolve("initializers", initializer),
            tuple(shape),
            dtype,
            trainable=False,
            autocast=False,
            aggregation=aggregation,
            name=name,
            layout=layout,
        )
        variable.path = f"{self.name}/{variable.name}"
        self._variables.append(variable)
        return variable

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """Makes a Variable of the state in the shape and type of a weight."""
        name = f"{reference_variable.path.replace('/', '_')}_{name or 'var'}"
        shape, dtype = reference_variable.shape, reference_variable.dtype
        layout = reference_variable.layout
        variable = self.add_variable(shape, initializer, dtype, name=name, layout=layout)
        variable.follows = reference_variable
        return variable

    def add_optimizer_variables(
        self, trainable_variables: Iterable[Variable], name: Any, initializer: Any = "zeros"
    ) -> Any:
        """Makes Variables like the weights.

        Args:
            trainable_variables: The weights.
            name: One name, or a list of them.
            initializer: One, or one for each name.

        Returns:
            A list with a Variable for each weight, None for those that are overwritten by their
            gradients; for a list of names a tuple of such lists.
        """
        names = [name] if isinstance(name, str) else list(name)
        several = isinstance(initializer, list | tuple)
        values = list(initializer) if several else [initializer] * len(names)
        if len(values) != len(names):
            raise ArgumentError(
                f"{self.name}.add_optimizer_variables",
                f"{len(values)} initializers",
                f"one for each of {names}",
            )
        rows = [
            [
                None
                if variable.overwrite_with_gradient
                else self.add_variable_from_reference(variable, n, value)
                for n, value in zip(names, values, strict=True)
            ]
            for variable in trainable_variables
        ]
        columns = tuple([row[i] for row in rows] for i in range(len(names)))
        return columns[0] if isinstance(name, str) else columns

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets the state, in the order of `variables`."""
        if len(weights) != len(self.variables):
            raise DataError(
                f"{self.name}.set_weights",
                f"{len(weights)} arrays",
                f"{len(self.variables)}, as many as there are variables",
                "" if self.built else "build the optimizer first",
            )
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def assign(self, variable: Variable, value: Any) -> None:
        """Sets a Variable."""
        variable.assign(value)

    def assign_add(self, variable: Variable, value: Any) -> None:
        """Adds to a Variable."""
        variable.assign_add(value)

    def assign_sub(self, variable: Variable, value: Any) -> None:
        """Subtracts from a Variable."""
        variable.assign_sub(value)
