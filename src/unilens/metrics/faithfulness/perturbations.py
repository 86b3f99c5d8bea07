"""Perturbations of infidelity: random changes of inputs, in the map's units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ..._ops.random import standard_normal, uniform
from ..._validation.settings import Fraction, Positive, Settings, TwoOrMore, one_of
from ...errors import NotApplicableError
from ...registry import Card, Registry
from ..context import EvalContext
from .imputers import AnyImputer, impute_function, over_channels, resolve_imputers
from .removal import cells_of, draw_subsets, members

UNITS = ("contribution", "gradient")
"""contribution: in units of the score, as IG's; gradient: score per unit of the inputs."""


class PerturbedPoints(NamedTuple):
    """Some changes I of the inputs, in the map's terms, and the changed inputs `(n, B, *S)`."""

    change: Tensor
    inputs: Tensor


Draws = Callable[[range], PerturbedPoints]
"""From the numbers of some samples to them; asked for in ascending order, each once."""


class InfidelityPerturbation(Settings, ABC):
    """Draws changes of inputs.

    It does not depend on the context's map, so that all maps are judged by the same draws.
    """

    @property
    def variants(self) -> int:
        """How many sets of draws there are."""
        return 1

    @abstractmethod
    def __call__(self, context: EvalContext, samples: int) -> dict[str, Draws]:
        """Return the draws by name: one set, or one for each of several imputers."""


infidelity_perturbations: Registry[InfidelityPerturbation] = Registry("perturbation")


@dataclass(frozen=True)
class Gaussian(InfidelityPerturbation):
    """Subtract gaussian noise I from the input: x - I. For maps in score per unit of the inputs.

    Args:
        std: standard deviation, in the inputs' units.
    """

    std: Positive = 0.2

    def __call__(self, context: EvalContext, samples: int) -> dict[str, Draws]:
        """Return the draws; see `InfidelityPerturbation`."""
        generators, inputs = context.generators(), context.inputs

        def drawn(block: range) -> PerturbedPoints:
            noise = torch.stack(
                [
                    torch.stack([standard_normal(one.shape, own) for _ in block])
                    for own, one in zip(generators, inputs, strict=True)
                ],
                dim=1,
            )
            change = self.std * noise.to(inputs)
            return PerturbedPoints(change, inputs - change)

        return {"gaussian": drawn}


@dataclass(frozen=True)
class ReplacementPerturbation(InfidelityPerturbation, ABC):
    """The base of perturbations that replace whole positions.

    Args:
        imputer: what replaces them: one of `unilens.metrics.imputers`, or several; then the
            metric's `breakdown` has each, and its value is their mean.
        units: of the map. "contribution", score: I is 1 where a value was replaced, so that I^T A
            is what the map gives to what was replaced. "gradient", score per unit of the inputs: I
            is x less the changed input, as in the paper.
    """

    imputer: AnyImputer = "black"
    units: Annotated[str, one_of(UNITS)] = "contribution"

    @property
    def variants(self) -> int:
        """How many sets of draws there are: one per imputer."""
        return len(resolve_imputers(self.imputer))

    @abstractmethod
    def _kept(self, context: EvalContext, samples: int) -> Callable[[range], Tensor]:
        """Return the function from samples' numbers to the positions left `(n, B, *spatial)`."""

    def __call__(self, context: EvalContext, samples: int) -> dict[str, Draws]:
        """Return the draws; see `InfidelityPerturbation`."""
        kept, inputs = self._kept(context, samples), context.inputs

        def draws_with(impute: Callable[[Tensor], Tensor]) -> Draws:
            def drawn(block: range) -> PerturbedPoints:
                left = kept(block)
                changed = impute(left)
                if self.units == "gradient":
                    return PerturbedPoints(inputs - changed, changed)
                gone = (~over_channels(left, inputs)).to(inputs)
                return PerturbedPoints(gone.expand_as(changed), changed)

            return drawn

        return {
            name: draws_with(impute_function(imputer, context))
            for name, imputer in resolve_imputers(self.imputer).items()
        }


@dataclass(frozen=True)
class Square(ReplacementPerturbation):
    """Replace a square patch at a random position, wholly inside the image.

    In a signal it is a run, in a volume or clip a cube.

    Args:
        imputer: see `ReplacementPerturbation`.
        units: see `ReplacementPerturbation`.
        side: of the patch, as a fraction of the image's shorter side.
    """

    side: Fraction = 0.3

    def _kept(self, context: EvalContext, samples: int) -> Callable[[range], Tensor]:
        shape, device = context.spatial_shape, context.inputs.device
        if context.inputs.ndim < 3:
            raise NotApplicableError(
                "square patches expect images (B, C, H, W), signals (B, C, L) or volumes "
                f"(B, C, D, H, W), got {tuple(context.inputs.shape)}; use perturbation='subset'"
            )
        side = max(1, round(self.side * min(shape)))
        room = torch.tensor([length - side + 1 for length in shape])
        corners = torch.stack(
            [
                (uniform((samples, len(shape)), own) * room).long().minimum(room - 1)
                for own in context.generators()
            ],
            dim=1,
        ).to(device)

        def kept(block: range) -> Tensor:
            inside = torch.ones((), dtype=torch.bool, device=device)
            for dim, length in enumerate(shape):
                along_dim = [length if other == dim else 1 for other in range(len(shape))]
                along = torch.arange(length, device=device).view(along_dim)
                corner = corners[block.start : block.stop, :, dim]
                first = corner.view(*corner.shape, *(1,) * len(shape))
                inside = inside & (along >= first) & (along < first + side)
            return ~inside

        return kept


@dataclass(frozen=True)
class Subset(ReplacementPerturbation):
    """Replace a random subset of the cells.

    Args:
        imputer: see `ReplacementPerturbation`.
        units: see `ReplacementPerturbation`.
        cells: of a grid of cells x cells; None for single positions. See `MuFidelity`.
        fraction: of the cells that is replaced.
    """

    cells: TwoOrMore | None = 9
    fraction: Fraction = 0.2

    def _kept(self, context: EvalContext, samples: int) -> Callable[[range], Tensor]:
        cells = cells_of(context, self.cells, type(self).cells)
        removed = draw_subsets(context, samples, cells, self.fraction)

        def kept(block: range) -> Tensor:
            return ~members(removed[block.start : block.stop], cells)

        return kept


_YEH = "Yeh et al. 2019, arXiv 1901.09392"
infidelity_perturbations.add(
    Card("square", "replacement", "a square patch is replaced", _YEH, False), Square
)
infidelity_perturbations.add(
    Card("subset", "replacement", "a random subset of cells is replaced", _YEH, False), Subset
)
infidelity_perturbations.add(
    Card("gaussian", "noise", "gaussian noise is taken off", _YEH, False), Gaussian
)
