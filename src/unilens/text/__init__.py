"""Explanations of text classifiers: every method, at the embeddings of the text's own tokens."""

from .attribution import TextAttribution
from .classifier import EncodedText, TextClassifier
from .embeddings import AtEmbeddings
from .loading import load_text_classifier
from .methods import build_text_method, explain_text, text_baselines, text_methods
from .render import html, rich_text
from .tokens import Tokens

__all__ = [
    "AtEmbeddings",
    "EncodedText",
    "TextAttribution",
    "TextClassifier",
    "Tokens",
    "build_text_method",
    "explain_text",
    "html",
    "load_text_classifier",
    "rich_text",
    "text_baselines",
    "text_methods",
]
