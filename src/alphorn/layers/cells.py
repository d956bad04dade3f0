"""Recurrent cells: one step of a recurrence."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn import activations
from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.core.layer import Family, Layer
from alphorn.core.random import SeedGenerator
from alphorn.core.rules import preserve
from alphorn.errors import ArgumentError, ShapeError
from alphorn.initializers import AsInitializer
from alphorn.kernels import cells, gates
from alphorn.kernels.gates import Options
from alphorn.kernels.loops import Weights
from alphorn.layers.core import _HoldsLayers
from alphorn.regularizers import AsRegularizer

__all__ = ["GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"]

# The kernels' own forms of activations whose derivatives they know.
_PLAIN = {
    activations.tanh: jnp.tanh,
    activations.sigmoid: jax.nn.sigmoid,
    activations.relu: jax.nn.relu,
    activations.linear: None,
}
Masks = tuple[Array | None, Array | None]
_drawn: contextvars.ContextVar[dict[int, Masks]] = contextvars.ContextVar("drawn")


class _Cell(Family):
    """What the three cells share: weights, dropout, first states."""

    masking = preserve
    states: ClassVar[int] = 1

    def after_init(self) -> None:
        """Checks sizes and rates."""
        if isinstance(self.units, bool) or int(self.units) != self.units or self.units < 1:
            raise ArgumentError(f"{type(self).__name__}: units", repr(self.units), "an integer > 0")
        for name in ("dropout", "recurrent_dropout"):
            setattr(self, name, min(1.0, max(0.0, getattr(self, name))))
        self.seed_generator = SeedGenerator(self.seed)

    @property
    def state_size(self) -> Any:
        """The size of the state, a list where there are several."""
        return self.units if self.states == 1 else [self.units] * self.states

    @property
    def output_size(self) -> int:
        """The size of the output."""
        return self.units

    def build(self, input_shape: Any) -> None:
        """Makes kernels and bias."""
        if input_shape[-1] is None:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}': the number of features is unknown",
                received=f"shape {tuple(input_shape)}",
                expected="(batch, time, features) with known features",
            )
        width = self.gates * self.units
        self.kernel = self.add_field_weight("kernel", (input_shape[-1], width))
        self.recurrent_kernel = self.add_field_weight(
            "recurrent_kernel", (self.units, width), fields="recurrent"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_field_weight(
                "bias", self.bias_shape(), initializer=self.first_bias
            )

    def bias_shape(self) -> tuple[int, ...]:
        """Returns the shape of the bias."""
        return (self.gates * self.units,)

    def first_bias(self, shape: Any, dtype: Any = None) -> Array:
        """Returns the bias before training."""
        return self.bias_initializer(shape, dtype=dtype)

    def get_initial_state(self, batch_size: int | None = None) -> list[Array]:
        """Returns zeros, `(batch, units)` for each state."""
        zeros = jnp.zeros((1 if batch_size is None else batch_size, self.units), self.compute_dtype)
        return [zeros] * self.states

    def dropout_masks(self, batch: int, dtype: Any, training: bool | None) -> Masks:
        """Draws what the inputs `(batch, features)` and the states `(batch, units)` are times."""

        def draw(rate: float, size: int) -> Array | None:
            if not training or not rate:
                return None
            keep = jax.random.bernoulli(self.seed_generator.next(), 1 - rate, (batch, size))
            return keep.astype(dtype) * jnp.asarray(1 / max(1 - rate, 1e-7), dtype)

        return draw(self.dropout, self.kernel.shape[0]), draw(self.recurrent_dropout, self.units)

    def drawn_masks(self, inputs: Array, training: bool | None) -> Masks:
        """Returns what was drawn for the whole sequence, or draws for one step."""
        masks = _drawn.get({}).get(id(self))
        if masks is None:
            return self.dropout_masks(inputs.shape[0], inputs.dtype, training)
        return masks

    def _own_activations(self) -> dict[str, Any]:
        names = ("activation", "recurrent_activation")
        return {n: getattr(self, n) for n in names if hasattr(self, n)}

    def activations(self) -> dict[str, Callable[[Array], Array] | None]:
        """Returns the activations as the kernels know them, by name."""
        return {n: _PLAIN.get(f, f) for n, f in self._own_activations().items()}

    def runs_fused(self) -> bool:
        """Whether a kernel may run the cell, or JAX must find the gradient of an activation."""
        own = self._own_activations().values()
        return all(activations.acts_by_entry(f) for f in own)

    def run(
        self, x: Array, mask: Array | None, states: list[Array], **options: Unpack[Options]
    ) -> Any:
        """Runs the cell's kernel over `(batch, time, features)`: `(outputs, states)`."""
        raise ArgumentError(f"{type(self).__name__} has no kernel")

    def kernels(self) -> tuple[Array, Array]:
        """Returns the matrices that the inputs and the states are multiplied by."""
        return self.kernel.value, self.recurrent_kernel.value

    def biases(self) -> tuple[Array | None, Array | None]:
        """Returns the biases of the inputs' projection and of the states'."""
        return (None if self.bias is None else self.bias.value), None

    def maths(self) -> cells.Cell:
        """Returns the maths of one step."""
        raise ArgumentError(f"{type(self).__name__} does not say what a step is")

    def call(
        self, inputs: Array, states: Any, training: bool | None = False
    ) -> tuple[Array, list[Array]]:
        """Computes one step: `(output, states)` from `(batch, features)` and states."""
        states = list(states) if isinstance(states, list | tuple) else [states]
        masks = self.drawn_masks(inputs, training)
        inputs = inputs if masks[0] is None else inputs * masks[0]
        return self.step(inputs, states, masks[1])

    def step(self, x: Array, states: list[Array], kept: Array | None) -> tuple[Array, list[Array]]:
        """Computes one step whose state enters the product times `kept`."""
        kernel, recurrent_kernel = self.kernels()
        bias, recurrent_bias = self.biases()
        weights = Weights(kernel, bias, recurrent_kernel, recurrent_bias)
        new, _ = weights.step(self.maths(), weights.projected(x), tuple(states), kept)
        return new[0], list(new)


