"""What maps and metrics cost on an accelerator: the numbers of docs/performance.md, in minutes.

Run:    python benchmarks/gpu.py [--device cuda] [--model NAME] [--photographs N] [--runs N]

Everything is measured in one process, in turn; the table gives medians, ratios and the peak of the
device's memory. A bare pass is one forward and one backward of all photographs through the frozen
network, channels-last. With `--device cpu` it runs without an accelerator, to try the script.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients
from rich.console import Console
from rich.table import Table
from torch import nn

from speed import STEPS, bare_passes, folded, measure
from unilens import Evaluator, explain, load_model
from unilens.metrics import Deletion, MuFidelity
from unilens.models import samples

ROWS = 1000


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--photographs", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type != "cpu" and not torch.accelerator.is_available():
        sys.exit(f"expected an accelerator for --device {device}, got none; try --device cpu")
    began = time.perf_counter()
    tasks, against = tasks_of(given.model, device, given.photographs)
    seconds = measure(given.runs, tasks)
    table = Table(
        title=f"{given.model}, {given.photographs} photographs, {name_of(device)}, "
        f"torch {torch.__version__}, medians of {given.runs}"
    )
    for heading in ("what", "seconds", "against", "ratio", "peak, MiB"):
        table.add_column(heading, justify="left" if heading in ("what", "against") else "right")
    for name, took in seconds.items():
        other = against.get(name)
        ratio = f"{took / seconds[other]:.2f}" if other else ""
        table.add_row(name, f"{took:.4f}", other or "", ratio, peak_of(tasks[name], device))
    console = Console(width=120)
    console.print(table)
    console.print(f"{time.perf_counter() - began:.0f} s in all")


def tasks_of(
    name: str, device: torch.device, count: int
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Return what is measured, and what each is set against."""
    model = load_model(name, device=device)
    pixels = [model.preprocess(samples[sample]()) for sample in samples]
    pixels = [turned for image in pixels for turned in (image, image.flip(-1), image.flip(-2))]
    images = torch.stack([pixels[number % len(pixels)] for number in range(count)]).to(device)
    evaluator, alone = Evaluator(model), Evaluator(model, independent=True)
    target = evaluator(images).argmax(-1)
    maps = explain(evaluator, images, "gradient", target).values
    captum = IntegratedGradients(lambda inputs: model(inputs).softmax(-1))
    last = torch.channels_last
    plain = bare_passes(load_model(name, device=device), images, target, last)
    own = load_model(name, device=device)
    fused = bare_passes(folded(own, images[:1]), images, target, last)
    torch.manual_seed(0)
    layers = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)]
    network = nn.Sequential(*layers).to(device).eval()
    rows = torch.randn(ROWS, 20).to(device)
    single, together = Evaluator(network, independent=True), Evaluator(network)

    def steps_of(of: Evaluator, method: str, **settings: object) -> Callable[[], object]:
        return lambda: explain(of, images, method, target, **settings)

    tasks: dict[str, Callable[[], object]] = {
        f"{STEPS} bare passes": lambda: plain(STEPS),
        f"{STEPS} bare passes, folded": lambda: fused(STEPS),
        "ig": steps_of(evaluator, "ig", n_steps=STEPS),
        "ig, one input a pass": steps_of(alone, "ig", n_steps=STEPS),
        "captum, ig": lambda: captum.attribute(
            images, target=target, n_steps=STEPS, internal_batch_size=len(images)
        ),
        "uni_blur": steps_of(evaluator, "uni_blur"),
        "uni": steps_of(evaluator, "uni"),
        "gradient, an Evaluator": steps_of(evaluator, "gradient"),
        "gradient, the model": lambda: explain(model, images, "gradient", target),
        "MuFidelity, 100 subsets": lambda: MuFidelity(subsets=100)(
            evaluator, images, maps, target=target
        ),
        "deletion": lambda: Deletion()(evaluator, images, maps, target=target),
        f"uni of {ROWS} rows, together": lambda: explain(together, rows, "uni"),
        f"uni of {ROWS} rows, one by one": lambda: explain(single, rows, "uni"),
    }
    bare = f"{STEPS} bare passes, folded"
    against = {
        "ig": bare,
        "ig, one input a pass": "ig",
        "captum, ig": "ig",
        "uni_blur": bare,
        "uni": bare,
        "gradient, the model": "gradient, an Evaluator",
        "MuFidelity, 100 subsets": bare,
        "deletion": bare,
        f"uni of {ROWS} rows, one by one": f"uni of {ROWS} rows, together",
    }
    return tasks, against


def name_of(device: torch.device) -> str:
    """Return a device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def peak_of(task: Callable[[], object], device: torch.device) -> str:
    """Return the peak of a device's memory while a task runs; nothing where it cannot be read."""
    if device.type != "cuda":
        return ""
    torch.cuda.reset_peak_memory_stats(device)
    task()
    torch.cuda.synchronize(device)
    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"


if __name__ == "__main__":
    main()
