"""Masked: every way out of it raises, keeps the mask, or was chosen."""

import copy
import inspect
import pickle
import warnings

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
import pytest

from alphorn import Masked, MaskError, ShapeError, Variable, ops, unmask
from alphorn.core.masked import has_masked, is_masked

DATA = np.arange(1, 13, dtype="float32").reshape(2, 3, 2)
MASK = np.array([[True, True, False], [True, False, False]])


def sequence() -> Masked:
    return Masked(DATA, MASK)


MODULES = {
    "jnp": jnp,
    "jnp.linalg": jnp.linalg,
    "jnp.fft": jnp.fft,
    "jax.nn": jax.nn,
    "jax.lax": jax.lax,
    "jax.scipy.special": jax.scipy.special,
    "np": np,
    "np.linalg": np.linalg,
    "np.fft": np.fft,
}
# They read shape and type and none of the numbers.
OF_SHAPES = {"empty_like", "full_like", "iota", "ones_like", "zeros_like", "create_token"}
# NumPy's conversions are a chosen exit, as `np.asarray` is.
CONVERSIONS = {
    "array",
    "asanyarray",
    "asarray",
    "asarray_chkfinite",
    "ascontiguousarray",
    "asfortranarray",
    "require",
}
# JAX says first, in words of its own, that this is no array.
JAX_SPEAKS = {
    "stack": lambda m: jax.lax.stack([m, m]),
    "unstack": jax.lax.unstack,
    "reduce": lambda m: jax.lax.reduce(m, 0.0, jax.lax.add, (1,)),
}
NO_ARRAYS = {
    "info",
    "seterr",
    "seterrcall",
    "setbufsize",
    "set_printoptions",
    "show_config",
    "test",
}
# Names under which JAX and NumPy keep a function of another name.
ALIASES = {
    "array": "array",
    "concat": "concatenate",
    "conj": "conjugate",
    "pow": "power",
    "abs": "absolute",
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atan2": "arctan2",
    "atanh": "arctanh",
    "bitwise_invert": "invert",
    "bitwise_left_shift": "left_shift",
    "bitwise_not": "invert",
    "bitwise_right_shift": "right_shift",
    "bmat": "concatenate",
    "hard_swish": "hard_silu",
    "permute_dims": "transpose",
    "random_gamma_grad": "up_and_broadcast",
    "row_stack": "vstack",
    "sph_harm_y": "max",
    "swish": "silu",
    "unwrap": "copyto",
}


def public_functions(module):
    for name in sorted(set(dir(module)) - NO_ARRAYS):
        function = getattr(module, name)
        if not name.startswith("_") and callable(function) and not isinstance(function, type):
            yield name, function


