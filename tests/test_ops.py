"""Ops: Keras's numbers on plain data, and on sequences what each row alone would give."""

import functools
import inspect
import itertools
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from alphorn import ops
from alphorn.core.masked import Masked, is_masked
from alphorn.core.symbol import Symbol, topological_order
from alphorn.core.variable import Variable
from alphorn.errors import MaskError, ShapeError
from alphorn.naming import serialize
from alphorn.ops.table import PUBLIC, TABLE, Operation
from ops_cases import CASES, ELSEWHERE, LENGTHS, MASK, OURS, SIGNED, STEPS, Case

# Aliases are the same functions: one test of a row is enough.
SEQUENCES = [c for c in CASES if c.sequence and TABLE[c.name].name == c.name]
TOLERANCE = 1e-5


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Hundreds of small programs: most of the time went into optimizing them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def leaves(tree):
    return jax.tree.leaves(tree, is_leaf=is_masked)


def close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    if ours.dtype.kind in "bi":
        np.testing.assert_array_equal(ours, theirs)
        return
    ours, theirs = ours.astype("float32"), theirs.astype("float32")
    scale = max(1.0, float(np.max(np.abs(theirs[np.isfinite(theirs)]), initial=0)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * scale)


def timed(x):
    return getattr(x, "shape", ())[:2] == MASK.shape


def masked_inputs(case: Case, junk: float = 0.0, mask: np.ndarray = MASK) -> tuple:
    """Every input with a time axis as a Masked, whose padding really holds the junk."""

    def one(x):
        if not timed(x):
            return x
        junk_here = junk if np.issubdtype(x.dtype, np.floating) else np.asarray(77).astype(x.dtype)
        return Masked(np.where(mask[..., None], x, junk_here), mask)

    return tuple(one(x) for x in case.inputs)


def with_padding(case: Case, value: float) -> tuple:
    """Masked inputs whose padding holds a large finite number, as after a layer."""

    def one(x):
        if not is_masked(x) or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return Masked.trusted(jnp.where(x.mask[..., None], x.data, value), x.mask)

    return tuple(one(x) for x in masked_inputs(case))


def row_of(result, row: int, alone):
    """The part of a batch's result that belongs to a row, in the shape that the row alone has."""
    if not is_masked(result):
        return result[row : row + 1]
    data, mask = np.asarray(result.data[row]), np.asarray(result.mask[row])
    for axis in range(mask.ndim):
        if mask.shape[axis] != alone.shape[axis + 1]:
            mask, data = (np.take(a, range(alone.shape[axis + 1]), axis) for a in (mask, data))
    assert mask.all()
    return data[None]


# Keras 3.15's sparsemax does not sum to 1 on JAX.
@pytest.mark.parametrize("case", [c for c in CASES if c.name != "sparsemax"], ids=str)
def test_plain_data_gives_what_keras_gives(case):
    ours, theirs = case.call(ops, *case.inputs), case.call(keras.ops, *case.inputs)
    for kind in (tuple, list):
        assert isinstance(ours, kind) == isinstance(theirs, kind)
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        assert jnp.asarray(a).dtype == jnp.asarray(b).dtype
        close(a, b)


@functools.lru_cache(maxsize=4)
def compiled(case: Case):
    return jax.jit(lambda *inputs: case.call(ops, *inputs))


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_each_row_is_as_if_alone(case):
    batch = leaves(compiled(case)(*masked_inputs(case)))
    length = LENGTHS[0]
    alone = tuple(x[:1, :length] if timed(x) else x for x in case.inputs)
    for part, wanted in zip(batch, leaves(case.call(ops, *alone)), strict=True):
        close(row_of(part, 0, wanted), wanted)


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_junk_changes_nothing_and_padding_is_finite(case):
    clean = leaves(case.call(ops, *masked_inputs(case)))
    others = [masked_inputs(case, junk) for junk in (1e3, np.inf, np.nan)]
    for inputs in (*others, with_padding(case, 200.0), with_padding(case, -200.0)):
        for a, b in zip(leaves(compiled(case)(*inputs)), clean, strict=True):
            assert is_masked(a) == is_masked(b)
            assert np.isfinite(np.asarray(ops.unmask(a), "float32")).all()
            if is_masked(a):
                np.testing.assert_array_equal(a.mask, b.mask)
                valid = np.asarray(a.mask)
                close(np.asarray(a.data)[valid], np.asarray(b.data)[valid])
            else:
                close(a, b)


@pytest.mark.parametrize("case", [c for c in SEQUENCES if c.gradient], ids=str)
def test_gradients_are_finite_and_zero_in_padding(case):
    first, *others = masked_inputs(case)

    def total(data):
        parts = leaves(case.call(ops, Masked.trusted(data, first.mask), *others))
        floats = [p for p in parts if jnp.issubdtype(p.dtype, jnp.floating)]
        return sum(ops.sum(ops.cast(p, "float32")) for p in floats)

    gradient = jax.jit(jax.grad(total))
    for padding in (0.0, 200.0):
        found = np.asarray(gradient(jnp.where(MASK[..., None], first.data, padding)))
        assert np.isfinite(found).all()
        assert not found[~MASK].any()


@pytest.mark.parametrize("case", [c for c in SEQUENCES if c.gradient], ids=str)
def test_gradients_are_those_of_the_row_alone(case):
    first, *others = masked_inputs(case)
    length = LENGTHS[0]

    def total(result):
        floats = [p for p in leaves(result) if jnp.issubdtype(p.dtype, jnp.floating)]
        plain = [p.fill(0) if is_masked(p) else p for p in floats]
        return sum(jnp.sum(jnp.square(p[0].astype("float32"))) for p in plain)

    def together(data):
        return total(case.call(ops, Masked.trusted(data, first.mask), *others))

    def alone(data):
        rest = [x[:1, :length] if timed(x) else x for x in case.inputs[1:]]
        return total(case.call(ops, data, *rest))

    found = jax.jit(jax.grad(together))(first.data)
    wanted = jax.jit(jax.grad(alone))(jnp.asarray(case.inputs[0][:1, :length]))
    close(found[0, :length], wanted[0])
    assert not np.asarray(found[1:]).any()


@pytest.mark.parametrize("case", [c for c in SEQUENCES if c.gradient], ids=str)
def test_sixteen_bits_are_as_alone_and_empty_rows_finite(case):
    def half(x):
        return x.astype(jnp.bfloat16) if getattr(x, "dtype", None) == np.float32 else x

    first, *others = masked_inputs(case, np.nan)
    narrow = [
        Masked.trusted(half(x.data), x.mask) if is_masked(x) else half(x) for x in (first, *others)
    ]
    length = LENGTHS[0]
    alone = tuple(half(jnp.asarray(x[:1, :length]) if timed(x) else x) for x in case.inputs)
    wanted = leaves(case.call(ops, *alone))
    for part, one in zip(leaves(compiled(case)(*narrow)), wanted, strict=True):
        assert (part.data if is_masked(part) else part).dtype == one.dtype
        assert np.isfinite(np.asarray(ops.unmask(part), "float32")).all()
        ours, theirs = (np.asarray(a, "float32") for a in (row_of(part, 0, one), one))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-2 * max(1, abs(theirs).max()))


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_symbols_have_the_shape_dtype_and_mask_of_the_result(case):
    inputs = masked_inputs(case)
    symbols = [
        Symbol((None, *x.shape[1:]), x.dtype, x.mask.ndim) if is_masked(x) else x for x in inputs
    ]
    out = leaves(case.call(ops, *symbols))
    for symbol, result in zip(out, leaves(case.call(ops, *inputs)), strict=True):
        assert len(symbol.shape) == result.ndim
        assert all(s in (None, n) for s, n in zip(symbol.shape, result.shape, strict=True))
        assert symbol.dtype == result.dtype.name
        assert symbol.masked == (result.mask.ndim if is_masked(result) else 0)


