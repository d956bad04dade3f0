"""Rows of like lengths together, few lengths, few programs: the numbers and their order stay."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alphorn as keras
from alphorn import config, layers
from alphorn.errors import ArgumentError
from alphorn.training import cutting
from alphorn.training.data import Table
from alphorn.training.shapes import Shapes, grouped_rows
from nets import FEATURES, IDS, LABELS, RAGGED, WORDS, X, Y, compiled, line, rnn, tagger

RANDOM = np.random.default_rng(0)
LENGTHS = np.minimum(RANDOM.integers(1, 41, 2000), RANDOM.integers(1, 41, 2000))[:, None]


@pytest.fixture(autouse=True)
def trimming_stays_on(monkeypatch: pytest.MonkeyPatch):
    # As many lengths as where no layer skips padding by itself, which test_groups looks at.
    monkeypatch.setattr(cutting, "padding_cost", lambda graph: 1.0)
    yield
    config.set_trim_padding(True)


# --- the choice of lengths


@given(st.lists(st.integers(1, 8), min_size=17, max_size=40))
def test_no_other_lengths_compute_fewer_steps(needs: list[int]) -> None:
    sizes = np.array(needs)[:, None]
    chosen = Shapes(sizes, 1).chosen[:, 0].tolist()
    most = min(5, 1 + len(needs) // 8)

    def cost(lengths: Any) -> int:
        return sum(min(n for n in lengths if n >= need) for need in needs)

    others = itertools.combinations(range(1, max(needs)), len(chosen) - 1)
    assert len(chosen) <= most
    assert chosen[-1] == max(needs)
    assert cost(chosen) == min(cost([*other, max(needs)]) for other in others)


def test_one_batch_has_one_length() -> None:
    assert Shapes(np.array([[3], [7]]), 4).chosen.tolist() == [[7]]
    assert Shapes(np.array([[3, 30], [7, 20]]), 4, "sorted").chosen.tolist() == [[7, 32]]


def test_where_padding_costs_little_another_length_must_save_more_of_it() -> None:
    def chosen(sizes: np.ndarray, cost: float) -> list[list[int]]:
        return Shapes(sizes, 8, "sorted", cost).chosen.tolist()

    one, two = LENGTHS, np.hstack([LENGTHS, LENGTHS[::-1]])
    for sizes in (one, two):
        shapes = [chosen(sizes, cost) for cost in (1.0, 0.1, 0.0)]
        assert len(shapes[0]) > len(shapes[1]) > len(shapes[2]) == 1
        assert all(found[-1] == shapes[2][0] for found in shapes)
    # Half of all rows have 104 steps of padding, of which a share counts beside 156 valid ones a row.
    halves = np.repeat([[104], [208]], 128, 0)
    assert chosen(halves, 0.14) == [[208]]
    assert chosen(halves, 0.18) == [[104], [208]]


# --- the order of rows in fit(group_by_length=True)


def batches(seed: int, longest_first: bool = False, size: int = 8) -> np.ndarray:
    order = grouped_rows(size, np.random.default_rng(seed), longest_first)(LENGTHS)
    assert sorted(order) == list(range(len(LENGTHS)))
    return order.reshape(-1, size)


def test_rows_of_a_batch_are_alike_and_neighbouring_batches_are_not() -> None:
    longest = LENGTHS[batches(0), 0].max(1)
    waste = longest.sum() * 8 / LENGTHS.sum() - 1
    unsorted = LENGTHS[:, 0].reshape(-1, 8).max(1).sum() * 8 / LENGTHS.sum() - 1
    assert waste < 0.1 < 0.5 < unsorted
    assert abs(np.corrcoef(longest[1:], longest[:-1])[0, 1]) < 0.2


def test_the_seed_decides_the_order_and_the_longest_may_come_first() -> None:
    assert (batches(1) == batches(1)).all()
    assert (batches(1) != batches(2)).any()
    first = batches(1, longest_first=True)
    assert LENGTHS[first[0]].max() == LENGTHS.max()
    rest = [row.tolist() for row in batches(1)]
    assert sorted(rest) == sorted(row.tolist() for row in first)


def test_rows_that_fill_no_batch_stand_last() -> None:
    rows = [[1] * n for n in LENGTHS[:21, 0]]
    table = Table(rows, batch_size=8)
    order = table.order("grouped", np.random.default_rng(0))
    blocks = list(table.blocks(order, 1, "grouped"))
    assert [b.batch.rows for b in blocks] == [8, 8, 5]
    assert sorted(np.concatenate([b.rows for b in blocks])) == list(range(21))


def long_rows() -> list[list[int]]:
    return [list(RANDOM.integers(1, WORDS, n)) for n in LENGTHS[:80, 0]]


def test_grouped_training_sees_each_row_once_an_epoch_and_is_repeatable() -> None:
    rows = long_rows()
    y = RANDOM.integers(0, 3, 80)

    def run() -> tuple[Any, Any]:
        keras.utils.set_random_seed(4)
        model = compiled(rnn, optimizer="sgd", loss="sparse_categorical_crossentropy")
        history = model.fit(
            rows, y, batch_size=4, epochs=2, verbose=0, group_by_length=True
        ).history["loss"]
        return history, model.padding_report

    (first, report), (second, _) = run(), run()
    assert first == second
    assert report.valid == 2 * sum(map(len, rows))
    assert report.share_left_out > 0.7
    assert 1 < len(report.lengths) <= 5


def test_grouped_training_with_frozen_weights_measures_what_evaluate_does() -> None:
    model = compiled(
        tagger, optimizer=keras.optimizers.SGD(0.0), loss="sparse_categorical_crossentropy"
    )
    y = IDS % 3
    grouped = model.fit(IDS, y, batch_size=4, verbose=0, group_by_length=True).history["loss"][0]
    assert grouped == pytest.approx(model.evaluate(IDS, y, verbose=0), rel=1e-6)


class Own(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x * 1.0


def stateful() -> Any:
    x = keras.Input((None,), dtype="int32", batch_size=5)
    h = layers.Embedding(WORDS, 4, mask_zero=True)(x)
    return keras.Model(x, layers.Dense(3)(layers.LSTM(3, stateful=True)(h)))


@pytest.mark.parametrize(
    ("make", "data", "options", "says"),
    [
        (lambda K: line(K), X, {}, "no lengths of rows are known"),
        (lambda K: stateful(), IDS, {"batch_size": 5}, "keeps states from batch to batch"),
        (rnn, IDS, {"shuffle": False}, "shuffle=False"),
        (rnn, iter([(IDS, LABELS)]), {"steps_per_epoch": 1}, "generator|iterator"),
    ],
    ids=["vectors", "stateful", "unshuffled", "generator"],
)
def test_where_rows_cannot_be_grouped_it_says_why(make, data, options, says) -> None:
    model = make(keras)
    loss = "mse" if data is X else "sparse_categorical_crossentropy"
    model.compile("sgd", loss)
    y = None if hasattr(data, "__next__") else Y if data is X else LABELS
    with pytest.raises(ArgumentError, match=says):
        model.fit(data, y, verbose=0, group_by_length=True, **options)


# --- predict and evaluate


class Seen(keras.callbacks.Callback):
    """Notes how many batches it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self.count += 1

    on_test_batch_end = on_predict_batch_end


