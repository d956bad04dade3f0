"""Calls of ops: one row a call, as a function of the namespace of ops and of arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

STEPS, FEATURES = 6, 4
MASK = np.array(
    [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool
)
LENGTHS = [4, 6, 1, 0]
_random = np.random.default_rng(7)
FLOATS = _random.uniform(0.2, 0.9, (4, STEPS, FEATURES)).astype("float32")
SIGNED = _random.normal(size=(4, STEPS, FEATURES)).astype("float32")
LARGE = (FLOATS + 1).astype("float32")
INTEGERS = _random.integers(1, 9, (4, STEPS, FEATURES)).astype("int32")
BOOLEANS = SIGNED > 0
WEIGHTS = _random.normal(size=(FEATURES, 3)).astype("float32")
FEATURE = _random.uniform(0.5, 1.5, FEATURES).astype("float32")
MATRICES = (_random.normal(size=(2, 3, 3)) + 3 * np.eye(3)).astype("float32")
POSITIVE = (MATRICES @ MATRICES.transpose(0, 2, 1)).astype("float32")
GRID = _random.normal(size=(2, 4, 4, 4)).astype("float32")
KERNEL = _random.normal(size=(3, 4, 2)).astype("float32")
KERNEL2 = _random.normal(size=(2, 2, 4, 3)).astype("float32")
VECTOR = np.array([0.5, 1.5, 0.25, 2.5, 2.0], "float32")
COUNTS = np.array([1, 3, 3, 0, 2], "int32")


@dataclass(frozen=True, eq=False)
class Case:
    """A call `call(ops, *inputs)`.

    `sequence` says whether the first input may be masked and each row of the result is then what
    the row alone gives; `name` is the op that the case tests.
    """

    name: str
    call: Callable[..., Any]
    inputs: tuple
    sequence: bool = True
    gradient: bool = True

    def __str__(self) -> str:
        return self.name


def _unary(names: str, x: np.ndarray, gradient: bool = True) -> list[Case]:
    return [
        Case(n, lambda ops, x, n=n: getattr(ops, n)(x), (x,), gradient=gradient)
        for n in names.split()
    ]


def _binary(names: str, x: np.ndarray, y: np.ndarray, gradient: bool = True) -> list[Case]:
    return [
        Case(n, lambda ops, x, y, n=n: getattr(ops, n)(x, y), (x, y), gradient=gradient)
        for n in names.split()
    ]


def _along(name: str, x: np.ndarray, gradient: bool = True, **options: Any) -> list[Case]:
    def over(axis: Any) -> Callable:
        return lambda ops, x: getattr(ops, name)(x, axis=axis, **options)

    return [Case(name, over(axis), (x,), gradient=gradient) for axis in (1, -1)]


def _plain(name: str, call: Callable, *inputs: Any) -> Case:
    return Case(name, call, inputs, False, False)


CASES = [
    *_unary(
        "abs absolute arcsinh arctan ceil conj conjugate cos deg2rad erf erfc floor negative real"
        " sign sin sinc tanh trunc square exp exp2 expm1 cosh sinh tan cbrt rad2deg i0 fabs"
        " relu relu6 elu selu celu gelu silu swish sigmoid softplus softsign log_sigmoid leaky_relu"
        " hard_sigmoid hard_silu hard_swish hard_tanh tanh_shrink hard_shrink soft_shrink"
        " sparse_plus sparse_sigmoid squareplus glu nan_to_num round copy stop_gradient normalize"
        " layer_normalization rms_normalization zeros_like ones_like softmax log_softmax sparsemax",
        SIGNED,
    ),
    *_unary(
        "log log2 log10 log1p sqrt rsqrt reciprocal arcsin arccos arctanh erfinv angle", FLOATS
    ),
    *_unary("arccosh", LARGE),
    *_unary(
        "isfinite isinf isnan isneginf isposinf isreal logical_not signbit imag", SIGNED, False
    ),
    *_unary("bitwise_not bitwise_invert", INTEGERS, False),
    *_binary(
        "add subtract multiply maximum minimum logaddexp logaddexp2 fmax fmin hypot arctan2 divide"
        " true_divide divide_no_nan",
        SIGNED,
        LARGE,
    ),
    *_binary("power", FLOATS, SIGNED),
    *_binary("mod fmod floor_divide heaviside nextafter", SIGNED, LARGE, False),
    *_binary(
        "equal not_equal less less_equal greater greater_equal isclose logical_and logical_or"
        " logical_xor",
        SIGNED,
        FLOATS,
        False,
    ),
    *_binary(
        "bitwise_and bitwise_or bitwise_xor left_shift right_shift bitwise_left_shift"
        " bitwise_right_shift gcd lcm floor_divide mod",
        INTEGERS,
        INTEGERS[::-1].copy(),
        False,
    ),
    *_binary("ldexp", SIGNED, INTEGERS, False),
    Case("cast", lambda ops, x: ops.cast(x, "float16"), (SIGNED,)),
    Case(
        "saturate_cast", lambda ops, x: ops.saturate_cast(x, "uint8"), (SIGNED * 300,), True, False
    ),
    Case(
        "saturate_cast", lambda ops, x: ops.saturate_cast(x, "int8"), (INTEGERS * 90,), True, False
    ),
    Case("clip", lambda ops, x: ops.clip(x, -0.5, 0.5), (SIGNED,)),
    Case("clip", lambda ops, x: ops.clip(x, 2, 5), (INTEGERS,), True, False),
    Case("threshold", lambda ops, x: ops.threshold(x, 0.1, 2.0), (SIGNED,)),
    Case("where", lambda ops, c, x: ops.where(c, x, 0.0), (BOOLEANS, SIGNED), True, False),
    Case("where", lambda ops, x: ops.where(x > 0, x, -x), (SIGNED,)),
    Case("digitize", lambda ops, x: ops.digitize(x, VECTOR[:2]), (SIGNED,), True, False),
    Case("isin", lambda ops, x: ops.isin(x, COUNTS), (INTEGERS,), True, False),
    Case("full_like", lambda ops, x: ops.full_like(x, 2.5), (SIGNED,), True, False),
    Case("array", lambda ops, x: ops.array(x), (SIGNED,)),
    Case("convert_to_tensor", lambda ops, x: ops.convert_to_tensor(x, "float16"), (SIGNED,)),
    *_along("sum", SIGNED),
    *_along("sum", INTEGERS, False),
    *_along("sum", BOOLEANS, False, keepdims=True),
    *_along("prod", FLOATS),
    *_along("mean", SIGNED),
    *_along("mean", INTEGERS, False, keepdims=True),
    *_along("max", SIGNED - 5),
    *_along("amax", SIGNED - 5, keepdims=True),
    *_along("max", INTEGERS - 20, False),
    *_along("min", SIGNED + 5),
    *_along("amin", SIGNED + 5),
    *_along("ptp", SIGNED),
    *_along("any", BOOLEANS, False),
    *_along("all", BOOLEANS, False),
    *_along("count_nonzero", INTEGERS - 3, False),
    *_along("logsumexp", SIGNED),
    *_along("argmax", SIGNED - 5, False),
    *_along("argmin", SIGNED + 5, False, keepdims=True),
    *_along("var", SIGNED),
    *_along("std", SIGNED),
    *_along("norm", SIGNED),
    *_along("norm", SIGNED, ord=1),
    *_along("average", SIGNED),
    *_along("cumsum", SIGNED),
    *_along("cumprod", SIGNED),
    *_along("cumsum", BOOLEANS, False),
    *_along("sort", SIGNED),
    *_along("argsort", SIGNED, False),
    *_along("softmax", SIGNED),
    *_along("log_softmax", SIGNED),
    *_along("sparsemax", SIGNED),
    *_along("normalize", SIGNED),
    *_along("normalize", SIGNED, order=1),
    *_along("flip", SIGNED),
    Case("softmax", lambda ops, x: ops.softmax(x, axis=(1, 2)), (SIGNED,)),
    Case("average", lambda ops, x: ops.average(x, 2, weights=FEATURE), (SIGNED,)),
    Case("moments", lambda ops, x: ops.moments(x, axes=[1]), (SIGNED,)),
    Case("sum", lambda ops, x: ops.sum(x, axis=(1, 2)), (SIGNED,)),
    Case("roll", lambda ops, x: ops.roll(x, 2, axis=1), (SIGNED,)),
    Case("roll", lambda ops, x: ops.roll(x, 1, axis=-1), (SIGNED,)),
    Case("repeat", lambda ops, x: ops.repeat(x, 2, axis=1), (SIGNED,)),
    Case("tile", lambda ops, x: ops.tile(x, (1, 2, 1)), (SIGNED,)),
    Case("tile", lambda ops, x: ops.tile(x, 2), (SIGNED,)),
    Case("pad", lambda ops, x: ops.pad(x, ((0, 0), (0, 0), (1, 2))), (SIGNED,)),
    Case("pad", lambda ops, x: ops.pad(x, [[0, 0], [2, 1], [0, 0]], constant_values=3), (SIGNED,)),
    Case("diff", lambda ops, x: ops.diff(x), (SIGNED,)),
    Case("top_k", lambda ops, x: ops.top_k(x, 2), (SIGNED,), True, False),
    Case("reshape", lambda ops, x: ops.reshape(x, (-1, x.shape[1], 2, 2)), (SIGNED,)),
    Case(
        "transpose", lambda ops, x: ops.transpose(ops.transpose(x, (0, 2, 1)), (0, 2, 1)), (SIGNED,)
    ),
    Case("transpose", lambda ops, x: ops.sum(ops.transpose(x, (0, 2, 1)), -1), (SIGNED,)),
    Case("swapaxes", lambda ops, x: ops.mean(ops.swapaxes(x, 1, 2), -1), (SIGNED,)),
    Case("moveaxis", lambda ops, x: ops.mean(ops.moveaxis(x, 1, 0), 0), (SIGNED,)),
    Case("expand_dims", lambda ops, x: ops.expand_dims(x, -1), (SIGNED,)),
    Case("squeeze", lambda ops, x: ops.squeeze(x[:, :, :1], -1), (SIGNED,)),
    Case("concatenate", lambda ops, x: ops.concatenate([x, x * 2], axis=-1), (SIGNED,)),
    Case("stack", lambda ops, x: ops.stack([x, x * 2], axis=-1), (SIGNED,)),
    Case("split", lambda ops, x: ops.split(x, 2, axis=-1), (SIGNED,)),
    Case("array_split", lambda ops, x: ops.array_split(x, 3, axis=-1), (SIGNED,)),
    Case("unstack", lambda ops, x: ops.unstack(x, axis=-1), (SIGNED,)),
    Case("append", lambda ops, x: ops.append(x, x, axis=-1), (SIGNED,)),
    Case("take", lambda ops, x: ops.take(x, [0, 2], axis=-1), (SIGNED,)),
    Case(
        "take_along_axis",
        lambda ops, x: ops.take_along_axis(x, ops.argsort(x, axis=1), axis=1),
        (SIGNED,),
    ),
    Case("get_item", lambda ops, x: ops.get_item(x, (slice(None), slice(None), 1)), (SIGNED,)),
    Case("tril", lambda ops, x: ops.tril(x), (SIGNED,)),
    Case("triu", lambda ops, x: ops.triu(x), (SIGNED,)),
    Case("one_hot", lambda ops, x: ops.one_hot(x, 9), (INTEGERS,), True, False),
    Case("multi_hot", lambda ops, x: ops.multi_hot(x, 9), (INTEGERS[:, 0],), False, False),
    Case("matmul", lambda ops, x, w: ops.matmul(x, w), (SIGNED, WEIGHTS)),
    Case("dot", lambda ops, x, w: ops.dot(x, w), (SIGNED, WEIGHTS)),
    Case("inner", lambda ops, x, w: ops.inner(x, w), (SIGNED, FEATURE)),
    Case("tensordot", lambda ops, x, w: ops.tensordot(x, w, 1), (SIGNED, WEIGHTS)),
    Case("einsum", lambda ops, x: ops.einsum("btf,btg->bfg", x, x), (SIGNED,)),
    Case("einsum", lambda ops, x: ops.einsum("...f->...", x), (SIGNED,)),
    Case(
        "einsum",
        lambda ops, x: ops.einsum(
            "bts,bsf->btf", ops.softmax(ops.einsum("btf,bsf->bts", x, x), axis=-1), x
        ),
        (SIGNED,),
    ),
    Case(
        "matmul",
        lambda ops, x: ops.matmul(ops.softmax(ops.matmul(x, ops.swapaxes(x, 1, 2))), x),
        (SIGNED,),
    ),
    Case(
        "binary_crossentropy",
        lambda ops, x: ops.binary_crossentropy(ops.cast(x > 0.5, "float32"), x),
        (FLOATS,),
    ),
    Case(
        "binary_crossentropy",
        lambda ops, x: ops.binary_crossentropy(ops.cast(x > 0, "float32"), x, from_logits=True),
        (SIGNED,),
    ),
    Case(
        "categorical_crossentropy",
        lambda ops, x: ops.categorical_crossentropy(ops.ones_like(x) / 4, x, from_logits=True),
        (SIGNED,),
    ),
    Case(
        "categorical_crossentropy",
        lambda ops, x: ops.categorical_crossentropy(ops.one_hot(ops.argmax(x, -1), 4), x),
        (FLOATS,),
    ),
    Case(
        "sparse_categorical_crossentropy",
        lambda ops, x: ops.sparse_categorical_crossentropy(ops.argmin(x, -1), x),
        (FLOATS,),
    ),
    _plain("vdot", lambda ops, x: ops.vdot(x, x), VECTOR),
    _plain("outer", lambda ops, x: ops.outer(x, x), VECTOR),
    _plain("cross", lambda ops, x: ops.cross(x[:3], x[1:4]), VECTOR),
    _plain("kron", lambda ops, x: ops.kron(x, x), VECTOR),
    _plain("ravel", lambda ops, x: ops.ravel(x), SIGNED),
    _plain("hstack", lambda ops, x: ops.hstack([x, x]), SIGNED),
    _plain("vstack", lambda ops, x: ops.vstack([x, x]), SIGNED),
    _plain("broadcast_to", lambda ops, x: ops.broadcast_to(x, (2, 5)), VECTOR),
    _plain("slice", lambda ops, x: ops.slice(x, [1, 0, 0], [2, 3, 4]), SIGNED),
    _plain("slice_update", lambda ops, x: ops.slice_update(x, [1], x[:2]), VECTOR),
    _plain(
        "scatter", lambda ops, i: ops.scatter(i, VECTOR[:2], (4, 4)), np.array([[0, 1], [2, 3]])
    ),
    _plain(
        "scatter_update",
        lambda ops, x: ops.scatter_update(x, [[1], [3]], np.array([9.0, 8.0], "float32")),
        VECTOR,
    ),
    _plain("searchsorted", lambda ops, x: ops.searchsorted(ops.sort(x), x), VECTOR),
    _plain("diag", lambda ops, x: ops.diag(x, 1), VECTOR),
    _plain("diagonal", lambda ops, x: ops.diagonal(x, 0, 1, 2), MATRICES),
    _plain("trace", lambda ops, x: ops.trace(x, 0, 1, 2), MATRICES),
    _plain("nonzero", lambda ops, x: ops.nonzero(x), COUNTS),
    _plain("bincount", lambda ops, x: ops.bincount(x, minlength=6), COUNTS),
    _plain("meshgrid", lambda ops, x: ops.meshgrid(x, x[:2]), VECTOR),
    _plain("quantile", lambda ops, x: ops.quantile(x, [0.3, 0.5], axis=1), SIGNED),
    *(
        _plain(n, lambda ops, x, n=n: getattr(ops, n)(x, np.array([0, 0, 1, 2, 2]), 3), VECTOR)
        for n in ("segment_sum", "segment_max")
    ),
    *(
        _plain(n, lambda ops, x, n=n: getattr(ops, n)(x), MATRICES)
        for n in ("inv", "det", "slogdet", "qr", "svd")
    ),
    *(_plain(n, lambda ops, x, n=n: getattr(ops, n)(x), POSITIVE) for n in ("cholesky", "eigh")),
    _plain("solve", lambda ops, x: ops.solve(x, x), MATRICES),
    _plain("zeros", lambda ops: ops.zeros((2, 3))),
    _plain("ones", lambda ops: ops.ones((2, 3), "int32")),
    _plain("full", lambda ops: ops.full((2,), 3)),
    _plain("arange", lambda ops: ops.arange(1, 9, 2)),
    _plain("linspace", lambda ops: ops.linspace(0, 5, 4, retstep=True)),
    _plain("logspace", lambda ops: ops.logspace(0, 2, 4)),
    _plain("eye", lambda ops: ops.eye(3, 4, 1)),
    _plain("identity", lambda ops: ops.identity(3)),
    _plain("tri", lambda ops: ops.tri(3, 4, 1)),
    _plain("cond", lambda ops, x: ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x), VECTOR),
    _plain("switch", lambda ops, x: ops.switch(1, [ops.sin, ops.cos], x), VECTOR),
    _plain(
        "while_loop",
        lambda ops, x: ops.while_loop(lambda i, y: i < 9, lambda i, y: (i + 1, y * 2), (0, x), 3),
        VECTOR,
    ),
    _plain("fori_loop", lambda ops, x: ops.fori_loop(0, 3, lambda i, y: y + i, x), VECTOR),
    _plain("scan", lambda ops, x: ops.scan(lambda c, y: (c + y, c * y), 1.0, x), VECTOR),
    _plain("associative_scan", lambda ops, x: ops.associative_scan(ops.add, x), VECTOR),
    _plain("map", lambda ops, x: ops.map(lambda y: y * 2, x), VECTOR),
    _plain("vectorized_map", lambda ops, x: ops.vectorized_map(lambda y: y * 2, x), VECTOR),
    *(
        case
        for name in "nansum nanmean nanvar nanstd nanmedian nancumsum median".split()
        for case in _along(name, SIGNED)
    ),
    *(case for name in "nanmax nanmin".split() for case in _along(name, SIGNED - 5)),
    *_along("nanprod", FLOATS),
    *_along("nancumprod", FLOATS),
    *_along("nanargmax", SIGNED - 5, False),
    *_along("nanargmin", SIGNED + 5, False, keepdims=True),
    *(case for n in ("quantile", "nanquantile") for case in _along(n, SIGNED, q=0.3)),
    *(case for n in ("percentile", "nanpercentile") for case in _along(n, SIGNED, q=30)),
    *_along("quantile", SIGNED, q=0.6, method="nearest", keepdims=True),
    Case("select", lambda ops, x: ops.select([x > 1, x > 0], [x, x * 2], 3.0), (SIGNED,)),
    Case("in_top_k", lambda ops, x: ops.in_top_k(ops.argmin(x, -1), x, 4), (SIGNED,), True, False),
    Case("argpartition", lambda ops, x: ops.sort(ops.argpartition(x, 2)), (SIGNED,), True, False),
    Case("fliplr", lambda ops, x: ops.fliplr(x), (SIGNED,)),
    Case("dsplit", lambda ops, x: ops.dsplit(x, 2), (SIGNED,)),
    Case("dstack", lambda ops, x: ops.dstack([x, x * 2]), (SIGNED,)),
    Case("view", lambda ops, x: ops.view(x, "int32"), (SIGNED,), True, False),
    Case("rfft", lambda ops, x: ops.rfft(x), (SIGNED,)),
    Case("trapezoid", lambda ops, x: ops.trapezoid(x, dx=0.5), (SIGNED,)),
    Case("cdist", lambda ops, x: ops.max(ops.cdist(x, x * 2), -1), (SIGNED,)),
    Case(
        "batch_normalization",
        lambda ops, x: ops.batch_normalization(x, FEATURE, FEATURE**2, -1, FEATURE, -FEATURE),
        (SIGNED,),
    ),
    Case(
        "dot_product_attention",
        lambda ops, x: ops.dot_product_attention(
            *[ops.reshape(x, (-1, x.shape[1], 2, 2))] * 3, is_causal=True
        ),
        (SIGNED,),
    ),
    Case(
        "dot_product_attention",
        lambda ops, x: ops.dot_product_attention(*[ops.expand_dims(x, 2)] * 3, scale=0.3),
        (SIGNED,),
    ),
    Case(
        "ctc_loss",
        lambda ops, x: ops.ctc_loss(
            ops.minimum(ops.argmin(x, -1), 2),
            x,
            ops.cast(ops.sum(x, (1, 2)) * 0 + 1, "int32"),
            np.full(x.shape[:1], x.shape[1]) if isinstance(x, np.ndarray) else None,
            3,
        ),
        (SIGNED,),
    ),
    Case("log", lambda ops, x: ops.mean(ops.log(x), 1), (FLOATS,)),
    Case("norm", lambda ops, x: x / ops.norm(x, axis=-1, keepdims=True), (SIGNED,)),
    Case("sqrt", lambda ops, x: ops.sum(ops.sqrt(x), 1), (FLOATS,)),
    Case("flipud", lambda ops, x: ops.flipud(ops.flipud(x)), (SIGNED,)),
    _plain("hsplit", lambda ops, x: ops.hsplit(x, 2), SIGNED),
    _plain("vsplit", lambda ops, x: ops.vsplit(x, 2), SIGNED),
    _plain("rot90", lambda ops, x: ops.rot90(x, 1, (1, 2)), SIGNED),
    _plain("diagflat", lambda ops, x: ops.diagflat(x, 1), VECTOR),
    _plain("unique", lambda ops, x: ops.unique(x, return_counts=True), COUNTS),
    _plain("histogram", lambda ops, x: ops.histogram(x, 4), VECTOR),
    _plain("allclose", lambda ops, x: ops.allclose(x, x + 1e-9), VECTOR),
    _plain("unravel_index", lambda ops, i: ops.unravel_index(i, (2, 3)), COUNTS),
    _plain("vander", lambda ops, x: ops.vander(x, 3), VECTOR),
    _plain("geomspace", lambda ops: ops.geomspace(1.0, 8.0, 4)),
    _plain("vectorize", lambda ops, x: ops.vectorize(lambda y: y * 2)(x), VECTOR),
    *(
        _plain(n, lambda ops, x, n=n, f=f: getattr(ops, n)(x, 2, data_format=f), GRID)
        for n in ("depth_to_space", "space_to_depth")
        for f in ("channels_last", "channels_first")
    ),
    *(
        _plain(n, lambda ops, x, w, n=n: getattr(ops, n)(x, w, 2, "same"), SIGNED, kernel)
        for n, kernel in (("conv", KERNEL), ("depthwise_conv", KERNEL))
    ),
    _plain("conv", lambda ops, x, w: ops.conv(x, w, dilation_rate=2), GRID, KERNEL2),
    _plain(
        "separable_conv",
        lambda ops, x, w: ops.separable_conv(x, w, np.ones((1, 8, 3), "float32")),
        SIGNED,
        KERNEL,
    ),
    *(
        _plain(n, lambda ops, x, n=n: getattr(ops, n)(x, 3, 2, "same"), SIGNED)
        for n in ("max_pool", "average_pool")
    ),
    _plain("max_pool", lambda ops, x: ops.max_pool(x, 2, 2, data_format="channels_first"), GRID),
    _plain("unfold", lambda ops, x: ops.unfold(x, 2, padding=1, stride=2), GRID),
    _plain("fold", lambda ops, x: ops.fold(ops.unfold(x, 3), 4, 3), GRID),
    Case("extract_sequences", lambda ops, x: ops.extract_sequences(x, 2, 2), (SIGNED,)),
    *(
        _plain(n, lambda ops, n=n: getattr(ops, n)(6))
        for n in ("bartlett", "blackman", "hamming", "hanning")
    ),
    _plain("kaiser", lambda ops: ops.kaiser(6, 2.0)),
    *(
        _plain(n, lambda ops, x, n=n: getattr(ops, n)((x, x[::-1])), SIGNED)
        for n in ("fft", "fft2", "ifft2")
    ),
    _plain("irfft", lambda ops, x: ops.irfft((x, x[::-1])), SIGNED),
    _plain("view_as_complex", lambda ops, x: ops.imag(ops.view_as_complex(x)), SIGNED[..., :2]),
    _plain("view_as_real", lambda ops, x: ops.view_as_real(x), (VECTOR + 1j).astype("complex64")),
    _plain("polar", lambda ops, x: ops.view_as_real(ops.polar(x, x)), VECTOR),
    _plain("correlate", lambda ops, x: ops.correlate(x, x[:3], "same"), VECTOR),
    _plain("corrcoef", lambda ops, x: ops.corrcoef(x), MATRICES[0]),
    _plain("psnr", lambda ops, x: ops.psnr(x, x * 1.1, 2.0), VECTOR),
    *(_plain(n, lambda ops, x, n=n: getattr(ops, n)(x), MATRICES) for n in ("pinv", "lu_factor")),
    *(
        _plain(n, lambda ops, x, n=n: getattr(ops, n)(x), POSITIVE)
        for n in ("logdet", "matrix_rank")
    ),
    _plain("cholesky_inverse", lambda ops, x: ops.cholesky_inverse(ops.cholesky(x)), POSITIVE[0]),
    _plain("solve_triangular", lambda ops, x: ops.solve_triangular(x, x, lower=True), POSITIVE),
    _plain("lstsq", lambda ops, x: ops.lstsq(x, x[:, 0]), MATRICES[0]),
]
# Shape, type and conversion; gradients; and creation without numbers to compare.
ELSEWHERE = {
    *("shape", "ndim", "size", "dtype", "is_tensor", "convert_to_numpy", "custom_gradient", "jvp"),
    *("eig", "empty", "empty_like", "segment_min", "segment_prod"),
}
OURS = {"first", "last", "take_steps", "unmask", "lengths", "valid", "with_mask"}
