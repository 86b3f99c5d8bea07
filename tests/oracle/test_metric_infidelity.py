"""Infidelity: against captum's with the same draws, and by hand on a linear model."""

import pytest
import torch
from captum.metrics import infidelity

from unilens import explain
from unilens.errors import UnilensError
from unilens.metrics import Gaussian, Infidelity, Square, Subset, evaluate, metrics
from unilens.metrics.context import EvalContext

from .test_metric_inpaint import subject_of

SAMPLES = 17


def probability(model):
    return lambda given: model(given).softmax(-1)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    "perturbation",
    [
        Gaussian(std=0.1),
        Square(side=0.4, units="gradient"),
        Square(imputer="blur"),
        Subset(cells=4, fraction=0.3, units="gradient", imputer="grey"),
        Subset(),
    ],
)
def test_infidelity_equals_captum(perturbation, scaled, small_net, images):
    found = explain(small_net, images, "ig", n_steps=4)
    measure = Infidelity(perturbation, samples=SAMPLES, scaled=scaled)
    values = measure(small_net, images, found).values
    (draws,) = perturbation(subject_of(images), SAMPLES).values()
    change, changed = (draw.transpose(0, 1).flatten(0, 1) for draw in draws(range(SAMPLES)))
    theirs = infidelity(
        probability(small_net),
        lambda given: (change, changed),
        images,
        found.values,
        target=found.target,
        n_perturb_samples=SAMPLES,
        normalize=scaled,
    )
    assert torch.allclose(values, theirs.double(), rtol=1e-5, atol=1e-12)


def test_infidelity_perturbations_have_stated_distribution(images):
    context: EvalContext = subject_of(images)
    drawn = Gaussian(std=0.3)(context, 40)["gaussian"](range(40))
    assert float(drawn.change.std()) == pytest.approx(0.3, rel=0.02)
    assert torch.equal(drawn.inputs, images - drawn.change)
    square = Square(side=0.4, units="gradient")(subject_of(images[:1]), 700)["black"](range(700))
    gone = (square.inputs == 0).all(2)
    assert torch.allclose(square.change + square.inputs, images[:1].expand(700, 1, 3, 13, 11))
    for mask in gone.flatten(0, 1):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert len(rows) == len(columns) == 4
        assert int(mask.sum()) == 16
        assert int(rows[-1] - rows[0]) == int(columns[-1] - columns[0]) == 3
    assert gone[:, 0].any(0).all()  # corners too
    shares = Square(side=0.4)(context, 3)["black"](range(3))
    assert torch.equal(
        shares.change.bool(), (shares.inputs == 0).all(2, keepdim=True).expand_as(shares.change)
    )
    cells = Subset(cells=None, fraction=0.5)(context, 5)["black"](range(5))
    assert (cells.change[:, :, 0].flatten(2).sum(2) == 72).all()


def test_infidelity_draws_do_not_depend_on_block_size(images):
    for perturbation in (Gaussian(), Square(), Subset()):
        (whole,) = perturbation(subject_of(images), 6).values()
        (parts,) = perturbation(subject_of(images[3:4]), 6).values()
        together = whole(range(6)).change[:, 3:4]
        assert torch.equal(together, torch.cat([parts(range(2)).change, parts(range(2, 6)).change]))


def test_infidelity_of_true_map_is_zero_on_linear_model(linear):
    inputs = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    weight = linear[1].weight.detach()[1].view(1, 2, 3).expand_as(inputs)
    settings = {"target": 1, "score": "logit"}
    for perturbation in ("gaussian", Square(units="gradient"), Subset(units="gradient", cells=3)):
        found = evaluate(
            linear, inputs, weight, "infidelity", perturbation=perturbation, **settings
        )
        assert float(found.max()) < 1e-25
    for perturbation in ("square", "subset"):
        contributions = weight * inputs
        given = {"perturbation": perturbation, **settings}
        found = evaluate(linear, inputs, contributions, "infidelity", **given)
        assert float(found.max()) < 1e-25
        twice = evaluate(linear, inputs, 2 * contributions, "infidelity", **given)
        assert float(twice.min()) > 1e-4
        scaled = evaluate(linear, inputs, 2 * contributions, "infidelity", scaled=True, **given)
        assert float(scaled.max()) < 1e-25


def test_infidelity_of_orthogonal_map_has_no_scale(linear):
    inputs = torch.rand(1, 2, 3).double()
    maps = torch.tensor([[[1.0, -1, 2], [-1, 1, -2]]]).double()
    value = evaluate(linear, inputs, maps, "infidelity", scaled=True)
    assert value.isnan().all()


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 1},
        {"scaled": 1},
        {"perturbation": "gauss"},
        {"perturbation": "gaussian", "std": 0},
        {"perturbation": "gaussian", "side": 0.1},
        {"side": 1.0},
        {"units": "metres"},
        {"perturbation": "subset", "cells": 1},
        {"perturbation": "subset", "fraction": 0},
        {"score": "nothing"},
    ],
)
def test_infidelity_refuses_wrong_settings(settings):
    with pytest.raises(UnilensError, match=r"expected|unknown"):
        metrics["infidelity"](**settings)
