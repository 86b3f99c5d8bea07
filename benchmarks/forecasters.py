"""Train forecasters of three architectures on measurements, and judge maps of one forecast step.

Run:    python benchmarks/forecasters.py

The data are the four channels of an electroencephalogram that matplotlib carries (`eeg.dat`, 800
samples). From 24 samples of all channels the networks forecast how the next 4 differ
from the last; they are trained on the
first 600 samples and judged on the last 200. Explained is one step of the first channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy
import torch
from matplotlib.cbook import get_sample_data
from torch import Tensor, nn

import unilens
from unilens import scores

PAST, HORIZON, CHANNELS = 24, 4, 4
METHODS = ("expected_gradients", "ig", "uni_blur", "gradient", "occlusion", "random")


class Lstm(nn.Module):
    """From `(B, T, F)` to `(B, H, F)` by a recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(CHANNELS, 32, batch_first=True)
        self.head = nn.Linear(32, HORIZON * CHANNELS)

    def forward(self, series: Tensor) -> Tensor:
        """Return the forecast."""
        change = self.head(self.memory(series)[0][:, -1]).unflatten(1, (HORIZON, CHANNELS))
        return series[:, -1:] + change


class TemporalConvolution(nn.Module):
    """From `(B, T, F)` to `(B, H, F)` by dilated convolutions that see the past alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(CHANNELS if dilation == 1 else 24, 24, 3, dilation=dilation)
            for dilation in (1, 2, 4)
        )
        self.head = nn.Linear(24, HORIZON * CHANNELS)

    def forward(self, series: Tensor) -> Tensor:
        """Return the forecast."""
        values = series.transpose(1, 2)
        for layer in self.layers:
            values = torch.relu(layer(values))
        change = self.head(values[..., -1]).unflatten(1, (HORIZON, CHANNELS))
        return series[:, -1:] + change


class SmallTransformer(nn.Module):
    """From `(B, T, F)` to `(B, H, F)` by two layers of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(CHANNELS, 32)
        self.position = nn.Parameter(torch.randn(PAST, 32) / 10)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, HORIZON * CHANNELS)

    def forward(self, series: Tensor) -> Tensor:
        """Return the forecast."""
        encoded = self.encoder(self.embed(series) + self.position)
        change = self.head(encoded[:, -1]).unflatten(1, (HORIZON, CHANNELS))
        return series[:, -1:] + change


class Windows(NamedTuple):
    """Pasts `(n, T, F)` and futures `(n, H, F)`."""

    past: Tensor
    future: Tensor


def windows(first: int, last: int) -> Windows:
    """Return the windows within samples first to last - 1, standardised by the first 600."""
    with get_sample_data("eeg.dat") as file:
        values = numpy.frombuffer(file.read(), dtype=float).reshape(-1, CHANNELS)
    values = torch.tensor((values - values[:600].mean(0)) / values[:600].std(0)).float()
    starts = range(first, last - PAST - HORIZON + 1)
    past = torch.stack([values[start : start + PAST] for start in starts])
    future = torch.stack([values[start + PAST : start + PAST + HORIZON] for start in starts])
    return Windows(past, future)


def trained(build: Callable[[], nn.Module], data: Windows, epochs: int = 20) -> nn.Module:
    """Return a network after training on windows."""
    torch.manual_seed(0)
    network = build()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.past)).split(64):
            optimiser.zero_grad()
            (network(data.past[rows]) - data.future[rows]).square().mean().backward()
            optimiser.step()
    return network.eval()


def explained(network: nn.Module, data: Windows) -> str:
    """Return the share of the variance explained, at the first and the last step."""
    with torch.no_grad():
        error = (network(data.past) - data.future).square().mean((0, 2))
    shares = 1 - error / data.future.var((0, 2), correction=0).mean()
    return f"{float(shares[0]):.2f} / {float(shares[-1]):.2f}"


def main() -> None:
    """Print a table for each architecture."""
    training, held_out = windows(0, 600), windows(600, 800)
    chosen = torch.linspace(0, len(held_out.past) - 1, 24).round().long()
    inputs, score = held_out.past[chosen], scores.forecast(step=0, series=0)
    settings = {"expected_gradients": {"references": training.past[::20]}}
    for build in (Lstm, TemporalConvolution, SmallTransformer):
        network = trained(build, training)
        last = data_of_the_last_value(held_out)
        print(f"\n{build.__name__}: variance explained {explained(network, held_out)}", end="")
        print(f" at steps 1 and {HORIZON} (the last value repeated: {last})\n")
        print("| method | MuFidelity | insertion | deletion | share of the last 10 samples |")
        print("|---|---|---|---|---|")
        for method in METHODS:
            row = judged(network, inputs, method, score, settings.get(method, {}))
            print(f"| `{method}` | " + " | ".join(f"{value:.2f}" for value in row) + " |")


def data_of_the_last_value(data: Windows) -> str:
    """Return what `explained` gives for the last value repeated."""

    class Repeat(nn.Module):
        def forward(self, past: Tensor) -> Tensor:
            return past[:, -1:].expand(-1, HORIZON, -1)

    return explained(Repeat(), data)


def judged(
    network: nn.Module,
    inputs: Tensor,
    method: str,
    score: scores.OutputScore,
    settings: dict[str, object],
) -> list[float]:
    """Return the means of a method's metrics, and the share of the latest samples."""
    call = {"score": score, "channels": "last"}
    attribution = unilens.explain(network, inputs, method, **call, **settings)
    found = [
        unilens.evaluate(network, inputs, attribution, metric, **call, **extra)
        for metric, extra in (
            ("mu_fidelity", {"cells": None}),
            ("insertion_auc", {}),
            ("deletion_auc", {}),
        )
    ]
    size = attribution.values.abs()
    latest = size[:, -10:].sum((1, 2)) / size.sum((1, 2))
    return [float(values.nanmean()) for values in (*found, latest)]


if __name__ == "__main__":
    main()
