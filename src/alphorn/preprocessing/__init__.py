"""The classic functions that turn text and lists into arrays."""

from alphorn.preprocessing import sequence, text

__all__ = ["sequence", "text"]
