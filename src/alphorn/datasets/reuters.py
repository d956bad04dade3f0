"""Reuters: 11,228 newswires on 46 topics, as numbers of words."""

import numpy as np

from alphorn.datasets.source import arrays_in, cut_in_two, fetched, shuffled
from alphorn.datasets.words import limited, marked, short_ones, word_index

__all__ = ["get_label_names", "get_word_index", "load_data"]

_HASH = "d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916"
_TOPICS = """cocoa grain veg-oil earn acq wheat copper housing money-supply coffee sugar trade
reserves ship cotton carcass crude nat-gas cpi money-fx interest gnp meal-feed alum oilseed gold
tin strategic-metal livestock retail ipi iron-steel rubber heat jobs lei bop zinc orange pet-chem
dlr gas silver wpi hog lead"""
Part = tuple[np.ndarray, np.ndarray]


def load_data(
    path: str = "reuters.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    test_split: float = 0.2,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int | None = 3,
) -> tuple[Part, Part]:
    """Returns `(x_train, y_train), (x_test, y_test)`: lists of numbers of words, and topics.

    Args:
        path: Name of the file in the cache.
        num_words: Only words whose number is below it; None for all.
        skip_top: Only words whose number is not below it.
        maxlen: Only newswires of fewer words.
        test_split: The share for the test.
        seed: Of the order.
        start_char: What each newswire begins with, or None.
        oov_char: What stands for the words left out; None for nothing.
        index_from: What is added to the number of each word, so that 0 to 2 are free.
    """
    found = arrays_in(fetched(path, "reuters.npz", _HASH))
    rows, labels = shuffled(np.random.RandomState(seed), found["x"], found["y"])
    texts, labels = short_ones(marked(rows, start_char, index_from), labels, maxlen)
    return cut_in_two(limited(texts, num_words, skip_top, oov_char), labels, test_split)


def get_word_index(path: str = "reuters_word_index.json") -> dict[str, int]:
    """Returns the number of each word, without `index_from`."""
    name = "reuters_word_index.json"
    return word_index(fetched(path, name, "4d44cc38712099c9e383dc6e5f11a921"))


def get_label_names() -> tuple[str, ...]:
    """Returns the names of the topics.

    >>> len(get_label_names()), get_label_names()[3]
    (46, 'earn')
    """
    return tuple(_TOPICS.split())
