"""`check_padding`: models that hold, models that break, by whom, and that nothing is changed."""

import jax.numpy as jnp
import numpy as np
import pytest

import alphorn
from alphorn import check_padding, layers, ops
from alphorn.errors import ArgumentError, DataError, StateError

RANDOM = np.random.default_rng(0)
ROWS = [RANDOM.normal(size=(n, 4)).astype("float32") for n in (3, 5, 2)]
IDS = np.array([[3, 1, 2, 0, 0], [4, 5, 6, 7, 8], [1, 0, 0, 0, 0]])
PADDED = np.zeros((3, 5, 4), "float32")
for _i, _row in enumerate(ROWS):
    PADDED[_i, : len(_row)] = _row


class RawMean(alphorn.Layer):
    def call(self, x):
        return jnp.mean(alphorn.unmask(x), axis=1)


def masked(*rest, **options):
    first = layers.Dense(3, bias_initializer="ones", name="first")
    model = [alphorn.Input((None, 4)), layers.Masking(), first]
    return alphorn.Sequential([*model, *rest], **options)


def names_of(result) -> list[str]:
    return [c.name for c in result.checks]


def test_a_model_that_holds(capsys):
    model = alphorn.Sequential(
        [
            layers.Embedding(9, 4, mask_zero=True),
            layers.Conv1D(4, 3, padding="same", strides=2),
            layers.BatchNormalization(),
            layers.GRU(3),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    result = check_padding(model, IDS, np.ones(3), sample_weight=np.array([1.0, 2.0, 0.5]))
    assert result and result.holds and result.layer is None and result.reads_padding is None
    assert result.largest_difference < 1e-5
    assert all(c.holds for c in result.checks)
    assert names_of(result) == [
        "alone: outputs",
        *(
            f"{name}: {what}"
            for name in ("more padding", "1e3 in padding", "NaN in padding")
            for what in ("outputs", "loss and gradients")
        ),
        "1e3 between layers: outputs",
    ]
    printed = capsys.readouterr().out
    assert printed.startswith("holds: 3 rows, 3 lengths, outputs differ by at most ")
    assert "\x1b" not in printed  # plain where it is no terminal
    assert printed.splitlines()[0] == result.verdict


def test_lists_of_unequal_rows_and_targets():
    model = alphorn.Sequential(
        [alphorn.Input((None, 4)), layers.GRU(3, return_sequences=True), layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    result = check_padding(model, ROWS, [np.ones((len(r), 2)) for r in ROWS], verbose=False)
    assert result.holds and "loss and gradients by" in result.verdict


def test_inputs_by_name_with_targets_of_steps():
    words = alphorn.Input((None,), dtype="int32", name="words")
    extra = alphorn.Input((2,), name="extra")
    h = layers.GRU(3, return_sequences=True)(layers.Embedding(9, 4, mask_zero=True)(words))
    h = layers.Dense(1, name="tags")(h)
    model = alphorn.Model({"words": words, "extra": extra}, [h, layers.Dense(1, name="e")(extra)])
    model.compile("sgd", "mse")
    data = {"extra": np.ones((3, 2), "float32"), "words": IDS}
    result = check_padding(model, data, [np.ones((3, 5, 1)), np.ones((3, 1))], verbose=False)
    assert result.holds and len(result.checks) == 8


@pytest.mark.parametrize("as_lists", [True, False])
def test_documents_of_sentences(as_lists):
    rows = [[[1, 2], [3]], [[4, 5, 6]], [[1], [2], [3, 3]]]
    array = np.zeros((3, 3, 3), "int32")
    for i, document in enumerate(rows):
        for j, sentence in enumerate(document):
            array[i, j, : len(sentence)] = sentence
    inner = alphorn.Sequential([layers.Embedding(9, 4, mask_zero=True), layers.GRU(3)])
    x = alphorn.Input((None, None), dtype="int32")
    model = alphorn.Model(x, layers.GRU(2)(layers.TimeDistributed(inner)(x)))
    result = check_padding(model, rows if as_lists else array, verbose=False)
    assert result.holds and "3 lengths" in result.verdict


def test_padding_in_front_and_gaps():
    front = np.zeros_like(PADDED)
    for i, row in enumerate(ROWS):
        front[i, 5 - len(row) :] = row
    front[1, 2] = 0
    model = alphorn.Sequential(
        [
            layers.Masking(),
            layers.Conv1D(3, 3, padding="same"),
            layers.LSTM(2, return_sequences=True),
        ]
    )
    assert check_padding(model, front, verbose=False).holds


def test_a_lambda_that_reads_padding_is_named(capsys):
    mean = layers.Lambda(lambda x: jnp.mean(ops.unmask(x), axis=1), name="my_mean")
    result = check_padding(masked(mean, layers.Dense(1)), ROWS)
    assert not result and result.layer == "my_mean" and result.largest_difference > 1e-3
    verdict = result.verdict
    assert verdict.startswith("BROKEN at layer 'my_mean' (Lambda): row ")
    assert " alone gives " in verdict and ", in the batch " in verdict
    assert "jnp.mean of plain data. Use ops.mean of the masked sequence" in verdict
    assert verdict in capsys.readouterr().out


def test_a_layer_of_one_s_own_and_its_numbers():
    model = masked(RawMean(name="pool"))
    result = check_padding(model, PADDED, verbose=False)
    assert result.layer == "pool"
    row = int(result.verdict.split("row ")[1].split()[0])
    said = result.verdict.split("alone gives ")[1].split(". ")[0].split(", in the batch ")
    alone, together = np.asarray(model(ROWS[row][None]))[0], np.asarray(model(PADDED))[row]
    at = np.abs(alone - together).argmax()
    assert [f"{alone[at]:.4g}", f"{together[at]:.4g}"] == said


def test_a_layer_inside_a_model_inside_a_model():
    inner = alphorn.Sequential([layers.Dense(3, bias_initializer="ones"), RawMean(name="inside")])
    x = alphorn.Input((None, 4))
    model = alphorn.Model(x, layers.Dense(1)(inner(layers.Masking()(x))))
    assert check_padding(model, PADDED, verbose=False).layer == "inside"


class Own(alphorn.Model):
    def __init__(self, pool):
        super().__init__()
        self.mask = layers.Masking()
        self.first = layers.Dense(3, bias_initializer="ones", name="first")
        self.pool = pool
        self.last = layers.Dense(1, name="last")

    def call(self, x):
        return self.last(self.pool(self.first(self.mask(x))))


def test_a_model_of_one_s_own():
    assert check_padding(Own(RawMean(name="pool")), PADDED, verbose=False).layer == "pool"
    assert check_padding(Own(layers.GlobalMaxPooling1D()), PADDED, verbose=False).holds
    model = Own(lambda x: jnp.max(x.data, axis=1) + jnp.mean(x.data, axis=1))
    result = check_padding(model, PADDED, verbose=False)
    assert result.layer == model.name
    assert f"BROKEN in the call of '{model.name}' (Own), before 'last' (Dense)" in result.verdict


def test_keras_s_protocol_used_wrongly():
    class Weighted(alphorn.Layer):
        def call(self, x, mask=None):
            return x.sum(1)

    result = check_padding(masked(Weighted(name="sums")), PADDED, verbose=False)
    assert result.layer == "sums" and "has `mask`" in result.verdict


def test_steps_that_become_valid_are_counted():
    class Everything(alphorn.Layer):
        def call(self, x):
            return alphorn.Masked(x.data, jnp.ones_like(x.mask))

    result = check_padding(masked(Everything(name="all")), PADDED, verbose=False)
    assert result.layer == "all" and "valid values" in result.verdict


class Unit(alphorn.Layer):
    def call(self, x):
        data = x.data
        size = jnp.sqrt(jnp.sum(data * data, -1, keepdims=True))
        return alphorn.Masked(data / size, x.mask)


def test_a_gradient_that_padding_makes_nan_is_found():
    pool = [layers.GlobalAveragePooling1D(), layers.Dense(1)]
    model = alphorn.Sequential(
        [layers.Masking(), layers.Dense(4, use_bias=False), Unit(name="unit"), *pool]
    )
    model.compile("sgd", "mse")
    assert check_padding(model, PADDED, verbose=False).holds  # its outputs do
    result = check_padding(model, PADDED, np.ones(3), verbose=False)
    assert result.layer == "unit"
    assert "not finite in the batch, though those of each row alone are" in result.verdict
    assert "x.fill(1)" in result.verdict
    broken = [c.name for c in result.checks if not c.holds]
    assert broken == ["alone: loss and gradients"]


def test_nan_that_is_in_the_data_is_not_padding_s_fault():
    rows = [r.copy() for r in ROWS]
    rows[0][1, 2] = np.nan
    model = alphorn.Sequential([alphorn.Input((None, 4)), layers.GRU(2)])
    model.compile("sgd", "mse")
    result = check_padding(model, rows, np.ones((3, 2)), verbose=False)
    assert result.holds
    assert any("not finite without padding either" in c.says for c in result.checks)


def test_a_gradient_that_depends_on_padding_is_found():
    class Penalized(alphorn.Layer):
        def call(self, x):
            self.add_loss(jnp.sum(x.data**2))
            return x

    model = masked(Penalized(name="penalty"), layers.GlobalMaxPooling1D(), layers.Dense(1))
    model.compile("sgd", "mse")
    result = check_padding(model, PADDED, np.ones(3), verbose=False)
    assert result.layer == "penalty"
    assert "more padding: loss and gradients" in [c.name for c in result.checks if not c.holds]


def test_what_is_right_by_luck_is_said():
    largest = layers.Lambda(lambda x: jnp.max(ops.unmask(x), axis=1), name="largest")
    model = alphorn.Sequential([layers.Masking(), layers.ReLU(), largest])
    result = check_padding(model, PADDED, verbose=False)
    assert result.holds and result.reads_padding == "largest"
    assert "'largest' (Lambda) reads padding, and is right only because" in result.verdict
    last = layers.Lambda(lambda x: ops.unmask(x)[:, -1], name="last")
    repeats = alphorn.Sequential([layers.Masking(), layers.GRU(3, return_sequences=True), last])
    assert check_padding(repeats, PADDED, verbose=False).reads_padding is None


def test_in_training_rows_are_not_run_alone():
    model = masked(layers.BatchNormalization(), layers.Dropout(0.5), layers.GRU(2), layers.Dense(1))
    model.compile("sgd", "mse")
    result = check_padding(model, PADDED, np.ones(3), training=True, verbose=False)
    assert result.holds and "alone: outputs" not in names_of(result)


def test_lengths_that_a_model_needs_are_kept():
    model = alphorn.Sequential(
        [alphorn.Input((5, 4)), layers.Masking(), layers.Flatten(), layers.Dense(1)]
    )
    result = check_padding(model, PADDED, verbose=False)
    assert result.holds and "more padding: outputs" not in names_of(result)

    class Fixed(Own):
        def call(self, x):
            return self.last(self.pool(self.first(self.mask(x))).reshape(len(x), 5 * 3))

    result = check_padding(Fixed(lambda x: x.fill(0)), PADDED, verbose=False)
    assert result.holds
    assert any("takes no row of" in c.says for c in result.checks)


def state_of(model) -> list[np.ndarray]:
    variables = [*model.variables, *(v for m in model.metrics for v in m.variables)]
    return [np.array(v.value) for v in [*variables, *model.optimizer.variables]]


@pytest.mark.parametrize("fitted", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_as_before(fitted, training):
    model = masked(layers.BatchNormalization(), layers.Dropout(0.3), layers.GRU(2), layers.Dense(1))
    model.compile("adam", "mse", metrics=["mae"])
    if fitted:
        model.fit(PADDED, np.ones(3), verbose=0)
    before, metrics = state_of(model), list(model.metrics)
    program = dict(model.programs)
    check_padding(model, PADDED, np.ones(3), training=training, verbose=False)
    assert [id(m) for m in model.metrics] == [id(m) for m in metrics]
    assert all(np.array_equal(a, b) for a, b in zip(before, state_of(model), strict=True))
    assert model.programs == program
    assert len(model.fit(PADDED, np.ones(3), verbose=0).history["mae"]) == 1


def test_many_rows_and_lengths_are_sampled():
    rows = [RANDOM.normal(size=(1 + n % 40, 4)).astype("float32") for n in range(200)]
    model = alphorn.Sequential([alphorn.Input((None, 4)), layers.GlobalMaxPooling1D()])
    result = check_padding(model, rows, verbose=False)
    assert result.holds and result.verdict.startswith("holds: 32 rows, ")


def test_a_tolerance_of_one_s_own():
    model = masked(RawMean(name="pool"))
    assert not check_padding(model, PADDED, verbose=False)
    assert check_padding(model, PADDED, tolerance=1e3, verbose=False)
    low = alphorn.Sequential([layers.Masking(dtype="bfloat16"), layers.GRU(3, dtype="bfloat16")])
    assert check_padding(low, PADDED, tolerance=2e-2, verbose=False)


def test_a_generator_gives_its_first_batch():
    model = masked(layers.GRU(2))
    assert check_padding(model, iter([(PADDED,)]), verbose=False).holds


def test_bad_input_is_named():
    with pytest.raises(ArgumentError, match=r"received: GRU[\s\S]*a model"):
        check_padding(layers.GRU(2), PADDED)
    model = alphorn.Sequential([layers.Dense(2)])
    with pytest.raises(DataError, match=r"no step is padding[\s\S]*Masking\(\)"):
        check_padding(model, PADDED)
    model = masked(layers.GRU(2))
    with pytest.raises(StateError, match="before compile"):
        check_padding(model, PADDED, np.ones(3))
    with pytest.raises(ArgumentError, match="sample_weight without y"):
        check_padding(model, PADDED, sample_weight=np.ones(3))
    model.compile("sgd", "mse")
    with pytest.raises(DataError, match="unequal numbers of rows"):
        check_padding(model, PADDED, np.ones(4))
    with pytest.raises(DataError, match="x=None"):
        check_padding(model, None)