def test_every_op_has_a_case_and_keras_signature():
    assert {c.name for c in CASES} | ELSEWHERE | OURS == set(ops.__all__)
    for name in set(ops.__all__) - OURS:
        theirs = inspect.signature(getattr(keras.ops, name)).parameters
        ours = inspect.signature(getattr(ops, name)).parameters
        # Tuples and lists are one to a user; **kwargs in Keras are leftovers of old names.
        assert list(ours) == [p for p in theirs if p != "kwargs" or name == "einsum"], name
        assert [p.default for n, p in theirs.items() if n in ours] == [
            p.default for p in ours.values()
        ], name


def test_functions_are_real_to_tools():
    for name, function in PUBLIC.items():
        assert inspect.isfunction(function)
        assert function.__module__ == "alphorn.ops"
        assert "Mask: " in function.__doc__
        assert function.__doc__.splitlines()[0].endswith(".")
        assert TABLE[name].rule.says.endswith(".")
    assert (
        str(inspect.signature(ops.mean))
        == "(x: Any, axis: Any = None, keepdims: bool = False) -> Any"
    )


X = Masked(SIGNED, MASK)


@pytest.mark.parametrize(
    "other", [2, 2.0, np.float32(2), np.ones(4, "float32"), jnp.ones((4, 6, 4))]
)
def test_operators_from_either_side(other):
    def both(x, y):
        return [x + y, y + x, x * y, y * x, x - y, y - x, x / y, y / x, y**x, x < y, y < x, x == y]

    plain = jnp.asarray(SIGNED)
    for wanted, a, b in zip(
        both(plain, jnp.asarray(other)), both(X, other), jax.jit(both)(X, other), strict=True
    ):
        assert is_masked(a) and is_masked(b)
        np.testing.assert_array_equal(a.mask, MASK)
        for out in (a, b):
            close(np.asarray(out.data)[MASK], np.asarray(wanted)[MASK])


