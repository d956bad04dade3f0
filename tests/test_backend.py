"""The functions of K: Keras 2's values, masks, Symbols, state; and what has no meaning any more."""

import inspect
import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax.numpy as jnp
import keras
import numpy as np
import pytest

import alphorn
from alphorn import backend as K
from alphorn import layers, ops, random

RANDOM = np.random.default_rng(0)


def data(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype("float32")


A, B, C = data(2, 3, 4), data(2, 4, 5), data(2, 4)
P = np.abs(data(2, 3)) + 0.1
P /= P.sum(-1, keepdims=True)
HOT = np.eye(3, dtype="float32")[[0, 2]]
IMAGES = data(2, 5, 6, 3)

# Name: arguments, and what NumPy gives for them.
VALUES: dict[str, tuple[tuple, Any]] = {
    "batch_dot": ((A, B), np.einsum("bij,bjk->bik", A, B)),
    "batch_dot 2": ((C, C), np.sum(C * C, 1, keepdims=True)),
    "batch_dot 3": ((A, C, (2, 1)), np.einsum("bij,bj->bi", A, C)),
    "batch_dot 4": ((A, data(2, 6, 4), 2), None),
    "batch_flatten": ((A,), A.reshape(2, -1)),
    "bias_add": ((A, np.arange(4.0)), A + np.arange(4.0)),
    "bias_add 2": ((A, np.arange(3.0), "channels_first"), A + np.arange(3.0)[:, None]),
    "binary_focal_crossentropy": (
        (HOT, P),
        -HOT * (1 - P) ** 2 * np.log(P) - (1 - HOT) * P**2 * np.log(1 - P),
    ),
    "categorical_crossentropy": ((HOT, P), -np.sum(HOT * np.log(P), -1)),
    "categorical_focal_crossentropy": (
        (HOT, P),
        -np.sum(HOT * 0.25 * (1 - P) ** 2 * np.log(P), -1),
    ),
    "clip": ((A, -0.1, 0.2), np.clip(A, -0.1, 0.2)),
    "concatenate": (([A, A],), np.concatenate([A, A], -1)),
    "cumsum": ((A, 1), np.cumsum(A, 1)),
    "dot": ((A, data(4, 2)), None),
    "equal": ((A, A), np.ones_like(A, bool)),
    "eye": ((3,), np.eye(3)),
    "flatten": ((A,), A.ravel()),
    "foldl": ((lambda c, x: c * 2 + x, np.arange(3.0)), 0 * 4 + 1 * 2 + 2),
    "foldr": ((lambda c, x: c * 2 + x, np.arange(3.0)), 2 * 4 + 1 * 2 + 0),
    "gather": ((A, [1, 0, 1]), A[[1, 0, 1]]),
    "hard_sigmoid": ((A * 5,), np.clip(A + 0.5, 0, 1)),
    "in_top_k": ((P, [0, 1], 3), [True, True]),
    "l2_normalize": ((A, -1), A / np.linalg.norm(A, axis=-1, keepdims=True)),
    "local_conv1d": ((A, np.ones((2, 8, 1)), (2,), (1,)), None),
    "map_fn": ((lambda x: x * 2, A), A * 2),
    "one_hot": (([0, 2], 3), HOT),
    "permute_dimensions": ((A, (0, 2, 1)), A.transpose(0, 2, 1)),
    "pool2d": ((IMAGES, (2, 2), (2, 2), "valid", None, "avg"), None),
    "relu": ((A, 0.1, 0.5, 0.0), np.where(A > 0, np.minimum(A, 0.5), 0.1 * A)),
    "repeat": ((C, 3), np.repeat(C[:, None], 3, 1)),
    "repeat_elements": ((A, 2, 1), np.repeat(A, 2, 1)),
    "resize_images": ((IMAGES, 2, 3, "channels_last"), IMAGES.repeat(2, 1).repeat(3, 2)),
    "reverse": ((A, (1, 2)), A[:, ::-1, ::-1]),
    "spatial_2d_padding": (
        (IMAGES, ((1, 0), (0, 2))),
        np.pad(IMAGES, [(0, 0), (1, 0), (0, 2), (0, 0)]),
    ),
    "sqrt": ((A,), np.sqrt(np.maximum(A, 0))),
    "switch": ((np.array([True, False]), A, -A), np.stack([A[0], -A[1]])),
    "switch 2": ((np.array(False), lambda: A, lambda: -A), -A),
    "temporal_padding": ((A, (1, 2)), np.pad(A, [(0, 0), (1, 2), (0, 0)])),
    "tile": ((C, (2, 1)), np.tile(C, (2, 1))),
    "zeros_like": ((A,), np.zeros_like(A)),
}


@pytest.mark.parametrize("case", VALUES)
def test_values(case: str) -> None:
    arguments, expected = VALUES[case]
    name = case.split()[0]
    if expected is None:
        expected = {
            "batch_dot": lambda x, y, axes: np.einsum("bij,bkj->bik", x, y),
            "dot": np.dot,
            "local_conv1d": lambda x, *_: (x[:, :-1] + x[:, 1:]).sum(-1, keepdims=True),
            "pool2d": lambda x, *_: x[:, :4].reshape(2, 2, 2, 3, 2, 3).mean((2, 4)),
        }[name](*arguments)
    found = getattr(K, name)(*arguments)
    np.testing.assert_allclose(K.eval(found), expected, rtol=2e-5, atol=1e-6)


def test_all_of_keras_2_and_3_is_there_or_says_what_to_use() -> None:
    theirs = [n for n in vars(keras.backend) if not n.startswith("_")]
    old = """abs all any arange argmax argmin batch_dot batch_flatten batch_get_value
        batch_normalization batch_set_value bias_add cast cast_to_floatx clip concatenate constant
        conv1d conv2d conv2d_transpose conv3d cos count_params ctc_batch_cost ctc_decode cumprod
        cumsum depthwise_conv2d dot dropout dtype elu equal eval exp expand_dims eye flatten foldl
        foldr function gather get_value gradients greater in_test_phase in_top_k in_train_phase
        int_shape is_sparse l2_normalize learning_phase learning_phase_scope less local_conv1d
        local_conv2d log map_fn max maximum mean moving_average_update name_scope ndim
        normalize_batch_in_training one_hot ones ones_like permute_dimensions placeholder pool2d
        pool3d pow print_tensor prod random_bernoulli random_binomial random_normal
        random_normal_variable random_uniform random_uniform_variable relu repeat repeat_elements
        reset_uids reshape resize_images resize_volumes reverse rnn round separable_conv2d
        set_learning_phase set_value shape sigmoid sign sin softmax spatial_2d_padding
        spatial_3d_padding square squeeze stack std stop_gradient sum switch tanh
        temporal_padding tile to_dense transpose truncated_normal update update_add update_sub
        var variable zeros zeros_like""".split()
    assert not [n for n in [*theirs, *old] if not hasattr(K, n)]
    for name in K.__all__:
        assert inspect.signature(getattr(K, name)).parameters is not None
    with pytest.raises(AttributeError, match=r"get_session'; there are no sessions: K.function"):
        assert K.get_session
    assert alphorn.preprocessing.image.K is K


def test_signatures_and_documentation_are_real() -> None:
    assert str(inspect.signature(K.batch_dot)) == "(x, y, axes=None)"
    assert K.batch_dot.__name__ == "batch_dot" and K.batch_dot.__module__ == "alphorn.backend"
    assert "row by row" in K.batch_dot.__doc__


def test_masks_are_known() -> None:
    mask = np.array([[1, 1, 0], [1, 1, 1]], bool)
    x = alphorn.Masked(A, mask)
    np.testing.assert_allclose(K.mean(x, axis=1)[0], A[0, :2].mean(0), rtol=1e-5)
    np.testing.assert_allclose(K.batch_dot(x, x, axes=1)[0], A[0, :2].T @ A[0, :2], rtol=1e-5)
    assert isinstance(K.dot(x, data(4, 2)), alphorn.Masked)
    np.testing.assert_allclose(K.softmax(x, axis=1).data.sum(1), 1, rtol=1e-5)
    with pytest.raises(alphorn.MaskError, match=r"layers\.Conv1D"):
        K.conv1d(x, data(2, 4, 1))
    assert not K.get_value(x)[0, 2].any()


def test_symbols_become_nodes() -> None:
    inputs = alphorn.Input((3, 4))
    scores = K.softmax(K.batch_dot(inputs, inputs, axes=2))
    model = alphorn.Model(inputs, K.sum(K.batch_dot(scores, inputs), axis=1))
    expected = np.einsum("bij,bjk->bk", np.array(K.softmax(A @ A.transpose(0, 2, 1))), A)
    np.testing.assert_allclose(model.predict(A, verbose=0), expected, rtol=1e-4)
    again = alphorn.Model.from_config(model.get_config())
    np.testing.assert_allclose(again.predict(A, verbose=0), expected, rtol=1e-4)
    local = alphorn.Model(inputs, K.local_conv1d(inputs, np.ones((2, 8, 1)), (2,), (1,)))
    again = alphorn.Model.from_config(local.get_config())
    np.testing.assert_allclose(again.predict(A, verbose=0), local.predict(A, verbose=0))
    flat = alphorn.Model(free := alphorn.Input((None, None)), K.batch_flatten(free))
    assert flat.predict(A, verbose=0).shape == (2, 12) and flat.output_shape == (None, None)
    chosen = alphorn.Model(free, K.switch(K.greater(free[:, 0, 0], 0), free, -free))
    signs = np.where(A[:, :1, :1] > 0, 1, -1)
    np.testing.assert_allclose(chosen.predict(A, verbose=0), A * signs)
    assert K.int_shape(scores) == (None, 3, 3) and K.ndim(scores) == 3
    with pytest.raises(alphorn.ArgumentError, match=r"K\.function"):
        K.eval(scores)


def test_rnn_runs_rows_over_their_own_steps() -> None:
    mask = np.array([[1, 1, 0], [1, 1, 1]], bool)
    kernel = K.variable(data(4, 4))

    def step(x: Any, states: list) -> tuple[Any, list]:
        h = K.tanh(K.dot(states[0], kernel) + x + states[1])
        return h, [h]

    options: dict[str, Any] = {"constants": [np.ones((2, 4), "float32")]}
    for backwards in (False, True):
        last, outputs, (state,) = K.rnn(
            step, A, [np.zeros((2, 4), "float32")], backwards, mask=mask, **options
        )
        alone = A[:1, :2][:, ::-1] if backwards else A[:1, :2]
        peer = K.rnn(
            step, alone, [np.zeros((1, 4), "float32")], constants=[np.ones((1, 4), "float32")]
        )
        np.testing.assert_allclose(last[0], peer[0][0], rtol=1e-5)
        np.testing.assert_allclose(state[0], peer[2][0][0], rtol=1e-5)
        np.testing.assert_allclose(K.get_value(outputs)[0, :2], peer[1][0], rtol=1e-5)
    masked = K.rnn(step, alphorn.Masked(A, mask), [np.zeros((2, 4), "float32")], **options)
    assert masked[1].lengths.tolist() == [2, 3]
    inputs = alphorn.Input((3, 4), batch_size=2)
    model = alphorn.Model(inputs, K.rnn(step, inputs, [np.zeros((2, 4), "float32")], **options)[0])
    assert model.predict(A, verbose=0).shape == (2, 4)
    assert kernel in model.trainable_variables


def test_ctc() -> None:
    p = np.abs(data(2, 6, 4)) + 0.1
    p /= p.sum(-1, keepdims=True)
    labels, lengths = np.array([[0, 1], [2, 0]]), np.array([[2], [1]])
    steps = np.array([[6], [4]])
    found = K.ctc_batch_cost(labels, p, steps, lengths)
    peer = ops.ctc_loss(labels, np.log(p), lengths[:, 0], steps[:, 0], mask_index=3)
    np.testing.assert_allclose(found[:, 0], peer, rtol=1e-4)
    q = np.eye(4)[[[0, 0, 3, 1, 1, 3], [2, 3, 2, 0, 0, 0]]]
    (paths,), logs = K.ctc_decode(q, steps[:, 0])
    assert paths.tolist() == [[0, 1, -1, -1, -1, -1], [2, 2, 0, -1, -1, -1]]
    assert logs.shape == (2, 1)
    with pytest.raises(alphorn.ArgumentError, match="beams"):
        K.ctc_decode(q, steps[:, 0], greedy=False)


def test_state() -> None:
    x = K.zeros((2,))
    K.set_value(x, [1, 2])
    K.update_add(x, 1.0)
    assert K.get_value(x).tolist() == [2, 3]
    K.moving_average_update(x, np.zeros(2), 0.5)
    K.batch_set_value([(K.ones((1,)), [2.0])])
    assert K.batch_get_value([x])[0].tolist() == [1, 1.5]
    with K.name_scope("outer"), K.name_scope("inner"):
        assert K.variable(0.0, name="v").path == "outer/inner/v"
    K.reset_uids()
    assert [K.get_uid("a"), K.get_uid("a"), K.get_uid()] == [1, 2, 1]
    with pytest.raises(alphorn.ArgumentError, match="first values"):
        K.manual_variable_initialization(True)


def test_draws_inside_layers_are_new_each_time() -> None:
    inputs = alphorn.Input((3,))
    noisy = layers.Lambda(lambda x: x + K.random_normal(K.shape(x)))
    model = alphorn.Model(inputs, noisy(inputs))
    first, second = (model.predict(np.zeros((2, 3)), verbose=0) for _ in range(2))
    assert (first != second).all()
    alphorn.utils.set_random_seed(1)
    assert (K.random_uniform((100,), seed=1) == random.uniform((100,), seed=1)).all()
    assert set(np.unique(K.random_bernoulli((100,), 0.5))) == {0.0, 1.0}
    with pytest.raises(alphorn.ShapeError, match="Lambda"):
        K.random_normal((None, 2))


def test_the_phase_chooses() -> None:
    inputs = alphorn.Input((3,))
    model = alphorn.Model(inputs, K.in_train_phase(inputs * 2, inputs))
    x = data(2, 3)
    np.testing.assert_array_equal(model.predict(x, verbose=0), x)
    np.testing.assert_array_equal(model(x, training=True), x * 2)
    assert K.in_test_phase(1, 2, training=0) == 1
    layer = layers.Lambda(lambda x: K.in_train_phase(lambda: x * 2, x))
    np.testing.assert_array_equal(layer(x, training=True), x * 2)
    assert K.is_keras_tensor(K.learning_phase())
    try:
        K.set_learning_phase(1)
        np.testing.assert_array_equal(model(x), x * 2)
    finally:
        K.clear_session()


def test_losses_and_metrics_are_plain_functions_on_k() -> None:
    def loss(y_true: Any, y_pred: Any) -> Any:
        return K.mean(K.square(y_pred - y_true), axis=-1)

    def close(y_true: Any, y_pred: Any) -> Any:
        return K.mean(K.cast(K.less(K.abs(y_true - y_pred), 0.5), K.floatx()))

    inputs = alphorn.Input((3,))
    model = alphorn.Model(inputs, layers.Dense(1)(inputs))
    model.compile(alphorn.optimizers.SGD(lr=0.1), loss, metrics=[close])
    x, y = data(4, 3), np.ones((4, 1))
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    error = model.predict(x, verbose=0) - 1
    np.testing.assert_allclose(found["loss"], np.mean(error**2), rtol=1e-5)
    np.testing.assert_allclose(found["close"], np.mean(np.abs(error) < 0.5), rtol=1e-5)
    assert K.get_value(model.optimizer.lr) == np.float32(0.1)
    K.set_value(model.optimizer.lr, 0.2)
    assert K.get_value(model.optimizer.learning_rate) == np.float32(0.2)


def test_types() -> None:
    assert K.standardize_dtype(jnp.bfloat16) == "bfloat16" and K.is_float_dtype("bfloat16")
    assert K.is_int_dtype("int8") and K.result_type("int32", "float32") == "float32"
    assert K.backend() == "jax" and K.cast_to_floatx([1, 2]).dtype == np.float32
    assert K.constant(2.0, shape=(2,)).tolist() == [2, 2]
