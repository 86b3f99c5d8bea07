"""What a mode sees of a pass: which calls are known to be linear, and where others are made."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from unilens._engine.activations import ActivationRules


def others(model):
    rules = ActivationRules({}, {part: name for name, part in model.named_modules()})
    with rules:
        model.requires_grad_(False)(torch.rand(1, 4).requires_grad_())
    return rules.others


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
    assert not others(Applies(LINEAR[name]).eval())


@pytest.mark.parametrize("name", OTHER)
def test_what_is_not_linear_is_named(name):
    found = others(Applies(OTHER[name]).eval())
    assert name in [call.function.replace("rdiv", "rtruediv") for call in found]


def test_the_innermost_module_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.GELU())).eval()
    assert [call.place for call in others(model)] == ["1.0 (GELU)"]
    assert [call.place for call in others(Applies(torch.exp))] == ["the model"]


def test_exported_operations_are_known_by_their_names():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    exported = torch.export.export(model.requires_grad_(False), (torch.rand(1, 4),)).module()
    seen = []

    def rule(use, gradient):
        seen.append(use.output)
        return use.derivative(gradient)

    rules = ActivationRules({"relu": rule}, {})
    leaf = torch.rand(1, 4).requires_grad_()
    with rules:
        outputs = exported(leaf)
    (found,) = torch.autograd.grad(outputs.sum(), leaf)
    (expected,) = torch.autograd.grad(model(leaf).sum(), leaf)
    assert rules.applied == len(seen) == 1
    assert not rules.others
    assert torch.allclose(found, expected)
