"""The thin ResNet from an export whose convolutions are followed by a batch norm in pieces."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import networks
import thin_resnet
from unilens.errors import UnilensError


def exported(network):
    """Return nodes and initializers with random weights, and what each convolution computes."""
    torch.manual_seed(0)
    nodes, values, functions = [], {}, []
    for number, convolution in enumerate(network.convolutions):
        count = len(convolution.weight)
        weight = 0.1 * torch.randn_like(convolution.weight)
        norm = nn.BatchNorm2d(count, eps=0).eval()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.data.uniform_(0.5, 2.0)
        norm.bias.data.normal_()
        scale = norm.weight / norm.running_var.sqrt()
        pieces = {"Sub": norm.running_mean, "Mul": scale.detach(), "Add": norm.bias.detach()}
        values[f"w{number}"] = weight
        nodes.append(node("Conv", [f"x{number}", f"w{number}"], f"y{number}"))
        last = f"y{number}"
        for kind, constant in pieces.items():
            name = f"{kind}{number}"
            values[f"stored {name}"] = constant.view(1, 1, 1, -1)
            nodes.append(node("Identity", [f"stored {name}"], name))
            nodes.append(node("Cast", [last], f"cast {name}"))
            nodes.append(node(kind, [f"cast {name}", name], f"of {name}"))
            last = f"of {name}"
        nodes.append(node("Relu", [last], f"z{number}"))
        settings = {"stride": convolution.stride, "padding": convolution.padding}
        functions.append(lambda x, w=weight, n=norm, s=settings: n(nn.functional.conv2d(x, w, **s)))
    return nodes, values, functions


def node(kind, inputs, output):
    return SimpleNamespace(op_type=kind, input=inputs, output=[output])


def test_convolutions_compute_what_the_export_does():
    network = thin_resnet.ThinResNet(8).eval()
    nodes, values, functions = exported(network)
    assert len(network.convolutions) == 53
    thin_resnet.load_convolutions(network, nodes, values)
    with torch.no_grad():
        for number, (convolution, function) in enumerate(
            zip(network.convolutions, functions, strict=True)
        ):
            inputs = torch.randn(1, convolution.in_channels, 9, 9)
            given = inputs.flip(1) if number == 0 else inputs  # blue, green, red
            torch.testing.assert_close(convolution(inputs), function(given), rtol=1e-4, atol=1e-4)


def test_blocks_add_their_shortcut():
    network = thin_resnet.ThinResNet(0).eval()
    shapes = [
        tuple(block(torch.zeros(1, block.reduce.in_channels, 8, 8)).shape[1:])
        for block in network.blocks
    ]
    assert shapes[:4] == [(128, 8, 8)] * 3 + [(256, 4, 4)]
    assert len(shapes) == 16
    assert shapes[-1] == (1024, 8, 8)
    block = network.blocks[1]
    for convolution in (block.expand,):
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    inputs = torch.rand(1, 128, 4, 4)
    assert torch.equal(block(inputs), inputs)


def test_other_convolutions_are_refused():
    network = thin_resnet.ThinResNet(8)
    nodes, values, _ = exported(network)
    values["w7"] = values["w7"][:3]
    values["stored Sub7"] = values["stored Mul7"] = values["stored Add7"] = torch.zeros(1, 1, 1, 3)
    with pytest.raises(UnilensError, match="expected the convolutions of the thin ResNet-50"):
        thin_resnet.load_convolutions(network, nodes, values)


def test_saved_network_is_loaded_by_name(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = thin_resnet.ThinResNet(len(networks.COARSE_CLASSES)).eval()
    file = tmp_path / "thin.safetensors"
    networks.save(network.state_dict(), file)
    monkeypatch.setenv("UNILENS_THIN_RESNET", str(file))
    classifier = networks.thin_resnet()
    assert list(classifier.labels) == list(networks.COARSE_CLASSES)
    pixels = torch.rand(1, 3, 224, 224)
    mean = torch.tensor([123, 117, 104]).view(1, 3, 1, 1) / 255
    with torch.no_grad():
        torch.testing.assert_close(classifier(pixels), network(255 * (pixels - mean)))
