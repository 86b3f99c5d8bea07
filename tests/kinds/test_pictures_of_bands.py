"""Pictures of images of any number of bands."""

import numpy
import pytest
import torch
from torch import nn

from unilens import UnilensError, explain
from unilens.output.viz import comparison, heatmap, panel, pixels


def mean_model(*dims):
    class Mean(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1)
            return torch.stack([total, -total], 1)

    return Mean().eval()


def shown(figure, column=0):
    """Return the colours (H, W, 4) of a picture in the first row, as they are drawn."""
    figure.canvas.draw()
    image = figure.axes[column].images[0]
    return numpy.asarray(image.to_rgba(image.get_array(), norm=False))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("draw", [panel, comparison])
def test_panel_shows_any_number_of_bands(bands, draw):
    torch.manual_seed(0)
    image = torch.rand(bands, 6, 5)
    found = explain(mean_model(), image[None], "ig", 0, n_steps=2)
    drawn = shown(draw(image, {"ig": found}))
    assert drawn.shape == (6, 5, 4)
    assert (drawn[..., 3] == 1).all()
    expected = image if bands == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    assert numpy.allclose(drawn[..., :3], expected.permute(1, 2, 0), atol=1e-6)


def test_panel_shows_chosen_bands():
    torch.manual_seed(0)
    image = torch.rand(5, 6, 5)
    found = explain(mean_model(), image[None], "ig", 0, n_steps=2)
    for draw in (panel, comparison):
        drawn = shown(draw(image, {"ig": found}, bands=(4, 0, 2)))
        assert numpy.allclose(drawn[..., :3], image[[4, 0, 2]].permute(1, 2, 0), atol=1e-6)
    assert numpy.array_equal(pixels(image, (1, 1, 1))[..., 0], image[1].numpy())


@pytest.mark.parametrize("bands", [(0, 1), (0, 1, 5), (0, 1, -1), "rgb", (0, 1, 2.0)])
def test_panel_refuses_other_bands(bands):
    image = torch.rand(5, 6, 5)
    found = explain(mean_model(), image[None], "gradient", 0)
    with pytest.raises(UnilensError, match="three numbers of channels from 0 to 4, got"):
        panel(image, {"gradient": found}, bands=bands)


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("bands", [1, 3])
def test_panel_shows_images_of_channels_last(bands, said):
    torch.manual_seed(0)
    image = torch.rand(6, 5, bands)
    more = {"channels": "last"} if said else {}
    found = explain(mean_model(), image[None], "ig", 0, n_steps=2, score="logit", **more)
    figure = panel(image, {"ig": found})
    drawn = shown(figure)
    assert numpy.allclose(drawn[..., :3], image.expand(-1, -1, 3), atol=1e-6)
    expected = heatmap(found.values[0].movedim(-1, 0))
    assert numpy.array_equal(shown(figure, 2)[..., :3], expected)
    assert found._repr_html_().count("<img") == 2


def test_panel_shows_images_without_channels():
    image = torch.rand(6, 5)
    found = explain(mean_model(), image[None], "ig", 0, n_steps=2, channels="none")
    drawn = shown(panel(image, {"ig": found}))
    assert numpy.allclose(drawn[..., :3], image.unsqueeze(-1).expand(-1, -1, 3), atol=1e-6)
