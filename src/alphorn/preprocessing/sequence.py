"""Sequences of unequal lengths as one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, UnexpectedArgumentError

__all__ = ["pad_sequence", "pad_sequences"]


def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """Returns sequences as one array, `(rows, maxlen, ...)`.

    Args:
        sequences: Lists of numbers, of strings, or of arrays of one shape.
        maxlen: By default the longest.
        dtype: Of the array; `object` or `str` for text.
        padding: "pre" or "post": on which side short rows are filled.
        truncating: "pre" or "post": on which side long rows are cut.
        value: What fills.

    Alphorn's layers need no padding by hand: lists go into `fit` as they are. With it, say
    `padding="post"`, and use `Embedding(mask_zero=True)` or `Masking`.

    >>> pad_sequences([[1], [2, 3]])
    array([[0, 1],
           [2, 3]], dtype=int32)
    """
    if not hasattr(sequences, "__len__"):
        raise ArgumentError(
            "pad_sequences: sequences", received=repr(sequences), expected="a list of sequences"
        )
    for i, row in enumerate(sequences):
        if not hasattr(row, "__len__"):
            raise ArgumentError(
                f"pad_sequences: sequences[{i}]",
                received=repr(row),
                expected="a sequence",
                fix="for one sequence write pad_sequences([sequence])",
            )
    for name, side in (("padding", padding), ("truncating", truncating)):
        if side not in ("pre", "post"):
            raise ArgumentError(f"pad_sequences: {name}", repr(side), "'pre' or 'post'")
    longest = max((len(row) for row in sequences), default=0)
    width = longest if maxlen is None else int(maxlen)
    sample = next((np.asarray(row).shape[1:] for row in sequences if len(row)), ())
    kind = np.dtype(dtype) if dtype is not str else np.dtype(str)
    if isinstance(value, str) and kind.kind not in "OUS":
        raise ArgumentError(
            "pad_sequences: value", repr(value), f"a number, as dtype is {kind}", "dtype=object"
        )
    if kind.kind in "US" and not kind.itemsize:  # room for the longest string
        texts = [str(v) for row in sequences for v in row] + [str(value)]
        kind = np.dtype(f"<U{max(map(len, texts))}")
    out = np.full((len(sequences), width, *sample), value, dtype=kind)
    for i, row in enumerate(sequences):
        if not len(row) or not width:
            continue
        kept = row[-width:] if truncating == "pre" else row[:width]
        kept = np.asarray(kept, dtype=kind)
        if kept.shape[1:] != sample:
            raise ArgumentError(
                f"pad_sequences: sequences[{i}]",
                received=f"steps of shape {kept.shape[1:]}",
                expected=f"steps of shape {sample}, as in the first row",
            )
        if padding == "post":
            out[i, : len(kept)] = kept
        else:
            out[i, -len(kept) :] = kept
    return out


def pad_sequence(*args: Any, **kwargs: Any) -> np.ndarray:
    """Is `pad_sequences`, whose name it is often taken for."""
    try:
        return pad_sequences(*args, **kwargs)
    except TypeError as error:
        raise UnexpectedArgumentError(
            f"pad_sequence: {error}", fix="the function's name is pad_sequences"
        ) from None
