"""Files from the net, kept in a cache: checked, resumed, unpacked without leaving their folder."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from alphorn import config
from alphorn.errors import AlphornError, ArgumentError, DataError

__all__ = ["DownloadError", "get_file"]

_CHUNK = 1 << 20
# Archives of data shrink it to a hundredth at best: one that grows more than this is a trap.
_EXPANSION, _SMALL = 1000, 1 << 26


class DownloadError(AlphornError, OSError):
    """A file cannot be fetched, or is not what was expected."""


def get_file(
    fname: Any = None,
    origin: str | None = None,
    untar: bool = False,
    md5_hash: str | None = None,
    file_hash: str | None = None,
    cache_subdir: str = "datasets",
    hash_algorithm: str = "auto",
    extract: bool = False,
    archive_format: Any = "auto",
    cache_dir: Any = None,
    force_download: bool = False,
) -> str:
    """Returns the path of a file from the net, fetched if it is not in the cache.

    Args:
        fname: Its name in the cache; by default what `origin` ends with.
        origin: Its URL; `file:` is one.
        untar: Keras 2's way to write `extract=True, archive_format="tar"`.
        md5_hash: Keras 2's way to write `file_hash`.
        file_hash: What the SHA-256 (64 digits) or MD5 of the file must be.
        cache_subdir: Folder in the cache.
        hash_algorithm: "sha256", "md5", or "auto": by the number of digits.
        extract: Whether the file is an archive that is unpacked; the path is then the folder's.
        archive_format: "tar", "zip", a list of them, or "auto" for both.
        cache_dir: The cache; by default `ALPHORN_HOME` or ~/.cache/alphorn. What Keras has in its
            own cache is used as well.
        force_download: Whether it is fetched even so.

    A download that broke off goes on where it was, if the server knows how. Archives never write
    outside their folder, and links in them become copies or are refused.

    Raises:
        DownloadError: the file cannot be fetched, or its hash differs.
        DataError: the archive is none, is damaged, grows without measure, or has a path or a link
            that leads out of it.
    """
    if origin is None:
        raise ArgumentError("get_file: origin", "None", "the URL of the file")
    if md5_hash is not None and file_hash is None:
        file_hash, hash_algorithm = md5_hash, "md5"
    name = os.fspath(fname) if fname else PurePosixPath(urllib.parse.urlsplit(origin).path).name
    if name in ("", ".", "..") or Path(name).name != name:
        raise ArgumentError(
            "get_file: fname", repr(name), "a name without a folder", "say the folder by cache_dir"
        )
    home = config.cache_folder() if cache_dir is None else Path(cache_dir).expanduser()
    folder = home / cache_subdir
    extract = extract or untar
    target, unpacked = folder / name, folder / name
    if extract and fname and "." in name:
        unpacked = folder / f"{name.partition('.')[0]}_extracted"
    elif extract:
        target = folder / f"{name}_archive"
    fresh = force_download or not (
        target.is_file() and _is_right(target, file_hash, hash_algorithm)
    )
    if fresh:
        known = _in_keras_cache(cache_subdir, target.name, file_hash, hash_algorithm)
        if known is not None and cache_dir is None and not force_download:
            target, fresh = known, False
    if fresh:
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(origin, target, file_hash, hash_algorithm)
    if not extract:
        return str(target)
    if fresh or not unpacked.exists():
        _unpack(target, unpacked, "tar" if untar else archive_format)
    return str(unpacked)


def _in_keras_cache(subdir: str, name: str, file_hash: str | None, algorithm: str) -> Path | None:
    """Returns the file in Keras's own cache, if its hash says that it is the right one."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = home / subdir / name
    right = file_hash is not None and path.is_file() and _is_right(path, file_hash, algorithm)
    return path if right else None


def _hash(path: Path, file_hash: str, algorithm: str) -> str:
    if algorithm not in ("auto", "md5", "sha256"):
        raise ArgumentError("hash_algorithm", repr(algorithm), "'auto', 'md5' or 'sha256'")
    if algorithm == "auto":
        algorithm = "sha256" if len(file_hash) == 64 else "md5"
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _is_right(path: Path, file_hash: str | None, algorithm: str) -> bool:
    return file_hash is None or _hash(path, file_hash, algorithm) == file_hash.lower()


