"""How far rounding alone moves baselines and maps: noise of 1e-6 per pixel on the input.

Run:    python benchmarks/sensitivity.py [FOLDER] [--others]

With --others the methods beside UNI are measured, in place of UNI's settings.

Noise of one millionth is four thousand times below what an 8-bit pixel can hold. A map that it
changes is not a map of the image. Without FOLDER the installed samples are used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unilens import Evaluator, explain, load_model
from unilens._ops.correlation import spearman
from unilens.models import read_image, samples

NOISE = 1e-6
FULL = {"gradient": "normalised", "line_search": False, "projection": "sphere"}
"""The search of `uni_blur` without its line search: steps of a given length."""
SETTINGS = {
    "paper: raw, μ 0.1": ("uni_paper", {}),
    "raw, μ 0.03": ("uni_paper", {"matching_step_size": 0.03}),
    "raw, μ 0.01, T 30": ("uni_paper", {"matching_step_size": 0.01, "matching_steps": 30}),
    "normalised, μ 0.4 ε": ("uni", {"matching_step_size": 0.4}),
    "normalised, μ 0.2 ε": ("uni", {"matching_step_size": 0.2}),
    "uni: normalised, μ 0.12 ε": ("uni", {}),
    "normalised, μ 0.06 ε, T 20": ("uni", {"matching_step_size": 0.06, "matching_steps": 20}),
    "uni_blur": ("uni_blur", {}),
    "uni_blur, 8 nodes": ("uni_blur", {"n_steps": 8}),
    "uni_blur, one full step": ("uni_blur", FULL),
    "uni_blur, next to the image": ("uni_blur", {"origin": "input"}),
    "uni_blur, without a search": ("uni_blur", {"matching_steps": 0}),
    "uni_blur, 2 steps": ("uni_blur", {"matching_steps": 2}),
    "uni_blur, 4 steps": ("uni_blur", {"matching_steps": 4}),
    "uni_blur, half of the way": ("uni_blur", {"budget": 0.5}),
    "uni_blur, 10 steps of 0.12 ε": (
        "uni_blur",
        {**FULL, "matching_steps": 10, "matching_step_size": 0.12},
    ),
    "uni_blur, 10 small steps in a ball": (
        "uni_blur",
        {**FULL, "matching_steps": 10, "projection": "ball", "matching_step_size": 0.03},
    ),
    "uni_blur, 10 full steps, 7 x 7 cells": ("uni_blur", {**FULL, "matching_steps": 10, "grid": 7}),
    "ig from black, 15 steps": ("ig", {"n_steps": 15}),
    "ig from blur, 15 steps": ("ig", {"n_steps": 15, "baseline": "blur"}),
    "gradient": ("gradient", {}),
}
OTHERS = {
    "ig": ("ig", {}),
    "blur_ig": ("blur_ig", {}),
    "sig": ("sig", {}),
    "idgi": ("idgi", {}),
    "idg": ("idg", {}),
    "guided_ig": ("guided_ig", {}),
    "guided_ig, from blur": ("guided_ig", {"baseline": "blur"}),
    "guided_ig, unanchored": ("guided_ig", {"max_distance": 1.0}),
    "agi, towards the 3 likeliest": ("agi", {"classes": 3, "choice": "top"}),
    "ig from max_entropy": ("ig", {"baseline": "max_entropy"}),
    "gradient": ("gradient", {}),
    "deeplift": ("deeplift", {}),
    "guided_backprop": ("guided_backprop", {}),
    "gradcam": ("gradcam", {}),
    "occlusion": ("occlusion", {}),
}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--others", action="store_true")
    options = parser.parse_args()
    folder = options.folder
    model = load_model()
    loaded = (
        [samples[name]() for name in samples]
        if folder is None
        else [read_image(path) for path in sorted(folder.glob("*.JPEG"))[::8]]
    )
    images = torch.stack([model.preprocess(image) for image in loaded])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    evaluator = Evaluator(model)
    table = Table(title=f"{len(images)} photographs, noise {NOISE:g} per pixel, means")
    for heading in ("settings", "map moves", "baseline moves", "Spearman", "confidence", "loss"):
        table.add_column(heading, justify="left" if heading == "settings" else "right")
    for name, (method, settings) in (OTHERS if options.others else SETTINGS).items():
        first = explain(evaluator, images, method, **settings)
        second = explain(evaluator, images + NOISE * noise, method, first.target, **settings)
        shifts = "–"
        loss = change = "–"
        if "matching_loss" in first.record:
            moved = (second.baseline - first.baseline - NOISE * noise).flatten(1).norm(dim=1)
            shifts = f"{float((moved / first.diagnostics['proximity']).mean()):.3f} ε"
            loss = f"{float(first.record['matching_loss'][:, -1].mean()):.2f}"
        if "confidence_change" in first.diagnostics:
            change = f"{float(first.diagnostics['confidence_change'].mean()):+.0%}"
        difference = (second.values - first.values).flatten(1).norm(dim=1)
        relative = float((difference / first.values.flatten(1).norm(dim=1)).mean())
        table.add_row(name, f"{relative:.3f}", shifts, f"{alike(first, second):.3f}", change, loss)
    Console(width=110).print(table)


def alike(first, second) -> float:
    """Return the mean rank correlation of the unsigned maps, summed over channels."""

    def flat(values: Tensor) -> Tensor:
        return values.abs().sum(1).flatten(1)

    return float(spearman(flat(first.values), flat(second.values)).mean())


if __name__ == "__main__":
    main()
