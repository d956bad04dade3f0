"""Rows in groups of like lengths inside a step: the step is that of the whole batch."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alphorn as keras
from alphorn import config, layers, ops
from alphorn.training import cutting, groups
from alphorn.training.data import Table
from alphorn.training.groups import Grouping
from test_trimming import END, MIDDLE, TIME, WORDS, close, embedded, ids

BATCH = 8
RANDOM = np.random.default_rng(1)
LENGTHS = np.minimum(RANDOM.integers(1, TIME + 1, 64), RANDOM.integers(0, TIME + 1, 64))
LENGTHS[::16] = TIME


@pytest.fixture(autouse=True)
def small_models_may_be_parted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cutting, "ENOUGH_BATCHES", 1)
    monkeypatch.setattr(cutting, "SMALL_STEP", 0)
    monkeypatch.setattr(groups, "_LEAST_ROWS", 1)
    yield
    config.set_trim_padding(True)


def trained(build: Any, x: Any, y: Any, parted: bool, **options: Any) -> tuple[Any, list[Any]]:
    """Returns a model after two epochs, and its figures and weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "pay", lambda graph: parted)
        keras.utils.set_random_seed(3)
        model = build()
        model.compile(keras.optimizers.SGD(0.1, clipnorm=1.0), "mse", metrics=["mae"])
        options = {"batch_size": BATCH, "epochs": 2, "verbose": 0, **options}
        history = model.fit(x, y, **options).history
    return model, [*history["loss"], *history["mae"], *(w.numpy() for w in model.weights)]


def check(build: Any, x: Any, y: Any = None, **options: Any) -> Any:
    """Asserts that training in groups is training on whole batches; returns the model's report."""
    if y is None:
        y = np.random.default_rng(4).normal(size=(len(LENGTHS), *build().output_shape[1:]))
    model, found = trained(build, x, y, True, **options)
    whole, wanted = trained(build, x, y, False, **options)
    assert model.padding_report.groups
    assert not whole.padding_report.groups
    assert model.padding_report.valid == whole.padding_report.valid
    assert model.padding_report.computed < whole.padding_report.computed
    for a, b in zip(found, wanted, strict=True):
        assert close(a, b, 1e-5)
    return model.padding_report


# --- the step


@pytest.mark.parametrize(
    ("middle", "end", "front"),
    [
        (["convolution", "moments"], "mean", False),
        (["strided", "dense"], "steps", False),
        (["wider", "op", "sum"], "weighed", True),
        (["recurrent", "causal"], "largest", True),
        (["both ways", "norm", "inner"], "mean", False),
    ],
)
def test_steps_are_those_of_whole_batches(middle: list[str], end: str, front: bool) -> None:
    def build() -> Any:
        begin, h = embedded()
        for name in middle:
            h = MIDDLE[name](h)
        return keras.Model(begin, layers.Dense(2)(END[end](h)))

    check(build, ids(front, LENGTHS))


def test_layers_that_draw_draw_for_each_group() -> None:
    def build() -> Any:
        begin, h = embedded()
        h = layers.Dropout(0.5)(layers.Dense(64)(h))
        return keras.Model(begin, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))

    x, y = ids(lengths=LENGTHS), np.ones((len(LENGTHS), 1))
    parted, whole = (trained(build, x, y, way, epochs=30)[0] for way in (True, False))
    assert parted.padding_report.groups
    assert not whole.padding_report.groups
    a, b = (model.evaluate(x, y, verbose=0)[0] for model in (parted, whole))
    assert a < 0.05 > b


