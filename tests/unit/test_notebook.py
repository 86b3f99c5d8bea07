"""An attribution shows itself in a notebook."""

import base64
import io
import re

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

import unilens
from unilens import explain


@pytest.fixture
def linear():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double().eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -5.0, 0.5, 3.0], [0.0, 0.0, 0.0, 0.0]]))
    return model


def test_images_show_their_heatmap_and_baseline(small_net, images):
    found = explain(small_net, images, "ig", 1, n_steps=4, baseline="grey")
    html = found._repr_html_()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert len(pictures) == 2 * 4
    shown = Image.open(io.BytesIO(base64.b64decode(pictures[1])))
    assert shown.size == (11, 13)
    assert set(numpy.asarray(shown).flatten().tolist()) == {128}
    heatmap = numpy.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))
    expected = (unilens.viz.heatmap(found.values[0]) * 255).round()
    assert numpy.array_equal(heatmap, expected)
    assert "8 inputs of shape (3, 13, 11); the first 4 are shown" in html
    assert all(re.findall(r'alt="([^"]*)"', html))


def test_tables_show_their_strongest_values(linear):
    found = explain(linear, torch.ones(1, 4).double(), "ig", 0, n_steps=2, score="logit")
    html = found._repr_html_()
    assert re.findall(r"<td>(\d)</td><td>([^<]+)</td>", html) == [
        ("1", "-5"), ("3", "+3"), ("0", "+1"), ("2", "+0.5"),
    ]  # fmt: skip
    assert "score -0.5, 0 at the baseline, completeness gap" in html


def test_warnings_are_told_and_names_escaped(linear):
    found = explain(linear, torch.zeros(1, 4).double(), "ig", 0, n_steps=2, score="logit")
    html = found.with_provenance(method="<b>mine</b>")._repr_html_()
    assert "[baseline_is_input]" in html
    assert found.verdicts[0] in html
    assert "&lt;b&gt;mine&lt;/b&gt;" in html
    assert "<b>mine" not in html


def test_the_panel_is_a_figure(small_net, images):
    found = explain(small_net, images[:1], "gradient")
    figure = unilens.viz.panel(images[0], {"gradient": found})
    assert type(figure).__name__ == "Figure"
    assert [axes.get_title() for axes in figure.axes][:3] == ["image", "", "heatmap"]
