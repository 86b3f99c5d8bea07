"""Right values without the engine: a module called by hand, or the same model written plainly."""

import pytest
import torch
from torch import nn

import unilens

SETTINGS = {
    "ig": {"rule": "midpoint", "n_steps": 6},
    "uni_blur": {"n_steps": 3},
    "gradient": {},
    "gradcam": {},
    "deeplift": {},
    "guided_backprop": {},
    "occlusion": {"window": 3, "stride": 2},
    "rise": {"n_masks": 24, "cells": 3},
    "sobol": {"designs": 4, "cells": 2},
    "shapley": {"cells": 2},
}
"""Methods of every kind: along a path, with unlearning, by rules, of layers, by hiding."""
BLACK_BOX = ("occlusion", "rise", "sobol", "shapley")
NEEDS_GRADIENT = tuple(name for name in SETTINGS if name not in BLACK_BOX)
METRICS = {"deletion_auc": {}, "mu_fidelity": {"cells": 3, "subsets": 20}}


PICTURES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class SmallNet(nn.Module):
    """A convolutional net; kinds of models override `middle` or `mix`, or set `norm`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 3)
        self.norm = nn.Identity()
        self.eval()

    def middle(self, hidden):
        return hidden

    def mix(self, pooled):
        return pooled

    def forward(self, inputs):
        hidden = self.middle(self.act(self.norm(self.conv(inputs))))
        return self.head(8 * self.mix(hidden.mean((2, 3))))


def probability(model, point, target=0):
    return model(point).softmax(-1)[0, target]


def gradient(model, inputs, target=0):
    """The probability's gradient, with one point in each call of the module."""
    found = []
    for row in inputs.split(1):
        leaf = row.detach().clone().requires_grad_()
        found.append(torch.autograd.grad(probability(model, leaf, target), leaf)[0])
    return torch.cat(found)


def integrated_gradients(model, inputs, target=0, n_steps=6):
    """Integrated gradients from zero by the midpoint rule, one point in each call."""
    total = torch.zeros_like(inputs)
    for step in range(n_steps):
        total += gradient(model, (step + 0.5) / n_steps * inputs, target) * inputs / n_steps
    return total


def explain(model, inputs, method, target=0, **settings):
    return unilens.explain(model, inputs, method, target, **(SETTINGS[method] | settings)).values


def evaluate(model, inputs, metric, target=0):
    values = torch.arange(inputs.numel()).view_as(inputs).to(inputs)  # any map: here its numbers
    return unilens.evaluate(model, inputs, values, metric, target=target, **METRICS[metric])


def assert_like_plain(model, plain, inputs, methods=tuple(SETTINGS), metrics=(), rtol=1e-6):
    """Assert that methods give for a model what they give for the same model written plainly."""
    right = torch.cat([integrated_gradients(plain, row) for row in inputs.split(1)])
    torch.testing.assert_close(explain(plain, inputs, "ig"), right)  # the plain one is right
    for method in methods:
        found, expected = (explain(each, inputs, method) for each in (model, plain))
        close(found, expected, rtol, method)
        assert expected.abs().sum() > 0, method
    for metric in metrics:
        found, expected = (evaluate(each, inputs, metric) for each in (model, plain))
        close(found, expected, rtol, metric)


def close(found, expected, rtol, name):
    off = float((found - expected).abs().max() / expected.abs().max())
    assert off < rtol, f"{name} is off by {off:.1e} of the largest value"


def refusal(model, inputs, method, **settings):
    """The line that refuses a method; other exceptions and values fail the test."""
    with pytest.raises(unilens.UnilensError) as refused:
        explain(model, inputs, method, **settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)
