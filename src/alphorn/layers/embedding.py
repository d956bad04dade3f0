"""Where masks begin: Embedding and Masking."""

import contextvars
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from alphorn.constraints import AsConstraint
from alphorn.core.context import set_context
from alphorn.core.layer import Layer
from alphorn.core.masked import fill_masked
from alphorn.core.rules import create
from alphorn.errors import ArgumentError, ShapeError
from alphorn.initializers import AsInitializer
from alphorn.kernels.embedding import lookup
from alphorn.layers import older
from alphorn.regularizers import AsRegularizer

__all__ = ["Embedding", "Masking"]


_rows: contextvars.ContextVar[Mapping[Any, Array]] = contextvars.ContextVar(
    "rows", default=MappingProxyType({})
)


def tables_hold(rows: Mapping[Any, Array]) -> AbstractContextManager[None]:
    """Returns a context in which tables hold some of their rows only.

    Args:
        rows: By table's Variable, the numbers of the rows that its value then has, sorted.
    """
    return set_context(_rows, rows)


class Embedding(Layer):
    """Turns ids into vectors.

    Args:
        input_dim: Number of ids: the largest id + 1.
        output_dim: Size of a vector.
        embeddings_initializer, embeddings_regularizer, embeddings_constraint: Of the table.
        mask_zero: Whether id 0 is padding, and gives a mask.
        weights: First weights: `[table]`.

    Takes integers `(batch, time)`, returns `(batch, time, output_dim)`, masked where `mask_zero`
    or the input's own mask says so.

    Raises:
        ArgumentError: ids beyond `input_dim`, or that are no integers.

    >>> Embedding(5, 2, mask_zero=True)(jnp.array([[3, 1, 0]])).lengths
    Array([2], dtype=int32)
    """

    input_dim: int
    output_dim: int
    embeddings_initializer: AsInitializer = "uniform"
    embeddings_regularizer: AsRegularizer = None
    embeddings_constraint: AsConstraint = None
    mask_zero: bool = False

    masking = create
    default_input_dtype = "int32"
    old_names = older.EMBEDDING

    # Keras 2's number of steps, with which a Sequential begins; other lengths work as well.
    input_length: ClassVar[Any] = None

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Takes the names of early Keras."""
        super().convert_arguments(kwargs)
        vars(self)["input_length"] = kwargs.get("input_length")
        if kwargs.get("dropout"):
            raise ArgumentError(
                "Embedding: dropout",
                received=repr(kwargs["dropout"]),
                expected="no dropout here, as in Keras 2",
                fix="layers.SpatialDropout1D(rate) behind it",
            )
        kwargs.pop("dropout", None)

    def after_init(self) -> None:
        """Checks the sizes."""
        for name in ("input_dim", "output_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ArgumentError(
                    f"Embedding '{self.name}': {name}", repr(value), "an integer > 0"
                )
        self.autocast = False

    def build(self, input_shape: Any = None) -> None:
        """Makes the table."""
        self.embeddings = self.add_field_weight(
            "embeddings", (self.input_dim, self.output_dim), autocast=False
        )

    def created_mask(self, inputs: Array, outputs: Array) -> Array | None:
        """Valid where the id is not 0."""
        return inputs != 0 if self.mask_zero else None

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the vectors."""
        if not isinstance(inputs, Tracer):
            self.check_ids(np.asarray(inputs), mask)
        ids = inputs if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs.astype(jnp.int32)
        if self.mask_zero:
            mask = ids != 0 if mask is None else (ids != 0) & _spread(mask, ids)
        rows = _rows.get().get(self.embeddings)
        if rows is not None:
            ids = _places(rows, fill_masked(ids, mask))
        return lookup(self.embeddings.value, ids, mask=mask, dtype=self.compute_dtype)

    def check_ids(self, ids: np.ndarray, mask: Any = None) -> None:
        """Raises ArgumentError for ids outside the table; those of masked steps may be anything."""
        if mask is not None:
            ids = np.where(_spread(np.asarray(mask), ids), ids, 0)
        if not ids.size:
            return
        if ids.dtype.kind == "f" and not np.array_equal(ids, np.trunc(ids)):
            raise ArgumentError(
                f"Embedding '{self.name}'",
                received=f"floats such as {ids[ids != np.trunc(ids)][0]}",
                expected="integer ids",
                fix="vectors need no Embedding: feed them to the next layer, with Masking if padded",
            )
        if ids.max() >= self.input_dim or ids.min() < 0:
            worst = ids.max() if ids.max() >= self.input_dim else ids.min()
            raise ArgumentError(
                f"Embedding '{self.name}': an id outside the table",
                received=f"id {int(worst)}",
                expected=f"0 <= id < input_dim = {self.input_dim}",
                fix=f"input_dim must be the largest id + 1: {int(ids.max()) + 1}",
            )


def _places(rows: Array, ids: Array) -> Array:
    """Returns where ids stand among sorted rows; behind all of them for an id that is not there."""
    at = jnp.searchsorted(rows, ids)
    return jnp.where(rows.at[at].get(mode="clip") == ids, at, len(rows))


def _spread(mask: Any, ids: Any) -> Any:
    return mask.reshape(mask.shape + (1,) * (ids.ndim - mask.ndim))


class Masking(Layer):
    """Masks the steps at which every feature equals `mask_value`.

    Args:
        mask_value: What padding is filled with.

    Takes `(batch, time, features)`, returns it with zeros at masked steps, and the mask.

    >>> Masking()(jnp.array([[[1.0], [0.0]]])).mask
    Array([[ True, False]], dtype=bool)
    """

    mask_value: Any = 0.0

    masking = create

    def build(self, input_shape: Any) -> None:
        """Checks the rank."""
        if len(input_shape) < 3:
            raise ShapeError(
                f"Masking '{self.name}'",
                received=f"shape {tuple(input_shape)}",
                expected="(batch, time, features)",
                fix="for ids use Embedding(mask_zero=True); for one feature add an axis:"
                " x[..., None]",
            )

    def created_mask(self, inputs: Array, outputs: Array) -> Array:
        """Valid where any feature differs."""
        return jnp.any(inputs != jnp.asarray(self.mask_value, inputs.dtype), -1)

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the data, with zeros at masked steps."""
        valid = self.created_mask(inputs, inputs)
        if mask is not None:
            valid = valid & _spread(mask, valid)
        return jnp.where(valid[..., None], inputs, jnp.zeros_like(inputs))
