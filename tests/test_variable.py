"""Variables and scopes: arrays wherever arrays go, never stale, never leaked."""

import copy
import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphorn as keras
from alphorn import StateError, Variable, initializers
from alphorn.core.scope import current_scope, shapes_of
from alphorn.program_cache import after_compilations
from alphorn.random import SeedGenerator

W = np.array([[1.0, -2.0], [3.0, 4.0]], "float32")
X = np.array([[0.5, 1.0], [-1.0, 2.0]], "float32")


def variable(value=W, **options) -> Variable:
    return Variable(value, name="w", **options)


def same(ours, theirs) -> bool:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return ours.shape == theirs.shape and np.array_equal(ours, theirs)


def same_trees(ours, theirs) -> bool:
    ours, theirs = (jax.tree.leaves(tree) for tree in (ours, theirs))
    return len(ours) == len(theirs) > 0 and all(map(same, ours, theirs))


# What a user does with an array, each as a function of the weight.
USES = {
    "jnp.dot": lambda w: jnp.dot(X, w),
    "jnp.dot left": lambda w: jnp.dot(w, jnp.asarray(X)),
    "jnp.tanh": jnp.tanh,
    "jnp.where": lambda w: jnp.where(w > 0, w, 0),
    "jnp.sum": lambda w: jnp.sum(w, axis=0),
    "jnp.einsum": lambda w: jnp.einsum("ij,jk->ik", X, w),
    "jnp.concatenate": lambda w: jnp.concatenate([w, jnp.asarray(X)]),
    "jnp.stack": lambda w: jnp.stack([w, w]),
    "jnp.zeros_like": jnp.zeros_like,
    "jnp.full_like": lambda w: jnp.full_like(w, 3),
    "jnp.asarray": jnp.asarray,
    "jnp.linalg.norm": jnp.linalg.norm,
    "jax.nn.softmax": jax.nn.softmax,
    "jax.nn.one_hot": lambda w: jax.nn.one_hot(w.astype("int32"), 3),
    "jax.lax.exp": jax.lax.exp,
    "jax.lax.dot": lambda w: jax.lax.dot(jnp.asarray(X), w),
    "jit argument": lambda w: jax.jit(lambda a: a * 2)(w),
    "vmap argument": lambda w: jax.vmap(lambda a: a * 2)(w),
    "grad argument": lambda w: jax.grad(lambda a: (a * a).sum())(w),
    "value_and_grad argument": lambda w: jax.value_and_grad(lambda a: (a * a).sum())(w),
    "vjp argument": lambda w: jax.vjp(lambda a: a * a, w)[0],
    "jvp argument": lambda w: jax.jvp(lambda a: a * a, (w,), (w,)),
    "checkpoint argument": lambda w: jax.checkpoint(jnp.sin)(w),
    "cond argument": lambda w: jax.lax.cond(True, lambda a: a * 2, lambda a: a, w),
    "scan inputs": lambda w: jax.lax.scan(lambda c, r: (c + r, r), jnp.zeros(2), w),
    "jax.tree.map": lambda w: jax.tree.map(lambda a: a * 2, {"w": [w]}),
    "array + w": lambda w: jnp.asarray(X) + w,
    "w - array": lambda w: w - jnp.asarray(X),
    "array @ w": lambda w: jnp.asarray(X) @ w,
    "w @ w": lambda w: w @ w,
    "numpy @ w": lambda w: X @ w,
    "numpy * w": lambda w: X * w,
    "numpy < w": lambda w: w > X,
    "np.float32 * w": lambda w: np.float32(2) * w,
    "scalars": lambda w: 1 - 2.0 * w / 3,
    "powers": lambda w: 2.0**w + w**2,
    "integers": lambda w: (w // 2, w % 2),
    "signs": lambda w: (-w, +w, abs(w), round(w)),
    "comparisons": lambda w: (w == w, w != 1, w < 1, w <= 1, w > 1, w >= 1),
    "w[0]": lambda w: w[0],
    "w[:, None]": lambda w: w[:, None, 0],
    "x.at.add": lambda w: jnp.asarray(X).at[:].add(w),
    "w.at.set": lambda w: w.at[0].set(1),
    "methods": lambda w: (w.T, w.sum(), w.mean(axis=0), w.reshape(4), w.astype("int32")),
    "unpacking": lambda w: tuple(w),
    "np.mean": np.mean,
}


def test_a_variable_works_wherever_an_array_does():
    w, array = variable(), jnp.asarray(W)
    wrong = [name for name, use in USES.items() if not same_trees(use(w), use(array))]
    assert not wrong


def test_a_variable_works_wherever_an_array_does_under_jit():
    w = variable()
    uses = {k: v for k, v in USES.items() if "np.mean" not in k}
    pure = keras.functional(lambda: {k: use(w) for k, use in uses.items()}, [w])
    found, _ = jax.jit(pure)([W * 2])
    wanted = jax.jit(lambda array: {k: use(array) for k, use in uses.items()})(W * 2)
    assert not [k for k in uses if not same_trees(found[k], wanted[k])]


def test_numpy_and_python_conversions():
    w, one = variable(), Variable(3.0)
    assert same(np.asarray(w), W) and same(np.mean(w), W.mean()) and same(np.exp(w), np.exp(W))
    assert np.asarray(w, "float64").dtype == np.float64
    assert (float(one), int(one), bool(one), complex(one), f"{one:.1f}") == (3, 3, True, 3, "3.0")
    assert list(range(Variable(2))) == [0, 1]
    assert (len(w), w.shape, w.ndim, w.size, w.tolist()) == (2, (2, 2), 2, 4, W.tolist())
    assert w.dtype == "float32" == jnp.float32 or w.dtype.name == "float32"
    assert repr(w) == "<Variable path=w, shape=(2, 2), dtype=float32>"
    assert jnp.result_type(w) == jnp.float32
    with pytest.raises(AttributeError, match="no attribute 'kernel'"):
        _ = w.kernel
    back = jax.tree.unflatten(jax.tree.structure(w), [jnp.zeros(2)])
    assert isinstance(back, jax.Array)
    assert {w: 1}[w] == 1 and len({w, one}) == 2


def test_first_values_types_and_names():
    made = Variable(lambda shape, dtype: jnp.full(shape, 7, dtype), shape=(2,), dtype="bfloat16")
    assert made.dtype == jnp.bfloat16 and made.name == "variable" and same(made.value, [7, 7])
    assert Variable(1.5).dtype == jnp.float32 and Variable(1).dtype == jnp.int32
    assert Variable(np.ones(2, "float16")).dtype == jnp.float16
    assert Variable(0.0).name == "variable_4"
    assert Variable(made).shape == (2,)
    kept = jnp.ones(2)
    owner = Variable(kept)
    assert owner.slot is not kept and owner.slot.unsafe_buffer_pointer() != (
        kept.unsafe_buffer_pointer()
    )
    with pytest.raises(keras.ShapeError, match="without a shape"):
        Variable(lambda shape, dtype: jnp.zeros(shape))
    with pytest.raises(keras.ShapeError, match=r"(?s)'v'.*\(2,\).*shape \(3,\)"):
        Variable(np.ones(2), shape=(3,), name="v")


def test_assign_casts_copies_and_checks():
    w = variable()
    given = jnp.ones((2, 2))
    w.assign(given)
    assert w.slot is not given
    assert same(w.assign_add(1), W * 0 + 2) and same(w.assign_sub(Variable(0.5)), W * 0 + 1.5)
    w.assign(np.ones((2, 2), "int64"))
    assert w.dtype == jnp.float32 == w.value.dtype
    w.assign(variable(W))
    assert same(w.numpy(), W)
    w.numpy()[0] = 0
    assert same(w.numpy(), W)
    with pytest.raises(keras.ShapeError, match=r"(?s)'w'.*shape \(2,\).*shape \(2, 2\)"):
        w.assign(np.ones(2))


def test_autocast_changes_float_reads_only():
    from alphorn.core.variable import autocast_to

    w, kept, count = variable(), variable(autocast=False), Variable(1)
    with autocast_to("bfloat16"):
        assert w.value.dtype == jnp.bfloat16 and (w * 2).dtype == jnp.bfloat16
        assert kept.value.dtype == jnp.float32 and count.value.dtype == jnp.int32
        w.assign_add(2.0**-20)
    assert same(w.value, W + np.float32(2.0**-20))


def test_copies_share_nothing():
    w = variable()
    w.trainable = False
    for other in (copy.deepcopy(w), copy.copy(w), pickle.loads(pickle.dumps(w))):
        assert (other.name, other.trainable) == ("w", False)
        other.assign_add(1)
        assert same(other.value, W + 1) and same(w.value, W)
        with other.lock:
            assert other.lock is not w.lock


# --- scopes


def test_functional_is_pure():
    w, count = variable(), Variable(0)

    def step(x):
        count.assign_add(1)
        w.assign(w * x)
        assert same(w.value.shape, (2, 2))
        return w.value.sum() + count.value

    pure = keras.functional(step, [w, count])
    out, (new_w, new_count) = jax.jit(pure)([W, 5], 2.0)
    assert same(out, 2 * W.sum() + 6) and same(new_w, 2 * W) and int(new_count) == 6
    assert same(w.value, W) and int(count) == 0
    grads = jax.grad(lambda v: pure([v, 0], 3.0)[0])(W)
    assert same(grads, np.full((2, 2), 3, "float32"))
    each = jax.vmap(jax.grad(lambda v, x: pure([v, 0], x)[0]), (None, 0))(W, np.array([1.0, 2.0]))
    assert same(each, np.stack([W * 0 + 1, W * 0 + 2]))
    stacked, _ = jax.vmap(lambda v: pure([v, 0], 1.0))(np.stack([W, 2 * W]))
    assert same(stacked, [W.sum() + 1, 2 * W.sum() + 1])
    hessian = jax.hessian(lambda v: (pure([v, 0], 1.0)[0]) ** 2)(W)
    assert same(hessian, np.full((2, 2, 2, 2), 2, "float32"))
    with pytest.raises(StateError, match=r"(?s)1 values.*2"):
        pure([W], 1.0)


def test_scopes_nest_and_close_after_an_error():
    a, b = Variable(1.0), Variable(2.0)

    def inner():
        a.assign(10.0)
        b.assign_add(1.0)
        return a + b

    def outer():
        out, (new_a,) = keras.functional(inner, [a])([5.0])
        return out, new_a, a.value

    (out, new_a, kept), (after_a, after_b) = keras.functional(outer, [a, b])([7.0, 8.0])
    assert (float(out), float(new_a), float(kept)) == (19, 10, 7)
    assert (float(after_a), float(after_b), float(a), float(b)) == (7, 9, 1, 2)
    with pytest.raises(ZeroDivisionError):
        keras.functional(lambda: 1 // 0, [a])([5.0])
    assert current_scope() is None and float(a) == 1


def test_leaked_writes_raise_and_name_the_way_out():
    w = variable()
    write = lambda x: (w.assign(w.value * x), x)[1]  # noqa: E731
    outside = (
        lambda: jax.jit(write)(2.0),
        lambda: jax.grad(write)(2.0),
        lambda: jax.vmap(write)(jnp.ones(3)),
        lambda: jax.lax.scan(lambda c, x: (write(c), x), 1.0, jnp.ones(2)),
        lambda: jax.jit(lambda: w.assign(W * 2))(),
    )
    for call in outside:
        with pytest.raises(StateError, match=r"(?s)'w' is (written|read).*alphorn\.jit"):
            call()
    assert same(w.value, W)
    inside = {
        "scan": lambda: jax.lax.scan(lambda c, x: (write(c), x), 1.0, jnp.ones(2))[0],
        "vmap": lambda: jax.vmap(write)(jnp.ones(3)).sum(),
        "cond": lambda: jax.lax.cond(w.value.sum() > 0, write, lambda x: x, 1.0),
        "checkpoint": lambda: jax.checkpoint(write)(1.0),
        "jit": lambda: jax.jit(write)(1.0),
        "grad": lambda: jax.grad(write)(1.0),
        "while": lambda: jax.lax.while_loop(lambda c: c < 3, lambda c: write(c) + 1, 0.0),
        "constant": lambda: jax.jit(lambda: w.assign(W * 2))().sum(),
    }
    for call in inside.values():
        with pytest.raises(StateError, match=r"(?s)'w' is written.*alphorn\.lifted"):
            jax.jit(keras.functional(call, [w]))([W])
        with pytest.raises(StateError, match=r"(?s)'w' is written.*alphorn\.lifted"):
            keras.functional(call, [w])([W])


def test_lifted_carries_reads_and_writes():
    w, count, other = variable(), Variable(0), Variable(3.0)

    def f(x):
        count.assign_add(1)
        return (w * x).sum()

    for transform in (jax.checkpoint, jax.jit):
        run = keras.lifted(transform, f, [w, count])
        before = int(count)
        assert same(run(2.0), 2 * W.sum()) and int(count) == before + 1

        def twice(run=run):
            run(2.0)
            return run(3.0) * other

        pure = keras.functional(twice, [w, count, other])
        out, (_, seen, _) = jax.jit(pure)([W, 0, 2.0])
        assert same(out, 6 * W.sum()) and int(seen) == 2
        grads = jax.grad(lambda v, pure=pure: pure([v, 0, 2.0])[0])(W)
        assert same(grads, np.full((2, 2), 6, "float32"))
    assert w.version == 0  # what was only read is not written back


def test_lifted_scan_carries_reads_and_writes():
    w, count = variable(), Variable(0)

    def body(carry, x):
        count.assign_add(1)
        return carry @ w.value, x + count.value  # the weight is not in the list: read through

    def run():
        return keras.lifted_scan(body, jnp.asarray(X), jnp.zeros(3), variables=[count])

    carry, out = run()
    assert np.allclose(carry, X @ W @ W @ W) and same(out, [1, 2, 3]) and int(count) == 3
    (carry, out), (_, after) = jax.jit(keras.functional(run, [w, count]))([W * 2, 0])
    assert np.allclose(carry, 8 * (X @ W @ W @ W)) and int(after) == 3


def test_value_and_grad_keeps_what_is_written():
    w, mean, born = variable(), Variable(0.0), []

    def loss(x):
        if not born:
            born.append(Variable(2.0))
        born[0].assign_add(1.0)
        mean.assign(w.value.mean())
        return (w * x * born[0]).sum(), "more"

    def run(x):
        (value, aux), (grad,) = keras.value_and_grad(loss, [w], has_aux=True)(x)
        return value, grad, aux == "more", mean.value

    value, grad, aux, seen = run(2.0)
    assert aux and same(value, 6 * W.sum()) and same(grad, np.full((2, 2), 6, "float32"))
    assert same(seen, W.mean()) and float(born[0]) == 3
    born.clear()
    out, (_, after) = jax.jit(keras.functional(lambda: run(2.0)[:2], [w, mean]))([W * 2, 0.0])
    assert same(out[0], 12 * W.sum()) and same(after, 2 * W.mean()) and float(mean) == W.mean()


def test_a_slot_is_not_baked_into_a_trace():
    w = variable()
    for call in (
        lambda: jax.jit(lambda: w.value)(),
        lambda: jax.jit(lambda x: x @ w)(X),
        lambda: jax.make_jaxpr(lambda: w * 2)(),
        # An absorbing scope within is no excuse.
        lambda: jax.jit(lambda: keras.value_and_grad(lambda: w.value.sum(), [])())(),
    ):
        with pytest.raises(StateError, match=r"(?s)'w' is read.*alphorn\.jit"):
            call()
    assert same(jax.grad(lambda x: (x * w).sum())(1.0), W.sum())
    assert same(jax.vmap(lambda x: x @ w)(X), X @ W)


def test_jit_sees_todays_values_and_writes():
    w, count = variable(), Variable(0)

    @keras.jit
    def f(x):
        count.assign_add(1)
        return x @ w

    assert same(f(X), X @ W)
    w.assign(2 * W)
    assert same(f(X), X @ (2 * W)) and int(count) == 2
    assert w.version == 1
    assert keras.jit(lambda x, n: x[:n], static_argnums=1) is not None


def test_variables_are_born_concrete_in_any_trace():
    made = []

    def build(x):
        made.append(Variable(lambda shape, dtype: jnp.ones(shape, dtype), shape=(2,)))
        return (x * made[-1]).sum()

    def in_scope(x):
        return keras.functional(build, [])([], x)[0]

    x = jnp.array([1.0, 2.0])
    assert float(jax.jit(in_scope)(x)) == 3
    assert same(jax.grad(in_scope)(x), [1, 1])
    assert same(jax.vmap(in_scope)(x), [2, 4])
    assert float(jax.lax.scan(lambda c, v: (c + in_scope(v), v), 0.0, x)[0]) == 6
    assert len(made) >= 4 and all(same(v.value, [1, 1]) for v in made)
    with pytest.raises(StateError, match="would start from a traced array"):
        jax.jit(lambda x: Variable(x).value)(x)
    with pytest.raises(StateError, match="would start from a traced array"):
        jax.jit(lambda x: Variable(lambda shape, dtype: x, shape=(2,)).value)(x)
    with pytest.raises(StateError, match="would start from a traced array"):
        jax.jit(lambda x: Variable(lambda shape, dtype: np.asarray(x), shape=(2,)).value)(x)


_compiled: list[float] = []
after_compilations(_compiled.append)


@pytest.mark.parametrize(
    ("initializer", "programs"),
    [(initializers.GlorotUniform, 1), (initializers.Orthogonal, 1), (initializers.Zeros, 0)],
)
def test_a_first_value_is_one_program_even_inside_a_trace(initializer, programs):
    """No counter of the draw is computed apart, which a program would keep as its constant."""
    made = []

    def build(rows):
        made.append(Variable(initializer(seed=1) if programs else initializer(), (rows, 7)))
        _compiled.clear()
        made.append(Variable(initializer(seed=1) if programs else initializer(), (rows, 9)))
        return len(_compiled)

    assert build(11) == programs
    counts = []
    jax.make_jaxpr(lambda x: counts.append(build(13)) or x)(1.0)
    jax.vmap(lambda x: counts.append(build(17)) or x)(jnp.ones(2))
    assert counts == [programs, programs]
    assert all(
        isinstance(v.value, jax.Array) and not isinstance(v.value, jax.core.Tracer) for v in made
    )


@pytest.mark.parametrize("size", [64, 2**19])
def test_an_array_that_a_variable_starts_from_or_is_assigned_stays_the_users(size):
    room = np.zeros(size + 16, "float32")
    at = -room.ctypes.data % 64 // 4  # where JAX would take the memory itself
    given = room[at : at + size]
    first = Variable(given)
    second = Variable(initializers.Zeros(), (size,))
    second.assign(given)
    given[:] = 5
    assert not first.numpy().any() and not second.numpy().any()
    assert Variable(initializers.Ones(), (size,)).numpy().all()


def test_an_initializer_with_a_generator_draws_inside_a_trace():
    generator = SeedGenerator(3)
    draw = initializers.RandomUniform(seed=generator)
    made = []

    def build(x):
        made.append(Variable(draw, (2, 3)))
        return x + made[-1].value.sum()

    shapes_of(lambda: build(0.0))
    made.append(Variable(initializers.RandomUniform(seed=SeedGenerator(3)), (2, 3)))
    assert same(made[0].value, made[1].value)
    with pytest.raises(StateError, match="would start from a traced array"):
        jax.jit(lambda x: keras.functional(build, [generator.state])([x], 1.0)[0])(
            generator.state.value
        )


# --- what JAX's caches keep


class Stored:
    """Functions that JAX's caches know again: jitted once, or the same object each time."""

    def __init__(self):
        self.w = Variable(3.0, name="stored")
        self.jitted = jax.jit(lambda x: x * self.w)
        self.branch = lambda x: x * self.w
        self.step = lambda carry, x: (carry * self.w, x)

    def __call__(self, x):
        looped = jax.lax.scan(self.step, x, None, length=1)[0]
        chosen = jax.lax.cond(x > 0, self.branch, self.branch, x)
        return self.jitted(x) + 10 * looped + 100 * chosen + 1000 * jax.checkpoint(self.branch)(x)


def test_a_stored_jit_keeps_no_values_of_another_scope():
    stored = Stored()
    pure = keras.functional(lambda: stored(1.0), [stored.w])
    for value in (3.0, 7.0, 3.0):
        assert float(pure([value])[0]) == 1111 * value
    for jitted in (jax.jit(pure), jax.jit(lambda v: pure(v))):
        for value in (3.0, 7.0):
            assert float(jitted([value])[0]) == 1111 * value
    assert float(jax.grad(lambda v: pure([v])[0])(2.0)) == 1111
    assert same(jax.vmap(lambda v: pure([v])[0])(jnp.array([1.0, 2.0])), [1111, 2222])


def test_what_a_run_wrote_before_it_was_repeated_is_taken_back():
    stored, count, outer = Stored(), Variable(0), Variable(0)

    def f():
        count.assign_add(1)
        outer.assign_add(1)
        born = Variable(5.0)
        return stored(1.0) + born

    def around():
        return keras.functional(f, [stored.w, count])([2.0, 0])

    (out, (_, seen)), (after,) = keras.functional(around, [outer])([0])
    assert (float(out), int(seen), int(after)) == (2227, 1, 1)
    assert int(count) == 0 == int(outer)


def test_threads_have_scopes_of_their_own():
    w, barrier, found = Variable(0.0), threading.Barrier(4), {}

    def work(i):
        def f():
            barrier.wait()
            w.assign_add(1.0)
            barrier.wait()
            return w * 1.0

        found[i] = float(keras.functional(f, [w])([float(i)])[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: i + 1.0 for i in range(4)} and float(w) == 0
