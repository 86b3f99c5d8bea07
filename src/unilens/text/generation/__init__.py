"""Attributions of generated text: what each token owes to each token before it."""

from .attribution import GenerationAttribution
from .generate import generate
from .language_model import LanguageModel
from .loading import load_language_model

__all__ = ["GenerationAttribution", "LanguageModel", "generate", "load_language_model"]
