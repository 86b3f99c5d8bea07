"""Pictures of volumes, as three slices through the strongest voxel, and of clips, as frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..attribution import Attribution
from .colours import Array, Levels, heatmap, overlay, pixels, smoothed
from .figures import Drawing, draw_path, headings, hide_frame, legend, new_figure, scale_of, verdict
from .views import Plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES = 2.1
"""The width of a slice or frame."""
_FINE = 256
"""Pixels along the longest side of an overlay, at least."""
_PATH = 3.4
_NAME = 12
"""Points of a method's name."""
_LARGEST_RATIO = 2.5
"""Of height and width of a slice in its cell."""
_COMPARED = ("heatmap", "overlay")


def panel(drawing: Drawing, title: str) -> Figure:
    """Draw one block per method, of input, baseline, heatmap and overlay; beside it the path.

    Of a volume they are columns, with a row for each slice; of a clip rows, with a column for each
    frame.
    """
    blocks = [(*row, drawing.view.planes(row[2])) for row in drawing]
    names = ["", "baseline", *_COMPARED]
    width, height = _size(drawing, blocks[0][3], names)
    titles, more = headings(drawing, width, _NAME)
    height += more
    figure = new_figure(width + _PATH, height * len(blocks) + 0.4 * bool(title), title)
    parts = figure.subfigures(len(blocks), 1, squeeze=False)[:, 0]
    for part, name, (_, attribution, values, planes) in zip(parts, titles, blocks, strict=True):
        left, right = part.subfigures(1, 2, width_ratios=(width, _PATH))
        left.suptitle(name, fontsize=_NAME, parse_math=False)
        _draw_block(left, drawing, attribution, values, planes, width)
        ax = right.subplots(2, 1, height_ratios=(3, max(height - 3, 0.1)))
        ax[1].set_axis_off()
        draw_path(ax[0], attribution, drawing.index, drawing.view.kind, drawing.path_measure)
    return figure


def comparison(drawing: Drawing, title: str, columns: int) -> Figure:
    """Draw one block per method: its heatmaps and overlays, all at the same planes."""
    maps = list(drawing)
    total = sum((values / scale_of(values, "signed")).abs() for *_, values in maps)
    planes = drawing.view.planes(total)  # type: ignore[arg-type]  # a sum of tensors
    width, height = _size(drawing, planes, _COMPARED)
    names, more = headings(drawing, width, _NAME)
    height += more
    beside = min(max(int(columns * _INCHES / width), 1), len(maps))
    n_rows = -(-len(maps) // beside)
    figure = new_figure(width * beside, height * n_rows + 0.4 * bool(title), title)
    parts = figure.subfigures(n_rows, beside, squeeze=False).flatten()
    for part, name, (_, attribution, values) in zip(parts, names, maps, strict=False):
        part.suptitle(name, fontsize=_NAME, parse_math=False)
        _draw_block(part, drawing, attribution, values, planes, width, _COMPARED)
    return figure


def _draw_block(
    figure: Any,
    drawing: Drawing,
    attribution: Attribution,
    values: Tensor,
    planes: Sequence[Plane],
    width: float,
    names: Sequence[str] | None = None,
) -> None:
    """Draw the planes of one map, by rows or columns of the pictures with these names, or all."""
    scale = scale_of(values, drawing.style)
    pictures = _pictures(drawing, attribution, values, planes, scale)
    names = list(pictures) if names is None else names
    by_row = drawing.view.kind == "volume"
    if by_row:
        heights = [_ratio(drawing, plane) for plane in planes]
        grid = figure.subplots(len(planes), len(names), squeeze=False, height_ratios=heights).T
    else:
        grid = figure.subplots(len(names), len(planes), squeeze=False)
    for axes, name in zip(grid, names, strict=True):
        for ax, plane in zip(axes, planes, strict=True):
            hide_frame(ax)
            shape = _aspect(drawing, plane)
            ax.imshow(pictures[name](plane), aspect=shape, interpolation="nearest")
        (axes[0].set_title if by_row else axes[0].set_ylabel)(name, fontsize=9)
    for ax, plane in zip(grid[0], planes, strict=True):
        (ax.set_ylabel if by_row else ax.set_title)(_heading(drawing, values, plane), fontsize=8)
    text, font = verdict(attribution, drawing.index, width)
    figure.supxlabel(f"{legend(drawing.style, scale)}\n{text}", **font)


def _pictures(
    drawing: Drawing,
    attribution: Attribution,
    values: Tensor,
    planes: Sequence[Plane],
    scale: float,
) -> Mapping[str, Callable[[Plane], Array]]:
    """Return what is drawn of each plane, by name: functions from a plane to its colours."""
    view, style = drawing.view, drawing.style
    given, baseline = view.values(drawing.image), drawing.baseline(attribution)
    pictures = {view.kind: lambda plane: pixels(view.image(plane.of(given)))}
    if baseline is not None:
        pictures["baseline"] = lambda plane: pixels(view.image(plane.of(baseline)))
    pictures["heatmap"] = lambda plane: heatmap(plane.of(values), style, scale)
    levels = Levels.of(smoothed(plane.of(values), style) for plane in planes)
    zoom = -(-_FINE // max(values.shape[1:]))
    pictures["overlay"] = lambda plane: overlay(
        view.image(plane.of(given)), plane.of(values), style, levels=levels, zoom=zoom
    )
    return pictures


def _heading(drawing: Drawing, values: Tensor, plane: Plane) -> str:
    """Return which slice a plane is, or which frame and its share of the whole map."""
    if drawing.view.kind == "volume":
        down, right = _axes(plane)
        return f"axis {plane.axis} at {plane.position}\n↓ axis {down}  → axis {right}"
    strength = values.double().nan_to_num(0, 0, 0).sum(0).abs()
    share = float(strength[plane.position].sum() / (strength.sum() or 1))
    return f"frame {plane.position}\n{share:.0%} of the map"


def _axes(plane: Plane) -> tuple[int, int]:
    """Return the axes that run down and to the right in a plane."""
    down, right = (axis for axis in range(3) if axis != plane.axis)
    return down, right


def _aspect(drawing: Drawing, plane: Plane) -> float:
    """Return the height of a voxel in a plane over its width."""
    if drawing.spacing is None:
        return 1.0
    down, right = _axes(plane)
    return drawing.spacing[down] / drawing.spacing[right]


def _ratio(drawing: Drawing, plane: Plane) -> float:
    """Return the height of the cell of a plane over its width."""
    shape = drawing.view.values(drawing.image).shape[1:]
    down, right = _axes(plane)
    ratio = _aspect(drawing, plane) * shape[down] / shape[right]
    return min(max(ratio, 1 / _LARGEST_RATIO), _LARGEST_RATIO)


def _size(drawing: Drawing, planes: Sequence[Plane], names: Sequence[str]) -> tuple[float, float]:
    """Return the width and height of a block in inches."""
    ratios = [_ratio(drawing, plane) for plane in planes]
    if drawing.view.kind == "volume":
        return _INCHES * len(names) + 0.6, (_INCHES + 0.1) * sum(ratios) + 1.1
    return _INCHES * len(planes), (_INCHES * max(ratios) + 0.15) * len(names) + 1.1
