"""Words as numbers, many texts at a time, without an object for each word."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain, count
from typing import Any

import numpy as np

__all__ = ["END", "Numbering"]

# Stands behind each text.
END = 0
_BITS = 17
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
# The first n of 8 bytes.
_KEPT = np.array([[255] * n + [0] * (8 - n) for n in range(9)], np.uint8).view(np.uint64)[:, 0]


class _Table:
    """Numbers by keys, which are some whole numbers each; the first of them is never 0.

    A key has one place, and gets it if no other key was there first.
    """

    def __init__(self, width: int):
        self._keys = [np.zeros(1 << _BITS, np.uint64) for _ in range(width)]
        self._numbers = np.zeros(1 << _BITS, np.int64)

    def _places(self, keys: tuple[np.ndarray, ...]) -> np.ndarray:
        mixed = keys[0] * _MIX[0]
        for key in keys[1:]:
            mixed += key * _MIX[1]
        mixed >>= np.uint64(64 - _BITS)
        return mixed.view(np.int64)

    def read(self, *keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers, and which of them are right."""
        places = self._places(keys)
        right = self._keys[0].take(places) == keys[0]
        for known, key in zip(self._keys[1:], keys[1:], strict=True):
            right &= known.take(places) == key
        return self._numbers.take(places), right

    def write(self, numbers: np.ndarray, *keys: np.ndarray) -> None:
        """Keeps the numbers whose keys' places are free."""
        places = self._places(keys)
        free = self._keys[0][places] == 0
        self._numbers[places[free]] = numbers[free]
        for known, key in zip(self._keys, keys, strict=True):
            known[places[free]] = key[free]


class Numbering:
    """Numbers words from 0 in the order of their first sight, and seldom looks one up again.

    Args:
        words: Those that have numbers already, in order.

    Words of up to 8 and of up to 16 bytes stand in tables, by their bytes; longer ones, and those
    that found no place, are looked up each time.
    """

    def __init__(self, words: Iterable[Any] = ()):
        self.words: defaultdict[Any, int] = defaultdict(None, zip(words, count()))
        self.words.default_factory = count(len(self.words)).__next__
        self._tables: tuple[_Table, _Table] | None = None

    def _find(self, words: Iterable[Any]) -> np.ndarray:
        return np.array(list(map(self.words.__getitem__, words)), np.int64)

    def of_lists(self, texts: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of all words, and how many words each text has.

        Args:
            texts: The words of each.
        """
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return self._find(chain.from_iterable(texts)), lengths

    def of_bytes(self, data: bytes, blank: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of all words, and how many words each text has.

        Args:
            data: Texts in UTF-8, each with `END` behind it.
            blank: The byte that parts words.
        """
        if self._tables is None:
            self._tables = _Table(1), _Table(2)
        short_words, long_words = self._tables
        array = np.frombuffer(data, np.uint8)
        ends = array == END
        parted = np.ones(len(data) + 1, bool)
        np.logical_or(array == blank, ends, out=parted[1:])
        edges = np.flatnonzero(parted[1:] != parted[:-1])
        begin, size = edges[::2], edges[1::2] - edges[::2]
        lengths = np.diff(np.searchsorted(begin, np.flatnonzero(ends)), prepend=0)
        # The 8 bytes from each byte on.
        eights = np.ndarray((len(data) + 8,), np.uint64, data + bytes(16), strides=(1,))
        first = eights[begin] & _KEPT.take(np.minimum(size, 8))
        numbers, known = short_words.read(first)
        long = np.flatnonzero(size > 8)
        keys = first[long], eights[begin[long] + 8] & _KEPT.take(np.minimum(size[long] - 8, 8))
        numbers[long], known[long] = long_words.read(*keys)
        known &= size <= 16
        strange = np.flatnonzero(~known)
        if len(strange):
            spans = zip(begin[strange].tolist(), size[strange].tolist(), strict=True)
            words = b"\0".join([data[place : place + count] for place, count in spans])
            numbers[strange] = self._find(words.decode("utf-8", "surrogatepass").split("\0"))
            new = strange[size[strange] <= 8]
            short_words.write(numbers[new], first[new])
            new = ~known[long] & (size[long] <= 16)
            long_words.write(numbers[long[new]], *(key[new] for key in keys))
        return numbers, lengths
