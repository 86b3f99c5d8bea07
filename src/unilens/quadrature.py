"""Quadrature rules: nodes and weights on [0, 1]; the weights sum to one for any `n_steps`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy
import torch
from torch import Tensor

from ._validation.settings import Check, check_count
from .errors import UnilensError
from .registry import Card, Registry


class Quadrature(NamedTuple):
    """Ascending nodes in [0, 1] and weights that sum to one, both `(n_steps,)` in float64."""

    nodes: Tensor
    weights: Tensor


Rule = Callable[[int], Quadrature]


def right(n_steps: int) -> Quadrature:
    """Return the nodes 1/n, 2/n, ..., 1 with equal weights (the paper's Riemann sum).

    >>> right(2).nodes.tolist()
    [0.5, 1.0]
    """
    return _equal(torch.arange(1, n_steps + 1, dtype=torch.float64) / n_steps)


def left(n_steps: int) -> Quadrature:
    """Return the nodes 0, 1/n, ..., (n-1)/n with equal weights."""
    return _equal(torch.arange(n_steps, dtype=torch.float64) / n_steps)


def midpoint(n_steps: int) -> Quadrature:
    """Return the middles of n equal intervals with equal weights; error O(1/n^2)."""
    return _equal((torch.arange(n_steps, dtype=torch.float64) + 0.5) / n_steps)


def trapezoid(n_steps: int) -> Quadrature:
    """Return n nodes from 0 to 1, both ends at half weight; error O(1/n^2).

    A single node is the midpoint: a trapezoid needs two sides.
    """
    if n_steps == 1:
        return midpoint(1)
    weights = torch.full((n_steps,), 1 / (n_steps - 1), dtype=torch.float64)
    weights[[0, -1]] /= 2
    return Quadrature(torch.linspace(0, 1, n_steps, dtype=torch.float64), weights)


_MOST_GAUSS_NODES = 1000


@functools.cache
@torch.inference_mode(False)
def gauss_legendre(n_steps: int) -> Quadrature:
    """Return the n-point Gauss-Legendre rule; exact for polynomials of degree 2n - 1."""
    if n_steps > _MOST_GAUSS_NODES:
        raise UnilensError(
            f"expected at most {_MOST_GAUSS_NODES} steps of gauss_legendre, whose nodes take "
            f"a time of O(n_steps^3) to compute, got {n_steps}; use rule='midpoint'"
        )
    nodes, weights = numpy.polynomial.legendre.leggauss(n_steps)
    return Quadrature(torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2))


def _equal(nodes: Tensor) -> Quadrature:
    return Quadrature(nodes, torch.full_like(nodes, 1 / len(nodes)))


rules: Registry[Rule] = Registry("rule")
for _name, _rule, _summary in (
    ("right", right, "right Riemann sum (the paper's choice); error O(1/n)"),
    ("left", left, "left Riemann sum; error O(1/n)"),
    ("midpoint", midpoint, "midpoint rule; error O(1/n^2)"),
    ("trapezoid", trapezoid, "trapezoid with both ends; error O(1/n^2)"),
    ("gauss_legendre", gauss_legendre, "Gauss-Legendre; exact to degree 2n - 1"),
):
    rules.add_value(
        Card(_name, "quadrature", _summary, "Press et al., Numerical Recipes, chapter 4"),
        _rule,
    )


def quadrature(rule: str | Rule, n_steps: int) -> Quadrature:
    """Return nodes and weights of a rule, given by name or as a function of `n_steps`."""
    n_steps = check_count("n_steps", n_steps)
    _check_rule("rule", rule)
    return Quadrature(*(rules[rule].build() if isinstance(rule, str) else rule)(n_steps))


def _check_rule(name: str, rule: object) -> None:
    if not isinstance(rule, str) and not callable(rule):
        raise UnilensError(f"expected {name} to be a name or a function of n_steps, got {rule!r}")
    if isinstance(rule, str):
        rules[rule]


AnyRule = Annotated[str | Rule, Check(_check_rule, lambda: rules)]
"""A setting: the name of a registered rule, or a function of the number of nodes."""
