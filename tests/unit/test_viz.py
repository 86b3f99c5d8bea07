from dataclasses import replace

import numpy
import pytest
import torch
from torch import nn

from unilens import Attribution, UnilensError, explain
from unilens.output.colours import overlay_layer
from unilens.output.levels import lines
from unilens.output.text import probability_text, text_width, wrapped
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
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    row = ["image", "baseline", "heatmap", "overlay"]
    assert titles == [*row, "confidence on the path", row[0], *row[2:]]
    shown = [text.get_text() for text in figure.texts]
    assert shown.index("uni_paper") < shown.index("gradient")
    assert any("distance 0.25" in text for text in shown)
    assert figure.get_suptitle() == "why?"


@pytest.mark.parametrize("draw", [panel, comparison])
def test_the_verdict_stands_with_each_map(draw):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).eval()
    image = torch.rand(3, 8, 8)
    bad = {"completeness_gap": -9.0, "proximity": 0.0, "sum_error": 5.0, "channels_known": 0.0}
    measured = {name: torch.tensor([value]) for name, value in bad.items()}
    found = {name: explain(model, image[None], name) for name in ("ig", "gradient", "idgi")}
    found["ig"] = found["ig"].with_measured(**measured)
    found["idgi"] = found["idgi"].with_measured(**measured)
    shown = [" ".join(text.get_text().split()) for text in draw(image, found).texts]
    for attribution in found.values():
        assert str(lines(attribution)[0]) in shown


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
    titled = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert list(titled) == ["image", "ig", "guided_ig", "gradient", "input_x_gradient"]
    left, bottom, *_ = (titled[name].get_position().bounds for name in ("ig", "gradient"))
    assert bottom[0] < left[0]
    assert bottom[1] < left[1]
    drawn = titled["ig"].images[0].get_array()
    assert numpy.allclose(drawn, heatmap(found["ig"].values[0]))


def test_an_overlay_leaves_the_photograph_visible_and_outlines_the_strongest_tenth():
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    values = torch.zeros(1, 40, 40)
    values[0, 10:22, 12:24] = 1.0
    values[0, 30:34, 30:34] = -0.2
    drawn = overlay(image, values)
    outside = numpy.ones((40, 40), bool)
    outside[6:38, 8:38] = False
    given = image.permute(1, 2, 0).numpy()[outside].ravel()
    assert numpy.corrcoef(drawn[outside].ravel(), given)[0, 1] > 0.95
    red, _, blue = drawn[16, 18]
    assert red > blue + 0.3
    white = (drawn == 1.0).all(-1)
    rows, columns = numpy.nonzero(white)
    assert 9 <= rows.min() <= 11
    assert 20 <= rows.max() <= 22
    assert 11 <= columns.min() <= 13
    assert 22 <= columns.max() <= 24
    assert not white[12:20, 14:22].any()


def test_an_overlay_is_its_layer_over_the_paler_photograph():
    image, values = torch.rand(3, 12, 9), torch.randn(3, 12, 9)
    layer = overlay_layer(values)
    grey = image.mean(0, keepdim=True)
    paler = (1 - 0.25) * (image + 0.35 * (grey - image)) + 0.25
    mixed = layer[..., 3:] * layer[..., :3] + (1 - layer[..., 3:]) * paler.permute(1, 2, 0).numpy()
    assert numpy.allclose(mixed, overlay(image, values), atol=1e-6)


def test_an_overlay_of_finer_pixels_is_the_same_picture():
    image, values = torch.rand(3, 12, 9), torch.randn(3, 12, 9)
    fine = overlay(image, values, zoom=3)
    assert fine.shape == (36, 27, 3)
    flat = overlay(image, torch.zeros(3, 12, 9), zoom=3)
    assert numpy.allclose(flat[::3, ::3], overlay(image, torch.zeros(3, 12, 9)))


def test_a_map_of_one_sign_without_a_sum_is_coloured_from_its_minimum():
    made = torch.full((1, 1, 6, 6), 0.3)
    made[..., 0, 0] = 0.5
    ones = torch.ones(1)
    outputs = torch.tensor([[0.2, 0.8]])
    rise = Attribution(made, ones.long(), ones, outputs, complete=False)
    signed = replace(rise, values=made - 0.4)
    adding = replace(rise, complete=True)
    near = replace(rise, values=made - 0.29)
    for attribution, weakest in ((rise, 1), (signed, 0), (adding, 0), (near, 0)):
        figure = panel(torch.rand(1, 6, 6), {"rise": attribution})
        drawn = numpy.asarray(figure.axes[2].images[0].get_array())
        assert (drawn[3, 3].min() > 0.95) == weakest or attribution is near
        assert [text.get_text() for text in figure.texts].count("weakest") == 2 * weakest
    shown = [text.get_text() for text in comparison(torch.rand(1, 6, 6), {"a": rise}).texts]
    assert "colours from 0.3, its minimum" in shown


def test_a_comparison_has_families_as_groups_and_controls_last():
    ones = torch.ones(1)
    made = Attribution(torch.randn(1, 1, 6, 6), ones.long(), ones, torch.tensor([[0.2, 0.8]]))
    families = {"edges": "control", "ig": "path", "a": "gradient", "sig": "path"}
    maps = {name: made.with_provenance(family=family) for name, family in families.items()}
    figure = comparison(torch.rand(1, 6, 6), maps, columns=4)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["image", "ig", "sig", "a", "edges"]
    headings = {text.get_text(): text.get_position() for text in figure.texts}
    path, gradient = headings["path"], headings["gradient"]
    control = next(place for text, place in headings.items() if text.startswith("control"))
    assert path[0] < gradient[0]
    assert path[1] == gradient[1] > control[1]
    alone = comparison(torch.rand(1, 6, 6), {"ig": maps["ig"]})
    assert "path" not in [text.get_text() for text in alone.texts]


def test_a_small_confidence_is_readable_along_the_path():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).eval()
    found = explain(model, torch.rand(1, 3, 8, 8), "ig", 0)
    for size, top in ((0.004, 0.0048), (0.9, 1.03)):
        confidence = found.trace.confidence * 0 + size
        small = replace(found, trace=replace(found.trace, confidence=confidence))
        path = panel(torch.rand(3, 8, 8), {"ig": small}).axes[4]
        assert path.get_ylim()[1] == pytest.approx(top, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.004, "0.004"),
        (0.00032, "0.0003"),
        (0.0000321, "3e-05"),
        (0.0999, "0.10"),
        (0.3951, "0.40"),
        (0.996, "0.996"),
        (0.99999, "over 0.9999"),
        (1.0, "1.00"),
    ],
)
def test_probabilities_are_not_rounded_to_the_ends(value, text):
    assert probability_text(value) == text


@pytest.mark.parametrize(
    "label", ["Old English sheepdog, bobtail", "ig:baseline=blur,n=5", "a" * 60]
)
def test_labels_break_where_they_are_too_long(label):
    lines = wrapped(label, 0.8, 10).split("\n")
    assert len(lines) > 1
    assert all(text_width(line, 10) <= 0.8 for line in lines)
    assert "".join("".join(lines).split()) == "".join(label.split())
    assert wrapped(label, 9, 10) == label
