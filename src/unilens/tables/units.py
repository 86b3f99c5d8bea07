"""The attribution of a table in the units of its model: targets, outputs and scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ..attribution import Attribution
from ..outputs import OutputSpec
from ..provenance import describe
from ..scores import AnyScore


def in_units(
    attribution: Attribution,
    spec: OutputSpec,
    target: Tensor,
    outputs: Tensor,
    base: Tensor,
    known: bool,
) -> Attribution:
    """Return an attribution with the model's outputs and targets in place of scores and codes."""
    if attribution.complete:
        attribution = dataclasses.replace(attribution, baseline_score=base)
        attribution = attribution.with_measured(**attribution.score_diagnostics)
    measured = {name: value for name, value in attribution.measured.items() if name != "proximity"}
    if not known:
        measured["reference_known"] = torch.zeros(len(target), dtype=torch.float64)
    if spec.warning is not None:
        measured[spec.warning] = torch.ones(len(target), dtype=torch.float64)
    return dataclasses.replace(
        attribution, target=target, outputs=outputs, baseline=None, measured=measured
    )


def described(attribution: Attribution, score: Any, spec: OutputSpec) -> dict[str, Any]:
    """Return what the provenance says of outputs and settings."""
    settings: Any = dict(attribution.provenance["settings"])  # type: ignore[call-overload]
    settings.pop("baseline", None)
    settings["score"] = score if isinstance(score, str) else describe(score)
    return {"outputs": {"kind": spec.kind, "source": spec.source}, "settings": settings}


def unit_of(score: AnyScore | None, spec: OutputSpec) -> str:
    """Return the unit of the values, in words."""
    if callable(score):
        return str(getattr(score, "__name__", "score")).replace("<lambda>", "score")
    if score in (None, "probability") and spec.has_probabilities:
        return "probability"
    if spec.kind == "regression":
        return "prediction"
    return "decision function" if spec.kind == "decision_function" else str(score)
