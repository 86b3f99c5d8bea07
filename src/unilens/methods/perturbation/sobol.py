"""Sobol indices: the share of the score's variance that involves each cell of positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ..._ops.precision import to_float64
from ..._ops.spatial import spatial_shape_of
from ..._validation.settings import Count
from ...errors import NotApplicableError, require
from ...registry import Card
from .masking import GroupScores, MaskedScores, MaskingMethod, add_masking_method


@dataclass(frozen=True)
class Sobol(MaskingMethod):
    """Total Sobol indices: the share of the score's variance that involves a cell of positions.

    Each cell is mixed with the baseline in a random share from 0 to 1. The index of a cell is the
    share of the variance that would be left if all other cells were fixed: its own effect and that
    of all its interactions, unsigned. Jansen's estimator, on a scrambled Sobol sequence. All inputs
    have the same design; in a table every feature is a cell. Where there are groups of values, each
    is a cell.

    Args:
        baseline: its values replace those of masked cells.
        score: what is explained, by name or as a function of logits and target.
        cells: cells per side of the input; None for 8, or for 4 in three spatial dimensions.
        designs: rows of the design, a power of two; each takes as many passes as there are cells,
            and two more.

    References:
        Fel et al. 2021, arXiv 2111.04138; Jansen 1999, doi 10.1016/S0010-4655(98)00154-4.
    """

    grid_settings = ("cells",)

    cells: Count | None = None
    designs: Count = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.designs & (self.designs - 1) == 0,
            f"expected designs to be a power of two, for which a Sobol sequence is balanced, got "
            f"{self.designs}",
        )

    def _grid(self, shape: torch.Size) -> list[int]:
        cells = self.cells or (8 if len(shape) < 4 else 4)
        return [min(cells, side) for side in shape[1:]] if len(shape) > 1 else list(shape)

    def _points(self, shape: torch.Size) -> int:
        return self._group_points(math.prod(self._grid(shape)))

    def _group_points(self, count: int) -> int:
        return self.designs * (count + 2)

    def _map(self, masked: MaskedScores) -> Tensor:
        grid, spatial_shape = self._grid(masked.shape), spatial_shape_of(masked.shape)
        rows = self._rows(math.prod(grid), masked.context.seed)
        scores = [
            masked.scores(_enlarge(rows(index).view(-1, *grid), spatial_shape))
            for index in masked.blocks(self._points(masked.shape))
        ]
        by_input = to_float64(torch.cat(scores)).T.contiguous()  # sums independent of the batch
        return _enlarge(self._indices(by_input).view(-1, *grid), spatial_shape)

    def _group_sums(self, groups: GroupScores) -> dict[str, Tensor]:
        rows = self._rows(groups.count, groups.masked.context.seed)
        return {"sums": self._indices(groups.scores(self._group_points(groups.count), rows))}

    def _indices(self, scores: Tensor) -> Tensor:
        """Return the total indices `(B, d)` from the scores of all points `(B, (2 + d) * N)`."""
        return torch.stack([_jansen(row.view(-1, self.designs)) for row in scores])

    def _rows(self, count: int, seed: int) -> Callable[[Tensor], Tensor]:
        """Return the function from the points' indices `(n,)` to the shares kept `(n, count)`.

        The points are the rows of the matrices A, B, and, for each column, A with it taken from B.
        """
        most = SobolEngine.MAXDIM // 2
        if count > most:
            raise NotApplicableError(
                f"expected at most {most} cells, the limit of Sobol sequences, got {count}; use "
                "fewer cells or groups, or method='rise'"
            )
        engine = SobolEngine(2 * count, scramble=True, seed=seed)
        first = engine.quasi.to(torch.float32) / 2**engine.MAXBIT
        points = engine.draw(self.designs, dtype=torch.float64)
        points[0] = first  # the engine computes it in torch's default dtype
        a, b = points.split(count, dim=1)

        def rows(index: Tensor) -> Tensor:
            matrix, row = (index // self.designs).unsqueeze(1), index % self.designs
            from_b = (matrix == 1) | (matrix - 2 == torch.arange(count))
            return torch.where(from_b, b[row], a[row])

        return rows


def _jansen(scores: Tensor) -> Tensor:
    """Return the total indices `(d,)` from scores `(2 + d, N)` at A, B and A with columns of B.

    The indices are zero where the score does not vary.
    """
    variance = scores[:2].var(correction=0)
    involved = (scores[2:] - scores[0]).square().mean(1) / 2
    return involved / variance if variance > 0 else torch.zeros_like(involved)


def _enlarge(cells: Tensor, spatial_shape: torch.Size) -> Tensor:
    """Return the values of cells `(n, *grid)` at their positions `(n, *spatial_shape)`."""
    for dim, side in enumerate(spatial_shape, start=1):
        cell = torch.arange(side, device=cells.device) * cells.shape[dim] // side
        cells = cells.index_select(dim, cell)
    return cells


add_masking_method(
    Card(
        "sobol",
        "perturbation",
        "total Sobol indices: each cell's share of the score's variance",
        "Fel et al. 2021, arXiv 2111.04138",
        deterministic=False,
        traits=("estimate", "passes_by_size", "positions"),
    ),
    Sobol,
)
