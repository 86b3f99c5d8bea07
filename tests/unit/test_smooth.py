"""Stand-ins for kinks, against formulas by hand; and second derivatives that torch lacks."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from unilens import Evaluator, explain
from unilens._engine.score_gradient import ScoreGradient
from unilens._engine.smooth_activations import Smooth
from unilens.errors import UnilensError
from unilens.scores import probability

from ..conftest import SmallNet, randomise


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


def in_place(function):
    """A forward that ignores what the function gives: only the change in place is seen."""

    def run(inputs):
        changed = inputs.clone()
        function(changed)
        return changed

    return run


def soft(x, beta):
    return math.log1p(math.exp(-abs(x * beta))) / beta + max(x, 0.0)


FORMULAS = {
    "relu": lambda x, b: soft(x, b),
    "relu6": lambda x, b: soft(x, b) - soft(x - 6, b),
    "hardtanh": lambda x, b: -1 + soft(x + 1, b) - soft(x - 1, b),
    "clipped": lambda x, b: -0.5 + soft(x + 0.5, b) - soft(x - 2, b),
    "leaky": lambda x, b: 0.2 * x + 0.8 * soft(x, b),
    "hardsigmoid": lambda x, b: (soft(x + 3, b) - soft(x - 3, b)) / 6,
    "hardswish": lambda x, b: x * (soft(x + 3, b) - soft(x - 3, b)) / 6,
}
CALLS = [
    ("relu", nn.ReLU()),
    ("relu", functional.relu),
    ("relu", torch.relu),
    ("relu", torch.Tensor.relu),
    ("relu", in_place(nn.ReLU(inplace=True))),
    ("relu", in_place(torch.relu_)),
    ("relu", in_place(torch.Tensor.relu_)),
    ("relu", in_place(lambda x: functional.relu(x, True))),
    ("relu6", nn.ReLU6()),
    ("relu6", functional.relu6),
    ("relu6", in_place(nn.ReLU6(inplace=True))),
    ("relu6", in_place(lambda x: functional.relu6(x, inplace=True))),
    ("hardtanh", nn.Hardtanh()),
    ("hardtanh", in_place(functional.hardtanh_)),
    ("clipped", lambda x: functional.hardtanh(x, -0.5, 2.0)),
    ("clipped", lambda x: functional.hardtanh(input=x, min_val=-0.5, max_val=2.0)),
    ("clipped", in_place(lambda x: functional.hardtanh_(x, -0.5, 2.0))),
    ("leaky", nn.LeakyReLU(0.2)),
    ("leaky", in_place(nn.LeakyReLU(0.2, inplace=True))),
    ("leaky", in_place(lambda x: functional.leaky_relu_(x, 0.2))),
    ("leaky", nn.PReLU(init=0.2).double()),
    ("hardsigmoid", nn.Hardsigmoid()),
    ("hardsigmoid", in_place(nn.Hardsigmoid(inplace=True))),
    ("hardswish", nn.Hardswish()),
    ("hardswish", in_place(nn.Hardswish(inplace=True))),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_every_call_is_replaced_by_the_formula(number):
    name, call = CALLS[number]
    model = (call if isinstance(call, nn.Module) else Call(call)).requires_grad_(False)
    inputs = torch.linspace(-7, 7, 29).double()[None]
    for beta in (0.5, 3.0):
        expected = [FORMULAS[name](x, beta) for x in inputs[0].tolist()]
        found = Smooth(model.eval(), beta)(inputs)[0]
        assert torch.allclose(found, torch.tensor(expected).double(), atol=1e-8)
        assert float((found - model(inputs)[0]).abs().max()) > 0.01
    sharp = Smooth(model.eval(), 1e4)(inputs)
    assert torch.allclose(sharp, model(inputs), atol=1e-3)


def test_parametric_relu_has_a_slope_per_channel():
    model = nn.PReLU(2, init=0.0).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.0, 0.5]))
    inputs = torch.randn(3, 2, 4, dtype=torch.float64)
    assert torch.allclose(Smooth(model, 1e5)(inputs), model(inputs), atol=1e-4)


class Rectified(SmallNet):
    """Two kinks, one of them in place on what a skip connection uses too."""

    def forward(self, inputs):
        hidden = self.bn1(self.conv1(inputs))
        functional.relu6(hidden, inplace=True)
        hidden = torch.relu(self.bn2(self.conv2(hidden + hidden.mean(1, keepdim=True))))
        return self.head(4 * hidden.mean((2, 3)))


@pytest.fixture
def rectified():
    return randomise(Rectified().double()).requires_grad_(False)


def by_hand(model, inputs, beta):
    hidden = model.bn1(model.conv1(inputs))
    hidden = functional.softplus(hidden, beta) - functional.softplus(hidden - 6, beta)
    hidden = functional.softplus(model.bn2(model.conv2(hidden + hidden.mean(1, True))), beta)
    return model.head(4 * hidden.mean((2, 3)))


def test_an_evaluator_runs_the_stand_in(rectified, images):
    before = rectified(images)
    found = Evaluator(Smooth(rectified, 2.0))
    expected = by_hand(rectified, images, 2.0)
    assert torch.allclose(found(images), expected, atol=1e-10)
    assert float((expected - before).abs().max()) > 0.1
    assert torch.equal(rectified(images), before)
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(by_hand(rectified, leaf, 2.0)[:, 1].sum(), leaf)
    one = ScoreGradient(found, lambda outputs, target: outputs[:, 1], torch.ones(8).long())
    assert torch.allclose(one(images[None]).gradients[0], gradient, atol=1e-10)


@pytest.mark.parametrize("inside", [False, True])
def test_it_is_folded_and_stays_smooth(inside, images):
    """Sharp enough that a fold which lost the stand-ins would pass for the same function."""
    parts = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(4, 3)).double().requires_grad_(False)
    model = randomise(model)
    for beta in (2.0, 1e5):
        smooth = Smooth(model, beta)
        whole = nn.Sequential(nn.BatchNorm2d(3).double(), smooth).eval() if inside else smooth
        assert torch.allclose(Evaluator(whole)(images), whole(images), atol=1e-10)
        point = torch.zeros(1, 3, 13, 11).double()
        vectors = torch.ones_like(point)
        target = torch.zeros(1).long()
        found = ScoreGradient(Evaluator(whole), probability, target)
        product = found.hessian_vector(point[None], vectors[None])[0]
        assert torch.allclose(product, autograd_product(whole, point, vectors, 0), atol=1e-9)


def autograd_product(model, point, vector, target):
    leaf = point.clone().requires_grad_()
    value = model(leaf).softmax(-1)[:, target].sum()
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    return torch.autograd.grad((gradient * vector).sum(), leaf)[0]


def test_second_derivatives_of_the_stand_in(rectified, images):
    smooth, target = Smooth(rectified, 2.0), torch.zeros(2).long()
    points, vectors = images[:2], torch.randn(2, 3, 13, 11, dtype=torch.float64)
    gradient = ScoreGradient(Evaluator(smooth), probability, target)
    found = gradient.hessian_vector(points[None], vectors[None])[0]

    def forward(inputs):
        return by_hand(rectified, inputs, 2.0)

    expected = autograd_product(forward, points, vectors, 0)
    assert float(expected.abs().max()) > 1e-4
    assert torch.allclose(found, expected, atol=1e-9)


def test_maps_of_the_stand_in_can_be_differentiated(rectified, images):
    leaf = images[:1].clone().requires_grad_()
    found = explain(Smooth(rectified, 2.0), leaf, "ig", 0, n_steps=3, create_graph=True)
    assert torch.autograd.grad(found.values.square().sum(), leaf)[0].abs().max() > 0


def test_the_fast_path_of_transformers_is_seen():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    inputs = torch.rand(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        plain, smooth = layer(inputs), Smooth(layer, 1.0)(inputs)
        layer.activation = functional.softplus
        layer.activation_relu_or_gelu = 0
        assert torch.allclose(smooth, layer(inputs))
        assert not torch.allclose(smooth, plain)


class Hard(nn.Module):
    """Hard sigmoid and hard swish, as in MobileNetV3."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, inputs):
        hidden = functional.hardswish(4 * self.first(inputs))
        return self.last(hidden * functional.hardsigmoid(2 * hidden, inplace=True))


