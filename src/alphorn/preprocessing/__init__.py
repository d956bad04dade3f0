"""The classic functions that turn text and lists into arrays."""

from alphorn.preprocessing import sequence, text
from alphorn.preprocessing.windows import timeseries_dataset_from_array

__all__ = ["sequence", "text", "timeseries_dataset_from_array"]
