"""The score of a segmenter: a class's logit over a region."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .._validation.settings import CountOrZero
from ..errors import NotApplicableError, UnilensError, require
from .base import OutputScore, as_floats, as_tensor, at_least_float32, entry_of, per_row, row_of

_NAMES = ("out", "logits")
_AREA = {2: "area", 3: "area"}
_CLOSE = 1e-3


@dataclass(frozen=True, eq=False)
class Segmentation(OutputScore):
    """The mean logit of a class over a region; see `segmentation`."""

    has_classes: ClassVar[bool] = True
    target: CountOrZero
    mask: Tensor | str
    output: str | int | None = None
    probabilities: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.mask, str):
            require(
                self.mask == "predicted",
                f"expected mask to be 'predicted' or a tensor (H, W), got {self.mask!r}",
            )
            return
        mask = as_floats(as_tensor("mask", self.mask))
        valid = mask.ndim >= 2 and mask.isfinite().all() and (mask >= 0).all()
        require(
            bool(valid),
            f"expected mask to be (H, W), or (B, H, W) for each input, of truths or of weights "
            f"that are not negative, got {mask.dtype} of shape {tuple(mask.shape)}",
        )
        object.__setattr__(self, "mask", mask)

    def prepared(self, outputs: Callable[[], Any], model: nn.Module) -> Segmentation:
        """Return the score with what the model's outputs are."""
        return dataclasses.replace(self, probabilities=self._read(outputs())[1])

    def for_input(self, row: int, count: int, outputs: Callable[[], Any]) -> Segmentation:
        """Return the score over the region of one input."""
        if isinstance(self.mask, Tensor) and self.mask.ndim == 2:
            return self
        logits, _ = self._read(outputs())
        if isinstance(self.mask, Tensor):
            mask = row_of("mask", self.mask, row, count, logits.ndim - 2)
            return self if mask is self.mask else dataclasses.replace(self, mask=mask)
        mask = self._predicted(logits)[0]
        if not mask.any():
            raise NotApplicableError(
                f"expected pixels predicted as class {self.target}, got none in input {row}; pass "
                "mask=, or a class that is there"
            )
        return dataclasses.replace(self, mask=mask)

    def __call__(self, outputs: Any, /) -> Tensor:
        """Return the mean logits `(M,)`."""
        return self.class_logits(outputs)[:, self.target]

    def class_logits(self, outputs: Any) -> Tensor:
        """Return each class's mean logit over the region, `(M, K)`."""
        logits, _ = self._read(outputs)
        mask = self._predicted(logits) if isinstance(self.mask, str) else self._resized(logits)
        weights = mask.to(logits).flatten(1)
        return (logits.flatten(2) * weights.unsqueeze(1)).sum(-1) / weights.sum(1, keepdim=True)

    @property
    def class_index(self) -> int:
        """The target."""
        return self.target

    def _read(self, outputs: Any) -> tuple[Tensor, bool]:
        """Return logits `(M, K, *spatial)`, and whether the outputs are probabilities."""
        logits = at_least_float32(entry_of(outputs, _NAMES, (4, 5), self.output, "segmentation"))
        if self.target >= logits.shape[1]:
            raise UnilensError(
                f"expected a class from 0 to {logits.shape[1] - 1} for segmentation, got "
                f"{self.target}; the model's outputs have shape {tuple(logits.shape)}"
            )
        probabilities = self.probabilities
        if probabilities is None:
            probabilities = _are_probabilities(logits.detach())
        return (_logits_of(logits) if probabilities else logits), probabilities

    def _predicted(self, logits: Tensor) -> Tensor:
        """Return where the class is predicted, `(M, *spatial)`."""
        if logits.shape[1] == 1:
            return logits[:, 0] > 0
        return logits.argmax(1) == self.target

    def _resized(self, logits: Tensor) -> Tensor:
        """Return the weights `(M, *spatial)` or `(1, *spatial)` in the size of the outputs."""
        assert isinstance(self.mask, Tensor)
        spatial = logits.shape[2:]
        mask = per_row("mask", self.mask.to(logits), len(logits), len(spatial))
        if mask.shape[1:] != spatial:
            _check_same_shape(mask.shape[1:], spatial)
            mask = interpolate(mask.unsqueeze(1), list(spatial), mode=_AREA[len(spatial)])[:, 0]
        if not (mask.flatten(1) > 0).any(1).all():
            raise UnilensError("expected mask to have a region, got one that is 0 everywhere")
        return mask


def _are_probabilities(outputs: Tensor) -> bool:
    """Return whether outputs `(M, K, *spatial)` are probabilities; raise where that is in doubt."""
    if not ((outputs >= 0) & (outputs <= 1)).all():
        return False
    if outputs.shape[1] == 1:
        raise UnilensError(
            "expected probabilities=True or False for segmentation, since all outputs of the one "
            "class lie between 0 and 1; got None"
        )
    return bool(((outputs.sum(1) - 1).abs() < _CLOSE).all())


def _logits_of(probabilities: Tensor) -> Tensor:
    """Return logits of probabilities: their logarithms, or those of one class's odds."""
    tiny = torch.finfo(probabilities.dtype).tiny
    logarithms = probabilities.clamp_min(tiny).log()
    if probabilities.shape[1] > 1:
        return logarithms
    return logarithms - (1 - probabilities).clamp_min(tiny).log()


def _check_same_shape(given: torch.Size, spatial: torch.Size) -> None:
    """Raise unless a mask is the outputs' region in another resolution."""
    factors = [have / need for have, need in zip(given, spatial, strict=False)]
    fits = len(given) == len(spatial) and max(factors) <= 1.1 * min(factors) and min(factors) >= 1
    require(
        fits,
        f"expected mask of the outputs' size {tuple(spatial)}, or a multiple of it, got "
        f"{tuple(given)}; resize it to the outputs",
    )


def segmentation(
    target: int,
    mask: Tensor | str = "predicted",
    *,
    output: str | int | None = None,
    probabilities: bool | None = None,
) -> Segmentation:
    """Return the score of a region: the mean logit of a class over a mask.

    Of torchvision's and transformers' segmenters, and of any model that returns logits
    `(B, K, H, W)` or volumes of them. UNI unlearns the cross-entropy of the class, given the mean
    logits of all classes over the region.

    Args:
        target: index of the class.
        mask: the region: `(H, W)` for all inputs or `(B, H, W)` for each, truths or weights, in the
            size of the model's outputs or a multiple of it; "predicted" for the pixels that the
            model gives the class at each input.
        output: name or position of the logits among what the model returns; None to look for
            "out", "logits", or the only tensor of that shape.
        probabilities: whether the model returns probabilities, whose logarithms are then taken (of
            one class, of its odds); None to find out: several that sum to one are.

    Raises:
        UnilensError: a setting does not fit; when explained, the model predicts the class nowhere.

    >>> logits = torch.stack([torch.zeros(2, 2), torch.tensor([[1.0, 3.0], [-1.0, -1.0]])])
    >>> segmentation(1)(logits.unsqueeze(0))
    tensor([2.])
    """
    return Segmentation(target, mask, output, probabilities)
