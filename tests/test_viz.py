"""Pictures of masks: what they say, that they are well formed, and that they stand by themselves."""

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest

import alphorn
from alphorn import ops
from alphorn.errors import ArgumentError, StateError
from alphorn.layers import (
    GRU,
    Add,
    Concatenate,
    Conv1D,
    Dense,
    Embedding,
    GlobalMaxPooling1D,
    Identity,
    Lambda,
    Masking,
    TimeDistributed,
)
from alphorn.viz import mask_flow
from alphorn.viz.layout import place
from alphorn.viz.style import COLOURS, FATES

SVG = "{http://www.w3.org/2000/svg}"


def text_model():
    return alphorn.Sequential(
        [Embedding(9, 4, mask_zero=True), Conv1D(3, 3, strides=2), GRU(2), Dense(1)], name="text"
    )


def two_branches():
    sensor, ids = alphorn.Input((None, 4), name="sensor"), alphorn.Input((None,), name="ids")
    h = Concatenate()([Masking()(sensor), Embedding(9, 4, mask_zero=True)(ids)]) * 2.0
    return alphorn.Model([sensor, ids], [Dense(2)(h), GlobalMaxPooling1D()(h)], name="two")


def document_model():
    words = alphorn.Input((None,), dtype="int32")
    inner = alphorn.Model(words, GRU(2)(Embedding(9, 3, mask_zero=True)(words)), name="inner")
    document = alphorn.Input((None, None), dtype="int32")
    return alphorn.Model(document, GRU(2)(TimeDistributed(inner, name="each")(document)))


def parts(picture):
    root = ElementTree.fromstring(picture.svg)
    badges = [
        "".join(t.itertext()) for t in root.iter(f"{SVG}text") if "badge" in t.get("class", "")
    ]
    names = [t.text for t in root.iter(f"{SVG}tspan") if t.get("class") == "name"]
    edges = [
        e.get("class") for e in root.iter(f"{SVG}path") if e.get("class", "").startswith("edge")
    ]
    return root, names, badges, edges


def test_a_picture_says_what_becomes_of_the_mask():
    picture = mask_flow(text_model(), input_shape=(None, None))
    _, names, badges, edges = parts(picture)
    assert names == ["input_layer", "embedding", "conv1d", "gru", "dense"]
    assert badges[-3:] == ["born (None, None)", "resampled (None, None)", "used"]
    assert edges[-4:] == ["edge", "edge masked", "edge masked", "edge"]
    for line in ("mask_zero: ids other than 0 are valid", "time is gone"):
        assert line in picture.svg


def test_branches_join():
    _, names, badges, _ = parts(mask_flow(two_branches()))
    assert {"sensor", "ids", "concatenate", "multiply"} <= set(names)
    assert {"joined (None, None)", "carried (None, None)", "used"} <= set(badges)


def test_inner_models_are_drawn_inside_where_wanted():
    closed, opened = (mask_flow(document_model(), expand_nested=e) for e in (False, True))
    assert [n.split("_")[0] for n in parts(closed)[1]] == ["input", "each", "gru"]
    assert [n.split("_")[0] for n in parts(opened)[1]] == "input each embedding gru gru".split()
    assert "group" in opened.svg
    assert parts(closed)[2][-2:] == ["born (None, None)", "used"]


def test_data_tell_the_shapes_of_a_model_of_ones_own():
    class Own(alphorn.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.gru = Embedding(9, 4, mask_zero=True), GRU(3)

        def call(self, x):
            return self.gru(self.embedding(x))

    with pytest.raises(StateError, match="call it once on data"):
        mask_flow(Own())
    picture = mask_flow(Own(), x=[[1, 2], [3]])
    assert [n.split("_")[0] for n in parts(picture)[1]] == ["input", "embedding", "gru"]


def test_names_are_escaped():
    model = alphorn.Sequential([alphorn.Input((3,)), Dense(1, name="a<b&'c\"")], name="<script>")
    picture = mask_flow(model)
    assert "<script" not in picture.svg
    assert "a<b&'c\"" in parts(picture)[1]


def test_the_page_stands_by_itself(tmp_path):
    picture = mask_flow(text_model(), tmp_path / "m.html", input_shape=(None, None))
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert page == picture.html
    assert picture.svg in page
    assert not re.search(r"(src|href)=|@import|<script|url\((?!#)", page)
    assert "prefers-color-scheme:dark" in page
    assert picture._repr_html_() == picture.svg
    picture.save(tmp_path / "m.svg")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["m.html", "m.svg"]
    with pytest.raises(ArgumentError, match=r"\.html or \.svg"):
        picture.save(tmp_path / "m.png")


def test_bad_input_is_named():
    with pytest.raises(ArgumentError, match="mask_flow: model"):
        mask_flow(Dense(1))
    with pytest.raises(ArgumentError, match="one of them"):
        mask_flow(text_model(), x=np.ones((1, 2)), input_shape=(None, None))


def test_nothing_is_computed_and_nothing_changes():
    model = document_model()
    before = model.get_weights()
    mask_flow(model)
    for a, b in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_a_long_graph_is_drawn():
    x = alphorn.Input((None, 2))
    h = Masking()(x)
    for i in range(300):
        h = Identity(name=f"i{i}")(h)
    root, names, _, _ = parts(mask_flow(alphorn.Model(x, Add()([h, Lambda(ops.tanh)(h)]))))
    assert len(names) == 304
    assert float(root.get("height")) > 300 * 50


def test_boxes_do_not_overlap_and_edges_go_down():
    random = np.random.default_rng(0)
    sizes = [(float(w), float(h)) for w, h in random.uniform(40, 200, (40, 2))]
    edges = [(int(random.integers(0, i)), i) for i in range(1, 40) for _ in range(2)]
    placed = place(sizes, edges)
    for i, j in combinations(range(40), 2):
        (ax, ay), (bx, by) = placed.corners[i], placed.corners[j]
        apart = ax + sizes[i][0] <= bx + 1e-6 or bx + sizes[j][0] <= ax + 1e-6
        assert apart or ay + sizes[i][1] <= by + 1e-6 or by + sizes[j][1] <= ay + 1e-6
    for (source, target), route in zip(edges, placed.routes, strict=True):
        assert placed.corners[source][1] + sizes[source][1] <= placed.corners[target][1]
        assert [y for _, y in route] == sorted(y for _, y in route)
    assert min(x for x, _ in placed.corners) >= -1e-6


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(dark):
    grounds = [COLOURS[name][dark] for name in ("page", "box", "group")]
    pairs = [(COLOURS[name][dark], ground) for name in ("text", "quiet") for ground in grounds]
    pairs += [tuple(colours[2 * dark : 2 * dark + 2]) for colours in FATES.values()]
    assert min(contrast(a, b) for a, b in pairs) >= 4.5
