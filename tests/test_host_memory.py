"""A training step finds the memory of the step before it, mapped; with glibc, as on most Linux."""

import ctypes
import os
import subprocess
import sys

import jax

from alphorn import host_memory

SCRIPT = """
import resource
import numpy as np
import jax
import alphorn as keras

jax.config.update("jax_cpu_enable_async_dispatch", False)

wide = [keras.layers.Dense(256, activation="tanh") for _ in range(4)]
model = keras.Sequential([keras.Input((16,)), *wide, keras.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.ones((32768, 16), "float32"), np.ones((32768, 1), "float32")
model.fit(x, y, batch_size=32768, epochs=3, verbose=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
model.fit(x, y, batch_size=32768, epochs=3, verbose=0)
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(pages * resource.getpagesize() / 3 / 2**20)
"""


def mapped_a_step(**environment: str) -> float:
    """The MB that each step of a large model maps anew."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"XLA_FLAGS": ""} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def test_a_step_maps_little_of_its_memory_anew() -> None:
    assert mapped_a_step() < 20  # of 128 and more


def test_a_setting_of_the_user_wins() -> None:
    assert mapped_a_step(MALLOC_TRIM_THRESHOLD_="131072") > 60


def test_what_compiling_needed_is_given_back(monkeypatch) -> None:
    library = ctypes.CDLL(None)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    given = []
    monkeypatch.setattr(library, "malloc_trim", given.append)
    heard = []
    listen = jax.monitoring.register_event_duration_secs_listener
    monkeypatch.setattr(jax.monitoring, listen.__name__, heard.append)
    host_memory.keep_memory.__wrapped__()
    (listener,) = heard
    for event, seconds in (("compile/trace", 9.0), ("compile/backend_compile", 0.01)):
        listener(f"/jax/core/{event}_duration", seconds)
    assert given == []
    listener("/jax/core/compile/backend_compile_duration", 0.2, fun_name="step")
    assert given == [0]
