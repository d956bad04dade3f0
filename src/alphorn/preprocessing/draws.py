"""The draws of Python's `random`, many at once: the same numbers, and the same state after them."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np


class Draws:
    """Draws from the generator of the module `random`, whose state `close` brings up to date.

    NumPy runs the same Mersenne Twister: it gives the 32-bit words, and what `random` makes of them
    is made here for all at once.

    >>> random.seed(1); expected = [random.random(), random.randrange(10), random.randrange(10)]
    >>> random.seed(1); draws = Draws()
    >>> [*draws.floats(1).tolist(), *draws.below(10, 2).tolist()] == expected
    True
    """

    def __init__(self) -> None:
        self._version, words, self._gauss = random.getstate()
        self._twister = np.random.MT19937()
        self._put(np.array(words[:-1], np.uint32), words[-1])

    def _put(self, key: np.ndarray, position: int) -> None:
        state: Any = {"key": key, "pos": position}
        self._twister.state = {"bit_generator": "MT19937", "state": state}

    def close(self) -> None:
        """Lets `random` go on after these draws."""
        state = self._twister.state["state"]
        words = (*state["key"].tolist(), int(state["pos"]))
        random.setstate((self._version, words, self._gauss))

    def floats(self, count: int) -> np.ndarray:
        """Returns what as many calls of `random.random()` would, `(count,)`."""
        words = self._twister.random_raw(2 * count)
        return ((words[::2] >> 5) * 67108864.0 + (words[1::2] >> 6)) / 9007199254740992.0

    def below(self, limit: int, count: int) -> np.ndarray:
        """Returns what as many calls of `random.randrange(limit)` would, `(count,)`."""
        return self._accepted(np.full(count, limit - 1))

    def shuffled(self, count: int) -> list[int]:
        """Returns the order in which `random.shuffle` would put as many items."""
        order = list(range(count))
        places = self._accepted(np.arange(count - 1, 0, -1)).tolist()
        for i, j in zip(range(count - 1, 0, -1), places, strict=True):
            order[i], order[j] = order[j], order[i]
        return order

    def _accepted(self, largest: np.ndarray) -> np.ndarray:
        """Returns one draw from 0 to `largest` for each, which do not grow.

        A draw has as many bits as its limit, and those above it are thrown away. Limits of one
        number of bits are drawn together.
        """
        if not len(largest):
            return np.zeros(0, np.int64)
        bits = np.frexp((largest + 1).astype(np.float64))[1]
        starts = np.flatnonzero(np.diff(bits, prepend=-1))
        found = [
            self._of_bits(part, int(size))
            for part, size in zip(np.split(largest, starts[1:]), bits[starts], strict=True)
        ]
        return np.concatenate(found)

    def _of_bits(self, largest: np.ndarray, bits: int) -> np.ndarray:
        before = self._twister.state
        size = 2 * len(largest) + 64
        while True:
            drawn = (self._twister.random_raw(size) >> (32 - bits)).astype(np.int64)
            taken = _taken(drawn, largest)
            ends = np.flatnonzero(taken)[: len(largest)]
            self._twister.state = before
            if len(ends) == len(largest):
                self._twister.random_raw(int(ends[-1]) + 1, output=False)
                return drawn[ends]
            size *= 2


def _taken(drawn: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Returns which draws are taken, where the k-th taken one must not be above `largest[k]`.

    Whether one is taken depends on how many were before it: each round mends what the last one
    counted wrongly, and a round at least the first wrong one; a few rounds do.
    """
    taken = drawn <= largest[0]
    while True:
        before = np.minimum(np.cumsum(taken) - taken, len(largest) - 1)
        again = drawn <= largest[before]
        if (again == taken).all():
            return taken
        taken = again


def reordered(items: Sequence, order: Sequence[int]) -> list:
    """Returns items in an order."""
    return [items[i] for i in order]