def test_operators_with_variables_and_methods():
    scale = Variable(np.full(4, 2.0, "float32"))
    close((scale * X).data, (X * 2).data)
    close((X @ Variable(np.eye(4, dtype="float32"))).data, X.data)
    close(X.mean(1), ops.mean(X, 1))
    close(X.std(axis=1), ops.std(X, axis=1))
    assert X.astype("int32").dtype == jnp.int32
    assert X.reshape(4, STEPS, 2, 2).shape == (4, STEPS, 2, 2)
    assert X.T.shape == (4, STEPS, 4)
    close(abs(-X).data, jnp.abs(X.data))
    close(ops.sum(X), SIGNED[MASK].sum())
    close(ops.sum(X, axis=0).data, np.where(MASK[..., None], SIGNED, 0).sum(0))
    np.testing.assert_array_equal(ops.max(X, axis=0).mask, MASK.any(0))


def test_an_absent_step_contributes_the_identity():
    longer = np.arange(STEPS) < np.array([5, 2, 3, 2])[:, None]
    y = Masked(SIGNED + 5, longer)
    for op, wanted in (
        (ops.add, y.data),
        (ops.multiply, y.data),
        (ops.maximum, y.data),
        (ops.minimum, y.data),
        (ops.subtract, -y.data),
        (ops.divide, 1 / y.data),
        (ops.logaddexp, y.data),
        (ops.hypot, y.data),
    ):
        out = op(X, y)
        np.testing.assert_array_equal(out.mask, MASK | longer)
        only = ~MASK & longer
        close(np.asarray(out.data)[only], np.asarray(wanted)[only])
        close(np.asarray(out.data)[~(MASK | longer)], np.zeros((int((~(MASK | longer)).sum()), 4)))
    same = np.asarray(ops.equal(X, y).data)
    assert not same[MASK ^ longer].any()


def test_one_value_a_row_reaches_every_step_and_makes_none():
    mean = ops.mean(X, axis=1, keepdims=True)
    np.testing.assert_array_equal((X - mean).mask, MASK)
    rows = Masked(np.ones((4, 1, 4), "float32"), np.ones((4, 1), bool))
    np.testing.assert_array_equal((rows + X).mask, MASK)
    with pytest.raises(ShapeError, match="expand_dims"):
        ops.subtract(Masked(SIGNED[:, :5], MASK[:, :5]), ops.mean(X, axis=1))


def test_joins_follow_time():
    plain = jnp.ones((4, 2, 4))
    out = ops.concatenate([X, plain], axis=1)
    np.testing.assert_array_equal(out.mask, np.concatenate([MASK, np.ones((4, 2), bool)], 1))
    other = Masked(SIGNED, np.ones_like(MASK))
    np.testing.assert_array_equal(ops.concatenate([X, other], -1).mask, MASK)
    steps = ops.unstack(X, axis=1)
    back = ops.stack(steps, axis=1)
    np.testing.assert_array_equal(back.mask, MASK)
    close(back.data, X.data)
    parts = ops.split(X, 2, axis=1)
    np.testing.assert_array_equal(ops.concatenate(parts, axis=1).mask, MASK)


