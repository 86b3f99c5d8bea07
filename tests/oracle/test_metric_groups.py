"""Insertion, deletion, MuFidelity and infidelity by group: against loops over the groups."""

import numpy
import pytest
import torch
from scipy.stats import spearmanr

from unilens import Evaluator, UnilensError, evaluate, explain
from unilens.metrics import Deletion, Infidelity, MetricCache, MuFidelity
from unilens.metrics.faithfulness.perturbations import Subset

from .test_black_box import probability
from .test_metric_removal import Remembering

GENERATOR = torch.Generator().manual_seed(5)
GROUPS = torch.randint(7, (3, 13, 11), generator=GENERATOR)
GROUPS[2] %= 4  # the third image has four groups alone
BY_IMAGE = GROUPS.unsqueeze(1)


@pytest.fixture
def maps(images):
    return torch.randn(3, 3, 13, 11, generator=torch.Generator().manual_seed(6)).double()


def score_without(net, image, target, removed, groups):
    """Return the probability of an image whose removed groups are 0."""
    kept = ~torch.isin(groups, torch.tensor(removed, dtype=torch.long))
    return float(probability(net, (image * kept)[None], target[None]))


@pytest.mark.parametrize("metric", ["insertion_auc", "deletion_auc"])
def test_curves_by_group_equal_loop(small_net, images, maps, metric):
    images, target = images[:3], small_net(images[:3]).argmax(-1)
    found = evaluate(small_net, images, maps, metric, groups=BY_IMAGE, step=0.25)
    for i in range(3):
        sums = {g: float(maps[i][:, GROUPS[i] == g].sum()) for g in GROUPS[i].unique().tolist()}
        order = sorted(sums, key=sums.get, reverse=True)
        curve = []
        for fraction in (0, 0.25, 0.5, 0.75, 1):
            count = round(fraction * len(order))
            removed = order[count:] if metric == "insertion_auc" else order[:count]
            curve.append(score_without(small_net, images[i], target[i], removed, GROUPS[i]))
        assert float(found[i]) == pytest.approx(numpy.trapezoid(curve, dx=0.25), abs=1e-12)


def test_mu_fidelity_by_group_equals_loop(small_net, images, maps):
    images, target = images[:3], small_net(images[:3]).argmax(-1)
    imputer = Remembering()
    metric = MuFidelity(imputer=imputer, subsets=12, fraction=0.4)
    found = metric(small_net, images, maps, groups=BY_IMAGE)
    kept = torch.cat(imputer.kept)
    for i in range(3):
        present = GROUPS[i].unique().tolist()
        attributed, drops = [], []
        for n in range(12):
            removed = [g for g in present if not kept[n, i][GROUPS[i] == g].any()]
            assert len(removed) == round(0.4 * len(present))
            assert torch.equal(kept[n, i], ~torch.isin(GROUPS[i], torch.tensor(removed)))
            attributed.append(sum(float(maps[i][:, GROUPS[i] == g].sum()) for g in removed))
            point = torch.where(kept[n, i], images[i], -1.0)
            whole, without = (
                float(probability(small_net, one[None], target[i : i + 1]))
                for one in (images[i], point)
            )
            drops.append(whole - without)
        assert torch.allclose(found.details["attributed"][i], torch.tensor(attributed).double())
        assert torch.allclose(found.details["score_drop"][i], torch.tensor(drops).double())
        expected = spearmanr(attributed, drops).statistic
        assert float(found.values[i]) == pytest.approx(expected, abs=1e-12)


def test_infidelity_by_group_removes_whole_groups(small_net, images, maps):
    target = small_net(images[:3]).argmax(-1)
    shapley = explain(small_net, images[:3], "shapley", groups=BY_IMAGE)
    metric = Infidelity(Subset(fraction=0.4), samples=9)
    found = metric(small_net, images[:3], shapley, groups=BY_IMAGE)
    for i in range(3):
        sums = shapley.by_group()[i]
        present = GROUPS[i].unique().tolist()
        size = round(0.4 * len(present))
        options = {}  # what each subset counts, and what the score loses without it
        for removed in torch.combinations(torch.tensor(present), size).tolist():
            without = score_without(small_net, images[i], target[i], removed, GROUPS[i])
            options[round(float(sums[removed].sum()), 9)] = float(shapley.score[i]) - without
        pairs = zip(found.details["predicted"][i], found.details["score_drop"][i], strict=True)
        for predicted, drop in pairs:
            assert options[round(float(predicted), 9)] == pytest.approx(float(drop), abs=1e-9)


