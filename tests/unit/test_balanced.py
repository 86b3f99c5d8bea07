"""Balanced gradients on small models: the rules one by one, and what has none."""

import functools
import math
import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import unilens
from unilens.errors import NotApplicableError, UnilensError

ones = torch.ones(3, dtype=torch.float64)
EYE = torch.eye(8, dtype=torch.float64)


def linear(inputs, outputs):
    layer = nn.Linear(inputs, outputs, bias=False, dtype=torch.float64)
    nn.init.normal_(layer.weight)
    return layer


class Between(nn.Module):
    """A function between two linear layers without biases."""

    def __init__(self, function, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.function = linear(6, 8), linear(width, 3), function

    def forward(self, inputs):
        return self.last(self.function(self.first(inputs)))


def test_a_quantised_model_is_refused_by_what_it_is():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        with pytest.raises(NotApplicableError, match="quantised model; use a method without grad"):
            unilens.explain(quantised, torch.rand(2, 4), "balanced", target=0)


class Module(nn.Module):
    """Two linear layers without biases, and what a test makes of them."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.value, self.gate, self.last = linear(6, 8), linear(6, 8), linear(8, 3)
        self.run = forward

    def forward(self, inputs):
        return self.run(self, inputs)


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(3, 6, dtype=torch.float64)


def explained(model, inputs, **settings):
    return unilens.explain(model.eval(), inputs, "balanced", **settings)


def gap(model, inputs, **settings):
    attribution = explained(model, inputs, **settings)
    return attribution.diagnostics["relevance_gap"].abs().max() / attribution.score.abs().max()


def _root_overwritten(hidden):
    squashed = torch.tanh(hidden)
    hidden.add_(1.0)
    return squashed * squashed


WITHOUT_OFFSET = {
    "root overwritten": _root_overwritten,
    "gelu": functional.gelu,
    "gelu by tanh": lambda h: functional.gelu(h, approximate="tanh"),
    "gelu by hand": lambda h: 0.5 * h * (1 + torch.erf(h / math.sqrt(2))),
    "new gelu": lambda h: 0.5 * h * (1 + torch.tanh(0.8 * (h + 0.04 * torch.pow(h, 3.0)))),
    "quick gelu": lambda h: h * torch.sigmoid(1.702 * h),
    "silu": functional.silu,
    "silu in place": lambda h: functional.silu(h, inplace=True),
    "silu by hand": lambda h: h / (1 + torch.exp(-h)),
    "mish": functional.mish,
    "elu by position": lambda h: functional.elu(h, 0.5, True),
    "elu by hand": lambda h: torch.where(h > 0, h, torch.expm1(h)),
    "hard swish": functional.hardswish,
    "hard swish by hand": lambda h: h * functional.relu6(h + 3) / 6,
    "soft sign by hand": lambda h: h / (1 + h.abs()),
    "squared relu": lambda h: functional.relu(h) ** 2,
    "cube": lambda h: h * h * h,
    "logarithm": lambda h: torch.log(h.abs() + 1),
    "tanh in place": lambda h: torch.tanh_(h),
    "clamp": lambda h: h.clamp(-0.5, 0.5),
    "threshold": nn.Threshold(0.1, 0.0),
    "gated": lambda h: functional.glu(torch.cat([h, 2 * h], -1)),
}


@pytest.mark.parametrize("name", WITHOUT_OFFSET)
def test_activations_pass_their_value_over_their_input(name, inputs):
    function = WITHOUT_OFFSET[name]
    model = Between(function)
    attribution = explained(model, inputs, target=1)
    with torch.no_grad():
        hidden = model.first(inputs)
        factor = function(hidden.clone()) / hidden
        expected = (model.last.weight[1] * factor) @ model.first.weight * inputs
    torch.testing.assert_close(attribution.values, expected, rtol=1e-10, atol=1e-12)
    assert gap(model, inputs) < 1e-12


@pytest.mark.parametrize("function", [functional.softplus, torch.exp, torch.sigmoid, torch.cos])
def test_values_at_zero_count_as_biases(function, inputs):
    model = Between(function)
    attribution = explained(model, inputs, target=1)
    at_zero = function(torch.zeros(8, dtype=torch.float64)) @ model.last.weight[1]
    torch.testing.assert_close(attribution.diagnostics["relevance_gap"], at_zero.detach().expand(3))


@pytest.mark.parametrize("function", [functional.relu, functional.leaky_relu, nn.PReLU(), abs])
def test_networks_with_relu_keep_input_times_gradient(function, inputs):
    model = Between(function).double()
    plain = unilens.explain(model.eval(), inputs, "input_x_gradient", score="logit")
    assert torch.equal(explained(model, inputs).values, plain.values)


@pytest.mark.parametrize("function", [functional.gelu, functional.relu6, torch.sigmoid])
def test_slope_at_zero_is_the_derivative(function):
    model, inputs = Between(function).eval(), torch.zeros(1, 6, dtype=torch.float64)
    maps = [
        unilens.explain(model, inputs, "gradient", 1, score="logit", balanced=balanced).values
        for balanced in (True, False)
    ]
    torch.testing.assert_close(*maps)


NORMS = {
    "layer": nn.LayerNorm(8, elementwise_affine=False),
    "rms": nn.RMSNorm(8, elementwise_affine=False),
    "group": nn.GroupNorm(2, 8, affine=False),
    "instance": lambda h: nn.InstanceNorm1d(2)(h.view(-1, 2, 4)).flatten(1),
    "normalised": functional.normalize,
    "rms by hand": lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5),
    "layer by hand": lambda h: (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-5),
    "by largest": lambda h: h / h.abs().amax(-1, keepdim=True),
    "in place": lambda h: h.div_(h.norm(dim=-1, keepdim=True)),
}


@pytest.mark.parametrize("name", NORMS)
def test_deviations_are_constants(name, inputs):
    model = Between(NORMS[name])
    assert gap(model, inputs) < 1e-12
    with torch.no_grad():  # linear with a fixed deviation: a step changes the output in proportion
        hidden = model.first(inputs)
        deviation = (hidden / (NORMS[name](hidden.clone()))).abs().median(-1, keepdim=True).values
    if name in ("rms", "normalised", "rms by hand"):
        expected = (model.last.weight[1] / deviation) @ model.first.weight * inputs
        values = explained(model, inputs, target=1).values
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "product",
    [
        lambda model, x: model.last(model.value(x) * model.gate(x)),
        lambda model, x: model.last(model.value(x).mul_(model.gate(x))),
        lambda model, x: (
            functional.cosine_similarity(model.value(x), model.gate(x))[:, None] * ones
        ),
        lambda model, x: (
            functional.cosine_similarity(model.last(x[:, :3].repeat(1, 3)[:, :8]), ones)[:, None]
            * ones
        ),
        lambda model, x: torch.einsum("bi,bi->b", model.value(x), model.gate(x))[:, None] * ones,
        lambda model, x: (model.value(x)[:, None] @ model.gate(x)[:, :, None])[:, 0] * ones,
        lambda model, x: model.last(
            torch.einsum("bi,bi,bi->bi", model.value(x), model.gate(x), model.value(x).tanh())
        ),
        lambda model, x: model.last(
            torch.einsum("bi,bi,bi->bi", model.value(x), model.gate(x).sigmoid(), model.value(x))
        ),
        lambda model, x: model.last(torch.einsum("bi,ij->bj", model.value(x), EYE)),
        lambda model, x: model.last(torch.addmm(model.gate(x), model.value(x), EYE)),
        lambda model, x: model.last(torch.addcmul(model.gate(x), model.value(x), model.gate(x))),
        lambda model, x: model.last(torch.div(input=model.value(x), other=model.gate(x))),
        lambda model, x: model.last(torch.fft.fft(model.value(x)).abs() ** 2),
        lambda model, x: model.last(model.value(x).sign() * model.value(x).abs().sqrt()),
        lambda model, x: model.last(
            model.value(x) * (1 / (model.value(x).abs().mean(-1)[:, None]))
        ),
        lambda model, x: (
            torch.linalg.vecdot(model.value(x).tanh(), model.gate(x).tanh())[:, None] * ones
        ),
        lambda model, x: (
            ones
            * torch.baddbmm(
                torch.zeros(1, 1, 1).double(), model.value(x)[:, None], model.gate(x)[:, :, None]
            ).sum(1)
        ),
    ],
)
def test_products_share_their_gradient(product, inputs):
    assert gap(Module(product), inputs) < 1e-12


def test_sigmoid_gates_are_constants(inputs):
    model = Module(lambda model, x: model.last(model.value(x) * torch.sigmoid(model.gate(x))))
    values = explained(model, inputs, target=1).values
    with torch.no_grad():
        gate = torch.sigmoid(model.gate(inputs))
        expected = (model.last.weight[1] * gate) @ model.value.weight * inputs
    torch.testing.assert_close(values, expected)
    assert torch.equal(explained(model, inputs, target=1, attention="full").values, values)


def _attending(model, inputs):
    tokens = inputs.view(-1, 3, 2).repeat(1, 1, 3)
    weights = (model.gate(tokens) @ model.value(tokens).mT).softmax(-1)
    weights = functional.dropout(weights, 0.5, False)
    return model.last(weights @ model.value(tokens)).mean(1)


def test_attention_weights_are_constants(inputs):
    model = Module(_attending)
    attribution = explained(model, inputs)
    assert attribution.diagnostics["relevance_gap"].abs().max() < 1e-12
    assert attribution.provenance["balanced"] == {
        "attention": "constant",
        "rewritten": {"matmul of 2 activations": 1, "matmul with constant weights": 1},
    }


ATTENTIONS = {
    "renormalised": lambda w, v: (w / w.sum(-1, keepdim=True)) @ v,
    "renormalised in place": lambda w, v: w.div_(w.sum(-1, keepdim=True)) @ v,
    "transposed": lambda w, v: (v.mT @ w.mT).mT,
    "masked": lambda w, v: w.tril() @ v,
    "cast": lambda w, v: w.double().type_as(v) @ v,
    "strongest": lambda w, v: (
        torch.zeros_like(w).scatter(-1, w.topk(2, -1).indices, w.topk(2, -1).values) @ v
    ),
    "of no norm": lambda w, v: torch.einsum("...ij,...jk->...ik", w * 0.5, v),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_weights_stay_what_they_are(name, inputs):
    def attend(model, inputs):
        tokens = inputs.view(-1, 3, 2).repeat(1, 1, 3)
        weights = (model.gate(tokens) @ model.value(tokens).mT).softmax(-1)
        return model.last(ATTENTIONS[name](weights, model.value(tokens))).mean(1)

    assert gap(Module(attend), inputs) < 1e-12


@pytest.mark.parametrize("rule", ["constant", "full"])
@pytest.mark.parametrize("fixed", ["none", "query", "key", "value"])
def test_fused_attention_equals_its_formula(fixed, rule, inputs):
    def attend(model, inputs, fused):
        tokens = inputs.view(-1, 3, 2).repeat(1, 1, 3)
        given = {"query": model.value(tokens), "key": model.gate(tokens), "value": tokens.tanh()}
        given["value"] = model.value(given["value"])
        if fixed in given:
            memory = torch.linspace(-1, 1, 24).double().view(1, 3, 8)
            given[fixed] = memory.expand_as(given[fixed])
        if fused:
            return model.last(functional.scaled_dot_product_attention(**given)).mean(1)
        weights = (given["query"] @ given["key"].mT / math.sqrt(8)).softmax(-1)
        return model.last(weights @ given["value"]).mean(1)

    maps = [
        explained(Module(functools.partial(attend, fused=fused)), inputs, target=1, attention=rule)
        for fused in (True, False)
    ]
    torch.testing.assert_close(maps[0].values, maps[1].values)


GATES = {
    "expanded": lambda gate, like: gate.mean(1, keepdim=True).expand_as(like),
    "viewed": lambda gate, like: gate.view_as(like),
    "one minus": lambda gate, like: 1 - gate,
}


@pytest.mark.parametrize("name", GATES)
def test_gates_stay_what_they_are(name, inputs):
    def forward(model, inputs):
        value = model.value(inputs)
        return model.last(value * GATES[name](torch.sigmoid(model.gate(inputs)), value))

    assert gap(Module(forward), inputs) < 1e-12


def test_layers_of_sigmoids_are_no_gates(inputs):
    def forward(model, inputs):
        tokens = torch.sigmoid(inputs.view(-1, 3, 2).repeat(1, 1, 3)) - 0.5
        weights = (model.gate(tokens) @ model.value(tokens).mT).softmax(-1)
        return model.last(weights @ model.value(tokens)).mean(1)

    assert gap(Module(forward), inputs) < 1e-12


def _written(hidden, other):
    hidden[:, :4] = other[:, :4]
    return hidden


WRITES = {
    "by index": _written,
    "into a view": lambda hidden, other: (hidden[:, :4].copy_(other[:, :4]), hidden)[1],
    "masked": lambda hidden, other: hidden.masked_scatter_(
        torch.arange(8) < 4, other[:, :4].contiguous()
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_into_an_activation_ends_its_chain(name, inputs):
    def forward(model, inputs):
        hidden = WRITES[name](torch.tanh(model.value(inputs)), model.gate(inputs))
        return model.last(functional.gelu(hidden))

    def by_hand(model, inputs):
        value = model.value(inputs)
        squashed = value * (value.tanh() / value).detach()
        hidden = torch.cat([model.gate(inputs)[:, :4], squashed[:, 4:]], 1)
        return model.last(hidden * (functional.gelu(hidden) / hidden).detach())

    leaf = inputs.clone().requires_grad_()
    by_hand(Module(by_hand), leaf)[:, 1].sum().backward()
    values = explained(Module(forward), inputs, target=1).values
    torch.testing.assert_close(values, leaf.grad * inputs)


def test_attention_of_torch_modules_is_seen(inputs):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(6, 2, 12, 0.0, "gelu", batch_first=True, bias=False)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    model = nn.Sequential(nn.Unflatten(1, (1, 6)), encoder, nn.Flatten(), linear(6, 3))
    assert gap(model, inputs, channels="first") < 1e-12


def test_checkpoints_run_by_the_rules_again(inputs):
    model = Module(
        lambda model, x: model.last(
            checkpoint(
                lambda y: functional.gelu(functional.layer_norm(model.value(y), (8,))),
                x,
                use_reentrant=False,
            )
        )
    )
    assert gap(model, inputs) < 1e-12


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values * values

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


OUTSIDE = linear(8, 8)
ZEROS = torch.zeros(8, dtype=torch.float64)


def _in_cpp(first, second):
    """A product that no mode sees: in another thread."""
    made = []
    thread = threading.Thread(target=lambda: made.append(first * second))
    thread.start()
    thread.join()
    return made[0]


LSTM = nn.LSTM(8, 8, dtype=torch.float64).requires_grad_(False)


def _lstm(hidden):
    return LSTM(hidden)[0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Square.apply, "Square, an autograd function of the model's own"),
        (lambda h: h.cumprod(-1), "got Cumprod"),
        (lambda h: h + h.logsumexp(-1, keepdim=True), "got Logsumexp"),
        (lambda h: 2**h, "got Pow"),
        (lambda h: torch.log(h.abs()), "log, which is not finite at 0"),
        (lambda h: h.clamp(min=torch.zeros(8).double()), "clamp with a tensor as its setting"),
        (lambda h: _in_cpp(functional.gelu(h), torch.tanh(h)), "no rule sees"),
        (lambda h: torch.tanh(torch.fft.fft(h)).real, "tanh of complex numbers"),
        (lambda h: functional.layer_norm(h, (8,), None, h[0]), "bias depends on the input"),
        (lambda h: functional.batch_norm(h, ZEROS, ZEROS + 1, h[0]), "no rule sees"),
        (lambda h: functional.prelu(h, h[0]), "no rule sees"),
        (lambda h: nn.functional.tanh(_lstm(h)), "no rule sees"),
        (lambda h: OUTSIDE(h), "a weight outside of the model's own modules"),
    ],
)
def test_functions_without_a_rule_are_refused(function, message, inputs):
    with pytest.raises(NotApplicableError, match=message) as raised:
        explained(Between(function), inputs)
    assert len(str(raised.value).splitlines()) == 1


def test_outputs_that_depend_on_constants_alone_are_refused(inputs):
    model = Module(lambda model, x: model.value(x).norm(dim=-1, keepdim=True) * ones)
    with pytest.raises(NotApplicableError, match="only through attention weights or norms"):
        explained(model, inputs)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("compiled", ["script", "trace"])
def test_torchscript_is_refused(compiled, inputs):
    model = nn.Sequential(linear(6, 8), nn.GELU(), linear(8, 3)).eval()
    scripted = torch.jit.script(model) if compiled == "script" else torch.jit.trace(model, inputs)
    with pytest.raises(NotApplicableError, match="have a rule for"):
        explained(scripted, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_factors_near_zero_are_the_slope_in_every_precision(dtype):
    inputs = torch.tensor([[1e-5, 1e-4, 1e-3, 2e-3, 1e-6, 0.0]], dtype=dtype)
    model = nn.Sequential(nn.Sigmoid(), nn.Linear(6, 1, bias=False)).to(dtype).eval()
    nn.init.ones_(model[1].weight)
    gradient = unilens.explain(
        model, inputs, "gradient", 0, score="logit", balanced=True, outputs="regression"
    )
    torch.testing.assert_close(gradient.values.float(), torch.full((1, 6), 0.25), rtol=0.05, atol=0)


@pytest.mark.parametrize("value", ["maybe", 3, None, "Full"])
def test_setting_is_checked(value, inputs):
    with pytest.raises(UnilensError, match="expected balanced true, false"):
        unilens.explain(Between(torch.tanh).eval(), inputs, "ig", balanced=value)


def test_graphs_are_refused(inputs):
    with pytest.raises(UnilensError, match="without create_graph"):
        unilens.explain(Between(torch.tanh).eval(), inputs, "ig", balanced=True, create_graph=True)


def test_model_is_not_changed_and_repeats(inputs):
    model = Between(functional.gelu).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = unilens.explain(model, inputs, "input_x_gradient").values
    first, second = (explained(model, inputs).values for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(unilens.explain(model, inputs, "input_x_gradient").values, plain)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())


def test_batch_equals_loop(inputs):
    model = Module(_attending)
    whole = explained(model, inputs, target=0).values
    rows = [explained(model, row, target=0).values for row in inputs.split(1)]
    assert torch.equal(whole, torch.cat(rows))


@pytest.mark.parametrize("balanced", [True, "full"])
def test_integrated_balanced_gradients_are_the_mean_along_the_path(balanced, inputs):
    model = Module(_attending).eval()
    attribution = unilens.explain(
        model, inputs, "ig", 1, balanced=balanced, n_steps=4, rule="midpoint", score="logit"
    )
    slopes = [
        unilens.explain(
            model, share * inputs, "gradient", 1, score="logit", balanced=balanced
        ).values
        for share in (0.125, 0.375, 0.625, 0.875)
    ]
    torch.testing.assert_close(attribution.values, torch.stack(slopes).mean(0) * inputs)
    assert attribution.completeness_gap.isnan().all()


def test_search_for_the_baseline_keeps_the_models_gradients(inputs):
    model = Module(_attending).eval()
    maps = [unilens.explain(model, inputs, "uni", balanced=balanced) for balanced in (False, True)]
    assert torch.equal(maps[0].baseline, maps[1].baseline)
    assert not torch.equal(maps[0].values, maps[1].values)


def test_methods_that_smooth_balance_the_method_inside(inputs):
    model = Between(functional.gelu)
    attribution = unilens.explain(
        model.eval(), inputs, "smoothgrad", balanced=True, inner="input_x_gradient", n_samples=2
    )
    assert attribution.provenance["balanced"]["rewritten"] == {"gelu": 1}


def test_grad_cam_is_balanced():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 5, 3), nn.SiLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    images = torch.rand(1, 3, 8, 8)
    model(images)
    model.eval()
    attribution = unilens.explain(
        model, images, "gradcam", 1, layer="2", balanced=True, relu=False, score="logit"
    )
    with torch.no_grad():
        grid = model[:3](images)
        weights = model[5].weight[1].view(5, 4, 4) * torch.sigmoid(grid[0])
        expected = (weights.mean((1, 2), keepdim=True) * grid[0]).sum(0)
    small = functional.interpolate(expected[None, None], (8, 8), mode="bilinear")
    torch.testing.assert_close(attribution.values.sum(1, keepdim=True), small)
