"""Pictures of masks: what stands in them, where it stands, and that they are files of their own."""

import itertools
import re
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import pytest

import alphorn
from alphorn import layers, ops
from alphorn.errors import ArgumentError, StateError
from alphorn.viz import Picture, mask_flow
from alphorn.viz.layout import place
from alphorn.viz.style import COLOURS, FATES

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [np.ones((3, 2), "float32"), np.ones((5, 2), "float32")]


def branches():
    a = alphorn.Input((None,), dtype="int32", name="words")
    b = alphorn.Input((None, 4), name="sensors")
    h = layers.Embedding(9, 4, mask_zero=True, name="vectors")(a)
    g = layers.Conv1D(4, 3, name="windows")(layers.Masking(name="gaps")(b))
    h = layers.Attention(name="looks")([h, g])
    return alphorn.Model([a, b], ops.mean(h, axis=1), name="branches")


def nested():
    sentence = alphorn.Sequential(
        [layers.Embedding(9, 4, mask_zero=True, name="vectors"), layers.GRU(3, name="states")]
    )
    x = alphorn.Input((None, None), dtype="int32", name="documents")
    h = layers.TimeDistributed(sentence, name="each")(x)
    return alphorn.Model(x, layers.GRU(2, name="document")(h))


def parsed(picture: Picture):
    return ElementTree.fromstring(picture.svg)


def texts_of(picture: Picture) -> list[str]:
    return ["".join(t.itertext()) for t in parsed(picture).iter(f"{SVG}text")]


def boxes_of(picture: Picture) -> dict[str, tuple[float, ...]]:
    """Returns `(left, top, right, bottom)` of each box and group by its title's first line."""
    found = {}
    for group in parsed(picture).iter(f"{SVG}g"):
        title = group.find(f"{SVG}title").text.splitlines()[0]
        rect = group.find(f"{SVG}rect")
        x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        found[title] = (x, y, x + w, y + h)
    return found


def apart(a, b) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_it_says_of_each_layer_what_becomes_of_the_mask():
    texts = texts_of(mask_flow(branches()))
    for text in (
        "Masks in branches (Model)",
        "born (None, None)",
        "resampled (None, None)",
        "joined (None, None)",
        "used",
        "mask_zero: ids other than 0 are valid",
        "keys are masked; the query's mask goes on",
        "(None, None, 4)",
    ):
        assert text in texts
    assert sum(t.startswith("vectors") and "Embedding" in t for t in texts) == 1


def test_edges_show_whether_they_carry_a_mask():
    edges = [p for p in parsed(mask_flow(branches())).iter(f"{SVG}path") if p.get("marker-end")]
    masked = [e for e in edges if "masked" in e.get("class")]
    assert len(edges) == 6  # inputs 2, gaps to windows, two to attention, one to the mean
    assert len(masked) == 4
    assert {e.find(f"{SVG}title").text for e in masked} == {"carries a mask (None, None)"}


def test_boxes_lie_apart_and_edges_go_down():
    boxes = boxes_of(mask_flow(branches()))
    assert len(boxes) == 7
    assert all(apart(a, b) for a, b in itertools.combinations(boxes.values(), 2))
    tops = {name.split(" (")[0]: box[1] for name, box in boxes.items()}
    assert tops["words"] < tops["vectors"] < tops["looks"]
    assert tops["sensors"] < tops["gaps"] < tops["windows"] < tops["looks"]


def test_inner_models_stand_inside_where_wanted():
    closed, opened = mask_flow(nested()), mask_flow(nested(), expand_nested=True)
    assert not any("states" in t for t in texts_of(closed))
    boxes = {name.split(" (")[0]: box for name, box in boxes_of(opened).items()}
    outer = boxes["each"]
    for name in ("vectors", "states"):
        left, top, right, bottom = boxes[name]
        assert outer[0] < left and right < outer[2] and outer[1] < top and bottom < outer[3]
    assert apart(boxes["vectors"], boxes["states"]) and apart(outer, boxes["document"])


def test_a_model_of_one_s_own_is_drawn_from_data_or_a_shape():
    class Own(alphorn.Model):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.Dense(3, name="first"), layers.Dense(1, name="last")

        def call(self, x):
            return self.last(jnp.tanh(ops.unmask(self.first(x))))

    with pytest.raises(StateError, match=r"not known[\s\S]*give x or input_shape"):
        mask_flow(Own())
    texts = texts_of(mask_flow(Own(), x=ROWS))
    assert "born (None, None)" in texts and "it comes with the data" in texts
    assert "ended" in texts and "through code between" in texts
    texts = texts_of(mask_flow(Own(), input_shape=(None, 5, 2)))
    assert "(None, 5, 3)" in texts and "born" not in texts
    model = Own()
    model.predict(ROWS, verbose=0)
    assert "carried (None, None)" in texts_of(mask_flow(model))


