"""Models: functional, subclassed, Sequential, and from files."""

from alphorn.models.model import Functional, Model, clone_model
from alphorn.models.sequential import Sequential
from alphorn.saving.archive import load_model, save_model
from alphorn.saving.configs import model_from_json

__all__ = [
    "Functional",
    "Model",
    "Sequential",
    "clone_model",
    "load_model",
    "model_from_json",
    "save_model",
]
