"""Vectors as points of a plane."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alphorn.charts import FAINT, INK, SERIES, finished, new_chart
from alphorn.core.masked import is_masked
from alphorn.errors import ArgumentError, ShapeError, StateError
from alphorn.layers.embedding import Embedding


def embedding_projection(
    embedding: Any,
    labels: Sequence[Any] | Mapping[str, int] | None = None,
    method: str | Callable[[np.ndarray], Any] = "pca",
    classes: Sequence[Any] | None = None,
    mask: Any = None,
    most_labels: int = 200,
    title: str = "",
    to_file: Any = None,
) -> Any:
    """Draws vectors as points of a plane, with as many of their labels as do not overlap.

    Args:
        embedding: An Embedding that is built, or vectors `(..., features)`; a Masked brings a mask.
        labels: A text for each vector; or numbers of vectors by texts, as `tokenizer.word_index`:
            then vectors without a text are not drawn.
        method: "pca", or `vectors -> (rows, 2)`, e.g. `sklearn.manifold.TSNE().fit_transform`.
        classes: What gives each vector its colour.
        mask: Valid vectors; with `mask_zero` that of an Embedding leaves out row 0.
        most_labels: How many labels there are at most, the first.
        title: Above all.
        to_file: Where to write it: `.png`, `.svg`, `.pdf`.

    Returns:
        A figure of Matplotlib; the last line of a notebook's cell shows it.

    Raises:
        StateError: an Embedding that is not built.
        ShapeError: another number of labels or classes than of vectors.
        ImportError: without the extra `viz`.

    >>> import numpy as np
    >>> figure = embedding_projection(np.eye(3), ["a", "b", "c"])
    >>> sorted(text.get_text() for text in figure.axes[0].texts)
    ['a', 'b', 'c']
    """
    vectors, valid = _vectors(embedding, mask)
    names = _names(labels, len(vectors))
    if isinstance(labels, Mapping):
        valid &= np.array([name is not None for name in names], bool)
    groups = None if classes is None else _same_length("classes", classes, len(vectors))
    if not valid.any():
        raise ArgumentError("embedding_projection", "no valid vectors", "at least one")
    points, axis_names = _projected(vectors[valid], method)
    figure, (axes,) = new_chart(7, 6)
    shown = np.flatnonzero(valid)
    for colour, group in enumerate(dict.fromkeys(groups[i] for i in shown) if groups else [None]):
        member = [groups is None or groups[i] == group for i in shown]
        axes.scatter(
            *points[member].T,
            s=16,
            color=SERIES[colour % len(SERIES)],
            alpha=0.75,
            linewidths=0,
            label=str(group),
        )
    for name, label in zip(("xlabel", "ylabel"), axis_names, strict=True):
        axes.set(**{name: label})
    axes.tick_params(labelbottom=False, labelleft=False, length=0)
    axes.margins(0.08)
    if title:
        axes.set_title(title, loc="left", color=INK)
    if groups:
        axes.legend(frameon=False, labelcolor=INK)
    if labels is not None:
        _label(figure, axes, points, [str(names[i]) for i in shown][:most_labels])
    return finished(figure, to_file)


def _vectors(embedding: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors as rows, and which of them are valid."""
    if isinstance(embedding, Embedding):
        if not embedding.built:
            raise StateError(
                f"Embedding '{embedding.name}' has no vectors yet",
                expected="a layer that is built",
                fix="call it, or its model, once on data",
            )
        found = np.asarray(embedding.embeddings)
        valid = np.arange(len(found)) > 0 if embedding.mask_zero else np.ones(len(found), bool)
    else:
        if is_masked(embedding):
            mask = embedding.mask if mask is None else mask
            embedding = embedding.data
        found = np.asarray(embedding)
        if found.ndim < 2:
            raise ShapeError("embedding_projection", f"shape {found.shape}", "(..., features)")
        valid = np.ones(found.shape[:-1], bool)
    if mask is not None:
        given = np.asarray(mask, bool)
        if given.shape != found.shape[: given.ndim]:
            raise ShapeError("embedding_projection: mask", given.shape, f"of {found.shape}")
        valid &= given.reshape(given.shape + (1,) * (valid.ndim - given.ndim))
    return found.reshape(-1, found.shape[-1]).astype("float64"), valid.reshape(-1)


def _names(labels: Any, count: int) -> list[Any]:
    if isinstance(labels, Mapping):
        names: list[Any] = [None] * count
        for name, number in labels.items():
            if 0 <= number < count:
                names[number] = name
        return names
    return [None] * count if labels is None else _same_length("labels", labels, count)


def _same_length(argument: str, values: Sequence[Any], count: int) -> list[Any]:
    found = [v for row in values for v in row] if _is_nested(values) else list(values)
    if len(found) != count:
        raise ShapeError(f"embedding_projection: {argument}", len(found), f"{count}, as vectors")
    return found


def _is_nested(values: Sequence[Any]) -> bool:
    return bool(len(values)) and isinstance(values[0], list | tuple | np.ndarray)


def _projected(vectors: np.ndarray, method: Any) -> tuple[np.ndarray, tuple[str, str]]:
    """Returns two numbers for each vector, and what they are called."""
    if callable(method):
        points = np.asarray(method(vectors))
        if points.shape != (len(vectors), 2):
            raise ShapeError("embedding_projection: method", points.shape, f"({len(vectors)}, 2)")
        return points, ("", "")
    if method != "pca":
        raise ArgumentError("embedding_projection: method", repr(method), "'pca' or a function")
    centred = vectors - vectors.mean(0)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    spread = np.pad(spread, (0, max(2 - len(spread), 0)))
    left = np.pad(left, ((0, 0), (0, max(2 - left.shape[1], 0))))
    shares = spread[:2] ** 2 / max((spread**2).sum(), 1e-300)
    first, second = (
        f"component {i + 1}, {share:.0%} of the spread" for i, share in enumerate(shares)
    )
    return left[:, :2] * spread[:2], (first, second)


def _label(figure: Any, axes: Any, points: np.ndarray, names: list[str]) -> None:
    """Writes labels beside their points, the first ones first, each where no other stands."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is placed now keeps its place
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    taken: list[Any] = []
    for point, name in zip(points, names, strict=False):
        for side, away in (("left", 4), ("right", -4)):  # of the text
            text = axes.annotate(
                name,
                point,
                xytext=(away, 3),
                textcoords="offset points",
                ha=side,
                size=8,
                color=INK,
                parse_math=False,
            )
            box = text.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
    axes.grid(color=FAINT, alpha=0.2)
