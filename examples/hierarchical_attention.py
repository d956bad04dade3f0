"""A hierarchical attention network: words make sentences, sentences make a document.

    python examples/hierarchical_attention.py
    python examples/hierarchical_attention.py reviews.csv --text body --label stars

Without a file it learns to tell which package of Python's standard library a docstring comes from.
Documents of unequal numbers of sentences of unequal numbers of words go into `fit` as they are.
After Yang et al., "Hierarchical attention networks for document classification" (2016).
"""

import argparse
import csv
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import alphorn as keras
import docstrings
import reporting
from alphorn import layers, ops
from alphorn.preprocessing.sequence import pad_sequences
from alphorn.preprocessing.text import Tokenizer

MOST_SENTENCES, MOST_WORDS = 30, 40


class AttentionPooling(keras.Layer):
    """The mean of all steps, each weighted by what it has to say."""

    def build(self, input_shape):
        size = input_shape[-1]
        self.project = layers.Dense(size, activation="tanh")
        self.context = self.add_weight((size, 1), name="context")

    def weights_of(self, steps):
        """Returns the attention to each step, `(batch, time, 1)`."""
        return ops.softmax(ops.matmul(self.project(steps), self.context), axis=1)

    def call(self, steps):
        return ops.sum(self.weights_of(steps) * steps, axis=1)


def build_model(vocabulary: int, classes: int, embedding: int = 96, units: int = 48):
    """Returns the document model and the two models that end before the attention."""
    words = keras.Input((None,), dtype="int32", name="words")
    h = layers.Embedding(vocabulary, embedding, mask_zero=True)(words)
    h = layers.SpatialDropout1D(0.2)(h)
    word_states = layers.Bidirectional(layers.GRU(units, return_sequences=True))(h)
    word_attention = AttentionPooling(name="word_attention")
    sentence = keras.Model(words, word_attention(word_states), name="sentence")

    document = keras.Input((None, None), dtype="int32", name="document")
    h = layers.TimeDistributed(sentence, name="sentences")(document)
    sentence_states = layers.Bidirectional(layers.GRU(units, return_sequences=True))(h)
    sentence_attention = AttentionPooling(name="sentence_attention")
    h = layers.Dropout(0.4)(sentence_attention(sentence_states))
    model = keras.Model(document, layers.Dense(classes, activation="softmax")(h), name="han")
    return model, keras.Model(words, word_states), keras.Model(document, sentence_states)


def read_table(path: Path, text: str, label: str) -> tuple[list[str], list[str]]:
    """Returns texts and labels of a CSV or JSONL file."""
    if not path.is_file():
        sys.exit(f"there is no file {path}")
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in file if line.strip()]
        else:
            rows = list(csv.DictReader(file))
    if not rows:
        sys.exit(f"{path} has no rows")
    for column in (text, label):
        if column not in rows[0]:
            sys.exit(f"{path} has no column {column!r}; it has {', '.join(map(repr, rows[0]))}")
    pairs = [(str(r[text]), str(r[label])) for r in rows if r.get(text) and r.get(label)]
    if len({y for _, y in pairs}) < 2:
        sys.exit(f"column {label!r} of {path} has fewer than two classes")
    return [t for t, _ in pairs], [y for _, y in pairs]


def split(texts: list[str], labels: list[str], seed: int) -> list[tuple[list[str], list[str]]]:
    """Returns training, validation and test pairs; no text stands in two of them."""
    once = list(
        {" ".join(t.lower().split()): (t, y) for t, y in zip(texts, labels, strict=True)}.values()
    )
    random.Random(seed).shuffle(once)
    first, second = int(0.75 * len(once)), int(0.85 * len(once))
    parts = once[:first], once[first:second], once[second:]
    return [([t for t, _ in part], [y for _, y in part]) for part in parts]


def to_words(texts: list[str]) -> list[list[list[str]]]:
    """Returns each text as sentences of words."""
    parts = keras.preprocessing.text.text_to_word_sequence
    documents = []
    for text in texts:
        sentences = [parts(s)[:MOST_WORDS] for s in docstrings.sentences(text)]
        documents.append([s for s in sentences if s][:MOST_SENTENCES] or [["empty"]])
    return documents


