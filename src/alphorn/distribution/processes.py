"""Several processes that run one program: they meet, agree, and one of them writes."""

import json
import os
from collections import Counter
from typing import Any

import jax
import numpy as np
from jax._src.distributed import global_state  # the service by which JAX's processes meet
from jax.experimental import multihost_utils

from alphorn.config import generator_states, set_generator_states
from alphorn.distribution.current import distribution
from alphorn.errors import ArgumentError, StateError

# How long a process waits for the others to come to the same line.
_PATIENCE_MS = 300_000
_meetings: Counter[str] = Counter()


def initialize(
    job_addresses: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of a run; the first line of a program that runs on several hosts.

    All of them then draw the same random numbers: the generators go on as those of process 0.
    Without arguments they come from the environment (KERAS_DISTRIBUTION_JOB_ADDRESSES,
    KERAS_DISTRIBUTION_NUM_PROCESSES, KERAS_DISTRIBUTION_PROCESS_ID), or from what JAX knows of
    the cluster: Slurm, MPI, Kubernetes, TPU.

    Args:
        job_addresses: `host:port` of process 0, or those of all, by commas.
        num_processes: How many there are.
        process_id: Which this one is, from 0.
    """
    environment = os.environ.get
    job_addresses = job_addresses or environment("KERAS_DISTRIBUTION_JOB_ADDRESSES")
    count = num_processes or environment("KERAS_DISTRIBUTION_NUM_PROCESSES")
    number = environment("KERAS_DISTRIBUTION_PROCESS_ID") if process_id is None else process_id
    addresses = job_addresses.split(",") if job_addresses else []
    if len(addresses) > 1:
        if count is not None and int(count) != len(addresses):
            raise ArgumentError(
                "initialize: num_processes", count, f"{len(addresses)}, as many as job_addresses"
            )
        count = len(addresses)
    try:
        jax.distributed.initialize(
            coordinator_address=addresses[0].strip() if addresses else None,
            num_processes=None if count is None else int(count),
            process_id=None if number is None else int(number),
        )
    except (RuntimeError, ValueError) as error:
        raise StateError(
            f"initialize: {error}",
            expected="job_addresses='host:port', num_processes and process_id, before anything else"
            " is computed",
        ) from error
    set_generator_states(json.loads(_word_of(0, "generators", json.dumps(generator_states()))))


def several() -> bool:
    """Returns whether the distribution that holds spans several processes."""
    now = distribution()
    return now is not None and now.num_processes > 1


def leads() -> bool:
    """Returns whether this process is the one that writes and prints."""
    return not several() or jax.process_index() == 0


def agreed(what: str, value: str) -> str:
    """Returns what process 0 says; every process calls it, by itself one has its own word."""
    return _word_of(0, what, value) if several() else value


def check_same(what: str, value: str, fix: str) -> None:
    """Raises StateError where another process has something else."""
    if not several():
        return
    words = _words(what, value)
    if other := next((i for i, word in enumerate(words) if word != words[0]), None):
        raise StateError(
            f"{what}: the processes differ",
            f"{words[0]} in process 0, {words[other]} in process {other}",
            "the same in all",
            fix,
        )


def on_host(array: Any) -> np.ndarray:
    """Returns an array in this process's memory, its parts gathered where others hold them."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.array(array)


def _words(what: str, value: str) -> list[str]:
    return [_word_of(i, what, value, i == 0) for i in range(jax.process_count())]


def _word_of(process: int, what: str, value: str, begins: bool = True) -> str:
    client: Any = global_state.client
    if begins:
        _meetings[what] += 1
    place = f"alphorn/{what}/{_meetings[what]}"
    if jax.process_index() == process:
        client.key_value_set(f"{place}/{process}", value)
        return value
    try:
        return client.blocking_key_value_get(f"{place}/{process}", _PATIENCE_MS)
    except jax.errors.JaxRuntimeError as error:
        raise StateError(
            f"{what}: process {process} did not come",
            f"{error}".split("\n")[0],
            "every process to run the same lines",
            "call fit, save and load in all of them: process 0 alone writes",
        ) from error
