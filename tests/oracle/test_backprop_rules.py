"""DeepLIFT, guided backpropagation and deconvolution against captum and against slow replicas."""

import warnings

import captum.attr
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from unilens import Evaluator, UnilensError, explain
from unilens._engine.calls import ModelCalls
from unilens.errors import NotApplicableError
from unilens.methods import methods

from ..conftest import randomise

RULES = {"guided_backprop": "GuidedBackprop", "deconvolution": "Deconvolution"}


def by_captum(name, model, inputs, target, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = inputs.clone().requires_grad_()
        found = getattr(captum.attr, name)(model).attribute(given, target=target, **settings)
    return found.detach()


def one_by_one(name, model, inputs, target, baseline):
    """In a batch, captum's rule for max pooling mixes the rows: see below."""
    pairs = zip(inputs.split(1), target, strict=True)
    return torch.cat(
        [by_captum(name, model, x, int(t), baselines=baseline[None]) for x, t in pairs]
    )


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def distinct():
    """A model as captum wants it: every activation a module that runs once, and none after another.

    Where a max pooling follows a ReLU, captum's hooks share a tensor: the ReLU takes what comes
    back before the rule of the max pooling has changed it.
    """
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 8, 3), nn.ELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8)]
    layers += [nn.Softplus()]
    return randomise(nn.Sequential(*layers, nn.Linear(8, 4)).double())


class Residual(nn.Module):
    """Blocks as in residual networks, before and after their ReLUs, which are shared."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.conv3, self.conv4 = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.relu, self.relu6 = nn.ReLU(inplace=True), nn.ReLU6(inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs):
        hidden = self.relu(self.stem(inputs))
        hidden = functional.max_pool2d(hidden, 3, 2, 1)
        within = self.conv2(self.relu(self.conv1(hidden)))
        hidden = self.relu(within + hidden)
        hidden = hidden + self.conv3(functional.relu(hidden - 0.3))
        hidden = hidden + functional.hardtanh(self.conv4(self.relu6(3 * hidden)))
        return self.head(hidden.mean((2, 3)))


@pytest.fixture
def residual():
    return randomise(Residual().double())


class SlowMlp:
    """Three layers of weights, and the rules written out."""

    def __init__(self):
        self.model = randomise(
            nn.Sequential(
                *(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 3))
            ).double()
        )
        self.layers = [self.model[i] for i in (0, 2, 4)]

    def before(self, x):
        """The inputs of the two ReLUs."""
        first = self.layers[0](x)
        return first, self.layers[1](first.clamp(min=0))

    def back(self, x, target, rule):
        """The multipliers of x, each ReLU's from those of what it gives."""
        back = self.layers[2].weight[target]
        for layer, here in zip((1, 0), reversed(self.before(x)), strict=True):
            back = rule(here, back, layer) @ self.layers[layer].weight
        return back.detach()


def test_deeplift_equals_slow_rescale_rule():
    slow, inputs = SlowMlp(), torch.randn(4, 6).double()
    found = explain(slow.model, inputs, "deeplift", 2, baseline="constant", value=0.3)
    for x, ours, baseline in zip(inputs, found.values, found.baseline, strict=True):
        reference = slow.before(baseline)

        def rescale(here, back, layer, reference=reference):
            there = reference[layer]
            return back * (here.clamp(min=0) - there.clamp(min=0)) / (here - there)

        assert torch.allclose(ours, (x - baseline) * slow.back(x, 2, rescale), atol=1e-12)
    assert torch.equal(found.baseline, torch.full_like(inputs, 0.3))
    assert torch.allclose(found.baseline_score, slow.model(found.baseline)[:, 2])


@pytest.mark.parametrize("name", RULES)
def test_backprop_rules_equal_slow_rules(name):
    slow, inputs = SlowMlp(), torch.randn(4, 6).double()

    def rule(here, back, layer):
        return back.clamp(min=0) * (1 if name == "deconvolution" else (here > 0))

    found = explain(slow.model, inputs, name, 1, score="logit")
    for x, ours in zip(inputs, found.values, strict=True):
        assert torch.allclose(ours, slow.back(x, 1, rule), atol=1e-12)


def test_deeplift_equals_captum():
    model, inputs = distinct(), torch.rand(3, 3, 12, 12).double()
    target = torch.tensor([0, 2, 1])
    evaluator = Evaluator(model, memory_format="contiguous")  # ties in max pooling go by the layout
    found = explain(evaluator, inputs, "deeplift", target, baseline="white")
    theirs = one_by_one("DeepLift", model, inputs, target, torch.ones_like(inputs[0]))
    assert relative(found.values, theirs) < 1e-10
    references = torch.rand(4, 3, 12, 12).double()
    found = explain(evaluator, inputs, "deeplift_shap", target, references=references)
    maps = [one_by_one("DeepLift", model, inputs, target, r) for r in references]
    assert relative(found.values, torch.stack(maps).mean(0)) < 1e-10
    assert torch.allclose(found.baseline[0], references.mean(0))
    expected = torch.stack([model(references)[:, index].mean() for index in target])
    assert torch.allclose(found.baseline_score, expected)