def test_several_inputs_outputs_and_weights() -> None:
    def build() -> Any:
        x, h = embedded()
        other = keras.Input((20,), dtype="int32", name="other")
        rows = keras.Input((3,), name="rows")
        g = layers.Conv1D(5, 3, padding="same")(layers.Embedding(7, 4, mask_zero=True)(other))
        h = layers.Conv1D(5, 3, padding="same")(h)
        tags = layers.Dense(2, name="tags")(h)
        ends = [layers.GlobalMaxPooling1D()(v) for v in (h, g)]
        out = layers.Dense(1, name="out")(layers.Concatenate()([*ends, rows]))
        return keras.Model([x, other, rows], [tags, out])

    random = np.random.default_rng(0)
    rows = len(LENGTHS)
    x = [ids(lengths=LENGTHS), np.zeros((rows, 20), "int32"), random.normal(size=(rows, 3))]
    for row, n in zip(x[1], random.integers(1, 21, rows), strict=True):
        row[:n] = random.integers(1, 7, n)
    y = [random.normal(size=(rows, TIME, 2)), random.normal(size=(rows, 1))]
    weights = [random.uniform(size=(rows, TIME)), random.uniform(size=rows)]

    def run(parted: bool) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cutting, "pay", lambda graph: parted)
            keras.utils.set_random_seed(3)
            model = build()
            model.compile(
                keras.optimizers.SGD(0.1, clipnorm=1.0),
                ["mse", "mae"],
                weighted_metrics=[["mae"], []],
            )
            history = model.fit(x, y, BATCH, 2, 0, sample_weight=weights).history
        assert bool(model.padding_report.groups) is parted
        return [*(v for h in history.values() for v in h), *(w.numpy() for w in model.weights)]

    for a, b in zip(run(True), run(False), strict=True):
        assert close(a, b, 1e-5)


def test_lists_of_unequal_sequences() -> None:
    def build() -> Any:
        begin = keras.Input((None, 3))
        h = layers.Conv1D(6, 3, padding="same", activation="relu")(begin)
        return keras.Model(begin, layers.Dense(1)(layers.GlobalMaxPooling1D()(h)))

    random = np.random.default_rng(0)
    check(build, [random.normal(size=(max(n, 1), 3)).astype("float32") for n in LENGTHS])


def test_an_embedding_with_a_mask_of_its_own_input() -> None:
    def build() -> Any:
        begin = keras.Input((None,), dtype="int32")
        h = layers.Conv1D(4, 3, padding="same")(layers.Embedding(9, 4)(begin))
        return keras.Model(begin, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))

    check(
        build,
        [
            row[:n].tolist()
            for row, n in zip(ids(lengths=LENGTHS), np.maximum(LENGTHS, 1), strict=True)
        ],
    )


def test_documents_of_sentences() -> None:
    def build() -> Any:
        begin = keras.Input((6, TIME), dtype="int32")
        h = layers.Embedding(WORDS, 4, mask_zero=True)(begin)
        h = layers.TimeDistributed(layers.Conv1D(4, 3, padding="same"))(h)
        h = layers.TimeDistributed(layers.GlobalMaxPooling1D())(h)
        h = layers.Dense(4, activation="relu")(h)
        return keras.Model(begin, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))

    random = np.random.default_rng(0)
    x = ids(lengths=np.repeat(LENGTHS, 6)).reshape(-1, 6, TIME)
    x[np.arange(6) >= random.integers(1, 7, len(x))[:, None]] = 0
    check(build, x)


def test_layers_that_measure_batches_measure_whole_ones() -> None:
    def build() -> Any:
        begin, h = embedded()
        h = layers.BatchNormalization(momentum=0.5)(layers.Conv1D(5, 3, padding="same")(h))
        h = layers.BatchNormalization()(layers.GlobalAveragePooling1D()(h))
        return keras.Model(begin, layers.Dense(1)(h))

    check(build, ids(lengths=LENGTHS))


def test_class_weights_and_callbacks() -> None:
    def build() -> Any:
        begin, h = embedded()
        h = layers.Conv1D(5, 3, padding="same")(h)
        return keras.Model(begin, layers.Dense(1, "sigmoid")(layers.GlobalMaxPooling1D()(h)))

    y = (ids(lengths=LENGTHS)[:, :1] > 4) * 1
    seen = []
    told = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    check(build, ids(lengths=LENGTHS), y, class_weight={0: 1.0, 1: 3.0}, callbacks=[told])
    assert seen == 4 * list(range(8))


