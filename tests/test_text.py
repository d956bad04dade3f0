"""preprocessing.text: what Keras 2 makes, for any text, from a stream, and the words for a mistake."""

import gzip
import json
import pickle
import sys
import tracemalloc
import warnings
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.legacy.preprocessing import text as keras_text

import alphorn as keras
import preprocessing_cases as cases
from alphorn.preprocessing import sequence, text
from alphorn.preprocessing.words import CHARACTERS_AT_ONCE, OTHER_BLANKS

RECORD = json.loads(
    gzip.decompress((Path(__file__).parent / "data" / "preprocessing.json.gz").read_bytes())
)
EXPECTED = RECORD["results"]


def plain(value):
    """As JSON has it: lists for tuples, strings for keys."""
    return json.loads(json.dumps(value))


def same(ours, theirs):
    """Equal, but for the last bit of a logarithm."""
    if isinstance(theirs, float):
        return ours == pytest.approx(theirs, rel=1e-14, abs=0)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in theirs)
    return ours == theirs


@pytest.mark.parametrize("number", range(len(cases.SPLITTERS)))
def test_texts_are_parted_as_by_keras(number):
    options = cases.SPLITTERS[number]
    words = [text.text_to_word_sequence(t, **options) for t in cases.TEXTS]
    assert words == EXPECTED["words"][number]


@pytest.mark.parametrize("corpus", cases.CORPORA)
@pytest.mark.parametrize("number", range(len(cases.TOKENIZERS)))
def test_a_tokenizer_learns_and_makes_what_keras_s_does(number, corpus):
    found = plain(cases.tokenizer_results(text, cases.TOKENIZERS[number], corpus))
    expected = EXPECTED["tokenizers"][corpus][number]
    assert found.keys() == expected.keys()
    for name in expected:
        assert same(found[name], expected[name]), name


def test_hashes_are_keras_s():
    assert [text.hashing_trick(t, 100, "md5") for t in cases.TEXTS] == EXPECTED["md5"]
    assert [text.hashing_trick(t, 5, len) for t in cases.TEXTS] == EXPECTED["lengths"]
    for t in cases.TEXTS:
        assert text.one_hot(t, 50) == keras_text.one_hot(t, 50)
        assert text.one_hot(t, 50, analyzer=str.split) == [hash(w) % 49 + 1 for w in t.split()]


def test_a_tokenizer_that_keras_wrote_is_read_and_ours_is_read_by_keras():
    written = RECORD["written"]["tokenizer"]
    theirs = text.tokenizer_from_json(written)
    ours = text.Tokenizer(num_words=6, oov_token="<oov>")
    ours.fit_on_texts(cases.TEXTS)
    lines = cases.TEXTS + cases.UNSEEN
    assert theirs.texts_to_sequences(lines) == ours.texts_to_sequences(lines)
    config = json.loads(written)["config"]
    assert config.keys() == ours.get_config().keys()
    for name, value in ours.get_config().items():
        table = name in ("word_counts", "word_docs", "index_docs", "index_word", "word_index")
        assert (json.loads(value) if table else value) == (
            json.loads(config[name]) if table else config[name]
        )
    again = keras_text.tokenizer_from_json(ours.to_json(indent=1))
    assert again.texts_to_sequences(lines) == ours.texts_to_sequences(lines)
    theirs.fit_on_texts(["quite new words"])  # learning goes on
    assert "quite" in theirs.word_index and theirs.document_count == len(cases.TEXTS) + 1


ODD = "abΣ\u03c3İß ,.!\t\n\x0b\x00\u00a0\u3000é中😀"
ANY_TEXT = st.text(st.sampled_from(ODD) | st.characters(codec="utf-8"))
DOCUMENT = ANY_TEXT | st.lists(ANY_TEXT, max_size=4)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "lower": st.booleans(),
        "char_level": st.booleans(),
        "num_words": st.none() | st.integers(1, 9),
        "oov_token": st.none() | st.sampled_from(["<oov>", "a"]),
        "filters": st.sampled_from(["", " ,", "ab", "\0.", "é中"]),
        "split": st.sampled_from([" ", ",", " a", "-|-", "\0"]),
    },
)


