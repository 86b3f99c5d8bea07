"""Local inpainting: removed pixels become weighted means of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..._engine.evaluator import Evaluator
from ..._ops.precision import expand_like, to_float64
from ..._ops.random import standard_normal
from ..._ops.spatial import LINEAR
from ..._validation.settings import NonNegative, Positive, Settings
from ...errors import NotApplicableError
from ...registry import Card
from ..context import EvalContext
from .imputers import ImputeFunction, imputers, over_channels

_MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class Inpaint(Settings):
    """Replace each removed pixel by the weighted mean of its eight neighbours.

    x_i = sum_j w_ij x_j / sum_j w_ij over the neighbours j inside the image, removed ones too, with
    w = 1/6 for direct and 1/12 for diagonal neighbours: a linear system whose boundary are the
    kept pixels, solved for all removed pixels at once. Channels do not mix. A signal has two
    neighbours that weigh the same; a volume or clip has 26, which weigh 4, 2 and 1 by the number of
    sides along which they differ. Where nothing is kept, the input's own mean, per channel.

    Args:
        noise: the standard deviation of the gaussian noise put on what was guessed, in the inputs'
            units; one draw per input, whatever is removed.
        tolerance: how far a guess may be from the mean of its neighbours, as a fraction of the
            input's range.

    References:
        Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods",
        arXiv 2202.00449: noisy linear imputation.
    """

    noise: NonNegative = 0.01
    tolerance: Positive = 1e-5

    def __call__(self, context: EvalContext) -> ImputeFunction:
        """Return the imputing function; see `Imputer`."""
        evaluator, inputs = context.evaluator, context.inputs
        if inputs.ndim not in (3, 4, 5):
            raise NotApplicableError(
                "inpainting expects images (B, C, H, W), signals (B, C, L) or volumes "
                f"(B, C, D, H, W), got {tuple(inputs.shape)}, which has no neighbours; use "
                "imputer='image_mean'"
            )
        noise = torch.stack(
            [standard_normal(inputs.shape[1:], own) for own in context.generators()]
        )
        noise = self.noise * noise.to(inputs)

        def impute(kept: Tensor) -> Tensor:
            guessed = self._guess(evaluator, inputs, kept) + noise
            return torch.where(over_channels(kept, inputs), inputs, guessed)

        return impute

    def _guess(self, evaluator: Evaluator, inputs: Tensor, kept: Tensor) -> Tensor:
        """Return inputs `(n, B, *S)` with guesses where positions `(n, B, *spatial)` are not kept.

        On the CPU one at a time on each thread, as passes are run; elsewhere all at once.
        """
        shape = (*kept.shape[:2], *inputs.shape[1:])
        images = inputs if inputs.ndim > 3 else inputs.unsqueeze(2)
        grids = kept.flatten(0, 1).view(-1, 1, *images.shape[2:])
        if images.device.type != "cpu":
            repeated = images.expand(len(kept), *images.shape).flatten(0, 1)
            return inpaint(repeated, grids, self.tolerance).view(shape)

        def one(index: int) -> Tensor:
            row = index % len(images)
            return inpaint(images[row : row + 1], grids[index : index + 1], self.tolerance)

        return torch.cat(evaluator.for_each(len(grids), one)).view(shape)


def inpaint(images: Tensor, kept: Tensor, tolerance: float) -> Tensor:
    """Return images whose removed pixels are the weighted means of their neighbours.

    Conjugate gradients over all channels together, from a guess made on coarser and coarser grids.
    An image that has converged changes no more while others go on.

    Args:
        images: `(m, C, H, W)`, or volumes `(m, C, D, H, W)`.
        kept: `(m, 1, H, W)` or `(m, 1, D, H, W)`, true or false.
        tolerance: of the largest residual, as a fraction of each image's range.
    """
    removed = (~kept).to(images)
    own = images.mean(tuple(range(2, images.ndim)), keepdim=True)
    weights = _neighbours(torch.ones_like(removed))
    solution = torch.where(kept, images, _coarse_guess(images - own, 1 - removed) + own)
    smooth = _Preconditioner(removed, weights)
    flat = images.flatten(1)
    allowed = tolerance * (flat.amax(1) - flat.amin(1))
    allowed = allowed.masked_fill(~kept.flatten(1).any(1), torch.inf)
    residual = removed * (_neighbours(solution) - weights * solution)
    direction = smoothed = smooth(residual)
    product = _dot(residual, smoothed)
    for _ in range(_MOST_ITERATIONS):
        active = residual.abs().flatten(1).amax(1) > allowed
        if not active.any():
            break
        image = removed * (weights * direction - _neighbours(direction))
        step = _factor(product, _dot(direction, image), active, images)
        solution, residual = solution + step * direction, residual - step * image
        smoothed, before = smooth(residual), product
        product = _dot(residual, smoothed)
        direction = smoothed + _factor(product, before, active, images) * direction
    return solution


class _Preconditioner:
    """An approximate inverse: the residual's sums over cells of 1, 2, 4, ... pixels a side.

    Each cell's sum is divided by about what holds the cell in place: the weights of its ties to
    kept pixels, and to the cells around it.
    """

    def __init__(self, removed: Tensor, weights: Tensor) -> None:
        self._removed, self._weights = removed, weights
        self._scales: list[Tensor] = []
        ties, count, side = removed * _neighbours(1 - removed), removed, 1
        while max(count.shape[2:]) > 1:
            ties, count, side = _sums(ties), _sums(count), 2 * side
            held = ties + 2 * count / side**1.5
            self._scales.append(torch.where(count > 0, 1 / held, 0.0))

    def __call__(self, residual: Tensor) -> Tensor:
        sums, scaled = residual, []
        for scale in self._scales:
            sums = _sums(sums)
            scaled.append(sums * scale)
        total = torch.zeros_like(sums)
        for finer in [*scaled[::-1], residual / self._weights]:
            total = finer + _spread(total, finer)
        return self._removed * total


def _neighbours(images: Tensor) -> Tensor:
    """Return the weighted sum of each pixel's neighbours; outside the image there is nothing.

    The nine weights (1, 2, 1) x (1, 2, 1) / 12 less the middle one; in volumes the 27 weights
    (1, 2, 1) x (1, 2, 1) x (1, 2, 1) / 56. So all neighbours together weigh 1.
    """
    spatial = images.ndim - 2
    total = functional.pad(images, (1, 1) * spatial)
    for dim, side in zip(range(-1, -1 - spatial, -1), reversed(images.shape[2:]), strict=True):
        before, here, after = (total.narrow(dim, start, side) for start in range(3))
        total = before + 2 * here + after
    return (total - 2**spatial * images) / (4**spatial - 2**spatial)


def _coarse_guess(images: Tensor, known: Tensor) -> Tensor:
    """Return images whose unknown pixels come from the means of what is known around them."""
    if max(images.shape[2:]) == 1 or bool((known > 0).all()):
        return images * (known > 0)
    count = _sums(known)
    means = _sums(images * known) / count.clamp(min=1)
    coarse = _coarse_guess(means, (count > 0).to(images))
    finer = functional.interpolate(coarse, size=images.shape[2:], mode=LINEAR[images.ndim - 2])
    return torch.where(known > 0, images, finer)


def _sums(images: Tensor) -> Tensor:
    """Return the sums over cells of two pixels a side."""
    pool = functional.avg_pool2d if images.ndim == 4 else functional.avg_pool3d
    cell = [min(2, side) for side in images.shape[2:]]
    return pool(images, cell, ceil_mode=True, divisor_override=1)


def _spread(cells: Tensor, like: Tensor) -> Tensor:
    """Return each cell's value at its pixels; cells as large as the pixels stay."""
    if cells.shape[2:] == like.shape[2:]:
        return cells
    for dim, side in enumerate(like.shape[2:], start=2):
        cells = cells.repeat_interleave(2, dim).narrow(dim, 0, side)
    return cells


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return to_float64(first * second).flatten(1).sum(1)


def _factor(above: Tensor, below: Tensor, active: Tensor, like: Tensor) -> Tensor:
    """Return above / below for the images that go on, 0 for those that have converged."""
    ratio = torch.where(active & (below > 0), above / below, 0.0)
    return expand_like(ratio, like)


_RONG = "Rong et al. 2022, arXiv 2202.00449"
imputers.add(
    Card("inpaint", "local", "from neighbouring pixels, with noise, as ROAD", _RONG, False), Inpaint
)
imputers.add(
    Card("smooth_inpaint", "local", "from neighbouring pixels, without noise", _RONG),
    lambda: Inpaint(noise=0),
)
