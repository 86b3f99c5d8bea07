"""Every warning fires where it should, and its remedy silences it."""

import pytest
import torch

import unilens
from unilens.diagnostics import LEVELS, WARNINGS


class Function(torch.nn.Module):
    """A function of inputs as a model, with weights for methods that need some."""

    def __init__(self, function, shape=(2,)):
        super().__init__()
        self.function, self.scale = function, torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return self.function(inputs * self.scale)


def two_classes(odds):
    """A model of two classes from their log odds `(B,)`."""
    return Function(lambda x: torch.stack([odds(x), torch.zeros_like(odds(x))], 1)).eval()


def explain(model, inputs, method="ig", **settings):
    return unilens.explain(model, inputs, method, **{"target": 0, **settings})


def underflow(double):
    """sqrt(1e-44 x^2), whose square is 0 in float32 and whose gradient is not finite there."""
    model = two_classes(lambda x: (x[:, 0] ** 2 * 1e-46).sqrt() + x[:, 1])
    inputs = torch.tensor([[0.5, 1.0]])
    return explain(model.double() if double else model, inputs.double() if double else inputs)


def zeros(baseline):
    return explain(two_classes(lambda x: x.sum(1)), torch.zeros(1, 2), baseline=baseline)


def steep(n_steps):
    model = two_classes(lambda x: 20 * x.sum(1) - 10)
    return explain(model, torch.tensor([[0.6, 0.4]]), n_steps=n_steps, rule="right")


def turning(n_steps):
    """A gradient that turns along the path while the sum of both values hardly changes."""
    model = two_classes(lambda x: torch.sin(9 * x[:, 0]) - torch.sin(9 * x[:, 1]) + x.sum(1))
    return explain(model, torch.tensor([[1.0, 0.8]]), n_steps=n_steps)


def near(budget):
    model = two_classes(lambda x: 2 * x.sum(1))
    return explain(model, torch.tensor([[0.5, 0.5]]), "uni", budget=budget)


def bump(method):
    """A confidence that rises, falls and rises again from black to the input."""
    model = two_classes(lambda x: 3 * torch.sin(8 * x.mean(1)) + 2 * x.mean(1))
    return explain(model, torch.tensor([[1.0, 1.0]]), method, target=0)


def step(method):
    """A confidence of 0 on four fifths of the way from black, and 1 behind it."""
    model = two_classes(lambda x: 60 * (x.mean(1) - 0.9))
    return explain(model, torch.tensor([[1.0, 1.0]]), method)


def search(**settings):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(8 * 14 * 14, 5)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 6
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return unilens.explain(model, images, "uni_blur", budget=2.0, **settings)


def row(method, **settings):
    """A row of known truth: the first column speaks against the class, and is the strongest."""
    model = two_classes(lambda x: -3 * x[:, 0] + 2 * x[:, 1] + 4)
    rows = torch.cat([torch.tensor([[1.0, 0.1]]), torch.randn(19, 2)])
    return unilens.explain(model, rows, method, target=0, **settings)[0]


def one_output(outputs):
    model = Function(lambda x: x.sum(1, keepdim=True) * 3).eval()
    return unilens.explain(model, torch.rand(1, 2), "ig", outputs=outputs)


def log_of_nothing(baseline):
    model = Function(lambda x: torch.stack([x.log().sum(1), x.sum(1)], 1)).eval()
    return explain(model, torch.full((1, 3), 0.5), score="logit", baseline=baseline)


def constant(weight):
    model = two_classes(lambda x: weight * x.sum(1))
    return explain(model, torch.rand(1, 2) + 0.1)


CASES = {
    "undefined_score": (lambda: log_of_nothing("black"), lambda: log_of_nothing("white")),
    "zero_map": (lambda: constant(0.0), lambda: constant(1.0)),
    "large_gap": (lambda: steep(1), lambda: steep(200)),
    "undefined": (lambda: underflow(False), lambda: underflow(True)),
    "baseline_is_input": (lambda: zeros("black"), lambda: zeros("white")),
    "completeness_gap": (lambda: steep(4), lambda: steep(200)),
    "few_steps": (lambda: turning(4), lambda: turning(60)),
    "informative_baseline": (lambda: near(0.01), lambda: near(1.0)),
    "non_monotonic_path": (lambda: bump("ig"), lambda: bump("uni")),
    "saturation": (lambda: step("ig"), lambda: step("uni")),
    "matching_loss_did_not_fall": (
        lambda: search(line_search=False, projection="sphere", gradient="normalised"),
        lambda: search(line_search=True, projection="ball"),
    ),
    "sign_contradicted": (lambda: row("uni"), lambda: row(None)),
    "no_reference": (
        lambda: unilens.explain(two_classes(lambda x: x.sum(1)), torch.rand(1, 2)),
        lambda: unilens.explain(
            two_classes(lambda x: x.sum(1)), torch.rand(1, 2), references=torch.rand(20, 2)
        ),
    ),
    "one_logit_assumed": (lambda: one_output(None), lambda: one_output("regression")),
}
"""By warning: a map that has it, and one after the remedy."""
ELSEWHERE = {"probabilities_assumed", "logits_assumed", "channels_assumed"}
"""Tested with their remedies in tests/kinds: test_outputs.py and test_axes.py."""


@pytest.mark.parametrize("name", CASES)
def test_remedy_silences_the_warning(name):
    before, after = CASES[name]
    assert any(name in names for names in before().warnings), before().diagnostics
    assert not any(name in names for names in after().warnings), after().diagnostics


def test_every_warning_has_a_level_a_sentence_and_a_remedy():
    assert set(CASES) | ELSEWHERE == set(WARNINGS)
    for rule in WARNINGS.values():
        assert rule.level in LEVELS
        assert rule.meaning.endswith(".")
        assert rule.remedy.endswith(".")
        assert "\n" not in str(rule)
