"""Class activation maps: which places of a layer's output the score leans on."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .._engine.axes import ChannelsFirst, users_module
from .._engine.evaluator import Evaluator, PassCount
from .._engine.plans import MODEL_ERRORS
from .._ops.spatial import LINEAR
from .._validation.inputs import not_differentiable
from ..attribution import Attribution
from ..errors import NotApplicableError, UnknownNameError, first_line, require
from ..explainer import ExplainContext, Method
from ..registry import Card
from ..scores import AnyScore, Score
from ..scores import resolve as resolve_score
from .backprop_rules import GuidedBackprop
from .base import methods

_MOST_PREFIX_TOKENS = 5
"""Class token, distillation token, registers: where the model does not say how many it has."""
_MOST_DISTORTION = math.log(2)
"""Between the aspect ratios of input and grid: convolutions without padding cut at the sides."""
_CHANNELS_FIRST = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
)
"""Layers that read a series as `(B, C, L)`."""
_CHANNELS_LAST = (nn.LayerNorm, nn.RMSNorm, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Layers that read a series as `(B, L, C)`."""


@dataclass(frozen=True)
class GradCAM(Method):
    """Grad-CAM: a layer's channels, each weighed by the mean gradient of the score in it.

    The map has the layer's resolution; it is enlarged linearly to the input and spread evenly over
    the channels, so that their sum is the map. The provenance names the layer of every input.

    Args:
        layer: its name in `model.named_modules()`; None for the last one, in the order in which
            they run, whose output is a grid of places that the score depends on. In a vision
            transformer that pools by the class token this lies before the last attention.
        relu: keep only what speaks for the target.
        score: what is explained, by name or as a function of logits and target.

    References:
        Selvaraju et al. 2017, arXiv 1610.02391.
    """

    reads_axes_from: ClassVar[int] = 3
    layer: str | None = None
    relu: bool = True
    score: AnyScore = "probability"

    def __post_init__(self) -> None:
        require(
            self.layer is None or isinstance(self.layer, str),
            f"expected layer to be the name of a module, got {self.layer!r}",
        )

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input; the check takes one more, at the first input."""
        return PassCount(2, 1)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the layer, or every layer, gives no grid of places."""
        _watch(model, self.layer, inputs[:1])

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)
        found = context.evaluator.for_each(
            len(context.inputs), functools.partial(self._explain_one, context, score)
        )
        attribution = Attribution(
            torch.cat([_enlarge(cam, context.inputs) for _, cam in found]),
            context.target,
            score(context.outputs, context.target),
            context.outputs,
            complete=self.complete,
        )
        return attribution.with_provenance(layers=[name for name, _ in found])

    def _explain_one(self, context: ExplainContext, score: Score, index: int) -> tuple[str, Tensor]:
        """Return the layer's name and the map `(1, 1, *grid)` of one input."""
        here = slice(index, index + 1)
        outputs, grids = _watch(context.evaluator, self.layer, context.inputs[here])
        with torch.enable_grad():
            value = score(outputs, context.target[here]).sum()
        if not value.requires_grad:
            raise not_differentiable(context.evaluator.model, within="layers")
        gradients = _slopes(context.evaluator.model, value, [grid.output for grid in grids])
        name, channels, slopes = _last_with_influence(grids, gradients)
        _refuse_side_by_side([grid for grid in grids if grid.name == name])
        weights = slopes.mean(tuple(range(2, slopes.ndim)), keepdim=True)
        cam = (weights * channels).sum(1, keepdim=True)
        return name, cam.relu() if self.relu else cam


