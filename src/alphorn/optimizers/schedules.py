"""Schedules by Keras's path, `optimizers.schedules`."""

from alphorn import schedules
from alphorn.schedules import *  # noqa: F403

__all__ = schedules.__all__
