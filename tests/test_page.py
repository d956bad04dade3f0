"""The page of benchmarks, from figures of which some peers lack one."""

import argparse
import sys
from pathlib import Path

import jax

from benchmarks.__main__ import spread, versions
from benchmarks.page import write


def test_a_peer_may_lack_a_figure(tmp_path: Path) -> None:
    ours = {"train_us": 10.0, "predict_us": 4.0, "first_s": 1.0, "peak_mb": 300, "loss": 0.25}
    by_hand = {"train_us": 9.0} | spread([{"train_us": 8.1}, {"train_us": 9.0}, {"train_us": 9.9}])
    results = {"import": {}, "mlp": {"alphorn": ours, "hand-written jax": by_hand}}
    write(
        tmp_path,
        results,
        argparse.Namespace(rounds=3, samples=64, batch=32),
        ["jax 1.2", "torch 3"],
    )
    page = (tmp_path / "benchmarks.md").read_text("utf-8")
    assert "3 round(s) of 64 rows" in page
    assert "jax 1.2, torch 3" in page
    assert "| mlp | alphorn | 10 | 4 | 1 | 300 |  |  | 0.250 |" in page
    assert "| mlp | hand-written jax | 9 (0.90 x) |  |  |  |  | 20% |  |" in page
    assert "<svg" in (tmp_path / "benchmarks.svg").read_text("utf-8")


def test_versions_are_those_of_the_pythons_that_run() -> None:
    found = dict(line.split() for line in versions({sys.executable}))
    assert found["jax"] == jax.__version__
    assert "alphorn" in found


def test_one_round_has_no_spread() -> None:
    assert spread([{"train_us": 9.0}]) == {}
