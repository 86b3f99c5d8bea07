"""How long Guided IG and BlurIG take, against bare passes of the model and against PAIR's library.

Run:    python benchmarks/paths.py [FOLDER] [--runs N] [--steps N]

Everything is measured in one process, in turn, several times over; the table gives medians and
ratios. Ours explain 8 photographs together; PAIR's library takes one at a time, two in each turn.
A bare pass is one forward and one backward of the 8 photographs through the frozen network, the
least that any gradient method can do; a path of n steps takes n of them and two more forward.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy
import torch
from rich.console import Console
from rich.table import Table
from saliency.core import guided_ig as pair_guided
from saliency.core.base import INPUT_OUTPUT_GRADIENTS
from saliency.core.blur_ig import BlurIG
from saliency.core.guided_ig import GuidedIG
from torch import Tensor, nn

from speed import bare_passes, folded, measure, photographs
from unilens import Evaluator, explain, load_model


def call_model(model: nn.Module, target: int):
    """Return the function that PAIR's library calls: gradients `(N, H, W, C)`."""

    def call(batch, call_model_args=None, expected_keys=None):
        inputs = torch.from_numpy(numpy.asarray(batch)).float().permute(0, 3, 1, 2)
        leaf = inputs.contiguous().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).softmax(-1)[:, target].sum(), leaf)
        return {INPUT_OUTPUT_GRADIENTS: gradient.permute(0, 2, 3, 1).numpy()}

    return call


def let_pair_run() -> None:
    """Give PAIR's library the argument of `numpy.quantile` that NumPy 2.4 took away."""
    quantile = numpy.quantile
    pair_guided.np.quantile = lambda values, q, interpolation: quantile(
        values, q, method=interpolation
    )


def pairs(method, model: nn.Module, images: Tensor, target: Tensor, **settings):
    """Return a function that explains two photographs by PAIR's library."""

    def run() -> None:
        for image, index in zip(images[:2], target[:2].tolist(), strict=True):
            pixels = image.permute(1, 2, 0).numpy().astype(numpy.float64)
            method.GetMask(pixels, call_model(model, index), **settings)

    return run


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    steps = options.steps
    let_pair_run()
    images = photographs(options.folder)
    evaluator = Evaluator(load_model())
    target = evaluator(images).argmax(-1)
    last = torch.channels_last
    plain = bare_passes(load_model(), images, target, torch.contiguous_format)
    fast = bare_passes(load_model(), images, target, last)
    fused = bare_passes(folded(load_model(), images[:1]), images, target, last)
    frozen = load_model().requires_grad_(False)
    seconds = measure(
        options.runs,
        {
            "bare, contiguous": lambda: plain(steps),
            "bare, channels-last": lambda: fast(steps),
            "bare, folded": lambda: fused(steps),
            "guided_ig": lambda: explain(evaluator, images, "guided_ig", n_steps=steps),
            "blur_ig": lambda: explain(evaluator, images, "blur_ig", n_steps=steps),
            "PAIR guided_ig": pairs(GuidedIG(), frozen, images, target, x_steps=steps),
            "PAIR blur_ig": pairs(BlurIG(), frozen, images, target, steps=steps),
        },
    )
    each = {name: took / (2 if "PAIR" in name else len(images)) for name, took in seconds.items()}
    best = min(("bare, contiguous", "bare, channels-last"), key=lambda name: each[name])
    table = Table(
        title=f"efficientnet_lite0, {len(images)} photographs, {steps} steps, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {options.runs}"
    )
    for heading in ("what", "seconds per photograph", "against", "ratio", "bar"):
        table.add_column(heading, justify="left" if heading in ("what", "against") else "right")
    for name in ("bare, contiguous", "bare, channels-last", "bare, folded"):
        table.add_row(f"{steps} passes, {name}", f"{each[name]:.2f}", "", "", "")
    for name, bar in (("guided_ig", "≥ 2"), ("blur_ig", "≥ 2.5")):
        own, peer = each[name], each[f"PAIR {name}"]
        table.add_row(name, f"{own:.2f}", best, f"{own / each[best]:.2f}", "≤ 1.15")
        table.add_row("", "", "bare, folded", f"{own / each['bare, folded']:.2f}", "")
        table.add_row(f"PAIR {name}", f"{peer:.2f}", name, f"{peer / own:.2f}", bar)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
