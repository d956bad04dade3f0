"""Layers around layers: TimeDistributed and Bidirectional."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.core.context import training_phase
from alphorn.core.layer import Layer
from alphorn.core.masked import Masked, fill_masked, is_masked, mask_of, unmask
from alphorn.core.rules import Call, choose, collect_births, first_mask, nest, report_birth
from alphorn.errors import ArgumentError, ShapeError
from alphorn.kernels.stepping import reverse_by_extent
from alphorn.layers.core import _HoldsLayers
from alphorn.layers.recurrent import step_mask
from alphorn.naming import deserialize, serialize

__all__ = ["Bidirectional", "TimeDistributed", "Wrapper"]


class Wrapper(_HoldsLayers):
    """A layer that holds another, `self.layer`."""

    layer: Any

    def after_init(self) -> None:
        """Checks the inner layer."""
        if not isinstance(self.layer, Layer):
            raise ArgumentError(
                f"{type(self).__name__}: layer", received=repr(self.layer), expected="a layer"
            )


class TimeDistributed(Wrapper):
    """Applies a layer or a model to every step.

    Args:
        layer: Takes one step: `(batch, ...)`.

    Takes `(batch, time, ...)`, returns `(batch, time, ...)`. What remains of a nested mask goes to
    the inner layer; a step is valid where any of its inner steps is, also where that mask is born
    inside (a sentence model that begins with `Embedding(mask_zero=True)`).

    >>> from alphorn.layers.dense import Dense
    >>> TimeDistributed(Dense(2))(jnp.ones((1, 3, 4))).shape
    (1, 3, 2)
    """

    masking = nest
    layer: Any

    def build(self, input_shape: Any) -> None:
        """Builds the inner layer on one step."""
        if len(input_shape) < 2:
            raise ShapeError(
                f"TimeDistributed '{self.name}'",
                received=f"shape {tuple(input_shape)}",
                expected="(batch, time, ...)",
            )
        if not self.layer.built and _builds_by_shape(self.layer):
            self.layer.build((input_shape[0], *input_shape[2:]))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Returns the inner layer's outputs, step by step."""
        inputs = _with(inputs, mask)
        data, known = unmask(inputs), mask_of(inputs)
        batch, time = data.shape[:2]
        if known is not None and known.ndim == 1:
            known = jnp.broadcast_to(known[:, None], (batch, time))
        folded = data.reshape(batch * time, *data.shape[2:])
        inner = folded
        if known is not None:
            inner = Masked.trusted(folded, known.reshape(batch * time, *known.shape[2:]))
        with collect_births(folded) as born, training_phase(training):
            outputs = self.layer(inner)
        steps = None if known is None else known.any(tuple(range(2, known.ndim)))
        for mask in born.masks:
            # A wrapper around this one folds time away as well.
            report_birth(data, mask.reshape(batch, time, *mask.shape[1:]))
            alive = mask.any(tuple(range(1, mask.ndim))).reshape(batch, time)
            steps = alive if steps is None else steps & alive

        def unfold(out: Any) -> Any:
            values, inside = unmask(out), mask_of(out)
            values = values.reshape(batch, time, *values.shape[1:])
            if steps is None:
                if inside is None or inside.ndim == 1:
                    return values
                return Masked.trusted(values, inside.reshape(batch, time, *inside.shape[1:]))
            if inside is None or inside.ndim == 1:
                return Masked.trusted(fill_masked(values, steps), steps)
            whole = inside.reshape(batch, time, *inside.shape[1:]) & steps[..., None]
            return Masked.trusted(fill_masked(values, steps), whole)

        return jax.tree.map(unfold, outputs, is_leaf=is_masked)


def _builds_by_shape(layer: Layer) -> bool:
    return type(layer).build is not Layer.build


def _with(inputs: Any, mask: Any) -> Any:
    if mask is None or isinstance(inputs, Masked):
        return inputs
    return Masked(inputs, jnp.asarray(mask).astype(bool))


def _goes_back(layer: Any) -> bool:
    return layer.go_backwards


