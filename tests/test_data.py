"""Data in all the forms that they come in: each gives what plain padded arrays give."""

import math

import numpy as np
import pandas as pd
import pytest

import alphorn
from alphorn.core.masked import Masked
from alphorn.errors import DataError
from alphorn.layers import Dense, Embedding, GlobalAveragePooling1D, Masking, TimeDistributed
from alphorn.training.data import Table, class_weights
from nets import (
    CLASS_WEIGHTS,
    CLASSIFYING,
    IDS,
    LABELS,
    RAGGED,
    STEP_LABELS,
    STEP_WEIGHTS,
    WEIGHTS,
    WORDS,
    X,
    Y,
    compiled,
    forked,
    gap,
    mlp,
    ready,
    start,
    tagger,
)

SHORT = {"batch_size": 4, "verbose": 0}
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
COLUMNS = {k: np.asarray(v)[:, None] for k, v in FRAME.items()}


@pytest.fixture(scope="module")
def reader():
    """Named inputs of one column each."""
    inputs = {k: alphorn.Input((1,), name=k) for k in "abc"}
    model = alphorn.Model(inputs, Dense(1)(alphorn.layers.Concatenate()(list(inputs.values()))))
    model.set_weights(start(model))
    model.compile(alphorn.optimizers.SGD(0.0), "mse", metrics=["mae"])
    return model


