"""ROAD and sensitivity-n: against slow replicas of the papers."""

import pytest
import torch
from scipy.stats import pearsonr
from torch import nn

from unilens import Evaluator, explain
from unilens.errors import NotApplicableError, UnilensError
from unilens.metrics import MuFidelity, Road, SensitivityN, evaluate, metrics

from ..conftest import randomise
from .test_metric_inpaint import solved_directly

NAMES = ("road", "sensitivity_n", "infidelity")
FEW = {"road": {"fractions": (0.3, 0.7)}, "sensitivity_n": {"subsets": 20}, "infidelity": {}}


class Linear(nn.Module):
    """Two logits, the first the sum of weights times values: what each value counts is known."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, inputs):
        first = (inputs * self.weight).flatten(1).sum(1)
        return torch.stack([first, torch.zeros_like(first)], 1)


@pytest.fixture
def known():
    """A model that looks at a patch alone, and pictures with something bright there."""
    weight = torch.zeros(3, 13, 11).double()
    weight[:, 4:9, 3:8] = 0.2
    images = 0.3 * torch.rand(4, 3, 13, 11, generator=torch.Generator().manual_seed(5)).double()
    images[:, :, 4:9, 3:8] += 0.6
    return Linear(weight).eval(), images, (weight * images)


def ascending(values):
    return bool((values.diff() > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_road_ranks_perfect_random_worst(name, known):
    model, images, truth = known
    random = torch.rand(truth.shape, generator=torch.Generator().manual_seed(6)).double() - 0.5
    for i in range(4):
        one = slice(i, i + 1)
        found = torch.cat(
            [
                evaluate(model, images[one], made[one], name, target=0, score="logit")
                for made in (-truth, random * truth.abs().mean(), truth)
            ]
        )
        assert ascending(found if metrics[name].card.higher_is_better else -found)


def test_road_equals_slow_replica(small_net, images):
    images = images[:3]
    relevance = torch.rand(3, 13, 11, generator=torch.Generator().manual_seed(2)).double()
    fractions, target = (0.2, 0.5, 0.9), 3
    measure = Road(imputer="smooth_inpaint", fractions=fractions)
    found = measure(small_net, images, relevance, target=target)
    for i, (image, one) in enumerate(zip(images, relevance, strict=True)):
        order = one.flatten().argsort(descending=True)
        halves = []
        for fraction in fractions:
            count = round(fraction * 143)
            scores = []
            for gone in (order[:count], order[-count:]):
                kept = torch.ones(143, dtype=torch.bool)
                kept[gone] = False
                left = solved_directly(image, kept.view(13, 11))
                scores.append(float(small_net(left[None]).softmax(-1)[0, target].detach()))
            halves.append((scores[1] - scores[0]) / 2)
        assert float(found.values[i]) == pytest.approx(sum(halves) / 3, abs=1e-5)
    curves = [found.details[f"{which}_relevant_removed"] for which in ("most", "least")]
    assert curves[0].shape == (3, 3)
    assert torch.allclose(((curves[1] - curves[0]) / 2).mean(1), found.values)
    assert found.details["fractions"][0].tolist() == list(fractions)


def test_road_of_opposite_map_changes_sign(small_net, images):
    relevance = torch.randn(8, 13, 11, generator=torch.Generator().manual_seed(2)).double()
    settings = {"imputer": "black", "fractions": (0.25, 0.5)}
    there = evaluate(small_net, images, relevance, "road", **settings)
    back = evaluate(small_net, images, -relevance, "road", **settings)
    assert torch.allclose(there, -back, rtol=0, atol=1e-15)


@pytest.mark.parametrize("imputer", ["black", "smooth_inpaint"])
def test_road_is_symmetric_relevance_gain(imputer, small_net, images):
    """The area between deletion curves of both orders; they meet at both ends."""
    relevance = torch.randn(8, 13, 11, generator=torch.Generator().manual_seed(2)).double()
    least, most = (
        evaluate(small_net, images, one, "deletion_auc", imputer=imputer)
        for one in (-relevance, relevance)
    )
    halves = evaluate(small_net, images, relevance, "road", imputer=imputer)
    assert torch.allclose(least - most, 1.8 * halves, rtol=0, atol=1e-9)


def test_sensitivity_n_equals_slow_replica(small_net, images):
    images = images[:3]
    found = explain(small_net, images, "ig", n_steps=4)
    measure = SensitivityN(fractions=(0.1, 0.5), subsets=12, imputer="grey")
    shown = measure(small_net, images, found)
    relevance = found.values.sum(1).flatten(1)
    for i in range(3):
        seed = SubsetsOf(images[i])
        values = []
        for size in (14, 72):
            subsets = seed.draw(12, 143, size)
            falls, sums = [], []
            for subset in subsets:
                changed = images[i].clone().flatten(1)
                changed[:, subset] = 0.5
                after = small_net(changed.view(1, 3, 13, 11)).softmax(-1)[0, found.target[i]]
                falls.append(float(found.confidence[i] - after.detach()))
                sums.append(float(relevance[i, subset].sum()))
            values.append(pearsonr(sums, falls).statistic)
        assert float(shown.values[i]) == pytest.approx(sum(values) / 2, abs=1e-9)
        assert shown.details["correlations"][i].tolist() == pytest.approx(values, abs=1e-9)


class SubsetsOf:
    """The documented draw: the largest of uniform numbers, seeded by the input's content."""

    def __init__(self, image):
        from unilens._ops.random import generators, seed_for

        self._image, self._generators, self._seed = image, generators, seed_for("metric", 0)

    def draw(self, subsets, count, size):
        (own,) = self._generators(self._image[None], torch.Generator().manual_seed(self._seed))
        return torch.rand(subsets, count, generator=own).argsort(1, descending=True)[:, :size]


