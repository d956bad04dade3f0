"""The draws of Python's `random`, many at once: the same numbers, and the same state after them."""

import random
from typing import Any

import numpy as np


class Draws:
    """Draws from the generator of the module `random`, which `close` takes on behind them.

    NumPy runs the same Mersenne Twister: it gives the 32-bit words, and what `random` makes of them
    is made here for all at once.

    >>> random.seed(1)
    >>> expected = [random.random(), random.randrange(10), random.randrange(10)]
    >>> random.seed(1)
    >>> draws = Draws()
    >>> [*draws.floats(1).tolist(), *draws.below(10, 2).tolist()] == expected
    True
    """

    def __init__(self) -> None:
        self._version, words, self._gauss = random.getstate()
        self._start: Any = {
            "bit_generator": "MT19937",
            "state": {"key": np.array(words[:-1], np.uint32), "pos": words[-1]},
        }
        self._twister = np.random.MT19937()
        self._twister.state = self._start
        self._words = np.zeros(0, np.int64)
        self._used = 0  # of all words, those before self._words too

    def close(self) -> None:
        """Lets `random` go on behind these draws."""
        self._twister.state = self._start
        self._twister.random_raw(self._used, output=False)
        state = self._twister.state["state"]
        words = (*state["key"].tolist(), int(state["pos"]))
        random.setstate((self._version, words, self._gauss))

    def _next(self, count: int) -> np.ndarray:
        """Returns the next words, which `_use` counts."""
        missing = count - len(self._words)
        if missing > 0:
            more = self._twister.random_raw(missing).astype(np.int64)
            self._words = np.concatenate([self._words, more])
        return self._words[:count]

    def _use(self, count: int) -> None:
        self._words = self._words[count:]
        self._used += count

    def floats(self, count: int) -> np.ndarray:
        """Returns what as many calls of `random.random()` would, `(count,)`."""
        words = self._next(2 * count)
        self._use(2 * count)
        return ((words[::2] >> 5) * 67108864.0 + (words[1::2] >> 6)) / 9007199254740992.0

    def below(self, limit: int, count: int) -> np.ndarray:
        """Returns what as many calls of `random.randrange(limit)` would, `(count,)`."""
        return self._accepted(limit - 1, 0, count)

    def shuffled(self, count: int) -> np.ndarray:
        """Returns the order in which `random.shuffle` would put as many items, `(count,)`."""
        parts = [np.zeros(0, np.int64)]
        last = count - 1
        while last > 0:  # limits of one number of bits at a time
            smallest = max((1 << ((last + 1).bit_length() - 1)) - 1, 1)
            parts.append(self._accepted(last, 1, last - smallest + 1))
            last = smallest - 1
        return _swapped(np.append(np.concatenate(parts), 0)[:count][::-1])

    def _accepted(self, largest: int, step: int, count: int) -> np.ndarray:
        """Returns `count` draws, the k-th from 0 to `largest - step * k`.

        A draw has as many bits as its limit, and those above the limit are thrown away. Whether one
        is taken depends on how many were before it: each round mends what the last one counted
        wrongly, and at least the first that was wrong; a few rounds do.
        """
        bits = (largest + 1).bit_length()
        size = count + count // 2 + 64
        while True:
            drawn = self._next(size) >> (32 - bits)
            taken = drawn <= largest
            while step:
                again = drawn <= largest - step * (np.cumsum(taken, dtype=np.int32) - taken)
                if (again == taken).all():
                    break
                taken = again
            ends = np.flatnonzero(taken)[:count]
            if len(ends) == count:
                self._use(int(ends[-1]) + 1 if count else 0)
                return drawn[ends]
            size *= 2


def _swapped(partners: np.ndarray) -> np.ndarray:
    """Returns `0, 1, ...` after the swaps of item i with item `partners[i] <= i`, the last i first.

    Item i is final after its swap, and gets what then stands at its partner's place: what the swap
    before with the same partner put there, or what stood there at the start. A swap puts there
    what stood at its own place, for which the same holds: chains that are followed to their ends.
    """
    count = len(partners)
    if count < 2:
        return np.arange(count)
    places = np.arange(count)
    # Swaps by partner, and by place: neighbours of one partner follow each other in time.
    keys = np.sort(partners * count + places)
    partner, place = np.divmod(keys, count)
    before = np.full(count, -1)
    same = partner[1:] == partner[:-1]
    before[place[:-1][same]] = place[1:][same]
    heads = np.flatnonzero(np.append(True, ~same))
    source = places.copy()
    first = place[heads]
    itself = first == partner[heads]
    first = np.where(itself, before[first], first)
    known = first >= 0
    source[partner[heads][known]] = first[known]
    while True:
        further = source[source]
        if (further == source).all():
            break
        source = further
    found = np.where(before >= 0, source[before], partners)
    return np.where(partners == places, source, found)
