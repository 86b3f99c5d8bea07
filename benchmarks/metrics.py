"""How long MuFidelity and deletion take, against bare forward passes and against Quantus.

Run:    python benchmarks/metrics.py [FOLDER] [--runs N]        (needs quantus >= 0.6)

Everything is measured in one process, in turn, several times over; the table gives medians and
ratios. Both libraries judge the same maps of the same 8 photographs, Quantus in one batch of them:
100 random subsets of a fifth of the image and a correlation (FaithfulnessCorrelation), and the 12
points of a deletion curve (PixelFlipping, whose steps must divide the image). A bare pass is one
forward of the 8 photographs without gradient, the least that any such metric can do.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from speed import folded, measure, photographs
from unilens import Evaluator, explain, load_model
from unilens.metrics import Deletion, MuFidelity

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus

SUBSETS = 100
STEPS = 12


def bare_forwards(model: nn.Module, images: Tensor, layout: torch.memory_format):
    """Return a function that runs so many forward passes of the images."""
    model, given = model.to(memory_format=layout), images.contiguous(memory_format=layout)

    def run(count: int) -> None:
        with torch.no_grad():
            for _ in range(count):
                model(given)

    return run


def by_quantus(metric, images: Tensor, target: Tensor, maps: Tensor):
    """Return a function that judges the maps by Quantus."""
    given = {
        "model": load_model(),
        "x_batch": images.numpy(),
        "y_batch": target.numpy(),
        "a_batch": maps.numpy(),
        "softmax": True,
        "batch_size": len(images),
        "channel_first": True,
    }
    return lambda: metric(**given)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    images = photographs(options.folder)
    evaluator = Evaluator(load_model())
    found = explain(evaluator, images, "gradient")
    maps, target = found.values, found.target
    size = images[0].numel()
    quiet = {"disable_warnings": True, "display_progressbar": False, "normalise": False}
    correlation = quantus.FaithfulnessCorrelation(
        nr_runs=SUBSETS, subset_size=size // 5, perturb_baseline=0.0, **quiet
    )
    flipping = quantus.PixelFlipping(features_in_step=size // STEPS, perturb_baseline=0.0, **quiet)
    last = torch.channels_last
    plain = bare_forwards(load_model(), images, torch.contiguous_format)
    fast = bare_forwards(load_model(), images, last)
    fused = bare_forwards(folded(load_model(), images[:1]), images, last)
    cells = MuFidelity(subsets=SUBSETS, correlation="pearson")
    pixels = MuFidelity(subsets=SUBSETS, correlation="pearson", cells=None)
    deletion = Deletion(step=1 / STEPS)
    seconds = measure(
        options.runs,
        {
            "bare, contiguous": lambda: plain(SUBSETS),
            "bare, channels-last": lambda: fast(SUBSETS),
            "bare, folded": lambda: fused(SUBSETS),
            "mu_fidelity, 81 cells": lambda: cells(evaluator, images, maps),
            "mu_fidelity, pixels": lambda: pixels(evaluator, images, maps),
            "deletion_auc": lambda: deletion(evaluator, images, maps),
            "Quantus FaithfulnessCorrelation": by_quantus(correlation, images, target, maps),
            "Quantus PixelFlipping": by_quantus(flipping, images, target, maps),
        },
    )
    each = {name: took / len(images) for name, took in seconds.items()}
    best = min(("bare, contiguous", "bare, channels-last"), key=lambda name: each[name])
    table = Table(
        title=f"efficientnet_lite0, {len(images)} photographs, {SUBSETS} subsets, {STEPS} steps, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {options.runs}"
    )
    for heading in ("what", "seconds per photograph", "against", "ratio", "bar"):
        table.add_column(heading, justify="left" if heading in ("what", "against") else "right")
    for name in ("bare, contiguous", "bare, channels-last", "bare, folded"):
        table.add_row(f"{SUBSETS} forward passes, {name}", f"{each[name]:.2f}", "", "", "")
    rows = (
        ("mu_fidelity, 81 cells", SUBSETS + 1, "Quantus FaithfulnessCorrelation"),
        ("mu_fidelity, pixels", SUBSETS + 1, "Quantus FaithfulnessCorrelation"),
        ("deletion_auc", STEPS + 1, "Quantus PixelFlipping"),
    )
    for name, count, peer in rows:
        for bare, bar in ((best, "≤ 1.15"), ("bare, folded", "")):
            ratio = each[name] / (each[bare] * count / SUBSETS)
            table.add_row(name, f"{each[name]:.2f}", f"{count} × {bare}", f"{ratio:.2f}", bar)
        faster = each[peer] / each[name]
        table.add_row(peer, f"{each[peer]:.2f}", name, f"{faster:.2f}", "≥ 2")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
