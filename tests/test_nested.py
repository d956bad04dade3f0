"""Nested masks: documents of sentences of words get what each gets alone."""

import functools
from typing import Any

import numpy as np
import pytest

import alphorn
from alphorn import ops
from alphorn.core.masked import Masked, mask_of, unmask
from test_metrics import close

layers = alphorn.layers
WORDS = 9
# Sentences without words stand between, in front and behind; a document may have none at all.
DOCUMENTS = [
    [[1, 2, 3], [4], [5, 6]],
    [[7], [], [8, 1, 2, 3]],
    [[], [2, 2]],
    [[3, 4, 5, 6]],
]
SIZES = (len(DOCUMENTS), 3, 4)


def padded(documents: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Returns nested lists as one array of ids, 0 where nothing is."""
    found = np.zeros(shape, "int32")
    for i, part in enumerate(documents):
        found[i] = padded(part, shape[1:]) if isinstance(part, list) else part
    return found


IDS = padded(DOCUMENTS, SIZES)
NONE = np.concatenate([IDS, np.zeros((1, *SIZES[1:]), "int32")])  # and a document of nothing


def cut(document: list) -> np.ndarray:
    """Returns a document by itself: sentences with words only, no longer than the longest."""
    sentences = [s for s in document if s]
    return padded([sentences], (1, len(sentences), max(map(len, sentences))))


def flat_masked() -> Any:
    """The mask is born on all words at once."""
    ids = alphorn.Input((None, None), dtype="int32")
    words = layers.Embedding(WORDS, 4, mask_zero=True)(ids)
    sentences = layers.TimeDistributed(layers.LSTM(3))(words)
    return alphorn.Model(ids, layers.Dense(2)(layers.LSTM(5)(sentences)))


def sentence_model() -> Any:
    words = alphorn.Input((None,), dtype="int32")
    h = layers.Embedding(WORDS, 4, mask_zero=True)(words)
    return alphorn.Model(words, layers.GRU(3)(h))


def born_inside() -> Any:
    """The mask is born in the model of one sentence."""
    ids = alphorn.Input((None, None), dtype="int32")
    sentences = layers.TimeDistributed(sentence_model())(ids)
    return alphorn.Model(ids, layers.Dense(2)(layers.Bidirectional(layers.LSTM(5))(sentences)))


def with_statistics() -> Any:
    """Normalization, convolution and pooling of words, then of sentences."""
    ids = alphorn.Input((None, None), dtype="int32")
    h = layers.Embedding(WORDS, 4, mask_zero=True)(ids)
    h = layers.LayerNormalization()(layers.BatchNormalization()(h))
    h = layers.TimeDistributed(layers.Conv1D(3, 3, padding="same", activation="relu"))(h)
    h = layers.TimeDistributed(layers.GlobalMaxPooling1D())(h)
    h = layers.MaxPooling1D(2, padding="same")(layers.BatchNormalization()(h))
    return alphorn.Model(ids, layers.Dense(2)(layers.GlobalAveragePooling1D()(h)))


def by_operations() -> Any:
    """Means over words, then over sentences, by a user's own function."""

    def mean(x: Any) -> Any:
        return ops.mean(ops.mean(x, axis=2), axis=1)

    ids = alphorn.Input((None, None), dtype="int32")
    h = layers.Embedding(WORDS, 4, mask_zero=True)(ids)
    return alphorn.Model(ids, layers.Dense(2)(layers.Lambda(mean)(h)))


MAKERS = [flat_masked, born_inside, with_statistics, by_operations]


@functools.cache
def ready(make: Any) -> Any:
    model = make()
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=w.shape).astype("float32") for w in model.weights])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(np.abs(layer.moving_variance.value))
    model.compile(alphorn.optimizers.SGD(0.0), "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize("make", MAKERS, ids=lambda m: m.__name__)
def test_a_document_gets_what_it_gets_alone(make: Any) -> None:
    model = ready(make)
    together = model.predict(IDS, verbose=0)
    wider = model.predict(np.pad(IDS, ((0, 0), (0, 2), (0, 3))), verbose=0)
    lists = model.predict([[s for s in d if s] for d in DOCUMENTS], verbose=0)
    for i, document in enumerate(DOCUMENTS):
        alone = model.predict(cut(document), verbose=0)[0]
        for found in (together, wider, lists):
            if make is with_statistics and [] in document and found is not lists:
                continue  # a missing sentence inside is a step of a window; see below
            close(found[i], alone, 2e-5, f"document {i}")
    assert np.isfinite(model.predict(NONE, verbose=0)).all()


@pytest.mark.parametrize("make", MAKERS, ids=lambda m: m.__name__)
def test_training_on_nested_lists(make: Any) -> None:
    model = ready(make)
    y = np.random.default_rng(2).normal(size=(len(DOCUMENTS), 2)).astype("float32")
    whole = model.evaluate(IDS, y, verbose=0, return_dict=True)
    parts = model.evaluate(DOCUMENTS, y, batch_size=2, verbose=0, return_dict=True)
    for name, figure in whole.items():
        close(parts[name], figure, 2e-5)
    if make is not with_statistics:  # whose statistics belong to a batch
        trained = model.fit(DOCUMENTS, y, batch_size=2, verbose=0).history
        close(trained["loss"][0], whole["loss"], 2e-5)


def test_statistics_count_words_that_exist() -> None:
    x = np.random.default_rng(3).normal(size=(*SIZES, 4)).astype("float32")
    mask = IDS > 0
    layer = layers.BatchNormalization(momentum=0.0)
    found = layer(Masked(np.where(mask[..., None], x, np.nan), mask), training=True)
    valid = x[mask]
    close(layer.moving_mean.value, valid.mean(0))
    close(layer.moving_variance.value, valid.var(0), 1e-4)
    close(found.data[mask], (valid - valid.mean(0)) / np.sqrt(valid.var(0) + 1e-3), 1e-4)
    assert mask_of(found).shape == mask.shape
    words = layers.LayerNormalization(axis=2)
    found = words(Masked(x, mask))
    row = x[0, 0, :3]
    wanted = (row - row.mean(0)) / np.sqrt(row.var(0) + 1e-3)
    close(unmask(found)[0, 0, :3], wanted, 1e-4)


WINDOWS = {
    "Conv2D": lambda: layers.Conv2D(2, 3),
    "MaxPooling2D": lambda: layers.MaxPooling2D(2),
    "AveragePooling2D": lambda: layers.AveragePooling2D(2),
    "ZeroPadding2D": lambda: layers.ZeroPadding2D(1),
}


@pytest.mark.parametrize("name", [n for n in WINDOWS if hasattr(layers, n)])
def test_windows_across_sentences_are_refused_with_the_way_out(name: str) -> None:
    x = Masked(np.ones((*SIZES, 4), "float32"), IDS > 0)
    with pytest.raises(alphorn.MaskError, match="TimeDistributed"):
        WINDOWS[name]()(x)


# --- two levels


def paragraph_model() -> Any:
    ids = alphorn.Input((None, None), dtype="int32")
    h = layers.TimeDistributed(sentence_model())(ids)
    return alphorn.Model(ids, layers.GRU(3)(h))


BOOKS = [
    [[[1, 2], [3]], [[4, 5, 6]]],
    [[[7]], [], [[8, 1], [], [2]]],
]


def test_two_levels_of_time_distributed() -> None:
    ids = alphorn.Input((None, None, None), dtype="int32")
    paragraph = paragraph_model()
    h = layers.TimeDistributed(paragraph)(ids)
    assert h.masked
    model = alphorn.Model(ids, layers.LSTM(2)(h))
    random = np.random.default_rng(4)
    model.set_weights([random.normal(size=w.shape).astype("float32") for w in model.weights])
    together = model.predict(padded(BOOKS, (2, 3, 3, 3)), verbose=0)
    close(model.predict(BOOKS, verbose=0), together)
    for i, shape in enumerate([(1, 2, 2, 3), (1, 2, 2, 2)]):
        book = [[s for s in p if s] for p in BOOKS[i] if p]
        close(model.predict(padded([book], shape), verbose=0)[0], together[i], 2e-5)
    paragraphs = alphorn.Model(ids, h)(padded(BOOKS, (2, 3, 3, 3)))
    np.testing.assert_array_equal(paragraphs.mask, [[True, True, False], [True, False, True]])


def test_layers_in_two_levels() -> None:
    x = np.random.default_rng(5).normal(size=(2, 3, 3, 3, 4)).astype("float32")
    mask = padded(BOOKS, (2, 3, 3, 3)) > 0
    inner = layers.GRU(3)
    outer = layers.TimeDistributed(layers.TimeDistributed(inner))
    found = outer(Masked(np.where(mask[..., None], x, np.nan), mask))
    np.testing.assert_array_equal(found.mask, mask.any(-1))
    close(found.data[0, 1, 0], unmask(inner(x[0, 1, 0][None]))[0])
    assert not np.asarray(found.data)[~mask.any(-1)].any()


# --- labels and weights of each level


@functools.cache
def marker(level: str) -> Any:
    """Returns a model that gives a number for each word, or for each sentence."""
    ids = alphorn.Input((None, None), dtype="int32")
    h = layers.Embedding(WORDS, 4, mask_zero=True)(ids)
    h = layers.TimeDistributed(layers.GRU(3, return_sequences=level == "words"))(h)
    model = alphorn.Model(ids, layers.Dense(3, activation="softmax")(h))
    model.compile(
        alphorn.optimizers.SGD(0.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return model


@pytest.mark.parametrize("level", ["words", "sentences"])
def test_labels_and_weights_of_each_level(level: str) -> None:
    model = marker(level)
    mask = IDS > 0 if level == "words" else (IDS > 0).any(-1)
    random = np.random.default_rng(6)
    y = random.integers(0, 3, mask.shape).astype("int32")
    pred = np.asarray(unmask(model(IDS)))
    each = -np.log(np.take_along_axis(pred, y[..., None], -1)[..., 0])
    right = pred.argmax(-1) == y
    prefixes = [mask.shape[:n] for n in range(1, mask.ndim + 1)]
    for shape in [None, *prefixes]:
        weight = None if shape is None else random.uniform(0.2, 2, shape).astype("float32")
        full = np.ones(mask.shape)
        if weight is not None:
            full = full * weight.reshape(shape + (1,) * (mask.ndim - weight.ndim))
        wanted = {
            "loss": (each * full)[mask].sum() / mask.sum(),
            "accuracy": right[mask].mean(),
            "weighted_accuracy": (right * full)[mask].sum() / full[mask].sum(),
        }
        options = {"sample_weight": weight, "batch_size": 3, "verbose": 0}
        found = model.evaluate(IDS, y, return_dict=True, **options)
        trained = model.fit(IDS, y, **options).history
        for name, figure in wanted.items():
            close(found[name], figure, 2e-5, f"{name}, weights {shape}")
            close(trained[name][0], figure, 2e-5, f"{name}, weights {shape}")


def test_labels_of_words_as_nested_lists() -> None:
    model = marker("words")
    labels = [[[w % 3 for w in s] for s in d] for d in DOCUMENTS]
    whole = model.evaluate(IDS, IDS % 3, verbose=0, return_dict=True)
    found = model.evaluate(DOCUMENTS, labels, batch_size=2, verbose=0, return_dict=True)
    for name, figure in whole.items():
        close(found[name], figure, 2e-5, name)
