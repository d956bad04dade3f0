"""Runs on four simulated devices and on one come to the same; run by test_distribution.py."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphorn
import test_masked_training as masked
from alphorn.distribution import placing
from alphorn.kernels import attention, formulations
from alphorn.training.data import Batch
from distributed_cases import small_rows, tagger
from test_metrics import close

distribution, layers = alphorn.distribution, alphorn.layers
ROWS = distribution.DataParallel()
GRID = distribution.DeviceMesh((2, 2), ["batch", "model"])


def same(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        close(a, b, tolerance)


def on_both(run: Any, on: Any = ROWS) -> tuple[Any, Any]:
    """Returns what a run comes to on the devices of a distribution, and on one."""
    with on.scope():
        there = run()
    return there, run()


def normed() -> Any:
    alphorn.config.set_random_seed(0)
    recurrent = layers.SimpleRNN(3, return_sequences=True, recurrent_initializer="ones")
    return tagger(recurrent, layers.BatchNormalization(), layers.Dropout(0.3))


def test_a_masked_model_trains_alike() -> None:
    """Blocks of rows, moments, draws, weights; of rows that divide nothing is gathered."""
    x, y = small_rows(7)
    weight = np.linspace(0.2, 2, 7, dtype="float32")
    models: list[Any] = []

    def run() -> Any:
        models.append(model := normed())
        return model.train_on_batch(x, y, weight), model.get_weights()

    same(*on_both(run))
    program = next(p for key, p in models[0].programs.items() if key[0] == "train_step")
    with ROWS.scope():
        batch = placing.spread(Batch(x[:4], y[:4], weight[:4]))
        assert batch.x.addressable_shards[0].data.shape == (1, 5, 2)
        text = program._run.lower([v.slot for v in program.variables], batch, 1).compile().as_text()
    assert set(re.findall(r"all-\w+|collective-\w+|reduce-scatter", text)) == {"all-reduce"}


@pytest.mark.parametrize("kind", ["shares"])
def test_figures_of_metrics_and_losses(kind: str) -> None:
    with ROWS.scope():
        masked.test_figures_are_those_of_the_steps_alone(kind)


@pytest.mark.parametrize(
    "test",
    [
        masked.test_every_reduction,
        masked.test_what_layers_add_counts_valid_steps,
    ],
)
def test_figures_of_masked_training(test: Any) -> None:
    with ROWS.scope():
        test()


def stack(**options: Any) -> Any:
    alphorn.config.set_random_seed(0)
    dense = [layers.Dense(4, activation="tanh", name="wide"), layers.Dense(2, name="last")]
    model = alphorn.Sequential([alphorn.Input((6,)), *dense])
    model.compile("adam", "mse", **options)
    return model


X = np.random.default_rng(1).normal(size=(16, 6)).astype("float32")
OPTIONS: dict[str, Any] = {"batch_size": 4, "verbose": 0}


def test_weights_and_their_slots_lie_in_parts_and_train_alike(tmp_path: Path) -> None:
    """Also several steps a call, a short last batch, outputs laid out, and files."""
    layouts = distribution.LayoutMap(GRID)
    layouts["wide/kernel"] = (None, "model")
    layouts["wide/bias"] = ("model",)
    layouts["last/kernel"] = ("model", None)
    layouts["wide/output"] = ("batch", "model")
    parallel = distribution.ModelParallel(layout_map=layouts)
    models: list[Any] = []

    def run() -> Any:
        models.append(model := stack(steps_per_execution=3))
        history = model.fit(X[:14], X[:14, :2], epochs=2, **OPTIONS).history
        return history, model.get_weights(), model.predict(X[:13], **OPTIONS)

    same(*on_both(run, parallel))
    model = models[0]
    parts = [v.slot.addressable_shards[0].data.shape for v in model.weights]
    assert parts == [(6, 2), (2,), (2, 2), (2,)]
    slots = [v for v in model.optimizer.variables if v.follows is model.weights[0]]
    assert [v.slot.sharding for v in slots] == [model.weights[0].slot.sharding] * 2
    saver = alphorn.callbacks.OrbaxCheckpoint(tmp_path / "steps")
    with parallel.scope():
        model.fit(X, X[:, :2], callbacks=[saver], **OPTIONS)
        again = alphorn.models.load_model(tmp_path / "steps")
        assert again.weights[0].slot.sharding == model.weights[0].slot.sharding
    elsewhere = alphorn.models.load_model(tmp_path / "steps")
    for other in (again, elsewhere):
        found = [v.numpy() for v in (*other.weights, *other.optimizer.variables)]
        same(found, [v.numpy() for v in (*model.weights, *model.optimizer.variables)], 0)
    model.save(tmp_path / "model.keras")
    loaded = alphorn.models.load_model(tmp_path / "model.keras")
    same(loaded.get_weights(), model.get_weights(), 0)
    with parallel.scope():
        again = alphorn.models.load_model(tmp_path / "model.keras")
        before = again.weights[0].slot.sharding
        again.set_weights(model.get_weights())
        assert again.weights[0].slot.sharding == before == model.weights[0].slot.sharding


def test_layouts_of_nothing_are_told() -> None:
    layouts = distribution.LayoutMap(GRID)
    layouts["sequential/wide/kernel"] = (None, "model")
    told = pytest.warns(UserWarning, match="whole paths: wide/kernel, wide/bias")
    with distribution.ModelParallel(layout_map=layouts).scope(), told:
        stack().predict(X, **OPTIONS)


@pytest.mark.parametrize("case", ["backup", "orbax"])
def test_a_run_goes_on_to_the_same_bits(case: str, tmp_path: Path) -> None:
    with ROWS.scope():
        model = stack()
        model.fit(X, X[:, :2], epochs=2, **OPTIONS)
        wanted = model.get_weights()

        def stop(epoch: int, logs: Any) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

        if case == "backup":
            backup: Any = alphorn.callbacks.BackupAndRestore(tmp_path / "backup")
        else:
            backup = alphorn.callbacks.OrbaxCheckpoint(tmp_path / "steps", resume=True)
        stopper = alphorn.callbacks.LambdaCallback(on_epoch_begin=stop)
        with pytest.raises(KeyboardInterrupt):
            stack().fit(X, X[:, :2], epochs=2, callbacks=[backup, stopper], **OPTIONS)
        model = stack()
        model.fit(X, X[:, :2], epochs=2, callbacks=[backup], **OPTIONS)
    same(model.get_weights(), wanted, 0)


def test_a_model_made_before_is_laid_out_when_it_trains() -> None:
    model, other = stack(), stack()
    assert model.weights[0].layout is None
    with ROWS.scope():
        found = model.train_on_batch(X, X[:, :2])
        eager = alphorn.unmask(model(X))
        pure = jax.jit(lambda *v: model.stateless_call(*v, X)[0])
        stateless = pure([v.value for v in model.trainable_variables], [])
    close(found, other.train_on_batch(X, X[:, :2]))
    assert all(v.slot.sharding.num_devices == 4 for v in model.weights)
    same([eager, stateless], [other(X)] * 2)
    close(model.evaluate(X, X[:, :2], verbose=0), other.evaluate(X, X[:, :2], verbose=0))


def test_blocks_of_rows_are_those_of_each_device(monkeypatch: Any) -> None:
    monkeypatch.setattr(formulations, "BLOCK_BYTES", 64)
    x = np.random.default_rng(2).normal(size=(6, 3, 2, 2)).astype("float32")

    def attended(x: Any) -> Any:
        return jnp.sum(attention.attention_output(x, x, x, key_mask=x[..., 0, 0] > 0) ** 2)

    same(*on_both(lambda: jax.jit(jax.value_and_grad(lambda v: attended(v)))(x)))


def test_arrays_and_batches_of_ones_own() -> None:
    layout = distribution.TensorLayout(("batch", "model"), GRID)
    placed = distribution.distribute_tensor(X, layout)
    assert placed.addressable_shards[0].data.shape == (8, 3)
    inside = jax.jit(lambda a: distribution.distribute_tensor(a * 2, layout))(X)
    assert inside.sharding == placed.sharding
    batches = list(ROWS.distribute_dataset([(X, X[:, 0])]))
    assert [a.sharding for a in batches[0]] == [ROWS.rows()] * 2
    with ROWS.scope():
        assert len(stack().fit(ROWS.distribute_dataset([(X, X[:, :2])]), verbose=0).epoch) == 1


def test_what_does_not_fit_is_refused() -> None:
    layouts = distribution.LayoutMap(GRID)
    layouts["last/kernel"], layouts["wide/kernel"] = ("model",), ("model", None)
    with distribution.ModelParallel(layout_map=layouts).scope():
        with pytest.raises(alphorn.ShapeError, match=r"'last/kernel': a layout of rank 1"):
            stack()
        with pytest.raises(alphorn.ShapeError, match=r"'wide/kernel': axis 0 .*\n.*size 5"):
            layers.Dense(2, name="wide").build((None, 5))