def test_losses_of_layers_and_of_weights_count_once() -> None:
    def build() -> Any:
        begin, h = embedded()
        h = layers.Conv1D(5, 3, padding="same", kernel_regularizer="l2")(h)
        pooled = layers.GlobalMaxPooling1D()(h)
        model = keras.Model(begin, layers.Dense(1)(pooled))
        model.add_loss(ops.mean(ops.square(h), axis=(1, 2)) * 1e-2)
        return model

    check(build, ids(lengths=LENGTHS))


# --- the report


def test_the_report_counts_what_groups_compute() -> None:
    def build() -> Any:
        begin, h = embedded()
        h = layers.Conv1D(5, 3, padding="same")(h)
        return keras.Model(begin, layers.Dense(1)(layers.GlobalMaxPooling1D()(h)))

    report = check(build, ids(lengths=LENGTHS))
    assert sum(report.groups) == BATCH
    assert f"in groups of {', '.join(map(str, report.groups))} rows" in str(report)
    assert report.programs <= 1 + len(report.lengths)
    assert report.share_left_out > 0.3


# --- where batches stay whole


def whole(model: Any, x: Any, **options: Any) -> None:
    if model.optimizer is None:
        model.compile("sgd", "mse")
    y = np.zeros((len(x), *model.output_shape[1:]))
    model.fit(x, y, **{"batch_size": BATCH, "verbose": 0, **options})
    assert model.padding_report.groups == ()


def convolved(*more: Any, **options: Any) -> Any:
    begin, h = embedded()
    h = layers.Conv1D(5, 3, padding="same", **options)(h)
    for layer in more:
        h = layer(h)
    return keras.Model(begin, layers.Dense(1)(layers.GlobalMaxPooling1D()(h)))


def test_where_rows_depend_on_each_other_or_nothing_is_gained(monkeypatch) -> None:
    x = ids(lengths=LENGTHS)
    whole(convolved(activity_regularizer="l2"), x)
    whole(convolved(layers.SpectralNormalization(layers.Dense(3))), x)
    whole(convolved(layers.TimeDistributed(layers.BatchNormalization())), x)
    whole(convolved(layers.LSTM(40, return_sequences=True)), x)  # skips padding by itself
    whole(convolved(layers.Lambda(lambda v: v * 2)), x)
    whole(convolved(), ids(lengths=np.full(64, TIME)))
    whole(convolved(), x, group_by_length=True)
    monkeypatch.setattr(cutting, "ENOUGH_BATCHES", 9)
    whole(convolved(), x)
    monkeypatch.setattr(cutting, "ENOUGH_BATCHES", 1)
    monkeypatch.setattr(cutting, "SMALL_STEP", 1e9)
    whole(convolved(), x)
    monkeypatch.setattr(cutting, "SMALL_STEP", 0)
    config.set_trim_padding(False)
    whole(convolved(), x)


def test_a_step_of_ones_own_sees_whole_batches() -> None:
    class Own(keras.Model):
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    begin, h = embedded()
    h = layers.GlobalMaxPooling1D()(layers.Conv1D(5, 3, padding="same")(h))
    whole(Own(begin, layers.Dense(1)(h)), ids(lengths=LENGTHS))


# --- the choice of groups


RECURRENT = {
    "LSTM": lambda: layers.LSTM(6),
    "both ways": lambda: layers.Bidirectional(layers.GRU(3)),
    "a cell": lambda: layers.RNN(layers.LSTMCell(6)),
    "both ways, a cell": lambda: layers.Bidirectional(layers.RNN(layers.LSTMCell(3))),
    "convolution": lambda: layers.Conv1D(6, 3, padding="same"),
    "pooling": layers.GlobalAveragePooling1D,
}


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_padded_step_costs_what_layers_do_not_skip(monkeypatch, kind: str) -> None:
    def cost(*before: Any) -> float:
        begin, h = embedded()
        for layer in (*before, RECURRENT[kind]()):
            h = layer(h)
        return groups.padding_cost(keras.Model(begin, h).graph)

    skips = kind in ("LSTM", "both ways")
    assert cost() == (1 / 32 if skips else 1.0)
    mixed = cost(layers.Conv1D(6, 3, padding="same"))
    assert 3 / 32 < mixed < 1 if skips else mixed == 1.0
    monkeypatch.setattr(groups, "on_cpu", lambda: False)  # there a loop runs all steps
    assert cost() == 1.0


