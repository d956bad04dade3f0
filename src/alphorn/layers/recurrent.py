"""Recurrent layers: a cell over time. Every row runs over its own steps, whatever the padding."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.activations import AsActivation
from alphorn.constraints import AsConstraint
from alphorn.core.input_spec import InputSpec
from alphorn.core.layer import Family, Layer
from alphorn.core.masked import expand_to, extent, fill_masked
from alphorn.core.rules import Call, choose, first_mask
from alphorn.core.scope import only_shapes, shapes_of
from alphorn.core.transforms import functional, lifted_scan
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError, ShapeError, StateError
from alphorn.fields import fields
from alphorn.initializers import AsInitializer
from alphorn.kernels.stepping import reverse_by_extent, scan_cell
from alphorn.layers import older
from alphorn.layers.cells import (
    GRUCell,
    LSTMCell,
    SimpleRNNCell,
    StackedRNNCells,
    _Cell,
    call_cell,
    dropout_drawn,
    first_state,
)
from alphorn.layers.core import _HoldsLayers
from alphorn.regularizers import AsRegularizer

__all__ = ["GRU", "LSTM", "RNN", "SimpleRNN"]


class _Recurrent(Family):
    """What all recurrent layers share: first states, kept states, masks, what is returned."""

    masking = choose

    def chosen_mask(self, call: Call) -> Any:
        """The mask stays where all outputs are returned, turned with them."""
        if not self.return_sequences:
            return None
        mask = step_mask(first_mask(call.masks))
        return mask if mask is None or not self.go_backwards else reverse_by_extent(mask, mask)

    @property
    def weights(self) -> list[Variable]:
        """The Variables that files hold: kept states are not among them."""
        kept = set(self.states or [])
        return [v for v in super().weights if v not in kept]

    def reset_state(self) -> None:
        """Sets kept states to zero."""
        for variable in self.states or []:
            variable.assign(jnp.zeros(variable.shape, variable.dtype))

    reset_states = reset_state

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        """Returns the states before the first step."""
        return first_state(self.cell, batch_size, self.compute_dtype)

    def _keep_states(self, batch: int | None) -> None:
        self.states: list[Variable] | None = None
        if not self.stateful:
            return
        if batch is None:
            raise StateError(
                f"{type(self).__name__} '{self.name}' is stateful and must know the batch size",
                received="batch size None",
                fix="Input(shape, batch_size=...), or batch_shape=...",
            )
        first = jax.tree.leaves(self.get_initial_state(batch))
        self.states = [
            Variable(s, trainable=False, autocast=False, name=f"{self.name}_state") for s in first
        ]

    def _starting_states(self, initial_state: Any, batch: int) -> Any:
        template = self.get_initial_state(batch)
        if initial_state is not None:
            given, wanted = jax.tree.leaves(initial_state), jax.tree.leaves(template)
            if [g.shape for g in given] != [w.shape for w in wanted]:
                raise ShapeError(
                    f"{type(self).__name__} '{self.name}': initial_state",
                    received=f"states of shapes {[tuple(g.shape) for g in given]}",
                    expected=f"states of shapes {[tuple(w.shape) for w in wanted]}",
                )
            return jax.tree.unflatten(jax.tree.structure(template), given)
        if self.states is None:
            return template
        if self.states[0].shape[0] != batch:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}' keeps states between batches",
                received=f"a batch of {batch}",
                expected=f"batches of {self.states[0].shape[0]}, the size it was built with",
            )
        kept = [s.value for s in self.states]
        return jax.tree.unflatten(jax.tree.structure(template), kept)

    def _store_states(self, states: Any) -> None:
        for variable, value in zip(self.states or [], jax.tree.leaves(states), strict=False):
            variable.assign(value)

    def _check(self, shape: Any) -> None:
        if len(shape) != 3:
            raise ShapeError(
                f"{type(self).__name__} '{self.name}'",
                received=f"shape {tuple(shape)}",
                expected="(batch, time, features)",
                fix="add a feature axis: x[..., None]; for documents of sentences use"
                " TimeDistributed",
            )

    def _scan(self, sequence: Any, mask: Any, states: Any, training: bool | None) -> Any:
        def step(x: Any, states: Any) -> tuple[Any, Any]:
            return call_cell(self.cell, x, states, training)

        return self._scan_steps(step, sequence, mask, states, self.zero_output_for_mask)

    def _scan_steps(self, step: Any, x: Any, mask: Any, states: Any, zeros: bool) -> Any:
        """Runs `scan_cell`; what the cell writes at a step (seeds) is carried to the next."""
        variables = self._read_by_steps()
        written = [v for v in variables if not getattr(v, "born_trainable", v.trainable)]

        def run() -> Any:
            return scan_cell(
                step,
                x,
                mask,
                states,
                go_backwards=self.go_backwards,
                zero_output_for_mask=zeros,
                unroll=self.unroll and not only_shapes(),
                scan=functools.partial(lifted_scan, variables=written),
            )

        carried = set(written)
        out, new = functional(run, variables)([v._read() for v in variables])
        for variable, value in zip(variables, new, strict=True):
            if variable in carried:
                variable.assign(value)
        return out

    def _read_by_steps(self) -> list[Variable]:
        """The Variables that a step may read."""
        return self.cell.variables if isinstance(self.cell, Layer) else []

    def _returned(self, sequences: Any, last: Any, states: Any) -> Any:
        output = sequences if self.return_sequences else last
        if not self.return_state:
            return output
        return (output, *states)


def step_mask(mask: Array | None) -> Array | None:
    """Returns the mask of whole steps `(B, T)`: a step is valid where any of its parts is."""
    return mask if mask is None or mask.ndim == 2 else jnp.any(mask, range(2, mask.ndim))


def by_steps(sequence: Any, mask: Array | None) -> tuple[Any, Array | None]:
    """Returns the sequence with zeros for masked parts of steps, and the mask of whole steps."""
    if mask is None or mask.ndim == 2:
        return sequence, mask
    return jax.tree.map(lambda x: fill_masked(x, mask), sequence), step_mask(mask)


def _last(outputs: Any, mask: Array | None) -> Any:
    """The output at the last valid step of each row; zeros for a row without steps."""
    stop = None if mask is None else extent(mask)[1]

    def pick(o: Array) -> Array:
        if not o.shape[1]:
            return jnp.zeros_like(o, shape=(o.shape[0], *o.shape[2:]))
        if stop is None:
            return o[:, -1]
        at = expand_to(jnp.maximum(stop - 1, 0)[:, None], o.ndim)
        return fill_masked(jnp.take_along_axis(o, at, axis=1)[:, 0], stop > 0)

    return jax.tree.map(pick, outputs)


class RNN(_HoldsLayers, _Recurrent):
    """Runs any cell over time.

    Args:
        cell: A layer with `call(inputs, states) -> (output, states)` and `state_size`, or a list
            of such, which are stacked.
        return_sequences: Whether all outputs are returned, `(batch, time, ...)`, or the last.
        return_state: Whether the last states follow the output.
        go_backwards: Whether each row is read from its last valid step to its first.
        stateful: Whether a batch goes on from the states of the one before.
        unroll: Whether the loop is written out.
        zero_output_for_mask: Whether masked steps put out zeros, not the output before.

    Takes `(batch, time, ...)`; with a mask, masked steps repeat state and output.
    """

    cell: Any
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    zero_output_for_mask: bool = False

    def after_init(self) -> None:
        """Stacks cells that came as a list."""
        if isinstance(self.cell, list | tuple):
            self.cell = StackedRNNCells(list(self.cell))
        if not hasattr(self.cell, "call") or not hasattr(self.cell, "state_size"):
            raise ArgumentError(
                "RNN: cell", repr(self.cell), "a layer with call(inputs, states) and state_size"
            )
        self.states = None
        self._inside_built = False

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Builds the cell on one step."""
        if len(sequences_shape) < 3:
            self._check(sequences_shape)
        step_shape = (sequences_shape[0], *sequences_shape[2:])
        if isinstance(self.cell, Layer) and not self.cell.built:
            self.cell.build(step_shape)
        self._keep_states(sequences_shape[0])

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False
    ) -> Any:
        """Runs the cell: the output, then the states where `return_state` is set."""
        batch = jax.tree.leaves(sequences)[0].shape[0]
        states = self._starting_states(initial_state, batch)
        sequences, mask = by_steps(sequences, mask)
        self._build_inside(sequences, states)
        with dropout_drawn(self.cell, batch, training):
            outputs, states = self._scan(sequences, mask, states, training)
        self._store_states(states)
        return self._returned(outputs, _last(outputs, mask), states)

    def _build_inside(self, sequence: Any, states: Any) -> None:
        """Builds layers that a user's cell calls: their weights must be there before the loop."""
        if self._inside_built or not sequence.shape[1]:
            return

        def step(x: Any, states: Any) -> Any:
            return call_cell(self.cell, x, states, False)

        shapes_of(step, sequence[:, 0], states)
        self._inside_built = True


