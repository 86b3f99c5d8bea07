"""What an explanation is, what a method is, and what every method starts from."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, ClassVar, Protocol, Self, cast, overload

import torch
from torch import Tensor, nn

from . import diagnostics
from .arrays import Array, to_tensor
from .axes import (
    Axes,
    axes_are_sure,
    channels_first,
    reads_axes,
    refuse_channels_of_parts,
    resolve_axes,
)
from .axes_of_settings import settings_to_first
from .baselines import Baseline, Found
from .baselines.base import check_single, found_baselines, single
from .checks import Target, check_baseline, check_inputs, check_seed, check_target
from .errors import UnilensError, require
from .fields import chosen, map_tensors, moved, rows_of, to_numpy
from .gradients import Evaluator, Passes
from .layout import Parts
from .numerics import wide
from .outputs import LOGITS, OutputSpec, output_spec
from .parts import PartsAttribution, explain_parts
from .provenance import describe, versions
from .saving import load, save
from .settings import Settings
from .trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """What every input value contributed, and all that is needed to judge and repeat it.

    Attributes:
        values: `(B, *S)`, signed, in units of the score.
        target: `(B,)`, the class indices explained.
        score: `(B,)`, f(x).
        outputs: `(B, K)`, the model's outputs at the inputs; `provenance["outputs"]` says what
            they are (see `unilens.outputs`).
        baseline: `(B, *S)`, or None for methods without one; of several, the weighted mean.
        baseline_score: `(B,)`, f(x'), or None; of several baselines, the weighted mean.
        trace: scores along the path, or None; from several baselines, the weighted mean.
        record: what the search for the baseline wrote down, each entry `(B, ...)`; of several
            baselines, `(B, R, ...)`.
        measured: diagnostics known for this attribution, each `(B,)`.
        provenance: method, settings, seed, versions, device, dtype, seconds, passes, and what the
            engine used to run the model or dropped, with the reason.
        complete: whether the values add up to the change of the score in theory; where not, as for
            IDG, they are in units of their own.
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
    complete: bool = True

    @property
    def completeness_gap(self) -> Tensor:
        """f(x) - f(x') - sum(values), `(B,)`, in units of the score; NaN where undefined."""
        if self.baseline_score is None or not self.complete:
            return torch.full_like(wide(self.score), torch.nan)
        change = wide(self.score) - wide(self.baseline_score)
        return change - wide(self.values).flatten(1).sum(1)

    @property
    def confidence(self) -> Tensor:
        """The target's probability at the inputs, `(B,)`; NaN where the outputs have none."""
        return OutputSpec.of(self.provenance).confidence(self.outputs, self.target)

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

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from .notebook import attribution_html

        return attribution_html(self)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: object) -> Attribution:
        """Return the attribution of some of the inputs, with all that is known of them.

        Args:
            index: a number, a slice, a mask `(B,)` or several numbers; a number gives an
                attribution of one input, whose values are `(1, *S)`.
        """
        return chosen(self, rows_of(index, len(self)))

    def __iter__(self) -> Iterator[Attribution]:
        return (self[row] for row in range(len(self)))

    def to(self, *where: torch.device | str | torch.dtype) -> Attribution:
        """Return a copy on a device, its floating-point tensors in a dtype: either, or both."""
        return moved(self, *where)

    def cpu(self) -> Attribution:
        """Return a copy on the CPU."""
        return moved(self, "cpu")

    def numpy(self) -> Array:
        """Return the values as an array `(B, *S)`, without a graph; bfloat16 as float32."""
        return to_numpy(self.values)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the attribution to a file, from which `load` gives back every bit of it.

        The file is safetensors, with all that is no tensor as JSON in its header.

        Args:
            path: of the file.
            overwrite: whether to replace a file that exists.

        Raises:
            UnilensError: the file exists or cannot be written, or the provenance holds something
                other than plain data.
        """
        save(self, path, overwrite)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Return the attribution in a file, on the CPU; nothing in it is run.

        Raises:
            UnilensError: there is no such file, or `save` did not write it.
        """
        return load(cls, path)[0]

    def with_measured(self, **measured: Tensor) -> Attribution:
        """Return a copy that knows more diagnostics, each `(B,)`."""
        return dataclasses.replace(self, measured={**self.measured, **measured})

    def with_provenance(self, **provenance: object) -> Attribution:
        """Return a copy with further entries in its provenance."""
        return dataclasses.replace(self, provenance={**self.provenance, **provenance})


