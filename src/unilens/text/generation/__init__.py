"""Attributions of generated text: what each token owes to each token before it."""

from .attribution import GenerationAttribution
from .units import UnitMatrix

__all__ = ["GenerationAttribution", "UnitMatrix"]
