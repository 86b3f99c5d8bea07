"""The result of an explanation: a map, with the data to judge and to repeat it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Self, cast

import torch
from torch import Tensor

from . import diagnostics
from ._engine.axes import Axes
from ._ops.fields import chosen, moved, rows_of, to_numpy
from ._ops.files import load, save
from ._ops.precision import to_float64
from ._validation.arrays import Array
from .diagnostics import Trace
from .errors import require
from .groups.base import Groups, read_groups
from .outputs import OutputSpec

_MAX_TARGETS = 5
"""Targets that the repr of an attribution names."""


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """The contribution of each input value to the score, with the data to judge and repeat it.

    Attributes:
        values: `(B, *S)`, signed, in units of the score.
        target: `(B,)`, the class indices explained.
        score: `(B,)`, f(x).
        outputs: `(B, K)`, the model's outputs at the inputs; `provenance["outputs"]` names their
            kind (see `unilens.outputs`).
        baseline: `(B, *S)`, or None for methods without one; for several, the weighted mean.
        baseline_score: `(B,)`, f(x'), or None; for several baselines, the weighted mean.
        trace: scores along the path, or None; for several baselines, the weighted mean.
        record: measurements of the search for the baseline, each `(B, ...)`; for several baselines,
            `(B, R, ...)`.
        measured: diagnostics measured for this attribution, each `(B,)`.
        provenance: method, settings, seed, versions, device, dtype, seconds, passes, and the
            optimisations that the engine used or dropped, with the reason.
        groups: `(B, *S)`, the number of each value's group, or None: where the method explained
            groups of values, each value has an equal share of its group's.
        complete: whether the values sum to the change of the score in theory; otherwise their
            units are the method's, as for IDG.
    """

    values: Tensor
    target: Tensor
    score: Tensor
    outputs: Tensor
    baseline: Tensor | None = None
    baseline_score: Tensor | None = None
    trace: Trace | None = field(default=None, metadata={"nested": Trace})
    record: Mapping[str, Tensor] = field(default_factory=dict, metadata={"tensors": True})
    measured: Mapping[str, Tensor] = field(default_factory=dict, metadata={"tensors": True})
    provenance: Mapping[str, object] = field(default_factory=dict)
    complete: bool = True
    groups: Tensor | None = None

    @property
    def completeness_gap(self) -> Tensor:
        """f(x) - f(x') - sum(values), `(B,)`, in units of the score; NaN where undefined."""
        if self.baseline_score is None or not self.complete:
            return torch.full_like(to_float64(self.score), torch.nan)
        change = to_float64(self.score) - to_float64(self.baseline_score)
        return change - to_float64(self.values).flatten(1).sum(1)

    @property
    def score_diagnostics(self) -> dict[str, Tensor]:
        """The change of the score from the baseline, and the completeness gap, each `(B,)`."""
        if self.baseline_score is None:
            return {}
        gap = {"completeness_gap": self.completeness_gap} if self.complete else {}
        return {**gap, "score_change": self.score - self.baseline_score}

    @property
    def confidence(self) -> Tensor:
        """The target's probability at the inputs, `(B,)`; NaN where the outputs have none."""
        return OutputSpec.of(self.provenance).confidence(self.outputs, self.target)

    @property
    def axes(self) -> Axes:
        """The order of the axes of the values, from the provenance."""
        channels = str(self.provenance.get("channels", "first")).partition(" ")[0]
        return Axes(int(channels) if channels.isdigit() else channels)

    @property
    def saliency(self) -> Tensor:
        """The absolute values `(B, *S)`: the magnitude of each contribution."""
        return self.values.abs()

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """Every diagnostic measured for this attribution, by name, each `(B,)`."""
        flat = self.values.flatten(1)
        finite, zero = flat.isfinite().all(1), (flat == 0).all(1)
        known = {"values_finite": to_float64(finite), **self.measured}
        return {**known, "all_zero": to_float64(zero)} if zero.any() else known

    @property
    def warnings(self) -> list[list[str]]:
        """The named warnings of each input (see `unilens.diagnostics.WARNINGS`)."""
        return [diagnostics.warn(measured) for measured in self._measured_by_input()]

    @property
    def verdicts(self) -> list[str]:
        """One line for each input: whether its map can be used, and why."""
        if self.provenance.get("family") == "control":
            return ["A control: the map does not depend on the model."] * len(self.values)
        return [diagnostics.verdict(measured) for measured in self._measured_by_input()]

    def _measured_by_input(self) -> list[dict[str, float]]:
        known = {name: values.tolist() for name, values in self.diagnostics.items()}
        return [
            {name: values[i] for name, values in known.items()} for i in range(len(self.values))
        ]

    def __repr__(self) -> str:
        return f"{type(self).__name__} by {summary(self, f'shape {tuple(self.values.shape[1:])}')}"

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: object) -> Attribution:
        """Return the attribution of some of the inputs, with all of their data.

        Args:
            index: a number, a slice, a mask `(B,)` or several numbers; a number gives an
                attribution of one input, whose values are `(1, *S)`.
        """
        return chosen(self, rows_of(index, len(self)))

    def __iter__(self) -> Iterator[Attribution]:
        return (self[row] for row in range(len(self)))

    def to(self, *where: torch.device | str | torch.dtype) -> Attribution:
        """Return a copy on a device, with floating-point tensors in a dtype, or both."""
        return moved(self, *where)

    def cpu(self) -> Attribution:
        """Return a copy on the CPU."""
        return moved(self, "cpu")

    def numpy(self) -> Array:
        """Return the values as an array `(B, *S)`, without a graph; bfloat16 as float32."""
        return to_numpy(self.values)

    def by_group(self, groups: object = None) -> Tensor:
        """Return the sum of the values of each group `(B, G)`, in float64.

        Args:
            groups: integers, as `unilens.explain` takes them; None for the attribution's own.

        Returns:
            `(B, G)`, groups in ascending order of their labels; NaN for a group that an input does
            not have.

        Raises:
            UnilensError: the attribution has no groups, or those given do not fit.
        """
        values = self.axes.to_first(self.values)
        if groups is not None:
            return read_groups(groups, values, self.axes).sums(values)
        require(
            self.groups is not None,
            "expected groups, got None for an attribution without; pass groups=, or explain with "
            "them",
        )
        own = self.axes.to_first(cast(Tensor, self.groups))
        described = cast(Mapping[str, int], self.provenance.get("groups", {}))
        return Groups(own, described.get("count", int(own.max()) + 1)).sums(values)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the attribution to a file; `load` restores it exactly.

        The format is safetensors, with all other data as JSON in the header.

        Args:
            path: of the file.
            overwrite: whether to replace a file that exists.

        Raises:
            UnilensError: the file exists or cannot be written, or the provenance has values that
                JSON cannot represent.
        """
        save(self, path, overwrite)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Return the attribution in a file, on the CPU; no code in the file is executed.

        Raises:
            UnilensError: the file does not exist, or `save` did not write it.
        """
        attribution, header = load(cls, path, check_whole)
        require(
            "parts" not in header,
            f"expected {path} to hold an attribution of one input, got one of several; load it "
            "with unilens.multi_input.MultiInputAttribution.load",
        )
        return attribution

    def with_measured(self, **measured: Tensor) -> Attribution:
        """Return a copy with further diagnostics, each `(B,)`."""
        return dataclasses.replace(self, measured={**self.measured, **measured})

    def with_provenance(self, **provenance: object) -> Attribution:
        """Return a copy with further entries in its provenance."""
        return dataclasses.replace(self, provenance={**self.provenance, **provenance})


def check_whole(attribution: Attribution) -> None:
    """Raise `ValueError` where what was read from a file is no attribution; see `Attribution`."""
    given, values = attribution, attribution.values
    count = (len(values),)
    fits = {
        "values": values.is_floating_point() and values.ndim >= 1,
        "target": given.target.shape == count and given.target.dtype == torch.long,
        "score": given.score.shape == count and given.score.is_floating_point(),
        "outputs": given.outputs.ndim == 2 and given.outputs.is_floating_point(),
        "baseline": given.baseline is None or given.baseline.shape == values.shape,
        "groups": given.groups is None or given.groups.shape == values.shape,
        "measured": all(measured.shape == count for measured in given.measured.values()),
        "provenance": isinstance(given.provenance, dict),
        "complete": isinstance(given.complete, bool),
    }
    wrong = [name for name, holds in fits.items() if not holds]
    if wrong:
        raise ValueError(", ".join(wrong))
    _ = repr(given), given.confidence, given.completeness_gap, given.axes.to_first(values)


def summary(attribution: Attribution, shapes: str) -> str:
    """Return the method, number and targets of an attribution, and the verdict on its first input.

    Args:
        attribution: the attribution.
        shapes: of one input, in words.
    """
    method = attribution.provenance.get("method", "an unnamed method")
    count, plural = len(attribution), "" if len(attribution) == 1 else "s"
    targets = ", ".join(map(str, attribution.target[:_MAX_TARGETS].tolist())) or "none"
    targets += ", ..." if count > _MAX_TARGETS else ""
    lines = [f"{method}: {count} input{plural} of {shapes}, target{plural} {targets}"]
    lines += [f"{'input 0: ' * (count > 1)}{verdict}" for verdict in attribution[:1].verdicts]
    if "default" in attribution.provenance:
        lines.append(str(attribution.provenance["default"]))
    return "\n  ".join(lines)
