"""Tangent bases of digits: a Jacobian in forward mode against rows in reverse mode.

Run:    python benchmarks/manifold.py [--digits 100] [--rounds 3]

The common way takes the rows of the decoder's Jacobian one by one, a backward pass for each pixel
(`torch.autograd.functional.jacobian`); it is given all digits at once here, one backward pass per
pixel for them all, and one digit at a time beside it, for a tenth of the digits. Ratios are of
medians, the ways in turn; the weights are random, which is nothing to the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unilens.manifold import ConvAutoencoder, Decoder, TangentSpace, jacobians
from unilens.manifold.decoder import _rows

SHAPE = (1, 28, 28)


def main() -> None:
    """Time the three ways, compare what they give, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.manual_seed(0)
    network = ConvAutoencoder(SHAPE, dimension=16, width=16).eval().requires_grad_(False)
    images = torch.rand(asked.digits, *SHAPE)
    codes = network.encode(images)
    few = codes[: max(1, asked.digits // 10)]
    ways: dict[str, Callable[[], TangentSpace]] = {
        "forward mode, one by one (`Decoder`)": lambda: Decoder(network)(images),
        "forward mode, together": lambda: TangentSpace.spanned_by(jacobians(network.decode, codes)),
        "reverse rows, together": lambda: TangentSpace.spanned_by(_rows(network.decode, codes)),
        "reverse rows, a tenth of the digits, one by one": lambda: TangentSpace.spanned_by(
            torch.stack([_slow(network, code) for code in few])
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(asked.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - began)
    first, *others = found.values()
    table = Table("way", "s, median", "× the first", "largest difference", box=None)
    base = statistics.median(seconds[next(iter(ways))])
    differences = [0.0] + [_difference(first, other) for other in others]
    for (name, times), difference in zip(seconds.items(), differences, strict=True):
        scale = asked.digits / len(few) if "tenth" in name else 1.0
        median = statistics.median(times)
        ratio = f"{median * scale / base:.1f}"
        table.add_row(name, f"{median:.3f}", ratio, f"{difference:.1e}")
    console = Console()
    console.print(table)
    console.print(
        f"{asked.digits} digits, {asked.rounds} rounds, {torch.get_num_threads()} threads; the "
        "difference is that of the projections on the tangent spaces, the last way's ratio is "
        "scaled to all digits"
    )


def _slow(network: ConvAutoencoder, code: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(
        lambda one: network.decode(one[None])[0].flatten(), code
    )


def _difference(first: TangentSpace, other: TangentSpace) -> float:
    """Return how far the projections are apart, over the digits that both have."""
    pairs = zip(first.basis, other.basis, strict=False)
    return max(float((a @ a.T - b @ b.T).abs().max()) for a, b in pairs)


if __name__ == "__main__":
    main()
