"""A picture of what a model takes for what."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

INK = "#1f2933"


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draws how often each class (rows) is taken for each (columns)."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6.6, 5.8), layout="constrained")
    axes = figure.subplots()
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
