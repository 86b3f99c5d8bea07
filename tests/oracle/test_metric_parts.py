"""Single deletion by hand and by a slow replica."""

import pytest
import torch
from scipy.stats import spearmanr

from unilens import UnilensError, evaluate, metrics
from unilens.metrics import SingleDeletion

from ..conftest import SmallNet, randomise


def parts_of(images):
    """Return images without each of four parts of different sizes; the last one is not there."""
    without = images.unsqueeze(1).repeat(1, 5, 1, 1, 1)
    for part, (top, left) in enumerate([(0, 0), (5, 1), (2, 6), (8, 7)]):
        without[:, part, :, top : top + 2 + part, left : left + 3] = 0.3 * part
    return without


@pytest.mark.parametrize("reduction", ["sum", "abs"])
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_single_deletion_equals_slow_replica(small_net, images, reduction, score):
    without = parts_of(images)
    maps = torch.rand(images.shape, generator=torch.Generator().manual_seed(4)).double() - 0.5
    target = small_net(images).argmax(1)
    found = evaluate(
        small_net,
        images,
        maps,
        "single_deletion",
        without_parts=without,
        score=score,
        reduction=reduction,
    )
    for row, image in enumerate(images):
        sums, drops = [], []
        for part in without[row, :4]:
            total = 0.0
            for position in (part != image).any(0).nonzero().tolist():
                values = maps[row, :, position[0], position[1]]
                total += float(values.sum() if reduction == "sum" else values.abs().sum())
            before, after = small_net(torch.stack([image, part])).detach()
            if score == "probability":
                before, after = before.softmax(0), after.softmax(0)
            sums.append(total)
            drops.append(float(before[target[row]] - after[target[row]]))
        assert float(found[row]) == pytest.approx(spearmanr(sums, drops).statistic, abs=1e-9)


def test_single_deletion_ranks_perfect_random_worst():
    """In a linear model the weight times the difference is what each part is worth."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 13 * 11, 2)).double().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 13, 11, generator=generator).double()
    without = parts_of(images)[:, :4]
    weights = model[1].weight[0].view(3, 13, 11).detach()
    perfect = (weights * (images.unsqueeze(1) - without)).sum(1)
    random = torch.randn(40, 3, 13, 11, generator=generator).double()
    values = [
        evaluate(model, images, maps, "single_deletion", without_parts=without, target=0).mean()
        for maps in (perfect, random, -perfect)
    ]
    assert metrics()["single_deletion"].higher_is_better
    assert float(values[0]) == pytest.approx(1)
    assert float(values[1]) == pytest.approx(0, abs=0.25)
    assert float(values[2]) == pytest.approx(-1)


def test_single_deletion_is_nan_where_undefined(small_net, images):
    without = parts_of(images)
    without[0, 1:] = images[0]  # a single part
    maps = torch.rand(images.shape, generator=torch.Generator().manual_seed(4)).double()
    maps[1] = 0  # parts of the same relevance
    without[2] = without[2, :1]  # parts that cost the same
    found = evaluate(small_net, images, maps, "single_deletion", without_parts=without)
    assert found.isnan().tolist() == [True] * 3 + [False] * 5


def test_single_deletion_takes_tables():
    model = torch.nn.Linear(4, 2, bias=False).eval()
    rows, maps = torch.ones(3, 4), model.weight[0].detach().expand(3, 4)
    without = rows.unsqueeze(1) * (1 - torch.eye(4))
    found = evaluate(model, rows, maps, "single_deletion", without_parts=without, target=0)
    assert found.tolist() == pytest.approx([1, 1, 1])


def test_single_deletion_refuses_wrong_parts(images):
    model, maps = randomise(SmallNet().double()), torch.rand(8, 13, 11)
    with pytest.raises(UnilensError, match=r"shape \(8, P, 3, 13, 11\).*got \(8, 3, 13, 11\)"):
        evaluate(model, images, maps, "single_deletion", without_parts=images)
    with pytest.raises(UnilensError, match="got str"):
        evaluate(model, images, maps, "single_deletion", without_parts="birds")


def test_single_deletion_takes_channels_last(small_net, images):
    class Last(torch.nn.Module):
        def forward(self, pictures):
            return small_net(pictures.movedim(-1, 1))

    without, maps = parts_of(images), torch.rand(8, 13, 11)
    first = evaluate(small_net, images, maps, "single_deletion", without_parts=without)
    last = SingleDeletion()(
        Last().eval(),
        images.movedim(1, -1),
        maps,
        without_parts=without.movedim(2, -1),
        channels="last",
    )
    torch.testing.assert_close(last.values, first)
