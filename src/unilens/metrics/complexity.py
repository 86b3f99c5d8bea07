"""Complexity: how much a reader has to take in to read a map."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from .._validation.settings import Fraction
from ..errors import NotApplicableError
from .base import Metric
from .context import EvalContext
from .maps import Reduction
from .measurement import Measurement
from .registry import metrics


@dataclass(frozen=True)
class MagnitudeMetric(Metric):
    """The base of metrics of the magnitudes |A_i| of a map's positions.

    They ask nothing of the model: a map can be easy to read and wrong.

    Args:
        reduction: "sum", the magnitude of the sum over channels, or "abs", the sum of magnitudes.
    """

    family = "complexity"
    undefined_where = "the map is zero at every position"

    reduction: Reduction = "sum"

    def _measure(self, context: EvalContext) -> Measurement:
        magnitudes = context.reduce_channels(self.reduction).abs()
        return self._of_maps([self._of_map(one) for one in magnitudes], context)

    def _of_maps(self, values: list[Tensor], context: EvalContext) -> Measurement:
        """Return what was measured, from what `_of_map` found for each map."""
        return Measurement(torch.stack(values))

    @abstractmethod
    def _of_map(self, magnitudes: Tensor) -> Tensor:
        """Return the value of one map `(*spatial)`; NaN where all of it is 0."""


class Sparseness(MagnitudeMetric):
    """The Gini index of the magnitudes: 0 where all are equal, nearly 1 where one is not 0.

    sum_i (2i - n - 1) a_i / (n sum_i a_i), a the n magnitudes in ascending order.

    References:
        Chalasani et al. 2020, arXiv 1810.06583.
    """

    summary = "Gini index of the map's magnitudes"
    reference = "Chalasani et al. 2020, arXiv 1810.06583"
    bounds = (0, 1)

    def _of_map(self, magnitudes: Tensor) -> Tensor:
        count = magnitudes.numel()
        weights = 2 * torch.arange(1, count + 1).to(magnitudes) - count - 1
        ascending = magnitudes.flatten().sort().values
        return (weights * ascending).sum() / (count * ascending.sum())


class Complexity(MagnitudeMetric):
    """The entropy of the magnitudes as shares of their sum, in nats.

    - sum_i p_i ln p_i, p_i = |A_i| / sum_j |A_j|; from 0, one position alone, to ln n for n equal
    ones: compare inputs of one size.

    References:
        Bhatt et al. 2020, arXiv 2005.00631.
    """

    summary = "entropy of the map's magnitudes"
    reference = "Bhatt et al. 2020, arXiv 2005.00631"
    higher_is_better = False
    bounds = (0, None)

    def _of_map(self, magnitudes: Tensor) -> Tensor:
        return torch.special.entr(magnitudes / magnitudes.sum()).sum()


@dataclass(frozen=True)
class MstCompactness(MagnitudeMetric):
    """MST-C: how small the hull of the strongest pixels is, and how close together they lie.

    100 d * 1 / sqrt(area of the convex hull) * |V| / (length of the minimum spanning tree), with V
    the strongest pixels and d the diagonal of the image. The breakdown has both factors, `spread`
    and `cohesion`. Pixels of magnitude 0 are never among the strongest. NaN where the hull has no
    area. The tree is that of all distances; the authors take that of the 20 nearest neighbours,
    which leaves out the gaps between clusters that no neighbour spans.

    Args:
        reduction: see `MagnitudeMetric`.
        fraction: of the pixels that are the strongest; those that tie with the last are among them.

    References:
        Mesgari et al. 2026, arXiv 2603.29491; constants as in their implementation for Quantus.
    """

    summary = "compactness of the strongest pixels, by hull and minimum spanning tree"
    reference = "Mesgari et al. 2026, arXiv 2603.29491"
    traits = ("pictures",)
    bounds = (0, None)
    undefined_where = "the strongest pixels are fewer than three, or lie on a line"

    fraction: Fraction = 0.2

    def _check(self, context: EvalContext) -> None:
        super()._check(context)
        if len(context.spatial_shape) != 2:
            raise NotApplicableError(
                f"expected pictures (B, C, H, W) for MstCompactness, got inputs "
                f"{tuple(context.inputs.shape)}; use sparseness or complexity"
            )

    def _of_maps(self, values: list[Tensor], context: EvalContext) -> Measurement:
        spread, cohesion = torch.stack(values).unbind(1)
        compactness = 100 * math.hypot(*context.spatial_shape) * spread * cohesion
        return Measurement(compactness, {"spread": spread, "cohesion": cohesion})

    def _of_map(self, magnitudes: Tensor) -> Tensor:
        """Return spread and cohesion `(2,)` of one map `(H, W)`; NaN where it has no hull."""
        from scipy.spatial import ConvexHull, QhullError  # here: it is slow to load

        least = magnitudes.flatten().quantile(1 - self.fraction)
        points = ((magnitudes >= least) & (magnitudes > 0)).nonzero().cpu().numpy()
        try:
            area = ConvexHull(points).volume
        except (QhullError, ValueError):  # all on a line, or none
            return magnitudes.new_full((2,), torch.nan)
        return magnitudes.new_tensor([1 / math.sqrt(area), len(points) / _tree_length(points)])


def _tree_length(points: numpy.ndarray) -> float:
    """Return the length of the minimum spanning tree of points `(n, 2)` that are not on a line.

    Its edges are among those of a Delaunay triangulation.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial import Delaunay

    triangles = numpy.sort(Delaunay(points).simplices)
    edges = numpy.unique(triangles[:, [[0, 1], [0, 2], [1, 2]]].reshape(-1, 2), axis=0)
    lengths = numpy.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = coo_array((lengths, tuple(edges.T)), shape=(len(points), len(points)))
    return float(minimum_spanning_tree(graph.tocsr()).sum())


metrics.add_metric("sparseness", Sparseness)
metrics.add_metric("complexity", Complexity)
metrics.add_metric("mst_compactness", MstCompactness)
