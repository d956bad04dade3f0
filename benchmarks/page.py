"""The page of benchmarks: a table and a picture."""

import os
import platform
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

HEAD = """# Benchmarks

Made by `python -m benchmarks --write docs`: {rounds} round(s) of {samples} rows (16 times as many for
`mlp`), {machine}, batches of {batch}; {versions}.
Sequences of 200 places are 40 % full, documents (`han`) about 20 %. Microseconds a row, medians, each
run a process of its own in turn with the others; `spread` is how far the rounds lie apart, of several.
`limit` is the arithmetic of the valid steps, three times that of prediction in training, at the rate
of a product of two 2048 x 2048 matrices on this machine in the same hour; nothing reaches it. `left
out` is the share of padding that was not computed, by cutting batches or groups of their rows;
recurrent layers skip most of what is left inside the step. Alphorn's losses are those of each row alone; Keras drops masks in
`textcnn`, PyTorch's models know none, so that theirs differ.

![Training and prediction beside Alphorn]({name}.svg)

"""
COLORS = {
    "alphorn": "#1b6ca8",
    "alphorn, grouped": "#5fb0e5",
    "keras on jax": "#d1495b",
    "keras on tensorflow": "#edae49",
    "pytorch": "#8d6a9f",
    "pytorch, packed": "#c4a8d4",
    "hand-written jax": "#4a7c59",
    "limit": "#9a9a9a",
}


def _cell(figures: dict[str, float], name: str, ours: dict[str, float]) -> str:
    if name not in figures:
        return ""
    value = f"{figures[name]:,.0f}" if figures[name] >= 100 else f"{figures[name]:.3g}"
    if figures is ours or name not in ours:
        return value
    return f"{value} ({figures[name] / ours[name]:.2f} x)"


def rows_of(results: dict[str, Any]) -> list[str]:
    """Returns the lines of the table."""
    columns = ("train_us", "predict_us", "first_s", "peak_mb")
    lines = [
        "| workload | on | train | predict | first epoch, s | peak, MB | left out | spread | loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for workload, found in results.items():
        for name, figures in found.items():
            cells = [_cell(figures, c, found["alphorn"]) for c in columns]
            shares = [f"{figures[s]:.0%}" if s in figures else "" for s in ("left_out", "spread")]
            loss = f"{figures['loss']:.3f}" if "loss" in figures else ""
            lines.append("| " + " | ".join((workload, name, *cells, *shares, loss)) + " |")
    return lines


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws how long each takes beside Alphorn."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, kind in zip(figure.subplots(2, 1), ("train_us", "predict_us"), strict=True):
        for at, found in enumerate(results.values()):
            width = 0.85 / len(found)
            for place, (name, figures) in enumerate(found.items()):
                if kind not in figures:
                    continue
                ratio = figures[kind] / found["alphorn"][kind]
                where = at + (place - len(found) / 2 + 0.5) * width
                axes.bar(where, ratio, width, color=COLORS.get(name, "#555555"))
        axes.axhline(1, color="black", linewidth=0.6)
        axes.set_yscale("log")
        axes.set_xticks(range(len(results)), list(results))
        title = "training" if kind == "train_us" else "prediction"
        axes.set(title=title, ylabel="time beside Alphorn's")
    handles = [figure.axes[0].bar(0, 0, color=color, label=name) for name, color in COLORS.items()]
    figure.legend(handles=handles, ncols=4, loc="outside lower center", frameon=False)
    figure.savefig(path, format="svg")


def write(folder: Path, results: dict[str, Any], options: Any, versions: list[str]) -> None:
    """Writes `benchmarks.md` and `benchmarks.svg`, of a GPU `benchmarks-gpu`."""
    timed = {name: found for name, found in results.items() if name != "import"}
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    name = "benchmarks"
    if jax.default_backend() != "cpu":
        machine, name = jax.devices()[0].device_kind, "benchmarks-gpu"
    told = {"rounds": options.rounds, "samples": options.samples, "batch": options.batch}
    head = HEAD.format(machine=machine, versions=", ".join(versions), name=name, **told)
    (folder / f"{name}.md").write_text(head + "\n".join(rows_of(timed)) + "\n", "utf-8")
    draw(folder / f"{name}.svg", timed)