@pytest.fixture
def hard():
    return randomise(Hard().double()).requires_grad_(False)


def hard_by_hand(model, inputs):
    hidden = 4 * model.first(inputs)
    hidden = hidden * (hidden + 3).clamp(0, 6) / 6
    return model.last(hidden * (2 * hidden + 3).clamp(0, 6) / 6)


def test_hard_activations_have_exact_second_derivatives(hard):
    points = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    vectors = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()
    gradient = ScoreGradient(Evaluator(hard), probability, torch.ones(4).long())
    found = gradient.hessian_vector(points[None], vectors[None])[0]
    expected = autograd_product(lambda x: hard_by_hand(hard, x), points, vectors, 1)
    assert float(expected.abs().max()) > 1e-3
    assert torch.allclose(found, expected, atol=1e-10)


def test_maps_of_hard_activations_can_be_differentiated(hard):
    points = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)).double()
    leaf = points.clone().requires_grad_()
    found = explain(hard, leaf, "ig", 0, n_steps=3, create_graph=True)
    plain = explain(hard, points, "ig", 0, n_steps=3)
    assert torch.allclose(found.values, plain.values, atol=1e-12)
    assert torch.autograd.grad(found.values.square().sum(), leaf)[0].isfinite().all()


def test_it_copies_the_mode_of_its_model_and_can_be_copied(rectified):
    assert not Smooth(rectified).training
    assert Smooth(nn.ReLU()).training
    assert Evaluator(Smooth(Smooth(rectified), 3.0)).dtype is torch.float64


@pytest.mark.parametrize("beta", [0, -1.0, math.inf, math.nan, "ten", True])
def test_bad_beta(beta):
    with pytest.raises(UnilensError, match="expected beta above 0, got"):
        Smooth(nn.ReLU(), beta)


def test_there_are_no_subnormal_numbers():
    inputs = torch.linspace(-10, 0, 1001)
    found = Smooth(nn.ReLU(), beta=30.0)(inputs)
    assert float(found.min()) >= torch.finfo(torch.float32).tiny
    assert float((found - inputs.clamp_min(0)).abs().max()) <= math.log(2) / 30 + 1e-6
    assert float(found[:800].max()) < 1e-18


def test_bad_model():
    with pytest.raises(UnilensError, match="expected a module, got builtin_function"):
        Smooth(torch.relu)
