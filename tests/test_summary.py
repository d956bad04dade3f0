"""`model.summary()`: Keras's table, and a column that says what becomes of masks."""

import re

import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from alphorn import layers, ops
from alphorn.errors import ArgumentError, MaskError, StateError
from alphorn.flow import flow_of

ROWS = [np.ones((3, 2), "float32"), np.ones((5, 2), "float32")]


def summary_of(model, **options) -> str:
    found = []
    model.summary(print_fn=found.append, **options)
    assert len(found) == 1
    return found[0]


def rows_of(text: str) -> dict[str, list[str]]:
    """Returns the cells of each layer by its name; lines of one cell joined by blanks."""
    rows, cells = {}, None
    for line in text.splitlines():
        if line.startswith(("├", "└")) and cells:
            joined = [" ".join(filter(None, parts)) for parts in cells]
            name = joined[0].removeprefix("└ ").split(" (")[0]
            rows[name], cells = joined, None
        elif line.startswith("│"):
            parts = [cell.strip() for cell in line.strip("│").split("│")]
            cells = cells or [[] for _ in parts]
            for cell, part in zip(cells, parts, strict=True):
                cell.append(part)
    return rows


def notes_of(model, **options) -> dict[str, str]:
    rows = rows_of(summary_of(model, line_length=140, **options))
    return {name: cells[2] for name, cells in rows.items()}


def reader():
    x = alphorn.Input((None,), dtype="int32", name="words")
    h = layers.Embedding(12, 4, mask_zero=True, name="vectors")(x)
    h = layers.Dropout(0.1, name="drop")(h)
    h = layers.GRU(3, return_sequences=True, name="states")(h)
    h = layers.Conv1D(3, 2, name="windows")(h)
    h = layers.GlobalAveragePooling1D(name="pool")(h)
    return alphorn.Model(x, layers.Dense(1, name="out")(h), name="reader")


