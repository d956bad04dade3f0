"""preprocessing.sequence and the datasets of windows: what Keras 2 makes, and a naive reference."""

import pickle
import random
from collections import UserList
from itertools import pairwise, product

import keras as theirs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alphorn as keras
import preprocessing_cases as cases
from alphorn.preprocessing import sequence, timeseries_dataset_from_array
from alphorn.preprocessing.draws import Draws
from test_text import EXPECTED, RECORD, plain, same


@pytest.mark.parametrize("name", cases.ROWS)
def test_lists_become_keras_s_array(name):
    for options, (dtype, shape, values) in zip(
        cases.PADDINGS, EXPECTED["padded"][name], strict=True
    ):
        array = sequence.pad_sequences(cases.ROWS[name], **options)
        assert array.dtype.str == dtype and list(array.shape) == shape
        assert plain(array.tolist()) == values


def test_words_are_padded_as_by_keras():
    for options, (dtype, _, values) in zip(
        cases.WORD_PADDINGS, EXPECTED["words padded"], strict=True
    ):
        array = sequence.pad_sequences(cases.WORDS, **options)
        assert array.dtype.str == dtype and array.tolist() == values


def test_no_word_is_cut_by_the_array():
    words = sequence.pad_sequences([["a"], ["penguins", "b"]], dtype=str, value="-")
    assert words.tolist() == [["-", "a"], ["penguins", "b"]]


STEPS = st.sampled_from([(), (2,), (2, 1)])
DTYPES = st.sampled_from(["int32", "int64", "float32", "uint8", "bool", object])


def naive(rows, step, maxlen, dtype, padding, truncating, value):
    width = max(map(len, rows)) if maxlen is None else maxlen
    out = np.full((len(rows), width, *step), value, dtype)
    for i, row in enumerate(rows):
        for k in range(min(len(row), width)):
            source = k + max(0, len(row) - width) if truncating == "pre" else k
            target = k + max(0, width - len(row)) if padding == "pre" else k
            out[i, target] = np.asarray(row[source], dtype)
    return out


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_padding_is_what_a_loop_would_do(data):
    step = data.draw(STEPS)
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=6))
    source = np.random.default_rng(sum(lengths))
    rows = [source.integers(0, 100, (n, *step)) for n in lengths]
    form = data.draw(st.sampled_from(["arrays", "lists", "tuples", "mixed"]))
    if form != "arrays":
        rows = [r if form == "mixed" and len(r) % 2 else r.tolist() for r in rows]
        rows = [tuple(r) if form == "tuples" else r for r in rows]
    options = {
        "maxlen": data.draw(st.none() | st.integers(1, 8)),
        "dtype": data.draw(DTYPES),
        "padding": data.draw(st.sampled_from(["pre", "post"])),
        "truncating": data.draw(st.sampled_from(["pre", "post"])),
        "value": data.draw(st.sampled_from([0.0, 7, 1.5])),
    }
    found = sequence.pad_sequences(iter(rows), **options)
    # Empty lists do not say what a step is, empty arrays do not in Keras either.
    expected = naive(rows, step if any(lengths) else (), **options)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    assert np.array_equal(found, theirs.utils.pad_sequences(rows, **options))


class Count(int):
    """A whole number of a class of its own."""


# What may stand in a list of numbers beside small ones that are read all at once.
ROWS = {
    "booleans": [[True, 2], [False]],
    "NumPy's numbers": [[np.int64(3), np.uint8(4)], [5], [np.float32(6)]],
    "a class of numbers": [[Count(3), 1], [Count(2**31 - 1)]],
    "negative": [[1, 2], [-3]],
    "the largest": [[2**31 - 1], [1, 2]],
    "the smallest": [[1], [-(2**31)]],
    "fractions": [[1, 2], [1.75, -0.5]],
    "empty": [[], [1], []],
    "only empty": [[], []],
    "tuples": [(1, 2), [3]],
    "a class of lists": [UserList([1, 2]), [3]],
    "an array": [np.array([1, 2, 3]), [4]],
    "nested": [[[1, 2]], [[3, 4], [5, 6]]],
    "long": [list(range(300)), [7]],
}


