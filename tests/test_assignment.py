"""`x[..., 0] = v` in Lambdas, layers and models of one's own: a private copy, right gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphorn as keras
from alphorn import AssignmentError, Masked, MaskError, layers, ops
from alphorn.core.masked import is_masked

MEAN, SCALE = [0.3, 0.6, 0.9], [1.0, 2.0, 3.0]
IMAGES = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype("float32")


def by_channel(x):
    x[:, :, :, 0] = (x[:, :, :, 0] - MEAN[0]) / (2 * SCALE[0]) + 0.5
    x[:, :, :, 1] = (x[:, :, :, 1] - MEAN[1]) / (2 * SCALE[1]) + 0.5
    x[:, :, :, 2] = (x[:, :, :, 2] - MEAN[2]) / (2 * SCALE[2]) + 0.5
    return x


def by_stack(x):
    parts = [
        (p - m) / (2 * s) + 0.5 for p, m, s in zip(ops.unstack(x, axis=3), MEAN, SCALE, strict=True)
    ]
    return ops.stack(parts, 3)


def adds(x):
    x[..., 0] += 2.0
    x[..., 1:] *= 3.0
    return x


def by_integers(x):
    x[:, :, :, [0, 2]] = x[:, :, :, [2, 0]]
    x[np.array([1]), 0] = 7.0
    return x


def by_condition(x):
    x[x < 0] = 0.0
    x[:, :, :, np.array([True, False, True])] *= 2.0
    return x


def of_a_result(x):
    y = x * 2.0
    y[..., 0] = 1.0
    z = y.copy()
    z[..., 1] = y[..., 2]
    return z


def of_a_part(x):
    part = x[:, :, :, 0]
    part[:, 1] = 4.0
    x[0][:, 2] = 5.0
    x[:, 1:3][..., 1:][..., 0] = 6.0
    return x


def from_numbers(x):
    x[0] = np.arange(15.0).reshape(5, 3)
    x[..., 0] = np.float64(2.5)
    x[1:, ..., -1] = 1 - x[1:, ..., -1]
    return x


ASSIGNING = [by_channel, adds, by_integers, by_condition, of_a_result, of_a_part, from_numbers]
named = {"ids": lambda f: f.__name__}


def slopes(function, x):
    """The derivative of a sum of squares, by small steps on NumPy's own arrays."""
    x = x.astype("float64")
    out = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = 1e-6
        high, low = ((function((x + s * step).copy()) ** 2).sum() for s in (1, -1))
        out[at] = (high - low) / 2e-6
    return out


@pytest.mark.parametrize("function", ASSIGNING, **named)
def test_a_lambda_does_what_the_function_does_to_a_numpy_array(function):
    wanted = function(IMAGES.copy())
    given, before = jnp.asarray(IMAGES), IMAGES.copy()
    layer = layers.Lambda(function)
    np.testing.assert_allclose(layer(given), wanted, atol=1e-6)
    np.testing.assert_allclose(keras.jit(layer)(given), wanted, atol=1e-6)
    np.testing.assert_array_equal(given, before)
    np.testing.assert_allclose(layer(IMAGES), wanted, atol=1e-6)
    np.testing.assert_array_equal(IMAGES, before)
    assert isinstance(layer(given), jax.Array)
    found = jax.jit(jax.grad(lambda x: jnp.sum(layer.stateless_call([], [], x)[0] ** 2)))(given)
    np.testing.assert_allclose(found, slopes(function, IMAGES), atol=2e-3)


def test_stacked_parts_give_the_same():
    np.testing.assert_allclose(
        layers.Lambda(by_stack)(IMAGES), by_channel(IMAGES.copy()), atol=1e-6
    )


@pytest.mark.parametrize("function", ASSIGNING, **named)
def test_a_graph_a_layer_and_a_model_of_ones_own(function):
    class Own(keras.Layer):
        def call(self, x):
            return function(x)

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layers.Conv2D(3, 1, kernel_initializer="ones")

        def call(self, x):
            return function(self.inner(x))

    wanted = function(IMAGES.copy())
    inputs = keras.Input((4, 5, 3))
    for layer in (layers.Lambda(function), Own()):
        out = layer(inputs)
        assert out.shape == (None, 4, 5, 3)
        model = keras.Model(inputs, out)
        np.testing.assert_allclose(model.predict(IMAGES, verbose=0), wanted, atol=1e-6)
    summed = np.repeat(IMAGES.sum(-1, keepdims=True), 3, -1)
    net = Net()
    np.testing.assert_allclose(net(IMAGES), function(summed.copy()), atol=1e-5)
    net.compile("sgd", "mse")
    assert np.isfinite(net.fit(IMAGES, IMAGES, verbose=0).history["loss"][0])


