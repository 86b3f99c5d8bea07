"""Small models of tables and signals, trained here in seconds; each says what it was trained on."""

import numpy
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class Standardised(nn.Module):
    """Columns in their own units, standardised inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model((inputs - self.mean) / self.std)


def fit(model: nn.Module, inputs: Tensor, target: Tensor, epochs: int, rate: float = 0.01):
    """Train with Adam on all inputs at once; one seed, one thread's order."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=1e-3)
    for _ in range(epochs):
        optimiser.zero_grad()
        cross_entropy(model(inputs), target).backward()
        optimiser.step()
    return model.eval()


def split(inputs: numpy.ndarray, target: numpy.ndarray, held_out: float = 0.25):
    """Return training and held-out rows, as tensors."""
    order = numpy.random.default_rng(0).permutation(len(inputs))
    count = int(len(inputs) * (1 - held_out))
    parts = [(inputs[rows], target[rows]) for rows in (order[:count], order[count:])]
    return [(torch.tensor(x, dtype=torch.float32), torch.tensor(y).long()) for x, y in parts]


def accuracy(model: nn.Module, inputs: Tensor, target: Tensor) -> float:
    with torch.no_grad():
        return float((model(inputs).argmax(-1) == target).double().mean())


def cancer():
    """Breast cancer: 30 columns whose standard deviations span from 0.003 to 600.

    Returns the model of raw columns, its training inputs, held-out inputs and targets, and names.
    """
    data = load_breast_cancer()
    (train, train_target), (test, test_target) = split(data.data, data.target)
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(30, 32), nn.Tanh(), nn.Linear(32, 2))
    model = Standardised(inner, train.mean(0), train.std(0))
    return fit(model, train, train_target, 150), train, test, test_target, list(data.feature_names)


def digits():
    """Handwritten digits of 8 x 8 pixels in [0, 1], and a small convolutional network."""
    data = load_digits()
    (train, train_target), (test, test_target) = split(data.images[:, None] / 16, data.target)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    return fit(model, train, train_target, 60), test, test_target


LENGTH, EVENT = 128, 16


def signals(count: int, seed: int):
    """Noise (B, 1, 128); in every other signal an oscillation of 16 samples, whose place is told.

    Returns signals, whether there is an event, and a mask `(B, 128)` of where it is.
    """
    random = numpy.random.default_rng(seed)
    values = random.normal(0, 0.5, (count, 1, LENGTH))
    target = numpy.arange(count) % 2
    mask = numpy.zeros((count, LENGTH), dtype=bool)
    burst = numpy.sin(numpy.arange(EVENT) * 2 * numpy.pi / 4) * numpy.hanning(EVENT) * 2
    for row in numpy.flatnonzero(target):
        start = random.integers(0, LENGTH - EVENT)
        mask[row, start : start + EVENT] = True
        values[row, 0, start : start + EVENT] += burst
    return torch.tensor(values).float(), torch.tensor(target), torch.tensor(mask)


def events():
    """A 1-d convolution that tells whether there is an event, and signals it has not seen."""
    inputs, target, _ = signals(600, seed=1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 8, 9, padding=4), nn.Softplus(), nn.Conv1d(8, 8, 9, padding=4), nn.Softplus(),
        nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    return fit(model, inputs, target, 120, rate=0.02), *signals(60, seed=2)
