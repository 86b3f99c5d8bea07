"""What balanced gradients cost, and how much of the logit they account for.

    UNILENS_DINOV2=FILE python benchmarks/balanced.py [PHOTOS]

Processor time of a pass forward and backward with the rules, against that of the same network
without them, by the median of alternating runs, for networks with random weights. With PHOTOS, a
folder of photographs, also the gap, |logit - sum of relevance| / |logit|, on the network of
`networks.py`, whose weights and biases are real.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

import networks
import unilens
from unilens._engine.balanced import BalancedGradients

ARCHITECTURES = ("vit_tiny_patch16_224", "convnext_atto", "efficientnet_b0")
RUNS, BATCH = 7, 4


def seconds(network: nn.Module, images: Tensor, rules: Callable[[], object]) -> float:
    """Return the processor time of a pass forward and backward."""
    leaf = images.clone().requires_grad_()
    began = time.process_time()
    with rules():  # type: ignore[attr-defined]
        outputs = network(leaf)
    torch.autograd.grad(outputs[:, 0].sum(), leaf)
    return time.process_time() - began


def ratio(name: str) -> float:
    """Return the time of a pass with the rules over that of one without."""
    network = timm.create_model(name).eval().requires_grad_(False)
    images = torch.randn(BATCH, 3, 224, 224)
    pairs = [
        (
            seconds(network, images, contextlib.nullcontext),
            seconds(network, images, BalancedGradients),
        )
        for _ in range(RUNS + 1)
    ]
    return statistics.median(after / before for before, after in pairs[1:])


def gaps(photos: Path, attention: str, method: str) -> list[float]:
    """Return the gap of each photograph on DINOv2, as a share of its logit."""
    classifier = networks.dinov2()
    shares = []
    for file in sorted(photos.glob("*.JPEG")):
        pixels = classifier.preprocess(file)
        image = pixels if pixels.ndim == 4 else pixels[None]
        settings = {"attention": attention} if method == "balanced" else {"score": "logit"}
        attribution = unilens.explain(classifier, image, method, **settings)
        missing = attribution.score.double() - attribution.values.double().sum()
        shares.append(float((missing / attribution.score).abs()))
    return shares


def main() -> None:
    """Print the ratios, and the gaps where there are photographs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name in ARCHITECTURES:
        print(f"{name}: {ratio(name):.2f} of a pass without rules")
    if arguments.photos is None or networks.DINOV2 not in os.environ:
        return
    for method, attention in (
        ("balanced", "constant"),
        ("balanced", "full"),
        ("input_x_gradient", ""),
    ):
        shares = gaps(arguments.photos, attention, method)
        quartiles = statistics.quantiles(shares, n=4)
        print(
            f"{method} {attention}: gap {quartiles[1]:.2f} of the logit "
            f"({quartiles[0]:.2f} to {quartiles[2]:.2f}), {len(shares)} photographs"
        )


if __name__ == "__main__":
    main()
