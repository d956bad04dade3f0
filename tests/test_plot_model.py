"""plot_model and model_to_dot: what boxes say, where edges lead, and what files they become."""

import io
import itertools
from xml.etree import ElementTree

import numpy as np
import pydot
import pytest
from PIL import Image

import alphorn
from alphorn import layers, ops
from alphorn.errors import ArgumentError, StateError, UnexpectedArgumentError
from alphorn.utils import model_to_dot, plot_model
from alphorn.viz import Picture
from alphorn.viz.style import COLOURS
from test_viz import SVG, apart, boxes_of, nested, texts_of


def classifier():
    return alphorn.Sequential(
        [
            alphorn.Input((None,), dtype="int32", name="words"),
            layers.Embedding(9, 4, mask_zero=True, name="vectors"),
            layers.TimeDistributed(layers.Dense(6), name="reader"),
            layers.GlobalMaxPooling1D(name="some"),
            layers.Dense(1, activation="sigmoid", name="says", trainable=False),
        ],
        name="classifier",
    )


def siamese():
    x = alphorn.Input((4,), name="x")
    encoder = alphorn.Model(x, layers.Dense(2, name="dense")(x), name="encoder")
    a, b = alphorn.Input((4,), name="a"), alphorn.Input((4,), name="b")
    h = layers.Subtract(name="less")([encoder(a), encoder(b)])
    return alphorn.Model([a, b], h, name="siamese")


def picture(model, **options) -> Picture:
    return plot_model(model, to_file=None, **options)


def test_boxes_say_what_is_asked():
    model = classifier()
    plain = texts_of(picture(model, show_masks=False))
    assert plain == [
        "InputLayer",
        "Embedding",
        "TimeDistributed(Dense)",
        "GlobalMaxPooling1D",
        "Dense",
    ]
    for case, expected in (
        ({"show_layer_names": True}, "saysDense"),
        ({"show_shapes": True}, "(None, None, 6) → (None, 6)"),
        ({"show_dtype": True}, "int32"),
        ({"show_layer_activations": True}, "sigmoid"),
        ({"show_trainable": True}, "not trainable"),
        ({"show_dtype": True, "show_trainable": True}, "float32 · trainable"),
        ({}, "born (None, None)"),
    ):
        assert expected not in plain
        assert expected in texts_of(picture(model, **case)), case
    assert "mask_zero: ids other than 0 are valid" not in texts_of(picture(model))


@pytest.mark.parametrize(
    "rankdir, axis, sign", [("TB", 1, 1), ("BT", 1, -1), ("LR", 0, 1), ("RL", 0, -1)]
)
def test_edges_lead_where_they_are_told(rankdir, axis, sign):
    shown = {"show_layer_names": True, "show_shapes": True, "expand_nested": True}
    drawn = picture(nested(), rankdir=rankdir, **shown)
    boxes = {name.split(" (")[0]: box for name, box in boxes_of(drawn).items()}
    ways = [["documents", "each", "document"], ["documents", "vectors", "states"]]
    for way in ways:
        places = [boxes[n][axis] * sign for n in way]
        assert places == sorted(places)
    outer = boxes["each"]
    for name in ("vectors", "states"):
        box = boxes[name]
        assert outer[0] < box[0] and outer[1] < box[1] and box[2] < outer[2] and box[3] < outer[3]
    root = ElementTree.fromstring(drawn.svg)
    width, height = float(root.get("width")), float(root.get("height"))
    assert all(min(b) > 0 and b[2] < width and b[3] < height for b in boxes.values())
    # Each edge ends at the side of a box, in the middle or beside other edges.
    for path in root.iter(f"{SVG}path"):
        if path.get("marker-end"):
            end = [float(v) for v in path.get("d").replace("L", " ").split()[-2:]]
            side = {"TB": 1, "BT": 3, "LR": 0, "RL": 2}[rankdir]
            assert any(abs(end[axis] - b[side]) < 0.2 for b in boxes.values())


