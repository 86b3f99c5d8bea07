"""How far an attack on the map gets under the same label, against random noise of its radius.

Run:    python benchmarks/attacks.py FOLDER [--limit N] [--radius R]

Printed are means over photographs of the default model, for IG from black and for UNI's presets:
the share of the 1000 strongest pixels that stay, and the rank correlation of all pixels, of maps
with their sign ("signed") and of absolute values ("unsigned"). An attack aims at the reading that
it is measured by. The means are over the photographs whose label every change keeps; "kept" counts
them for each.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unilens import Evaluator, load_model
from unilens.methods import methods
from unilens.metrics import Measurement, Spearman, TopK, metrics
from unilens.models import read_image

METHODS = {
    "IG, 15 steps": methods["ig"](n_steps=15, rule="midpoint"),
    "uni_blur": methods["uni_blur"](),
    "uni": methods["uni"](),
    "uni_paper": methods["uni_paper"](),
}
READINGS = {"signed": "sum", "unsigned": "abs"}
CHANGES = ("attack", "fgsm", "noise")


def kept(found: Mapping[str, Measurement]) -> Tensor:
    """Return the photographs whose label every change keeps `(B,)`."""
    return torch.stack([one.details["kept"] for one in found.values()]).all(0)


def row(found: Measurement, reduction: str, chosen: Tensor) -> list[str]:
    """Return the mean top-k share and rank correlation of the maps, and what was counted."""
    before, after = (found.details[name][chosen] for name in ("before", "after"))
    likenesses = TopK(reduction, k=1000), Spearman(reduction)
    means = [f"{float(alike(before, after).nanmean()):.3f}" for alike in likenesses]
    moved = found.details["distance_linf"] > 0
    seconds = found.provenance["seconds"] / len(chosen)
    return [*means, str(int(moved.sum())), str(int(found.details["kept"].sum())), f"{seconds:.0f}"]


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
    table = Table(title=f"{len(images)} photographs, linf radius {options.radius:.4f}, means")
    for heading in ("map", "reading", "change", "top 1000", "Spearman", "moved", "kept", "seconds"):
        left = heading in ("map", "reading", "change")
        table.add_column(heading, justify="left" if left else "right")
    for name, method in METHODS.items():
        given = method(evaluator, images)
        for reading, reduction in READINGS.items():
            settings = {"reduction": reduction, "radius": options.radius}
            found = {
                change: metrics[f"{change}_top_k"](**settings)(
                    evaluator, images, given, method=method
                )
                for change in CHANGES
            }
            for change, one in found.items():
                cells = [name, reading, change, *row(one, reduction, kept(found))]
                print(*cells, flush=True)
                table.add_row(*cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
