"""Attention as pictures: shaded text for weights of steps, maps for those between steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alphorn.charts import FAINT, INK, SERIES, finished, new_chart
from alphorn.core.masked import is_masked
from alphorn.errors import ShapeError

_LETTERS, _SIZE = 92, 8.5  # of a line; points
_LETTER = 0.602 * _SIZE / 72  # DejaVu Sans Mono's width in inches
_LINE = 0.29
_TYPE = {"family": "DejaVu Sans Mono", "size": _SIZE, "va": "center", "parse_math": False}


def attention(
    weights: Any,
    tokens: Sequence[Any],
    mask: Any = None,
    outer: Any = None,
    queries: Sequence[str] | None = None,
    title: str = "",
    to_file: Any = None,
) -> Any:
    """Draws what a model attends to. Padding is not drawn: steps that a mask calls invalid, or those after the last token.

    Args:
        weights: Of one row of a batch: `(time,)` for a text of tokens, `(parts, time)` for parts
            of tokens each, `(queries, time)` or `(heads, queries, time)` for a map.
        tokens: Words; lists of words for parts, sentences of a document for example.
        mask: Valid steps of `tokens`, as of the weights' last axis; a Masked brings its own.
        outer: Weights of the parts themselves: a bar before each.
        queries: Words of a map's other axis; by default the tokens, where there are as many.
        title: Above all.
        to_file: Where to write it: `.png`, `.svg`, `.pdf`.

    Returns:
        A figure of Matplotlib; the last line of a notebook's cell shows it.

    Raises:
        ShapeError: weights of another shape than the tokens ask for.
        ImportError: without the extra `viz`.

    >>> import numpy as np
    >>> figure = attention(np.array([0.1, 0.7, 0.2, 0.0]), ["a", "good", "film"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['a', 'good', 'film']
    """
    own = np.asarray(weights.mask) if is_masked(weights) else None
    values = np.asarray(weights.data if is_masked(weights) else weights, float)
    nested = bool(len(tokens)) and not isinstance(tokens[0], str)
    if nested or values.ndim == 1:
        parts = tokens if nested else [tokens]
        rows = values if nested else values[None]
        masks = _by_part(mask if mask is not None else own, len(parts), nested)
        _check(rows.ndim == 2 and len(rows) >= len(parts), values, tokens, "(parts, time)")
        lines = [_kept(w, t, m) for w, t, m in zip(rows, parts, masks, strict=False)]
        figure = _text(lines, outer, title)
    else:
        _check(
            values.ndim in (2, 3), values, tokens, "(time,), (queries, time) or with heads first"
        )
        figure = _maps(values, tokens, mask, own, queries)
        if title:
            figure.suptitle(title, color=INK)
    return finished(figure, to_file)


def _check(fits: bool, values: np.ndarray, tokens: Sequence[Any], expected: str) -> None:
    if not fits:
        raise ShapeError(
            "attention: weights", f"{values.shape} for {len(tokens)} tokens or parts", expected
        )


def _by_part(mask: Any, parts: int, nested: bool) -> list[Any]:
    """Returns the mask of each part's steps, None where all are valid."""
    found = None if mask is None else np.asarray(mask, bool)
    if not nested:
        return [found]
    return list(found) if found is not None and found.ndim == 2 else [None] * parts


def _places(size: int, tokens: Sequence[str], mask: Any) -> np.ndarray:
    """Returns the steps that are drawn: as many as there are tokens, or fewer."""
    if mask is None:
        places = np.arange(min(size, len(tokens)))
    else:
        places = np.flatnonzero(np.asarray(mask, bool))
    if len(tokens) > size or (len(tokens) < len(places)):
        raise ShapeError(
            "attention: tokens",
            received=f"{len(tokens)} for weights of {size} steps, {len(places)} of them valid",
            expected="a token for each step, or for each valid one",
        )
    return places


def _named(places: np.ndarray, size: int, tokens: Sequence[Any], mask: Any) -> list[Any]:
    """Returns the tokens of the steps: by their places, or one after another of the valid ones."""
    if mask is not None and len(tokens) < size:
        return list(tokens)[: len(places)]
    return [tokens[i] for i in places]


def _kept(weights: np.ndarray, tokens: Sequence[str], mask: Any) -> tuple[list[str], np.ndarray]:
    places = _places(len(weights), tokens, mask)
    return _named(places, len(weights), tokens, mask), weights[places]


# --- text


def _text(lines: list[tuple[list[str], np.ndarray]], outer: Any, title: str) -> Any:
    """Draws parts below each other, words shaded by their share of the part's largest weight."""
    bars = None if outer is None else np.asarray(outer, float).reshape(-1)
    left = 1 if bars is None else 15
    wrapped = [_wrapped(words, weights) for words, weights in lines]
    count = sum(map(len, wrapped))
    heading = 1.2 if title else 0.0
    widest = max((_end(line[-1]) for part in wrapped for line in part if line), default=1)
    across, down = left + max(widest, len(title)) + 2, count + heading + 0.4
    figure, (axes,) = new_chart(across * _LETTER, down * _LINE)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, across), ylim=(down, 0))
    axes.axis("off")
    if title:
        axes.text(left, 0.8, title, weight="bold", size=10, va="center", color=INK)
    at = heading + 0.7
    for index, part in enumerate(wrapped):
        if bars is not None:
            axes.barh(at, 8 * bars[index], height=0.45, left=1, color=SERIES[1])
            axes.text(14, at, f"{bars[index]:.2f}", size=7, va="center", ha="right", color=INK)
        for line in part:
            for x, word, shade in line:
                place = {"width": len(word) + 0.6, "left": left + x - 0.3, "height": 0.84}
                axes.barh(at, **place, color=SERIES[0], alpha=0.7 * shade)
                colour = "white" if shade > 0.8 else INK
                axes.text(left + x, at, word, color=colour, **_TYPE)
            at += 1
    return figure


