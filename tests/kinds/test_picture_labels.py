"""Labels of pictures: whatever their length, none is cut, and none covers another or a picture."""

from itertools import combinations

import pytest
import torch
from matplotlib.figure import FigureBase

from unilens import Attribution
from unilens.output.viz import comparison, panel

LONG = {
    "uni_blur": "unlearning",
    "ig:baseline=blur,sigma=10,path=straight,n_steps=200,rule=gauss_legendre,score=margin": "path",
    "a" * 90: "path",
    "gradient": "gradient",
    "smoothgrad:inner=input_x_gradient,n_samples=50,sigma=0.15": "smoothing",
    "rise": "perturbation",
    "edges": "control",
    "random": "control",
}
TITLE = "a_photograph_with_a_long_name_20261130: why “" + "black-and-tan coonhound, " * 8 + "”?"
SHAPES = {
    "square": (3, 24, 24),
    "wide": (3, 6, 90),
    "tall": (3, 90, 6),
    "tiny": (1, 2, 2),
    "row": (9,),
    "series": (3, 40),
    "volume": (1, 12, 16, 14),
    "flat volume": (1, 4, 40, 40),
    "clip": (3, 8, 12, 20),
}


def maps(shape, names):
    """Return maps made by hand, one for each name, with a family and a bad verdict."""
    generator = torch.Generator().manual_seed(0)
    ones, outputs = torch.ones(1), torch.tensor([[0.2, 0.8]])
    return {
        name: Attribution(
            torch.randn(1, *shape, generator=generator),
            ones.long(),
            ones,
            outputs,
            torch.zeros(1, *shape),
            0 * ones,
        )
        .with_measured(completeness_gap=-9 * ones, proximity=0 * ones, sum_error=5 * ones)
        .with_provenance(family=family)
        for name, family in names.items()
    }


def drawn_texts(figure):
    """Yield the texts of a figure that are drawn, without ticks beyond the ends of an axis."""
    texts = [text for part in figure.findobj(FigureBase) for text in part.texts]
    for ax in figure.axes:
        texts += [*ax.texts, ax.title]
        if ax.axison:
            area = ax.get_window_extent()
            texts += [ax.xaxis.label, ax.yaxis.label]
            texts += within(ax.get_xticklabels(), area.x0, area.x1, 0)
            texts += within(ax.get_yticklabels(), area.y0, area.y1, 1)
    yield from (text for text in texts if text.get_text().strip() and text.get_visible())


def within(labels, low, high, axis):
    """Return the labels whose middle is between two pixels along an axis."""
    middles = [label.get_window_extent().get_points()[:, axis].mean() for label in labels]
    return [
        label
        for label, middle in zip(labels, middles, strict=True)
        if low - 1 <= middle <= high + 1
    ]


def covered(figure):
    """Return the texts that lie over each other or over a picture, or reach over the edge."""
    figure.set_dpi(200)
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
    pictures = [("picture", ax.get_window_extent()) for ax in figure.axes if ax.images]
    pairs = [*combinations(boxes, 2), *((box, other) for box in boxes for other in pictures)]
    over = [
        (name, other)
        for (name, box), (other, area) in pairs
        if min(box.x1, area.x1) - max(box.x0, area.x0) > 2
        and min(box.y1, area.y1) - max(box.y0, area.y0) > 2
    ]
    whole = figure.bbox
    return over + [
        (name, "edge")
        for name, box in boxes
        if min(box.x0, box.y0) < 0 or box.x1 > whole.x1 or box.y1 > whole.y1
    ]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("draw", [panel, comparison])
@pytest.mark.parametrize("kind", SHAPES)
def test_no_label_is_cut_or_covers_another(kind, draw, count):
    shape = SHAPES[kind]
    made = maps(shape, dict(list(LONG.items())[:count]))
    figure = draw(torch.rand(shape), made, title=TITLE, channels="first")
    figure.draw_without_rendering()
    texts = " ".join(" ".join(text.get_text().split()) for text in drawn_texts(figure))
    assert "".join(TITLE.split()) in "".join(texts.split())
    for name in made:
        assert name in "".join(texts.split())
    assert covered(figure) == []
