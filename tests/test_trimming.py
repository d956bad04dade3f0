"""Padding that is not computed: trimmed batches give what whole ones give, and say where not."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alphorn as keras
from alphorn import config, layers, ops
from alphorn.training import cutting
from alphorn.training.trimming import trimming_of

ROWS, TIME, WORDS, FEATURES = 6, 12, 9, 3
LENGTHS = np.array([7, 2, 5, 1, 0, 6])


@pytest.fixture(autouse=True)
def trimming_stays_on(monkeypatch: pytest.MonkeyPatch):
    # As many lengths as where no layer skips padding by itself, which test_groups looks at.
    monkeypatch.setattr(cutting, "padding_cost", lambda graph: 1.0)
    yield
    config.set_trim_padding(True)


def ids(front: bool = False, lengths: Any = LENGTHS, time: int = TIME) -> np.ndarray:
    """Returns rows of ids, padded with zeros."""
    random = np.random.default_rng(2)
    x = np.zeros((len(lengths), time), "int32")
    for row, n in zip(x, lengths, strict=True):
        row[time - n if front else 0 :][:n] = random.integers(1, WORDS, n)
    return x


def embedded() -> tuple[Any, Any]:
    x = keras.Input((TIME,), dtype="int32", name="x")
    return x, layers.Embedding(WORDS, 4, mask_zero=True)(x)


def both_ways(run: Any) -> tuple[Any, Any]:
    """Returns what `run` gives with padding cut and with whole batches."""
    found = []
    for enabled in (True, False):
        config.set_trim_padding(enabled)
        found.append(run())
    return found[0], found[1]


def close(a: Any, b: Any, tolerance: float = 2e-6) -> bool:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a.shape == b.shape and bool(
        np.abs(a - b).max(initial=0) <= tolerance * max(np.abs(b).max(initial=0), 1.0)
    )


# --- any graph of layers over sequences

MIDDLE = {
    "dense": lambda h: layers.Dense(4, activation="tanh")(h),
    "convolution": lambda h: layers.Conv1D(4, 3, padding="same")(h),
    "causal": lambda h: layers.Conv1D(4, 2, padding="causal", dilation_rate=2)(h),
    "strided": lambda h: layers.Conv1D(4, 3, strides=2, padding="same")(h),
    "pooled": lambda h: layers.MaxPooling1D(2, padding="same")(h),
    "wider": lambda h: layers.UpSampling1D(2)(h),
    "recurrent": lambda h: layers.GRU(4, return_sequences=True)(h),
    "backwards": lambda h: layers.SimpleRNN(4, return_sequences=True, go_backwards=True)(h),
    "both ways": lambda h: layers.Bidirectional(layers.LSTM(2, return_sequences=True))(h),
    "attention": lambda h: layers.MultiHeadAttention(2, 2, dropout=0.3)(h, h),
    "norm": lambda h: layers.LayerNormalization()(h),
    "moments": lambda h: layers.BatchNormalization()(h),
    "dropped": lambda h: layers.Dropout(0.3)(h),
    "noisy": lambda h: layers.SpatialDropout1D(0.3)(h),
    "sum": lambda h: layers.Add()([h, layers.Dense(4)(h)]),
    "op": lambda h: ops.tanh(h) * 0.5 + h,
    "inner": lambda h: layers.TimeDistributed(layers.Dense(4))(h),
}
END = {
    "mean": lambda h: layers.GlobalAveragePooling1D()(h),
    "largest": lambda h: layers.GlobalMaxPooling1D()(h),
    "state": lambda h: layers.LSTM(3, dropout=0.3)(h),
    "weighed": lambda h: layers.GlobalAttentionPooling1D()(h),
    "steps": lambda h: h,
}


@settings(max_examples=7, deadline=None)
@given(
    middle=st.lists(st.sampled_from(sorted(MIDDLE)), min_size=1, max_size=3),
    end=st.sampled_from(sorted(END)),
    front=st.booleans(),
)
def test_a_trimmed_batch_gives_what_the_whole_one_gives(middle, end, front) -> None:
    x = ids(front)

    def run() -> list[Any]:
        keras.utils.set_random_seed(3)
        begin, h = embedded()
        for name in middle:
            h = MIDDLE[name](h)
        out = layers.Dense(2)(END[end](h))
        model = keras.Model(begin, out)
        model.compile(keras.optimizers.SGD(1.0), "mse", metrics=["mae"])
        y = np.random.default_rng(4).normal(size=(ROWS, *model.output_shape[1:]))
        history = model.fit(x, y, batch_size=ROWS, verbose=0).history
        report = model.padding_report
        if config.trim_padding():
            assert report is not None
            trimmed.append(report.computed < report.padded)
        after = [w.numpy() for w in model.weights]  # by a step of 1: gradients
        figures = model.evaluate(x, y, verbose=0)
        return [history["loss"], history["mae"], figures, model.predict(x, verbose=0), *after]

    trimmed: list[bool] = []
    short, whole = both_ways(run)
    moves = {"strided", "pooled", "wider", "convolution", "causal"} & set(middle)
    draws = {"dropped", "noisy", "attention"} & set(middle)
    assert trimmed[0] or (front and (draws or (moves and end == "steps")))
    for a, b in zip(short, whole, strict=True):
        assert close(a, b)


# --- where it is not proven, the layer is named


class Own(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x * 2


def _flat(h: Any) -> Any:
    return layers.Dense(2)(layers.Flatten()(h))


NOT_PROVEN = {
    "Flatten": (_flat, "Flatten 'flatten' ends the mask"),
    "Lambda": (lambda h: layers.Lambda(lambda x: x)(h), "Lambda 'lambda' runs a function of your"),
    "own layer": (lambda h: Own()(h), "Own 'own' is a class of your own"),
    "own activation": (
        lambda h: layers.Dense(2, activation=lambda x: x - x.mean(1, keepdims=True))(h),
        "Dense 'dense' has activation= a function of your own",
    ),
    "unrolled": (lambda h: layers.LSTM(2, unroll=True)(h), "LSTM 'lstm' is unrolled"),
    "slice": (lambda h: layers.LSTM(2)(ops.take_steps(h, 0, 5)), "gives a fixed number of steps"),
    "mask removed": (lambda h: layers.RemoveMask()(h), "ends the mask, and the steps stay"),
    "noise inside": (
        lambda h: layers.TimeDistributed(layers.Dropout(0.5))(h),
        "draws for all steps at once",
    ),
    "fixed steps": (
        lambda h: layers.AdaptiveMaxPooling1D(3)(h),
        "gives a fixed number of steps",
    ),
}


@pytest.mark.parametrize("case", NOT_PROVEN)
def test_what_stands_in_the_way_is_named(case: str) -> None:
    make, why = NOT_PROVEN[case]
    x, h = embedded()
    found = trimming_of(keras.Model(x, make(h)), [0])
    assert not found.cuts
    assert why in found.why


def test_an_input_that_another_layer_reads_is_not_cut() -> None:
    x, h = embedded()
    other = layers.Embedding(WORDS, 4, name="words")(x)
    model = keras.Model(x, layers.GlobalMaxPooling1D()(layers.Concatenate()([h, other])))
    assert trimming_of(model, [0]).why == "Embedding 'words' takes padding for data"


def test_own_code_that_sees_no_steps_is_none_s_business() -> None:
    x, h = embedded()
    model = keras.Model(x, Own()(layers.LSTM(2)(h)))
    assert trimming_of(model, [0]).cuts[0].axes == (1,)


def test_an_input_beside_which_is_no_sequence_stays() -> None:
    x, h = embedded()
    static = keras.Input((FEATURES,))
    model = keras.Model([x, static], layers.Concatenate()([layers.LSTM(2)(h), static]))
    (cut,) = trimming_of(model, [0, 0]).cuts
    assert cut.place == 0
    unmasked = keras.Input((TIME, 4))
    joined = layers.GlobalMaxPooling1D()(layers.Add()([h, unmasked]))
    found = trimming_of(keras.Model([x, unmasked], joined), [0, 0])
    assert not found.cuts


# --- documents of sentences of words


def document(inner: Any) -> Any:
    words = keras.Input((5,), dtype="int32")
    sentence = keras.Model(words, inner(layers.Embedding(WORDS, 4, mask_zero=True)(words)))
    pages = keras.Input((4, 5), dtype="int32")
    h = layers.GRU(3)(layers.TimeDistributed(sentence)(pages))
    model = keras.Model(pages, layers.Dense(1)(h))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    return model


def test_documents_are_cut_on_both_axes_where_each_is_safe() -> None:
    def axes(inner: Any) -> list[tuple[int, ...]]:
        return [c.axes for c in trimming_of(document(inner), [0]).cuts]

    assert axes(layers.LSTM(3)) == [(1, 2)]
    assert axes(lambda h: layers.Dense(3)(layers.Flatten()(h))) == [(1,)]
    assert axes(lambda h: layers.Dropout(0.5)(layers.LSTM(3)(h))) == []


def test_cut_documents_give_what_whole_ones_give() -> None:
    x = np.zeros((6, 4, 5), "int32")
    x[:, 0, :2], x[:3, 1, :3] = 3, 4

    def run() -> list[Any]:
        keras.utils.set_random_seed(0)
        model = document(layers.LSTM(3))
        loss = model.fit(x, x[:, 0, :1], verbose=0).history["loss"]
        report = model.padding_report
        assert report is not None
        if config.trim_padding():
            assert report.lengths == [(2, 3)]
            assert report.share_left_out == (6 * 20 - 6 * 6) / (6 * 20 - 21)
        return [loss, model.predict(x, verbose=0), *(w.numpy() for w in model.weights)]

    for a, b in zip(*both_ways(run), strict=True):
        assert close(a, b)


# --- outputs are padded back

LONG = np.random.default_rng(1).integers(1, TIME + 1, 300)


@functools.cache
def steps_model(kind: str) -> Any:
    keras.utils.set_random_seed(0)
    x, h = embedded()
    ends = {
        "dense": lambda: layers.Dense(2)(layers.GRU(2, return_sequences=True)(h)),
        "repeats": lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True))(h),
        "strided": lambda: layers.Conv1D(2, 3, strides=2, padding="same")(h),
    }
    return keras.Model(x, ends[kind]())


@pytest.mark.parametrize("front", [False, True], ids=["behind", "in front"])
@pytest.mark.parametrize("kind", ["dense", "repeats", "strided"])
def test_predictions_have_the_shape_order_and_padding_of_whole_batches(kind, front) -> None:
    model, x = steps_model(kind), ids(front, LONG)

    def run() -> Any:
        out = model.predict(x, batch_size=20, verbose=0)
        return out, model.padding_report

    (short, report), (whole, _) = both_ways(run)
    assert short.shape == whole.shape
    assert close(short, whole)
    cut = 1 < len(report.lengths) <= 5
    assert cut == (not front or kind != "strided")


def test_lists_of_rows_give_what_their_padding_gives() -> None:
    model, x = steps_model("repeats"), ids(lengths=LONG)
    rows = [[int(i) for i in row if i] for row in x]
    fresh = keras.models.clone_model(model)  # its input names 12 steps
    fresh.set_weights(model.get_weights())
    assert close(fresh.predict(rows, verbose=0), model.predict(rows, verbose=0))
    padded = model.predict(x, verbose=0)
    listed = model.predict(rows, verbose=0)
    assert close(listed, padded[:, : listed.shape[1]])


# --- the switch, the report, the summary


def test_the_switch_turns_it_off() -> None:
    model = steps_model("dense")
    assert config.trim_padding()
    config.set_trim_padding(False)
    model.predict(ids(), verbose=0)
    assert model.padding_report.lengths == []
    assert "trim_padding" in model.padding_report.why


def test_a_generator_s_batches_are_left_as_they_are() -> None:
    model = steps_model("dense")
    out = model.predict(iter([(ids(),)]), steps=1, verbose=0)
    assert close(out, model.predict(ids(), verbose=0)[:, : max(LENGTHS)])


def test_the_summary_says_whether_and_why_not() -> None:
    def text(model: Any) -> str:
        lines: list[str] = []
        model.summary(print_fn=lines.append)
        return "\n".join(lines)

    x, h = embedded()
    assert "Padding: batches are cut to their longest row" in text(
        keras.Model(x, layers.LSTM(2)(h))
    )
    own = text(keras.Model(x, layers.LSTM(2)(Own()(h))))
    assert "Padding: computed, because Own 'own" in own
    assert "Padding" not in text(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))


def test_labels_of_an_alignment_are_no_values_of_steps() -> None:
    """A row of 12 labels for 12 steps stays, though the steps are cut."""
    x = ids(lengths=[9, 8, 7])
    labels = np.zeros((3, TIME), "int32")
    labels[:, :2] = [[1, 2], [2, 1], [1, 1]]

    def run() -> float:
        keras.utils.set_random_seed(0)
        begin, h = embedded()
        model = keras.Model(begin, layers.Dense(4)(h))
        model.compile("sgd", "ctc")
        return model.evaluate(x, labels, verbose=0)

    short, whole = both_ways(run)
    assert close(short, whole)


def test_targets_and_weights_of_strided_steps_are_cut_with_them() -> None:
    x = ids()
    y = np.random.default_rng(0).normal(size=(ROWS, TIME // 2, 2)).astype("float32")
    weight = np.random.default_rng(1).uniform(size=(ROWS, TIME // 2)).astype("float32")
    model = steps_model("strided")
    model.compile(keras.optimizers.SGD(0.0), "mse", weighted_metrics=["mae"])

    def run() -> list[float]:
        return model.evaluate(x, y, sample_weight=weight, verbose=0)

    short, whole = both_ways(run)
    assert close(short, whole)
    assert model.fit(x, y, sample_weight=weight, verbose=0).history["mae"] == [
        pytest.approx(whole[1], rel=1e-5)
    ]
