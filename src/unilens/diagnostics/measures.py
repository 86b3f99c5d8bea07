"""Measurements that show whether an attribution can be trusted, computed from its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .._ops.correlation import spearman
from .._ops.precision import expand_like, l2_norm, to_float64
from .trace import Trace

_FLAT_SLOPE = 0.1
"""A segment of the path is flat where the score's slope is below this share of its mean slope."""


def confidence_change(trace: Trace) -> Tensor:
    """Return `(F(x') - F(x)) / F(x)` per input `(B,)`: -1 where the baseline's confidence is 0."""
    return (trace.confidence[0] - trace.confidence[-1]) / trace.confidence[-1]


def proximity(inputs: Tensor, baseline: Tensor) -> Tensor:
    """Return the l2 distance of each baseline from its input `(B,)`, in the inputs' units."""
    return l2_norm(inputs - baseline)


def monotonicity(trace: Trace) -> Tensor:
    """Return the Spearman correlation of fraction and confidence `(B,)`; NaN where constant."""
    return spearman(trace.fraction.T, trace.confidence.T)


def confidence_fallback(trace: Trace) -> Tensor:
    """Return the largest fall of the confidence on the way to the input `(B,)`.

    It is a share of the confidence's range along the path, in [0, 1]: 0 where it never falls, NaN
    where it is constant.
    """
    confidence = to_float64(trace.confidence)
    fall = (confidence.cummax(0).values - confidence).amax(0)
    return fall / (confidence.amax(0) - confidence.amin(0))


def flat_fraction(trace: Trace) -> Tensor:
    """Return the share of the path `(B,)` on which the score hardly changes, in [0, 1].

    A segment counts where the magnitude of the score's slope is below a tenth of the path's mean
    slope; the share is NaN where the mean slope is 0.
    """
    lengths = trace.fraction.diff(dim=0)
    mean_change = (trace.score[-1] - trace.score[0]).abs()
    flat = trace.score.diff(dim=0).abs() < _FLAT_SLOPE * mean_change * lengths
    share = to_float64(flat * lengths).T.contiguous().sum(1)
    return share.masked_fill(mean_change == 0, torch.nan)


def riemann_error_bound(trace: Trace, distance: Tensor, n_steps: int) -> Tensor:
    """Return `M |x - x'|^2 / (2 n)` per input, in units of the score.

    It bounds the error of a left or right Riemann sum if M bounds the change of the gradient.

    Args:
        trace: whose `gradient_change` is M.
        distance: `(B,)`, the l2 distance between input and baseline.
        n_steps: of the path.
    """
    return trace.gradient_change * distance**2 / (2 * n_steps)


def stability(maps: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """Return the rank correlations between the map with the most steps and those with fewer.

    Args:
        maps: attributions `(B, *S)` by number of steps; their absolute values are compared, summed
            over channels for images and volumes.

    Returns:
        By name `stability_<few>_<most>`, Spearman correlations `(B,)`.
    """
    most = max(maps)
    flat = {steps: unsigned(values).flatten(1) for steps, values in maps.items()}
    return {
        f"stability_{steps}_{most}": spearman(flat[steps], flat[most])
        for steps in sorted(maps)
        if steps != most
    }


def top_curvature(
    product: Callable[[Tensor], Tensor], start: Tensor, iterations: int = 20
) -> Tensor:
    """Return each Hessian's eigenvalue of largest magnitude `(N, B)`, by power iteration.

    Args:
        product: from vectors `(N, B, *S)` to Hessian-vector products `(N, B, *S)`.
        start: `(N, B, *S)`, the initial vectors, not zero.
        iterations: number of products. The value approaches the eigenvalue from below in magnitude.
    """
    vectors, value = start, torch.zeros_like(l2_norm(start, 2))
    for _ in range(iterations):
        vectors = vectors / expand_like(l2_norm(vectors, 2), vectors)
        image = product(vectors)
        value = to_float64(vectors * image).flatten(2).sum(2)
        vectors = torch.where(expand_like(l2_norm(image, 2), image) > 0, image, vectors)
    return value


def lanczos_curvature(
    product: Callable[[Tensor], Tensor], start: Tensor, iterations: int = 20
) -> Tensor:
    """Return each Hessian's eigenvalue of largest magnitude `(N, B)`, by Lanczos iteration.

    At equal cost it is never worse than `top_curvature` from the same start, and usually much
    better: it searches the space of all products, whose basis is kept in memory. Each new vector is
    orthogonalised twice against the basis.

    Args:
        product: from vectors `(N, B, *S)` to Hessian-vector products `(N, B, *S)`.
        start: `(N, B, *S)`, the initial vectors, not zero.
        iterations: number of products and of vectors kept.
    """
    size = min(iterations, start[0, 0].numel())
    vector, basis = to_float64(start) / expand_like(l2_norm(start, 2), to_float64(start)), []
    matrix = vector.new_zeros(*start.shape[:2], size, size)
    for step in range(size):
        basis.append(vector)
        image = to_float64(product(vector.to(start.dtype)))
        for _ in range(2):
            for row, known in enumerate(basis):
                share = (known * image).flatten(2).sum(2)
                image = image - expand_like(share, image) * known
                if row == step:
                    matrix[..., step, step] += share
        length = l2_norm(image, 2)
        continues = length > 1e-10 * matrix.abs().amax((2, 3))
        if step + 1 < size:
            matrix[..., step, step + 1] = matrix[..., step + 1, step] = length * continues
        vector = expand_like(torch.where(continues, 1 / length, 0.0), image) * image
    values = torch.linalg.eigvalsh(matrix)
    return torch.where(
        values[..., -1].abs() >= values[..., 0].abs(), values[..., -1], values[..., 0]
    )


def unsigned(values: Tensor) -> Tensor:
    """Return the absolute values of maps `(B, *S)`, summed over channels for images and volumes."""
    return values.abs().sum(1) if values.ndim in (4, 5) else values.abs()
