"""The symbolic calls of a layer: what it was called on, and what came out."""

from typing import TYPE_CHECKING, Any

import jax

from alphorn.core.symbol import Node, is_symbol
from alphorn.errors import ArgumentError, StateError
from alphorn.fields import attribute


class _OfFirstCall:
    """A property that an attribute set by hand hides: layers of users may use the name."""

    def __init__(self, what: str, shapes: bool):
        self.what, self.shapes = what, shapes
        of = "shape of the" if shapes else ""
        self.__doc__ = f"The {of} symbolic {what} of the first call."

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        return layer._of_call(self.what, 0, self.shapes)


class Calls:
    """What a layer remembers of its calls on Symbols."""

    if TYPE_CHECKING:
        name: str = attribute()
        inbound_nodes: list[Node] = attribute()

    input: Any = _OfFirstCall("input", shapes=False)
    output: Any = _OfFirstCall("output", shapes=False)
    input_shape: Any = _OfFirstCall("input", shapes=True)
    output_shape: Any = _OfFirstCall("output", shapes=True)

    def _of_call(self, what: str, index: int, shapes: bool) -> Any:
        nodes = self.inbound_nodes
        if not nodes:
            raise StateError(
                f"{type(self).__name__} '{self.name}' has no symbolic input or output",
                fix="call it on an Input first",
            )
        if not -len(nodes) <= index < len(nodes):
            raise ArgumentError(
                f"{type(self).__name__} '{self.name}': get_{what}_at",
                received=f"call {index}",
                expected=f"one of its {len(nodes)} calls on Symbols, counted from 0",
            )
        node = nodes[index]
        if what == "output":
            found = node.outputs
        elif node.args:
            found = node.args[0]
        else:
            found = node.inputs[0] if node.inputs else node.outputs
        return jax.tree.map(lambda s: s.shape, found, is_leaf=is_symbol) if shapes else found

    def get_input_at(self, node_index: int) -> Any:
        """Returns what the layer was called on at a call on Symbols, counted from 0."""
        return self._of_call("input", node_index, shapes=False)

    def get_output_at(self, node_index: int) -> Any:
        """Returns what came out of a call on Symbols, counted from 0."""
        return self._of_call("output", node_index, shapes=False)

    def get_input_shape_at(self, node_index: int) -> Any:
        """Returns the shape of `get_input_at`."""
        return self._of_call("input", node_index, shapes=True)

    def get_output_shape_at(self, node_index: int) -> Any:
        """Returns the shape of `get_output_at`."""
        return self._of_call("output", node_index, shapes=True)

    def add_update(self, updates: Any) -> None:
        """Assigns new values, `(variable, value)` or a list of such, at once.

        Keras 2 gathered them for after the step; here state is written where it changes.
        """
        pairs = [updates] if isinstance(updates, tuple) else updates
        for pair in pairs:
            if isinstance(pair, tuple):  # what K.update returns has been assigned already
                variable, value = pair
                variable.assign(value)
