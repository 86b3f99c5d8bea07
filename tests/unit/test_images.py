import os
import zlib

import numpy
import pytest
from PIL import Image

from unilens.errors import UnilensError
from unilens.models import images as module
from unilens.models import read_image

RANDOM = numpy.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (20, 30, 3), dtype=numpy.uint8)


def saved(tmp_path, image, name="image.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_rgb_comes_back_as_it_is(tmp_path):
    image = read_image(saved(tmp_path, Image.fromarray(COLOURS)))
    assert image.mode == "RGB"
    assert (numpy.asarray(image) == COLOURS).all()


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    path = saved(tmp_path, Image.fromarray(COLOURS), "turned.png", exif=exif)
    assert (numpy.asarray(read_image(path)) == numpy.rot90(COLOURS, -1)).all()


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    ramp = numpy.linspace(0, 65535, 30 * 20).reshape(20, 30).astype(numpy.uint16)
    image = numpy.asarray(read_image(saved(tmp_path, Image.fromarray(ramp))))
    assert numpy.abs(image[..., 0] - ramp / 257).max() <= 0.5
    assert (image[..., 0] == image[..., 2]).all()


def test_floats_in_the_unit_interval_are_scaled(tmp_path):
    values = numpy.linspace(0, 1, 30 * 20).reshape(20, 30).astype(numpy.float32)
    image = numpy.asarray(read_image(saved(tmp_path, Image.fromarray(values), "float.tiff")))
    assert numpy.abs(image[..., 1] - values * 255).max() <= 0.5


def test_transparency_lies_over_white(tmp_path):
    alpha = RANDOM.integers(0, 256, (20, 30, 1), dtype=numpy.uint8)
    pixels = numpy.concatenate([COLOURS, alpha], axis=-1)
    image = numpy.asarray(read_image(saved(tmp_path, Image.fromarray(pixels)))).astype(float)
    share = alpha / 255
    assert numpy.abs(image - (COLOURS * share + 255 * (1 - share))).max() <= 1


def test_palettes_with_and_without_transparency(tmp_path):
    palette = Image.fromarray(COLOURS).quantize(16)
    image = read_image(saved(tmp_path, palette))
    assert (numpy.asarray(image) == numpy.asarray(palette.convert("RGB"))).all()
    clear = read_image(saved(tmp_path, palette, "clear.png", transparency=palette.getpixel((0, 0))))
    assert clear.getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_becomes_rgb(tmp_path):
    flat = Image.new("CMYK", (20, 20), (0, 255, 255, 0))  # red
    red, green, blue = read_image(saved(tmp_path, flat, "ink.jpg")).getpixel((9, 9))
    assert red > 200
    assert max(green, blue) < 60


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert read_image(path).getpixel((5, 5)) == (255, 0, 0)


def write(name, content):
    def make(tmp_path):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


def truncated(tmp_path):
    whole = saved(tmp_path, Image.fromarray(COLOURS.repeat(9, 0).repeat(9, 1)), "whole.jpg")
    path = tmp_path / "half.jpg"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return path


def png_that_claims(width, height):
    """A valid PNG header over almost no data: a decompression bomb."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp_path: tmp_path / "none.jpg", "no such image: .*none.jpg"),
        (lambda tmp_path: tmp_path, "expected an image file, got a folder"),
        (lambda _: os.devnull, "expected an image file, got something else: "),
        (write("empty.jpg", b""), "expected an image, got an empty file: .*empty.jpg"),
        (
            write("text.jpg", b"not an image at all"),
            "expected an image .*text.jpg is none that can",
        ),
        (truncated, r"could not read .*half.jpg: .*; is the file whole\?"),
        (write("cut.png", png_that_claims(900, 900)[:60]), "could not read .*cut.png"),
        (
            lambda tmp_path: saved(tmp_path, Image.new("RGB", (1, 1))),
            "at least 8 pixels a side, got 1 x 1 in",
        ),
        (
            lambda tmp_path: saved(tmp_path, Image.new("RGB", (8, 4000))),
            "at most 50 times as long as it is wide, got 8 x 4000 in",
        ),
        (
            write("big.png", png_that_claims(10_000, 10_000)),
            "at most 89 megapixels, but .*big.png has 100 megapixels; scale it down",
        ),
        (
            write("bomb.png", png_that_claims(60_000, 60_000)),
            "at most 89 megapixels, but .*bomb.png has far more pixels",
        ),
    ],
)
def test_what_is_no_photograph_is_refused_in_a_line(make, message, tmp_path):
    with pytest.raises(UnilensError, match=message) as caught:
        read_image(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_real_image_of_a_hundred_megapixels_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch
):
    path = saved(tmp_path, Image.new("1", (10_000, 10_000)))
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(UnilensError, match="has 100 megapixels"):
        read_image(path)
    assert module.MAX_PIXELS < 10**8
