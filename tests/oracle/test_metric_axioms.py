"""Non-sensitivity and input invariance: Quantus, slow replicas, and models of known truth."""

import warnings

import numpy
import pytest
import torch
from torch import nn

from unilens import UnilensError, evaluate, explain
from unilens.methods import methods
from unilens.metrics import metrics

from ..conftest import randomise
from .test_metric_mprt import InDouble
from .test_metric_road import Linear
from .test_metric_sanity import alike, edge_detector, gradient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus")

foreign = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture
def half_blind():
    """Rows of eight features, and a network that does not depend on three of them."""
    model = randomise(nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double())
    with torch.no_grad():
        model[0].weight[:, [1, 4, 7]] = 0
    rows = 0.2 + torch.rand(5, 8, generator=torch.Generator().manual_seed(2)).double()
    maps = torch.rand(5, 8, generator=torch.Generator().manual_seed(3)).double() - 0.4
    maps[:, [0, 1, 2]] = 0
    return model, rows, maps


@foreign
def test_non_sensitivity_equals_quantus(half_blind):
    model, rows, maps = half_blind
    metric = quantus.NonSensitivity(eps=1e-5, perturb_baseline=0.0, disable_warnings=True)
    theirs = metric(
        model=InDouble(nn.Sequential(nn.Flatten(), model)).eval(),
        x_batch=rows.numpy()[:, None, None],
        y_batch=numpy.ones(5, int),
        a_batch=maps.numpy()[:, None, None],
        channel_first=True,
        softmax=True,
        device="cpu",
    )
    found = metrics["non_sensitivity"](cells=None)(model, rows, maps, target=1)
    assert (8 * found.values).tolist() == pytest.approx(theirs)
    assert (8 * found.values).tolist() == [4] * 5  # features 0, 2, 4 and 7
    blind = [number in (1, 4, 7) for number in range(8)]
    assert found.details["score_is_indifferent"].tolist() == [blind] * 5


@pytest.mark.parametrize("imputer", ["black", "grey"])
def test_non_sensitivity_of_cells_equals_slow_replica(imputer, images):
    weight = torch.zeros(3, 13, 11).double()
    weight[:, 3:9, :6] = 0.3
    model, fill = Linear(weight).eval(), {"black": 0.0, "grey": 0.5}[imputer]
    maps = torch.randn(8, 3, 13, 11, generator=torch.Generator().manual_seed(8)).double()
    maps[:, :, :5] = 0
    rows, columns = numpy.arange(13) * 4 // 13, numpy.arange(11) * 4 // 11
    expected = []
    for image, one in zip(images, maps, strict=True):
        sums, changes = [], []
        for row in range(4):
            for column in range(4):
                cell = torch.from_numpy((rows == row)[:, None] & (columns == column)[None])
                without = torch.where(cell, fill, image)
                both = model(torch.stack([image, without])).softmax(-1)[:, 0].detach()
                changes.append(abs(float(both[0] - both[1])))
                sums.append(abs(float(one.sum(0)[cell].sum())))
        zeros = [[value <= 1e-5 * max(values) for value in values] for values in (sums, changes)]
        expected.append(sum(a != b for a, b in zip(*zeros, strict=True)) / 16)
    found = evaluate(model, images, maps, "non_sensitivity", cells=4, target=0, imputer=imputer)
    assert found.tolist() == pytest.approx(expected)
    assert min(expected) > 0
    assert max(expected) < 1


def test_non_sensitivity_ranks_perfect_random_worst(half_blind):
    model, rows, _ = half_blind
    perfect = gradient(model, rows.clone(), torch.zeros(5, dtype=torch.long)).detach()
    random = torch.rand(5, 8, generator=torch.Generator().manual_seed(3)).double()
    random[:, :4] = 0
    worst = (perfect == 0).double()
    values = [
        evaluate(model, rows, one, "non_sensitivity", cells=None, target=0)
        for one in (perfect, random, worst)
    ]
    assert metrics["non_sensitivity"].card.higher_is_better is False
    assert torch.equal(values[0], torch.zeros(5).double())
    assert ((values[0] < values[1]) & (values[1] < values[2])).all()
    assert torch.equal(values[2], torch.ones(5).double())


