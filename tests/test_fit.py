"""Training, evaluation and prediction: Keras's numbers, whatever the batches and their padding."""

import jax
import numpy as np
import pytest

import alphorn
from alphorn.core.masked import Masked
from alphorn.layers import (
    BatchNormalization,
    Conv1D,
    Dense,
    Embedding,
    Flatten,
    GlobalAveragePooling1D,
    Masking,
)
from alphorn.training.step import Program
from nets import (
    CLASS_WEIGHTS,
    CLASSIFYING,
    IDS,
    LABELS,
    RAGGED,
    STEP_LABELS,
    STEP_WEIGHTS,
    TIME,
    WEIGHTS,
    WORDS,
    Twins,
    X,
    Y,
    compiled,
    forked,
    gap,
    line,
    mlp,
    ready,
    rnn,
    start,
    tagger,
)

VALIDATION = (X[:5], LABELS[:5], WEIGHTS[:5])


def agree(twins: Twins, *args, **options) -> dict:
    """Trains both, demands Keras's figures by Keras's names, and its weights; returns ours."""
    ours, theirs = twins.fit(*args, **options)
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        assert gap(ours[name], values) < 1e-5, name
    assert gap(twins.ours.get_weights(), twins.theirs.get_weights()) < 1e-5
    return ours


@pytest.fixture(scope="module")
def perceptrons() -> Twins:
    return Twins(
        mlp, **CLASSIFYING, weighted_metrics=["accuracy", "sparse_categorical_crossentropy"]
    )


@pytest.fixture(scope="module")
def sequences() -> Twins:
    return Twins(rnn, **CLASSIFYING)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"validation_split": 0.2},
        {"validation_data": (X[:4], LABELS[:4]), "validation_freq": 2, "epochs": 3},
        {"validation_data": (X[:4], LABELS[:4]), "validation_freq": [1, 3], "epochs": 3},
        {"validation_data": (X[:8], LABELS[:8]), "validation_steps": 1},
        {"validation_data": (X[:8], LABELS[:8]), "validation_batch_size": 2, "epochs": 1},
        {"initial_epoch": 1, "epochs": 3},
        {"epochs": 4, "batch_size": 2, "steps_per_epoch": 3, "x": X[:6], "y": LABELS[:6]},
        {"sample_weight": WEIGHTS, "validation_data": VALIDATION},
        {"class_weight": CLASS_WEIGHTS},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_a_perceptron_trains_as_in_keras(perceptrons, options):
    ours = agree(perceptrons, **{"x": X, "y": LABELS} | options)
    assert len(ours["loss"]) == options.get("epochs", 2) - options.get("initial_epoch", 0)


