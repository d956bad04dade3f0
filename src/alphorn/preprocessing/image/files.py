"""Pictures in files: reading, writing, listing them."""

import io
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alphorn import config
from alphorn.errors import ArgumentError, DataError
from alphorn.preprocessing.image.arrays import array_to_img
from alphorn.preprocessing.image.packages import pillow

__all__ = ["ImageFileError", "list_pictures", "load_img", "save_img"]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")
MODES = ("grayscale", "rgb", "rgba")
CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}


class ImageFileError(DataError, OSError):
    """A file is no image, or a broken one."""


def load_img(
    path: Any,
    color_mode: Any = "rgb",
    target_size: Any = None,
    interpolation: Any = "nearest",
    keep_aspect_ratio: Any = False,
    grayscale: bool = False,
) -> Any:
    """Returns the image in a file as a Pillow image.

    Args:
        path: A path, a file that is open for reading, or the bytes of a file.
        color_mode: "rgb", "rgba" or "grayscale", which keeps 16 and 32 bits where a file has them.
        target_size: `(height, width)`, or None for the image's own.
        interpolation: "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos".
        keep_aspect_ratio: Whether the middle of the image is cut out in the target's proportions,
            so that nothing is distorted.
        grayscale: Keras 2's way to write `color_mode="grayscale"`. The order of Keras 2,
            `load_img(path, grayscale, target_size, interpolation)`, is known by the bool.

    Raises:
        ImageFileError: the file is no image, or a broken one; the error names it.

    >>> import io
    >>> file = io.BytesIO()
    >>> save_img(file, [[[0.0, 0.5, 1.0]] * 6] * 4, file_format="png")
    >>> load_img(file, target_size=(8, 8)).size
    (8, 8)
    """
    if isinstance(color_mode, bool):
        grayscale = color_mode
        color_mode = "rgb"
        if isinstance(target_size, str):  # Keras 2.2: grayscale, color_mode, target_size, ...
            color_mode, target_size = target_size, interpolation
            interpolation = keep_aspect_ratio or "nearest"
            keep_aspect_ratio = False
            if isinstance(target_size, str):
                target_size = None
    if grayscale:
        color_mode = "grayscale"
    if color_mode not in MODES:
        raise ArgumentError("load_img: color_mode", repr(color_mode), f"one of {MODES}")
    if target_size is not None and interpolation not in INTERPOLATIONS:
        raise ArgumentError(
            "load_img: interpolation", repr(interpolation), f"one of {INTERPOLATIONS}"
        )
    image = _in_mode(_opened(path), color_mode)
    if target_size is None:
        return image
    try:
        height, width = (int(n) for n in target_size)
    except (TypeError, ValueError):
        raise ArgumentError("load_img: target_size", repr(target_size), "(height, width)") from None
    if image.size == (width, height):
        return image
    filter_ = getattr(pillow().Resampling, interpolation.upper())
    box = _middle(image.size, (width, height)) if keep_aspect_ratio else None
    return image.resize((width, height), filter_, box=box)


def _in_mode(image: Any, color_mode: str) -> Any:
    if color_mode == "grayscale":
        if image.mode == "I;16B":
            return image.convert("I")
        return image if image.mode in ("L", "I;16", "I") else image.convert("L")
    wanted = color_mode.upper()
    return image if image.mode == wanted else image.convert(wanted)


def _middle(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    (width, height), (to_width, to_height) = size, target
    cut_height = min(height, width * to_height // to_width)
    cut_width = min(width, height * to_width // to_height)
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    return left, top, left + cut_width, top + cut_height


def _opened(path: Any) -> Any:
    """Returns the image, decoded, whatever it is in."""
    image = pillow()
    if isinstance(path, bytes) and (b"\0" in path or not os.path.exists(path)):
        name, source = "an image in bytes", io.BytesIO(path)
    elif isinstance(path, str | bytes | os.PathLike):
        name = os.fsdecode(path)
        source = io.BytesIO(Path(name).read_bytes())
    elif hasattr(path, "read"):
        name = getattr(path, "name", None) or "an image in an open file"
        if hasattr(path, "seek"):
            path.seek(0)
        source = io.BytesIO(path.read())
    else:
        raise ArgumentError("load_img: path", repr(path), "a path, an open file, or bytes")
    try:
        opened = image.open(source)
        opened.load()
    except (OSError, SyntaxError, ValueError, EOFError, image.DecompressionBombError) as error:
        raise ImageFileError(
            f"{name} cannot be read as an image",
            received=str(error).replace(repr(source), "bytes of no known format"),
            expected="a whole PNG, JPEG, BMP, GIF, PPM, TIFF or WebP file",
            fix='take it out of the data, or say on_error="skip" where whole folders are read',
        ) from error
    return opened


def save_img(
    path: Any,
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Writes an array as an image.

    Args:
        path: A path, or a file that is open for writing.
        x: `(height, width, channels)` of 1, 3 or 4 channels.
        data_format: "channels_first" for `(channels, height, width)`; None for the default.
        file_format: By default what the name ends with; needed for an open file.
        scale: As in `array_to_img`.
        kwargs: For Pillow: `quality`, `compress_level`, ...
    """
    if file_format is None and isinstance(path, str | os.PathLike):
        file_format = Path(path).suffix[1:].lower() or None
    if file_format and file_format.lower() == "jpg":
        file_format = "jpeg"
    image = array_to_img(x, config.standardize_data_format(data_format), scale)
    if image.mode == "RGBA" and file_format == "jpeg":
        warnings.warn("JPEG has no transparency: the fourth channel is left out", stacklevel=2)
        image = image.convert("RGB")
    image.save(path, format=file_format, **kwargs)


def list_pictures(directory: Any, ext: str | Sequence[str] = "jpg|jpeg|bmp|png|ppm") -> list[str]:
    """Returns the paths of the images in a folder and in the folders in it, sorted.

    Args:
        directory: The folder.
        ext: What names end with: "jpg|png", or a tuple.
    """
    endings = ext.split("|") if isinstance(ext, str) else ext
    return [os.path.join(root, name) for root, name in files_in(directory, endings)]


def files_in(directory: Any, endings: Iterable[str], follow_links: bool = False) -> list:
    """Returns `(folder, name)` of the files with one of the endings, sorted by folder and name.

    Args:
        directory: Where to look, and in the folders in it.
        endings: With or without the dot, in small letters.
        follow_links: Whether links to folders are followed; one that leads back to a folder around
            it is not.
    """
    wanted = tuple("." + e.lower().lstrip(".") for e in endings)
    found: list[tuple[str, str]] = []

    def walk(folder: str, around: tuple[str, ...]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=follow_links):
                    real = os.path.realpath(entry.path)
                    if real not in around:
                        walk(entry.path, (*around, real))
                elif entry.name.lower().endswith(wanted) and entry.is_file():
                    found.append((folder, entry.name))

    top = os.fspath(directory)
    walk(top, (os.path.realpath(top),))
    return sorted(found)


def broken_among(paths: Sequence[str]) -> list[str]:
    """Returns those paths that cannot be read as images."""

    def broken(path: str) -> bool:
        try:
            _opened(path)
        except OSError:
            return True
        return False

    return [path for path in paths if broken(path)]
