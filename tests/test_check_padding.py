"""`check_padding`: it finds the layer that padding changes, and leaves the model as it was."""

import numpy as np
import pytest

import alphorn
from alphorn import ops
from alphorn.errors import ArgumentError, DataError
from alphorn.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Conv1D,
    Dense,
    Dropout,
    Embedding,
    GlobalMaxPooling1D,
    Lambda,
    Layer,
    Masking,
    RemoveMask,
    TimeDistributed,
)
from alphorn.preprocessing.sequence import pad_sequences

ROWS = [[1, 2], [3, 4, 5], [6], [1, 2, 3, 4, 5, 6]]
TARGETS = np.array([[0.0], [1.0], [1.0], [0.0]], "float32")


class PlainMean(Layer):
    def call(self, x):
        return ops.mean(ops.unmask(x), axis=1)


class Penalized(Layer):
    """Gives right outputs, and a loss that counts padding."""

    def call(self, x):
        self.add_loss(ops.mean(ops.unmask(x) + 1.0))
        return x


def sequential(*stack, **options):
    return alphorn.Sequential([Embedding(9, 4, mask_zero=True), *stack], **options)


def functional(pool):
    ids = alphorn.Input((None,), dtype="int32")
    h = LSTM(4, return_sequences=True)(Embedding(9, 4, mask_zero=True)(ids))
    return alphorn.Model(ids, Dense(2)(pool(h)), name="text")


class Own(alphorn.Model):
    def __init__(self, pool):
        super().__init__()
        self.embedding, self.pool = Embedding(9, 4, mask_zero=True), pool

    def call(self, x):
        return self.pool(self.embedding(x))


def hierarchical(pool):
    words = alphorn.Input((None,), dtype="int32")
    sentence = alphorn.Model(words, pool(Embedding(9, 4, mask_zero=True)(words)))
    document = alphorn.Input((None, None), dtype="int32")
    return alphorn.Model(document, GRU(3)(TimeDistributed(sentence, name="each")(document)))


DOCUMENTS = [[[1, 2], [3]], [[4, 5, 6], [7], [1, 1]]]
PADDED = pad_sequences(ROWS, padding="post")


def check(model, *data, **options):
    said = []
    report = alphorn.check_padding(model, *data, print_fn=said.append, **options)
    assert said == [report.verdict] == [str(report)]
    return report


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (lambda: sequential(Conv1D(5, 3, padding="same", strides=2), GRU(3)), ROWS),
        (lambda: functional(GlobalMaxPooling1D()), PADDED),
        (lambda: functional(GlobalMaxPooling1D()), pad_sequences(ROWS)),
        (lambda: Own(GlobalMaxPooling1D()), ROWS),
        (lambda: hierarchical(GlobalMaxPooling1D()), DOCUMENTS),
        (lambda: sequential(LSTM(3, return_sequences=True)), ROWS),
    ],
    ids="lists behind front subclass nested steps".split(),
)
def test_what_holds_is_said_to_hold(model, data):
    report = check(model(), data)
    assert report.holds
    assert report.layer is None
    assert report.largest_difference < 1e-5
    changes = {c.change for c in report.checks}
    assert "more padding" in changes
    assert any(c.endswith("alone") for c in changes)
    assert ("other numbers in padding" in changes) == isinstance(data, list)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (lambda: functional(PlainMean(name="pool")), ROWS),
        (lambda: functional(PlainMean(name="pool")), PADDED),
        (lambda: functional(Lambda(lambda x: ops.sum(ops.unmask(x), 1), name="pool")), ROWS),
        (lambda: Own(PlainMean(name="pool")), ROWS),
        (lambda: alphorn.Sequential([functional(PlainMean(name="pool")), Dense(1)]), ROWS),
    ],
    ids="lists padded lambda subclass inner".split(),
)
def test_the_layer_that_reads_padding_is_named(model, data):
    report = check(model(), data)
    assert not report.holds
    assert report.layer == "pool"
    assert "first at layer 'pool'" in report.verdict
    assert "to mend it: its call reads padding: on ops" in report.verdict
    assert report.largest_difference > 1e-2


