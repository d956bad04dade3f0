"""Files of weights: Keras reads ours, we read Keras's, and a fault leaves what was there."""

import warnings

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import alphorn
from alphorn.errors import ArgumentError, FileError, ShapeError, StateError
from cases import LAYERS, Case
from nets import CLASSIFYING, FEATURES, LABELS, X, forked, gap, line, mlp, rnn, start, tagger
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
    with pytest.raises(FileError, match="No space left"):
        model.save_weights(path)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_paths_that_cannot_be(saved, tmp_path) -> None:
    model, path = saved
    with pytest.raises(ArgumentError, match=r"ends in \.h5"):
        model.save_weights(tmp_path / "model.bin")
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
    with pytest.raises(FileError, match=r"dense/vars/0[\s\S]*in chunks[\s\S]*h5repack"):
        model.load_weights(path)


def trained(K):
    model = mlp(K)
    model.set_weights(start(model))
    model.compile(**CLASSIFYING)
    model.fit(X, LABELS, verbose=0, batch_size=5, shuffle=False)
    return model


@pytest.mark.parametrize("name", ["m.weights.h5", "m.weights.json", "m.safetensors"])
def test_the_optimizer_goes_with_the_weights(name, tmp_path) -> None:
    path = tmp_path / name
    size = 1e-7 if name.endswith("json") else None  # about a hundred bytes a file
    model = trained(alphorn)
    model.save_weights(path, max_shard_size=size)
    twin = mlp(alphorn)
    twin.compile(**CLASSIFYING)
    twin.load_weights(path)
    states = [[v.numpy() for v in m.optimizer.variables] for m in (twin, model)]
    assert gap(*states) == 0
    assert gap(twin.get_weights(), model.get_weights()) == 0
    files = sorted(p.name for p in tmp_path.iterdir())
    assert name in files
    assert (len(files) > 2) == (size is not None)
    plain = mlp(alphorn)
    plain.load_weights(path)
    assert gap(plain.get_weights(), model.get_weights()) == 0


@pytest.mark.parametrize("name", ["m.weights.h5", "m.weights.json"])
def test_the_optimizer_s_state_and_shards_travel_both_ways(name, tmp_path) -> None:
    for writer, reader in ((keras, alphorn), (alphorn, keras)):
        model, twin = trained(writer), mlp(reader)
        twin.compile(**CLASSIFYING)
        twin.optimizer.build(twin.trainable_variables)
        path = str(tmp_path / f"{writer.__name__}_{name}")
        model.save_weights(path, max_shard_size=1e-7 if name.endswith("json") else None)
        twin.load_weights(path)
        assert gap(twin.get_weights(), model.get_weights()) == 0
        states = [[np.array(v) for v in m.optimizer.variables] for m in (twin, model)]
        assert gap(*states) == 0


def test_the_state_of_another_optimizer_is_told_of_and_left(tmp_path) -> None:
    trained(alphorn).save_weights(tmp_path / "m.weights.h5")
    model = mlp(alphorn)
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="does not fit sgd"):
        model.load_weights(tmp_path / "m.weights.h5")
    assert int(model.optimizer.iterations) == 0
    model.load_weights(tmp_path / "m.weights.h5", objects_to_skip=[model.optimizer])


def test_parts_can_be_left_out(tmp_path) -> None:
    model, path = trained(alphorn), tmp_path / "m.weights.h5"
    model.save_weights(tmp_path / "whole.weights.h5")
    alphorn.saving.save_weights(model, path, objects_to_skip=[model.get_layer("out")])
    assert path.stat().st_size < (tmp_path / "whole.weights.h5").stat().st_size
    twin = mlp(alphorn)
    before = twin.get_weights()
    twin.load_weights(path, objects_to_skip=[twin.get_layer("out")])
    assert gap(twin.get_weights()[:2], model.get_weights()[:2]) == 0
    assert gap(twin.get_weights()[2:], before[2:]) == 0
    with pytest.raises(ArgumentError, match=r"out/kernel[\s\S]*no array"):
        twin.load_weights(path)


def test_a_shard_must_hold_the_largest_weight(tmp_path) -> None:
    model, path = mlp(alphorn), tmp_path / "m.weights.json"
    with pytest.raises(ArgumentError, match="room for the largest weight"):
        model.save_weights(path, max_shard_size=1e-9)
    for name, size in (("m.weights.json", None), ("m.weights.h5", 1)):
        with pytest.raises(ArgumentError, match=r"ends in \.weights\.json"):
            model.save_weights(tmp_path / name, max_shard_size=size)
    assert not list(tmp_path.iterdir())
    path.write_text("{}")
    with pytest.raises(alphorn.FileError, match="map of shards"):
        model.load_weights(path)


def deeper(K):
    x = K.Input((FEATURES,), name="x")
    hidden = K.layers.Dense(4, activation="tanh", name="hidden")(x)
    new = K.layers.Dense(4, name="new")(hidden)
    return K.Model(x, K.layers.Dense(3, activation="softmax", name="out")(new))


@pytest.mark.parametrize("writer", [alphorn, keras], ids=["alphorn", "keras"])
def test_layers_take_weights_by_their_names(writer, tmp_path) -> None:
    model, twin = mlp(writer), deeper(alphorn)
    model.set_weights(start(model))
    for name in ("m.weights.h5", "m.keras"):
        path = str(tmp_path / name)
        (model.save if name.endswith(".keras") else model.save_weights)(path)
        before = [w * 0 + 7 for w in twin.get_weights()]
        twin.set_weights(before)
        twin.load_weights(path, by_name=True)
        after = twin.get_weights()
        assert gap(after[:2] + after[4:], start(model)) == 0
        assert gap(after[2:4], before[2:4]) == 0
    other = wider()
    with pytest.raises(ShapeError, match="out/kernel"):
        other.load_weights(path, by_name=True)
    other.load_weights(path, by_name=True, skip_mismatch=True)
    assert gap(other.get_weights()[:2], start(model)[:2]) == 0
    model = mlp(alphorn)
    model.save_weights(tmp_path / "m.safetensors")
    with pytest.raises(ArgumentError, match="by_name"):
        model.load_weights(tmp_path / "m.safetensors", by_name=True)


def test_safetensors_are_read_by_their_own_library(tmp_path) -> None:
    model = mlp(alphorn)
    model.save_weights(tmp_path / "m.safetensors")
    held = load_file(tmp_path / "m.safetensors")
    assert gap(held["layers/dense/vars/0"], model.get_weights()[0]) == 0
    assert len(held) == 4
    (tmp_path / "m.safetensors").write_bytes(b"no tensors")
    with pytest.raises(alphorn.FileError, match="whole safetensors"):
        model.load_weights(tmp_path / "m.safetensors")
    x = alphorn.Input((FEATURES,))
    half = alphorn.Model(x, alphorn.layers.Dense(1, dtype="bfloat16")(x))
    half.save_weights(tmp_path / "m.safetensors")
    values = half.get_weights()
    half.set_weights([w * 0 for w in values])
    half.load_weights(tmp_path / "m.safetensors")
    assert all((a == b).all() for a, b in zip(half.get_weights(), values, strict=True))
