"""Networks whose reasons are known by construction, with images: `truth:NAME`."""

from __future__ import annotations

from ...errors import UnknownNameError, require
from ..classifier import PixelClassifier
from . import birds, shortcut, texture
from .example import Example, KnownTruth

__all__ = ["KNOWN_TRUTHS", "Example", "KnownTruth", "known_truth", "load_known_truth"]

KNOWN_TRUTHS = {
    "texture": KnownTruth("a texture at a place", texture.network, texture.examples),
    "shortcut": KnownTruth("a mark on a digit", shortcut.network, shortcut.examples),
    "birds": KnownTruth("the parts of a drawn bird", birds.network, birds.examples),
}
"""By name."""


def known_truth(name: str) -> KnownTruth:
    """Return a network with its images by name; raise `UnknownNameError` where there is none."""
    if name not in KNOWN_TRUTHS:
        raise UnknownNameError("network of known truth", name, KNOWN_TRUTHS)
    return KNOWN_TRUTHS[name]


def load_known_truth(name: str, pretrained: bool = True) -> PixelClassifier:
    """Return the network of that name, whose weights are those that the truth is of."""
    require(
        pretrained, f"truth:{name} has no random weights: nothing would be known of its reasons"
    )
    return known_truth(name).network()