class Bidirectional(_HoldsLayers):
    """Runs a recurrent layer from both ends of each row and joins what comes out.

    Args:
        layer: A recurrent layer.
        merge_mode: "concat", "sum", "mul", "ave", or None for a list of both.
        weights: First weights.
        backward_layer: Another layer for the way back; by default one like `layer`.

    Takes `(batch, time, features)`. The way back begins at each row's last valid step, and its
    outputs stand again at the steps that they belong to.
    """

    masking = choose

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: list[Any] | None = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ):
        if not isinstance(layer, Layer) or not hasattr(layer, "go_backwards"):
            raise ArgumentError(
                "Bidirectional: layer", repr(layer), "a recurrent layer: LSTM, GRU, RNN, ..."
            )
        if merge_mode not in ("sum", "mul", "ave", "concat", None):
            raise ArgumentError(
                "Bidirectional: merge_mode",
                received=repr(merge_mode),
                expected="'concat', 'sum', 'mul', 'ave' or None",
            )
        super().__init__(weights=weights, **kwargs)
        self.layer = layer
        self.merge_mode = merge_mode
        config = serialize(layer)
        config["config"]["name"] = f"forward_{layer.name.removeprefix('forward_')}"
        self.forward_layer = self._again(layer, config)
        if backward_layer is None:
            config["config"]["name"] = f"backward_{layer.name.removeprefix('forward_')}"
            config["config"]["go_backwards"] = not _goes_back(layer)
            self.backward_layer: Any = self._again(layer, config)
        else:
            self.backward_layer = backward_layer
            for name in ("stateful", "return_sequences", "return_state"):
                if getattr(backward_layer, name) != getattr(layer, name):
                    raise ArgumentError(
                        f"Bidirectional: backward_layer.{name}",
                        received=getattr(backward_layer, name),
                        expected=f"{getattr(layer, name)}, as in the forward layer",
                    )
            if _goes_back(backward_layer) == _goes_back(layer):
                raise ArgumentError(
                    "Bidirectional: both layers run in one direction",
                    received=f"go_backwards={_goes_back(layer)} twice",
                    expected="go_backwards=True in one of them",
                )
        self._given_backward = backward_layer is not None

    untracked = Layer.untracked | {"layer"}

    @staticmethod
    def _again(layer: Layer, config: dict[str, Any]) -> Any:
        own = {type(m).__name__: type(m) for m in layer._family() if m.user_defined}
        return type(layer).from_config(deserialize(config["config"], custom_objects=own))

    @property
    def return_sequences(self) -> bool:
        """Whether all outputs are returned."""
        return self.forward_layer.return_sequences

    @property
    def return_state(self) -> bool:
        """Whether the last states follow the output."""
        return self.forward_layer.return_state

    @property
    def stateful(self) -> bool:
        """Whether states are kept between batches."""
        return self.forward_layer.stateful

    def reset_state(self) -> None:
        """Sets kept states to zero."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    reset_states = reset_state

    def get_config(self) -> dict[str, Any]:
        """Returns the inner layers and the merge mode."""
        config = self.base_config() | {"merge_mode": self.merge_mode}
        config["layer"] = serialize(self.forward_layer)
        if self._given_backward:
            config["backward_layer"] = serialize(self.backward_layer)
        return config

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Builds both layers."""
        for layer in (self.forward_layer, self.backward_layer):
            if not layer.built:
                layer.build(sequences_shape)

    def chosen_mask(self, call: Call) -> Any:
        """The mask stays where all outputs are returned."""
        mask = step_mask(first_mask(call.masks))
        if not self.return_sequences or mask is None:
            return None
        if self.forward_layer.go_backwards:
            mask = reverse_by_extent(mask, mask)
        if self.merge_mode is not None:
            return mask
        return (mask, mask, *(None for _ in call.outputs[2:]))

    def call(
        self, sequences: Array, initial_state: Any = None, mask: Any = None, training: Any = None
    ) -> Any:
        """Returns the joined outputs, then all states where `return_state` is set."""
        states: list[Any] = [None, None]
        if initial_state is not None:
            half = len(initial_state) // 2
            states = [list(initial_state[:half]), list(initial_state[half:])]
        results = []
        for layer, state in zip((self.forward_layer, self.backward_layer), states, strict=True):
            inputs = sequences if mask is None else Masked.trusted(sequences, mask)
            results.append(layer(inputs, initial_state=state, training=training))
        outputs = [unmask(r[0] if self.return_state else r) for r in results]
        if self.return_sequences:
            outputs[1] = reverse_by_extent(outputs[1], step_mask(mask))
        joined = self._join(*outputs)
        if not self.return_state:
            return joined
        after = [*results[0][1:], *results[1][1:]]
        return (*joined, *after) if self.merge_mode is None else (joined, *after)

    def _join(self, forward: Array, backward: Array) -> Any:
        if self.merge_mode == "concat":
            return jnp.concatenate([forward, backward], -1)
        if self.merge_mode == "mul":
            return forward * backward
        if self.merge_mode is None:
            return forward, backward
        total = forward + backward
        return total / 2 if self.merge_mode == "ave" else total