def test_a_shared_layer_is_marked_at_each_of_its_calls():
    drawn = picture(siamese(), show_layer_names=True)
    assert texts_of(drawn).count("encoderModel, shared") == 2
    opened = picture(siamese(), expand_nested=True)
    assert texts_of(opened).count("Dense, shared") == 2
    boxes = [b for n, b in boxes_of(drawn).items() if not n.startswith("encoder")]
    assert all(apart(a, b) for a, b in itertools.combinations(boxes, 2))


def test_lines_that_go_sideways_lie_apart():
    a, b = (alphorn.Input((2,), name=n) for n in "ab")
    outs = [layers.Add(name=f"add{i}")([a, b]) for i in range(3)]
    drawn = picture(alphorn.Model([a, b], outs))
    heights = {}
    for path in ElementTree.fromstring(drawn.svg).iter(f"{SVG}path"):
        if path.get("marker-end") and "Q" in path.get("d"):
            start = path.get("d").split("L")[0]
            heights.setdefault(start, set()).add(path.get("d").split("Q")[1].split()[1])
    assert len(heights) == 2  # two sources
    assert not set.intersection(*heights.values())
    assert "C" in picture(alphorn.Model([a, b], outs), splines="curved").svg.split("<path")[4]
    straight = picture(alphorn.Model([a, b], outs), splines="line").svg
    assert "Q" not in straight.split("</style>")[1]


def test_a_part_of_a_model_is_drawn_by_keras_2_s_range():
    drawn = picture(classifier(), show_layer_names=True, layer_range=("vectors", "some"))
    assert [n.split(" (")[0] for n in boxes_of(drawn)] == ["vectors", "reader", "some"]
    assert drawn.svg.count("marker-end=") == 2
    assert len(model_to_dot(classifier(), layer_range=["reader", "some"]).get_edges()) == 1
    with pytest.raises(
        ArgumentError, match=r"plot_model: layer_range[\s\S]*names of layers: words"
    ):
        picture(classifier(), layer_range=("none", "some"))


def test_a_model_of_one_s_own_is_drawn_as_it_was_called():
    class Own(alphorn.Model):
        def __init__(self):
            super().__init__(name="own")
            self.first, self.last = layers.Dense(2, name="first"), layers.Dense(2, name="last")

        def call(self, x):
            return self.last(self.first(x) + 1.0) + x

    model = Own()
    with pytest.raises(StateError, match=r"the way through Own[\s\S]*call it once"):
        picture(model)
    model(np.ones((1, 2), "float32"))
    assert {n.split(" (")[0] for n in boxes_of(picture(model))} == {"input", "first", "last"}
    assert len(model_to_dot(model).get_nodes()) == 3


def test_files_by_their_endings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = plot_model(siamese())
    assert (tmp_path / "model.png").read_bytes() == drawn.png == drawn._repr_png_()
    small = plot_model(siamese(), "small.PNG", dpi=96)
    width, large = (Image.open(io.BytesIO(p.png)).size[0] for p in (small, drawn))
    assert (tmp_path / "small.PNG").read_bytes() == small.png
    assert abs(width - float(ElementTree.fromstring(small.svg).get("width"))) <= 1
    assert abs(width * 200 / 96 - large) <= 2
    plot_model(siamese(), tmp_path / "model.svg")
    plot_model(siamese(), tmp_path / "model.html")
    assert (tmp_path / "model.svg").read_text("utf-8") == drawn._repr_svg_() == drawn._repr_html_()
    assert drawn.svg in (tmp_path / "model.html").read_text("utf-8")
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(ArgumentError, match=r"ends with \.svg, \.html or \.png"):
        plot_model(siamese(), "model.gif")


def test_a_png_has_its_colours_and_text():
    model = classifier()
    pixels = np.asarray(Image.open(io.BytesIO(picture(model, dpi=96).png))).reshape(-1, 4)
    colours, numbers = np.unique(pixels[pixels[:, 3] == 255], axis=0, return_counts=True)
    counted = {tuple(c[:3]): n for c, n in zip(colours.tolist(), numbers, strict=True)}

    def count(colour: str) -> int:
        return counted.get(tuple(bytes.fromhex(colour[1:])), 0)

    assert count(COLOURS["page"][0]) > 10_000 and count(COLOURS["box"][0]) > 10_000
    assert count("#15803d") > 1_000  # the badge of a mask that is born
    assert count(COLOURS["text"][0]) > 200  # letters
    assert count("#000000") == 0  # what a renderer paints where it does not know a colour


