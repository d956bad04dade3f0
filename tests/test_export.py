"""Exported programs: plain JAX gives what the model predicts, for any batch and any length."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import alphorn
from alphorn import layers
from alphorn.core.masked import Masked
from alphorn.errors import ArgumentError, StateError, UnexpectedArgumentError
from nets import FEATURES, IDS, WORDS, X, forked, line, start
from rows import QUICK, without_draws

RANDOM = np.random.default_rng(0)
SENSORS = RANDOM.normal(size=(4, 7, FEATURES)).astype("float32")
# Padded behind, in front, with a gap, and empty.
PRESENT = np.array(
    [[1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1, 0], [0] * 7], bool
)
TURNED = PRESENT.copy()  # read from the end, the gap stands elsewhere
TURNED[2] = [1, 1, 1, 0, 1, 1, 0]
DOCUMENTS = np.array(
    [
        [[1, 2, 0, 0], [3, 4, 5, 0], [0, 0, 0, 0]],
        [[2, 2, 2, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    "int32",
)


def exported(model: Any, path: Path, **options: Any) -> Any:
    """Returns the model's program as plain JAX reads it."""
    model.export(path, format="stablehlo", verbose=False, **options)
    return jax.export.deserialize(bytearray(path.read_bytes()))


def mixed(K: Any) -> Any:
    """Convolution with strides, a recurrence both ways, attention: of ids under a mask."""
    ids = K.Input((None,), dtype="int32")
    x = K.layers.Embedding(WORDS, 4, mask_zero=True)(ids)
    x = K.layers.Conv1D(4, 3, strides=2, padding="same")(x)
    x = K.layers.Bidirectional(K.layers.GRU(2, return_sequences=True))(x)
    x = K.layers.MultiHeadAttention(2, 2)(x, x)
    return K.Model(ids, K.layers.GlobalAveragePooling1D()(x))


def documents(K: Any) -> Any:
    """Words to sentences to documents."""
    words = K.Input((None,), dtype="int32")
    vectors = K.layers.Embedding(WORDS, 3, mask_zero=True)(words)
    sentence = K.Model(words, K.layers.LSTM(3)(vectors))
    document = K.Input((None, None), dtype="int32")
    sentences = K.layers.TimeDistributed(sentence)(document)
    return K.Model(document, K.layers.GlobalAttentionPooling1D()(sentences))


def sensors(K: Any) -> Any:
    """Numbers whose mask comes from outside; all steps are put out."""
    x = K.Input((None, FEATURES))
    states = K.layers.LSTM(3, return_sequences=True, go_backwards=True)(x)
    return K.Model(x, K.layers.TimeDistributed(K.layers.Dense(2))(states))


def pair(K: Any) -> Any:
    """Two sequences that are as long as each other, in a dict."""
    a, b = K.Input((None, FEATURES), name="a"), K.Input((None, FEATURES), name="b")
    return K.Model({"a": a, "b": b}, {"sum": K.layers.Add()([a, b])})


# A net, what it is called on, the mask of its outputs, and some rows alone: which, and their steps.
CASES: dict[str, tuple[Any, Any, Any, Any]] = {
    "dict": (lambda K: forked(K, True), {"a": X[:3], "b": X[4:7]}, None, None),
    "mixed": (mixed, IDS, None, (slice(1, 2), slice(0, 2))),
    "documents": (documents, DOCUMENTS, None, (slice(1, 2), slice(0, 1))),
    "sensors": (sensors, Masked(SENSORS, PRESENT), TURNED, (slice(1, 3), slice(0, 7))),
    "pair": (pair, {"a": SENSORS[:, :2], "b": SENSORS[:, 1:3]}, None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_program_gives_what_the_model_predicts(case: str, tmp_path: Path) -> None:
    make, x, mask, part = CASES[case]
    with without_draws(alphorn):
        model = make(alphorn)
    model.set_weights(start(model))
    wanted = model.predict(x, verbose=0)
    program = exported(model, tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    given = [x]
    if isinstance(x, Masked):  # junk where the mask says that there is nothing
        given = [np.where(x.mask[..., None], x.data, np.nan), np.asarray(x.mask)]
    for rows in (None, part) if part else (None,):
        found = jax.jit(program.call, compiler_options=QUICK)(
            *(g[rows] if rows else g for g in given)
        )
        if mask is not None:
            found, found_mask = found
            assert (found_mask == (mask[rows] if rows else mask)).all()
        if rows:  # padding never counted: they get what they had in the batch
            wanted = wanted[rows if wanted.ndim == 3 else rows[:1]]
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        assert all(np.allclose(f, w, atol=1e-6) and f.shape == w.shape for f, w in pairs)


def test_a_program_runs_where_there_is_no_alphorn(tmp_path: Path) -> None:
    model = line(alphorn)
    model.export(tmp_path / "model.stablehlo", "stablehlo", verbose=False)
    np.save(tmp_path / "x.npy", X)
    reader = (
        "import jax, numpy as np, sys\n"
        "program = jax.export.deserialize(bytearray(open('model.stablehlo', 'rb').read()))\n"
        "np.save('y.npy', program.call(np.load('x.npy')))\n"
        "assert not any('alphorn' in name for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", reader], cwd=tmp_path, check=True)
    assert np.allclose(np.load(tmp_path / "y.npy"), model.predict(X, verbose=0), atol=1e-6)


def test_signatures_and_platforms(tmp_path: Path, capsys: Any) -> None:
    class Own(alphorn.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x: Any, scale: Any) -> Any:
            return self.dense(x) * scale

    own = Own()
    with pytest.raises(StateError, match="call it once"):
        exported(own, tmp_path / "own")
    own(X, np.ones((len(X), 1), "float32"))
    program = exported(own, tmp_path / "own", platforms=("cpu", "cuda", "tpu"))
    assert program.platforms == ("cpu", "cuda", "tpu")
    found = program.call({"x": X[:2], "scale": np.zeros((2, 1), "float32")})
    assert found.shape == (2, 2)
    assert (found == 0).all()

    model = line(alphorn)
    signatures = {
        "[4, 3]": [alphorn.InputSpec(shape=(4, FEATURES))],
        "[batch, 3]": [X, alphorn.Input((FEATURES,)), alphorn.InputSpec(shape=(None, FEATURES))],
        "[rows, 3]": [
            jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"rows, {FEATURES}"), "float32")
        ],
    }
    for shape, given in signatures.items():
        for signature in given:
            model.export(tmp_path / "m", "stablehlo", input_signature=[signature])
            assert f"call(float32{shape}) gives float32" in capsys.readouterr().out
    masked = sensors(alphorn)
    masked.export(tmp_path / "m", "stablehlo", input_signature=Masked(SENSORS, PRESENT))
    said = capsys.readouterr().out
    assert "call(float32[batch, time, 3], bool[batch, time]) gives (float32[" in said


