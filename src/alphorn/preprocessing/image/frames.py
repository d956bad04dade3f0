"""Batches of images whose files and targets stand in a DataFrame."""

import os
import warnings
from collections.abc import Sequence
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

__all__ = ["DataFrameIterator"]

_CLASS_MODES = ("binary", "categorical", "input", "multi_output", "raw", "sparse", None)
_WITH_CLASSES = ("binary", "categorical", "sparse")


class DataFrameIterator(FileBatches):
    """Batches of the images that a DataFrame names.

    Args:
        dataframe: Has a row for each image.
        directory: The folder that paths begin at; None where they are whole.
        image_data_generator: Transforms the images, or None.
        x_col: The column of paths.
        y_col: The column of targets; a list of columns for "multi_output" and "raw".
        weight_col: The column of weights, or None.
        target_size: `(height, width)` that all are brought to.
        color_mode: "rgb", "rgba" or "grayscale".
        classes: Names of the classes, in the order of their numbers; rows of others are left out.
            By default all, sorted.
        class_mode: What goes with the images: "categorical" one-hot rows (several hot ones where
            a row has a list of classes), "binary" or "sparse" numbers of classes, "raw" the values
            of `y_col`, "multi_output" a list of the values of each column, "input" the images
            themselves, None nothing.
        batch_size, shuffle, seed: As in `Iterator`.
        data_format, dtype: Of the batches; None for the generator's.
        save_to_dir, save_prefix, save_format: Where transformed images are written.
        subset: "training" or "validation", by the generator's `validation_split`.
        interpolation, keep_aspect_ratio: How the size is changed, as in `load_img`.
        validate_filenames: Whether rows whose file does not exist are left out, with a warning.
        on_error: "raise" where a file is no image, or "skip": all are read once at first, broken
            ones left out and listed in `skipped`.
    """

    allowed_class_modes = frozenset(_CLASS_MODES)

    def __init__(
        self,
        dataframe: Any,
        directory: Any = None,
        image_data_generator: Any = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: Any = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = "channels_last",
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = None,
        validate_filenames: bool = True,
        on_error: str = "raise",
    ):
        if class_mode not in _CLASS_MODES:
            raise ArgumentError("class_mode", repr(class_mode), f"one of {_CLASS_MODES}")
        self.directory = directory or ""
        self.class_mode = class_mode
        self.class_indices: dict[str, int] = {}
        self.split = split_of(image_data_generator, subset)
        self.subset = subset
        frame = dataframe.copy()
        self._check_columns(frame, x_col, y_col, weight_col)
        if classes and class_mode not in _WITH_CLASSES:
            warnings.warn(f"classes mean nothing with class_mode={class_mode!r}", stacklevel=3)
        frame[x_col] = [os.fspath(path) for path in frame[x_col]]
        if validate_filenames:
            frame = self._existing(frame, x_col)
        if class_mode in _WITH_CLASSES:
            frame = self._with_known_classes(frame, y_col, classes)
        if self.split:
            start, stop = (int(part * len(frame)) for part in self.split)
            frame = frame.iloc[start:stop]
        paths = [os.path.join(self.directory, name) for name in frame[x_col]]
        if not paths:
            raise DataError(
                "no image of the DataFrame can be used",
                received=f"{len(dataframe)} rows, x_col={x_col!r}, directory={directory!r}",
                expected="paths of files that exist",
                fix="compare os.path.join(directory, dataframe[x_col][0]) with what is there",
            )
        kept, self.skipped = readable(paths, on_error)
        if self.skipped:
            warnings.warn(
                f"{len(self.skipped)} files are no images and are left out: "
                + ", ".join(self.skipped[:3]),
                stacklevel=3,
            )
        frame = frame[kept]
        self.filenames = list(frame[x_col])
        self.samples = len(self.filenames)
        self._weights = None if weight_col is None else np.asarray(frame[weight_col].values)
        self._keep_targets(frame, y_col)
        about = f" belonging to {len(self.class_indices)} classes" * (class_mode in _WITH_CLASSES)
        state = "validated" if validate_filenames else "non-validated"
        print(f"Found {self.samples} {state} image filenames{about}.")
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

    @property
    def labels(self) -> Any:
        """The class of each file, or the values that go with it."""
        return self._targets if self.class_mode in ("multi_output", "raw") else self.classes

    @property
    def sample_weight(self) -> Any:
        """The weight of each file, or None."""
        return self._weights

    def _check_columns(self, frame: Any, x_col: str, y_col: Any, weight_col: str | None) -> None:
        wanted: dict[str, Any] = {"x_col": [x_col]}
        wanted["weight_col"] = [weight_col] if weight_col else []
        if self.class_mode not in ("input", None):
            wanted["y_col"] = y_col if isinstance(y_col, list | tuple) else [y_col]
        for argument, columns in wanted.items():
            missing = [column for column in columns if column not in frame.columns]
            if missing:
                raise ArgumentError(
                    f"the DataFrame has no column {missing[0]!r} ({argument})",
                    received=f"columns {list(frame.columns)}",
                    fix=f"name the column: {argument}=...",
                )
        if self.class_mode == "multi_output" and not isinstance(y_col, list):
            raise ArgumentError("y_col", repr(y_col), "a list of columns for 'multi_output'")
        self._check_values(frame, x_col, str | os.PathLike, "paths")
        if self.class_mode in _WITH_CLASSES:
            several = self.class_mode == "categorical"
            kinds = str | list | tuple if several else str
            self._check_values(frame, y_col, kinds, "names of classes" + ", or lists" * several)
        if weight_col and not np.issubdtype(np.asarray(frame[weight_col]).dtype, np.number):
            raise ArgumentError(f"column {weight_col!r} (weight_col)", "text", "numbers")

    @staticmethod
    def _check_values(frame: Any, column: Any, kinds: Any, what: str) -> None:
        for value in frame[column]:
            if not isinstance(value, kinds):
                raise ArgumentError(
                    f"column {column!r}",
                    received=repr(value),
                    expected=what,
                    fix=f"dataframe[{column!r}] = dataframe[{column!r}].astype(str)",
                )

    def _existing(self, frame: Any, x_col: str) -> Any:
        endings = tuple("." + e for e in self.white_list_formats)
        kept = np.array(
            [
                name.lower().endswith(endings)
                and os.path.isfile(os.path.join(self.directory, name))
                for name in frame[x_col]
            ],
            bool,
        )
        if not kept.all():
            gone = next(name for name, keep in zip(frame[x_col], kept, strict=True) if not keep)
            warnings.warn(
                f"{(~kept).sum()} rows are left out: no file, or none of "
                f"{', '.join(self.white_list_formats)}; the first is {gone!r} (x_col={x_col!r})",
                stacklevel=4,
            )
        return frame[kept]

    def _with_known_classes(self, frame: Any, y_col: str, classes: Any) -> Any:
        """Returns the rows that have a class, and numbers the classes."""
        values = list(frame[y_col])
        names = [n for v in values for n in ([v] if isinstance(v, str) else v)]
        known = list(dict.fromkeys(classes)) if classes else sorted(set(names))
        if self.class_mode == "binary" and len(known) != 2:
            raise ArgumentError(
                "class_mode", f"'binary' with {len(known)} classes: {known[:5]}", "2 classes"
            )
        self.class_indices = {name: number for number, name in enumerate(known)}
        if not classes:
            return frame

        def known_one(value: Any) -> bool:
            each = [value] if isinstance(value, str) else value
            return any(name in self.class_indices for name in each)

        return frame[np.array([known_one(v) for v in values], bool)]

    def _keep_targets(self, frame: Any, y_col: Any) -> None:
        if self.class_mode in _WITH_CLASSES:
            numbers = self.class_indices
            self.classes = [
                numbers[v] if isinstance(v, str) else [numbers[n] for n in v if n in numbers]
                for v in frame[y_col]
            ]
        elif self.class_mode == "multi_output":
            self._targets = [np.array(frame[column].tolist()) for column in y_col]
        elif self.class_mode == "raw":
            self._targets = np.asarray(frame[y_col].values)
