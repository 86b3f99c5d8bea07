"""Vector-Jacobian products of explainers: gradients of functions of a map in the inputs."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..._engine.evaluator import Evaluation, Evaluator
from ..._engine.score_gradient import ScoreGradient
from ..._ops.precision import expand_like
from ...attribution import Attribution
from ...methods import Gradient
from ...path_attribution import PathAttribution
from ...paths import PathChunk, StraightLine
from ...quadrature import Quadrature, quadrature
from ...scores import resolve as resolve_score
from ...weightings import Gains, ImportantDirection, Riemann, Weighting

_FIXED = (Riemann, ImportantDirection, Gains)
"""Weightings that do not choose the nodes."""
_VALUES_AT_ONCE = 2**26
"""Of the gradients on the lines of some inputs, which are in memory together: 256 MiB."""


def has_explainer_vjp(explainer: object) -> bool:
    """Return whether `explainer_vjp` covers a method; balanced gradients have no derivative."""
    return isinstance(explainer, (Gradient, PathAttribution)) and not explainer.balanced


def explainer_vjp(
    explainer: object,
    evaluator: Evaluator,
    points: Tensor,
    found: Attribution,
    vectors: Tensor,
    nodes: int | None = None,
) -> Tensor:
    """Return J^T v, J = dA/dx the Jacobian of the map A in the input x.

    With g the gradient of the score and H its Hessian, the map g has J^T v = H v; input times
    gradient has v g + H (v x). On a straight line from a baseline x' a map is a function of the
    gradients g_k and scores f_k at nodes x' + t_k (x - x') and of the way x - x'. With a, b and c
    the gradients of v . A in these, J^T v = c + sum_k t_k (H_k a_k + b_k g_k), where the baseline
    stays where it is. One that was searched for next to its input, as UNI's in the paper, moves
    with it: there the way is what is held fixed, and J^T v = sum_k (H_k a_k + b_k g_k).

    H comes as products with vectors, fifty times as fast as differentiating the map where
    convolutions are grouped; that is left for other paths, several baselines, and weightings that
    place nodes, one input at a time.

    Args:
        explainer: of which `has_explainer_vjp` is true.
        evaluator: runs the model whose map is differentiated.
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
    line = isinstance(explainer.path, StraightLine) and isinstance(explainer.weighting, _FIXED)
    if line and explainer.baseline.count == 1:
        assert found.baseline is not None
        count = max(1, _VALUES_AT_ONCE // (explainer.n_steps * points[0].numel()))
        rows = zip(
            *(one.split(count) for one in (points, found.target, found.baseline, vectors)),
            strict=True,
        )
        return torch.cat(
            [
                _along_line(explainer, evaluator, some, target, baseline, along, nodes)
                for some, target, baseline, along in rows
            ]
        )
    return _through_graph(explainer, evaluator, points, found, vectors)


def _through_gradient(
    explainer: Gradient, evaluator: Evaluator, points: Tensor, found: Attribution, vectors: Tensor
) -> Tensor:
    gradient = ScoreGradient(evaluator, resolve_score(explainer.score, evaluator), found.target)
    at = points.unsqueeze(0)
    if not explainer.times_input:
        return gradient.hessian_vector(at, vectors.unsqueeze(0))[0]
    second = gradient.hessian_vector(at, vectors * at)[0]
    return vectors * gradient(at).gradients[0] + second


def _along_line(
    explainer: PathAttribution,
    evaluator: Evaluator,
    points: Tensor,
    target: Tensor,
    baseline: Tensor,
    vectors: Tensor,
    nodes: int | None,
) -> Tensor:
    gradient = ScoreGradient(evaluator, resolve_score(explainer.score, evaluator), target)
    rule = quadrature(explainer.rule, min(nodes or explainer.n_steps, explainer.n_steps))
    way = points - baseline
    near = explainer.baseline.starts_at_input(evaluator, points)
    seen = [
        (node.flatten(), weight, gradient(baseline + node * way))
        for node, weight in gradient.blocks(points, rule.nodes, rule.weights)
    ]
    ends = gradient.scores(torch.stack([baseline, points]))
    slopes = _slopes_of_map(
        explainer.weighting.for_model(evaluator), rule, seen, way, ends, vectors
    )
    total = torch.zeros_like(points) if near else slopes.way
    count = 0
    for nodes_at, _, evaluation in seen:
        at = baseline + expand_like(nodes_at, evaluation.gradients[:, :1]) * way
        here = slice(count, count + len(nodes_at))
        count += len(nodes_at)
        rows = gradient.hessian_vector(at, slopes.gradients[here])
        rows = rows + expand_like(slopes.scores[here], rows) * evaluation.gradients
        for node, row in zip(nodes_at, rows, strict=True):
            total = total + (row if near else node * row)  # one by one, whatever the batch
    for end, slope in zip((baseline, points), slopes.ends, strict=True):
        moves = near or end is points
        if moves and bool(slope.any()):
            total = total + expand_like(slope, points) * gradient(end.unsqueeze(0)).gradients[0]
    return total


class _Slopes(NamedTuple):
    """The gradients of v . A, of a map A on a line, in what the line has shown.

    Attributes:
        gradients: in the gradients at the nodes `(n, B, *S)`.
        scores: in the scores there `(n, B)`.
        ends: in the scores at baseline and input `(2, B)`.
        way: in the way between them `(B, *S)`.
    """

    gradients: Tensor
    scores: Tensor
    ends: Tensor
    way: Tensor


def _slopes_of_map(
    weighting: Weighting,
    rule: Quadrature,
    seen: list[tuple[Tensor, Tensor, Evaluation]],
    way: Tensor,
    ends: Tensor,
    vectors: Tensor,
) -> _Slopes:
    """Return the gradients of v . A; the model is not run."""
    gradients = torch.cat([evaluation.gradients for _, _, evaluation in seen])
    scores = torch.cat([evaluation.values for _, _, evaluation in seen])
    leaves = [one.detach().requires_grad_() for one in (gradients, scores, ends, way)]
    gradients, scores, ends, way = leaves
    with torch.enable_grad():
        count, chunks = 0, []
        for nodes_at, weight, evaluation in seen:
            here = slice(count, count + len(nodes_at))
            count += len(nodes_at)
            shown = Evaluation(evaluation.outputs, scores[here], gradients[here])
            chunks.append(PathChunk(nodes_at, evaluation.gradients, shown, weight * way))
        products = weighting(chunks, rule, ends[0], ends[1])
        total = torch.stack([(first * second * vectors).sum() for first, second in products]).sum()
        return _Slopes(*torch.autograd.grad(total, leaves, materialize_grads=True))


def _through_graph(
    explainer: PathAttribution,
    evaluator: Evaluator,
    points: Tensor,
    found: Attribution,
    vectors: Tensor,
) -> Tensor:
    graph = dataclasses.replace(explainer, create_graph=True)
    seed = cast(int, found.provenance.get("seed", 0))
    pulled: list[Tensor] = []
    for row in torch.arange(len(points), device=points.device).split(1):
        with torch.enable_grad():
            leaf = points[row].requires_grad_()
            values = graph.of_rows(row)(evaluator, leaf, found.target[row], seed=seed).values
            pulled += torch.autograd.grad(values, leaf, vectors[row])
    return torch.cat(pulled)
