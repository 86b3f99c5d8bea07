"""The sum's error from nested nodes, against maps of a third of the steps and of many."""

import pytest
import torch

import unilens
from unilens.weightings.nested import fork

RULES = ("midpoint", "right", "left")


def network(seed=0):
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(2, 6, 3), torch.nn.Tanh(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(6 * 36, 3)).double().eval()


def images(count=3):
    return torch.rand(
        count, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def relative_distance(first, second):
    norms = [values.flatten(1).norm(dim=1) for values in (first - second, first)]
    return norms[0] / norms[1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", ["ig", "uni", "uni_blur", "idgi"])
def test_sum_error_is_half_the_distance_from_a_third_of_the_steps(method, rule):
    model, inputs = network(), images()
    fine, coarse = (
        unilens.explain(model, inputs, method, n_steps=steps, rule=rule) for steps in (15, 5)
    )
    expected = relative_distance(fine.values, coarse.values) / 2
    torch.testing.assert_close(fine.diagnostics["sum_error"], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n_steps", [2, 4, 7, 8, 50])
@pytest.mark.parametrize("rule", [*RULES, "trapezoid", "gauss_legendre"])
def test_sum_error_of_a_linear_model_is_zero(rule, n_steps):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(128, 3)).double().eval()
    found = unilens.explain(model, images(), "ig", rule=rule, n_steps=n_steps, score="logit")
    assert found.diagnostics["sum_error"].max() < 1e-12
    assert found.diagnostics["sum_stability"].min() > 1 - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ig", "guided_ig", "uni_blur"])
def test_sum_error_is_of_the_order_of_the_true_error(method):
    model, inputs = network(), images()
    fine, many = (unilens.explain(model, inputs, method, n_steps=n) for n in (15, 600))
    true = relative_distance(many.values, fine.values)
    assert (true <= 3 * fine.diagnostics["sum_error"] + 1e-9).all()


def test_sum_error_is_the_same_in_any_batch():
    model, inputs = network(), images()
    together = unilens.explain(model, inputs, "ig", n_steps=9).diagnostics["sum_error"]
    alone = [unilens.explain(model, inputs[k : k + 1], "ig", n_steps=9) for k in range(3)]
    assert together.tolist() == [float(found.diagnostics["sum_error"]) for found in alone]


def test_one_step_has_no_sum_error():
    found = unilens.explain(network(), images(), "ig", n_steps=1)
    assert "sum_error" not in found.diagnostics


def test_fork_yields_all_items_twice_and_keeps_only_what_is_due():
    alive = []

    class Item:
        def __init__(self):
            alive.append(self)

    first, second = fork(Item() for _ in range(5))
    one, two = next(first), next(first)
    assert next(second) is one
    assert next(second) is two
    assert [len(list(branch)) for branch in (second, first)] == [3, 3]
    assert len(alive) == 5


def test_fork_passes_an_error_on():
    def failing():
        yield 1
        raise ValueError("the path fails")

    first, second = fork(failing())
    assert next(second) == 1
    assert next(first) == 1
    with pytest.raises(ValueError, match="the path fails"):
        next(first)
