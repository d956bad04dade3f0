"""The workloads' data, and how much arithmetic their valid steps are: for all modules alike."""

import time
from typing import Any

import numpy as np

TIME, WORDS = 200, 20000
NAMES = ("mlp", "lstm", "gru", "bilstm", "tagger", "han", "textcnn", "transformer", "cnn2d")


def token_rows(random: np.random.Generator, rows: int, longest: int, mean: float, shortest: int):
    """Returns `(rows, longest)` ids, zeros behind: lognormal lengths, Zipf's law for words."""
    lengths = np.clip(random.lognormal(mean, 0.7, rows).astype(int), shortest, longest)
    ids = np.minimum(random.zipf(1.3, (rows, longest)), WORDS - 1)
    return np.where(np.arange(longest) < lengths[:, None], ids, 0).astype("int32")


def inputs_and_targets(name: str, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a workload's inputs and targets."""
    random = np.random.default_rng(11)
    if name == "mlp":
        x = random.normal(size=(16 * samples, 784)).astype("float32")
        return x, (x[:, :1] > 0).astype("float32")
    if name == "cnn2d":
        x = random.normal(size=(samples, 32, 32, 3)).astype("float32")
        return x, (x.mean((1, 2, 3)) > 0).astype("float32")[:, None]
    if name == "han":
        sentences = token_rows(random, samples * 12, 30, 2.5, 2).reshape(samples, 12, 30)
        counts = np.clip(random.lognormal(1.6, 0.6, samples).astype(int), 1, 12)
        x = np.where((np.arange(12) < counts[:, None])[..., None], sentences, 0)
        return x, (x[:, 0, :1] % 2).astype("float32")
    x = token_rows(random, samples, TIME, 4.2, 5)
    if name == "tagger":
        return x, (x % 9)[..., None]
    return x, (x[:, :1] % 2).astype("float32")


def _recurrent(features: int, units: int, gates: int) -> int:
    return 2 * (features + units) * gates * units


def operations(name: str, x: np.ndarray) -> float:
    """Returns the additions and multiplications that a row's valid steps need, forward, on average."""
    if name == "mlp":
        return 2 * (784 * 128 + 128 * 64 + 64)
    if name == "cnn2d":
        return 2 * 9 * (32 * 32 * 3 * 32 + 30 * 30 * 32 * 32 + 15 * 15 * 32 * 64)
    lengths = np.count_nonzero(x, -1)
    if name == "han":
        words, sentences = lengths.sum(1).mean(), np.count_nonzero(lengths, 1).mean()
        return 2 * (words + sentences) * _recurrent(100, 50, 3)
    steps = lengths.mean()
    if name == "transformer":
        dense = 2 * 2 * (4 * 128 * 128 + 2 * 128 * 256)
        return float(np.mean(lengths * dense + 2 * 2 * 2 * 128 * lengths.astype(float) ** 2))
    a_step = {
        "lstm": _recurrent(128, 128, 4),
        "gru": _recurrent(128, 128, 3),
        "bilstm": 4 * _recurrent(128, 64, 4),
        "tagger": 2 * _recurrent(64, 64, 4) + 2 * 128 * 9,
        "textcnn": 2 * 128 * 64 * (3 + 4 + 5),
    }
    return float(steps * a_step[name])


def seconds(action: Any) -> float:
    """Returns how long a call took."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
