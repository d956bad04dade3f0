"""The model of `custom_layer.py` in a training loop of JAX and Optax: no `compile`, no `fit`.

    python examples/plain_jax.py

A model is a function of its weights: `stateless_call(trainable, others, x)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphorn as keras
from alphorn.preprocessing.sequence import pad_sequences
from custom_layer import build_model, make_texts


def main(rows: int = 4000, epochs: int = 5, batch: int = 64):
    """Trains; returns the model and how many of new texts it is right about."""
    keras.utils.set_random_seed(1)
    model, optimizer = build_model(), optax.adam(0.02)

    def loss(trainable, others, texts, labels):
        shares, others = model.stateless_call(trainable, others, texts, training=True)
        shares = jnp.clip(shares[:, 0], 1e-6, 1 - 1e-6)
        return -jnp.mean(jnp.log(jnp.where(labels == 1, shares, 1 - shares))), others

    @jax.jit
    def step(trainable, others, state, texts, labels):
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, others), gradients = gradient(trainable, others, texts, labels)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(trainable, updates), others, state, value

    trainable = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    state = optimizer.init(trainable)
    texts, labels = make_texts(rows, seed=1)
    texts = pad_sequences(texts, padding="post")
    random = np.random.default_rng(1)
    for epoch in range(epochs):
        values = []
        for part in np.split(random.permutation(rows)[: rows // batch * batch], rows // batch):
            trainable, others, state, value = step(
                trainable, others, state, texts[part], labels[part]
            )
            values.append(value)
        print(f"epoch {epoch + 1}: loss {np.mean(values):.3f}")

    for variable, value in zip(model.trainable_variables, trainable, strict=True):
        variable.assign(value)
    texts, labels = make_texts(500, seed=2)
    accuracy = np.mean((model.predict(texts, verbose=0)[:, 0] > 0.5) == labels)
    print(f"right about {accuracy:.1%} of new texts")
    return model, accuracy


if __name__ == "__main__":
    main()
