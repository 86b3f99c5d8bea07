"""Copies whose activations are modules of their own, and the models for which there is none."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from unilens.errors import NotApplicableError, UnilensError
from unilens.surgery import Alone, Clipped, Windows, separate_activations

from ..conftest import randomise

RELUS = {nn.ReLU: lambda _: Alone(nn.ReLU()), nn.ReLU6: lambda _: Clipped(0.0, 6.0)}


class Uses(nn.Module):
    """One ReLU used by two blocks, one of them twice, and the same as a function."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
        self.act = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Linear(4, 4), self.act, nn.Linear(4, 4), self.act)

    def forward(self, inputs):
        hidden = self.act(self.first(inputs))
        hidden = hidden + self.block(self.block(hidden))
        hidden = torch.relu(hidden - 1).clone().relu_() + functional.relu6(5 * hidden)
        return self.second(self.act(hidden))


class Branching(nn.Module):
    """Cannot be traced: what it does depends on the values."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        return self.inner(inputs) if inputs.sum() > -1e9 else inputs


class Twice(Branching):
    def forward(self, inputs):
        hidden = self.inner(inputs)
        return self.inner(hidden) if inputs.sum() > -1e9 else hidden


class Functional(Branching):
    def forward(self, inputs):
        return functional.relu(self.inner(inputs)) if inputs.sum() > -1e9 else inputs


def separate(model, sample):
    return separate_activations(model, sample, RELUS)


def test_every_use_is_a_module_that_runs_once_and_nothing_else_changes():
    model, inputs = randomise(Uses()), torch.randn(5, 4)
    found = separate(model, inputs[:1])
    counts = dict.fromkeys(found.rules, 0)

    def count(module, given, result):
        counts[module] += 1

    for rule in found.rules:
        rule.register_forward_hook(count)
    assert torch.allclose(found.module(inputs), model(inputs), atol=1e-5)
    assert len(found.rules) == 1 + 4 + 4 + 1  # act, the block twice, three functions, act
    assert set(counts.values()) == {1}
    assert {type(rule) for rule in found.rules} == {nn.ReLU}
    assert not any(rule.inplace for rule in found.rules)
    assert all(call.linear for call in found.calls)


def test_inputs_of_activations_have_no_other_use():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.act = nn.Linear(3, 3), nn.ReLU()

        def forward(self, inputs):
            hidden = self.layer(inputs)
            self.seen = hidden
            return hidden + self.act(hidden)

    found = separate(Residual().eval(), torch.randn(1, 3))
    (rule,) = found.rules
    given = []
    rule.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    found.module(torch.randn(2, 3))
    assert given[0] is not found.module.seen
    assert torch.equal(given[0], found.module.seen)


def test_the_weights_are_shared_and_the_model_stays():
    model = randomise(Uses())
    before = {name: dict(vars(part)) for name, part in model.named_modules()}
    found = separate(model, torch.randn(1, 4))
    assert {name: dict(vars(part)) for name, part in model.named_modules()} == before
    assert found.module.first.weight.data_ptr() == model.first.weight.data_ptr()
    assert all(type(part) in (Uses, nn.Linear, nn.ReLU, nn.Sequential) for part in model.modules())


def test_hooks_of_activations_act_on_the_copy():
    model, inputs = randomise(Uses()), torch.randn(2, 4)
    plain = model(inputs)
    model.act.register_forward_hook(lambda module, args, result: 2 * result)
    found = separate(model, inputs[:1])
    assert torch.allclose(found.module(inputs), model(inputs))
    assert not torch.allclose(found.module(inputs), plain)


def test_what_cannot_be_traced_is_searched_in_its_parts():
    model, inputs = Branching(randomise(Uses())).eval(), torch.randn(2, 4)
    found = separate(model, inputs[:1])
    assert len(found.rules) == 10
    assert torch.allclose(found.module(inputs), model(inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Twice(nn.ReLU()), r"inner \(ReLU\) runs 2 times"),
        (Twice(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), r"inner.1 \(ReLU\) runs 2 times"),
        (Branching(Functional(nn.Linear(4, 4))), r"inner \(Functional\) calls the function relu"),
    ],
)
def test_uses_that_nothing_can_separate_are_named(model, named):
    with pytest.raises(NotApplicableError, match=named):
        separate(model.eval(), torch.randn(1, 4))


class OwnGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        return 1 * inputs

    @staticmethod
    def backward(ctx, gradient):
        return 100 * gradient


class Owner(nn.Module):
    def forward(self, inputs):
        return torch.relu(OwnGradient.apply(inputs))


class Optional(nn.Module):
    """A trace would take the default for a tensor, and the wrong way."""

    def forward(self, inputs, mask=None):
        return torch.relu(inputs) if mask is None else inputs


@pytest.mark.parametrize("model", [Owner(), Optional()])
def test_a_trace_that_would_change_the_model_is_not_used(model):
    with pytest.raises(NotApplicableError, match=r"the model .* calls the function relu"):
        separate(model.eval(), torch.randn(1, 4))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_compiled_modules_are_refused():
    with pytest.raises(NotApplicableError, match=r"0 \(\w+\) is TorchScript"):
        separate(nn.Sequential(torch.jit.script(nn.ReLU())).eval(), torch.randn(1, 4))


def test_models_that_fail_or_have_no_gradient():
    with pytest.raises(UnilensError, match="could not take an input of shape"):
        separate(nn.Linear(3, 3).eval(), torch.randn(1, 4))

    class Detached(nn.Module):
        def forward(self, inputs):
            return inputs.detach()

    with pytest.raises(UnilensError, match="differentiable in its inputs"):
        separate(Detached().eval(), torch.randn(1, 4))


LINEAR = {
    "mean": lambda x: x.mean(1, keepdim=True),
    "scaled": lambda x: 3 * x / 2 - x,
    "joined": lambda x: torch.cat([x, x[:, :1]], 1).flatten(1),
    "batch_norm": nn.BatchNorm1d(4).eval(),
    "dropout": nn.Dropout().eval(),
    "pooled": nn.AdaptiveAvgPool1d(2),
}
OTHER = {
    "mul": lambda x: x * x,
    "matmul": lambda x: x @ x.T @ x,
    "gelu": nn.GELU(),
    "layer_norm": nn.LayerNorm(4),
    "rtruediv": lambda x: 1 / x,
    "softmax": lambda x: x.softmax(1),
    "detach": lambda x: x / x.detach().norm(),
    "gt": lambda x: x * (x > 0),
    "dropout": lambda x: functional.dropout(x),
}


class Applies(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_functions_are_known(name):
    found = separate(Applies(LINEAR[name]).eval(), torch.rand(1, 4))
    assert all(call.linear for call in found.calls)


@pytest.mark.parametrize("name", OTHER)
def test_what_is_not_linear_is_named(name):
    found = separate(Applies(OTHER[name]).eval(), torch.rand(1, 4))
    assert name in [
        call.function.replace("rdiv", "rtruediv") for call in found.calls if not call.linear
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": (3, 2), "stride": (1, 2), "padding": 1, "dilation": (2, 1)},
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    ],
)
def test_windows_pool_as_torch_does(settings):
    for kind, shape in ((nn.MaxPool1d, (9,)), (nn.MaxPool2d, (9, 8)), (nn.MaxPool3d, (7, 9, 8))):
        own = {k: v[0] if isinstance(v, tuple) else v for k, v in settings.items()}
        pooling = kind(**(settings if kind is nn.MaxPool2d else own))
        for more in range(4):
            inputs = torch.randn(2, 3, shape[0] + more, *shape[1:])
            assert torch.equal(Windows(pooling)(inputs), pooling(inputs))