@given(st.lists(DOCUMENT, max_size=6), OPTIONS)
@settings(max_examples=300, deadline=None)
def test_many_at_once_or_one_by_one_it_is_the_same(documents, options):
    together, alone = text.Tokenizer(**options), text.Tokenizer(**options)
    together.fit_on_texts(documents)
    for one in [[], *([document] for document in documents)]:
        alone.fit_on_texts(one)
    theirs = keras_text.Tokenizer(**options)
    theirs.fit_on_texts(documents)
    for name in ("word_index", "word_counts", "word_docs", "document_count"):
        assert getattr(together, name) == getattr(alone, name) == getattr(theirs, name)
    ids = together.texts_to_sequences(documents)
    assert ids == list(together.texts_to_sequences_generator(documents))
    assert ids == theirs.texts_to_sequences(documents)


@pytest.mark.parametrize("bits", [17, 1])
@given(st.lists(ANY_TEXT | st.text("ab \0é", max_size=40), max_size=6), OPTIONS)
@settings(max_examples=200, deadline=None)
def test_words_by_their_bytes_are_the_same(bits, documents, options):
    """However few the texts, and also where most words find no place in the tables."""
    theirs = keras_text.Tokenizer(**options)
    theirs.fit_on_texts(documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alphorn.preprocessing.tokenizer.FEW", -1)
        patch.setattr("alphorn.preprocessing.tokenizer._FEW_TEXTS", 0)
        patch.setattr("alphorn.preprocessing.numbering._BITS", bits)
        patch.setattr("alphorn.preprocessing.words.FEW", 30)
        ours = text.Tokenizer(**options)
        ours.fit_on_texts(documents)
        for name in ("word_index", "word_counts", "word_docs", "document_count"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert list(ours.word_counts) == list(theirs.word_counts)
        unseen = [*documents, "a bb é " + "long" * 5]
        for _ in range(2):  # the second time with the words of the first
            assert ours.texts_to_sequences(unseen) == theirs.texts_to_sequences(unseen)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=20))
@settings(deadline=None)
def test_known_characters_come_back(documents):
    tokenizer = text.Tokenizer(char_level=True, lower=False)
    tokenizer.fit_on_texts(documents)
    ids = tokenizer.texts_to_sequences(documents)
    assert tokenizer.sequences_to_texts(ids) == [" ".join(d) for d in documents]
    assert text.tokenizer_from_json(tokenizer.to_json()).texts_to_sequences(documents) == ids


def test_blanks_are_all_that_split_parts_at():
    assert {*OTHER_BLANKS, " "} == {c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()}


def stream(count):
    random = np.random.default_rng(0)
    for start in range(0, count, 1000):
        words = random.integers(0, 2000, (1000, 12)).astype(str)
        yield from (" ".join(row) + "." for row in words[: count - start])


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_with_the_vocabulary_and_not_with_the_text():
    tokenizer = text.Tokenizer()
    few, many = (peak(lambda n=n: tokenizer.fit_on_texts(stream(n))) for n in (8_000, 80_000))
    assert tokenizer.document_count == 88_000 and len(tokenizer.word_index) == 2000
    assert many < 1.2 * few < 20 * 2**20

    def through():
        for _ in tokenizer.texts_to_sequences_generator(stream(20_000)):
            pass

    assert peak(through) < 1.2 * few


def test_a_generator_gives_each_text_before_it_reads_the_next():
    tokenizer = text.Tokenizer()
    tokenizer.fit_on_texts(["a b"])
    read = []

    def texts():
        for word in "ab":
            read.append(word)
            yield word

    rows = tokenizer.texts_to_sequences_generator(texts())
    assert next(rows) == [1] and read == ["a"]
    assert list(rows) == [[2]]


def test_texts_longer_than_what_is_read_at_once():
    long = "word " * CHARACTERS_AT_ONCE
    tokenizer = text.Tokenizer()
    tokenizer.fit_on_texts([long, "another", ["word"]])
    assert tokenizer.word_counts == {"word": CHARACTERS_AT_ONCE + 1, "another": 1}
    assert tokenizer.word_docs == {"word": 2, "another": 1}


