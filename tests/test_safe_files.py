"""Files of strangers: nothing in them runs, nothing outside them is read, nothing grows."""

import builtins
import io
import json
import os
import sys
import time
import zipfile

import h5py
import keras
import numpy as np
import pytest

import alphorn
from alphorn import saving
from alphorn.errors import AlphornError
from nets import CLASSIFYING, FEATURES, X, gap, mlp, start

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


@pytest.fixture
def archive(tmp_path):
    """The path of a compiled model's archive."""
    model = mlp(alphorn)
    model.set_weights(start(model))
    model.compile(**CLASSIFYING)
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def members(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewritten(path, compression=zipfile.ZIP_STORED, **changes):
    """Writes an archive again with other members: `config` by a function, the rest as bytes."""
    held = members(path)
    if "config" in changes:
        config = json.loads(held[CONFIG])
        changes["config"](config)
        held[CONFIG] = json.dumps(config).encode()
    if "text" in changes:
        held[CONFIG] = changes["text"]
    if "weights" in changes:
        held[WEIGHTS] = changes["weights"](held[WEIGHTS])
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in held.items():
            file.writestr(name, content)
    return path


def refused(path, match, **options):
    with pytest.raises(alphorn.FileError, match=match) as caught:
        saving.load_model(path, **options)
    assert "Traceback" not in str(caught.value)


# --- code


@pytest.mark.filterwarnings("ignore")
def test_byte_code_runs_only_by_the_word_of_the_caller(tmp_path) -> None:
    ran = tmp_path / "ran"
    marker = str(ran)
    x = keras.Input((FEATURES,))
    tell = keras.layers.Lambda(lambda x, to=marker: (open(to, "w").close(), x)[1], (FEATURES,))
    keras.Model(x, tell(x)).save(str(tmp_path / "m.keras"))
    ran.unlink(missing_ok=True)

    def insist(config):
        for place in (config, config["config"], config["config"]["layers"][1]["config"]):
            place["safe_mode"] = False

    for path in (tmp_path / "m.keras", rewritten(tmp_path / "m.keras", config=insist)):
        for options in ({}, {"safe_mode": True}):
            with pytest.raises(AlphornError, match="not run"):
                saving.load_model(path, **options)
        assert not ran.exists()
    x = keras.Input((FEATURES,))
    keras.Model(x, tell(x)).save(str(tmp_path / "m.keras"))
    ran.unlink(missing_ok=True)
    saving.load_model(tmp_path / "m.keras", safe_mode=False).predict(X, verbose=0)
    assert ran.exists()


STRANGERS = [
    {"module": "canary", "class_name": "Canary", "registered_name": "Canary"},
    {"module": "os", "class_name": "system", "registered_name": "os>system"},
    {"module": "builtins", "class_name": "function", "registered_name": "eval"},
    {"module": "alphorn.utils", "class_name": "get_file", "registered_name": None},
    {"module": "keras.layers", "class_name": "__class__", "registered_name": None},
    {"module": "canary", "class_name": "function", "registered_name": "run"},
]


@pytest.mark.parametrize("case", STRANGERS, ids=lambda c: f"{c['module']}.{c['class_name']}")
@pytest.mark.parametrize("safe_mode", [True, False])
def test_no_class_or_function_is_imported_by_its_name(
    case, safe_mode, archive, tmp_path, monkeypatch
) -> None:
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    stranger = case | {"config": "eval" if case["class_name"] == "function" else {"x": "1"}}
    places = [
        lambda c: c.update(stranger),
        lambda c: c["config"]["layers"][1].update(stranger),
        lambda c: c["config"]["layers"][1]["config"].update(activation=stranger),
        lambda c: c["config"]["layers"][1]["config"].update(kernel_initializer=stranger),
        lambda c: c["compile_config"].update(loss=stranger),
        lambda c: c["compile_config"].update(optimizer=stranger),
        lambda c: c["compile_config"].update(metrics=[stranger]),
    ]
    original = archive.read_bytes()
    for place in places:
        rewritten(archive, config=place)
        with pytest.raises(AlphornError):
            saving.load_model(archive, safe_mode=safe_mode)
        archive.write_bytes(original)
    assert "canary" not in sys.modules


# --- what stands outside


def with_weight(make):
    """Returns a change of a weights file that puts something else in place of a kernel."""

    def change(content):
        held = io.BytesIO(content)
        with h5py.File(held, "a") as file:
            del file["layers/dense/vars/0"]
            make(file, file["layers/dense/vars"])
        return held.getvalue()

    return change


def virtual(file, group):
    layout = h5py.VirtualLayout((FEATURES, 4), "float32")
    layout[:] = h5py.VirtualSource("other.h5", "secret", (FEATURES, 4))
    group.create_virtual_dataset("0", layout)


def external(file, group):
    kept = [("secret.bin", 0, h5py.h5f.UNLIMITED)]
    group.create_dataset("0", (FEATURES, 4), "float32", external=kept)


LEADING_OUT = {
    "external link": lambda f, g: g.__setitem__("0", h5py.ExternalLink("other.h5", "secret")),
    "soft link": lambda f, g: g.__setitem__("0", h5py.SoftLink("/layers/dense_1/vars/0")),
    "other files": virtual,
    "values stand in other files": external,
    "filter": lambda f, g: g.create_dataset("0", data=np.ones((FEATURES, 4)), compression="lzf"),
}


@pytest.mark.parametrize("case", LEADING_OUT)
def test_no_link_leads_out_of_a_file(case, archive, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("other.h5", "w") as file:
        file["secret"] = np.ones((FEATURES, 4), "float32")
    (tmp_path / "secret.bin").write_bytes(bytes(4 * FEATURES * 4))
    rewritten(archive, weights=with_weight(LEADING_OUT[case]))
    refused(archive, case)
    weights = tmp_path / "w.weights.h5"
    weights.write_bytes(members(archive)[WEIGHTS])
    model = mlp(alphorn)
    model.set_weights(start(model))
    with pytest.raises(alphorn.FileError, match=case):
        model.load_weights(weights)
    assert gap(model.get_weights(), start(model)) == 0


def test_a_link_for_a_group_is_refused_too(archive) -> None:
    def change(content):
        held = io.BytesIO(content)
        with h5py.File(held, "a") as file:
            del file["layers/dense"]
            file["layers/dense"] = h5py.ExternalLink("other.h5", "/")
        return held.getvalue()

    refused(rewritten(archive, weights=change), "external link")


def test_members_with_paths_are_never_unpacked(archive, tmp_path) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        for name in ("../evil", "/tmp_evil", "assets/../../evil"):
            file.writestr(name, "evil")
    before = sorted(p.name for p in tmp_path.parent.iterdir())
    assert saving.load_model(archive).predict(X, verbose=0).shape == (len(X), 3)
    assert sorted(p.name for p in tmp_path.parent.iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]


def test_a_folder_holds_no_links(tmp_path) -> None:
    model = mlp(alphorn)
    model.save(tmp_path / "folder", zipped=False)
    weights = tmp_path / "folder" / WEIGHTS
    weights.rename(tmp_path / "elsewhere.h5")
    weights.symlink_to(tmp_path / "elsewhere.h5")
    refused(tmp_path / "folder", WEIGHTS)


@pytest.mark.parametrize("name", ["../m_00000.weights.h5", "/etc/x.h5", "m.txt", 3, None])
def test_a_map_of_shards_names_files_beside_it(name, tmp_path) -> None:
    model = mlp(alphorn)
    path = tmp_path / "m.weights.json"
    model.save_weights(path, max_shard_size=1)
    described = json.loads(path.read_text())
    described["weight_map"]["/layers/dense/vars"] = name
    path.write_text(json.dumps(described))
    with pytest.raises(alphorn.FileError, match="same folder"):
        model.load_weights(path)


def test_nothing_but_the_archive_is_opened(archive, monkeypatch) -> None:
    asked = []
    real = builtins.open

    def noted(file, *args, **kwargs):
        asked.append(str(file))
        return real(file, *args, **kwargs)

    config = json.loads(members(archive)[CONFIG])
    config["config"]["layers"][1]["config"]["name"] = os.fspath(archive.parent).replace("/", "|")
    monkeypatch.setattr(builtins, "open", noted)
    saving.load_model(archive)
    assert not [name for name in asked if str(archive.parent) in name and name != str(archive)]


# --- what grows


def huge(layer, **values):
    return lambda c: c["config"]["layers"][layer]["config"].update(values)


def of_class(name, **values):
    def change(config):
        entry = config["config"]["layers"][1]
        entry.update(module="keras.layers", class_name=name, config={"name": "hidden", **values})

    return change


GROWING = {
    "units": huge(1, units=10**11),
    "units that count": huge(1, units=10**7),
    "inputs": huge(0, batch_shape=[None, 10**12]),
    "numbers": huge(1, bias_initializer={"class_name": "__numpy__", "config": {"value": "x", "dtype": "U900000000"}}),
    "heads": of_class("EinsumDense", equation="ab,bc->ac", output_shape=[10**12]),
    "repeats": of_class("RepeatVector", n=10**13),
    "thresholds": lambda c: c["compile_config"].update(
        metrics=[{"module": "keras.metrics", "class_name": "AUC", "config": {"num_thresholds": 10**10}}]
    ),
    "classes": lambda c: c["compile_config"].update(
        metrics=[{"module": "keras.metrics", "class_name": "MeanIoU", "config": {"num_classes": 10**6}}]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GROWING)
def test_a_small_file_makes_no_large_model(case, archive) -> None:
    began = time.process_time()
    with pytest.raises(AlphornError):
        saving.load_model(rewritten(archive, config=GROWING[case]))
    assert time.process_time() - began < 20


def test_an_array_that_is_not_there_is_not_made(archive) -> None:
    def claimed(file, group):
        group.create_dataset("0", shape=(2**40,), dtype="float32", chunks=(2**20,))

    with pytest.raises(AlphornError, match=r"hidden/kernel[\s\S]*1099511627776"):
        saving.load_model(rewritten(archive, weights=with_weight(claimed)))


def test_zip_bombs_are_not_unpacked(archive) -> None:
    content = archive.read_bytes()
    spaces = b" " * (1 << 23)
    refused(
        rewritten(archive, zipfile.ZIP_DEFLATED, text=spaces), r"config\.json[\s\S]*claim to be"
    )
    archive.write_bytes(content)
    rewritten(archive, zipfile.ZIP_DEFLATED, weights=lambda w: w + bytes(1 << 26))
    refused(archive, r"model\.weights\.h5[\s\S]*claim to be")
    archive.write_bytes(content)
    with zipfile.ZipFile(archive, "a") as file:
        info = file.getinfo(WEIGHTS)
        info.file_size = info.compress_size = 1 << 40
        file._didModify = True
    refused(archive, "claim to be|whole")


@pytest.mark.parametrize("depth", [300, 100_000])
def test_configs_are_not_nested_without_end(depth, archive) -> None:
    refused(rewritten(archive, text=b"[" * depth + b"]" * depth), "nested|no JSON")


def cycle(config):
    layers = config["config"]["layers"]
    tensor = layers[2]["inbound_nodes"][0]["args"][0]
    layers[1]["inbound_nodes"][0]["args"][0] = json.loads(json.dumps(tensor))
    layers[1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = ["out", 0, 0]


def test_calls_that_wait_for_themselves_are_told(archive) -> None:
    refused(rewritten(archive, config=cycle), "wait for themselves")


# --- what is damaged


def opens_or_says_why(path) -> bool:
    """Whether a file opens; if not, the error is our own."""
    try:
        model = saving.load_model(path)
        model.get_weights()
    except AlphornError as error:
        assert str(error)
        return False
    return True


def test_an_archive_cut_short_or_with_other_bytes_says_so(archive) -> None:
    content = archive.read_bytes()
    for length in (0, 10, 500, len(content) // 2, len(content) - 10):
        archive.write_bytes(content[:length])
        refused(archive, "whole|without")
    random = np.random.default_rng(0)
    opened = 0
    for _ in range(40):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] ^= int(random.integers(1, 256))
        archive.write_bytes(bytes(damaged))
        opened += opens_or_says_why(archive)
    assert opened < 40


JUNK = [None, -1, 0, 2.5, 10**12, "", "x", [], [1], {}, {"class_name": "Dense", "config": {}}, True]


def spots(config, found=()):
    """Yields where a config holds something: containers and keys."""
    pairs = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in pairs:
        yield config, key
        if isinstance(value, dict | list):
            yield from spots(value)


def test_a_config_with_other_values_is_a_model_or_an_error_of_ours(archive) -> None:
    content = archive.read_bytes()
    count = len(list(spots(json.loads(members(archive)[CONFIG]))))
    random = np.random.default_rng(0)
    opened = 0
    for place in random.integers(0, count, 120):

        def change(config, place=place):
            container, key = list(spots(config))[place]
            container[key] = JUNK[random.integers(0, len(JUNK))]

        opened += opens_or_says_why(rewritten(archive, config=change))
        archive.write_bytes(content)
    assert 0 < opened < 120


def test_weights_with_other_bytes_are_read_or_refused(archive) -> None:
    held = archive.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(60):

        def change(content):
            damaged = bytearray(content)
            for place in random.integers(0, len(content), 4):
                damaged[place] ^= int(random.integers(1, 256))
            return bytes(damaged)

        opens_or_says_why(rewritten(archive, weights=change))
        archive.write_bytes(held)
