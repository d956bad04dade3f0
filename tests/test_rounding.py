"""Batches of a generator are cut or padded to a few lengths, and give what they give as they are."""

import numpy as np
import pytest

import alphorn as keras
from alphorn import layers
from alphorn.training import rounding

RANDOM = np.random.default_rng(0)
LENGTHS = [9, 5, 17, 30, 19, 31, 29, 18]
ROUND = {(n,) for n in (5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32)}


def rows_of(length, shape=(), rows=4):
    """Returns numbers of rows of which the first has `length`, zeros behind the others."""
    ids = RANDOM.integers(1, 20, (rows, length, *shape))
    for row, n in zip(ids[1:], RANDOM.integers(1, length + 1, rows - 1), strict=True):
        row[n:] = 0
    return ids.astype("int32")


BATCHES = [(rows_of(n), RANDOM.integers(0, 2, (4, 1)).astype("float32")) for n in LENGTHS]
TO_32 = [(np.pad(x, [(0, 0), (0, 32 - x.shape[1])]), y) for x, y in BATCHES]


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


MIDDLES = {
    "Conv1D": lambda h: layers.Conv1D(5, 3, padding="same", activation="relu")(h),
    "LSTM": lambda h: layers.LSTM(5, return_sequences=True)(h),
    "MultiHeadAttention": lambda h: layers.MultiHeadAttention(2, 3)(h, h),
}


def text_model(steps=None, middle="Conv1D"):
    keras.utils.set_random_seed(0)
    words = keras.Input((steps,), dtype="int32")
    h = MIDDLES[middle](layers.Embedding(20, 6, mask_zero=True)(words))
    return compiled(words, layers.GlobalAveragePooling1D()(h))


def compiled(inputs, last):
    model = keras.Model(inputs, layers.Dense(1)(last))
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def figures(model, batches):
    """Returns the report of training, and all figures of training, evaluation and prediction."""
    history = model.fit(Batches(batches), epochs=2, shuffle=False, verbose=0).history
    report = model.padding_report
    measured = model.evaluate(Batches(batches), verbose=0)
    predicted = model.predict(Batches([x for x, _ in batches]), verbose=0)
    return report, [*history["loss"], *history["mae"], *measured, *predicted.ravel()]


def equal_to_batches_as_they_are(found, model, batches):
    keras.config.set_trim_padding(False)
    try:
        report, wanted = figures(model, batches)
    finally:
        keras.config.set_trim_padding(True)
    assert not report.lengths
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)


@pytest.fixture
def large_steps(monkeypatch):
    monkeypatch.setattr(rounding, "SMALL_STEP", 0)


@pytest.mark.parametrize("middle", MIDDLES)
def test_batches_of_many_lengths_are_of_a_few(middle):
    report, found = figures(text_model(middle=middle), BATCHES)
    # The first stayed as it was, when no other length was known.
    assert {(9,)} < set(report.lengths) <= ROUND | {(9,)}
    assert report.programs == len(report.lengths) == 5
    assert (report.padded, report.valid) == (
        2 * sum(x.size for x, _ in BATCHES),
        2 * sum(np.count_nonzero(x) for x, _ in BATCHES),
    )
    equal_to_batches_as_they_are(found, text_model(middle=middle), BATCHES)


@pytest.mark.parametrize("middle", MIDDLES)
def test_padding_is_cut_where_all_batches_have_one_length(large_steps, middle):
    report, found = figures(text_model(32, middle), TO_32)
    assert set(report.lengths) == {(6,), (12,), (24,), (32,)}
    assert 0.2 < report.share_left_out < 1
    equal_to_batches_as_they_are(found, text_model(32, middle), TO_32)


def test_small_steps_of_one_length_stay_one_program():
    model = text_model(32)
    model.fit(Batches(TO_32), verbose=0)
    assert model.padding_report.lengths == [(32,)]
    assert model.padding_report.programs == 1


def test_added_steps_hold_what_masking_masks():
    def model():
        keras.utils.set_random_seed(0)
        x = keras.Input((None, 3))
        return compiled(x, layers.LSTM(4)(layers.Masking(-1.0)(x)))

    batches = []
    for n in LENGTHS:
        x = rows_of(n, (3,)).astype("float32")
        batches.append((np.where(x.any(-1, keepdims=True), x, -1), np.ones((4, 1), "float32")))
    report, found = figures(model(), batches)
    assert set(report.lengths) <= ROUND | {(9,)}
    equal_to_batches_as_they_are(found, model(), batches)