def test_scripts_without_blanks():
    sentences = ["我喜欢猫", "我不喜欢狗"]
    by_character = text.Tokenizer(char_level=True)
    by_character.fit_on_texts(sentences)
    assert by_character.texts_to_sequences(["猫喜我"]) == [[4, 2, 1]]

    def pairs(line):
        return (line[i : i + 2] for i in range(0, len(line), 2))

    for options in ({"split": pairs}, {"analyzer": pairs}):
        by_function = text.Tokenizer(**options)
        by_function.fit_on_texts(sentences)
        assert list(by_function.word_counts) == ["我喜", "欢猫", "我不", "喜欢", "狗"]
        with pytest.warns(UserWarning, match="is a function"):
            again = text.tokenizer_from_json(by_function.to_json())
        assert again.word_index == by_function.word_index
    listed = text.Tokenizer()
    listed.fit_on_texts([["我", "喜欢"], ("喜欢", "猫"), np.array(["猫"])])
    assert listed.texts_to_sequences([["喜欢", "狗", "猫"]]) == [[1, 2]]


def test_a_function_gets_the_filtered_text_and_an_analyzer_the_text():
    seen = []

    def split(line):
        seen.append(line)
        return line.split()

    assert text.text_to_word_sequence("To be, OR", split=split) == ["to", "be", "or"]
    assert text.hashing_trick("To be, OR", 9, len, analyzer=split) == [3, 4, 3]
    assert seen == ["to be  or", "To be, OR"]


def test_vocabularies_that_users_changed_are_followed():
    tokenizer = text.Tokenizer()
    tokenizer.fit_on_texts(["a b"])
    tokenizer.word_index["<pad>"] = 0
    tokenizer.word_index["c"] = 7
    assert tokenizer.texts_to_sequences([["<pad>", "c", "b", "d"]]) == [[0, 7, 2]]
    tokenizer.num_words = 3
    assert tokenizer.texts_to_sequences([["<pad>", "c", "b"]]) == [[0, 2]]


def test_words_that_are_kept_between_calls_hide_no_change():
    documents = [f"Word{i % 7} other{i}, é{i % 3}" * 9 for i in range(300)]
    tokenizer = text.Tokenizer()
    tokenizer.fit_on_texts(documents)

    def compared():
        found = tokenizer.texts_to_sequences(documents)
        assert found == list(tokenizer.texts_to_sequences_generator(documents))
        return found

    first = compared()
    changes = (
        lambda: tokenizer.word_index.update({"word3": 7000, "word3 other": 1, "Word1": 3}),
        lambda: tokenizer.word_index.pop("é1"),
        lambda: setattr(tokenizer, "num_words", 20),
        lambda: setattr(tokenizer, "oov_token", "word5"),
        lambda: setattr(tokenizer, "lower", False),
        lambda: setattr(tokenizer, "filters", "d"),
        lambda: tokenizer.fit_on_texts(["new words, é"]),
    )
    results = [first]
    for change in changes:
        change()
        results.append(compared())
    assert all(a != b for a, b in pairwise(results))
    assert pickle.loads(pickle.dumps(tokenizer)).texts_to_sequences(documents) == results[-1]
    assert len(pickle.dumps(tokenizer)) < 100_000
    assert all(name.lstrip("_") != "numbering" for name in tokenizer.__getstate__())
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(tokenizer.texts_to_sequences, documents) for _ in range(8)]
        assert all(w.result() == results[-1] for w in work)


def test_few_texts_do_not_go_through_all_words_that_are_known():
    tokenizer = text.Tokenizer()
    tokenizer.fit_on_texts(["a b c"])
    asked = []

    class Index(dict):
        def get(self, word, *default):
            asked.append(word)
            return super().get(word, *default)

    tokenizer.word_index = Index(tokenizer.word_index)
    assert tokenizer.texts_to_sequences(["b"]) == [[2]] and asked == ["b"]


def test_rows_of_ids_may_be_arrays():
    tokenizer = text.Tokenizer(num_words=5)
    tokenizer.fit_on_texts(["a b c"])
    ids = np.array([[1, 2], [3, 0]])
    assert tokenizer.sequences_to_texts(ids) == ["a b", "c"]
    assert tokenizer.sequences_to_texts(iter(ids)) == ["a b", "c"]
    counts = tokenizer.sequences_to_matrix(ids, mode="count")
    assert counts.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 1, 0]]
    assert np.array_equal(tokenizer.sequences_to_matrix(ids.tolist(), mode="count"), counts)
    assert tokenizer.sequences_to_matrix([], mode="freq").shape == (0, 5)


