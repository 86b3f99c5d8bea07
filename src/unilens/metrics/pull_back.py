"""The way back through a map: how the inputs must move for a change of the map."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch
from torch import Tensor

from ..attribution import Attribution
from ..baselines.base import passes_of
from ..gradients import Evaluator, Passes
from ..integration import PathAttribution
from ..methods import Gradient
from ..paths import StraightLine
from ..quadrature import quadrature
from ..score_gradient import ScoreGradient
from ..scores import resolve as resolve_score
from ..weightings import Riemann


def pulls_back(explainer: object) -> bool:
    """Return whether there is a way back through the maps of a method."""
    return isinstance(explainer, (Gradient, PathAttribution))


def pull_back(
    explainer: object,
    evaluator: Evaluator,
    points: Tensor,
    found: Attribution,
    vectors: Tensor,
    nodes: int | None = None,
) -> Tensor:
    """Return J^T v, J = dA/dx the Jacobian of the map A in the input x.

    With g the gradient of the score and H its Hessian, the map g has J^T v = H v; input times
    gradient has v g + H (v x); a straight line from a baseline x' that stays where it is has, with
    nodes t_k and weights w_k, sum_k w_k (v g + t_k H ((x - x') v)) at x' + t_k (x - x'). A baseline
    that was searched for, such as UNI's, lies near its input and moves with it: there the way
    x - x' is what is held fixed, and the sum is that of w_k H ((x - x') v).

    H comes as products with vectors, fifty times as fast as differentiating the map where
    convolutions are grouped; that is left for other paths and weightings, one input at a time.

    Args:
        explainer: of which `pulls_back` is true.
        evaluator: runs the model whose map is pulled back through.
        points: `(B, *S)`.
        found: what the explainer gave there, of this model or one it stands in for: the target and
            the baseline.
        vectors: v, `(B, *S)`.
        nodes: on the straight line, at most; None for the method's own.

    Returns:
        `(B, *S)`.
    """
    if isinstance(explainer, Gradient):
        return _through_gradient(explainer, evaluator, points, found, vectors)
    assert isinstance(explainer, PathAttribution)
    line = isinstance(explainer.path, StraightLine) and isinstance(explainer.weighting, Riemann)
    if line and getattr(explainer.baseline, "count", 1) == 1:
        return _along_line(explainer, evaluator, points, found, vectors, nodes)
    return _through_graph(explainer, evaluator, points, found, vectors)


def _through_gradient(
    explainer: Gradient, evaluator: Evaluator, points: Tensor, found: Attribution, vectors: Tensor
) -> Tensor:
    gradient = ScoreGradient(evaluator, resolve_score(explainer.score), found.target)
    at = points.unsqueeze(0)
    if not explainer.times_input:
        return gradient.hessian_vector(at, vectors.unsqueeze(0))[0]
    second = gradient.hessian_vector(at, vectors * at)[0]
    return vectors * gradient(at).gradients[0] + second


def _along_line(
    explainer: PathAttribution,
    evaluator: Evaluator,
    points: Tensor,
    found: Attribution,
    vectors: Tensor,
    nodes: int | None,
) -> Tensor:
    gradient = ScoreGradient(evaluator, resolve_score(explainer.score), found.target)
    rule = quadrature(explainer.rule, min(nodes or explainer.n_steps, explainer.n_steps))
    searched = passes_of(explainer.baseline) != Passes(0, 0)
    assert found.baseline is not None
    way, total = points - found.baseline, torch.zeros_like(points)
    for place, weight in gradient.blocks(points, rule.nodes, rule.weights):
        at = found.baseline + place * way
        rows = gradient.hessian_vector(at, (way * vectors).expand_as(at))
        if not searched:
            rows = vectors * gradient(at).gradients + place * rows
        for one in weight * rows:
            total += one  # one by one: no sum whose rounding depends on the batch
    return total


def _through_graph(
    explainer: PathAttribution,
    evaluator: Evaluator,
    points: Tensor,
    found: Attribution,
    vectors: Tensor,
) -> Tensor:
    graph = dataclasses.replace(explainer, create_graph=True)
    seed = cast(int, found.provenance.get("seed", 0))
    rows = []
    for point, target, vector in zip(points, found.target, vectors, strict=True):
        with torch.enable_grad():
            leaf = point.unsqueeze(0).clone().requires_grad_()
            values = graph(evaluator, leaf, target.unsqueeze(0), seed=seed).values
            rows += torch.autograd.grad(values, leaf, vector.unsqueeze(0))
    return torch.cat(rows)
