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
from .._validation.settings import one_of
from ..baselines.base import BaselineResult
from ..errors import NotApplicableError, require
from ..registry import Card
from .base import Curve, Path, paths

CHANNELS = ("separate", "joint")


@dataclass(frozen=True)
class SpectralPath(Path):
    """Walk from the baseline to the input by one singular component after the other.

    With x - x' = U diag(s) V^T, gamma(t) = x' + U diag(s a(t)) V^T. Component i enters linearly:
    a_i(t) = clip((t - t_i) / w, 0, 1), t_i = (1 - w)(1 - s_i / s_1): the largest at once, those
    near zero last. Coarse structure thus comes before fine detail. When the attribution is
    differentiated, the singular vectors and the times of entry are held fixed.

    Args:
        overlap: w in (0, 1], the share of the path that a component takes to enter; with 1 the
            path is the straight line.
        channels: "separate" decomposes every channel's image on its own, "joint" all channels of
            an image stacked on one another.

    References:
        Kim, Lim, Lee, Choi, "Spectral Integrated Gradients for Coarse-to-Fine Feature
        Attribution", KDD 2026, arXiv 2605.19607. The schedule and its overlap of 0.4 follow the
        authors' published configuration.
    """

    reads_axes_from: ClassVar[int] = 3
    overlap: float = 0.4
    channels: Annotated[str, one_of(CHANNELS)] = "separate"

    def __post_init__(self) -> None:
        number = isinstance(self.overlap, (int, float)) and not isinstance(self.overlap, bool)
        require(
            number and 0 < self.overlap <= 1,
            f"expected overlap to be a number above 0 and at most 1, got {self.overlap!r}",
        )

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless an input is a matrix or several."""
        map_inputs(model, _checked_matrices, inputs)

    def curve(self, model: Evaluator, start: BaselineResult, end: Tensor) -> Curve:
        """Return the curve from start to end; see `Path`."""
        ways: list[Callable[[Tensor], Tensor]] = []

        def decomposed(difference: Tensor) -> Tensor:
            ways.append(self._way(difference))
            return difference

        map_inputs(model, decomposed, end - start.values)

        def points(fraction: Tensor) -> Tensor:
            each = iter(ways)
            return start.values + map_inputs(model, lambda part: next(each)(fraction), end)

        return points

    def _way(self, difference: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function from fractions `(n,)` to how much of the way is gone `(n, B, *S)`."""
        whole = self._matrices(to_float64(difference))
        left, singular, right = torch.linalg.svd(whole.detach(), full_matrices=False)
        if whole.shape[-2] <= whole.shape[-1]:
            right = left.mT @ whole
        else:
            left = whole @ right.mT
        largest = singular[..., :1]
        strength = torch.where(largest > 0, singular / largest, 0.0)
        enters = (1 - self.overlap) * (1 - strength)

        def way(fraction: Tensor) -> Tensor:
            gone = []
            for at in fraction.to(singular):
                entered = ((at - enters) / self.overlap).clamp(0, 1)
                part = (left * entered.unsqueeze(-2)) @ right
                gone.append(part.view(difference.shape).to(difference.dtype))
            return torch.stack(gone)

        return way

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
