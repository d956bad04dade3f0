"""Files from the net and the classic data sets, all without a net."""

import gzip
import hashlib
import io
import json
import pickle
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import keras as theirs
import numpy as np
import pytest

from alphorn import datasets, utils
from alphorn.datasets import cifar, mnist, source
from alphorn.errors import ArgumentError, DataError, UnexpectedArgumentError
from alphorn.utils import downloads
from alphorn.utils.downloads import DownloadError
from image_recipes import waves


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Returns the cache folder of one test."""
    monkeypatch.setenv("ALPHORN_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "cache"


class Server(BaseHTTPRequestHandler):
    """Serves `files`; `short` ends every first answer after so many bytes."""

    files: ClassVar[dict[str, bytes]] = {}
    short: ClassVar[dict[str, int]] = {}
    ranges: ClassVar[bool] = True
    asked: ClassVar[list[str | None]] = []

    def do_GET(self):
        name = self.path.strip("/")
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        if name not in self.files:
            self.send_error(404)
            return
        body = self.files[name]
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        start = 0
        if wanted and self.ranges and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(body) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.short.pop(name, None)])

    def log_message(self, *args):
        """Says nothing."""


@pytest.fixture
def server():
    """Returns the address of a server of this machine."""
    Server.files, Server.short, Server.asked, Server.ranges = {}, {}, [], True
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


BODY = bytes(range(256)) * 500
SHA, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()


def test_files_are_fetched_once(server, cache):
    Server.files = {"a.bin": BODY}
    for options in ({}, {"file_hash": SHA}, {"md5_hash": MD5}, {"hash_algorithm": "md5"}):
        path = utils.get_file(origin=f"{server}a.bin", **options)
        assert path == str(cache / "datasets" / "a.bin")
        with open(path, "rb") as file:
            assert file.read() == BODY
    assert len(Server.asked) == 1
    utils.get_file("a.bin", f"{server}a.bin", force_download=True)
    assert len(Server.asked) == 2
    (cache / "datasets" / "a.bin").write_bytes(b"spoilt")
    utils.get_file("a.bin", f"{server}a.bin", file_hash=SHA)
    assert len(Server.asked) == 3
    assert [p.name for p in (cache / "datasets").iterdir()] == ["a.bin"]
    other = utils.get_file("b", f"{server}a.bin", cache_subdir="s", cache_dir=str(cache / "other"))
    assert other == str(cache / "other" / "s" / "b")


@pytest.mark.parametrize("case", ["goes on", "no ranges", "another version", "nothing left"])
def test_a_download_that_broke_off_goes_on(server, cache, case):
    Server.files, Server.short = {"a.bin": BODY}, {"a.bin": 1000}
    with pytest.raises(DownloadError, match="the connection ended after 1000"):
        utils.get_file(origin=f"{server}a.bin")
    assert not (cache / "datasets" / "a.bin").exists()
    want = BODY
    if case == "no ranges":
        Server.ranges = False
    elif case == "another version":
        Server.files["a.bin"] = want = BODY[::-1]
    elif case == "nothing left":
        (cache / "datasets" / "a.bin.part").write_bytes(BODY)
    with open(utils.get_file(origin=f"{server}a.bin"), "rb") as file:
        assert file.read() == want
    assert Server.asked[1] == ("bytes=128000-" if case == "nothing left" else "bytes=1000-")


def test_files_that_are_not_those_expected(server, cache, tmp_path):
    Server.files = {"a.bin": BODY}
    with pytest.raises(DownloadError, match="is not the file that was expected"):
        utils.get_file(origin=f"{server}a.bin", file_hash="0" * 64)
    assert not list((cache / "datasets").iterdir())
    with pytest.raises(DownloadError, match=rf"404(.|\n)*put the file at {cache}"):
        utils.get_file(origin=f"{server}b.bin", file_hash=SHA)
    (tmp_path / "local ü.bin").write_bytes(BODY)
    path = utils.get_file(origin=(tmp_path / "local ü.bin").as_uri(), file_hash=SHA, fname="c")
    assert path.endswith("c")
    for wrong, message in (
        (lambda: utils.get_file("a"), "the URL"),
        (lambda: utils.get_file("a/b", server), "a name without a folder"),
        (lambda: utils.get_file("..", server), "a name without a folder"),
        (lambda: utils.get_file(origin=server), "a name without a folder"),
        (lambda: utils.get_file("c", server, file_hash=SHA, hash_algorithm="crc"), "'md5'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            wrong()


def test_what_keras_has_fetched_is_used(tmp_path):
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    kept = tmp_path / "keras" / "datasets" / "a.bin"
    kept.write_bytes(BODY)
    assert utils.get_file(origin="http://127.0.0.1:9/a.bin", file_hash=SHA) == str(kept)
    with pytest.raises(DownloadError):
        utils.get_file(origin="http://127.0.0.1:9/a.bin")


def tar_of(*members, mode="w:gz"):
    """Returns an archive of `(name, content)`, or `(name, None, kind, link)`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content, *kind in members:
            info = tarfile.TarInfo(name)
            if content is not None:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = (*kind, "")[:2]
                archive.addfile(info)
    return out.getvalue()


