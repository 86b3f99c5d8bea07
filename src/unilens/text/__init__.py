"""Explanations of text classifiers and of generated text, at the embeddings of tokens."""

from .attribution import TextAttribution
from .classifier import EncodedText, TextClassifier
from .embeddings import AtEmbeddings
from .generation import GenerationAttribution, LanguageModel, generate, load_language_model
from .loading import load_text_classifier
from .methods import build_text_method, explain_text, text_baselines, text_methods
from .render import html, rich_text
from .tokens import Tokens

__all__ = [
    "AtEmbeddings",
    "EncodedText",
    "GenerationAttribution",
    "LanguageModel",
    "TextAttribution",
    "TextClassifier",
    "Tokens",
    "build_text_method",
    "explain_text",
    "generate",
    "html",
    "load_language_model",
    "load_text_classifier",
    "rich_text",
    "text_baselines",
    "text_methods",
]