@pytest.mark.parametrize("metric", ["insertion_auc", "deletion_auc", "mu_fidelity"])
def test_groups_that_differ_by_input_are_measured_as_alone(small_net, images, maps, metric):
    few = {"subsets": 10, "fraction": 0.4} if metric == "mu_fidelity" else {}
    maps = maps.masked_fill(GROUPS.unsqueeze(1) < 3, 0.0)  # ties go in the same random order
    together = evaluate(small_net, images[:3], maps, metric, groups=BY_IMAGE, **few)
    for i in range(3):
        alone = {"groups": GROUPS[i], **few}
        found = evaluate(small_net, images[i : i + 1], maps[i : i + 1], metric, **alone)
        assert float(found) == pytest.approx(float(together[i]), abs=1e-12)


def test_groups_of_single_positions_change_nothing(small_net, images, maps):
    single = torch.arange(13 * 11).view(13, 11)
    for metric in ("insertion_auc", "deletion_auc"):
        plain = evaluate(small_net, images[:3], maps, metric)
        grouped = evaluate(small_net, images[:3], maps, metric, groups=single)
        assert torch.equal(plain, grouped)
    cells = torch.arange(13).unsqueeze(1) * 9 // 13 * 9 + torch.arange(11) * 9 // 11
    for metric in ("mu_fidelity", "insertion_auc", "deletion_auc"):
        plain = evaluate(small_net, images[:3], maps, metric, cells=9)
        grouped = evaluate(small_net, images[:3], maps, metric, groups=cells)
        assert torch.equal(plain, grouped)


@pytest.mark.parametrize("metric", ["insertion_auc", "deletion_auc"])
def test_curves_refuse_cells_beside_groups(small_net, images, maps, metric):
    with pytest.raises(UnilensError, match="expected no cells beside groups"):
        evaluate(small_net, images[:3], maps, metric, groups=GROUPS[0], cells=4)


def test_shapley_of_groups_is_faithful_by_group(small_net, images):
    found = explain(small_net, images, "shapley", cells=3)
    fidelity = evaluate(small_net, images, found, "mu_fidelity", groups=found.groups, fraction=0.4)
    random = explain(small_net, images, "random", groups=found.groups)
    chance = evaluate(small_net, images, random, "mu_fidelity", groups=found.groups, fraction=0.4)
    assert float(fidelity.mean()) > 0.7
    assert abs(float(chance.mean())) < 0.4


def test_maps_of_one_group_have_no_order(small_net, images, maps):
    one = torch.zeros(13, 11, dtype=torch.long)
    assert evaluate(small_net, images[:3], maps, "deletion_auc", groups=one).isnan().all()


def test_cache_keeps_groups_apart(small_net, images, maps):
    evaluator = Evaluator(small_net)
    cache = MetricCache(evaluator, images[:3])
    metric = MuFidelity(subsets=10, fraction=0.4)
    other = BY_IMAGE.flip(2)
    for groups in (BY_IMAGE, other, None, BY_IMAGE):
        with_cache = metric(evaluator, images[:3], maps, groups=groups, cache=cache)
        without = metric(evaluator, images[:3], maps, groups=groups)
        assert torch.equal(with_cache.values, without.values)
    of_last = images[:3].movedim(1, 3)

    class Last(torch.nn.Module):
        def forward(self, inputs):
            return small_net(inputs.movedim(3, 1))

    found = Deletion()(Last().eval(), of_last, maps.movedim(1, 3), groups=GROUPS, channels="last")
    plain = Deletion()(small_net, images[:3], maps, groups=BY_IMAGE)
    assert torch.allclose(found.values, plain.values, rtol=0, atol=1e-12)
