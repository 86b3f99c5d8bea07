"""The base class of metrics: checks what it is given, and measures."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from .._engine.axes import Axes, channels_first, refuse_channels_setting, resolve_axes
from .._engine.evaluator import Evaluator, PassCount
from .._engine.output_detection import output_spec
from .._engine.packing import MultiInputs
from .._ops.precision import to_float64
from .._validation.inputs import Target, check_inputs, check_seed, check_target
from .._validation.settings import Settings
from ..attribution import Attribution
from ..baselines.axes import function_to_first, settings_to_first
from ..errors import NotApplicableError, UnilensError, require
from ..explainer import Method, evaluator_of
from ..groups.base import read_groups
from ..methods import methods
from ..outputs import OutputSpec
from ..provenance import describe, versions
from ..registry import Entry, Registry
from .cache import MetricCache
from .context import EvalContext, MapFunction, method_of_rows
from .maps import (
    check_map,
    check_mask,
    check_without_parts,
    constant,
    maps_to_first,
    mask_to_first,
    parts_to_first,
)
from .measurement import Measurement
from .multi_input import MultiInputMaps, measure_multi_input

Component = tuple[str, Registry[Any], str]
"""A setting that is a registered thing, its registry, and its default."""


class Metric(Settings, ABC):
    """The base of metrics: subclasses declare their facts and write `_measure`.

    Attributes:
        family: what the metric asks of a map, such as "faithfulness".
        summary: one line.
        reference: where it comes from.
        deterministic: whether it is without randomness of its own.
        traits: in which it differs from most metrics; names in `unilens.registry.TRAITS`.
        higher_is_better: see `MetricCard`.
        bounds: see `MetricCard`.
        needs: see `MetricCard`.
        components: the settings that are registered things.
        undefined_where: why a map that is finite and not the same everywhere can have no value.
    """

    family: ClassVar[str] = "other"
    summary: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    deterministic: ClassVar[bool] = True
    traits: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[bool | None] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (None, None)
    needs: ClassVar[tuple[str, ...]] = ()
    components: ClassVar[tuple[Component, ...]] = ()
    undefined_where: ClassVar[str] = "the metric has no value for this map and model"

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, besides those of explanations."""
        return PassCount(1, 0)

    @property
    def explanations(self) -> int:
        """How many maps are made anew per input."""
        return 0

    @property
    def takes_groups(self) -> bool:
        """Whether the metric removes and ranks whole groups where they are given."""
        return False

    @abstractmethod
    def _measure(self, context: EvalContext) -> Measurement:
        """Return values, breakdown and details; the provenance is added."""

    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor | MultiInputs,
        attribution: Attribution | Tensor | MultiInputMaps,
        *,
        method: str | Method | MapFunction | None = None,
        target: Target = None,
        mask: Tensor | None = None,
        without_parts: Tensor | None = None,
        seed: int = 0,
        channels: str | int = "auto",
        groups: object = None,
        cache: MetricCache | None = None,
    ) -> Measurement:
        """Measure how good the maps are; see `unilens.evaluate` for the arguments.

        With a `cache` of the same evaluator and inputs, what was computed for other maps and by
        other metrics is not computed again.

        Returns:
            The values with their breakdown, details and provenance.
        """
        began, seed = time.perf_counter(), check_seed(seed)
        if isinstance(inputs, (Mapping, tuple)):
            refuse_channels_setting(channels)
            named = method if isinstance(method, (str, Method)) else None
            return measure_multi_input(
                lambda packed, values, maps, target, rows: self(
                    packed,
                    values,
                    maps,
                    method=method_of_rows(named, rows),
                    target=target,
                    seed=seed,
                ),
                model,
                inputs,
                attribution,
                target,
                {
                    "mask": mask,
                    "without_parts": without_parts,
                    "cache": cache,
                    "groups": groups,
                    "function as method": None if named else method,
                },
            )
        require(
            method is None
            or isinstance(method, str)
            or (callable(method) and not isinstance(method, (type, Entry))),
            "expected method to be a name, a method with its settings or a function, got "
            f"{getattr(method, '__name__', type(method).__name__)}; build it first, as by "
            "methods['ig']()",
        )
        axes = _axes_for(model, inputs, attribution, channels)
        if axes is not None and axes.channels != "first":
            return self._in_order(
                axes,
                model,
                inputs,
                attribution,
                method,
                target,
                mask,
                without_parts,
                seed,
                groups,
                cache,
            )
        with torch.inference_mode(False):
            known = attribution if isinstance(attribution, Attribution) else None
            evaluator = evaluator_of(model, known)
            inputs = check_inputs(inputs, evaluator.device, evaluator.model)
            outputs = evaluator(inputs) if cache is None else cache.outputs(evaluator, inputs)
            spec = output_spec(evaluator, inputs, outputs)
            values = check_map(attribution if known is None else known.values, inputs)
            finite = values.flatten(1).isfinite().all(1)
            context = EvalContext(
                evaluator,
                inputs,
                _target(known, target, outputs, evaluator.model, spec),
                outputs,
                values.masked_fill(~finite.view(-1, *(1,) * (values.ndim - 1)), 0.0),
                seed,
                known,
                methods[method]() if isinstance(method, str) else method,
                None if mask is None else check_mask(mask, inputs),
                None if without_parts is None else check_without_parts(without_parts, inputs),
                cache,
                None if groups is None else read_groups(groups, inputs).of_positions(),
            )
            self._check(context)
            with torch.no_grad():
                found = self._measure(context)
        made = {
            "outputs": {"kind": spec.kind, "source": spec.source},
            "metric": type(self).__name__,
            "settings": describe(self),
            "method": None if method is None else describe(method),
            "seed": seed,
            **({} if axes is None else {"channels": str(axes)}),
            "versions": versions(),
            "device": str(inputs.device),
            "dtype": str(inputs.dtype).removeprefix("torch."),
            "seconds": time.perf_counter() - began,
        }
        measured = _only(finite, found.values)
        return Measurement(
            measured,
            {name: _only(finite, value) for name, value in found.breakdown.items()},
            found.details,
            {**made, **found.provenance},
            self._reasons(measured, finite, context.values),
        )

    def _reasons(self, measured: Tensor, finite: Tensor, values: Tensor) -> tuple[str, ...]:
        """Return why values `(B,)` are NaN; empty where they are not."""
        causes = {
            "": ~measured.isnan(),
            "the map has values that are not finite": ~finite,
            "the map is the same everywhere": constant(values),
            self.undefined_where: torch.ones_like(finite),
        }
        return tuple(
            next(cause for cause, applies in causes.items() if bool(applies[row]))
            for row in range(len(measured))
        )

    @torch.inference_mode(False)
    def _in_order(
        self,
        axes: Axes,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        attribution: Attribution | Tensor | MultiInputMaps,
        method: Any,
        target: Target,
        mask: Tensor | None,
        without_parts: Tensor | None,
        seed: int,
        groups: object,
        cache: MetricCache | None,
    ) -> Measurement:
        """Measure channels first, and return what has the inputs' shape in the user's order."""
        inputs = inputs if isinstance(inputs, Tensor) else check_inputs(inputs, None)
        first, moved = channels_first(model, axes), axes.to_first(inputs)
        explainer = methods[method]() if isinstance(method, str) else method
        if "method" in self.needs and isinstance(attribution, Attribution):
            _check_made_by(attribution, explainer)
        found = self(
            first,
            moved,
            maps_to_first(attribution, inputs, axes),
            method=_method_to_first(explainer, axes, inputs.ndim - 1),
            target=target,
            mask=mask_to_first(mask, inputs, axes),
            without_parts=parts_to_first(without_parts, inputs, axes),
            seed=seed,
            groups=None if groups is None else read_groups(groups, moved, axes),
            cache=None if cache is None else cache.channels_first(first, inputs, moved),
        )
        details = {
            name: axes.from_first(value) if value.shape == moved.shape else value
            for name, value in found.details.items()
        }
        described = None if method is None else describe(method)
        made = {**found.provenance, "method": described, "channels": str(axes)}
        return Measurement(found.values, found.breakdown, details, made, found.reasons)

    def _check(self, context: EvalContext) -> None:
        """Raise where something is missing that the metric needs beside the map."""
        name = type(self).__name__
        has = {
            "method": (callable(context.method), "explains again; pass method='ig' or a function"),
            "mask": (context.mask is not None, "needs to know where the object is; pass mask="),
            "without_parts": (
                context.without_parts is not None,
                "needs the inputs without each of their parts; pass without_parts=, or benchmark "
                "with data = truth:birds",
            ),
            "path": (
                context.attribution is not None and context.attribution.baseline is not None,
                "judges the way from a baseline; pass the Attribution of a path method, "
                "such as 'ig', not its values",
            ),
        }
        for need in self.needs:
            there, remedy = has[need]
            if not there:
                raise NotApplicableError(f"{name} {remedy}")
        if "method" in self.needs:
            _check_made_by(context.attribution, context.method)
        if context.groups is not None and not self.takes_groups:
            raise NotApplicableError(
                f"expected no groups for {name}, which judges single values; leave groups= out, or "
                "use mu_fidelity, insertion_auc, deletion_auc or infidelity with "
                "perturbation='subset'"
            )