def attempts(function, m):
    """Plausible arguments with a Masked among them."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        parameters = []
    needed = [p for p in parameters if p.default is p.empty]
    options = {p.name: 0 for p in needed if p.kind is p.KEYWORD_ONLY}
    more = max(
        len([p for p in needed if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]), 1
    )
    for others in (m, jnp.asarray(DATA), 1, (0,)):
        yield (m, *[others] * (more - 1)), options
    if more > 1 and not {"dtype", "new_dtype", "kind", "tol"} & {p.name for p in needed[1:2]}:
        yield (jnp.asarray(DATA), *[m] * (more - 1)), options
    yield (m, m), {}


def lost(result) -> bool:
    """Whether plain arrays are in the result, outside a Masked."""
    leaves = jax.tree.leaves(result, is_leaf=is_masked)
    return any(isinstance(x, jax.Array | np.ndarray) for x in leaves)


def sweep(module, m):
    """Calls everything; returns messages by name, and the names that lost a mask."""
    refused, losing = {}, set()
    for name, function in public_functions(module):
        for args, options in attempts(function, m):
            try:
                if lost(function(*args, **options)):
                    losing.add(name)
            except MaskError as error:
                refused.setdefault(name, []).append(str(error))
            except Exception:  # wrong arguments: not silent
                continue
    return refused, losing


def traced_sweep(module):
    found = []
    jax.eval_shape(lambda m: found.append(sweep(module, m)), sequence())
    return found[0]


# How many functions raise our error: one that no longer does would go unseen otherwise.
LEAST = {"jnp": 290, "jnp.linalg": 30, "jnp.fft": 18, "jax.nn": 33, "jax.lax": 135}
LEAST |= {"jax.scipy.special": 50, "np": 300, "np.linalg": 30, "np.fft": 16}


@pytest.mark.parametrize("name", MODULES)
def test_no_function_of_plain_arrays_loses_a_mask(name):
    module = MODULES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = [sweep(module, sequence())]
        if not name.startswith("np"):  # NumPy takes no tracers
            runs.append(traced_sweep(module))
    for refused, losing in runs:
        assert losing <= OF_SHAPES | (CONVERSIONS if name == "np" else set())
        assert len(refused) >= LEAST[name]
        wrong = []
        for function, messages in refused.items():
            told = [m for m in messages if "would lose the mask" in m]
            names = {function, ALIASES.get(function, function)}
            if told and not any(f".{n} would" in m for n in names for m in told):
                wrong.append(told[0])
            same = hasattr(ops, function) and name != "jax.lax" and function not in ALIASES
            if told and same and not any(f"use ops.{function} " in m for m in told):
                wrong.append(told[-1])
            assert all("unmask(x)" in m for m in told)
        assert not wrong


@pytest.mark.parametrize("name", JAX_SPEAKS)
def test_where_jax_speaks_first_nothing_is_lost_either(name):
    with pytest.raises((TypeError, ValueError), match="Masked"):
        JAX_SPEAKS[name](sequence())


KERNEL = np.ones((2, 2, 2), "float32")
DIMENSIONS = (((2,), (0,)), ((), ()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: jnp.mean(m, axis=1), "jnp.mean would lose the mask of a (2, 3, 2) sequence"),
        (lambda m: jnp.mean(m, axis=1), "use ops.mean (padding skipped), or unmask(x)"),
        (lambda m: jnp.where(m > 0, m, 0), "use ops.where"),
        (lambda m: jnp.stack([m, m]), "use ops.stack"),
        (lambda m: jnp.einsum("btf,fg->btg", m, jnp.ones((2, 2))), "use ops.einsum"),
        (lambda m: jnp.float32(m), "would lose the mask"),
        (lambda m: jax.lax.max(m, m), "use ops.maximum"),
        (
            lambda m: jax.lax.dot_general(m, jnp.ones((2, 2)), DIMENSIONS),
            "jax.lax.dot_general would",
        ),
        (
            lambda m: jax.lax.conv_general_dilated(
                m, KERNEL, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
            ),
            "jax.lax.conv_general_dilated would",
        ),
        (
            lambda m: jax.nn.dot_product_attention(m[:, :, None], m[:, :, None], m[:, :, None]),
            "mask",
        ),
        (lambda m: jax.random.choice(jax.random.PRNGKey(0), m), "jax.random.choice would"),
        (lambda m: jax.image.resize(m, (2, 2, 2), "linear"), "jax.image.resize would"),
        (lambda m: jax.image.resize(m, (2, 2, 2), "nearest"), "ops.take_steps"),
        (lambda m: jax.ops.segment_sum(m, np.zeros(2, int), 1), "jax.ops.segment_sum would"),
        (lambda m: jnp.zeros((2, 3, 2)).at[:].set(m), "would lose the mask"),
        (lambda m: np.linalg.norm(m), "np.linalg.norm would lose"),
        (lambda m: np.sin(m), "use ops.sin"),
        (lambda m: np.add.reduce(m), "np.add would lose"),
        (lambda m: np.add(m, 1, out=np.zeros((2, 3, 2))), "np.add would lose"),
    ],
)
def test_errors_name_the_function_and_the_way_out(call, message):
    with pytest.raises(MaskError) as error:
        call(sequence())
    assert message in str(error.value)
    with pytest.raises(MaskError):
        jax.eval_shape(call, sequence())


def test_truth_and_containment_raise():
    m = sequence()
    for call in (lambda: bool(m), lambda: 1 if m > 0 else 2, lambda: not m, lambda: 1.0 in m):
        with pytest.raises(MaskError, match=r"(?s)truth.*ops\.any"):
            call()
    assert len({m: 1, sequence(): 2}) == 2 and m in [m]


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda m: m[:, -1], ops.last),
        (lambda m: m[:, 0], ops.first),
        (lambda m: m[:, 1:], lambda m: ops.take_steps(m, 1)),
        (lambda m: [m[:, t] for t in range(m.shape[1])], lambda m: ops.unstack(m, axis=1)),
        (lambda m: jnp.mean(m, axis=1), lambda m: ops.mean(m, axis=1)),
        (lambda m: np.exp(m), ops.exp),
        (lambda m: jax.nn.softmax(m, axis=1), lambda m: ops.softmax(m, axis=1)),
        (lambda m: jnp.concatenate([m, m]), lambda m: ops.concatenate([m, m])),
        (lambda m: m if m > 0 else -m, lambda m: ops.where(m > 0, m, -m)),
        (lambda m: m if bool(m) else -m, ops.any),
        (lambda m: m[m > 0], lambda m: ops.where(m > 0, m, 0)),
        (lambda m: jax.ops.segment_sum(m, np.zeros(2, int), 1), ops.unmask),
    ],
)
def test_the_line_that_an_error_gives_runs(call, instead):
    m = sequence()
    with pytest.raises(MaskError) as error:
        call(m)
    name = (
        next(n for n in instead.__code__.co_names if n != "ops")
        if instead.__name__ == ("<lambda>")
        else instead.__name__
    )
    assert f"ops.{name}" in str(error.value) or f"{name}(x)" in str(error.value)
    assert instead(m) is not None


def test_rows_can_be_counted_and_iterated_over():
    m = sequence()
    assert len(m) == 2 and [r.lengths.tolist() for r in m] == [2, 1]
    with pytest.raises(TypeError, match="Masked"):
        float(m)


def test_chosen_exits_give_the_data():
    m = sequence()
    data = np.where(MASK[..., None], DATA, 0)
    for out in (np.asarray(m), np.array(m), unmask(m), m.data, ops.unmask(m)):
        np.testing.assert_array_equal(out, data)
    assert np.asarray(m, "float64").dtype == np.float64
    assert unmask(3) == 3 and np.shape(m) == jnp.shape(m) == m.shape == (2, 3, 2)
    assert np.ndim(m) == m.ndim == 3 and np.size(m) == m.size == 12 and m.dtype == jnp.float32
    assert repr(m) == "Masked(shape=(2, 3, 2), dtype=float32, mask=(2, 3))"


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e3])
def test_padding_is_finite_from_the_start(junk):
    m = Masked(np.where(MASK[..., None], DATA, junk), MASK)
    np.testing.assert_array_equal(m.data, sequence().data)
    np.testing.assert_array_equal(m.fill(7.0)[~MASK], 7.0)
    ids = Masked(np.where(MASK, 3, 9), MASK)
    assert ids.dtype == jnp.int32 and ids.fill(-1).tolist() == [[3, 3, -1], [3, -1, -1]]
    flags = Masked(np.ones((2, 3), bool), MASK)
    np.testing.assert_array_equal(flags.fill(True), np.ones((2, 3), bool))


def test_lengths_and_extents():
    holes = np.array([[0, 1, 0, 1, 0], [0] * 5, [1] * 5], bool)
    m = Masked(np.ones((3, 5, 1)), holes)
    assert m.lengths.tolist() == [3, 0, 5]
    assert [e.tolist() for e in m.extent] == [[1, 0, 0], [4, 0, 5]]
    nested = Masked(np.ones((1, 2, 3)), np.array([[[1, 1, 0], [0, 0, 0]]], bool))
    assert nested.lengths.tolist() == [[2, 0]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 2), bool), r"received: mask \(2, 2\) with data \(2, 3, 2\)"),
        (np.ones((3, 2), bool), r"expected: a prefix"),
        (np.ones((2, 3, 2, 1), bool), "drop its feature axis"),
        (np.ones((), bool), "prefix"),
        (np.ones((2, 3), "int32"), r"(?s)int32.*mask\.astype\(bool\)"),
    ],
)
def test_a_mask_must_fit(mask, message):
    with pytest.raises(ShapeError, match=message):
        Masked(DATA, mask)


def test_masks_may_cover_rows_steps_or_entries():
    for rank in (1, 2, 3):
        mask = np.ones(DATA.shape[:rank], bool)
        mask[0] = False
        assert float(np.sum(np.asarray(Masked(DATA, mask)))) == DATA[1].sum()
    assert Masked(Variable(DATA), Variable(MASK)).shape == (2, 3, 2)
    assert Masked(DATA.tolist(), MASK.tolist()).mask.dtype == bool


def test_a_second_mask_does_not_bring_padding_back():
    m = Masked(sequence(), np.array([[True, False, True], [True, True, True]]))
    assert m.mask.tolist() == [[True, False, False], [True, False, False]]
    rows = Masked(sequence(), np.array([True, False]))
    assert rows.mask.tolist() == [[True, True, False], [False, False, False]]


# --- indexing


def test_rows_and_features_may_be_indexed():
    m = sequence()
    for index, mask in [
        (0, MASK[0]),
        (slice(1, None), MASK[1:]),
        (np.array([1, 0, 1]), MASK[[1, 0, 1]]),
        (np.array([True, False]), MASK[:1]),
        (jnp.array([[0], [1]]), MASK[:, None]),
        ((slice(None), slice(None), 0), MASK),
        ((..., 0), MASK),
        ((..., slice(0, 1)), MASK),
        ((Ellipsis,), MASK),
        (None, MASK[None]),
        ((slice(None), None), MASK[:, None]),
        ((..., None), MASK),
        ((1, slice(None), 1), MASK[1]),
        ((np.array([1, 0]), slice(None), np.array([0, 1])), MASK[[1, 0]]),
    ]:
        out = m[index]
        np.testing.assert_array_equal(out.mask, mask)
        np.testing.assert_array_equal(out.data, np.asarray(m.data)[index])
    assert [row.mask.tolist() for row in m] == MASK.tolist() and len(m) == 2
    assert not is_masked(Masked(DATA, np.array([True, False]))[0])


@pytest.mark.parametrize(
    "index",
    [
        (slice(None), -1),
        (slice(None), 0),
        (0, 1),
        (slice(None), slice(1, None)),
        (slice(None), slice(None, None, 2)),
        (slice(None), np.array([0, 2])),
        (slice(None), np.array([True, False, True])),
        (slice(None), jnp.array(1)),
        (slice(None), -1, 0),
        (Ellipsis, -1, slice(None)),
        MASK,
        DATA > 3,
    ],
    ids=str,
)
def test_steps_may_not_be_picked_by_their_place_in_the_batch(index):
    with pytest.raises(MaskError, match=r"ops\.last\(x\)"):
        sequence()[index]


def test_a_masked_is_no_index():
    m = sequence()
    for index in (m > 3, (slice(None), m > 3)):
        with pytest.raises(MaskError, match=r"ops\.where"):
            m[index]


# --- transforms


def test_a_masked_crosses_transforms():
    m = sequence()

    @jax.custom_vjp
    def double(x):
        return x * 2

    double.defvjp(lambda x: (x * 2, x.mask), lambda mask, g: (Masked.trusted(g.data * 2, g.mask),))

    def run(m):
        looped = jax.lax.scan(lambda c, _: (c + m, None), m, None, length=2)[0]
        checkpointed = jax.checkpoint(lambda x: x * 3)(m)
        chosen = jax.lax.cond(True, lambda x: x, lambda x: -x, m)
        rows = jax.vmap(lambda row: row * 2)(m)
        by_rows = jax.lax.map(lambda row: ops.sum(row.data), m)
        return looped, checkpointed, chosen, rows, double(m), by_rows

    looped, checkpointed, chosen, rows, doubled, by_rows = jax.jit(run)(m)
    for out, times in ((looped, 3), (checkpointed, 3), (chosen, 1), (rows, 2), (doubled, 2)):
        np.testing.assert_array_equal(out.mask, MASK)
        np.testing.assert_array_equal(out.data, np.asarray(m.data) * times)
    np.testing.assert_array_equal(by_rows, np.asarray(m.data).sum((1, 2)))


def test_gradients_go_by_the_data():
    m = sequence()

    def loss(data):
        return ops.mean(Masked.trusted(data, m.mask) ** 2)

    found = np.asarray(jax.grad(loss)(m.data))
    np.testing.assert_allclose(found, np.where(MASK[..., None], DATA * 2 / 6, 0), rtol=1e-6)
    whole = jax.grad(lambda x: ops.mean(x**2), allow_int=True)(m)
    np.testing.assert_allclose(whole.data, found, rtol=1e-6)
    with pytest.raises(TypeError, match="bool"):
        jax.grad(lambda x: ops.mean(x**2))(m)


def test_copies_files_and_trees():
    m = sequence()
    for other in (copy.copy(m), copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert is_masked(other)
        np.testing.assert_array_equal(other.data, m.data)
        np.testing.assert_array_equal(other.mask, MASK)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path({"x": m})]
    assert paths == ["['x'].data", "['x'].mask"]
    assert has_masked([1, {"a": m}]) and not has_masked([1])
    mapped = jax.tree.map(lambda x: x[:1], m)  # of both parts, as the docstring says
    assert mapped.shape == (1, 3, 2) and mapped.mask.shape == (1, 3)
