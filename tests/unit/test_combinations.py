"""What fits together works, and what does not is refused in one line, before it runs."""

import copy

import pytest
import torch
from torch import nn

from unilens import Evaluator, PathAttribution, explain
from unilens._ops.correlation import spearman
from unilens.baselines import Blur, MaxEntropy, UniformNoise, Unlearned, Weighted, gaussian_blur
from unilens.errors import UnilensError
from unilens.methods import methods
from unilens.methods.path_diagnostics import stability
from unilens.paths import StraightLine, paths
from unilens.weightings import weightings

from ..conftest import SmallNet, randomise


@pytest.fixture
def net():
    return randomise(SmallNet())


@pytest.fixture
def inputs():
    return torch.rand(2, 3, 13, 11, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("weighting", weightings)
@pytest.mark.parametrize("path", paths)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_any_path_with_any_weighting(path, weighting, n_steps, net, inputs):
    baseline = {"trajectory": {"baseline": "adversarial", "classes": 2}}.get(path, {})
    found = explain(net, inputs, "ig", path=path, weighting=weighting, n_steps=n_steps, **baseline)
    assert found.values.isfinite().all()
    assert float(found.values.abs().max()) > 0
    assert found.complete == (weighting != "idg")
    assert found.completeness_gap.isnan().any() == (weighting == "idg")
    assert ("completeness_gap" in found.diagnostics) == found.complete


PATH_METHODS = [name for name in methods if "create_graph" in methods[name].settings_with({})]
PATH_METHODS = [name for name in PATH_METHODS if "inner" not in methods[name].settings]


@pytest.mark.slow
@pytest.mark.parametrize("name", PATH_METHODS)
def test_stability_of_every_path_method(name, net, inputs):
    few = {
        "agi": {"classes": 2},
        "ig2": {"iterations": 3, "references": 6 * torch.rand(6, 3, 13, 11) - 3},
    }
    few = few.get(name, {})
    method = methods[name](n_steps=4, **few)
    found = method(net, inputs)
    measured = stability(method, net, inputs, found, steps=(1, 4, 6))
    assert set(measured) == {"stability_1_6", "stability_4_6"}
    again = methods[name](n_steps=6, **few)(net, inputs).values.abs().sum(1)
    expected = spearman(found.values.abs().sum(1).flatten(1), again.flatten(1))
    assert torch.allclose(measured["stability_4_6"], expected)


WRONG = {
    "a class for a baseline": ("ig", {"baseline": Blur}, r"got the class Blur; write Blur\(...\)"),
    "a class for a path": ("ig", {"path": StraightLine}, "got the class StraightLine"),
    "a tensor for a baseline": (
        "ig",
        {"baseline": torch.zeros(3)},
        "unilens.baselines, got Tensor",
    ),
    "a class to hide with": ("occlusion", {"baseline": Blur}, "got the class Blur"),
    "no trajectory": (
        "ig",
        {"path": "trajectory", "baseline": "unlearned"},
        "that keeps its trajectory",
    ),
    "one that walks and one that does not": (
        "ig",
        {"path": "trajectory", "baseline": "weighted", "baselines": ["adversarial", "black"]},
        "that keeps its trajectory",
    ),
    "two baselines of their own": (
        "uni_blur",
        {"path": "blur"},
        "a path without a baseline for uni",
    ),
    "several to hide with": ("rise", {"baseline": "adversarial"}, "one baseline per input, got 20"),
    "several for a rule": ("deeplift", {"baseline": "weighted"}, "one baseline per input, got 3"),
    "a switch": ("gradcam", {"relu": "no"}, "expected relu true or false, got 'no'"),
    "another switch": ("idg", {"adaptive": 3}, "expected adaptive true or false, got 3"),
    "a third": ("rise", {"centred": "no"}, "expected centred true or false"),
    "a layer": ("gradcam", {"layer": 3}, "expected layer to be the name of a module, got 3"),
    "weights": ("ig", {"baseline": "weighted", "weights": 3}, "numbers, none negative .* got 3"),
    "infinity": ("ig", {"baseline": "weighted", "weights": [1, 2, torch.inf]}, "none negative"),
    "parts": ("ig", {"baseline": "weighted", "baselines": [1, 2]}, "unilens.baselines, got int"),
    "smoothing what is smooth": ("smoothgrad", {"inner": "vargrad"}, "a method without smoothing"),
    "a graph through noise": (
        "smoothgrad",
        {"inner": "ig", "create_graph": True},
        "without create_graph",
    ),
    "a name that two have": (
        "smoothgrad",
        {"inner": "ig", "baseline": "gaussian_noise", "std": 0.1},
        "settings of either smoothgrad or its inner method, got std of both",
    ),
    "references that are not numbers": (
        "expected_gradients",
        {"references": torch.full((2, 3, 13, 11), torch.nan)},
        "expected finite references",
    ),
    "a prior": (
        "uni_blur",
        {"matching_target": "prior", "class_prior": "a"},
        r"tensor \(K,\) or a list of numbers, got 'a'",
    ),
    "a blur wider than any image": ("blur_ig", {"max_sigma": 1e9}, "at most 208 pixels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(case, net, inputs):
    name, settings, message = WRONG[case]
    with pytest.raises(UnilensError, match=message) as caught:
        explain(net, inputs, name, **settings)
    assert "\n" not in str(caught.value)


def test_a_prior_may_be_a_list(net, inputs):
    prior = [0.1, 0.2, 0.3, 0.2, 0.2]
    listed = explain(net, inputs, "uni_blur", matching_target="prior", class_prior=prior)
    tensor = explain(
        net, inputs, "uni_blur", matching_target="prior", class_prior=torch.tensor(prior)
    )
    assert torch.allclose(listed.values, tensor.values, rtol=1e-3)


def test_differences_that_vanish_in_half_precision_are_not_divided_by(net, inputs):
    half = copy.deepcopy(net).half()
    with pytest.raises(UnilensError, match=r"vanish in float16; use model.float\(\)"):
        explain(half, inputs.half(), "deeplift")
    assert explain(net, inputs, "deeplift").values.isfinite().all()


@pytest.mark.parametrize("kind", [Unlearned, MaxEntropy])
def test_searches_of_different_length_side_by_side(kind, net, inputs):
    key = "matching_steps" if kind is Unlearned else "iterations"
    several = Weighted([kind(**{key: 2}), kind(**{key: 3})])
    found = PathAttribution(several, n_steps=2)(net, inputs)
    assert dict(found.record) == {}
    alike = PathAttribution(Weighted([kind(**{key: 2}), kind(**{key: 2})]), n_steps=2)(net, inputs)
    assert all(value.shape[:2] == (2, 2) for value in alike.record.values())
    assert len(alike.record) == 1


class Step(nn.Module):
    """A steep sigmoid of the sum: where its slope is depends on the input."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, inputs):
        total = inputs.flatten(1).sum(1)
        return torch.stack([10 * torch.sigmoid(self.scale * (total - 2)), 0 * total], dim=1)


def test_nodes_of_an_inputs_own_do_not_mix_in_its_diagnostics():
    model = Evaluator(Step().eval())
    rows = torch.tensor([[1.5, 1.5], [-0.5, -0.6], [3.0, -0.5], [20.0, 20.0]])
    together = explain(model, rows, "idg", 0, n_steps=5, score="logit")
    for i in range(4):
        alone = explain(model, rows[i : i + 1], "idg", 0, n_steps=5, score="logit")
        for name, value in together.diagnostics.items():
            own = alone.diagnostics[name]
            assert torch.allclose(value[i : i + 1], own, 0, 0, equal_nan=True), name
        assert torch.equal(alone.trace.fraction[:, 0], together.trace.fraction[:, i])


def test_several_baselines_each_with_nodes_of_its_own():
    model, rows = Step().eval(), torch.tensor([[1.5, 1.5]])
    names = ["black", "grey", "white"]
    each = [explain(model, rows, "idg", 0, baseline=name, n_steps=5) for name in names]
    found = explain(model, rows, "idg", 0, baseline="weighted", baselines=names, n_steps=5)
    assert torch.allclose(found.values, sum(one.values for one in each) / 3)
    assert torch.equal(found.trace.fraction, each[0].trace.fraction)
    ends = torch.stack([one.trace.score[[0, -1]] for one in each]).mean(0)
    assert torch.allclose(found.trace.score[[0, -1]], ends)


def test_a_constant_image_has_a_spectrum_that_can_be_differentiated(inputs):
    model = randomise(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(198, 3)))
    flat = torch.full_like(inputs, 0.7).requires_grad_()
    found = explain(model, flat, "sig", n_steps=4, create_graph=True)
    (slope,) = torch.autograd.grad(found.values.square().sum(), flat)
    assert slope.isfinite().all()
    assert float(slope.abs().max()) > 0


def test_several_noises_are_drawn_apart(images):
    model, target = Evaluator(SmallNet().double().eval()), torch.zeros(8, dtype=torch.long)
    seeded = torch.Generator().manual_seed(3)
    drawn = Weighted(("uniform_noise",) * 3)(model, images, target, generator=seeded)
    first, second, third = (one.values for one in drawn)
    alone = UniformNoise()(model, images, target, generator=seeded)
    assert torch.equal(first, alone)
    for one, other in ((first, second), (second, third), (first, third)):
        rows = torch.stack([one.flatten(1), other.flatten(1)], 1)
        assert max(abs(float(torch.corrcoef(pair)[0, 1])) for pair in rows) < 0.2


def test_a_blur_made_in_inference_mode_can_be_differentiated_through(images):
    with torch.inference_mode():
        gaussian_blur(images, torch.tensor([1.37]))
    leaf = images.clone().requires_grad_()
    gaussian_blur(leaf, torch.tensor([1.37])).square().sum().backward()
    assert leaf.grad.abs().sum() > 0


def test_a_table_that_is_transposed_is_explained_without_a_word():
    table = torch.rand(6, 4).T
    model = randomise(nn.Sequential(nn.Linear(6, 3))).eval()
    found = explain(model, table, "guided_ig", n_steps=4)
    assert torch.allclose(
        found.values, explain(model, table.contiguous(), "guided_ig", n_steps=4).values
    )


def test_noise_of_an_origin_is_not_that_of_the_next_baseline(images):
    model, target = Evaluator(SmallNet().double().eval()), torch.zeros(8, dtype=torch.long)
    searched = Unlearned(origin=["black", "uniform_noise"], matching_steps=0)
    seeded = torch.Generator().manual_seed(3)
    _, second, third = Weighted((searched, UniformNoise()))(model, images, target, generator=seeded)
    assert not torch.allclose(second.values, third.values, atol=0.1)
