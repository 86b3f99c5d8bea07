"""An animation of a path: the photograph dissolves into its baseline and comes back."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..attribution import Attribution
from ..errors import NotApplicableError, require
from .colours import pixels
from .figures import SMALL, has_probabilities
from .text import probability_text, wrapped
from .views import View

MOST_BYTES = 3_000_000
"""Of an animation."""
_MOST_FRAMES = 24
"""From the baseline to the photograph."""
_SIDE, _LEAST_SIDE, _LEAST_WIDTH = 400, 32, 260
"""Pixels: along the longer side of the photograph, at first and at least; across the animation."""
_LARGE = 3
"""Times as large as the image: its pixels are shown as squares."""
_COLOURS = 192
_HOLD, _WAY, _LEAST_TIME = 1200, 1800, 40
"""Milliseconds: of the two ends, of the way between them, and of a frame."""
_FONT, _LINE, _MARGIN, _CURVE = 15, 20, 10, 64
_DARK, _GREY, _BLUE = (17, 17, 17), (102, 102, 102), (31, 95, 168)


def dissolve(
    image: Tensor,
    attribution: Attribution,
    points: Sequence[Tensor] | None = None,
    *,
    label: str = "",
    index: int = 0,
    most_bytes: int = MOST_BYTES,
) -> bytes:
    """Return a GIF of a path, from the image to the baseline and back, over the confidence.

    Each frame is a point at which the model ran, shown for as long as its part of the path. The
    picture is made smaller until the file is small enough.

    Args:
        image: the input `(*S)` without its batch, an image in [0, 1].
        attribution: its map by a path method.
        points: the points `(*S)` of the path at the fractions of the attribution's trace, both ends
            included, as `unilens.methods.path_diagnostics.path_steps` has them between the ends;
            None for those of the straight line.
        label: of the target.
        index: of the input in the attribution.
        most_bytes: of the file.

    Raises:
        NotApplicableError: the method has no path from a baseline.
        UnilensError: the input is no image, or there is another number of points.
    """
    trace, baseline = attribution.trace, attribution.baseline
    if trace is None or baseline is None:
        raise NotApplicableError(
            "expected the map of a method with a path from a baseline, got that of "
            f"{attribution.provenance.get('method', 'another')}; take uni_blur or ig"
        )
    view = View.of(image, [attribution])
    require(view.kind == "image", f"expected an image to animate, got a {view.kind}")
    fractions = trace.fraction[:, index].tolist()
    if points is None:
        start = baseline[index].cpu()
        points = [start + fraction * (image.cpu() - start) for fraction in fractions]
    require(
        len(points) == len(fractions),
        f"expected the points at the {len(fractions)} fractions of the trace, got {len(points)}",
    )
    chosen = _evenly(fractions)
    curve = _Curve(label, attribution, index)
    photographs = [_photograph(view, points[number]) for number in chosen]
    times = _times([fractions[number] for number in chosen])
    return _small_enough(photographs, chosen, times, curve, most_bytes)


def _evenly(fractions: Sequence[float]) -> list[int]:
    """Return the numbers of the points that are shown: all, or about evenly spaced ones."""
    if len(fractions) <= _MOST_FRAMES:
        return list(range(len(fractions)))
    places = numpy.linspace(0, 1, _MOST_FRAMES)
    nearest = {int(numpy.abs(numpy.asarray(fractions) - place).argmin()) for place in places}
    return sorted(nearest | {0, len(fractions) - 1})


def _times(fractions: Sequence[float]) -> list[int]:
    """Return how many milliseconds each point is shown on the way."""
    steps = numpy.diff(fractions, append=fractions[-1])
    return [max(round(_WAY * step), _LEAST_TIME) for step in steps]


def _photograph(view: View, point: Tensor) -> Image.Image:
    colours = pixels(view.image(view.values(point)))
    return Image.fromarray((colours * 255).round().astype(numpy.uint8))


def _small_enough(
    photographs: Sequence[Image.Image],
    numbers: Sequence[int],
    times: Sequence[int],
    curve: _Curve,
    most_bytes: int,
) -> bytes:
    """Return the largest animation that was tried and has at most so many bytes."""
    side = _SIDE
    while True:
        frames = [
            curve.below(_resized(photograph, side), number)
            for photograph, number in zip(photographs, numbers, strict=True)
        ]
        made = _encoded(frames, times)
        if len(made) <= most_bytes or side == _LEAST_SIDE:
            return made
        smaller = 0.95 * (most_bytes / len(made)) ** 0.5
        side = max(int(side * max(smaller, 0.5)), _LEAST_SIDE)


def _resized(photograph: Image.Image, side: int) -> Image.Image:
    scale = side / max(photograph.size)
    width, height = (max(round(length * scale), 1) for length in photograph.size)
    way = Image.Resampling.NEAREST if scale > _LARGE else Image.Resampling.LANCZOS
    return photograph.resize((width, height), way)


def _encoded(frames: Sequence[Image.Image], times: Sequence[int]) -> bytes:
    """Return frames from baseline to photograph as a GIF there and back, with one palette."""
    strip = Image.new("RGB", (frames[0].width, 3 * frames[0].height))
    for place, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        strip.paste(frame, (0, place * frame.height))
    palette = strip.quantize(_COLOURS, Image.Quantize.MEDIANCUT)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    back, there = drawn[::-1], drawn[1:-1]
    durations = [_HOLD, *times[-2:0:-1], _HOLD, *times[1:-1]]
    buffer = io.BytesIO()
    back[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=[*back[1:], *there],
        duration=durations,
        loop=0,
    )
    return buffer.getvalue()


class _Curve:
    """The confidence on a path, drawn below a photograph with a dot where the path is."""

    def __init__(self, label: str, attribution: Attribution, index: int) -> None:
        from matplotlib.font_manager import FontProperties, findfont

        assert attribution.trace is not None
        self._known = has_probabilities(attribution)
        self._heading = "confidence" if self._known else "score"
        if label:
            self._heading += f" in “{label}”" if self._known else f" of “{label}”"
        self._fractions = attribution.trace.fraction[:, index].tolist()
        self._values = attribution.trace.confidence[:, index].nan_to_num().tolist()
        path = findfont(FontProperties())
        self._font, self._small = (ImageFont.truetype(path, size) for size in (_FONT, _FONT - 3))

    def below(self, photograph: Image.Image, number: int) -> Image.Image:
        """Return a photograph above the curve, with the dot at a point of the path."""
        width = max(photograph.width + 2 * _MARGIN, _LEAST_WIDTH)
        heading = wrapped(self._heading, (width - 2 * _MARGIN) / 72, _FONT)
        curve = photograph.height + 2 * _MARGIN + _LINE * (heading.count("\n") + 1)
        frame = Image.new("RGB", (width, curve + _CURVE + 2 * _LINE), "white")
        frame.paste(photograph, ((width - photograph.width) // 2, _MARGIN))
        draw = ImageDraw.Draw(frame)
        draw.multiline_text(
            (_MARGIN, photograph.height + 1.5 * _MARGIN), heading, _DARK, self._font
        )
        self._draw(draw, (_MARGIN, width - _MARGIN, curve + 6 + _CURVE), number)
        return frame

    def _draw(self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int], number: int) -> None:
        """Draw the curve in a box, the dot, and its value between the words for the ends.

        Args:
            draw: on a frame.
            box: left, right and bottom of the curve.
            number: of the point.
        """
        left, right, bottom = box
        low, high = min(0.0, *self._values), max(self._values)
        high = max(high, 1.0) if self._known and high >= SMALL else high
        span = (high - low) or 1.0
        places = [
            (left + 4 + fraction * (right - left - 8), bottom - (value - low) / span * _CURVE)
            for fraction, value in zip(self._fractions, self._values, strict=True)
        ]
        draw.line([(left, bottom), (right, bottom)], _GREY)
        draw.line(places, _BLUE, 2)
        x, y = places[number]
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), _BLUE)
        value = self._values[number]
        shown = probability_text(value) if self._known else f"{value:.3g}"
        for text, across, anchor, colour, font in (
            ("baseline", left, "la", _GREY, self._small),
            (shown, (left + right) / 2, "ma", _BLUE, self._font),
            ("photograph", right, "ra", _GREY, self._small),
        ):
            draw.text((across, bottom + 7), text, colour, font, anchor)
