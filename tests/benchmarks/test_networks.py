"""The script that builds networks with real weights, on random weights in the same formats."""

import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.models import squeezenet1_0
from transformers import Dinov2Config, Dinov2Model

import dinov2_onnx
import networks
from unilens import load_model
from unilens.errors import UnilensError

FIRES = range(2, 10)
NAMES = ["conv1", *(f"f{number}{part}" for number in FIRES for part in ("s", "e1", "e3")), "conv10"]


@pytest.fixture
def caffe_file(tmp_path):
    """Write random weights of SqueezeNet under Caffe's names."""
    torch.manual_seed(0)
    values = list(squeezenet1_0().state_dict().values())
    arrays = {}
    for name, weight, bias in zip(NAMES, values[::2], values[1::2], strict=True):
        arrays[f"{name}.w"] = weight.numpy()
        arrays[f"{name}.b"] = 0.1 * torch.randn_like(bias).numpy()
    file = tmp_path / "squeezenet_1_0.npz"
    numpy.savez(file, **arrays)
    return file


def caffe(file, pixels):
    """Return SqueezeNet's logits as Caffe computes them: blue, green, red in [0, 255]."""
    with numpy.load(file) as arrays:
        values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    def convolve(name, hidden, **settings):
        return functional.conv2d(
            hidden, values[f"{name}.w"], values[f"{name}.b"], **settings
        ).relu()

    hidden = 255 * pixels.flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    hidden = convolve("conv1", hidden, stride=2)
    for number in FIRES:
        if number in (2, 5, 9):
            hidden = functional.max_pool2d(hidden, 3, 2, ceil_mode=True)
        squeezed = convolve(f"f{number}s", hidden)
        expanded = convolve(f"f{number}e3", squeezed, padding=1)
        hidden = torch.cat([convolve(f"f{number}e1", squeezed), expanded], 1)
    return convolve("conv10", hidden).mean((2, 3))


def test_squeezenet_equals_caffe(caffe_file):
    classifier = networks.squeezenet(caffe_file)
    photograph = Image.fromarray(
        numpy.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=numpy.uint8)
    )
    pixels = classifier.preprocess(photograph)[None]
    assert pixels.shape == (1, 3, 227, 227)
    with torch.no_grad():
        logits = classifier(pixels)
    expected = caffe(caffe_file, pixels)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert float(expected.std()) > 0.1
    assert len(classifier.labels) == 1000
    assert classifier.labels[64].startswith("green mamba")


def test_squeezenet_by_name(caffe_file, monkeypatch):
    monkeypatch.setenv("UNILENS_SQUEEZENET", str(caffe_file))
    classifier = load_model("py:networks:squeezenet")
    assert classifier.name == "py:networks:squeezenet"
    with numpy.load(caffe_file) as arrays:
        expected = torch.from_numpy(arrays["conv10.b"])
    assert torch.equal(classifier.network.classifier[1].bias, expected)


@pytest.mark.parametrize(
    ("build", "variable"),
    [
        (networks.squeezenet, "UNILENS_SQUEEZENET"),
        (networks.dinov2, "UNILENS_DINOV2"),
        (networks.thin_resnet, "UNILENS_THIN_RESNET"),
    ],
)
def test_missing_weights_are_one_line(build, variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path / "absent"))
    with pytest.raises(
        UnilensError, match=f"expected .* got {tmp_path}/absent.*{variable}"
    ) as error:
        build()
    assert "\n" not in str(error.value)


def test_squeezenet_refuses_other_weights(caffe_file):
    with numpy.load(caffe_file) as arrays:
        values = dict(arrays)
    values["f5s.w"] = values["f5s.w"][:3]
    numpy.savez(caffe_file, **values)
    with pytest.raises(UnilensError, match="expected the 26 convolutions of SqueezeNet"):
        networks.squeezenet(caffe_file)


