"""The outputs of a model's layers that can be read as grids of spatial positions."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..._engine.axes import ChannelsFirst, users_module
from ..._engine.balanced import BalancedGradients
from ..._engine.evaluator import Evaluator
from ..._engine.rewriting import AttentionRule
from ..._ops.spatial import LINEAR
from ..._validation.models import not_differentiable
from ...errors import NotApplicableError, UnknownNameError

_MOST_PREFIX_TOKENS = 5
"""Class token, distillation token, registers: where the model does not say how many it has."""
_MOST_DISTORTION = math.log(2)
"""Largest log ratio of the aspect ratios of input and grid: unpadded convolutions crop borders."""
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


class Grid(NamedTuple):
    """An output of a layer that can be read as a grid of spatial positions.

    Attributes:
        name: of the layer.
        output: `(1, ...)`, with its graph.
        spatial_shape: of the grid.
        channels: the dimension of the channels, 1 or -1.
        prefix: number of tokens before those of the grid, which have no position.
    """

    name: str
    output: Tensor
    spatial_shape: Sequence[int]
    channels: int = 1
    prefix: int = 0

    @property
    def size(self) -> int:
        """The number of positions."""
        return math.prod(self.spatial_shape)

    def read(self, values: Tensor) -> Tensor:
        """Return values of the output's shape as `(1, D, *spatial_shape)`."""
        if values.ndim < len(self.spatial_shape) + 2:
            values = values[:, self.prefix :].unflatten(1, tuple(self.spatial_shape))
        return values.movedim(self.channels, 1)


def record_grids(
    model: Evaluator, layer: str | None, inputs: Tensor, balanced: AttentionRule | None = None
) -> tuple[Tensor, list[Grid]]:
    """Run a copy of the model at one input, and record its layers' outputs that are grids.

    Args:
        model: it is not changed.
        layer: the only layer to record, or None for all.
        inputs: `(1, *S)`.
        balanced: the rule of attention weights of balanced gradients; None for the model's own.

    Returns:
        The logits `(1, K)`, and the grids in the order of the calls, at least one; all with their
        graph.

    Raises:
        UnknownNameError: the model has no such layer.
        NotApplicableError: no output is a grid.
    """
    check_visible(model, inputs, "Grad-CAM")
    copy = model.private_module(inputs)
    recorder = _GridRecorder(
        inputs.shape[2:],
        prefix_counts(copy),
        chosen=layer is not None,
        channels_last=isinstance(copy, ChannelsFirst) and copy.axes.channels == "last",
    )
    for name, module in _layers(users_module(copy), layer).items():
        module.register_forward_hook(functools.partial(recorder.record, name))
    rules = BalancedGradients(balanced) if balanced else nullcontext()
    with torch.enable_grad(), rules:
        outputs = model.run(copy, inputs.clone().requires_grad_())
    if not (recorder.grids or outputs.requires_grad):
        raise not_differentiable(model.model, within="layers")
    if not recorder.grids:
        raise NotApplicableError(recorder.complaint(layer))
    return outputs, list(recorder.grids)  # checkpoints run layers again in the backward pass


def enlarge(cam: Tensor, inputs: Tensor) -> Tensor:
    """Return a map `(1, 1, *grid)` at the inputs' size, divided among the channels, `(1, *S)`."""
    mode = LINEAR[cam.ndim - 2]
    large = interpolate(cam.to(inputs.dtype), inputs.shape[2:], mode=mode)
    return (large / inputs.shape[1]).expand(-1, *inputs.shape[1:]).contiguous()


def check_visible(model: Evaluator, inputs: Tensor, method: str) -> None:
    """Raise where the inputs have no spatial positions, or hooks see no layers of a model.

    Args:
        model: to look into.
        inputs: `(B, *S)`.
        method: the name that the message begins with.
    """
    if inputs.ndim not in (3, 4, 5):
        raise NotApplicableError(
            f"{method} expects images (B, C, H, W), signals (B, C, L) or volumes (B, C, D, H, W), "
            f"got {tuple(inputs.shape)}; use method='ig'"
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.model.modules()):
        raise NotApplicableError(
            f"{method} reads the outputs of layers, and TorchScript does not show them; use the "
            "model from which it was made, or method='ig'"
        )
    if model.plan(inputs).reentrant:
        raise NotApplicableError(
            f"{method} cannot look into reentrant checkpoints; use checkpoint(..., "
            "use_reentrant=False) in the model, or method='ig'"
        )


def _layers(model: nn.Module, layer: str | None) -> Mapping[str, nn.Module]:
    """Return the modules to record, by name: all of them, or the layer that the user names."""
    if layer is None:
        return dict(model.named_modules())
    layers = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if layer not in layers:
        layer = layer.removeprefix("_orig_mod.").removeprefix("module.")  # of a wrapper
    if layer not in layers:
        raise UnknownNameError("layer", layer, layers)
    return {layer: layers[layer]}


def prefix_counts(model: nn.Module) -> Sequence[int]:
    """Return how many tokens may have no position: what a model of timm says, or any up to five."""
    for module in model.modules():
        count = getattr(module, "num_prefix_tokens", None)
        if isinstance(count, int):
            return [count]
    return range(_MOST_PREFIX_TOKENS + 1)


class TokenGrid(NamedTuple):
    """Where tokens are: those after the prefix are a grid of spatial positions."""

    prefix: int
    spatial_shape: tuple[int, ...]