@pytest.mark.parametrize("case", ROWS)
def test_numbers_of_every_kind_are_padded(case):
    rows = ROWS[case]
    for side, value, kind, maxlen in product(
        ("pre", "post"), (0, -1, 2.5), ("int32", "int64", "float32", "uint32"), (None, 2)
    ):
        if kind == "uint32" and (value < 0 or case in ("negative", "the smallest", "fractions")):
            continue
        options = {"padding": side, "truncating": side, "value": value, "dtype": kind}
        expected = theirs.utils.pad_sequences(rows, maxlen, **options)
        found = sequence.pad_sequences(rows, maxlen, **options)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
        assert found.flags.writeable


def test_numbers_that_do_not_fit_are_refused():
    for number, kind in ((2**31, "int32"), (2**32, "uint32"), (2**8, "uint8"), (-1, "uint8")):
        with pytest.raises(keras.ArgumentError, match=rf"\[1\][\s\S]*{kind}"):
            sequence.pad_sequences([[1], [number]], dtype=kind)
    assert sequence.pad_sequences([[1], [2**40]], dtype="int64")[1, 0] == 2**40


def test_the_parts_that_are_cut_off_are_not_looked_at():
    assert sequence.pad_sequences([["x", 1, 2]], maxlen=2).tolist() == [[1, 2]]
    assert sequence.pad_sequences([], maxlen=3).shape == (0, 3)
    assert keras.utils.pad_sequences is sequence.pad_sequences


PADDING_MISTAKES = {
    "number": (lambda: sequence.pad_sequences(3), r"3[\s\S]*a list of sequences"),
    "text": (lambda: sequence.pad_sequences("abc"), r"'abc'[\s\S]*a list of sequences"),
    "flat": (lambda: sequence.pad_sequences([1, 2]), r"\[0\][\s\S]*pad_sequences\(\[sequence\]\)"),
    "texts": (lambda: sequence.pad_sequences([[1], "ab"]), r"\[1\][\s\S]*text.split\(\)"),
    "side": (lambda: sequence.pad_sequences([[1]], padding="left"), r"padding[\s\S]*'left'"),
    "cut": (lambda: sequence.pad_sequences([[1]], truncating=1), r"truncating[\s\S]*'post'"),
    "none left": (lambda: sequence.pad_sequences([[1]], maxlen=0), r"maxlen[\s\S]*above 0"),
    "negative": (lambda: sequence.pad_sequences([[1]], maxlen=-2), r"maxlen[\s\S]*-2"),
    "fraction": (lambda: sequence.pad_sequences([[1]], maxlen=2.5), r"maxlen[\s\S]*2.5"),
    "words": (lambda: sequence.pad_sequences([[1], ["a"]]), r"\[1\][\s\S]*'a'[\s\S]*dtype=object"),
    "too large": (lambda: sequence.pad_sequences([[2**40]]), r"\[0\][\s\S]*int32"),
    "value": (lambda: sequence.pad_sequences([["a"]], value="-"), r"'-'[\s\S]*dtype=object"),
}
SHAPE_MISTAKES = {
    "vectors": (
        lambda: sequence.pad_sequences([[[1, 2]], [[1]]]),
        r"\[1\][\s\S]*\(1,\)[\s\S]*\(2,\)",
    ),
    "depth": (lambda: sequence.pad_sequences([[1], [[2, 3]]]), r"\[1\][\s\S]*\(2,\)[\s\S]*\(\)"),
}


@pytest.mark.parametrize("name", [*PADDING_MISTAKES, *SHAPE_MISTAKES])
def test_mistakes_in_padding_are_named(name):
    work, message = (PADDING_MISTAKES | SHAPE_MISTAKES)[name]
    error = keras.ArgumentError if name in PADDING_MISTAKES else keras.ShapeError
    with pytest.raises(error, match=message) as caught:
        work()
    assert isinstance(caught.value, ValueError)