def test_a_refusal_is_drawn_with_its_way_out():
    class Raw(alphorn.Layer):
        def call(self, x):
            return jnp.mean(x, axis=1)

    model = alphorn.Sequential([layers.Masking(name="m"), Raw(name="raw"), layers.Dense(1)])
    picture = mask_flow(model, x=ROWS)
    assert "refused" in texts_of(picture)
    assert "use ops.mean (padding skipped)" in " ".join(texts_of(picture))
    assert not model.layers[-1].built


def test_names_are_escaped():
    strange = '<script>alert("&")</script>\x0b'
    x = alphorn.Input((None, 2), name="x")
    model = alphorn.Model(x, layers.Masking(name=strange.replace("/", "|"))(x), name="<svg>&")
    picture = mask_flow(model)
    assert "<script" not in picture.html
    assert picture.html.count("</svg>") == 1
    assert "Masks in <svg>& (Model)" in texts_of(picture)


def test_it_needs_nothing_from_elsewhere():
    page = mask_flow(branches()).html
    assert page.startswith("<!doctype html>")
    addresses = set(re.findall(r"https?://[^\s\"']+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of the language, never fetched
    for part in ("<script", "@import", "<link", "@font-face", "src="):
        assert part not in page
    assert "prefers-color-scheme:dark" in page


def test_it_has_a_title_and_a_description_for_those_who_hear_it():
    root = parsed(mask_flow(branches()))
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
    assert "vectors (Embedding) (None, None, 4): mask born (None, None)" in description.text
    other = parsed(mask_flow(nested())).find(f"{SVG}title").get("id")
    assert other != title.get("id")  # two pictures in one notebook


def contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [0, 1])
def test_text_can_be_read(dark):
    colours = {name: pair[dark] for name, pair in COLOURS.items()}
    for ground in ("page", "box", "group"):
        for text in ("text", "quiet"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for line in ("plain", "mask"):
            assert contrast(colours[line], colours[ground]) >= 3, (line, ground)
    for name, pairs in FATES.items():
        assert contrast(*pairs[2 * dark : 2 * dark + 2]) >= 4.5, name


def test_text_stays_in_its_box():
    x = alphorn.Input((None, 2), name="x")
    long = layers.Masking(name="a_name_that_is_far_too_long_for_any_box_" * 4)
    picture = mask_flow(alphorn.Model(x, long(x)))
    assert max(b[2] - b[0] for b in boxes_of(picture).values()) <= 440
    assert any("…" in t for t in texts_of(picture))
    assert long.name in picture.svg  # whole in the title


def test_it_is_saved_whole_or_not_at_all(tmp_path):
    picture = mask_flow(branches(), to_file=tmp_path / "flow.html")
    assert (tmp_path / "flow.html").read_text("utf-8") == picture.html
    picture.save(tmp_path / "flow.svg")
    assert ElementTree.parse(tmp_path / "flow.svg").getroot().tag == f"{SVG}svg"
    picture.save(str(tmp_path / "flow.svg"))
    with pytest.raises(ArgumentError, match=r"ends with .svg, .html or .png"):
        picture.save(tmp_path / "flow.pdf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flow.html", "flow.svg"]
    assert picture._repr_html_() == picture.svg


def test_bad_arguments_are_named():
    with pytest.raises(ArgumentError, match=r"received: Dense[\s\S]*a model"):
        mask_flow(layers.Dense(2))
    with pytest.raises(ArgumentError, match="x and input_shape"):
        mask_flow(branches(), x=ROWS, input_shape=(None, 2))


def test_a_graph_of_1200_layers_is_drawn():
    x = h = alphorn.Input((None, 2))
    for i in range(720):
        h = layers.Add()([h, layers.Identity()(h)]) if i % 3 else layers.Identity()(h)
    picture = mask_flow(alphorn.Model(x, h))
    assert len(boxes_of(picture)) == 1 + 720 + 480


def test_lines_of_a_dense_graph_are_bounded():
    edges = [(s, t) for t in range(250) for s in range(t)]
    placed = place([(100, 40)] * 250, edges)
    assert sum(map(len, placed.routes)) == 2 * len(edges)
    assert len({y for _, y in placed.corners}) == 250


def test_a_layout_keeps_neighbours_together():
    placed = place([(80, 40)] * 5, [(0, 2), (1, 3), (2, 4), (3, 4)])
    middles = [x + 40 for x, _ in placed.corners]
    assert middles[0] == pytest.approx(middles[2]) and middles[1] == pytest.approx(middles[3])
    assert middles[4] == pytest.approx((middles[0] + middles[1]) / 2, abs=0.5)
    assert place([], []).width == 0
    late = place([(80, 40)] * 4, [(0, 1), (1, 2), (2, 3), (0, 3)])
    assert len(late.routes[3]) == 2 + 2 * 2  # past two layers, beside their boxes