GAPS = np.array([[0, 0, 1, 0, 1, 1], [1, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 0, 1]], bool)


def test_steps_count_in_each_rows_own_extent():
    x = Masked(SIGNED, GAPS)
    first, last = ops.first(x), ops.last(x)
    for row, (a, b) in enumerate([(2, 5), (0, 1), (None, None), (5, 5)]):
        close(first[row], np.zeros(4) if a is None else SIGNED[row, a])
        close(last[row], np.zeros(4) if b is None else SIGNED[row, b])
    np.testing.assert_array_equal(ops.lengths(x), [4, 2, 0, 1])
    bounds = [(None, None), (1, 3), (-2, None), (-3, 2), (0, -1), (1, 9)]
    for (start, stop), step in itertools.product(bounds, (1, 2)):
        out = ops.take_steps(x, start, stop, step)
        for row, (a, b) in enumerate([(2, 6), (0, 2), (0, 0), (5, 6)]):
            wanted, valid = SIGNED[row, a:b][start:stop:step], GAPS[row, a:b][start:stop:step]
            assert len(wanted) <= out.shape[1]
            mask = np.asarray(out.mask[row])
            np.testing.assert_array_equal(mask[: len(valid)], valid)
            assert not mask[len(valid) :].any()
            close(np.asarray(out.data[row])[mask], wanted[valid])
    flipped = ops.flip(x, axis=1)
    np.testing.assert_array_equal(flipped.mask[0], [0, 0, 1, 1, 0, 1])
    close(flipped.data[0, 3], SIGNED[0, 4])
    close(ops.first(jnp.asarray(SIGNED)), SIGNED[:, 0])
    close(ops.take_steps(jnp.asarray(SIGNED), 1, 3), SIGNED[:, 1:3])


def test_nested_masks():
    data = np.repeat(SIGNED[:, :, None], 3, 2)
    words = MASK[..., None] & (np.arange(3) < 2)
    x = Masked(data, words)
    sentences = ops.mean(x, axis=2)
    np.testing.assert_array_equal(sentences.mask, MASK)
    close(sentences.data, np.where(MASK[..., None], SIGNED, 0))
    close(ops.mean(sentences, axis=1), ops.mean(X, axis=1))
    np.testing.assert_array_equal(ops.last(x).mask, MASK)
    assert not is_masked(ops.max(x, axis=(1, 2)))
    folded = ops.reshape(x, (24, 3, 4))
    np.testing.assert_array_equal(folded.mask, words.reshape(24, 3))
    softened = ops.softmax(Masked(data[..., 0], words), axis=-1)
    close(np.asarray(ops.sum(softened, -1).data)[MASK], np.ones(MASK.sum()))


def test_top_k_over_time_masks_what_a_row_lacks():
    values, places = ops.top_k(Masked(SIGNED[..., 0], MASK), 3)
    np.testing.assert_array_equal(values.mask, np.arange(3) < np.array(LENGTHS)[:, None])
    np.testing.assert_array_equal(places.mask, values.mask)
    for row, length in enumerate(LENGTHS):
        wanted = np.sort(SIGNED[row, :length, 0])[::-1][:3]
        close(values.data[row, : len(wanted)], wanted)


def test_lookup_by_masked_indices():
    ids = Masked(np.where(MASK, 2, 99), MASK)
    out = ops.take(jnp.arange(12.0).reshape(3, 4), ids, axis=0)
    np.testing.assert_array_equal(out.mask, MASK)
    assert np.isfinite(out.data).all()
    close(np.asarray(out.data)[MASK], np.tile(np.arange(8.0, 12), (MASK.sum(), 1)))


