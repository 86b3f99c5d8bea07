"""Image classifiers by name, photographs, and the preprocessing between them."""

from .classifier import PixelClassifier, Preprocessing
from .images import read_image
from .loading import DEFAULT_MODEL, check_model_name, load_model, models
from .samples import samples

__all__ = [
    "DEFAULT_MODEL",
    "PixelClassifier",
    "Preprocessing",
    "check_model_name",
    "load_model",
    "models",
    "read_image",
    "samples",
]
