"""How inputs are changed to ask whether a map foretells what the change does to the score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..._ops.random import standard_normal, uniform
from ..._ops.spatial import grid_cell_index
from ..._validation.settings import Settings, check_choice, check_count, check_number
from ...errors import NotApplicableError
from ...registry import Card, Registry
from ..context import EvalContext
from .imputers import FillNames, imputed_by, imputers_of, over_channels
from .removal import check_fraction, draw_subsets, members

UNITS = ("contribution", "gradient")
"""contribution: in units of the score, as IG's; gradient: score per unit of the inputs."""


class PerturbedPoints(NamedTuple):
    """Some changes I of the inputs, in the map's terms, and the changed inputs `(n, B, *S)`."""

    change: Tensor
    inputs: Tensor


Draws = Callable[[range], PerturbedPoints]
"""From the numbers of some samples to them; asked for in ascending order, each once."""


class InfidelityPerturbation(Protocol):
    """How inputs are changed. Optional: `variants`, how many sets of draws there are.

    It does not depend on the context's map, so that every map is asked the same questions.
    """

    def __call__(self, context: EvalContext, samples: int) -> dict[str, Draws]:
        """Return the draws by name: one set, or one for each of several fills."""


infidelity_perturbations: Registry[InfidelityPerturbation] = Registry("disturbance")


@dataclass(frozen=True)
class Gaussian(Settings):
    """Take gaussian noise I from the input: x - I. For maps in score per unit of the inputs.

    Args:
        std: standard deviation, in the inputs' units.
    """

    std: float = 0.2

    def __post_init__(self) -> None:
        check_number("std", self.std, above=0)

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
class Replacing(Settings, ABC):
    """What disturbances share that replace whole places.

    Args:
        fill: what is put there: one of `unilens.metrics.fills`, or several; then the metric's
            `parts` has each, and its value is their mean.
        units: of the map. "contribution", score: I is 1 where a value was replaced, so that I^T A
            is what the map gives to what was replaced. "gradient", score per unit of the inputs: I
            is x less the changed input, as in the paper.
    """

    fill: FillNames = "black"
    units: str = "contribution"

    def __post_init__(self) -> None:
        imputers_of(self.fill)
        check_choice("units", self.units, UNITS)

    @property
    def variants(self) -> int:
        """How many sets of draws there are: one per fill."""
        return len(imputers_of(self.fill))

    @abstractmethod
    def _kept(self, context: EvalContext, samples: int) -> Callable[[range], Tensor]:
        """Return the function from samples' numbers to the places left `(n, B, *places)`."""

    def __call__(self, context: EvalContext, samples: int) -> dict[str, Draws]:
        """Return the draws; see `InfidelityPerturbation`."""
        kept, inputs = self._kept(context, samples), context.inputs

        def with_fill(filled: Callable[[Tensor], Tensor]) -> Draws:
            def drawn(block: range) -> PerturbedPoints:
                left = kept(block)
                changed = filled(left)
                if self.units == "gradient":
                    return PerturbedPoints(inputs - changed, changed)
                gone = (~over_channels(left, inputs)).to(inputs)
                return PerturbedPoints(gone.expand_as(changed), changed)

            return drawn

        return {
            name: with_fill(imputed_by(fill, context))
            for name, fill in imputers_of(self.fill).items()
        }


@dataclass(frozen=True)
class Square(Replacing):
    """Replace a square patch at a random place, wholly inside the image.

    In a signal it is a run, in a volume or clip a cube.

    Args:
        fill: see `Replacing`.
        units: see `Replacing`.
        side: of the patch, as a fraction of the image's shorter side.
    """

    side: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("side", self.side)

    def _kept(self, context: EvalContext, samples: int) -> Callable[[range], Tensor]:
        places, device = context.places, context.inputs.device
        if context.inputs.ndim < 3:
            raise NotApplicableError(
                "square patches expect images (B, C, H, W), signals (B, C, L) or volumes "
                f"(B, C, D, H, W), got {tuple(context.inputs.shape)}; use disturbance='subset'"
            )
        side = max(1, round(self.side * min(places)))
        room = torch.tensor([length - side + 1 for length in places])
        corners = torch.stack(
            [
                (uniform((samples, len(places)), own) * room).long().minimum(room - 1)
                for own in context.generators()
            ],
            dim=1,
        ).to(device)

        def kept(block: range) -> Tensor:
            inside = torch.ones((), dtype=torch.bool, device=device)
            for dim, length in enumerate(places):
                shape = [length if other == dim else 1 for other in range(len(places))]
                along = torch.arange(length, device=device).view(shape)
                corner = corners[block.start : block.stop, :, dim]
                first = corner.view(*corner.shape, *(1,) * len(places))
                inside = inside & (along >= first) & (along < first + side)
            return ~inside

        return kept


@dataclass(frozen=True)
class Subset(Replacing):
    """Replace a random subset of the cells.

    Args:
        fill: see `Replacing`.
        units: see `Replacing`.
        cells: of a grid of so many by side; None for single places. See `MuFidelity`.
        fraction: of the cells that is replaced.
    """

    cells: int | None = 9
    fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells is not None:
            check_count("cells", self.cells, least=2)
        check_fraction("fraction", self.fraction)

    def _kept(self, context: EvalContext, samples: int) -> Callable[[range], Tensor]:
        cell = grid_cell_index(context.places, self.cells).to(context.inputs.device)
        count = int(cell.max()) + 1
        removed = draw_subsets(context, samples, count, self.fraction)

        def kept(block: range) -> Tensor:
            return ~members(removed[block.start : block.stop], count)[..., cell]

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
