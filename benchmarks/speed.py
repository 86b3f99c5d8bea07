"""How long the methods take, against bare passes of the model and against captum.

Run:    python benchmarks/speed.py [FOLDER] [--runs N]

Everything is measured in one process, in turn, several times over; the table gives medians and
ratios. A bare pass is one forward and one backward of 8 photographs through the frozen network,
the least that any gradient method can do. Without FOLDER the installed samples are used.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from captum.attr import IntegratedGradients
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from unilens import Evaluator, explain, load_model
from unilens._engine.copying import private_copy
from unilens._engine.folding import fold_batch_norms
from unilens.models import read_image, samples

STEPS = 15
PHOTOGRAPHS = 8


def photographs(folder: Path | None) -> Tensor:
    """Return 8 photographs as the default model's pixels."""
    model = load_model()
    if folder is None:
        loaded = [samples[name]() for name in samples]
    else:
        loaded = [read_image(path) for path in sorted(folder.glob("*.JPEG"))[:: 63 // PHOTOGRAPHS]]
    pixels = torch.stack([model.preprocess(image) for image in loaded])
    return torch.cat([pixels, pixels.flip(-1)])[:PHOTOGRAPHS]


def bare_passes(model: nn.Module, images: Tensor, target: Tensor, layout: torch.memory_format):
    """Return a function that runs `count` forward and backward passes and nothing else."""
    frozen = model.requires_grad_(False).to(memory_format=layout)
    rows = torch.arange(len(images))

    def run(count: int = STEPS) -> None:
        for _ in range(count):
            leaf = images.clone(memory_format=layout).requires_grad_()
            torch.autograd.grad(frozen(leaf).softmax(-1)[rows, target].sum(), leaf)

    return run


def measure(runs: int, tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return median seconds of each task; the tasks take turns, after a first turn for warmth."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(runs + 1):
        for name, task in tasks.items():
            synchronise()
            began = time.perf_counter()
            task()
            synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def synchronise() -> None:
    """Wait for what an accelerator has been given to do."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def folded(model: nn.Module, sample: Tensor) -> nn.Module:
    """Return a copy of the model with its batch norms folded."""
    copy = private_copy(model)
    fold_batch_norms(copy, lambda: copy(sample))
    return copy


def peak_memory(steps: int, folder: Path | None) -> float:
    """Return the peak memory, in MiB, of a process that explains the photographs by `ig`."""
    command = [sys.executable, __file__, "--memory", str(steps), *([str(folder)] if folder else [])]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_peak() -> float:
    """Return this process's peak memory in MiB; the accounting of getrusage knows the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    images = photographs(options.folder)
    if options.memory:
        explain(load_model(), images, "ig", n_steps=options.memory)
        print(own_peak())
        return

    memory = {steps: peak_memory(steps, options.folder) for steps in (STEPS, 300)}
    model = load_model()
    evaluator = Evaluator(model)
    target = evaluator(images).argmax(-1)
    last = torch.channels_last
    plain = bare_passes(load_model(), images, target, torch.contiguous_format)
    fast = bare_passes(load_model(), images, target, last)
    fused = bare_passes(folded(load_model(), images[:1]), images, target, last)
    captum = IntegratedGradients(lambda inputs: model(inputs).softmax(-1))
    passes = STEPS + 10 + 3
    seconds = measure(
        options.runs,
        {
            "plain": plain,
            "fast": fast,
            "folded": fused,
            "ig": lambda: explain(evaluator, images, "ig", n_steps=STEPS),
            "ig, first use": lambda: explain(model, images, "ig", n_steps=STEPS),
            "captum": lambda: captum.attribute(
                images, target=target, n_steps=STEPS, internal_batch_size=PHOTOGRAPHS
            ),
            "uni_blur": lambda: explain(evaluator, images, "uni_blur"),
            "uni_paper": lambda: explain(evaluator, images, "uni_paper"),
            "uni_blur, 8 nodes": lambda: explain(evaluator, images, "uni_blur", n_steps=8),
            "uni": lambda: explain(evaluator, images, "uni"),
            "fast, T + B + 3": lambda: fast(passes),
            "folded, T + B + 3": lambda: fused(passes),
        },
    )
    layouts = {"fast": "channels-last", "plain": "contiguous"}
    best = min(layouts, key=lambda name: seconds[name])
    table = Table(
        title=f"efficientnet_lite0, {len(images)} photographs, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, medians of {options.runs}"
    )
    for heading in ("what", "seconds", "against", "ratio", "bar"):
        table.add_column(heading, justify="left" if heading in ("what", "against") else "right")
    for what, took, against, ratio, bar in (
        (f"{STEPS} bare passes, contiguous", seconds["plain"], "", None, ""),
        (f"{STEPS} bare passes, channels-last", seconds["fast"], "", None, ""),
        (f"{STEPS} bare passes, batch norms folded", seconds["folded"], "", None, ""),
        (
            f"(a) ig, {STEPS} steps",
            seconds["ig"],
            f"bare, {layouts[best]}",
            seconds["ig"] / seconds[best],
            "≤ 1.10",
        ),
        ("", seconds["ig"], "bare, folded too", seconds["ig"] / seconds["folded"], ""),
        (
            "    with the preparation of the model",
            seconds["ig, first use"],
            f"bare, {layouts[best]}",
            seconds["ig, first use"] / seconds[best],
            "≤ 1.10",
        ),
        (
            f"(b) captum IG, {STEPS} steps",
            seconds["captum"],
            "ig",
            seconds["captum"] / seconds["ig"],
            "≥ 1.80",
        ),
        (
            "",
            seconds["captum"],
            "ig with the preparation",
            seconds["captum"] / seconds["ig, first use"],
            "≥ 1.80",
        ),
        (
            "(c) uni_paper",
            seconds["uni_paper"],
            f"{passes} bare, channels-last",
            seconds["uni_paper"] / seconds["fast, T + B + 3"],
            "≤ 1.10",
        ),
        (
            "",
            seconds["uni_paper"],
            f"{passes} bare, folded too",
            seconds["uni_paper"] / seconds["folded, T + B + 3"],
            "",
        ),
        (
            "    uni_blur",
            seconds["uni_blur"],
            f"ig, {STEPS} steps",
            seconds["uni_blur"] / seconds["ig"],
            "",
        ),
        (
            "",
            seconds["uni_blur"],
            f"captum IG, {STEPS} steps",
            seconds["uni_blur"] / seconds["captum"],
            "",
        ),
        ("    uni", seconds["uni"], f"ig, {STEPS} steps", seconds["uni"] / seconds["ig"], ""),
        (
            "    uni_blur, 8 nodes",
            seconds["uni_blur, 8 nodes"],
            f"ig, {STEPS} steps",
            seconds["uni_blur, 8 nodes"] / seconds["ig"],
            "",
        ),
        (
            "",
            seconds["uni_blur, 8 nodes"],
            f"captum IG, {STEPS} steps",
            seconds["uni_blur, 8 nodes"] / seconds["captum"],
            "",
        ),
    ):
        shown = "" if ratio is None else f"{ratio:.2f}"
        table.add_row(what, f"{took:.2f}", against, shown, bar)
    table.add_row(
        "(d) peak memory, 300 steps",
        f"{memory[300]:.0f} MiB",
        f"{STEPS} steps: {memory[STEPS]:.0f} MiB",
        f"{memory[300] / memory[STEPS]:.2f}",
        "≤ 1.10",
    )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
