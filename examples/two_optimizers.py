"""Two nets against each other, each with an optimizer of its own.

    python examples/two_optimizers.py

One makes points out of noise, the other tells them from real ones; in the end they lie where the
real ones do.
"""

import numpy as np

import alphorn as keras
from alphorn import layers, ops

NOISE = 4
CENTER, SPREAD = np.array([2.0, -1.0]), 0.4


def net(inputs: int, outputs: int, name: str):
    """Returns a small net."""
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(16, activation="leaky_relu"),
            layers.Dense(16, activation="leaky_relu"),
            layers.Dense(outputs),
        ],
        name=name,
    )


class Adversaries(keras.Model):
    """A maker of points and a judge of them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.maker, self.judge = net(NOISE, 2, "maker"), net(2, 1, "judge")
        self.seeds = keras.SeedGenerator(1)
        self.fooled = keras.metrics.Mean(name="fooled")

    def compile(self, maker_optimizer, judge_optimizer, **kwargs):
        super().compile(optimizer=maker_optimizer, **kwargs)
        self.judge_optimizer = judge_optimizer
        self.judge_optimizer.build(self.judge.trainable_variables)
        self.optimizer.build(self.maker.trainable_variables)

    def call(self, points):
        """Makes as many points as it is given."""
        noise = keras.random.normal((ops.shape(points)[0], NOISE), seed=self.seeds)
        return self.maker(noise)

    def train_step(self, real):
        def judged_wrongly():
            made = ops.stop_gradient(self(real))
            doubts = ops.softplus(-self.judge(real)) + ops.softplus(self.judge(made))
            return ops.mean(doubts)

        def found_out():
            verdict = self.judge(self(real))
            return ops.mean(ops.softplus(-verdict)), ops.mean(verdict > 0)

        self._learn(judged_wrongly, self.judge, self.judge_optimizer)
        _, fooled = self._learn(found_out, self.maker, self.optimizer, has_aux=True)
        self.fooled.update_state(fooled)
        return {"fooled": self.fooled.result()}

    def _learn(self, loss, part, optimizer, has_aux=False):
        weights = part.trainable_variables
        value, gradients = keras.value_and_grad(loss, weights, has_aux=has_aux)()
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return value


def main(rows: int = 4096, epochs: int = 12):
    """Trains; returns the model and the points that it makes."""
    keras.utils.set_random_seed(1)
    real = np.random.default_rng(1).normal(CENTER, SPREAD, (rows, 2)).astype("float32")
    model = Adversaries()
    model.compile(keras.optimizers.Adam(2e-3, beta_1=0.5), keras.optimizers.Adam(2e-3, beta_1=0.5))
    model.fit(real, batch_size=128, epochs=epochs, verbose=2)
    made = np.asarray(model(real[:1000]))
    print(f"real points lie about {CENTER}, those made about {made.mean(0).round(2)}")
    return model, made


if __name__ == "__main__":
    main()
