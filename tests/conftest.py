"""Settings of all tests: the oracle runs on JAX, names and seeds start anew for each test."""

import os
from importlib.metadata import version

os.environ.setdefault("KERAS_BACKEND", "jax")
# Most programs run once here: to make them fast takes three times as long as the tests themselves.
# XLA_FLAGS="" tests what users run.
# A later jaxlib than 0.10 does not know the second of the flags, and stops.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

import alphorn
from alphorn import config, naming

settings.register_profile("quick", max_examples=15, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=300, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(autouse=True)
def fresh_names_and_seeds() -> Iterator[None]:
    naming.reset_names()
    config.set_random_seed(0)
    yield
    config.set_dtype_policy(None)


@pytest.fixture(autouse=True)
def names_in_examples(doctest_namespace: dict) -> None:
    import jax.numpy as jnp

    doctest_namespace |= {"keras": alphorn, "np": np, "jnp": jnp}