def test_the_name_that_pad_sequences_is_taken_for():
    assert sequence.pad_sequence([[1], [2, 3]], 3).tolist() == [[0, 0, 1], [0, 2, 3]]
    with pytest.raises(TypeError, match=r"batch_first[\s\S]*the function's name is pad_sequences"):
        sequence.pad_sequence([[1]], batch_first=True)


def test_sampling_tables_are_keras_s():
    for (size, factor), expected in zip(((9, 1e-5), (4, 0.1)), EXPECTED["sampling"], strict=True):
        assert same(sequence.make_sampling_table(size, factor).tolist(), expected)
    with pytest.raises(ValueError, match="at least 1"):
        sequence.make_sampling_table(0)


def test_skipgrams_are_those_that_keras_draws():
    for case, expected in zip(cases.SKIPGRAMS, EXPECTED["skipgrams"], strict=True):
        assert plain(cases.skipgram_results(sequence, case)) == expected, case


@given(st.integers(0, 2**40), st.lists(st.integers(0, 3000), max_size=4), st.integers(1, 2**31))
@settings(deadline=None)
def test_draws_are_those_of_random_and_leave_it_as_they_would(seed, counts, limit):
    random.seed(seed)
    random.gauss(0, 1)  # leaves a second one for the next call
    draws = Draws()
    ours = [
        [draws.floats(n).tolist(), draws.below(limit, n).tolist(), draws.shuffled(n).tolist()]
        for n in counts
    ]
    draws.close()
    ours.append(random.gauss(0, 1))
    random.seed(seed)
    random.gauss(0, 1)
    expected = []
    for n in counts:
        floats = [random.random() for _ in range(n)]
        below = [random.randrange(limit) for _ in range(n)]
        order = list(range(n))
        random.shuffle(order)
        expected.append([floats, below, order])
    expected.append(random.gauss(0, 1))
    assert ours == expected


def test_skipgrams_of_words_and_of_arrays():
    pairs, labels = sequence.skipgrams(["a", "b", ""], 9, negative_samples=0, shuffle=False)
    assert pairs == [["a", "b"], ["b", "a"]] and labels == [1, 1]
    random.seed(0)
    drawn = [sequence.skipgrams(form, 9, seed=2) for form in ([1, 2, 3],)]
    random.seed(0)
    drawn += [sequence.skipgrams(form, 9, seed=2) for form in (np.array([1, 2, 3]),)]
    random.seed(0)
    drawn += [sequence.skipgrams(form, 9, seed=2) for form in (np.array([1, 2, 3], np.uint64),)]
    assert drawn[0] == drawn[1] == drawn[2]
    assert {type(word) for pairs, _ in drawn for pair in pairs for word in pair} == {int}
    assert sequence.skipgrams([], 9) == ([], [])


def test_what_skipgrams_cannot_draw():
    with pytest.raises(ValueError, match=r"vocabulary_size[\s\S]*at least 2"):
        sequence.skipgrams([1, 1], 1)
    with pytest.raises(ValueError, match=r"3 entries[\s\S]*id 5[\s\S]*make_sampling_table\(6\)"):
        sequence.skipgrams([1, 5], 6, sampling_table=np.ones(3))


def test_long_sequences_are_left_out_as_by_keras():
    found = sequence._remove_long_seq(3, [[1], [1, 2], [1, 2, 3]], [5, 6, 7])
    assert plain(found) == EXPECTED["short"]


@pytest.mark.parametrize("form", ["arrays", "lists"])
@pytest.mark.parametrize("number", range(len(cases.SERIES)))
def test_windows_are_keras_s(number, form):
    found = cases.series_results(sequence, cases.SERIES[number], form)
    assert found == EXPECTED["series"][form][number]


class Slices:
    """What reads from a file by slices, as an HDF5 dataset."""

    def __init__(self, array):
        self.array, self.read = array, 0

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        part = self.array[rows]
        self.read = max(self.read, np.size(part))
        return part