MISTAKES = {
    "missing value": (
        lambda t: t.fit_on_texts(["a", float("nan")]),
        r"text 1[\s\S]*nan[\s\S]*fillna",
    ),
    "none": (lambda t: t.texts_to_sequences(["a", "b", None]), r"text 2[\s\S]*None"),
    "generator": (lambda t: list(t.texts_to_sequences_generator([3])), r"text 0[\s\S]*type int"),
    "bytes": (lambda t: t.fit_on_texts([b"a"]), r"text 0[\s\S]*bytes[\s\S]*decode"),
    "word": (lambda t: t.fit_on_texts([["a", 3]]), r"3 among the words[\s\S]*lower=False"),
    "mode": (lambda t: t.texts_to_matrix(["a"], mode="some"), r"'some'[\s\S]*'tfidf'"),
    "negative": (lambda t: t.sequences_to_matrix([[-1]]), r"-1[\s\S]*0 or above"),
    "fractions": (lambda t: t.sequences_to_matrix([[1.5]]), r"float64[\s\S]*whole numbers"),
    "words": (lambda t: text.Tokenizer(num_words=0), r"num_words[\s\S]*above 0"),
    "half": (lambda t: text.Tokenizer(num_words=2.5), r"num_words[\s\S]*2.5"),
    "string": (lambda t: text.Tokenizer(num_words="9"), r"num_words[\s\S]*'9'"),
    "filters": (lambda t: text.text_to_word_sequence("a", ["ab"]), r"filters[\s\S]*single"),
    "split": (lambda t: text.text_to_word_sequence("a", split=""), r"split[\s\S]*a function"),
    "list": (lambda t: text.text_to_word_sequence(["a"]), r"a list[\s\S]*a string"),
    "text": (lambda t: text.one_hot(None, 5), r"None[\s\S]*a string"),
    "numbers": (lambda t: text.one_hot("a", 1), r"n[\s\S]*at least 2"),
    "json": (lambda t: text.tokenizer_from_json("vocabulary.json"), r"to_json[\s\S]*read_text"),
    "other json": (lambda t: text.tokenizer_from_json("{}"), r"KeyError"),
}
WRONG_TYPES = {
    "flat ids": (lambda t: t.sequences_to_texts([1, 2]), r"sequence 0[\s\S]*\[ids\]"),
    "flat matrix": (lambda t: t.sequences_to_matrix([1, 2]), r"sequence 0[\s\S]*\[ids\]"),
    "no texts": (lambda t: t.fit_on_texts(3), r"texts in a list"),
    "hash": (lambda t: text.hashing_trick("a", 5, "sha"), r"'sha'[\s\S]*'md5'"),
    "argument": (lambda t: text.Tokenizer(words=3), r"words[\s\S]*num_words"),
}


@pytest.mark.parametrize("name", [*MISTAKES, *WRONG_TYPES])
def test_mistakes_are_named(name):
    tokenizer = text.Tokenizer()
    tokenizer.fit_on_texts(["a b"])
    work, message = (MISTAKES | WRONG_TYPES)[name]
    error = keras.ArgumentError if name in MISTAKES else keras.UnexpectedArgumentError
    with pytest.raises(error, match=message):
        work(tokenizer)
    assert tokenizer.word_index == {"a": 1, "b": 2} and tokenizer.document_count == 1


def test_a_tokenizer_that_knows_nothing_says_so():
    with pytest.raises(keras.StateError, match="fit_on_texts"):
        text.Tokenizer().texts_to_matrix(["a"])
    with pytest.raises(keras.StateError, match=r"tfidf[\s\S]*fit_on_texts"):
        text.Tokenizer(num_words=3).texts_to_matrix(["a"], mode="tfidf")
    assert text.Tokenizer(oov_token="?").texts_to_sequences(["a"]) == [[]]
    with pytest.warns(UserWarning, match=r"write \[text\]"):
        text.Tokenizer().fit_on_texts("abc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = text.Tokenizer(char_level=True)
        tokenizer.fit_on_texts("abca")  # the characters of one text: a language model's corpus
    assert tokenizer.document_count == 4 and tokenizer.word_index["a"] == 1


def test_what_old_programs_took_from_the_modules():
    assert text.maketrans("a", "b") == {97: 98}
    assert text.OrderedDict is OrderedDict and text.sys is sys and text.np is np
    assert text.string.digits == "0123456789"
    assert sequence.random.random and sequence.np is np
    with pytest.raises(AttributeError, match="nothing"):
        _ = text.nothing
    assert text.Tokenizer(nb_words=3).num_words == 3
