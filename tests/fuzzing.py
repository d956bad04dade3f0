"""Damaged files of every kind that is read: our own error or the right model, and nothing else.

    python tests/fuzzing.py --minutes 10       # as `make fuzz` does
    python tests/fuzzing.py --replay FILE      # one that was found, which says its kind by its name

Whole files to begin with stand in `tests/data/fuzz`; `--seeds` writes them anew. Each process tries
files until it is done or dead: the last one that it tried is on disk, so that what kills a process
is found too.
"""

import argparse
import collections
import contextlib
import faulthandler
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

import alphorn
from alphorn import layers, models, preprocessing, saving
from alphorn.callbacks import BackupAndRestore
from alphorn.errors import AlphornError
from damage import damaged_bytes, damaged_json, damaged_member

SEEDS = Path(__file__).parent / "data" / "fuzz"
# Beside twice the file: a model's weights that are in no file, and what makes them.
MEMORY, SECONDS = 256 << 20, 20
X = np.array([[3, 1, 2], [1, 4, 0]], "int32")
CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def net() -> Any:
    """A small model with a mask, compiled."""
    alphorn.utils.clear_session(free_memory=False)
    words = alphorn.Input((3,), dtype="int32", name="words")
    h = layers.Embedding(5, 2, mask_zero=True, name="vectors")(words)
    h = layers.Dense(2, activation="softmax", name="out")(layers.SimpleRNN(2, name="states")(h))
    model = alphorn.Model(words, h, name="net")
    model.set_weights([np.full(w.shape, 0.5, "float32") for w in model.weights])
    model.compile("sgd", "mse", metrics=["accuracy"])
    return model


def weights_of(model: Any) -> list[Any]:
    return [(w.shape, str(w.dtype)) for w in model.get_weights()]


def whole(model: Any) -> Any:
    """What is the same in a file whose checksums are right."""
    return json.loads(model.to_json()), [w.tobytes() for w in model.get_weights()]


class Loaded:
    """A model that reads weights: all of them or none."""

    def __init__(self) -> None:
        self.model = net()
        self.before = [w.numpy() for w in self.model.weights]

    def __call__(self, path: Path) -> Any:
        self.model.set_weights(self.before)
        try:
            self.model.load_weights(path)
        except AlphornError:
            now = self.model.get_weights()
            assert all(np.array_equal(a, b) for a, b in zip(now, self.before, strict=True))
            raise
        return self.model


class Resumed:
    """A run that goes on from a backup of its end."""

    def __init__(self) -> None:
        self.model = net()

    def __call__(self, path: Path) -> Any:
        folder = path.parent / "backup"
        folder.mkdir(exist_ok=True)
        (folder / "latest.npz").write_bytes(path.read_bytes())
        backup = BackupAndRestore(folder, delete_checkpoint=False)
        y = np.ones((2, 2), "float32")
        self.model.fit(X, y, epochs=1, verbose=0, shuffle=False, callbacks=[backup])
        return self.model


def unpacked(path: Path) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        folder = alphorn.utils.get_file(
            origin=path.as_uri(), extract=True, cache_dir=path.parent, force_download=True
        )
    return folder


def numbered(path: Path) -> Any:
    tokenizer = preprocessing.text.tokenizer_from_json(path.read_text("utf-8", "replace"))
    return tokenizer.texts_to_sequences(["the cat", "a dog"])


def described(path: Path) -> Any:
    return models.model_from_json(path.read_text("utf-8", "replace"))


def numbers_in(found: Any) -> None:
    assert all(isinstance(row, list) for row in found)


def model_in(found: Any) -> None:
    assert isinstance(found, alphorn.Model)


@dataclass(frozen=True)
class Kind:
    """A way in.

    Args:
        seeds: Files to begin with.
        reader: Makes what reads a path.
        same: What must be as it is in the whole file, where reading succeeds.
        inside: "json" damages a value of a config; a name, a member of an archive; by default bytes.
    """

    seeds: tuple[str, ...]
    reader: Callable[[], Callable[[Path], Any]]
    same: Callable[[Any], Any]
    inside: str = ""


def _load() -> Callable[[Path], Any]:
    return saving.load_model


