"""Unlearning of many inputs at once, and of the last layer by a formula, against single steps."""

import copy

import pytest
import torch
from torch import nn

from unilens import explain
from unilens._engine.evaluator import Evaluator

ROWS = torch.randn(23, 5, generator=torch.Generator().manual_seed(2)).double()


def surprise(outputs, rows):
    return -outputs.log_softmax(-1)[torch.arange(len(rows)), rows % outputs.shape[1]]


def one_by_one(model, inputs, rate, steps, weights):
    """Return the logits after ascents of deep copies, by plain autograd."""
    found = []
    for number, row in enumerate(inputs):
        student = copy.deepcopy(model)
        chosen = list(student.parameters())
        if weights == "last":
            last = list(student.named_parameters())[-1][0].rpartition(".")[0]
            chosen = list(student.get_submodule(last).parameters())
        for _ in range(steps):
            outputs = student(row.unsqueeze(0))
            value = surprise(outputs, torch.tensor([number])).sum()
            slopes = torch.autograd.grad(value, chosen, materialize_grads=True)
            norm = sum(slope.square().sum() for slope in slopes).sqrt()
            with torch.no_grad():
                for weight, slope in zip(chosen, slopes, strict=True):
                    weight += slope * (rate / norm if norm > 0 else 0)
        found.append(student(row.unsqueeze(0)).detach())
    return torch.cat(found)


def perceptron():
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))


class Tied(nn.Module):
    """The last layer's weights are used before it too."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 5)

    def forward(self, rows):
        return self.head(torch.tanh(nn.functional.linear(rows, self.head.weight)))


class Clamped(nn.Module):
    """What the last layer returns is changed in place."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, rows):
        return self.head(self.first(rows)).clamp_(min=-0.1)


class Scaled(Clamped):
    """The last layer does not end the model."""

    def forward(self, rows):
        return 3 * self.head(self.first(rows))


class Branches(nn.Module):
    """It decides by values, which `vmap` cannot follow."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, rows):
        return self.a(rows) if float(rows.detach().sum()) > 0 else self.b(rows)


class Normed(nn.Module):
    """Convolutions, a batch norm, and a last layer without a bias."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(12, 3, bias=False)

    def forward(self, rows):
        return self.head(self.body(rows.unsqueeze(1)))


MODELS = {
    "perceptron": perceptron,
    "linear": lambda: nn.Linear(5, 3),
    "tied": Tied,
    "clamped": Clamped,
    "scaled": Scaled,
    "branches": Branches,
    "normed": Normed,
    "one output": lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)),
}


@pytest.mark.parametrize("weights", ["all", "last"])
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_equals_steps_one_by_one(name, independent, weights):
    torch.manual_seed(3)
    model = MODELS[name]().double().eval()
    evaluator = Evaluator(model, independent=independent)
    for steps in (1, 3):
        expected = one_by_one(model, ROWS, 0.7, steps, weights)
        found = evaluator.unlearned_logits(ROWS, surprise, 0.7, steps=steps, weights=weights)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(found, model(ROWS))


def test_rows_without_a_slope_stay(monkeypatch):
    torch.manual_seed(3)
    model = perceptron().double().eval()
    for weights in ("all", "last"):
        found = Evaluator(model, independent=False).unlearned_logits(
            ROWS, lambda outputs, rows: surprise(outputs, rows) * (rows % 2), 0.7, weights=weights
        )
        expected = one_by_one(model, ROWS, 0.7, 1, weights)
        torch.testing.assert_close(found[1::2], expected[1::2])
        torch.testing.assert_close(found[::2], model(ROWS)[::2])


def test_blocks_follow_from_the_weights(monkeypatch):
    torch.manual_seed(3)
    model = perceptron().double().eval()
    size = sum(value.nbytes for value in model.parameters())
    monkeypatch.setattr("unilens._engine.unlearning_at_once._BYTES", 4 * size * 5)
    passes = []
    evaluator = Evaluator(model, independent=False, on_pass=passes.append)
    found = evaluator.unlearned_logits(ROWS, surprise, 0.7)
    torch.testing.assert_close(found, one_by_one(model, ROWS, 0.7, 1, "all"))
    assert sorted(count for count in passes if count > 1) == [3, 5, 5, 5, 5]
    monkeypatch.setattr("unilens._engine.unlearning_at_once._BYTES", size)
    passes.clear()
    evaluator.unlearned_logits(ROWS, surprise, 0.7)
    assert set(passes) == {1}, "a row of weights each does not fit"


def test_uni_of_rows_is_that_of_each_row():
    torch.manual_seed(3)
    model = perceptron().double().eval()
    alone = explain(model, ROWS, "uni", seed=1)
    together = explain(Evaluator(model, independent=False), ROWS, "uni", seed=1)
    torch.testing.assert_close(together.values, alone.values, rtol=1e-5, atol=1e-7)


def test_the_model_stays_as_it_is():
    model = perceptron().double().eval()
    before = copy.deepcopy(model.state_dict())
    for weights in ("all", "last"):
        Evaluator(model, independent=False).unlearned_logits(ROWS, surprise, 5, weights=weights)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in model.parameters())


@pytest.mark.parametrize(
    ("device", "given", "expected"),
    [("cpu", None, {1}), ("cpu", False, {6}), ("meta", None, {6}), ("meta", True, {1})],
)
def test_inputs_share_a_pass_by_default_on_accelerators_alone(monkeypatch, device, given, expected):
    """No accelerator is at hand: an evaluator is told that its module lies on another device."""
    seen = []

    def is_on_cpu(where):
        seen.append(where)
        return device == "cpu"

    monkeypatch.setattr("unilens._engine.evaluator.is_on_cpu", is_on_cpu)
    passes = []
    model = perceptron().double().eval()
    evaluator = Evaluator(model, independent=given, on_pass=passes.append)
    evaluator(ROWS[:6])
    assert set(passes) == expected
    assert given is not None or seen == [torch.device("cpu")]


@pytest.mark.parametrize("weights", ["all", "last"])
def test_what_one_input_leaves_in_a_copy_does_not_reach_the_next(weights):
    class Largest(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.top = nn.Linear(5, 3), 1.0

        def forward(self, rows):
            self.top = max(self.top, float(rows.detach().abs().max()))
            return self.layer(rows / self.top) ** 2

    torch.manual_seed(3)
    model, rows = Largest().double().eval(), torch.rand(4, 5).double()
    rows[1] *= 9
    found = Evaluator(model).unlearned_logits(rows, surprise, 0.7, weights=weights)
    torch.testing.assert_close(found, one_by_one(model, rows, 0.7, 1, weights))
