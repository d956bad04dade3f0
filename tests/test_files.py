"""Files of weights: Keras reads ours, we read Keras's, and a fault leaves what was there."""

import warnings

import h5py
import keras
import numpy as np
import pytest

import alphorn
from alphorn.errors import ArgumentError, ShapeError, StateError
from cases import LAYERS, Case
from nets import FEATURES, X, forked, gap, line, mlp, rnn, start, tagger
from rows import TIME, arguments, shape_of, weights_for, without_draws


def model_of(case: Case, K) -> object:
    """The row's layer between inputs and outputs of a functional model."""
    shape = shape_of(case)
    dtype = "int32" if case.inputs == "ids" else "float32"
    inputs = [K.Input((TIME, *shape[1:]) if len(shape) > 1 else shape, dtype=dtype)]
    if case.inputs in ("pair", "two"):
        inputs.append(K.Input(shape, dtype=dtype))
    with without_draws(K):
        layer = case.make(K.layers)
        outputs = layer(*arguments(case, *inputs))
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        if outputs[0].shape[-1] is not None:
            outputs[0] = K.layers.Dense(2)(outputs[0])
    return K.Model(inputs, outputs)


@pytest.mark.parametrize("case", [c for c in LAYERS if c.oracle], ids=str)
def test_files_travel_both_ways(case: Case, tmp_path) -> None:
    ours, theirs = model_of(case, alphorn), model_of(case, keras)
    path = str(tmp_path / "model.weights.h5")
    for writer, reader, seed in ((ours, theirs, 1), (theirs, ours, 2)):
        writer.set_weights(weights_for(writer, seed))
        writer.save_weights(path)
        reader.set_weights(weights_for(reader, 3))
        reader.load_weights(path)
        assert gap(reader.get_weights(), writer.get_weights()) == 0


def stacked(K):
    return K.Sequential(
        [
            K.Input((FEATURES,)),
            K.layers.Dense(2),
            K.Sequential([K.Input((2,)), K.layers.Dense(3), K.layers.BatchNormalization()]),
            K.layers.Dense(2),
        ]
    )


def subclassed(K):
    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.first = K.layers.Dense(3)
            self.blocks = [K.layers.Dense(3), K.layers.Dense(3)]
            self.heads = {"a": K.layers.Dense(1), "b": K.layers.Dense(2)}
            self._hidden = K.layers.Dense(3)
            self.nested = [[K.layers.Dense(3)], (K.layers.Dense(3), K.layers.Dense(3))]
            self.again = self.first

        def call(self, x):
            x = self._hidden(self.first(x))
            for group in self.nested:
                for layer in group:
                    x = layer(x)
            for block in self.blocks:
                x = block(x)
            return [head(x) for head in self.heads.values()]

    model = Net()
    model(X)
    return model


NETS = [mlp, line, rnn, tagger, forked, stacked, subclassed]


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_files_of_models_travel_both_ways(net, tmp_path) -> None:
    ours, theirs = net(alphorn), net(keras)
    path = str(tmp_path / "model.weights.h5")
    for writer, reader in ((ours, theirs), (theirs, ours)):
        random = np.random.default_rng(5)
        writer.set_weights([random.normal(size=w.shape) for w in writer.weights])
        writer.save_weights(path)
        reader.set_weights(start(reader))
        reader.load_weights(path)
        assert gap(reader.get_weights(), writer.get_weights()) == 0


def test_half_precision_travels(tmp_path) -> None:
    path = str(tmp_path / "model.weights.h5")
    values = [np.array([[1.5], [-2.25], [3.0]]), np.array([0.5])]
    models = []
    for K in (alphorn, keras):
        x = K.Input((FEATURES,))
        models.append(K.Model(x, K.layers.Dense(1, dtype="bfloat16")(x)))
    for writer, reader in (models, models[::-1]):
        writer.set_weights(values)
        writer.save_weights(path)
        reader.set_weights([v * 0 for v in values])
        reader.load_weights(path)
        assert [str(w.dtype) for w in reader.get_weights()] == ["bfloat16"] * 2
        assert gap([np.asarray(w, "float32") for w in reader.get_weights()], values) == 0


@pytest.fixture
def saved(tmp_path):
    """A model, and a file of its weights at `start`."""
    model = mlp(alphorn)
    model.set_weights(start(model))
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    return model, path


def unchanged(model) -> bool:
    return gap(model.get_weights(), start(model)) == 0


