"""Whole models travel between Keras 3 and here: config, weights, compile state, the next step."""

import importlib
import inspect
import json

import jax
import keras
import numpy as np
import pytest

import alphorn
from alphorn import saving
from alphorn.models.operations import WITHOUT_CLASS, keras_operation
from alphorn.ops.table import TABLE
from cases import LAYERS, Case
from nets import (
    CLASSIFYING,
    FEATURES,
    IDS,
    LABELS,
    STEP_LABELS,
    X,
    Y,
    forked,
    gap,
    line,
    mlp,
    rnn,
    start,
    tagger,
)
from rows import weights_for, without_draws
from rows_training import (
    COMMON,
    FLAT_METRICS,
    LABEL_METRICS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SCHEDULES,
    WHOLE_LOSSES,
    Row,
)
from test_files import model_of, stacked, subclassed

BOTH = [(keras, alphorn), (alphorn, keras)]
DIRECTIONS = pytest.mark.parametrize(("writer", "reader"), BOTH, ids=["in", "out"])
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


def opened(model, K, path, **options):
    """Saves a model of one library and opens it in the other."""
    model.save(str(path / "model.keras"))
    with without_draws(K):
        return K.saving.load_model(str(path / "model.keras"), **options)


def plain(config):
    """A config as a file holds it, without what differs from run to run."""
    if isinstance(config, dict):
        return {k: plain(v) for k, v in config.items() if k != "shared_object_id"}
    if isinstance(config, list | tuple):
        return [plain(v) for v in config]
    return round(config, 6) if isinstance(config, float) else config


def twice_called(K):
    """A layer used twice, and an inner model whose second call is an output."""
    a, b = K.Input((FEATURES,), name="a"), K.Input((FEATURES,), name="b")
    shared = K.layers.Dense(FEATURES, name="shared")
    x = K.Input((FEATURES,), name="inner_x")
    hidden = K.layers.Dense(FEATURES, name="inner_d")(x)
    inner = K.Model(x, [hidden, K.layers.Dense(2, name="inner_out")(x)], name="inner")
    left, right = inner(shared(a)), inner(shared(b))
    return K.Model([a, b], {"sum": left[0] + right[0], "second": right[1]})


def calculating(K):
    """Ops between layers, of several kinds of arguments."""
    x = K.Input((4, FEATURES), name="x")
    h = K.layers.Dense(6, name="d")(x)
    h = K.ops.concatenate([h * 2.0 + 1.0, -x], axis=-1)[:, 1:, :5]
    h = K.ops.clip(K.ops.reshape(h, (-1, 5, 3)), -1.0, 3.0)
    h = K.ops.where(h > 0, h, K.ops.softmax(K.ops.transpose(h, (0, 2, 1)), axis=1)[:, :, :3][:, :1])
    h = K.ops.einsum("bij,bkj->bik", h, h) / K.ops.sqrt(np.float32(3))
    return K.Model(x, K.ops.mean(h, axis=(1, 2), keepdims=True) ** 2)


def masked_by_hand(K):
    """A mask that is an input, put on a sequence."""
    x, mask = K.Input((None, FEATURES), name="x"), K.Input((None,), dtype="bool", name="m")
    return K.Model([x, mask], K.layers.LSTM(3)(x, mask=mask))


ID_ROWS = np.maximum(IDS[:4], 1)  # where Keras drops the mask, padding would differ
SEQUENCE = np.random.default_rng(0).normal(size=(4, 4, FEATURES)).astype("float32")
NETS = {
    mlp: X,
    line: X,
    rnn: ID_ROWS,
    tagger: ID_ROWS,
    forked: [X, X + 1],
    stacked: X,
    twice_called: [X, X + 1],
    calculating: SEQUENCE,
    masked_by_hand: [SEQUENCE, np.arange(4) < np.array([[4], [2], [1], [3]])],
}


@DIRECTIONS
@pytest.mark.parametrize("case", NETS, ids=lambda net: net.__name__)
def test_models_predict_the_same(case, writer, reader, tmp_path) -> None:
    with without_draws(writer):
        model = case(writer)
    model.set_weights(weights_for(model))
    twin = opened(model, reader, tmp_path)
    mine, theirs = (m.predict(NETS[case], verbose=0) for m in (model, twin))
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert gap(a, b) < 1e-5
    assert [w.name for w in model.weights] == [w.name for w in twin.weights]


