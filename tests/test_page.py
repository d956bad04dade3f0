"""The page of benchmarks, from figures of which some peers lack one."""

import argparse
from pathlib import Path

from benchmarks.page import write


def test_a_peer_may_lack_a_figure(tmp_path: Path) -> None:
    ours = {"train_us": 10.0, "predict_us": 4.0, "first_s": 1.0, "peak_mb": 300, "loss": 0.25}
    by_hand = {"train_us": 9.0}
    results = {"import": {}, "mlp": {"alphorn": ours, "hand-written jax": by_hand}}
    write(tmp_path, results, argparse.Namespace(rounds=3, samples=64, batch=32))
    page = (tmp_path / "benchmarks.md").read_text("utf-8")
    assert "3 round(s) of 64 rows" in page
    assert "| mlp | alphorn | 10 | 4 | 1 | 300 |  | 0.250 |" in page
    assert "| mlp | hand-written jax | 9 (0.90 x) |  |  |  |  |  |" in page
    assert "<svg" in (tmp_path / "benchmarks.svg").read_text("utf-8")
