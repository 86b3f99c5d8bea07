"""Which method to use on a model, for which purpose: a race within some minutes."""

from .recommendation import Recommendation
from .run import recommend
from .verdicts import Verdict

__all__ = ["Recommendation", "Verdict", "recommend"]