class SimpleRNNCell(_Cell):
    """One step of `h = activation(x W + h U + b)`.

    Args as in `SimpleRNN`. Called on `(batch, features)` and a list with one state.
    """

    gates = 1
    units: int
    activation: AsActivation = "tanh"
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    recurrent_initializer: AsInitializer = "orthogonal"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    recurrent_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None

    def maths(self) -> cells.Cell:
        """Returns the maths of one step."""
        return cells.simple_cell(**self.activations())

    def run(
        self, x: Array, mask: Array | None, states: list[Array], **options: Unpack[Options]
    ) -> Any:
        """Runs the cell's kernel over `(batch, time, features)`: `(outputs, states)`."""
        weights = (*self.kernels(), self.biases()[0])
        return gates.simple_rnn(x, mask, states[0], *weights, **self.activations(), **options)


class LSTMCell(_Cell):
    """One step of an LSTM (Hochreiter and Schmidhuber, 1997).

    Args as in `LSTM`. Called on `(batch, features)` and the states `[h, c]`.
    """

    gates = 4
    states = 2
    before_forget = 1  # gates whose bias stands before the one that may begin with ones
    units: int
    activation: AsActivation = "tanh"
    recurrent_activation: AsActivation = "sigmoid"
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    recurrent_initializer: AsInitializer = "orthogonal"
    bias_initializer: AsInitializer = "zeros"
    unit_forget_bias: bool = True
    kernel_regularizer: AsRegularizer = None
    recurrent_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None

    def first_bias(self, shape: Any, dtype: Any = None) -> Array:
        """Returns the initializer's values, with ones for the forget gate."""
        if not self.unit_forget_bias:
            return self.bias_initializer(shape, dtype=dtype)
        return bias_of_gates(self.bias_initializer, self.units, dtype, self.before_forget)

    def maths(self) -> cells.Cell:
        """Returns the maths of one step."""
        return cells.lstm_cell(**self.activations())

    def run(
        self, x: Array, mask: Array | None, states: list[Array], **options: Unpack[Options]
    ) -> Any:
        """Runs the cell's kernel over `(batch, time, features)`: `(outputs, states)`."""
        weights = (*self.kernels(), self.biases()[0])
        hidden, carry = states
        return gates.lstm(x, mask, hidden, carry, *weights, **self.activations(), **options)


class GRUCell(_Cell):
    """One step of a GRU (Cho et al., 2014; with `reset_after`, as cuDNN has it).

    Args as in `GRU`. Called on `(batch, features)` and a list with one state.
    """

    gates = 3
    units: int
    activation: AsActivation = "tanh"
    recurrent_activation: AsActivation = "sigmoid"
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    recurrent_initializer: AsInitializer = "orthogonal"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    recurrent_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    reset_after: bool = True
    seed: Any = None

    def bias_shape(self) -> tuple[int, ...]:
        """Returns `(2, 3 units)` with `reset_after`: both products have one."""
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def biases(self) -> tuple[Array | None, Array | None]:
        """Returns the biases of the inputs' projection and of the states'."""
        if self.bias is None or not self.reset_after:
            return super().biases()
        return self.bias.value[0], self.bias.value[1]

    def maths(self) -> cells.Cell:
        """Returns the maths of one step."""
        made = cells.gru_cell if self.reset_after else cells.gru_reset_first_cell
        return made(**self.activations())

    def run(
        self, x: Array, mask: Array | None, states: list[Array], **options: Unpack[Options]
    ) -> Any:
        """Runs the cell's kernel over `(batch, time, features)`: `(outputs, states)`."""
        bias, recurrent_bias = self.biases()
        if bias is not None and recurrent_bias is not None:
            bias = jnp.stack([bias, recurrent_bias])
        weights = (*self.kernels(), bias)
        return gates.gru(
            x,
            mask,
            states[0],
            *weights,
            **self.activations(),
            reset_after=self.reset_after,
            **options,
        )


