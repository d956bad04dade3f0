"""A layer of your own with weights; there is no word of masks in it.

    python examples/custom_layer.py

It learns which texts hold the word 1, wherever it stands among others.
"""

import numpy as np

import alphorn as keras
from alphorn import layers, ops

WORDS = 50


class GatedMean(keras.Layer):
    """The mean of all steps, each by how much it matters."""

    def build(self, input_shape):
        self.gate = self.add_weight((input_shape[-1], 1), name="gate")

    def call(self, steps):
        matters = ops.exp(ops.matmul(steps, self.gate))
        return ops.sum(matters * steps, axis=1) / ops.sum(matters, axis=1)


def build_model(size: int = 8):
    """Returns a model of texts, `(rows, words)` with 0 after their ends, or lists of lists."""
    words = keras.Input((None,), dtype="int32", name="words")
    h = layers.Embedding(WORDS, size, mask_zero=True)(words)
    return keras.Model(words, layers.Dense(1, activation="sigmoid")(GatedMean(name="mean")(h)))


def make_texts(rows: int, seed: int) -> tuple[list[list[int]], np.ndarray]:
    """Returns texts of 3 to 20 words, and whether the word 1 is among them."""
    random = np.random.default_rng(seed)
    texts = [random.integers(2, WORDS, random.integers(3, 21)).tolist() for _ in range(rows)]
    labels = random.integers(0, 2, rows)
    for text, label in zip(texts, labels, strict=True):
        if label:
            text[random.integers(len(text))] = 1
    return texts, labels


def main(rows: int = 4000, epochs: int = 5):
    """Trains; returns the model and how many of new texts it is right about."""
    keras.utils.set_random_seed(1)
    model = build_model()
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    model.fit(*make_texts(rows, seed=1), epochs=epochs, verbose=2)
    _, accuracy = model.evaluate(*make_texts(500, seed=2), verbose=0)
    print(f"right about {accuracy:.1%} of new texts")
    return model, accuracy


if __name__ == "__main__":
    main()
