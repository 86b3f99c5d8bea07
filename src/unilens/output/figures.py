"""What the pictures of all kinds of inputs have: a checked drawing, captions, the path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from .._validation.settings import check_choice, check_number, plain, shown
from ..attribution import Attribution
from ..errors import UnilensError, require
from ..outputs import OutputSpec
from .colours import STYLES, colour_scale, flatten
from .levels import lines
from .text import drawable, wrapped
from .views import Bands, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#666666"
FOR, AGAINST = "#c05f08", "#5b3a91"
"""Orange and purple, as at the ends of the colour map of signed maps."""
_TITLE = 15
"""Points of the title's font."""
SMALL = 0.1
"""Confidence below which the axis of the confidence ends above the largest one."""
_FAR = 0.1
"""From 0: values of at least this share of the largest one."""
_LONGEST_NAME = 40
_LARGEST_FIXED = 1e6
"""Of a gap that is written with all its digits."""
_LARGEST = 1e300
"""Of values that are drawn: sums of them and margins beside them stay finite."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One input with its maps, checked, and how they are drawn.

    Attributes:
        image: `(*S)`, in the user's order of axes.
        attributions: maps by the name that is shown.
        view: the kind of the input, and its axes.
        style: one of `STYLES`.
        index: of the input in the attributions.
        names: of the columns of a row, or the channels of a series.
        spacing: of a volume's voxels along its three axes.
    """

    image: Tensor
    attributions: Mapping[str, Attribution]
    view: View
    style: str
    index: int
    names: Sequence[str] | None
    spacing: Sequence[float] | None

    @classmethod
    def of(
        cls,
        image: Tensor,
        attributions: Mapping[str, Attribution],
        style: str,
        index: int,
        bands: Bands | None,
        channels: str | int,
        kind: str,
        names: Sequence[str] | None,
        spacing: Sequence[float] | None,
    ) -> Drawing:
        """Check the arguments of `panel` and `comparison`."""
        check_choice("style", style, STYLES)
        _check_maps(image, attributions, index)
        view = View.of(image, attributions.values(), bands, channels, kind)
        if names is not None:
            count = view.values(image).shape[0]
            require(
                isinstance(names, Iterable),
                f"expected names to be a list with a name for each column or channel, got "
                f"{shown(names)}; put them in a list",
            )
            names = [names] if isinstance(names, str) else list(names)
            require(
                view.kind in ("row", "series") and len(names) == count,
                f"expected a name for each of the {count} columns of a row or channels of a "
                f"series, got {len(names)} for the kind {view.kind!r}; give all or none",
            )
            names = [_short(name) for name in names]
        if spacing is not None:
            spacing = _lengths(spacing, view.kind)
        return cls(image, attributions, view, style, index, names, spacing)

    def __iter__(self) -> Iterator[tuple[str, Attribution, Tensor]]:
        """Yield the name, the attribution and the map `(C, ...)` of each method."""
        for name, attribution in self.attributions.items():
            yield drawable(str(name)), attribution, self.view.values(attribution.values[self.index])

    def baseline(self, attribution: Attribution) -> Tensor | None:
        """Return the baseline of the input, channels first; None where there is none."""
        if attribution.baseline is None:
            return None
        return self.view.values(attribution.baseline[self.index])

    def origin(self, attribution: Attribution, values: Tensor) -> float:
        """Return the value of a map `(C, ...)` that has no colour.

        It is 0; of a map that is not to add up to the score, and whose values have one sign and
        are all far from 0, as those of RISE, the value nearest to 0.
        """
        flat = flatten(values.reshape(len(values), 1, -1), self.style)
        low, high = float(flat.min()), float(flat.max())
        nearest = max(low, 0.0) + min(high, 0.0)
        far = abs(nearest) > _FAR * max(abs(low), abs(high))
        return nearest if far and not attribution.complete else 0.0

    @property
    def path_measure(self) -> str:
        """What is drawn along the path, for the heading."""
        known = all(map(has_probabilities, self.attributions.values()))
        return f"{'confidence' if known else 'score'} on the path"


def _check_maps(image: object, attributions: object, index: int) -> None:
    """Raise unless there are maps, all of the input's shape."""
    if not isinstance(attributions, Mapping) or not attributions:
        given = "none" if attributions == {} else type(attributions).__name__
        raise UnilensError(
            f'expected maps by name, as {{"ig": attribution}}, got {given}{_remedy(attributions)}'
        )
    for name, attribution in attributions.items():
        require(
            isinstance(attribution, Attribution),
            f"expected an Attribution of one tensor for {name!r}, got "
            f"{type(attribution).__name__}{_remedy(attribution)}",
        )
    if not isinstance(image, Tensor):
        raise UnilensError(
            f"expected the input as a tensor (*S), got {type(image).__name__}; pass inputs[0]"
        )
    for name, attribution in attributions.items():
        count, shape = len(attribution), tuple(attribution.values.shape[1:])
        require(
            type(index) is int and -count <= index < count,
            f"expected index to be that of an input among {count}, got {index!r}",
        )
        require(
            shape == tuple(image.shape),
            f"expected the input that was explained, of shape {shape}, got {tuple(image.shape)}; "
            "pass one input without its batch, as inputs[0]",
        )
        require(bool(attribution.values[index].numel()), f"expected values to show, got {shape}")
        _check_size(f"map of {name!r}", attribution.values[index])
        if attribution.baseline is not None:
            _check_size(f"baseline of {name!r}", attribution.baseline[index])
    _check_size("input", image)


