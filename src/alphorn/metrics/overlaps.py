"""IoU and its kin: how much of a class's region is found, from a table of true and predicted."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.core.masked import expand_to, fill_masked, mask_of, unmask, with_mask
from alphorn.core.variable import unwrap
from alphorn.errors import ArgumentError, ShapeError
from alphorn.losses.pairs import cut_mask, weights_for
from alphorn.metrics.base import Metric

__all__ = ["BinaryIoU", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU"]

_TINY = 1e-7


def _class_numbers(x: Any, axis: int | None) -> tuple[Array, Array | None]:
    """Returns class numbers, of one-hot rows or scores along `axis`, and which are valid."""
    data, mask = jnp.asarray(unmask(unwrap(x))), mask_of(x)
    if axis is None:
        return fill_masked(data, mask).astype(jnp.int32), mask
    axis = axis % data.ndim
    if mask is not None and mask.ndim > axis:
        data = jnp.where(expand_to(mask, data.ndim), data.astype(jnp.float32), -jnp.inf)
        mask = mask.any(axis)
    return jnp.argmax(data, axis), mask


class IoU(Metric):
    """Intersection over union of some classes, the mean: `tp / (tp + fp + fn)`.

    Args:
        num_classes: How many there are.
        target_class_ids: Those that are looked at.
        name, dtype: As for all metrics.
        ignore_class: Entries of this class do not count.
        sparse_y_true: Whether targets are class numbers, and not one-hot.
        sparse_y_pred: Whether predictions are class numbers, and not scores of classes.
        axis: That of the classes, where they have one.

    Weights count as they are, also with an integer `dtype`: the table holds floats.

    >>> metric = IoU(2, [0])
    >>> metric([0, 0, 1, 1], [0, 1, 0, 1]).round(3)
    Array(0.333, dtype=float32)
    """

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ):
        super().__init__(dtype or "int32", name)
        if not all(0 <= c < num_classes for c in target_class_ids):
            raise ArgumentError(
                f"{type(self).__name__}: target_class_ids",
                repr(list(target_class_ids)),
                f"classes from 0 to {num_classes - 1}",
            )
        self.num_classes = num_classes
        self.target_class_ids = list(target_class_ids)
        self.ignore_class = ignore_class
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        self.axis = axis
        whole = not jnp.issubdtype(jnp.dtype(self.dtype), jnp.floating)
        self.total_cm = self.add_variable(
            (num_classes, num_classes),
            dtype="float32" if whole else self.dtype,
            name="total_confusion_matrix",
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        true, valid = _class_numbers(y_true, None if self.sparse_y_true else self.axis)
        pred, mask = _class_numbers(y_pred, None if self.sparse_y_pred else self.axis)
        if true.ndim == pred.ndim + 1 and true.shape[-1] == 1:
            true = true[..., 0]
        if pred.ndim == true.ndim + 1 and pred.shape[-1] == 1:
            pred = pred[..., 0]
        if true.shape != pred.shape:
            raise ShapeError(
                f"{type(self).__name__}: targets and predictions do not fit together",
                received=f"classes y_true {tuple(true.shape)}, y_pred {tuple(pred.shape)}",
                expected="equal shapes",
                fix="sparse_y_true and sparse_y_pred say which of them are class numbers",
            )
        known = (true >= 0) & (true < self.num_classes) & (pred >= 0) & (pred < self.num_classes)
        if self.ignore_class is not None:
            known &= true != self.ignore_class
        for other in (valid, mask):
            if other is not None:
                known &= expand_to(cut_mask(other, true.ndim), true.ndim)
        dtype = self.total_cm.dtype
        ones = jnp.ones(true.shape, dtype)
        weight = weights_for(ones, known, sample_weight)
        weight = ones if weight is None else weight
        cells = tuple(jnp.where(known, x, 0).reshape(-1) for x in (true, pred))
        self.total_cm.assign_add(
            jnp.zeros(self.total_cm.shape, dtype).at[cells].add(jnp.ravel(weight))
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        config = super().get_config()
        return config | {k: self.target_class_ids for k in ("target_class_ids",) if k in config}

    def result(self) -> Array:
        """Returns the mean over the classes that were seen."""
        table = self.total_cm.value
        both = jnp.diag(table)
        union = (table.sum(0) + table.sum(1) - both)[jnp.array(self.target_class_ids)]
        seen = union > 1e-9
        shares = jnp.where(seen, both[jnp.array(self.target_class_ids)] / (union + _TINY), 0)
        return jnp.sum(shares) / (jnp.sum(seen) + _TINY)


class BinaryIoU(IoU):
    """Intersection over union of yes and no.

    Args:
        target_class_ids: 1 for yes, 0 for no; by default the mean of both.
        threshold: A prediction of at least so much is a yes.
        name, dtype: As for all metrics.
    """

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        pred, mask = jnp.asarray(unmask(unwrap(y_pred))), mask_of(y_pred)
        called = (pred >= self.threshold).astype(jnp.int32)
        super().update_state(y_true, with_mask(called, mask), sample_weight)


class MeanIoU(IoU):
    """The mean intersection over union of all classes.

    Args:
        num_classes: How many there are.
        name, dtype: As for all metrics.
        ignore_class: Entries of this class do not count.
        sparse_y_true: Whether targets are class numbers, and not one-hot.
        sparse_y_pred: Whether predictions are class numbers, and not scores of classes.
        axis: That of the classes, where they have one.
    """

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ):
        classes = range(num_classes)
        super().__init__(
            num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis
        )


class OneHotIoU(IoU):
    """Intersection over union of some classes, of one-hot targets and scores of classes.

    Args:
        num_classes: How many there are.
        target_class_ids: Those that are looked at.
        name, dtype: As for all metrics.
        ignore_class: Entries of this class do not count.
        sparse_y_pred: Whether predictions are class numbers, and not scores of classes.
        axis: That of the classes.
    """

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ):
        ids = target_class_ids
        super().__init__(num_classes, ids, name, dtype, ignore_class, False, sparse_y_pred, axis)


class OneHotMeanIoU(MeanIoU):
    """The mean intersection over union of all classes, of one-hot targets and scores of classes.

    Args:
        num_classes: How many there are.
        name, dtype: As for all metrics.
        ignore_class: Entries of this class do not count.
        sparse_y_pred: Whether predictions are class numbers, and not scores of classes.
        axis: That of the classes.
    """

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ):
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
