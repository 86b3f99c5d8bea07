"""What people wait for besides a map's own passes: one table, everything against something else.

Run:    python benchmarks/waits.py PHOTOGRAPHS [--runs N] [--limit N]

PHOTOGRAPHS is a folder, of which `--limit` photographs are explained by the command line. Rows in
turn, several times over; the table gives medians and ratios. A bare pass is one forward and one
backward of one photograph through the frozen network, channels-last, as a user writes it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import torch
from captum.attr import IntegratedGradients
from rich.console import Console
from rich.table import Table
from torch import nn

import quick
from speed import STEPS, bare_passes, measure
from unilens import Evaluator, explain, load_model
from unilens.cli.app import app
from unilens.methods import methods
from unilens.metrics import Deletion
from unilens.models import read_image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus
    import saliency.core as saliency

ROWS = 1000
FOLDER_METHODS = "uni_blur,uni"
Line = tuple[str, float, str, float, str]
"""What, its seconds, against what, those seconds, and the bar for the ratio."""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=int, default=20)
    given = parser.parse_args()
    files = sorted(given.folder.glob("*.JPEG"))[: given.limit]
    sections = (
        lambda: in_a_loop(files[:20], given.runs),
        lambda: first_call(files[0], given.runs),
        lambda: of_rows(given.runs),
        lambda: of_peers(files[:8], given.runs),
        lambda: of_a_folder(files),
        lambda: of_commands(given.runs),
    )
    table = Table(
        title=f"efficientnet_lite0, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"medians of {given.runs}"
    )
    for heading in ("what", "seconds", "against", "seconds", "ratio", "bar"):
        table.add_column(heading, justify="left" if heading in ("what", "against") else "right")
    for section in sections:
        for what, took, against, other, bar in section():
            table.add_row(what, f"{took:.3f}", against, f"{other:.3f}", f"{took / other:.2f}", bar)
    Console(width=150).print(table)


def in_a_loop(files: list[Path], runs: int) -> Iterator[Line]:
    """`explain` of one photograph after the other, with the model and with its evaluator."""
    model = load_model()
    images = [model.preprocess(read_image(file)).unsqueeze(0) for file in files]
    evaluator = Evaluator(model)

    def loop(of: nn.Module | Evaluator) -> Callable[[], object]:
        return lambda: [explain(of, image, "gradient") for image in images]

    seconds = measure(runs, {"model": loop(model), "evaluator": loop(evaluator)})
    count = f"gradient of {len(images)} photographs in a loop"
    yield f"{count}, the model", seconds["model"], "an Evaluator", seconds["evaluator"], "≤ 1.1"


def first_call(file: Path, runs: int) -> Iterator[Line]:
    """The first `explain` of a model, against two bare passes and its preparation."""
    model = load_model()
    image = model.preprocess(read_image(file)).unsqueeze(0)
    target = model(image).argmax(-1)
    fresh = [copy.deepcopy(model) for _ in range(2 * (runs + 1))]
    bare = bare_passes(load_model(), image, target, torch.channels_last)
    seconds = measure(
        runs,
        {
            "first": lambda: explain(fresh.pop(), image, "gradient"),
            "preparation": lambda: Evaluator(fresh.pop()).plan(image),
            "passes": lambda: bare(2),
        },
    )
    yield (
        *("gradient, a model's first call", seconds["first"]),
        "two bare passes, and the preparation",
        *(seconds["passes"] + seconds["preparation"], ""),
    )
    yield "the preparation", seconds["preparation"], "two bare passes", seconds["passes"], ""


def of_rows(runs: int) -> Iterator[Line]:
    """UNI on the rows of a table: unlearned one by one, and together."""
    torch.manual_seed(0)
    layers = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)]
    network, rows = nn.Sequential(*layers).eval(), torch.randn(ROWS, 20)
    alone, together = Evaluator(network), Evaluator(network, independent=False)

    def surprise(outputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return -outputs.log_softmax(-1)[:, 0]

    seconds = measure(
        runs,
        {
            "unlearned alone": lambda: alone.unlearned_logits(rows, surprise, 1.0),
            "unlearned": lambda: together.unlearned_logits(rows, surprise, 1.0),
            "uni": lambda: explain(together, rows, "uni"),
        },
    )
    whole = measure(1, {"uni alone": lambda: explain(alone, rows, "uni")})["uni alone"]
    what, other = f"unlearning of {ROWS} rows, one by one", f"together, {layers[0]} first"
    yield what, seconds["unlearned alone"], other, seconds["unlearned"], "≥ 20"
    yield f"uni of {ROWS} rows, one by one", whole, "together", seconds["uni"], "≥ 20"


def of_peers(files: list[Path], runs: int) -> Iterator[Line]:
    """Integrated gradients of captum and PAIR, and a deletion curve of Quantus, beside ours."""
    model = load_model()
    images = torch.stack([model.preprocess(read_image(file)) for file in files])
    evaluator = Evaluator(model)
    target = evaluator(images).argmax(-1)
    captum = IntegratedGradients(lambda inputs: model(inputs).softmax(-1))
    maps = explain(evaluator, images, "gradient", target).values

    def call(values: numpy.ndarray, call_model_args: object, expected_keys: object) -> object:
        leaf = torch.from_numpy(values).float().movedim(-1, 1).requires_grad_()
        rows = model(leaf).softmax(-1)[:, int(target[0])]
        (slope,) = torch.autograd.grad(rows.sum(), leaf)
        return {saliency.INPUT_OUTPUT_GRADIENTS: slope.movedim(1, -1).numpy()}

    first = images[0].movedim(0, -1).numpy()
    flipping = quantus.PixelFlipping(
        features_in_step=224 * 224 // 14,
        perturb_baseline="black",
        disable_warnings=True,
        display_progressbar=False,
    )
    seconds = measure(
        runs,
        {
            "ig": lambda: explain(evaluator, images, "ig", target, n_steps=STEPS),
            "captum": lambda: captum.attribute(
                images, target=target, n_steps=STEPS, internal_batch_size=len(images)
            ),
            "ig of one": lambda: explain(evaluator, images[:1], "ig", target[:1], n_steps=STEPS),
            "pair": lambda: saliency.IntegratedGradients().GetMask(
                first, call, x_steps=STEPS, batch_size=STEPS
            ),
            "deletion": lambda: Deletion(imputer="black", step=1 / 14)(
                evaluator, images, maps, target=target
            ),
            "quantus": lambda: flipping(
                model=model,
                x_batch=images.numpy(),
                y_batch=target.numpy(),
                a_batch=maps.numpy(),
                softmax=True,
                channel_first=True,
            ),
        },
    )
    yield f"captum, ig of {len(images)}", seconds["captum"], "unilens", seconds["ig"], ""
    yield "PAIR, ig of one", seconds["pair"], "unilens", seconds["ig of one"], ""
    yield (
        f"Quantus, deletion of {len(images)}",
        seconds["quantus"],
        "unilens",
        (seconds["deletion"]),
        "",
    )


def of_a_folder(files: list[Path]) -> Iterator[Line]:
    """`unilens explain FOLDER` with all its files, against the bare passes of its methods."""
    chosen = [methods[name]().passes for name in FOLDER_METHODS.split(",")]
    backward = sum(count.backward for count in chosen)
    forward = sum(count.forward for count in chosen) - backward
    model = load_model()
    image = model.preprocess(read_image(files[0])).unsqueeze(0)
    target = model(image).argmax(-1)
    bare = bare_passes(load_model(), image, target, torch.channels_last)
    network = load_model().to(memory_format=torch.channels_last)

    def passes_of_one() -> None:
        bare(backward)
        with torch.no_grad():
            for _ in range(forward):
                network(image)

    passes_of_one()
    arguments = ["explain", *map(str, files), "--method", FOLDER_METHODS, "--quick", "--out"]
    times: dict[str, list[float]] = {"command": [], "passes": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(3):
            with contextlib.redirect_stdout(io.StringIO()):
                began = time.perf_counter()
                app([*arguments, f"{folder}/{turn}"], standalone_mode=False)
            times["command"].append(time.perf_counter() - began)
            began = time.perf_counter()
            for _ in files:
                passes_of_one()
            times["passes"].append(time.perf_counter() - began)
    command, passed = (statistics.median(times[name]) for name in ("command", "passes"))
    yield (
        f"{backward} bare passes and {forward} forward of each of {len(files)} photographs",
        passed,
        *(f"unilens explain --method {FOLDER_METHODS}, its files too", command, "≥ 0.9"),
    )


def of_commands(runs: int) -> Iterator[Line]:
    """What needs no model, against `import torch`."""
    chosen = ("import torch", "unilens --help", "unilens list methods")
    rounds = [{name: quick.seconds(*quick.COMMANDS[name]) for name in chosen} for _ in range(runs)]
    median = {name: statistics.median(times[name] for times in rounds) for name in chosen}
    for name in chosen[1:]:
        yield name, median[name], chosen[0], median[chosen[0]], ""


if __name__ == "__main__":
    main()