def test_what_the_refused_attempt_wrote_does_not_count():
    class Counts(keras.Layer):
        def build(self, input_shape):
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.norm = layers.BatchNormalization()
            self.noise = layers.Dropout(0.5, seed=3)

        def call(self, x, training=None):
            self.seen.assign_add(1.0)
            self.add_loss(ops.sum(x))
            x = self.noise(self.norm(x, training=training), training=training)
            if self.assigns:
                x[..., 0] = 0.0
            return x

    states = []
    for assigns in (True, False):
        layer = Counts()
        layer.assigns = assigns
        for _ in range(2):
            layer(IMAGES, training=True)
            assert len(layer.losses) == 1
        assert float(layer.seen) == 2
        values = [[v.value for v in layer.trainable_variables]]
        values += [[v.value for v in layer.non_trainable_variables]]

        def pure(values, x, layer=layer):
            return layer.stateless_call(*values, x, training=True, return_losses=True)

        _, state, losses = jax.jit(pure)(values, IMAGES)
        assert len(losses) == 1
        states.append(state)
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_losses_count_once_in_training():
    class Penalty(keras.Layer):
        def call(self, x):
            self.add_loss(ops.mean(x * x))
            x[..., 0] = 0.0
            return x

    model = keras.Sequential([Penalty()])
    model.compile("sgd", "mse")
    found = model.evaluate(IMAGES, IMAGES, verbose=0)
    wanted = (IMAGES**2).mean() + (IMAGES[..., 0] ** 2).mean() / 3
    assert found == pytest.approx(wanted, rel=1e-5)


def test_lists_dicts_and_several_inputs_are_private():
    def both(x):
        x[0][..., 0] = x[1][..., 1]
        x[1] = x[0]
        return x[0] + x[1]

    pair = [jnp.asarray(IMAGES), jnp.asarray(IMAGES + 1)]
    wanted = both([IMAGES.copy(), IMAGES + 1])
    np.testing.assert_allclose(layers.Lambda(both)(pair), wanted, atol=1e-6)
    np.testing.assert_array_equal(pair[0], IMAGES)
    np.testing.assert_array_equal(pair[1], IMAGES + 1)

    def named(x):
        x["a"][..., 0] = 0.0
        return x

    out = layers.Lambda(named)({"a": IMAGES, "b": IMAGES})
    assert all(isinstance(v, jax.Array) for v in out.values())
    assert not out["a"][..., 0].any() and out["b"][..., 0].any()


def test_what_is_made_of_an_input_is_assignable_too():
    class Own(keras.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(3,), initializer=keras.initializers.Constant(2.0))

        def call(self, x):
            y = ops.tanh(x)
            y[..., 0] = 0.0
            z = ops.zeros((4, 5, 3))
            z[..., 1] = 1.0
            u = np.ones(3, "float32") * x + jnp.ones(3) * x + self.w * x
            u[..., 2] = 3.0
            v = np.add(x, 1.0)
            v[..., 0] = x[..., 0].sum()
            n = jnp.mean(x)  # functions of jnp take it as an array
            t = x.transpose(0, 2, 1, 3).astype("float32")
            t[:, 0] = 0.0
            assert len(x) == 2 and x.shape == (2, 4, 5, 3) and x.dtype == "float32"
            assert [row.shape for row in x] == [(4, 5, 3)] * 2
            return (
                y,
                z,
                u,
                v + n,
                t,
                jax.lax.scan(lambda c, r: (c + r.sum(), c), jnp.zeros(()), x)[0],
            )

    y, z, u, v, t, total = keras.jit(Own())(IMAGES)
    np.testing.assert_allclose(y[..., 1], np.tanh(IMAGES[..., 1]), atol=1e-6)
    assert not y[..., 0].any() and not t[:, 0].any()
    np.testing.assert_array_equal(z.sum(-1), 1.0)
    np.testing.assert_allclose(u[..., :2], IMAGES[..., :2] * 4, atol=1e-5)
    np.testing.assert_allclose(v[0, 0, 0, 1], IMAGES[0, 0, 0, 1] + 1 + IMAGES.mean(), atol=1e-4)
    np.testing.assert_allclose(total, IMAGES.sum(), atol=1e-4)


def wrong_by_jnp(x):
    y = jnp.tanh(x)
    y[..., 0] = 0.0
    return y


def wrong_by_condition(x):
    x[x < 0] = -x[x < 0]
    return x


