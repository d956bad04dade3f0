"""Charts: what stands in them, that padding does not, and that they are files or show themselves."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import alphorn
from alphorn import layers, viz
from alphorn.errors import ArgumentError, ShapeError, StateError
from nets import X, Y

FIGURES = {"loss": [3.0, 2.0, 1.0, 0.5], "val_loss": [3.5, 2.5], "accuracy": [0.1, 0.2, 0.4, 0.8]}
WORDS = ["a", "good", "film"]
VECTORS = np.random.default_rng(0).normal(size=(6, 4))


def lines_of(axes) -> dict[str, tuple[list, list]]:
    return {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in axes.lines
    }


def words_of(figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts]


def test_curves_have_a_panel_for_each_figure():
    figure = viz.curves(FIGURES, title="a run")
    assert isinstance(figure, Figure) and figure.get_suptitle() == "a run"
    assert [a.get_title(loc="left") for a in figure.axes] == ["loss", "accuracy"]
    first, second = map(lines_of, figure.axes)
    assert first["training"] == ([1, 2, 3, 4], FIGURES["loss"])
    assert first["validation"] == ([2, 4], FIGURES["val_loss"])  # validation_freq=2
    assert set(second) == {"training"}
    assert [a.get_title(loc="left") for a in viz.curves(FIGURES, ["accuracy"]).axes] == ["accuracy"]
    for case in (["lo"], []):
        with pytest.raises(ArgumentError, match=r"metrics[\s\S]*some of loss, accuracy"):
            viz.curves(FIGURES, case)
    with pytest.raises(ArgumentError, match="some of none"):
        viz.curves({})


def test_curves_compare_runs():
    figure = viz.curves({"small": FIGURES, "large": {"loss": [1.0]}}, ["loss"])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines) == ["small training", "small validation", "large training"]
    assert lines["small training"].get_color() == lines["small validation"].get_color()
    assert lines["small training"].get_color() != lines["large training"].get_color()
    assert lines["small validation"].get_linestyle() == "--"


def test_a_history_draws_itself(tmp_path):
    model = alphorn.Sequential([alphorn.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(
        X, Y, epochs=5, verbose=0, validation_data=(X, Y), validation_freq=[1, 4], shuffle=False
    )
    figure = history.plot(to_file=tmp_path / "run.png")
    lines = lines_of(figure.axes[0])
    assert lines["training"] == ([1, 2, 3, 4, 5], history.history["loss"])
    assert lines["validation"] == ([1, 4], history.history["val_loss"])
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")
    history.plot(["loss"], "again", tmp_path / "run.svg")
    assert b"<svg" in (tmp_path / "run.svg").read_bytes()
    with pytest.raises(ArgumentError, match=r"a chart's file[\s\S]*\.png"):
        history.plot(to_file=tmp_path / "run.xyz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.png", "run.svg"]


def test_attention_over_padding_is_not_drawn():
    padded = np.array([0.1, 0.6, 0.3, 0.9, 0.9])
    mask = np.array([True, True, True, False, False])
    front = np.array([0.9, 0.1, 0.6, 0.3])
    for case in (
        {"weights": padded, "tokens": WORDS},
        {"weights": padded, "tokens": WORDS, "mask": mask},
        {"weights": padded, "tokens": [*WORDS, "pad", "pad"], "mask": mask},
        {"weights": alphorn.Masked(padded, mask), "tokens": WORDS},
        {"weights": front, "tokens": WORDS, "mask": front < 0.9},
        {"weights": front, "tokens": ["pad", *WORDS], "mask": front < 0.9},
    ):
        figure = viz.attention(**case)
        assert words_of(figure) == WORDS
        shades = [bar.get_alpha() for bar in figure.axes[0].patches]
        assert shades == pytest.approx([0.7 / 6, 0.7, 0.7 / 2])


def test_attention_to_parts_has_bars_and_words():
    weights = np.zeros((4, 6))
    weights[0, :3], weights[1, :2] = [0.2, 0.5, 0.3], [0.9, 0.1]
    figure = viz.attention(weights, [WORDS, ["not", "$5"]], outer=[0.75, 0.25, 0, 0], title="yes")
    assert words_of(figure) == ["yes", "0.75", *WORDS, "0.25", "not", "$5"]
    bars = [p.get_width() for p in figure.axes[0].patches if p.get_alpha() is None]
    assert bars == pytest.approx([6.0, 2.0])
    mask = np.arange(6) < np.array([[3], [1], [0], [0]])
    assert "$5" not in words_of(viz.attention(weights, [WORDS, ["not"]], mask=mask))
    long = viz.attention(np.ones(90), ["longer"] * 90)
    assert len({t.get_position()[1] for t in long.axes[0].texts}) == 7  # lines


def test_attention_between_steps_is_a_map_of_valid_ones():
    weights = np.arange(2 * 5 * 5, dtype=float).reshape(2, 5, 5)
    figure = viz.attention(weights, WORDS)
    maps = [a.images[0].get_array() for a in figure.axes[:2]]
    assert np.array_equal(maps, weights[:, :3, :3])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == WORDS
    masked = alphorn.Masked(weights[0, :4], np.array([True, False, True, True]))
    other = viz.attention(masked, WORDS, queries=["x", "-", "y", "z"])
    assert np.array_equal(other.axes[0].images[0].get_array(), weights[0, [0, 2, 3], :3])
    assert [t.get_text() for t in other.axes[0].get_yticklabels()] == ["x", "y", "z"]
    assert [t.get_text() for t in other.axes[0].get_xticklabels()] == WORDS


def test_attention_that_does_not_fit_its_tokens_is_refused():
    for weights, tokens, options, said in (
        (np.ones(2), WORDS, {}, "3 for weights of 2 steps"),
        (np.ones(3), ["a"], {"mask": np.ones(3)}, "1 for weights of 3 steps, 3 of them valid"),
        (np.ones((1, 3)), [WORDS, WORDS], {}, r"\(1, 3\) for 2 tokens or parts"),
        (np.ones((1, 1, 1, 3)), WORDS, {}, r"with heads first"),
    ):
        with pytest.raises(ShapeError, match=said):
            viz.attention(weights, tokens, **options)


def test_a_projection_keeps_the_largest_spread():
    flat = np.zeros((5, 3))
    flat[:, 1] = [0.0, 1.0, 2.0, 3.0, 10.0]
    flat[:, 2] = [0.0, 0.5, 0.0, 0.5, 0.0]
    (points,) = viz.embedding_projection(flat).axes[0].collections
    first = np.asarray(points.get_offsets())[:, 0]
    assert np.abs(np.diff(first)) == pytest.approx(np.diff(flat[:, 1]), abs=0.1)
    assert "component 1, 100% of the spread" in viz.embedding_projection(flat).axes[0].get_xlabel()
    own = viz.embedding_projection(VECTORS, method=lambda v: v[:, 1:3])
    assert np.allclose(own.axes[0].collections[0].get_offsets(), VECTORS[:, 1:3])
    assert len(viz.embedding_projection(np.ones((1, 1))).axes[0].collections) == 1


def test_vectors_of_padding_are_not_drawn():
    layer = layers.Embedding(6, 4, mask_zero=True)
    with pytest.raises(StateError, match="no vectors yet"):
        viz.embedding_projection(layer)
    layer.build((None, None))
    sequences = alphorn.Masked(
        VECTORS.reshape(2, 3, 4), np.array([[True, True, False], [True] * 3])
    )
    for case, expected in (
        ({"embedding": layer}, 5),
        ({"embedding": layer, "labels": {"a": 1, "b": 3, "rare": 99}}, 2),
        ({"embedding": sequences}, 5),
        ({"embedding": sequences, "labels": [["a", "b", "pad"], ["c", "d", "e"]]}, 5),
        ({"embedding": VECTORS, "mask": np.arange(6) < 3}, 3),
        ({"embedding": sequences.data, "mask": [True, False]}, 3),
    ):
        axes = viz.embedding_projection(**case).axes[0]
        assert len(axes.collections[0].get_offsets()) == expected, case
        assert "pad" not in [t.get_text() for t in axes.texts]


def test_labels_do_not_overlap_and_classes_have_colours():
    crowd = np.vstack([np.zeros((4, 2)), [[9.0, 9.0], [9.0, 0.0]]])
    figure = viz.embedding_projection(crowd, list("abcdef"), classes=list("xxyyzz"))
    names = [t.get_text() for t in figure.axes[0].texts]
    assert names == ["a", "b", "e", "f"]  # the first, one on either side of a point
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    colours = [c.get_facecolor()[0, :3].tolist() for c in figure.axes[0].collections]
    assert len(colours) == 3 and colours[0] != colours[1] != colours[2]
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["x", "y", "z"]
    few = viz.embedding_projection(crowd, list("abcdef"), most_labels=1)
    assert [t.get_text() for t in few.axes[0].texts] == ["a"]


def test_a_projection_names_bad_arguments():
    for case, error, said in (
        ({"labels": ["a"]}, ShapeError, r"labels[\s\S]*6, as vectors"),
        ({"classes": [1, 2]}, ShapeError, "classes"),
        ({"method": "tsne"}, ArgumentError, r"'pca' or a function"),
        ({"method": lambda v: v}, ShapeError, r"method[\s\S]*\(6, 2\)"),
        ({"mask": [True]}, ShapeError, "mask"),
        ({"mask": np.zeros(6)}, ArgumentError, "no valid vectors"),
        ({"labels": {}}, ArgumentError, "no valid vectors"),
    ):
        with pytest.raises(error, match=said):
            viz.embedding_projection(VECTORS, **case)
    with pytest.raises(ShapeError, match=r"\(\.\.\., features\)"):
        viz.embedding_projection(np.ones(3))


def test_a_missing_matplotlib_is_named_with_its_extra(monkeypatch):
    from alphorn import charts

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    charts._class.cache_clear()
    with pytest.raises(
        ImportError, match=r"a chart needs Matplotlib: pip install 'alphorn\[viz\]'"
    ):
        viz.curves(FIGURES)
