"""Programs of 2016 to 2019 run unmodified by `python -m alphorn`."""

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import alphorn
from alphorn.legacy import install
from alphorn.legacy.tables import GONE, ROOTS

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


@pytest.fixture
def keras_is_alphorn() -> Iterator[None]:
    """Has `keras` mean Alphorn for a test: what is imported by that name waits outside."""
    names = {root.split(".")[0] for root in ROOTS}
    outside = {n: sys.modules.pop(n) for n in list(sys.modules) if n.split(".")[0] in names}
    before = alphorn.config.floatx(), np.random.get_state()
    finder = install()
    finder.takes_tensorflow = True
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.split(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(outside)
        alphorn.backend.clear_session()
        np.random.set_state(before[1])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_a_program_runs_as_it_is(
    program: Path, keras_is_alphorn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    alphorn.utils.set_random_seed(0)
    text = program.read_text(encoding="utf-8")
    assert "alphorn" not in text
    left = runpy.run_path(str(program), run_name="__main__")
    models = [v for v in left.values() if isinstance(v, alphorn.Model)]
    assert models and "assert" in text


def run(text: str, *arguments: str) -> dict:
    """Runs a program's text; returns the names that it leaves."""
    left: dict = {"__name__": "__main__"}
    exec(compile(text, "program", "exec"), left)
    return left


def test_arguments_of_keras_1(keras_is_alphorn: None) -> None:
    left = run(
        """
from keras.models import Model, Sequential
from keras.layers import Input, Dense, LSTM, GRU, merge, Dropout, GaussianNoise
from keras.layers import Convolution1D, Convolution2D, MaxPooling1D, BatchNormalization
from keras.layers import Embedding, TimeDistributedDense, UpSampling1D
from keras.regularizers import l2
from keras.optimizers import SGD, RMSprop
import keras

a, b = Input(shape=(4,)), Input(shape=(4,))
merged = merge([Dense(3, activation='relu', W_regularizer=l2(0.1))(a), Dense(3)(b)],
               mode='concat', concat_axis=1)
model = Model(input=[a, b], output=Dense(output_dim=1, init='he_normal', bias=False)(merged))
model.compile(RMSprop(lr=0.01, rho=0.9, epsilon=None, decay=0.0), 'mse', ['mae'])

text = Sequential()
text.add(Embedding(10, 4, input_length=6, init='normal', W_constraint='nonneg'))
text.add(Convolution1D(nb_filter=5, filter_length=3, border_mode='same', subsample_length=1))
text.add(MaxPooling1D(pool_length=2, stride=2))
text.add(UpSampling1D(length=2))
text.add(BatchNormalization(mode=0))
text.add(Dropout(p=0.5))
text.add(GaussianNoise(sigma=0.1))
text.add(LSTM(output_dim=3, inner_init='orthogonal', inner_activation='sigmoid',
              dropout_W=0.1, dropout_U=0.2, consume_less='mem', return_sequences=True))
text.add(TimeDistributedDense(output_dim=2))

images = Sequential([Convolution2D(4, 3, 2, subsample=(2, 2), dim_ordering='tf',
                                   input_shape=(8, 8, 1))])
named = Convolution2D(nb_filter=4, nb_row=3, nb_col=2)
"""
    )
    assert left["model"].output_shape == (None, 1)
    assert left["text"].output_shape == (None, 6, 2)
    lstm = left["text"].layers[-2]
    assert (lstm.dropout, lstm.recurrent_dropout) == (0.1, 0.2)
    assert left["images"].output_shape == (None, 3, 4, 4)
    assert left["named"].kernel_size == (3, 2)
    history = left["model"].fit([np.ones((4, 4))] * 2, np.ones((4, 1)), nb_epoch=2, verbose=0)
    assert set(history.history) == {"loss", "mae"}
    with pytest.raises(alphorn.UnexpectedArgumentError, match="nb_epochs"):
        left["model"].fit(np.ones((4, 4)), nb_epochs=2)
    with pytest.raises(alphorn.ArgumentError, match="SpatialDropout1D"):
        alphorn.layers.Embedding(3, 2, dropout=0.1)
    generator = (batch for batch in [])
    with pytest.raises(alphorn.ArgumentError, match="samples // batch_size"):
        left["model"].fit_generator(generator, samples_per_epoch=10)


def test_the_wrappers_of_scikit_learn(keras_is_alphorn: None) -> None:
    left = run(
        """
import numpy as np
from keras.models import Sequential
from keras.layers import Dense
from keras.wrappers.scikit_learn import KerasClassifier, KerasRegressor

def create(units=2):
    model = Sequential()
    model.add(Dense(units, input_dim=2, activation='tanh'))
    model.add(Dense(1, activation='sigmoid'))
    model.compile(loss='binary_crossentropy', optimizer='adam', metrics=['accuracy'])
    return model

x = np.random.RandomState(0).randn(32, 2)
found = KerasClassifier(build_fn=create, units=3, epochs=2, verbose=0)
found.set_params(batch_size=16).fit(x, np.where(x[:, 0] > 0, 'a', 'b'))
proba, labels = found.predict_proba(x), found.predict(x)
score = found.score(x, np.where(x[:, 0] > 0, 'a', 'b'))
line = KerasRegressor(create, epochs=1, verbose=0)
line.fit(x, x[:, 0])
"""
    )
    np.testing.assert_allclose(left["proba"].sum(1), 1, rtol=1e-5)
    chosen = np.array(["a", "b"])[(left["proba"][:, 1] > 0.5).astype(int)]
    assert (left["labels"].ravel() == chosen).all() and 0 <= left["score"] <= 1
    assert left["found"].get_params()["units"] == 3 and left["line"].predict(left["x"]).ndim == 1
    with pytest.raises(alphorn.ArgumentError, match="unit"):
        left["KerasClassifier"](left["create"], unit=3)


MISSING = {
    "from keras.layers import Merge": "layers.concatenate",
    "from keras.layers.core import MaxoutDense": "Dense",
    "import keras.applications": "load_weights",
    "from keras.applications.vgg16 import VGG16": "load_weights",
    "from keras.utils import multi_gpu_model": "distribution",
    "import keras.nothing_like_that": "keras.nothing_like_that is not in Alphorn",
    "from tensorflow import GradientTape": "value_and_grad",
    "import tensorflow.contrib.rnn": "alphorn.ops",
    "import tensorflow as tf; tf.Session()": "K.function",
    "import keras; keras.layers.LocallyConnected1D(3, 2)": "K.local_conv1d",
    "import keras.backend as K; K.get_session()": "model.predict",
}


@pytest.mark.parametrize("case", MISSING)
def test_a_name_that_is_not_there_says_what_took_its_place(
    case: str, keras_is_alphorn: None
) -> None:
    with pytest.raises((ImportError, AttributeError)) as caught:
        run(case)
    assert MISSING[case] in str(caught.value)


def test_names_are_found_however_they_are_reached(keras_is_alphorn: None) -> None:
    left = run(
        """
import keras
import keras.layers.recurrent
import tensorflow as tf
import tensorflow.keras.backend
from keras.layers import *
from keras.preprocessing import image, text
one = keras.layers.recurrent.GRU, keras.engine.topology.Layer, keras.utils.np_utils.to_categorical
two = GRU, tf.keras.layers.Layer, tf.keras.utils.to_categorical
"""
    )
    assert left["one"] == left["two"]
    assert left["one"][0] is alphorn.layers.GRU and left["LSTM"] is alphorn.layers.LSTM
    assert left["image"].K is alphorn.backend and left["text"].Tokenizer
    assert set(dir(left["keras"].losses)) >= {"mse", "mean_squared_error"}
    x = np.arange(6.0).reshape(2, 3)
    tf = left["tf"]
    np.testing.assert_allclose(tf.reduce_mean(x, reduction_indices=[1], keep_dims=True), [[1], [4]])
    np.testing.assert_allclose(tf.concat(1, [x, x]), tf.concat([x, x], axis=1))
    assert tf.split(x, [1, 2], axis=1)[1].shape == (2, 2)
    assert tf.matmul(x, x, transpose_b=True).shape == (2, 2)
    assert tf.math.reduce_sum(x) == 15 and tf.constant([1, 2]).dtype == tf.int32
    found = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=np.array([0, 1]), logits=x)
    assert found.shape == (2,) and tf.nn.moments(x, [0])[0].shape == (3,)
    assert not GONE.keys() & {f"layers.{n}" for n in alphorn.layers.__all__}


def test_old_programs_draw_their_models_and_write_for_tensorboard(
    keras_is_alphorn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(
        """
from keras.models import Sequential
from keras.layers import Dense
from keras.callbacks import TensorBoard
from keras.utils.vis_utils import model_to_dot, plot_model
from tensorflow.keras.utils import plot_model as same
import numpy as np
model = Sequential()
model.add(Dense(1, input_dim=2))
model.compile(loss="mse", optimizer="sgd")
board = TensorBoard(log_dir="./logs", histogram_freq=0, batch_size=32, write_graph=True, write_images=False)
model.fit(np.ones((4, 2)), np.ones((4, 1)), nb_epoch=1, verbose=0, callbacks=[board])
plot_model(model, to_file="model.png", show_shapes=True, show_layer_names=True)
assert same is plot_model and "Dense" in model_to_dot(model).to_string()
"""
    )
    assert (tmp_path / "model.png").exists() and list((tmp_path / "logs" / "train").iterdir())


def test_an_installed_tensorflow_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_is_alphorn: None
) -> None:
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("mine = 1")
    monkeypatch.syspath_prepend(tmp_path)
    sys.meta_path[0].takes_tensorflow = False
    left = run("import tensorflow as tf; from tensorflow.keras.layers import LSTM")
    assert left["tf"].mine == 1 and left["LSTM"] is alphorn.layers.LSTM


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("number = 3\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, keras, beside\n"
        "assert __name__ == '__main__'\n"
        "print(keras.layers.Dense.__module__, sys.argv[1:], beside.number)\n"
    )
    command = [sys.executable, "-m", "alphorn"]
    found = subprocess.run(
        [*command, str(script), "--rate", "1"], capture_output=True, text=True, check=True
    )
    assert found.stdout == "alphorn.layers.dense ['--rate', '1'] 3\n"
    found = subprocess.run(
        [*command, "-m", "script", "x"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout == "alphorn.layers.dense ['x'] 3\n"
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and found.stdout.startswith("usage: python -m alphorn")