def test_small_calls_are_merged_unless_somebody_counts_batches() -> None:
    model = compiled(line, optimizer="sgd", loss="mse")
    x = RANDOM.normal(size=(70, FEATURES)).astype("float32")
    out = model.predict(x, batch_size=4, verbose=0)
    assert model.padding_report.programs == 2  # 64 rows and 6
    seen = Seen()
    again = model.predict(x, batch_size=4, verbose=0, callbacks=[seen])
    assert seen.count == 18
    assert np.allclose(out, again, rtol=1e-6, atol=1e-6)
    assert np.allclose(out, np.asarray(model(x)), rtol=1e-6, atol=1e-6)


def test_a_part_of_the_data_is_the_first_part() -> None:
    model = compiled(rnn, optimizer="sgd", loss="sparse_categorical_crossentropy")
    some = model.evaluate(RAGGED, LABELS, batch_size=2, steps=2, verbose=0)
    assert some == pytest.approx(model.evaluate(RAGGED[:4], LABELS[:4], verbose=0), rel=1e-6)
    assert model.predict(RAGGED, batch_size=2, steps=2, verbose=0).shape == (4, 3)


def test_states_go_from_batch_to_batch_as_rows_stand() -> None:
    model = stateful()

    def run() -> Any:
        model.get_layer(index=2).reset_state()
        return model.predict(IDS, batch_size=5, verbose=0)

    kept = run()
    config.set_trim_padding(False)
    assert np.allclose(kept, run(), rtol=1e-6, atol=1e-6)
    half = model.predict(IDS[:5], batch_size=5, verbose=0)
    assert not np.allclose(kept[:5], half)


