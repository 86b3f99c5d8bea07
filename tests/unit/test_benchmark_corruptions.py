"""Corruptions by severity: seeded by content, and the package's beside those of unilens."""

import importlib.metadata
import sys
from types import SimpleNamespace

import numpy
import pytest
import torch

from unilens.benchmark.data import imagenet_c
from unilens.benchmark.data.imagenet_c import PACKAGE, PACKAGED, check_corruption, corrupt
from unilens.errors import NotApplicableError, UnilensError, UnknownNameError
from unilens.metrics import corruptions

PIXELS = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", corruptions)
def test_severities_grow(name):
    away = [float((corrupt(PIXELS, name, one, 0) - PIXELS).square().mean()) for one in range(1, 6)]
    if name == "saturation":  # two take colour away, three add it
        assert away[0] < away[1]
        assert away[2:] == sorted(away[2:])
    else:
        assert away == sorted(away)
    assert away[0] > 0


@pytest.mark.parametrize("name", corruptions)
def test_what_is_drawn_depends_on_seed_and_content(name):
    before = PIXELS.clone()
    found = corrupt(PIXELS, name, 3, 7)
    assert torch.equal(PIXELS, before)
    assert found.shape == PIXELS.shape
    torch.manual_seed(5)
    assert torch.equal(corrupt(PIXELS.clone(), name, 3, 7), found)
    random = not corruptions[name].card.deterministic
    assert torch.equal(corrupt(PIXELS, name, 3, 8), found) != random


def test_two_images_do_not_share_their_noise():
    grey = torch.full((3, 40, 40), 0.5)
    first, second = (corrupt(one, "gaussian_noise", 1, 0) - one for one in (grey, grey + 1e-3))
    both = torch.stack([first.flatten(), second.flatten()])
    assert abs(float(both.corrcoef()[0, 1])) < 0.1


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, True, "3"])
def test_severities_that_are_none(severity):
    with pytest.raises(UnilensError, match="expected severity to be 1, 2, 3, 4 or 5, got"):
        corrupt(PIXELS, "brightness", severity, 0)


def test_bad_input():
    with pytest.raises(UnknownNameError, match="unknown corruption 'fogg'; did you mean fog"):
        corrupt(PIXELS, "fogg", 1, 0)
    with pytest.raises(NotApplicableError, match="expected pictures in"):
        corrupt(PIXELS * 3, "fog", 1, 0)
    for name in (*corruptions, *PACKAGED):
        check_corruption(name)


@pytest.fixture
def package(monkeypatch):
    """Stand in for the package: adds NumPy's noise, and notes what it was called with."""
    calls = []

    def noise(image, severity, name, **settings):
        calls.append((image, severity, name, settings))
        if name == "frost":
            raise RuntimeError("no ice")
        return (image + numpy.random.randint(0, 9, image.shape)).clip(0, 255).astype(numpy.uint8)

    monkeypatch.setitem(sys.modules, "imagecorruptions", SimpleNamespace(corrupt=noise))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.1.5")
    return calls


def test_the_package_is_seeded_and_numpys_generator_put_back(package):
    numpy.random.seed(3)
    expected = numpy.random.rand(4)
    numpy.random.seed(3)
    found = corrupt(PIXELS.double(), "fog", 2, 0)
    assert found.dtype == torch.float64
    assert torch.equal(corrupt(PIXELS.double(), "fog", 2, 0), found)
    assert not torch.equal(corrupt(PIXELS.double(), "fog", 2, 1), found)
    with pytest.raises(RuntimeError, match="no ice"):
        corrupt(PIXELS, "frost", 2, 0)
    assert (numpy.random.rand(4) == expected).all()
    image, severity, name, settings = package[0]
    assert (severity, name, settings) == (2, "fog", {})
    assert image.dtype == numpy.uint8
    assert numpy.abs(image / 255 - PIXELS.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    corrupt(PIXELS, "glass_blur", 1, 0)
    assert 0 <= package[-1][3]["seed"] < 2**32


def test_images_that_are_too_small_for_the_package(package):
    with pytest.raises(UnilensError, match="at least 32 pixels a side for snow, got 20"):
        corrupt(PIXELS[:, :20], "snow", 1, 0)


def test_the_package_is_missing_or_another_of_its_name(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UnilensError, match=r"imagecorruptions-imaug; run: pip install 'unilens\["):
        corrupt(PIXELS, "fog", 1, 0)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.1.5")
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(UnilensError, match=r"imagecorruptions-imaug; run: pip install 'unilens\["):
        corrupt(PIXELS, "fog", 1, 0)


@pytest.fixture
def installed():
    try:
        return imagenet_c._package("fog")
    except UnilensError:
        pytest.skip(f"needs {PACKAGE}")


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGED)
def test_the_package_itself(name, installed):
    found = corrupt(PIXELS, name, 3, 0)
    assert torch.equal(corrupt(PIXELS, name, 3, 0), found)
    assert torch.equal(corrupt(PIXELS, name, 3, 1), found) == (name == "zoom_blur")
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert float((found - PIXELS).abs().mean()) > 0.01


TRUNCATED = 1 / 255
"""The package cuts off to 8 bits."""


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("brightness", "brightness"),
        ("contrast", "contrast"),
        ("saturation", "saturate"),
        ("gaussian_blur", "gaussian_blur"),
        ("defocus_blur", "defocus_blur"),
        ("pixelate", "pixelate"),
        ("jpeg_compression", "jpeg_compression"),
    ],
)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_those_of_unilens_are_those_of_the_package(name, theirs, severity, installed):
    bytes_ = (PIXELS * 255).round().byte()
    expected = installed.corrupt(bytes_.permute(1, 2, 0).contiguous().numpy(), severity, theirs)
    found = corrupt(bytes_ / 255, name, severity, 0)
    away = (found.permute(1, 2, 0).numpy() - expected / 255).__abs__()
    loose = name in ("defocus_blur", "pixelate") or (name == "saturation" and severity > 3)
    assert away.mean() < (0.03 if loose else TRUNCATED)