@pytest.mark.parametrize(
    ("call", "way_out"),
    [
        (lambda: ops.reshape(X, (4, -1)), r"ops.reshape.*features of several steps.*unmask"),
        (lambda: ops.ravel(X), "ops.ravel"),
        (lambda: ops.take(X, 0, axis=1), r"ops.take.*ops.last"),
        (lambda: X[:, -1], "ops.last"),
        (lambda: ops.histogram(X), r"ops.histogram.*unmask"),
        (lambda: ops.quantile(X, [0.1, 0.2], 2), r"ops.quantile.*one q at a time"),
        (lambda: ops.trapezoid(X, axis=1), r"ops.trapezoid.*unmask"),
        (lambda: ops.cumsum(X), r"ops.cumsum.*name an axis"),
        (lambda: ops.argmax(X), "ops.argmax.*axis=1"),
        (lambda: ops.repeat(X, 2), "ops.repeat"),
        (lambda: ops.pad(X, 1, mode="reflect"), "ops.pad.*constant"),
        (lambda: ops.outer(X, X), "ops.outer.*einsum"),
        (lambda: ops.one_hot(X, 3, axis=1), "ops.one_hot"),
        (lambda: ops.leaky_relu(SIGNED, X), "argument `negative_slope`"),
        (lambda: ops.glu(X, axis=1), "ops.glu"),
        (lambda: ops.norm(X, -1, axis=1), "ops.norm"),
    ],
)
def test_refusals_name_the_way_out(call, way_out):
    with pytest.raises(MaskError, match=f"(?s){way_out}"):
        call()


def test_wrong_arguments_name_the_op():
    with pytest.raises(TypeError, match=r"ops.mean\(x.*axis.*unexpected"):
        ops.mean(SIGNED, axes=1)
    with pytest.raises(ShapeError, match=r"ops.mean: axis=3"):
        ops.mean(X, axis=3)


def test_a_graph_records_each_op_by_name():
    x = Symbol((None, None, 4), masked=2)
    y = ops.mean(2 * x + 1, axis=1)
    assert (y.shape, y.masked) == ((None, 4), 0)
    nodes = topological_order([y], [x])
    assert [n.operation.op for n in nodes] == ["multiply", "add", "mean"]
    assert len({id(n.operation) for n in nodes}) == 3
    again = Operation.from_config(nodes[2].operation.get_config())
    close(again(X, axis=1), ops.mean(X, axis=1))
    assert serialize(ops.relu) == "relu"
    assert (x == x) is True
    assert x[:, :, :2].shape == (None, None, 2)


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    p = np.asarray(ops.sparsemax(SIGNED), "float64")
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)
    # The distance's slope is one number where p is positive, and no lower elsewhere.
    slope = p - SIGNED
    lowest = slope.min(-1, keepdims=True)
    assert (p >= 0).all()
    np.testing.assert_allclose((slope - lowest)[p > 0], 0, atol=1e-6)


def test_conversion_and_metadata():
    assert ops.shape(X) == (4, STEPS, 4)
    assert ops.shape(Symbol((None, 3))) == (None, 3)
    assert (ops.ndim(X), ops.size(X), ops.dtype(X)) == (3, 96, "float32")
    assert ops.is_tensor(X) and ops.is_tensor(jnp.ones(1)) and not ops.is_tensor(np.ones(1))
    assert type(ops.convert_to_numpy(X)) is np.ndarray
    assert ops.convert_to_tensor(X) is X
    np.testing.assert_array_equal(ops.valid(X), MASK)
    np.testing.assert_array_equal(ops.with_mask(SIGNED, MASK).mask, MASK)
    assert ops.empty((2, 3)).shape == ops.empty_like(jnp.ones((2, 3))).shape
    for name in ("segment_min", "segment_prod"):
        call = getattr(ops, name), getattr(keras.ops, name)
        ours, theirs = (f(jnp.arange(4.0), jnp.array([0, 0, 1, 1]), 2) for f in call)
        close(ours, theirs)


def test_control_flow_carries_masks():
    assert ops.fori_loop(0, 2, lambda i, x: x * 2, X).mask.shape == MASK.shape
    assert is_masked(ops.cond(True, lambda: X, lambda: X * 2))
    doubled = ops.vectorized_map(lambda x: x * 2, X)
    close(doubled.data, X.data * 2)


def test_custom_gradient_and_jvp():
    @ops.custom_gradient
    def clipped(x):
        return x * x, lambda *args, upstream: ops.clip(upstream, -1, 1)

    assert float(jax.grad(lambda x: 5 * clipped(x))(3.0)) == 1.0
    value, slope = ops.jvp(lambda x: x * x, (3.0,), (1.0,))
    assert (float(value), float(slope)) == (9.0, 6.0)
