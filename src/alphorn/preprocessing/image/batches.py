"""Batches of images: the transform of each drawn in order, then applied, in order or on threads."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphorn import config
from alphorn.errors import ArgumentError, StateError
from alphorn.preprocessing.image.arrays import array_to_img, img_to_array
from alphorn.preprocessing.image.files import CHANNELS, ImageFileError, broken_among, load_img
from alphorn.preprocessing.image.iterators import Iterator

__all__ = ["FileBatches", "ImageBatches", "Saving"]


@dataclass(frozen=True)
class Saving:
    """Where the transformed images of each batch are written, for a look at them."""

    folder: Any = None
    prefix: str = ""
    format: str = "png"
    # Names carry a number below this, drawn after the transforms of a batch.
    numbers: int = 10**7


class ImageBatches(Iterator):
    """An iterator over images. Classes below say what an image is and what goes with it.

    Args:
        n, batch_size, shuffle, seed: As in `Iterator`.
        generator: An `ImageDataGenerator`, or None for images as they are.
        image_shape: Of one image.
        dtype: Of the batches.
        saving: Where images are written.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        generator: Any,
        image_shape: tuple[int, ...],
        data_format: str,
        dtype: Any,
        saving: Saving,
    ):
        self.image_data_generator = generator
        self.image_shape = image_shape
        self.data_format = data_format
        self.dtype = dtype
        self.saving = saving
        self.save_to_dir = saving.folder
        # Whether the user's functions draw random numbers: None until the first batch tells.
        self._draws: bool | None = None
        super().__init__(n, batch_size, shuffle, seed)

    def _image(self, row: int) -> np.ndarray:
        """Returns one image as it is."""
        raise StateError(
            f"{type(self).__name__} does not say where its images are",
            fix="write its method _image(self, row)",
        )

    def _with_targets(self, images: np.ndarray, index_array: np.ndarray) -> Any:
        """Returns a batch of images with what goes with them."""
        return images

    def _runs_user_code(self) -> bool:
        generator = self.image_data_generator
        return generator is not None and generator.runs_user_code()

    def _private(self) -> bool:
        """Returns whether all random numbers of a batch can be drawn before it is made."""
        generator = self.image_data_generator
        if generator is None or not self._runs_user_code():
            return True
        return self._draws is False and not generator.draws_by_user_code()

    def _seeded(self, seed: int) -> Any:
        return np.random.RandomState(seed) if self._private() else super()._seeded(seed)

    def _can_look_ahead(self) -> bool:
        plain = type(self)._get_batches_of_transformed_samples
        return plain is ImageBatches._get_batches_of_transformed_samples and self._private()

    def _threads(self) -> int:
        # One thread calls a user's function in the order of the rows, and never twice at a time.
        return 1 if self._runs_user_code() else self.workers

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        index_array = np.asarray(index_array)
        if self._private():
            return self._planned(index_array)()
        before = random.getstate()
        images = np.empty((len(index_array), *self.image_shape), self.dtype)
        drawn = False
        for place, row in enumerate(index_array):
            generator = self.image_data_generator
            transform = generator.get_random_transform(self.image_shape)
            state = np.random.get_state()
            self._fill(images, place, row, transform, self._runs_user_code())
            drawn = drawn or _differ(state, np.random.get_state())
        if self._draws is not True:
            self._draws = drawn or before != random.getstate()
        self._save(images, index_array, self._numbers(index_array, np.random))
        return self._with_targets(images, index_array)

    def _planned(self, index_array: np.ndarray) -> Callable[[], Any]:
        generator, source = self.image_data_generator, self._random
        transforms = [
            None if generator is None else generator.draw_transform(self.image_shape, source)
            for _ in index_array
        ]
        numbers = self._numbers(index_array, source)

        def make() -> Any:
            images = np.empty((len(index_array), *self.image_shape), self.dtype)
            user_code = self._runs_user_code()
            for place, (row, transform) in enumerate(zip(index_array, transforms, strict=True)):
                self._fill(images, place, row, transform, user_code)
            self._save(images, index_array, numbers)
            return self._with_targets(images, index_array)

        return make

    def _fill(
        self, images: np.ndarray, place: int, row: int, transform: dict | None, user_code: bool
    ) -> None:
        image = self._image(row)
        if transform is None:
            images[place] = image
            return
        generator, own = self.image_data_generator, images[place]
        if user_code:
            found = generator.apply_transform(np.array(image), transform)
        else:
            found = generator.transformed(image, transform, own)
        if found is not own:
            images[place] = found
        # In place: the image is the batch's own by now.
        standard = generator.standardize(images[place])
        if standard is not images[place]:
            images[place] = standard

    def _numbers(self, index_array: np.ndarray, source: Any) -> list[int]:
        if not self.save_to_dir:
            return []
        return [source.randint(self.saving.numbers) for _ in index_array]

    def _save(self, images: np.ndarray, index_array: np.ndarray, numbers: list[int]) -> None:
        if not self.save_to_dir:
            return
        os.makedirs(self.save_to_dir, exist_ok=True)
        for image, row, number in zip(images, index_array, numbers, strict=True):
            name = f"{self.saving.prefix}_{row}_{number}.{self.saving.format}"
            array_to_img(image, self.data_format).save(os.path.join(self.save_to_dir, name))


