"""Which device programs are made for: some ways of computing are fast on one kind alone."""

import contextlib
from typing import Any

import jax

# Part of the key of JAX's caches: what was traced for one kind of device is not taken for all.
_any_device = jax.make_user_context(False)


def on_cpu() -> bool:
    """Returns whether programs are made for a CPU alone."""
    return jax.default_backend() == "cpu" and not for_any_device()


def on_cuda() -> bool:
    """Returns whether programs are made for NVIDIA's devices alone."""
    if jax.default_backend() != "gpu" or for_any_device():
        return False
    return "NVIDIA" in jax.devices()[0].device_kind


def slow_in_loops(jaxpr: Any) -> bool:
    """Returns whether XLA's code for a CPU takes a slow way if a program runs in a loop.

    It does for convolutions, whose gradients took up to 50 times as long.
    """
    return "conv_general_dilated" in str(jaxpr)


def for_any_device() -> bool:
    """Returns whether a program is made that other devices run, on sizes not known yet."""
    return _any_device.value


def any_device() -> contextlib.AbstractContextManager[None]:
    """Lets programs compute in the plain way that suits all devices and sizes, for `export`."""
    return _any_device(True)
