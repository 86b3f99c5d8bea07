"""`Method`, the base class of methods, and `ExplainContext`, the checked inputs of one call."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast, overload

import torch
from torch import Tensor, nn

from ._engine.axes import (
    Axes,
    axes_are_sure,
    channels_first,
    reads_axes,
    refuse_channels_setting,
    resolve_axes,
)
from ._engine.balanced import AnyBalanced, attention_rule
from ._engine.balanced_check import BalancedReport, check_balanced
from ._engine.evaluator import Evaluator, PassCount
from ._engine.output_detection import output_spec
from ._engine.packing import MultiInputs
from ._engine.score_gradient import ScoreGradient
from ._ops.fields import map_tensors
from ._ops.precision import to_float64
from ._validation.arrays import to_tensor
from ._validation.inputs import Target, check_baseline, check_inputs, check_seed, check_target
from ._validation.settings import Settings
from .attribution import Attribution
from .baselines import Baseline, BaselineResult
from .baselines.axes import settings_to_first
from .baselines.base import baseline_results, check_single, single
from .errors import NotApplicableError, UnilensError, require
from .groups.base import Groups, needs_axes, read_groups
from .multi_input import MultiInputAttribution, explain_inputs
from .output import notebook as _notebook  # noqa: F401  # so that notebooks show attributions
from .output_scores import explain_output_score
from .outputs import LOGITS, OutputSpec
from .provenance import describe, versions
from .scores import Score, as_output_score

__all__ = [
    "ExplainContext",
    "Method",
    "PassCount",
    "evaluator_of",
    "to_first",
    "with_outputs",
]


def evaluator_of(model: nn.Module | Evaluator, attribution: Attribution | None) -> Evaluator:
    """Return the model's evaluator, with the kind of outputs in an attribution's provenance."""
    evaluator = Evaluator.of(model)
    provenance = {} if attribution is None else attribution.provenance
    spec = evaluator.output_spec
    require(
        "score" not in provenance or (spec is not None and spec.source == "score"),
        f"expected the score that the maps explain, {provenance.get('score')}; pass it to "
        "unilens.evaluate, as score=",
    )
    if evaluator.output_spec is None and "outputs" in provenance:
        evaluator.output_spec = OutputSpec.of(provenance)
    return evaluator


def with_outputs(model: nn.Module | Evaluator, outputs: str | None) -> nn.Module | Evaluator:
    """Return the model; as an evaluator where `outputs` says what its outputs are."""
    if outputs is None:
        return model
    require(
        not isinstance(model, Evaluator),
        "expected outputs= with a module, got it with an Evaluator; pass it when making that: "
        f"Evaluator(model, outputs={outputs!r})",
    )
    return Evaluator(cast(nn.Module, model), outputs=outputs)


@dataclass(frozen=True, slots=True)
class ExplainContext:
    """The checked inputs of one call, with their outputs and target.

    Attributes:
        evaluator: runs the model.
        inputs: `(B, *S)`.
        outputs: `(B, K)`.
        target: `(B,)`, class indices.
        seed: of everything random.
        began: start of the call, by `time.perf_counter`.
        groups: of the inputs' values, where they were given.
        balanced: what balanced gradients rewrite; None for the model's own gradients.
    """

    evaluator: Evaluator
    inputs: Tensor
    outputs: Tensor
    target: Tensor
    seed: int
    began: float
    groups: Groups | None = None
    balanced: BalancedReport | None = None

    @classmethod
    def begin(
        cls,
        explainer: Method,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        target: Target,
        seed: int,
        groups: object = None,
        axes: Axes | None = None,
    ) -> ExplainContext:
        """Check the user's arguments, and run the model once at the inputs."""
        began = time.perf_counter()
        seed = check_seed(seed)
        evaluator = Evaluator.of(model)
        checked = check_inputs(inputs, evaluator.device, evaluator.model)
        if explainer.create_graph and isinstance(inputs, Tensor):
            inputs = cast(Tensor, to_tensor("inputs", inputs)).to(checked.dtype)
        else:
            inputs = checked
        read = None if groups is None else read_groups(groups, checked, axes)
        outputs = evaluator.outputs(inputs.unsqueeze(0), create_graph=explainer.create_graph)[0]
        if not outputs.isfinite().all():
            raise UnilensError(
                "expected finite logits at the inputs, got NaN or infinity; check the model's "
                "weights and the range of the inputs"
            )
        spec = output_spec(evaluator, inputs, outputs)
        target = check_target(target, outputs, evaluator.model, spec)
        explainer.check(evaluator, inputs)
        rule = attention_rule(explainer.balanced)
        balanced = check_balanced(evaluator, inputs, rule) if rule else None
        return cls(evaluator, inputs, outputs, target, seed, began, read, balanced)

    def gradient_of(self, score: Score, *, create_graph: bool = False) -> ScoreGradient:
        """Return the gradient of a score, balanced where the method asks for that."""
        rule = None if self.balanced is None else self.balanced.attention
        return ScoreGradient(
            self.evaluator, score, self.target, create_graph=create_graph, balanced=rule
        )

    @property
    def output_spec(self) -> OutputSpec:
        """What the model's outputs are; logits where that is not known."""
        return self.evaluator.output_spec or LOGITS

    def baselines(self, baseline: Baseline) -> Iterator[BaselineResult]:
        """Yield the baselines of the inputs, checked."""
        generator = torch.Generator().manual_seed(self.seed)
        given = baseline(self.evaluator, self.inputs.clone(), self.target, generator=generator)
        for result in baseline_results(given):
            check_baseline(result.values, self.inputs)
            yield result

    def single_baseline(self, baseline: Baseline) -> BaselineResult:
        """Return the only baseline, for a method that does not average over several."""
        check_single(baseline)
        return single(self.baselines(baseline))

    def finish(self, explainer: Method, attribution: Attribution) -> Attribution:
        """Return the attribution with its provenance; entries that it has already are kept."""
        spec = self.output_spec
        provenance = {
            "outputs": {"kind": spec.kind, "source": spec.source},
            "method": type(explainer).__name__,
            "settings": describe(explainer),
            "seed": self.seed,
            "versions": versions(),
            "device": str(self.inputs.device),
            "dtype": str(self.inputs.dtype).removeprefix("torch."),
            "passes": explainer.passes._asdict(),
            "engine": self.evaluator.describe(self.inputs),
            "seconds": time.perf_counter() - self.began,
        }
        if self.balanced is not None:
            provenance["balanced"] = self.balanced.describe()
        if self.groups is not None and attribution.groups is None:
            attribution = with_groups(attribution, self.groups)
        if not explainer.create_graph:
            attribution = map_tensors(attribution, Tensor.detach)
        if spec.warning is not None:
            doubtful = torch.ones_like(to_float64(attribution.score.detach()))
            attribution = attribution.with_measured(**{spec.warning: doubtful})
        return attribution.with_provenance(**{**provenance, **attribution.provenance})


