"""What other libraries' networks are shown: the oracle is the library's own transform."""

import json
import pickle
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from unilens import UnilensError, load_model
from unilens.errors import UnilensWarning
from unilens.models import PixelClassifier, Preprocessing, preprocessing

transformers = pytest.importorskip("transformers")
HERE = __name__
SIDES = (333, 500), (641, 201), (97, 101)


def photographs():
    random = numpy.random.default_rng(7)
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=numpy.uint8))
        for width, height in SIDES
    ]


def assert_shows_the_same(ours, library, channels=3):
    """Compare with the library on pictures that the loader has not seen."""
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (ours.mean, ours.std))
    for photo in photographs():
        expected = library(photo.convert("L") if channels == 1 else photo)
        found = (ours(photo) - mean) / std
        assert found.shape == expected.shape
        steps = ((found - expected) * std * 255).abs()  # of 8 bits
        assert float(steps.max()) < (2.01 if ours.transform is None else 0.01)
        assert float(steps.mean()) < 0.1


TAGS = {  # a tag of timm: whether our own preprocessing shows the same
    "resnet50.a1_in1k": True,  # center, 0.95
    "mobilenetv3_small_050.lamb_in1k": True,  # center, 0.875
    "convnext_tiny.in12k_ft_in1k_384": True,  # squash
    "beit_base_patch16_384.in22k_ft_in22k_in1k": True,  # center, 1.0
    "vit_base_patch16_clip_224.openai": True,  # other mean and std
    "inception_v3.tf_in1k": True,  # 299 pixels
    "eca_nfnet_l0.ra2_in1k": True,
    "regnety_1280.swag_ft_in1k": True,
    "efficientnet_b0.ra_in1k": True,
    "tf_efficientnet_l2.ns_jft_in1k_475": True,
    "vit_so400m_patch14_siglip_gap_378.v2_webli": True,
    "mobilenetv4_conv_small.e2400_r224_in1k": True,
    "deepseek_vit_412m.deepseek_v4_1_flash": False,  # border
}


@pytest.mark.parametrize("tag", TAGS)
def test_timm_shows_what_its_transform_shows(tag):
    import timm
    from timm.data import create_transform, resolve_data_config

    pretrained = timm.models.get_pretrained_cfg(tag)
    if pretrained is None:
        pytest.skip(f"timm {timm.__version__} does not know {tag}")
    config = resolve_data_config(pretrained_cfg=pretrained.to_dict())
    ours = preprocessing.of_timm(config, tag)
    assert_shows_the_same(ours, create_transform(**config, is_training=False))
    assert (ours.transform is None) == TAGS[tag]


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({"crop_mode": "border"}, False),
        ({"crop_mode": "squash", "crop_pct": 0.8}, True),
        ({"input_size": (3, 48, 96)}, False),
        ({"input_size": (3, 48, 96), "crop_mode": "squash"}, True),
        ({"input_size": (3, 50, 50), "crop_mode": "border", "mean": (0.2, 0.4, 0.6)}, False),
        ({"input_size": (1, 50, 50), "mean": (0.4,), "std": (0.3,)}, True),
        ({"input_size": (1, 50, 70), "mean": (0.4,), "std": (0.3,)}, False),
        ({"interpolation": "bilinear", "crop_pct": 0.9}, True),
    ],
)
def test_timm_configurations(settings, own):
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config(pretrained_cfg={"input_size": (3, 64, 64)} | settings)
    ours = preprocessing.of_timm(config, "timm:some")
    channels = config["input_size"][0]
    assert_shows_the_same(ours, create_transform(**config, is_training=False), channels)
    assert (ours.transform is None) == own
    again = pickle.loads(pickle.dumps(ours))
    assert torch.equal(again(photographs()[0]), ours(photographs()[0]))


