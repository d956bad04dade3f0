"""What an ImageDataGenerator learns from images, and what it then makes of each."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from alphorn.errors import DataError

__all__ = ["Normalization"]


class Normalization:
    """The part of `ImageDataGenerator` that has nothing to do with chance."""

    featurewise_center: bool
    featurewise_std_normalization: bool
    samplewise_center: bool
    samplewise_std_normalization: bool
    zca_whitening: bool
    zca_epsilon: float
    rescale: float | None
    preprocessing_function: Callable | None
    data_format: str
    dtype: Any
    row_axis: int
    col_axis: int
    channel_axis: int
    mean: Any = None
    std: Any = None
    principal_components: Any = None

    def random_transform(self, x: Any, seed: int | None = None) -> np.ndarray:
        """Returns an image transformed at random; as it is here."""
        return np.asarray(x)

    def _settle(self) -> None:
        """Brings the kinds of normalization that exclude or need each other in order."""

        def change(name: str, value: bool, because: str) -> None:
            if getattr(self, name) != value:
                setattr(self, name, value)
                warnings.warn(f"{because} makes {name} {value}", stacklevel=4)

        if self.zca_whitening:
            change("featurewise_center", True, "zca_whitening")
            change("featurewise_std_normalization", False, "zca_whitening")
        if self.featurewise_std_normalization:
            change("featurewise_center", True, "featurewise_std_normalization")
        if self.samplewise_std_normalization:
            change("samplewise_center", True, "samplewise_std_normalization")

    def standardize(self, x: Any) -> np.ndarray:
        """Returns an image, or a batch of them, normalized; an array of floats changes in place.

        Warns where it needs figures that `fit` would have computed.
        """
        if self.preprocessing_function is not None:
            x = self.preprocessing_function(x)
        x = np.asarray(x)
        if x.dtype.kind not in "fc":
            x = x.astype(self.dtype)
        if self.rescale:
            x *= self.rescale
        if self.samplewise_center:
            x -= np.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x /= np.std(x, keepdims=True) + 1e-6
        if self.featurewise_center and self._fitted("featurewise_center", self.mean):
            x -= self.mean
        if self.featurewise_std_normalization and self._fitted(
            "featurewise_std_normalization", self.std
        ):
            x /= self.std + 1e-6
        if self.zca_whitening and self._fitted("zca_whitening", self.principal_components):
            flat = x.reshape(-1, np.prod(x.shape[-3:]))
            x = np.dot(flat, self.principal_components).reshape(x.shape)
        return x

    def _fitted(self, name: str, figures: Any) -> bool:
        if figures is None:
            warnings.warn(
                f"{name} does nothing yet: call generator.fit(images) first", stacklevel=3
            )
        return figures is not None

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Computes what `featurewise_...` and `zca_whitening` need.

        Args:
            x: `(rows, height, width, channels)`.
            augment: Whether from transformed images.
            rounds: How often each is transformed.
            seed: Makes the transforms the same each time.
        """
        x = np.array(x, dtype=self.dtype)
        if x.ndim != 4:
            raise DataError("fit: x", f"shape {x.shape}", "4 axes: rows of images")
        channels = x.shape[self.channel_axis]
        if channels not in (1, 3, 4):
            warnings.warn(
                f"{channels} channels on axis {self.channel_axis} of {x.shape}: images have 1, 3 or"
                f" 4. data_format is {self.data_format!r}; is it the other one?",
                stacklevel=2,
            )
        if seed is not None:
            np.random.seed(seed)
        if self.rescale:
            x *= self.rescale
        if augment:
            x = np.stack([self.random_transform(image) for _ in range(rounds) for image in x])
            x = x.astype(self.dtype, copy=False)
        shape = [1, 1, 1]
        shape[self.channel_axis - 1] = channels
        over = (0, self.row_axis, self.col_axis)
        if self.featurewise_center:
            self.mean = np.mean(x, axis=over).reshape(shape)
            x -= self.mean
        if self.featurewise_std_normalization:
            self.std = np.std(x, axis=over).reshape(shape)
            x /= self.std + 1e-6
        if self.zca_whitening:
            flat = x.reshape(len(x), -1)
            u, s, _ = np.linalg.svd(np.dot(flat.T, flat) / len(flat))
            self.principal_components = (u / np.sqrt(s + self.zca_epsilon)).dot(u.T)