@pytest.mark.parametrize("case", [c for c in LAYERS if c.oracle and c.name != "Lambda"], ids=str)
def test_every_layer_travels_both_ways(case: Case, tmp_path) -> None:
    """With equal configs and weights, `test_oracle` says that the values are equal."""
    for writer, reader in BOTH:
        for K in BOTH[0]:
            K.utils.clear_session(free_memory=False)
        model, native = model_of(case, writer), model_of(case, reader)
        model.set_weights(weights_for(model))
        reader.utils.clear_session(free_memory=False)
        twin = opened(model, reader, tmp_path)
        assert gap(twin.get_weights(), model.get_weights()) == 0
        kinds = [type(layer).__name__ for layer in twin.layers]
        assert kinds == [type(layer).__name__ for layer in native.layers]
        pairs = [(t, n) for t, n in zip(twin.layers, native.layers, strict=True)]
        for ours, theirs in pairs:
            assert renamed(ours.get_config()) == renamed(theirs.get_config())


# Automatic names, and what a layer of Keras finds out when it is built and then writes.
UNEQUAL = ("name", "shared_object_id", "build_config")
UNEQUAL += ("backward_layer", "zero_output_for_mask", "attention_axes")


def renamed(config):
    """A config without automatic names, which count up in a process; one axis is no list."""
    if isinstance(config, dict):
        found = {k: renamed(v) for k, v in config.items() if k not in UNEQUAL}
        axis = found.get("axis")
        return found | ({"axis": axis[0]} if isinstance(axis, list) and len(axis) == 1 else {})
    return [renamed(v) for v in config] if isinstance(config, list | tuple) else config


# Arguments that Keras itself leaves out of its files, so that it loses them.
LOST = {"Huber-delta", "CosineSimilarity-time"}
OBJECTS = [
    *(("losses", row) for row in LOSSES + WHOLE_LOSSES),
    *(("metrics", row) for row in METRICS + FLAT_METRICS + LABEL_METRICS),
    *(("optimizers", row) for row in OPTIMIZERS + COMMON if str(row) != "SGD-callable"),
    *(("schedules", row) for row in SCHEDULES),
]


@pytest.mark.parametrize(("room", "case"), OBJECTS, ids=str)
def test_losses_metrics_optimizers_and_schedules_travel_both_ways(room: str, case: Row) -> None:
    made = [
        case.make(K.optimizers.schedules if room == "schedules" else getattr(K, room))
        for K in (alphorn, keras)
    ]
    ours, theirs = (
        json.dumps(K.saving.serialize_keras_object(m))
        for K, m in zip((alphorn, keras), made, strict=True)
    )
    there = keras.saving.deserialize_keras_object(json.loads(ours))
    here = saving.deserialize_keras_object(json.loads(theirs))
    again = saving.deserialize_keras_object(json.loads(ours))
    assert type(here) is type(again) is type(made[0])
    assert same_but_names(keras.saving.serialize_keras_object(there), json.loads(theirs))
    assert same_but_names(saving.serialize_keras_object(again), json.loads(ours))
    if str(case) not in LOST:
        assert same_but_names(saving.serialize_keras_object(here), json.loads(ours))


def same_but_names(a, b) -> bool:
    return plain(renamed(a)) == plain(renamed(json.loads(json.dumps(b))))


def hard(K):
    """An inner model, both directions of an LSTM, statistics, a constraint, a penalty."""
    L = K.layers
    x = K.Input((None, 4))
    inner = K.Model(x, L.Dense(5, activation="relu")(x), name="inner")
    ids = K.Input((None,), dtype="int32")
    h = inner(L.Embedding(8, 4, mask_zero=True)(ids))
    cell = L.LSTM(3, return_sequences=True, kernel_regularizer=K.regularizers.L2(0.01))
    h = L.GlobalAveragePooling1D()(L.BatchNormalization()(L.Bidirectional(cell)(h)))
    last = L.Dense(3, activation="softmax", kernel_constraint=K.constraints.MaxNorm(2.0))
    return K.Model(ids, last(h * 2.0 + 1.0))


