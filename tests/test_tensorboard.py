"""The callback TensorBoard, read back with TensorBoard's own reader."""

import io
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector import projector_config_pb2

import alphorn
from alphorn import layers
from alphorn.callbacks import Callback, TensorBoard
from alphorn.errors import ArgumentError, UnexpectedArgumentError
from alphorn.training.step import Logs
from nets import IDS, LABELS, X, Y


def small(**compiled):
    model = alphorn.Sequential([alphorn.Input((3,)), layers.Dense(1, name="d")], name="small")
    model.compile("sgd", "mse", **compiled)
    return model


def fitted(folder: Path, model=None, callbacks=(), **options) -> TensorBoard:
    """Trains three steps in each of two epochs."""
    board = TensorBoard(folder, **options)
    (model or small()).fit(
        X, Y, 4, 2, verbose=0, validation_data=(X, Y), callbacks=[board, *callbacks]
    )
    return board


def read(folder: Path) -> EventAccumulator:
    everything = {"scalars": 0, "histograms": 0, "images": 0}
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = read(folder)
    return {t: [(e.step, e.value) for e in found.Scalars(t)] for t in found.Tags()["scalars"]}


def test_figures_of_epochs_have_keras_s_tags_and_folders(tmp_path):
    model = small(metrics=["mae"])
    fitted(tmp_path, model, write_graph=False, write_steps_per_second=True)
    history = model.history.history
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    names = ["loss", "mae", "learning_rate", "steps_per_second"]
    assert sorted(train) == sorted(f"epoch_{n}" for n in names)
    assert [s for s, _ in train["epoch_loss"]] == [0, 1]
    assert [v for _, v in train["epoch_loss"]] == pytest.approx(history["loss"])
    assert [v for _, v in train["epoch_learning_rate"]] == pytest.approx([0.01, 0.01])
    assert all(v > 0 for _, v in train["epoch_steps_per_second"])
    by_step = {f"evaluation_{n}_vs_iterations" for n in names[:2]}
    assert set(validation) == by_step | {"epoch_loss", "epoch_mae"}
    assert [v for _, v in validation["epoch_mae"]] == pytest.approx(history["val_mae"])
    found = validation["evaluation_loss_vs_iterations"]
    assert [s for s, _ in found] == [3, 6]
    assert [v for _, v in found] == pytest.approx(history["val_loss"])


def test_an_evaluation_by_itself_is_written(tmp_path):
    model = small()
    loss = model.evaluate(X, Y, verbose=0, callbacks=[board := TensorBoard(tmp_path)])
    assert scalars(tmp_path / "validation") == {
        "evaluation_loss_vs_iterations": [(0, pytest.approx(loss))]
    }
    assert not board._writers  # closed


class Each(Callback):
    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])


@pytest.mark.parametrize("frequency, steps", [("batch", [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6])])
def test_figures_of_batches(tmp_path, frequency, steps):
    each = Each()
    options = {"write_graph": False, "write_steps_per_second": True}
    fitted(tmp_path, callbacks=[each], update_freq=frequency, **options)
    train = scalars(tmp_path / "train")
    assert [s for s, _ in train["batch_loss"]] == steps
    assert [v for _, v in train["batch_loss"]] == pytest.approx([each.losses[s - 1] for s in steps])
    assert [s for s, _ in train["batch_steps_per_second"]] == steps


class Late(Logs):
    """Figures that the device does not have yet."""

    done = False

    @property
    def ready(self) -> bool:
        return self.done

    def _read(self):
        assert self.done, "this would wait for the device"
        return super()._read()


def test_nothing_waits_for_the_device(tmp_path):
    board = TensorBoard(tmp_path, update_freq="batch", write_graph=False)
    board.set_model(small())
    board.on_train_begin()
    board.on_epoch_begin(0)
    late = [Late({"loss": float(i)}) for i in range(3)]
    for i, logs in enumerate(late):
        board.on_train_batch_begin(i)
        board.on_train_batch_end(i, logs)
    late[0].done = True
    board.on_train_batch_end(3, {"loss": 3.0})
    for logs in late:
        logs.done = True
    board.on_epoch_end(0, {})
    board.on_train_end()
    assert scalars(tmp_path / "train")["batch_loss"] == [(i + 1, float(i)) for i in range(4)]
    assert not TensorBoard().wants_batches  # several steps a call stay several
    assert TensorBoard(update_freq=3).wants_batches and TensorBoard(profile_batch=2).wants_batches


def test_weights_are_histograms_and_images(tmp_path):
    model = small()
    fitted(tmp_path, model, histogram_freq=1, write_images=True, write_graph=False)
    found = read(tmp_path / "train")
    assert found.Tags()["histograms"] == ["d/kernel/histogram", "d/bias/histogram"]
    first, last = found.Histograms("d/kernel/histogram")
    kernel = np.asarray(model.layers[0].kernel)
    assert (first.step, last.step) == (0, 1) and last.histogram_value.num == 3
    assert last.histogram_value.max == pytest.approx(kernel.max())
    assert sum(last.histogram_value.bucket) == 3
    _, image = found.Images("d/kernel/image")
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))[..., 0]
    assert pixels.shape == (1, 3)  # the longer side lies
    expected = 127.5 + 127.5 * kernel.T / np.abs(kernel).max()
    assert np.abs(pixels - expected).max() <= 1


