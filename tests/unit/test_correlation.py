import numpy
import pytest
import torch
from scipy import stats

from unilens._ops.correlation import pearson, ranks, spearman


@pytest.mark.parametrize("ties", [False, True])
def test_against_scipy(ties):
    random = numpy.random.default_rng(0)
    first, second = random.normal(size=(2, 6, 40))
    if ties:
        first, second = first.round(0), second.round(1)
    assert ranks(torch.tensor(first)).numpy() == pytest.approx(stats.rankdata(first, axis=1))
    for ours, theirs in ((spearman, stats.spearmanr), (pearson, stats.pearsonr)):
        expected = [theirs(a, b).statistic for a, b in zip(first, second, strict=True)]
        assert ours(torch.tensor(first), torch.tensor(second)).tolist() == pytest.approx(expected)


def test_a_constant_side_has_no_correlation():
    values = torch.tensor([[1.0, 2.0, 3.0], [7.1, 7.1, 7.1]])
    result = spearman(values, torch.tensor([3.0, 2.0, 1.0]))
    assert float(result[0]) == pytest.approx(-1)
    assert result[1].isnan()
