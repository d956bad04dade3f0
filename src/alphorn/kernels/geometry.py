"""Where windows lie on the rows of a padded batch, and which of them are valid.

Letters: `B` batch, `T` time, `L` a row's own length, `p` the first step of its extent, `k` a
window's span, `s` its stride. A row with the extent `[p, p + L)` gets the windows that it would
get alone; its output `j` stands at position `p // s + j`, so that outputs of stride 1 stay where
their inputs are, and rows padded at the end start at 0. Window `o` of the batch then begins at
`o * s + (p % s) - left(L)`: the same geometry for every row, up to an offset of its own. All
windows of all rows fit into the array's own output length, because
`p // s + ceil(L / s) <= ceil((p + L) / s)`.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import max_dim
from jax.typing import ArrayLike

from alphorn.core.masked import extent, fill_masked

PADDINGS = ("valid", "same", "causal")

Length = TypeVar("Length", int, Array)


def per_axis(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """Returns `value` as one integer for each of `rank` spatial axes.

    >>> per_axis(2, 3, "strides")
    (2, 2, 2)
    """
    values = (value,) * rank if isinstance(value, int | np.integer) else tuple(value)
    if len(values) != rank or any(v < 1 for v in values):
        raise ValueError(
            f"{name}={value!r}: expected a positive integer, or {rank} of them (one a spatial axis)"
        )
    return tuple(int(v) for v in values)


def check_padding(padding: str, allowed: Sequence[str] = PADDINGS) -> None:
    """Raises ValueError if `padding` is none of `allowed`."""
    if padding not in allowed:
        raise ValueError(f"padding={padding!r}: expected one of {', '.join(map(repr, allowed))}")


def span(kernel: int, dilation: int = 1) -> int:
    """Returns the number of steps from a window's first tap to its last, both counted."""
    return (kernel - 1) * dilation + 1


def _at_least_0(length: Length) -> Length:
    if isinstance(length, Array):
        return jnp.maximum(length, 0)
    return max_dim(length, 0)  # which knows the symbolic sizes of jax.export


def is_shorter(length: int, least: int) -> bool:
    """Returns whether an axis is known to be too short; one that jax.export left open is not."""
    return isinstance(length, int) and length < least


def _over(length: Any, by: int) -> Any:
    """Returns `length // by`, of arrays in operations that other programs' converters know."""
    if by == 1:
        return length
    if not isinstance(length, Array):
        return length // by
    return lax.div(length - jnp.where(length < 0, by - 1, 0), np.asarray(by, length.dtype))