def _axes_for(
    model: nn.Module | Evaluator, inputs: Tensor, attribution: object, channels: str | int
) -> Axes | None:
    """Return where the inputs' channels are: as said, as the maps were made, or as it is read."""
    known = model.channels if isinstance(model, Evaluator) else "auto"
    said = channels if channels != "auto" else known
    if not isinstance(inputs, Tensor):
        return None if said == "auto" else Axes(said)
    made = attribution.provenance if isinstance(attribution, Attribution) else {}
    if said == "auto" and "channels" in made:
        return cast(Attribution, attribution).axes
    return resolve_axes(model, inputs, channels)


def _method_to_first(method: Any, axes: Axes, ndim: int) -> Any:
    if method is None or isinstance(method, Method) or not callable(method):
        return settings_to_first(method, axes, ndim)
    return method if isinstance(method, (type, Entry)) else function_to_first(method, axes)


def _check_made_by(attribution: Attribution | None, method: object) -> None:
    """Raise where an attribution says that another method made it, or with other settings."""
    made = None if attribution is None else attribution.provenance.get("settings")
    given = describe(method)
    if not isinstance(made, Mapping) or not isinstance(given, Mapping) or made == given:
        return
    differ = [name for name in {**made, **given} if made.get(name) != given.get(name)]
    raise UnilensError(
        f"expected method to be what made the maps, but {', '.join(differ)} differ; pass the "
        "method with the same settings, or attribution.values to compare all the same"
    )


def _only(finite: Tensor, values: Tensor) -> Tensor:
    return to_float64(values.detach()).masked_fill(~finite, torch.nan)


def _target(
    attribution: Attribution | None,
    target: Target,
    outputs: Tensor,
    model: nn.Module,
    spec: OutputSpec,
) -> Tensor:
    """Return the classes that the maps explain; raise where two are named."""
    if attribution is None:
        return check_target(target, outputs, model, spec)
    if target is not None and not torch.equal(
        check_target(target, outputs, model), attribution.target
    ):
        raise UnilensError(
            "expected no target beside an Attribution, which has its own, got another; explain "
            "that target, or pass attribution.values"
        )
    return check_target(attribution.target, outputs, model)