def test_weights_of_any_shape_and_value_are_written(tmp_path):
    model = alphorn.Sequential(
        [alphorn.Input((9, 2)), layers.Conv1D(4, 3, name="c"), layers.Flatten(), layers.Dense(1)]
    )
    model.layers[0].bias.assign([np.nan, np.inf, 1.0, 2.0])
    board = TensorBoard(tmp_path, write_images=True)
    board.set_model(model)
    board._write_weights(0)
    board.on_train_end()
    found = read(tmp_path / "train")
    (kernel,), (bias,) = (found.Images(f"c/{n}/image") for n in ("kernel", "bias"))
    assert (kernel.height, kernel.width) == (3, 4 * 2 + 3)  # filters with a line between
    assert (bias.height, bias.width) == (1, 4)
    assert found.Histograms("c/bias/histogram")[0].histogram_value.num == 2


def test_the_graph_has_layers_inner_models_and_masks(tmp_path):
    words = alphorn.Input((None,), dtype="int32", name="words")
    h = layers.Embedding(9, 4, mask_zero=True, name="vectors")(words)
    sentence = alphorn.Model(words, layers.GlobalMaxPooling1D(name="most")(h), name="sentence")
    a, b = (alphorn.Input((None,), dtype="int32", name=n) for n in "ab")
    model = alphorn.Model([a, b], layers.Add(name="sum")([sentence(a), sentence(b)]))
    board = TensorBoard(tmp_path)
    board.set_model(model)
    board.on_train_begin()
    board.on_train_end()
    nodes = {n.name: n for n in read(tmp_path / "train").Graph().node}
    inner = ["sentence/vectors", "sentence/most", "sentence_1/vectors", "sentence_1/most"]
    assert set(nodes) == {"a", "b", "sum", *inner}
    assert list(nodes["sum"].input) == ["sentence/most", "sentence_1/most"]
    assert list(nodes["sentence_1/vectors"].input) == ["b"]
    assert nodes["sum"].op == "Add"
    (shape,) = nodes["sentence/vectors"].attr["_output_shapes"].list.shape
    assert [d.size for d in shape.dim] == [-1, -1, 4]
    assert nodes["sentence/vectors"].attr["mask"].s == b"born (None, None)"


def test_a_model_of_one_s_own_has_a_graph_once_it_ran(tmp_path):
    class Own(alphorn.Model):
        def __init__(self):
            super().__init__()
            self.last = layers.Dense(1, name="last")

        def call(self, x):
            return self.last(x)

    model = Own()
    model.compile("sgd", "mse")
    fitted(tmp_path, model)
    assert [n.name for n in read(tmp_path / "train").Graph().node] == ["input", "last"]


def embedding_model():
    inner = alphorn.Sequential(
        [layers.Embedding(9, 4, name="words"), layers.GlobalAveragePooling1D()], name="inner"
    )
    last = layers.Dense(3, activation="softmax")
    model = alphorn.Sequential([alphorn.Input((6,), dtype="int32"), inner, last])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def test_the_projector_finds_vectors(tmp_path):
    model = embedding_model()
    board = TensorBoard(
        tmp_path, embeddings_freq=1, embeddings_metadata={"words": 'my "words".tsv'}
    )
    model.fit(IDS, LABELS, verbose=0, callbacks=[board])
    config = projector_config_pb2.ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    (told,) = config.embeddings
    assert (told.tensor_name, told.metadata_path) == ("words", 'my "words".tsv')
    vectors = np.loadtxt(tmp_path / told.tensor_path, delimiter="\t")
    assert np.allclose(vectors, np.asarray(model.layers[0].layers[0].embeddings))
    with pytest.raises(ArgumentError, match=r"embeddings_metadata[\s\S]*other[\s\S]*words"):
        TensorBoard(tmp_path, embeddings_freq=1, embeddings_metadata={"other": "x"}).set_model(
            model
        )
    none = TensorBoard(tmp_path, embeddings_freq=1, embeddings_layer_names=["other"])
    none.set_model(model)
    assert (tmp_path / "projector_config.pbtxt").read_text() == ""


def test_a_trace_of_some_batches_lies_where_the_profiler_looks(tmp_path):
    board = fitted(tmp_path, write_graph=False, profile_batch=(2, 3))
    assert not board._tracing
    (trace,) = (tmp_path / "train" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000


def test_a_trace_that_cannot_begin_does_not_end_the_run(tmp_path, monkeypatch):
    def refuse(folder):
        raise RuntimeError("another trace is under way")

    monkeypatch.setattr("jax.profiler.start_trace", refuse)
    with pytest.warns(UserWarning, match="profile_batch writes nothing: another trace"):
        fitted(tmp_path, write_graph=False, profile_batch=2)
    assert "epoch_loss" in scalars(tmp_path / "train")


def test_arguments_are_checked():
    for given, expected in (
        (0, (0, 0)),
        (3, (3, 3)),
        ("2", (2, 2)),
        ("2,5", (2, 5)),
        ([1, 4], (1, 4)),
    ):
        assert TensorBoard(profile_batch=given).profile_batch == expected
    for given in (-1, (5, 2), "a", (1, 2, 3), None):
        with pytest.raises(ArgumentError, match="profile_batch"):
            TensorBoard(profile_batch=given)
    for given in ("step", 0, None, 1.5, True):
        with pytest.raises(ArgumentError, match="update_freq"):
            TensorBoard(update_freq=given)


def test_arguments_of_keras_2(tmp_path):
    board = TensorBoard("logs", histogram_freq=0, batch_size=32, write_grads=False)
    assert board.log_dir == keras.callbacks.TensorBoard("logs").log_dir
    for strange in ({"write_grads": True}, {"embeddings_data": X}, {"colour": 1}):
        with pytest.raises(UnexpectedArgumentError, match=next(iter(strange))):
            TensorBoard("logs", **strange)


def test_a_missing_writer_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    board = TensorBoard(tmp_path)
    board.set_model(small())
    with pytest.raises(ImportError, match=r"pip install 'alphorn\[tensorboard\]'"):
        board.on_train_begin()