def test_sentences_of_documents_are_rounded_on_both_levels():
    def model():
        keras.utils.set_random_seed(0)
        words = keras.Input((None,), dtype="int32")
        sentence = keras.Model(words, layers.GRU(3)(layers.Embedding(20, 4, mask_zero=True)(words)))
        document = keras.Input((None, None), dtype="int32")
        return compiled(document, layers.GRU(3)(layers.TimeDistributed(sentence)(document)))

    sizes = [(9, 5), (3, 17), (11, 9), (9, 13)]
    batches = [(RANDOM.integers(1, 20, (2, *s)), np.ones((2, 1), "float32")) for s in sizes]
    report, found = figures(model(), batches)
    assert report.lengths == [(3, 20), (9, 5), (10, 5), (10, 14), (12, 10)]
    equal_to_batches_as_they_are(found, model(), batches)


def test_lists_and_inputs_side_by_side_keep_equal_lengths():
    def model():
        keras.utils.set_random_seed(0)
        a, b = (keras.Input((None,), dtype="int32", name=n) for n in "ab")
        table = layers.Embedding(20, 4, mask_zero=True)
        return compiled({"a": a, "b": b}, layers.GRU(3)(layers.Add()([table(a), table(b)])))

    batches = [({"a": x, "b": np.where(x, x[:, ::-1], 0)}, y) for x, y in BATCHES]
    for x, _ in batches:  # one ends earlier than the other
        x["b"][:, -1] = 0
    report, found = figures(model(), batches)
    assert set(report.lengths) <= ROUND | {(9,)}
    equal_to_batches_as_they_are(found, model(), batches)


def lists(batches):
    return [([row[row > 0].tolist() for row in x], y) for x, y in batches]


def test_lists_are_padded_as_arrays_are():
    report, found = figures(text_model(), lists(BATCHES))
    assert set(report.lengths) <= ROUND | {(10,)}
    equal_to_batches_as_they_are(found, text_model(), BATCHES)


def test_a_window_may_be_longer_than_a_batch(large_steps):
    def model():
        keras.utils.set_random_seed(0)
        words = keras.Input((32,), dtype="int32")
        h = layers.Conv1D(5, 11)(layers.Embedding(20, 6, mask_zero=True)(words))
        return compiled(words, layers.GlobalMaxPooling1D()(h))

    report, found = figures(model(), TO_32)
    assert min(report.lengths) == (6,)
    equal_to_batches_as_they_are(found, model(), TO_32)


def test_a_batch_that_does_not_fit_shorter_stays_as_it_is(large_steps, monkeypatch):
    def sizes(model, x):
        if x.shape[1] < 10:
            raise ValueError("too short")
        return [(1,)]

    monkeypatch.setattr(rounding, "output_sizes", sizes)
    report, found = figures(text_model(32), TO_32)
    assert min(report.lengths) == (12,)
    equal_to_batches_as_they_are(found, text_model(32), TO_32)


def with_outputs_of_steps():
    words = keras.Input((None,), dtype="int32")
    h = layers.GRU(3, return_sequences=True)(layers.Embedding(20, 4, mask_zero=True)(words))
    model = keras.Model(words, layers.Dense(1)(h))
    model.compile("sgd", "mse")
    return model


def with_a_step_of_its_own():
    class Own(keras.Model):
        def train_step(self, data):
            return super().train_step(data)

    words = keras.Input((None,), dtype="int32")
    model = Own(
        words, layers.Dense(1)(layers.GRU(3)(layers.Embedding(20, 4, mask_zero=True)(words)))
    )
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (with_outputs_of_steps, "an output has steps"),
        (with_a_step_of_its_own, "train_step of 'own' is code of your own"),
    ],
)
def test_other_batches_stay_as_they_are_and_the_report_says_why(make, why):
    model = make()
    targets = [y for _, y in BATCHES]
    if make is with_outputs_of_steps:
        targets = [x[..., None] for x, _ in BATCHES]
    model.fit(Batches([(x, y) for (x, _), y in zip(BATCHES, targets, strict=True)]), verbose=0)
    assert not model.padding_report.lengths
    assert why in str(model.padding_report)


def test_several_processes_keep_their_batches(monkeypatch):
    monkeypatch.setattr(rounding, "distribution", object)
    model = text_model()
    model.fit(Batches(BATCHES), verbose=0)
    assert not model.padding_report.lengths
    assert "processes" in str(model.padding_report)


def test_a_run_that_was_stopped_goes_on_with_the_same_lengths(tmp_path):
    def weights(fail_at=None):
        model, seen = text_model(middle="LSTM"), []

        def note(step, logs):
            seen.append(step)
            if len(seen) == fail_at:
                raise KeyboardInterrupt

        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1)
        told = keras.callbacks.LambdaCallback(on_train_batch_end=note)
        try:
            model.fit(
                Batches(BATCHES), shuffle=False, epochs=2, verbose=0, callbacks=[backup, told]
            )
        except KeyboardInterrupt:
            return model.padding_report.lengths, None
        return model.padding_report.lengths, model.get_weights()

    _, wanted = weights()
    for fail_at in (1, 5, 8, 10):
        weights(fail_at)
        lengths, found = weights()
        assert set(lengths) <= ROUND | {(9,)}
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
