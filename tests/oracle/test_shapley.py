"""Shapley values and groups: against slow enumeration, shap, captum and closed forms."""

import itertools
import math
import warnings

import numpy
import pytest
import torch
from captum.attr import FeatureAblation, ShapleyValues
from torch import nn

from unilens import Evaluator, explain
from unilens.errors import UnilensError
from unilens.methods import methods

from ..conftest import randomise
from .test_black_box import of_places, probability

with warnings.catch_warnings():  # of matplotlib's next version, at its import
    warnings.simplefilter("ignore")
    import shap

GROUPS = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7])
"""Eight groups of twelve columns."""


@pytest.fixture
def network():
    return randomise(nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)).double())


@pytest.fixture
def rows():
    return torch.rand(3, 12, generator=torch.Generator().manual_seed(2)).double()


def slowly(value, count):
    """Return the Shapley values of a function of sets of 0 ... count - 1: the mean over orders."""
    total = numpy.zeros(count)
    for order in itertools.permutations(range(count)):
        for place, member in enumerate(order):
            before = frozenset(order[:place])
            total[member] += value(before | {member}) - value(before)
    return total / math.factorial(count)


def by_sets(model, point, baseline, groups, target):
    """Return the function from a set of groups to the probability with these kept alone."""
    known = {}

    def value(kept):
        if kept not in known:
            mask = torch.isin(groups, torch.tensor(sorted(kept), dtype=torch.long))
            mixed = torch.where(mask, point, baseline)
            known[kept] = float(probability(model, mixed[None], torch.tensor([target])))
        return known[kept]

    return value


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shapley_equals_mean_over_all_orders(count):
    model = randomise(nn.Sequential(nn.Linear(count, 7), nn.Tanh(), nn.Linear(7, 3)).double())
    rows = torch.rand(2, count).double()
    found = explain(model, rows, "shapley", baseline="grey")
    for row, values, target in zip(rows, found.values, found.target, strict=True):
        value = by_sets(model, row, found.baseline[0], torch.arange(count), int(target))
        assert numpy.allclose(values, slowly(value, count), rtol=0, atol=1e-14)
    assert torch.equal(found.record["standard_error"], torch.zeros(2, count).double())
    assert found.provenance["passes"] == {"forward": 2**count, "backward": 0}
    assert found.completeness_gap.abs().max() < 1e-14


def probabilities(model, point, baseline, target):
    """Return a function from masks of groups `(n, 8)` to probabilities, as shap calls it."""

    def function(masks):
        kept = torch.from_numpy(numpy.asarray(masks).astype(bool))[:, GROUPS]
        mixed = torch.where(kept, point, baseline)
        return probability(model, mixed, target.expand(len(mixed))).numpy()

    return function


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ["kernel", "exact", "permutation"])
def test_shapley_of_groups_equals_shap(network, rows, explainer):
    found = explain(network, rows, "shapley", groups=GROUPS, baseline="white")
    everything, nothing = numpy.ones((1, 8)), numpy.zeros((1, 8))
    for i in range(3):
        function = probabilities(network, rows[i], found.baseline[i], found.target[i : i + 1])
        if explainer == "kernel":  # of 8 groups it takes all coalitions
            kernel = shap.KernelExplainer(function, nothing)
            theirs = kernel.shap_values(everything, nsamples=2**9, silent=True, l1_reg=False)[0]
            assert numpy.allclose(found.by_group()[i], theirs, rtol=0, atol=1e-9)
        elif explainer == "exact":
            theirs = shap.ExactExplainer(function, shap.maskers.Independent(nothing))
            theirs = theirs(everything).values[0]
            assert numpy.allclose(found.by_group()[i], theirs, rtol=0, atol=1e-12)
        else:
            numpy.random.seed(0)
            theirs = shap.PermutationExplainer(function, shap.maskers.Independent(nothing))
            theirs = theirs(everything, max_evals=3400, silent=True).values[0]
            spread = found.by_group()[i].abs().max()
            assert numpy.allclose(found.by_group()[i], theirs, rtol=0, atol=0.02 * spread)


