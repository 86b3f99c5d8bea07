"""An audit of a model on photographs, for people who do not code."""

from .photographs import Photographs
from .run import Audit, audit

__all__ = ["Audit", "Photographs", "audit"]
