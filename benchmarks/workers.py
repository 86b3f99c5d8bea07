"""What a second Ray worker of one thread gains: the same work with one and with two, in turns.

Prints, per turn and as medians, the seconds of the same images with one worker and with two, and
the ratio. Beside it stands a yardstick: two bare processes with one thread each that pass the same
photographs through the same network, against one; it says what the machine has to give.

    python benchmarks/workers.py --images 12 --turns 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image

from unilens import load_model
from unilens.benchmark.cluster import _ray
from unilens.benchmark.plan import make_plan
from unilens.benchmark.runner import run
from unilens.models import samples

METHODS = ("ig", "gradient")
METRICS = ("deletion_auc",)
WARM = 2
"""Images per worker that load the model before the clock runs."""


def photographs(folder: Path, count: int) -> None:
    """Write crops of the photographs that come with installed packages."""
    images = [load() for load in samples.values()]
    for number in range(count):
        image = images[number % len(images)]
        image.crop((number, number, image.width, image.height)).save(folder / f"{number:03d}.png")


def with_workers(workers: int, images: Path, out: Path) -> float:
    """Return the seconds from the first `WARM` images per worker to the last but as many.

    At that end, too, a worker may have nothing left to do.
    """
    plan = make_plan(
        {
            "methods": METHODS,
            "metrics": METRICS,
            "settings": {"n_steps": 10},
            "pictures": 0,
            "data": {"source": str(images)},
            "engine": {"name": "ray", "workers": workers},
        }
    )
    times: list[float] = []
    run(plan, out, tell=lambda *_: times.append(time.perf_counter()))
    rows = times[1:]
    skipped = 2 * WARM
    return (rows[-skipped] - rows[skipped - 1]) / (len(rows) - 2 * skipped + 1) * len(rows)


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
    chosen = parser.parse_args()
    _ray()
    taken: dict[str, tuple[list[float], list[float]]] = {"ray": ([], []), "bare": ([], [])}
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        images.mkdir()
        photographs(images, chosen.images)
        paths = [str(path) for path in sorted(images.iterdir())]
        for turn in range(chosen.turns):
            for workers in (1, 2) if turn % 2 == 0 else (2, 1):
                out = Path(place) / f"{turn}-{workers}"
                ways: dict[str, Callable[[], float]] = {
                    "ray": lambda n=workers, out=out: with_workers(n, images, out),
                    "bare": lambda n=workers: with_processes(n, paths),
                }
                for name, way in ways.items():
                    taken[name][workers - 1].append(way())
                    print(f"{name} {workers}: {taken[name][workers - 1][-1]:.1f} s", flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, (one, two) in taken.items():
        report(name, one, two)


if __name__ == "__main__":
    main()