def test_shapley_with_feature_mask_equals_captum(small_net, images):
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(4, (1, 3, 13, 11), generator=generator)  # apart in each channel
    found = explain(small_net, images[:2], "shapley", groups=mask[0], score="logit")
    theirs = ShapleyValues(small_net)  # which takes all orders
    theirs = theirs.attribute(images[:2], target=found.target, feature_mask=mask, baselines=0)
    whole = torch.stack([theirs[:, mask[0] == group][:, 0] for group in range(4)], dim=1)
    assert torch.allclose(found.by_group(), whole.double(), rtol=0, atol=1e-6)
    for group in range(4):  # shared evenly, so that the values add up
        members = found.values[:, mask[0] == group]
        share = found.by_group()[:, group] / int((mask == group).sum())
        assert torch.allclose(members, share.unsqueeze(1).expand_as(members), rtol=0, atol=1e-15)


def test_shapley_of_additive_score_is_exact_by_any_permutations():
    weight = torch.linspace(-1, 2, 30).double()
    model = of_places(lambda given: (weight * given**2).sum(1))
    rows = torch.rand(2, 30).double()
    found = explain(model, rows, "shapley", score="logit", n_permutations=4, baseline="white")
    assert torch.allclose(found.values, weight * (rows**2 - 1), rtol=0, atol=1e-13)
    assert found.record["standard_error"].max() < 1e-13


def test_antithetic_pairs_are_exact_for_interactions_of_two():
    # An order and its reverse give each of two groups its half of their product.
    model = of_places(lambda given: given[:, 0] * given[:, 1] + 3 * given[:, 2] * given[:, 13])
    rows = torch.rand(2, 14).double()
    found = explain(model, rows, "shapley", score="logit", n_permutations=4)
    expected = torch.zeros(2, 14).double()
    expected[:, :2] = (rows[:, 0] * rows[:, 1] / 2).unsqueeze(1)
    expected[:, [2, 13]] = (3 * rows[:, 2] * rows[:, 13] / 2).unsqueeze(1)
    assert torch.allclose(found.values, expected, rtol=0, atol=1e-14)


def test_shapley_by_permutations_equals_loop(network, rows):
    found = explain(network, rows, "shapley", exact_up_to=0, n_permutations=6, seed=7)
    generator = torch.Generator().manual_seed(7)
    place = [torch.randperm(12, generator=generator) for _ in range(3)]
    for i in range(3):
        value = by_sets(
            network, rows[i], torch.zeros(12).double(), torch.arange(12), int(found.target[i])
        )
        pairs = torch.zeros(3, 12).double()
        for pair, places in enumerate(place):
            order = places.argsort().tolist()
            for one in (order, order[::-1]):
                for position, member in enumerate(one):
                    before = frozenset(one[:position])
                    pairs[pair, member] += (value(before | {member}) - value(before)) / 2
        assert torch.allclose(found.values[i], pairs.mean(0), rtol=0, atol=1e-14)
        error = pairs.std(0) / math.sqrt(3)
        assert torch.allclose(found.record["standard_error"][i], error, rtol=0, atol=1e-14)
    assert found.provenance["passes"] == {"forward": 6 * 11 + 2, "backward": 0}
    assert found.completeness_gap.abs().max() < 1e-14


SCORES = {
    "smooth": (lambda given: torch.tanh(given[:, :4].prod(1) + 0.3 * given[:, 2:].sum(1)), 0.90),
    "saturated": (lambda given: torch.tanh(3 * given[:, :4].prod(1) + given[:, 2:].sum(1)), 0.75),
}
"""Scores, and how many intervals of 95 % hold the exact value at least: of skewed changes fewer."""


