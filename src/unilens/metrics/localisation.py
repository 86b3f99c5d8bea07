"""Localisation: does the map lie where the object is? For inputs whose object is known."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from .._ops.precision import to_float64
from .._validation.settings import NonNegative
from ..errors import NotApplicableError
from ..metrics.maps import Reduction
from .base import Metric
from .context import EvalContext
from .maps import constant
from .measurement import Measurement
from .registry import metrics
from .similarities import top_shares


@dataclass(frozen=True)
class Localisation(Metric):
    """The base of metrics of localisation.

    NaN where the mask is empty or full, and where the map is constant. `details` has `chance`, what
    a map in random order gets on average: the share of the positions that are inside.

    Args:
        reduction: "sum", values summed over channels, or "abs", sums of absolute values.
    """

    family = "localisation"
    bounds = (0, 1)
    needs = ("mask",)
    undefined_where = "the mask is empty or full"

    reduction: Reduction = "sum"

    def _measure(self, context: EvalContext) -> Measurement:
        assert context.mask is not None
        relevance, mask = context.reduce_channels(self.reduction), self._inside(context.mask)
        inside = mask.flatten(1).sum(1)
        chance = to_float64(inside) / context.spatial_shape.numel()
        undefined = (chance == 0) | (chance == 1) | constant(relevance)
        rows = zip(relevance.flatten(1), mask.flatten(1), strict=True)
        nothing = relevance.new_full((), torch.nan)
        values = [
            nothing if skip else self._value_of_map(values, within)
            for skip, (values, within) in zip(undefined.tolist(), rows, strict=True)
        ]
        return Measurement(torch.stack(values), details={"chance": chance})

    def _inside(self, mask: Tensor) -> Tensor:
        """Return where the map should lie `(B, *spatial)`."""
        return mask

    @abstractmethod
    def _value_of_map(self, relevance: Tensor, inside: Tensor) -> Tensor:
        """Return the value `()` of one map `(n,)` that is not constant."""


@dataclass(frozen=True)
class PointingGame(Localisation):
    """Return whether the strongest position lies inside the mask: 1 or 0.

    1[ argmax_i A_i in M ]. Where several positions tie for the strongest, the value is the share of
    them that lies inside: Quantus counts a hit if any does, which a map of two values profits from.

    Args:
        reduction: see `Localisation`.
        tolerance: how far outside, in pixels (samples of a signal), is near enough. The mask grows
            by it in every direction; the paper takes 15 for photographs.

    References:
        Zhang et al. 2016, arXiv 1608.00507.
    """

    summary = "whether the strongest position lies inside the mask"
    reference = "Zhang et al. 2016, arXiv 1608.00507"

    tolerance: NonNegative = 0.0

    def _check(self, context: EvalContext) -> None:
        super()._check(context)
        if self.tolerance and context.inputs.ndim < 3:
            raise NotApplicableError(
                f"expected images or signals for tolerance={self.tolerance:g}, got inputs "
                f"{tuple(context.inputs.shape)}; features have no distance, use tolerance=0"
            )

    def _inside(self, mask: Tensor) -> Tensor:
        from skimage.morphology import isotropic_dilation  # here: it is slow to load

        near = [
            isotropic_dilation(row, self.tolerance) if row.any() else row
            for row in mask.cpu().numpy()
        ]
        return torch.from_numpy(numpy.stack(near)).to(mask.device)

    def _value_of_map(self, relevance: Tensor, inside: Tensor) -> Tensor:
        strongest = relevance == relevance.max()
        return to_float64(strongest & inside).sum() / strongest.sum()


@dataclass(frozen=True)
class RelevanceMass(Localisation):
    """Return the share of the positive relevance that lies inside the mask.

    sum_{i in M} max(A_i, 0) / sum_i max(A_i, 0). NaN where nothing is positive. Negative values
    count nothing: in a sum with them the share could be any number.

    Args:
        reduction: see `Localisation`.

    References:
        Arras et al. 2022, arXiv 2003.07258 (relevance mass accuracy).
    """

    summary = "share of the positive relevance inside the mask"
    reference = "Arras et al. 2022, arXiv 2003.07258"
    undefined_where = "the mask is empty or full, or nothing in the map is positive"

    def _value_of_map(self, relevance: Tensor, inside: Tensor) -> Tensor:
        positive = relevance.clamp(min=0)
        return (positive * inside).sum() / positive.sum()


@dataclass(frozen=True)
class RelevanceRank(Localisation):
    """Return the share of the K strongest positions that lies inside the mask, K its size.

    |top_K(A) and M| / K, K = |M|. Where positions tie for the last of the K, each counts with its
    share: the order in memory decides nothing.

    Args:
        reduction: see `Localisation`.

    References:
        Arras et al. 2022, arXiv 2003.07258 (relevance rank accuracy).
    """

    summary = "share of the strongest positions inside the mask"
    reference = "Arras et al. 2022, arXiv 2003.07258"

    def _value_of_map(self, relevance: Tensor, inside: Tensor) -> Tensor:
        size = int(inside.sum())
        return (top_shares(relevance.unsqueeze(0), size)[0] * inside).sum() / size


metrics.add_metric("pointing_game", PointingGame)
metrics.add_metric("relevance_mass", RelevanceMass)
metrics.add_metric("relevance_rank", RelevanceRank)
