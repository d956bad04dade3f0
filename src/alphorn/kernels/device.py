"""Which device programs are made for: some ways of computing are fast on one kind alone."""

import jax


def on_cpu() -> bool:
    """Returns whether the default device is a CPU."""
    return jax.default_backend() == "cpu"


def on_cuda() -> bool:
    """Returns whether the default device is NVIDIA's."""
    return jax.default_backend() == "gpu" and "NVIDIA" in jax.devices()[0].device_kind
