"""Explanations of texts, of generated text, and of images with texts, at tokens' embeddings."""

from .attribution import TextAttribution
from .classifier import EncodedText, TextClassifier
from .embeddings import AtEmbeddings
from .generation import GenerationAttribution, LanguageModel, generate, load_language_model
from .image_text import ImageTextModel, load_image_text_model
from .loading import load_text_classifier
from .match_render import match_html
from .matching import MatchAttribution, explain_match
from .methods import build_text_method, explain_text, text_baselines, text_methods
from .render import html, rich_text
from .tokens import Tokens

__all__ = [
    "AtEmbeddings",
    "EncodedText",
    "GenerationAttribution",
    "ImageTextModel",
    "LanguageModel",
    "MatchAttribution",
    "TextAttribution",
    "TextClassifier",
    "Tokens",
    "build_text_method",
    "explain_match",
    "explain_text",
    "generate",
    "html",
    "load_image_text_model",
    "load_language_model",
    "load_text_classifier",
    "match_html",
    "rich_text",
    "text_baselines",
    "text_methods",
]
