"""Pictures of every depth, mode and source; the oracle is a formula on the values."""

import io
import struct
import warnings
import zlib

import numpy
import pytest
import torch
from PIL import Image

from unilens import UnilensError
from unilens.errors import UnilensWarning
from unilens.models import Preprocessing, read_image
from unilens.models.bit_depth import to_uint8

RANDOM = numpy.random.default_rng(3)
SHARE = RANDOM.random((40, 60))
COLOURS = RANDOM.integers(0, 256, (40, 60, 3), dtype=numpy.uint8)


def saved(tmp_path, values, name="x.tif", **options):
    path = tmp_path / name
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(path, **options)
    return path


def grey(source, **options):
    return numpy.asarray(read_image(source, **options))[..., 1].astype(float)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_fewer_bits_in_sixteen_are_said(bits, name, tmp_path):
    values = (SHARE * (2**bits - 1)).round().astype(numpy.uint16)
    values[0, 0] = 2**bits - 1
    path = saved(tmp_path, values, name)
    with pytest.warns(UnilensWarning, match=f"{name} is {2**bits - 1}: read over {bits} bits"):
        found = grey(path)
    assert numpy.abs(found - values / (2**bits - 1) * 255).max() <= 0.51


def test_sixteen_bits_are_read_over_sixteen(tmp_path):
    values = (SHARE * 65535).astype(numpy.uint16)
    assert numpy.abs(grey(saved(tmp_path, values)) - values / 257).max() <= 0.51


def test_value_range_takes_the_place_of_the_rule(tmp_path):
    counts = (SHARE * 2000 - 1000).astype(numpy.int32)
    path = saved(tmp_path, counts)
    found = grey(path, value_range=(-160, 240))
    assert numpy.abs(found - ((counts + 160) / 400).clip(0, 1) * 255).max() <= 0.51
    twelve = saved(tmp_path, (SHARE * 4095).astype(numpy.uint16), "y.png")
    values = numpy.asarray(Image.open(twelve)).astype(float)
    assert numpy.abs(grey(twelve, value_range=(0, 65535)) - values / 257).max() <= 0.51
    dim = (COLOURS // 8).astype(numpy.uint8)
    found = numpy.asarray(read_image(dim, value_range=(0, 31)))
    assert numpy.abs(found - dim / 31 * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            (SHARE * 2000 - 1000).astype(numpy.int32),
            "integers from 0 to 65535, got -9.*--range",
        ),
        ((SHARE * 200_000).astype(numpy.int32), "integers from 0 to 65535, got .*value_range="),
        ((SHARE * 4000).astype(numpy.float32), "expected floats from 0 to 1, got .*--range LOW"),
        ((SHARE * 255).astype(numpy.float32), "expected floats from 0 to 1, got .*--range LOW"),
        ((SHARE * 2 - 1).astype(numpy.float32), "expected floats from 0 to 1, got -0.9.*--range"),
        (numpy.where(SHARE > 0.5, numpy.nan, SHARE).astype(numpy.float32), "finite pixel values"),
    ],
)
def test_values_in_no_known_range_are_one_line(values, message, tmp_path):
    with pytest.raises(UnilensError, match=message) as caught:
        read_image(saved(tmp_path, values))
    assert "x.tif" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value_range", [(1, 0), (0, 0), (0, float("inf")), 5, (1, 2, 3), "ab"])
def test_ranges_that_are_none_are_one_line(value_range):
    with pytest.raises(UnilensError, match="expected value_range as two finite numbers"):
        read_image(COLOURS, value_range=value_range)