@pytest.mark.parametrize(
    "options",
    [{}, {"sample_weight": WEIGHTS, "validation_split": 0.2}, {"class_weight": CLASS_WEIGHTS}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_a_masked_lstm_trains_as_in_keras(sequences, options):
    agree(sequences, IDS, LABELS, **options)


def test_ragged_lists_train_as_padded_arrays_do(sequences):
    theirs = sequences.fit(IDS, LABELS)[1]
    ours = sequences.ours
    weights = ours.get_weights()
    history, _ = sequences.fit(IDS, LABELS)
    assert gap(history["loss"], theirs["loss"]) < 1e-5
    for variable, value in sequences._fresh[: len(sequences._fresh) // 2]:
        variable.assign(value)
    alone = ours.fit(RAGGED, LABELS.tolist(), batch_size=4, epochs=2, shuffle=False, verbose=0)
    assert gap(alone.history["loss"], theirs["loss"]) < 1e-5
    assert gap(ours.get_weights(), weights) < 1e-5


OUTPUTS = {
    "lists": ({"loss_weights": [0.3, 2.0]}, [X, X], [Y, LABELS], [WEIGHTS, WEIGHTS[::-1]]),
    "dicts": ({}, {"a": X, "b": X}, {"u": Y, "v": LABELS}, {"u": WEIGHTS, "v": WEIGHTS[::-1]}),
}


def outputs_compiled(form: str) -> tuple[Twins, dict]:
    options = {
        "optimizer": "adam",
        "loss": ["mse", "sparse_categorical_crossentropy"],
        "metrics": [["mae"], ["accuracy"]],
    } | OUTPUTS[form][0]
    if form == "dicts":
        options = {
            k: dict(zip("uv", v, strict=True)) if k != "optimizer" else v
            for k, v in options.items()
        }
    return Twins(lambda K: forked(K, form == "dicts"), **options), options


def rows_of(tree, rows):
    return jax.tree.map(lambda a: a[rows], tree)


@pytest.mark.parametrize("form", OUTPUTS)
def test_several_outputs_train_as_in_keras(form):
    twins, _ = outputs_compiled(form)
    _, x, y, weights = OUTPUTS[form]
    agree(twins, x, y, validation_data=(x, y))
    for return_dict in (False, True):
        found = []
        for model in (twins.ours, twins.theirs):
            found.append(
                [
                    model.train_on_batch(x, y, return_dict=return_dict),
                    model.test_on_batch(x, y, return_dict=return_dict),
                    model.evaluate(x, y, verbose=0, return_dict=return_dict),
                ]
            )
        for ours, theirs in zip(*found, strict=True):
            assert type(ours) is type(theirs)
            assert ours == (pytest.approx(theirs, rel=1e-5))
    # Keras's mean of batch means is the same where all batches weigh alike.
    agree(twins, x, y, sample_weight=weights, batch_size=10)


def test_the_total_loss_depends_on_neither_batches_nor_order():
    x = alphorn.Input((None,), dtype="int32")
    vectors = Embedding(WORDS, 4, mask_zero=True)(x)
    p = Dense(1, name="p")(vectors)
    q = Dense(3, "softmax", name="q", kernel_regularizer="l2")(GlobalAveragePooling1D()(vectors))
    model = alphorn.Model(x, [p, q])
    model.set_weights(start(model))
    losses = ["mse", "sparse_categorical_crossentropy"]
    model.compile(alphorn.optimizers.SGD(0.0), losses, loss_weights=[2.0, 0.5])
    y = [STEP_WEIGHTS[..., None], LABELS]
    whole = model.evaluate(IDS, y, batch_size=10, verbose=0, return_dict=True)
    turned = np.random.default_rng(2).permutation(len(IDS))
    for order, size in ((slice(None), 4), (turned, 3)):
        for found in (
            model.evaluate(IDS[order], rows_of(y, order), size, 0, return_dict=True),
            {
                k: v[0]
                for k, v in model.fit(
                    IDS[order], rows_of(y, order), size, verbose=0
                ).history.items()
            },
        ):
            assert found == pytest.approx(whole, rel=1e-5)
    decay = 0.01 * float((model.get_layer("q").kernel ** 2).sum())
    total = 2 * whole["p_loss"] + whole["q_loss"] / 2 + decay
    assert whole["loss"] == pytest.approx(total, rel=1e-5)


def test_weights_of_steps_are_those_of_the_sequences_alone(sequence_taggers):
    """Keras counts padded steps in the accuracy of `fit`; the loss of one batch is the same."""
    ours, theirs = sequence_taggers.fit(
        IDS, STEP_LABELS, sample_weight=STEP_WEIGHTS, batch_size=10, epochs=1
    )
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    for variable, value in sequence_taggers._fresh:
        variable.assign(value)
    model = sequence_taggers.ours
    hits, total, count = [], 0.0, 0.0
    for i, row in enumerate(RAGGED):
        n = len(row)
        alone = model.predict(np.array([row]), verbose=0)[0]
        hit = alone.argmax(-1) == STEP_LABELS[i, :n]
        hits += list(hit)
        total += (hit * STEP_WEIGHTS[i, :n]).sum()
        count += STEP_WEIGHTS[i, :n].sum()
    assert ours["accuracy"] == [pytest.approx(np.mean(hits), rel=1e-6)]
    assert ours["weighted_accuracy"] == [pytest.approx(total / count, rel=1e-5)]


@pytest.fixture(scope="module")
def sequence_taggers():
    return Twins(tagger, **CLASSIFYING, weighted_metrics=["accuracy"])


def test_an_embedding_shared_by_two_inputs_learns():
    def pair(K):
        a, b = (K.Input((None,), dtype="int32", name=n) for n in "ab")
        shared = K.layers.Embedding(WORDS, 4, mask_zero=True)
        pool = K.layers.GlobalAveragePooling1D()
        both = K.layers.Concatenate()([pool(shared(a)), pool(shared(b))])
        return K.Model([a, b], K.layers.Dense(1)(both))

    twins = Twins(pair, optimizer="adam", loss="mse")
    ours = agree(twins, [IDS, IDS[::-1].copy()], Y, epochs=3)
    assert ours["loss"][-1] < ours["loss"][0]


def test_an_output_without_a_loss_has_no_figure():
    twins = Twins(
        forked,
        optimizer="sgd",
        loss=[None, "sparse_categorical_crossentropy"],
        metrics=[None, ["accuracy"]],
    )
    ours = agree(twins, [X, X], [Y, LABELS], epochs=1)
    assert set(ours) == {"loss", "q_accuracy"}


def test_a_loss_alone_is_a_number():
    model = ready()
    assert type(model.train_on_batch(X, Y)) is float
    assert type(model.test_on_batch(X, Y)) is float
    assert type(model.evaluate(X, Y, verbose=0)) is float
    assert model.evaluate(X, Y, verbose=0, return_dict=True) == {
        "loss": model.evaluate(X, Y, verbose=0)
    }


def by_hand(predictions: np.ndarray, weights: np.ndarray) -> float:
    """The weighted crossentropy of the valid steps of IDS, in NumPy."""
    picked = np.take_along_axis(predictions.astype("float64"), STEP_LABELS[..., None], -1)[..., 0]
    valid = IDS != 0
    return float((-np.log(np.where(valid, picked, 1)) * weights * valid).sum() / valid.sum())


@pytest.fixture(scope="module")
def masked_tagger():
    options = CLASSIFYING | {"optimizer": alphorn.optimizers.SGD(0.0)}
    return compiled(tagger, **options)


@pytest.mark.parametrize("weights", [None, STEP_WEIGHTS, WEIGHTS], ids=["none", "steps", "rows"])
def test_fit_and_evaluate_give_one_figure_whatever_batches_and_order(masked_tagger, weights):
    model = masked_tagger
    weight = np.ones((1, 1)) if weights is None else weights.reshape(len(weights), -1)
    loss = by_hand(model.predict(IDS, verbose=0), weight)
    turned = np.random.default_rng(2).permutation(len(IDS))
    for order, size in ((slice(None), 4), (slice(None), 3), (turned, 4)):
        data = {
            "x": IDS[order],
            "y": STEP_LABELS[order],
            "sample_weight": None if weights is None else weights[order],
            "batch_size": size,
            "verbose": 0,
        }
        trained = model.fit(**data, epochs=2, shuffle=False).history
        measured = model.evaluate(**data, return_dict=True)
        assert trained["loss"] == pytest.approx([loss, loss], rel=1e-5)
        assert measured["loss"] == pytest.approx(loss, rel=1e-5)
        assert trained["accuracy"] == pytest.approx([measured["accuracy"]] * 2, rel=1e-6)


def test_class_weights_are_weights_of_rows_and_of_steps(masked_tagger):
    by_class = np.vectorize(CLASS_WEIGHTS.get)
    options = {"batch_size": 4, "verbose": 0, "shuffle": False}
    for weights in (None, WEIGHTS):
        steps = by_class(STEP_LABELS) * (1 if weights is None else weights[:, None])
        expected = masked_tagger.fit(IDS, STEP_LABELS, sample_weight=steps, **options)
        found = masked_tagger.fit(
            IDS, STEP_LABELS, class_weight=CLASS_WEIGHTS, sample_weight=weights, **options
        )
        assert found.history["loss"] == pytest.approx(expected.history["loss"], rel=1e-6)
    model = ready(mlp, "sparse_categorical_crossentropy")
    expected = model.fit(X, LABELS, sample_weight=by_class(LABELS), **options)
    model = ready(mlp, "sparse_categorical_crossentropy")
    found = model.fit(X, LABELS[:, None], class_weight=CLASS_WEIGHTS, **options)
    assert found.history["loss"] == pytest.approx(expected.history["loss"], rel=1e-6)


def test_several_steps_a_call_change_nothing():
    x = np.repeat(X, 4, 0)[:37]
    y = x @ np.ones((3, 1), "float32")
    found = []
    for steps in (1, 4, "auto"):
        model = compiled(line, optimizer="adam", loss="mse", steps_per_execution=steps)
        calls = []
        count = alphorn.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, calls=calls: calls.append(batch)
        )
        count.wants_batches_ = False
        history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        found.append((history.history["loss"], model.get_weights()))
    for losses, weights in found[1:]:
        assert gap(losses, found[0][0]) < 1e-6
        assert gap(weights, found[0][1]) < 1e-6


@pytest.mark.parametrize(
    ("layer", "together"), [(lambda: Conv1D(3, 2), 1), (lambda: Dense(3), 4)], ids=["conv", "dense"]
)
def test_convolutions_do_not_run_in_a_loop(monkeypatch, layer, together):
    counts = []
    spread = Program._spread

    def seen(self, batches, count=1):
        counts.append(count)
        return spread(self, batches, count)

    monkeypatch.setattr(Program, "_spread", seen)
    x = np.random.default_rng(0).random((18, 5, 2), "float32")
    found = []
    for steps in (1, 4):
        alphorn.utils.set_random_seed(3)
        model = alphorn.Sequential([alphorn.Input((5, 2)), layer(), Flatten(), Dense(1)])
        model.compile("adam", "mse", steps_per_execution=steps)
        history = model.fit(x, np.ones((18, 1)), batch_size=2, epochs=2, shuffle=False, verbose=0)
        found.append((history.history["loss"], model.get_weights()))
    assert max(counts) == together
    assert gap(found[0][0], found[1][0]) < 1e-6
    assert gap(found[0][1], found[1][1]) < 1e-6


def test_shuffling_reaches_every_row_once_an_epoch():
    seen = []

    class Seen(alphorn.Model):
        def train_step(self, data):
            seen.append(np.asarray(data[0])[:, 0])
            return {"loss": 0.0}

    x = alphorn.Input((1,))
    model = Seen(x, Dense(1)(x))
    model.compile("sgd", "mse", run_eagerly=True)
    values = np.arange(10, dtype="float32")[:, None]
    model.fit(values, values, batch_size=4, epochs=2, verbose=0)
    first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(range(10))
    assert list(first) != list(second)
    seen.clear()
    model.fit(values, values, batch_size=4, verbose=0, shuffle=False)
    assert list(np.concatenate(seen)) == list(range(10))


def test_the_seed_decides_the_order():
    losses = []
    for _ in range(2):
        alphorn.utils.set_random_seed(3)
        losses.append(ready().fit(X, Y, batch_size=4, epochs=2, verbose=0).history["loss"])
    assert losses[0] == losses[1]


def test_run_eagerly_gives_the_same_and_shows_the_values():
    expected = ready().fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    seen = []

    class Watched(alphorn.Sequential):
        def call(self, inputs, training=None, mask=None):
            seen.append(float(inputs[0, 0]))
            return super().call(inputs, training)

    model = Watched([alphorn.Input((3,)), Dense(1)])
    model.set_weights(start(model))
    model.compile(alphorn.optimizers.SGD(0.1), "mse", run_eagerly=True)
    seen.clear()
    found = model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert seen[-6:] == [float(X[i, 0]) for i in (0, 4, 8)] * 2


def test_moments_of_masked_data_are_those_of_the_steps_that_exist():
    steps = np.random.default_rng(0).normal(size=(8, TIME, 2)).astype("float32")
    lengths = [6, 2, 3, 1, 4, 6, 5, 2]
    valid = np.arange(TIME) < np.array(lengths)[:, None]
    x = alphorn.Input((None, 2))
    norm = BatchNormalization(momentum=0.9)
    model = alphorn.Model(x, Dense(1)(GlobalAveragePooling1D()(norm(Masking(99.0)(x)))))
    model.compile(alphorn.optimizers.SGD(0.0), "mse")
    padded = np.where(valid[..., None], steps, np.float32(99))
    model.fit(padded, np.zeros((8, 1)), batch_size=4, epochs=1, shuffle=False, verbose=0)
    mean, variance = np.zeros(2), np.ones(2)
    for half in (slice(0, 4), slice(4, 8)):
        rows = steps[half][valid[half]].astype("float64")
        mean = 0.9 * mean + 0.1 * rows.mean(0)
        variance = 0.9 * variance + 0.1 * rows.var(0)
    assert gap(norm.moving_mean.numpy(), mean) < 1e-5
    assert gap(norm.moving_variance.numpy(), variance) < 1e-5


def test_a_batch_without_any_step_changes_nothing():
    model = compiled(tagger, optimizer=alphorn.optimizers.SGD(0.1), loss=CLASSIFYING["loss"])
    before = model.get_weights()
    assert model.train_on_batch(IDS * 0, STEP_LABELS) == 0
    assert gap(model.get_weights(), before) == 0


def test_predictions_of_padding_are_zeros_and_rows_are_in_their_order(masked_tagger):
    predictions = masked_tagger.predict(IDS, batch_size=4, verbose=0)
    assert predictions.shape == (10, TIME, 3)
    assert not predictions[IDS == 0].any()
    assert predictions[IDS != 0].sum(-1) == pytest.approx(1.0, abs=1e-6)
    for i in (0, 1, 9):
        alone = masked_tagger.predict([RAGGED[i]], verbose=0)
        assert gap(alone[0], predictions[i, : len(RAGGED[i])]) < 1e-5
    ragged = masked_tagger.predict(RAGGED, batch_size=4, verbose=0)
    assert gap(ragged, predictions) < 1e-5


def test_a_model_returns_a_masked_where_steps_are_missing(masked_tagger):
    out = masked_tagger(IDS)
    assert isinstance(out, Masked)
    assert (np.asarray(out.mask) == (IDS != 0)).all()


def test_frozen_layers_stay_after_a_new_compile():
    model = compiled(mlp, **CLASSIFYING)
    model.get_layer("hidden").trainable = False
    model.compile(**CLASSIFYING)
    before = model.get_weights()
    model.fit(X, LABELS, batch_size=5, verbose=0)
    after = model.get_weights()
    assert gap(after[:2], before[:2]) == 0
    assert gap(after[2:], before[2:]) > 1e-3


def test_losses_of_layers_are_minimized_beside_or_instead_of_a_loss():
    class Penalized(alphorn.Layer):
        def call(self, x):
            self.add_loss(alphorn.ops.sum(x) * 0 + 2.0)
            return x

    x = alphorn.Input((3,))
    model = alphorn.Model(x, Penalized()(Dense(1, kernel_regularizer="l2")(x)))
    model.set_weights(start(model))
    model.compile(alphorn.optimizers.SGD(0.0))
    decay = 0.01 * float((model.get_weights()[0] ** 2).sum())
    assert model.fit(X, verbose=0).history["loss"] == pytest.approx([2 + decay], rel=1e-5)
    model.compile(alphorn.optimizers.SGD(0.0), "mse")
    error = float(((model.predict(X, verbose=0) - Y) ** 2).mean())
    history = model.fit(X, Y, verbose=0, batch_size=5, shuffle=False).history
    assert history["loss"] == pytest.approx([2 + decay + error], rel=1e-5)
