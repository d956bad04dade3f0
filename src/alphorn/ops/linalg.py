"""Products of arrays: masked steps count as zeros where they are summed over.

A product has letters for its axes, as in einsum; the mask of an input lies on its first letters.
The result is valid where all masked inputs are, on the letters that are left.
"""

import string
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jax import Array, lax

from alphorn.core.masked import Masked, fill_masked
from alphorn.ops.elementwise import float_like
from alphorn.ops.rules import filled, refusal, refuse
from alphorn.ops.table import Op, Rule, row


def _claim(letters: str, x: Masked, out: str) -> tuple[str, Array] | None:
    """Returns what an input says about the result: the letters and their mask."""
    mask_letters = letters[: x.mask.ndim]
    gone = tuple(i for i, c in enumerate(mask_letters) if c not in out)
    rest = "".join(c for c in mask_letters if c in out)
    if not rest or (gone and rest == mask_letters[0]):
        return None  # time is gone
    return rest, jnp.any(x.mask, gone) if gone else x.mask


def product_mask(
    operands: Sequence[Any], letters: Sequence[str], out: str, shape: Sequence[int]
) -> Array | None:
    """Returns the mask of a product, which grows along letters between its own; None without one.

    Args:
        operands: Arrays and Masked.
        letters: The axes of each.
        out: The axes of the result.
        shape: The sizes of the result.
    """
    pairs = zip(operands, letters, strict=True)
    claims = [c for x, ls in pairs if isinstance(x, Masked) and (c := _claim(ls, x, out))]
    if not claims:
        return None
    rank = 1 + max(out.index(c) for rest, _ in claims for c in rest)
    valid: Array | None = None
    for rest, mask in claims:
        order = sorted(range(len(rest)), key=lambda i: out.index(rest[i]))
        mask = jnp.transpose(mask, order)
        mask = lax.expand_dims(mask, [i for i, c in enumerate(out[:rank]) if c not in rest])
        valid = mask if valid is None else valid & mask
    assert valid is not None
    return jnp.broadcast_to(valid, tuple(shape[:rank]))


def _contract(
    op: Op, arguments: dict[str, Any], operands: Sequence[Any], letters: Sequence[str], out: str
) -> Any:
    names = op.arrays
    values = [filled(x, 0) for x in operands]
    if names == ("operands",):
        result = op.call_plain(arguments | {"operands": values})
    else:
        result = op.with_arrays(arguments, *values)
    mask = product_mask(operands, letters, out, result.shape)
    return result if mask is None else Masked.trusted(fill_masked(result, mask), mask)


def _einsum_letters(op: Op, subscripts: str, operands: Sequence[Any]) -> tuple[list[str], str]:
    left, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    spare = [c for c in string.ascii_letters if c not in subscripts]
    ranks = [x.ndim - len(t.replace("...", "")) for t, x in zip(terms, operands, strict=True)]
    longest = max((r for t, r in zip(terms, ranks, strict=True) if "..." in t), default=0)
    rest = "".join(spare[:longest])
    if not arrow:
        once = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        out = ("..." if "..." in left else "") + "".join(once)
    expanded = [t.replace("...", rest[longest - r :]) for t, r in zip(terms, ranks, strict=True)]
    if any(len(set(t)) != len(t) for t in expanded):
        raise refusal(op, f"a diagonal in {subscripts!r}", "unmask(x) for plain data")
    return expanded, out.replace("...", rest)


def _einsum(op: Op, arguments: dict[str, Any]) -> Any:
    operands = arguments["operands"]
    letters, out = _einsum_letters(op, arguments["subscripts"], operands)
    return _contract(op, arguments, operands, letters, out)


_SAYS = (
    "masked steps count as zeros where they are summed over; it stays on the axes that are left."
)


@row(Rule(_einsum, _SAYS), arrays=("operands",))
def einsum(subscripts: str, *operands: Any, **kwargs: Any) -> Any:
    """Returns a sum of products in Einstein's notation, e.g. `einsum("btd,bsd->bts", q, k)`."""
    return jnp.einsum(subscripts, *operands, **kwargs)


