"""Where the maps of several methods agree, and how far they agree with maps that know no model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from .._ops.correlation import pearson, ranks
from .._validation.arrays import to_tensor
from .._validation.settings import check_fraction, check_number
from ..attribution import Attribution
from ..baselines.blur import blurred
from ..errors import UnilensError, require
from .maps import constant, reduce_channels
from .similarities import top_count, top_shares

CONTROLS = ("random", "edges")
"""Methods that know nothing of the model: they are compared with the others, and do not vote."""


@dataclass(frozen=True)
class Agreement:
    """How far the maps of M methods agree, for each of B inputs.

    Attributes:
        names: of the methods, controls included, in the order of the tables.
        controls: which of them are controls.
        consensus: `(B, *spatial_shape)`, the share of methods that count a position among their
            strongest, in [0, 1]; controls and undefined maps have no vote, and without any vote it
            is NaN.
        overlaps: `(B, M, M)`, the share of the strongest positions that two maps have in common, in
            [0, 1]; NaN where a map is constant or not finite.
        correlations: `(B, M, M)`, the rank correlations of the maps' strength, in [-1, 1]; NaN as
            above.
        top: the share of positions that count as strongest, which is the overlap by chance.
    """

    names: tuple[str, ...]
    controls: frozenset[str]
    consensus: Tensor
    overlaps: Tensor
    correlations: Tensor
    top: float

    @property
    def overlap(self) -> Tensor:
        """The mean overlap between two methods `(B,)`, undefined pairs left out."""
        return self._mean(self.overlaps, controls=False)

    @property
    def control_overlap(self) -> Tensor:
        """The mean overlap between a method and a control `(B,)`; NaN without controls."""
        return self._mean(self.overlaps, controls=True)

    @property
    def correlation(self) -> Tensor:
        """The mean rank correlation between two methods `(B,)`, undefined pairs left out."""
        return self._mean(self.correlations, controls=False)

    @property
    def control_correlation(self) -> Tensor:
        """The mean rank correlation between a method and a control `(B,)`."""
        return self._mean(self.correlations, controls=True)

    def _mean(self, table: Tensor, *, controls: bool) -> Tensor:
        pairs = [
            table[:, first, second]
            for first, second in combinations(range(len(self.names)), 2)
            if sum(self.names[number] in self.controls for number in (first, second)) == controls
        ]
        return torch.stack(pairs or [table.new_full((len(table),), torch.nan)]).nanmean(0)


def agreement(
    maps: Mapping[str, object],
    *,
    controls: Collection[str] = CONTROLS,
    top: float = 0.1,
    smoothing: float = 0.02,
) -> Agreement:
    """Compare the maps of several methods of the same inputs.

    A map's strength is the absolute value of its sum over channels, which is blurred a little first
    for inputs with neighbours: methods that mean the same object mark different pixels of it, and
    noise of both signs cancels. Positions that tie for the last place among the strongest each
    count with their share.

    Args:
        maps: attributions or tensors `(B, *S)` by the name of the method.
        controls: names of those that know nothing of the model.
        top: the share of positions that count as strongest, above 0 and below 1.
        smoothing: standard deviation of the blur, as a share of the shortest side, from 0 to 0.5.

    Raises:
        UnilensError: fewer than two methods that are no controls, or maps of different shapes.

    Example:
        >>> row = torch.tensor([[3.0, 2.0, 0.0, -1.0]])
        >>> found = agreement({"a": row, "b": -row, "c": row.flip(1)}, top=0.25)
        >>> found.consensus
        tensor([[0.6667, 0.0000, 0.0000, 0.3333]], dtype=torch.float64)
        >>> found.overlaps[0, 0]
        tensor([1., 1., 0.], dtype=torch.float64)
    """
    values = _check(maps, controls)
    check_fraction("top", top)
    check_number("smoothing", smoothing, least=0, most=0.5)
    strengths = [strength(tensor, smoothing) for tensor in values.values()]
    flat = torch.stack([rows.flatten(1) for rows in strengths], 1)
    undefined = torch.stack([constant(rows) for rows in strengths], 1) | ~flat.isfinite().all(2)
    k = top_count(top, flat.shape[2])
    shares = torch.stack([top_shares(rows.nan_to_num(), k) for rows in flat.unbind(1)], 1)
    unknown = undefined[:, :, None] | undefined[:, None, :]
    overlaps = torch.stack(
        [torch.minimum(shares, own[:, None]).sum(2) / k for own in shares.unbind(1)], 1
    )
    ranked = ranks(flat)
    correlations = torch.stack([pearson(ranked, own[:, None]) for own in ranked.unbind(1)], 1)
    votes = ~undefined & torch.tensor([name not in controls for name in values]).to(undefined)
    consensus = (shares * votes[:, :, None]).sum(1) / votes.sum(1, keepdim=True)
    return Agreement(
        tuple(values),
        frozenset(controls) & values.keys(),
        consensus.view_as(strengths[0]),
        overlaps.masked_fill(unknown, torch.nan),
        correlations.masked_fill(unknown, torch.nan),
        k / flat.shape[2],
    )


def strength(values: Tensor, smoothing: float = 0.02) -> Tensor:
    """Return the strength of maps `(B, *spatial_shape)` in float64; see `agreement`.

    Args:
        values: maps `(B, *S)`; those of tables `(B, F)` are not blurred.
        smoothing: see `agreement`.
    """
    summed = reduce_channels(values, "sum")
    if values.ndim > 2:
        sigma = smoothing * min(values.shape[2:])
        summed = blurred(summed.unsqueeze(1), sigma).squeeze(1)
    return summed.abs()


def _check(maps: Mapping[str, object], controls: Collection[str]) -> dict[str, Tensor]:
    """Return the maps as tensors of one shape."""
    values: dict[str, Tensor] = {}
    for name, given in maps.items():
        plain = given.values if isinstance(given, Attribution) else given
        tensor = to_tensor("maps", plain)
        if not isinstance(tensor, Tensor) or tensor.ndim < 2:
            raise UnilensError(
                f"expected the map of {name} as an Attribution or a tensor (B, *S), got "
                f"{tuple(tensor.shape) if isinstance(tensor, Tensor) else type(given).__name__}"
            )
        values[name] = tensor.detach()
    methods = [name for name in values if name not in controls]
    require(
        len(methods) >= 2,
        f"expected the maps of two methods or more beside the controls, got {len(methods)}",
    )
    shapes = {tuple(tensor.shape) for tensor in values.values()}
    require(len(shapes) == 1, f"expected maps of one shape, got {sorted(shapes)}")
    return values