def test_deeplift_shap_equals_captum_without_max_pooling():
    # Where an input of a max pooling is as in the reference, captum takes the gradient of the
    # batch's first row for all rows; one by one, each row is the first.
    model, inputs = distinct(), torch.rand(2, 3, 12, 12).double()
    model[4] = nn.AvgPool2d(2).eval()
    references = torch.rand(4, 3, 12, 12).double()
    found = explain(model, inputs, "deeplift_shap", 1, references=references)
    theirs = by_captum("DeepLiftShap", model, inputs, 1, baselines=references)
    assert relative(found.values, theirs) < 1e-10


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_backprop_rules_equal_captum(name, score):
    model, inputs = distinct(), torch.rand(3, 3, 12, 12).double()
    found = explain(model, inputs, name, 1, score=score)
    forward = nn.Sequential(model, nn.Softmax(-1)) if score == "probability" else model
    assert relative(found.values, by_captum(RULES[name], forward, inputs, 1)) < 1e-10


class _Guided(torch.autograd.Function):
    low, high = 0.0, torch.inf
    deconvolution = False

    @classmethod
    def forward(cls, ctx, inputs):
        ctx.save_for_backward(inputs)
        return inputs.clamp(cls.low, cls.high)

    @classmethod
    def backward(cls, ctx, gradient):
        (inputs,) = ctx.saved_tensors
        open_ = 1 if cls.deconvolution else (inputs > cls.low) & (inputs < cls.high)
        return gradient.clamp(min=0) * open_


class _Guided6(_Guided):
    high = 6.0


@pytest.mark.parametrize("name", RULES)
def test_backprop_rules_reach_shared_and_functional_relus(name, residual, monkeypatch):
    inputs = torch.rand(3, 3, 12, 12).double()
    ours = explain(residual, inputs, name, 1, score="logit").values
    monkeypatch.setattr(_Guided, "deconvolution", name == "deconvolution")
    monkeypatch.setattr(functional, "relu", lambda x, inplace=False: _Guided.apply(x))
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: _Guided.apply(x))
    monkeypatch.setattr(nn.ReLU6, "forward", lambda self, x: _Guided6.apply(x))
    given = inputs.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(residual(given)[:, 1].sum(), given)
    assert relative(ours, theirs) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_deeplift_is_complete_where_captum_is_not(residual, dtype):
    drawn = torch.rand(6, 3, 13, 12, generator=torch.Generator().manual_seed(0))
    model, inputs = residual.to(dtype), drawn[:3].to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for settings in ({"baseline": "white"}, {"references": drawn[3:]}):
        name = "deeplift" if "baseline" in settings else "deeplift_shap"
        found = explain(model, inputs, name, **settings)
        rounding = tolerance * found.values.abs().flatten(1).sum(1)  # of what adds up
        assert bool((found.completeness_gap.abs() < rounding).all())
        assert found.values.dtype == dtype


def test_deeplift_is_complete_on_a_resnet():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    for name, value in model.named_buffers():
        if "running" in name:
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value))
    inputs = torch.rand(1, 3, 96, 96)
    evaluator = Evaluator(model)
    found = explain(evaluator, inputs, "deeplift", baseline="white")
    change = float((found.score - found.baseline_score).abs())
    assert float(found.completeness_gap.abs()) < 1e-3 * change
    assert float(explain(evaluator, inputs, "guided_backprop").values.abs().max()) > 0


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.gate = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())

    def forward(self, inputs):
        hidden = self.layer(inputs).relu()
        return hidden * self.gate(hidden)


class Loop(nn.Module):
    """Runs one ReLU twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.act = nn.Linear(6, 6), nn.ReLU()

    def forward(self, inputs):
        for _ in range(2):
            inputs = self.act(self.layer(inputs))
        return inputs


REFUSED = {
    "gelu": (nn.GELU(), r"no rule for gelu in 1 \(GELU\)"),
    "silu": (nn.SiLU(), r"no rule for silu in 1 \(SiLU\)"),
    "layer norm": (nn.LayerNorm(6), r"no rule for layer_norm in 1 \(LayerNorm\)"),
    "group norm": (nn.GroupNorm(2, 6), r"no rule for group_norm in 1 \(GroupNorm\)"),
    "softmax": (nn.Softmax(-1), r"no rule for softmax in 1 \(Softmax\)"),
    "gate": (Gate(), r"no rule for mul in 1 \(Gate\)"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("method", ["deeplift", "deeplift_shap"])
def test_deeplift_refuses_operations_without_rule(case, method):
    part, named = REFUSED[case]
    model = nn.Sequential(nn.Linear(6, 6), part, nn.Linear(6, 3)).eval()
    settings = {"references": torch.rand(2, 6)} if method == "deeplift_shap" else {}
    with pytest.raises(NotApplicableError, match=named):
        explain(model, torch.rand(2, 6), method, **settings)
    with pytest.raises(NotApplicableError, match=named):
        methods[method](**settings).check(Evaluator(model), torch.rand(2, 6))


@pytest.mark.parametrize("name", RULES)
def test_backprop_rules_refuse_models_without_relus(name):
    model = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 3), nn.Tanh()).eval()
    expected = rf"{name} needs ReLU .* \(its activations: GELU, Tanh\); use method='gradient'"
    with pytest.raises(NotApplicableError, match=expected):
        explain(model, torch.rand(2, 6), name)
    model[3] = nn.ReLU().eval()  # the rule applies where there is one
    assert explain(model, torch.rand(2, 6), name).values.shape == (2, 6)


class Again(nn.Module):
    """Uses the input of an activation in place, which then is its output."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place

    def forward(self, inputs):
        hidden = inputs - 0.5
        if self.in_place:
            functional.relu(hidden, inplace=True)
            return hidden
        return functional.relu(hidden)


