"""Datasets that make batches when asked, by threads and processes too; data in two parts."""

import os
import threading
from itertools import count

import keras as theirs
import numpy as np
import pytest

import alphorn as keras
from alphorn.training.workers import made_ahead
from alphorn.utils import PyDataset, split_dataset
from counted_dataset import Broken, Counted, Endless, Ordered, Processes, X, Y


def trained(*data, epochs=3, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(*data, epochs=epochs, verbose=0, **options).history
    return history["loss"], model


@pytest.mark.parametrize("workers", [1, 3])
def test_fit_takes_batches_in_their_order_whoever_makes_them(workers):
    expected, model = trained(X, Y, batch_size=2, shuffle=False)
    dataset = Counted(workers=workers, max_queue_size=2)
    losses, other = trained(dataset, shuffle=False)
    assert losses == pytest.approx(expected, rel=1e-6)
    assert (threading.get_ident() in dataset.threads) == (workers == 1)
    assert dataset.begun == dataset.epochs == 3
    for method in ("predict", "evaluate"):
        arguments = (X,) if method == "predict" else (X, Y)
        assert np.allclose(
            getattr(other, method)(dataset, verbose=0),
            getattr(model, method)(*arguments, verbose=0),
            atol=1e-6,
        )
    assert [np.array_equal(x, X[2 * i : 2 * i + 2]) for i, (x, _) in enumerate(dataset)] == [
        True
    ] * 6


def test_processes_make_batches():
    dataset = Processes(workers=1, use_multiprocessing=True, max_queue_size=2)
    found = list(made_ahead(dataset, range(6)))
    assert [int(number[0, 0]) for _, number in found] == list(range(6))
    assert os.getpid() not in {int(made[0, 0]) for made, _ in found}


def test_fit_trains_with_batches_that_processes_make():
    expected, _ = trained(X, Y, epochs=1, batch_size=2, shuffle=False)
    dataset = Counted(workers=2, use_multiprocessing=True)
    losses, _ = trained(dataset, epochs=1, shuffle=False)
    assert not dataset.threads  # of this process
    assert losses == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_fit_draws_the_order_of_the_batches_as_keras_does(workers):
    class Seen(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            dataset.asked.append([])

    orders = []
    for _ in range(2):
        dataset = Ordered(workers=workers)
        trained(dataset, callbacks=[Seen()])
        assert all(sorted(epoch) == list(range(6)) for epoch in dataset.asked)
        orders.append(dataset.asked)
    assert len({tuple(epoch) for epoch in orders[0]}) > 1
    if workers == 1:  # threads may begin with the second of two batches
        assert orders[0] == orders[1]
    dataset = Ordered()
    trained(dataset, callbacks=[Seen()], shuffle=False)
    assert dataset.asked == [list(range(6))] * 3


def test_windows_of_a_time_series_are_a_py_dataset():
    windows = keras.preprocessing.sequence.TimeseriesGenerator(X, Y, length=4, batch_size=3)
    assert isinstance(windows, keras.utils.Sequence) and windows.num_batches == 3
    losses, _ = trained(windows)
    assert losses[2] < losses[0]


def test_no_more_batches_wait_than_were_asked_for():
    dataset = Endless(workers=2, max_queue_size=3)
    batches = made_ahead(dataset, count())
    for _ in range(4):
        next(batches)
    batches.close()
    assert 4 <= len(dataset.asked) <= 8


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dataset_without_an_end_goes_on_from_epoch_to_epoch(workers):
    expected, _ = trained(X, Y, batch_size=1, shuffle=False)
    dataset = Endless(workers=workers)
    losses, _ = trained(dataset, steps_per_epoch=12)
    assert losses == pytest.approx(expected, rel=1e-6)
    assert sorted(dataset.asked[:36]) == list(range(36))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_batch_comes_to_fit(workers):
    with pytest.raises(OSError, match="batch 2 cannot be read"):
        trained(Broken(workers=workers))


def test_a_dataset_says_what_must_be_written():
    class Nothing(PyDataset):
        def __init__(self):
            """Keras 2's subclasses do not call the base."""

    with pytest.raises(keras.StateError, match="__getitem__"):
        Nothing()[0]
    with pytest.raises(keras.StateError, match="__len__"):
        _ = Nothing().num_batches
    assert (Nothing().workers, Nothing().use_multiprocessing) == (1, False)
    assert keras.utils.Sequence is PyDataset


def test_data_in_two_parts_keep_their_form():
    arrays = (np.arange(10), np.arange(20).reshape(10, 2))
    left, right = split_dataset(arrays, left_size=0.7)
    assert left[0].tolist() == list(range(7)) and right[1].tolist() == arrays[1][7:].tolist()
    a, b = split_dataset({"x": arrays[0], "y": arrays[1]}, right_size=2)
    assert a["x"].tolist() == list(range(8)) and b["y"].shape == (2, 2)
    assert split_dataset([[1], [2, 3], []], left_size=1) == ([[1]], [[2, 3], []])
    left, right = split_dataset(arrays[0], left_size=2, right_size=3)
    assert left.tolist() == [0, 1] and right.tolist() == [7, 8, 9]
    masked = keras.Masked(np.ones((4, 2, 1), "float32"), np.eye(4, 2) > 0)
    assert split_dataset(masked, 0.5)[0].mask.tolist() == masked.mask[:2].tolist()


def test_an_order_drawn_by_a_seed_has_each_row_once():
    left, right = split_dataset(np.arange(50), 0.5, shuffle=True, seed=3)
    again, _ = split_dataset(np.arange(50), 0.5, shuffle=True, seed=3)
    assert np.array_equal(left, again) and left.tolist() != list(range(25))
    assert sorted([*left.tolist(), *right.tolist()]) == list(range(50))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.arange(4),), "one of the two"),
        ((np.arange(4), 4), "1 to 3"),
        ((np.arange(4), 1.5), "between 0 and 1"),
        ((np.arange(4), 0.9, 0.9), "do not overlap"),
        ((np.arange(4), 0.1), "rows in each"),
        (((np.arange(4), np.arange(3)), 1), "4, 3"),
        (("abcd", 1), "an array|arrays"),
    ],
    ids=str,
)
def test_parts_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_dataset(*arguments)


def test_class_numbers_become_rows_as_in_keras():
    for labels, classes in (([0, 2, 1], None), ([[1], [0]], 4), (np.ones((2, 3)), 2), (1, 3)):
        ours = keras.utils.to_categorical(labels, classes)
        assert np.array_equal(ours, theirs.utils.to_categorical(labels, classes))
    assert keras.utils.to_categorical([99_999]).shape == (1, 100_000)  # no square of classes
    with pytest.raises(keras.ArgumentError, match="0 to 2"):
        keras.utils.to_categorical([3], 3)
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    for order in (1, 2):
        assert np.allclose(
            keras.utils.normalize(x, order=order), theirs.utils.normalize(x, order=order)
        )
    assert np.allclose(keras.utils.normalize(x, axis=0), [[1, 1], [0, 0]])
