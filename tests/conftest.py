"""Settings of all tests: the oracle runs on JAX, names and seeds start anew for each test."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
# Processes that share the work compile each program once; a later run compiles what is new.
os.environ.setdefault(
    "ALPHORN_COMPILATION_CACHE", str(Path(__file__).parent.parent / "build" / "programs")
)
# Most programs run once here: to make them fast takes three times as long as the tests themselves.
# XLA_FLAGS="" tests what users run.
# A later jaxlib than 0.10 does not know the second of the flags, and stops.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)

from collections.abc import Iterator
from itertools import count

import jax
import numpy as np
import pytest
from hypothesis import settings

import alphorn
from alphorn import config, naming
from archives import make_archive

# Programs for Keras, or for packages too large for the tests; tests that need a flag before JAX begins.
collect_ignore = ["programs", "record_keras2.py", "record_onnx.py"]
if "device_count=4" not in os.environ["XLA_FLAGS"]:
    collect_ignore.append("on_four_devices.py")

settings.register_profile("quick", max_examples=15, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=300, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# Tracing makes many objects, and those of earlier tests stay: to look at all of them takes long.
gc.set_threshold(50_000, 20, 50)
_count = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of one row of a table together: they share its compiled programs.

    Processes that share the work take whole rows of tables, and other files whole.
    """
    first: dict[str, int] = {}
    for i, item in enumerate(items):
        params = (
            item.callspec.params
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else {}
        )
        row = f":{params['case']}" if "case" in params else ""
        group = f"{item.path.name}{row}"
        item.add_marker(pytest.mark.xdist_group(group))
        first.setdefault(group, i)
    items.sort(key=lambda item: first[next(item.iter_markers("xdist_group")).args[0]])


@pytest.fixture(autouse=True)
def no_more_programs_than_fit() -> Iterator[None]:
    """Drops compiled programs in time: each maps memory, and Linux allows 65,530 maps."""
    yield
    maps = Path("/proc/self/maps")
    if next(_count) % 50 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def fresh_names_and_seeds() -> Iterator[None]:
    naming.reset_names()
    config.set_random_seed(0)
    yield
    config.set_dtype_policy(None)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The path of a compiled model's archive."""
    return make_archive(tmp_path / "model.keras")


@pytest.fixture(autouse=True)
def names_in_examples(doctest_namespace: dict) -> None:
    import jax.numpy as jnp

    doctest_namespace |= {"keras": alphorn, "np": np, "jnp": jnp}
