"""Files that claim to be large, that are damaged, or that end nowhere."""

import json
import struct
import time
import zipfile

import h5py
import pytest

import alphorn
from alphorn import saving
from alphorn.errors import AlphornError
from archives import WEIGHTS, of_class, refused, rewritten, with_weight
from nets import mlp

# --- what grows


def huge(layer, **values):
    return lambda c: c["config"]["layers"][layer]["config"].update(values)


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


def text_reference(content, text):
    """Returns where a reference to a text of any length stands, and the text's own header."""
    here = content.index(text)
    heap = content.rindex(b"GCOL", 0, here)
    number = struct.unpack("<H", content[here - 16 : here - 14])[0]
    reference = struct.pack("<IQI", len(text), heap, number)
    return content.index(reference), here - 16


# By what is wrong: offsets from the reference, or from the header, and what stands there then.
NOWHERE = {
    "a text of gigabytes": (0, 0, b"\xff\xff\xff\xff"),
    "a heap elsewhere": (0, 4, b"\xff" * 6),
    "no kind of text": (0, -16, b"\x19\x09"),
    "a step of nothing": (1, 8, b"\0" * 8),
    "a step beyond all": (1, 8, b"\xff" * 8),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_texts_that_end_nowhere_are_refused(case, tmp_path) -> None:
    path = tmp_path / "m.h5"
    mlp(alphorn).save(path)
    content = bytearray(path.read_bytes())
    which, offset, changed = NOWHERE[case]
    with h5py.File(path) as file:
        text = file.attrs["model_config"].encode()
    place = text_reference(bytes(content), text)[which] + offset
    if case == "no kind of text":  # before the reference: its kind, of 24 bytes, and its shape
        place = content.rindex(b"\x19\x01", 0, place)
    content[place : place + len(changed)] = changed
    path.write_bytes(content)
    began = time.process_time()
    refused(path, "HDF5 file|holds no model")
    assert time.process_time() - began < 2


# --- what is damaged


def test_an_archive_cut_short_says_so(archive) -> None:
    content = archive.read_bytes()
    for length in (0, 10, 500, len(content) // 2, len(content) - 10):
        archive.write_bytes(content[:length])
        refused(archive, "whole|without")