def test_what_cannot_be_exported_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    model = line(alphorn)
    path = tmp_path / "m"
    for options, words in (
        ({}, "'tf_saved_model'[\\s\\S]*format='stablehlo'"),
        ({"format": "litert"}, "Keras's own export"),
        ({"format": "mine"}, "'mine'[\\s\\S]*model.export"),
        ({"format": "stablehlo", "input_signature": "x"}, "InputSpec"),
    ):
        with pytest.raises(ArgumentError, match=words):
            model.export(path, **options)
    with pytest.raises(UnexpectedArgumentError, match="opset_version"):
        model.export(path, "stablehlo", opset_version=3)

    x = alphorn.Input((2, FEATURES), batch_size=3)
    with without_draws(alphorn):
        kept = alphorn.Model(x, layers.SimpleRNN(2, stateful=True)(x))
    with pytest.raises(StateError, match=r"rnn_state[\s\S]*stateful=False"):
        kept.export(path, "stablehlo")
    drawing = alphorn.Model(x, layers.Dropout(0.5)(x, training=True))
    with pytest.raises(StateError, match=r"seed[\s\S]*that draws"):
        drawing.export(path, "stablehlo")

    steps = alphorn.Input((None, FEATURES))
    by_hand = alphorn.Model(steps, layers.Lambda(lambda x: x * int(x.shape[1]))(steps))
    with pytest.raises(ArgumentError, match=r"any number of steps[\s\S]*InputSpec"):
        by_hand.export(path, "stablehlo")
    program = exported(by_hand, path, input_signature=alphorn.InputSpec(shape=(None, 4, FEATURES)))
    assert np.allclose(program.call(SENSORS[:, :4]), SENSORS[:, :4] * 4)

    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ArgumentError, match=r"alphorn\[export\]"):
        model.export(path, "stablehlo")


def test_onnx_is_made_of_plain_jax_s_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a stand-in for jax2onnx, which is too large for tests: see record_onnx.py."""
    asked: dict[str, Any] = {}

    class Proto:
        def SerializeToString(self) -> bytes:
            return b"onnx"

    def to_onnx(fn: Any, inputs: Any, **options: Any) -> Proto:
        asked.update(options, fn=fn, inputs=inputs)
        if options["opset"] == 7:
            for eqn in jax.make_jaxpr(fn)(*inputs).eqns:
                if eqn.primitive.name == "dot_general":
                    raise TypeError("nobody knows")
        return Proto()

    model, path = line(alphorn), tmp_path / "model.onnx"
    with pytest.raises(ArgumentError, match=r"jax2onnx[\s\S]*alphorn\[onnx\]"):
        monkeypatch.setitem(sys.modules, "jax2onnx", None)
        model.export(path, "onnx")
    monkeypatch.setitem(sys.modules, "jax2onnx", SimpleNamespace(to_onnx=to_onnx))
    with pytest.raises(UnexpectedArgumentError, match="platforms"):
        model.export(path, "onnx", platforms="cpu")
    with pytest.raises(
        ArgumentError, match=r"`dot_general` in layers.dense: .*nobody knows[\s\S]*stablehlo"
    ):
        model.export(path, "onnx", opset_version=7)
    assert not path.exists()
    model.export(path, "onnx")
    assert path.read_bytes() == b"onnx"
    assert "call(float32[batch, 3]) gives float32[batch, 1]" in capsys.readouterr().out
    assert (asked["input_names"], asked["output_names"]) == (["input"], ["output"])
    assert np.allclose(asked["fn"](X)[0], model.predict(X, verbose=0), atol=1e-6)

    steps = alphorn.Input((None, FEATURES))
    data = Masked(SENSORS, PRESENT)
    tagger = alphorn.Model(steps, layers.Activation("tanh")(steps))
    tagger.export(path, "onnx", input_signature=data)
    assert asked["input_names"] == ["input", "mask"]
    assert asked["output_names"] == ["output", "mask"]  # as it came, so one value
    assert [str(i.shape) for i in asked["inputs"]] == ["(batch, time, 3)", "(batch, time)"]
    cut = alphorn.Model(steps, layers.Cropping1D(1)(steps))
    cut.export(path, "onnx", input_signature=data)
    assert asked["output_names"] == ["output", "output_mask"]
    forked(alphorn).export(path, "onnx")
    assert asked["input_names"] == ["input_0", "input_1"]
    forked(alphorn, names=True).export(path, "onnx")
    assert (asked["input_names"], asked["output_names"]) == (
        ["input_a", "input_b"],
        ["output_u", "output_v"],
    )
