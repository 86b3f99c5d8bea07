"""Draw the pictures of which-baseline.md, and print its numbers.

Run:    python docs/baseline_pictures.py

Six photographs that installed packages carry, under the default model.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from unilens import Attribution, Evaluator, explain, load_model
from unilens.models import samples
from unilens.output.viz import heatmap, pixels

HERE = Path(__file__).parent / "images"
COLOURS = {"black": "#000000", "grey": "#888888", "white": "#bbbbbb"}
BASELINES = ("black", "white", "grey", "image_mean", "blur", "gaussian_noise", "unlearned")
STEPS = 50


def maps(evaluator: Evaluator, images: Tensor) -> dict[str, Attribution]:
    """Return integrated gradients of every photograph from every baseline."""
    return {
        name: explain(evaluator, images, "ig", baseline=name, n_steps=STEPS) for name in BASELINES
    }


def draw_paths(found: dict[str, Attribution], image: Tensor) -> Figure:
    """Draw baseline, map and confidence on the way for the first photograph."""
    figure = Figure(figsize=(13, 6.4), layout="constrained", facecolor="white")
    grid = figure.subplots(3, len(found))
    for column, (name, attribution) in zip(grid.T, found.items(), strict=True):
        column[0].imshow(pixels(attribution.baseline[0]))
        column[0].set_title(name, fontsize=11)
        column[1].imshow(heatmap(attribution.values[0]))
        for axes in column[:2]:
            axes.set(xticks=[], yticks=[])
        trace = attribution.trace
        column[2].plot(trace.fraction[:, 0], trace.confidence[:, 0], color="#5e35b1")
        column[2].set(ylim=(-0.05, 1.05), xticks=[0, 1], xticklabels=["baseline", "image"])
        column[2].tick_params(labelsize=8)
    grid[2][0].set_ylabel("confidence")
    for axes in grid[2][1:]:
        axes.set_yticks([])
    return figure


def agreement(found: dict[str, Attribution]) -> list[list[float]]:
    """Return the rank correlations of unsigned maps, of every two baselines, mean over images."""
    flat = [one.values.abs().sum(1).flatten(1).numpy() for one in found.values()]
    return [
        [sum(spearmanr(a, b)[0] for a, b in zip(x, y, strict=True)) / len(x) for y in flat]
        for x in flat
    ]


def draw_agreement(values: list[list[float]]) -> Figure:
    """Draw the table of rank correlations."""
    figure = Figure(figsize=(7.2, 5.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    picture = axes.imshow(values, vmin=0, vmax=1, cmap="cividis")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            colour = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(BASELINES)), BASELINES, rotation=35, ha="right")
    axes.set_yticks(range(len(BASELINES)), BASELINES)
    figure.colorbar(picture, label="rank correlation of the maps")
    return figure


def blindness(found: dict[str, Attribution], images: Tensor) -> Tensor:
    """Return what share of the map lies on pixels of each brightness `(3, 5)`, over all images."""
    light = images.mean(1)
    edges = torch.linspace(0, 1, 6)
    edges[-1] = 1.01
    shares = []
    for name in COLOURS:
        strength = found[name].values.abs().sum(1)
        inside = [(light >= low) & (light < high) for low, high in pairwise(edges)]
        shares.append(torch.stack([strength[one].mean() / strength.mean() for one in inside]))
    return torch.stack(shares)


def draw_blindness(shares: Tensor) -> Figure:
    """Draw how much a pixel counts, by its brightness, from three constant baselines."""
    figure = Figure(figsize=(7.4, 3.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for place, (name, colour) in enumerate(COLOURS.items()):
        where = [bin_ + 0.27 * (place - 1) for bin_ in range(5)]
        axes.bar(where, shares[place], 0.25, color=colour, edgecolor="black", label=f"from {name}")
    axes.axhline(1, color="#b03000", linewidth=1)
    axes.set_xticks(range(5), ["0 to 0.2\n(dark)", "to 0.4", "to 0.6", "to 0.8", "to 1\n(bright)"])
    axes.set_xlabel("brightness of the pixel")
    axes.set_ylabel("a pixel's mean strength\n(1: that of all pixels)")
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Make the maps, draw, and print."""
    model = load_model()
    images = torch.stack([model.preprocess(entry()) for entry in samples.values()])
    found = maps(Evaluator(model), images)
    table, shares = agreement(found), blindness(found, images)
    pictures = {
        "baseline-paths": draw_paths(found, images[0]),
        "baseline-agreement": draw_agreement(table),
        "baseline-blindness": draw_blindness(shares),
    }
    for name, figure in pictures.items():
        figure.savefig(HERE / f"{name}.png", dpi=80)
    for name, line in zip(BASELINES, table, strict=True):
        one = found[name]
        print(
            f"{name:15}",
            f"confidence change {float(one.diagnostics['confidence_change'].mean()):+.2f}",
            f"monotonicity {float(one.diagnostics['monotonicity'].mean()):.2f}",
            f"|gap| {float(one.completeness_gap.abs().mean()):.3f}",
            f"distance {float(one.diagnostics['proximity'].mean()):.1f}",
            "agrees " + " ".join(f"{value:.2f}" for value in line),
        )
    print("blindness", shares)


if __name__ == "__main__":
    main()
