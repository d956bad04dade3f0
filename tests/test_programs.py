"""Programs as users write them: each runs unchanged on Keras and here, with the same numbers."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
import pytest

import alphorn
from alphorn.core.masked import is_masked, unmask


def data(*shape: int, seed: int = 5) -> np.ndarray:
    """Returns the same numbers in both libraries."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def classes(*shape: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, count, shape).astype("int32")


def words(rows: int = 8, time: int = 7) -> np.ndarray:
    """Returns ids with zeros behind: 7, 3, 5, ... of them count."""
    ids = np.random.default_rng(0).integers(1, 20, (rows, time)).astype("int32")
    lengths = np.array([7, 3, 5, 2, 6, 4, 1, 7])[:rows, None]
    return np.where(np.arange(time) < lengths, ids, 0).astype("int32")


def settle(model: Any) -> None:
    """Gives a model weights that do not depend on the library."""
    random = np.random.default_rng(0)
    model.set_weights(
        [
            np.abs(random.normal(size=w.shape)).astype("float32") * 0.3 + 0.1
            if "variance" in w.name
            else random.normal(size=w.shape).astype("float32") * 0.3
            for w in model.weights
        ]
    )


def trained(K: Any, model: Any, x: Any, y: Any, loss: Any = "mse", **options: Any) -> list:
    """Trains two batches; returns the history, predictions and weights."""
    settle(model)
    options.setdefault("optimizer", K.optimizers.SGD(0.1))
    model.compile(loss=loss, **options)
    history = model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0).history
    figures = [float(v) for name in sorted(history) for v in history[name]]
    return [figures, model.predict(x, batch_size=4, verbose=0), model.get_weights()]


def images(K):
    """The convolutional network of the first tutorial, on a residual block."""
    L = K.layers
    x = inputs = K.Input((8, 8, 1))
    x = L.Conv2D(4, kernel_size=(3, 3), padding="same", use_bias=False)(x)
    x = skip = L.ReLU()(L.BatchNormalization()(x))
    x = L.Add()([L.Conv2D(4, 3, padding="same")(x), skip])
    x = L.MaxPooling2D(pool_size=(2, 2))(x)
    x = L.Dropout(0.0)(L.Flatten()(x))
    model = K.Model(inputs, L.Dense(3, activation="softmax")(x))
    x, y = data(8, 8, 8, 1), K.utils.to_categorical(classes(8), 3)
    return trained(K, model, x, y, "categorical_crossentropy", metrics=["accuracy"])


def text_recurrent(K):
    """Sentiment with two bidirectional layers over padded ids."""
    L = K.layers
    inputs = K.Input((None,), dtype="int32")
    x = L.Embedding(20, 8, mask_zero=True)(inputs)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True))(x)
    x = L.Bidirectional(L.LSTM(4))(x)
    model = K.Model(inputs, L.Dense(1, activation="sigmoid")(x))
    return trained(K, model, words(), classes(8, 1, count=2), "binary_crossentropy")


def text_convolution(K):
    """Windows of two widths over word vectors, as images of one channel."""
    L = K.layers
    inputs = K.Input((7,), dtype="int32")
    x = L.Reshape((7, 4, 1))(L.Embedding(20, 4)(inputs))
    pooled = [
        L.MaxPooling2D((8 - width, 1))(L.Conv2D(3, (width, 4), activation="relu")(x))
        for width in (2, 3)
    ]
    x = L.Flatten()(L.Concatenate(axis=1)(pooled))
    model = K.Model(inputs, L.Dense(1, activation="sigmoid")(x))
    return trained(K, model, words(), classes(8, 1, count=2), "binary_crossentropy")


