"""Complexity of maps: against Quantus, scipy and slow replicas, and on maps of known order."""

import math
import warnings
from functools import partial

import numpy
import pytest
import torch
from scipy.spatial.distance import cdist

from unilens import UnilensError, evaluate
from unilens.errors import NotApplicableError
from unilens.metrics import metrics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus")

NAMES = ("sparseness", "complexity", "mst_compactness")


def gini_of_pairs(values):
    """The mean absolute difference of all pairs, over twice the mean."""
    differences = numpy.abs(values[:, None] - values[None, :])
    return differences.mean() / (2 * values.mean())


def entropy_of_shares(values):
    total = sum(values)
    return -sum(value / total * math.log(value / total) for value in values if value)


def polygon_area(points):
    """The area of the hull, from the support in every direction between two points."""
    centre = points.mean(0)
    around = [
        (first, second)
        for first in points
        for second in points
        if (first != second).any() and _all_left(points, first, second)
    ]
    return sum(_cross(first - centre, second - centre) / 2 for first, second in around)


def _cross(first, second):
    return first[0] * second[1] - first[1] * second[0]


def _all_left(points, first, second):
    """Whether a side of the hull, not a part of one, goes from the first to the second point."""
    sides = [_cross(second - first, point - first) for point in points]
    along = [
        (point - first) @ (second - first) / ((second - first) @ (second - first))
        for point, side in zip(points, sides, strict=True)
        if side == 0
    ]
    return min(sides) >= 0 and min(along) >= 0 and max(along) <= 1


def tree_length(points):
    """The length of the minimum spanning tree, by Prim's algorithm on all distances."""
    distances = cdist(points, points)
    inside, length = [0], 0.0
    while len(inside) < len(points):
        outside = [number for number in range(len(points)) if number not in inside]
        block = distances[numpy.ix_(inside, outside)]
        length += block.min()
        inside.append(outside[block.min(0).argmin()])
    return length


def compactness_by_hand(values, fraction=0.2):
    least = numpy.percentile(values, 100 * (1 - fraction))
    points = numpy.argwhere((values >= least) & (values > 0)).astype(float)
    spread = 1 / math.sqrt(polygon_area(points))
    return 100 * math.hypot(*values.shape) * spread * len(points) / tree_length(points)


@pytest.mark.parametrize("reduction", ["sum", "abs"])
@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("sparseness", lambda values: gini_of_pairs(values.flatten())),
        ("complexity", lambda values: entropy_of_shares(values.flatten())),
        ("mst_compactness", compactness_by_hand),
    ],
)
def test_complexity_equals_slow_replica(name, by_hand, reduction, small_net, images):
    maps = torch.randn(images.shape, generator=torch.Generator().manual_seed(7)).double()
    maps[1, :, 1:12] = 0  # more than the fraction that is not among the strongest
    found = evaluate(small_net, images, maps, name, reduction=reduction)
    reduced = maps.sum(1).abs() if reduction == "sum" else maps.abs().sum(1)
    expected = [by_hand(values.numpy()) for values in reduced]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "theirs"), [("sparseness", quantus.Sparseness), ("complexity", quantus.Complexity)]
)
def test_complexity_equals_quantus(name, theirs, small_net, images):
    """Their sparseness adds 1e-7 to each magnitude, their entropy 1e-12 to each share."""
    maps = 100 * torch.randn(8, 13, 11, generator=torch.Generator().manual_seed(7)).double()
    metric = theirs(normalise=False, abs=True, disable_warnings=True)
    expected = metric(
        model=small_net, x_batch=images.numpy(), y_batch=numpy.zeros(8, int), a_batch=maps.numpy()
    )
    assert evaluate(small_net, images, maps, name).tolist() == pytest.approx(expected, abs=1e-6)


def test_mst_compactness_has_both_factors(small_net, images):
    maps = torch.zeros(8, 13, 11).double()
    maps[:, 2:5, 3:7] = 1
    found = metrics["mst_compactness"]()(small_net, images, maps)
    assert found.breakdown["spread"].tolist() == pytest.approx([1 / math.sqrt(2 * 3)] * 8)
    assert found.breakdown["cohesion"].tolist() == pytest.approx([12 / 11] * 8)
    maps[:, 11, 9] = 1  # a second cluster: the tree has its gap
    found = metrics["mst_compactness"]()(small_net, images, maps)
    assert found.breakdown["cohesion"].tolist() == pytest.approx([13 / (11 + math.hypot(7, 3))] * 8)


@pytest.mark.parametrize("name", NAMES)
def test_complexity_ranks_compact_clusters_noise(name, small_net, images):
    rows, columns = torch.meshgrid(torch.arange(13), torch.arange(11), indexing="ij")

    def blob(row, column):
        return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4.0).double()

    noise = torch.rand(13, 11, generator=torch.Generator().manual_seed(1)).double()
    ordered = [blob(6, 5), blob(3, 2) + blob(9, 8), 1 + noise]
    values = torch.stack(
        [evaluate(small_net, images, one.expand(8, 13, 11), name) for one in ordered]
    )
    higher = metrics[name].card.higher_is_better
    assert ((values.diff(dim=0) < 0) == higher).all()


def test_complexity_of_one_position_and_of_equal_ones(small_net, images):
    single, equal = torch.zeros(8, 13, 11), torch.full((8, 13, 11), -2.0)
    single[:, 4, 5] = -3
    known = partial(evaluate, small_net, images)
    assert known(single, "sparseness").tolist() == pytest.approx([142 / 143] * 8)
    assert known(equal, "sparseness").tolist() == pytest.approx([0] * 8, abs=1e-12)
    assert known(single, "complexity").tolist() == pytest.approx([0] * 8, abs=1e-12)
    assert known(equal, "complexity").tolist() == pytest.approx([math.log(143)] * 8)


@pytest.mark.parametrize("name", NAMES)
def test_complexity_is_nan_for_maps_without_magnitude(name, small_net, images):
    maps = torch.zeros_like(images)
    maps[1, 0], maps[1, 1] = 1, -1  # the channels cancel
    maps[2, :, 4] = 1  # a line has no hull
    found = metrics[name]()(small_net, images, maps)
    line = name == "mst_compactness"
    assert found.values.isnan().tolist() == [True, True, line] + [True] * 5
    assert found.reasons[0] == "the map is the same everywhere"
    assert found.reasons[1] == metrics[name]().undefined_where


def test_mst_compactness_refuses_tables_and_signals(linear):
    for inputs in (torch.rand(2, 6).double(), torch.rand(2, 2, 3).double()):
        with pytest.raises(NotApplicableError, match="expected pictures") as caught:
            evaluate(linear, inputs, inputs, "mst_compactness")
        assert "\n" not in str(caught.value)
    assert evaluate(linear, inputs, inputs, "complexity").isfinite().all()
    with pytest.raises(UnilensError, match="expected fraction"):
        metrics["mst_compactness"](fraction=1)
