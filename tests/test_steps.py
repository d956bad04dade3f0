"""Steps, losses and metrics of users' own, in both of Keras's forms."""

import jax
import keras
import numpy as np
import pytest

import alphorn
from alphorn.layers import Dense
from nets import FEATURES, X, Y, compiled, gap, line, start

BOTH = pytest.mark.parametrize("K", [alphorn, keras], ids=["alphorn", "keras"])


@BOTH
def test_a_custom_train_step_is_trained_by_fit(K):
    """As the guides of Keras write it for JAX, but for the gradient's name in ours."""

    class Custom(K.Model):
        def train_step(self, state, data):
            trainable, others, optimizer, metrics = state
            x, y = data

            def loss_of(trainable, others):
                y_pred, others = self.stateless_call(trainable, others, x, training=True)
                return self.compute_loss(x, y, y_pred), (y_pred, others)

            (loss, (y_pred, others)), grads = jax.value_and_grad(loss_of, has_aux=True)(
                trainable, others
            )
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, grads, trainable)
            logs, new = {}, []
            for metric in self.metrics:
                mine = metrics[len(new) : len(new) + len(metric.variables)]
                if metric.name == "loss":
                    mine = metric.stateless_update_state(mine, loss)
                else:
                    mine = metric.stateless_update_state(mine, y, y_pred)
                found = metric.stateless_result(mine)
                logs |= found if isinstance(found, dict) else {metric.name: found}
                new += mine
            return logs, (trainable, others, optimizer, new)

    x = K.Input((FEATURES,))
    model = Custom(x, K.layers.Dense(1)(x))
    model.set_weights(start(model))
    model.compile("adam", "mse", metrics=["mse"])
    found = model.fit(X, Y, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    plain = compiled(line, keras, optimizer="adam", loss="mse", metrics=["mse"])
    expected = plain.fit(X, Y, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    assert gap(found["loss"], expected["loss"]) < 1e-5
    assert gap(model.get_weights(), plain.get_weights()) < 1e-5


def test_a_custom_train_step_with_gradients_of_ours():
    class Custom(alphorn.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.seen = alphorn.metrics.Mean(name="seen")

        def train_step(self, data):
            x, y = data

            def loss():
                return self.compute_loss(x=x, y=y, y_pred=self(x, training=True))

            value, grads = alphorn.value_and_grad(loss, self.trainable_variables)()
            self.optimizer.apply_gradients(zip(grads, self.trainable_variables, strict=True))
            self.seen.update_state(value)
            return {m.name: m.result() for m in self.metrics if m is self.seen}

    x = alphorn.Input((FEATURES,))
    model = Custom(x, Dense(1)(x))
    model.set_weights(start(model))
    model.compile(alphorn.optimizers.SGD(0.1), "mse")
    found = model.fit(X, Y, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    plain = compiled(line, optimizer=alphorn.optimizers.SGD(0.1), loss="mse")
    expected = plain.fit(X, Y, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    assert list(found) == ["seen"]
    assert gap(found["seen"], expected["loss"]) < 1e-5
    assert gap(model.get_weights(), plain.get_weights()) < 1e-5


def test_steps_get_data_packed_as_in_keras():
    seen = []

    class Seen(alphorn.Model):
        def train_step(self, data):
            seen.append(type(data) if not isinstance(data, tuple) else len(data))
            return {"loss": 0.0}

    x = alphorn.Input((FEATURES,))
    model = Seen(x, Dense(1)(x))
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, verbose=0)
    model.fit(X, Y, verbose=0)
    model.fit(X, Y, sample_weight=Y[:, 0], verbose=0)
    assert len(seen) == 3
    assert issubclass(seen[0], np.ndarray | jax.Array)
    assert seen[1:] == [2, 3]


def test_overridden_losses_and_steps_are_used():
    class Shifted(alphorn.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return super().compute_loss(x, y, y_pred, sample_weight, training) + 1.0

        def test_step(self, data):
            x, _ = data
            return {"mean": alphorn.ops.mean(self(x, training=False))}

    x = alphorn.Input((FEATURES,))
    model = Shifted(x, Dense(1)(x))
    model.compile(alphorn.optimizers.SGD(0.0), "mse")
    history = model.fit(X, Y, batch_size=4, verbose=0, validation_data=(X, Y)).history
    predictions = model.predict(X, verbose=0)
    assert history["loss"] == pytest.approx([((predictions - Y) ** 2).mean() + 1], rel=1e-5)
    assert model.evaluate(X[:4], Y[:4], verbose=0) == pytest.approx(predictions[:4].mean())
    assert set(history) == {"loss", "val_mean"}


def test_metrics_of_its_own_count_with_those_of_compile():
    class Norm(alphorn.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.size = alphorn.metrics.Mean(name="size")

        def call(self, inputs, training=None, mask=None):
            out = super().call(inputs, training)
            self.size.update_state(alphorn.ops.abs(out))
            return out

    x = alphorn.Input((FEATURES,))
    model = Norm(x, Dense(1)(x))
    model.compile(alphorn.optimizers.SGD(0.0), "mse", metrics=["mae"])
    history = model.fit(X, Y, batch_size=5, epochs=2, verbose=0).history
    size = float(np.abs(np.asarray(model.predict(X, verbose=0))).mean())
    assert history["size"] == pytest.approx([size, size], rel=1e-5)
    assert list(history) == ["loss", "mae", "size"]


def test_a_loss_of_several_outputs_is_pure_where_the_user_differentiates_it():
    """A loop of one's own: what counts figures is not written inside a foreign gradient."""
    x = alphorn.Input((FEATURES,))
    model = alphorn.Model(x, [Dense(1, name="p")(x), Dense(1, name="q")(x)])
    model.set_weights(start(model))
    model.compile(alphorn.optimizers.SGD(0.0), "mse")
    whole = model.evaluate(X, [Y, Y], verbose=0, return_dict=True)

    def loss_of(trainable):
        return model.compute_loss(X, [Y, Y], model.stateless_call(trainable, [], X)[0])

    loss, grads = jax.value_and_grad(loss_of)([v.value for v in model.trainable_variables])
    assert float(loss) == pytest.approx(whole["loss"], rel=1e-5)
    assert len(grads) == 4


def test_a_loss_that_uses_the_compiled_one_twice_is_counted_as_it_is():
    class Twice(alphorn.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            shifted = super().compute_loss(x, y, y_pred + 1.0)
            return super().compute_loss(x, y, y_pred) + shifted

    x = alphorn.Input((FEATURES,))
    model = Twice(x, Dense(1)(x))
    model.compile(alphorn.optimizers.SGD(0.0), "mse")
    out = model.predict(X, verbose=0)
    expected = float(((out - Y) ** 2).mean() + ((out + 1 - Y) ** 2).mean())
    assert model.evaluate(X, Y, batch_size=4, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_tracker_of_the_user_s_may_have_any_name():
    """Keras's examples call theirs `loss_tracker`."""

    class Own(alphorn.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.loss_tracker = alphorn.metrics.Mean(name="loss")

        @property
        def metrics(self):
            return [self.loss_tracker]

        def train_step(self, data):
            x, y = data

            def loss():
                return alphorn.ops.mean((self(x, training=True) - y) ** 2)

            value, grads = alphorn.value_and_grad(loss, self.trainable_variables)()
            self.optimizer.apply_gradients(zip(grads, self.trainable_variables, strict=True))
            self.loss_tracker.update_state(value)
            return {"loss": self.loss_tracker.result()}

    x = alphorn.Input((FEATURES,))
    model = Own(x, Dense(1)(x))
    mine = model.loss_tracker
    model.compile(alphorn.optimizers.SGD(0.0))
    assert model.loss_tracker is mine
    expected = float(((model.predict(X, verbose=0) - Y) ** 2).mean())
    history = model.fit(X, Y, batch_size=5, epochs=2, verbose=0).history
    assert history["loss"] == pytest.approx([expected] * 2, rel=1e-5)
