"""`.h5` files of Keras 2: models and weights that tf_keras recorded, and ours read by Keras 3."""

import base64
import json
import marshal
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import alphorn
from alphorn import layers
from alphorn.errors import AlphornError, FileError, ShapeError

KERAS2 = Path(__file__).parent / "data" / "keras2"
NAMES = sorted(path.stem for path in KERAS2.glob("*.h5"))
X = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
CUDNN = [
    (layers.CuDNNLSTM, layers.LSTM, {}),
    (layers.CuDNNGRU, layers.GRU, {"reset_after": True}),
]

# Keras 3 takes the name that Keras 2 gives a slope, and says that it is old.
pytestmark = pytest.mark.filterwarnings("ignore:Argument `alpha` is deprecated")


def recorded(name, kind):
    """Inputs or outputs that tf_keras noted, in a list."""
    with np.load(KERAS2 / f"{name}.npz") as arrays:
        return [arrays[key] for key in sorted(arrays) if key.rstrip("0123456789") == kind]


def outputs(model, x):
    """Predictions in a list."""
    found = model.predict(x if len(x) > 1 else x[0], verbose=0)
    return found if isinstance(found, list) else [found]


def near(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def with_weights(model):
    """Gives a model weights of which none is like another."""
    draws = np.random.default_rng(1)
    model.set_weights([draws.uniform(0.1, 0.9, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("case", NAMES)
def test_models_of_keras_2_predict_what_they_did(case):
    model = alphorn.models.load_model(KERAS2 / f"{case}.h5")
    near(outputs(model, recorded(case, "x")), recorded(case, "y"))


@pytest.mark.parametrize("case", ["trained", "convolutions"])
def test_training_goes_on_where_keras_2_stopped(case):
    model = alphorn.models.load_model(KERAS2 / f"{case}.h5")
    x, y = recorded(case, "x"), recorded(case, "y")
    assert int(model.optimizer.iterations) > 0
    model.train_on_batch(x[0], np.full(y[0].shape, 0.5, "float32"))
    near(outputs(model, x), recorded(case, "after"))


def test_without_compile_nothing_of_the_optimizer_is_read():
    assert not alphorn.models.load_model(KERAS2 / "trained.h5", compile=False).compiled


@pytest.mark.parametrize("case", ["cells", "several", "words_lstm"])
def test_json_of_keras_2(case):
    with h5py.File(KERAS2 / f"{case}.h5") as file:
        text = file.attrs["model_config"]
    known = alphorn.models.load_model(KERAS2 / f"{case}.h5")
    model = alphorn.models.model_from_json(text)
    model.load_weights(KERAS2 / f"{case}.h5")
    near(outputs(model, recorded(case, "x")), recorded(case, "y"))
    config = json.loads(text)["config"]
    again = type(known).from_config(config)
    assert [w.shape for w in again.weights] == [w.shape for w in known.weights]


def test_a_sequential_of_keras_2_0_is_a_list_of_layers():
    dense = {"name": "d", "units": 2, "batch_input_shape": [None, 3], "activation": "relu"}
    init = {"scale": 1.0, "mode": "fan_avg", "distribution": "normal", "seed": None}
    dense["kernel_initializer"] = {"class_name": "VarianceScaling", "config": init}
    config = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": dense}]}
    model = alphorn.models.model_from_json(json.dumps(config))
    assert model.output_shape == (None, 2)
    assert model.layers[0].kernel_initializer.distribution == "truncated_normal"


def test_what_keras_3_lacks_is_refused():
    lstm = {"name": "l", "units": 2, "batch_input_shape": [None, 4, 3], "time_major": True}
    config = {"class_name": "Sequential", "config": [{"class_name": "LSTM", "config": lstm}]}
    with pytest.raises(FileError, match="time_major"):
        alphorn.models.model_from_json(json.dumps(config))


# --- weights alone


def test_by_name_takes_layers_that_have_the_name():
    source = alphorn.models.load_model(KERAS2 / "several.h5")
    inputs = alphorn.Input((7,))
    model = alphorn.Model(inputs, layers.Dense(1, name="one")(layers.Dense(7, name="new")(inputs)))
    before = np.asarray(model.get_layer("new").kernel)
    model.load_weights(KERAS2 / "several.h5", by_name=True)
    np.testing.assert_array_equal(model.get_layer("one").kernel, source.get_layer("one").kernel)
    np.testing.assert_array_equal(model.get_layer("new").kernel, before)


def test_other_shapes_are_an_error_or_left_alone():
    inputs = alphorn.Input((4,))
    model = alphorn.Model(inputs, layers.Dense(1, name="one")(inputs))
    before = np.asarray(model.get_layer("one").kernel)
    with pytest.raises(ShapeError, match="one/kernel"):
        model.load_weights(KERAS2 / "several.h5", by_name=True)
    model.load_weights(KERAS2 / "several.h5", by_name=True, skip_mismatch=True)
    np.testing.assert_array_equal(model.get_layer("one").kernel, before)
    with pytest.raises(AlphornError, match="layers that have weights"):
        model.load_weights(KERAS2 / "several.h5")


@pytest.mark.parametrize(("cudnn", "plain", "options"), CUDNN, ids=["lstm", "gru"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_cudnn_layers_fit_the_others_and_back(cudnn, plain, options, wrapped, tmp_path):
    def model(layer, **more):
        inner = layer(3, **more)
        return alphorn.Sequential(
            [alphorn.Input((4, 2)), layers.Bidirectional(inner) if wrapped else inner]
        )

    written = with_weights(model(cudnn))
    written.save_weights(tmp_path / "a.h5")
    opened = model(plain, **options)
    opened.load_weights(tmp_path / "a.h5")
    near([opened.predict(X, verbose=0)], [written.predict(X, verbose=0)])
    opened.save_weights(tmp_path / "b.h5")
    back = model(cudnn)
    back.load_weights(tmp_path / "b.h5")
    near([back.predict(X, verbose=0)], [written.predict(X, verbose=0)])


# --- what we write


def flat():
    """Two inputs, a shared layer, training."""
    a, b = alphorn.Input((4, 2), name="a"), alphorn.Input((4, 2), name="b")
    shared = layers.Bidirectional(layers.GRU(2, return_sequences=True))
    joined = layers.Concatenate()([shared(a), layers.BatchNormalization()(shared(b))])
    model = alphorn.Model([a, b], layers.Dense(1)(layers.LSTM(2)(layers.LeakyReLU(0.2)(joined))))
    model.compile(alphorn.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.train_on_batch([X, -X], np.ones((3, 1), "float32"))
    return model


def ours():
    """Two inputs, an inner model called twice, a Sequential, states, training."""
    a, b = alphorn.Input((4, 2), name="a"), alphorn.Input((4, 2), name="b")
    inside = alphorn.Input((4, 2))
    hidden = layers.BatchNormalization()(layers.LSTM(3, return_sequences=True)(inside))
    inner = alphorn.Model(inside, hidden, name="inner")
    column = alphorn.Sequential([alphorn.Input((4, 3)), layers.Dense(2)], name="column")
    joined = layers.Concatenate()([inner(a), column(inner(b))])
    out = layers.Dense(1)(layers.Bidirectional(layers.GRU(2))(layers.LeakyReLU(0.2)(joined)))
    model = alphorn.Model([a, b], out, name="ours")
    model.compile(alphorn.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.train_on_batch([X, -X], np.ones((3, 1), "float32"))
    return model


@pytest.mark.parametrize("make", [flat, ours])
def test_what_we_write_opens_here_and_in_keras_3(make, tmp_path):
    model = make()
    model.save(tmp_path / "ours.h5")
    again = alphorn.models.load_model(tmp_path / "ours.h5")
    near(outputs(again, [X, -X]), outputs(model, [X, -X]))
    if make is flat:  # Keras 3 does not find the calls of inner models of Keras 2, tf_keras's too
        theirs = keras.models.load_model(tmp_path / "ours.h5", compile=False)
        near(outputs(theirs, [X, -X]), outputs(model, [X, -X]))
    assert int(again.optimizer.iterations) == 1
    for one in (model, again):
        one.train_on_batch([X, -X], np.ones((3, 1), "float32"))
    near(outputs(again, [X, -X]), outputs(model, [X, -X]))


def test_what_keras_3_writes_opens_here(tmp_path):
    inputs = keras.Input((4, 2))
    x = keras.layers.Bidirectional(keras.layers.LSTM(2))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(keras.optimizers.RMSprop(0.01), "mse", metrics=["mae"])
    model.train_on_batch(X, np.ones((3, 1), "float32"))
    model.save(tmp_path / "theirs.h5")
    again = alphorn.models.load_model(tmp_path / "theirs.h5")
    near(outputs(again, [X]), outputs(model, [X]))
    for one in (model, again):
        one.train_on_batch(X, np.ones((3, 1), "float32"))
    near(outputs(again, [X]), outputs(model, [X]))


def test_what_keras_2_cannot_say_is_said_in_keras_3s_words(tmp_path):
    inputs = alphorn.Input((2,))
    model = alphorn.Model(inputs, alphorn.ops.sin(layers.Dense(2)(inputs)))
    with pytest.warns(UserWarning, match="tf_keras does not"):
        model.save(tmp_path / "op.h5")
    again = alphorn.models.load_model(tmp_path / "op.h5")
    theirs = keras.models.load_model(tmp_path / "op.h5", compile=False)
    for opened in (again, theirs):
        near(outputs(opened, [X[:, 0]]), outputs(model, [X[:, 0]]))


# --- a stranger's file


def stranger(path, change):
    """Writes a recorded file again, its config changed."""
    path.write_bytes((KERAS2 / "words_lstm.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(file, config)
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_code_in_a_file_does_not_run(tmp_path):
    code = marshal.dumps((lambda x: x + 1).__code__)
    function = [base64.b64encode(code).decode(), None, None]
    config = {"name": "l", "function": function, "function_type": "lambda"}

    def change(file, model):
        model["config"]["layers"].append({"class_name": "Lambda", "config": config})
        model["safe_mode"] = model["config"]["safe_mode"] = False

    path = stranger(tmp_path / "code.h5", change)
    with pytest.raises(AlphornError, match="code in files is not run"):
        alphorn.models.load_model(path)
    model = alphorn.models.load_model(path, safe_mode=False)
    near(outputs(model, recorded("words_lstm", "x")), [recorded("words_lstm", "y")[0] + 1])


def test_links_and_sizes_are_refused(tmp_path):
    def linked(file, model):
        name = next(iter(file["model_weights/dense_1"].attrs["weight_names"]))
        del file["model_weights/dense_1"][name]
        file["model_weights/dense_1"][name] = h5py.ExternalLink("/etc/x.h5", "/x")

    def huge(file, model):
        model["config"]["layers"][-1]["config"]["units"] = 10**9

    for change, said in ((linked, "external link"), (huge, "exhaust memory")):
        with pytest.raises(FileError, match=said):
            alphorn.models.load_model(stranger(tmp_path / "bad.h5", change))


def test_damaged_files_say_so(tmp_path):
    path = tmp_path / "cut.h5"
    path.write_bytes((KERAS2 / "words_lstm.h5").read_bytes()[:5000])
    with pytest.raises(FileError, match="whole HDF5 file"):
        alphorn.models.load_model(path)
    with pytest.raises(FileError, match="holds no model"):
        inputs = alphorn.Input((2,))
        alphorn.Model(inputs, layers.Dense(1)(inputs)).save_weights(tmp_path / "w.h5")
        alphorn.models.load_model(tmp_path / "w.h5")