def _matmul(op: Op, arguments: dict[str, Any]) -> Any:
    x1, x2 = arguments["x1"], arguments["x2"]
    batch = string.ascii_lowercase[: max(x1.ndim, x2.ndim, 2) - 2]
    first = "K" if x1.ndim == 1 else batch[len(batch) - (x1.ndim - 2) :] + "MK"
    second = "K" if x2.ndim == 1 else batch[len(batch) - (x2.ndim - 2) :] + "KN"
    out = batch + ("M" if x1.ndim > 1 else "") + ("N" if x2.ndim > 1 else "")
    return _contract(op, arguments, (x1, x2), (first, second), out)


@row(Rule(_matmul, _SAYS), arrays=("x1", "x2"))
def matmul(x1: Any, x2: Any) -> Any:
    """Returns the matrix product over the last axis of `x1` and the last but one of `x2`."""
    return jnp.matmul(x1, x2)


def _letters_for(x1: Any, x2: Any, axes1: Sequence[int], axes2: Sequence[int]) -> tuple[str, ...]:
    first = list(string.ascii_lowercase[: x1.ndim])
    second = list(string.ascii_uppercase[: x2.ndim])
    for a, b in zip(axes1, axes2, strict=True):
        second[b] = first[a]
    summed = {first[a] for a in axes1}
    out = "".join(c for c in (*first, *second) if c not in summed)
    return "".join(first), "".join(second), out


def _tensordot(op: Op, arguments: dict[str, Any]) -> Any:
    x1, x2, axes = arguments["x1"], arguments["x2"], arguments["axes"]
    if isinstance(axes, int):
        axes = (range(x1.ndim - axes, x1.ndim), range(axes))
    pair = [[a] if isinstance(a, int) else list(a) for a in axes]
    one, two = ([a % x.ndim for a in p] for p, x in zip(pair, (x1, x2), strict=True))
    *letters, out = _letters_for(x1, x2, one, two)
    return _contract(op, arguments, (x1, x2), letters, out)


@row(Rule(_tensordot, _SAYS), arrays=("x1", "x2"))
def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """Returns the product summed over `axes`: the last and first so many, or two lists of axes."""
    return jnp.tensordot(x1, x2, axes)


def _dot(op: Op, arguments: dict[str, Any]) -> Any:
    x1, x2 = arguments["x1"], arguments["x2"]
    summed = bool(x1.ndim and x2.ndim)
    second = -2 if op.name == "dot" and x2.ndim > 1 else -1
    one, two = ([x1.ndim - 1], [x2.ndim + second]) if summed else ([], [])
    *letters, out = _letters_for(x1, x2, one, two)
    return _contract(op, arguments, (x1, x2), letters, out)


@row(Rule(_dot, _SAYS), arrays=("x1", "x2"))
def dot(x1: Any, x2: Any) -> Any:
    """Returns the product summed over the last axis of `x1` and the last but one of `x2`."""
    return jnp.dot(x1, x2)


@row(Rule(_dot, _SAYS), arrays=("x1", "x2"))
def inner(x1: Any, x2: Any) -> Any:
    """Returns the product summed over the last axes."""
    return jnp.inner(x1, x2)


def _vdot(op: Op, arguments: dict[str, Any]) -> Any:
    return op.with_arrays(arguments, *(filled(arguments[name], 0) for name in op.arrays))


@row(Rule(_vdot, "masked steps count as zeros."), arrays=("x1", "x2"))
def vdot(x1: Any, x2: Any) -> Any:
    """Returns the sum of the products of all entries."""
    return jnp.vdot(x1, x2)


def _outer(op: Op, arguments: dict[str, Any]) -> Any:
    x1, x2 = arguments["x1"], arguments["x2"]
    if x1.ndim != 1 or x2.ndim != 1:
        raise refusal(op, "outer flattens its inputs", "ops.einsum('bt,bs->bts', x1, x2)")
    return _contract(op, arguments, (x1, x2), ("a", "b"), "ab")


@row(Rule(_outer, _SAYS), arrays=("x1", "x2"))
def outer(x1: Any, x2: Any) -> Any:
    """Returns the products of all pairs of entries of two vectors."""
    return jnp.outer(x1, x2)


