"""Batches of images in a folder, a folder in it for each class."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from alphorn import config
from alphorn.errors import ArgumentError, DataError
from alphorn.preprocessing.image.batches import (
    FileBatches,
    Saving,
    readable,
    split_of,
    standard_format,
)
from alphorn.preprocessing.image.files import files_in

__all__ = ["DirectoryIterator"]

_CLASS_MODES = ("categorical", "binary", "sparse", "input", None)


class DirectoryIterator(FileBatches):
    """Batches of the images in a folder.

    Args:
        directory: Has a folder for each class; those whose names begin with a dot are none.
        image_data_generator: Transforms the images, or None.
        target_size: `(height, width)` that all are brought to.
        color_mode: "rgb", "rgba" or "grayscale".
        classes: Names of the folders, in the order of their numbers; by default all, sorted.
        class_mode: What goes with the images: "categorical" one-hot rows, "binary" or "sparse" the
            numbers of the classes, "input" the images themselves, None nothing.
        batch_size, shuffle, seed: As in `Iterator`.
        data_format, dtype: Of the batches; None for the generator's.
        save_to_dir, save_prefix, save_format: Where transformed images are written.
        follow_links: Whether links to folders are followed.
        subset: "training" or "validation", by the generator's `validation_split`.
        interpolation, keep_aspect_ratio: How the size is changed, as in `load_img`.
        on_error: "raise" where a file is no image, or "skip": all are read once at first, broken
            ones left out and listed in `skipped`.

    Attributes:
        class_indices: Numbers by names of classes.
        classes: The number of each file.
        filenames: Paths, from `directory` on.
        samples: How many files.
        skipped: Paths of broken images.
    """

    allowed_class_modes = frozenset(_CLASS_MODES)

    def __init__(
        self,
        directory: Any,
        image_data_generator: Any,
        target_size: Any = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = None,
        on_error: str = "raise",
    ):
        if class_mode not in _CLASS_MODES:
            raise ArgumentError("class_mode", repr(class_mode), f"one of {_CLASS_MODES}")
        self.directory = directory
        self.class_mode = class_mode
        self.split = split_of(image_data_generator, subset)
        self.subset = subset
        names = list(classes) if classes else class_folders(directory)
        if class_mode == "binary" and len(names) > 2:
            raise ArgumentError(
                "class_mode", f"'binary' with {len(names)} classes", "2", 'say class_mode="sparse"'
            )
        self.num_classes = len(names)
        self.class_indices = {name: number for number, name in enumerate(names)}
        numbers, files = [], []
        for name, found in zip(names, self._found(names, follow_links), strict=True):
            numbers += [self.class_indices[name]] * len(found)
            files += found
        paths = [os.path.join(directory, name) for name in files]
        if not paths:
            raise DataError(
                f"{directory} has no images" + (f" for {subset}" if subset else ""),
                received=f"{len(names)} folders in it: {', '.join(names[:5])}" if names else "",
                expected="a folder for each class, with files "
                + ", ".join(self.white_list_formats),
                fix="name the folder that holds the folders of the classes; for images without "
                "classes, classes=['.'] and class_mode=None",
            )
        kept, self.skipped = readable(paths, on_error)
        _warn_of(self.skipped)
        self.filenames = [name for name, keep in zip(files, kept, strict=True) if keep]
        self.classes = np.array(numbers, "int32")[kept]
        self.samples = len(self.filenames)
        print(f"Found {self.samples} images belonging to {self.num_classes} classes.")
        super().__init__(
            [path for path, keep in zip(paths, kept, strict=True) if keep],
            image_data_generator,
            batch_size,
            shuffle,
            seed,
            target_size,
            color_mode,
            standard_format(data_format, image_data_generator),
            dtype or getattr(image_data_generator, "dtype", None) or config.floatx(),
            Saving(save_to_dir, save_prefix, save_format),
            interpolation,
            keep_aspect_ratio,
        )

    def _found(self, names: Sequence[str], follow_links: bool) -> list[list[str]]:
        """Returns the files of each class, from the directory on, those of the subset only."""

        def find(name: str) -> list[str]:
            folder = os.path.join(self.directory, name)
            if not os.path.isdir(folder):
                raise DataError(
                    f"{folder} is no folder",
                    received=f"classes={list(names)}",
                    expected=f"some of {class_folders(self.directory)}",
                )
            found = files_in(folder, self.white_list_formats, follow_links)
            if self.split:
                start, stop = (int(part * len(found)) for part in self.split)
                found = found[start:stop]
            paths = (os.path.join(root, file) for root, file in found)
            return [os.path.normpath(os.path.relpath(path, self.directory)) for path in paths]

        with ThreadPoolExecutor() as pool:
            return list(pool.map(find, names))


def class_folders(directory: Any) -> list[str]:
    """Returns the names of the folders in a folder, sorted; hidden ones are left out."""
    if not os.path.isdir(directory):
        raise DataError(f"{directory} is no folder", expected="a folder of folders of images")
    names = (n for n in os.listdir(directory) if not n.startswith("."))
    return sorted(n for n in names if os.path.isdir(os.path.join(directory, n)))


def _warn_of(skipped: list[str]) -> None:
    if skipped:
        warnings.warn(
            f"{len(skipped)} files are no images and are left out: {', '.join(skipped[:3])}"
            + ", ..." * (len(skipped) > 3),
            stacklevel=4,
        )
