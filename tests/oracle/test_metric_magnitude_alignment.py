"""Magnitude aligned scoring: against a slow replica of the paper, and on a model of known truth."""

import math

import numpy
import pytest
import torch

from unilens import Evaluator, evaluate
from unilens.metrics import metrics

from .test_metric_road import Linear

NAMES = ("mas_insertion", "mas_deletion")


def aligned_by_hand(scores, order, map_values, counts, inserts):
    """Return the penalised curve, step by step, of one map whose values are not negative."""
    empty, whole = (scores[0], scores[-1]) if inserts else (scores[-1], scores[0])
    held, curve = (0.0 if inserts else 1.0), []
    for score, count in zip(scores, counts, strict=True):
        response = min(max((score - empty) / (whole - empty), 0.0), 1.0)
        held = max(held, response) if inserts else min(held, response)
        moved = sum(map_values[place] for place in order[:count]) / sum(map_values)
        penalty = abs(held - (moved if inserts else 1 - moved))
        curve.append(min(max(held - penalty if inserts else held + penalty, 0.0), 1.0))
    return curve


def area(curve, fractions):
    steps = zip(curve, curve[1:], fractions, fractions[1:], strict=False)
    return sum((a + b) / 2 * (right - left) for a, b, left, right in steps)


@pytest.mark.parametrize("name", NAMES)
def test_mas_equals_slow_replica(name, small_net, images):
    model, inserts = Evaluator(small_net), name == "mas_insertion"
    relevance = torch.rand(8, 13, 11, generator=torch.Generator().manual_seed(2)).double() ** 3
    found = metrics[name](imputer="grey", step=0.3)(model, images, relevance, target=1)
    fractions = [0, 0.3, 0.6, 0.9, 1]
    counts = [round(fraction * 143) for fraction in fractions]
    expected = []
    for image, values in zip(images, relevance.flatten(1).tolist(), strict=True):
        order, scores = sorted(range(143), key=lambda place: -values[place]), []
        for count in counts:
            inside = torch.zeros(143, dtype=torch.bool)
            inside[order[:count]] = True
            kept = inside if inserts else ~inside
            changed = torch.where(kept.view(13, 11), image, 0.5)
            scores.append(float(small_net(changed[None]).softmax(-1)[0, 1].detach()))
        empty, whole = (scores[0], scores[-1]) if inserts else (scores[-1], scores[0])
        curve = aligned_by_hand(scores, order, values, counts, inserts)
        expected.append(area(curve, fractions) if whole > empty else math.nan)
    assert numpy.isnan(expected).any()
    assert numpy.isfinite(expected).any()
    assert found.values.tolist() == pytest.approx(expected, abs=1e-9, nan_ok=True)
    for row, reason in enumerate(found.reasons):
        assert (reason == "") == math.isfinite(expected[row])
        assert not reason or "no higher at the input" in reason


@pytest.fixture
def known():
    """A linear model that looks at a patch, pictures, and what each pixel contributes."""
    weight = torch.zeros(3, 13, 11).double()
    weight[:, 2:9, 2:8] = torch.rand(3, 7, 6, generator=torch.Generator().manual_seed(4)).double()
    images = torch.rand(4, 3, 13, 11, generator=torch.Generator().manual_seed(5)).double()
    return Linear(weight).eval(), images, weight * images


def test_mas_of_contributions_of_linear_model_has_no_penalty(known):
    model, images, truth = known
    for name, plain in zip(NAMES, ("insertion_auc", "deletion_auc"), strict=True):
        found = metrics[name](score="logit")(model, images, truth, target=0)
        assert torch.allclose(found.details["mass"], found.details["response"])
        whole = model(images)[:, 0].detach()
        unpenalised = evaluate(model, images, truth, plain, target=0, score="logit") / whole
        assert torch.allclose(found.values, unpenalised)


@pytest.mark.parametrize("name", NAMES)
def test_mas_ranks_perfect_random_worst(name, known):
    model, images, truth = known
    random = torch.rand(truth.shape, generator=torch.Generator().manual_seed(6)).double()
    worst = truth.sum(1).amax((1, 2)).view(-1, 1, 1) - truth.sum(1)
    given = {"target": 0, "score": "logit"}
    perfect, middle, last = (
        evaluate(model, images, one, name, **given) for one in (truth, random, worst)
    )
    sign = 1 if metrics[name].card.higher_is_better else -1
    assert (sign * perfect > sign * middle).all()
    assert (sign * middle > sign * last).all()


@pytest.mark.parametrize(
    ("name", "plain"), [("mas_insertion", "insertion_auc"), ("mas_deletion", "deletion_auc")]
)
@pytest.mark.parametrize("power", [0.2, 6])
def test_mas_sees_magnitudes_that_the_order_hides(name, plain, power, known):
    """Maps of the same order: the plain areas are equal, those of MAS are not."""
    model, images, truth = known
    truth, given = truth.sum(1), {"target": 0, "score": "logit"}
    other = truth**power
    areas = [evaluate(model, images, one, plain, **given) for one in (truth, other)]
    assert torch.equal(*areas)
    ours, theirs = (evaluate(model, images, one, name, **given) for one in (truth, other))
    sign = 1 if metrics[name].card.higher_is_better else -1
    assert (sign * ours > sign * theirs + 0.02).all()


def test_mas_counts_positive_relevance_of_cells(known):
    model, images, truth = known
    signed = truth - truth.mean()
    found = metrics["mas_insertion"](cells=3, step=0.5)(model, images, signed, target=0)
    relevance = signed.sum(1)
    rows, columns = numpy.arange(13) * 3 // 13, numpy.arange(11) * 3 // 11
    for values, mass in zip(relevance, found.details["mass"], strict=True):
        sums = [
            float(values[rows == row][:, columns == column].sum())
            for row in range(3)
            for column in range(3)
        ]
        assert min(sums) < 0
        positive = sorted((max(one, 0) for one in sums), reverse=True)
        expected = [0, sum(positive[:4]) / sum(positive), 1]
        assert mass.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_mas_is_nan_where_nothing_is_positive(name, known):
    model, images, truth = known
    maps = torch.stack([-truth[0], torch.zeros_like(truth[1]), truth[2], truth[3]])
    found = metrics[name](score="logit")(model, images, maps, target=0)
    assert found.values.isnan().tolist() == [True, True, False, False]
    assert "nothing in the map is positive" in found.reasons[0]
    opposite = evaluate(model, images, truth, name, target=1, score="margin")
    assert opposite.isnan().all()