class _Fused(_Recurrent):
    """SimpleRNN, LSTM and GRU: their arguments are the cell's, then the layer's own."""

    cell_class: ClassVar[type[_Cell]]
    old_names = older.RECURRENT

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Takes what older Keras took: `implementation`, `time_major=False`, old names."""
        super().convert_arguments(kwargs)
        kwargs.pop("implementation", None)
        kwargs.pop("consume_less", None)
        if kwargs.pop("time_major", False):
            raise ArgumentError(
                f"{type(self).__name__}: time_major", received="True", expected="(batch, time, ...)"
            )
        self.zero_output_for_mask = bool(kwargs.pop("zero_output_for_mask", False))

    def after_init(self) -> None:
        """Makes the cell."""
        shared = {n: getattr(self, n) for n in fields(self.cell_class) if n in vars(self)}
        self.cell = self.cell_class(
            **shared, dtype=self.dtype_policy, trainable=self.trainable, name=self.cell_name()
        )
        self.seed_generator = self.cell.seed_generator
        self.states = None
        if getattr(self, "use_cudnn", "auto") is True:
            raise ArgumentError(
                f"{type(self).__name__} '{self.name}': use_cudnn",
                received="True, and there is no cuDNN kernel",
                expected="'auto' or False",
            )

    def _read_by_steps(self) -> list[Variable]:
        drawn_before = set(self.cell.seed_generator.variables)
        return [v for v in self.cell.variables if v not in drawn_before]

    def cell_name(self) -> str:
        """Returns the cell's name in paths of weights."""
        return {"SimpleRNNCell": "simple_rnn_cell"}.get(
            self.cell_class.__name__, self.cell_class.__name__[:-4].lower() + "_cell"
        )

    def base_config(self) -> dict[str, Any]:
        """Adds `zero_output_for_mask`."""
        return super().base_config() | {"zero_output_for_mask": self.zero_output_for_mask}

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Builds the cell on one step."""
        self._check(sequences_shape)
        self.input_spec = InputSpec(ndim=3, axes={-1: sequences_shape[2]})
        if not self.cell.built:
            self.cell.build((sequences_shape[0], sequences_shape[2]))
        self._keep_states(sequences_shape[0])

    def call(
        self, sequences: Array, initial_state: Any = None, mask: Any = None, training: Any = False
    ) -> Any:
        """Runs the cell: the output, then the states where `return_state` is set."""
        self._check(sequences.shape)
        cell = self.cell
        if not jnp.issubdtype(sequences.dtype, jnp.floating):
            sequences = sequences.astype(self.compute_dtype)
        sequence, mask = by_steps(sequences, mask)
        states = self._starting_states(initial_state, sequence.shape[0])
        states = [s.astype(sequence.dtype) for s in states]
        # One draw a sequence: the same entries are dropped at every step.
        kept, state_kept = cell.dropout_masks(sequence.shape[0], sequence.dtype, training)
        sequence = sequence if kept is None else sequence * kept[:, None]
        if not self.unroll and cell.runs_fused():
            output, new = cell.run(
                sequence,
                mask,
                states,
                go_backwards=self.go_backwards,
                zero_output_for_mask=self.zero_output_for_mask,
                sequences=self.return_sequences,
                drop=state_kept,
            )
        else:
            steps, new = self._scan_steps(
                lambda x, states: cell.step(x, states, state_kept),
                sequence,
                mask,
                states,
                self.zero_output_for_mask,
            )
            output = steps if self.return_sequences else _last(steps, mask)
        self._store_states(new)
        return (output, *new) if self.return_state else output


class SimpleRNN(_Fused):
    """`h = activation(x W + h U + b)` over time.

    Args:
        units: Size of the state.
        activation: By default tanh.
        use_bias: Whether a bias is added.
        kernel_*, recurrent_*, bias_*: Initializers, regularizers, constraints of the weights.
        activity_regularizer: Penalty on the output.
        dropout: Share of the inputs dropped, one draw a sequence.
        recurrent_dropout: Share of the states dropped, one draw a sequence.
        return_sequences, return_state, go_backwards, stateful, unroll: As in `RNN`.
        seed: Of the dropouts.

    Takes `(batch, time, features)`, returns `(batch, units)` or `(batch, time, units)`.
    """

    cell_class = SimpleRNNCell
    units: int
    activation: AsActivation = "tanh"
    use_bias: bool = True
    kernel_initializer: AsInitializer = "glorot_uniform"
    recurrent_initializer: AsInitializer = "orthogonal"
    bias_initializer: AsInitializer = "zeros"
    kernel_regularizer: AsRegularizer = None
    recurrent_regularizer: AsRegularizer = None
    bias_regularizer: AsRegularizer = None
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    seed: Any = None


class LSTM(_Fused):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997).

    Args:
        units: Size of the state.
        activation, recurrent_activation: Of the cell, and of its gates.
        use_bias: Whether a bias is added.
        unit_forget_bias: Whether the forget gate's bias starts at 1.
        kernel_*, recurrent_*, bias_*: Initializers, regularizers, constraints of the weights.
        activity_regularizer: Penalty on the output.
        dropout, recurrent_dropout: Shares dropped, one draw a sequence.
        seed: Of the dropouts.
        return_sequences, return_state, go_backwards, stateful, unroll: As in `RNN`.
        use_cudnn: "auto" or False.

    Takes `(batch, time, features)`, returns `(batch, units)`, or `(batch, time, units)` with the
    mask of the input.

    >>> LSTM(4)(jnp.ones((2, 3, 5))).shape
    (2, 4)
    """

    cell_class = LSTMCell
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
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    use_cudnn: Any = "auto"


class GRU(_Fused):
    """Gated recurrent unit (Cho et al., 2014).

    Args:
        units: Size of the state.
        activation, recurrent_activation: Of the candidate, and of the gates.
        use_bias: Whether a bias is added.
        kernel_*, recurrent_*, bias_*: Initializers, regularizers, constraints of the weights.
        activity_regularizer: Penalty on the output.
        dropout, recurrent_dropout: Shares dropped, one draw a sequence.
        seed: Of the dropouts.
        return_sequences, return_state, go_backwards, stateful, unroll: As in `RNN`.
        reset_after: Whether the reset gate stands after the product with the state, as in cuDNN.
        use_cudnn: "auto" or False.

    Takes `(batch, time, features)`, returns `(batch, units)`, or `(batch, time, units)` with the
    mask of the input.
    """

    cell_class = GRUCell
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
    activity_regularizer: AsRegularizer = None
    kernel_constraint: AsConstraint = None
    recurrent_constraint: AsConstraint = None
    bias_constraint: AsConstraint = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    reset_after: bool = True
    use_cudnn: Any = "auto"
