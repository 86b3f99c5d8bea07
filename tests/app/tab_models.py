"""Models of known truth that the page is opened with: a table of twelve columns, a forecast."""

import numpy
import pandas
import torch
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import nn

CITIES = ("Oslo", "Rome", "Lima")
LAG = 3


def people(rows=60, seed=0):
    """Return rows of which `city` and `age` alone decide, with ten columns of noise."""
    random = numpy.random.default_rng(seed)
    frame = pandas.DataFrame(
        {"city": random.choice(CITIES, rows), "age": random.normal(40, 9, rows)}
    )
    for number in range(10):
        frame[f"noise {number}"] = random.normal(size=rows).round(3)
    return frame


def table():
    """Return a classifier whose classes are decided by `city` and `age`."""
    frame = people(400, 1)
    labels = numpy.where((frame.city == "Rome") | (frame.age > 48), "buys", "leaves")
    encoder = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    estimator = make_pipeline(encoder, LogisticRegression(C=100.0, max_iter=5000))
    return estimator.fit(frame, labels)


class Forecast(nn.Module):
    """From `(B, T, 2)` to `(B, 4, 2)`: each channel from its own value of three steps ago."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 0.8, 0.6, 0.4]))

    def forward(self, series):
        if series.shape[2] != 2:
            raise ValueError(f"2 channels are expected, got {series.shape[2]}")
        return self.weights[:, None] * series[:, -LAG, None]


def series():
    """Return a forecaster."""
    return Forecast().eval()


def signals(steps=24, seed=0):
    """Return a series of two channels with a column of times."""
    random = numpy.random.default_rng(seed)
    frame = pandas.DataFrame(random.normal(1, 0.3, (steps, 2)).round(3), columns=["load", "wind"])
    frame.insert(0, "time", pandas.date_range("2024-01-01", periods=steps, freq="h").astype(str))
    return frame
