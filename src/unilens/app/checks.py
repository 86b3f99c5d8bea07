"""The slower checks: does the model agree with the map, and does the map depend on the model?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..attribution import Attribution
from ..errors import UnilensError
from ..explainer import Explainer
from ..methods import methods
from ..metrics import Measurement, MetricCard, metrics
from .studio import Working
from .trust import Finding

CONTROL = "random map"
"""The map that knows nothing: what a method must beat; no method's name, which may be asked for."""
_CURVES = ("insertion_auc", "deletion_auc")


@dataclass(frozen=True)
class Curve:
    """How the score goes while places come or go.

    Attributes:
        fractions: of the places.
        scores: probabilities of the target.
        area: under it.
    """

    fractions: list[float]
    scores: list[float]
    area: float


@dataclass(frozen=True)
class Checked:
    """What the checks of one map found.

    Attributes:
        curves: by the metric's name.
        findings: a traffic light each.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def check(working: Working) -> dict[str, Checked]:
    """Return the checks of every map, and of a random map beside them under `CONTROL`."""
    explained, found = working.explained, {}
    names = [CONTROL, *explained.attributions]
    share = 1 / len(names)
    control: Mapping[str, Curve] = {}
    for number, name in enumerate(names):
        parts = _Parts(working, name, number * share, share)
        if name == CONTROL:
            control = parts.curves(parts.control())
            found[name] = Checked(control)
            continue
        attribution = explained.attributions[name]
        curves = parts.curves(attribution)
        found[name] = Checked(
            curves,
            [
                *(_against(metric, curves, control) for metric in _CURVES),
                parts.noise(attribution),
                parts.weights(attribution),
            ],
        )
    return found


@dataclass(frozen=True)
class _Parts:
    """The parts of one map's checks, and how much of the whole work they are."""

    working: Working
    name: str
    first: float
    share: float

    def control(self) -> Attribution:
        """Return the map that knows nothing."""
        explained = self.working.explained

        def make() -> Attribution:
            explain = methods["random"]()
            return explain(self.working.evaluator, explained.pixels[None], explained.target)

        return self._done("control", 0.0, 0.1, 1, make)

    def curves(self, attribution: Attribution) -> dict[str, Curve]:
        """Return the curves of insertion and deletion."""
        return {
            metric: _curve(self._measured(metric, attribution, 0.1 + 0.1 * number, 0.1, 20))
            for number, metric in enumerate(_CURVES)
        }

    def noise(self, attribution: Attribution) -> Finding:
        """Return whether a little noise in the photograph leaves the map as it is."""
        question = "Does the map survive a little noise?"
        try:
            value = float(
                self._measured("noise_spearman", attribution, 0.3, 0.3, self._again(1)).values[0]
            )
        except UnilensError as error:
            return Finding(question, "unknown", str(error))
        answer = f"With noise too weak to be seen, the map keeps a rank correlation of {value:.2f}."
        return _graded(question, value, answer, good=0.8, fair=0.5)

    def weights(self, attribution: Attribution) -> Finding:
        """Return whether the map goes when the model forgets what it has learned."""
        question = "Does the map depend on what the model has learned?"
        metric = "randomisation_cascading"
        try:
            found = self._measured(metric, attribution, 0.6, 0.4, self._again(5))
        except UnilensError as error:
            return Finding(question, "unknown", str(error))
        value = float(found.values[0])
        answer = (
            "With random weights in place of learned ones the maps have a rank correlation of "
            f"{value:.2f} with this one: near 0 is right."
        )
        return _graded(question, -value, answer, good=-0.4, fair=-0.7)

    def _again(self, times: int) -> int:
        return times * self.working.explained.explainers[self.name].passes.forward

    def _measured(
        self, metric: str, attribution: Attribution, first: float, share: float, passes: int
    ) -> Measurement:
        def make() -> Measurement:
            return metrics[metric]()(
                self.working.evaluator,
                self.working.explained.pixels[None],
                attribution,
                method=self._method(metric),
            )

        return cast(Measurement, self._done(metric, first, share, passes, make))

    def _method(self, metric: str) -> Explainer | None:
        needs = cast(MetricCard, metrics[metric].card).needs
        return self.working.explained.explainers[self.name] if "method" in needs else None

    def _done(
        self, kind: str, first: float, share: float, passes: int, make: Callable[[], Any]
    ) -> Any:
        text = f"{self.name}: {kind.replace('_', ' ')}"
        self.working.job.part(text, self.first + first * self.share, share * self.share, passes)
        return self.working.once(self.name, kind, lambda: self.working.run(make))


def _curve(found: Measurement) -> Curve:
    fractions, scores = (found.details[name][0].tolist() for name in ("fractions", "curve"))
    return Curve(fractions, scores, float(found.values[0]))


def _against(metric: str, curves: Mapping[str, Curve], control: Mapping[str, Curve]) -> Finding:
    """Return whether a map beats the one that knows nothing."""
    higher = cast(MetricCard, metrics[metric].card).higher_is_better
    own, random = curves[metric].area, control[metric].area
    lead = own - random if higher else random - own
    question = {
        "insertion_auc": "Do the places that count most bring the class back?",
        "deletion_auc": "Does the class go with the places that count most?",
    }[metric]
    answer = (
        f"Area under the curve {own:.2f}; a random map has {random:.2f} "
        f"({'higher' if higher else 'lower'} is better)."
    )
    return _graded(question, lead, answer, good=0.05, fair=0.0)


def _graded(question: str, value: float, answer: str, *, good: float, fair: float) -> Finding:
    if value != value:
        return Finding(question, "unknown", "It is undefined for this photograph.")
    light = "good" if value >= good else "fair" if value >= fair else "poor"
    return Finding(question, light, answer)
