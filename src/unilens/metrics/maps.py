"""Maps as metrics read them: checked, without channels, and ranked."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import torch
from torch import Tensor

from .._engine.axes import Axes
from .._ops.precision import to_float64
from .._ops.spatial import broadcast_over_channels, spatial_shape_of
from .._validation.arrays import to_tensor
from .._validation.settings import one_of
from ..attribution import Attribution
from ..errors import UnilensError, require
from ..explainer import to_first

REDUCTIONS = ("sum", "abs")
"""sum: values summed over channels, with their sign; abs: their absolute values, summed."""
Reduction = Annotated[str, one_of(REDUCTIONS)]


def check_map(values: object, inputs: Tensor) -> Tensor:
    """Return maps as `(B, *S)`, detached; a map without channels is divided evenly among them."""
    values = to_tensor("maps", values)
    if not isinstance(values, Tensor):
        raise UnilensError(
            f"expected maps as a tensor or an Attribution, got {type(values).__name__}; "
            "convert them with torch.as_tensor"
        )
    values = values.detach().to(inputs.device)
    if values.shape == inputs.shape:
        return values.to(inputs.dtype)
    grid = spatial_shape_of(inputs.shape[1:])
    if inputs.ndim > 2 and values.shape in ((len(inputs), *grid), (len(inputs), 1, *grid)):
        return broadcast_over_channels(values.to(inputs.dtype).view(len(inputs), *grid), inputs)
    raise UnilensError(
        f"expected maps of the inputs' shape {tuple(inputs.shape)}"
        + (f" or {(len(inputs), *grid)}" if inputs.ndim > 2 else "")
        + f", got {tuple(values.shape)}"
    )


def check_mask(mask: object, inputs: Tensor) -> Tensor:
    """Return where the object is `(B, *spatial)`, from a mask or from boxes `(B, 4)` in pixels."""
    mask = to_tensor("mask", mask)
    grid, count = spatial_shape_of(inputs.shape[1:]), len(inputs)
    if isinstance(mask, Tensor):
        if mask.shape in ((count, *grid), (count, 1, *grid)):
            require(not mask.is_complex(), f"expected a mask of real numbers, got {mask.dtype}")
            return mask.to(inputs.device).view(count, *grid) > 0.5
        if mask.shape == (count, 4) and len(grid) == 2:
            _check_boxes(mask)
            return _inside(mask.to(inputs.device), grid)
    came = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise UnilensError(
        f"expected mask of shape {(count, *grid)}, true inside the object, or boxes ({count}, 4) "
        f"as left, top, right, bottom in pixels; got {came}"
    )


def check_without_parts(given: object, inputs: Tensor) -> Tensor:
    """Return the inputs without each of their parts `(B, P, *S)`."""
    given, (count, *shape) = to_tensor("without_parts", given), inputs.shape
    came = tuple(given.shape) if isinstance(given, Tensor) else ()
    if isinstance(given, Tensor) and came[:1] + came[2:] == tuple(inputs.shape) and came[1] > 0:
        return given.detach().to(inputs)
    expected = ", ".join(map(str, (count, "P", *shape)))
    raise UnilensError(
        f"expected without_parts of shape ({expected}), each input without each of its P parts, "
        f"got {came or type(given).__name__}"
    )


def _check_boxes(boxes: Tensor) -> None:
    left, top, right, bottom = boxes.unbind(1)
    bad = ((left >= right) | (top >= bottom) | ~boxes.isfinite().all(1)).nonzero().flatten()
    require(
        not len(bad),
        f"expected boxes as left, top, right, bottom with left < right and top < bottom, got "
        f"{boxes[bad[:1]].flatten().tolist()}",
    )


def _inside(boxes: Tensor, grid: torch.Size) -> Tensor:
    rows = torch.arange(grid[0], device=boxes.device)[None, :, None]
    columns = torch.arange(grid[1], device=boxes.device)[None, None, :]
    left, top, right, bottom = (side[:, None, None] for side in boxes.unbind(1))
    return (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)


def maps_to_first(attribution: Any, inputs: Tensor, axes: Axes) -> Any:
    """Return maps channels first; maps without channels stay, as any that do not fit."""
    if isinstance(attribution, Attribution):
        fits = attribution.values.shape == inputs.shape
        attribution = to_first(attribution, axes) if fits else attribution
        unsettled = {k: v for k, v in attribution.provenance.items() if k != "settings"}
        return dataclasses.replace(attribution, provenance=unsettled)
    if not isinstance(attribution, Tensor):
        return attribution
    if attribution.shape == inputs.shape:
        return axes.to_first(attribution)
    single = attribution.shape == (*inputs.shape[:-1], 1) and axes.channels == "last"
    return axes.to_first(attribution) if single else attribution


def mask_to_first(mask: Any, inputs: Tensor, axes: Axes) -> Any:
    """Return a mask without the single channel that it may have last."""
    shape = getattr(mask, "shape", None)
    single = axes.channels == "last" and shape == (*inputs.shape[:-1], 1)
    return mask.squeeze(-1) if single else mask


def parts_to_first(given: object, inputs: Tensor, axes: Axes) -> Tensor | None:
    """Return the inputs without each of their parts `(B, P, *S)`, channels first."""
    if given is None:
        return None
    parts = check_without_parts(given, inputs)
    return axes.to_first(parts.flatten(0, 1)).unflatten(0, parts.shape[:2])


def reduce_channels(values: Tensor, reduction: str) -> Tensor:
    """Return maps without channels `(B, *spatial)`, in float64.

    Args:
        values: maps `(B, *S)`.
        reduction: one of `REDUCTIONS`.
    """
    counted = to_float64(values.abs() if reduction == "abs" else values)
    return counted.sum(1) if values.ndim > 2 else counted


def constant(relevance: Tensor) -> Tensor:
    """Return which maps `(B, *spatial)` have the same value everywhere, and so no order `(B,)`."""
    flat = relevance.flatten(1)
    return (flat == flat[:, :1]).all(1)


def unchanged(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """Return which rows `(B, n)` of scores differ by no more than a dtype's rounding `(B,)`."""
    span = scores.amax(1) - scores.amin(1)
    return span <= 8 * torch.finfo(dtype).eps * scores.abs().amax(1)


def ranking(relevance: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Return the rank of each position `(B, *spatial)`, 0 for the most relevant.

    Equally relevant positions come in random order: any fixed one would favour a corner.

    Args:
        relevance: `(B, *spatial)`.
        generators: one per input.
    """
    flat = relevance.flatten(1)
    ranks = torch.empty_like(flat, dtype=torch.long)
    for row, (values, generator) in enumerate(zip(flat, generators, strict=True)):
        shuffled = torch.randperm(len(values), generator=generator).to(flat.device)
        order = shuffled[values[shuffled].argsort(descending=True, stable=True)]
        ranks[row, order] = torch.arange(len(values), device=flat.device)
    return ranks.view(relevance.shape)
