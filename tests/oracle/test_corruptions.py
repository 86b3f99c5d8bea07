"""Changes of pictures against skimage, scipy and moments worked out by hand."""

import io

import numpy
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from skimage import color

from unilens import UnilensError
from unilens._ops.random import generators
from unilens.errors import NotApplicableError
from unilens.metrics.robustness.corruptions import corruptions


def change(name, inputs, strength, seed=0):
    own = generators(inputs, torch.Generator().manual_seed(seed))
    return corruptions[name]()(inputs, strength, own)


def in_hsv(image, edit):
    hsv = color.rgb2hsv(image.permute(1, 2, 0).numpy())
    edit(hsv)
    return color.hsv2rgb(hsv.clip(0, 1)).transpose(2, 0, 1)


@pytest.mark.parametrize("strength", [-0.4, -0.05, 0.1, 0.5])
def test_brightness_adds_to_hsv_value(images, strength):
    found = change("brightness", images, strength)

    def edit(hsv):
        hsv[..., 2] += strength

    for image, value in zip(images, found, strict=True):
        assert value.numpy() == pytest.approx(in_hsv(image, edit), abs=1e-12)


@pytest.mark.parametrize("strength", [-1, -0.7, 1, 4])
def test_saturation_scales_hsv_saturation(images, strength):
    found = change("saturation", images, strength)

    def edit(hsv):
        hsv[..., 1] *= 1 + strength

    for image, value in zip(images, found, strict=True):
        assert value.numpy() == pytest.approx(in_hsv(image, edit), abs=1e-12)


def test_brightness_and_saturation_keep_grey():
    black = torch.zeros(1, 3, 2, 2)
    assert torch.equal(change("brightness", black, 0.25), black + 0.25)
    grey = torch.full((1, 3, 2, 2), 0.5)
    assert torch.equal(change("saturation", grey, 4), grey)
    assert torch.equal(change("saturation", black, 4), black)


def test_contrast_scales_about_mean(images):
    found = change("contrast", images, -0.6)
    mean = images.mean((2, 3), keepdim=True)
    assert torch.allclose(found, 0.4 * images + 0.6 * mean)
    assert float(change("contrast", images, 3).amax()) == 1.0


def test_gaussian_blur_equals_scipy(images):
    found = change("gaussian_blur", images, 1.7)
    for i, c in ((0, 0), (3, 2)):
        expected = ndimage.gaussian_filter(images[i, c].numpy(), 1.7, mode="nearest")
        assert found[i, c].numpy() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("radius", [0.4, 1, 2.3, 5])
def test_defocus_is_convolution_with_disk(images, radius):
    size = int(numpy.ceil(radius))
    disk = numpy.zeros((2 * size + 1, 2 * size + 1))
    for row in range(-size, size + 1):
        for column in range(-size, size + 1):
            disk[row + size, column + size] = min(
                1, max(0, radius + 0.5 - numpy.hypot(row, column))
            )
    found = change("defocus_blur", images, radius)
    for i, c in ((0, 0), (3, 2)):
        expected = ndimage.convolve(images[i, c].numpy(), disk / disk.sum(), mode="nearest")
        assert found[i, c].numpy() == pytest.approx(expected, abs=1e-12)


def test_noise_has_stated_standard_deviation():
    grey = torch.full((1, 3, 80, 80), 0.5, dtype=torch.float64)
    normal = (change("gaussian_noise", grey, 0.1) - 0.5) / 0.1
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 0.01
    counted = change("shot_noise", grey, 0.2) * 25
    assert torch.allclose(counted, counted.round(), atol=1e-9)
    assert float(counted.mean()) == pytest.approx(12.5, abs=0.1)
    assert float(counted.var()) == pytest.approx(12.5, rel=0.05)


def test_speckle_grows_with_value():
    ramp = torch.tensor([0.1, 0.4]).double().repeat_interleave(3200).view(1, 1, 80, 80)
    normal = (change("speckle_noise", ramp, 0.2) - ramp) / (0.2 * ramp)
    for half in normal.flatten().split(3200):
        assert stats.kstest(half.numpy(), "norm").pvalue > 0.01