@pytest.mark.parametrize("kind", SCORES)
def test_standard_errors_cover_exact_values(kind):
    function, least = SCORES[kind]
    model, generator = of_places(function), torch.Generator().manual_seed(0)
    rows = torch.rand(1, 9, generator=generator).double() + 0.5
    exact = explain(model, rows, "shapley", score="logit").values
    settings = {"score": "logit", "exact_up_to": 0, "n_permutations": 200}
    drawn = [explain(model, rows, "shapley", **settings, seed=seed) for seed in range(60)]
    misses = torch.cat([found.values - exact for found in drawn])
    errors = torch.cat([found.record["standard_error"] for found in drawn])
    assert least < (misses.abs() < 1.96 * errors).double().mean() < 0.98
    ratio = errors.square().mean(0).sqrt() / misses.square().mean(0).sqrt()
    assert ((ratio > 0.7) & (ratio < 1.4)).all()


def test_shapley_of_images_has_cells_of_a_grid(small_net, images):
    found = explain(small_net, images[:2], "shapley", cells=3)
    assert found.by_group().shape == (2, 9)
    index = (torch.arange(13) * 3 // 13).unsqueeze(1) * 3 + torch.arange(11) * 3 // 11
    assert torch.equal(found.groups, index.expand(2, 3, 13, 11))
    given = explain(small_net, images[:2], "shapley", groups=index)
    assert torch.equal(given.values, found.values)


def test_groups_that_differ_by_input_are_those_of_each_alone(network, rows):
    several = torch.stack([GROUPS, torch.arange(12), torch.zeros(12, dtype=torch.long)])
    few = {"rise": {"n_masks": 30}, "sobol": {"designs": 2}, "shapley": {"exact_up_to": 4}}
    for name in ("occlusion", "rise", "sobol", "shapley", "ig"):
        together = explain(network, rows, name, groups=several, **few.get(name, {}))
        passes = []
        for i in range(3):
            alone = explain(network, rows[i : i + 1], name, groups=several[i], **few.get(name, {}))
            assert torch.equal(alone.values[0], together.values[i])
            count = int(several[i].max()) + 1
            assert torch.equal(alone.by_group()[0], together.by_group()[i, :count])
            assert together.by_group()[i, count:].isnan().all()
            passes.append(alone.provenance["passes"]["forward"])
        assert together.provenance["passes"]["forward"] == max(passes)


@pytest.mark.parametrize("kind", ["positions", "values", "by input"])
def test_occlusion_by_group_equals_captum(small_net, images, kind):
    generator = torch.Generator().manual_seed(3)
    shape = {"positions": (13, 11), "values": (3, 13, 11), "by input": (2, 1, 13, 11)}[kind]
    groups = torch.randint(5, shape, generator=generator)
    found = explain(small_net, images[:2], "occlusion", groups=groups, baseline="white")
    ablation = FeatureAblation(lambda given: small_net(given).softmax(-1))
    for i in range(2):
        mask = groups[i : i + 1] if kind == "by input" else groups
        mask = mask.expand(1, 3, 13, 11).contiguous()
        theirs = ablation.attribute(
            images[i : i + 1], target=found.target[i], feature_mask=mask, baselines=1.0
        )
        for group in range(5):  # captum gives each value the whole change
            whole = theirs[mask == group][0]
            assert float(found.by_group()[i, group]) == pytest.approx(float(whole), abs=1e-7)
    assert found.provenance["passes"] == {"forward": 6, "backward": 0}


@pytest.mark.parametrize("name", ["occlusion", "rise", "sobol", "shapley"])
def test_groups_of_single_columns_change_nothing(network, rows, name):
    few = {"rise": {"n_masks": 30}, "sobol": {"designs": 4}}.get(name, {})
    plain = explain(network, rows, name, **few).values
    grouped = explain(network, rows, name, groups=torch.arange(12), **few).values
    assert torch.allclose(plain, grouped, rtol=0, atol=1e-15)


def test_rise_by_group_equals_loop(network, rows):
    settings = {"n_masks": 25, "keep": 0.3, "seed": 4}
    found = explain(network, rows, "rise", groups=GROUPS, centred=True, **settings)
    kept = torch.rand(25, 8, generator=torch.Generator().manual_seed(4)) < 0.3
    for i in range(3):
        points = rows[i] * kept[:, GROUPS]
        scores = probability(network, points, found.target[i].expand(25))
        expected = ((scores - scores.mean()).unsqueeze(1) * kept).sum(0) / (25 * 0.3)
        assert torch.allclose(found.by_group()[i], expected, rtol=0, atol=1e-14)


def test_sobol_by_group_equals_sobol_of_the_groups(network, rows):
    class OfGroups(nn.Module):
        def forward(self, shares):
            return network(shares[:, GROUPS] * rows[:1])

    found = explain(network, rows[:1], "sobol", 0, groups=GROUPS, designs=16, seed=2)
    shares = explain(OfGroups().eval(), torch.ones(1, 8).double(), "sobol", 0, designs=16, seed=2)
    # Shares of the inputs' dtype differ from those of the design by rounding alone.
    assert torch.allclose(found.by_group(), shares.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["ig", "gradient", "smoothgrad", "vargrad", "expected_gradients"])
def test_maps_of_other_methods_are_summed_by_group(network, rows, name):
    few = {"references": rows.flip(0)} if name == "expected_gradients" else {}
    plain = explain(network, rows, name, **few)
    found = explain(network, rows, name, groups=GROUPS, **few)
    for group in range(8):
        expected = plain.values[:, group == GROUPS].sum(1)
        assert torch.allclose(found.by_group()[:, group], expected, rtol=0, atol=1e-14)
        assert torch.allclose(plain.by_group(GROUPS)[:, group], expected, rtol=0, atol=1e-14)
        members = found.values[:, group == GROUPS]
        assert torch.allclose(members, members[:, :1].expand_as(members), rtol=0, atol=0)
    if found.complete and found.baseline_score is not None:
        assert torch.allclose(found.completeness_gap, plain.completeness_gap, rtol=0, atol=1e-14)


def test_smoothgrad_of_occlusion_masks_groups_at_noisy_inputs(network, rows):
    found = explain(network, rows, "smoothgrad", groups=GROUPS, inner="occlusion", std=1e-9)
    expected = explain(network, rows, "occlusion", groups=GROUPS)
    assert torch.allclose(found.values, expected.values, rtol=0, atol=1e-7)


def test_shapley_does_not_depend_on_block_size(small_net, images):
    few = {"cells": 4, "n_permutations": 4}
    expected = explain(small_net, images[:2], "shapley", **few).values
    found = explain(Evaluator(small_net, chunk=3), images[:2], "shapley", **few).values
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


WRONG = {
    "odd": ({"n_permutations": 5}, "n_permutations to be even and at least 4, .* got 5"),
    "one pair": ({"n_permutations": 2}, "n_permutations to be even and at least 4, .* got 2"),
    "many exact": ({"exact_up_to": 17}, "exact_up_to to be at most 16, or 65536 passes, got 17"),
    "cells": ({"cells": 0}, "cells to be a whole number of at least 1, got 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_shapley_refuses_wrong_settings(case):
    settings, message = WRONG[case]
    with pytest.raises(UnilensError, match=message):
        methods["shapley"](**settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("occlusion", {"window": 3}),
        ("occlusion", {"window": 3, "stride": 2}),
        ("rise", {"cells": 4}),
        ("sobol", {"cells": 4}),
        ("shapley", {"cells": 4}),
    ],
)
def test_settings_of_a_grid_are_refused_beside_groups(small_net, images, name, settings):
    groups = torch.zeros(13, 11, dtype=torch.long)
    with pytest.raises(UnilensError, match=f"no {' and '.join(settings)} beside groups"):
        explain(small_net, images, name, groups=groups, **settings)