def test_layers_inside_models_and_at_steps_of_steps_count() -> None:
    def encoder(layer: Any) -> Any:
        words = keras.Input((5,), dtype="int32")
        h = layer(layers.Embedding(WORDS, 4, mask_zero=True)(words))
        return keras.Model(words, layers.Dense(4)(h))

    def cost(layer: Any, inside: Any, outside: Any) -> float:
        begin = keras.Input((3, 5) if inside is layers.TimeDistributed else (5,), dtype="int32")
        h = inside(encoder(layer))(begin)
        graph = keras.Model(begin, outside(h)).graph
        assert groups.pay(graph) == (not isinstance(layer, layers.GRU))
        return groups.padding_cost(graph)

    def convolved() -> Any:
        return keras.Sequential([layers.Conv1D(32, 3), layers.GlobalMaxPooling1D()])

    documents = (layers.TimeDistributed, layers.LSTM(2))
    assert cost(layers.GRU(64), *documents) == 1 / 32
    assert cost(layers.GRU(4), *documents) > 1 / 32  # its Dense runs at each sentence
    assert cost(convolved(), *documents) > 0.5
    assert cost(layers.GRU(64), lambda model: model, layers.Dense(3)) == 1 / 32
    assert cost(convolved(), lambda model: model, layers.Dense(3)) == 1.0


def test_padded_steps_of_outputs_cost_more() -> None:
    begin, h = embedded()
    h = layers.LSTM(6, return_sequences=True)(h)
    h = layers.TimeDistributed(layers.Dense(2))(h)
    assert groups.padding_cost(keras.Model(begin, h).graph) == 3 / 32


def test_few_lengths_where_layers_skip_padding() -> None:
    def lengths(layer: Any) -> list[tuple[int, ...]]:
        model = keras.Sequential([layers.Embedding(WORDS, 4, mask_zero=True), layer])
        model.compile("sgd", "mse")
        spread = 1 + (np.linspace(0, 1, 512) ** 5 * (TIME - 1)).astype(int)
        model.predict(ids(lengths=spread), batch_size=BATCH, verbose=0)
        return model.padding_report.lengths

    recurrent, convolved = lengths(layers.LSTM(4)), lengths(layers.GlobalMaxPooling1D())
    assert 1 < len(recurrent) < len(convolved)
    assert recurrent[-1] == convolved[-1] == (TIME,)


@given(
    st.lists(st.integers(1, 50), min_size=33, max_size=90),
    st.integers(0, 2**31),
)
def test_groups_hold_what_rows_need(needs: list[int], seed: int) -> None:
    table = Table([np.zeros(n, "float32") for n in (*needs, 51)])
    lengths = table.lengths
    grouping = Grouping(lengths, [table.tables[0]], 16, "shuffled")
    found = grouping.groups
    if found is None:
        return
    assert sum(found.rows) == 16
    assert all(a > b for (a,), (b,) in itertools.pairwise(found.sizes))
    random = np.random.default_rng(seed)
    for _ in range(5):
        rows = random.permutation(table.rows)[:16]
        sizes = lengths.covering(rows, 16, "shuffled")
        ordered, parted = grouping.of(rows, sizes)
        assert sorted(ordered) == sorted(rows)
        if parted is not None:
            for span, (size,) in zip(parted.spans, parted.sizes, strict=True):
                assert lengths.needs[ordered[span]].max() <= size
        else:
            assert (ordered == rows).all()


def test_equal_lengths_make_no_groups() -> None:
    table = Table([np.zeros(15, "float32")] * 63 + [np.zeros(16, "float32")])
    assert Grouping(table.lengths, [table.tables[0]], 16, "shuffled").groups is None