def test_a_layer_inside_folded_rows_is_answered_for_by_its_wrapper():
    report = check(hierarchical(PlainMean()), DOCUMENTS)
    assert not report.holds
    assert report.layer == "each"


def test_where_no_mask_comes_the_way_is_said():
    report = check(sequential(RemoveMask(), GlobalMaxPooling1D(name="top")), ROWS)
    assert report.layer == "top"
    assert "no mask comes to it" in report.verdict


def test_padding_that_is_not_a_number_shows():
    ids = alphorn.Input((None,), dtype="int32")
    h = Embedding(9, 4, mask_zero=True)(ids)
    model = alphorn.Model(ids, PlainMean()(Lambda(lambda x: 1.0 / ops.unmask(x))(h)))
    report = check(model, ROWS)
    assert not report.holds
    assert report.largest_difference == np.inf


def test_loss_and_gradients_are_compared():
    model = sequential(GRU(3), Dense(1))
    model.compile("adam", "mse")
    report = check(model, ROWS, TARGETS)
    assert report.holds
    assert {c.what for c in report.checks} == {"outputs", "loss", "gradients"}
    model = sequential(Penalized(), GRU(3), Dense(1))
    model.compile("adam", "mse")
    report = check(model, ROWS, TARGETS)
    assert not report.holds
    assert report.layer is None
    assert "loss, by more padding" in report.verdict
    assert "add_loss" in report.verdict


@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_a_step_in_training(weighted):
    model = sequential(LSTM(4, return_sequences=True), Dropout(0.5), BatchNormalization(), Dense(3))
    model.compile("adam", "mse")
    targets = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    weights = np.linspace(0.5, 2, 24).reshape(4, 6).astype("float32") if weighted else None
    report = check(model, PADDED, targets, weights, training=True)
    assert report.holds
    assert not any(c.change.endswith("alone") for c in report.checks)


def test_several_inputs():
    ids, sensor = alphorn.Input((None,), dtype="int32"), alphorn.Input((None, 2))
    h = [GRU(3)(Embedding(9, 4, mask_zero=True)(ids)), GRU(3)(Masking()(sensor))]
    model = alphorn.Model([ids, sensor], alphorn.layers.add(h))
    rows = [np.full((n, 2), 0.5, "float32") for n in (4, 1, 2, 3)]
    assert check(model, [ROWS, rows]).holds


def test_the_model_stays_as_it_was():
    model = sequential(LSTM(4, return_sequences=True), Dropout(0.5), BatchNormalization(), Dense(1))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(PADDED, np.zeros((4, 6, 1), "float32"), verbose=0)
    held = [
        *model.variables,
        *model.optimizer.variables,
        *(v for m in model.metrics for v in m.variables),
    ]
    before = [np.array(v.value) for v in held]
    check(model, PADDED, np.zeros((4, 6, 1), "float32"), training=True)
    for variable, value in zip(held, before, strict=True):
        assert np.array_equal(variable.value, value)


def test_a_fixed_number_of_steps_is_said():
    ids = alphorn.Input((6,), dtype="int32")
    model = alphorn.Model(ids, GRU(3)(Embedding(9, 4, mask_zero=True)(ids)))
    report = check(model, PADDED)
    assert report.checks == ()
    assert "fixed number of steps" in report.verdict


def test_bad_input_is_named():
    with pytest.raises(ArgumentError, match="check_padding: model"):
        alphorn.check_padding(Dense(1), ROWS)
    with pytest.raises(DataError, match="nothing is padding"):
        alphorn.check_padding(alphorn.Sequential([Dense(1)]), np.ones((2, 3), "float32"))
    with pytest.raises(DataError, match="take one batch"):
        alphorn.check_padding(sequential(GRU(2)), (row for row in ROWS))


def test_the_screen_shows_the_verdict(capsys):
    alphorn.check_padding(sequential(GRU(2)), ROWS)
    assert "Padding changes nothing in 'sequential'." in capsys.readouterr().out
