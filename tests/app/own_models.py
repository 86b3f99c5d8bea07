"""Image models that are no classifiers of exclusive classes: one output, and labels."""

from types import SimpleNamespace

import torch
from torch import nn


class Labels(nn.Module):
    """Three labels, any number of which can apply, from the mean colour."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(problem_type="multi_label_classification", num_labels=3)
        self.scale = nn.Parameter(torch.tensor([4.0, 2.0, 1.0]))

    def forward(self, pixels):
        return (pixels.mean((2, 3)) - 0.3) * self.scale


def single():
    """Return a network with one output."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 1))


def labels():
    """Return a network of labels."""
    return Labels().eval()
