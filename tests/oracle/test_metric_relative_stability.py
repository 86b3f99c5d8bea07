"""Relative stability against Quantus and a slow replica, and on models whose maps are known."""

import math
import warnings

import numpy
import pytest
import torch
from torch import nn

from unilens import UnknownNameError, evaluate
from unilens.errors import NotApplicableError
from unilens.metrics import metrics

from .test_metric_mprt import InDouble
from .test_metric_sensitivity import Recorded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus")

NAMES = (
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
)


def gradient(model, inputs, target):
    leaf = inputs.detach().clone().requires_grad_()
    scores = model(leaf).gather(1, target.unsqueeze(1))
    return torch.autograd.grad(scores.sum(), leaf)[0]


class Noted(Recorded):
    def __call__(self, model, inputs, target):
        self.inputs.append(inputs)
        return gradient(model, inputs, target)


def measured(name, model, inputs, **settings):
    noted, target = Noted(), model(inputs).argmax(-1)
    given = gradient(model, inputs, target)
    found = metrics[name](**settings)(model, inputs, given, method=noted)
    return found, noted.inputs, given, target


def relative(before, after):
    pairs = zip(before.flatten().tolist(), after.flatten().tolist(), strict=True)
    return math.sqrt(sum(((new - old) / old) ** 2 for old, new in pairs if old))


def pooled(model, inputs):
    """What the head of the small network gets."""
    hidden = torch.tanh(model.bn1(model.conv1(inputs)))
    return 4 * torch.relu(model.bn2(model.conv2(hidden))).mean((2, 3))


@torch.no_grad()
def distance_by_hand(name, model, one, near):
    if name == "relative_input_stability":
        return relative(one, near)
    if name == "relative_output_stability":
        return float((model(near) - model(one)).square().sum().sqrt())
    return relative(pooled(model, one), pooled(model, near))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("radius", [0.02, 0.6])
def test_relative_stability_equals_slow_replica(name, radius, small_net, images):
    with torch.no_grad():  # so that neighbours of another class are near
        small_net.head.bias -= small_net(images).mean(0)
    images[0, :, 2] = 0  # left out: no change is relative to 0
    found, neighbours, given, target = measured(name, small_net, images, radius=radius, samples=4)
    assert len(neighbours) == 4
    for row in range(len(images)):
        one, label, values = images[row : row + 1], target[row : row + 1], []
        for near in (points[row : row + 1] for points in neighbours):
            if small_net(near).argmax() != label:
                continue
            moved = relative(given[row], gradient(small_net, near, label)[0])
            values.append(moved / distance_by_hand(name, small_net, one, near))
        expected = max(values, default=math.nan)
        assert float(found.values[row]) == pytest.approx(expected, rel=1e-9, nan_ok=True)
    kept = found.details["kept"].double().mean()
    assert radius == 0.02 or 0 < kept < 1


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "theirs", "settings"),
    [
        ("relative_input_stability", quantus.RelativeInputStability, {}),
        ("relative_output_stability", quantus.RelativeOutputStability, {}),
        (
            "relative_representation_stability",
            quantus.RelativeRepresentationStability,
            {"layer_names": ["inner.bn2"]},
        ),
    ],
)
def test_relative_stability_equals_quantus(name, theirs, settings, small_net, images):
    ours = {"layer": "bn2"} if settings else {}
    found, neighbours, given, target = measured(name, small_net, images, samples=3, **ours)
    turns = iter(neighbours)
    metric = theirs(
        nr_samples=3,
        normalise=False,
        abs=False,
        perturb_func=lambda arr, indices, **_: next(turns).numpy().reshape(arr.shape),
        disable_warnings=True,
        **settings,
    )
    expected = metric(
        model=InDouble(small_net).eval(),
        x_batch=images.numpy(),
        y_batch=target.numpy(),
        a_batch=given.numpy(),
        explain_func=lambda model, inputs, targets, **_: gradient(
            model, torch.as_tensor(inputs), torch.as_tensor(targets)
        ).numpy(),
        device="cpu",
    )
    assert found.details["kept"].all()
    numpy.testing.assert_allclose(found.values.numpy(), expected, rtol=1e-4)  # theirs in float32


class Quadratic(nn.Module):
    """The gradient of the first logit is 3 x, so that all relative changes are those of x."""

    def forward(self, inputs):
        return torch.stack([1.5 * inputs.square().sum(1) + 9, torch.zeros_like(inputs[:, 0])], 1)


def test_relative_input_stability_of_quadratic_is_one():
    inputs = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)).double()
    found = evaluate(Quadratic().eval(), inputs, 3 * inputs, NAMES[0], method=gradient, target=0)
    assert torch.allclose(found, torch.ones(3).double())


@pytest.mark.parametrize("name", NAMES)
def test_relative_stability_is_nan_where_undefined(name, small_net, images):
    maps = gradient(small_net, images, small_net(images).argmax(-1))
    maps[0], maps[1], images[2] = 0, 3, 0
    found = metrics[name](samples=2)(small_net, images, maps, method=gradient)
    black = name == "relative_input_stability"
    assert found.values.isnan().tolist() == [True, True, black] + [False] * 5
    if black:
        assert found.reasons[2] == metrics[name]().undefined_where


def test_relative_stability_refuses_layers_and_values_without_class(small_net, images):
    maps, name = torch.rand_like(images), NAMES[2]
    with pytest.raises(UnknownNameError, match="conv9"):
        evaluate(small_net, images, maps, name, method=gradient, layer="conv9")
    small_net.unused = nn.Identity().eval()
    with pytest.raises(NotApplicableError, match="expected layer 'unused' to be called"):
        evaluate(small_net, images, maps, name, method=gradient, layer="unused")
    with pytest.raises(NotApplicableError, match="expected outputs of classes"):
        evaluate(small_net, images, maps, NAMES[0], method=gradient, outputs="regression", target=0)
