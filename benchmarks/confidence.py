"""How much confidence UNI's baseline takes away, at three distances, beside the paper's table 7.

Run:    python benchmarks/confidence.py [FOLDER] [--limit N]

The paper does not say in which units its distance epsilon is, nor whether the gradient of the
search is normalised: the table shows what either reading gives on the default model, in pixels of
[0, 1]. Without FOLDER the installed samples are used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unilens import Evaluator, load_model
from unilens.baselines import Unlearned
from unilens.models import read_image, samples
from unilens.outputs import LOGITS

BUDGETS = (0.125, 0.25, 0.5)
GRADIENTS = ("raw", "normalised")
PAPER = {
    "ResNet-18": -0.823,
    "EfficientNetV2-S": -0.769,
    "ConvNeXt-T": -0.951,
    "VGG-16-bn": -0.716,
    "ViT-B/16": -0.697,
    "Swin-T": -0.846,
}
"""Choi et al. 2025, arXiv 2410.08069v2, table 7, ImageNet-1K, with its defaults (epsilon 0.25)."""


def photographs(folder: Path | None, limit: int | None) -> Tensor:
    """Return the photographs as the default model's pixels."""
    model = load_model()
    if folder is None:
        loaded = [samples[name]() for name in samples]
    else:
        loaded = [read_image(path) for path in sorted(folder.glob("*.JPEG"))]
    return torch.stack([model.preprocess(image) for image in loaded[:limit]])


def change(evaluator: Evaluator, images: Tensor, baseline: Unlearned) -> Tensor:
    """Return the relative change of the predicted class's confidence at the baseline `(B,)`."""
    outputs = evaluator(images)
    target = outputs.argmax(-1)
    found = baseline(evaluator, images, target, generator=torch.Generator().manual_seed(0))
    before, after = (LOGITS.confidence(one, target) for one in (outputs, evaluator(found.values)))
    return (after - before) / before


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    images = photographs(options.folder, options.limit)
    evaluator = Evaluator(load_model())
    table = Table(
        title=f"relative confidence change at UNI's baseline, efficientnet_lite0, "
        f"{len(images)} photographs: mean ± sd"
    )
    table.add_column("gradient")
    for budget in BUDGETS:
        table.add_column(f"ε = {budget}", justify="right")
    for gradient in GRADIENTS:
        cells = []
        for budget in BUDGETS:
            baseline = Unlearned(budget=budget, gradient=gradient)
            found = torch.cat([change(evaluator, some, baseline) for some in images.split(8)])
            cells.append(f"{found.mean():+.3f} ± {found.std():.3f}")
        table.add_row(gradient, *cells)
    table.add_section()
    for network, value in PAPER.items():
        table.add_row(f"paper, {network}", "", f"{value:+.3f}", "")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
