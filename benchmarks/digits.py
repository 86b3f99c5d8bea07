"""A ResNet and a transformer for `unilens benchmark`, trained here, and digits to ask them about.

    python benchmarks/digits.py
    unilens benchmark benchmarks/digits.toml --allow-code

No weights of either architecture come in a package. The first command trains both on 4,000 digits
of MNIST, in minutes on one core, and writes weights and 60 held-out digits to `unilens-out/digits`.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from timm.models import VisionTransformer
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.transforms.functional import to_pil_image

from unilens.errors import require
from unilens.manifold.training import seeded, train
from unilens.models import PixelClassifier, Preprocessing

FOLDER = Path("unilens-out/digits")
HELD_OUT = 60
EPOCHS = {"resnet": 5, "transformer": 30}


class Grey(nn.Module):
    """A network of grey images, of colour images whose channels are alike."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of images `(B, 3, H, W)`."""
        return self.network(pixels.mean(1, keepdim=True))


def networks() -> dict[str, nn.Module]:
    """Return both networks, as they are before training."""

    def of_convolutions() -> nn.Module:
        network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
        network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        return network

    sizes = {"img_size": 28, "patch_size": 7, "embed_dim": 64, "depth": 4, "num_heads": 4}
    return {
        "resnet": seeded(0, of_convolutions),
        "transformer": seeded(0, lambda: VisionTransformer(in_chans=1, num_classes=10, **sizes)),
    }


def resnet() -> PixelClassifier:
    """Return the trained ResNet; for `py:benchmarks.digits:resnet`."""
    return trained("resnet")


def transformer() -> PixelClassifier:
    """Return the trained transformer; for `py:benchmarks.digits:transformer`."""
    return trained("transformer")


def trained(name: str) -> PixelClassifier:
    """Return a network with the weights that `main` has written."""
    network, weights = networks()[name], FOLDER / f"{name}.safetensors"
    require(weights.is_file(), f"expected weights in {weights}; run: python benchmarks/digits.py")
    load_model(network, weights)
    seen = Preprocessing((28, 28), 28, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return PixelClassifier(Grey(network).eval(), seen, [str(digit) for digit in range(10)], name)


def main() -> None:
    """Train, and write weights and digits."""
    from tangent_study.sets import load_split  # beside this script, on the path when it is run

    split = load_split("mnist5000")
    images, labels = split.train.values, split.train.labels
    (FOLDER / "photos").mkdir(parents=True, exist_ok=True)
    for name, network in networks().items():
        fitted = train(
            network,
            lambda numbers, network=network: nn.functional.cross_entropy(
                network(images[numbers]), labels[numbers]
            ),
            len(images),
            epochs=EPOCHS[name],
            learning_rate=2e-3,
            batch=64,
            seed=0,
        )
        save_model(fitted, FOLDER / f"{name}.safetensors")
        with torch.no_grad():
            found = fitted.eval()(split.held_out.values).argmax(1)
        right = (found == split.held_out.labels).double().mean()
        print(f"{name}: {right:.3f} of {len(found)} held-out digits", flush=True)
    with (FOLDER / "photos" / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "label"])
        for number in range(HELD_OUT):
            picture = to_pil_image(split.held_out.values[number].expand(3, -1, -1))
            picture.save(FOLDER / "photos" / f"{number:03}.png")
            table.writerow([f"{number:03}.png", int(split.held_out.labels[number])])


if __name__ == "__main__":
    main()
