"""Models in eval mode whose outputs for a point depend on what shares the pass."""

import pytest
import torch
from torch import nn

from unilens import Evaluator

from . import by_hand
from .by_hand import BLACK_BOX, SETTINGS, SmallNet, assert_like_plain


class Net(SmallNet):
    """A net in float64; `mix` depends on the other rows of a pass."""

    def __init__(self):
        super().__init__()
        self.double()


class BatchStatistics(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False).double().eval()


class InstanceNormOverTheBatch(Net):
    """Folds the batch into the channels, as kernels made for each input do, with a shared scale."""

    def __init__(self):
        super().__init__()
        self.norm = FoldedNorm().eval()


class FoldedNorm(nn.Module):
    def forward(self, hidden):
        folded = hidden.reshape(1, -1, *hidden.shape[2:])
        return (folded / folded.std()).view_as(hidden)


class DividedByTheLargest(Net):
    def forward(self, inputs):
        return super().forward(inputs / inputs.max().clamp_min(1e-6))


class CentredOverTheBatch(Net):
    def mix(self, hidden):
        return hidden - 0.5 * hidden.mean(0, keepdim=True)


class SoftmaxOverTheBatch(Net):
    def mix(self, hidden):
        return hidden * (hidden.softmax(0) + 0.5)


class SortedAcrossTheBatch(Net):
    def mix(self, hidden):
        return hidden.sort(0).values


class Experts(Net):
    """Two experts, of which the first takes one row of a pass; the others overflow."""

    def mix(self, hidden):
        full = torch.arange(len(hidden)) >= 1
        return torch.where(full[:, None], hidden, 2 * hidden**2)


class Squeezes(Net):
    """Loses the batch axis where a pass has one row, and forgets that others may have more."""

    def forward(self, inputs):
        hidden = self.act(self.conv(inputs)).squeeze(0)
        return self.head(8 * hidden.mean((-2, -1))).reshape(1, -1)


class AttendsAcrossTheBatch(Net):
    """Takes the batch for the sequence, as `batch_first` left out does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.attention = nn.MultiheadAttention(4, 2).double().eval()

    def mix(self, hidden):
        rows = hidden[:, None]
        return hidden + self.attention(rows, rows, rows, need_weights=False)[0][:, 0]


class ReversedInTheBatch(Net):
    def mix(self, hidden):
        return hidden.flip(0)


class NormalisedWeightsOfTheBatch(Net):
    def forward(self, inputs):
        outputs = super().forward(inputs)
        return outputs / outputs.norm()


class OneByOne(nn.Module):
    """The user's module called with one row at a time."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, inputs):
        return torch.cat([self.model(row) for row in inputs.split(1)])


KINDS = [
    *(BatchStatistics, InstanceNormOverTheBatch, DividedByTheLargest, CentredOverTheBatch),
    *(SoftmaxOverTheBatch, SortedAcrossTheBatch, Experts, Squeezes, AttendsAcrossTheBatch),
    *(ReversedInTheBatch, NormalisedWeightsOfTheBatch),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_points_of_a_pass_do_not_meet(kind, pictures):
    methods = set(SETTINGS) - {"deeplift"}
    assert_like_plain(kind(), OneByOne(kind()), pictures, methods, by_hand.METRICS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_two_rows_in_one_pass_are_refused_where_they_meet(kind, pictures):
    assert "use method=" in by_hand.refusal(kind(), pictures, "deeplift")


@pytest.mark.parametrize("kind", [DividedByTheLargest, SoftmaxOverTheBatch, Experts])
def test_hiding_by_hand(kind, pictures):
    model, window = kind(), 4
    total = torch.zeros(2, 8, 8).double()
    for row, picture in enumerate(pictures.split(1)):
        whole = by_hand.probability(model, picture)
        for i in range(0, 8, window):
            for j in range(0, 8, window):
                hidden = picture.clone()
                hidden[..., i : i + window, j : j + window] = 0
                fall = whole - by_hand.probability(model, hidden)
                total[row, i : i + window, j : j + window] = fall.detach()
    found = by_hand.explain(model, pictures, "occlusion", window=window, stride=window)
    torch.testing.assert_close(found.sum(1), total)


@pytest.mark.parametrize("kind", [BatchStatistics, CentredOverTheBatch, SortedAcrossTheBatch])
def test_evaluator_gives_each_row_its_own_outputs(kind, pictures):
    model = kind()
    points = torch.stack([pictures, 0.5 * pictures, 2 * pictures])
    right = torch.stack([torch.cat([model(row) for row in rows.split(1)]) for rows in points])
    for settings in ({}, {"independent": False}, {"chunk": 2}, {"fold": False}):
        torch.testing.assert_close(Evaluator(model, **settings).outputs(points), right)


def quantised():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    return torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})


@pytest.mark.filterwarnings("ignore")
def test_ranges_of_dynamic_quantisation_are_each_rows_own():
    model, rows = quantised(), torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    rows[1] *= 30  # would set the range of a pass
    settings = {"occlusion": {"window": None, "stride": None}}
    for method in BLACK_BOX:
        own = settings.get(method, {})
        found, right = (by_hand.explain(each, rows, method, **own) for each in both(model))
        torch.testing.assert_close(found, right)
    for metric in by_hand.METRICS:
        found, right = (by_hand.evaluate(each, rows, metric) for each in both(model))
        torch.testing.assert_close(found, right)
    expected = by_hand.probability(model, rows[:1])
    hidden = rows[:1].clone()
    hidden[0, 2] = 0
    fall = by_hand.explain(model, rows, "occlusion", window=None, stride=None)[0, 2]
    torch.testing.assert_close(fall, expected - by_hand.probability(model, hidden))


def both(model):
    return model, OneByOne(model)
