"""Peak memory of maps of a volume, and their time against bare passes of the model.

Run:    python benchmarks/volumes.py [METHOD ...] [--side N] [--threads N]

A volume of `side`^3 voxels (96) and a small 3-D network with batch norm, strides and pooling. Every
method runs in a process of its own, whose peak memory (resource.getrusage) includes Python and
torch; "bare" is the process that runs passes of the network alone. The ratio is of the method's
time to that of as many bare passes as the attribution states (one forward and one backward, on one
frozen network), measured in the same process. Fails where a process exceeds 4 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor, nn

from unilens import explain

LIMIT_GB = 4.0
METHODS = {
    "bare": {},
    "uni_blur": {},
    "uni": {},
    "ig": {},
    "blur_ig": {},
    "guided_ig": {},
    "agi": {},
    "idgi": {},
    "gradient": {},
    "smoothgrad": {},
    "expected_gradients": {"references": 2},
    "deeplift": {},
    "guided_backprop": {},
    "gradcam": {},
    "guided_gradcam": {},
    "occlusion": {"window": 24, "stride": 24},
    "rise": {"n_masks": 50},
    "sobol": {"designs": 2, "cells": 3},
}
"""The settings of the black boxes keep the run short: memory does not depend on their counts."""
REPEATS = 3


def network() -> nn.Sequential:
    """Return a small convolutional network of volumes, with random weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2)),
        *(nn.Conv3d(4, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2)),
        *(nn.Conv3d(8, 16, 3, stride=2, padding=1), nn.BatchNorm3d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 3)),
    ).eval()


def seconds_of_passes(model: nn.Module, volume: Tensor) -> tuple[float, float]:
    """Return the least seconds of a forward pass without a graph, and of one with its gradient."""
    frozen, forward, both = model.requires_grad_(False), [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        with torch.no_grad():
            frozen(volume)
        forward.append(time.perf_counter() - began)
        began = time.perf_counter()
        leaf = volume.clone().requires_grad_()
        torch.autograd.grad(frozen(leaf)[0, 0], leaf)
        both.append(time.perf_counter() - began)
    return min(forward), min(both)


def measure(method: str, side: int, threads: int) -> dict[str, float]:
    """Explain one volume; return peak memory in GB, seconds, and the ratio to bare passes."""
    torch.set_num_threads(threads)
    model = network()
    volume = torch.rand(1, 1, side, side, side, generator=torch.Generator().manual_seed(0))
    settings = dict(METHODS[method])
    if "references" in settings:
        settings["references"] = torch.rand(settings["references"], *volume.shape[1:])
    seconds = bare = 0.0
    if method != "bare":
        began = time.perf_counter()
        passes = explain(model, volume, method, 0, **settings).provenance["passes"]
        seconds = time.perf_counter() - began
    # The maximum so far, in kB on Linux: bare passes come after the method.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    forward, both = seconds_of_passes(model, volume)
    if method == "bare":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {"peak": peak, "seconds": forward + both, "ratio": 1.0}
    with_gradient = min(passes["forward"], passes["backward"])
    bare = with_gradient * both + (passes["forward"] - with_gradient) * forward
    return {"peak": peak, "seconds": seconds, "ratio": seconds / bare}


def main() -> None:
    """Print the table; exit with 1 where a method takes more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.side, options.threads)))
        return
    print(f"{'method':20} {'peak, GB':>9} {'seconds':>9} {'time / bare passes':>19}")
    exceeded = []
    for method in options.methods:
        command = [sys.executable, __file__, "--measure", method]
        command += ["--side", str(options.side), "--threads", str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{method} failed: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        numbers = f"{found['peak']:9.2f} {found['seconds']:9.1f} {found['ratio']:19.2f}"
        print(f"{method:20} {numbers}", flush=True)
        exceeded += [method] * (found["peak"] > LIMIT_GB)
    sys.exit(f"more than {LIMIT_GB} GB: {', '.join(exceeded)}" if exceeded else 0)


if __name__ == "__main__":
    main()
