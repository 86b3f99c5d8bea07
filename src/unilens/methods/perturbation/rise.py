"""RISE: random masks, weighed by the score under them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..._ops.precision import expand_like, to_float64
from ..._ops.random import uniform
from ..._ops.spatial import LINEAR, spatial_shape_of
from ..._validation.settings import Count, Positive
from ...errors import require
from ...registry import Card
from .masking import Masked, MaskingMethod, masks_with


@dataclass(frozen=True)
class Rise(MaskingMethod):
    """The mean of random masks, each weighed by the score of the input under it.

    A mask is a grid of cells kept or hidden at random, enlarged smoothly and shifted at random; in
    a table every feature is kept or hidden by itself. All inputs get the same masks. With n masks
    the map of a place is sum(score * mask) / (n * keep): its mean is the mean score, not zero.

    Args:
        baseline: what is put where a place is hidden.
        score: what is explained, by name or as a function of logits and target.
        n_masks: how many masks; the noise of the map falls with the root of it.
        cells: along each side of the grid.
        keep: the probability that a cell is kept.
        centred: subtract the mean score first, so that a place without influence gets zero (up to
            noise), one that speaks against the target less than zero, and the noise is smaller.

    References:
        Petsiuk et al. 2018, arXiv 1806.07421.
    """

    n_masks: Count = 2000
    cells: Count = 8
    keep: Positive = 0.5
    centred: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.keep < 1, f"expected keep to be a number below 1, got {self.keep!r}")

    def _points(self, shape: torch.Size) -> int:
        return self.n_masks

    def _map(self, hidden: Masked) -> Tensor:
        draw = self._masks(hidden.shape, torch.Generator().manual_seed(hidden.context.seed))
        total, times = hidden.zeros(), hidden.zeros()
        score = torch.zeros_like(to_float64(hidden.context.outputs[:, 0]))
        for index in hidden.blocks(self.n_masks):
            masks = torch.stack([draw(number) for number in index.tolist()])
            scores = hidden.scores(masks)
            for mask, one in zip(masks.to(total), scores, strict=True):
                total += mask * expand_like(one, total)
                times += mask
                score += one
        if self.centred:
            total -= times * expand_like(score / self.n_masks, total)
        return total / (self.n_masks * self.keep)

    def _masks(self, shape: torch.Size, generator: torch.Generator) -> Callable[[int], Tensor]:
        """Return the function from a mask's number to the mask `(*places)`, in [0, 1].

        Masks are enlarged one at a time, when they are needed: all of them are too large to keep.
        """
        places = spatial_shape_of(shape)
        grid = [min(self.cells, side) for side in places] if len(shape) > 1 else list(shape)
        kept = uniform((self.n_masks, *grid), generator) < self.keep
        if len(shape) == 1:
            return lambda number: kept[number].float()
        pixels = [math.ceil(side / cells) for side, cells in zip(places, grid, strict=True)]
        shifts = torch.stack(
            [torch.randint(one, (self.n_masks,), generator=generator) for one in pixels], dim=1
        ).tolist()
        size = [(cells + 1) * one for cells, one in zip(grid, pixels, strict=True)]
        mode = LINEAR[len(size)]

        def mask(number: int) -> Tensor:
            large = interpolate(kept[number].float()[None, None], size, mode=mode)[0, 0]
            for dim, shift in enumerate(shifts[number]):
                large = large.narrow(dim, shift, places[dim])
            return large

        return mask


masks_with(
    Card(
        "rise",
        "perturbation",
        "the mean of random masks, weighed by the score under them",
        "Petsiuk et al. 2018, arXiv 1806.07421",
        deterministic=False,
        traits=("estimate",),
    ),
    Rise,
)
