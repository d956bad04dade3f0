"""Words and their ids: the vocabulary of texts, learned in one pass over a stream."""

import json
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain, repeat
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, StateError, UnexpectedArgumentError
from alphorn.preprocessing.lists import uncollected
from alphorn.preprocessing.numbering import Numbering
from alphorn.preprocessing.words import (
    FEW,
    PUNCTUATION,
    as_bytes,
    checked,
    cut,
    filters_of,
    runs,
    small,
)

__all__ = ["Tokenizer", "tokenizer_from_json"]

MODES = ("binary", "count", "freq", "tfidf")
# What `to_json` writes beside the tables.
_SAVED = {
    "num_words": int | float,
    "filters": str | list,
    "lower": bool | int,
    "split": str,
    "char_level": bool | int,
    "oov_token": str,
    "document_count": int | float,
}
# A call with fewer texts does not go through all words that were seen before it.
_FEW_TEXTS = 100
_KEPT_WORDS = 1 << 17
_TABLES = ("word_counts", "word_docs", "index_docs", "index_word", "word_index")


class Tokenizer:
    """Learns a vocabulary and turns texts into lists of ids.

    Id 0 is no word: it is padding. A text is a string, or the list of its words.

    Args:
        num_words: Only ids below it come out; the vocabulary keeps all words.
        filters, lower, split: As in `text_to_word_sequence`.
        char_level: Whether characters are the words, for scripts without spaces.
        oov_token: Stands for words that are not known; it gets id 1.
        analyzer: A function `text -> words` in place of filters, lower and split.
        **kwargs: `document_count`, texts seen before; Keras's old `nb_words`.

    Attributes:
        word_index, index_word: Id by word and word by id, the most frequent word first.
        word_counts: How often each word was seen, in the order of their first sight.
        word_docs, index_docs: In how many texts each word, each id was seen.
        document_count: How many texts were seen.

    Raises:
        ArgumentError: `num_words` below 1; a text that is no text, by its number.

    >>> tokenizer = Tokenizer()
    >>> tokenizer.fit_on_texts(["the cat", "the dog"])
    >>> tokenizer.texts_to_sequences(["the dog barks"])
    [[1, 3]]
    """

    analyzer: Callable | None = None  # tokenizers that were pickled before there was one
    _numbering: Numbering

    def __init__(
        self,
        num_words: int | None = None,
        filters: str = PUNCTUATION,
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
            raise UnexpectedArgumentError(
                "Tokenizer", ", ".join(kwargs), "num_words, filters, lower, split, char_level, ..."
            )
        number = isinstance(num_words, int | float | np.number)
        if num_words is not None and not (number and num_words >= 1 and num_words % 1 == 0):
            raise ArgumentError(
                "Tokenizer: num_words", repr(num_words), "a whole number above 0", "None for all"
            )
        self.num_words = None if num_words is None else int(num_words)
        self.filters, self.lower, self.split = filters, lower, split
        self.char_level, self.oov_token, self.analyzer = char_level, oov_token, analyzer
        self.word_counts: OrderedDict[Any, int] = OrderedDict()
        self.word_docs: defaultdict[Any, int] = defaultdict(int)
        self.index_docs: defaultdict[int, int] = defaultdict(int)
        self.word_index: dict[Any, int] = {}
        self.index_word: dict[int, Any] = {}

    def _words(self, texts: list[Any]) -> list[Any]:
        """Returns the words of texts, which are strings or lists, all alike."""
        if isinstance(texts[0], list):
            if not self.lower:
                return texts
            return [small(words, "Tokenizer: a list of words") for words in texts]
        if self.char_level:
            return [text.lower() for text in texts] if self.lower else texts
        if self.analyzer is not None:
            return [list(self.analyzer(text)) for text in texts]
        return cut(
            texts, filters_of(self.filters, "Tokenizer"), self.lower, self.split, "Tokenizer"
        )

    def _numbered(
        self, texts: Iterable[Any], numbering: Numbering
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the numbers of words, and how many words each text has, some texts at a time."""
        if isinstance(texts, str) and not self.char_level:
            warnings.warn(
                "Tokenizer: one string is taken as a list of texts of one character each; "
                "for one text write [text]",
                stacklevel=3,
            )
        if not isinstance(texts, Iterable):
            raise UnexpectedArgumentError("Tokenizer: texts", repr(texts), "texts in a list")
        plain = not self.char_level and self.analyzer is None
        for run in runs(texts, "Tokenizer"):
            data = None
            if plain and isinstance(run[0], str) and sum(map(len, run)) > FEW:
                data = as_bytes(run, filters_of(self.filters, "Tokenizer"), self.lower, self.split)
            if data is None:
                yield numbering.of_lists(self._words(run))
            else:
                yield numbering.of_bytes(data, ord(self.split))

    def fit_on_texts(self, texts: Iterable[Any]) -> None:
        """Learns the words of texts, the most frequent first; again, to learn more.

        Args:
            texts: Strings, or lists of words; a generator is read once, and not kept.
        """
        old = Counter(self.word_docs)
        numbering = Numbering(self.word_counts)
        numbers = numbering.words
        totals = np.array([[n, old[w]] for w, n in self.word_counts.items()], np.int64)
        counts, documents = totals.reshape(-1, 2).T.copy()
        for words, lengths in self._numbered(texts, numbering):
            new = len(numbers) - len(counts)
            if new > 0:  # and room for as many again
                counts, documents = (
                    np.pad(a, (0, new + len(numbers))) for a in (counts, documents)
                )
            np.add.at(counts, words, 1)
            text = np.repeat(np.arange(len(lengths)), lengths)
            pairs = np.sort(text << 32 | words)
            np.add.at(documents, pairs[np.diff(pairs, prepend=-1) > 0] & 0xFFFFFFFF, 1)
            self.document_count += len(lengths)
        self.word_counts = OrderedDict(zip(numbers, counts.tolist(), strict=False))
        in_texts = {w: n for w, n in zip(numbers, documents.tolist(), strict=False) if n}
        self.word_docs = defaultdict(
            int, in_texts | {w: n for w, n in old.items() if w not in in_texts}
        )
        vocabulary = [] if self.oov_token is None else [self.oov_token]
        vocabulary += sorted(self.word_counts, key=self.word_counts.__getitem__, reverse=True)
        self.word_index = dict(zip(vocabulary, range(1, len(vocabulary) + 1), strict=True))
        self.index_word = {i: word for word, i in self.word_index.items()}
        self.index_docs.update({self.word_index[w]: n for w, n in self.word_docs.items()})
        self._keep(numbering)

    def fit_on_sequences(self, sequences: Iterable[Any]) -> None:
        """Counts the texts that hold each id, for `sequences_to_matrix(mode="tfidf")`.

        Args:
            sequences: Lists of ids.
        """
        documents = Counter(self.index_docs)
        seen = 0
        for row in sequences:
            seen += 1
            documents.update(set(_ids(row, seen - 1)))
        self.document_count += seen
        self.index_docs = defaultdict(int, documents)

    def _found(self, words: Iterable[Any]) -> Iterator[Any]:
        """Returns the id of each word, None for a word that is left out."""
        known, limit = self.word_index, self.num_words
        unknown = None if self.oov_token is None else known.get(self.oov_token)
        found = map(known.get, words, repeat(unknown))
        if not limit:
            return found
        return (unknown if i is not None and i >= limit else i for i in found)

    def texts_to_sequences(self, texts: Iterable[Any]) -> list[list[int]]:
        """Returns the ids of each text's words; those that are not known are left out.

        With an `oov_token` its id stands for them.
        """
        few = isinstance(texts, Sized) and len(texts) < _FEW_TEXTS
        numbering = Numbering() if few else self._kept()
        found = list(self._numbered(texts, numbering))
        ids = np.empty(len(numbering.words), object)
        ids[:] = list(self._found(numbering.words))
        known = np.array([i is not None for i in ids], bool)
        rows = []
        with uncollected():
            for words, lengths in found:
                ends = np.cumsum(lengths)
                if not known.all():
                    kept = known.take(words)
                    ends, words = np.append(0, np.cumsum(kept))[ends], words[kept]
                row, begin = ids.take(words), 0
                for end in ends.tolist():
                    rows.append(row[begin:end].tolist())
                    begin = end
        if not few:
            self._keep(numbering)
        return rows

    def _kept(self) -> Numbering:
        """Returns the numbers that words have from the last call; one thread at a time gets them.

        They say nothing of ids: a user may change those, and the words that make one text.
        """
        return self.__dict__.pop("_numbering", None) or Numbering()

    def _keep(self, numbering: Numbering) -> None:
        if len(numbering.words) <= _KEPT_WORDS:
            self._numbering = numbering

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a copy needs."""
        return {name: value for name, value in self.__dict__.items() if name != "_numbering"}

    def texts_to_sequences_generator(self, texts: Iterable[Any]) -> Iterator[list[int]]:
        """Yields the ids of each text's words, each before the next text is read."""
        for number, text in enumerate(texts):
            words = self._words([checked(text, f"Tokenizer: text {number}")])[0]
            yield [i for i in self._found(words) if i is not None]

    def sequences_to_texts(self, sequences: Iterable[Any]) -> list[str]:
        """Returns the words of each list of ids, parted by blanks.

        >>> tokenizer = Tokenizer()
        >>> tokenizer.fit_on_texts(["to be"])
        >>> tokenizer.sequences_to_texts([[2, 1], [1]])
        ['be to', 'to']
        """
        return list(self.sequences_to_texts_generator(sequences))

    def sequences_to_texts_generator(self, sequences: Iterable[Any]) -> Iterator[str]:
        """Yields the words of each list of ids."""
        index = None if self.oov_token is None else self.word_index.get(self.oov_token)
        unknown = None if index is None else self.index_word[index]
        known, limit = self.index_word, self.num_words

        def find(i: Any) -> Any:
            word = known.get(i)
            return unknown if word is None or (limit and i >= limit) else word

        memo = _Memo(find, 2 * len(known) + 1000)
        for number, row in enumerate(sequences):
            words = list(map(memo.__getitem__, _ids(row, number)))
            yield " ".join([w for w in words if w is not None] if memo.gaps else words)

    def texts_to_matrix(self, texts: Iterable[Any], mode: str = "binary") -> np.ndarray:
        """Returns one row of figures a text, `(texts, num_words)`: see `sequences_to_matrix`."""
        self._width(mode)  # before the work
        return self.sequences_to_matrix(self.texts_to_sequences(texts), mode)

    def sequences_to_matrix(self, sequences: Iterable[Any], mode: str = "binary") -> np.ndarray:
        """Returns one row of figures a list of ids, `(rows, num_words)`; a column is an id.

        Args:
            sequences: Lists of ids; those from `num_words` on are left out.
            mode: "binary" (1 where the id occurs), "count", "freq" (count by the length of the
                list), "tfidf" (`(1 + log(count)) * log(1 + texts / (1 + texts with the id))`).

        Raises:
            StateError: no `num_words` and no vocabulary; "tfidf" with no texts seen.

        >>> Tokenizer(num_words=4).sequences_to_matrix([[1, 1, 3]], mode="count")
        array([[0., 2., 0., 1.]])
        """
        width = self._width(mode)
        rows = [_ids(row, number) for number, row in enumerate(sequences)]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.array(list(chain.from_iterable(rows))) if lengths.any() else np.zeros(0, int)
        if ids.dtype.kind not in "iu" or (ids < 0).any():
            raise ArgumentError(
                "Tokenizer: sequences",
                received=f"ids of type {ids.dtype}" if ids.dtype.kind not in "iu" else ids.min(),
                expected="whole numbers, 0 or above",
            )
        places = np.repeat(np.arange(len(rows)) * width, lengths) + ids
        places, counts = np.unique(places[ids < width], return_counts=True)
        matrix = np.zeros((len(rows), width))
        figures = matrix.reshape(-1)
        if mode == "binary":
            figures[places] = 1
        elif mode == "count":
            figures[places] = counts
        elif mode == "freq":
            figures[places] = counts / lengths[places // width]
        else:
            columns, column = np.unique(places % width, return_inverse=True)
            texts = np.array([self.index_docs.get(i, 0) for i in columns.tolist()])
            rarity = np.log(1 + self.document_count / (1 + texts))
            figures[places] = (1 + np.log(counts)) * rarity[column]
        return matrix

    def _width(self, mode: str) -> int:
        if mode not in MODES:
            raise ArgumentError("Tokenizer: mode", repr(mode), ", ".join(map(repr, MODES)))
        width = self.num_words or (len(self.word_index) + 1 if self.word_index else 0)
        if not width:
            raise StateError(
                "Tokenizer has no vocabulary", fix="fit_on_texts first, or give num_words"
            )
        if mode == "tfidf" and not self.document_count:
            raise StateError(
                "Tokenizer has seen no texts, from which 'tfidf' is made", fix="fit_on_texts first"
            )
        return width

    def get_config(self) -> dict[str, Any]:
        """Returns arguments and vocabulary, tables as JSON text."""
        names = ("num_words", "filters", "lower", "split", "char_level", "oov_token")
        config = {name: getattr(self, name) for name in (*names, "document_count")}
        return config | {name: json.dumps(getattr(self, name)) for name in _TABLES}

    def to_json(self, **kwargs: Any) -> str:
        """Returns the tokenizer as JSON, for `tokenizer_from_json` here or in Keras.

        Functions cannot stand in it (a warning says so): set `split` or `analyzer` after loading.

        Args:
            **kwargs: For `json.dumps`.
        """
        config = self.get_config()
        functions = [n for n in ("split", "analyzer") if callable(getattr(self, n))]
        if functions:
            config["split"] = " " if "split" in functions else config["split"]
            warnings.warn(
                f"Tokenizer.to_json: {' and '.join(functions)} is a function, which JSON cannot "
                "hold: set it again after tokenizer_from_json",
                stacklevel=2,
            )
        return json.dumps({"class_name": type(self).__name__, "config": config}, **kwargs)


class _Memo(dict):
    """What a function gives, kept for the first so many keys; `gaps` if it gave None."""

    def __init__(self, find: Callable[[Any], Any], limit: int):
        super().__init__()
        self.find, self.limit, self.gaps = find, limit, False

    def __missing__(self, key: Any) -> Any:
        value = self.find(key)
        self.gaps |= value is None
        if len(self) < self.limit:
            self[key] = value
        return value


def _ids(row: Any, number: int) -> list[Any]:
    row = row.tolist() if hasattr(row, "tolist") else row
    if isinstance(row, Iterable) and not isinstance(row, str):
        return list(row)
    raise UnexpectedArgumentError(
        f"Tokenizer: sequence {number}", repr(row), "a list of ids", "for one list write [ids]"
    )


def tokenizer_from_json(json_string: str) -> Tokenizer:
    """Returns the tokenizer that `to_json` wrote, here or in Keras.

    Raises:
        ArgumentError: the text is no JSON, or not that of a tokenizer.
    """
    try:
        config = dict(json.loads(json_string)["config"])
        tables = {name: _table(name, config.pop(name)) for name in _TABLES}
        for name, kinds in _SAVED.items():
            if not isinstance(config.get(name), kinds | None):
                raise TypeError(f"{name} is {config[name]!r:.60}")
        if unknown := config.keys() - _SAVED.keys():
            raise KeyError(", ".join(unknown))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentError(
            "tokenizer_from_json",
            received=f"{json_string!r:.60}: {type(error).__name__}: {error}",
            expected="the text that tokenizer.to_json() returned",
            fix="of a file, give the text: Path(file).read_text()",
        ) from None
    config["num_words"] = config.get("num_words") or None
    tokenizer = Tokenizer(**config)
    tokenizer.word_counts = OrderedDict(tables["word_counts"])
    tokenizer.word_docs.update(tables["word_docs"])
    tokenizer.index_docs.update(tables["index_docs"])
    tokenizer.index_word = tables["index_word"]
    tokenizer.word_index = tables["word_index"]
    return tokenizer


def _table(name: str, text: str) -> dict[Any, Any]:
    """Returns one of the tables of a vocabulary, ids as numbers."""
    table = {int(k) if name[:5] == "index" else k: v for k, v in json.loads(text).items()}
    of = str | int | float if name == "index_word" else int | float
    if not all(isinstance(value, of) for value in table.values()):
        raise TypeError(f"{name} has other values than {of}")
    return table
