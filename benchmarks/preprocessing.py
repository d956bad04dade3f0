"""Times keras.preprocessing's heavy jobs on Alphorn and its predecessors, and prints the ratios.

    python -m benchmarks.preprocessing [--rounds 3] [--peer keras_preprocessing=PYTHON] [--only pad]

A peer is a module and a Python that can import it, e.g. that of a virtual environment with
keras-preprocessing 1.1.2 (`keras_preprocessing`) or tf-keras (`tf_keras.preprocessing`); without
any, those that this Python has. Each run is a process of its own, the modules in turn, so that a
drift of the machine's speed meets all alike. Nothing else should run meanwhile.
"""

import argparse
import importlib
import importlib.util
import json
import os
import random
import statistics
import string
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OURS = "alphorn.preprocessing"
PEERS = ("keras_preprocessing", "tf_keras.preprocessing")


def documents(count: int, length: float) -> list[str]:
    """Returns texts whose words are as frequent as Zipf's law says."""
    source = np.random.default_rng(5)
    letters = random.Random(5)
    words = [
        "".join(letters.choices(string.ascii_lowercase, k=letters.randint(2, 9)))
        for _ in range(30000)
    ]
    sizes = np.clip(source.lognormal(np.log(length), 0.6, count), 5, 800).astype(int)
    return [
        " ".join(
            (
                words[min(int(rank), 29999)] + letters.choice(["", "", "", ",", ".", "!"])
            ).capitalize()
            for rank in source.zipf(1.2, size)
        )
        for size in sizes
    ]


def jobs(module: str) -> dict[str, Callable[[], Any]]:
    """Returns the jobs by name; what they need is made before."""
    text = importlib.import_module(f"{module}.text")
    sequence = importlib.import_module(f"{module}.sequence")
    long, short = documents(5000, 120), documents(20000, 12)
    accented = [f"{line} é" for line in long[:2000]]
    tokenizer = text.Tokenizer(num_words=20000, oov_token="<oov>")
    tokenizer.fit_on_texts(long)
    rows, short_rows = tokenizer.texts_to_sequences(long), tokenizer.texts_to_sequences(short)
    arrays = [np.array(row) for row in rows]
    stream = [i for row in rows[:20] for i in row][:2000]
    steps = np.ones((20000, 8))

    def fit(texts: list[str], **options: Any) -> None:
        text.Tokenizer(**options).fit_on_texts(texts)

    def windows(**options: Any) -> None:
        batches = sequence.TimeseriesGenerator(steps, steps, length=50, batch_size=128, **options)
        for i in range(len(batches)):
            batches[i]

    return {
        "fit_on_texts, long": lambda: fit(long),
        "fit_on_texts, short": lambda: fit(short),
        "fit_on_texts, beyond ASCII": lambda: fit(accented),
        "fit_on_texts, characters": lambda: fit(long[:2000], char_level=True),
        "texts_to_sequences, long": lambda: tokenizer.texts_to_sequences(long),
        "texts_to_sequences, short": lambda: tokenizer.texts_to_sequences(short),
        "sequences_to_texts": lambda: tokenizer.sequences_to_texts(rows),
        "sequences_to_matrix, tfidf": lambda: tokenizer.sequences_to_matrix(rows[:500], "tfidf"),
        "pad_sequences, long": lambda: sequence.pad_sequences(rows, maxlen=200, padding="post"),
        "pad_sequences, short": lambda: sequence.pad_sequences(short_rows, maxlen=20),
        "pad_sequences, arrays": lambda: sequence.pad_sequences(arrays, maxlen=200),
        "skipgrams": lambda: sequence.skipgrams(stream, 20000, window_size=4, seed=1),
        "TimeseriesGenerator": lambda: windows(),
        "TimeseriesGenerator, shuffled": lambda: windows(shuffle=True),
    }


def measure(module: str, only: str) -> None:
    """Prints the seconds of each job, the best of three."""
    found = {}
    for name, job in jobs(module).items():
        if only not in name:
            continue
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            job()
            seconds.append(time.perf_counter() - start)
        found[name] = min(seconds)
    print(json.dumps(found))


def run(module: str, python: str, only: str) -> dict[str, float]:
    """Returns what a process of its own measures."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, str(Path(__file__)), "--measure", module, "--only", only]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="MODULE=PYTHON")
    parser.add_argument("--only", default="", help="jobs whose name has this in it")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.only)
    peers = dict(peer.split("=", 1) for peer in options.peer) or {
        m: sys.executable for m in PEERS if importlib.util.find_spec(m.split(".")[0])
    }
    rounds: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for module, python in {OURS: sys.executable, **peers}.items():
            rounds.setdefault(module, []).append(run(module, python, options.only))
    print_table(rounds)


def print_table(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Prints medians in milliseconds; x: beside alphorn, above 1 is slower."""
    medians = {
        module: {name: statistics.median(r[name] for r in found) for name in found[0]}
        for module, found in rounds.items()
    }
    print(f"{'job':32}" + "".join(f"{module:>32}" for module in medians))
    for name, ours in medians[OURS].items():
        cells = (
            f"{figures[name] * 1e3:.1f} x{figures[name] / ours:.2f}" for figures in medians.values()
        )
        print(f"{name:32}" + "".join(f"{cell:>32}" for cell in cells))


if __name__ == "__main__":
    main()