def test_floats_that_overshoot_are_clipped_and_said(tmp_path):
    values = (SHARE * 1.04 - 0.02).astype(numpy.float32)
    with pytest.warns(UnilensWarning, match=r"has values from -0.0\d+ to 1.0\d+: clipped to"):
        found = grey(saved(tmp_path, values))
    assert numpy.abs(found - values.clip(0, 1) * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "shade"),
    [
        (COLOURS // 32, "black"),
        (255 - COLOURS // 32, "white"),
        ((SHARE * 0.02).astype(numpy.float32), "black"),
    ],
)
def test_nearly_black_or_white_is_warned_of(values, shade, tmp_path):
    with pytest.warns(UnilensWarning, match=f"x.tif comes out nearly {shade}; .*--range LOW,HIGH"):
        read_image(saved(tmp_path, values))


def test_pictures_of_every_mode(tmp_path):
    light = Image.fromarray(COLOURS).convert("L")
    flat = numpy.asarray(light)
    assert (grey(saved(tmp_path, light, "l.png")) == flat).all()
    black_and_white = saved(tmp_path, Image.fromarray(flat > 127), "one.png")
    assert (grey(black_and_white) == (flat > 127) * 255).all()
    opacity = numpy.full((40, 60), 128, numpy.uint8)
    half = Image.merge("LA", [light, Image.fromarray(opacity)])
    mixed = grey(saved(tmp_path, half, "la.png"))
    assert numpy.abs(mixed - (flat * (128 / 255) + 127)).max() <= 1.5
    pages = [light, Image.new("L", light.size, 77)]
    stack = saved(tmp_path, pages[0], "pages.tif", save_all=True, append_images=pages[1:])
    assert (grey(stack) == flat).all()
    exif = Image.Exif()
    exif[0x0112] = 8  # turn by 90 degrees anticlockwise to view
    turned = saved(tmp_path, (SHARE * 65535).astype(numpy.uint16), "turned.png", exif=exif)
    with Image.open(turned) as opened:
        for source in (turned, opened):
            assert numpy.abs(grey(source) - numpy.rot90(SHARE) * 255).max() <= 1


def png_of_sixteen_bits(path, values):
    """Write colours `(H, W, 3)` as a PNG of 16 bits, which Pillow cannot."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_sixteen_bits_of_colour_take_no_range(tmp_path):
    values = RANDOM.integers(0, 65536, (40, 60, 3), dtype=numpy.uint16)
    path = png_of_sixteen_bits(tmp_path / "deep.png", values)
    with pytest.warns(UnilensWarning, match="twelve.png comes out nearly black"):
        read_image(png_of_sixteen_bits(tmp_path / "twelve.png", values // 16))
    assert numpy.abs(numpy.asarray(read_image(path)) - values / 257).max() <= 1
    with pytest.raises(UnilensError, match="Pillow reads the upper 8: a value_range"):
        read_image(path, value_range=(0, 4095))
    assert numpy.abs(numpy.asarray(read_image(values)) - values / 257).max() <= 0.51


VALUES = (RANDOM.random((40, 60, 3)) * 65535).astype(numpy.uint16)
DOUBLED = VALUES.repeat(2, 1)
SOURCES = {
    "array": VALUES,
    "negative strides": VALUES[::-1].copy()[::-1],
    "flipped channels": VALUES[..., ::-1].copy()[..., ::-1],
    "not contiguous": DOUBLED[:, ::2],
    "big-endian": VALUES.astype(">u2"),
    "read-only": numpy.frombuffer(VALUES.tobytes(), numpy.uint16).reshape(VALUES.shape),
    "float64": VALUES / 65535,
    "float16": (VALUES / 65535).astype(numpy.float16),
    "int64": VALUES.astype(numpy.int64),
    "tensor": torch.from_numpy(VALUES.astype(numpy.int32)),
    "tensor, channels first": torch.from_numpy(VALUES / 65535).permute(2, 0, 1),
    "tensor with a gradient": torch.from_numpy(VALUES / 65535).requires_grad_(),
    "bfloat16": torch.from_numpy(VALUES / 65535).bfloat16(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_arrays_and_tensors_are_pictures(kind):
    source, off = SOURCES[kind], 1.1 if kind == "bfloat16" else 0.6
    assert numpy.abs(numpy.asarray(read_image(source)) - VALUES / 257).max() <= off
    pixels = Preprocessing((40, 60), 40, (0.0,) * 3, (1.0,) * 3)(source)
    assert numpy.abs(pixels.permute(1, 2, 0).numpy() * 255 - VALUES / 257).max() <= off


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1)])
@pytest.mark.parametrize("dtype", [numpy.uint8, numpy.float32, bool])
def test_grey_arrays_are_pictures(shape, dtype):
    values = SHARE > 0.5 if dtype is bool else SHARE * (255 if dtype is numpy.uint8 else 1)
    values = values.reshape(shape).astype(dtype)
    expected = values.reshape(40, 60) * (1.0 if dtype is numpy.uint8 else 255.0)
    assert numpy.abs(grey(values) - expected).max() <= 0.51


def test_open_files_are_pictures(tmp_path):
    path = saved(tmp_path, COLOURS, "x.png")
    for source in (str(path), io.BytesIO(path.read_bytes()), Image.open(path)):
        assert (numpy.asarray(read_image(source)) == COLOURS).all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (COLOURS[None], r"\(H, W, 3\) or \(H, W, 4\), got \(1, 40, 60, 3\); several images"),
        (COLOURS.transpose(2, 0, 1), r"got \(3, 40, 60\)"),
        (COLOURS[..., :2], r"got \(40, 60, 2\)"),
        (COLOURS[:4, :4], "at least 8 pixels a side, got 4 x 4"),
        (COLOURS.astype(object), "expected numbers as pixel values, got object"),
        (COLOURS.astype(complex), "expected numbers as pixel values, got complex128"),
        (COLOURS.astype(str), "expected numbers as pixel values"),
        (numpy.zeros((0, 60, 3)), "at least 8 pixels a side"),
        (numpy.float64(3), "expected a path, an open binary file, a PIL image, or an array"),
        (torch.zeros(40, 60, device="meta"), "expected the image as a dense tensor"),
        (torch.zeros(40, 60).to_sparse(), "expected the image as a dense tensor"),
        (None, "expected a path.*got NoneType"),
        (b"x.png", "expected a path.*got bytes"),
        ([[1, 2], [3, 4]], "expected a path.*got list"),
        (io.StringIO("text"), "could not read the image"),
    ],
)
def test_anything_else_is_one_line(source, message):
    for take in (read_image, Preprocessing((8, 8), 8, (0.0,) * 3, (1.0,) * 3)):
        with pytest.raises(UnilensError, match=message) as caught:
            take(source)
        assert "\n" not in str(caught.value)


def test_values_stay_as_they_were():
    values = COLOURS.copy()
    read_image(values, value_range=(0, 100))
    image = Image.fromarray(values)
    read_image(image, value_range=(0, 100))
    assert (values == COLOURS).all()
    assert (numpy.asarray(image) == COLOURS).all()
    assert (to_uint8(values, "x") == COLOURS).all()


def test_reading_sets_no_filter_of_warnings(tmp_path, monkeypatch):
    path = saved(tmp_path, COLOURS, "x.png")
    monkeypatch.setattr(warnings, "catch_warnings", None)
    monkeypatch.setattr(warnings, "simplefilter", None)
    assert (numpy.asarray(read_image(path)) == COLOURS).all()


@pytest.mark.slow
def test_command_line_takes_a_range(run, tmp_path):
    saved(tmp_path, (SHARE * 2000 - 1000).astype(numpy.int32), "ct.tif")
    saved(tmp_path, (SHARE * 4095).astype(numpy.uint16), "twelve.png")
    explain = ("explain", "--method", "gradient", "--random-weights", "--overwrite")
    code, _, err = run(*explain, "ct.tif")
    assert code == 1
    assert "got -99" in err
    assert "--range LOW,HIGH" in err
    code, _, err = run(*explain, "ct.tif", "--range", "-1000,1000")
    assert (code, err) == (0, "")
    code, _, err = run(*explain, "twelve.png")
    assert code == 0
    assert err.startswith("warning: the largest value of twelve.png is 409")
    assert len(err.splitlines()) == 1
    for bad in ("1", "5,1", "a,b"):
        code, _, err = run(*explain, "ct.tif", "--range", bad)
        assert code == 2
        assert "expected --range LOW,HIGH, two numbers" in err
