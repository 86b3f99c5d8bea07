"""What the score does when places are hidden: forward passes only, so that any model will do.

A place is a pixel, a sample of a signal or a feature of a table; it is hidden in all channels at
once. A map of places is spread evenly over the channels: their sum is the map.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.quasirandom import SobolEngine

from ..attribution import Attribution, Case, Method
from ..baselines import Baseline, Constant, baselines
from ..baselines.base import check_count, check_number, check_part, check_single, check_switch
from ..diagnostics import proximity
from ..errors import NotApplicableError, require
from ..gradients import Evaluator, Passes
from ..numerics import per_item, wide
from ..registry import Card, Composed
from ..scores import Score
from ..scores import resolve as resolve_score
from .base import methods

_PHOTOGRAPH = torch.Size((3, 224, 224))


@dataclass(frozen=True)
class Hiding(Method):
    """What methods share that hide places of the input and watch the score.

    Args:
        baseline: what is put where a place is hidden.
        score: what is explained, by name or as a function of logits and target.
    """

    baseline: Baseline = field(default_factory=Constant)
    score: str | Score = "probability"

    def __post_init__(self) -> None:
        resolve_score(self.score)
        check_part("baseline", self.baseline)

    @property
    def passes(self) -> Passes:
        """Passes for an image of 224 x 224 pixels; every attribution records its own."""
        return self._passes(_PHOTOGRAPH)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless the inputs are images, signals or tables."""
        if not 2 <= inputs.ndim <= 4:
            raise NotApplicableError(
                f"{type(self).__name__} expects images (B, C, H, W), signals (B, C, L) or tables "
                f"(B, F), got {tuple(inputs.shape)}; use method='ig'"
            )
        check_single(self.baseline)
        check = getattr(self.baseline, "check", None)
        if check is not None:
            check(model, inputs)

    def _explain(self, case: Case) -> Attribution:
        found = case.found(self.baseline)
        hidden = _Hidden(case, found.values, resolve_score(self.score))
        attribution = Attribution(
            values=_spread(self._map(hidden), case.inputs),
            target=case.target,
            score=hidden.score_of(case.outputs),
            outputs=case.outputs,
            baseline=found.values,
            record=found.record,
            measured={"proximity": proximity(case.inputs, found.values)},
        )
        passes = self._passes(case.inputs.shape[1:])
        return attribution.with_provenance(passes=passes._asdict())

    def _passes(self, shape: torch.Size) -> Passes:
        search = cast(Passes, getattr(self.baseline, "passes", Passes(0, 0)))
        return search + Passes(1 + self._points(shape), 0)

    @abstractmethod
    def _points(self, shape: torch.Size) -> int:
        """Return how many masked points an input of shape `*S` takes."""

    @abstractmethod
    def _map(self, hidden: _Hidden) -> Tensor:
        """Return the maps `(B, *places)`."""