def test_figures_are_those_of_rows_as_they_stand() -> None:
    model = compiled(
        tagger,
        optimizer="sgd",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    x = np.repeat(IDS, 20, 0)
    y, weight = x % 3, RANDOM.uniform(0.5, 2, x.shape).astype("float32")
    found = []
    for enabled in (True, False):
        config.set_trim_padding(enabled)
        found.append(model.evaluate(x, y, sample_weight=weight, batch_size=8, verbose=0))
    assert np.allclose(*found, rtol=1e-6)


def test_own_metrics_that_look_at_whole_batches_keep_them() -> None:
    def largest(y: Any, p: Any) -> Any:
        return keras.ops.max(keras.ops.abs(y - p))

    model = compiled(line, optimizer="sgd", loss="mse", metrics=[largest])
    x, y = np.repeat(X, 4, 0), np.repeat(Y, 4, 0)
    found = []
    for enabled in (True, False):
        config.set_trim_padding(enabled)
        found.append(model.evaluate(x, y, batch_size=4, verbose=0))
    assert found[0] == found[1]


# --- programs on disk

SCRIPT = """
import os, jax, numpy as np
from pathlib import Path
asked = hits = 0
def count(event, **kwargs):
    global asked, hits
    asked += event.endswith("compile_requests_use_cache")
    hits += event.endswith("cache_hits")
jax.monitoring.register_event_listener(count)
import alphorn as keras
home = Path(os.environ["ALPHORN_HOME"])
before = home.exists()
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.ones((4, 2), "float32"), np.ones((4, 1), "float32"), verbose=0)
modes = [oct(f.stat().st_mode & 0o777) for f in home.glob("*")]
print(before, asked > 0, hits == asked, modes, jax.config.jax_compilation_cache_dir)
"""


def started(home: Path, **environment: str) -> list[str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "ALPHORN_"))}
    given |= {"ALPHORN_HOME": str(home)} | environment
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=given, capture_output=True, text=True, check=True
    )
    return out.stdout.split(maxsplit=3)


def test_a_script_that_starts_again_compiles_nothing(tmp_path: Path) -> None:
    before, asked, all_hits, rest = started(tmp_path / "home")
    assert (before, asked, all_hits) == ("False", "True", "False"), "the import touches no disk"
    assert rest.startswith("['0o700']")
    assert started(tmp_path / "home")[:3] == ["True", "True", "True"]


def test_a_program_that_another_process_is_still_writing_is_compiled(tmp_path: Path) -> None:
    started(tmp_path / "home")
    for file in (tmp_path / "home").glob("*/*-cache"):
        file.write_bytes(file.read_bytes()[:20])
    before, asked, all_hits, _ = started(tmp_path / "home", PYTHONWARNINGS="error::UserWarning")
    assert (before, asked, all_hits) == ("True", "True", "False")


def test_jax_s_own_setting_and_ours_win(tmp_path: Path) -> None:
    theirs = started(tmp_path / "home", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert theirs[3].split() == ["[]", str(tmp_path / "theirs")]
    assert started(tmp_path / "home", ALPHORN_COMPILATION_CACHE="0")[3].split() == ["[]", "None"]


def test_the_setting_names_a_folder_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHORN_COMPILATION_CACHE", "programs")
    try:
        assert config.compilation_cache() == Path("programs")
        config.set_compilation_cache("other")
        assert config.compilation_cache() == Path("other")
        config.set_compilation_cache(False)
        assert config.compilation_cache() is None
        config.set_compilation_cache(True)
        monkeypatch.delenv("ALPHORN_COMPILATION_CACHE")
        assert config.compilation_cache() == config.cache_folder()
    finally:
        config.set_compilation_cache(True)
