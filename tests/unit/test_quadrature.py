import numpy
import pytest
import torch

from unilens.errors import UnilensError
from unilens.quadrature import quadrature, rules


def test_a_rule_made_in_inference_mode_can_be_differentiated_with():
    with torch.inference_mode():
        made = quadrature("gauss_legendre", 17)
    assert not made.nodes.is_inference()
    assert not made.weights.is_inference()


@pytest.mark.parametrize("rule", rules)
@pytest.mark.parametrize("n_steps", [1, 2, 3, 15, 64, 301])
def test_weights_sum_to_one_and_nodes_ascend_in_the_unit_interval(rule, n_steps):
    nodes, weights = quadrature(rule, n_steps)
    assert len(nodes) == len(weights) == n_steps
    assert abs(float(weights.sum()) - 1) < 1e-12
    assert bool((nodes.diff() > 0).all())
    assert float(nodes[0]) >= 0
    assert float(nodes[-1]) <= 1


# The integrals of t^k over [0, 1] are 1 / (k + 1); the expected sums are worked out by hand.
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("right", (1 + 4 + 9 + 16) / 64),
        ("left", (0 + 1 + 4 + 9) / 64),
        ("midpoint", (1 + 9 + 25 + 49) / 256),
        ("trapezoid", (0 / 2 + 1 / 9 + 4 / 9 + 1 / 2) / 3),
        ("gauss_legendre", 1 / 3),
    ],
)
def test_four_nodes_on_the_square(rule, expected):
    nodes, weights = quadrature(rule, 4)
    assert float((weights * nodes**2).sum()) == pytest.approx(expected, abs=1e-14)


def test_gauss_legendre_is_exact_to_degree_2n_minus_1_and_no_further():
    nodes, weights = quadrature("gauss_legendre", 3)
    for degree in range(6):
        assert float((weights * nodes**degree).sum()) == pytest.approx(1 / (degree + 1), abs=1e-14)
    assert abs(float((weights * nodes**6).sum()) - 1 / 7) > 1e-5


@pytest.mark.parametrize(("rule", "order"), [("right", 1), ("left", 1), ("midpoint", 2)])
def test_the_order_of_convergence(rule, order):
    def error(n_steps):
        nodes, weights = quadrature(rule, n_steps)
        return abs(float((weights * torch.exp(nodes)).sum()) - (numpy.e - 1))

    assert error(40) / error(80) == pytest.approx(2**order, rel=0.05)


@pytest.mark.parametrize("n_steps", [0, -1, 1.5, True, "many"])
def test_a_wrong_number_of_steps_is_refused(n_steps):
    with pytest.raises(UnilensError, match=r"expected n_steps to be a whole number of at least 1"):
        quadrature("right", n_steps)
