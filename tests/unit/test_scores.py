import math

import pytest
import torch

import unilens
from unilens.errors import UnilensError
from unilens.scores import resolve, scores

LOGITS = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]], dtype=torch.float64)
TARGET = torch.tensor([0, 2])


def by_hand(name, row, target):
    total = sum(math.exp(value) for value in row)
    return {
        "probability": math.exp(row[target]) / total,
        "logit": row[target],
        "log_probability": row[target] - math.log(total),
        "margin": row[target] - max(v for i, v in enumerate(row) if i != target),
        "sigmoid": 1 / (1 + math.exp(-row[target])),
    }[name]


@pytest.mark.parametrize("name", scores)
def test_values_and_gradients_by_hand(name):
    values = resolve(name)(LOGITS, TARGET)
    expected = [by_hand(name, row, t) for row, t in zip(LOGITS.tolist(), [0, 2], strict=True)]
    assert values.tolist() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda outputs: resolve(name)(outputs, TARGET), LOGITS.clone().requires_grad_()
    )


@pytest.mark.parametrize("name", scores)
def test_one_logit_scores_as_the_logits_of_two_classes(name):
    one, zeros = torch.tensor([[0.7], [-2.0]]).double(), torch.zeros(2, dtype=torch.long)
    two = torch.cat([torch.zeros_like(one), one], 1)
    assert torch.allclose(resolve(name)(one, zeros), resolve(name)(two, zeros + 1))


def test_a_function_is_a_score():
    def doubled(outputs, target):
        return 2 * outputs[:, 0]

    assert resolve(doubled)(LOGITS, TARGET).tolist() == [2.0, -2.0]


WRONG = {
    r"\(2, 1\)": lambda outputs, target: outputs[:, :1],
    r"\(\)": lambda outputs, target: outputs[:, 0].sum(),
    r"\(2, 3\)": lambda outputs, target: outputs,
    "list": lambda outputs, target: [0.0, 0.0],
}


@pytest.mark.parametrize("came", WRONG)
@pytest.mark.parametrize("method", ["ig", "gradient", "occlusion", "smoothgrad", "uni_blur"])
def test_a_function_gives_one_number_per_row(came, method):
    model, inputs = torch.nn.Linear(4, 3).eval(), torch.rand(2, 4)
    with pytest.raises(
        UnilensError, match=rf"of shape \(\d,\), got {came.replace('2', '.')}; return one number"
    ):
        unilens.explain(model, inputs, method, 0, score=WRONG[came])
