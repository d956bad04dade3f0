"""What goes into keras.preprocessing, by case; what came out of Keras 2's stands in tests/data.

No library is imported here but NumPy: `record_preprocessing.py` runs it where Keras 2's package is,
the tests where Alphorn is.
"""

import random
from typing import Any

import numpy as np

TEXTS = [
    "The cat sat, on the mat!",
    "The dog; the log\tand the cat.",
    "A bird?",
    "",
    "   ",
    "naïve Σοφος ΟΔΟΣ, ΑΣ. straße İstanbul",
    "non\u00a0breaking\u3000blanks\x0band\x85lines\u2028here",
    "我喜欢自然语言处理，也喜欢猫。",  # noqa: RUF001
    "東京は日本の首都です。",
    "emoji 😀 and 😀! end",
    "a NUL \0 inside",
    "don't stop - won't stop_",
]
LISTS = [["The", "cat"], ["Cat", "", "dog"], [], ["<oov>", "the"]]
MIXED = [TEXTS[0], LISTS[0], TEXTS[5], LISTS[1], TEXTS[1]]
UNSEEN = ["the owl and the cat", "猫は犬", ["dog", "owl"], ""]

SPLITTERS: list[dict[str, Any]] = [
    {},
    {"lower": False},
    {"filters": "t"},
    {"filters": ""},
    {"filters": list(".,!")},
    {"split": ","},
    {"split": " t"},
    {"split": "-|-", "filters": "|-!"},
    {"split": "\0"},
    {"filters": "，。、"},  # noqa: RUF001
]
TOKENIZERS: list[dict[str, Any]] = [
    {},
    {"num_words": 4},
    {"num_words": 3, "oov_token": "?"},
    {"oov_token": "<oov>"},
    {"char_level": True},
    {"char_level": True, "lower": False, "num_words": 6, "oov_token": "x"},
    {"lower": False, "filters": "aeiou", "document_count": 3},
    {"split": "."},
]
CORPORA = {"texts": TEXTS, "lists": LISTS, "mixed": MIXED}
MODES = ("binary", "count", "freq", "tfidf")


def tokenizer_results(module: Any, options: dict[str, Any], corpus: str) -> dict[str, Any]:
    """Returns all that a tokenizer knows and makes after two lessons."""
    texts = CORPORA[corpus]
    tokenizer = module.Tokenizer(**options)
    tokenizer.fit_on_texts(texts[:3])
    tokenizer.fit_on_texts(iter(texts[3:]))
    ids = tokenizer.texts_to_sequences(texts + UNSEEN)
    rows = [*ids, [0, 1, 1, 3, 900]]
    result = {
        "word_index": tokenizer.word_index,
        "word_counts": list(tokenizer.word_counts.items()),
        "word_docs": sorted(tokenizer.word_docs.items()),
        "index_docs": sorted(tokenizer.index_docs.items()),
        "index_word": sorted(tokenizer.index_word.items()),
        "document_count": tokenizer.document_count,
        "ids": ids,
        "texts": tokenizer.sequences_to_texts(rows),
        "matrices": {m: tokenizer.sequences_to_matrix(rows, m).tolist() for m in MODES},
    }
    tokenizer.fit_on_sequences([[1, 1, 2], [2]])
    result["counted"] = [sorted(tokenizer.index_docs.items()), tokenizer.document_count]
    return result


ROWS: dict[str, list[Any]] = {
    "numbers": [[1, 2], [3, 4, 5], [], [6, 7, 8, 9]],
    "floats": [[1.5, -2.5], [], [3.25]],
    "tuples": [(1,), (2, 3)],
    "arrays": [np.array([1, 2, 3]), np.array([4.7, 5.2])],
    "vectors": [[[1, 2], [3, 4]], [[5, 6]], []],
    "images": [np.ones((2, 2, 3)), np.full((1, 2, 3), 4.0)],
    "empty": [[], []],
}
PADDINGS: list[dict[str, Any]] = [
    {"maxlen": maxlen, "padding": padding, "truncating": truncating, "dtype": dtype, "value": value}
    for maxlen in (None, 1, 3, 6)
    for padding in ("pre", "post")
    for truncating in ("pre", "post")
    for dtype, value in (("int32", 0.0), ("float32", -1.5), (object, 9))
]
WORDS = [["a"], ["bc", "d"], []]
WORD_PADDINGS: list[dict[str, Any]] = [
    {"dtype": object, "value": "<pad>"},
    {"dtype": "<U5", "value": "-", "padding": "post"},
    {"dtype": object, "value": "", "maxlen": 1, "truncating": "post"},
]

