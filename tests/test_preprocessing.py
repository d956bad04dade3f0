"""The classic functions for texts and lists, against Keras's own."""

import json
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pytest
from keras.src.legacy.preprocessing import text as their_text
from keras.utils import pad_sequences as their_padding

import alphorn as keras
from alphorn.preprocessing import sequence, text

TEXTS = ["The cat sat, on the mat!", "The dog; the log\tand the cat.", "A bird?", ""]
ROWS = [[1, 2], [3, 4, 5], [], [6, 7, 8, 9]]


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
@pytest.mark.parametrize("maxlen", [None, 1, 3, 6])
def test_lists_become_keras_s_array(padding, truncating, maxlen):
    options = {"padding": padding, "truncating": truncating, "maxlen": maxlen, "value": 9}
    ours, theirs = sequence.pad_sequences(ROWS, **options), their_padding(ROWS, **options)
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)


def test_padding_takes_vectors_floats_and_words():
    vectors = [np.ones((2, 3)), np.ones((1, 3))]
    assert np.array_equal(
        sequence.pad_sequences(vectors, dtype="float32"), their_padding(vectors, dtype="float32")
    )
    words = sequence.pad_sequences([["a"], ["b", "cd"]], dtype=object, value="-")
    assert words.tolist() == [["-", "a"], ["b", "cd"]]
    assert sequence.pad_sequence([[1], [2, 3]]).tolist() == [[0, 1], [2, 3]]
    for wrong, message in (
        (lambda: sequence.pad_sequences(3), "a list of sequences"),
        (lambda: sequence.pad_sequences([1, 2]), r"pad_sequences\(\[sequence\]\)"),
        (lambda: sequence.pad_sequences(ROWS, padding="left"), "'pre' or 'post'"),
        (lambda: sequence.pad_sequences([[[1, 2]], [[1]]]), "shape"),
    ):
        with pytest.raises(keras.ArgumentError, match=message):
            wrong()


@pytest.mark.parametrize(
    "options", [{}, {"lower": False}, {"filters": "t"}, {"split": ","}], ids=str
)
def test_texts_are_parted_as_by_keras(options):
    for line in TEXTS:
        ours = text.text_to_word_sequence(line, **options)
        assert ours == their_text.text_to_word_sequence(line, **options)


def test_hashes_are_keras_s():
    for line in TEXTS:
        ours = text.hashing_trick(line, 50, "md5")
        assert ours == their_text.hashing_trick(line, 50, "md5")
        assert text.one_hot(line, 50) == their_text.one_hot(line, 50)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_words": 4},
        {"oov_token": "<oov>"},
        {"num_words": 3, "oov_token": "?"},
        {"char_level": True},
    ],
    ids=str,
)
def test_a_tokenizer_learns_what_keras_s_learns(options):
    ours, theirs = text.Tokenizer(**options), their_text.Tokenizer(**options)
    for one in (ours, theirs):
        one.fit_on_texts(TEXTS[:2])
        one.fit_on_texts(TEXTS[2:])
    assert ours.word_index == theirs.word_index
    assert dict(ours.word_counts) == dict(theirs.word_counts)
    assert dict(ours.word_docs) == dict(theirs.word_docs)
    assert ours.document_count == theirs.document_count
    lines = [*TEXTS, "A log nobody knows"]
    ids = ours.texts_to_sequences(lines)
    assert ids == theirs.texts_to_sequences(lines)
    assert ours.sequences_to_texts(ids) == theirs.sequences_to_texts(ids)
    for mode in ("binary", "count", "freq", "tfidf"):
        assert np.allclose(ours.texts_to_matrix(TEXTS, mode), theirs.texts_to_matrix(TEXTS, mode))
    for written in (ours.to_json(), theirs.to_json()):
        again = text.tokenizer_from_json(written)
        assert again.texts_to_sequences(lines) == ids
        assert again.word_index == ours.word_index
    assert (
        json.loads(ours.to_json())["config"].keys() == json.loads(theirs.to_json())["config"].keys()
    )


def test_a_tokenizer_that_knows_nothing_says_so():
    with pytest.raises(keras.StateError, match="fit_on_texts"):
        text.Tokenizer().texts_to_matrix(["a"])
    with pytest.raises(keras.ArgumentError, match="tfidf"):
        text.Tokenizer(num_words=3).texts_to_matrix(["a"], mode="some")
