"""The slower checks: does the model agree with the map, and does the map depend on the model?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

from .._engine.evaluator import Evaluator
from ..attribution import Attribution
from ..errors import UnilensError
from ..methods import methods
from ..metrics import Measurement, MetricCard, metrics
from .jobs import Job
from .service import ExplainService, Explanation
from .trust import Answer, is_control
from .wording import title_of

T = TypeVar("T")
CONTROL = "random map"
"""Name of the random map that every method must beat; no method has a name with a blank."""
_CURVES = {
    "insertion_auc": "Do the most important pixels bring the class back?",
    "deletion_auc": "Does the class go with the most important pixels?",
}

_STEPS = {
    "insertion_auc": "insertion",
    "deletion_auc": "deletion",
    "noise_spearman": "noise",
    "randomisation_cascading": "random weights",
}
"""Words for the measurements."""


@dataclass(frozen=True)
class MapChecks:
    """Results of the checks of one map.

    Attributes:
        curves: insertion and deletion, with the details `fractions` and `curve`, by metric.
        answers: one, with a light, for each check.
    """

    curves: Mapping[str, Measurement] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)


def run_checks(service: ExplainService, explanation: Explanation, job: Job) -> dict[str, MapChecks]:
    """Return the checks of every map; the curves of a random map have the name `CONTROL`."""
    names = [CONTROL, *explanation.attributions]
    runs = [
        _CheckRun(service, explanation, job, name, number / len(names), 1 / len(names))
        for number, name in enumerate(names)
    ]
    control = runs[0].curves(runs[0].random_map())
    checks = {CONTROL: MapChecks(control)}
    for run in runs[1:]:
        attribution = explanation.attributions[run.name]
        curves = run.curves(attribution)
        answers = [_beats_control(metric, curves, control) for metric in _CURVES]
        answers += [run.noise(attribution), run.random_weights(attribution)]
        if is_control(attribution):
            answers = [_without_praise(answer) for answer in answers]
        checks[run.name] = MapChecks(curves, answers)
    return checks


@dataclass(frozen=True)
class _CheckRun:
    """The checks of one map, and which share of the whole job they take."""

    service: ExplainService
    explanation: Explanation
    job: Job
    name: str
    start: float
    share: float

    def random_map(self) -> Attribution:
        """Return a map that knows nothing of the model."""
        inputs, target = self.explanation.pixels[None], self.explanation.target
        return self._run(
            "control", 0.0, 0.1, 1, lambda evaluator: methods["random"]()(evaluator, inputs, target)
        )

    def curves(self, attribution: Attribution) -> dict[str, Measurement]:
        """Return the curves of insertion and deletion."""
        return {
            metric: self._measure(metric, attribution, 0.1 + 0.1 * number, 0.1, 20)
            for number, metric in enumerate(_CURVES)
        }

    def noise(self, attribution: Attribution) -> Answer:
        """Return whether the map stays when the photograph gets a little noise."""
        question = "Does the map survive a little noise?"
        try:
            measurement = self._rerun("noise_spearman", attribution, 0.3, 0.3, 1)
        except UnilensError as error:
            return Answer(question, "unknown", str(error))
        value = float(measurement.values[0])
        if not measurement.details["kept"][0]:
            return Answer(
                question,
                "unknown",
                "With noise too weak to be seen the model predicts another class, so that the maps "
                "are not compared.",
            )
        answer = f"With noise too weak to be seen, the map keeps a rank correlation of {value:.2f}."
        return _grade(question, value, answer, good=0.8, caution=0.5)

    def random_weights(self, attribution: Attribution) -> Answer:
        """Return whether the map goes when the model forgets what it has learned."""
        question = "Does the map depend on what the model has learned?"
        try:
            measurement = self._rerun("randomisation_cascading", attribution, 0.6, 0.4, 5)
        except UnilensError as error:
            return Answer(question, "unknown", str(error))
        value = float(measurement.values[0])
        answer = (
            "With random weights in place of learned ones the maps have a rank correlation of "
            f"{value:.2f} with this one: near 0 is right."
        )
        return _grade(question, -value, answer, good=-0.4, caution=-0.7)

    def _rerun(
        self, metric: str, attribution: Attribution, start: float, share: float, times: int
    ) -> Measurement:
        """Return a metric that runs the method several times."""
        passes = times * self.explanation.explainers[self.name].passes.forward
        return self._measure(metric, attribution, start, share, passes)

    def _measure(
        self, metric: str, attribution: Attribution, start: float, share: float, passes: int
    ) -> Measurement:
        needs = cast(MetricCard, metrics[metric].card).needs
        method = self.explanation.explainers[self.name] if "method" in needs else None
        inputs = self.explanation.pixels[None]

        def measure(evaluator: Evaluator) -> Measurement:
            return metrics[metric]()(evaluator, inputs, attribution, method=method)

        return self._run(metric, start, share, passes, measure)

    def _run(
        self, kind: str, start: float, share: float, passes: int, compute: Callable[[Evaluator], T]
    ) -> T:
        text = f"{title_of(self.name)}: {_STEPS.get(kind, 'random map')}"
        self.job.begin(text, self.start + start * self.share, share * self.share, passes)
        return self.service.run(kind, self.explanation, self.name, self.job, compute)


def _beats_control(
    metric: str, curves: Mapping[str, Measurement], control: Mapping[str, Measurement]
) -> Answer:
    """Return whether the area under a map's curve is better than that of the random map."""
    higher = cast(MetricCard, metrics[metric].card).higher_is_better
    area, random = float(curves[metric].values[0]), float(control[metric].values[0])
    answer = (
        f"Area under the curve {area:.2f}; a random map has {random:.2f} "
        f"({'higher' if higher else 'lower'} is better)."
    )
    lead = area - random if higher else random - area
    return _grade(_CURVES[metric], lead, answer, good=0.05, caution=0.0)


def _without_praise(answer: Answer) -> Answer:
    """Return an answer about a control, whose map is no explanation however it does."""
    return dataclasses.replace(answer, light="info") if answer.light == "good" else answer


def _grade(question: str, value: float, answer: str, *, good: float, caution: float) -> Answer:
    if value != value:
        return Answer(question, "unknown", "It is undefined for this photograph.")
    light = "good" if value >= good else "caution" if value >= caution else "problem"
    return Answer(question, light, answer)
