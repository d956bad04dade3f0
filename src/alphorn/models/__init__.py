"""Models: functional, subclassed, Sequential."""

from alphorn.models.model import Functional, Model, clone_model
from alphorn.models.sequential import Sequential

__all__ = ["Functional", "Model", "Sequential", "clone_model"]
