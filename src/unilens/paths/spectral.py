"""SIG: the singular components of the difference, the largest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.packing import map_inputs
from .._ops.precision import to_float64
from .._validation.settings import Share, one_of
from ..baselines.base import BaselineResult
from ..errors import NotApplicableError
from ..registry import Card
from .base import Curve, Path, paths

CHANNELS = ("separate", "joint")


@dataclass(frozen=True)
class SpectralPath(Path):
    """The path on which singular components of the difference enter, the largest first.

    With x - x' = U diag(s) V^T, gamma(t) = x' + U diag(s a(t)) V^T. Component i enters linearly:
    a_i(t) = clip((t - t_i) / w, 0, 1), t_i = (1 - w)(1 - s_i / s_1): the largest from the start,
    those near zero last, so that coarse structure comes before fine detail. When the attribution is
    differentiated, the singular vectors and the entry times are held fixed.

    Args:
        overlap: w in (0, 1], the share of the path over which a component enters; 1 gives the
            straight line.
        channels: "separate" decomposes each channel of an image separately, "joint" all channels
            stacked in one matrix.

    References:
        Kim, Lim, Lee, Choi, "Spectral Integrated Gradients for Coarse-to-Fine Feature
        Attribution", KDD 2026, arXiv 2605.19607. The schedule and its overlap of 0.4 follow the
        authors' published configuration.
    """

    reads_axes_from: ClassVar[int] = 3
    overlap: Share = 0.4
    channels: Annotated[str, one_of(CHANNELS)] = "separate"

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless the inputs are images or signals."""
        map_inputs(model, _checked_matrices, inputs)

    def curve(self, model: Evaluator, start: BaselineResult, end: Tensor) -> Curve:
        """Return the curve from start to end; see `Path`."""
        displacements: list[Callable[[Tensor], Tensor]] = []

        def decompose(difference: Tensor) -> Tensor:
            displacements.append(self._displacement(difference))
            return difference

        map_inputs(model, decompose, end - start.values)

        def points(fraction: Tensor) -> Tensor:
            remaining = iter(displacements)
            return start.values + map_inputs(model, lambda _: next(remaining)(fraction), end)

        return points

    def _displacement(self, difference: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function from fractions `(n,)` to displacements from start `(n, B, *S)`."""
        whole = self._matrices(to_float64(difference))
        left, singular, right = torch.linalg.svd(whole.detach(), full_matrices=False)
        if whole.shape[-2] <= whole.shape[-1]:
            right = left.mT @ whole
        else:
            left = whole @ right.mT
        largest = singular[..., :1]
        strength = torch.where(largest > 0, singular / largest, 0.0)
        enters = (1 - self.overlap) * (1 - strength)

        def displacement(fraction: Tensor) -> Tensor:
            values = []
            for time in fraction.to(singular):
                entered = ((time - enters) / self.overlap).clamp(0, 1)
                product = (left * entered.unsqueeze(-2)) @ right
                values.append(product.view(difference.shape).to(difference.dtype))
            return torch.stack(values)

        return displacement

    def _matrices(self, difference: Tensor) -> Tensor:
        if difference.ndim == 4 and self.channels == "joint":
            return difference.flatten(1, 2)
        return difference


def _checked_matrices(inputs: Tensor) -> Tensor:
    if inputs.ndim not in (3, 4):
        raise NotApplicableError(
            f"expected images (B, C, H, W) or signals (B, C, L) to decompose, got "
            f"{tuple(inputs.shape)}; use path='straight'"
        )
    return inputs


paths.add(
    Card(
        "spectral",
        "spectral",
        "singular components of the difference, the largest first (SIG)",
        "Kim et al. 2026, arXiv 2605.19607",
    ),
    SpectralPath,
)
