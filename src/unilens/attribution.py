"""Score x Baseline x Path x Quadrature, and its result."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from . import diagnostics
from .baselines import Baseline, Constant, Found
from .checks import Target, check_baseline, check_inputs, check_seed, check_target
from .diagnostics import Trace
from .errors import UnilensError
from .gradients import Evaluator, Passes, ScoreGradient
from .numerics import wide
from .paths import Path, StraightLine
from .provenance import describe, versions
from .quadrature import Rule, quadrature
from .scores import Score
from .scores import resolve as resolve_score


@dataclass(frozen=True, slots=True)
class Attribution:
    """What every input value contributed, and all that is needed to judge and repeat it.

    Attributes:
        values: `(B, *S)`, signed, in units of the score.
        target: `(B,)`, the class indices explained.
        score: `(B,)`, f(x).
        outputs: `(B, K)`, the model's logits at the inputs.
        baseline: `(B, *S)`, or None for methods without one.
        baseline_score: `(B,)`, f(x'), or None.
        trace: scores along the path, or None.
        record: what the search for the baseline wrote down, each entry `(B, ...)`.
        measured: diagnostics known for this attribution, each `(B,)`.
        provenance: method, settings, seed, versions, device, dtype, seconds, passes.
    """

    values: Tensor
    target: Tensor
    score: Tensor
    outputs: Tensor
    baseline: Tensor | None = None
    baseline_score: Tensor | None = None
    trace: Trace | None = None
    record: Mapping[str, Tensor] = field(default_factory=dict)
    measured: Mapping[str, Tensor] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def completeness_gap(self) -> Tensor:
        """f(x) - f(x') - sum(values), `(B,)`, in units of the score; NaN without a baseline."""
        if self.baseline_score is None:
            return torch.full_like(wide(self.score), torch.nan)
        change = wide(self.score) - wide(self.baseline_score)
        return change - wide(self.values).flatten(1).sum(1)

    @property
    def confidence(self) -> Tensor:
        """The softmax probability of the target at the inputs, `(B,)`; NaN for one output."""
        return _confidence(self.outputs, self.target)

    @property
    def saliency(self) -> Tensor:
        """The absolute values `(B, *S)`: how much, without the sign."""
        return self.values.abs()

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """Every diagnostic measured for this attribution, by name, each `(B,)`."""
        finite = self.values.flatten(1).isfinite().all(1)
        return {"values_finite": wide(finite), **self.measured}

    @property
    def warnings(self) -> list[list[str]]:
        """The named warnings of each input (see `unilens.diagnostics.WARNINGS`)."""
        known = {name: values.tolist() for name, values in self.diagnostics.items()}
        return [
            diagnostics.warn({name: values[i] for name, values in known.items()})
            for i in range(len(self.values))
        ]

    def with_measured(self, **measured: Tensor) -> Attribution:
        """Return a copy that knows more diagnostics, each `(B,)`."""
        return dataclasses.replace(self, measured={**self.measured, **measured})

    def with_provenance(self, **provenance: object) -> Attribution:
        """Return a copy with further entries in its provenance."""
        return dataclasses.replace(self, provenance={**self.provenance, **provenance})


class Explainer(Protocol):
    """A method with its settings: from a model, inputs and target to an attribution."""

    @property
    def passes(self) -> Passes:
        """Forward and backward passes per input."""

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the method cannot explain this model at these inputs.

        It costs a pass at the most, so that a comparison can leave the method out before it runs.
        """

    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        target: Target = None,
        *,
        seed: int = 0,
    ) -> Attribution:
        """Explain the model at the inputs; see `PathAttribution.__call__`."""


@dataclass(frozen=True)
class PathAttribution:
    """Sum the gradient of a score along a path from a baseline to the input.

    A_i = sum_k w_k df/dx_i(gamma(t_k)) gamma_i'(t_k), with the target held fixed at x.

    Args:
        baseline: what the input is compared with.
        path: the way from there.
        rule: quadrature, by name or as a function of n_steps.
        n_steps: nodes on the path.
        score: what is explained, by name or as a function of logits and target.

    Example:
        >>> model = nn.Linear(2, 2, bias=False).eval()
        >>> _ = nn.init.constant_(model.weight, 3.0)
        >>> explain = PathAttribution(score="logit", n_steps=1)
        >>> explain(model, torch.tensor([[1.0, 2.0]]), 0).values
        tensor([[3., 6.]])
    """

    baseline: Baseline = field(default_factory=Constant)
    path: Path = field(default_factory=StraightLine)
    rule: str | Rule = "gauss_legendre"
    n_steps: int = 50
    score: str | Score = "probability"

    def __post_init__(self) -> None:
        quadrature(self.rule, self.n_steps)
        resolve_score(self.score)
        for name in ("baseline", "path"):
            if not callable(getattr(self, name)):
                raise UnilensError(
                    f"expected {name} to be a function or an object such as unilens.baselines() "
                    f"builds, got {getattr(self, name)!r}"
                )

    @property
    def passes(self) -> Passes:
        """Forward and backward passes per input, with those at both ends of the path."""
        search = getattr(self.baseline, "passes", Passes(0, 0))
        along = Passes(self.n_steps, self.n_steps)
        return cast(Passes, search) + along + Passes(2, 0)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the baseline or the path needs other inputs."""
        for part in (self.baseline, self.path):
            check = getattr(part, "check", None)
            if check is not None:
                check(model, inputs)

    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        target: Target = None,
        *,
        seed: int = 0,
    ) -> Attribution:
        """Explain the model at the inputs.

        Args:
            model: from `(B, *S)` to logits `(B, K)`, in eval mode; it is not changed.
            inputs: `(B, *S)`, floating point.
            target: class index or label, one for all or one per input; None for the class that
                the model predicts at each input.
            seed: of everything random; the draw for an input depends on it and the input alone.

        Returns:
            The attribution, with the diagnostics that cost no further passes.

        Raises:
            UnilensError: the inputs, target or model do not fit; the message says how.
        """
        with torch.inference_mode(False):
            case = Case.begin(self, model, inputs, target, seed)
            return case.finish(self, self._integrate(case))

    def _integrate(self, case: Case) -> Attribution:
        score = resolve_score(self.score)
        found = case.found(self.baseline)
        baseline, record = found.values, found.record
        gradient = ScoreGradient(case.evaluator, score, case.target)
        rule = quadrature(self.rule, self.n_steps)
        total = torch.zeros_like(case.inputs)
        recorder = _Recorder(case.target)
        start_outputs = case.evaluator(baseline)
        start_score = score(start_outputs, case.target)
        recorder.end(0.0, start_outputs, start_score)
        for leg in self.path(gradient, baseline, case.inputs, rule):
            displacement = leg.displacement.expand_as(leg.evaluation.gradients)
            for one, way in zip(leg.evaluation.gradients, displacement, strict=True):
                total.addcmul_(one, way)  # one by one: no sum whose rounding depends on the batch
            recorder.leg(leg.fraction, leg.points, leg.evaluation)
        end_score = score(case.outputs, case.target)
        recorder.end(1.0, case.outputs, end_score)
        attribution = Attribution(
            values=total,
            target=case.target,
            score=end_score,
            outputs=case.outputs,
            baseline=baseline,
            baseline_score=start_score,
            trace=recorder.trace(),
            record=record,
        )
        return attribution.with_measured(**self._free_diagnostics(attribution, case.inputs))

    def _free_diagnostics(self, attribution: Attribution, inputs: Tensor) -> dict[str, Tensor]:
        trace, baseline = attribution.trace, attribution.baseline
        assert trace is not None
        assert baseline is not None
        assert attribution.baseline_score is not None
        distance = diagnostics.proximity(inputs, baseline)
        measured = {
            "completeness_gap": attribution.completeness_gap,
            "score_change": attribution.score - attribution.baseline_score,
            "confidence_change": diagnostics.confidence_change(trace),
            "proximity": distance,
            "monotonicity": diagnostics.monotonicity(trace),
            "flat_fraction": diagnostics.flat_fraction(trace),
            "riemann_error_bound": diagnostics.riemann_error_bound(trace, distance, self.n_steps),
        }
        if "matching_loss" in attribution.record:
            losses = attribution.record["matching_loss"]
            measured["matching_loss_fall"] = losses[:, 0] - losses[:, -1]
        return measured

    def stability(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        attribution: Attribution,
        steps: Sequence[int] = (1, 15, 30),
    ) -> dict[str, Tensor]:
        """Return how stable the map is in n_steps, from the same baseline (more passes).

        Returns:
            By name `stability_<few>_<most>`, Spearman correlations `(B,)` of unsigned maps.
        """
        evaluator = Evaluator.of(model)
        fixed = dataclasses.replace(self, baseline=_Known(attribution.baseline))
        maps = {self.n_steps: attribution.values}
        for n_steps in steps:
            if n_steps not in maps:
                again = dataclasses.replace(fixed, n_steps=n_steps)
                maps[n_steps] = again(evaluator, inputs, attribution.target).values
        return diagnostics.stability({n_steps: maps[n_steps] for n_steps in steps})

    def curvature(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        attribution: Attribution,
        iterations: int = 10,
    ) -> dict[str, Tensor]:
        """Return the score's top Hessian eigenvalue at baseline and input (more passes).

        Returns:
            `curvature_baseline` and `curvature_input`, each `(B,)`, in score per squared unit of
            the inputs.
        """
        gradient = ScoreGradient(Evaluator.of(model), resolve_score(self.score), attribution.target)
        assert attribution.baseline is not None
        ends = torch.stack([attribution.baseline, inputs])
        start = torch.randn(inputs.shape[1:], generator=torch.Generator().manual_seed(0))
        top = diagnostics.top_curvature(
            functools.partial(gradient.hessian_vector, ends),
            start.to(ends).expand_as(ends),
            iterations,
        )
        return {"curvature_baseline": top[0], "curvature_input": top[1]}


@dataclass(frozen=True, slots=True)
class Case:
    """What every method starts from: checked inputs, their outputs, and a target fixed there."""

    evaluator: Evaluator
    inputs: Tensor
    outputs: Tensor
    target: Tensor
    seed: int
    began: float

    @classmethod
    def begin(
        cls,
        explainer: Explainer,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        target: Target,
        seed: int,
    ) -> Case:
        """Check everything that comes from the user, and run the model once at the inputs."""
        began = time.perf_counter()
        check_seed(seed)
        evaluator = Evaluator.of(model)
        inputs = check_inputs(inputs, evaluator.device)
        outputs = evaluator(inputs)
        if not outputs.isfinite().all():
            raise UnilensError(
                "expected finite logits at the inputs, got NaN or infinity; check the model's "
                "weights and the range of the inputs"
            )
        target = check_target(target, outputs, evaluator.model)
        explainer.check(evaluator, inputs)
        return cls(evaluator, inputs, outputs, target, seed, began)

    def found(self, baseline: Baseline) -> Found:
        """Return what the inputs are compared with, checked."""
        generator = torch.Generator().manual_seed(self.seed)
        found = baseline(self.evaluator, self.inputs.clone(), self.target, generator=generator)
        values, record = (found.values, found.record) if isinstance(found, Found) else (found, {})
        check_baseline(values, self.inputs)
        return Found(values.detach(), record)

    def finish(self, explainer: Explainer, attribution: Attribution) -> Attribution:
        """Return the attribution with its provenance."""
        return attribution.with_provenance(
            method=type(explainer).__name__,
            settings=describe(explainer),
            seed=self.seed,
            versions=versions(),
            device=str(self.inputs.device),
            dtype=str(self.inputs.dtype).removeprefix("torch."),
            passes=explainer.passes._asdict(),
            seconds=time.perf_counter() - self.began,
        )


class _Recorder:
    """Collects the trace while a path is walked."""

    def __init__(self, target: Tensor) -> None:
        self._target = target
        self._fractions: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._confidences: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._last: tuple[Tensor, Tensor] | None = None

    def end(self, fraction: float, outputs: Tensor, score: Tensor) -> None:
        self._add(torch.tensor([fraction]), outputs[None], score[None])

    def leg(self, fraction: Tensor, points: Tensor, evaluation: Any) -> None:
        self._add(fraction.cpu(), evaluation.outputs, evaluation.values)
        for here in zip(points, evaluation.gradients, strict=True):
            if self._last is not None:
                self._changes.append(diagnostics.gradient_change(*self._last, *here))
            self._last = here

    def _add(self, fraction: Tensor, outputs: Tensor, score: Tensor) -> None:
        if self._fractions and fraction[0] == self._fractions[-1][-1]:
            fraction, outputs, score = fraction[1:], outputs[1:], score[1:]
        if not len(fraction):
            return
        self._fractions.append(fraction)
        self._scores.append(score)
        confidence = _confidence(outputs, self._target.expand(outputs.shape[:-1]))
        self._confidences.append(confidence if outputs.shape[-1] > 1 else score)

    def trace(self) -> Trace:
        scores = torch.cat(self._scores)
        changes = torch.stack([torch.full_like(wide(scores[0]), -torch.inf), *self._changes])
        largest = changes.amax(0)
        return Trace(
            fraction=torch.cat(self._fractions).to(scores.device, scores.dtype),
            score=scores,
            confidence=torch.cat(self._confidences),
            gradient_change=largest.masked_fill(largest == -torch.inf, torch.nan),
        )


@dataclass(frozen=True, eq=False)
class _Known:
    """A baseline that was found before."""

    values: Tensor | None

    def __call__(self, *_: object, **__: object) -> Tensor:
        assert self.values is not None
        return self.values


def _confidence(outputs: Tensor, target: Tensor) -> Tensor:
    if outputs.shape[-1] < 2:
        return torch.full_like(outputs[..., 0], torch.nan)
    return outputs.softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
