"""Draw the one-dimensional illustration of experiments.md: what unlearning one point does.

Run:    python docs/illustration.py

After the paper: a sum of three gaussians through (1, 1), (2, 5), (4, 3), one ascent step on (2, 5).
The starting values, the fit, the length of the step and the search for the baseline are ours.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

HERE = Path(__file__).parent / "images"
POINTS = torch.tensor([[1.0, 1.0], [2.0, 5.0], [4.0, 3.0]], dtype=torch.float64)
UNLEARNED = POINTS[1]
STEP = 1.0
"""How far the parameters go, in the norm over all nine."""


def gaussians(parameters: Tensor, x: Tensor) -> Tensor:
    """Return the sum of three gaussians: heights, centres and logarithms of widths `(3, 3)`."""
    heights, centres, widths = parameters
    return (heights * torch.exp(-((x[:, None] - centres) ** 2) / (2 * widths.exp() ** 2))).sum(1)


def loss(parameters: Tensor, points: Tensor) -> Tensor:
    """Return the squared error."""
    return ((gaussians(parameters, points[:, 0]) - points[:, 1]) ** 2).sum()


def fitted(steps: int = 150, rate: float = 0.02) -> Tensor:
    """Return the parameters after plain descent from small gaussians at the points."""
    parameters = torch.stack([torch.full((3,), 0.5), POINTS[:, 0], torch.full((3,), -0.7)]).double()
    for _ in range(steps):
        parameters = parameters - rate * gradient(parameters, POINTS)
    return parameters


def gradient(parameters: Tensor, points: Tensor) -> Tensor:
    """Return the gradient of the squared error."""
    free = parameters.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(free, points), free)
    return slope


def unlearned(parameters: Tensor) -> Tensor:
    """Return the parameters after one step up the error at the one point, of length `STEP`."""
    slope = gradient(parameters, UNLEARNED[None])
    return parameters + STEP * slope / slope.norm()


def baseline(before: Tensor, after: Tensor) -> Tensor:
    """Return the x nearest to 2 at which the model sees no more than the unlearned one at 2."""
    x = UNLEARNED[0] + torch.linspace(-2, 2, 4001, dtype=torch.float64)
    low = x[gaussians(before, x) <= gaussians(after, UNLEARNED[:1])]
    return low[(low - UNLEARNED[0]).abs().argmin()]


def steepest(parameters: Tensor) -> float:
    """Return the largest slope between x = 0 and x = 5."""
    x = torch.linspace(0, 5, 501, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(gaussians(parameters, x).sum(), x)
    return float(slope.abs().max())


def draw(before: Tensor, after: Tensor) -> Figure:
    """Draw both models, the points, and the baseline of the unlearned one."""
    figure = Figure(figsize=(7.4, 3.8), layout="constrained", facecolor="white")
    axes = figure.subplots()
    x = torch.linspace(0, 5.5, 300, dtype=torch.float64)
    axes.plot(x, gaussians(before, x), color="#5e35b1", label="the model")
    axes.plot(x, gaussians(after, x), color="#e66100", linestyle="--", label="after unlearning")
    axes.scatter(*POINTS.T, color="black", zorder=3, label="the points it learned")
    found = baseline(before, after)
    level = gaussians(before, found[None])
    axes.scatter(found, level, marker="s", color="#e66100", zorder=4, label="the baseline of x = 2")
    axes.plot([found, UNLEARNED[0]], [level, level], color="#888888", linewidth=1)
    axes.set(xlabel="x", ylabel="f(x)")
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Fit, unlearn, draw, and print."""
    before = fitted()
    after = unlearned(before)
    draw(before, after).savefig(HERE / "illustration.png", dpi=80)
    for name, one in (("model", before), ("unlearned", after)):
        values = [f"{value:.3f}" for value in gaussians(one, POINTS[:, 0])]
        print(f"{name:10} f(1), f(2), f(4) = {', '.join(values)}; steepest {steepest(one):.2f}")
    print(f"f(2) - 5 before: {float(gaussians(before, UNLEARNED[:1]) - 5):.1e}")
    print(f"baseline of x = 2: {float(baseline(before, after)):.3f}")


if __name__ == "__main__":
    main()
