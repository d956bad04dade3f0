"""`image_dataset_from_directory` and its like for texts and for sound."""

import warnings
import wave
from collections.abc import Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from alphorn import config
from alphorn.errors import ArgumentError, DataError
from alphorn.preprocessing.directories import datasets_from
from alphorn.preprocessing.image.batches import readable
from alphorn.preprocessing.image.files import CHANNELS, load_img
from alphorn.preprocessing.image.packages import scipy_signal
from alphorn.preprocessing.image.resize import METHODS, middle, padded, resize

__all__ = [
    "audio_dataset_from_directory",
    "image_dataset_from_directory",
    "text_dataset_from_directory",
]

_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def image_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int | None = 32,
    image_size: Any = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "tf",
    verbose: bool = True,
    on_error: str = "raise",
) -> Any:
    """Returns batches of the images in a folder, with the labels that its folders are.

    Args:
        directory: Has a folder for each class.
        labels: "inferred" from the folders, a list of numbers in the order of the sorted paths, or
            None for images without.
        label_mode: "int" for `(batch,)`, "categorical" for one-hot rows, "binary" for `(batch, 1)`
            of 0 and 1, None for images without.
        class_names: The folders, in the order of their numbers; by default all, sorted.
        color_mode: "rgb", "rgba" or "grayscale".
        batch_size: Images a batch; None for one by one.
        image_size: `(height, width)` that all are brought to.
        shuffle: Whether each pass has its own order.
        seed: Makes orders the same each time.
        validation_split: The share of the files kept for validation.
        subset: "training", "validation", or "both" for a list of the two.
        interpolation: "bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian"
            or "mitchellcubic".
        follow_links: Whether links to folders are followed.
        crop_to_aspect_ratio: Whether the middle is cut out instead of distorting images.
        pad_to_aspect_ratio: Whether zeros are put around instead.
        data_format: "channels_first" for `(batch, channels, height, width)`.
        format: "tf": the batches have the methods that programs mostly use of tf.data's: `map`,
            `take`, `skip`, `cache`, `shuffle`, `prefetch`.
        verbose: Whether the numbers of files are printed.
        on_error: "raise" where a file is no image, or "skip": all are read once at first, and
            broken ones left out with a warning.

    Returns:
        `Batches` of `images` or `(images, labels)`, images float32 with values from 0 to 255, for
        `fit` or a loop; `.class_names` and `.file_paths` say what they are.
    """
    _check_format(format)
    if color_mode not in CHANNELS:
        raise ArgumentError("color_mode", repr(color_mode), f"one of {tuple(CHANNELS)}")
    if interpolation.lower() not in METHODS:
        raise ArgumentError("interpolation", repr(interpolation), f"one of {METHODS}")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ArgumentError("crop_to_aspect_ratio and pad_to_aspect_ratio", "both", "one of them")
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2:
        raise ArgumentError("image_size", repr(image_size), "(height, width)")
    size = (int(sides[0]), int(sides[1]))
    first = config.standardize_data_format(data_format) == "channels_first"

    def read(path: str) -> np.ndarray:
        x = np.asarray(load_img(path, color_mode), "float32")
        x = x[..., None] if x.ndim == 2 else x
        if crop_to_aspect_ratio:
            x = middle(x, size)
        elif pad_to_aspect_ratio:
            x = padded(x, size)
        x = resize(x, size, interpolation.lower())
        return x.transpose(2, 0, 1) if first else x

    def usable(paths: list[str]) -> np.ndarray:
        kept, broken = readable(paths, on_error)
        if broken:
            warnings.warn(
                f"{len(broken)} files are no images and are left out: {', '.join(broken[:3])}",
                stacklevel=4,
            )
        return kept

    return datasets_from(
        directory,
        labels,
        label_mode,
        class_names,
        batch_size,
        shuffle,
        seed,
        validation_split,
        subset,
        follow_links,
        verbose,
        _IMAGES,
        read,
        np.stack,
        usable,
    )