def test_a_png_that_would_be_too_large_is_made_smaller(monkeypatch):
    monkeypatch.setattr("alphorn.viz.picture.MOST_PIXELS", 40_000)
    with pytest.warns(UserWarning, match=r"200 dots per inch would have over 40,000 pixels"):
        width, height = Image.open(io.BytesIO(picture(siamese()).png)).size
    assert 39_000 < width * height < 41_000


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    import sys

    drawn = picture(siamese())
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(ImportError, match=r"pip install 'alphorn\[viz\]'"):
        drawn.png  # noqa: B018
    assert drawn._repr_png_() is None
    with pytest.raises(ImportError, match=r"model_to_dot needs pydot: .*alphorn\[viz\]"):
        model_to_dot(siamese())


def test_bad_arguments_are_named():
    for function in (picture, model_to_dot):
        with pytest.raises(ArgumentError, match=r"rankdir[\s\S]*one of TB, LR, BT, RL"):
            function(siamese(), rankdir="up")
        with pytest.raises(ArgumentError, match=r"model[\s\S]*received: Dense"):
            function(layers.Dense(2))
        with pytest.raises(UnexpectedArgumentError, match="colour"):
            function(siamese(), colour=True)
    with pytest.raises(ArgumentError, match="splines"):
        picture(siamese(), splines="wavy")


def ids(*found) -> set[str]:
    return {str(id(layer)) for layer in found}


@pytest.mark.filterwarnings("ignore:'.*' deprecated - use:DeprecationWarning")  # pydot's own
def test_a_graph_of_pydot_has_a_node_for_each_layer():
    model = siamese()
    dot = model_to_dot(model, show_shapes=True, rankdir="LR", dpi=70, splines="line")
    assert isinstance(dot, pydot.Dot)
    assert (dot.get("rankdir"), dot.get("dpi"), dot.get("splines")) == ("LR", 70, "line")
    assert {n.get_name() for n in dot.get_nodes()} == ids(*model.layers)
    a, b, encoder, less = (model.get_layer(n) for n in ("a", "b", "encoder", "less"))
    edges = {(e.get_source(), e.get_destination()) for e in dot.get_edges()}
    pairs = [(a, encoder), (b, encoder), (encoder, less)]
    assert edges == {(str(id(s)), str(id(t))) for s, t in pairs}
    assert "(None, 2), (None, 2) → (None, 2)" in dot.to_string()
    # What is written can be read.
    again = pydot.graph_from_dot_data(dot.to_string())[0]
    assert len(again.get_edges()) == 3


def test_inner_models_are_clusters_of_pydot():
    model = siamese()
    dot = model_to_dot(model, expand_nested=True)
    encoder = model.get_layer("encoder")
    (cluster,) = dot.get_subgraphs()
    assert cluster.get_name() == f"cluster_{id(encoder)}"
    dense = encoder.get_layer("dense")
    assert {n.get_name() for n in cluster.get_nodes()} == ids(dense)
    edges = {(e.get_source(), e.get_destination()) for e in dot.get_edges()}
    a, b, less = (model.get_layer(n) for n in ("a", "b", "less"))
    assert edges == {(str(id(s)), str(id(t))) for s, t in [(a, dense), (b, dense), (dense, less)]}
    part = model_to_dot(model, subgraph=True)
    assert isinstance(part, pydot.Cluster)


@pytest.mark.filterwarnings("ignore:'.*' deprecated - use:DeprecationWarning")  # pydot's own
def test_a_graph_of_pydot_shows_masks_and_escapes_names():
    x = alphorn.Input((None, 2), name="x")
    model = alphorn.Model(x, ops.mean(layers.Masking(name='<b>"&')(x), axis=1), name="a{b}")
    text = model_to_dot(model).to_string()
    assert "&lt;b&gt;&quot;&amp;" in text and "born (None, None)" in text
    assert text.count("penwidth") == 1
    assert "born" not in model_to_dot(model, show_masks=False).to_string()
    assert len(pydot.graph_from_dot_data(text)[0].get_nodes()) == 3