@pytest.mark.parametrize("name", ["resnet18", "swin_v2_t", "efficientnet_v2_s", "regnet_y_16gf"])
def test_torchvision_shows_what_its_transform_shows(name):
    import torchvision

    for weights in torchvision.models.get_model_weights(name):
        ours = preprocessing.of_torchvision(weights.transforms(), name)
        assert_shows_the_same(ours, weights.transforms())
        assert ours.transform is None


SMALL = {"size": {"height": 40, "width": 56}}
PROCESSORS = [
    ("ViTImageProcessor", SMALL),
    ("ViTImageProcessor", {**SMALL, "rescale_factor": 1 / 127.5}),
    ("ViTImageProcessor", {**SMALL, "do_normalize": False}),
    ("ViTImageProcessor", {**SMALL, "do_rescale": False}),
    ("ViTImageProcessor", {**SMALL, "resample": 0}),
    ("ViTImageProcessor", {**SMALL, "resample": 1}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}, "crop_pct": 0.8}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    ("LevitImageProcessor", {}),
    ("EfficientNetImageProcessor", {**SMALL, "rescale_offset": True}),
    ("EfficientNetImageProcessor", {**SMALL, "include_top": True}),
    ("PerceiverImageProcessor", {}),
    ("PoolFormerImageProcessor", {}),
    ("CLIPImageProcessor", {}),
    ("BitImageProcessor", {}),
    ("BeitImageProcessor", {"do_center_crop": True}),
    ("MobileNetV2ImageProcessor", {}),
    ("SegformerImageProcessor", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), PROCESSORS)
def test_transformers_shows_what_its_processor_shows(name, settings):
    processor = getattr(transformers, name)(**settings)
    ours = preprocessing.of_transformers(processor, SimpleNamespace(num_channels=3), name)
    assert_shows_the_same(ours, lambda photo: processor(photo, return_tensors="pt").pixel_values[0])
    again = pickle.loads(pickle.dumps(ours))
    assert torch.equal(again(photographs()[0]), ours(photographs()[0]))
    pixels = ours(photographs()[0])
    assert -1e-3 <= float(pixels.min()) <= float(pixels.max()) <= 1 + 1e-3


def test_transformers_says_that_blue_comes_first():
    processor = transformers.MobileViTImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    )
    with pytest.warns(UnilensWarning, match="hf:x takes blue first"):
        ours = preprocessing.of_transformers(processor, SimpleNamespace(num_channels=3), "hf:x")
    assert_shows_the_same(ours, lambda photo: processor(photo, return_tensors="pt").pixel_values[0])
    red = ours(Image.new("RGB", (40, 40), "red"))
    assert torch.allclose(red[:, 16, 16], torch.tensor([0.0, 0.0, 1.0]), atol=1e-3)


def fails(photo):
    raise RuntimeError("first\nsecond")


def stretches_contrast(photo):
    pixels = torch.from_numpy(numpy.asarray(photo, dtype=numpy.float32)).permute(2, 0, 1)
    return (pixels[:, :32, :32] / 255) ** 2


def standardises(photo):
    pixels = torch.from_numpy(numpy.asarray(photo, dtype=numpy.float32)).permute(2, 0, 1)
    return (pixels - pixels.mean())[:, :32, :32]


def keeps_the_size(photo):
    return torch.from_numpy(numpy.asarray(photo, dtype=numpy.float32)).permute(2, 0, 1) / 255


@pytest.mark.parametrize(
    ("transform", "channels", "message"),
    [
        (fails, 3, "the preprocessing of x fails on a photograph: first; wrap the network"),
        (lambda photo: torch.zeros(3, 8, 8, dtype=torch.uint8), 3, "a picture .C, H, W. of floats"),
        (lambda photo: [1, 2], 3, "a picture .C, H, W. of floats, got list"),
        (lambda photo: torch.zeros(8, 8, 3), 3, r"to give 3 channels of finite values, got \(8,"),
        (stretches_contrast, 3, "does more to colours than subtract a mean"),
        (standardises, 3, "does more to colours than subtract a mean"),
        (keeps_the_size, 3, r"one size of pictures, got \(3, 197, 131\) and \(3, 300, 450\)"),
        (keeps_the_size, 4, "expected x to take 1 or 3 channels, got 4"),
    ],
)
def test_transform_that_cannot_be_undone_is_one_line(transform, channels, message):
    with pytest.raises(UnilensError, match=message) as caught:
        preprocessing.agreed(transform, None, "x", channels)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("default")
