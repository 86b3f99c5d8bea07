"""Attributions of generated text: what each token owes to each token before it."""

from .attribution import GenerationAttribution
from .render import html
from .terminal import rich_matrix
from .units import UnitMatrix

__all__ = ["GenerationAttribution", "UnitMatrix", "html", "rich_matrix"]
