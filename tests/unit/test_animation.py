import io
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from unilens import UnilensError, explain
from unilens.output.animation import MOST_BYTES, dissolve


def explained(height, width, method="ig", **settings):
    """Return an image of noise and the map of a linear model."""
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(image.numel(), 3)).eval()
    return image, explain(model, image[None], method, 1, **settings)


def frames_of(data):
    opened = Image.open(io.BytesIO(data))
    frames = []
    for number in range(opened.n_frames):
        opened.seek(number)
        frames.append((numpy.asarray(opened.convert("RGB")), opened.info["duration"]))
    return frames


def test_the_image_dissolves_into_the_baseline_and_comes_back():
    image, made = explained(4, 4, n_steps=6, baseline="white")
    frames = frames_of(dissolve(image, made, label="a cat"))
    points = len(made.trace.fraction)
    assert len(frames) == 2 * points - 2
    first, middle = frames[0][0], frames[points - 1][0]
    shown = first[10:410, 10:410].reshape(4, 100, 4, 100, 3)[:, 50, :, 50]
    assert numpy.abs(shown / 255 - image.permute(1, 2, 0).numpy()).mean() < 0.02
    assert middle[10:410, 10:410].min() > 250
    for back, there in zip(frames[1 : points - 1], frames[: points - 1 : -1], strict=True):
        assert numpy.array_equal(back[0], there[0])
    assert frames[0][1] == frames[points - 1][1] > max(time for _, time in frames[1 : points - 1])


def test_the_dot_is_where_the_confidence_is():
    image, made = explained(4, 4, n_steps=6)
    rising = torch.linspace(0.2, 0.8, len(made.trace.fraction))[:, None]
    made = replace(
        made, trace=replace(made.trace, confidence=rising, fraction=(rising - 0.2) / 0.6)
    )
    frames = [frame for frame, _ in frames_of(dissolve(image, made))]
    dots = []
    for frame in frames[: len(rising)]:
        blue = (frame[430:510, :, 2].astype(int) - frame[430:510, :, 0]) > 80
        columns = blue.sum(0)
        dots.append(int(columns.argmax()))
    assert dots == sorted(dots, reverse=True)
    assert dots[0] > dots[-1] + 150


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(300, 420), (400, 20)])
def test_an_animation_is_small_whatever_the_size_of_the_image(height, width):
    image, made = explained(height, width, n_steps=30)
    data = dissolve(image, made, label="a long name of a class, " * 4)
    assert len(data) <= MOST_BYTES == 3_000_000
    assert len(frames_of(data)) <= 50
    assert len(dissolve(image, made, most_bytes=200_000)) <= 200_000


def test_the_given_points_are_shown():
    image, made = explained(4, 4, n_steps=3)
    points = [torch.full_like(image, 0.5) for _ in made.trace.fraction]
    frames = frames_of(dissolve(image, made, points))
    assert all(abs(int(frame[100, 100, 0]) - 128) < 4 for frame, _ in frames)
    with pytest.raises(UnilensError, match="points at the 5 fractions of the trace, got 4"):
        dissolve(image, made, points[1:])


def test_what_has_no_path_is_refused_in_a_line():
    image, made = explained(4, 4, "gradient")
    with pytest.raises(UnilensError, match="path from a baseline, got that of gradient; take uni"):
        dissolve(image, made)
    series = torch.rand(1, 2, 9)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).eval()
    with pytest.raises(UnilensError, match="expected an image to animate, got a series"):
        dissolve(series[0], explain(model, series, "ig", 1, n_steps=2))
