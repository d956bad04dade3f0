"""Inputs times kernels, as products of two matrices."""

import math

import jax.numpy as jnp
from jax import Array

from alphorn.kernels.device import on_cpu


def project(x: Array, kernel: Array, axes: int = 1) -> Array:
    """Returns the product of the last axes of `x` with the first of the kernel.

    On a CPU it is one product of two matrices. XLA lays out an operand of the kernel's gradient anew
    where it sums over more than one axis, and computes what led to it, a whole normalization or
    activation, again in that order.

    Args:
        x: `(..., M)`; M stands for as many axes as `axes` says.
        kernel: `(M, N)`; N stands for any number of axes.
        axes: How many axes are summed over.

    Returns:
        `(..., N)`.

    >>> project(jnp.ones((2, 5, 3)), jnp.ones((3, 4, 6))).shape
    (2, 5, 4, 6)
    """
    if not on_cpu():
        return jnp.tensordot(x, kernel, axes)
    rows, columns = x.shape[: x.ndim - axes], kernel.shape[axes:]
    summed = math.prod(kernel.shape[:axes])
    product = x.reshape(math.prod(rows), summed) @ kernel.reshape(summed, math.prod(columns))
    return product.reshape(*rows, *columns)
