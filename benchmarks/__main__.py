"""Runs every workload on Alphorn and its peers in turn and prints medians and ratios.

    python -m benchmarks [--rounds 3] [--only lstm,mlp] [--peers PYTHON] [--write docs]

Each run is a process of its own, one after another, so that a drift of the machine's speed meets
all alike. Nothing else should run meanwhile. `--peers` is a Python with torch, tensorflow and
keras; without it Keras on JAX is the only peer. `--write` makes the page with its picture.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks.data import NAMES, inputs_and_targets, operations, seconds
from benchmarks.page import write

FIGURES = ("import_s", "first_s", "train_us", "predict_us", "peak_mb", "left_out", "loss")
PACKAGES = ("alphorn", "jax", "keras", "tensorflow", "tensorflow-cpu", "torch")
RECURRENT = ("lstm", "gru", "bilstm", "tagger")
Command = tuple[dict[str, str], list[str]]


def peers(workload: str, options: argparse.Namespace) -> dict[str, Command]:
    """Returns `(environment, command)` of what is measured side by side, ours first."""
    ours, python = sys.executable, options.peers
    size = ["--samples", str(options.samples), "--batch", str(options.batch)]

    def keras(python: str, module: str, backend: str, *more: str) -> Command:
        command = [python, "-m", "benchmarks.workloads", module, workload, *size, *more]
        return {"KERAS_BACKEND": backend}, command

    found = {"alphorn": keras(ours, "alphorn", "jax")}
    if workload not in ("import", "mlp", "cnn2d"):
        found["alphorn, grouped"] = keras(ours, "alphorn", "jax", "--grouped")
    found["keras on jax"] = keras(ours, "keras", "jax")
    if workload == "mlp" and options.batch == 32:
        found["hand-written jax"] = {}, [ours, "-m", "benchmarks.limit"]
    if python is None or workload == "import":
        return found
    found["keras on tensorflow"] = keras(python, "keras", "tensorflow")
    if workload != "han":
        command = [python, "-m", "benchmarks.torch_workloads", workload, *size]
        found["pytorch"] = {}, command
        if workload in RECURRENT:
            found["pytorch, packed"] = {}, [*command, "--packed"]
    return found


def run(environment: dict[str, str], command: list[str]) -> dict[str, float]:
    """Returns the figures that a process of its own prints."""
    # Compiled programs of earlier runs would hide what a first epoch costs.
    off = {"JAX_ENABLE_COMPILATION_CACHE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, env=os.environ | off | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def versions(pythons: set[str]) -> list[str]:
    """Returns the packages that are measured, of the Pythons that run them, with their versions."""
    program = f"""
from importlib.metadata import PackageNotFoundError, version
for name in {PACKAGES}:
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""
    done = [
        subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
        for python in pythons
    ]
    return sorted({line for run in done for line in run.stdout.splitlines()})


def spread(runs: list[dict[str, float]]) -> dict[str, float]:
    """Returns how far several rounds lie apart, as a share of their median, where it is most."""
    if len(runs) < 2:
        return {}
    timed = [[r[f] for r in runs] for f in ("train_us", "predict_us") if f in runs[0]]
    apart = [(max(took) - min(took)) / statistics.median(took) for took in timed]
    return {"spread": max(apart, default=0.0)}


def product_rate() -> float:
    """Returns the operations a second of a product of two 2048 x 2048 matrices."""
    a = jnp.ones((2048, 2048))
    product = jax.jit(jnp.dot)
    product(a, a).block_until_ready()
    took = min(seconds(lambda: product(a, a).block_until_ready()) for _ in range(5))
    return 2 * 2048**3 / took


def measured(workload: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Returns the medians of each peer, and the limit that arithmetic sets."""
    found = peers(workload, options)
    found = {name: peer for name, peer in found.items() if name not in options.skip.split(",")}
    rows: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for name, command in found.items():
            rows.setdefault(name, []).append(run(*command))
    medians = {
        name: {f: statistics.median(r[f] for r in runs) for f in FIGURES if f in runs[0]}
        | spread(runs)
        for name, runs in rows.items()
    }
    if workload != "import":
        x, _ = inputs_and_targets(workload, options.samples)
        least = operations(workload, x) / product_rate() * 1e6
        medians["limit"] = {"train_us": 3 * least, "predict_us": least}
    return medians


def add(table: Table, workload: str, medians: dict[str, Any]) -> None:
    """Adds the medians of one workload."""
    ours = medians["alphorn"]
    for name, figures in medians.items():
        cells = []
        for f in FIGURES:
            if f not in figures:
                cells.append("-")
            elif f in ("loss", "left_out"):
                cells.append(f"{figures[f]:.3f}")
            else:
                ratio = (
                    "" if name == "alphorn" or f not in ours else f" x{figures[f] / ours[f]:.2f}"
                )
                cells.append(f"{figures[f]:.3g}{ratio}")
        table.add_row(workload, name, *cells)
    table.add_section()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--only", default=",".join(("import", *NAMES)))
    parser.add_argument("--peers", help="a Python with torch, tensorflow and keras")
    parser.add_argument("--skip", default="", help="peers to leave out, by name")
    parser.add_argument("--write", type=Path, help="the folder of the page")
    options = parser.parse_args()
    table = Table(title=f"medians of {options.rounds} rounds; x: beside alphorn, above 1 is slower")
    for column in ("workload", "module", *FIGURES):
        table.add_column(column, justify="left" if column in ("workload", "module") else "right")
    results: dict[str, Any] = {}
    for workload in options.only.split(","):
        results[workload] = measured(workload, options)
        add(table, workload, results[workload])
        print(json.dumps({workload: results[workload]}), file=sys.stderr, flush=True)
    Console(width=150).print(table)
    if options.write is not None:
        pythons = {sys.executable, options.peers or sys.executable}
        write(options.write, results, options, versions(pythons))


if __name__ == "__main__":
    main()
