"""IMDB: 50,000 reviews of films, good and bad, as numbers of words."""

from typing import Any

import numpy as np

from alphorn.datasets.source import arrays_in, fetched, shuffled
from alphorn.datasets.words import limited, marked, short_ones, word_index
from alphorn.errors import UnexpectedArgumentError

__all__ = ["get_word_index", "load_data"]

_HASH = "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"
Part = tuple[np.ndarray, np.ndarray]


def load_data(
    path: str = "imdb.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int | None = 3,
    **kwargs: Any,
) -> tuple[Part, Part]:
    """Returns `(x_train, y_train), (x_test, y_test)`: lists of numbers of words, and 0 or 1.

    Args:
        path: Name of the file in the cache.
        num_words: Only words whose number is below it; None for all.
        skip_top: Only words whose number is not below it.
        maxlen: Only reviews of fewer words.
        seed: Of the order.
        start_char: What each review begins with, or None.
        oov_char: What stands for the words left out; None for nothing.
        index_from: What is added to the number of each word, so that 0 to 2 are free.
        kwargs: `nb_words`, Keras 1's name of `num_words`.

    Lists go into `fit` as they are: `model.fit(x_train, y_train)` pads and masks them.
    """
    num_words = kwargs.pop("nb_words", num_words)
    if kwargs:
        raise UnexpectedArgumentError("imdb.load_data", received=", ".join(kwargs))
    found = arrays_in(fetched(path, "imdb.npz", _HASH))
    parts = []
    source = np.random.RandomState(seed)
    for part in ("train", "test"):
        rows, labels = shuffled(source, found[f"x_{part}"], found[f"y_{part}"])
        parts.append(short_ones(marked(rows, start_char, index_from), labels, maxlen))
    (train, train_labels), (test, test_labels) = parts
    texts = limited(train + test, num_words, skip_top, oov_char)
    return (texts[: len(train)], train_labels), (texts[len(train) :], test_labels)


def get_word_index(path: str = "imdb_word_index.json") -> dict[str, int]:
    """Returns the number of each word, without `index_from`."""
    name = "imdb_word_index.json"
    return word_index(fetched(path, name, "bfafd718b763782e994055a2d397834f"))