@pytest.mark.parametrize("shuffle", [False, True])
def test_windows_of_tables_and_of_files(shuffle):
    data, targets = np.arange(60.0).reshape(30, 2), np.arange(30)
    options = {"length": 4, "stride": 2, "batch_size": 3, "shuffle": shuffle}
    expected = list(seeded(sequence.TimeseriesGenerator(data, targets, **options)))
    file = Slices(data)
    for x, y in (
        (file, Slices(targets)),
        (pd.DataFrame(data), pd.Series(targets, index=range(5, 35))),
        (data[::-1][::-1], targets.tolist()),
    ):
        found = list(seeded(sequence.TimeseriesGenerator(x, y, **options)))
        assert plain([[a.tolist(), b.tolist()] for a, b in found]) == [
            [a.tolist(), b.tolist()] for a, b in expected
        ]
    assert file.read < data.size  # a batch's part at a time


def seeded(generator):
    for i in range(len(generator)):
        np.random.seed(i)
        yield generator[i]


def test_windows_are_copies_and_follow_the_data():
    data = np.arange(10.0)
    batches = sequence.TimeseriesGenerator(data, data, length=2, batch_size=3)
    batches[0][0][:] = -1
    batches[0][1][:] = -1
    assert data.tolist() == list(range(10))
    data[0] = 100
    assert batches[0][0][0, 0] == 100
    batches.data = data * 2
    assert batches[0][0][0, 0] == 200
    assert batches[-1][1].tolist() == [8.0, 9.0] and len(list(batches)) == len(batches) == 3
    with pytest.raises(IndexError, match="no batch 3"):
        batches[3]


def test_a_generator_that_was_written_is_that_generator():
    options = {"length": 4, "sampling_rate": 2, "start_index": 3, "batch_size": 5, "reverse": True}
    data = np.arange(40.0).reshape(20, 2)
    ours = sequence.TimeseriesGenerator(data, list(range(20)), **options)
    again = sequence.timeseries_generator_from_json(ours.to_json())
    assert again.get_config() == ours.get_config()
    for (a, b), (c, d) in zip(ours, again, strict=True):
        assert np.array_equal(a, c) and np.array_equal(b, d)
    written = RECORD["written"]["series"]
    same_series = sequence.TimeseriesGenerator(
        [[1], [2], [3], [4], [5]], [1, 2, 3, 4, 5], 2, stride=2
    )
    assert same_series.to_json() == written
    read = sequence.timeseries_generator_from_json(written)
    assert np.array_equal(read[0][0], same_series[0][0])
    with pytest.raises(TypeError, match=r"data cannot stand in JSON"):
        sequence.TimeseriesGenerator([object()] * 3, [1, 2, 3], 1).to_json()
    with pytest.raises(ValueError, match=r"to_json"):
        sequence.timeseries_generator_from_json("[]")


SERIES_MISTAKES = {
    "lengths": (([1, 2], [1], 1), {}, r"2 steps and 1 targets"),
    "no window": (([1, 2], [1, 2], 2), {}, r"no window[\s\S]*length=2"),
    "length": (([1, 2], [1, 2], 0), {}, r"length[\s\S]*at least 1"),
    "stride": (([1, 2], [1, 2], 1), {"stride": 0}, r"stride[\s\S]*at least 1"),
    "end": (([1, 2], [1, 2], 1), {"end_index": 2}, r"end_index=2[\s\S]*0 to 1"),
    "start": (([1, 2], [1, 2], 1), {"start_index": -1}, r"start_index=-1"),
}


@pytest.mark.parametrize("name", SERIES_MISTAKES)
def test_windows_that_cannot_be(name):
    arguments, options, message = SERIES_MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        sequence.TimeseriesGenerator(*arguments, **options)


