"""The registered components as plain data, for commands that answer before torch is loaded."""

from .entries import (
    CatalogueEntry,
    ComponentFacts,
    Setting,
    check_choice,
    choices,
    listing,
)
from .model_names import DEFAULT_MODEL, check_model

SHOWN_BY_DEFAULT = ("uni_blur", "uni")
"""Methods that the command line and the page show beside each other; each has its question."""

__all__ = [
    "DEFAULT_MODEL",
    "SHOWN_BY_DEFAULT",
    "CatalogueEntry",
    "ComponentFacts",
    "Setting",
    "check_choice",
    "check_model",
    "choices",
    "listing",
]
