"""The classic functions that turn text, lists and images into arrays."""

from alphorn.preprocessing import image, sequence, text

__all__ = ["image", "sequence", "text"]
