"""Attributions of generated text: what each token owes to each token before it."""

from .attribution import GenerationAttribution
from .generate import generate
from .language_model import LanguageModel
from .loading import load_language_model
from .render import html
from .terminal import rich_matrix
from .units import UnitMatrix

__all__ = [
    "GenerationAttribution",
    "LanguageModel",
    "UnitMatrix",
    "generate",
    "html",
    "load_language_model",
    "rich_matrix",
]