def to_ids(tokenizer: Tokenizer, documents: list[list[list[str]]]) -> list[list[list[int]]]:
    """Returns the words' ids in the same lists."""
    return [tokenizer.texts_to_sequences(document) for document in documents]


def report(truth: np.ndarray, found: np.ndarray, names: list[str]) -> np.ndarray:
    """Prints precision, recall and F1 of each class; returns the confusion matrix."""
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, (truth, found), 1)
    print(f"\n{'class':<18}{'precision':>10}{'recall':>8}{'F1':>6}{'rows':>6}")
    for i, name in enumerate(names):
        precision = matrix[i, i] / max(matrix[:, i].sum(), 1)
        recall = matrix[i, i] / max(matrix[i].sum(), 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        print(f"{name:<18}{precision:>10.2f}{recall:>8.2f}{f1:>6.2f}{matrix[i].sum():>6}")
    return matrix


def main() -> None:
    """Trains, measures, draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, help="CSV or JSONL with your own texts")
    parser.add_argument("--text", default="text", help="the column with the texts")
    parser.add_argument("--label", default="label", help="the column with the classes")
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    began = time.perf_counter()
    keras.utils.set_random_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)

    if options.file is None:
        texts, labels = docstrings.load(options.seed)
    else:
        texts, labels = read_table(options.file, options.text, options.label)
    names = sorted(set(labels))
    parts = split(texts, labels, options.seed)
    documents = [to_words(part) for part, _ in parts]
    targets = [np.array([names.index(y) for y in part]) for _, part in parts]

    tokenizer = Tokenizer(num_words=10000, oov_token="<unknown>")
    tokenizer.fit_on_texts(sentence for document in documents[0] for sentence in document)
    ids = [to_ids(tokenizer, part) for part in documents]
    vocabulary = min(10000, len(tokenizer.word_index) + 1)
    print(f"{len(texts)} documents of {len(names)} classes, {vocabulary} words")

    model, word_states, sentence_states = build_model(vocabulary, len(names))
    model.summary()
    model.compile(
        keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=3, restore_best_weights=True)
    history = model.fit(
        ids[0],
        targets[0],
        epochs=options.epochs,
        validation_data=(ids[1], targets[1]),
        callbacks=[stop],
    )

    shares = model.predict(ids[2], verbose=0)
    found = shares.argmax(-1)
    majority = Counter(targets[0].tolist()).most_common(1)[0][0]
    matrix = report(targets[2], found, names)
    print(
        f"\nheld-out accuracy {np.mean(found == targets[2]):.3f}"
        f" (always the largest class: {np.mean(targets[2] == majority):.3f})"
    )

    history.plot(["loss", "accuracy"], to_file=options.out / "history.png")
    keras.utils.plot_model(
        model,
        options.out / "model.png",
        show_shapes=True,
        show_layer_names=True,
        expand_nested=True,
    )
    reporting.plot_confusion(matrix, names, options.out / "confusion.png")
    right = [i for i in np.argsort(-shares.max(-1)) if found[i] == targets[2][i]]
    chosen = next((i for i in right if 4 <= len(ids[2][i]) <= 9), right[0] if right else 0)
    document = documents[2][chosen]
    # A document is a batch of sentences to the inner model, and one row to the outer one.
    sentences = pad_sequences(ids[2][chosen], padding="post")
    states = sentence_states(sentences[None])
    sentence_weights = model.get_layer("sentence_attention").weights_of(states)[0, :, 0]
    inner = model.get_layer("sentences").layer.get_layer("word_attention")
    word_weights = np.asarray(inner.weights_of(word_states(sentences)))[:, :, 0]
    title = f"{names[found[chosen]]} ({shares[chosen].max():.2f})"
    for ending in ("png", "svg"):
        path = options.out / f"attention.{ending}"
        keras.viz.attention(
            word_weights, document, outer=sentence_weights, title=title, to_file=path
        )
    model.save_weights(options.out / "model.weights.h5")
    (options.out / "vocabulary.json").write_text(tokenizer.to_json(), encoding="utf-8")
    print(f"pictures, weights and vocabulary in {options.out}/")
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
