"""Text as numbers: words, ids, matrices."""

import hashlib
import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, StateError

__all__ = [
    "Tokenizer",
    "hashing_trick",
    "one_hot",
    "text_to_word_sequence",
    "tokenizer_from_json",
]

_PUNCTUATION = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'


def text_to_word_sequence(
    input_text: str, filters: str = _PUNCTUATION, lower: bool = True, split: Any = " "
) -> list[str]:
    """Returns the words of a text.

    Args:
        input_text: The text.
        filters: Characters that part words.
        lower: Whether letters become small.
        split: What parts words; or a function `text -> words`.

    >>> text_to_word_sequence("To be, or not?")
    ['to', 'be', 'or', 'not']
    """
    text = input_text.lower() if lower else input_text
    if callable(split):
        return [w for w in split(text) if w]  # pyright: ignore[reportGeneralTypeIssues]
    table = str.maketrans(dict.fromkeys(filters, split))
    return [w for w in text.translate(table).split(split) if w]


def one_hot(
    input_text: str,
    n: int,
    filters: str = _PUNCTUATION,
    lower: bool = True,
    split: Any = " ",
    analyzer: Callable | None = None,
) -> list[int]:
    """Returns a number from 1 to `n - 1` for each word, by Python's hash.

    Python's hash of strings changes from run to run: `hashing_trick(..., hash_function="md5")`
    does not.
    """
    return hashing_trick(input_text, n, hash, filters, lower, split, analyzer)


def hashing_trick(
    text: str,
    n: int,
    hash_function: Any = None,  # pyright: ignore[reportRedeclaration]
    filters: str = _PUNCTUATION,
    lower: bool = True,
    split: Any = " ",
    analyzer: Callable | None = None,
) -> list[int]:
    """Returns a number from 1 to `n - 1` for each word; two words may share one.

    Args:
        text: The text.
        n: How many numbers, 0 counted.
        hash_function: "md5", None for Python's `hash`, or a function of a word.
        filters, lower, split: As in `text_to_word_sequence`.
        analyzer: Splits the text itself.
    """
    if hash_function == "md5":

        def hash_function(word: str) -> int:
            return int(hashlib.md5(word.encode()).hexdigest(), 16)

    function = hash if hash_function is None else hash_function
    words = analyzer(text) if analyzer else text_to_word_sequence(text, filters, lower, split)
    return [function(w) % (n - 1) + 1 for w in words]