def translation(K):
    """An encoder whose states start a decoder, and the two models of inference."""
    L = K.layers
    source, target = K.Input((None, 5)), K.Input((None, 4))
    _, h, c = L.LSTM(6, return_state=True)(source)
    decoder, dense = (
        L.LSTM(6, return_sequences=True, return_state=True),
        L.Dense(4, activation="softmax"),
    )
    x, _, _ = decoder(target, initial_state=[h, c])
    model = K.Model([source, target], dense(x))
    a, b = data(8, 5, 5), data(8, 3, 4, seed=6)
    result = trained(
        K, model, [a, b], np.eye(4, dtype="float32")[classes(8, 3)], "categorical_crossentropy"
    )
    encoder = K.Model(source, [h, c])
    given = [K.Input((6,)), K.Input((6,))]
    x, *states = decoder(target, initial_state=given)
    step = K.Model([target, *given], [dense(x), *states])
    states = encoder.predict(a[:1], verbose=0)
    return [result, states, step.predict([b[:1, :1], *states], verbose=0)]


def tickets(K):
    """Three inputs and two outputs by name, with losses of their own."""
    L = K.layers
    title = K.Input((None,), name="title", dtype="int32")
    body, tags = K.Input((None,), name="body", dtype="int32"), K.Input((4,), name="tags")
    x = L.concatenate(
        [L.LSTM(4)(L.Embedding(20, 5)(title)), L.LSTM(4)(L.Embedding(20, 5)(body)), tags]
    )
    outputs = {
        "priority": L.Dense(1, name="priority")(x),
        "department": L.Dense(3, name="department")(x),
    }
    model = K.Model([title, body, tags], outputs)
    return trained(
        K,
        model,
        {"title": words(), "body": words()[:, ::-1].copy(), "tags": data(8, 4)},
        {"priority": classes(8, 1, count=2), "department": np.eye(3, dtype="float32")[classes(8)]},
        {
            "priority": K.losses.BinaryCrossentropy(from_logits=True),
            "department": K.losses.CategoricalCrossentropy(from_logits=True),
        },
        loss_weights={"priority": 1.0, "department": 0.2},
        optimizer=K.optimizers.RMSprop(1e-2),
    )


def transformer(K):
    """The text classifier of Keras's examples: two layers of one's own."""
    L, ops = K.layers, K.ops

    class TransformerBlock(L.Layer):
        def __init__(self, embed_dim, num_heads, ff_dim, rate=0.0):
            super().__init__()
            self.att = L.MultiHeadAttention(num_heads=num_heads, key_dim=embed_dim)
            self.ffn = K.Sequential([L.Dense(ff_dim, activation="relu"), L.Dense(embed_dim)])
            self.layernorm1 = L.LayerNormalization(epsilon=1e-6)
            self.layernorm2 = L.LayerNormalization(epsilon=1e-6)
            self.dropout = L.Dropout(rate)

        def call(self, inputs, training=None):
            out = self.dropout(self.att(inputs, inputs), training=training)
            out = self.layernorm1(inputs + out)
            return self.layernorm2(out + self.dropout(self.ffn(out), training=training))

    class TokenAndPositionEmbedding(L.Layer):
        def __init__(self, maxlen, vocab_size, embed_dim):
            super().__init__()
            self.token_emb = L.Embedding(vocab_size, embed_dim)
            self.pos_emb = L.Embedding(maxlen, embed_dim)

        def call(self, x):
            positions = ops.arange(0, ops.shape(x)[-1], 1)
            return self.token_emb(x) + self.pos_emb(positions)

    inputs = K.Input((7,))
    x = TransformerBlock(8, 2, 8)(TokenAndPositionEmbedding(7, 20, 8)(inputs))
    x = L.GlobalAveragePooling1D()(x)
    model = K.Model(inputs, L.Dense(2, activation="softmax")(x))
    result = trained(K, model, words(), classes(8, count=2), "sparse_categorical_crossentropy")
    return [result, [w.path for w in model.weights]]


