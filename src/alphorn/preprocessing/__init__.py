"""The classic functions that turn text, lists, images and folders of files into arrays."""

from alphorn.preprocessing import image, sequence, text
from alphorn.preprocessing.datasets import (
    image_dataset_from_directory,
    text_dataset_from_directory,
)
from alphorn.preprocessing.windows import timeseries_dataset_from_array

__all__ = [
    "image",
    "image_dataset_from_directory",
    "sequence",
    "text",
    "text_dataset_from_directory",
    "timeseries_dataset_from_array",
]