@row(refuse, arrays=("x1", "x2"))
def cross(
    x1: Any, x2: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Any:
    """Returns the cross product of vectors."""
    return jnp.cross(x1, x2, axisa, axisb, axisc, axis)


@row(refuse, arrays=("x1", "x2"))
def kron(x1: Any, x2: Any) -> Any:
    """Returns the Kronecker product."""
    return jnp.kron(x1, x2)


@row(refuse)
def inv(x: Any) -> Any:
    """Returns the inverse of square matrices."""
    return jnp.linalg.inv(float_like(x))


@row(refuse)
def det(x: Any) -> Any:
    """Returns the determinant of square matrices."""
    return jnp.linalg.det(float_like(x))


@row(refuse)
def slogdet(x: Any) -> Any:
    """Returns the sign and the logarithm of the absolute value of determinants."""
    return tuple(jnp.linalg.slogdet(float_like(x)))


@row(refuse)
def cholesky(x: Any, upper: bool = False) -> Any:
    """Returns the triangular root of positive definite matrices."""
    return jnp.linalg.cholesky(float_like(x), upper=upper)


@row(refuse, arrays=("a", "b"))
def solve(a: Any, b: Any) -> Any:
    """Returns `x` with `a @ x = b`."""
    flat = b.ndim == a.ndim - 1
    x = jnp.linalg.solve(float_like(a), b[..., None] if flat else b)
    return x[..., 0] if flat else x


@row(refuse)
def qr(x: Any, mode: str = "reduced") -> Any:
    """Returns an orthogonal and a triangular matrix whose product is `x`."""
    return tuple(jnp.linalg.qr(float_like(x), mode))


@row(refuse)
def svd(x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """Returns the singular value decomposition."""
    return jnp.linalg.svd(float_like(x), full_matrices, compute_uv)


@row(refuse)
def eigh(x: Any) -> Any:
    """Returns the eigenvalues and eigenvectors of symmetric matrices."""
    return tuple(jnp.linalg.eigh(float_like(x)))


@row(refuse)
def eig(x: Any) -> Any:
    """Returns the eigenvalues and eigenvectors of square matrices; on a CPU only."""
    return tuple(jnp.linalg.eig(float_like(x)))


@row(refuse)
def logdet(x: Any) -> Any:
    """Returns the logarithm of the determinant of positive definite matrices."""
    return jnp.linalg.slogdet(float_like(x))[1]


@row(refuse)
def pinv(x: Any, rcond: Any = None) -> Any:
    """Returns the pseudo-inverse; singular values below `rcond` of the largest count as 0."""
    return jnp.linalg.pinv(float_like(x), rcond)


@row(refuse)
def matrix_rank(x: Any, tol: Any = None) -> Any:
    """Returns how many singular values are above `tol`."""
    return jnp.linalg.matrix_rank(float_like(x), tol)


@row(refuse)
def lu_factor(x: Any) -> Any:
    """Returns triangular factors, packed in one matrix, and the rows that were exchanged."""
    return tuple(jax.scipy.linalg.lu_factor(float_like(x)))


@row(refuse, arrays=("a", "b"))
def solve_triangular(a: Any, b: Any, lower: bool = False) -> Any:
    """Returns `x` with `a @ x = b`, for a triangular `a`."""
    flat = b.ndim == a.ndim - 1
    x = jax.scipy.linalg.solve_triangular(float_like(a), b[..., None] if flat else b, lower=lower)
    return x[..., 0] if flat else x


@row(refuse)
def cholesky_inverse(x: Any, upper: bool = False) -> Any:
    """Returns the inverse of the matrix whose triangular root is `x`."""
    one = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)
    root = jax.scipy.linalg.solve_triangular(x, one, lower=not upper)
    turned = jnp.swapaxes(root, -1, -2)
    return root @ turned if upper else turned @ root


@row(refuse, arrays=("a", "b"))
def lstsq(a: Any, b: Any, rcond: Any = None) -> Any:
    """Returns the `x` for which `a @ x` is nearest to `b`."""
    return jnp.linalg.lstsq(float_like(a), b, rcond)[0]


def _distances(op: Op, arguments: dict[str, Any]) -> Any:
    x, y = arguments["x"], arguments["y"]
    batch = string.ascii_lowercase[: x.ndim - 2]
    return _contract(op, arguments, (x, y), (f"{batch}MK", f"{batch}NK"), f"{batch}MN")


@row(Rule(_distances, "stays: a distance is valid where both its ends are."), arrays=("x", "y"))
def cdist(x: Any, y: Any) -> Any:
    """Returns the distances of all pairs of vectors: `(..., M, D)` and `(..., N, D)`."""
    squares = jnp.sum(jnp.square(x[..., :, None, :] - y[..., None, :, :]), -1)
    # The root's slope at 0 is infinite.
    apart = squares > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)