def twins_step_alike(model, twin, x, y, **options) -> None:
    """Asserts that two models give the same, take the same step, and hold the same after it."""
    settings = {"batch_size": len(LABELS), "shuffle": False, "verbose": 0} | options
    histories = [m.fit(x, y, **settings).history for m in (model, twin)]
    assert set(histories[0]) == set(histories[1])
    for name, values in histories[0].items():
        assert gap(np.asarray(values), np.asarray(histories[1][name])) < 1e-5, name
    assert gap(model.get_weights(), twin.get_weights()) < 2e-5
    states = [[np.array(v) for v in m.optimizer.variables] for m in (model, twin)]
    assert gap(*states) < 2e-5


@DIRECTIONS
def test_training_goes_on_where_it_was(writer, reader, tmp_path) -> None:
    o = writer.optimizers
    model = hard(writer)
    model.set_weights(start(model)[: len(model.weights)])
    model.layers[-1].trainable = True
    schedule = o.schedules.ExponentialDecay(0.1, 5, 0.5)
    model.compile(
        o.Adam(schedule),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=[writer.metrics.SparseCategoricalCrossentropy(name="entropy")],
    )
    full = np.maximum(IDS, 1)  # Keras's inner model would drop the mask
    random = np.abs(np.random.default_rng(1).normal(size=6).astype("float32"))
    bn = next(layer for layer in model.layers if "batch" in layer.name)
    bn.moving_variance.assign(random)
    model.fit(full, LABELS, epochs=2, batch_size=5, shuffle=False, verbose=0)
    twin = opened(model, reader, tmp_path)
    assert gap(model.predict(full, verbose=0), twin.predict(full, verbose=0)) < 1e-5
    twins_step_alike(model, twin, full, LABELS, sample_weight=np.linspace(0.5, 2, len(LABELS)))


COMPILED = {
    "list": {"loss": ["mse", "sparse_categorical_crossentropy"], "loss_weights": [1.0, 0.5]},
    "dict": {
        "loss": {"p": "mae", "q": "sparse_categorical_crossentropy"},
        "loss_weights": {"p": 2.0, "q": 0.5},
        "metrics": {"p": ["mae"], "q": ["accuracy"]},
    },
}


@DIRECTIONS
@pytest.mark.parametrize("case", COMPILED)
def test_losses_of_several_outputs_travel(case, writer, reader, tmp_path) -> None:
    model = forked(writer)
    model.set_weights(start(model))
    optimizer = writer.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.5)
    model.compile(optimizer, **COMPILED[case])
    y = [Y, LABELS]
    model.fit([X, X], y, verbose=0, batch_size=len(X))
    twins_step_alike(model, opened(model, reader, tmp_path), [X, X], y)


STATES = [c for c in OPTIMIZERS + COMMON if str(c) in ("Adam-amsgrad", "Adam-averages", "Nadam")]
STATES += [c for c in COMMON if str(c) in ("Adam-accumulation", "LossScaleOptimizer-dynamic")]


@DIRECTIONS
@pytest.mark.parametrize("case", STATES, ids=str)
def test_states_of_optimizers_travel(case, writer, reader, tmp_path) -> None:
    model = line(writer)
    model.set_weights(start(model))
    model.compile(case.make(writer.optimizers), "mse")
    model.fit(X, Y, verbose=0, batch_size=4, shuffle=False)
    twin = opened(model, reader, tmp_path)
    assert gap(*([np.array(v) for v in m.optimizer.variables] for m in (model, twin))) == 0
    if str(case) != "Adam-averages":  # Keras gives one buffer away twice in its next step
        twins_step_alike(model, twin, X, Y)


def net(K):
    class Net(K.Model):
        def __init__(self, units, act=None, **kwargs):
            super().__init__(**kwargs)
            self.units, self.act = units, act
            self.first = K.layers.Dense(units)
            self.head = K.layers.Dense(1)

        def call(self, x):
            return self.head(self.act(self.first(x)))

        def get_config(self):
            act = K.saving.serialize_keras_object(self.act)
            return {**super().get_config(), "units": self.units, "act": act}

        @classmethod
        def from_config(cls, config):
            config = dict(config)
            act = K.saving.deserialize_keras_object(config.pop("act"))
            return cls(act=act, **config)

    return Net