class Method(Settings, ABC):
    """Base class of methods: a subclass implements `passes` and `_explain`.

    Attributes:
        reads_axes_from: the fewest dimensions of inputs `(B, *S)` for which the method depends on
            the axis of the channels; None where it never does, or only through a component, which
            has an attribute of the same name. `_explain` always receives channels first.
        create_graph: whether its attributions are differentiable.
        score: what is explained; None for methods that explain no score.
        balanced: whether its gradients are balanced; see `unilens.methods.Gradient`.
    """

    reads_axes_from: ClassVar[int | None] = None
    create_graph: bool = False
    score: Any = None
    balanced: AnyBalanced = False

    @property
    @abstractmethod
    def passes(self) -> PassCount:
        """Forward and backward passes per input."""

    @abstractmethod
    def _explain(self, context: ExplainContext) -> Attribution:
        """Return the attribution; `ExplainContext.finish` completes its provenance."""

    @property
    def complete(self) -> bool:
        """Whether the values add up to the change of the score in theory."""
        return False

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the method does not apply to the model or the inputs."""

    def with_score(self, score: str) -> Self:
        """Return the method that explains another score, which its own methods explain too."""
        changed = {
            field.name: score if field.name == "score" else value.with_score(score)
            for field in dataclasses.fields(cast(Any, self))
            for value in [getattr(self, field.name)]
            if field.name == "score" or isinstance(value, Method)
        }
        return dataclasses.replace(cast(Any, self), **changed)

    def of_rows(self, rows: Tensor | None) -> Self:
        """Return the method for some inputs `(m,)` of a batch, with their baselines alone.

        None stands for all inputs.
        """
        if rows is None:
            return self
        fields = dataclasses.fields(cast(Any, self))
        values = {field.name: getattr(self, field.name) for field in fields}
        baselines = {
            name: value.of_rows(rows)
            for name, value in values.items()
            if isinstance(value, Baseline)
        }
        return dataclasses.replace(cast(Any, self), **baselines) if baselines else self

    @overload
    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        target: Target = None,
        *,
        seed: int = 0,
        channels: str | int = "auto",
        groups: object = None,
    ) -> Attribution: ...

    @overload
    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: MultiInputs,
        target: Target = None,
        *,
        seed: int = 0,
        channels: str | int = "auto",
        groups: object = None,
    ) -> MultiInputAttribution: ...

    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor | MultiInputs,
        target: Target = None,
        *,
        seed: int = 0,
        channels: str | int = "auto",
        groups: object = None,
    ) -> Attribution | MultiInputAttribution:
        """Explain the model at the inputs.

        Args:
            model: from `(B, *S)` to logits `(B, K)`, in eval mode; it is not changed.
            inputs: `(B, *S)`, floating point; for a model of several inputs a mapping, with which
                it is called by keyword, or a tuple, by position. Integer and boolean inputs among
                them, and those wrapped in `unilens.multi_input.Frozen`, stay fixed.
            target: class index or label, one for all or one per input; None for the class that
                the model predicts at each input.
            seed: of everything random; the draw for an input depends on it and the input alone.
            channels: which axis of the inputs holds the channels; see `unilens.explain`.
            groups: integers: values that belong together; see `unilens.explain`.

        Returns:
            The attribution, with the diagnostics that cost no further passes; of several inputs,
            with values and baseline in the structure of the inputs.

        Raises:
            UnilensError: the inputs, target or model do not fit; the message says how.
        """
        if (score := as_output_score(self.score)) is not None:
            method = self.with_score("logit")
            return explain_output_score(
                lambda evaluator, values, index, rows, own: method.of_rows(rows)(
                    evaluator, values, index, seed=seed, channels=channels, groups=own
                ),
                model,
                inputs,
                target,
                score,
                groups,
            )
        if isinstance(inputs, (Mapping, tuple)):
            refuse_channels_setting(channels)
            refuse_groups(groups)
            attribution = explain_inputs(
                lambda packed, values, targets, rows: self.of_rows(rows)(
                    packed, values, targets, seed=seed
                ),
                model,
                inputs,
                target,
            )
            sure = channels != "auto" or axes_are_sure(self, inputs)
            return attribution.with_measured(**_axes_measured(len(attribution.whole), sure))
        with torch.inference_mode(False):
            axes = _axes_for(self, model, inputs, channels, groups)
            if axes is None or axes.channels == "first":
                context = ExplainContext.begin(self, model, inputs, target, seed, groups)
                return _with_axes(context.finish(self, self._explain(context)), axes)
            if not isinstance(inputs, Tensor):
                inputs = check_inputs(inputs, None)
            method = settings_to_first(self, axes, inputs.ndim - 1)
            moved = axes.to_first(inputs)
            context = ExplainContext.begin(
                method, channels_first(model, axes), moved, target, seed, groups, axes
            )
            return _with_axes(context.finish(self, method._explain(context)), axes)


def _axes_for(
    method: Method,
    model: nn.Module | Evaluator,
    inputs: Tensor,
    channels: str | int,
    groups: object,
) -> Axes | None:
    """Return which axis of the inputs holds the channels; None where nothing depends on it.

    It is detected from the model only where the method depends on it.
    """
    if channels == "auto" and isinstance(model, Evaluator):
        channels = model.channels
    if not isinstance(inputs, Tensor):
        return None if channels == "auto" else Axes(channels)
    if channels != "auto" or reads_axes(method, inputs.ndim) or needs_axes(groups, inputs):
        return resolve_axes(model, inputs, channels)
    if not reads_axes(method, inputs.ndim + 1):
        return None
    axes = resolve_axes(model, inputs, channels)
    return axes if axes is not None and axes.channels == "none" else None


def refuse_groups(groups: object) -> None:
    """Raise `NotApplicableError` where groups are given for several inputs."""
    if groups is not None:
        raise NotApplicableError(
            "expected no groups= for several inputs; sum the values of each input by group, or "
            "concatenate the inputs in a module around the model"
        )


def with_groups(attribution: Attribution, groups: Groups) -> Attribution:
    """Return an attribution whose values are equal shares of the sums over groups."""
    values = attribution.values
    return dataclasses.replace(
        attribution,
        values=groups.spread(groups.sums(values), values),
        groups=groups.of(values).clone(),
        provenance={**attribution.provenance, "groups": {"count": groups.count}},
    )


def to_first(attribution: Attribution, axes: Axes) -> Attribution:
    """Return an attribution with channels first."""
    baseline, groups = attribution.baseline, attribution.groups
    return dataclasses.replace(
        attribution,
        values=axes.to_first(attribution.values),
        baseline=None if baseline is None else axes.to_first(baseline),
        groups=None if groups is None else axes.to_first(groups),
        provenance={**attribution.provenance, "channels": "first"},
    )


def _with_axes(attribution: Attribution, axes: Axes | None) -> Attribution:
    """Return an attribution in the user's order of axes, and record that in its provenance."""
    if axes is None:
        return attribution
    baseline, groups = attribution.baseline, attribution.groups
    measured = _axes_measured(len(attribution), axes.sure)
    return dataclasses.replace(
        attribution,
        values=axes.from_first(attribution.values),
        baseline=None if baseline is None else axes.from_first(baseline),
        groups=None if groups is None else axes.from_first(groups),
        measured={**attribution.measured, **measured},
        provenance={**attribution.provenance, "channels": str(axes)},
    )


def _axes_measured(count: int, sure: bool) -> dict[str, Tensor]:
    """Return the diagnostic `channels_known` `(B,)` where the axis of the channels is a guess."""
    return {} if sure else {"channels_known": torch.zeros(count, dtype=torch.float64)}
