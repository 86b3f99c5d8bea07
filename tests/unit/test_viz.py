import numpy
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from torch import nn

from unilens import UnilensError, explain
from unilens.output.levels import lines
from unilens.output.viz import STYLES, colour_scale, comparison, flatten, heatmap, overlay, panel


def test_a_signed_map_is_white_at_zero_and_opposite_at_its_ends():
    values = torch.zeros(3, 8, 8)
    values[:, 0, 0], values[:, 7, 7] = 1.0, -1.0
    colours = heatmap(values)
    assert colours[3, 3].min() > 0.95
    red, _, blue = colours[0, 0]
    assert red > blue
    red, _, blue = colours[7, 7]
    assert blue > red


def test_the_green_style_is_green_on_black():
    values = torch.zeros(1, 8, 8)
    values[0, 2, 2] = -3.0
    colours = heatmap(values, "green")
    assert colours[2, 2].tolist() == pytest.approx([0, 1, 0], abs=0.01)
    assert colours[5, 5].max() == 0


@pytest.mark.parametrize("style", STYLES)
def test_maps_of_zeros_and_of_nan_can_be_drawn(style):
    for values in (torch.zeros(3, 8, 8), torch.full((3, 8, 8), torch.nan)):
        colours = heatmap(values, style)
        assert numpy.isfinite(colours).all()
        assert (colours == colours[0, 0]).all()
        assert numpy.isfinite(overlay(torch.rand(3, 8, 8), values, style)).all()


def test_channels_are_summed_signed_or_not():
    values = torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)
    assert flatten(values, "signed").item() == -0.5
    assert flatten(values, "unsigned").item() == 3.5


def test_the_scale_leaves_out_the_last_half_per_cent():
    flat = numpy.ones((100, 100))
    flat[0, 0] = 1000
    assert colour_scale(flat) == 1


def test_a_panel_has_a_row_for_each_method():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).eval()
    image = torch.rand(3, 8, 8)
    found = {name: explain(model, image[None], name) for name in ("uni_paper", "gradient")}
    figure = panel(image, found, title="why?")
    assert len(figure.axes) == 10
    assert figure.axes[0].get_ylabel() == "uni_paper"
    assert "distance 0.25" in figure.axes[1].get_xlabel()
    assert figure.get_suptitle() == "why?"


def overlaps(figure):
    """Return the texts of a figure that lie over each other, or over a picture."""
    renderer = figure.canvas.get_renderer()
    figure.canvas.draw()
    texts = [
        text
        for ax in figure.axes
        for text in (ax.title, ax.xaxis.label, *ax.texts)
        if text.get_text() and text.get_visible()
    ]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    pictures = [("", ax.get_window_extent(renderer)) for ax in figure.axes if ax.images]
    return [
        (name, other)
        for number, (name, box) in enumerate(boxes)
        for other, area in (*boxes[number + 1 :], *pictures)
        if min(box.x1, area.x1) - max(box.x0, area.x0) > 1
        and min(box.y1, area.y1) - max(box.y0, area.y0) > 1
    ]


@pytest.mark.parametrize("draw", [panel, comparison])
def test_the_verdict_stands_below_each_map_and_covers_nothing(draw):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).eval()
    image = torch.rand(3, 8, 8)
    bad = {"completeness_gap": -9.0, "proximity": 0.0, "sum_error": 5.0, "channels_known": 0.0}
    measured = {name: torch.tensor([value]) for name, value in bad.items()}
    found = {name: explain(model, image[None], name) for name in ("ig", "gradient", "idgi")}
    found["ig"] = found["ig"].with_measured(**measured)
    found["idgi"] = found["idgi"].with_measured(**measured)
    figure = draw(image, found)
    FigureCanvasAgg(figure)
    shown = [
        " ".join(text.get_text().split())
        for ax in figure.axes
        for text in (ax.xaxis.label, *ax.texts)
    ]
    for attribution in found.values():
        assert str(lines(attribution)[0]) in shown
    assert overlaps(figure) == []
    whole = figure.bbox
    for ax in figure.axes:
        for text in filter(Text.get_text, (ax.xaxis.label, *ax.texts)):
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1


@pytest.mark.parametrize(
    ("values", "style", "message"),
    [
        (torch.zeros(3, 8, 8), "red", "unknown style 'red'"),
        (torch.zeros(8), "signed", r"shape \(C, H, W\), got \(8,\)"),
    ],
)
def test_wrong_maps_are_refused(values, style, message):
    with pytest.raises(UnilensError, match=message):
        heatmap(values, style)


def test_a_comparison_has_a_column_for_each_method():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).eval()
    image = torch.rand(3, 8, 8)
    names = ("ig", "gradient", "input_x_gradient", "guided_ig")
    found = {name: explain(model, image[None], name) for name in names}
    figure = comparison(image, found, title="$why$?", columns=3)
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in figure.axes[:3]] == ["image", "ig", "gradient"]
    assert [ax.get_title() for ax in figure.axes[6:8]] == ["input_x_gradient", "guided_ig"]
    assert len(shown) == 1 + 2 * len(names)
    drawn = figure.axes[1].images[0].get_array()
    assert numpy.allclose(drawn, heatmap(found["ig"].values[0]))
