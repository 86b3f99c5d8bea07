"""captum's own tools on our classes, and captum's methods against themselves as ours.

The contract of `attribute` is the one that captum's tests of its IntegratedGradients ask for, told
again: which models, which arguments and which shapes.
"""

import importlib
import sys
import types

import captum.attr
import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from captum.metrics import infidelity, sensitivity_max
from captum.testing.helpers.basic_models import (
    BasicModel,
    BasicModel2,
    BasicModel3,
    BasicModel4_MultiArgs,
    BasicModel5_MultiArgs,
    BasicModel6_MultiTensor,
    BasicModel_MultiLayer,
)
from torch import nn

import unilens
from unilens import PathAttribution, UnilensError
from unilens.interop import captum as ours
from unilens.interop.captum import IG, UNI, CaptumMethod, UnilensAttribution
from unilens.methods import Smoothed, methods
from unilens.multi_input import Frozen

from ..vit_models import TinyViT

FEW = {"n_steps": 20, "rule": "midpoint"}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double().eval()


@pytest.fixture
def inputs():
    return torch.rand(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def two(first, second):
    return torch.tensor(first), torch.tensor(second)


ONE_ROW = two([[1.5, 2.0, 34.3]], [[3.0, 3.5, 23.2]])
TWO_ROWS = two([[1.5, 2.0, 34.3], [3.4, 1.2, 2.0]], [[3.0, 3.5, 23.2], [2.3, 1.2, 0.3]])
LAYERED = two(
    [[1.5, 2.1, 1.9], [0.5, 0.0, 0.7], [1.5, 2.1, 1.1]],
    [[0.3, 1.9, 2.4], [0.5, 0.6, 2.1], [1.2, 2.1, 0.2]],
)
CASES = {
    "two inputs without features": (BasicModel2, (torch.tensor([3.0]), torch.tensor([1.0])), {}),
    "the same function, written otherwise": (
        BasicModel3,
        (torch.tensor([3.0]), torch.tensor([1.0])),
        {"baselines": (torch.tensor([0.0]), 0)},
    ),
    "one input without features": (BasicModel, torch.tensor([-1.0]), {"baselines": 0.00001}),
    "at its baseline": (BasicModel, torch.tensor([0.0]), {"baselines": torch.tensor([0.0])}),
    "an argument, baselines of both kinds": (
        BasicModel4_MultiArgs,
        ONE_ROW,
        {
            "baselines": (0.0, torch.zeros(1, 3)),
            "additional_forward_args": torch.arange(1.0, 4.0).reshape(1, 3),
        },
    ),
    "an argument with rows, and a number": (
        BasicModel4_MultiArgs,
        TWO_ROWS,
        {
            "baselines": (torch.full((2, 3), 0.1) * torch.tensor([[1.0], [2.0]]), 0.0),
            "additional_forward_args": (torch.arange(1.0, 7.0).reshape(2, 3), 1),
        },
    ),
    "a list and a number": (
        BasicModel5_MultiArgs,
        TWO_ROWS,
        {"baselines": (0.0, 0.00001), "additional_forward_args": ([2, 3], 1)},
    ),
    "a baseline of one row for two": (
        BasicModel5_MultiArgs,
        TWO_ROWS,
        {"baselines": (torch.zeros(1, 3), 0.00001), "additional_forward_args": ([2, 3], 1)},
    ),
    "two inputs without baselines": (
        BasicModel6_MultiTensor,
        two([[1.5, 2.0, 3.3]], [[3.0, 3.5, 2.2]]),
        {},
    ),
    "a batch": (BasicModel_MultiLayer, LAYERED[:1], {"target": 0}),
    "a batch of two inputs": (BasicModel_MultiLayer, LAYERED, {"target": 0}),
    "a target for each": (BasicModel_MultiLayer, LAYERED, {"target": torch.tensor([0, 1, 1])}),
    "targets in a list": (BasicModel_MultiLayer, LAYERED, {"target": [0, 1, 1]}),
}


def tensors(values):
    return values if isinstance(values, tuple) else (values,)


@pytest.mark.parametrize("case", CASES)
def test_ig_class_equals_captum(case):
    build, inputs, arguments = CASES[case]
    model = build().eval()
    ig = IG(model)
    values, delta = ig.attribute(inputs, **arguments, **FEW, return_convergence_delta=True)
    expected, gap = IntegratedGradients(model).attribute(
        inputs, **arguments, n_steps=20, method="riemann_middle", return_convergence_delta=True
    )
    assert type(values) is type(expected)
    for tensor, expected_tensor in zip(tensors(values), tensors(expected), strict=True):
        assert tensor.shape == expected_tensor.shape
        torch.testing.assert_close(tensor, expected_tensor, rtol=1e-4, atol=1e-5)
    assert delta.shape == (len(tensors(inputs)[0]),)
    torch.testing.assert_close(delta.float(), gap.float(), rtol=1e-3, atol=1e-4)
    bare = ig.attribute(inputs, **arguments, **FEW)
    assert all(map(torch.equal, tensors(bare), tensors(values)))


@pytest.mark.parametrize("case", CASES)
def test_delta_equals_captum(case):
    build, inputs, arguments = CASES[case]
    ig = IG(build().eval())
    values, delta = ig.attribute(inputs, **arguments, **FEW, return_convergence_delta=True)
    beside = {k: v for k, v in arguments.items() if k != "baselines"}
    several = tensors(inputs)
    starts = arguments.get("baselines", tuple(0 for _ in several))
    outside = ig.compute_convergence_delta(values, starts, inputs, **beside)
    torch.testing.assert_close(delta.float(), outside.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("case", CASES)
def test_noise_tunnel_with_tiny_noise_equals_attribution(case, kind):
    build, inputs, arguments = CASES[case]
    ig = IG(build().eval())
    tunnel = NoiseTunnel(ig)
    assert tunnel.multiplies_by_inputs
    found, delta = tunnel.attribute(
        inputs,
        nt_type=kind,
        nt_samples=4,
        stdevs=2e-8,
        nt_samples_batch_size=3,
        return_convergence_delta=True,
        **arguments,
        **FEW,
    )
    assert delta.shape == (4 * len(tensors(inputs)[0]),)
    plain = tensors(ig.attribute(inputs, **arguments, **FEW))
    change = {
        "smoothgrad": lambda values: values,
        "smoothgrad_sq": torch.square,
        "vargrad": torch.zeros_like,
    }[kind]
    for tensor, values in zip(tensors(found), plain, strict=True):
        torch.testing.assert_close(tensor, change(values), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("at_once", [None, 1, 10, 20])
@pytest.mark.parametrize("case", ["a batch", "a batch of two inputs"])
def test_batch_equals_loop_for_any_internal_batch_size(case, at_once):
    build, inputs, arguments = CASES[case]
    ig = IG(build().eval())
    settings = {**arguments, **FEW, "internal_batch_size": at_once}
    values, delta = ig.attribute(inputs, return_convergence_delta=True, **settings)
    for row in range(3):
        single = tuple(tensor[row : row + 1] for tensor in inputs)
        alone, gap = ig.attribute(single, return_convergence_delta=True, **settings)
        assert torch.equal(gap[0], delta[row])
        for tensor, single_tensor in zip(values, alone, strict=True):
            assert torch.equal(tensor[row], single_tensor[0])


def test_internal_batch_size_bounds_passes(network, inputs):
    seen = types.ModuleType("seen")  # a list would be copied, and what it got be put back
    seen.rows = []

    def forward(values):
        seen.rows.append(len(values))
        return network(values)

    IG(forward).attribute(inputs, target=0, internal_batch_size=7, n_steps=30)
    assert max(seen.rows) == 7


def test_equivalent_functions_have_equal_attributions():
    inputs = (torch.tensor([3.0]), torch.tensor([1.0]))
    for build in (BasicModel2, BasicModel3):  # relu(relu(3) - 1 - relu(1)): the paper's example
        first, second = IG(build().eval()).attribute(inputs, n_steps=2000, rule="midpoint")
        torch.testing.assert_close(first, torch.tensor([1.5]), rtol=1e-2, atol=0)
        torch.testing.assert_close(second, torch.tensor([-0.5]), rtol=1e-2, atol=0)


def test_uni_class_equals_method_with_logit_score(network, inputs):
    values, delta = UNI(network).attribute(inputs, target=1, return_convergence_delta=True)
    expected = unilens.explain(network, inputs, "uni", 1, score="logit")
    assert torch.equal(values, expected.values)
    assert torch.equal(delta, -expected.completeness_gap)
    asked = UNI(network, score="probability").attribute(inputs, target=1)
    assert torch.equal(asked, unilens.explain(network, inputs, "uni", 1).values)


def test_uni_class_on_tuple_equals_method_on_several_inputs(network, inputs):
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, first, second, factor):
            return self.network(torch.cat([first, second], 1)) * factor.unsqueeze(1)

    parts, factor = (inputs[:, :2], inputs[:, 2:]), torch.tensor([1.0, 2.0, 1.0, 0.5])
    model = TwoInputs().eval()
    found = UNI(model).attribute(parts, target=2, additional_forward_args=factor)
    expected = unilens.explain(model, (*parts, Frozen(factor)), "uni", 2, score="logit")
    assert all(map(torch.equal, found, expected.values[:2]))
    assert len(found) == 2


def test_captum_infidelity_of_uni_is_zero_on_linear_model(inputs):
    torch.manual_seed(2)
    linear = nn.Linear(6, 3).double().eval()
    values = UNI(linear).attribute(inputs, target=1)
    shift = inputs - unilens.explain(linear, inputs, "uni", 1, score="logit").baseline

    def perturb(points):
        noise = 0.1 * torch.randn_like(points)
        return noise, points - noise

    gradient = values / shift  # of a linear model: its weights
    assert infidelity(linear, perturb, inputs, gradient, target=1).max() < 1e-20
    assert infidelity(linear, perturb, inputs, -gradient, target=1).min() > 1e-4


def test_captum_sensitivity_runs_on_uni(network, inputs):
    uni = UNI(network)
    torch.manual_seed(0)
    measured = sensitivity_max(uni.attribute, inputs, target=1, n_perturb_samples=3)
    assert measured.shape == (4,)
    assert measured.min() > 0
    assert measured.max() < 1
    still = sensitivity_max(uni.attribute, inputs, target=1, perturb_radius=0.0)
    assert still.max() == 0


def test_captum_noise_tunnel_runs_on_uni(network, inputs):
    found = NoiseTunnel(UNI(network)).attribute(inputs, nt_samples=2, stdevs=1e-12, target=1)
    torch.testing.assert_close(
        found, UNI(network).attribute(inputs, target=1), rtol=1e-6, atol=1e-9
    )


NAMES = {
    ours.UNI: "uni",
    ours.UNIBlur: "uni_blur",
    ours.UNIPaper: "uni_paper",
    ours.IG: "ig",
    ours.GuidedIG: "guided_ig",
    ours.BlurIG: "blur_ig",
    ours.SIG: "sig",
    ours.AGI: "agi",
    ours.MFABA: "mfaba",
    ours.IG2: "ig2",
    ours.FRInGeB: "fringe_b",
    ours.IDGI: "idgi",
    ours.IDG: "idg",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_class_equals_its_method(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Softplus(), nn.Linear(8, 3))
    model, images = model.double().eval(), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    settings = {"references": 20 * torch.randn(6, 3, 4, 4).double()} if kind is ours.IG2 else {}
    method = kind(model, **settings)
    expected = unilens.explain(model, images, NAMES[kind], [0, 2], score="logit", **settings)
    assert torch.equal(method.attribute(images, target=[0, 2]), expected.values)
    if not settings:  # references of several inputs would be several too
        assert torch.equal(method.attribute((images,), target=[0, 2])[0], expected.values)
    assert method.has_convergence_delta() == expected.complete
    assert isinstance(method, captum.attr.Attribution)


def test_classes_cover_all_path_methods():
    paths = {name for name in methods if methods[name].card.family in ("path", "unlearning")}
    assert set(NAMES.values()) == paths


def test_class_takes_any_method_by_name(network, inputs):
    rows = UnilensAttribution(network, "occlusion").attribute(inputs, target=0)
    assert torch.equal(rows, unilens.explain(network, inputs, "occlusion", 0, score="logit").values)
    assert not UnilensAttribution(network, "occlusion").has_convergence_delta()


@pytest.mark.parametrize("name", ["expected_gradients", "deeplift_shap", "deeplift", "neutral"])
def test_complete_method_without_path_has_delta(inputs, name):
    torch.manual_seed(0)
    binary = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).double().eval()
    references = {} if name == "deeplift" else {"references": torch.rand(5, 6).double()}
    method = UnilensAttribution(binary, name, **references)
    values, delta = method.attribute(inputs, target=1, return_convergence_delta=True)
    found = unilens.explain(binary, inputs, name, 1, **method.settings)
    gap = found.baseline_score + values.sum(1) - found.score
    torch.testing.assert_close(delta, gap, rtol=0, atol=1e-12, check_dtype=False)
    assert method.multiplies_by_inputs


@pytest.mark.parametrize("name", methods)
def test_method_complete_equals_that_of_attribution(name):
    torch.manual_seed(0)
    kernels = [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()]
    pictures = name != "neutral"
    binary = nn.Sequential(*(kernels if pictures else [nn.Flatten()]), nn.LazyLinear(2))
    images = torch.rand(2, 1, 6, 5)
    if "attention" in methods[name].card.traits:
        binary, images = TinyViT((8, 8)), torch.rand(2, 3, 8, 8)
    binary.double().eval()(images.double())
    known = methods[name].settings_with({})
    few = {"n_masks": 4, "n_samples": 2, "n_steps": 3, "designs": 2, "cells": 2}
    settings = {key: value for key, value in few.items() if key in known}
    if "references" in known:
        settings["references"] = torch.rand(3, 1, 6, 5).double()
    explainer = methods[name](**settings)
    assert explainer.complete == explainer(binary, images.double(), 1).complete


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_smoothing_keeps_baselines_with_their_rows(inputs, rows):
    linear, compared = nn.Linear(6, 3).double().eval(), torch.rand(4, 6, dtype=torch.float64)
    smooth = UnilensAttribution(linear, "smoothgrad", inner="ig", n_samples=9, std=1e-9)
    found = smooth.attribute(inputs[:rows], compared[:rows], target=1)
    expected = linear.weight[1].detach() * (inputs - compared)[:rows]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_outputs_with_more_dimensions_take_tuple_targets(network, inputs):
    class Grid(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, values):
            outputs = self.network(values)
            return torch.stack([outputs, 2 * outputs], 2)

    grid = Grid().eval()
    plain = IG(network).attribute(inputs, target=[2, 0, 1, 1])
    places = [(2, 1), (0, 1), (1, 1), (1, 1)]
    torch.testing.assert_close(IG(grid).attribute(inputs, target=places), 2 * plain)
    one = IG(grid).attribute(inputs, target=(2, 0))
    torch.testing.assert_close(one, IG(network).attribute(inputs, target=2))


def test_bound_method_uses_weights_of_its_module(network, inputs):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def logits(self, values):
            return self.network(values)

    named = Named().eval()
    found = UNI(named.logits).attribute(inputs, target=1)
    assert torch.equal(found, UNI(network).attribute(inputs, target=1))


WRONG = {
    "no target": (lambda m, x: IG(m).attribute(x), r"expected a target.*\(\d+, 3\); pass target="),
    "integers": (lambda m, x: IG(m).attribute(x.long(), target=0), "got torch.int64; pass"),
    "training": (lambda m, x: IG(m.train()).attribute(x, target=0), "call model.eval"),
    "a place outside": (
        lambda m, x: IG(m).attribute(x, target=(3,)),
        r"outputs of shape \(B, 3\), got \(3,\)",
    ),
    "two baselines": (
        lambda m, x: IG(m).attribute(x, (0, 0), target=0),
        "one baseline for each of 1 inputs, got 2",
    ),
    "a baseline of uni": (
        lambda m, x: UNI(m).attribute(x, 0.0, target=0),
        "unknown setting of uni 'baseline'",
    ),
    "no weights": (
        lambda m, x: UNI(lambda values: m(values)).attribute(x, target=0),
        "a model with weights to unlearn",
    ),
    "a setting": (lambda m, x: IG(m, steps=3), "unknown setting of ig 'steps'"),
    "a method": (lambda m, x: UnilensAttribution(m, "igg"), "unknown method 'igg'"),
    "a delta": (
        lambda m, x: ours.IDG(m).attribute(x, target=0, return_convergence_delta=True),
        "whose values add up",
    ),
    "rows": (
        lambda m, x: IG(lambda v, w: m(v)).attribute(
            x, target=0, additional_forward_args=torch.rand(3)
        ),
        "one row per input, all of the same B",
    ),
    "a layer of captum's": (
        lambda m, x: CaptumMethod(lambda n: captum.attr.LayerConductance(n, n[0]))(m, x, 0),
        r"expected attributions of the inputs' shape \(1, 6\), got \(1, 16\)",
    ),
    "an argument of captum's": (
        lambda m, x: CaptumMethod(Saliency, {"steps": 3})(m, x, 0),
        r"Saliency could not explain an input of shape \(6,\): .*'steps'",
    ),
    "no class": (lambda m, x: CaptumMethod("saliency"), "a class of captum or a function"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_raise_one_line(case, network, inputs):
    run, message = WRONG[case]
    with pytest.raises(UnilensError, match=message) as caught:
        run(network, inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "arguments", "method"),
    [
        (IntegratedGradients, {"n_steps": 16, "method": "riemann_middle"}, "ig"),
        (captum.attr.InputXGradient, {}, "input_x_gradient"),
        (lambda model: Saliency(model), {"abs": False}, "gradient"),
    ],
)
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_wrapped_captum_method_equals_method(network, inputs, build, arguments, method, score):
    found = CaptumMethod(build, arguments, score)(network, inputs)
    settings = {"n_steps": 16, "rule": "midpoint"} if method == "ig" else {}
    expected = unilens.explain(network, inputs, method, score=score, **settings)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)
    assert torch.equal(found.score, expected.score)
    assert torch.equal(found.target, expected.target)


def test_wrapped_random_captum_method_depends_on_seed_and_input(network, inputs):
    method = CaptumMethod(captum.attr.ShapleyValueSampling, {"n_samples": 3})
    together, again = method(network, inputs, 1), method(network, inputs, 1)
    assert torch.equal(together.values, again.values)
    alone = method(network, inputs[2:3], 1)
    assert torch.equal(alone.values[0], together.values[2])
    assert not torch.equal(method(network, inputs, 1, seed=5).values, together.values)
    state = torch.random.get_rng_state()
    method(network, inputs, 1)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # captum says so
def test_wrapped_captum_method_with_hooks_leaves_model_unchanged(network, inputs):
    relu = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    CaptumMethod(captum.attr.DeepLift)(relu, inputs, 0)
    assert not any(part._forward_hooks or part._backward_hooks for part in relu.modules())
    assert all(parameter.requires_grad for parameter in relu.parameters())


def test_wrapped_captum_method_is_evaluated_and_smoothed(network, inputs):
    method = CaptumMethod(captum.attr.InputXGradient)
    found = method(network, inputs)
    judged = unilens.evaluate(network, inputs, found, "max_sensitivity", method=method)
    ours_ = methods["input_x_gradient"](score="logit")
    expected = unilens.evaluate(network, inputs, found.values, "max_sensitivity", method=ours_)
    torch.testing.assert_close(judged, expected, rtol=1e-9, atol=1e-12)
    smoothed = Smoothed(method, n_samples=3)(network, inputs)
    other = Smoothed(ours_, n_samples=3)(network, inputs)
    torch.testing.assert_close(smoothed.values, other.values, rtol=1e-9, atol=1e-12)


def test_wrapped_captum_method_explains_several_inputs(network, inputs):
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, first, second):
            return self.network(torch.cat([first, second], 1))

    parts = {"first": inputs[:, :2], "second": inputs[:, 2:]}
    found = CaptumMethod(captum.attr.InputXGradient)(TwoInputs().eval(), parts, 1).values
    whole = captum.attr.InputXGradient(network).attribute(inputs.clone().requires_grad_(), target=1)
    torch.testing.assert_close(torch.cat(list(found.values()), 1), whole.detach())


def test_several_inputs_equal_captum_tuples(network, inputs):
    def forward(first, second):
        return network(torch.cat([first, second], 1))

    class TwoInputs(nn.Module):
        def forward(self, first, second):
            return forward(first, second)

    parts = (inputs[:, :2], inputs[:, 2:])
    explain = PathAttribution(rule="midpoint", n_steps=16, score="logit")
    found = explain(TwoInputs().eval(), parts, 1)
    expected, delta = IntegratedGradients(forward).attribute(
        parts, target=1, n_steps=16, method="riemann_middle", return_convergence_delta=True
    )
    for tensor, expected_tensor in zip(found.values, expected, strict=True):
        torch.testing.assert_close(tensor, expected_tensor, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(-found.completeness_gap, delta, rtol=1e-6, atol=1e-12)


def test_missing_captum_names_package_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("unilens.interop.captum")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"run pip install 'unilens\[compare\]'"):
        importlib.import_module("unilens.interop.captum")
