"""Files of strangers: nothing in them runs, nothing outside them is read."""

import base64
import builtins
import contextlib
import io
import json
import marshal
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import alphorn
from alphorn import loading, saving
from alphorn.errors import AlphornError
from archives import CONFIG, WEIGHTS, members, of_class, refused, rewritten, with_weight
from nets import FEATURES, X, gap, mlp, start

# What hears of every file that Python opens; hooks cannot be taken off again.
AUDITED = []
sys.addaudithook(lambda event, args: [heard(event, args) for heard in AUDITED] and None)


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


def in_lambda(function):
    """Returns a change of a config that puts a function of a Lambda in place of a layer."""

    def change(config):
        entry = config["config"]["layers"][1]
        described = {"config": "x", "registered_name": "x"} | function
        entry.update(
            module="keras.layers",
            class_name="Lambda",
            config={"name": "hidden", "function": described, "arguments": {"safe_mode": False}},
        )

    return change


GADGETS = [
    "get_file",
    "load_model",
    "enable_unsafe_deserialization",
    "set_global_attribute",
    "eval",
]


@pytest.mark.parametrize("case", GADGETS)
def test_no_function_of_the_library_serves_a_stranger(case, archive, monkeypatch) -> None:
    called, load_model = [], saving.load_model
    for room in (alphorn.utils, alphorn.saving, builtins):
        if hasattr(room, case):
            monkeypatch.setattr(room, case, lambda *a, **k: called.append(a))
    content = archive.read_bytes()
    for module in ("keras.utils", "keras.saving", "keras.config", "alphorn.utils", "builtins"):
        for kind in ("function", "__lambda__"):
            function = {"module": module, "class_name": kind, "config": case}
            rewritten(archive, config=in_lambda(function))
            with pytest.raises(AlphornError, match=r"not run|cannot be made"):
                load_model(archive)
            archive.write_bytes(content)
    assert not called


def test_no_layer_unpickles(archive, tmp_path) -> None:
    class Harm:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    content = archive.read_bytes()
    pickled = base64.b64encode(pickle.dumps(Harm())).decode()
    for name in ("TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"):
        for value in (pickled, {"class_name": "__bytes__", "config": {"value": pickled}}):
            refused(rewritten(archive, config=of_class(name, module=value)), name)
            archive.write_bytes(content)
    assert not (tmp_path / "ran").exists()


def test_h5_files_are_read_on_the_same_terms(tmp_path) -> None:
    ran = str(tmp_path / "ran")
    code = (lambda x, to=ran: (open(to, "w").close(), x)[1]).__code__
    byte_code = base64.b64encode(marshal.dumps(code)).decode()
    model = mlp(alphorn)
    path = tmp_path / "m.h5"
    model.save(path)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        entry = config["config"]["layers"][1]
        entry["class_name"] = "Lambda"
        entry["config"] = {
            "name": "hidden",
            "function": [byte_code, [ran], None],
            "function_type": "lambda",
            "output_shape": [4],
            "output_shape_type": "raw",
        }
        file.attrs["model_config"] = json.dumps(config)
        file["model_weights"].attrs["layer_names"] = [b"x", b"out"]
    for options in ({}, {"safe_mode": True}):
        with pytest.raises(AlphornError, match="not run"):
            saving.load_model(path, **options)
    assert not os.path.exists(ran)


def test_a_file_does_not_set_the_terms(archive) -> None:
    seen = []

    @alphorn.saving.register_keras_serializable("canary")
    class Curious(alphorn.layers.Layer):
        def __init__(self, **kwargs):
            seen.append(loading.is_safe())
            super().__init__(name=kwargs["name"])

    def insist(config):
        of_class("Curious")(config)
        config["config"]["layers"][1].update(module=None, registered_name="canary>Curious")
        for place in (config, config["config"], config["config"]["layers"][1]):
            place |= {"safe_mode": False, "enable_unsafe_deserialization": True}

    rewritten(archive, config=insist)
    with contextlib.suppress(AlphornError):
        saving.load_model(archive)
    with contextlib.suppress(AlphornError):
        saving.load_model(archive, safe_mode=False)
    assert seen == [True, False]


# --- what stands outside


READERS = ["StringLookup", "IntegerLookup", "TextVectorization", "Embedding", "Dense"]


@pytest.mark.parametrize("case", READERS)
def test_a_config_reads_no_file(case, archive, tmp_path, monkeypatch) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("one\ntwo\n")
    opened = []

    def noted(event, args):
        if event == "open" and str(args[0]) == str(secret):
            opened.append(args)

    AUDITED.append(noted)
    names = ("vocabulary", "vocabulary_file", "idf_weights", "weights", "embeddings_initializer")
    content = archive.read_bytes()
    for name in names:
        for path in (str(secret), secret.as_uri()):
            rewritten(archive, config=of_class(case, **{name: path, "input_dim": 3, "units": 4}))
            with pytest.raises(AlphornError):
                saving.load_model(archive)
            archive.write_bytes(content)
    AUDITED.remove(noted)
    assert not opened


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


# --- the table


def test_each_way_in_of_the_page_has_a_test() -> None:
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!way in|---).*\| `(test_\w+)` \|$", page, re.MULTILINE)
    named = [line for line in page.splitlines() if line.startswith("| ") and "way in" not in line]
    assert len(rows) == len(named) > 20
    files = (tests / f"test_{n}.py" for n in ("safe_files", "safe_sizes", "downloads", "fuzz"))
    written = "".join(path.read_text(encoding="utf-8") for path in files)
    assert not [name for name in rows if f"def {name}(" not in written]
