"""Pictures and pages of what a model learned."""

import html
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INK, FAINT, FIRST, SECOND = "#1f2933", "#9aa5b1", "#0b7285", "#e8590c"


def _bare(axes: plt.Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK)


def plot_history(history: dict[str, list[float]], path: Path) -> None:
    """Draws loss and accuracy by epoch, in training and validation."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
        epochs = np.arange(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], color=FIRST, marker="o", label="training")
        axes.plot(epochs, history[f"val_{name}"], color=SECOND, marker="o", label="validation")
        axes.set_xlabel("epoch")
        axes.set_title(name, loc="left", color=INK)
        axes.set_xticks(epochs)
        _bare(axes)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draws how often each class (rows) is taken for each (columns)."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(6.6, 5.8), constrained_layout=True)
    axes.imshow(shares, cmap="GnBu", vmin=0, vmax=1)
    for i in range(len(names)):
        for j in range(len(names)):
            if matrix[i, j]:
                color = "white" if shares[i, j] > 0.55 else INK
                axes.text(j, i, int(matrix[i, j]), ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def attention_page(
    words: Sequence[Sequence[str]],
    sentence_weights: np.ndarray,
    word_weights: Sequence[np.ndarray],
    title: str,
    path: Path,
) -> None:
    """Writes one document as a page: bars for sentences, colours for words."""
    rows = []
    for sentence, weight, inner in zip(words, sentence_weights, word_weights, strict=True):
        top = max(float(np.max(inner, initial=0)), 1e-9)
        spans = " ".join(
            f'<span style="background:rgba(11,114,133,{0.75 * float(v) / top * min(1, weight * 3 + 0.15):.2f})"'
            f' title="{float(v):.3f}">{html.escape(w)}</span>'
            for w, v in zip(sentence, inner, strict=False)
        )
        bar = f'<div class="bar" style="width:{100 * float(weight):.0f}%"></div>'
        rows.append(
            f'<tr><td class="weight">{bar}<small>{float(weight):.2f}</small></td><td>{spans}</td></tr>'
        )
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>
body {{ font: 17px/1.7 Georgia, serif; color: {INK}; max-width: 56rem; margin: 2.5rem auto; }}
h1 {{ font-size: 1.25rem; }} td {{ vertical-align: top; padding: .15rem .6rem; }}
.weight {{ width: 8rem; }} .bar {{ background: {SECOND}; height: .55rem; min-width: 2px; }}
small {{ color: #52606d; }} span {{ border-radius: .25rem; padding: .05rem .15rem; }}
</style><h1>{html.escape(title)}</h1>
<p><small>Bars: attention to each sentence. Colour: attention to each word.</small></p>
<table>{"".join(rows)}</table></html>"""
    path.write_text(page, encoding="utf-8")


def attention_picture(
    words: Sequence[Sequence[str]],
    sentence_weights: np.ndarray,
    word_weights: Sequence[np.ndarray],
    title: str,
    path: Path,
    width: int = 92,
) -> None:
    """Draws the same document as a picture."""
    lines: list[tuple[float | None, list[tuple[str, float]]]] = []
    for sentence, weight, inner in zip(words, sentence_weights, word_weights, strict=True):
        top = max(float(np.max(inner, initial=0)), 1e-9)
        line: list[tuple[str, float]] = []
        first, used = True, 0
        for word, value in zip(sentence, inner, strict=False):
            if used + len(word) + 1 > width and line:
                lines.append((weight if first else None, line))
                line, used, first = [], 0, False
            line.append((word, float(value) / top))
            used += len(word) + 1
        lines.append((weight if first else None, line))
    figure = plt.figure(figsize=(11, 0.32 * len(lines) + 0.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width + 16)
    axes.set_ylim(-len(lines) - 0.4, 2)
    axes.axis("off")
    axes.text(1, 0.9, title, weight="bold", size=12, color=INK)
    for i, (weight, line) in enumerate(lines):
        if weight is not None:
            axes.barh(-i, 10 * float(weight), height=0.45, left=1, color=SECOND)
            axes.text(12, -i, f"{float(weight):.2f}", va="center", ha="center", size=7, color=FAINT)
        x = 14.5
        for word, value in line:
            axes.add_patch(
                plt.Rectangle(
                    (x - 0.25, -i - 0.4),
                    len(word) + 0.5,
                    0.8,
                    color=FIRST,
                    alpha=0.65 * value,
                    lw=0,
                )
            )
            axes.text(x, -i, word, family="monospace", size=8.5, va="center", color=INK)
            x += len(word) + 1
    figure.savefig(path, dpi=150)
    plt.close(figure)
