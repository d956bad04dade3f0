"""Windows, spectra and complex numbers."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from alphorn.config import floatx
from alphorn.ops.elementwise import float_like
from alphorn.ops.rules import entrywise, per_step, refuse
from alphorn.ops.table import Op, add, row


def _window(name: str, function: Callable) -> None:
    def plain(x: Any) -> Any:
        return function(int(x)).astype(floatx())

    add(Op(name, plain, refuse, ("x",), f"Returns the {name} window of `x` entries."))


for _name, _function in {
    "bartlett": jnp.bartlett,
    "blackman": jnp.blackman,
    "hamming": jnp.hamming,
    "hanning": jnp.hanning,
}.items():
    _window(_name, _function)


@row(refuse)
def kaiser(x: Any, beta: Any) -> Any:
    """Returns the Kaiser window of `x` entries."""
    return jnp.kaiser(int(x), beta).astype(floatx())


def _complex(name: str, x: Any) -> Any:
    if not isinstance(x, list | tuple) or len(x) != 2:
        raise ValueError(f"ops.{name}: expected a pair: the real and the imaginary part")
    real, imaginary = (float_like(jnp.asarray(part)) for part in x)
    return real + 1j * imaginary


def _pair(z: Any) -> Any:
    return jnp.real(z), jnp.imag(z)


@row(refuse, arrays=())
def fft(x: Any) -> Any:
    """Returns the Fourier transform along the last axis, of and as (real, imaginary)."""
    return _pair(jnp.fft.fft(_complex("fft", x)))


@row(refuse, arrays=())
def fft2(x: Any) -> Any:
    """Returns the Fourier transform along the last two axes, of and as (real, imaginary)."""
    return _pair(jnp.fft.fft2(_complex("fft2", x)))


@row(refuse, arrays=())
def ifft2(x: Any) -> Any:
    """Returns the inverse of `fft2`."""
    return _pair(jnp.fft.ifft2(_complex("ifft2", x)))


@row(per_step((0,), None))
def rfft(x: Any, fft_length: int | None = None) -> Any:
    """Returns the Fourier transform of real numbers along the last axis, as (real, imaginary)."""
    wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    return _pair(jnp.fft.rfft(wide, fft_length))


@row(refuse, arrays=())
def irfft(x: Any, fft_length: int | None = None) -> Any:
    """Returns the inverse of `rfft`."""
    return jnp.fft.irfft(_complex("irfft", x), fft_length)


@row(refuse)
def view_as_complex(x: Any) -> Any:
    """Returns pairs along the last axis as complex numbers."""
    return x[..., 0] + 1j * x[..., 1]


@row(refuse)
def view_as_real(x: Any) -> Any:
    """Returns complex numbers as pairs along a new last axis."""
    return jnp.stack(_pair(x), -1)


@row(entrywise((1, 0)), arrays=("abs_", "angle"))
def polar(abs_: Any, angle: Any) -> Any:
    """Returns the complex numbers of these sizes and angles."""
    return abs_ * jnp.exp(1j * angle)


@row(refuse, arrays=("x1", "x2"))
def correlate(x1: Any, x2: Any, mode: str = "valid") -> Any:
    """Returns the correlation of two vectors; `mode` is valid, same or full."""
    return jnp.correlate(x1, x2, mode)


@row(refuse)
def corrcoef(x: Any) -> Any:
    """Returns the correlations of the rows of a matrix."""
    return jnp.corrcoef(x)


@row(refuse, arrays=("x1", "x2"))
def psnr(x1: Any, x2: Any, max_val: Any) -> Any:
    """Returns the ratio of the peak to the mean squared difference, in decibels."""
    error = jnp.mean(jnp.square(x1 - x2))
    return 20 * jnp.log10(jnp.asarray(max_val, x2.dtype)) - 10 * jnp.log10(error)


@row(per_step((0, 0)), arrays=("y", "x"))
def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Any:
    """Returns the integral of `y` along an axis by trapezoids, at places `x` or steps of `dx`."""
    return jnp.trapezoid(y, x, dx, axis)
