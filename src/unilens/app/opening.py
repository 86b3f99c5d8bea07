"""What is ready before a visitor does anything: an explanation, and the methods on offer."""

from __future__ import annotations

import contextlib
import threading

from ..errors import UnilensError
from ..methods import methods
from .jobs import Cancelled, Job
from .photograph import sample_photograph
from .request import ExplainRequest, MethodRequest
from .service import ExplainService
from .wording import RECOMMENDED

SAMPLE = "coffee"
_RARE = {"attention", "layer", "perceptron", "relu"}
"""Traits of methods that fit some networks only."""


class Opening:
    """Prepares the first explanation and finds out, in the background, which methods fit a model.

    Args:
        service: does the work.
    """

    def __init__(self, service: ExplainService) -> None:
        self._service = service
        self._fits: dict[str, dict[str, bool]] = {}
        self._lock = threading.Lock()

    def request(self) -> ExplainRequest:
        """Return the request that the page opens with."""
        first = MethodRequest(name=RECOMMENDED[0])
        return ExplainRequest(model=self._service.models[0], methods=(first,))

    def start(self) -> None:
        """Prepare the first explanation in the background."""
        threading.Thread(target=self._prepare, name="unilens-opening", daemon=True).start()

    def methods_for(self, model: str) -> list[str]:
        """Return the names of the methods that fit a model.

        Finding out takes seconds; until then, those that fit most networks.
        """
        with self._lock:
            known = self._fits.get(model)
            fits = self._fits.setdefault(model, {})
        if known is None:
            threading.Thread(target=self._find, args=(model,), daemon=True).start()
        return [
            name
            for name, entry in methods.items()
            if fits.get(name, not _RARE.intersection(entry.card.traits))
        ]

    def _prepare(self) -> None:
        with contextlib.suppress(Cancelled, UnilensError):
            photograph, request = sample_photograph(SAMPLE), self.request()
            self._service.predictions(photograph, request.model)
            explanation = self._service.explain(photograph, request, Job())
            self.methods_for(request.model)
            self._service.path_steps(explanation, Job())
            self._service.with_stability(explanation, Job())

    def _find(self, model: str) -> None:
        photograph = sample_photograph(SAMPLE)
        with contextlib.suppress(Cancelled):
            for name in sorted(methods, key=lambda name: name not in RECOMMENDED):
                self._fits[model][name] = self._service.applies(name, photograph, model)
