"""Tables of which steps update the rows of their batch alone: what the dense step gives, or says."""

import warnings
from typing import Any

import numpy as np
import pytest

import alphorn as keras
from alphorn import layers, optimizers
from alphorn.errors import ArgumentError
from alphorn.training import stepping
from alphorn.training.table_rows import tables_by_rows

WORDS, TIME, ROWS = 60, 5, 12
RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 9, (ROWS, TIME)).astype("int32")
Y = RANDOM.normal(size=(ROWS, 1)).astype("float32")


def build(optimizer: Any, **options: Any) -> Any:
    keras.utils.set_random_seed(1)
    words = keras.Input((TIME,), dtype="int32")
    h = layers.Embedding(WORDS, 3, mask_zero=True, name="words", **options)(words)
    h = layers.Conv1D(4, 3, padding="same")(h)
    model = keras.Model(words, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))
    model.compile(optimizer, "mse")
    return model


def state(model: Any) -> list[np.ndarray]:
    return [np.asarray(v) for v in (*model.weights, *model.optimizer.variables)]


def dense(monkeypatch: pytest.MonkeyPatch, run: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(stepping, "tables_by_rows", lambda model: {})
        return run()


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.SGD(0.1),
        lambda: optimizers.SGD(0.1, clipnorm=0.1),
        lambda: optimizers.Adagrad(0.1, loss_scale_factor=4.0),
        lambda: optimizers.Adagrad(0.1, global_clipnorm=0.2),
    ],
)
def test_rules_in_which_rows_rest_give_what_dense_ones_do(optimizer, monkeypatch) -> None:
    monkeypatch.setattr("alphorn.training.table_rows._ROWS_COST", 0)

    def run() -> Any:
        model = build(optimizer())
        losses = model.fit(X, Y, 4, 3, 0).history["loss"]
        return losses, state(model), tables_by_rows(model)

    (losses, after, tables), (wanted, whole, _) = run(), dense(monkeypatch, run)
    assert [len(places) for places in tables.values()] == [1]
    np.testing.assert_allclose(losses, wanted, rtol=1e-6)
    for a, b in zip(after, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_lazy_rule_is_that_of_pytorch_and_leaves_other_rows_and_moments() -> None:
    """The oracle: Adam in NumPy, of the rows that a batch names."""
    model = build(optimizers.LazyAdam(0.1))
    table = model.get_layer("words").embeddings
    moments = np.zeros((2, WORDS, 3))
    wanted = table.numpy().astype("float64")
    for step in range(1, 4):
        x, y = X[4 * step - 4 : 4 * step], Y[4 * step - 4 : 4 * step]
        gradient = gradient_of(model, x, y)
        named = np.unique(x)
        moments[0][named] = 0.9 * moments[0][named] + 0.1 * gradient[named]
        moments[1][named] = 0.999 * moments[1][named] + 0.001 * gradient[named] ** 2
        rate = 0.1 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        wanted[named] -= rate * moments[0][named] / (np.sqrt(moments[1][named]) + 1e-7)
        model.train_on_batch(x, y)
        np.testing.assert_allclose(table.numpy(), wanted, rtol=1e-4, atol=1e-6)
    slots = {v.path.split("_")[-1]: v.numpy() for v in model.optimizer.variables if v.ndim == 2}
    found = [v.numpy() for v in model.optimizer.variables if v.shape == (WORDS, 3)]
    assert slots
    np.testing.assert_allclose(found, moments, rtol=1e-4, atol=1e-7)
    assert not found[0][~np.isin(np.arange(WORDS), X)].any()


def gradient_of(model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the table's gradient, from a dense step of size 1 and back."""
    before = [w.numpy() for w in model.weights]
    probe = build(optimizers.RMSprop(0.1))
    probe.set_weights(before)
    table = probe.get_layer("words").embeddings
    run = keras.value_and_grad(lambda: keras.ops.mean((probe(x) - y) ** 2), [table])
    return np.asarray(run()[1][0])


def test_steps_of_many_rows_and_of_groups_and_calls_of_many_steps(monkeypatch) -> None:
    from alphorn.training import cutting, groups

    x = np.zeros((64, 12), "int32")
    for row, n in zip(x, RANDOM.integers(1, 13, 64), strict=True):
        row[:n] = RANDOM.integers(1, 30, n)
    x[::8, :] = np.maximum(x[::8, :], 1)
    y = RANDOM.normal(size=(64, 1))

    def fit(**patched: Any) -> Any:
        with monkeypatch.context() as patch:
            for name, value in patched.items():
                patch.setattr(cutting, name, value)
                patch.setattr(groups, "_LEAST_ROWS", 1)
            keras.utils.set_random_seed(1)
            words = keras.Input((12,), dtype="int32")
            h = layers.Embedding(WORDS, 3, mask_zero=True)(words)
            h = layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3, padding="same")(h))
            model = keras.Model(words, layers.Dense(1)(h))
            model.compile(optimizers.LazyAdam(0.01), "mse")
            model.fit(x, y, 8, 2, 0)
        return model

    plain, parted = fit(), fit(ENOUGH_BATCHES=1, SMALL_STEP=0)
    assert parted.padding_report.groups
    assert not plain.padding_report.groups
    for a, b in zip(state(plain), state(parted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_id_outside_the_table_is_seen_and_junk_behind_a_mask_is_not() -> None:
    model = build(optimizers.LazyAdam(0.1))
    with pytest.raises(ArgumentError, match="an id outside the table"):
        model.fit(X + WORDS, Y, verbose=0)
    late = np.concatenate([X, X[:4] + WORDS])
    assert np.isnan(model.fit(late, np.zeros((16, 1)), 4, 1, 0, shuffle=False).history["loss"][0])


@pytest.mark.filterwarnings("ignore:LazyAdam")
@pytest.mark.parametrize(
    "optimizer", [lambda: optimizers.LazyAdam(0.1), lambda: optimizers.SGD(0.1)]
)
def test_a_frozen_table_stays_whole(optimizer, monkeypatch) -> None:
    monkeypatch.setattr("alphorn.training.table_rows._ROWS_COST", 0)
    model = build(optimizer())
    model.fit(X, Y, 4, 1, 0)
    table = model.get_layer("words")
    table.trainable = False
    model.compile(optimizer(), "mse")
    before = table.embeddings.numpy()
    wanted = model.evaluate(X, Y, verbose=0)
    assert np.isfinite(wanted)
    np.testing.assert_allclose(model.train_on_batch(X, Y), wanted, rtol=1e-5)
    np.testing.assert_array_equal(table.embeddings.numpy(), before)


@pytest.mark.filterwarnings("ignore:LazyAdam")
def test_tables_that_something_else_reads_are_updated_whole() -> None:
    lazy = optimizers.LazyAdam
    assert tables_by_rows(build(lazy(0.1)))
    assert not tables_by_rows(build(optimizers.Adam(0.1)))
    assert not tables_by_rows(build(optimizers.SGD(0.1, momentum=0.9)))
    assert not tables_by_rows(build(optimizers.SGD(0.1, weight_decay=0.1)))
    assert not tables_by_rows(build(lazy(0.1), embeddings_regularizer="l2"))
    assert not tables_by_rows(build(lazy(0.1), embeddings_constraint="non_neg"))

    words = keras.Input((TIME,), dtype="int32")
    table = layers.Embedding(WORDS, 3)
    inner = keras.Sequential([keras.Input((TIME,), dtype="int32"), table])
    shared = keras.Model(words, [table(words), inner(words)])
    lambda_ = keras.Model(words, layers.Lambda(lambda v: v * table.embeddings)(table(words)[:, :1]))
    for model in (shared, lambda_):
        model.compile(lazy(0.1), "mse")
        assert not tables_by_rows(model)

    twice = keras.Model(
        [words, (other := keras.Input((2,), dtype="int32"))], [table(words), table(other)]
    )
    twice.compile(lazy(0.1), "mse")
    assert tables_by_rows(twice) == {table.embeddings: [0, 1]}


def test_what_reaches_all_rows_is_refused_or_told() -> None:
    for name, value in (
        ("weight_decay", 0.1),
        ("use_ema", True),
        ("gradient_accumulation_steps", 2),
    ):
        with pytest.raises(ArgumentError, match=f"LazyAdam: {name}"):
            optimizers.LazyAdam(0.1, **{name: value})
    with pytest.raises(ArgumentError, match="LazyAdam"):
        optimizers.LossScaleOptimizer(optimizers.LazyAdam())
    model = build(optimizers.LazyAdam(0.1), embeddings_regularizer="l2")
    with pytest.warns(UserWarning, match="LazyAdam updates all rows of all weights"):
        model.fit(X, Y, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(optimizers.LazyAdam(0.1)).fit(X, Y, verbose=0)


def test_the_rule_and_its_state_travel(tmp_path) -> None:
    model = build(optimizers.LazyAdam(0.05, beta_1=0.8))
    model.fit(X, Y, 4, 1, 0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert isinstance(again.optimizer, optimizers.LazyAdam)
    for m in (model, again):
        keras.utils.set_random_seed(2)
        m.fit(X, Y, 4, 1, 0, shuffle=False)
    for a, b in zip(state(model), state(again), strict=True):
        np.testing.assert_array_equal(a, b)
