"""Batches of images that are in memory."""

import warnings
from typing import Any

import numpy as np

from alphorn import config
from alphorn.errors import ArgumentError, DataError
from alphorn.preprocessing.image.batches import ImageBatches, Saving, split_of, standard_format

__all__ = ["NumpyArrayIterator"]


class NumpyArrayIterator(ImageBatches):
    """Batches of images in an array, transformed anew each time.

    Args:
        x: `(rows, height, width, channels)`, or `(images, others)` where others are arrays, one
            or a list, that go along unchanged.
        y: What goes with each image, or None.
        image_data_generator: Transforms the images.
        batch_size, shuffle, seed: As in `Iterator`.
        sample_weight: `(rows,)`, or None.
        data_format: Layout of the images; None for the generator's.
        save_to_dir, save_prefix, save_format: Where transformed images are written.
        subset: "training" or "validation", by the generator's `validation_split`.
        ignore_class_split: Whether both subsets may have different classes.
        dtype: Of the batches; None for the generator's.

    Yields images, `(images, y)` or `(images, y, sample_weight)`; images are a list with the others
    where there are such.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: Any = None,
    ):
        layout = standard_format(data_format, image_data_generator)
        dtype = dtype or getattr(image_data_generator, "dtype", None) or config.floatx()
        images, others = _parted(x)
        y = None if y is None else np.asarray(y)
        weight = None if sample_weight is None else np.asarray(sample_weight)
        named = {"y": y, "sample_weight": weight}
        named |= {f"x[1][{i}]": other for i, other in enumerate(others)}
        for name, values in named.items():
            if values is not None and len(values) != len(images):
                raise DataError(
                    f"flow: images and {name} are of unequal numbers of rows",
                    received=f"{len(images)} images, {len(values)} in {name}",
                    expected="as many",
                )
        split = split_of(image_data_generator, subset)
        if split is not None:
            cut = int(len(images) * (split[1] if subset == "validation" else split[0]))
            rows = slice(cut) if subset == "validation" else slice(cut, None)
            if not ignore_class_split:
                _same_classes(y, cut)
            images, others = images[rows], [other[rows] for other in others]
            y = None if y is None else y[rows]
            weight = None if weight is None else weight[rows]
        self.x = np.asarray(images, dtype=dtype)
        self.x_misc = others
        self.y = y
        self.sample_weight = weight
        if self.x.ndim != 4:
            raise DataError("flow: x", f"shape {self.x.shape}", "4 axes: rows of images")
        if not len(self.x):
            raise DataError("flow: x", "no images", "at least one", "change validation_split")
        axis = 3 if layout == "channels_last" else 1
        if self.x.shape[axis] not in (1, 3, 4):
            warnings.warn(
                f"{self.x.shape[axis]} channels on axis {axis} of {self.x.shape}: images have 1, 3 "
                f"or 4. data_format is {layout!r}; is it the other one?",
                stacklevel=3,
            )
        super().__init__(
            len(self.x),
            batch_size,
            shuffle,
            seed,
            image_data_generator,
            self.x.shape[1:],
            layout,
            dtype,
            Saving(save_to_dir, save_prefix, save_format, 10**4),
        )

    def _image(self, row: int) -> np.ndarray:
        return self.x[row]

    def _with_targets(self, images: np.ndarray, index_array: np.ndarray) -> Any:
        x: Any = [images, *(other[index_array] for other in self.x_misc)] if self.x_misc else images
        if self.y is None:
            return x
        if self.sample_weight is None:
            return x, self.y[index_array]
        return x, self.y[index_array], self.sample_weight[index_array]


def _parted(x: Any) -> tuple[Any, list[np.ndarray]]:
    pair = isinstance(x, tuple | list) and len(x) == 2 and np.ndim(x[0]) == 4
    if not pair:
        return np.asarray(x), []
    others = x[1] if isinstance(x[1], list) else [x[1]]
    return np.asarray(x[0]), [np.asarray(other) for other in others]


def _same_classes(y: Any, cut: int) -> None:
    if y is None or (y.dtype.kind == "f" and not np.array_equal(y, np.round(y))):
        return
    if not np.array_equal(np.unique(y[:cut]), np.unique(y[cut:])):
        raise ArgumentError(
            "flow: training and validation have different classes",
            received=f"the first {cut} rows for validation",
            expected="the same classes in both parts",
            fix="shuffle the rows first, or say ignore_class_split=True",
        )