def _differ(before: Any, after: Any) -> bool:
    return before[2:] != after[2:] or not np.array_equal(before[1], after[1])


class FileBatches(ImageBatches):
    """An iterator over images in files.

    Args:
        paths: Of the files.
        generator, batch_size, shuffle, seed, data_format, dtype, saving: As in `ImageBatches`.
        target_size: `(height, width)` that all are brought to.
        color_mode: "rgb", "rgba" or "grayscale".
        interpolation: How their size is changed.
        keep_aspect_ratio: Whether their middle is cut out instead of distorting them.
    """

    filepaths: list[str]
    class_mode: str | None = None
    class_indices: dict
    classes: Any = None

    def __init__(
        self,
        paths: list[str],
        generator: Any,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        target_size: Any,
        color_mode: str,
        data_format: str,
        dtype: Any,
        saving: Saving,
        interpolation: str,
        keep_aspect_ratio: bool,
    ):
        if color_mode not in CHANNELS:
            raise ArgumentError("color_mode", repr(color_mode), f"one of {tuple(CHANNELS)}")
        self.filepaths = paths
        self.target_size = tuple(target_size)
        self.color_mode = color_mode
        self.interpolation = interpolation
        self.keep_aspect_ratio = keep_aspect_ratio
        channels = (CHANNELS[color_mode],)
        size = self.target_size
        shape = (*size, *channels) if data_format == "channels_last" else (*channels, *size)
        super().__init__(
            len(paths), batch_size, shuffle, seed, generator, shape, data_format, dtype, saving
        )

    @property
    def labels(self) -> Any:
        """The class of each file, or the values that go with it."""
        return self.classes

    @property
    def sample_weight(self) -> Any:
        """The weight of each file, or None."""
        return None

    def _image(self, row: int) -> np.ndarray:
        image = load_img(
            self.filepaths[row],
            self.color_mode,
            self.target_size,
            self.interpolation,
            self.keep_aspect_ratio,
        )
        return img_to_array(image, self.data_format)

    def _with_targets(self, images: np.ndarray, index_array: np.ndarray) -> Any:
        if self.class_mode is None:
            return images
        targets = self._targets_of(images, index_array)
        weight = self.sample_weight
        return (images, targets) if weight is None else (images, targets, weight[index_array])

    def _targets_of(self, images: np.ndarray, index_array: np.ndarray) -> Any:
        if self.class_mode == "input":
            return images.copy()
        if self.class_mode == "multi_output":
            return [values[index_array] for values in self.labels]
        if self.class_mode == "raw":
            return self.labels[index_array]
        if self.class_mode == "categorical":
            targets = np.zeros((len(images), len(self.class_indices)), self.dtype)
            for place, row in enumerate(index_array):
                targets[place, self.classes[row]] = 1
            return targets
        return np.array([self.classes[row] for row in index_array], self.dtype)


def standard_format(data_format: str | None, generator: Any) -> str:
    """Returns `data_format`, the generator's where it is None, or the default."""
    if data_format is None and generator is not None:
        return generator.data_format
    return config.standardize_data_format(data_format)


def split_of(generator: Any, subset: str | None) -> tuple[float, float] | None:
    """Returns between which fractions of the rows a subset lies; None for all."""
    if subset is None:
        return None
    share = 0.0 if generator is None else generator.validation_split
    if subset == "validation":
        return 0.0, share
    if subset == "training":
        return share, 1.0
    raise ArgumentError("subset", repr(subset), "'training' or 'validation'")


def readable(paths: list[str], on_error: str) -> tuple[np.ndarray, list[str]]:
    """Returns which files are kept, `(files,)` of booleans, and the paths of those that are not.

    Args:
        paths: Of the files.
        on_error: "raise": all are kept, a broken one raises when it is read. "skip": all are read
            once, now, and the broken ones left out.
    """
    if on_error not in ("raise", "skip"):
        raise ArgumentError("on_error", repr(on_error), "'raise' or 'skip'")
    broken = broken_among(paths) if on_error == "skip" else []
    if paths and len(broken) == len(paths):
        raise ImageFileError(
            f"none of {len(paths)} files can be read as an image", received=paths[0]
        )
    gone = set(broken)
    return np.array([path not in gone for path in paths], bool), broken