@dataclass(frozen=True, slots=True)
class _Hidden:
    """The scores of inputs in which places are hidden."""

    case: Case
    baseline: Tensor
    score: Score

    @property
    def shape(self) -> torch.Size:
        """The shape `*S` of one input."""
        return self.case.inputs.shape[1:]

    def zeros(self) -> Tensor:
        """Return a map `(B, *places)` to sum in."""
        return wide(self.case.inputs).new_zeros(len(self.case.inputs), *_places(self.shape))

    def blocks(self, points: int) -> Iterator[Tensor]:
        """Yield the numbers of the points, as many at a time as fit into memory."""
        yield from torch.arange(points).split(self.case.evaluator.points_at_once(self.case.inputs))

    def score_of(self, outputs: Tensor) -> Tensor:
        """Return the scores `(..., B)` of outputs `(..., B, K)`."""
        rows = outputs.flatten(0, -2)
        target = self.case.target.repeat(len(rows) // len(self.case.target))
        return self.score(rows, target).view(outputs.shape[:-1])

    def scores(self, kept: Tensor) -> Tensor:
        """Return the scores `(n, B)` where of each place the share `kept` `(n, *places)` is left.

        Of the rest the baseline takes the place. The sum is exact for shares of 0 and 1.
        """
        inputs = self.case.inputs
        channels = (1,) * (inputs.ndim - kept.ndim)
        share = kept.to(inputs).view(len(kept), 1, *channels, *kept.shape[1:])
        points = share * inputs + (1 - share) * self.baseline
        return self.score_of(self.case.evaluator.outputs(points))


def _places(shape: torch.Size) -> torch.Size:
    """Return the shape of the places of an input `*S`: without the channels."""
    return shape[1:] if len(shape) > 1 else shape


def _spread(maps: Tensor, inputs: Tensor) -> Tensor:
    """Return maps `(B, *places)` as values `(B, *S)` whose sum over channels is the map."""
    if inputs.ndim > 2:
        maps = (maps / inputs.shape[1]).unsqueeze(1)
    return maps.to(inputs.dtype).expand_as(inputs).clone()


class _Slide(NamedTuple):
    """A window that slides along one side of the input, in places."""

    side: int
    window: int
    stride: int

    @property
    def stops(self) -> int:
        """Where it stops: until it has reached the end of the side, or hangs over it."""
        return math.ceil((self.side - self.window) / self.stride) + 1

    def covers(self, stop: Tensor) -> Tensor:
        """Return which places it covers at stops `(n,)`, `(n, side)`."""
        offset = torch.arange(self.side) - stop.unsqueeze(1) * self.stride
        return (offset >= 0) & (offset < self.window)


@dataclass(frozen=True)
class Occlusion(Hiding):
    """How far the score falls when a window hides a place: the mean over the windows that do.

    Args:
        baseline: what is put where a place is hidden.
        score: what is explained, by name or as a function of logits and target.
        window: side of the window, in pixels or samples; None for a seventh of each side (32 of
            224 pixels). Longer than a side, it covers all of it. Tables: one feature at a time.
        stride: from one window to the next; None for half the window. At most the window.

    References:
        Zeiler & Fergus 2014, arXiv 1311.2901.
    """

    window: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "stride"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        require(
            self.window is None or self.stride is None or self.stride <= self.window,
            f"expected stride to be at most the window {self.window}, so that every place is "
            f"hidden once, got {self.stride}",
        )

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` for a window on a table, or as `Hiding` does."""
        super().check(model, inputs)
        if inputs.ndim == 2 and (self.window, self.stride) != (None, None):
            raise NotApplicableError(
                "a table has no neighbourhoods to slide a window over; leave window and stride "
                "out to hide one feature at a time"
            )

    def _slides(self, shape: torch.Size) -> list[_Slide]:
        if len(shape) == 1:
            return [_Slide(shape[0], 1, 1)]
        slides = []
        for side in _places(shape):
            window = min(self.window or max(1, round(side / 7)), side)
            slides.append(_Slide(side, window, min(self.stride or max(1, window // 2), window)))
        return slides

    def _points(self, shape: torch.Size) -> int:
        return math.prod(slide.stops for slide in self._slides(shape))

    def _map(self, hidden: _Hidden) -> Tensor:
        slides = self._slides(hidden.shape)
        whole = hidden.score_of(hidden.case.outputs)
        total, times = hidden.zeros(), hidden.zeros()
        for index in hidden.blocks(self._points(hidden.shape)):
            stops = torch.unravel_index(index, [slide.stops for slide in slides])
            covered = _outer([s.covers(stop) for s, stop in zip(slides, stops, strict=True)])
            falls = whole - hidden.scores(~covered)
            for one, fall in zip(covered.to(total), falls, strict=True):
                total += one * per_item(fall, total)
                times += one
        return total / times


def _outer(sides: Sequence[Tensor]) -> Tensor:
    """Return the products `(n, a, b, ...)` of truths `(n, a)`, `(n, b)`, ..., one per side."""
    product = sides[0]
    for side in sides[1:]:
        product = product.unsqueeze(-1) & side.view(len(side), *(1 for _ in product.shape[1:]), -1)
    return product


@dataclass(frozen=True)
class Rise(Hiding):
    """The mean of random masks, each weighed by the score of the input under it.

    A mask is a grid of cells kept or hidden at random, enlarged smoothly and shifted at random; in
    a table every feature is kept or hidden by itself. All inputs get the same masks. With n masks
    the map of a place is sum(score * mask) / (n * keep): its mean is the mean score, not zero.

    Args:
        baseline: what is put where a place is hidden.
        score: what is explained, by name or as a function of logits and target.
        n_masks: how many masks; the noise of the map falls with the root of it.
        cells: along each side of the grid.
        keep: the probability that a cell is kept.
        centred: subtract the mean score first, so that a place without influence gets zero (up to
            noise), one that speaks against the target less than zero, and the noise is smaller.

    References:
        Petsiuk et al. 2018, arXiv 1806.07421.
    """

    n_masks: int = 2000
    cells: int = 8
    keep: float = 0.5
    centred: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_masks", self.n_masks)
        check_count("cells", self.cells)
        check_switch("centred", self.centred)
        check_number("keep", self.keep, above=0)
        require(self.keep < 1, f"expected keep to be a number below 1, got {self.keep!r}")

    def _points(self, shape: torch.Size) -> int:
        return self.n_masks

    def _map(self, hidden: _Hidden) -> Tensor:
        draw = self._masks(hidden.shape, torch.Generator().manual_seed(hidden.case.seed))
        total, times = hidden.zeros(), hidden.zeros()
        score = torch.zeros_like(wide(hidden.case.outputs[:, 0]))
        for index in hidden.blocks(self.n_masks):
            masks = torch.stack([draw(number) for number in index.tolist()])
            scores = hidden.scores(masks)
            for mask, one in zip(masks.to(total), scores, strict=True):
                total += mask * per_item(one, total)
                times += mask
                score += one
        if self.centred:
            total -= times * per_item(score / self.n_masks, total)
        return total / (self.n_masks * self.keep)

    def _masks(self, shape: torch.Size, generator: torch.Generator) -> Callable[[int], Tensor]:
        """Return the function from a mask's number to the mask `(*places)`, in [0, 1].

        Masks are enlarged one at a time, when they are needed: all of them are too large to keep.
        """
        places = _places(shape)
        grid = [min(self.cells, side) for side in places] if len(shape) > 1 else list(shape)
        kept = torch.rand(self.n_masks, *grid, generator=generator) < self.keep
        if len(shape) == 1:
            return lambda number: kept[number].float()
        pixels = [math.ceil(side / cells) for side, cells in zip(places, grid, strict=True)]
        shifts = torch.stack(
            [torch.randint(one, (self.n_masks,), generator=generator) for one in pixels], dim=1
        ).tolist()
        size = [(cells + 1) * one for cells, one in zip(grid, pixels, strict=True)]
        mode = "linear" if len(size) == 1 else "bilinear"

        def mask(number: int) -> Tensor:
            large = interpolate(kept[number].float()[None, None], size, mode=mode)[0, 0]
            for dim, shift in enumerate(shifts[number]):
                large = large.narrow(dim, shift, places[dim])
            return large

        return mask


@dataclass(frozen=True)
class Sobol(Hiding):
    """Total Sobol indices: the share of the score's variance in which a cell of places takes part.

    Cells are hidden by random degrees, from not at all to all of it. The index of a cell is the
    part of the variance that would be left if all other cells were known: its own effect and that
    of all its interactions, unsigned. Jansen's estimator, on a scrambled Sobol sequence. All inputs
    get the same design; in a table every feature is a cell.

    Args:
        baseline: what is put where a cell is hidden.
        score: what is explained, by name or as a function of logits and target.
        cells: along each side of the input.
        designs: rows of the design, a power of two; a row costs as many passes as there are cells,
            and two more.

    References:
        Fel et al. 2021, arXiv 2111.04138; Jansen 1999, doi 10.1016/S0010-4655(98)00154-4.
    """

    cells: int = 8
    designs: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("cells", self.cells)
        check_count("designs", self.designs)
        require(
            self.designs & (self.designs - 1) == 0,
            f"expected designs to be a power of two, for which a Sobol sequence is balanced, got "
            f"{self.designs}",
        )

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` for more cells than a Sobol sequence has, or as `Hiding`."""
        super().check(model, inputs)
        count, most = math.prod(self._grid(inputs.shape[1:])), SobolEngine.MAXDIM // 2
        if count > most:
            raise NotApplicableError(
                f"Sobol sequences are known for {most} cells at the most, got {count}; use fewer "
                "cells or method='rise'"
            )

    def _grid(self, shape: torch.Size) -> list[int]:
        return [min(self.cells, side) for side in shape[1:]] if len(shape) > 1 else list(shape)

    def _points(self, shape: torch.Size) -> int:
        return self.designs * (math.prod(self._grid(shape)) + 2)

    def _map(self, hidden: _Hidden) -> Tensor:
        grid, places = self._grid(hidden.shape), _places(hidden.shape)
        rows = self._rows(math.prod(grid), hidden.case.seed)
        scores = [
            hidden.scores(_enlarge(rows(index).view(-1, *grid), places))
            for index in hidden.blocks(self._points(hidden.shape))
        ]
        each = wide(torch.cat(scores)).T.contiguous()  # sums that do not depend on the batch
        indices = torch.stack([_jansen(one.view(-1, self.designs)) for one in each])
        return _enlarge(indices.view(-1, *grid), places)

    def _rows(self, count: int, seed: int) -> Callable[[Tensor], Tensor]:
        """Return the function from points' numbers `(n,)` to the shares `(n, count)` kept.

        The points are the rows of the matrices A, B, and A with one column after the other from B.
        """
        engine = SobolEngine(2 * count, scramble=True, seed=seed)
        a, b = engine.draw(self.designs, dtype=torch.float64).split(count, dim=1)

        def rows(index: Tensor) -> Tensor:
            matrix, row = (index // self.designs).unsqueeze(1), index % self.designs
            from_b = (matrix == 1) | (matrix - 2 == torch.arange(count))
            return torch.where(from_b, b[row], a[row])

        return rows


def _jansen(scores: Tensor) -> Tensor:
    """Return the total indices `(d,)` from scores `(2 + d, N)` at A, B and A with columns of B.

    Where the score does not vary, nothing has a share in it: zero.
    """
    variance = scores[:2].var(correction=0)
    parts = (scores[2:] - scores[0]).square().mean(1) / 2
    return parts / variance if variance > 0 else torch.zeros_like(parts)


def _enlarge(cells: Tensor, places: torch.Size) -> Tensor:
    """Return cells `(n, *grid)` as places `(n, *places)`: each place has the value of its cell."""
    for dim, side in enumerate(places, start=1):
        cell = torch.arange(side, device=cells.device) * cells.shape[dim] // side
        cells = cells.index_select(dim, cell)
    return cells


for _card, _build in (
    (
        Card(
            "occlusion",
            "perturbation",
            "how far the score falls when a window hides a place",
            "Zeiler & Fergus 2014, arXiv 1311.2901",
        ),
        Occlusion,
    ),
    (
        Card(
            "rise",
            "perturbation",
            "the mean of random masks, weighed by the score under them",
            "Petsiuk et al. 2018, arXiv 1806.07421",
            deterministic=False,
        ),
        Rise,
    ),
    (
        Card(
            "sobol",
            "perturbation",
            "total Sobol indices: each cell's share of the score's variance",
            "Fel et al. 2021, arXiv 2111.04138",
            deterministic=False,
        ),
        Sobol,
    ),
):
    methods.register(Composed(_card, _build, {"baseline": baselines}, {"baseline": "black"}))