def _wrapped(words: list[str], weights: np.ndarray) -> list[list[tuple[int, str, float]]]:
    """Returns lines of `(letters before, word, share of the largest weight)`."""
    top = max(float(weights.max(initial=0)), 1e-9)
    lines: list[list[tuple[int, str, float]]] = [[]]
    for word, weight in zip(words, weights, strict=True):
        at = _end(lines[-1][-1]) + 1 if lines[-1] else 0
        if lines[-1] and at + len(word) > _LETTERS:
            lines.append([])
            at = 0
        lines[-1].append((at, word, max(float(weight), 0.0) / top))
    return lines


def _end(placed: tuple[int, str, float]) -> int:
    return placed[0] + len(placed[1])


# --- maps


def _maps(
    values: np.ndarray, tokens: Sequence[str], mask: Any, own: Any, queries: Sequence[str] | None
) -> Any:
    """Draws a map for each head: queries below each other, tokens side by side."""
    heads = values if values.ndim == 3 else values[None]
    rows, size = heads.shape[1:]
    same = queries is None and rows == size
    across = _places(size, tokens, mask)
    if same:
        down, names = across, _named(across, size, tokens, mask)
    else:
        by = own if own is not None and own.shape == (rows,) else None
        given = [str(i) for i in range(rows)] if queries is None else queries
        down = _places(rows, given, by)
        names = _named(down, rows, given, by)
    columns = min(len(heads), 4)
    high = -(-len(heads) // columns)
    longest = max(map(len, [*tokens, *names]), default=1) * 0.075
    width, height = (max(0.26 * len(p), 1.2) for p in (across, down))
    figure, panels = new_chart(
        columns * (width + longest + 0.3) + 0.7, high * (height + longest + 0.5), high, columns
    )
    image = None
    top = max(float(heads[:, down][:, :, across].max(initial=0)), 1e-9)
    for axes, head in zip(panels, heads, strict=False):
        image = axes.imshow(head[np.ix_(down, across)], cmap="GnBu", vmin=0, vmax=top)
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(len(across)), _named(across, size, tokens, mask), rotation=90)
        axes.set_yticks(range(len(down)), names)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        if len(heads) > 1:
            axes.set_xlabel(f"head {panels.index(axes) + 1}", color=INK)
    for axes in panels[len(heads) :]:
        axes.remove()
    bar = figure.colorbar(image, ax=panels[: len(heads)], shrink=0.7, aspect=24)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, length=0)
    bar.ax.yaxis.label.set_color(FAINT)
    return figure