def test_sensitivity_n_of_linear_model_is_one(known):
    model, images, truth = known
    settings = {"target": 0, "score": "logit", "subsets": 10}
    found = evaluate(model, images, truth, "sensitivity_n", fractions=(0.2, 0.6), **settings)
    assert found.tolist() == pytest.approx([1.0] * 4)
    # subsets of one place, none of which the model looks at: some seed draws them
    seldom = [
        evaluate(model, images[:1], truth[:1], "sensitivity_n", seed=seed, **settings).isnan()
        for seed in range(20)
    ]
    assert any(seldom)


def test_sensitivity_n_at_one_size_equals_mu_fidelity(small_net, images):
    maps = torch.randn(8, 13, 11, generator=torch.Generator().manual_seed(2)).double()
    one = SensitivityN(fractions=(0.3,), subsets=9, cells=4)(small_net, images, maps)
    other = MuFidelity(fraction=0.3, subsets=9, cells=4, correlation="pearson")
    assert torch.equal(one.values, other(small_net, images, maps).values)


@pytest.mark.parametrize("name", NAMES)
def test_road_is_nan_where_undefined(name, small_net, images):
    maps = torch.randn(8, 13, 11, generator=torch.Generator().manual_seed(2)).double()
    maps[1] = 0
    maps[2] = 0.25
    maps[3, 0, 0] = torch.inf
    found = evaluate(small_net, images, maps, name, **FEW[name])
    assert found.isnan().tolist() == [False, True, True, True] + [False] * 4
    flat = nn.Sequential(nn.Flatten(), nn.Linear(429, 3)).double().eval()
    nn.init.zeros_(flat[1].weight)
    assert evaluate(flat, images, maps, name, **FEW[name]).isnan().all()


@pytest.mark.parametrize("name", NAMES)
def test_road_on_batch_equals_loop(name, small_net, images):
    maps = torch.randn(8, 13, 11, generator=torch.Generator().manual_seed(2)).double()
    maps[0] = maps[0].round()
    together = evaluate(small_net, images, maps, name, **FEW[name])
    for i in (0, 5):
        alone = evaluate(small_net, images[i : i + 1], maps[i : i + 1], name, **FEW[name])
        assert torch.equal(alone, together[i : i + 1])


@pytest.mark.parametrize("name", NAMES)
def test_road_counts_passes(name, small_net, images):
    maps = torch.randn(8, 13, 11, generator=torch.Generator().manual_seed(2)).double()
    seen = []
    evaluator = Evaluator(small_net, on_pass=seen.append)
    evaluator(images[:1])
    evaluator.points_at_once(images[:1])
    for settings in ({}, {"imputer": ("black", "blur")}):
        measure = metrics[name](**settings)
        seen.clear()
        found = measure(evaluator, images[:1], maps[:1])
        assert sum(seen) == measure.passes.forward
        assert measure.passes.backward == 0
        assert list(found.breakdown) == list(settings.get("imputer", ()))
    assert torch.allclose(torch.stack(list(found.breakdown.values())).mean(0), found.values)


def test_road_takes_signals_and_tables():
    signals = torch.rand(3, 2, 20, generator=torch.Generator().manual_seed(1)).double()
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(40, 3)).double())
    maps = torch.randn(3, 2, 20, generator=torch.Generator().manual_seed(2)).double()
    for name in NAMES:
        assert evaluate(model, signals, maps, name).isfinite().all()
    tables = randomise(nn.Linear(6, 3).double())
    rows, of_rows = signals[:, 0, :6], maps[:, 0, :6]
    assert evaluate(tables, rows, of_rows, "road", imputer="black").isfinite().all()
    assert evaluate(tables, rows, of_rows, "sensitivity_n", fractions=(0.5,)).isfinite().all()
    for name, remedy in (("road", "imputer='image_mean'"), ("infidelity", "perturbation='subset'")):
        with pytest.raises(NotApplicableError, match=remedy):
            evaluate(tables, rows, of_rows, name)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("road", {"fractions": ()}),
        ("road", {"fractions": 0.5}),
        ("road", {"fractions": (0.5, 1.0)}),
        ("road", {"imputer": "nothing"}),
        ("sensitivity_n", {"subsets": 1}),
        ("sensitivity_n", {"cells": 1}),
        ("sensitivity_n", {"fractions": (0,)}),
    ],
)
def test_road_refuses_wrong_settings(name, settings):
    with pytest.raises(UnilensError, match=r"expected|unknown"):
        metrics[name](**settings)
