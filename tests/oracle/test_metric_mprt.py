"""Smooth and efficient randomisation tests: slow replicas, Quantus, and models of known truth."""

import copy
import math
import warnings

import pytest
import torch
from scipy import stats
from torch import nn

from unilens import Evaluator, evaluate, explain
from unilens.metrics import EfficientRandomisation, SmoothRandomisation, metrics
from unilens.metrics.sanity.layers import layers_of, randomised

from .test_metric_sanity import LAYERS, alike, edge_detector, gradient, linear_of

NAMES = ("smooth_mprt", "efficient_mprt")


class Noted:
    """A method that keeps the models and the inputs that it is called with."""

    def __init__(self, method=gradient):
        self.method, self.calls = method, []

    def __call__(self, model, inputs, target):
        self.calls.append((copy.deepcopy(model), inputs.detach().clone()))
        return self.method(model, inputs, target)


class InDouble(nn.Module):
    """Takes inputs of single precision, in which Quantus asks for outputs."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        return self.inner(inputs.double())


@pytest.fixture
def pictures():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(4)).double()


def test_smooth_mprt_equals_means_over_noisy_inputs(small_net, images):
    maps, noted = explain(small_net, images, "gradient", score="logit"), Noted()
    found = SmoothRandomisation(samples=3)(small_net, images, maps, method=noted, seed=3)
    inputs = torch.stack([given for _, given in noted.calls]).view(6, 3, *images.shape)
    assert torch.equal(inputs, inputs[:1].expand_as(inputs)), "the same noise for every model"

    def mean_map(model):
        target = maps.target
        return sum(gradient(model, points.clone(), target).detach() for points in inputs[0]) / 3

    original = mean_map(small_net)
    for stage, name in enumerate(LAYERS):
        other = randomised(small_net, LAYERS[: stage + 1], 3)
        expected = [alike(*pair) for pair in zip(original, mean_map(other), strict=True)]
        assert found.breakdown[name].tolist() == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(found.values, found.details["curve"].mean(1))


def test_smooth_mprt_draws_noise_in_units_of_the_range(small_net, images):
    images[1] *= 0.1
    noted = Noted()
    SmoothRandomisation(samples=40, noise=0.2, layers=1)(
        small_net, images, images, method=noted, target=0
    )
    noise = torch.stack([given for _, given in noted.calls[:40]]) - images
    ranges = images.flatten(1).amax(1) - images.flatten(1).amin(1)
    for row in range(len(images)):
        drawn = (noise[:, row] / ranges[row]).flatten().numpy()
        assert drawn.std() == pytest.approx(0.2, rel=0.02)
        assert stats.kstest(drawn / 0.2, "norm").pvalue > 0.001
    assert (noise[0] != noise[1]).all()


@pytest.mark.parametrize("bins", [100, 7])
@pytest.mark.parametrize("reduction", ["sum", "abs"])
def test_efficient_mprt_equals_slow_replica(bins, reduction, small_net, images):
    maps = explain(small_net, images, "gradient", score="logit")
    metric = EfficientRandomisation(bins=bins, reduction=reduction)
    found = metric(small_net, images, maps, method=gradient, seed=3)
    other = randomised(small_net, LAYERS, 3)
    assert layers_of(Evaluator(small_net), images[:1]) == LAYERS
    theirs = gradient(other, images.clone(), maps.target).detach()

    def entropy(values):
        reduced = (values.abs() if reduction == "abs" else values).sum(0).flatten().tolist()
        low, high, counts = min(reduced), max(reduced), [0] * bins
        for value in reduced:
            counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
        shares = [count / len(reduced) for count in counts if count]
        return -sum(share * math.log(share) for share in shares)

    for row in range(len(images)):
        before, after = entropy(maps.values[row]), entropy(theirs[row])
        assert float(found.breakdown["original"][row]) == pytest.approx(before, abs=1e-9)
        assert float(found.breakdown["randomised"][row]) == pytest.approx(after, abs=1e-9)
        assert float(found.values[row]) == pytest.approx((after - before) / before, abs=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_efficient_mprt_equals_quantus(small_net, images, monkeypatch):
    """Quantus draws other weights: it is given a generator of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus")
        from quantus.helpers.model.pytorch_model import PyTorchModel
    other, target = InDouble(randomised(small_net, LAYERS, 3)).eval(), torch.tensor([2] * 8)
    monkeypatch.setattr(PyTorchModel, "random_layer_generator_length", 1)
    monkeypatch.setattr(
        PyTorchModel, "get_random_layer_generator", lambda *_, **__: iter([("all", other)])
    )

    def summed(model, inputs, targets, **_):
        labels = torch.as_tensor(targets)
        found = gradient(model, torch.as_tensor(inputs).double(), labels).detach()
        return found.sum(1, keepdim=True).numpy()

    metric = quantus.EfficientMPRT(disable_warnings=True)
    expected = metric(
        model=InDouble(small_net).eval(),
        x_batch=images.numpy(),
        y_batch=target.numpy(),
        explain_func=summed,
        softmax=True,  # it takes the entropy of outputs too
        device="cpu",
    )
    maps = gradient(small_net, images.clone(), target).detach()
    found = evaluate(
        small_net, images, maps, "efficient_mprt", method=gradient, target=target, seed=3
    )
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_smooth_mprt_is_worst_for_an_edge_detector(pictures):
    model, target = linear_of(pictures), torch.zeros(3, dtype=torch.long)

    def value(method):
        maps = method(model, pictures.clone(), target).detach()
        given = {"method": method, "target": target, "samples": 4}
        return evaluate(model, pictures, maps, "smooth_mprt", **given)

    def half(model, inputs, target):
        slope = gradient(model, inputs, target).detach()
        edges = edge_detector(model, inputs, target)
        return slope.abs() / slope.abs().mean() + edges / edges.mean()

    perfect, middle, worst = value(gradient), value(half), value(edge_detector)
    assert not metrics["smooth_mprt"].card.higher_is_better
    assert float(perfect.abs().max()) < 0.15
    assert (perfect + 0.2 < middle).all()
    assert (middle + 0.1 < worst).all()
    assert torch.allclose(worst, torch.ones(3).double())