def test_impulse_noise_has_as_many_black_as_white_pixels():
    grey = torch.full((1, 3, 100, 100), 0.5)
    found = change("impulse_noise", grey, 0.2)
    for value, share in ((0, 0.1), (0.5, 0.8), (1, 0.1)):
        assert float((found == value).double().mean()) == pytest.approx(share, abs=0.01)
    at_once = (found != 0.5).all(1).double().mean()
    assert float(at_once) == pytest.approx(0.2**3, abs=0.003)  # each channel by itself
    assert float((change("impulse_noise", grey, 1) != 0.5).double().mean()) == 1


@pytest.mark.parametrize(("size", "severity"), [(224, 0), (224, 3), (100, 4)])
def test_pixelate_is_box_mean_and_nearest(size, severity):
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity]
    few = int(size * share)
    found = change("pixelate", picture, corruptions["pixelate"]().severities[severity])
    plane = picture[0, 1].numpy().astype(float)
    for axis in (0, 1):
        plane = numpy.moveaxis(plane, axis, 0)
        scale = size / few
        coarse = []
        for i in range(few):
            low, high = i * scale, (i + 1) * scale
            coarse.append(plane[[low <= k + 0.5 < high for k in range(size)]].mean(0))
        plane = numpy.moveaxis(
            numpy.stack([coarse[int((k + 0.5) / scale)] for k in range(size)]), 0, axis
        )
    assert found[0, 1].numpy() == pytest.approx(plane, abs=1e-6)


def test_jpeg_equals_pillow():
    values = numpy.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=numpy.uint8)
    picture = torch.from_numpy(values).permute(2, 0, 1)[None] / 255
    for mode, given in (("RGB", picture), ("L", picture[:, :1])):
        file = io.BytesIO()
        Image.fromarray(values if mode == "RGB" else values[..., 0]).save(file, "JPEG", quality=18)
        expected = numpy.asarray(Image.open(file)).reshape(24, 40, -1).transpose(2, 0, 1)
        found = change("jpeg_compression", given, corruptions["jpeg_compression"]().severities[1])
        assert (found[0] * 255).numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "strength"), [("pixelate", 1.1), ("impulse_noise", 2), ("jpeg_compression", 100)]
)
def test_corruption_refuses_strength_out_of_range(name, strength, images):
    with pytest.raises(UnilensError, match="expected a strength of at most"):
        change(name, images, strength)


STEPS = ("impulse_noise", "pixelate", "jpeg_compression")


@pytest.mark.parametrize("name", corruptions)
def test_corruption_keeps_shape_and_range(name, images):
    corruption = corruptions[name]()
    assert len(corruption.severities) == 5
    assert torch.equal(change(name, images, 0), images)
    slightly = change(name, images, 1e-4)
    if name not in STEPS:
        assert float((slightly - images).abs().max()) < 2e-3
    for dtype in (torch.float32, torch.float64):
        given = images.to(dtype)
        before = given.clone()
        found = change(name, given, 0.7)
        assert found.dtype == dtype
        assert found.shape == images.shape
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert not torch.equal(found, given)
        assert torch.equal(given, before)
        for i in range(len(given)):
            assert torch.equal(change(name, given[i : i + 1], 0.7)[0], found[i])
        random = not corruptions[name].card.deterministic
        assert torch.equal(change(name, given, 0.7, seed=1), found) != random
    with pytest.raises(UnilensError, match="expected a strength of at least"):
        change(name, images, corruption.lowest - 0.1)
    with pytest.raises(UnilensError, match="the strength to be a finite number"):
        change(name, images, "strong")
    with pytest.raises(NotApplicableError, match="expected pictures in"):
        change(name, images * 2 - 1, 0.4)
    with pytest.raises(NotApplicableError, match="expected pictures"):
        change(name, images[:, :2], 0.4)


def test_saturation_refuses_grey_pictures(images):
    with pytest.raises(NotApplicableError, match="expected pictures in colour"):
        change("saturation", images[:, :1], 0.4)
    assert change("brightness", images[:, :1], 0.4).shape == images[:, :1].shape
