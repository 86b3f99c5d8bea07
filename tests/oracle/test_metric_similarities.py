"""SSIM and LENS-recall against slow replicas."""

import math

import numpy
import pytest
import torch

from unilens.errors import NotApplicableError, UnilensError
from unilens.metrics import LensRecall, StructuralSimilarity, TopK, similarities


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4, 3, 19, 23, generator=generator).double()
    return first, first + 0.5 * torch.randn(first.shape, generator=generator).double()


def scaled(values):
    return values / numpy.abs(values).max()


def slow_ssim(first, second, data_range, sigma):
    """The mean over all windows of the formula of Wang et al. 2004, of maps (H, W)."""
    reach, values = int(3.5 * sigma + 0.5), []
    along = numpy.exp(-0.5 * (numpy.arange(-reach, reach + 1) / sigma) ** 2)
    weights = numpy.outer(along, along) / along.sum() ** 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    for row in range(first.shape[0] - 2 * reach):
        for column in range(first.shape[1] - 2 * reach):
            window = slice(row, row + 2 * reach + 1), slice(column, column + 2 * reach + 1)
            a, b = first[window], second[window]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
            values.append(above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return numpy.mean(values)


@pytest.mark.parametrize("reduction", ["sum", "abs"])
@pytest.mark.parametrize("sigma", [1.5, 0.8])
def test_ssim_equals_slow_replica(reduction, sigma, maps):
    found = similarities["ssim"](reduction=reduction, sigma=sigma)(*maps)
    for row in range(4):
        one, two = (values[row].numpy() for values in maps)
        if reduction == "abs":
            one, two = numpy.abs(one), numpy.abs(two)
        data_range = 2 if reduction == "sum" else 1
        expected = slow_ssim(scaled(one.sum(0)), scaled(two.sum(0)), data_range, sigma)
        assert float(found[row]) == pytest.approx(expected, abs=1e-12)


def test_ssim_per_channel_is_mean_over_channels(maps):
    found = StructuralSimilarity(per="channel")(*maps)
    for row in range(4):
        pairs = zip(*(scaled(values[row].numpy()) for values in maps), strict=True)
        expected = numpy.mean([slow_ssim(first, second, 2, 1.5) for first, second in pairs])
        assert float(found[row]) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_signal_equals_slow_replica():
    """A signal is a picture that is the same in every row."""
    first, second = torch.randn(2, 1, 1, 15, generator=torch.Generator().manual_seed(0)).double()
    wide = StructuralSimilarity()(
        first[:, :, None].expand(1, 1, 12, 15), second[:, :, None].expand(1, 1, 12, 15)
    )
    assert torch.allclose(StructuralSimilarity()(first, second), wide)


def test_ssim_ignores_scale_and_has_known_bounds(maps):
    first, second = maps
    ssim = StructuralSimilarity()
    assert torch.allclose(ssim(first, first), torch.ones(4).double())
    assert torch.allclose(ssim(first, 7 * second), ssim(first, second))
    random = torch.randn(first.shape, generator=torch.Generator().manual_seed(9)).double()
    assert bool((ssim(first, second) > ssim(first, random)).all())
    away = first - first.mean((2, 3), keepdim=True)
    assert bool((ssim(away, -away) < ssim(away, second)).all())


def replica(first, second, k, window):
    """The share of the second's top k within a window about one of the first's."""
    height, width = first.shape

    def top(values):
        order = sorted(range(height * width), key=lambda i: -float(values.flatten()[i]))[:k]
        return [(i // width, i % width) for i in order]

    near = {
        (row + down, column + right)
        for row, column in top(first)
        for down in range(-(window // 2), window // 2 + 1)
        for right in range(-(window // 2), window // 2 + 1)
    }
    return sum(place in near for place in top(second)) / k


@pytest.mark.parametrize("window", [1, 3, 5])
def test_lens_recall_equals_slow_replica(window, maps):
    first, second = maps
    found = LensRecall(k=25, window=window)(first, second)
    for row in range(4):
        expected = replica(first[row].sum(0), second[row].sum(0), 25, window)
        assert float(found[row]) == pytest.approx(expected)
        assert 0 < expected < 1
    assert not torch.equal(found, LensRecall(k=25, window=window)(second, first)) or window == 1


def test_lens_recall_with_window_of_one_equals_top_k(maps):
    tied = [values.round() for values in maps]
    for per in ("pixel", "channel"):
        found = LensRecall(k=40, window=1, per=per)(*tied)
        assert torch.allclose(found, TopK(k=40, per=per)(*tied))


def test_lens_recall_tolerates_shift_by_one_position():
    first = torch.zeros(1, 1, 8, 9).double()
    first[0, 0, 3, 3] = first[0, 0, 6, 1] = 1
    moved = first.roll((1, 1), (2, 3))
    assert LensRecall(k=2, window=3)(first, moved).tolist() == [1.0]
    assert LensRecall(k=2, window=3)(first, first.roll(2, 3)).tolist() == [0.0]
    assert TopK(k=2)(first, moved).tolist() == [0.0]
    signal = first[:, :, 3]
    assert LensRecall(k=1, window=3)(signal, signal.roll(1, 2)).tolist() == [1.0]
    channels = torch.cat([first, 0.5 * moved], 1)
    other = torch.cat([first.roll(3, 3), moved], 1)
    assert LensRecall(k=2, window=3, per="channel")(channels, other).tolist() == [0.0]


@pytest.mark.parametrize("name", ["ssim", "lens_recall"])
def test_similarity_on_undefined_tables_and_batches(name, maps):
    alike = similarities[name](**({"k": 20} if name == "lens_recall" else {}))
    first, second = (values.clone() for values in maps)
    first[1], second[2] = 0.0, 3.0
    found = alike(first, second)
    assert found.isnan().tolist() == [False, True, True, False]
    assert found.dtype is torch.float64
    for row in (0, 3):
        assert torch.equal(alike(first[row : row + 1], second[row : row + 1]), found[row : row + 1])
    with pytest.raises(NotApplicableError, match="a table has no neighbours"):
        alike(torch.rand(2, 30), torch.rand(2, 30))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lens_recall", {"window": 4}, "expected an odd window, got 4"),
        ("lens_recall", {"window": 0}, "expected window"),
        ("lens_recall", {"k": 2.5}, "expected k"),
        ("ssim", {"sigma": 0}, "expected sigma"),
        ("ssim", {"sigma": math.nan}, "expected sigma"),
        ("ssim", {"per": "row"}, "expected per"),
    ],
)
def test_similarity_refuses_wrong_settings(name, settings, message):
    with pytest.raises(UnilensError, match=message):
        similarities[name](**settings)


def test_ssim_refuses_maps_smaller_than_window():
    with pytest.raises(UnilensError, match=r"11 positions a side for sigma=1\.5.*lower sigma"):
        StructuralSimilarity()(torch.rand(1, 1, 8, 20), torch.rand(1, 1, 8, 20))
