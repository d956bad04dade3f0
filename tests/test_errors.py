"""What users meet when something is wrong: the place, what came, what was expected, the way out."""

import jax.numpy as jnp
import numpy as np
import pytest

import alphorn
from alphorn.errors import (
    AlphornError,
    ArgumentError,
    DataError,
    MaskError,
    ShapeError,
    StateError,
    UnexpectedArgumentError,
)
from alphorn.layers import LSTM, Conv1D, Dense, Embedding, MultiHeadAttention
from nets import (
    IDS,
    LABELS,
    STEP_LABELS,
    X,
    Y,
    compiled,
    forked,
    line,
    mlp,
    rnn,
    tagger,
)

STEPS = np.zeros((2, 3, 4), "float32")
SPARSE = "sparse_categorical_crossentropy"


def built(layer, data):
    layer(data)
    return layer


def fitting(make, x, y, loss="mse", **options):
    return lambda: compiled(make, optimizer="sgd", loss=loss).fit(x, y, verbose=0, **options)


ERRORS = {
    "rank": (lambda: LSTM(2, name="l")(X), ShapeError, "LSTM 'l'", "(10, 3)", "(batch, time, f"),
    "rank of a Conv1D": (
        lambda: Conv1D(2, 2)(X),
        ShapeError,
        "'conv1d'",
        "(10, 3)",
        "x[..., None]",
    ),
    "rank of attention": (
        lambda: MultiHeadAttention(2, 2)(X, X),
        ShapeError,
        "'multi_head_attention'",
        "(10, 3)",
        "(batch, time, features)",
    ),
    "features": (
        lambda: built(Dense(2, name="d"), X)(X[:, :2]),
        ShapeError,
        "Dense 'd'",
        "(10, 2)",
        "size 3 on axis -1",
        "make a new layer",
    ),
    "no weights yet": (
        lambda: alphorn.Sequential([Dense(1)]).get_weights(),
        StateError,
        "get_weights of Sequential 'sequential'",
        "build(input_shape)",
    ),
    "arrays for weights": (
        lambda: line(alphorn).set_weights([X]),
        ShapeError,
        "set_weights of Sequential",
        "1 arrays",
        "2 arrays",
    ),
    "fit before compile": (
        lambda: line(alphorn).fit(X, Y),
        StateError,
        "fit of 'sequential' before compile",
        "model.compile(",
    ),
    "evaluate before compile": (
        lambda: line(alphorn).evaluate(X, Y),
        StateError,
        "evaluate of",
        "model.compile(",
    ),
    "no loss": (
        fitting(line, X, Y, loss=None),
        StateError,
        "no loss to minimize",
        "no loss in compile",
        "loss='mse'",
    ),
    "no targets": (
        fitting(line, X, None),
        StateError,
        "no loss to minimize",
        "y=None",
        "fit(x, y)",
    ),
    "rows": (fitting(line, X, Y[:4]), DataError, "unequal numbers of rows", "x: 10, y: 4"),
    "a class too high": (
        fitting(mlp, X, LABELS + 2, SPARSE),
        DataError,
        "labels of 'out'",
        "class 4",
        "0 to 2",
        "5 units",
    ),
    "a class below 0": (
        fitting(mlp, X, LABELS - 2, SPARSE),
        DataError,
        "labels of 'out'",
        "class -2",
        "ignore_class",
    ),
    "half a class": (
        fitting(mlp, X, LABELS + 0.5, SPARSE),
        DataError,
        "labels of 'out'",
        ".5",
        "whole numbers",
        "categorical_crossentropy",
    ),
    "numbers for one-hot": (
        fitting(mlp, X, LABELS, "categorical_crossentropy"),
        DataError,
        "targets of 'out'",
        "(10,)",
        "one-hot",
        SPARSE,
    ),
    "one-hot for numbers": (
        fitting(mlp, X, np.eye(3)[LABELS], SPARSE),
        ShapeError,
        SPARSE,
        "(10, 3)",
        "use categorical_crossentropy",
    ),
    "one number for three": (
        fitting(mlp, X, Y),
        DataError,
        "targets of 'out'",
        "(10, 1)",
        "(None, 3)",
        "units",
    ),
    "three numbers for one": (
        fitting(line, X, X),
        DataError,
        "targets of 'dense'",
        "(10, 3)",
        "(None, 1)",
    ),
    "fewer steps": (
        fitting(tagger, IDS, STEP_LABELS[:, :4], SPARSE),
        ShapeError,
        SPARSE,
        "(10, 4)",
        "(10, 6)",
    ),
    "weights of another shape": (
        fitting(line, X, Y, sample_weight=np.ones((10, 5))),
        ShapeError,
        "sample_weight",
        "(10, 5)",
        "(10,)",
        "(B, T)",
    ),
    "an output without targets": (
        lambda: compiled(forked, optimizer="sgd", loss="mse").fit([X, X], {"p": Y}, verbose=0),
        DataError,
        "targets of 'q'",
        "none",
        "loss={'q': None}",
    ),
    "losses for outputs": (
        lambda: compiled(forked, optimizer="sgd", loss=["mse"]).fit([X, X], [Y, Y], verbose=0),
        ArgumentError,
        "compile: loss",
        "1 of them",
        "'p', 'q'",
    ),
    "an output by a wrong name": (
        lambda: compiled(forked, optimizer="sgd", loss={"r": "mse"}).fit([X, X], [Y, Y], verbose=0),
        ArgumentError,
        "compile: loss",
        "'r'",
        "p, q",
    ),
    "one input for two": (
        lambda: compiled(forked, optimizer="sgd", loss="mse").fit(X, [Y, Y], verbose=0),
        DataError,
        "number of inputs",
        "1",
        "2: a, b",
    ),
    "vectors as ids": (
        lambda: Embedding(4, 2, name="e")(np.array([[0.5, 1.0]])),
        ArgumentError,
        "Embedding 'e'",
        "0.5",
        "integer ids",
        "Masking",
    ),
    "an id too high": (
        lambda: Embedding(4, 2, name="e")(np.array([[4]])),
        ArgumentError,
        "Embedding 'e'",
        "id 4",
        "input_dim = 4",
        "5",
    ),
    "an id too high in fit": (
        fitting(rnn, IDS + 5, LABELS, SPARSE),
        ArgumentError,
        "Embedding 'embedding'",
        "id 12",
        "input_dim = 8",
        "13",
    ),
    "an id too high in predict": (
        lambda: rnn(alphorn).predict([[1], [2, 9]], verbose=0),
        ArgumentError,
        "Embedding 'embedding'",
        "id 9",
        "input_dim = 8",
    ),
    "vectors as ids in evaluate": (
        lambda: compiled(rnn, optimizer="sgd", loss=SPARSE).evaluate(IDS + 0.5, LABELS, verbose=0),
        ArgumentError,
        "Embedding 'embedding'",
        ".5",
        "integer ids",
    ),
    "a mask of other steps": (
        lambda: LSTM(2, name="l")(STEPS, mask=np.ones((2, 4), bool)),
        ShapeError,
        "LSTM 'l'",
        "mask (2, 4) with data (2, 3, 4)",
        "(2, 3)",
    ),
    "a mask of features": (
        lambda: alphorn.Masked(STEPS, np.ones((2, 3, 1), bool)),
        ShapeError,
        "Masked",
        "mask (2, 3, 1)",
        "drop its feature axis",
    ),
    "jnp on a Masked": (
        lambda: jnp.mean(alphorn.Masked(STEPS, np.ones((2, 3), bool))),
        MaskError,
        "jnp.mean would lose the mask of a (2, 3, 4) sequence",
        "ops.mean",
        "unmask(x)",
    ),
    "two layers of one name": (
        lambda: alphorn.Sequential([Dense(2, name="a"), Dense(2, name="a")]),
        ArgumentError,
        "two layers have one name",
        "'a'",
    ),
    "nothing to predict": (
        lambda: line(alphorn).predict([], verbose=0),
        DataError,
        "empty",
        "0 rows",
    ),
    "loss by name": (fitting(line, X, Y, "msee"), ArgumentError, "losses", "'msee'", "mean 'mse'"),
    "optimizer by name": (
        lambda: line(alphorn).compile("adm"),
        ArgumentError,
        "optimizers",
        "'adm'",
        "mean 'adam'",
    ),
    "metric by name": (
        lambda: compiled(line, optimizer="sgd", loss="mse", metrics=["acuracy"]).fit(X, Y),
        ArgumentError,
        "metrics",
        "'acuracy'",
        "mean 'accuracy'",
    ),
    "activation by name": (
        lambda: Dense(2, "rellu"),
        ArgumentError,
        "activations",
        "'rellu'",
        "mean 'relu'",
    ),
    "initializer by name": (
        lambda: Dense(2, kernel_initializer="glorot_norm"),
        ArgumentError,
        "initializers",
        "'glorot_norm'",
        "mean 'glorot_normal'",
    ),
    "an argument of a metric": (
        lambda: alphorn.metrics.TopKCategoricalAccuracy(top=3),
        UnexpectedArgumentError,
        "TopKCategoricalAccuracy",
        "top",
        "k, name, dtype",
    ),
    "validation without targets": (
        fitting(line, X, Y, validation_data=X),
        DataError,
        "validation_data",
        "without targets",
        "(x, y)",
    ),
    "half a row a batch": (
        fitting(line, X, Y, batch_size=2.5),
        DataError,
        "batch_size",
        "2.5",
        "whole number",
    ),
    "no step a call": (
        lambda: line(alphorn).compile("sgd", "mse", steps_per_execution=0),
        ArgumentError,
        "steps_per_execution",
        "0",
        "'auto'",
    ),
    "how loud": (
        lambda: compiled(line, optimizer="sgd", loss="mse").fit(X, Y, verbose="loud"),
        ArgumentError,
        "verbose",
        "'loud'",
        "'auto', 0, 1 or 2",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_where_what_and_how(name: str) -> None:
    call, kind, *parts = ERRORS[name]
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, AlphornError)
    message = str(caught.value)
    place = 0
    for part in parts:
        assert part in message[place:], message
        place = message.index(part, place) + len(part)


def test_what_is_hidden_by_a_mask_is_no_error():
    model = compiled(tagger, optimizer="sgd", loss=SPARSE)
    labels = alphorn.Masked(np.where(IDS == 0, 99, STEP_LABELS), IDS != 0)
    ids = alphorn.Masked(np.where(IDS == 0, 99, IDS), IDS != 0)
    expected = model.evaluate(IDS, STEP_LABELS, verbose=0)
    assert model.evaluate(ids, labels, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_targets_of_like_rank_and_losses_of_users_are_left_alone():
    model = compiled(line, optimizer="sgd", loss="mse")
    flat = model.evaluate(X, Y[:, 0], verbose=0)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(flat, rel=1e-6)
    compiled(line, optimizer="sgd", loss=lambda y, p: alphorn.ops.sum(y, -1) + p[:, 0]).fit(
        X, X, verbose=0
    )