class Tagger(alphorn.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(3, name="first")
        self.last = layers.Dense(1, name="last")

    def call(self, x):
        return self.last(ops.mean(self.first(x), axis=1))


def test_it_shows_where_masks_are_born_and_end():
    assert notes_of(reader()) == {
        "words": "-",
        "vectors": "born (None, None)",
        "drop": "carried (None, None)",
        "states": "carried (None, None)",
        "windows": "resampled (None, None)",
        "pool": "used",
        "out": "-",
    }


def test_ops_and_branches_have_their_rows():
    x = alphorn.Input((None, 2), name="x")
    h = layers.Masking(name="masking")(x)
    both = layers.Concatenate(name="both")([h, layers.Dense(3, name="dense")(h)])
    flat = layers.Permute((2, 1), name="turned")(both)
    mean = ops.mean(both, axis=1)
    model = alphorn.Model(x, [flat, mean])
    rows = rows_of(summary_of(model, line_length=140))
    notes = {name: cells[2] for name, cells in rows.items()}
    assert notes.pop(next(n for n in notes if n.startswith("mean"))) == "used"
    assert notes == {
        "x": "-",
        "masking": "born (None, None)",
        "dense": "carried (None, None)",
        "both": "joined (None, None)",
        "turned": "ended",
    }
    assert rows["both"][4] == "masking, dense"


def test_inner_models_show_theirs_inside():
    words = layers.Embedding(9, 4, mask_zero=True, name="vectors")
    sentence = alphorn.Sequential([words, layers.GRU(3, name="sentence_state")], name="sentence")
    x = alphorn.Input((None, None), dtype="int32", name="documents")
    h = layers.TimeDistributed(sentence, name="each")(x)
    inner = alphorn.Sequential([alphorn.Input((None, 3)), layers.Dense(2, name="inside")], name="i")
    model = alphorn.Model(x, layers.GRU(2, name="document")(inner(h)))
    assert "vectors" not in notes_of(model)
    notes = notes_of(model, expand_nested=True)
    assert notes["each"] == notes["vectors"] == "born (None, None)"
    assert notes["sentence_state"] == notes["document"] == "used"
    assert notes["i"] == notes["inside"] == "carried (None, None)"  # born outside, carried inside
    assert "   └ vectors (Embedding)" in summary_of(model, expand_nested=True, line_length=140)


def test_a_model_of_one_s_own_shows_them_after_a_call():
    model = Tagger()
    assert "Mask" not in summary_of(model)
    assert "Masks are not shown: call the model once on data" in summary_of(model, masks=True)
    with pytest.raises(StateError, match="inputs are not known"):
        flow_of(model)
    model.predict(ROWS, verbose=0)
    before = model.get_weights()
    notes = notes_of(model)
    assert notes == {"first": "carried (None, None)", "mean": "used", "last": "-"}
    assert rows_of(summary_of(model))["first"][1] == "(None, None, 3)"
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_lists_of_unequal_rows_bring_a_mask_to_any_model():
    model = alphorn.Sequential([layers.Dense(3, name="dense"), layers.GRU(2, name="gru")])
    model.predict(np.ones((2, 4, 2)), verbose=0)
    assert "Mask" not in summary_of(model)
    model.predict(ROWS, verbose=0)
    assert notes_of(model) == {"dense": "carried (None, None)", "gru": "used"}
    model.predict(np.ones((2, 4, 2)), verbose=0)
    assert notes_of(model)["gru"] == "used"


def test_several_inputs_each_have_their_mask():
    a = alphorn.Input((None,), dtype="int32", name="a")
    b = alphorn.Input((None, 4), name="b")
    h = layers.Embedding(9, 4, mask_zero=True, name="vectors")(a)
    h = layers.Attention(name="attention")([h, layers.Masking(name="masking")(b)])
    notes = notes_of(alphorn.Model([a, b], h))
    assert notes["vectors"] == notes["masking"] == "born (None, None)"
    assert notes["attention"] == "joined (None, None)"


def test_inputs_by_name_keep_their_names():
    b, a = alphorn.Input((None, 2), name="b"), alphorn.Input((3,), name="a")
    h = layers.Concatenate(name="both")([layers.GRU(2, name="gru")(b), a])
    model = alphorn.Model([b, a], h)
    model.predict({"a": np.ones((2, 3)), "b": ROWS}, verbose=0)
    notes = notes_of(model)
    assert (notes["a"], notes["b"], notes["gru"]) == ("-", "born (None, None)", "used")


def test_a_mask_that_is_refused_or_dropped_on_the_way_is_named():
    class Raw(Tagger):
        def call(self, x):
            return self.last(jnp.mean(self.first(x), axis=1))

    class Dropped(Tagger):
        def call(self, x):
            return self.last(jnp.mean(alphorn.unmask(self.first(x)), axis=1))

    class Escaped(Tagger):
        def call(self, x):
            return self.last(jnp.mean(self.first(x).data, axis=1))

    model = Raw()
    with pytest.raises(MaskError):
        model.predict(ROWS, verbose=0)
    text = summary_of(model, line_length=140)
    assert "Mask refused in Raw 'call': jnp.mean would lose the mask of a (None, None, 3)" in text
    model = Dropped()
    model.predict(ROWS, verbose=0)
    assert notes_of(model) == {"first": "carried (None, None)", "unmask": "ended", "last": "-"}
    model = Escaped()
    model.predict(ROWS, verbose=0)
    assert notes_of(model) == {"first": "carried (None, None)", "last": "ended"}


def test_what_cannot_run_on_shapes_alone_still_has_a_table():
    class OnNumbers(Tagger):
        def call(self, x):
            return self.last(self.first(x) * float(np.asarray(x).max()))

    model = OnNumbers()
    model(np.ones((2, 2), "float32"))
    assert "Total params: 13" in summary_of(model)
    assert "Masks are not shown: TracerArrayConversionError" in summary_of(model, masks=True)


def test_masks_may_be_left_out_or_always_in():
    plain = alphorn.Sequential([alphorn.Input((4,)), layers.Dense(3)])
    assert "Mask" not in summary_of(plain)
    assert "Mask" in summary_of(plain, masks=True)
    assert "Mask" not in summary_of(reader(), masks=False)


def nets(library):
    x = library.Input((4,), name="x")
    h = library.layers.Dense(3, name="a")(x)
    sequential = [
        library.Input((4,)),
        library.layers.Dense(3, name="b"),
        library.layers.ReLU(name="r"),
    ]
    inner = library.Sequential(sequential, name="inner")
    out = library.layers.Add(name="sum")([h, inner(x)])
    model = library.Model(x, out, name="net")
    model.get_layer("a").trainable = False
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"expand_nested": True, "show_trainable": True},
        {"layer_range": ["a", "in"]},
    ],
    ids=str,
)
def test_without_masks_it_is_keras_s(options, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # Keras cuts at the screen's width
    ours = summary_of(nets(alphorn), line_length=120, **options)
    theirs = summary_of(nets(keras), line_length=120, **options)
    rows, wanted = rows_of(ours), rows_of(theirs)
    assert list(rows) == list(wanted)
    for name, cells in rows.items():
        peer = [re.sub(r"\[\d+\]\[\d+\]", "", c) for c in wanted[name]]
        if name in ("b", "r"):  # Keras does not say what stands before a layer inside
            cells, peer = [[c for i, c in enumerate(r) if i != 3] for r in (cells, peer)]
        assert cells == peer
    totals = [[x.strip() for x in t.splitlines() if "params" in x] for t in (ours, theirs)]
    assert totals[0] == totals[1]


def test_what_an_optimizer_holds_is_counted_as_in_keras():
    found = []
    for library in (alphorn, keras):
        model = nets(library)
        model.compile("adam", "mse")
        model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
        text = summary_of(model)
        found.append([re.sub(r" \(.*", "", x.strip()) for x in text.splitlines() if "params" in x])
    assert found[0] == found[1]
    assert found[0][-1].startswith("Optimizer params: 3")


def test_it_takes_a_width_positions_and_a_range(capsys):
    model = reader()
    lines = summary_of(model, line_length=60).splitlines()
    assert max(map(len, lines)) == 60
    lines = summary_of(model, line_length=100, positions=[0.4, 0.6, 0.8, 0.9, 1.0]).splitlines()
    edges = [i for i, c in enumerate(next(x for x in lines if x.startswith("┏"))) if c in "┳┓"]
    assert max(map(len, lines)) == 100
    assert edges[:3] == [39, 59, 79]
    rows = rows_of(summary_of(model, layer_range=("drop", "windows"), line_length=100))
    assert list(rows) == ["drop", "states", "windows"]
    with pytest.raises(ArgumentError, match=r"layer_range[\s\S]*'nowhere'[\s\S]*vectors"):
        model.summary(layer_range=("nowhere", "out"))
    with pytest.raises(ArgumentError, match="two names"):
        model.summary(layer_range="drop")
    with pytest.raises(ArgumentError, match="numbers that grow"):
        model.summary(positions=[0.5, 0.3, 1.0])
    model.summary()
    assert 'Model: "reader"' in capsys.readouterr().out


def test_what_is_not_built_says_so():
    assert "0 (unbuilt)" in summary_of(alphorn.Sequential([layers.Dense(2)]))
    model = Tagger()
    assert "0 (unbuilt)" in summary_of(model)
    model(np.ones((2, 3, 2), "float32"))
    assert "Total params: 13 (52.00 B)" in summary_of(model)


def test_a_shared_layer_and_a_long_chain():
    x = alphorn.Input((None, 2), name="x")
    shared = layers.Dense(2, name="shared")
    h = shared(layers.Masking(name="masking")(x))
    model = alphorn.Model(x, layers.Subtract(name="less")([h, shared(x)]))
    assert notes_of(model)["shared"] == "carried (None, None)"
    h = x
    for _ in range(300):
        h = layers.Identity()(h)
    assert len(flow_of(alphorn.Model(x, h)).children) == 301
