"""Image classifiers by name, photographs and their preprocessing, and volumes of medical files."""

from .classifier import PixelClassifier, Preprocessing
from .images import read_image
from .loading import DEFAULT_MODEL, check_model_name, load_model, models
from .samples import samples
from .volumes import Volume, load_volume, save_volume

__all__ = [
    "DEFAULT_MODEL",
    "PixelClassifier",
    "Preprocessing",
    "Volume",
    "check_model_name",
    "load_model",
    "load_volume",
    "models",
    "read_image",
    "samples",
    "save_volume",
]
