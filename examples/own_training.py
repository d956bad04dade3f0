"""A model as a class, with a training step of its own: guess the words that are hidden.

    python examples/own_training.py

Texts count upwards from anywhere; nobody tells the model so. `fit` compiles the step, counts,
shows progress and calls back as ever.
"""

import numpy as np

import alphorn as keras
from alphorn import layers, ops

WORDS, HIDDEN = 12, 12


class Guesser(keras.Model):
    """Learns a language by hiding words of its texts from itself.

    Args:
        units: What is known of each word.
        share: Of the words that are hidden.
    """

    def __init__(self, units=16, share=0.2, **kwargs):
        super().__init__(**kwargs)
        self.share = share
        self.words = layers.Embedding(WORDS + 1, units, mask_zero=True)
        self.context = layers.Conv1D(units, 5, padding="same", activation="relu")
        self.guess = layers.Dense(WORDS)
        self.seeds = keras.SeedGenerator(1)
        self.loss_seen = keras.metrics.Mean(name="loss")
        self.right = keras.metrics.SparseCategoricalAccuracy(name="right")

    def call(self, texts):
        return self.guess(self.context(self.words(texts)))

    def hide(self, texts):
        """Returns texts with words hidden, and where; padding is no word."""
        drawn = keras.random.uniform(ops.shape(texts), seed=self.seeds)
        hidden = ops.logical_and(drawn < self.share, texts > 0)
        return ops.where(hidden, HIDDEN, texts), ops.cast(hidden, "float32")

    def train_step(self, texts):
        shown, hidden = self.hide(texts)

        def loss():
            guesses = self(shown, training=True)
            each = ops.sparse_categorical_crossentropy(texts, guesses, from_logits=True)
            return ops.sum(each * hidden) / ops.maximum(ops.sum(hidden), 1.0), guesses

        weights = self.trainable_variables
        (value, guesses), gradients = keras.value_and_grad(loss, weights, has_aux=True)()
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        self.loss_seen.update_state(value, ops.sum(hidden))
        self.right.update_state(texts, guesses, hidden)
        return {m.name: m.result() for m in (self.loss_seen, self.right)}


def make_texts(rows: int, seed: int) -> list[list[int]]:
    """Returns texts of 4 to 15 words; after 11 comes 1."""
    random = np.random.default_rng(seed)
    pairs = zip(random.integers(1, WORDS, rows), random.integers(4, 16, rows), strict=True)
    return [[int((first + i - 1) % (WORDS - 1) + 1) for i in range(n)] for first, n in pairs]


def main(rows: int = 2000, epochs: int = 8):
    """Trains; returns the model and the history."""
    keras.utils.set_random_seed(1)
    model = Guesser()
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(make_texts(rows, seed=1), epochs=epochs, verbose=2).history
    text = np.array([5, 6, HIDDEN, 8, 9, 10, HIDDEN, 1])
    guessed = model.predict(text[None], verbose=0)[0].argmax(-1)
    print(f"{text}: the hidden words are {guessed[text == HIDDEN]}")
    return model, history


if __name__ == "__main__":
    main()