def zip_of(*members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def test_archives_are_unpacked(server, cache):
    inner = [("in/a.txt", b"one"), ("in/deep/b.txt", b"two")]
    links = [
        ("in/soft", None, tarfile.SYMTYPE, "a.txt"),
        ("in/hard", None, tarfile.LNKTYPE, "in/a.txt"),
    ]
    Server.files = {
        "t.tar.gz": tar_of(("in", None, tarfile.DIRTYPE), *inner, *links),
        "z.zip": zip_of(("in/", b""), *inner),
    }
    folder = cache / "datasets"
    for name, options, place in (
        ("t.tar.gz", {"extract": True}, folder / "t.tar.gz"),
        ("t.tar.gz", {"untar": True, "fname": "some"}, folder / "some"),
        ("t.tar.gz", {"extract": True, "fname": "u.tar.gz"}, folder / "u_extracted"),
        ("z.zip", {"extract": True, "archive_format": "zip"}, folder / "z.zip"),
    ):
        path = utils.get_file(origin=server + name, **options)
        assert path == str(place)
        assert (place / "in" / "a.txt").read_bytes() == b"one"
        assert (place / "in" / "deep" / "b.txt").read_bytes() == b"two"
        if name == "t.tar.gz":
            for link in ("soft", "hard"):
                assert (place / "in" / link).read_bytes() == b"one"
                assert not (place / "in" / link).is_symlink()
    asked = len(Server.asked)
    utils.get_file(origin=f"{server}z.zip", extract=True)
    assert len(Server.asked) == asked


@pytest.mark.parametrize(
    "archive",
    [
        tar_of(("../out.txt", b"x")),
        tar_of(("/out.txt", b"x")),
        tar_of(("a/../../out.txt", b"x")),
        tar_of(("a", None, tarfile.SYMTYPE, ".."), ("a/out.txt", b"x")),
        tar_of(("a", None, tarfile.SYMTYPE, "/etc/passwd")),
        tar_of(("a", None, tarfile.LNKTYPE, "../../secret.txt")),
        tar_of(("a", None, tarfile.FIFOTYPE)),
        tar_of(("a", None, tarfile.CHRTYPE)),
        zip_of(("../out.txt", b"x")),
        zip_of(("..\\out.txt", b"x")),
        zip_of(("/out.txt", b"x")),
        zip_of(("C:/out.txt", b"x")),
        b"no archive at all",
    ],
    ids=range(13),
)
def test_nothing_is_written_outside(server, cache, tmp_path, archive):
    (tmp_path / "secret.txt").write_text("secret")
    Server.files = {"bad": archive}
    with pytest.raises(DataError, match=r"is refused|is no archive"):
        utils.get_file(origin=f"{server}bad", extract=True)
    assert not list(tmp_path.rglob("*out.txt"))
    assert [p.name for p in (cache / "datasets").iterdir()] == ["bad_archive"]
    with pytest.raises(ArgumentError, match="'zip'"):
        utils.get_file(origin=f"{server}bad", extract=True, archive_format="rar")


def test_an_archive_does_not_fill_the_disk(server, cache, monkeypatch):
    monkeypatch.setattr(downloads, "_SMALL", 1 << 20)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        info = tarfile.TarInfo("zeros")
        info.size = 1 << 22
        archive.addfile(info, io.BytesIO(bytes(1 << 22)))
    Server.files = {"bomb": out.getvalue()}
    with pytest.raises(DataError, match=r"zeros(.|\n)*1000 times"):
        utils.get_file(origin=f"{server}bomb", extract=True)
    assert [p.name for p in (cache / "datasets").iterdir()] == ["bomb_archive"]


@pytest.fixture
def kept(cache, monkeypatch):
    """Returns what puts a file into the cache, whose hash then counts as the right one."""

    def put(module, name, content, folder="datasets"):
        path = cache / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if module is not None:
            monkeypatch.setattr(module, "_HASH", hashlib.sha256(content).hexdigest())

    return put


def npz(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def ragged(rows):
    out = np.empty(len(rows), dtype=object)
    out[:] = rows
    return out


def same_parts(ours, other):
    for part, other_part in zip(ours, other, strict=True):
        for a, b in zip(part, other_part, strict=True):
            assert len(a) == len(b)
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_pictures_of_digits_and_clothes(kept):
    x, y = waves(5, 28, 28, 1)[..., 0].astype("uint8"), np.arange(5, dtype="uint8")
    kept(datasets.mnist, "mnist.npz", npz(x_train=x[:3], y_train=y[:3], x_test=x[3:], y_test=y[3:]))
    same_parts(datasets.mnist.load_data(), ((x[:3], y[:3]), (x[3:], y[3:])))
    folder = "datasets/fashion-mnist"
    for part, rows in (("train", slice(3)), ("t10k", slice(3, None))):
        kept(
            None,
            f"{part}-labels-idx1-ubyte.gz",
            gzip.compress(bytes(8) + y[rows].tobytes()),
            folder,
        )
        kept(
            None,
            f"{part}-images-idx3-ubyte.gz",
            gzip.compress(bytes(16) + x[rows].tobytes()),
            folder,
        )
    same_parts(datasets.fashion_mnist.load_data(), ((x[:3], y[:3]), (x[3:], y[3:])))


def test_small_colour_pictures(kept, cache):
    x = waves(2, 32, 32).astype("uint8")
    flat = x.transpose(0, 3, 1, 2).reshape(2, -1)

    def members(folder, names, labels):
        batch = pickle.dumps({b"data": flat} | {label: [3, 7] for label in labels})
        return tar_of(*((f"{folder}/{name}", batch) for name in names))

    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    ten = members("cifar-10-batches-py", names, [b"labels"])
    kept(datasets.cifar10, "cifar-10-batches-py-target_archive", ten)
    (images, labels), (test, _) = datasets.cifar10.load_data()
    assert images.shape == (10, 32, 32, 3)
    assert labels.tolist() == [[3], [7]] * 5
    assert np.array_equal(test, x)
    hundred = members("cifar-100-python", ["train", "test"], [b"fine_labels", b"coarse_labels"])
    kept(datasets.cifar100, "cifar-100-python-target_archive", hundred)
    for mode in ("fine", "coarse"):
        assert datasets.cifar100.load_data(mode)[1][1].tolist() == [[3], [7]]
    with pytest.raises(ArgumentError, match="'coarse'"):
        datasets.cifar100.load_data("all")
    assert cifar.folder("cifar-10", "cifar-10-batches-py", datasets.cifar10._HASH).startswith(
        str(cache)
    )


ROWS = [[5, 1, 9], [2, 30], [4, 4, 4, 8], [7], [11, 3, 2], [6, 1], [40, 2, 1], [3, 3]]
OPTIONS = [
    {},
    {"num_words": 10},
    {"num_words": 9, "skip_top": 5},
    {"num_words": 10, "oov_char": None},
    {"start_char": None},
    {"start_char": None, "index_from": 0, "seed": 4},
    {"maxlen": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_texts_as_numbers_are_those_of_keras(kept, monkeypatch, cache, options):
    labels = np.arange(8)
    kept(
        datasets.imdb,
        "imdb.npz",
        npz(x_train=ragged(ROWS), y_train=labels, x_test=ragged(ROWS[::-1]), y_test=labels),
    )
    kept(datasets.reuters, "reuters.npz", npz(x=ragged(ROWS), y=labels))
    for name in ("imdb", "reuters"):
        peer = getattr(theirs.datasets, name)
        path = str(cache / "datasets" / f"{name}.npz")
        inner = __import__(f"keras.src.datasets.{name}", fromlist=["get_file"])
        monkeypatch.setattr(inner, "get_file", lambda *args, path=path, **kwargs: path)
        same_parts(getattr(datasets, name).load_data(**options), peer.load_data(**options))
    assert datasets.reuters.get_label_names() == theirs.datasets.reuters.get_label_names()


def test_numbers_of_words(monkeypatch, tmp_path):
    words = {"the": 1, "schön": 2}
    (tmp_path / "words.json").write_text(json.dumps(words), encoding="utf-8")
    for module in (datasets.imdb, datasets.reuters):
        monkeypatch.setattr(module, "fetched", lambda *args: str(tmp_path / "words.json"))
        assert module.get_word_index() == words


def test_houses_are_in_keras_s_order(kept, monkeypatch, cache):
    x, y = np.arange(700 * 3.0).reshape(700, 3), np.arange(700.0)
    for name, options in (
        ("boston_housing", [{}, {"test_split": 0.5, "seed": 3}]),
        ("california_housing", [{}, {"version": "small"}, {"test_split": 0.0}]),
    ):
        module = getattr(datasets, name)
        kept(module, f"{name}.npz", npz(x=x, y=y))
        path = str(cache / "datasets" / f"{name}.npz")
        inner = __import__(f"keras.src.datasets.{name}", fromlist=["get_file"])
        monkeypatch.setattr(inner, "get_file", lambda *args, path=path, **kwargs: path)
        for one in options:
            peer = getattr(theirs.datasets, name).load_data(**one)
            same_parts(module.load_data(**one), peer)
    with pytest.raises(ArgumentError, match="below 1"):
        datasets.boston_housing.load_data(test_split=1)
    with pytest.raises(ArgumentError, match="'large'"):
        datasets.california_housing.load_data(version="tiny")


class Harm:
    """Would write a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_data_set_runs_no_code(kept, tmp_path):
    harm = tmp_path / "harm"
    rows = ragged([[1], Harm(str(harm))])
    kept(datasets.reuters, "reuters.npz", npz(x=rows, y=np.arange(2)))
    with pytest.raises(DataError, match="would run code"):
        datasets.reuters.load_data()
    assert not harm.exists()
    kept(datasets.mnist, "mnist.npz", b"no archive")
    with pytest.raises(DataError, match="is broken"):
        datasets.mnist.load_data()


def test_wrong_arguments_of_texts(kept):
    kept(
        datasets.imdb,
        "imdb.npz",
        npz(x_train=ragged(ROWS), y_train=np.arange(8), x_test=ragged(ROWS), y_test=np.arange(8)),
    )
    with pytest.raises(ArgumentError, match="shortest text"):
        datasets.imdb.load_data(maxlen=1)
    with pytest.raises(UnexpectedArgumentError, match="words"):
        datasets.imdb.load_data(words=3)
    old = datasets.imdb.load_data(nb_words=10)
    same_parts(old, datasets.imdb.load_data(num_words=10))


def test_without_a_net_the_way_out_is_named(monkeypatch, cache):
    monkeypatch.setattr(source, "_BASE", "http://127.0.0.1:9/")
    with pytest.raises(DownloadError) as caught:
        mnist.load_data()
    assert f"put the file at {cache / 'datasets' / 'mnist.npz'} yourself" in str(caught.value)
    assert mnist._HASH in str(caught.value)
