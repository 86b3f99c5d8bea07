"""`unilens explain --gif`."""

import numpy
import pytest
from PIL import Image
from torch import nn

HERE = __name__


def small_model():
    """A classifier that takes no time, for `--model py:`."""
    return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3 * 49, 5))


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photo.png"
    random = numpy.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (240, 300, 3), dtype=numpy.uint8)).save(path)
    return path


def gif(run, photograph, *methods):
    chosen = [word for name in methods for word in ("--method", name)]
    model = ("--model", f"py:{HERE}:small_model", "--quick")
    out = str(photograph.parent / "out")
    return run("explain", str(photograph), *model, *chosen, "--gif", "--out", out)


def test_gif_is_that_of_the_first_method_with_a_path(run, photograph):
    code, out, err = gif(run, photograph, "gradient", "ig:baseline=white,n_steps=3", "ig")
    assert code == 0, err
    assert ".gif" in out
    with Image.open(photograph.parent / "out" / "photo.gif") as opened:
        assert opened.n_frames == 8
        opened.seek(4)
        middle = numpy.asarray(opened.convert("RGB"))
    assert middle[20:200, 20:200].min() > 245


def test_gif_without_a_path_is_refused_before_anything_runs(run, photograph):
    code, _, err = gif(run, photograph, "gradient", "occlusion")
    assert code == 2
    assert "for --gif, got gradient, occlusion; add --method uni_blur" in " ".join(err.split())
    assert not list(photograph.parent.glob("out/*"))
