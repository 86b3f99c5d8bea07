"""Quantus runs on our maps, and says of them what it says of the same maps by captum."""

import warnings

import numpy
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

import unilens
from unilens import UnilensError
from unilens.interop.quantus import explain_func

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


@pytest.fixture
def batch():
    random = numpy.random.default_rng(0)
    return random.random((3, 3, 8, 8), dtype=numpy.float32), numpy.array([0, 3, 2])


METRICS = {
    "deletion": quantus.PixelFlipping(
        features_in_step=8, perturb_baseline="black", disable_warnings=True
    ),
    "sensitivity": quantus.MaxSensitivity(nr_samples=2, disable_warnings=True),
    "sparseness": quantus.Sparseness(disable_warnings=True),
}


def captums(model, inputs, targets, **_):
    points = torch.as_tensor(inputs, dtype=torch.float32)
    method = IntegratedGradients(lambda x: model(x).softmax(1))
    found = method.attribute(points, target=torch.as_tensor(targets), n_steps=50)
    return found.detach().numpy()


def test_quantus_evaluate_equals_that_of_captum_maps(model, batch, capsys):
    ours, theirs = (
        quantus.evaluate(
            metrics=METRICS,
            xai_methods={"ig": function},
            model=model,
            x_batch=batch[0],
            y_batch=batch[1],
            explain_func_kwargs={"device": "cpu"},
            call_kwargs={"once": {"device": "cpu"}},
        )["ig"]
        for function in (explain_func, captums)
    )
    assert "Failed" not in capsys.readouterr().out
    for name in ("deletion", "sparseness"):
        numpy.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3)
    assert len(ours["sensitivity"]) == 3
    assert numpy.isfinite(ours["sensitivity"]).all()


def test_quantus_evaluate_takes_method_names(model, batch, capsys):
    found = quantus.evaluate(
        metrics={"sparseness": METRICS["sparseness"], "sensitivity": METRICS["sensitivity"]},
        xai_methods={"uni_blur": explain_func, "gradient": explain_func},
        model=model,
        x_batch=batch[0],
        y_batch=batch[1],
        explain_func_kwargs={"seed": 1},
    )
    assert "Failed" not in capsys.readouterr().out
    for name in ("uni_blur", "gradient"):
        assert numpy.isfinite(found[name]["sparseness"]).all()
        assert numpy.isfinite(found[name]["sensitivity"]).all()
    assert found["uni_blur"]["sparseness"] != found["gradient"]["sparseness"]


def test_quantus_function_equals_explain(model, batch):
    inputs, targets = map(torch.as_tensor, batch)
    found = explain_func(model, *batch, method="ig", n_steps=8)
    expected = unilens.explain(model, inputs, "ig", targets, n_steps=8)
    assert isinstance(found, numpy.ndarray)
    assert numpy.array_equal(found, expected.values.numpy())
    wide = explain_func(model, batch[0].astype(float), batch[1], method="ig", n_steps=8)
    assert numpy.array_equal(wide, found)


def test_quantus_function_refuses_another_device(model, batch):
    with pytest.raises(UnilensError, match="device to be the model's, cpu, got cuda; move"):
        explain_func(model, *batch, device="cuda")