def test_non_sensitivity_is_nan_where_undefined(half_blind):
    model, rows, maps = half_blind
    maps[0], maps[1] = 0, 2
    rows[2] = 0  # nothing is left to remove
    found = evaluate(model, rows, maps, "non_sensitivity", cells=None, target=0)
    assert found.isnan().tolist() == [True, True, True, False, False]


class Shifted(nn.Module):
    """The model of shifted inputs, written by hand."""

    def __init__(self, inner, shift):
        super().__init__()
        self.inner, self.shift = inner, shift

    def forward(self, inputs):
        return self.inner(inputs - self.shift)


@pytest.mark.parametrize("shift", [-1, 0.25])
def test_input_invariance_equals_map_of_shifted_model(shift, small_net, images):
    method = methods["input_x_gradient"](score="logit")
    maps = method(small_net, images)
    found = metrics["input_invariance"](shift=shift)(small_net, images, maps, method=method)
    theirs = method(Shifted(small_net, shift).eval(), images + shift, maps.target).values
    expected = [alike(*pair, absolute=False) for pair in zip(maps.values, theirs, strict=True)]
    assert found.values.tolist() == pytest.approx(expected, abs=1e-9)


def test_input_invariance_tells_baselines_apart(small_net, images):
    """Gradients are invariant, and IG from the image's own mean; from black it is not."""

    def value(name, **settings):
        method = methods[name](score="logit", **settings)
        maps = method(small_net, images)
        return evaluate(small_net, images, maps, "input_invariance", method=method)

    still = value("gradient"), value("ig", baseline="image_mean", n_steps=4)
    moved = value("ig", baseline="black", n_steps=4), value("input_x_gradient")
    assert metrics["input_invariance"].card.higher_is_better
    assert all(torch.allclose(one, torch.ones(8).double()) for one in still)
    assert all((one < 0.99).all() for one in moved)


@foreign
def test_input_invariance_equals_map_of_quantus_model():
    """Quantus shifts the first layer's bias; its own perturbation leaves the input in place."""
    layers = nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)
    model = randomise(nn.Sequential(*layers))
    inputs = torch.rand(4, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    wrapped = quantus.helpers.model.pytorch_model.PyTorchModel(model)
    shifted = wrapped.add_mean_shift_to_first_layer(-1, (1, 1, 3, 4))
    target = torch.zeros(4, dtype=torch.long)

    def times_input(model, inputs, target):
        return inputs.detach() * gradient(model, inputs.clone(), target)

    for method in (gradient, times_input):
        maps = method(model, inputs.clone(), target).detach()
        found = evaluate(model, inputs, maps, "input_invariance", method=method, target=target)
        theirs = method(shifted, inputs - 1, target).detach()
        expected = [alike(*pair, absolute=False) for pair in zip(maps, theirs, strict=True)]
        assert found.tolist() == pytest.approx(expected, abs=1e-6)
        assert (found > 1 - 1e-6).all() == (method is gradient)


def test_axioms_refuse_wrong_settings_and_find_no_map(small_net, images):
    with pytest.raises(UnilensError, match="expected tolerance"):
        metrics["non_sensitivity"](tolerance=2)
    with pytest.raises(UnilensError, match="expected shift"):
        metrics["input_invariance"](shift=float("nan"))
    maps = explain(small_net, images, "gradient").values
    maps[0] = 0

    def flat(model, inputs, target):
        return (
            torch.ones_like(inputs) if inputs.mean() < 0 else edge_detector(model, inputs, target)
        )

    found = metrics["input_invariance"]()(small_net, images, maps, method=flat)
    assert found.values.isnan().all()
    assert found.reasons[1] == metrics["input_invariance"]().undefined_where