def test_efficient_mprt_ranks_learned_unmoved_inverted(pictures):
    """A map of few values that becomes noise, one that stays, noise that becomes few values."""
    model, target = linear_of(pictures), torch.zeros(3, dtype=torch.long)
    learned = model[1].weight.detach().clone()

    def concise(model, inputs, target):
        noisy = gradient(model, inputs, target).detach()
        same = torch.equal(model[1].weight, learned)
        return noisy.sign() * (noisy.abs() > 2) if same else noisy

    def inverted(model, inputs, target):
        noisy = gradient(model, inputs, target).detach()
        same = torch.equal(model[1].weight, learned)
        return noisy if same else noisy.sign() * (noisy.abs() > 2)

    rise = []
    for method in (concise, edge_detector, inverted):
        maps = method(model, pictures.clone(), target).detach()
        rise.append(evaluate(model, pictures, maps, "efficient_mprt", method=method, target=target))
    assert metrics["efficient_mprt"].card.higher_is_better
    assert (rise[0] > 0.5).all()
    assert torch.equal(rise[1], torch.zeros(3).double())
    assert (rise[2] < -0.2).all()


@pytest.mark.parametrize("name", NAMES)
def test_mprt_is_nan_where_there_is_no_map(name, small_net, images):
    def fails(model, inputs, target):
        if not torch.equal(model.head.weight, small_net.head.weight):
            raise RuntimeError("no map")
        return gradient(model, inputs, target)

    def flat(model, inputs, target):
        same = torch.equal(model.head.weight, small_net.head.weight)
        return gradient(model, inputs, target) if same else torch.ones_like(inputs)

    settings = {"samples": 2} if name == "smooth_mprt" else {}
    maps = explain(small_net, images, "gradient").values
    maps[0], maps[1] = 0, 3
    for method in (gradient, fails, flat):
        found = metrics[name](**settings)(small_net, images, maps, method=method)
        expected = [True, True] + [method is not gradient] * 6
        assert found.values.isnan().tolist() == expected
    assert found.reasons[2] == metrics[name](**settings).undefined_where
    assert found.reasons[0] == "the map is the same everywhere"


def test_mprt_declares_cost():
    assert SmoothRandomisation(samples=4, layers=2).explanations == 12
    assert EfficientRandomisation().explanations == 1
