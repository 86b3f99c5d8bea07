"""Series (B, T, F) and (B, C, T), clips (B, C, T, H, W) and (B, T, C, H, W): blur and layouts."""

import pytest
import torch
from scipy import ndimage
from torch import nn

from unilens import UnilensError, explain
from unilens.baselines import Blur, baselines, gaussian_blur
from unilens.errors import NotApplicableError
from unilens.paths.blur import BlurPath

from .test_axes import Network, assert_same, inputs_of

AXES = {"all": {3: (0,), 5: (0, 1, 2)}, "time": {3: (0,), 5: (0,)}, "space": {5: (1, 2)}}


class Moved(nn.Module):
    """The network of channels first, for inputs whose channels are on another axis."""

    def __init__(self, dimensions, axis):
        super().__init__()
        self.inner, self.axis = Network(dimensions), axis
        self.eval()

    def forward(self, x):
        return self.inner(x.movedim(self.axis, 1))


@pytest.mark.parametrize("boundary", ["replicate", "reflect", "zero"])
@pytest.mark.parametrize(("along", "ndim"), [(a, n) for a, known in AXES.items() for n in known])
def test_blur_is_along_the_axes_chosen(along, ndim, boundary):
    values = inputs_of(1 if ndim == 3 else 3)
    modes = {"replicate": "nearest", "reflect": "reflect", "zero": "constant"}
    expected = values.numpy()
    for axis in AXES[along][ndim]:
        expected = ndimage.gaussian_filter1d(expected, 1.3, axis + 2, mode=modes[boundary])
    found = Blur(1.3, boundary, along)(None, values, None, generator=None)
    assert torch.allclose(found, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("along", ["time", "space"])
def test_slope_of_a_blur_is_its_derivative_along_the_axes(along):
    clips, sigma, step = inputs_of(3), 1.7, 1e-5
    widths = torch.tensor([sigma - step, sigma + step], dtype=torch.float64)
    below, above = gaussian_blur(clips, widths, along=along)
    slope = gaussian_blur(clips, torch.tensor([sigma]).double(), along=along, slope=True)[0]
    assert torch.allclose(slope, (above - below) / (2 * step), rtol=0, atol=1e-8)


@pytest.mark.parametrize("along", ["all", "time", "space"])
def test_clips_of_both_layouts_are_blurred_alike(along):
    clips = inputs_of(3)
    for method, name in (("ig", "baseline"), ("blur_ig", None)):
        settings = {name: "blur", "sigma": 2.0} if name else {"max_sigma": 2.0}
        settings |= {"along": along, "n_steps": 4}
        first = explain(Network(3), clips, method, 1, **settings)
        found = explain(Moved(3, 2), clips.transpose(1, 2), method, 1, channels=2, **settings)
        assert_same(found.values, first.values.transpose(1, 2))
        expected = Blur(2.0, along=along)(None, clips, None, generator=None)
        assert torch.allclose(found.baseline.transpose(1, 2), expected, rtol=0, atol=1e-12)


def test_blur_path_ends_at_the_blur_of_its_axes():
    assert BlurPath(3.0, along="time").baseline == Blur(3.0, along="time")


@pytest.mark.parametrize(
    ("along", "shape", "message"),
    [
        ("time", (2, 3, 6, 6), r"expected series \(B, C, T\) or clips"),
        ("space", (2, 3, 6), r"expected clips for along='space', got \(2, 3, 6\)"),
        ("space", (2, 3, 6, 6), r"expected clips for along='space'"),
    ],
)
def test_blur_refuses_inputs_without_its_axes(along, shape, message):
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2)).eval()
    model(torch.rand(shape))
    with pytest.raises(NotApplicableError, match=message):
        explain(model, torch.rand(shape), "ig", 0, baseline="blur", along=along, channels="first")


def test_other_axes_of_a_blur_are_refused():
    with pytest.raises(UnilensError, match="along to be one of all, time, space, got 'depth'"):
        Blur(along="depth")


@pytest.mark.slow
@pytest.mark.parametrize(("dimensions", "axis"), [(1, "last"), (3, 2), (3, "last")])
@pytest.mark.parametrize("name", sorted(baselines))
def test_baselines_of_other_layouts_are_those_of_channels_first(name, dimensions, axis):
    x, dim = inputs_of(dimensions), -1 if axis == "last" else axis
    settings, moved = {"baseline": name, "n_steps": 3, "channels": "first"}, {}
    target = 0 if name == "counterfactual" else 1  # class 1 wins at all references of clips
    if name == "tangent_aligned":
        with pytest.raises(NotApplicableError, match="pictures"):
            explain(Network(dimensions), x, "ig", 1, **settings)
        return
    if name in ("dataset_sample", "counterfactual"):
        far = 20 * inputs_of(dimensions, 3).flip(0)
        settings["references"] = torch.cat([far, -far])  # of several classes
        settings |= {"iterations": 3} if name == "counterfactual" else {}
        moved["references"] = settings["references"].movedim(1, dim)
    if name == "constant":
        settings["value"] = (0.1, 0.2, 0.3)  # one for each channel
    first = explain(Network(dimensions), x, "ig", target, **settings)
    found = explain(
        Moved(dimensions, dim),
        x.movedim(1, dim),
        "ig",
        target,
        **settings | moved | {"channels": axis},
    )
    assert_same(found.values, first.values.movedim(1, dim))
    assert torch.allclose(found.baseline, first.baseline.movedim(1, dim), rtol=0, atol=1e-12)
