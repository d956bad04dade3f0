"""Texts as lists of numbers of words, by how common they are."""

import json
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError

__all__ = ["limited", "marked", "word_index"]


def word_index(path: str) -> dict[str, int]:
    """Returns the number of each word, from a JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def marked(rows: Any, start_char: int | None, index_from: int | None) -> list[list[int]]:
    """Returns texts with their numbers moved up, and a number that says where a text starts."""
    if start_char is not None:
        return [[start_char, *(w + (index_from or 0) for w in row)] for row in rows]
    return [[w + (index_from or 0) for w in row] for row in rows]


def short_ones(rows: list, labels: np.ndarray, maxlen: int | None) -> tuple[list, np.ndarray]:
    """Returns the texts of fewer than `maxlen` words, with their labels."""
    if not maxlen:
        return rows, labels
    kept = [i for i, row in enumerate(rows) if len(row) < maxlen]
    if not kept:
        raise ArgumentError("maxlen", maxlen, "above the number of words in the shortest text")
    return [rows[i] for i in kept], labels[kept]


def limited(
    rows: list[list[int]], num_words: int | None, skip_top: int, oov_char: int | None
) -> np.ndarray:
    """Returns texts in an array of lists, with only those words that are common, not too common.

    Args:
        rows: Lists of numbers of words.
        num_words: The numbers below it stay; None for those below the largest.
        skip_top: The numbers from it on stay.
        oov_char: What stands for the others; None to leave them out.
    """
    most = num_words or max((max(row) for row in rows if row), default=0)
    if oov_char is None:
        rows = [[w for w in row if skip_top <= w < most] for row in rows]
    else:
        rows = [[w if skip_top <= w < most else oov_char for w in row] for row in rows]
    out = np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows):
        out[place] = row
    return out
