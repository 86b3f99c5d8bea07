"""How the engine proves its speed-ups, and what it says of those that it drops."""

import types

import pytest
import torch
from torch import nn

from unilens import Evaluator, UnilensError, explain

from ..conftest import SmallNet, randomise


class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(144, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).view(len(x), -1))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x / x.max())


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(nn.functional.dropout(x, 0.5, training=True))


class Late(nn.Module):
    """Fails with several points, but only far from the input at which it was proven."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        if len(x) > 1 and bool((x.abs() < 0.1).any()):
            raise RuntimeError("one at a time here")
        return self.head(x).tanh()


CALLS = types.ModuleType("calls")  # an attribute of a module is not put back


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        CALLS.rows.append(len(x))
        return self.head(x).tanh() - x.new_tensor([-2.0, 0.0, 2.0])  # clearly logits


def described(model, *shape):
    return Evaluator(model.eval()).describe(torch.rand(1, *shape))


def test_a_network_of_its_own_layout_keeps_the_other_speed_ups():
    found = described(randomise(Flattened()), 3, 8, 8)
    assert found["used"] == ["copied", "folded", "together"]
    assert list(found["dropped"]) == ["channels_last"]
    assert "view size is not compatible" in found["dropped"]["channels_last"]


def test_rows_that_mix_are_run_one_at_a_time():
    found = described(Scaled(), 6)
    assert found["used"] == ["copied"]
    assert "outputs differ" in found["dropped"]["together"]


def test_nothing_is_dropped_where_all_agrees():
    found = described(randomise(SmallNet()), 3, 13, 11)
    assert found == {"used": ["copied", "folded", "channels_last", "together"], "dropped": {}}


def test_the_record_says_how_the_model_was_run():
    attribution = explain(Scaled().eval(), torch.rand(2, 6), "ig", 0)
    assert attribution.provenance["engine"] == described(Scaled(), 6) | {
        "dropped": attribution.provenance["engine"]["dropped"]
    }


def test_random_forwards_are_refused():
    with pytest.raises(UnilensError, match="gives one input the same outputs every time"):
        explain(Noisy().eval(), torch.rand(2, 6), "ig")


def test_a_speed_up_that_fails_later_is_dropped_then():
    model, inputs = Late().double().eval(), torch.rand(2, 6).double() + 0.2
    evaluator = Evaluator(model)
    assert evaluator.plan(inputs).together
    found = explain(evaluator, inputs, "ig", 0, score="logit", rule="midpoint", n_steps=20)
    assert not evaluator.plan(inputs).together
    expected = torch.zeros_like(inputs)
    for share in (torch.arange(20) + 0.5) / 20:
        for row in range(2):
            point = (share * inputs[row : row + 1]).requires_grad_()
            (slope,) = torch.autograd.grad(model(point)[0, 0], point)
            expected[row] += slope[0] * inputs[row] / 20
    assert torch.allclose(found.values, expected, atol=1e-12)


def test_a_failure_of_the_model_itself_drops_nothing():
    class Picky(nn.Linear):
        def forward(self, x):
            if bool((x < 0).any()):
                raise ValueError("no negative values")
            return super().forward(x)

    model = Picky(6, 3).eval()
    evaluator = Evaluator(model)
    evaluator(torch.rand(1, 6))
    with pytest.raises(UnilensError, match="no negative values"):
        evaluator(-torch.rand(1, 6))
    assert evaluator.plan(torch.rand(1, 6)).copied


def test_the_proof_takes_three_passes_and_is_remembered():
    model, inputs = Counted().eval(), torch.rand(1, 6)
    CALLS.rows = []
    explain(model, inputs, "gradient", 0)
    first, CALLS.rows = CALLS.rows, []
    explain(model, inputs, "gradient", 0)
    # The outputs at the input, and the gradient; before, two of the user's module and one of both
    # points together, of the copy.
    assert CALLS.rows == [1, 1]
    assert first == [1, 1, 2, 1, 1]
    with torch.no_grad():
        model.head.weight.mul_(2)  # trained on: proven anew
    CALLS.rows = []
    explain(model, inputs, "gradient", 0)
    assert CALLS.rows == first
