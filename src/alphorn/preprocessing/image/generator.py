"""ImageDataGenerator: images transformed at random and normalized, batch by batch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from alphorn import config
from alphorn.errors import ArgumentError
from alphorn.preprocessing.image.affine import check_fill_mode, transformed
from alphorn.preprocessing.image.color import (
    apply_brightness_shift,
    check_brightness_range,
    shifted,
)
from alphorn.preprocessing.image.folders import DirectoryIterator
from alphorn.preprocessing.image.frames import DataFrameIterator
from alphorn.preprocessing.image.memory import NumpyArrayIterator
from alphorn.preprocessing.image.normalization import Normalization

__all__ = ["ImageDataGenerator"]

_OWN = ("apply_transform", "standardize", "get_random_transform")


class ImageDataGenerator(Normalization):
    """Batches of images, transformed at random and normalized.

    Args:
        featurewise_center, featurewise_std_normalization: By mean and deviation of each channel
            over the images of `fit`.
        samplewise_center, samplewise_std_normalization: By each image's own.
        zca_whitening: By the principal components of the images of `fit`.
        zca_epsilon: What keeps them finite.
        rotation_range: Degrees.
        width_shift_range, height_shift_range: A fraction of the size if below 1, else pixels; a
            list of shifts to choose from; an integer n for 0 to n - 1 pixels either way.
        brightness_range: The smallest and the largest factor.
        shear_range: Degrees.
        zoom_range: The smallest and the largest factor, or z for 1 - z to 1 + z.
        channel_shift_range: The largest number added.
        fill_mode: "nearest", "constant", "reflect" or "wrap": what stands beyond the edges.
        cval: What "constant" puts there.
        horizontal_flip, vertical_flip: Whether images are flipped, at even odds.
        rescale: A factor, or None.
        preprocessing_function: Called with each image, after the transform, before all else.
        data_format: "channels_last" or "channels_first"; None for the default.
        validation_split: The share of the first rows that `subset="validation"` gets.
        interpolation_order: 0 nearest, 1 linear, up to 5.
        dtype: Of the batches; None for `floatx()`.

    >>> images = np.ones((10, 8, 8, 3), "float32")
    >>> generator = ImageDataGenerator(rotation_range=20, horizontal_flip=True, rescale=0.5)
    >>> batches = generator.flow(images, np.arange(10), batch_size=4, seed=1)
    >>> x, y = next(batches)
    >>> x.shape, float(x.max()), len(batches)
    ((4, 8, 8, 3), 0.5, 3)
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Any = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: Any = None,
    ):
        check_fill_mode("ImageDataGenerator", fill_mode)
        if validation_split and not 0 < validation_split < 1:
            raise ArgumentError("validation_split", validation_split, "a fraction between 0 and 1")
        if brightness_range is not None:
            check_brightness_range("ImageDataGenerator", brightness_range)
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.brightness_range = brightness_range
        self.shear_range = shear_range
        self.zoom_range = _zooms(zoom_range)
        self.channel_shift_range = channel_shift_range
        self.fill_mode = fill_mode
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.data_format = config.standardize_data_format(data_format)
        self.validation_split = validation_split
        self.interpolation_order = interpolation_order
        self.dtype = dtype or config.floatx()
        last = self.data_format == "channels_last"
        self.row_axis, self.col_axis, self.channel_axis = (1, 2, 3) if last else (2, 3, 1)
        self._settle()

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
    ) -> NumpyArrayIterator:
        """Returns batches of images in memory; the arguments are those of `NumpyArrayIterator`."""
        return NumpyArrayIterator(
            x,
            y,
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            seed=seed,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            ignore_class_split=ignore_class_split,
            subset=subset,
        )

    def flow_from_directory(
        self,
        directory: Any,
        target_size: Any = (256, 256),
        color_mode: str = "rgb",
        classes: Any = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        on_error: str = "raise",
    ) -> DirectoryIterator:
        """Returns batches of the images in a folder; the arguments are `DirectoryIterator`'s."""
        return DirectoryIterator(
            directory,
            self,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            follow_links=follow_links,
            subset=subset,
            interpolation=interpolation,
            keep_aspect_ratio=keep_aspect_ratio,
            on_error=on_error,
        )

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: Any = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: Any = (256, 256),
        color_mode: str = "rgb",
        classes: Any = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        keep_aspect_ratio: bool = False,
        on_error: str = "raise",
    ) -> DataFrameIterator:
        """Returns batches of the images a DataFrame names; arguments as in `DataFrameIterator`.

        `class_mode="other"`, Keras 2.2's name for "raw", is understood.
        """
        return DataFrameIterator(
            dataframe,
            directory,
            self,
            x_col=x_col,
            y_col=y_col,
            weight_col=weight_col,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode="raw" if class_mode == "other" else class_mode,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            data_format=None,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            interpolation=interpolation,
            keep_aspect_ratio=keep_aspect_ratio,
            validate_filenames=validate_filenames,
            on_error=on_error,
        )

    def runs_user_code(self) -> bool:
        """Returns whether functions of the user's own have a part in making a batch."""
        replaced = any(
            name in vars(self) or getattr(type(self), name) is not getattr(ImageDataGenerator, name)
            for name in _OWN
        )
        return replaced or self.preprocessing_function is not None

    def draws_by_user_code(self) -> bool:
        """Returns whether the user's own function draws the transforms."""
        own = type(self).get_random_transform is not ImageDataGenerator.get_random_transform
        return own or "get_random_transform" in vars(self)

    def get_random_transform(self, img_shape: Any, seed: int | None = None) -> dict:
        """Returns a drawn transform, for `apply_transform`.

        Args:
            img_shape: Of one image.
            seed: Makes it the same each time.
        """
        source = np.random if seed is None else np.random.RandomState(seed)
        return self.draw_transform(img_shape, source)

    def draw_transform(self, img_shape: Any, source: Any) -> dict:
        """Returns a transform, drawn from a `RandomState`, or from the module `np.random`."""
        height, width = img_shape[self.row_axis - 1], img_shape[self.col_axis - 1]
        theta = _uniform(self.rotation_range, source)
        tx = _shift(self.height_shift_range, height, source)
        ty = _shift(self.width_shift_range, width, source)
        shear = _uniform(self.shear_range, source)
        low, high = self.zoom_range
        zx, zy = (1, 1) if low == 1 and high == 1 else (_between(low, high, source) for _ in "xy")
        horizontal = bool(source.random_sample() < 0.5) and self.horizontal_flip
        vertical = bool(source.random_sample() < 0.5) and self.vertical_flip
        channel = self.channel_shift_range
        return {
            "theta": theta,
            "tx": tx,
            "ty": ty,
            "shear": shear,
            "zx": zx,
            "zy": zy,
            "flip_horizontal": horizontal,
            "flip_vertical": vertical,
            "channel_shift_intensity": _uniform(channel, source) if channel else None,
            "brightness": self.brightness_range and source.uniform(*self.brightness_range),
        }

    def apply_transform(self, x: Any, transform_parameters: dict) -> np.ndarray:
        """Returns an image transformed as told.

        Args:
            x: One image.
            transform_parameters: Any of theta, tx, ty, shear, zx, zy, flip_horizontal,
                flip_vertical, channel_shift_intensity, brightness.
        """
        return self.transformed(np.asarray(x), transform_parameters)

    def transformed(self, x: np.ndarray, transform: dict, out: np.ndarray | None = None) -> Any:
        """Returns `apply_transform`, if it can in `out`, or the image itself."""
        told: Callable[..., Any] = transform.get
        x = transformed(
            x,
            (
                told("theta", 0),
                told("tx", 0),
                told("ty", 0),
                told("shear", 0),
                told("zx", 1),
                told("zy", 1),
            ),
            flips=(told("flip_vertical", False), told("flip_horizontal", False)),
            axes=(self.row_axis - 1, self.col_axis - 1, self.channel_axis - 1),
            mode=self.fill_mode,
            cval=self.cval,
            order=self.interpolation_order,
            out=out,
        )
        if told("channel_shift_intensity") is not None:
            x = shifted(x, told("channel_shift_intensity"), x if x is out else None)
        if told("brightness") is not None:
            x = apply_brightness_shift(x, told("brightness"), data_format=self.data_format)
        return x

    def random_transform(self, x: Any, seed: int | None = None) -> np.ndarray:
        """Returns an image transformed at random.

        Args:
            x: One image.
            seed: Makes the transform the same each time: for an image and its segmentation.
        """
        return self.apply_transform(x, self.get_random_transform(np.shape(x), seed))


def _zooms(zoom_range: Any) -> list[float]:
    if isinstance(zoom_range, int | float):
        return [1 - zoom_range, 1 + zoom_range]
    if np.size(zoom_range) == 2 and all(isinstance(z, int | float) for z in zoom_range):
        return [zoom_range[0], zoom_range[1]]
    raise ArgumentError("zoom_range", repr(zoom_range), "a number, or the smallest and the largest")


def _between(low: float, high: float, source: Any) -> float:
    """Returns what `source.uniform(low, high)` would, in a third of the time."""
    low = float(low)
    return low + (float(high) - low) * source.random_sample()


def _uniform(largest: float, source: Any) -> float:
    return _between(-largest, largest, source) if largest else 0


def _shift(shift_range: Any, size: int, source: Any) -> float:
    """Returns a shift in pixels, either way."""
    if isinstance(shift_range, int | float | np.number) and not shift_range:
        return 0
    if isinstance(shift_range, float | np.floating):
        drawn = _between(-shift_range, shift_range, source)
        return drawn * size if shift_range < 1 else drawn
    drawn = source.choice(shift_range) * source.choice([-1, 1])
    return drawn * size if np.max(shift_range) < 1 else drawn