def test_hugging_face_loads_a_checkpoint_of_timm(tmp_path):
    import timm
    from safetensors.torch import save_file

    shown = {"input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 0.9}
    shown |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "crop_mode": "border"}
    network = timm.create_model("test_byobnet", num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = {"architecture": "test_byobnet", "num_classes": 3, "label_names": ["a", "b", "c"]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": shown}))
    model = load_model(f"hf:{tmp_path}")
    assert model.labels == ("a", "b", "c")
    photo = photographs()[0]
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = processor(photo, return_tensors="pt").pixel_values
    pixels = model.preprocess(photo)[None]
    assert torch.allclose((pixels - model.mean) / model.std, expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(model(pixels), network(expected), atol=1e-4)


def convolution(channels):
    return nn.Sequential(
        *(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    )


def make_grey():
    return convolution(1)


def make_four():
    return PixelClassifier(convolution(4), Preprocessing((28, 28), 28, (0.1,) * 4, (0.3,) * 4))


def make_two():
    return convolution(2)


@pytest.fixture
def pictures(tmp_path):
    random = numpy.random.default_rng(0)
    values = random.integers(0, 256, (40, 60, 4), dtype=numpy.uint8)
    Image.fromarray(values).save(tmp_path / "opacity.png")
    Image.fromarray(values[..., :3]).save(tmp_path / "colour.png")
    return values


def test_one_channel_is_the_grey_of_a_photograph(pictures, tmp_path):
    model = load_model(f"py:{HERE}:make_grey")
    pixels = model.preprocess(tmp_path / "colour.png")
    grey = pictures[..., :3] @ numpy.array([0.299, 0.587, 0.114])  # ITU-R 601
    whole = Preprocessing((40, 60), 40, (0.0,), (1.0,))(pictures[..., :3])
    assert pixels.shape == (1, 224, 224)
    assert numpy.abs(whole[0].numpy() * 255 - grey).max() <= 1


def test_four_channels_are_colour_and_opacity(pictures, tmp_path):
    take = Preprocessing((40, 60), 40, (0.0,) * 4, (1.0,) * 4)
    expected = torch.from_numpy(pictures.copy()).permute(2, 0, 1) / 255
    for source in (tmp_path / "opacity.png", pictures, Image.fromarray(pictures)):
        assert torch.equal(take(source), expected)
    with pytest.raises(UnilensError, match="takes 4 channels, read as red, green, blue and opac"):
        take(tmp_path / "colour.png")
    with pytest.raises(UnilensError, match=r"takes 2 channels.*pass tensors \(B, 2, H, W\)"):
        Preprocessing((40, 60), 40, (0.0,) * 2, (1.0,) * 2)(tmp_path / "colour.png")


@pytest.mark.slow
def test_command_line_says_what_a_model_is_shown(run, pictures):
    quick = ("--method", "ig:n_steps=2", "--quick", "--overwrite")
    code, out, err = run("explain", "colour.png", "--model", f"py:{HERE}:make_grey", *quick)
    assert (code, err) == (0, "")
    assert f"py:{HERE}:make_grey is shown 1 channel in [0, 1]; shorter side to 256 pixels" in out
    code, _, err = run("explain", "opacity.png", "--model", f"py:{HERE}:make_four", *quick)
    assert (code, err) == (0, "")
    for name in ("make_four", "make_two"):
        code, _, err = run("explain", "colour.png", "--model", f"py:{HERE}:{name}", *quick)
        assert code == 1
        assert "channels" in err
        assert len(err.splitlines()) == 1