def _remedy(given: object) -> str:
    """Return how to draw what is no map of one tensor."""
    remedies = {
        "Attribution": "",
        "TableAttribution": "; draw it with unilens.tables.waterfall or beeswarm",
        "TextAttribution": "; pass the text itself with those of texts",
        "MultiInputAttribution": "; draw several inputs one by one",
    }
    return remedies.get(type(given).__name__, "; pass what unilens.explain returns")


def _check_size(what: str, values: Tensor) -> None:
    """Raise where values are too large to be drawn; what is not finite counts as zero."""
    largest = float(values.detach().cpu().double().nan_to_num(0, 0, 0).abs().amax())
    require(
        largest <= _LARGEST,
        f"expected values up to {_LARGEST:g} in the {what}, got {largest:.3g}; draw them in a "
        "larger unit",
    )


def _lengths(spacing: object, kind: str) -> list[float]:
    """Return the lengths of voxels as three finite numbers."""
    lengths = plain("spacing", spacing, several=True)
    three = isinstance(lengths, (tuple, list)) and len(lengths) == 3
    if not three or kind not in ("volume", "clip"):
        raise UnilensError(
            f"expected spacing to be three lengths of a volume's voxels, got {shown(spacing)} for "
            f"the kind {kind!r}; leave it out"
        )
    return [
        check_number("spacing", length, least=1e-12, most=1e12) for length in cast(Any, lengths)
    ]


def _short(name: object) -> str:
    text = drawable(str(name)).replace("\n", " ")
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty white figure of this size in inches, higher for a title of many lines."""
    from matplotlib.figure import Figure

    lines = wrapped(title, width - 0.4, _TITLE)
    height += line_height(_TITLE) * lines.count("\n")
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(lines, fontsize=_TITLE, parse_math=False)
    return figure


def headings(drawing: Drawing, width: float, size: float) -> tuple[list[str], float]:
    """Return the names of the maps in lines of this width, and the inches that these add."""
    names = [wrapped(name, width, size) for name, *_ in drawing]
    return names, line_height(size) * max(name.count("\n") for name in names)


def line_height(size: float) -> float:
    """Return the inches from one line to the next in a font of this size in points."""
    return 1.3 * size / 72


def verdict(
    attribution: Attribution, index: int, width: float, size: float = 8
) -> tuple[str, dict[str, Any]]:
    """Return the verdict on a map in lines of this width in inches, with its font and colour."""
    line = lines(attribution, index)[0]
    font = {"fontsize": size, "color": line.style.colour, "parse_math": False}
    return wrapped(str(line), width, size), font


def scale_of(values: Tensor, style: str) -> float:
    """Return the value of full colour of a map `(C, ...)` of any dimensions."""
    return colour_scale(flatten(values.reshape(len(values), 1, -1), style))


def legend(style: str, scale: float) -> str:
    """Return what the colours of a map mean."""
    if style == "signed":
        return f"orange: for, purple: against; full colour {scale:.2g}"
    return f"full colour {scale:.2g}"


def draw_path(
    ax: Axes, attribution: Attribution, index: int, goal: str = "image", heading: str = ""
) -> None:
    """Draw the confidence, or the score, along the path from the baseline to the input."""
    trace = attribution.trace
    if trace is None:
        write_centred(ax, "no path")
        return
    ax.set_title(heading, fontsize=11)
    fraction = trace.fraction[:, index].cpu().numpy()
    confidence = trace.confidence[:, index].cpu().numpy()
    ax.plot(fraction, confidence, color="#1f5fa8", marker="o", markersize=3)
    ax.set_xlim(-0.03, 1.03)
    if has_probabilities(attribution):
        top = float(confidence.max())
        ax.set_ylim(*(-0.03, 1.03) if not top < SMALL else (-0.05 * top, 1.2 * top or 1.0))
    ax.set_xlabel(f"baseline → {goal}", fontsize=9)
    if attribution.complete:
        gap = float(attribution.completeness_gap[index])
        text = f"gap {gap:+z.4f}" if abs(gap) < _LARGEST_FIXED else f"gap {gap:+.4g}"
        ax.text(0.03, 0.96, text, transform=ax.transAxes, va="top", fontsize=9)
    ax.grid(alpha=0.3)


def has_probabilities(attribution: Attribution) -> bool:
    """Return whether the outputs of the explained model are probabilities, or become some."""
    return OutputSpec.of(attribution.provenance).has_probabilities


def write_centred(ax: Axes, text: str) -> None:
    """Write a text in place of a picture."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=GREY)
    ax.set_axis_off()


def hide_frame(ax: Axes) -> None:
    """Take the ticks and the frame off an axis, but leave its labels."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