@pytest.fixture(scope="module")
def original():
    """Return a random Dinov2Model of two blocks, of timm's width."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=2, num_attention_heads=6, image_size=518, patch_size=14
    )
    model = Dinov2Model(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.05 * torch.randn_like(value) + (value == 1))
    return model


def exported(model):
    """Return nodes and initializers as torch's exporter writes them."""
    state = {f"backbone.{exported_name(name)}": v for name, v in model.state_dict().items()}
    initializers, nodes = {}, []
    for number, (name, value) in enumerate(state.items()):
        if name.endswith("position_embeddings"):
            initializers["onnx::Concat_1"] = value[:, :1]
            initializers["onnx::Reshape_2"] = value[:, 1:]
        elif value.ndim == 2 and name.endswith(".weight"):
            anonymous, bias = f"onnx::MatMul_{number}", name.removesuffix("weight") + "bias"
            initializers[anonymous] = value.T
            product = f"product_{number}"
            nodes.append(node("MatMul", [f"hidden_{number}", anonymous], product))
            nodes.append(node("Add", [bias, product], f"sum_{number}"))
        elif not name.endswith("mask_token"):
            initializers[name] = value
    return nodes, initializers


def exported_name(name):
    """Return a weight's name in transformers 4, by which the wheel's file was exported."""
    for letter, word in (("q", "query"), ("k", "key"), ("v", "value")):
        name = name.replace(f"attention.{letter}_proj", f"attention.attention.{word}")
    return name.replace("attention.o_proj", "attention.output.dense")


def node(kind, inputs, output):
    return SimpleNamespace(op_type=kind, input=inputs, output=[output])


@torch.no_grad()
def test_backbone_equals_transformers(original):
    network = networks.vision_transformer(dinov2_onnx.backbone_state(*exported(original), blocks=2))
    images = torch.randn(2, 3, 224, 224)
    expected = original(images).last_hidden_state
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(network.forward_features(images), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_dinov2_after_save(original, tmp_path, monkeypatch):
    state = dinov2_onnx.backbone_state(*exported(original), blocks=1)
    count = len(networks.COARSE_CLASSES)
    head = {"head.weight": torch.randn(count, 384), "head.bias": torch.randn(count)}
    file = tmp_path / "new" / "dinov2.safetensors"
    networks.save(state | head, file)
    monkeypatch.setenv("UNILENS_DINOV2", str(file))
    classifier = load_model("py:networks:dinov2")
    assert classifier.labels == tuple(networks.COARSE_CLASSES)
    pixels = torch.rand(2, 3, 224, 224)
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    first_block = original((pixels - mean) / std, output_hidden_states=True).hidden_states[1]
    class_token = original.layernorm(first_block)[:, 0]
    expected = class_token @ head["head.weight"].T + head["head.bias"]
    torch.testing.assert_close(classifier(pixels), expected, rtol=1e-3, atol=1e-3)


def test_fit_head_includes_the_standardisation():
    torch.manual_seed(0)
    features = 5 * torch.randn(30, 6) + 100
    labels = (features[:, 0] > 100).long() + (features[:, 1] > 102).long()
    head = networks.fit_head(features, labels.tolist())
    expected = networks.estimator().fit(features, labels).decision_function(features)
    actual = features @ head["head.weight"].T + head["head.bias"]
    torch.testing.assert_close(actual.double(), torch.from_numpy(expected), rtol=1e-3, atol=1e-3)


def test_leave_one_out_holds_the_photograph_out():
    features = torch.eye(8)  # only a photograph's own row says its class
    labels = [0, 1] * 4
    assert networks.estimator().fit(features, labels).score(features, labels) == 1
    assert networks.leave_one_out(features, labels) == 0


def test_coarse_labels():
    indices = [index for members in networks.COARSE_CLASSES.values() for index in members]
    assert sorted(indices) == list(range(0, 1000, 16))
    assert networks.coarse_labels([160, 0, 16]) == [0, 3, 2]
    with pytest.raises(UnilensError, match=r"got \[1\]; add"):
        networks.coarse_labels([0, 1])


def test_onnx_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnilensError, match="pip install onnx"):
        dinov2_onnx.read_onnx(tmp_path / "absent.whl")