class Tokenizer:
    """Learns a vocabulary and turns texts into lists of ids.

    Id 0 is no word: it is padding. Lists of words pass as they are; `char_level=True` takes
    characters, for scripts without spaces.

    Args:
        num_words: Only ids below it come out; the vocabulary keeps all words.
        filters, lower, split: As in `text_to_word_sequence`.
        char_level: Whether characters are the words.
        oov_token: Stands for words that are not known; it gets id 1.
        document_count: Texts seen before.
        analyzer: Splits texts itself.
        **kwargs: Keras's old `nb_words`.

    >>> tokenizer = Tokenizer()
    >>> tokenizer.fit_on_texts(["the cat", "the dog"])
    >>> tokenizer.texts_to_sequences(["the dog barks"])
    [[1, 3]]
    """

    def __init__(
        self,
        num_words: int | None = None,
        filters: str = _PUNCTUATION,
        lower: bool = True,
        split: Any = " ",
        char_level: bool = False,
        oov_token: str | None = None,
        analyzer: Callable | None = None,
        **kwargs: Any,
    ):
        num_words = kwargs.pop("nb_words", num_words)
        self.document_count = kwargs.pop("document_count", 0)
        if kwargs:
            raise ArgumentError("Tokenizer", ", ".join(kwargs), "its own arguments")
        self.num_words, self.filters, self.lower, self.split = num_words, filters, lower, split
        self.char_level, self.oov_token, self.analyzer = char_level, oov_token, analyzer
        self.word_counts: OrderedDict[str, int] = OrderedDict()
        self.word_docs: defaultdict[str, int] = defaultdict(int)
        self.index_docs: defaultdict[int, int] = defaultdict(int)
        self.word_index: dict[str, int] = {}
        self.index_word: dict[int, str] = {}

    def _words(self, text: Any) -> Any:
        if self.char_level or isinstance(text, list):
            if not self.lower:
                return text
            return [w.lower() for w in text] if isinstance(text, list) else text.lower()
        if self.analyzer is not None:
            return self.analyzer(text)
        return text_to_word_sequence(text, self.filters, self.lower, self.split)

    def fit_on_texts(self, texts: Iterable[Any]) -> None:
        """Learns the words of texts, the most frequent first."""
        for text in texts:
            self.document_count += 1
            words = self._words(text)
            for word in words:
                self.word_counts[word] = self.word_counts.get(word, 0) + 1
            for word in set(words):
                self.word_docs[word] += 1
        ranked = sorted(self.word_counts.items(), key=lambda item: item[1], reverse=True)
        vocabulary = [] if self.oov_token is None else [self.oov_token]
        vocabulary += [word for word, _ in ranked if word != self.oov_token]
        self.word_index = {word: i + 1 for i, word in enumerate(vocabulary)}
        self.index_word = {i: word for word, i in self.word_index.items()}
        for word, count in self.word_docs.items():
            self.index_docs[self.word_index[word]] = count

    def fit_on_sequences(self, sequences: Iterable[Any]) -> None:
        """Counts the documents that hold each id."""
        for sequence in sequences:
            self.document_count += 1
            for i in set(sequence):
                self.index_docs[i] += 1

    def texts_to_sequences(self, texts: Iterable[Any]) -> list[list[int]]:
        """Returns the ids of each text's words; those that are not known are left out."""
        return list(self.texts_to_sequences_generator(texts))

    def texts_to_sequences_generator(self, texts: Iterable[Any]) -> Iterator[list[int]]:
        """Yields the ids of each text's words."""
        unknown = self.word_index.get(self.oov_token) if self.oov_token is not None else None
        for text in texts:
            ids = []
            for word in self._words(text):
                i = self.word_index.get(word)
                if i is None or (self.num_words and i >= self.num_words):
                    i = unknown
                if i is not None:
                    ids.append(i)
            yield ids

    def sequences_to_texts(self, sequences: Iterable[Any]) -> list[str]:
        """Returns the words of each list of ids, parted by spaces."""
        return list(self.sequences_to_texts_generator(sequences))

    def sequences_to_texts_generator(self, sequences: Iterable[Any]) -> Iterator[str]:
        """Yields the words of each list of ids."""
        unknown = self.word_index.get(self.oov_token) if self.oov_token is not None else None
        for sequence in sequences:
            words = []
            for i in sequence:
                word = self.index_word.get(int(i))
                if word is None or (self.num_words and i >= self.num_words):
                    word = None if unknown is None else self.index_word[unknown]
                if word is not None:
                    words.append(word)
            yield " ".join(words)

    def texts_to_matrix(self, texts: Iterable[Any], mode: str = "binary") -> np.ndarray:
        """Returns one row of figures a text: `(texts, num_words)`."""
        return self.sequences_to_matrix(self.texts_to_sequences(texts), mode)

    def sequences_to_matrix(self, sequences: Iterable[Any], mode: str = "binary") -> np.ndarray:
        """Returns one row of figures a list of ids.

        Args:
            sequences: Lists of ids.
            mode: "binary", "count", "freq" or "tfidf".
        """
        if mode not in ("binary", "count", "freq", "tfidf"):
            raise ArgumentError(
                "Tokenizer: mode", repr(mode), "'binary', 'count', 'freq' or 'tfidf'"
            )
        width = self.num_words or (len(self.word_index) + 1 if self.word_index else 0)
        if not width:
            raise StateError(
                "Tokenizer has no vocabulary", fix="fit_on_texts first, or give num_words"
            )
        if mode == "tfidf" and not self.document_count:
            raise StateError("Tokenizer has seen no documents", fix="fit_on_texts first")
        rows = list(sequences)
        matrix = np.zeros((len(rows), width))
        for row, sequence in enumerate(rows):
            counts: dict[int, int] = {}
            for i in sequence:
                if i < width:
                    counts[i] = counts.get(i, 0) + 1
            for i, count in counts.items():
                if mode == "binary":
                    matrix[row, i] = 1
                elif mode == "count":
                    matrix[row, i] = count
                elif mode == "freq":
                    matrix[row, i] = count / len(sequence)
                else:
                    rarity = np.log(1 + self.document_count / (1 + self.index_docs.get(i, 0)))
                    matrix[row, i] = (1 + np.log(count)) * rarity
        return matrix

    def get_config(self) -> dict[str, Any]:
        """Returns arguments and vocabulary, tables as JSON text."""
        return {
            "num_words": self.num_words,
            "filters": self.filters,
            "lower": self.lower,
            "split": self.split,
            "char_level": self.char_level,
            "oov_token": self.oov_token,
            "document_count": self.document_count,
            "word_counts": json.dumps(self.word_counts),
            "word_docs": json.dumps(self.word_docs),
            "index_docs": json.dumps(self.index_docs),
            "index_word": json.dumps(self.index_word),
            "word_index": json.dumps(self.word_index),
        }

    def to_json(self, **kwargs: Any) -> str:
        """Returns the tokenizer as JSON, for `tokenizer_from_json`."""
        config = {"class_name": type(self).__name__, "config": self.get_config()}
        return json.dumps(config, **kwargs)


def tokenizer_from_json(json_string: str) -> Tokenizer:
    """Returns the tokenizer that `to_json` wrote, here or in Keras."""
    config = dict(json.loads(json_string)["config"])
    tables = {
        name: json.loads(config.pop(name))
        for name in ("word_counts", "word_docs", "index_docs", "index_word", "word_index")
    }
    tokenizer = Tokenizer(**config)
    tokenizer.word_counts = OrderedDict(tables["word_counts"])
    tokenizer.word_docs.update(tables["word_docs"])
    tokenizer.index_docs.update({int(k): v for k, v in tables["index_docs"].items()})
    tokenizer.index_word = {int(k): v for k, v in tables["index_word"].items()}
    tokenizer.word_index = tables["word_index"]
    return tokenizer