SKIPGRAMS: list[dict[str, Any]] = [
    {"n": n, "vocabulary_size": 50, "seed": seed, **options}
    for n in (0, 1, 12, 60)
    for seed in (0, 7)
    for options in (
        {},
        {"window_size": 1, "negative_samples": 0},
        {"negative_samples": 2.5, "categorical": True},
        {"negative_samples": 0.3, "shuffle": False},
        {"sampling": 1e-3},
    )
]


def skipgram_results(module: Any, case: dict[str, Any]) -> list[Any]:
    """Returns pairs, labels and the next draw of `random`."""
    options = dict(case)
    source = random.Random(3)
    words = [source.randrange(50) for _ in range(options.pop("n"))]
    if "sampling" in options:
        options["sampling_table"] = module.make_sampling_table(50, options.pop("sampling"))
    random.seed(11)
    pairs, labels = module.skipgrams(words, **options)
    return [pairs, labels, random.random()]


SERIES: list[dict[str, Any]] = [
    {"length": 3},
    {"length": 4, "sampling_rate": 2, "stride": 3, "batch_size": 2},
    {"length": 2, "start_index": 5, "end_index": 15, "batch_size": 4, "reverse": True},
    {"length": 5, "sampling_rate": 3, "shuffle": True, "batch_size": 6},
]


def series_results(module: Any, options: dict[str, Any], form: str) -> list[Any]:
    """Returns all batches, each of them drawn after the same seed."""
    data, targets = np.arange(40).reshape(20, 2), np.arange(20) * 10
    if form == "lists":
        data, targets = data.tolist(), targets.tolist()
    generator = module.TimeseriesGenerator(data, targets, **options)
    batches = []
    for i in range(len(generator)):
        np.random.seed(i)
        batches.append([part.tolist() for part in generator[i]])
    return batches


def results(text: Any, sequence: Any) -> dict[str, Any]:
    """Returns what two modules make of all cases, in types that JSON has."""

    def padded(rows: Any, options: dict[str, Any]) -> list[Any]:
        array = sequence.pad_sequences(rows, **options)
        return [array.dtype.str, list(array.shape), array.tolist()]

    return {
        "words": [[text.text_to_word_sequence(t, **o) for t in TEXTS] for o in SPLITTERS],
        "md5": [text.hashing_trick(t, 100, "md5") for t in TEXTS],
        "lengths": [text.hashing_trick(t, 5, len) for t in TEXTS],
        "tokenizers": {
            corpus: [tokenizer_results(text, o, corpus) for o in TOKENIZERS] for corpus in CORPORA
        },
        "padded": {name: [padded(rows, o) for o in PADDINGS] for name, rows in ROWS.items()},
        "words padded": [padded(WORDS, o) for o in WORD_PADDINGS],
        "sampling": [sequence.make_sampling_table(n, f).tolist() for n, f in ((9, 1e-5), (4, 0.1))],
        "skipgrams": [skipgram_results(sequence, case) for case in SKIPGRAMS],
        "series": {
            f: [series_results(sequence, o, f) for o in SERIES] for f in ("arrays", "lists")
        },
        "short": sequence._remove_long_seq(3, [[1], [1, 2], [1, 2, 3]], [5, 6, 7]),
    }


def written(text: Any, sequence: Any) -> dict[str, str]:
    """Returns files, as text."""
    tokenizer = text.Tokenizer(num_words=6, oov_token="<oov>")
    tokenizer.fit_on_texts(TEXTS)
    series = sequence.TimeseriesGenerator([[1], [2], [3], [4], [5]], [1, 2, 3, 4, 5], 2, stride=2)
    return {"tokenizer": tokenizer.to_json(), "series": series.to_json()}