def text_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    max_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Returns batches of the texts in a folder, with the labels that its folders are.

    Args:
        directory, labels, label_mode, class_names, batch_size, shuffle, seed, validation_split,
            subset, follow_links, format, verbose: As in `image_dataset_from_directory`.
        max_length: Characters kept of each text, or None for all.

    Returns:
        `Batches` of arrays of strings, or of `(texts, labels)`; `.map` turns them into numbers.
    """
    _check_format(format)

    def read(path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8")[:max_length]
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text", str(error), "UTF-8") from error

    return datasets_from(
        directory,
        labels,
        label_mode,
        class_names,
        batch_size,
        shuffle,
        seed,
        validation_split,
        subset,
        follow_links,
        verbose,
        (".txt",),
        read,
        lambda texts: np.array(texts, dtype=object),
    )


def audio_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    sampling_rate: int | None = None,
    output_sequence_length: int | None = None,
    ragged: bool = False,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    verbose: bool = True,
) -> Any:
    """Returns batches of the sounds in a folder of .wav files, with the labels its folders are.

    Args:
        directory, labels, label_mode, class_names, batch_size, shuffle, seed, validation_split,
            subset, follow_links, verbose: As in `image_dataset_from_directory`.
        sampling_rate: Samples a second that all are brought to, or None for each file's own.
        output_sequence_length: Samples kept of each; shorter ones get zeros at the end. None for
            the longest of the batch.
        ragged: Whether sounds keep their own lengths: `fit` then pads and masks them, and padding
            changes no result.

    Returns:
        `Batches` of float32 from -1 to 1, `(batch, samples, channels)`, with labels or without.
    """
    if ragged and output_sequence_length is not None:
        raise ArgumentError(
            "ragged", "with output_sequence_length", "one of them", "leave one of them out"
        )
    if sampling_rate is not None and (not isinstance(sampling_rate, int) or sampling_rate <= 0):
        raise ArgumentError("sampling_rate", repr(sampling_rate), "a whole number above 0")

    def read(path: str) -> np.ndarray:
        sound = read_wav(path, sampling_rate)
        return sound if output_sequence_length is None else _cut(sound, output_sequence_length)

    def stack(sounds: list[np.ndarray]) -> np.ndarray:
        if ragged:
            rows = np.empty(len(sounds), dtype=object)
            for place, sound in enumerate(sounds):  # arrays of one shape would be taken apart
                rows[place] = sound
            return rows
        longest = max(map(len, sounds))
        return np.stack([_cut(sound, longest) for sound in sounds])

    return datasets_from(
        directory,
        labels,
        label_mode,
        class_names,
        batch_size,
        shuffle,
        seed,
        validation_split,
        subset,
        follow_links,
        verbose,
        (".wav",),
        read,
        stack,
    )


def _check_format(format: str) -> None:
    if format != "tf":
        raise ArgumentError(
            "format",
            received=repr(format),
            expected="'tf': batches of NumPy arrays with the methods of tf.data",
            fix="leave format out: neither TensorFlow nor Grain is needed",
        )


def _cut(sound: np.ndarray, length: int) -> np.ndarray:
    return np.pad(sound[:length], ((0, max(length - len(sound), 0)), (0, 0)))


def read_wav(path: str, sampling_rate: int | None = None) -> np.ndarray:
    """Returns the sound in a .wav file of 8, 16, 24 or 32 bits, `(samples, channels)`, -1 to 1."""
    try:
        with wave.open(path, "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as sound",
            received=str(error),
            expected="a .wav file of whole numbers (PCM)",
        ) from error
    data = np.frombuffer(raw, np.uint8)
    data = data[: len(data) // (width * channels) * width * channels].reshape(-1, width)
    if width == 1:  # the one width that has no sign
        sound = (data[:, 0].astype("float32") - 128) / 128
    else:
        whole = np.zeros((len(data), 4), np.uint8)
        whole[:, 4 - width :] = data
        sound = (whole.view("<i4")[:, 0] / 2.0**31).astype("float32")
    sound = sound.reshape(-1, channels)
    if sampling_rate is None or sampling_rate == rate:
        return sound
    common = gcd(sampling_rate, rate)
    out = scipy_signal().resample_poly(sound, sampling_rate // common, rate // common, axis=0)
    return out.astype("float32")