@dataclass(frozen=True)
class GuidedGradCAM(Method):
    """Guided Grad-CAM: guided backpropagation, scaled at every place by the Grad-CAM map.

    The provenance names the layer of every input.

    Args:
        layer: of the Grad-CAM map; see `GradCAM`.
        score: what is explained, by name or as a function of logits and target.

    References:
        Selvaraju et al. 2017, arXiv 1610.02391.
    """

    reads_axes_from: ClassVar[int] = 3
    layer: str | None = None
    score: AnyScore = "probability"

    def __post_init__(self) -> None:
        GradCAM(self.layer, score=self.score)  # checks the settings

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input; the check takes more, at the first input."""
        return PassCount(3, 2)

    @property
    def _parts(self) -> tuple[GradCAM, GuidedBackprop]:
        return GradCAM(self.layer, score=self.score), GuidedBackprop(self.score)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where one of the two methods does."""
        for part in self._parts:
            part.check(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        cam, guided = (part._explain(context) for part in self._parts)
        scaled = guided.values * cam.values.sum(1, keepdim=True)
        return dataclasses.replace(cam, values=scaled)


class _Grid(NamedTuple):
    """An output of a layer that can be read as a grid of places.

    Attributes:
        name: of the layer.
        output: `(1, ...)`.
        sides: of the grid.
        channels: the dimension of the channels, 1 or -1.
        prefix: tokens before those of the grid, which have no place.
    """

    name: str
    output: Tensor
    sides: Sequence[int]
    channels: int = 1
    prefix: int = 0

    def read(self, values: Tensor) -> Tensor:
        """Return values of the output's shape as `(1, D, *sides)`."""
        if values.ndim < len(self.sides) + 2:
            values = values[:, self.prefix :].unflatten(1, tuple(self.sides))
        return values.movedim(self.channels, 1)


def _refuse_side_by_side(grids: Sequence[_Grid]) -> None:
    """Raise where a layer runs again on something else: the halves of an input, or its mirror."""
    for first, second in itertools.pairwise(grids):
        (slope,) = torch.autograd.grad(
            second.output.sum(), first.output, allow_unused=True, retain_graph=True
        )
        if slope is None:
            raise NotApplicableError(
                f"Grad-CAM needs a layer that sees the whole input, but {first.name!r} runs "
                "several times side by side; name another, or use method='ig'"
            )


def _slopes(model: nn.Module, value: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of a score in layers' outputs, zero in those that it does not use."""
    try:
        found = torch.autograd.grad(value, outputs, allow_unused=True, retain_graph=True)
    except MODEL_ERRORS as error:
        raise not_differentiable(model, first_line(error), "layers") from error
    if all(slope is None for slope in found):
        raise not_differentiable(model, "a score that depends on none of them", "layers")
    pairs = zip(found, outputs, strict=True)
    return [torch.zeros_like(output) if slope is None else slope for slope, output in pairs]


def _last_with_influence(
    grids: Sequence[_Grid], gradients: Sequence[Tensor]
) -> tuple[str, Tensor, Tensor]:
    """Return name, channels and gradients `(1, D, *sides)` of the last grid that the score needs.

    Where the score is flat in all of them it is the last one: the map is zero.
    """
    for grid, gradient in zip(reversed(grids), reversed(gradients), strict=True):
        slopes = grid.read(gradient)
        if slopes.any():
            return grid.name, grid.read(grid.output.detach()), slopes
    last = grids[-1]
    return last.name, last.read(last.output.detach()), last.read(gradients[-1])


def _enlarge(cam: Tensor, inputs: Tensor) -> Tensor:
    """Return a map `(1, 1, *grid)` at the inputs' size, spread over the channels, `(1, *S)`."""
    mode = LINEAR[cam.ndim - 2]
    large = interpolate(cam.to(inputs.dtype), inputs.shape[2:], mode=mode)
    return (large / inputs.shape[1]).expand(-1, *inputs.shape[1:]).contiguous()


def _watch(model: Evaluator, layer: str | None, one: Tensor) -> tuple[Tensor, list[_Grid]]:
    """Run a copy of the model at one input, and note its layers' outputs that are grids.

    Args:
        model: it is not changed.
        layer: the only one to look at, or None for all.
        one: `(1, *S)`.

    Returns:
        The logits `(1, K)`, and the grids in the order in which they came, at least one; all with
        their graph.

    Raises:
        UnknownNameError: the model has no such layer.
        NotApplicableError: no grid came.
    """
    if one.ndim not in (3, 4, 5):
        raise NotApplicableError(
            "Grad-CAM expects images (B, C, H, W), signals (B, C, L) or volumes (B, C, D, H, W), "
            f"got {tuple(one.shape)}; use method='ig'"
        )
    copy = model.private_module(one)
    _refuse_scripted(copy)
    if model.plan(one).reentrant:
        raise NotApplicableError(
            "Grad-CAM cannot look into reentrant checkpoints; use checkpoint(..., "
            "use_reentrant=False) in the model, or method='ig'"
        )
    inner = users_module(copy)
    layers = {name: part for name, part in inner.named_modules(remove_duplicate=False) if name}
    if layer is not None and layer not in layers:
        layer = layer.removeprefix("_orig_mod.").removeprefix("module.")  # of a wrapper
    if layer is not None and layer not in layers:
        raise UnknownNameError("layer", layer, layers)
    notes = _Notes(
        one.shape[2:],
        _prefix_tokens(copy),
        chosen=layer is not None,
        channels_last=isinstance(copy, ChannelsFirst) and copy.axes.channels == "last",
    )
    for name, part in inner.named_modules() if layer is None else [(layer, layers[layer])]:
        part.register_forward_hook(functools.partial(notes.take, name))
    with torch.enable_grad():
        outputs = model.run(copy, one.clone().requires_grad_())
    if not (notes.grids or outputs.requires_grad):
        raise not_differentiable(model.model, within="layers")
    if not notes.grids:
        raise NotApplicableError(notes.complaint(layer))
    return outputs, list(notes.grids)  # checkpointing runs layers again in the backward pass


def _refuse_scripted(model: nn.Module) -> None:
    """Raise where the model's layers are out of reach."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        raise NotApplicableError(
            "Grad-CAM looks into layers, and those of TorchScript cannot be looked into; use the "
            "model that it was made from, or method='ig'"
        )


def _prefix_tokens(model: nn.Module) -> int | None:
    for part in model.modules():
        count = getattr(part, "num_prefix_tokens", None)
        if isinstance(count, int):
            return count
    return None


class _Notes:
    """Collects the outputs that are grids of places while a model runs.

    Args:
        sides: of the input.
        prefix: how many tokens have no place; None for any number up to five.
        chosen: whether the user named the layer. Otherwise, outputs are left out that look like
            grids and are none: the projections inside an attention, which change the tokens' shape,
            and maps of attention, which are finer than the grid they come from.
        channels_last: whether the user's inputs are, so that an output `(1, a, b)` of a series has
            channels last where its layer does not tell.
    """

    def __init__(
        self,
        sides: torch.Size,
        prefix: int | None,
        *,
        chosen: bool,
        channels_last: bool = False,
    ) -> None:
        self.grids: list[_Grid] = []
        self._sides, self._prefix, self._chosen = sides, prefix, chosen
        self._channels_last = channels_last
        self._orders: dict[torch.Size, int] = {}
        self._came = "nothing: it did not run"

    def take(self, name: str, part: nn.Module, given: Any, output: Any) -> Tensor | None:
        """Note an output; the model goes on with a copy, which it may overwrite."""
        if not isinstance(output, Tensor):
            self._came = f"a {type(output).__name__}"
            return None
        self._came = f"shape {tuple(output.shape)}"
        one = output.ndim > 0 and len(output) == 1
        grid = self._read(name, part, output) if one and output.requires_grad else None
        if grid is None or not (self._chosen or self._fits(grid, given)):
            return None
        self.grids.append(grid)
        return output.clone()

    def complaint(self, layer: str | None) -> str:
        """Return what to say where there are no grids."""
        if layer is None:
            return (
                "Grad-CAM needs a layer whose output is a grid of places, such as a convolution's "
                "or a vision transformer's, and this model has none; use method='ig' or 'occlusion'"
            )
        return (
            f"Grad-CAM needs a layer whose output is a grid of places, but {layer!r} gave "
            f"{self._came}; name another, or leave layer out"
        )

    def _read(self, name: str, part: nn.Module, output: Tensor) -> _Grid | None:
        if output.ndim == 3 and len(self._sides) == 3:
            return self._read_tokens_of_volumes(name, output)
        if output.ndim == 3 and len(self._sides) == 2:
            return self._read_tokens(name, output)
        if output.ndim != len(self._sides) + 2:
            return None
        if output.ndim == 3:
            return self._read_series(name, part, output)
        readings = [
            _Grid(name, output, output.shape[2:]),
            _Grid(name, output, output.shape[1:-1], channels=-1),
        ]
        best = min(readings, key=lambda one: _distortion(one.sides, self._sides))
        plausible = _distortion(best.sides, self._sides) <= _MOST_DISTORTION
        return best if plausible and math.prod(best.sides) > 1 else None

    def _read_series(self, name: str, part: nn.Module, output: Tensor) -> _Grid | None:
        """Return the output `(1, a, b)` of a series; its layer tells which axis the steps are."""
        if isinstance(part, _CHANNELS_FIRST):
            order = 1
        elif isinstance(part, _CHANNELS_LAST) and len(getattr(part, "normalized_shape", "1")) == 1:
            order = -1
        else:
            order = self._orders.get(output.shape, -1 if self._channels_last else 1)
        self._orders[output.shape] = order
        steps = output.shape[2 if order == 1 else 1]
        return _Grid(name, output, (steps,), channels=order) if steps > 1 else None

    def _read_tokens_of_volumes(self, name: str, output: Tensor) -> _Grid | None:
        """Return tokens as the last grid of as many cells, such as a patch embedding's."""
        known = self._prefix is not None
        for prefix in [self._prefix or 0] if known else range(_MOST_PREFIX_TOKENS + 1):
            for grid in reversed(self.grids):
                if math.prod(grid.sides) == output.shape[1] - prefix:
                    return _Grid(name, output, grid.sides, channels=-1, prefix=prefix)
        return None

    def _read_tokens(self, name: str, output: Tensor) -> _Grid | None:
        height, width = self._sides
        known = self._prefix is not None
        for prefix in [self._prefix] if known else range(_MOST_PREFIX_TOKENS + 1):
            count = output.shape[1] - (prefix or 0)
            rows = round(math.sqrt(max(count, 0) * height / width))
            if count > 1 and rows and count % rows == 0:
                sides = (rows, count // rows)
                if rows == round(sides[1] * height / width):
                    return _Grid(name, output, sides, channels=-1, prefix=prefix or 0)
        return None

    def _fits(self, grid: _Grid, given: Any) -> bool:
        kept = any(isinstance(one, Tensor) and one.shape == grid.output.shape for one in given)
        tokens = grid.output.ndim < len(grid.sides) + 2
        coarser = all(math.prod(grid.sides) <= math.prod(one.sides) for one in self.grids)
        return coarser and (kept or not tokens)


def _distortion(sides: Sequence[int], input_sides: Sequence[int]) -> float:
    """Return by how much the aspect ratio of the last two sides differs from the input's, as a log.

    The first of three sides, time or depth, may shrink by another factor, but it does not grow.
    """
    if len(sides) == 3 and sides[0] > input_sides[0]:
        return math.inf
    high, wide = sides[-2:]
    return abs(math.log(high * input_sides[-1] / (wide * input_sides[-2])))


methods.add(
    Card(
        "gradcam",
        "activation",
        "Grad-CAM: the last grid's channels, weighed by their mean gradient",
        "Selvaraju et al. 2017, arXiv 1610.02391",
        traits=("layer",),
    ),
    GradCAM,
)
methods.add(
    Card(
        "guided_gradcam",
        "activation",
        "guided backpropagation, scaled at every place by the Grad-CAM map",
        "Selvaraju et al. 2017, arXiv 1610.02391",
        traits=("layer",),
    ),
    GuidedGradCAM,
)
