"""RISE: the mean of random masks, weighted by the score under them."""

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
from ..._validation.settings import Count, Fraction
from ...registry import Card
from .masking import GroupScores, MaskedScores, MaskingMethod, add_masking_method


@dataclass(frozen=True)
class Rise(MaskingMethod):
    """The mean of random masks, each weighted by the score of the input under it.

    A mask is a grid of cells kept or masked at random, enlarged linearly and shifted at random; in
    a table every feature is a cell. All inputs have the same masks. With n masks the map at a
    position is sum(score * mask) / (n * keep): its mean is the mean score, not zero. Where there
    are groups of values, each is kept or masked as one cell.

    Args:
        baseline: its values replace those of masked positions.
        score: what is explained, by name or as a function of logits and target.
        n_masks: number of masks; the noise of the map falls with its square root.
        cells: cells per side of the grid.
        keep: the probability that a cell is kept.
        centred: subtract the mean score first, so that the map is zero (up to noise) at positions
            without influence and negative where they lower the score, and has less noise.

    References:
        Petsiuk et al. 2018, arXiv 1806.07421.
    """

    grid_settings = ("cells",)

    n_masks: Count = 2000
    cells: Count = 8
    keep: Fraction = 0.5
    centred: bool = False

    def _points(self, shape: torch.Size) -> int:
        return self.n_masks

    def _map(self, masked: MaskedScores) -> Tensor:
        mask_at = self._masks(masked.shape, torch.Generator().manual_seed(masked.context.seed))
        total, times = masked.zeros(), masked.zeros()
        score_sum = torch.zeros_like(to_float64(masked.context.outputs[:, 0]))
        for indices in masked.blocks(self.n_masks):
            masks = torch.stack([mask_at(index) for index in indices.tolist()])
            scores = masked.scores(masks)
            for mask, score in zip(masks.to(total), scores, strict=True):
                total += mask * expand_like(score, total)
                times += mask
                score_sum += score
        if self.centred:
            total -= times * expand_like(score_sum / self.n_masks, total)
        return total / (self.n_masks * self.keep)

    def _group_points(self, count: int) -> int:
        return self.n_masks

    def _group_sums(self, groups: GroupScores) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(groups.masked.context.seed)
        kept = uniform((self.n_masks, groups.count), generator) < self.keep
        scores = groups.scores(self.n_masks, kept.__getitem__)
        if self.centred:
            scores = scores - scores.mean(1, keepdim=True)
        masks = kept.to(scores)
        sums = torch.stack([(score.unsqueeze(1) * masks).sum(0) for score in scores])
        return {"sums": sums / (self.n_masks * self.keep)}

    def _masks(self, shape: torch.Size, generator: torch.Generator) -> Callable[[int], Tensor]:
        """Return the function from a mask's index to the mask `(*spatial_shape)`, in [0, 1].

        It enlarges one mask at a time, since all of them together would not fit into memory.
        """
        sides = spatial_shape_of(shape)
        grid = [min(self.cells, side) for side in sides] if len(shape) > 1 else list(shape)
        kept = uniform((self.n_masks, *grid), generator) < self.keep
        if len(shape) == 1:
            return lambda index: kept[index].float()
        pixels = [math.ceil(side / cells) for side, cells in zip(sides, grid, strict=True)]
        shifts = torch.stack(
            [torch.randint(side, (self.n_masks,), generator=generator) for side in pixels], dim=1
        ).tolist()
        size = [(cells + 1) * side for cells, side in zip(grid, pixels, strict=True)]
        mode = LINEAR[len(size)]

        def mask(index: int) -> Tensor:
            large = interpolate(kept[index].float()[None, None], size, mode=mode)[0, 0]
            for dim, shift in enumerate(shifts[index]):
                large = large.narrow(dim, shift, sides[dim])
            return large

        return mask


add_masking_method(
    Card(
        "rise",
        "perturbation",
        "the mean of random masks, weighted by the score under them",
        "Petsiuk et al. 2018, arXiv 1806.07421",
        deterministic=False,
        traits=("estimate",),
    ),
    Rise,
)