def autoencoder(K):
    """A variational autoencoder: a generator, `add_loss`, models in a model."""
    L, ops = K.layers, K.ops

    class Sampling(L.Layer):
        def __init__(self):
            super().__init__()
            self.seed_generator = K.random.SeedGenerator(1337)

        def call(self, inputs):
            mean, log_var = inputs
            noise = K.random.normal(shape=ops.shape(mean), seed=self.seed_generator)
            return mean + ops.exp(0.5 * log_var) * noise * 0.0  # the draws are each library's own

    class VAE(K.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.mean, self.log_var = L.Dense(6, "relu"), L.Dense(3), L.Dense(3)
            self.sampling = Sampling()
            self.decoder = K.Sequential([L.Dense(6, "relu"), L.Dense(5, "sigmoid")])

        def call(self, x):
            x = self.hidden(x)
            mean, log_var = self.mean(x), self.log_var(x)
            self.add_loss(-0.5 * ops.mean(log_var - ops.square(mean) - ops.exp(log_var) + 1))
            return self.decoder(self.sampling((mean, log_var)))

    model = VAE()
    model(data(8, 5))
    return trained(K, model, data(8, 5), data(8, 5), K.losses.MeanSquaredError())


def twins(K):
    """One encoder for two texts, and their similarity."""
    L = K.layers
    embedding, encoder = L.Embedding(20, 4, mask_zero=True), L.LSTM(3)
    a, b = K.Input((7,), dtype="int32"), K.Input((7,), dtype="int32")
    x, y = encoder(embedding(a)), encoder(embedding(b))
    near = L.Lambda(lambda pair: K.ops.abs(pair[0] - pair[1]))([x, y])
    like = L.Dot(axes=1, normalize=True)([x, y])
    model = K.Model([a, b], L.Dense(1)(L.Concatenate()([near, like])))
    return trained(K, model, [words(), words()[::-1].copy()], classes(8, 1))


def attention_of_blogs(K):
    """Dense, Flatten, softmax, RepeatVector, Permute, Multiply, sum."""
    L = K.layers
    inputs = K.Input((7,), dtype="int32")
    states = L.LSTM(5, return_sequences=True)(L.Embedding(20, 6)(inputs))
    x = L.Activation("softmax")(L.Flatten()(L.Dense(1, activation="tanh")(states)))
    x = L.Multiply()([states, L.Permute([2, 1])(L.RepeatVector(5)(x))])
    x = L.Lambda(lambda t: K.ops.sum(t, axis=-2), output_shape=(5,))(x)
    return trained(K, K.Model(inputs, L.Dense(1)(x)), words(), classes(8, 1))


def kept_states(K):
    """A stateful stack, reset before each batch of training: Keras on JAX forgets states in fit."""
    L = K.layers
    model = K.Sequential(
        [
            K.Input(batch_shape=(4, 3, 2)),
            L.LSTM(5, return_sequences=True, stateful=True),
            L.GRU(4, stateful=True),
            L.Dense(1),
        ]
    )
    settle(model)
    found = [np.asarray(model(data(4, 3, 2))) for _ in range(2)]
    for layer in model.layers[:2]:
        layer.reset_state()
    model.compile(K.optimizers.SGD(0.1), "mse")
    for _ in range(2):
        model.fit(data(4, 3, 2), data(4, 1), batch_size=4, shuffle=False, verbose=0)
        for layer in model.layers[:2]:
            layer.reset_state()
    return [found, model.predict(data(4, 3, 2), batch_size=4, verbose=0), model.get_weights()]


def video(K):
    """An image network at each frame, then time."""
    L = K.layers
    inputs = K.Input((None, 6, 6, 1))
    x = L.TimeDistributed(L.Conv2D(3, (3, 3), activation="relu"))(inputs)
    x = L.TimeDistributed(L.Flatten())(L.TimeDistributed(L.MaxPooling2D())(x))
    return trained(K, K.Model(inputs, L.Dense(1)(L.LSTM(4)(x))), data(8, 3, 6, 6, 1), data(8, 1))


def own_cell(K):
    """The recurrent cell of the guide, two of them stacked."""
    L, ops = K.layers, K.ops

    class MinimalRNNCell(L.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = self.state_size = units

        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
            self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

        def call(self, inputs, states):
            output = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent)
            return output, [output]

    inputs = K.Input((None, 5))
    cells = [MinimalRNNCell(4), MinimalRNNCell(3)]
    model = K.Model(inputs, L.RNN(cells, return_sequences=True)(inputs))
    return [trained(K, model, data(8, 5, 5), data(8, 5, 3)), [w.path for w in model.weights]]


def tied(K):
    """An autoencoder whose decoder is the encoder's kernel, turned."""
    L, ops = K.layers, K.ops

    class Tied(L.Layer):
        def __init__(self, dense):
            super().__init__()
            self.dense = dense

        def build(self, input_shape):
            self.b = self.add_weight(shape=(self.dense.kernel.shape[0],), initializer="zeros")

        def call(self, x):
            return ops.matmul(x, ops.transpose(self.dense.kernel)) + self.b

    dense, inputs = L.Dense(3, activation="tanh"), K.Input((6,))
    return trained(K, K.Model(inputs, Tied(dense)(dense(inputs))), data(8, 6), data(8, 6))


def missing_steps(K):
    """Steps 3 and 5 have no signal: Masking, as a note on Keras has it."""
    x = data(8, 6, 3)
    x[:, 3, :] = 0.0
    x[:, 5, :] = 0.0
    model = K.Sequential()
    model.add(K.layers.Masking(mask_value=0.0, input_shape=(6, 3)))
    model.add(K.layers.LSTM(4))
    model.add(K.layers.Dense(1))
    return trained(K, model, x, data(8, 1))


def loop_by_hand(K):
    """A training loop of pure functions."""
    inputs = K.Input((3,))
    x = K.layers.BatchNormalization()(K.layers.Dense(4, activation="relu")(inputs))
    model = K.Model(inputs, K.layers.Dense(2)(x))
    settle(model)
    optimizer, loss = K.optimizers.SGD(0.1), K.losses.MeanSquaredError()
    optimizer.build(model.trainable_variables)

    def compute(trainable, others, x, y):
        predictions, others = model.stateless_call(trainable, others, x, training=True)
        return loss(y, predictions), others

    @jax.jit
    def step(trainable, others, state, x, y):
        gradient = jax.value_and_grad(compute, has_aux=True)
        (value, others), gradients = gradient(trainable, others, x, y)
        trainable, state = optimizer.stateless_apply(state, gradients, trainable)
        return value, trainable, others, state

    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = [[v.value for v in group] for group in groups]
    figures = []
    for _ in range(3):
        value, *state = step(*state, data(8, 3), data(8, 2, seed=6))
        figures.append(float(value))
    for group, values in zip(groups, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)
    return [figures, model.predict(data(8, 3), verbose=0)]


def adversaries(K):
    """A compiled model, frozen, inside another that is trained."""
    L = K.layers
    generator = K.Sequential(
        [K.Input((2,)), L.Dense(4), L.LeakyReLU(negative_slope=0.2), L.Dense(3)]
    )
    critic = K.Sequential([K.Input((3,)), L.Dense(4, activation="relu"), L.Dense(1, "sigmoid")])
    critic.compile(K.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    critic.trainable = False
    noise = K.Input((2,))
    both = K.Model(noise, critic(generator(noise)))
    settle(both)
    before = critic.get_weights()
    both.compile(K.optimizers.SGD(0.1), "binary_crossentropy")
    figures = [float(both.train_on_batch(data(8, 2), np.ones((8, 1)))) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(before, critic.get_weights(), strict=True))
    return [figures, generator.get_weights(), len(both.trainable_weights)]


PROGRAMS = [
    images,
    text_recurrent,
    text_convolution,
    translation,
    tickets,
    transformer,
    autoencoder,
    twins,
    attention_of_blogs,
    kept_states,
    video,
    own_cell,
    tied,
    missing_steps,
    loop_by_hand,
    adversaries,
]


def plain(tree: Any) -> list:
    """Returns the leaves as arrays, or strings."""
    leaves = jax.tree.leaves(tree, is_leaf=is_masked)
    return [x if isinstance(x, str) else np.asarray(unmask(x)) for x in leaves]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_program_runs_unchanged_and_gives_the_same(program: Callable) -> None:
    keras.utils.clear_session(free_memory=False)  # automatic names count from 0 in both
    ours, theirs = plain(program(alphorn)), plain(program(keras))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, str):
            assert a == b
            continue
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        assert np.abs(a - b).max(initial=0) <= 2e-5 * max(1.0, np.abs(b).max(initial=0))
