import numpy
import pytest
import torch
from scipy import ndimage, stats

from unilens.errors import UnilensError
from unilens.metrics.agreement import agreement, strength

SIDE, COUNT = 20, 40
"""Of pictures, and of the strongest tenth of their positions."""


@pytest.fixture
def maps():
    random = numpy.random.default_rng(0)
    return {name: torch.tensor(random.normal(size=(2, 3, SIDE, SIDE))) for name in "abc"}


def slowly(values, sigma=0.4):
    """Return the strength of one map by SciPy, and its strongest tenth."""
    blurred = ndimage.gaussian_filter(values.sum(0).numpy(), sigma, mode="nearest", truncate=8)
    own = numpy.abs(blurred)
    strongest = own >= numpy.sort(own.flatten())[-COUNT]
    return own, strongest


@pytest.mark.parametrize("index", [0, 1])
def test_agreement_matches_scipy(maps, index):
    found = agreement({**maps, "edges": maps["a"].flip(3)})
    known = [slowly(values[index]) for values in (*maps.values(), maps["a"].flip(3))]
    votes = numpy.mean([strongest for _, strongest in known[:3]], axis=0)
    assert found.consensus[index].numpy() == pytest.approx(votes)
    for i, (own, strongest) in enumerate(known):
        for j, (other, others) in enumerate(known):
            common = (strongest & others).sum() / COUNT
            assert float(found.overlaps[index, i, j]) == pytest.approx(common)
            rank = stats.spearmanr(own.flatten(), other.flatten()).statistic
            assert float(found.correlations[index, i, j]) == pytest.approx(rank, abs=1e-6)
    pairs, with_control = [(0, 1), (0, 2), (1, 2)], [(0, 3), (1, 3), (2, 3)]
    for table, mean, control in (
        (found.overlaps, found.overlap, found.control_overlap),
        (found.correlations, found.correlation, found.control_correlation),
    ):
        assert float(mean[index]) == pytest.approx(
            sum(float(table[index, i, j]) for i, j in pairs) / 3
        )
        assert float(control[index]) == pytest.approx(
            sum(float(table[index, i, j]) for i, j in with_control) / 3
        )


def test_agreement_of_unrelated_maps_is_that_of_chance():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 50, 1000, generator=generator)
    found = agreement({"a": first, "b": second})
    assert found.top == 0.1
    assert float(found.overlap.mean()) == pytest.approx(0.1, abs=0.01)
    assert float(found.correlation.mean()) == pytest.approx(0, abs=0.02)
    assert found.control_overlap.isnan().all()


def test_agreement_counts_undefined_maps_as_undefined(maps):
    maps["b"][0] = 0
    maps["c"][1, 0, 3, 3] = torch.nan
    found = agreement(maps)
    assert found.overlaps[0, 0].isnan().tolist() == [False, True, False]
    assert found.correlations[1, 0].isnan().tolist() == [False, False, True]
    assert torch.equal(found.overlap[0], found.overlaps[0, 0, 2])
    assert torch.equal(found.correlation[1], found.correlations[1, 0, 1])
    assert set(found.consensus.unique().tolist()) == {0, 0.5, 1}
    alone = agreement({name: torch.zeros(1, 3, 8, 8) for name in "ab"})
    assert alone.consensus.isnan().all()
    assert alone.overlap.isnan().all()


def test_strength_of_a_row_is_not_blurred():
    row = torch.tensor([[1.0, -3.0, 0.0]])
    assert strength(row, 0.5).tolist() == [[1, 3, 0]]
    spike = torch.zeros(1, 2, 50)
    spike[0, :, 25] = -1
    assert strength(spike)[0, 24] == strength(spike)[0, 26] > 0
    assert strength(spike, 0)[0, 24] == 0
    assert float(strength(spike).sum()) == pytest.approx(2)
    spike[0, :, 26] = 1
    assert float(strength(spike).max()) < 1 < float(strength(spike, 0).max())


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"b": None, "c": None}, {}, "two methods or more beside the controls, got 1"),
        ({"a": "map"}, {}, "the map of a as an Attribution or a tensor"),
        ({"a": torch.zeros(5)}, {}, r"got \(5,\)"),
        (
            {"a": torch.zeros(2, 3, 4, 4)},
            {},
            r"maps of one shape, got \[\(2, 3, 4",
        ),
        ({}, {"top": 1}, "expected top below 1"),
        ({}, {"top": 0}, "expected top to be"),
        ({}, {"smoothing": 0.6}, "expected smoothing to be"),
        ({}, {"controls": ("b", "c")}, "beside the controls, got 1"),
    ],
)
def test_agreement_says_what_it_expects(maps, change, options, said):
    given = {name: value for name, value in {**maps, **change}.items() if value is not None}
    with pytest.raises(UnilensError, match=said):
        agreement(given, **options)