@pytest.mark.parametrize("name", ["deeplift", *RULES])
def test_backprop_rules_reach_in_place_activations(name):
    linear = [nn.Linear(6, 6), nn.Linear(6, 3)]
    pair = [nn.Sequential(linear[0], Again(way), linear[1]).eval() for way in (True, False)]
    inputs = torch.rand(2, 6)
    found, expected = (explain(model, inputs, name, 1).values for model in pair)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["deeplift", *RULES])
def test_backprop_rules_reach_modules_that_run_twice(name):
    layer = nn.Linear(6, 6)
    looped = nn.Sequential(layer, Loop(), nn.Linear(6, 3)).eval()
    inner = looped[1].layer
    flat = nn.Sequential(layer, inner, nn.ReLU(), inner, nn.ReLU(), looped[2]).eval()
    inputs = torch.randn(2, 6)
    found, expected = (explain(model, inputs, name, 1).values for model in (looped, flat))
    assert torch.allclose(found, expected, atol=1e-7)


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        ctx.save_for_backward(inputs)
        return inputs**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class Cubed(nn.Module):
    def forward(self, inputs):
        return _Cube.apply(inputs)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("method", ["deeplift", *RULES])
def test_backprop_rules_refuse_opaque_operations(method):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with pytest.raises(NotApplicableError, match="do not reach into TorchScript"):
        explain(torch.jit.script(model), torch.rand(2, 6), method)
    model[1] = Cubed().eval()
    expected = "no rule for _Cube, an autograd function" if method == "deeplift" else "needs ReLU"
    with pytest.raises(NotApplicableError, match=expected):
        explain(model, torch.rand(2, 6), method)


def test_backprop_rules_refuse_wrong_settings():
    model, inputs = nn.Linear(6, 3).eval(), torch.rand(2, 6)
    for method in ("deeplift", "deeplift_shap"):
        with pytest.raises(UnilensError, match="expected score to be one of logit"):
            explain(model, inputs, method, score="probability")
    with pytest.raises(UnilensError, match=r"deeplift_shap needs references=\(R, 6\)"):
        explain(model, inputs, "deeplift_shap")
    with pytest.raises(UnilensError, match=r"references of shape \(R, 6\), got \(2, 5\)"):
        explain(model, inputs, "deeplift_shap", references=torch.rand(2, 5))
    with pytest.raises(UnilensError, match="unknown setting of deeplift 'sigma'"):
        explain(model, inputs, "deeplift", sigma=3)
    with pytest.raises(UnilensError, match="expected baseline to be a function"):
        explain(model, inputs, "deeplift", baseline=3)


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.act, self.broken = nn.Linear(6, 3), nn.ReLU(), [False]

    def forward(self, inputs):
        hidden = self.act(self.layer(inputs))
        if self.broken[0]:
            raise RuntimeError("injected")
        return hidden


@pytest.mark.parametrize("method", ["deeplift", *RULES])
def test_backprop_rules_restore_model_after_failure(method, monkeypatch):
    model, inputs = Fails().eval(), torch.rand(2, 6)
    evaluator = Evaluator(model)
    expected = explain(evaluator, inputs, method, 1).values
    before = [(dict(part._forward_hooks), sorted(vars(part))) for part in model.modules()]
    original = ModelCalls.raw

    def fail(self, module, points, plan):
        module.broken[0] = True
        try:
            return original(self, module, points, plan)
        finally:
            module.broken[0] = False

    monkeypatch.setattr(ModelCalls, "raw", fail)
    with pytest.raises(UnilensError, match="injected"):
        explain(evaluator, inputs, method, 1)
    monkeypatch.undo()
    assert torch.equal(explain(evaluator, inputs, method, 1).values, expected)
    assert before == [(dict(part._forward_hooks), sorted(vars(part))) for part in model.modules()]
