"""Attributions that can be differentiated, against finite differences."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from unilens import PathAttribution, explain
from unilens.baselines import Blur, Constant
from unilens.errors import UnilensError
from unilens.weightings import Gains

from ..conftest import randomise


class Smooth(nn.Module):
    """Two convolutions with tanh and a batch norm: twice differentiable everywhere."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(torch.tanh(self.norm(self.conv(inputs))).mean((2, 3)))


@pytest.fixture
def smooth():
    return randomise(Smooth().double())


@pytest.fixture
def small():
    return torch.rand(2, 2, 4, 5, generator=torch.Generator().manual_seed(2)).double()


CASES = {
    "ig": {},
    "ig from blur": {"baseline": "blur", "sigma": 1.0},
    "ig from several": {"baseline": "weighted", "baselines": ["white", "image_mean"]},
    "blur_ig": {"max_sigma": 2.0},
    "sig": {},
    "guided_ig": {"fraction": 0.3},
    "idgi": {},
    "idg": {"adaptive": False},
    "uni_blur": {},
    "uni": {},
    "agi": {"classes": 2, "iterations": 3},
    "mfaba": {"iterations": 4},
    "fringe_b": {"waypoints": 3},
}


SEARCHED = ("uni_blur", "uni", "agi", "mfaba", "fringe_b", "sig")


def differentiable(case, model, inputs, **more):
    name = case.split()[0]
    return explain(model, inputs, name, 0, n_steps=4, **CASES[case], create_graph=True, **more)


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_same_map(case, smooth, small):
    found = differentiable(case, smooth, small)
    plain = explain(smooth, small, case.split()[0], 0, n_steps=4, **CASES[case])
    assert torch.allclose(found.values, plain.values, rtol=1e-8, atol=1e-12)
    assert torch.allclose(found.score, plain.score)
    assert torch.allclose(found.baseline_score, plain.baseline_score)
    nested = {"sum_error", "sum_stability"}  # by every third node: without a graph alone
    assert set(found.diagnostics) == set(plain.diagnostics) - nested
    for name, value in found.diagnostics.items():
        assert torch.allclose(plain.diagnostics[name], value, atol=1e-8, equal_nan=True), name
        assert not value.requires_grad


@pytest.mark.parametrize("case", [case for case in CASES if case not in SEARCHED])
def test_its_derivative_in_the_inputs(case, smooth, small):
    """Those left out hold fixed what they have found, which differences move."""
    assert torch.autograd.gradcheck(
        lambda inputs: differentiable(case, smooth, inputs).values,
        small[:1].clone().requires_grad_(),
        fast_mode=True,
    )


@pytest.mark.parametrize("origin", ["input", "blur"])
def test_a_search_is_held_fixed(origin, smooth, small):
    """UNI's baseline moves with its origin as if the way between them were a constant."""
    leaf = small[:1].clone().requires_grad_()
    found = differentiable("uni_blur", smooth, leaf, origin=origin)
    (got,) = torch.autograd.grad(found.values.sin().sum(), leaf)

    def near(inputs):
        blur = Blur()(None, inputs, None, generator=None)
        return inputs if origin == "input" else blur

    way = explain(smooth, small[:1], "uni_blur", 0, origin=origin).baseline - near(small[:1])

    def shifted(model, inputs, target, *, generator):
        return near(inputs) + way

    method = PathAttribution(
        shifted, weighting=Gains(), rule="midpoint", n_steps=4, create_graph=True
    )
    (expected,) = torch.autograd.grad(method(smooth, leaf, 0).values.sin().sum(), leaf)
    assert torch.allclose(got, expected)


def test_singular_vectors_are_held_fixed(smooth, small):
    """With full overlap SIG is the straight line, and so is its derivative."""
    slopes = []
    for name, more in (("sig", {"overlap": 1}), ("ig", {"rule": "midpoint"})):
        leaf = small[:1].clone().requires_grad_()
        found = explain(smooth, leaf, name, 0, n_steps=4, create_graph=True, **more)
        slopes.append(torch.autograd.grad(found.values.sin().sum(), leaf)[0])
    assert torch.allclose(slopes[0], slopes[1])


def test_its_derivative_in_the_weights_is_left_in_the_users_model(smooth, small):
    def loss():
        return differentiable("ig", smooth, small).values.square().sum()

    loss().backward()
    got = smooth.conv.weight.grad[1, 0, 2, 1].item()
    with torch.no_grad():
        place = smooth.conv.weight.data[1, 0, 2]
        place[1] += 1e-6
        above = loss().item()
        place[1] -= 2e-6
        below = loss().item()
    assert got == pytest.approx((above - below) / 2e-6, rel=1e-5)
    assert all(value.grad is not None for value in smooth.parameters())


def test_its_derivative_in_the_baseline(smooth, small):
    base = torch.full_like(small[:1], 0.3).requires_grad_()

    def values(baseline):
        method = PathAttribution(lambda *_, **__: baseline, n_steps=4, create_graph=True)
        return method(smooth, small[:1], 0).values

    assert torch.autograd.gradcheck(values, base, fast_mode=True)


class Attention(nn.Module):
    """One head of fused attention over the columns of a signal."""

    def __init__(self, fused):
        super().__init__()
        self.embed = nn.Linear(3, 12)
        self.head = nn.Linear(4, 2)
        self.fused = fused

    def forward(self, inputs):
        q, k, v = self.embed(inputs.mT).unsqueeze(1).chunk(3, dim=-1)
        if self.fused:
            mixed = scaled_dot_product_attention(q, k, v)
        else:
            mixed = ((q @ k.mT) / 2).softmax(-1) @ v
        return self.head(mixed.squeeze(1).mean(1))


def test_fused_attention_gives_way_to_the_plain_kernel():
    inputs = torch.rand(2, 3, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    slopes = []
    for fused in (True, False):
        model = randomise(Attention(fused))
        found = explain(model, inputs, "ig", 0, n_steps=3, create_graph=True)
        slopes.append(torch.autograd.grad(found.values.square().sum(), inputs)[0])
    assert float(slopes[0].norm()) > 0
    assert torch.allclose(slopes[0], slopes[1], rtol=1e-4, atol=1e-7)


def test_the_model_stays_as_it_was(smooth, small):
    before = {name: value.clone() for name, value in smooth.state_dict().items()}
    found = differentiable("ig", smooth, small)
    assert found.values.requires_grad
    assert all(value.grad is None for value in smooth.parameters())
    assert all(torch.equal(value, before[name]) for name, value in smooth.state_dict().items())


def test_it_works_where_gradients_are_switched_off(smooth, small):
    with torch.no_grad():
        assert differentiable("ig", smooth, small).values.requires_grad


def test_settings_are_checked():
    with pytest.raises(UnilensError, match="create_graph true or false, got 1"):
        PathAttribution(Constant(), create_graph=1)
    assert PathAttribution(Blur()).create_graph is False