def output_length(
    length: Length, kernel: int, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> Length:
    """Returns how many windows a sequence of `length` steps gets (integer or array of them).

    >>> output_length(7, 3, 2), output_length(7, 3, 2, padding="same"), output_length(2, 3)
    (3, 4, 0)
    """
    check_padding(padding)
    if padding != "valid":
        return -_over(-length, stride)
    return _at_least_0(_over(length - span(kernel, dilation), stride) + 1)


def left_padding(
    length: Length, kernel: int, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> Length:
    """Returns how many steps before the first one the first window begins.

    >>> left_padding(7, 4, padding="same"), left_padding(7, 4, padding="causal")
    (1, 3)
    """
    check_padding(padding)
    k = span(kernel, dilation)
    if padding == "valid":
        return length * 0
    if padding == "causal":
        return length * 0 + (k - 1)
    total = (-_over(-length, stride) - 1) * stride + k - length
    return _over(_at_least_0(total), 2)


def axis_pads(
    length: int, kernel: int, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> tuple[int, int]:
    """Returns the `(low, high)` padding of an unmasked axis, as Keras pads it."""
    check_padding(padding)
    k = span(kernel, dilation)
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return k - 1, 0
    # At stride 1 without the length, which may be symbolic.
    total = k - 1
    if stride > 1:
        total = _at_least_0((-(-length // stride) - 1) * stride + k - length)
    return total // 2, total - total // 2


def align(
    x: Array,
    mask: Array,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "valid",
    fill: ArrayLike = 0,
) -> tuple[Array, tuple[int, int]]:
    """Shifts each row of `x` so that uniform windows fall where the row alone would have them.

    Args:
        x: `(B, T, ...)`.
        mask: `(B, T)`, True where valid.
        kernel: taps of a window over time.
        stride: steps between windows.
        dilation: steps between taps.
        padding: "valid", "same" or "causal".
        fill: what stands at masked positions and outside the row.

    Returns:
        The aligned array, and the `(low, high)` padding with `fill` under which a "valid" window
        operation of the same kernel, stride and dilation gives every row's outputs in their places.

    >>> x, pads = align(jnp.arange(1.0, 6)[None], jnp.arange(5)[None] < 4, 3, 2, padding="same")
    >>> x.tolist(), pads
    ([[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0]], (0, 0))
    """
    x = fill_masked(x, mask, fill)
    steps = x.shape[1]
    k = span(kernel, dilation)
    if stride == 1:
        # p % 1 is 0 and left(L) does not depend on L: every row has the same offset.
        return x, axis_pads(steps, kernel, 1, dilation, padding)
    start, stop = extent(mask)
    offset = (
        start
        - _over(start, stride) * stride
        - left_padding(stop - start, kernel, stride, dilation, padding)
    )
    needed = (output_length(steps, kernel, stride, dilation, padding) - 1) * stride + k
    low = {"valid": 0, "same": (k - 1) // 2, "causal": k - 1}[padding]  # the largest left(L)
    high = k + stride - 2  # needed < steps + k, and the largest offset is stride - 1
    widths = [(0, 0), (low, high)] + [(0, 0)] * (x.ndim - 2)
    padded = jnp.pad(x, widths, constant_values=np.asarray(fill, x.dtype))
    # Whole slices, not single steps: one gather of B slices, whose transpose is as cheap.
    shifted = jax.vmap(lambda row, at: lax.dynamic_slice_in_dim(row, at, needed))
    return shifted(padded, low + offset), (0, 0)


def resampled_mask(
    mask: Array, kernel: int, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> Array:
    """Returns the `(B, T_out)` mask of what windows over `(B, T)` make.

    A step is valid iff it is a window that the row alone would have and a tap of it is valid.

    >>> resampled_mask(jnp.array([[True, True, True, True, False]]), 3, 2).tolist()
    [[True, False]]
    """
    start, stop = extent(mask)
    steps = mask.astype(jnp.float32)  # of which more know the largest in a window than of booleans
    aligned, pads = align(steps, mask, kernel, stride, dilation, padding)
    held = lax.reduce_window(
        aligned,
        -np.float32(np.inf),
        lax.max,
        (1, kernel),
        (1, stride),
        ((0, 0), pads),
        window_dilation=(1, dilation),
    )
    index = lax.iota(jnp.int32, held.shape[1]) - _over(start, stride)[:, None]
    windows = output_length(stop - start, kernel, stride, dilation, padding)[:, None]
    return (held > 0) & (index >= 0) & (index < windows)


def transposed_pads(
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "valid",
    output_padding: int | None = None,
) -> tuple[int, int]:
    """Returns the `(low, high)` padding of an axis that a transposed convolution has stretched.

    With `span - 1` on both ends every output of every tap is there; less crops them. Neither end
    depends on the axis' length.

    >>> transposed_pads(3, 2, padding="same"), transposed_pads(2, 3)
    ((2, 1), (1, 2))
    """
    check_padding(padding, ("valid", "same"))
    k = span(kernel, dilation)
    if padding == "valid":
        return k - 1, k - 1 + (max(stride - k, 0) if output_padding is None else output_padding)
    total = k + stride - 2 if output_padding is None else k + k % 2 - 2 + output_padding
    low = min((total + 1) // 2, k - 1)
    return low, total - low


def transposed_mask(
    mask: Array,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "valid",
    output_padding: int | None = None,
) -> Array:
    """Returns the `(B, T_out)` mask of what a transposed convolution makes of `(B, T)`.

    An output is valid iff the row alone would have it and its steps are not all missing: where no
    tap of the row's falls, the row alone has an output without contributions.

    >>> transposed_mask(jnp.array([[True, True, False]]), 3, 2).tolist()
    [[True, True, True, True, True, False, False]]
    """
    low, high = transposed_pads(kernel, stride, dilation, padding, output_padding)
    k = span(kernel, dilation)
    start, stop = (edge[:, None] for edge in extent(mask))
    step = lax.iota(jnp.int32, mask.shape[1])[None]
    own = (step >= start) & (step < stop)
    taps = lax.conv_general_dilated(
        jnp.stack([mask, own], -1).astype(jnp.float32),
        jnp.ones((kernel, 1, 2), jnp.float32),
        (1,),
        [(low, high)],
        (stride,),
        (dilation,),
        ("NXC", "XIO", "NXC"),
        feature_group_count=2,
    )
    held, fall = taps[..., 0] > 0.5, taps[..., 1] > 0.5
    index = lax.iota(jnp.int32, taps.shape[1])[None] - start * stride
    length = (stop - start - 1) * stride + 1 + low + high - (k - 1)
    return (held | ~fall) & (index >= 0) & (index < length) & (stop > start)