def windows_by_hand(data, length, stride, rate, start, end):
    part = data[start:end]
    count = len(part) - (length - 1) * rate
    return [part[i : i + length * rate : rate][:length] for i in range(0, count, stride)]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_dataset_of_windows_is_what_a_loop_would_give(data):
    n = data.draw(st.integers(4, 40))
    steps = np.arange(n * 2).reshape(n, 2)
    length, stride, rate = (data.draw(st.integers(1, 3)) for _ in range(3))
    start, end = data.draw(st.sampled_from([None, 0, 1])), data.draw(st.sampled_from([None, n - 1]))
    expected = windows_by_hand(steps, length, stride, rate, start or 0, end)
    options = {
        "sequence_length": length,
        "sequence_stride": stride,
        "sampling_rate": rate,
        "start_index": start,
        "end_index": end,
    }
    if not expected:
        with pytest.raises(ValueError, match="no window fits"):
            timeseries_dataset_from_array(steps, None, **options)
        return
    for size in (1, 3, 100):
        dataset = timeseries_dataset_from_array(steps, np.arange(n), batch_size=size, **options)
        batches = list(dataset)
        assert len(batches) == len(dataset) == -(-len(expected) // size)
        assert np.array_equal(np.concatenate([x for x, _ in batches]), expected)
        firsts = np.concatenate([y for _, y in batches])
        assert np.array_equal(firsts, (start or 0) + np.arange(len(expected)) * stride)
        assert all(np.array_equal(a[0], b[0]) for a, b in zip(batches, dataset, strict=True))
    alone = timeseries_dataset_from_array(steps, None, batch_size=None, **options)
    assert np.array_equal(list(alone), expected)


def test_a_shuffled_dataset_gives_each_window_once_in_each_epoch():
    def epochs(seed):
        steps = np.arange(30)
        dataset = timeseries_dataset_from_array(
            steps, steps, 3, batch_size=4, shuffle=True, seed=seed
        )
        return [np.concatenate([y for _, y in dataset]).tolist() for _ in range(3)]

    orders = epochs(1)
    assert all(sorted(order) == list(range(28)) for order in orders)
    assert all(a != b for a, b in pairwise(orders))
    assert epochs(1) == orders != epochs(2)
    assert keras.utils.timeseries_dataset_from_array is timeseries_dataset_from_array


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_index": -1}, "start_index=-1"),
        ({"start_index": 5, "end_index": 5}, "end_index=5"),
        ({"end_index": 10}, "end_index=10"),
        ({"sampling_rate": 0}, "sampling_rate"),
        ({"sequence_stride": 10}, r"sequence_stride[\s\S]*1 to 9"),
        ({"sequence_length": 11}, "no window fits"),
        ({"batch_size": 0}, "batch_size"),
    ],
    ids=str,
)
def test_a_dataset_that_cannot_be(options, message):
    with pytest.raises(keras.ArgumentError, match=message):
        timeseries_dataset_from_array(np.arange(10), None, **{"sequence_length": 2, **options})


def test_fit_takes_windows_epoch_after_epoch():
    steps = np.sin(np.arange(60) / 3).astype("float32")[:, None]
    rows = np.stack([steps[i : i + 5] for i in range(55)])

    def trained(*data, **options):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        losses = model.fit(*data, epochs=3, verbose=0, **options).history["loss"]
        return losses, model

    expected, model = trained(rows, steps[5:], batch_size=16, shuffle=False)
    generator = sequence.TimeseriesGenerator(steps, steps, 5, batch_size=16)
    dataset = timeseries_dataset_from_array(steps[:-1], steps[5:], 5, batch_size=16)
    for data in (generator, dataset):
        losses, other = trained(data, shuffle=False)
        assert losses == pytest.approx(expected, rel=1e-5)
        assert np.allclose(
            other.predict(data, verbose=0), model.predict(rows, verbose=0), atol=1e-6
        )
        assert other.evaluate(data, verbose=0) == pytest.approx(
            model.evaluate(rows, steps[5:], verbose=0), rel=1e-5
        )
    shuffled = sequence.TimeseriesGenerator(steps, steps, 5, batch_size=16, shuffle=True)
    assert trained(shuffled)[0][2] < expected[0]


def test_copies_of_windows_are_as_small_as_the_series():
    data = np.arange(2000.0)
    batches = sequence.TimeseriesGenerator(data, data, length=500, batch_size=8)
    dataset = timeseries_dataset_from_array(data, None, 500, batch_size=8)
    for whole in (batches, dataset):
        first = whole[3]
        text = pickle.dumps(whole)
        assert len(text) < 40_000
        assert np.array_equal(pickle.loads(text)[3][0], first[0])
        assert first[0].flags.writeable