KINDS = {
    ".keras": Kind(("net.keras",), _load, whole),
    ".keras, its config": Kind(("net.keras",), _load, model_in, CONFIG),
    ".keras, its weights": Kind(("net.keras",), _load, weights_of, WEIGHTS),
    ".weights.h5": Kind(("net.weights.h5", "packed.weights.h5"), Loaded, weights_of),
    ".h5 of Keras 2": Kind(("keras2.h5", "net.h5"), _load, model_in),
    ".h5 of Keras 2, its weights": Kind(("net.h5",), Loaded, weights_of),
    ".safetensors": Kind(("net.safetensors",), Loaded, weights_of),
    ".weights.json": Kind(("net.weights.json",), Loaded, weights_of, "json"),
    "JSON": Kind(("net.json",), lambda: described, model_in),
    "JSON, its values": Kind(("net.json", "keras2.json"), lambda: described, model_in, "json"),
    "backup": Kind(("latest.npz",), Resumed, whole),
    "tokenizer": Kind(("tokenizer.json",), lambda: numbered, numbers_in),
    "tokenizer, its values": Kind(("tokenizer.json",), lambda: numbered, numbers_in, "json"),
    "tar": Kind(("files.tar.gz", "files.tar"), lambda: unpacked, str),
    "zip": Kind(("files.zip",), lambda: unpacked, str),
}


def damaged(kind: Kind, seed: str) -> st.SearchStrategy[bytes]:
    """Returns what draws damaged files like a seed."""
    content = (SEEDS / seed).read_bytes()
    if kind.inside == "json":
        return damaged_json(content)
    return damaged_member(content, kind.inside) if kind.inside else damaged_bytes(content)


# --- what must hold


class Peak:
    """How much memory the process took at most since `start`; 0 where no one can say."""

    def start(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.before = self._most()

    def grown(self) -> int:
        return self._most() - self.before

    @staticmethod
    def _most() -> int:
        status = Path("/proc/self/status")
        if not status.exists():
            return 0
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) << 10


class Trial:
    """Reads files of one kind and looks whether what comes of it is right.

    Args:
        name: Of the kind.
        folder: For the files; what stands beside a seed is put there.
    """

    def __init__(self, name: str, folder: Path):
        self.name, self.kind, self.folder = name, KINDS[name], folder
        self.read, self.peak = self.kind.reader(), Peak()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wanted: dict[str, Any] = {}
        for seed in self.kind.seeds:
            for beside in SEEDS.glob("net_*.weights.h5"):
                (folder / beside.name).write_bytes(beside.read_bytes())
            self.wanted[seed] = self.kind.same(self.read(self.put(seed)))

    def put(self, seed: str, content: bytes | None = None) -> Path:
        path = self.folder / seed
        path.write_bytes((SEEDS / seed).read_bytes() if content is None else content)
        return path

    def __call__(self, seed: str, content: bytes) -> None:
        """Tries one file.

        Raises:
            AssertionError, or what reading raised: it is none of ours, or took too much.
        """
        path = self.put(seed, content)
        self.peak.start()
        began = time.process_time()
        try:
            with warnings.catch_warnings(action="ignore"):
                found = self.kind.same(self.read(path))
        except AlphornError as error:
            self.outcomes["refused"] += 1
            assert str(error)
            cause: BaseException | None = error
            while cause is not None:
                assert not isinstance(cause, MemoryError), f"asked for too much: {error}"
                cause = cause.__cause__ or cause.__context__
        else:
            self.outcomes["opened"] += 1
            assert found == self.wanted[seed], f"another than the right one: {found}"
        took, grown = time.process_time() - began, self.peak.grown()
        assert took < SECONDS, f"{took:.0f} seconds"
        assert grown < MEMORY + 2 * len(content), f"{grown >> 20} MB for {len(content)} bytes"


def attempt(name: str, folder: Path, settings: hypothesis.settings, seed: int = 0) -> Trial:
    """Tries damaged files of one kind, as many as the settings say for each whole file."""
    trial = Trial(name, folder)
    for whole_file in trial.kind.seeds:

        @settings
        @hypothesis.seed(seed)
        @hypothesis.given(damaged(trial.kind, whole_file))
        def run(content: bytes) -> None:
            trial(whole_file, content)  # noqa: B023

        run()
    return trial


# --- by the minute

EXAMPLES = 50


