"""Draw the picture of truth.md: what each network reads, and maps of its logit.

Run:    python docs/truth_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

from unilens import Attribution, explain, load_model
from unilens.metrics import SingleDeletion
from unilens.models.known_truth import KNOWN_TRUTHS, Example, known_truth
from unilens.output.viz import heatmap, pixels

HERE = Path(__file__).parent / "images"
METHODS = ("uni_blur", "uni", "ig", "deeplift", "gradient", "gradcam", "edges")
SHOWN = {"texture": 3, "shortcut": 4, "birds": 3}
"""The number of the example that is drawn, by network."""
SHIFTS = ((4, 6), (-2, -8), (0, 0), (0, 0), (0, 3))
"""Of the number of each part of a bird from its middle, right and down, in pixels."""


def draw() -> Figure:
    """Draw a row per network: the image with the truth, and the maps."""
    figure = Figure(figsize=(13, 5.6), layout="constrained", facecolor="white")
    grid = figure.subplots(len(KNOWN_TRUTHS), 1 + len(METHODS))
    for row, name in zip(grid, KNOWN_TRUTHS, strict=True):
        draw_row(row, name)
    for axes, method in zip(grid[0][1:], METHODS, strict=True):
        axes.set_title(method, fontsize=11)
    grid[0][0].set_title("image and truth", fontsize=11)
    return figure


def draw_row(row: list[Axes], name: str) -> None:
    """Draw one image of a network and its maps."""
    network, example = load_model(f"truth:{name}"), known_truth(name).examples()[SHOWN[name]]
    inputs = network.preprocess(example.image)[None]
    row[0].imshow(pixels(inputs[0]))
    row[0].set_ylabel(name, fontsize=11)
    for axes, method in zip(row[1:], METHODS, strict=True):
        attribution = explain(network, inputs, method, score="logit")
        axes.imshow(heatmap(attribution.values[0]))
    if example.mask is not None:
        for axes in row:
            mask = network.preprocess(example.mask)[0]
            axes.contour(mask, [0.5], colors="#00a000", linewidths=1.2)
    if example.without:
        write_drops(row[0], network, inputs, attribution, example)
    for axes in row:
        axes.set(xticks=[], yticks=[])


def write_drops(
    axes: Axes, network: nn.Module, inputs: Tensor, attribution: Attribution, example: Example
) -> None:
    """Write the logit that is lost without each part beside it."""
    without = torch.stack([network.preprocess(image) for image in example.without])
    found = SingleDeletion()(network, inputs, attribution, without_parts=without[None])
    drops = found.details["score_drop"][0].tolist()
    for image, drop, (right, below) in zip(without, drops, SHIFTS, strict=True):
        down, across = (image != inputs[0]).any(0).nonzero().double().mean(0).tolist()
        place = {"x": across + right, "y": down + below, "ha": "center", "va": "center"}
        text = axes.text(s=f"{drop:.1f}", size=9, **place)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


if __name__ == "__main__":
    draw().savefig(HERE / "truth.png", dpi=90)
