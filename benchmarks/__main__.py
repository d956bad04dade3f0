"""Runs every workload on Alphorn and its peers in turn and prints medians and ratios.

    python -m benchmarks [--rounds 3] [--only lstm,mlp]

Each run is a process of its own, one after another, so that a drift of the machine's speed meets
all alike. Nothing else should run meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

WORKLOADS = ("import", "mlp", "lstm", "gru", "bilstm", "tagger", "han", "textcnn", "transformer")
FIGURES = ("import_s", "first_s", "train_us", "predict_us", "peak_mb", "loss")


def run(*arguments: str) -> dict[str, float]:
    """Returns the figures that a process of its own prints."""
    # Compiled programs of earlier runs would hide what a first epoch costs.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false", "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peers(workload: str) -> dict[str, tuple[str, ...]]:
    """Returns the commands that are measured beside each other."""
    found = {m: ("benchmarks.workloads", m, workload) for m in ("alphorn", "keras")}
    return found | ({"hand-written": ("benchmarks.limit",)} if workload == "mlp" else {})


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    options = parser.parse_args()
    table = Table(title=f"medians of {options.rounds} rounds; x: beside alphorn, above 1 is slower")
    for column in ("workload", "module", *FIGURES):
        table.add_column(column, justify="left" if column in ("workload", "module") else "right")
    for workload in options.only.split(","):
        rows: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for name, command in peers(workload).items():
                rows.setdefault(name, []).append(run(*command))
        add(table, workload, rows)
    Console(width=150).print(table)


def add(table: Table, workload: str, rows: dict[str, Any]) -> None:
    """Adds the medians of one workload."""
    medians = {
        name: {f: statistics.median(r[f] for r in found) for f in FIGURES if f in found[0]}
        for name, found in rows.items()
    }
    ours = medians["alphorn"]
    for name, figures in medians.items():
        cells = []
        for f in FIGURES:
            if f not in figures:
                cells.append("-")
                continue
            ratio = f" x{figures[f] / ours[f]:.2f}" if name != "alphorn" and f != "loss" else ""
            cells.append(f"{figures[f]:.3g}{ratio}" if f != "loss" else f"{figures[f]:.3f}")
        table.add_row(workload, name, *cells)
    table.add_section()


if __name__ == "__main__":
    main()