def wrong_numpy(x):
    y = np.zeros((2, 4, 5, 3))
    y[..., 0] = x[..., 0]
    return y


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (wrong_by_jnp, AssignmentError, ("ops.tanh(x) for jnp.tanh(x)", "y.at[index].set(value)")),
        (
            wrong_by_condition,
            jax.errors.NonConcreteBooleanIndexError,
            ("ops.where(condition, values, x)",),
        ),
        (wrong_numpy, jax.errors.TracerArrayConversionError, ("write ops for np", "ops.zeros(")),
    ],
)
def test_what_cannot_be_assigned_says_what_to_write(function, kind, message):
    layer = layers.Lambda(function, name="wrong")
    for call in (lambda: keras.jit(layer)(IMAGES), lambda: layer(keras.Input((4, 5, 3)))):
        with pytest.raises(kind) as error:
            call()
        told = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
        assert all(part in told for part in ("Lambda 'wrong'", *message))


def test_a_symbol_says_where_to_assign():
    x = keras.Input((3,))
    with pytest.raises(AssignmentError, match="Lambda"):
        x[:, 0] = 1.0


# --- sequences

SEQUENCE = np.random.default_rng(1).normal(size=(3, 5, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0] * 5], bool)


def normalize(x):
    x[:, :, 0] = (x[:, :, 0] - 0.3) / 2.0
    x[..., 1] += 1.0
    x[:, :, [2, 3]] = x[:, :, [3, 2]]
    x[..., :2][..., 0] *= 2.0
    return x


def clipped(x):
    x[x < 0] = 0.0
    return x


@pytest.mark.parametrize("junk", [0.0, 1e3, np.nan])
@pytest.mark.parametrize("function", [normalize, clipped], **named)
def test_assignment_keeps_the_mask_and_writes_nothing_to_padding(function, junk):
    layer = layers.Lambda(function)
    given = Masked(np.where(MASK[..., None], SEQUENCE, junk), MASK)
    before = np.asarray(given.data)
    for out in (layer(given), keras.jit(layer)(given)):
        assert is_masked(out)
        np.testing.assert_array_equal(out.mask, MASK)
        np.testing.assert_allclose(
            np.asarray(out.data)[MASK], function(SEQUENCE.copy())[MASK], atol=1e-6
        )
        assert not np.asarray(out.data)[~MASK].any()
    np.testing.assert_array_equal(given.data, before)

    def loss(data):
        return ops.sum(layer(Masked.trusted(data, MASK)) ** 2)

    found = np.asarray(jax.grad(loss)(given.data))
    row = jax.grad(lambda x: jnp.sum(layer.stateless_call([], [], x)[0] ** 2))(SEQUENCE[:1, :3])
    np.testing.assert_allclose(found[0, :3], row[0], atol=1e-5)
    assert not found[~MASK].any()


def test_a_masked_value_leaves_what_its_steps_lack():
    x = Masked(SEQUENCE, MASK)
    fewer = np.arange(5) < np.array([[1], [5], [5]])
    x[..., 0] = Masked(np.full((3, 5), 9.0, "float32"), fewer)
    np.testing.assert_allclose(x.data[0, :3, 0], [9.0, *SEQUENCE[0, 1:3, 0]])
    x[0] = 1.0
    np.testing.assert_allclose(x.data[0, :, 1], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(x.mask, MASK)


@pytest.mark.parametrize(
    "index",
    [(slice(None), 0), (slice(None), -1), (slice(None), slice(1, 3)), (0, 1), MASK],
    ids=str,
)
def test_steps_may_not_be_assigned_by_their_place_in_the_batch(index):
    x = Masked(SEQUENCE, MASK)

    def assign(x):
        x[index] = 1.0
        return x

    for call in (assign, layers.Lambda(assign)):
        with pytest.raises(MaskError, match=r"ops\.where\(steps, value, x\)"):
            call(x)


def test_the_way_out_of_assigning_to_steps_runs():
    x = Masked(SEQUENCE, MASK)
    steps = ops.cumsum(ops.ones_like(x[..., :1]), 1) == 2
    out = ops.where(steps, 7.0, x)
    np.testing.assert_allclose(out.data[0, 1], 7.0)
    np.testing.assert_allclose(out.data[1, 2], 7.0)
    np.testing.assert_allclose(out.data[0, 0], SEQUENCE[0, 0])
    with pytest.raises(MaskError, match=r"ops\.where\(condition, values, x\)"):
        x[x < 0] = SEQUENCE


def test_a_layer_that_asks_for_the_mask_may_assign_too():
    class Asks(keras.Layer):
        def call(self, x, mask=None):
            x[..., 0] = 1.0
            return x

    out = Asks()(Masked(SEQUENCE, MASK))
    np.testing.assert_array_equal(out.mask, MASK)
    np.testing.assert_allclose(np.asarray(out.data)[MASK][:, 0], 1.0)

    def asks(x, mask=None):
        x[..., 0] = ops.cast(mask, "float32")
        return x

    out = layers.Lambda(asks, mask=lambda x, mask: mask)(Masked(SEQUENCE, MASK))
    np.testing.assert_array_equal(out.data[..., 0], MASK)
