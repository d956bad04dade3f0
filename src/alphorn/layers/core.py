"""Where a graph begins."""

from collections.abc import Sequence
from typing import Any, Self

from alphorn.core.layer import Layer
from alphorn.core.rules import preserve
from alphorn.core.symbol import Node, Symbol
from alphorn.errors import ArgumentError
from alphorn.naming import custom_object_scope

__all__ = ["Identity", "Input", "InputLayer"]


class _HoldsLayers(Layer):
    """Layers that hold layers, which may be a user's own."""

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Self:
        """Makes a layer from `get_config()`.

        Args:
            config: What that returned.
            custom_objects: Classes of your own by name, for the layers inside.
        """
        with custom_object_scope(custom_objects):
            return super().from_config(config)


class InputLayer(Layer):
    """A place where data come in; `Input(...)` makes it and returns its Symbol.

    Args:
        shape: Without the batch axis; None for sizes that vary, e.g. `(None,)` for sequences.
        batch_size: None for any.
        dtype: By default `floatx()`.
        sparse, ragged: Accepted as False: lists of unequal sequences go into `fit` as they are.
        batch_shape: Shape with the batch axis, instead of `shape` and `batch_size`.
        input_tensor: A Symbol whose shape and type to take.
        optional: Whether None may come instead of data.
        name: By default `input_layer`, ...
    """

    masking = preserve

    def __init__(
        self,
        shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Sequence[int | None] | None = None,
        input_tensor: Symbol | None = None,
        optional: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        for flag, value in (("sparse", sparse), ("ragged", ragged)):
            if value:
                raise ArgumentError(
                    f"Input: {flag}",
                    received=repr(value),
                    expected="dense data",
                    fix="give lists of unequal sequences to fit as they are: they get a mask",
                )
        if input_tensor is not None:
            batch_shape, dtype = input_tensor.shape, dtype or input_tensor.dtype
        if batch_shape is None:
            batch_shape = (batch_size, *_checked(shape))
        self.batch_shape = tuple(batch_shape)
        self.optional = bool(optional)
        self.sparse = self.ragged = False
        self.built = True
        symbol = Symbol(self.batch_shape, dtype, name=self.name)
        self.input_dtype = symbol.dtype
        self.inbound_nodes.append(Node(self, (), {}, symbol))

    def call(self) -> Symbol:
        """Returns the Symbol."""
        return self.output

    def get_config(self) -> dict[str, Any]:
        """Returns shape, type and name."""
        return {
            "batch_shape": self.batch_shape,
            "dtype": self.input_dtype,
            "sparse": False,
            "ragged": False,
            "name": self.name,
            "optional": self.optional,
        }


def _checked(shape: Any) -> tuple[int | None, ...]:
    if shape is None:
        raise ArgumentError("Input", received="no shape", expected="Input(shape=(...))")
    if isinstance(shape, int):
        raise ArgumentError(
            "Input: shape", received=repr(shape), expected="a tuple", fix=f"Input(({shape},))"
        )
    if any(s is not None and int(s) < 0 for s in shape):
        raise ArgumentError(
            "Input: shape", received=repr(tuple(shape)), expected="sizes, or None for any"
        )
    return tuple(shape)


def Input(
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    tensor: Symbol | None = None,
    optional: bool = False,
) -> Symbol:
    """Returns a Symbol with which a functional model begins.

    Args:
        shape: Without the batch axis; None for sizes that vary: `(None,)` for sequences of ids,
            `(None, features)` for sequences of vectors.
        batch_size: None for any.
        dtype: By default `floatx()`; "int32" for ids.
        sparse, ragged: As in `InputLayer`.
        batch_shape: Shape with the batch axis.
        name: Of the input, for dicts of inputs.
        tensor: A Symbol to take shape and type from.
        optional: Whether None may come.

    >>> Input((None, 8))
    <Symbol shape=(None, None, 8), dtype=float32>
    """
    layer = InputLayer(
        shape, batch_size, dtype, sparse, ragged, batch_shape, tensor, optional, name
    )
    return layer.output


class Identity(Layer):
    """Returns its input."""

    masking = preserve

    def call(self, inputs: Any) -> Any:
        """Returns `inputs`."""
        return inputs