def bias_of_gates(
    initializer: Callable[..., Array], units: int, dtype: Any, before: int = 1
) -> Array:
    """Returns an LSTM's first bias, with ones for the forget gate, `before` gates and before two.

    It is joined on the host: `jnp.concatenate` compiles a program for each size.
    """
    parts = [
        initializer((before * units,), dtype=dtype),
        np.ones(units, dtype),
        initializer((2 * units,), dtype=dtype),
    ]
    return jax.device_put(np.concatenate([np.asarray(part) for part in parts]))


def _build(cell: Any, input_shape: Any) -> None:
    if isinstance(cell, Layer) and not cell.built:
        cell.build(input_shape)


class StackedRNNCells(_HoldsLayers):
    """Several cells as one: each takes the output of the one before.

    Args:
        cells: With `call`, `state_size` and, where they have it, `output_size`.

    Its state is a list with a tuple for each cell, its states.
    """

    masking = preserve
    cells: Any

    def after_init(self) -> None:
        """Checks the cells."""
        for cell in self.cells:
            if not hasattr(cell, "call") or not hasattr(cell, "state_size"):
                raise ArgumentError(
                    "StackedRNNCells: cells", repr(cell), "cells, with call and state_size"
                )

    @property
    def state_size(self) -> list[Any]:
        """The state sizes of the cells."""
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> Any:
        """The output size of the last cell."""
        last = self.cells[-1]
        size = getattr(last, "output_size", None)
        return size if size is not None else _first(last.state_size)

    def build(self, input_shape: Any) -> None:
        """Builds each cell on the output of the one before."""
        for cell in self.cells:
            _build(cell, input_shape)
            size = getattr(cell, "output_size", None) or _first(cell.state_size)
            input_shape = (input_shape[0], *((size,) if isinstance(size, int) else size))

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        """Returns the first states of the cells."""
        return [tuple(first_state(c, batch_size, self.compute_dtype)) for c in self.cells]

    def call(
        self, inputs: Any, states: Any, training: bool | None = False
    ) -> tuple[Any, list[Any]]:
        """Computes one step of all cells."""
        new = []
        for cell, state in zip(self.cells, states, strict=True):
            state = state if isinstance(state, list | tuple) else (state,)
            inputs, after = call_cell(cell, inputs, list(state), training)
            new.append(tuple(after))
        return inputs, new


def _first(size: Any) -> Any:
    return size[0] if isinstance(size, list | tuple) else size


def first_state(cell: Any, batch_size: int | None, dtype: Any) -> list[Any]:
    """Returns the first states of any cell: its own, or zeros of its `state_size`."""
    if hasattr(cell, "get_initial_state"):
        state = cell.get_initial_state(batch_size=batch_size)
        return list(state) if isinstance(state, list | tuple) else [state]
    sizes = cell.state_size if isinstance(cell.state_size, list | tuple) else [cell.state_size]
    shapes = [(s,) if isinstance(s, int) else tuple(s) for s in sizes]
    rows = 1 if batch_size is None else batch_size
    return [jnp.zeros((rows, *shape), dtype) for shape in shapes]


def call_cell(cell: Any, x: Any, states: list[Any], training: bool | None) -> tuple[Any, list]:
    """Calls any cell on one step: `(output, states as a list)`."""
    options = {}
    if isinstance(cell, Layer) and cell._spec.has_training:
        options["training"] = training
    output, new = cell(x, states, **options)
    return output, list(new) if isinstance(new, list | tuple) else [new]


def _parts(cell: Any) -> Iterator[Any]:
    if isinstance(cell, StackedRNNCells):
        for part in cell.cells:
            yield from _parts(part)
    else:
        yield cell


@contextlib.contextmanager
def dropout_drawn(cell: Any, batch: int, training: bool | None) -> Iterator[None]:
    """Built-in cells drop the same entries at every step while the context lasts."""
    found = {
        id(c): c.dropout_masks(batch, c.compute_dtype, training)
        for c in _parts(cell)
        if isinstance(c, _Cell)
    }
    token = _drawn.set(_drawn.get({}) | found)
    try:
        yield
    finally:
        _drawn.reset(token)
