"""Every method on volumes (B, C, D, H, W), by a network with batch norm, strides and pooling."""

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from torch import nn

from unilens import explain
from unilens.errors import NotApplicableError
from unilens.methods import methods

FEW = {
    "rise": {"n_masks": 20, "cells": 3},
    "sobol": {"designs": 4, "cells": 2},
    "agi": {"classes": 2, "iterations": 3, "n_steps": 4},
    "ig2": {"iterations": 3, "n_steps": 3},
    "fringe_b": {"waypoints": 3, "n_steps": 4},
    "smoothgrad": {"n_samples": 2},
}
REFUSED = {
    "sig": r"images \(B, C, H, W\) or signals \(B, C, L\) to decompose",
    "edges": "other inputs have no edges",
    "neutral": "a chain of Linear",
    **dict.fromkeys(("rollout", "gradient_rollout", "legrad"), "softmax attention among tokens"),
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv3d(2, 4, 3, stride=2, padding=1), nn.BatchNorm3d(4), nn.ReLU(inplace=True)),
        *(nn.MaxPool3d(2), nn.Conv3d(4, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU()),
        *(nn.Dropout3d(0.2), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 3)),
    ).double()
    for _ in range(3):
        model(torch.randn(4, 2, 9, 12, 14).double())
    return model.eval()


@pytest.fixture(scope="module")
def volumes():
    return torch.rand(2, 2, 9, 12, 14, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("name", sorted(methods))
def test_methods_explain_volumes_or_say_why_not(name, network, volumes):
    settings = dict(FEW.get(name, {}))
    if "references" in methods[name].settings_with({}):
        settings["references"] = 20 * torch.cat([volumes, -volumes])  # of several classes
    if name in REFUSED:
        with pytest.raises(NotApplicableError, match=REFUSED[name]) as caught:
            explain(network, volumes, name, 1, **settings)
        assert "\n" not in str(caught.value)
        return
    found = explain(network, volumes, name, 1, **settings)
    assert found.values.shape == volumes.shape
    assert found.values.isfinite().all()
    assert found.values.abs().flatten(1).max(1).values.min() > 0
    single = explain(network, volumes[1:], name, 1, **settings)
    tolerance = 1e-7 * float(single.values.abs().max())
    assert torch.allclose(found.values[1:], single.values, rtol=1e-7, atol=tolerance)


def test_integrated_gradients_of_a_volume_are_captums(network, volumes):
    found = explain(network, volumes, "ig", 1, n_steps=20, score="logit").values
    expected = IntegratedGradients(network).attribute(
        volumes, torch.zeros_like(volumes), target=1, n_steps=20, method="gausslegendre"
    )
    assert torch.allclose(found, expected, rtol=0, atol=1e-8 * float(expected.abs().max()))


def test_gradcam_of_a_volume_is_captums(network, volumes):
    found = explain(network, volumes, "gradcam", 1, layer="4", score="logit", relu=False).values
    expected = LayerGradCam(network, network[4]).attribute(volumes, target=1)
    expected = nn.functional.interpolate(expected, volumes.shape[2:], mode="trilinear")
    assert torch.allclose(found.sum(1, keepdim=True), expected, rtol=1e-9, atol=1e-12)


def test_occlusion_of_a_volume_is_captums(network, volumes):
    found = explain(network, volumes, "occlusion", 1, window=3, stride=3, score="logit").values
    expected = Occlusion(network).attribute(
        volumes, sliding_window_shapes=(2, 3, 3, 3), strides=(2, 3, 3, 3), target=1
    )
    full = (slice(None), slice(None), slice(9), slice(12), slice(12))  # its last window is cut off
    found, expected = 2 * found[full], expected[full].double()  # captum's are float32
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-8)