def tokens_of_grids(
    count: int, prefixes: Sequence[int], grids: Sequence[Sequence[int]]
) -> TokenGrid | None:
    """Return tokens in the shape of the last grid with as many positions: a patch embedding."""
    for prefix in prefixes:
        for spatial_shape in reversed(grids):
            if math.prod(spatial_shape) == count - prefix:
                return TokenGrid(prefix, tuple(spatial_shape))
    return None


def tokens_by_aspect(
    count: int, prefixes: Sequence[int], spatial_shape: Sequence[int]
) -> TokenGrid | None:
    """Return tokens as a grid of an image's aspect ratio, where their number allows one."""
    height, width = spatial_shape
    for prefix in prefixes:
        rows = round(math.sqrt(max(count - prefix, 0) * height / width))
        if count - prefix > 1 and rows and (count - prefix) % rows == 0:
            columns = (count - prefix) // rows
            if rows == round(columns * height / width):
                return TokenGrid(prefix, (rows, columns))
    return None


class _GridRecorder:
    """Collects the outputs that are grids of spatial positions while a model runs.

    Args:
        spatial_shape: of the input.
        prefixes: how many tokens may have no position.
        chosen: whether the user named the layer. Otherwise, outputs that only look like grids are
            left out: the projections inside an attention, which change the tokens' shape, and maps
            of attention, which are finer than the grid from which they come.
        channels_last: whether the user's inputs are, so that an output `(1, a, b)` of a series has
            channels last where the type of its layer does not show it.
    """

    def __init__(
        self,
        spatial_shape: torch.Size,
        prefixes: Sequence[int],
        *,
        chosen: bool,
        channels_last: bool = False,
    ) -> None:
        self.grids: list[Grid] = []
        self._spatial_shape, self._chosen = spatial_shape, chosen
        self._prefixes = prefixes
        self._channels_last = channels_last
        self._orders: dict[torch.Size, int] = {}
        self._seen = "nothing: it did not run"

    def record(self, name: str, module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        """Record an output; the model continues with a copy, which it may overwrite."""
        if not isinstance(output, Tensor):
            self._seen = f"a {type(output).__name__}"
            return None
        self._seen = f"shape {tuple(output.shape)}"
        single = output.ndim > 0 and len(output) == 1
        grid = self._read(name, module, output) if single and output.requires_grad else None
        if grid is None or not (self._chosen or self._fits(grid, inputs)):
            return None
        self.grids.append(grid)
        return output.clone()

    def complaint(self, layer: str | None) -> str:
        """Return the message for a model, or a layer, without grids."""
        if layer is None:
            return (
                "Grad-CAM needs a layer whose output is a spatial grid, such as a convolution's or "
                "a vision transformer's, and this model has none; use method='ig' or 'occlusion'"
            )
        return (
            f"Grad-CAM needs a layer whose output is a spatial grid, but {layer!r} gave "
            f"{self._seen}; name another, or leave layer out"
        )

    def _read(self, name: str, module: nn.Module, output: Tensor) -> Grid | None:
        dimensions = len(self._spatial_shape)
        if output.ndim == 3 and dimensions > 1:
            return self._read_tokens(name, output)
        if output.ndim != dimensions + 2:
            return None
        if output.ndim == 3:
            return self._read_series(name, module, output)
        readings = [
            Grid(name, output, output.shape[2:]),
            Grid(name, output, output.shape[1:-1], channels=-1),
        ]
        best = min(readings, key=self._distortion)
        return best if self._distortion(best) <= _MOST_DISTORTION and best.size > 1 else None

    def _read_series(self, name: str, module: nn.Module, output: Tensor) -> Grid | None:
        """Return the output `(1, a, b)` of a series, whose layer shows the axis of the steps."""
        shape = getattr(module, "normalized_shape", (1,))
        if isinstance(module, _CHANNELS_FIRST):
            order = 1
        elif isinstance(module, _CHANNELS_LAST) and len(shape) == 1:
            order = -1
        else:
            order = self._orders.get(output.shape, -1 if self._channels_last else 1)
        self._orders[output.shape] = order
        steps = output.shape[2 if order == 1 else 1]
        return Grid(name, output, (steps,), channels=order) if steps > 1 else None

    def _read_tokens(self, name: str, output: Tensor) -> Grid | None:
        """Return tokens `(1, N, D)` as a grid of the patch embedding's shape or of the image's."""
        count = output.shape[1]
        if len(self._spatial_shape) == 3:
            grids = [grid.spatial_shape for grid in self.grids]
            places = tokens_of_grids(count, self._prefixes, grids)
        else:
            places = tokens_by_aspect(count, self._prefixes, self._spatial_shape)
        if places is None:
            return None
        return Grid(name, output, places.spatial_shape, channels=-1, prefix=places.prefix)

    def _fits(self, grid: Grid, inputs: Any) -> bool:
        """Whether a grid is no finer than those before it, and tokens keep their layer's shape."""
        kept = any(
            isinstance(value, Tensor) and value.shape == grid.output.shape for value in inputs
        )
        tokens = grid.output.ndim < len(grid.spatial_shape) + 2
        return (kept or not tokens) and all(grid.size <= other.size for other in self.grids)

    def _distortion(self, grid: Grid) -> float:
        """Return the absolute log ratio of the grid's aspect ratio to the input's.

        The aspect ratio is that of the last two dimensions. The first of three, time or depth, may
        shrink by another factor; where it grows, the distortion is infinite.
        """
        if len(grid.spatial_shape) == 3 and grid.spatial_shape[0] > self._spatial_shape[0]:
            return math.inf
        (*_, height, width), (*_, input_height, input_width) = (
            grid.spatial_shape,
            self._spatial_shape,
        )
        return abs(math.log(height * input_width / (width * input_height)))
