"""Measure and draw what docs/tables.md says, on models that are trained here in seconds.

Run:    python docs/tables.py

Needs the extra `test`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.table_models import accuracy, cancer, digits, events  # noqa: E402

from unilens import Evaluator, evaluate, explain  # noqa: E402
from unilens.output.viz import heatmap  # noqa: E402


def of_table() -> None:
    """Breast cancer: the budget in raw units, and in standard deviations."""
    model, train, inputs, target, names = cancer()
    std = train.std(0)
    print(f"breast cancer: accuracy {accuracy(model, inputs, target):.3f}, ", end="")
    print(f"standard deviations {std.min():.2g} to {std.max():.3g}")
    evaluator = Evaluator(model, independent=False)
    found = {"raw": explain(evaluator, inputs)}
    for budget in (0.25, 1.0, 2.0):
        found[f"{budget:g} std"] = explain(evaluator, inputs, units=std, budget=budget)
    for name, one in found.items():
        moved = (one.baseline - inputs) / std
        largest = moved.abs().max(1).values
        change = one.diagnostics["confidence_change"].mean()
        print(
            f"| {name} | {moved.norm(dim=1).mean():.2f} | {largest.mean():.2f} | "
            f"{(largest / moved.norm(dim=1)).mean():.2f} | {change:+.2f} | "
            f"{one.completeness_gap.abs().mean():.1g} |"
        )
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    for ax, name in zip(figure.subplots(1, 2), ("raw", "1 std"), strict=True):
        values = found[name].values[0]
        order = values.abs().argsort(descending=True)[:8].flip(0).tolist()
        colours = ["#e66101" if values[one] > 0 else "#8167b8" for one in order]
        ax.barh([names[one] for one in order], values[order].tolist(), color=colours)
        moved = ((found[name].baseline - inputs) / std)[0].abs().max()
        ax.set_title(f"budget in {name}: largest move {float(moved):.2g} std", fontsize=11)
        ax.axvline(0, color="black", linewidth=0.8)
    figure.savefig(HERE / "images" / "table.png", dpi=80)


SIGNALS: dict[str, dict[str, Any]] = {
    "uni_blur": {},
    "ig": {},
    "ig:baseline=blur,sigma=4": {"method": "ig", "baseline": "blur", "sigma": 4.0},
    "gradient": {},
    "smoothgrad": {},
    "occlusion": {"window": 8, "stride": 4},
    "gradcam": {},
    "random": {},
}


def of_signals() -> None:
    """Time series: how much of each map is where the event is."""
    model, inputs, target, mask = events()
    print(f"signals: accuracy {accuracy(model, inputs, target):.3f}")
    rows = target == 1
    inputs, mask = inputs[rows], mask[rows]
    evaluator = Evaluator(model, independent=False)
    found = {
        name: explain(evaluator, inputs, **{"method": name, "target": 1, **settings})
        for name, settings in SIGNALS.items()
    }
    for name, one in found.items():
        size = one.values[:, 0].abs()
        inside = (size * mask).sum(1) / size.sum(1)
        hit = mask.gather(1, size.argmax(1, keepdim=True)).double().mean()
        print(f"| `{name}` | {inside.mean():.2f} | {hit:.2f} |")
    figure = Figure(figsize=(11, 5), layout="constrained")
    shown = ("uni_blur", "ig", "gradient", "random")
    axes = figure.subplots(len(shown) + 1, 1, sharex=True)
    axes[0].plot(inputs[0, 0], color="black", linewidth=0.9)
    axes[0].set_ylabel("signal", rotation=0, ha="right")
    for ax, name in zip(axes[1:], shown, strict=True):
        ax.bar(range(inputs.shape[-1]), found[name].values[0, 0], width=1.0, color="#e66101")
        ax.set_ylabel(name, rotation=0, ha="right")
    where = mask[0].nonzero().flatten()
    for ax in axes:
        ax.axvspan(int(where[0]) - 0.5, int(where[-1]) + 0.5, color="#8167b8", alpha=0.2)
        ax.set_yticks([])
    figure.savefig(HERE / "images" / "signal.png", dpi=80)


DIGITS: dict[str, dict[str, Any]] = {
    "uni_blur": {},
    "uni_paper": {},
    "ig": {},
    "ig:baseline=blur,sigma=2": {"method": "ig", "baseline": "blur", "sigma": 2.0},
    "ig:baseline=image_mean": {"method": "ig", "baseline": "image_mean"},
    "gradient": {},
    "occlusion": {"window": 2, "stride": 1},
    "random": {},
}


def of_digits() -> None:
    """Digits: faithfulness by hiding pixels with black, which is their background."""
    model, inputs, target = digits()
    print(f"digits: accuracy {accuracy(model, inputs, target):.3f}")
    inputs = inputs[:100]
    evaluator = Evaluator(model, independent=False)
    found = {
        name: explain(evaluator, inputs, **{"method": name, **settings})
        for name, settings in DIGITS.items()
    }
    for name, one in found.items():
        scores = [
            evaluate(evaluator, inputs, one, metric=metric, imputer=fill).nanmean()
            for fill in ("black", "blur")
            for metric in ("deletion_auc", "insertion_auc", "mu_fidelity")
        ]
        print(f"| `{name}` | {' | '.join(f'{float(score):.2f}' for score in scores)} |")
    shown = ("uni_blur", "ig", "ig:baseline=blur,sigma=2", "gradient", "occlusion", "random")
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.subplots(3, len(shown) + 1)
    for row, axes in enumerate(grid):
        axes[0].imshow(inputs[row, 0], cmap="gray")
        for ax, name in zip(axes[1:], shown, strict=True):
            ax.imshow(heatmap(found[name].values[row]))
            ax.set_title("" if row else name.partition(",")[0], fontsize=9)
        for ax in axes:
            ax.set_axis_off()
    figure.savefig(HERE / "images" / "digits.png", dpi=80)


def main() -> None:
    """Print the tables, and draw the pictures."""
    for part in (of_table, of_signals, of_digits):
        part()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
