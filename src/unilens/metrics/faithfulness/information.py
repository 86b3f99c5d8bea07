"""Performance information curves: how much must be seen before the model is sure?"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..._ops.luminance import check_unit_pictures
from ..._ops.precision import to_float64
from ..._validation.settings import check_switch
from ...outputs import LOGITS, OutputSpec, pick
from ...registry import Composed
from ...scores import resolve as resolve_score
from ..base import metrics
from ..context import EvalContext
from ..maps import constant, ranking
from ..measurement import Measurement, MetricCard
from .imputers import ImputeFunction, ImputerChoice
from .inpaint import Inpaint
from .removal import Removal, check_fraction, counts_of
from .road import check_fractions

_FRACTIONS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75)


def accuracy(outputs: Tensor, target: Tensor, spec: OutputSpec = LOGITS) -> Tensor:
    """Return 1 where the target is predicted, 0 elsewhere: a score.

    Of one output, and of labels that go together, that is where the target applies.
    """
    if spec.is_exclusive(outputs):
        return (outputs.argmax(-1) == target).to(outputs.dtype)
    return spec.predicted(pick(outputs, target).unsqueeze(-1)).to(outputs.dtype)


@dataclass(frozen=True)
class InformationCurve(Removal):
    """The area under the score over the information shown, what counts most coming in first.

    A few random pixels are shown, the rest is guessed from them. Pixels come in by the map's order.
    x = (H(image) - H(start)) / (H(x) - H(start)), H the bytes of the 8-bit image as lossless WebP;
    y = (f(image) - f(start)) / (f(x) - f(start)), both cut off at 0 and 1; the curve is joined by
    straight lines and goes from (0, 0) to (1, 1). The model sees the 8-bit image. Undefined where
    the start has no fewer bytes or no lower score than the whole image. It departs from the public
    code in the guess (local inpainting in place of triangles between known pixels), in whole counts
    of pixels with ties in random order, and in leaving no image out for a low score.

    Args:
        imputer: see `Removal`.
        reduction: see `Removal`.
        score: see `Removal`; `accuracy` for the accuracy information curve.
        fractions: of the pixels that count most, shown one after the other.
        shown: the fraction of random pixels that is always shown.
        monotonic: whether the curve keeps the highest y so far, as in the paper.

    References:
        Kapishnikov et al. 2019, "XRAI: better attributions through regions", arXiv 1906.02825.
    """

    imputer: ImputerChoice = field(default_factory=lambda: Inpaint(noise=0))
    fractions: tuple[float, ...] = _FRACTIONS
    shown: float = 0.01
    monotonic: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fractions(self.fractions)
        check_fraction("shown", self.shown)
        check_switch("monotonic", self.monotonic)

    @property
    def _points(self) -> int:
        return len(self.fractions) + 2

    def _measure(self, context: EvalContext) -> Measurement:
        check_unit_pictures(
            context.inputs,
            "information curves count the bytes of pictures in colour; use metric='insertion_auc'",
            channels=(3,),
        )
        return super()._measure(context)

    def _with_imputer(
        self, context: EvalContext, impute: ImputeFunction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        relevance = context.reduce_channels(self.reduction)
        ranks = ranking(relevance, context.generators())
        fractions = torch.tensor([0, *sorted(self.fractions), 1], dtype=torch.float64)
        counts, always = counts_of(fractions, ranks), self._always(context)

        def look() -> list[tuple[Tensor, Tensor]]:
            seen = []
            for block in context.blocks(self._points):
                kept = (ranks < counts[block.start : block.stop]) | always
                images = (impute(kept).clamp(0, 1) * 255).round()
                size = _bytes_of(images.to(torch.uint8), context)
                seen.append((context.evaluator.outputs(images / 255), size))
            return seen

        key = type(self), impute, self.reduction, self.fractions, self.shown
        outputs, sizes = zip(*context.once_per_map(key, look), strict=True)
        score = resolve_score(self.score, context.evaluator)
        scores = torch.cat([context.score_of(score, one) for one in outputs]).T.contiguous()
        information = torch.cat(sizes).T.contiguous().to(scores)
        x, y = _share(information), _share(scores)
        y = y.cummax(1).values if self.monotonic else y
        undefined = constant(relevance) | (x[:, -1] != 1) | (y[:, -1] != 1)
        shown = {"scores": scores, "bytes": information, "information": x, "performance": y}
        return _area(x, y).masked_fill(undefined, torch.nan), shown

    def _always(self, context: EvalContext) -> Tensor:
        """Return the random pixels that are always shown `(B, H, W)`."""
        count = context.spatial_shape.numel()
        few = max(1, int(self.shown * count))
        flat = torch.zeros(len(context.inputs), count, dtype=torch.bool)
        for row, generator in zip(flat, context.generators(), strict=True):
            row[torch.randperm(count, generator=generator)[:few]] = True
        return flat.view(-1, *context.spatial_shape).to(context.inputs.device)


def _bytes_of(images: Tensor, context: EvalContext) -> Tensor:
    """Return the size in bytes `(n, B)` of each 8-bit image `(n, B, 3, H, W)` as lossless WebP."""
    from PIL import Image  # here, so that the core loads without it

    pictures = images.flatten(0, 1).movedim(1, -1).cpu().numpy()

    def size(index: int) -> int:
        buffer = io.BytesIO()
        Image.fromarray(pictures[index]).save(buffer, format="webp", lossless=True, quality=100)
        return buffer.tell()

    sizes = context.evaluator.for_each(len(pictures), size)
    return torch.tensor(sizes).view(images.shape[:2])


def _share(values: Tensor) -> Tensor:
    """Return how far each value `(B, n)` has come from the first to the last, from 0 to 1.

    NaN where the last is not above the first.
    """
    values = to_float64(values)
    start, whole = values[:, :1], values[:, -1:]
    share = ((values - start) / (whole - start)).clamp(0, 1)
    return share.masked_fill(whole <= start, torch.nan)


def _area(x: Tensor, y: Tensor) -> Tensor:
    """Return the area under the points, joined in the order of x; those of one x keep theirs.

    The start comes last among the points at 0, so that the curve leaves from (0, 0).
    """
    x = torch.cat([x[:, 1:-1], x[:, :1], x[:, -1:]], dim=1)
    y = torch.cat([y[:, 1:-1], y[:, :1], y[:, -1:]], dim=1)
    x, order = x.sort(dim=1, stable=True)
    return torch.trapezoid(y.gather(1, order), x, dim=1)


_KAPISHNIKOV = "Kapishnikov et al. 2019, arXiv 1906.02825"
metrics.add(
    MetricCard(
        "sic_auc",
        "faithfulness",
        "area under the softmax over the bytes shown, what counts most first",
        _KAPISHNIKOV,
        deterministic=False,
        bounds=(0, 1),
    ),
    InformationCurve,
)
metrics.register(
    Composed(
        MetricCard(
            "aic_auc",
            "faithfulness",
            "area under the accuracy over the bytes shown, what counts most first",
            _KAPISHNIKOV,
            deterministic=False,
            bounds=(0, 1),
        ),
        InformationCurve,
        preset={"score": accuracy},
    )
)
