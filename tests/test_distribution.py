"""Several devices and processes: names as in Keras, numbers as on one."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import alphorn
from distributed_cases import small_rows, tagger, trained
from test_metrics import close

distribution = alphorn.distribution
HERE = Path(__file__).parent
FLAGS = os.environ.get("XLA_FLAGS", "")


def started(*arguments: Any, flags: str = "") -> subprocess.Popen[str]:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": f"{FLAGS} {flags}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=HERE.parent,
    )


def test_four_devices_come_to_what_one_does() -> None:
    run = started(
        *("-m", "pytest", "-p", "no:cacheprovider", "-n", "0", HERE / "on_four_devices.py"),
        flags="--xla_force_host_platform_device_count=4",
    )
    told, _ = run.communicate(timeout=300)
    assert run.returncode == 0, told


def test_two_processes_come_to_what_one_does(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = HERE / "distributed_process.py"
    runs = [started(script, port, number, tmp_path) for number in (0, 1)]
    np.random.seed(0)
    draw = np.random.randint(2**31)
    _, wanted = trained()
    x, _ = small_rows(8)
    model = tagger()
    model.set_weights([np.arange(6.0).reshape(2, 3), np.zeros(3)])
    outputs = model.predict(x, batch_size=8, verbose=0)
    for number, run in enumerate(runs):
        told, _ = run.communicate(timeout=300)
        assert run.returncode == 0, told
        found = np.load(tmp_path / f"{number}.npz")
        for name, value in wanted.items():
            close(found[name], value, what=name)
        assert found["draw"] == draw
        assert found["same"]
        assert found["files"].tolist() == ["model.keras"]
        batch, weights = found["refused"].tolist()
        assert batch.startswith("a batch: the processes differ")
        assert weights.startswith("the weights: the processes differ")
        close(found["odd"], outputs[:7])
        close(found["own"], outputs[4 * number : 4 * number + 4])


def test_meshes_and_layouts_say_what_keras_says() -> None:
    said = []
    for room in (distribution, keras.distribution):
        mesh = room.DeviceMesh((1, 1), ["batch", "model"])
        layouts = room.LayoutMap(mesh)
        layouts[".*dense.*kernel"] = (None, "model")
        layouts["a/bias"] = room.TensorLayout(("model",))
        paths = ("x/dense_1/kernel", "dense/kernel/more", "a/bias")
        found = [layouts[p] and (layouts[p].axes, layouts[p].backend_layout) for p in paths]
        rows = room.DataParallel()
        model = room.ModelParallel(layout_map=layouts, batch_dim_name="model")
        said += [
            [
                (room.list_devices(), room.get_device_count("cpu"), list(layouts), len(layouts)),
                (mesh.shape, mesh.axis_names, mesh.devices.tolist(), mesh.backend_mesh),
                found,
                (rows.batch_dim_name, rows.num_model_replicas, rows.num_processes),
                (rows.data_shard_id, rows.auto_shard_dataset, rows.device_mesh.shape),
                (model.batch_dim_name, model.get_data_layout((4, 2)).axes),
                rows.get_tensor_layout("a"),
            ]
        ]
    assert said[0] == said[1]


def test_a_distribution_holds_in_its_scope_or_from_now_on() -> None:
    one, other = (distribution.DataParallel(devices=["cpu:0"]) for _ in range(2))
    distribution.set_distribution(one)
    try:
        with other.scope():
            assert distribution.distribution() is other
        assert distribution.distribution() is one
    finally:
        distribution.set_distribution(None)
    assert distribution.distribution() is None
    with pytest.warns(UserWarning, match="first axis"):
        grid = distribution.DeviceMesh((1, 1), ["a", "b"])
        assert distribution.DataParallel(grid).batch_dim_name == "a"


MESH = distribution.DeviceMesh((1,), ["batch"])


def doubly() -> Any:
    layouts = distribution.LayoutMap(MESH)
    layouts[".*a"], layouts["a.*"] = (None,), (None,)
    return layouts["a"]


def twice() -> None:
    layouts = distribution.LayoutMap(MESH)
    for _ in range(2):
        layouts["a"] = (None,)


REFUSED = {
    r"holds 2 devices\n.*a shape for 1": lambda: distribution.DeviceMesh((2,), ["batch"]),
    "a name for each axis": lambda: distribution.DeviceMesh((1, 1), ["batch"]),
    "'gpu:7'": lambda: distribution.DeviceMesh((1,), ["batch"], ["gpu:7"]),
    "device_type": lambda: distribution.list_devices("abacus"),
    "'model' in": lambda: distribution.TensorLayout(("model",), MESH),
    "layout of rank 2": lambda: distribution.distribute_tensor(
        np.ones(3), distribution.TensorLayout((None, None), MESH)
    ),
    "all match it": doubly,
    "a second layout": twice,
    "an axis of the mesh": lambda: distribution.ModelParallel(
        layout_map=distribution.LayoutMap(MESH), batch_dim_name="rows"
    ),
    "that of layout_map": lambda: distribution.ModelParallel(
        layout_map=distribution.LayoutMap(MESH),
        device_mesh=distribution.DeviceMesh((1,), ["batch"]),
    ),
    "a LayoutMap": lambda: distribution.ModelParallel(),
    "a DeviceMesh": lambda: distribution.DataParallel("cpu:0"),
    "a DataParallel": lambda: distribution.set_distribution("rows"),
    "as many as job_addresses": lambda: distribution.initialize("a:1,b:1", 3, 0),
    "before anything else": lambda: distribution.initialize("localhost:1", 1, 0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_means_nothing_is_refused(case: str) -> None:
    with pytest.raises((ValueError, alphorn.StateError), match=case):
        REFUSED[case]()
