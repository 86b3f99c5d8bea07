"""Sensitivities against captum with the same neighbours, and on models whose maps are known."""

import pytest
import torch
from captum.metrics import sensitivity_max
from torch import nn

from unilens.errors import NotApplicableError, UnilensError
from unilens.methods import methods
from unilens.metrics import LocalLipschitz, MaxSensitivity, MeanSensitivity, metrics

from ..conftest import randomise

NAMES = ("max_sensitivity", "mean_sensitivity", "local_lipschitz")
RELATIVE = [f"relative_{part}_stability" for part in ("input", "output", "representation")]


def gradient(model, inputs, target):
    return methods["gradient"]()(model, inputs, target).values


class Recorded:
    """A method that keeps the inputs it explains."""

    def __init__(self):
        self.inputs = []

    def __call__(self, model, inputs, target):
        self.inputs.append(inputs)
        return gradient(model, inputs, target)


def measured(name, model, inputs, **settings):
    recorded, target = Recorded(), model(inputs).argmax(-1)
    given = gradient(model, inputs, target)
    found = metrics[name](**settings)(model, inputs, given, method=recorded)
    return found, recorded.inputs, given, target


def test_sensitivity_draws_neighbours_uniformly_in_ball(small_net, images):
    found, neighbours, *_ = measured("max_sensitivity", small_net, images, radius=0.1, samples=6)
    assert len(neighbours) == 6
    shifts = torch.stack(neighbours) - images
    assert float(shifts.abs().max()) <= 0.1
    assert float(shifts.mean()) == pytest.approx(0, abs=2e-3)
    assert float(shifts.square().mean()) == pytest.approx(0.01 / 3, rel=0.02)
    assert torch.allclose(found.details["distance"], shifts.flatten(2).norm(dim=2).T)


def test_sensitivity_equals_captum(small_net, images):
    found, neighbours, _, target = measured("max_sensitivity", small_net, images, samples=4)
    for row in range(len(images)):
        labels, near = target[row].repeat(4), torch.stack([points[row] for points in neighbours])
        expected = sensitivity_max(
            lambda given, labels=labels: (gradient(small_net, given[0], labels[: len(given[0])]),),
            (images[row : row + 1],),
            perturb_func=lambda *given, near=near: (near,),
            n_perturb_samples=4,
        )
        assert float(found.values[row]) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_sensitivity_equals_loop_over_neighbours(name, small_net, images):
    found, neighbours, given, target = measured(name, small_net, images, samples=3)
    for row in range(len(images)):
        ratios, slopes = [], []
        for neighbour in neighbours:
            after = gradient(small_net, neighbour[row : row + 1], target[row : row + 1])[0]
            moved = (after - given[row]).square().sum().sqrt()
            ratios.append(float(moved / given[row].square().sum().sqrt()))
            slopes.append(float(moved / (neighbour[row] - images[row]).square().sum().sqrt()))
        expected = {
            "max_sensitivity": max(ratios),
            "mean_sensitivity": sum(ratios) / 3,
            "local_lipschitz": max(slopes),
        }
        assert float(found.values[row]) == pytest.approx(expected[name], rel=1e-9)


class Quadratic(nn.Module):
    """The gradient is 3 x for the first class: its Lipschitz constant is 3 everywhere."""

    def forward(self, inputs):
        return torch.stack([1.5 * inputs.square().sum(1) + 9, torch.zeros_like(inputs[:, 0])], 1)


def test_lipschitz_constant_of_quadratic():
    inputs = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)).double()
    method = methods["gradient"](score="logit")
    found = LocalLipschitz()(Quadratic().eval(), inputs, 3 * inputs, method=method)
    assert torch.allclose(found.values, torch.full((3,), 3.0).double())


@pytest.mark.parametrize("name", [*NAMES, *RELATIVE])
def test_sensitivity_ranks_perfect_random_worst(name, images):
    """Lower is better: a map that stays, one that moves with its input, one that jumps."""
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(3 * 13 * 11, 4)).double())

    def staying(model, inputs, target):
        return images[: len(inputs)]

    def moving(model, inputs, target):
        return inputs.clone()

    def jumping(model, inputs, target):
        return inputs * (1 if torch.equal(inputs, images) else -1)

    values = [
        metrics[name]()(model, images, method(model, images, None), method=method).values
        for method in (staying, moving, jumping)
    ]
    assert metrics[name].card.higher_is_better is False
    assert torch.equal(values[0], torch.zeros(8).double())
    assert bool((values[0] < values[1]).all())
    assert bool((values[1] < values[2]).all())


@pytest.mark.parametrize("name", NAMES)
def test_sensitivity_on_batches_seeds_and_zero_maps(name, small_net, images):
    settings = {"samples": 2}
    method = methods["gradient"]()
    given = method(small_net, images)
    whole = metrics[name](**settings)(small_net, images, given, method=method, seed=3)
    for i in range(2):
        one = metrics[name](**settings)(
            small_net, images[i : i + 1], given.values[i : i + 1], method=method, seed=3
        )
        assert torch.equal(one.values, whole.values[i : i + 1])
    other = metrics[name](**settings)(small_net, images, given, method=method, seed=4)
    assert not torch.equal(whole.values, other.values)
    nothing = metrics[name](**settings)(
        small_net,
        images,
        torch.zeros_like(images),
        method=lambda model, inputs, target: torch.zeros_like(inputs),
    )
    assert nothing.values.isnan().all()


def test_sensitivity_declares_cost_and_needs(small_net, images):
    for kind in (MaxSensitivity, MeanSensitivity, LocalLipschitz):
        assert kind(samples=7).explanations == 7
        with pytest.raises(NotApplicableError, match="explains again"):
            kind()(small_net, images, images)
        with pytest.raises(UnilensError, match="expected radius"):
            kind(radius=0)
        with pytest.raises(UnilensError, match="expected samples"):
            kind(samples=0)
