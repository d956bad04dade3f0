"""A recurrent cell of your own: `layers.RNN` gives it time, masks and lists of sequences.

    python examples/custom_cell.py

It learns how slowly a smoothed signal follows what it is made of.
"""

import numpy as np

import alphorn as keras
from alphorn import layers, ops

KEPT = 0.8


class LeakyCell(keras.Layer):
    """Units that forget, each at a rate that it learns."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")
        self.leak = self.add_weight((self.units,), initializer="zeros", name="leak")

    @property
    def kept(self):
        """How much of its state each unit keeps in a step."""
        return ops.sigmoid(self.leak)

    def call(self, inputs, states):
        state = self.kept * states[0] + (1 - self.kept) * ops.matmul(inputs, self.kernel)
        return state, [state]


def make_signals(rows: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns noise of 5 to 30 steps, and where a smoothed copy of it ends."""
    random = np.random.default_rng(seed)
    signals = [
        random.normal(size=(random.integers(5, 31), 1)).astype("float32") for _ in range(rows)
    ]
    ends = []
    for signal in signals:
        value = 0.0
        for step in signal[:, 0]:
            value = KEPT * value + (1 - KEPT) * step
        ends.append(value)
    return signals, np.array(ends, "float32")


def main(rows: int = 2000, epochs: int = 10, units: int = 2):
    """Trains; returns the model and its error, as a share of that of guessing the mean."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((None, 1)), layers.RNN(LeakyCell(units), name="smooth"), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(*make_signals(rows, seed=1), epochs=epochs, verbose=2)
    signals, ends = make_signals(500, seed=2)
    error = model.evaluate(signals, ends, verbose=0) / ends.var()
    kept = np.asarray(model.get_layer("smooth").cell.kept)
    print(f"error {error:.1%}; the signal keeps {KEPT} of itself, the units {kept.round(2)}")
    return model, error


if __name__ == "__main__":
    main()
