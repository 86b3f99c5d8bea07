"""What a second worker gains: the same images with one and with two, in turns.

`ray`: one and two Ray workers of one thread. `local`: the command's own process, whose passes run
on all threads, and two processes of one thread each (`--workers 2`). `bare` is a yardstick, what
the machine has to give: one and two bare processes of one thread that pass the same photographs
through the same network. Prints seconds and ratios, as medians and per turn.

    python benchmarks/workers.py --images 12 --turns 3 [--ways local,bare] [--plan FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image

from unilens import load_model
from unilens.benchmark.cluster import _ray
from unilens.benchmark.plan import make_plan, read_plan_file
from unilens.benchmark.runner import run
from unilens.models import samples

METHODS = ("ig", "gradient")
METRICS = ("deletion_auc",)
MODEL = "efficientnet_lite0"
WARM = 2
"""Images per worker that load the model before the clock runs."""


def photographs(folder: Path, count: int) -> None:
    """Write crops of the photographs that come with installed packages."""
    images = [load() for load in samples.values()]
    for number in range(count):
        image = images[number % len(images)]
        image.crop((number, number, image.width, image.height)).save(folder / f"{number:03d}.png")


def with_workers(engine: dict[str, object], images: Path, out: Path, file: Path | None) -> float:
    """Return the seconds from the first `WARM` images per worker to the last but as many.

    At that end, too, a worker may have nothing left to do.
    """
    own = {"data": {"source": str(images)}, "engine": engine, "pictures": 0}
    small = {"methods": METHODS, "metrics": METRICS, "settings": {"n_steps": 10}}
    plan = read_plan_file(file, {**own, "models": [MODEL]}) if file else make_plan(small | own)
    times: list[tuple[float, str]] = []
    run(plan, out, on_progress=lambda *done: times.append((time.perf_counter(), done[3])))
    ends = sorted({image: at for at, image in times if image}.values())
    skipped = 2 * WARM
    return (ends[-skipped] - ends[skipped - 1]) / (len(ends) - 2 * skipped + 1) * len(ends)


def bare(path: str) -> None:
    """Pass a photograph forward and backward a few times."""
    torch.set_num_threads(1)
    model = _model()
    pixels = model.preprocess(Image.open(path).convert("RGB"))[None].requires_grad_()
    for _ in range(5):
        torch.autograd.grad(model(pixels.expand(4, -1, -1, -1)).sum(), pixels)


_kept: list[torch.nn.Module] = []


def _model() -> torch.nn.Module:
    if not _kept:
        _kept.append(load_model())
    return _kept[0]


def with_processes(count: int, paths: list[str]) -> float:
    """Return the seconds that bare processes take for all photographs, once they are warm."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        list(pool.map(bare, paths[: 2 * count]))
        began = time.perf_counter()
        list(pool.map(bare, paths))
        return time.perf_counter() - began


def report(name: str, one: list[float], two: list[float]) -> None:
    """Print medians and their ratio, which is the last of the lines."""
    first, second = statistics.median(one), statistics.median(two)
    each = ", ".join(f"{a / b:.2f}" for a, b in zip(one, two, strict=True))
    print(f"{name}: one {first:.1f} s, two {second:.1f} s, ratio {first / second:.2f} ({each})")


def main() -> None:
    """Take turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ways", default="ray,local,bare")
    parser.add_argument("--plan", type=Path, help="in place of two methods and a metric")
    chosen = parser.parse_args()
    ways = chosen.ways.split(",")
    if "ray" in ways:
        _ray()
    taken: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        images.mkdir()
        photographs(images, chosen.images)
        paths = [str(path) for path in sorted(images.iterdir())]
        for turn in range(chosen.turns):
            for workers in (1, 2) if turn % 2 == 0 else (2, 1):
                for way in ways:
                    if way == "bare":
                        seconds = with_processes(workers, paths)
                    else:
                        engine: dict[str, object] = {"name": way, "workers": workers}
                        alone = way == "local" and workers == 1
                        out = Path(place) / f"{way}-{turn}-{workers}"
                        seconds = with_workers({} if alone else engine, images, out, chosen.plan)
                    taken[way][workers - 1].append(seconds)
                    print(f"{way} {workers}: {seconds:.1f} s", flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, (one, two) in taken.items():
        report(name, one, two)


if __name__ == "__main__":
    main()