@pytest.fixture(scope="module")
def labeller():
    model = tagger(alphorn)
    model.set_weights(start(model))
    model.compile(alphorn.optimizers.SGD(0.0), CLASSIFYING["loss"], metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def fork():
    model = forked(alphorn)
    model.set_weights(start(model))
    model.compile(alphorn.optimizers.SGD(0.0), ["mse", CLASSIFYING["loss"]])
    return model


def still(model):
    """A model whose figures stay: the learning rate is 0."""
    model.optimizer.learning_rate = 0.0
    return model


def figures(model, *args, **options) -> dict:
    return model.evaluate(*args, return_dict=True, verbose=0, **options)


TABLES = {
    "lists": (X.tolist(), Y.tolist()),
    "tuples": (tuple(map(tuple, X.tolist())), tuple(map(tuple, Y.tolist()))),
    "rows": (list(X), list(Y)),
    "float64": (X.astype("float64"), Y.astype("float64")),
    "objects": (X.astype(object), Y.astype(object)),
    "frame": (FRAME, pd.DataFrame(Y)),
    "frame and series": (FRAME, pd.Series(Y[:, 0])),
    "series": (FRAME, pd.Series(Y[:, 0], index=range(5, 15))),
    "jax": (alphorn.ops.add(X, 0.0), alphorn.ops.add(Y, 0.0)),
    "read only": (np.broadcast_to(X, X.shape), Y),
    "strided": (np.asfortranarray(X), Y[::1]),
    "flat y": (X, Y[:, 0]),
}


@pytest.mark.parametrize("form", TABLES)
def test_tables_of_any_kind(form):
    expected = figures(ready(), X, Y, batch_size=4)
    x, y = TABLES[form]
    model = ready()
    assert figures(model, x, y, batch_size=4) == expected
    assert gap(model.predict(x, verbose=0), model.predict(X, verbose=0)) == 0
    history = still(model).fit(x, y, **SHORT, validation_data=(x, y)).history
    assert history["loss"] == [pytest.approx(expected["loss"], rel=1e-6)]
    assert history["val_loss"] == [pytest.approx(expected["loss"], rel=1e-6)]


INTEGERS = ["int64", "int16", "uint8", "uint64", "float32", "float64", "object"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_ids_and_labels_of_any_number_type(labeller, dtype):
    expected = figures(labeller, IDS, STEP_LABELS)
    assert figures(labeller, IDS.astype(dtype), STEP_LABELS.astype(dtype)) == expected


def test_columns_of_a_frame_are_inputs_by_name(reader):
    expected = figures(reader, COLUMNS, Y)
    for x in (FRAME, dict(FRAME.items()), {k: list(v) for k, v in FRAME.items()}, dict(COLUMNS)):
        assert figures(reader, x, Y) == expected
        assert gap(reader.predict(x, verbose=0), reader.predict(COLUMNS, verbose=0)) == 0
        history = reader.fit(x, Y, verbose=0, validation_split=0.5).history
        assert set(history) == {"loss", "mae", "val_loss", "val_mae"}
    with pytest.raises(DataError, match=r"inputs by name[\s\S]*c is missing"):
        reader.evaluate(FRAME[["a", "b"]], Y, verbose=0)


def batches(size=4, x=X, y=Y, weight=None, forever=False):
    while True:
        for i in range(0, len(x), size):
            rows = slice(i, i + size)
            yield (x[rows], y[rows]) if weight is None else (x[rows], y[rows], weight[rows])
        if not forever:
            return


class Sequence:
    """What Keras calls a PyDataset."""

    def __init__(self, size=4):
        self.size, self.epochs, self.asked = size, 0, []

    def __len__(self):
        return math.ceil(len(X) / self.size)

    def __getitem__(self, i):
        self.asked.append(i)
        return X[i * self.size : (i + 1) * self.size], Y[i * self.size : (i + 1) * self.size]

    def on_epoch_end(self):
        self.epochs += 1


class Loader:
    """An iterable that begins anew, as loaders of other libraries."""

    def __iter__(self):
        return batches()


def test_streams_of_any_kind():
    def weights_after(x, **options):
        model = ready()
        history = model.fit(x, verbose=0, **options).history
        return history["loss"], model.get_weights()

    model = ready()
    losses = model.fit(X, Y, epochs=2, shuffle=False, **SHORT).history["loss"]
    weights = model.get_weights()
    streams = {
        "dataset": (Sequence(), {}),
        "loader": (Loader(), {}),
        "endless": (batches(forever=True), {"steps_per_epoch": 3}),
        "list of batches": ([0], None),
    }
    for name, (stream, options) in streams.items():
        if options is None:
            continue
        found = weights_after(stream, epochs=2, **options)
        assert gap(found[0], losses) < 1e-6, name
        assert gap(found[1], weights) < 1e-6, name
    dataset = streams["dataset"][0]
    assert dataset.epochs == 2
    assert dataset.asked == [0, 1, 2, 0, 1, 2]


def test_a_generator_that_ends_says_so():
    model = ready()
    with pytest.warns(UserWarning, match=r"the data ended.*steps_per_epoch"):
        history = model.fit(batches(), epochs=3, verbose=0)
    assert len(history.history["loss"]) == 1
    with pytest.warns(UserWarning, match=r"the data ended.*steps_per_epoch"):
        history = model.fit(batches(), epochs=3, steps_per_epoch=2, verbose=0)
    assert len(history.epoch) == 2


def test_streams_are_validated_evaluated_and_predicted():
    model = still(ready())
    expected = figures(model, X, Y)
    for make in (Sequence, Loader, batches):
        assert figures(model, make()) == pytest.approx(expected, rel=1e-6)
        history = model.fit(X, Y, validation_data=make(), **SHORT).history
        assert history["val_loss"] == [pytest.approx(expected["loss"], rel=1e-6)]
        assert gap(model.predict(make(), verbose=0), model.predict(X, verbose=0)) == 0
    history = model.fit(
        X, Y, validation_data=batches(forever=True), validation_steps=3, epochs=2, **SHORT
    ).history
    assert history["val_loss"] == pytest.approx([expected["loss"]] * 2, rel=1e-6)
    weighted = batches(weight=WEIGHTS)
    by_rows = figures(model, X, Y, sample_weight=WEIGHTS)
    assert figures(model, weighted) == pytest.approx(by_rows, rel=1e-6)


def test_an_endless_stream_needs_a_number_of_steps():
    model = ready()
    with pytest.raises(DataError, match="targets inside the data"):
        model.fit(batches(), Y, verbose=0)
    with pytest.raises(DataError, match=r"validation_split[\s\S]*a known end"):
        model.fit(batches(), validation_split=0.2, verbose=0)
    with pytest.raises(DataError, match=r"a tuple of 4[\s\S]*sample_weight"):
        model.fit(iter([(X, Y, Y, Y)]), verbose=0)


def test_lists_of_lists_and_their_padding_say_the_same(labeller):
    expected = figures(labeller, IDS, STEP_LABELS)
    tags = [labels[: len(row)].tolist() for labels, row in zip(STEP_LABELS, RAGGED, strict=True)]
    objects = np.empty(len(RAGGED), object)
    objects[:] = [np.array(row) for row in RAGGED]
    forms = [RAGGED, tuple(RAGGED), [np.array(r) for r in RAGGED], [tuple(r) for r in RAGGED]]
    for x in (*forms, objects):
        assert figures(labeller, x, tags) == pytest.approx(expected, rel=1e-6)
    history = labeller.fit(RAGGED, tags, validation_data=(RAGGED, tags), **SHORT).history
    assert history["loss"] == [pytest.approx(expected["loss"], rel=1e-6)]
    assert history["val_loss"] == [pytest.approx(expected["loss"], rel=1e-6)]
    history = labeller.fit(RAGGED, tags, validation_split=0.4, shuffle=False, **SHORT).history
    assert history["loss"] == [
        pytest.approx(figures(labeller, IDS[:6], STEP_LABELS[:6])["loss"], rel=1e-6)
    ]
    assert history["val_loss"] == [
        pytest.approx(figures(labeller, IDS[6:], STEP_LABELS[6:])["loss"], rel=1e-6)
    ]


def test_ragged_targets_against_padded_inputs(labeller):
    """A masked y: its own missing steps do not count either."""
    tags = [labels[: len(row)].tolist() for labels, row in zip(STEP_LABELS, RAGGED, strict=True)]
    expected = figures(labeller, IDS, STEP_LABELS)
    assert figures(labeller, IDS, Masked(STEP_LABELS, IDS != 0)) == pytest.approx(expected)
    half = np.arange(6) < 2
    cut = figures(labeller, IDS, Masked(STEP_LABELS, (IDS != 0) & half))
    weights = np.broadcast_to(half, IDS.shape).astype("float32")
    counted = (IDS != 0).sum() / ((IDS != 0) & half).sum()
    whole = figures(labeller, IDS, STEP_LABELS, sample_weight=weights)
    assert cut["loss"] == pytest.approx(whole["loss"] * counted, rel=1e-5)
    ragged_weights = [list(w[: len(r)]) for w, r in zip(STEP_WEIGHTS, RAGGED, strict=True)]
    found = figures(labeller, RAGGED, tags, sample_weight=ragged_weights)
    assert found == pytest.approx(
        figures(labeller, IDS, STEP_LABELS, sample_weight=STEP_WEIGHTS), rel=1e-5
    )


def test_rows_of_feature_vectors_of_unequal_lengths():
    random = np.random.default_rng(0)
    rows = [random.normal(size=(n, 2)).astype("float32") for n in (3, 1, 5, 0, 2)]
    x = alphorn.Input((None, 2))
    model = alphorn.Model(x, GlobalAveragePooling1D()(Dense(3, "tanh")(x)))
    model.set_weights(start(model))
    for form in (rows, [r.tolist() for r in rows]):
        found = model.predict(form, verbose=0)
        for row, output in zip(rows, found, strict=True):
            if len(row):
                assert gap(output, model.predict(row[None], verbose=0)[0]) < 1e-5
            else:
                assert not output.any()
    padded = np.full((5, 7, 2), 9, "float32")
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    y = alphorn.Input((7, 2))
    masked = alphorn.Model(y, model(Masking(9.0)(y)))
    assert gap(masked.predict(padded, verbose=0), model.predict(rows, verbose=0)) < 1e-5


def test_documents_of_sentences_of_words():
    documents = [[[1, 2], [3]], [[4, 5, 6]], [], [[], [7]], [[2, 0, 3], [1]]]
    x = alphorn.Input((None, None), dtype="int32")
    sentences = TimeDistributed(GlobalAveragePooling1D())(Embedding(WORDS, 3)(x))
    model = alphorn.Model(x, GlobalAveragePooling1D()(sentences))
    model.set_weights(start(model))
    vectors = model.get_weights()[0]
    found = model.predict(documents, verbose=0)
    assert found.shape == (5, 3)
    for document, output in zip(documents, found, strict=True):
        means = [vectors[s].mean(0) for s in document if s]  # a sentence of nothing does not count
        expected = np.mean(means, 0) if means else np.zeros(3)
        assert gap(output, expected) < 1e-5 or np.abs(output - expected).max() < 1e-6


def test_the_id_zero_in_a_list_is_a_word():
    """The mask of a list is its length: zeros in it are values, unless the layer says otherwise."""
    x = alphorn.Input((None,), dtype="int32")
    model = alphorn.Model(x, GlobalAveragePooling1D()(Embedding(WORDS, 3)(x)))
    model.set_weights(start(model))
    vectors = model.get_weights()[0]
    found = model.predict([[0, 0], [0, 1, 2], [0]], verbose=0)
    for row, output in zip([[0, 0], [0, 1, 2], [0]], found, strict=True):
        assert gap(output, vectors[row].mean(0)) < 1e-6


def test_rows_of_one_length_are_an_array():
    table = Table([[1, 2], [3, 4]])
    assert not table.ragged
    assert table.batch(slice(0, 2)).x.shape == (2, 2)
    assert Table([[[1], [2]], [[3]]]).ragged


def test_lists_of_several_inputs_of_unequal_lengths():
    a, b = (alphorn.Input((None,), dtype="int32", name=n) for n in "ab")
    shared = Embedding(WORDS, 3)
    pool = GlobalAveragePooling1D()
    both = alphorn.layers.Concatenate()([pool(shared(a)), pool(shared(b))])
    model = alphorn.Model([a, b], both)
    model.set_weights(start(model))
    vectors = model.get_weights()[0]
    left, right = [[1, 2], [3]], [[4], [5, 6, 7]]
    expected = np.stack(
        [np.r_[vectors[p].mean(0), vectors[q].mean(0)] for p, q in zip(left, right, strict=True)]
    )
    for x in ([left, right], (left, right), {"a": left, "b": right}):
        assert gap(model.predict(x, verbose=0), expected) < 1e-6


def test_dicts_of_targets_and_weights(fork):
    x = {"a": X, "b": X}
    expected = figures(fork, [X, X], [Y, LABELS], sample_weight=[WEIGHTS, WEIGHTS[::-1]])
    y, weights = {"p": Y, "q": LABELS}, {"p": WEIGHTS, "q": WEIGHTS[::-1]}
    assert figures(fork, x, y, sample_weight=weights) == expected
    assert figures(fork, [X, X], y, sample_weight=list(weights.values())) == expected
    history = fork.fit(x, y, sample_weight=weights, validation_data=(x, y, weights), **SHORT)
    assert history.history["val_loss"] == [pytest.approx(expected["loss"], rel=1e-6)]
    one = figures(fork, x, y, sample_weight={"p": WEIGHTS})
    assert one["p_loss"] == pytest.approx(expected["p_loss"], rel=1e-6)
    assert one["q_loss"] == pytest.approx(figures(fork, x, y)["q_loss"], rel=1e-6)
    split = fork.fit(x, y, sample_weight=weights, validation_split=0.3, shuffle=False, **SHORT)
    rows = slice(7, None)
    kept = figures(
        fork,
        {k: v[rows] for k, v in x.items()},
        {k: v[rows] for k, v in y.items()},
        sample_weight={k: v[rows] for k, v in weights.items()},
    )
    assert split.history["val_loss"] == [pytest.approx(kept["loss"], rel=1e-6)]
    with pytest.raises(
        DataError, match=r"class_weight[\s\S]*targets of 2 outputs[\s\S]*sample_weight"
    ):
        fork.fit(x, y, class_weight=CLASS_WEIGHTS, **SHORT)
    with pytest.raises(DataError, match=r"names of outputs: p, q"):
        fork.evaluate(x, {"r": Y}, verbose=0)


def test_weights_of_classes_by_any_form_of_labels():
    by_class = np.vectorize(CLASS_WEIGHTS.get)
    expected, steps = (by_class(y).astype("float32") for y in (LABELS, STEP_LABELS))
    one_hot = np.eye(3, dtype="float32")
    for labels, hot, weights in (
        (LABELS, False, expected),
        (LABELS[:, None], False, expected),
        (one_hot[LABELS], True, expected),
        (STEP_LABELS, False, steps),
        (one_hot[STEP_LABELS], True, steps),
        (STEP_LABELS[..., None], False, steps),
    ):
        assert gap(class_weights(labels, None, CLASS_WEIGHTS, hot), weights) == 0
    both = class_weights(STEP_LABELS, WEIGHTS, CLASS_WEIGHTS, False)
    assert gap(both, steps * WEIGHTS[:, None]) < 1e-6


def test_a_sequence_of_zeros_and_ones_is_no_one_hot_row():
    def binary(K):
        x = K.Input((None,), dtype="int32")
        return K.Model(x, Dense(1, "sigmoid")(Embedding(WORDS, 4, mask_zero=True)(x)))

    model = compiled(binary, optimizer=alphorn.optimizers.SGD(0.0), loss="binary_crossentropy")
    tags = STEP_LABELS % 2
    weights = np.where(tags == 1, 3.0, 1.0).astype("float32")
    expected = figures(model, IDS, tags, sample_weight=weights)["loss"]
    options = {"class_weight": {1: 3.0}, "shuffle": False, **SHORT}
    for labels in (tags, tags[..., None]):
        assert model.fit(IDS, labels, **options).history["loss"] == [pytest.approx(expected)]
    with pytest.raises(DataError, match=r"class_weight[\s\S]*no targets"):
        model.fit(IDS, **options)


def test_class_weights_of_one_hot_labels_are_those_of_numbers():
    options = {"class_weight": CLASS_WEIGHTS, "shuffle": False, **SHORT}
    sparse = compiled(mlp, optimizer="sgd", loss="sparse_categorical_crossentropy")
    expected = sparse.fit(X, LABELS, **options).history["loss"]
    dense = compiled(mlp, optimizer="sgd", loss="categorical_crossentropy")
    found = dense.fit(X, np.eye(3, dtype="float32")[LABELS], **options).history["loss"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_data_that_do_not_fit_together():
    model = ready()
    with pytest.raises(DataError, match=r"unequal numbers of rows[\s\S]*x: 10, y: 9"):
        model.fit(X, Y[:9], verbose=0)
    with pytest.raises(DataError, match=r"x: 10, y: 10, sample_weight: 9"):
        model.fit(X, Y, sample_weight=WEIGHTS[:9], verbose=0)
    for empty in ([], np.zeros((0, 3)), FRAME[:0]):
        with pytest.raises(DataError, match=r"empty[\s\S]*0 rows"):
            model.predict(empty, verbose=0)
    with pytest.raises(DataError, match=r"x=None"):
        model.fit(verbose=0)
    with pytest.raises(DataError, match=r"'blue'[\s\S]*numbers"):
        model.predict(pd.DataFrame({"a": [1.0, 2], "b": ["blue", "red"], "c": [1, 2]}), verbose=0)
    with pytest.raises(DataError, match=r"text[\s\S]*Tokenizer"):
        model.predict(np.array(["a", "b"]), verbose=0)
    with pytest.raises(DataError, match=r"validation_split[\s\S]*1.0 of 10 rows"):
        model.fit(X, Y, validation_split=1.0, verbose=0)
    with pytest.raises(DataError, match=r"x[\s\S]*float[\s\S]*an array"):
        model.predict(3.0, verbose=0)
    with pytest.raises(DataError, match=r"batch_size[\s\S]*at least 1"):
        model.predict(X, batch_size=0, verbose=0)


@pytest.mark.parametrize(
    ("rows", "step"),
    [([[1, 2], ["a"]], "'a'"), ([["a"], [1, 2]], "'a'"), ([[1, None], [2, 3, 4]], "None")],
)
def test_a_step_that_is_no_number_is_shown(rows, step):
    with pytest.raises(
        DataError, match=rf"x: rows of unequal lengths[\s\S]*{step} among the steps"
    ):
        Table(rows)


def test_inputs_and_outputs_of_equal_shapes_are_split_by_rows():
    first, last = Table([X, X + 1], [Y, -Y], inputs=2, outputs=2).split(0.3)
    for part, rows in ((first, slice(0, 7)), (last, slice(7, None))):
        assert part.rows == len(X[rows])
        x, y, _ = part.tables
        assert np.array_equal(x[1], X[rows] + 1) and np.array_equal(y[1], -Y[rows])
