"""Attributions of generated text: what each token owes to each token before it."""

from .attribution import GenerationAttribution

__all__ = ["GenerationAttribution"]