def _fetch(origin: str, target: Path, file_hash: str | None, algorithm: str) -> None:
    """Brings a file to `target`: all of it and the right one, or none."""
    print(f"Downloading data from {origin}")
    part = target.with_name(f"{target.name}.part")
    # What the server called the version that the first part is of.
    tag = target.with_name(f"{target.name}.part.tag")
    try:
        _go_on(origin, part, tag)
    except (OSError, ValueError) as error:
        raise DownloadError(
            f"{origin} cannot be fetched",
            received=str(error),
            expected="a connection to the net, or the file in the cache",
            fix=f"put the file at {target} yourself"
            + (f", of hash {file_hash}" if file_hash else ""),
        ) from error
    tag.unlink(missing_ok=True)
    if file_hash is not None and not _is_right(part, file_hash, algorithm):
        received = _hash(part, file_hash, algorithm)
        part.unlink()
        raise DownloadError(
            f"{origin} is not the file that was expected", f"hash {received}", file_hash
        )
    os.replace(part, target)


def _go_on(origin: str, part: Path, tag: Path) -> None:
    """Writes to `part` what it lacks yet."""
    request = urllib.request.Request(origin)
    begun = part.stat().st_size if part.exists() and tag.exists() else 0
    if begun:
        request.add_header("Range", f"bytes={begun}-")
        request.add_header("If-Range", tag.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send, or the file has become another one
            raise
        error.close()
        part.unlink()
        answer = urllib.request.urlopen(urllib.request.Request(origin))
    with answer:
        goes_on = bool(begun) and getattr(answer, "status", None) == 206
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if version and not version.startswith("W/"):
            tag.write_text(version, encoding="utf-8")
        else:
            tag.unlink(missing_ok=True)
        expected = answer.headers.get("Content-Length")
        with part.open("ab" if goes_on else "wb") as file:
            before = file.tell()
            shutil.copyfileobj(answer, file, _CHUNK)
            written = file.tell() - before
    if expected is not None and written < int(expected):
        raise ConnectionError(f"the connection ended after {written} of {expected} bytes")


def _unpack(archive: Path, folder: Path, archive_format: Any) -> None:
    """Unpacks an archive beside, then puts the folder in its place."""
    formats = ("tar", "zip") if archive_format == "auto" else archive_format
    formats = (formats,) if isinstance(formats, str) else tuple(formats or ())
    if not set(formats) <= {"tar", "zip"}:
        raise ArgumentError("archive_format", repr(archive_format), "'tar', 'zip' or 'auto'")
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if "tar" in formats and tarfile.is_tarfile(archive):
            with tarfile.open(archive) as file:
                _write(_tar_members(file), beside, archive)
        elif "zip" in formats and zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                _write(_zip_members(file), beside, archive)
        else:
            raise DataError(
                f"{archive} is no archive that can be unpacked",
                expected=" or ".join(formats) or "archive_format to name one",
            )
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)
    except DataError:
        raise
    except Exception as error:  # whatever the readers of archives say of damaged ones
        raise DataError(
            f"{archive} cannot be unpacked",
            received=f"{type(error).__name__}: {error}",
            expected="an archive that is whole, and room for what is in it",
            fix="fetch it again with force_download=True",
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _tar_members(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for member in archive:
        if member.isdir():
            yield member.name, None
            continue
        try:  # of a link it is the file in the archive that the link means
            content = archive.extractfile(member)
        except KeyError:
            content = None
        if content is None:
            raise DataError(
                f"{archive.name}: {member.name} is refused",
                received=f"a link to {member.linkname}"
                if member.linkname
                else "a device or a pipe",
                expected="files and folders, and links to files in the archive",
            )
        yield member.name, content


def _zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for member in archive.infolist():
        yield member.filename, None if member.is_dir() else archive.open(member)


def _write(members: Iterator[tuple[str, IO[bytes] | None]], folder: Path, archive: Path) -> None:
    left = max(_SMALL, _EXPANSION * archive.stat().st_size)
    for name, content in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
            raise DataError(
                f"{archive}: {name!r} is refused",
                received="a path that leads out of the archive's folder",
                fix="do not use this archive: it was made to harm",
            )
        target = folder.joinpath(*path.parts)
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("wb") as file:
            while chunk := content.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise DataError(
                        f"{archive}: {name!r} is refused",
                        received=f"more than {_EXPANSION} times what the archive holds",
                        fix="do not use this archive: it was made to fill disks",
                    )
                file.write(chunk)
