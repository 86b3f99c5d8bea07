"""On models of which it is known what they read, the maps lie there; those of a control do not."""

import pytest
import torch

from unilens import explain, scores

from ..known_truth import (
    ChannelClassifier,
    CornerDetector,
    CubeClassifier,
    LagForecast,
    LagForecaster,
    SquareSegmenter,
    share_on_truth,
)

REGION, CORNER = torch.ones(10, 10), torch.tensor([0.0, 0.0, 8.0, 8.0])
MODELS = {
    "volume": (CubeClassifier, (1, 14, 16, 18), {}),
    "small cube": (lambda: CubeClassifier((16, 16, 16), (5, 5, 5), 5), (1, 16, 16, 16), {}),
    "lag": (LagForecast, (20, 4), {"channels": "last"}),
    "channel": (ChannelClassifier, (5, 24), {"channels": "first"}),
    "segmentation": (SquareSegmenter, (3, 20, 20), {"score": scores.segmentation(1, REGION)}),
    "detection": (CornerDetector, (3, 20, 20), {"score": scores.detection(CORNER, 2)}),
    "forecast": (LagForecaster, (20, 4), {"score": scores.forecast(4, 1), "channels": "last"}),
}


def shares(kind, method, seed=0):
    """Return the share of the map on the truth, for each of twelve inputs."""
    build, shape, settings = MODELS[kind]
    model = build()
    inputs = torch.randn(12, *shape, generator=torch.Generator().manual_seed(1))
    if kind == "volume":
        inputs = 0.1 * inputs + model.truth.float()  # a bright cube in noise
    found = explain(model, inputs, method, seed=seed, **settings)
    return torch.tensor([share_on_truth(values, model.truth) for values in found.values])


@pytest.mark.parametrize("method", [None, "uni_blur", "ig"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_strongest_tenth_lies_on_the_truth(kind, method):
    assert shares(kind, method).min() >= 0.9


@pytest.mark.parametrize("kind", MODELS)
def test_the_strongest_tenth_of_the_control_does_not(kind):
    assert torch.stack([shares(kind, "random", seed) for seed in range(4)]).mean() < 0.3


def test_share_on_truth_counts_the_strongest_positions():
    truth = torch.zeros(5, 8, dtype=torch.bool)
    truth[0, :4], values = True, torch.zeros(5, 8)
    values[0, :2], values[1, :2] = -5.0, 4.0
    assert share_on_truth(values, truth) == 0.5  # a tenth, 4 of 40
    truth[0, 2:] = False
    assert share_on_truth(values, truth) == 1.0  # as many as the truth has, 2