def child(minutes: float, first: int, kinds: list[str], folder: Path) -> None:
    """Tries kinds in turn until the time is over; what it finds it says and goes on."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    faulthandler.enable()
    settings = hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )  # fmt: skip
    seed, until = first, time.monotonic() + 60 * minutes
    totals: dict[str, collections.Counter[str]] = {}
    real = Trial.__call__

    def noted(self: Trial, whole_file: str, content: bytes) -> None:
        (folder / "last").write_bytes(content)
        (folder / "last.kind").write_text(self.name)
        faulthandler.dump_traceback_later(60, exit=True)
        try:
            real(self, whole_file, content)
        except BaseException:
            keep(self.name, content, folder.parent)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()

    Trial.__call__ = noted
    while time.monotonic() < until:
        for name in kinds:
            if time.monotonic() > until:
                break
            place = folder / "files"
            place.mkdir(exist_ok=True)
            try:
                outcomes = attempt(name, place, settings, seed).outcomes
                totals.setdefault(name, collections.Counter()).update(outcomes)
            except Exception as error:
                notes = "\n".join(getattr(error, "__notes__", ()))[:200]
                print(f"FOUND in {name}: {type(error).__name__}: {error}"[:1500], notes, flush=True)
                where = error.__traceback__
                while where is not None and where.tb_next is not None:
                    where = where.tb_next
                if where is not None:
                    print(f"  at {where.tb_frame.f_code.co_filename}:{where.tb_lineno}", flush=True)
            seed += 10
            (folder / "seed").write_text(str(seed))
            (folder / "totals").write_text(json.dumps(totals))


def keep(name: str, content: bytes, folder: Path) -> Path:
    """Keeps a file for `--replay`."""
    digest = hashlib.sha256(content).hexdigest()[:12]
    path = folder / f"found-{list(KINDS).index(name):02}-{digest}"
    path.write_bytes(content)
    return path


def fuzz(minutes: float, kinds: list[str], folder: Path, jobs: int) -> int:
    """Runs processes until the time is over, in the place of dead ones others; returns 1 or 0."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * minutes
    running: dict[int, subprocess.Popen] = {}
    seeds = {job: 1_000_000 * job + int(time.time()) % 1_000_000 for job in range(jobs)}
    totals: dict[str, collections.Counter[str]] = {}
    failed = False

    def start(job: int) -> None:
        place = folder / f"job{job}"
        place.mkdir(exist_ok=True)
        (place / "totals").write_text("{}")
        (place / "seed").write_text(str(seeds[job]))
        left = max(until - time.monotonic(), 1) / 60
        turned = kinds[job % len(kinds) :] + kinds[: job % len(kinds)]
        arguments = ["--child", str(left), str(seeds[job]), str(place), *turned]
        with (place / "said").open("w") as out:
            running[job] = subprocess.Popen(
                [sys.executable, __file__, *arguments], stdout=out, stderr=subprocess.STDOUT
            )

    for job in range(jobs):
        start(job)
    while running:
        time.sleep(1)
        for job, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[job]
            place = folder / f"job{job}"
            said = (place / "said").read_text()
            found = "FOUND" in said or process.returncode != 0
            failed |= found
            if found:
                print(said[-4000:])
            if process.returncode != 0:
                name = (place / "last.kind").read_text()
                kept = keep(name, (place / "last").read_bytes(), folder)
                print(f"DIED of {name}: {process.returncode}, {kept}", flush=True)
            for name, outcomes in json.loads((place / "totals").read_text()).items():
                totals.setdefault(name, collections.Counter()).update(outcomes)
            seeds[job] = int((place / "seed").read_text()) + 10
            if time.monotonic() < until - 5:
                start(job)
    for name, outcomes in totals.items():
        print(f"{name:<28}{outcomes['opened']:>8} opened{outcomes['refused']:>8} refused")
    print(f"{sum(map(sum, (c.values() for c in totals.values())))} files in all")
    return int(failed)


def replay(path: Path) -> None:
    """Reads a file that was found."""
    name = list(KINDS)[int(path.name.split("-")[1])]
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(name, Path(folder))
        seed = trial.kind.seeds[0]
        trial(seed, path.read_bytes())
        print(name, dict(trial.outcomes))


def main() -> None:
    """Runs what the arguments say."""
    if sys.argv[1:2] == ["--child"]:
        minutes, seed, folder, *kinds = sys.argv[2:]
        child(float(minutes), int(seed), kinds, Path(folder))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    if options.replay:
        replay(options.replay)
    else:
        sys.exit(fuzz(options.minutes, options.kinds, options.out.resolve(), options.jobs))


if __name__ == "__main__":
    main()
