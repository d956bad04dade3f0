"""The draws of Python's `random`, many at once: the same numbers, and the same state after them."""

import random
from typing import Any

import numpy as np

# Fewer draws with limits of their own are faster one by one.
_FEW = 128


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
        self._words = np.zeros(0, np.uint32)
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
            more = self._twister.random_raw(missing).astype(np.uint32)
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
        return self._accepted(limit - 1, count).astype(np.int64)

    def shuffled(self, count: int) -> np.ndarray:
        """Returns the order in which `random.shuffle` would put as many items, `(count,)`."""
        last, parts = count - 1, []
        while last > _FEW:  # limits of one number of bits at a time
            smallest = max((1 << ((last + 1).bit_length() - 1)) - 1, _FEW)
            parts.append(self._accepted(last, last - smallest + 1, falling=True))
            last = smallest - 1
        few = self._one_by_one(last, 2 * _FEW) if last > 0 else []
        if parts:
            # NumPy has no loop of swaps; LAPACK swaps the rows of a matrix, here the last first.
            from scipy.linalg import get_lapack_funcs

            swapped: Any = get_lapack_funcs("laswp", dtype=float)
            partners = np.concatenate([*parts, few, [0]])[::-1]
            rows = swapped(np.arange(count, dtype=float)[:, None], partners, inc=-1)
            return rows[:, 0].astype(np.int64)
        order = list(range(count))
        for place, partner in zip(range(last, 0, -1), few, strict=True):
            order[place], order[partner] = order[partner], order[place]
        return np.array(order, np.int64)

    def _one_by_one(self, last: int, words: int) -> list[int]:
        """Returns a draw from 0 to `last`, one to `last - 1` and so on to 1; of so many words."""
        found = []
        for used, word in enumerate(self._next(words).tolist(), 1):
            draw = word >> 32 - (last + 1).bit_length()
            if draw <= last:
                found.append(draw)
                last -= 1
                if not last:
                    self._use(used)
                    return found
        return self._one_by_one(last + len(found), 2 * words)

    def _accepted(self, largest: int, count: int, falling: bool = False) -> np.ndarray:
        """Returns `count` draws from 0 to `largest`, or each to one less than the one before.

        A draw has as many bits as its limit, and those above the limit are thrown away. Whether one
        is taken depends on how many were before it. The first guess is how many may be expected;
        each round mends what the last one counted wrongly, and at least the first that was wrong; a
        few rounds do.
        """
        bits = (largest + 1).bit_length()
        size = count + count // 2 + 64
        while True:
            drawn = self._next(size) >> (32 - bits)
            if falling:
                drawn = drawn.view(np.int32)  # a limit may be below 0, behind the last that counts
                taken = drawn <= (largest + 1) * np.exp(np.arange(size) / -(1 << bits)) - 1
            else:
                taken = drawn <= largest
            while falling:
                limits = np.cumsum(taken, dtype=np.int32)
                limits -= taken
                again = drawn <= np.subtract(largest, limits, out=limits)
                if np.array_equal(again, taken):
                    break
                taken = again
            ends = np.flatnonzero(taken)[:count]
            if len(ends) == count:
                self._use(int(ends[-1]) + 1 if count else 0)
                return drawn[ends]
            size *= 2
