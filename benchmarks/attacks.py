"""How far an attack on the map gets under the same label, against random noise of its radius.

Run:    python benchmarks/attacks.py FOLDER [--limit N] [--radius R]

Printed are means over photographs of the default model, for IG from black and for UNI: the share of
the 1000 strongest pixels that stay, and the rank correlation of all pixels, of maps with their sign
("signed") and of absolute values ("unsigned"). An attack aims at the reading that it is measured
by. Photographs whose label the noise changes are left out of its mean and counted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from unilens import Evaluator, load_model
from unilens.methods import methods
from unilens.metrics import Measurement, Spearman, TopK, metrics
from unilens.models import read_image

METHODS = {
    "IG, 15 steps": methods["ig"](n_steps=15, rule="midpoint"),
    "UNI": methods["uni"](),
}
READINGS = {"signed": "attribution", "unsigned": "saliency"}
CHANGES = ("attack", "fgsm", "noise")


def figures(found: Measurement, reading: str) -> list[float]:
    """Return the mean top-k share and rank correlation of the maps before and after."""
    before, after, kept = (found.details[name] for name in ("before", "after", "kept"))
    likenesses = TopK(reading, k=1000), Spearman(reading)
    return [float(alike(before, after)[kept].nanmean()) for alike in likenesses]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--radius", type=float, default=8 / 255)
    options = parser.parse_args()
    model = load_model()
    files = sorted(options.folder.glob("*.JPEG"))
    files = files[:: max(1, len(files) // options.limit)][: options.limit]
    images = torch.stack([model.preprocess(read_image(file)) for file in files])
    evaluator = Evaluator(model)
    label = evaluator(images).argmax(-1)
    table = Table(title=f"{len(images)} photographs, linf radius {options.radius:.4f}, means")
    for heading in ("map", "reading", "change", "top 1000", "Spearman", "moved", "kept", "seconds"):
        left = heading in ("map", "reading", "change")
        table.add_column(heading, justify="left" if left else "right")
    for name, method in METHODS.items():
        given = method(evaluator, images)
        for reading, relevance in READINGS.items():
            for change in CHANGES:
                began = time.perf_counter()
                measure = metrics[f"{change}_top_k"](relevance=relevance, radius=options.radius)
                found = measure(evaluator, images, given, method=method)
                same = evaluator(found.details["inputs"]).argmax(-1) == label
                row = (
                    name,
                    reading,
                    change,
                    *(f"{figure:.3f}" for figure in figures(found, relevance)),
                    str(int(found.details.get("moved", torch.ones(len(images))).sum())),
                    str(int(same.sum())),
                    f"{(time.perf_counter() - began) / len(images):.0f}",
                )
                print(*row, flush=True)
                table.add_row(*row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
