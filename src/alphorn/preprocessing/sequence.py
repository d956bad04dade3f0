"""Sequences of unequal lengths as one array; pairs of words; windows of time series."""

import inspect
import random
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, ShapeError, UnexpectedArgumentError
from alphorn.preprocessing.draws import Draws
from alphorn.preprocessing.lists import matrix_of_whole_numbers, uncollected
from alphorn.preprocessing.windows import TimeseriesGenerator, timeseries_generator_from_json

__all__ = [
    "TimeseriesGenerator",
    "make_sampling_table",
    "pad_sequence",
    "pad_sequences",
    "skipgrams",
    "timeseries_generator_from_json",
]


def pad_sequences(
    sequences: Iterable[Any],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """Returns sequences as one array, `(rows, maxlen, ...)`.

    Args:
        sequences: Lists of numbers, of strings, or of steps of one shape; a generator is read.
        maxlen: By default the longest.
        dtype: Of the array; `object` or `str` for text.
        padding: "pre" or "post": on which side short rows are filled.
        truncating: "pre" or "post": on which side long rows are cut.
        value: What fills.

    Raises:
        ArgumentError: no sequences, `maxlen` below 1, an unknown side.
        ShapeError: steps of unequal shapes.

    Alphorn's layers need no padding by hand: lists go into `fit` as they are. With it, say
    `padding="post"`, and use `Embedding(mask_zero=True)` or `Masking`.

    >>> pad_sequences([[1], [2, 3]])
    array([[0, 1],
           [2, 3]], dtype=int32)
    """
    for name, side in (("padding", padding), ("truncating", truncating)):
        if not isinstance(side, str) or side not in ("pre", "post"):
            raise ArgumentError(f"pad_sequences: {name}", repr(side), "'pre' or 'post'")
    if maxlen is not None and not (isinstance(maxlen, int | np.integer) and maxlen > 0):
        raise ArgumentError(
            "pad_sequences: maxlen", repr(maxlen), "a whole number above 0, or None"
        )
    rows, lengths = _measured(sequences)
    width = int(lengths.max(initial=0) if maxlen is None else maxlen)
    first = next((i for i, length in enumerate(lengths.tolist()) if length), None)
    step = () if first is None else np.asarray(rows[first]).shape[1:]
    kind = _kind(dtype, value, rows)
    lengths = np.minimum(lengths, width)[:, None]
    places = np.arange(width, dtype=np.int32)
    if not step and kind.kind in "iufb" and np.ndim(value) == 0:
        sides = padding == "pre", truncating == "pre"
        whole = matrix_of_whole_numbers(rows, width, *sides, kind)
        if whole is not None:
            if value != 0:
                whole[places >= lengths if padding == "post" else places < width - lengths] = value
            return whole
    cut = slice(-width, None) if truncating == "pre" else slice(width)
    parts = [row[cut] if len(row) > width else row for row in rows]
    out = np.full((len(rows), width, *step), value, dtype=kind)
    steps = _joined(parts, int(lengths.sum()), step, kind)
    out[places < lengths if padding == "post" else places >= width - lengths] = steps
    return out


def _measured(sequences: Any) -> tuple[list[Any], np.ndarray]:
    if isinstance(sequences, str) or not isinstance(sequences, Iterable):
        raise ArgumentError(
            "pad_sequences: sequences", received=repr(sequences), expected="a list of sequences"
        )
    rows = list(sequences)
    strange = None
    if any(issubclass(kind, str) for kind in set(map(type, rows))):
        strange = next(i for i, row in enumerate(rows) if isinstance(row, str))
    try:
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
    except TypeError:
        strange = next(i for i, row in enumerate(rows) if np.ndim(row) == 0)
    if strange is not None:
        word = isinstance(rows[strange], str)
        raise ArgumentError(
            f"pad_sequences: sequences[{strange}]",
            received=repr(rows[strange]),
            expected="a sequence",
            fix="list(text) for its characters, text.split() for its words"
            if word
            else "for one sequence write pad_sequences([sequence])",
        )
    return rows, lengths  # pyright: ignore[reportPossiblyUnboundVariable]


def _kind(dtype: Any, value: Any, rows: list[Any]) -> np.dtype:
    """Returns the type of the array, wide enough for all strings."""
    kind = np.dtype(dtype)
    if isinstance(value, str) and kind.kind not in "OUS":
        raise ArgumentError(
            "pad_sequences: value", repr(value), f"a number, as dtype is {kind}", "dtype=object"
        )
    if kind.kind in "US" and not kind.itemsize:
        texts = map(str, chain([value], *rows))
        return np.dtype(f"{kind.kind}{max(map(len, texts), default=1) or 1}")
    return kind


def _joined(rows: list[Any], total: int, step: tuple, kind: np.dtype) -> np.ndarray:
    """Returns all steps of all rows in a line, `(steps, ...)`."""
    if not total:
        return np.empty((0, *step), kind)
    if not step and kind.kind in "iufb" and set(map(type, rows)) <= {list, tuple}:
        try:
            return np.fromiter(chain.from_iterable(rows), kind, total)
        except (TypeError, ValueError, OverflowError):
            pass  # row by row, for numbers in a strange form or for an error that says where
    if kind.kind != "O" and set(map(type, rows)) == {np.ndarray}:
        whole = [row for row in rows if len(row)]
        if {(row.dtype, row.shape[1:]) for row in whole} == {(whole[0].dtype, step)}:
            return np.concatenate(whole).astype(kind, copy=False)
    arrays = []
    for i, row in enumerate(rows):
        if not len(row):
            continue
        try:
            steps = np.asarray(row, dtype=kind)
        except (TypeError, ValueError, OverflowError) as error:
            raise ArgumentError(
                f"pad_sequences: sequences[{i}]",
                received=f"{row!r:.80}: {error}",
                expected=f"steps of shape {step} that are {kind}",
                fix="for words dtype=object or str; for steps of unequal lengths pad these first",
            ) from None
        if steps.shape[1:] != step:
            raise ShapeError(
                f"pad_sequences: sequences[{i}]",
                received=f"steps of shape {steps.shape[1:]}",
                expected=f"steps of shape {step}, as in the first row that has any",
            )
        arrays.append(steps)
    return np.concatenate(arrays)


def pad_sequence(*args: Any, **kwargs: Any) -> np.ndarray:
    """Is `pad_sequences`, whose name it is often taken for.

    >>> pad_sequence([[1], [2, 3]], padding="post").tolist()
    [[1, 0], [2, 3]]
    """
    signature = inspect.signature(pad_sequences)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UnexpectedArgumentError(
            f"pad_sequence: {error}",
            received=", ".join([*map("{!r:.40}".format, args), *kwargs]),
            expected=f"pad_sequences{signature.replace(return_annotation=inspect.Signature.empty)}",
            fix="the function's name is pad_sequences",
        ) from None
    return pad_sequences(*args, **kwargs)


def make_sampling_table(size: int, sampling_factor: float = 1e-5) -> np.ndarray:
    """Returns with what probability `skipgrams` takes the word of each rank, `(size,)`.

    Frequent words are taken less often, as in word2vec, words being as frequent as Zipf's law says.

    Args:
        size: How many words there are; id is rank, 1 the most frequent.
        sampling_factor: The smaller, the fewer of the frequent words.

    >>> make_sampling_table(10000)[[1, 10, 9999]].round(4)
    array([0.0032, 0.0171, 0.9893])
    """
    if size < 1:
        raise ArgumentError("make_sampling_table: size", size, "at least 1")
    rank = np.arange(size)
    rank[0] = 1
    # 0.577 is Euler's constant as Keras has it; this is 1 / frequency.
    rarity = rank * (np.log(rank) + 0.577) + 0.5 - 1.0 / (12.0 * rank)
    share = sampling_factor * rarity
    return np.minimum(1.0, share / np.sqrt(share))


def skipgrams(
    sequence: Sequence[Any],
    vocabulary_size: int,
    window_size: int = 4,
    negative_samples: float = 1.0,
    shuffle: bool = True,
    categorical: bool = False,
    sampling_table: Any = None,
    seed: Any = None,
) -> tuple[list[list[Any]], list[Any]]:
    """Returns pairs of words and their labels: 1 for neighbours, 0 for a word drawn at random.

    Args:
        sequence: Ids of words; 0 is no word.
        vocabulary_size: Ids are below it.
        window_size: How far neighbours may stand apart.
        negative_samples: Random pairs for each pair of neighbours.
        shuffle: Whether the pairs are put in a random order.
        categorical: Whether labels are `[0, 1]` and `[1, 0]`.
        sampling_table: The probability to take each id, of `make_sampling_table`.
        seed: Of the order.

    It draws from Python's `random` what Keras 2 draws, and leaves it as Keras 2 does: the random
    words follow `random.seed`, the order follows `seed`.

    >>> pairs, labels = skipgrams([1, 2, 3], 4, window_size=1, negative_samples=0, shuffle=False)
    >>> pairs, labels
    ([[1, 2], [2, 1], [2, 3], [3, 2]], [1, 1, 1, 1])
    """
    words = np.asarray(sequence)
    if words.ndim == 1 and words.dtype.kind in "iu":
        words = words.astype(np.int64)  # as what is drawn
    else:
        words = np.empty(len(sequence), object)
        words[:] = list(sequence)
    present = words.astype(bool)
    draws = Draws()
    chosen = np.flatnonzero(present)
    if sampling_table is not None:
        chances = np.asarray(sampling_table)
        if chosen.size and words[chosen].max() >= len(chances):
            raise ArgumentError(
                "skipgrams: sampling_table",
                received=f"{len(chances)} entries, and a word of id {words[chosen].max()}",
                expected="an entry for each id",
                fix=f"make_sampling_table({vocabulary_size})",
            )
        chances = chances[words[chosen].astype(np.int64)]
        chosen = chosen[~(chances < draws.floats(len(chosen)))]
    reach = np.arange(-window_size, window_size + 1)
    places = chosen[:, None] + reach[reach != 0]
    valid = (places >= 0) & (places < len(words))
    valid &= present[np.where(valid, places, 0)]
    targets, others = np.repeat(words[chosen], valid.sum(1)), words[places[valid]]
    positive, negative = len(targets), max(int(len(targets) * negative_samples), 0)
    if negative_samples > 0:
        order = draws.shuffled(positive)
        if negative and vocabulary_size < 2:
            raise ArgumentError("skipgrams: vocabulary_size", vocabulary_size, "at least 2")
        if negative:
            drawn = draws.below(vocabulary_size - 1, negative) + 1
            targets = np.concatenate([targets, np.resize(targets[order], negative)])
            others = np.concatenate([others, drawn])
    labels = np.arange(positive + negative) < positive
    draws.close()
    if shuffle:
        random.seed(random.randint(0, 10_000_000) if seed is None else seed)
        draws = Draws()
        order = draws.shuffled(len(labels))
        draws.close()
        targets, others, labels = targets[order], others[order], labels[order]
    with uncollected():
        couples = np.stack([targets, others], 1).tolist()
    figures = np.stack([~labels, labels], 1) if categorical else labels
    return couples, figures.astype(np.int64).tolist()


def _remove_long_seq(
    maxlen: int, seq: Iterable[Any], label: Iterable[Any]
) -> tuple[list[Any], list[Any]]:
    """Returns the sequences that are shorter than `maxlen`, and their labels.

    >>> _remove_long_seq(3, [[1, 2], [1, 2, 3]], ["a", "b"])
    ([[1, 2]], ['a'])
    """
    kept = [(row, y) for row, y in zip(seq, label, strict=False) if len(row) < maxlen]
    return [row for row, _ in kept], [y for _, y in kept]