def tripled(x):
    return x * 3.0


@DIRECTIONS
def test_subclassed_models_travel_by_custom_objects(writer, reader, tmp_path) -> None:
    known = {"Net": net(reader), "tripled": tripled}
    model = net(writer)(3, act=tripled)
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0, batch_size=len(X))
    twin = opened(model, reader, tmp_path, custom_objects=known)
    assert type(twin) is known["Net"]
    assert gap(twin.predict(X, verbose=0), model.predict(X, verbose=0)) < 1e-5
    twins_step_alike(model, twin, X, Y)


def test_own_classes_are_found_by_what_registers_them(tmp_path) -> None:
    class Doubled(alphorn.layers.Layer):
        def __init__(self, by=2.0, **kwargs):
            super().__init__(**kwargs)
            self.by = by

        def call(self, x):
            return x * self.by

    x = alphorn.Input((FEATURES,))
    model = alphorn.Model(x, Doubled(3.0)(x))
    model.save(tmp_path / "m.keras")
    with pytest.raises(alphorn.FileError, match=r"'Doubled'[\s\S]*custom_objects=\{'Doubled'"):
        saving.load_model(tmp_path / "m.keras")
    with saving.custom_object_scope({"Doubled": Doubled}):
        scoped = saving.load_model(tmp_path / "m.keras")
    assert "Doubled" not in saving.get_custom_objects()
    given = alphorn.models.load_model(tmp_path / "m.keras", custom_objects={"Doubled": Doubled})
    for twin in (scoped, given):
        assert gap(twin.predict(X), X * 3) < 1e-6
    try:
        saving.register_keras_serializable("mine")(Doubled)
        model.save(tmp_path / "m.keras")
        assert gap(saving.load_model(tmp_path / "m.keras").predict(X), X * 3) < 1e-6
    finally:
        saving.get_custom_objects().pop("mine>Doubled")


def test_a_subclass_that_takes_no_name_and_holds_lists_of_layers_opens_again(tmp_path) -> None:
    model = subclassed(alphorn)
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=w.shape) for w in model.weights])
    twin = opened(model, alphorn, tmp_path, custom_objects={"Net": type(model)})
    ours, theirs = (jax.tree.leaves(m.predict(X, verbose=0)) for m in (model, twin))
    assert gap(list(ours), list(theirs)) < 1e-5
    assert twin.name == model.name


def test_a_layer_that_stands_inside_and_outside_is_one_layer(tmp_path) -> None:
    shared = alphorn.layers.Dense(FEATURES, name="shared")
    x = alphorn.Input((FEATURES,))
    inner = alphorn.Model(x, shared(x), name="inner")
    model = alphorn.Model(x, inner(shared(x)))
    twin = opened(model, alphorn, tmp_path)
    assert twin.get_layer("shared") is twin.get_layer("inner").get_layer("shared")
    assert len(twin.weights) == 2
    assert gap(twin.predict(X), model.predict(X)) < 1e-6


@DIRECTIONS
def test_a_sequential_that_data_built_takes_batches_of_any_size(writer, reader, tmp_path) -> None:
    model = writer.Sequential([writer.layers.Dense(3), writer.layers.Dense(1)])
    model(X[:2])
    twin = opened(model, reader, tmp_path)
    for rows in (2, 7):
        assert gap(twin.predict(X[:rows], verbose=0), model.predict(X[:rows], verbose=0)) < 1e-5


@DIRECTIONS
def test_what_is_frozen_stays_frozen(writer, reader, tmp_path) -> None:
    model = mlp(writer)
    model.layers[1].trainable = False
    twin = opened(model, reader, tmp_path)
    assert [layer.trainable for layer in twin.layers[1:]] == [False, True]
    assert len(twin.trainable_weights) == 2


def test_noise_goes_on_where_it_was(tmp_path) -> None:
    x = alphorn.Input((FEATURES,))
    model = alphorn.Model(x, alphorn.layers.Dropout(0.5)(x))
    model(X, training=True)
    twin = opened(model, alphorn, tmp_path)
    assert gap(np.asarray(model(X, training=True)), np.asarray(twin(X, training=True))) == 0