def evaluator_of(model: nn.Module | Evaluator, attribution: Attribution | None) -> Evaluator:
    """Return the model's evaluator, with what an attribution knows of the outputs."""
    evaluator = Evaluator.of(model)
    known = {} if attribution is None else attribution.provenance
    if evaluator.output_spec is None and "outputs" in known:
        evaluator.output_spec = OutputSpec.of(known)
    return evaluator


def with_outputs(model: nn.Module | Evaluator, outputs: str | None) -> nn.Module | Evaluator:
    """Return the model, as an evaluator that knows what its outputs are where that is said."""
    if outputs is None:
        return model
    require(
        not isinstance(model, Evaluator),
        "expected outputs= beside a module, got it beside an Evaluator; say it where that is made: "
        f"Evaluator(model, outputs={outputs!r})",
    )
    return Evaluator(cast(nn.Module, model), outputs=outputs)


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
        """Explain the model at the inputs; see `Method.__call__`."""


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
        seed = check_seed(seed)
        evaluator = Evaluator.of(model)
        create_graph = bool(getattr(explainer, "create_graph", False))
        checked = check_inputs(inputs, evaluator.device, evaluator.model)
        if create_graph and isinstance(inputs, Tensor):
            inputs = cast(Tensor, to_tensor("inputs", inputs)).to(checked.dtype)
        else:
            inputs = checked
        outputs = evaluator.outputs(inputs.unsqueeze(0), create_graph=create_graph)[0]
        if not outputs.isfinite().all():
            raise UnilensError(
                "expected finite logits at the inputs, got NaN or infinity; check the model's "
                "weights and the range of the inputs"
            )
        spec = output_spec(evaluator, inputs, outputs)
        target = check_target(target, outputs, evaluator.model, spec)
        explainer.check(evaluator, inputs)
        return cls(evaluator, inputs, outputs, target, seed, began)

    def baselines(self, baseline: Baseline) -> Iterator[Found]:
        """Yield what the inputs are compared with, checked."""
        generator = torch.Generator().manual_seed(self.seed)
        given = baseline(self.evaluator, self.inputs.clone(), self.target, generator=generator)
        for found in found_baselines(given):
            check_baseline(found.values, self.inputs)
            yield found

    def found(self, baseline: Baseline) -> Found:
        """Return the one baseline, for a method that has no use for several."""
        check_single(baseline)
        return single(self.baselines(baseline))

    def finish(self, explainer: Explainer, attribution: Attribution) -> Attribution:
        """Return the attribution with its provenance; what it says of its own is kept."""
        spec = self.evaluator.output_spec or LOGITS
        made = {
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
        if not getattr(explainer, "create_graph", False):
            attribution = map_tensors(attribution, Tensor.detach)
        if spec.warning is not None:
            doubt = torch.ones_like(wide(attribution.score.detach()))
            attribution = attribution.with_measured(**{spec.warning: doubt})
        return attribution.with_provenance(**{**made, **attribution.provenance})


class Method(Settings, ABC):
    """What methods are built from: their authors write `_explain`, the rest is done here.

    Attributes:
        reads_axes_from: the fewest dimensions of inputs `(B, *S)` for which it counts which of them
            holds the channels; None where it never does, or only for a component, which says so by
            the same name. `_explain` is always given channels first.
    """

    reads_axes_from: ClassVar[int | None] = None

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """Forward and backward passes per input."""

    @abstractmethod
    def _explain(self, case: Case) -> Attribution:
        """Return the attribution; what it says of its own provenance is kept."""

    @property
    def complete(self) -> bool:
        """Whether the values add up to the change of the score in theory; false unless said."""
        return False

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the method does not fit; see `Explainer`."""

    def of_rows(self, rows: Tensor) -> Self:
        """Return the method for some inputs of a batch: of a baseline given for each, theirs."""
        baseline: Any = getattr(self, "baseline", None)
        if not hasattr(baseline, "of_rows"):
            return self
        return dataclasses.replace(cast(Any, self), baseline=baseline.of_rows(rows))

    @overload
    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        target: Target = None,
        *,
        seed: int = 0,
        channels: str | int = "auto",
    ) -> Attribution: ...

    @overload
    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Parts,
        target: Target = None,
        *,
        seed: int = 0,
        channels: str | int = "auto",
    ) -> PartsAttribution: ...

    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor | Parts,
        target: Target = None,
        *,
        seed: int = 0,
        channels: str | int = "auto",
    ) -> Attribution | PartsAttribution:
        """Explain the model at the inputs.

        Args:
            model: from `(B, *S)` to logits `(B, K)`, in eval mode; it is not changed.
            inputs: `(B, *S)`, floating point; for a model of several inputs a mapping, with which
                it is called by keyword, or a tuple, by position. Integers and truths among the
                parts, and what is wrapped in `unilens.layout.Held`, are held fixed.
            target: class index or label, one for all or one per input; None for the class that
                the model predicts at each input.
            seed: of everything random; the draw for an input depends on it and the input alone.
            channels: which axis of the inputs holds the channels; see `unilens.explain`.

        Returns:
            The attribution, with the diagnostics that cost no further passes; of several inputs,
            its values in the structure in which they came.

        Raises:
            UnilensError: the inputs, target or model do not fit; the message says how.
        """
        if isinstance(inputs, (Mapping, tuple)):
            refuse_channels_of_parts(channels)
            found = explain_parts(
                lambda part, values, aim, rows: self.of_rows(rows)(part, values, aim, seed=seed),
                model,
                inputs,
                target,
            )
            if channels == "auto" and not axes_are_sure(self, inputs):
                return found.with_measured(
                    channels_known=torch.zeros(len(found.whole.values), dtype=torch.float64)
                )
            return found
        with torch.inference_mode(False):
            axes = axes_for(self, model, inputs, channels)
            if axes is None or axes.channels == "first":
                case = Case.begin(self, model, inputs, target, seed)
                return _with_axes(case.finish(self, self._explain(case)), axes)
            if not isinstance(inputs, Tensor):
                inputs = check_inputs(inputs, None)
            method = settings_to_first(self, axes, inputs.ndim - 1)
            moved = axes.to_first(inputs)
            case = Case.begin(method, channels_first(model, axes), moved, target, seed)
            return _with_axes(case.finish(self, method._explain(case)), axes)


def explain_channels_first(
    explainer: Explainer, model: nn.Module | Evaluator, inputs: Tensor, target: Tensor, seed: int
) -> Attribution:
    """Explain inputs that are channels first, as all are within methods and metrics."""
    if isinstance(explainer, Method):
        return explainer(model, inputs, target, seed=seed, channels="first")
    return explainer(model, inputs, target, seed=seed)


def axes_for(
    thing: object, model: nn.Module | Evaluator, inputs: Tensor, channels: str | int
) -> Axes | None:
    """Return where the channels of inputs are, as far as it counts for a method; else None.

    They are read off the model only where the method depends on them.
    """
    said = channels if channels != "auto" else getattr(model, "channels", "auto")
    if not isinstance(inputs, Tensor):
        return None if said == "auto" else Axes(said)
    if said != "auto" or reads_axes(thing, inputs.ndim):
        return resolve_axes(model, inputs, channels)
    if not reads_axes(thing, inputs.ndim + 1):
        return None
    axes = resolve_axes(model, inputs, channels)
    return axes if axes is not None and axes.channels == "none" else None


def axes_of(attribution: Attribution) -> Axes:
    """Return the order of axes in which an attribution is: what its provenance says."""
    said = str(attribution.provenance.get("channels", "first")).partition(" ")[0]
    return Axes(int(said) if said.isdigit() else said)


def to_first(attribution: Attribution, axes: Axes) -> Attribution:
    """Return an attribution channels first."""
    baseline = attribution.baseline
    return dataclasses.replace(
        attribution,
        values=axes.to_first(attribution.values),
        baseline=None if baseline is None else axes.to_first(baseline),
        provenance={**attribution.provenance, "channels": "first"},
    )


def _with_axes(attribution: Attribution, axes: Axes | None) -> Attribution:
    """Return an attribution in the user's order of axes, which stands in the provenance."""
    if axes is None:
        return attribution
    baseline = attribution.baseline
    measured = (
        {}
        if axes.sure
        else {"channels_known": torch.zeros(len(attribution.values), dtype=torch.float64)}
    )
    return dataclasses.replace(
        attribution,
        values=axes.from_first(attribution.values),
        baseline=None if baseline is None else axes.from_first(baseline),
        measured={**attribution.measured, **measured},
        provenance={**attribution.provenance, "channels": str(axes)},
    )