def test_a_file_cut_short_or_of_another_kind_changes_nothing(saved) -> None:
    model, path = saved
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"weights" * 100):
        path.write_bytes(content)
        with pytest.raises(
            ArgumentError, match=r"load_weights[\s\S]*model\.weights\.h5[\s\S]*whole"
        ):
            model.load_weights(path)
        assert unchanged(model)


def test_a_file_of_another_model_changes_nothing(saved) -> None:
    model, path = saved
    x = alphorn.Input((FEATURES,))
    alphorn.Model(x, alphorn.layers.Dense(4)(x)).save_weights(path)
    with pytest.raises(
        ArgumentError, match=r"out/kernel[\s\S]*layers/dense_1/vars/0[\s\S]*same mod"
    ):
        model.load_weights(path)
    assert unchanged(model)


def wider(K=alphorn):
    x = K.Input((FEATURES,), name="x")
    hidden = K.layers.Dense(4, activation="tanh", name="hidden")(x)
    return K.Model(x, K.layers.Dense(5, name="out")(hidden))


def test_other_shapes_are_refused_or_left_alone(saved) -> None:
    _, path = saved
    model = wider()
    model.set_weights(start(model))
    with pytest.raises(
        ShapeError, match=r"out/kernel[\s\S]*\(4, 3\)[\s\S]*\(4, 5\)[\s\S]*skip_mis"
    ):
        model.load_weights(path)
    assert unchanged(model)
    before = model.get_weights()
    model.set_weights([w * 0 for w in before])
    model.load_weights(path, skip_mismatch=True)
    after = model.get_weights()
    assert gap(after[:2], start(mlp(alphorn))[:2]) == 0
    assert not any(w.any() for w in after[2:])
    theirs = wider(keras)
    theirs.set_weights([w * 0 for w in before])
    with warnings.catch_warnings(action="ignore"):  # it names what it leaves alone
        theirs.load_weights(str(path), skip_mismatch=True)
    assert gap(theirs.get_weights(), after) == 0


def test_a_crash_while_writing_leaves_the_old_file(saved, monkeypatch) -> None:
    model, path = saved
    whole = path.read_bytes()
    written = []
    create = h5py.Group.create_dataset

    def failing(self, *args, **kwargs):
        written.append(args)
        if len(written) == 3:
            raise KeyboardInterrupt
        return create(self, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", failing)
    with pytest.raises(KeyboardInterrupt):
        model.save_weights(path)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_full_disk_leaves_the_old_file(saved, monkeypatch) -> None:
    model, path = saved
    whole = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alphorn.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        model.save_weights(path)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_paths_that_cannot_be(saved, tmp_path) -> None:
    model, path = saved
    with pytest.raises(ArgumentError, match=r"ends in \.weights\.h5"):
        model.save_weights(tmp_path / "model.h5")
    with pytest.raises(ArgumentError, match=r"which exists[\s\S]*overwrite=True"):
        model.save_weights(path, overwrite=False)
    with pytest.raises(ArgumentError, match=r"a file that exists"):
        model.load_weights(tmp_path / "none.weights.h5")
    with pytest.raises(StateError, match="not built"):
        alphorn.Sequential([alphorn.layers.Dense(1)]).load_weights(path)
    model.save_weights(tmp_path / "new" / "folder" / "model.weights.h5")
    assert (tmp_path / "new" / "folder" / "model.weights.h5").exists()
    umask_file = tmp_path / "plain"
    umask_file.write_text("")
    assert path.stat().st_mode == umask_file.stat().st_mode


def test_a_group_where_a_weight_should_be_is_refused(saved) -> None:
    model, path = saved
    with h5py.File(path, "a") as file:
        del file["layers/dense/vars/0"]
        file.create_group("layers/dense/vars/0")
    with pytest.raises(
        ArgumentError, match=r"hidden/kernel[\s\S]*array of numbers at layers/dense/vars/0"
    ):
        model.load_weights(path)
    assert unchanged(model)


def test_a_weight_that_claims_more_than_the_file_holds_is_refused_before_it_is_read(saved) -> None:
    model, path = saved
    with h5py.File(path, "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars"].create_dataset("0", shape=(2**40,), dtype="float32", chunks=True)
    with pytest.raises(ShapeError, match=r"hidden/kernel[\s\S]*1099511627776"):
        model.load_weights(path)