def test_a_lambda_expression_is_told_of_and_given_by_its_layer_s_name(tmp_path) -> None:
    x = alphorn.Input((FEATURES,))
    model = alphorn.Model(x, alphorn.layers.Lambda(lambda x: x * 2.0, name="twice")(x))
    with pytest.warns(UserWarning, match=r"m\.keras: the functions of twice are not in the file"):
        model.save(tmp_path / "m.keras")
    assert gap(saving.load_model(tmp_path / "m.keras").predict(X), X * 2) == 0  # this process
    twin = saving.load_model(tmp_path / "m.keras", custom_objects={"twice": tripled})
    assert gap(twin.predict(X), X * 3) == 0


def test_ops_stand_in_files_as_keras_s_operations() -> None:
    wrong = {}
    for name in set(TABLE) - WITHOUT_CLASS:
        room, spelled, called, static = keras_operation(name)
        found = getattr(importlib.import_module(f"keras.src.ops.{room}"), spelled, None)
        if found is None:
            wrong[name] = f"no {room}.{spelled}"
            continue
        takes = [p for p in inspect.signature(found.call).parameters if p not in ("self", "kwargs")]
        holds = {p for p in inspect.signature(found.__init__).parameters}
        if takes != list(called) or holds - {"self", "name", "kwargs"} != set(static):
            wrong[name] = takes, holds
    assert not wrong


def test_json_goes_both_ways() -> None:
    for writer, reader in BOTH:
        model = mlp(writer)
        model.compile(**CLASSIFYING)
        twin = reader.models.model_from_json(model.to_json(indent=1))
        twin.set_weights(start(model))
        model.set_weights(start(model))
        assert gap(twin.predict(X, verbose=0), model.predict(X, verbose=0)) < 1e-5
        assert len(twin.evaluate(X, LABELS, verbose=0)) == 2
    for text in ("", "[1", "{}", "[]", '"Dense"', "[" * 100_000):
        with pytest.raises(alphorn.FileError, match="model_from_json"):
            alphorn.models.model_from_json(text)


def test_compile_can_be_left_out_and_what_is_there_can_be_kept(tmp_path) -> None:
    path = tmp_path / "deep" / "m.keras"
    model = mlp(alphorn)
    model.compile(**CLASSIFYING)
    model.save(path)
    assert not saving.load_model(path, compile=False).compiled
    assert saving.load_model(path).compiled
    with pytest.raises(alphorn.ArgumentError, match="overwrite=True"):
        model.save(path, overwrite=False)
    with pytest.raises(alphorn.ArgumentError, match=r"ends in \.keras"):
        model.save(tmp_path / "m.pickle")
    with pytest.raises(alphorn.ArgumentError, match="a file that exists"):
        saving.load_model(tmp_path / "none.keras")
    with pytest.raises(alphorn.StateError, match="not built"):
        alphorn.Sequential([alphorn.layers.Dense(1)]).save(path)


@DIRECTIONS
def test_a_folder_holds_the_same(writer, reader, tmp_path) -> None:
    model = mlp(writer)
    model.save(str(tmp_path / "folder"), zipped=False)
    twin = reader.saving.load_model(str(tmp_path / "folder"))
    assert gap(twin.get_weights(), model.get_weights()) == 0


@DIRECTIONS
def test_weights_of_an_archive_go_into_a_model(writer, reader, tmp_path) -> None:
    model, twin = tagger(writer), tagger(reader)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(IDS, STEP_LABELS, verbose=0)
    model.save(str(tmp_path / "m.keras"))
    twin.load_weights(str(tmp_path / "m.keras"))
    assert gap(twin.get_weights(), model.get_weights()) == 0


def test_a_crash_while_writing_leaves_the_old_archive(tmp_path, monkeypatch) -> None:
    path = tmp_path / "m.keras"
    mlp(alphorn).save(path)
    whole = path.read_bytes()

    def failing(*args):
        raise KeyboardInterrupt

    for target in ("alphorn.saving.archive.write_h5", "alphorn.files.os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(target, failing)
            with pytest.raises(KeyboardInterrupt):
                line(alphorn).save(path)
        assert path.read_bytes() == whole
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
