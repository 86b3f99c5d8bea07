"""Neutral baselines against loops over neurons and paths in numpy, one at a time."""

import itertools
import pickle

import numpy
import pytest
import torch
from torch import nn

from unilens import Evaluator, UnilensError, explain
from unilens.errors import NotApplicableError
from unilens.methods import Neutral, Smoothed

from ..conftest import randomise

LINKS = {
    nn.ReLU: lambda z: max(z, 0.0),
    nn.Sigmoid: lambda z: 1 / (1 + numpy.exp(-z)),
    nn.Tanh: numpy.tanh,
    nn.Softplus: lambda z: numpy.log1p(numpy.exp(z)),
    nn.LeakyReLU: lambda z: z if z > 0 else 0.01 * z,
    nn.ELU: lambda z: z if z > 0 else numpy.expm1(z),
    nn.Identity: lambda z: z,
}
SLOPES = {
    nn.ReLU: lambda z: float(z > 0),
    nn.Sigmoid: lambda z: LINKS[nn.Sigmoid](z) * (1 - LINKS[nn.Sigmoid](z)),
    nn.Tanh: lambda z: 1 - numpy.tanh(z) ** 2,
    nn.Softplus: lambda z: LINKS[nn.Sigmoid](z),
    nn.LeakyReLU: lambda z: 1.0 if z > 0 else 0.01,
    nn.ELU: lambda z: 1.0 if z > 0 else numpy.exp(z),
    nn.Identity: lambda z: 1.0,
}


def mlp(link, sizes=(6, 4, 3), outputs=1):
    parts = []
    for before, after in itertools.pairwise(sizes):
        parts += [nn.Linear(before, after), link()]
    return randomise(nn.Sequential(*parts, nn.Linear(sizes[-1], outputs)).double(), seed=2)


def centred(model, references):
    """Scale and move the outputs so that references lie well on both sides of a decision."""
    with torch.no_grad():
        model[-1].weight *= 20
        model[-1].bias -= model(references).mean(0)
    return model


def table(count, features=6, seed=1):
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed)).double()


class Slow:
    """The method written out for one input: a recursion over neurons, without any tensor."""

    def __init__(self, model, link, references, reference, target=None):
        linear = [part for part in model if isinstance(part, nn.Linear)]
        self.weights = [part.weight.detach().numpy().copy() for part in linear]
        self.biases = [part.bias.detach().numpy().copy() for part in linear]
        if target is not None:
            sign = 1 if target == 1 else -1
            self.weights[-1] = sign * (self.weights[-1][1:] - self.weights[-1][:1])
            self.biases[-1] = sign * (self.biases[-1][1:] - self.biases[-1][:1])
        self.link, self.slope = LINKS[link], SLOPES[link]
        self.known = [references.numpy()]
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[:-1]:
            sums = self.known[-1] @ weight.T + bias
            self.known.append(numpy.vectorize(self.link)(sums))
        self.root = self.neuron(len(self.weights) - 1, 0, reference)

    def activate(self, layer, z):
        return z if layer == len(self.weights) - 1 else self.link(z)

    def neuron(self, layer, j, reference):
        """The baselines of a neuron's inputs, each a number or a neuron of its own."""
        weight, bias = self.weights[layer][j], self.biases[layer][j]

        def at(p):
            columns = self.known[layer].T
            return [
                numpy.quantile(column, p if w >= 0 else 1 - p)
                for column, w in zip(columns, weight, strict=True)
            ]

        def value(p):
            return self.activate(layer, float(numpy.dot(at(p), weight)) + bias)

        def first(holds):
            low, high = 0.0, 1.0
            for _ in range(55):
                middle = (low + high) / 2
                low, high = (low, middle) if holds(value(middle)) else (middle, high)
            return high

        least, most = first(lambda v: v >= reference), first(lambda v: v > reference)
        found = at(min(max(0.5, least), max(least, most)))
        if layer == 0:
            return found
        return [self.neuron(layer - 1, i, value) for i, value in enumerate(found)]

    def evaluate(self, x, t):
        """The value on the line at t, and its derivatives times the ways, per feature."""
        return self._evaluate(len(self.weights) - 1, 0, self.root, x, t)

    def _evaluate(self, layer, j, own, x, t):
        weight = self.weights[layer][j]
        if layer == 0:
            below = [c + t * (value - c) for c, value in zip(own, x, strict=True)]
            inner = numpy.diag([value - c for c, value in zip(own, x, strict=True)])
        else:
            results = [self._evaluate(layer - 1, i, part, x, t) for i, part in enumerate(own)]
            below, inner = (
                [value[0] for value in results],
                numpy.array([value[1] for value in results]),
            )
        z = float(numpy.dot(below, weight)) + self.biases[layer][j]
        slope = 1.0 if layer == len(self.weights) - 1 else self.slope(z)
        return self.activate(layer, z), slope * (weight @ inner)

    def values(self, x, n_steps):
        """Integrated gradients by the midpoint rule."""
        nodes = (numpy.arange(n_steps) + 0.5) / n_steps
        return sum(self.evaluate(x, t)[1] for t in nodes) / n_steps

    def leaves(self, own=None):
        own = self.root if own is None else own
        if not isinstance(own[0], list):
            return [own]
        return [leaf for part in own for leaf in self.leaves(part)]


@pytest.mark.slow
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("neutral_value", [0.5, 0.3])
def test_neutral_equals_loop_over_paths(link, neutral_value):
    model, references, inputs = mlp(link), table(9), table(2, seed=4)
    settings = {"references": references, "neutral_value": neutral_value, "n_steps": 8}
    found = explain(model, inputs, "neutral", rule="midpoint", **settings)
    reference = numpy.log(neutral_value / (1 - neutral_value))
    slow = Slow(model, link, references, reference)
    assert len(slow.leaves()) == 12
    for i, x in enumerate(inputs.numpy()):
        assert found.values[i].numpy() == pytest.approx(slow.values(x, 8), rel=1e-7, abs=1e-9)
        assert float(found.baseline_score[i]) == pytest.approx(slow.evaluate(x, 0.0)[0], abs=1e-9)
        mean = numpy.mean(slow.leaves(), axis=0)
        assert found.baseline[i].numpy() == pytest.approx(mean, abs=1e-9)
        assert float(found.score[i]) == pytest.approx(slow.evaluate(x, 1.0)[0], abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0, 1, None])
def test_neutral_explains_margin_of_two_outputs(target):
    references, inputs = table(9), table(5, seed=4)
    model = centred(mlp(nn.Tanh, outputs=2), references)
    settings = {"references": references, "neutral_value": 0.4, "n_steps": 8, "rule": "midpoint"}
    found = explain(model, inputs, "neutral", target, **settings)
    outputs = model(inputs).detach()
    assert target is not None or found.target.unique().tolist() == [0, 1]
    for i, x in enumerate(inputs.numpy()):
        one = int(found.target[i])
        slow = Slow(model, nn.Tanh, references, numpy.log(0.4 / 0.6), target=one)
        assert found.values[i].numpy() == pytest.approx(slow.values(x, 8), rel=1e-7, abs=1e-9)
        margin = float(outputs[i, one] - outputs[i, 1 - one])
        assert float(found.score[i]) == pytest.approx(margin, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_neutral_output_at_baseline_and_completeness(link, dtype):
    references = table(60).to(dtype)
    model = centred(mlp(link, (6, 8, 5, 3)).to(dtype), references)
    exact = 1e-12 if dtype == torch.float64 else 1e-5
    for neutral_value in (0.5, 0.48):
        settings = {"references": references, "neutral_value": neutral_value}
        found = explain(model, table(4, seed=4).to(dtype), "neutral", n_steps=100, **settings)
        assert found.values.dtype == dtype
        logit = numpy.log(neutral_value / (1 - neutral_value))
        assert found.baseline_score.numpy() == pytest.approx(logit, abs=exact)
        # Gauss-Legendre is at home with smooth links; a kink leaves an error of O(1/n).
        smooth = link not in (nn.ReLU, nn.LeakyReLU, nn.ELU)
        assert float(found.completeness_gap.abs().max()) < (100 * exact if smooth else 0.05)
        assert float((found.score - found.baseline_score).abs().max()) > 0.02


def test_neutral_out_of_reach_takes_closest_quantile():
    model, references = mlp(nn.Sigmoid), table(9)
    found = explain(model, table(2, seed=4), "neutral", references=references, neutral_value=0.9999)
    last = model[-1].weight.detach()[0]
    hidden = model[:-1](references).detach()
    best = torch.where(last >= 0, hidden.amax(0), hidden.amin(0)) @ last + model[-1].bias.detach()
    assert found.baseline_score.tolist() == pytest.approx([float(best)] * 2, abs=1e-12)
    assert float(best) < numpy.log(0.9999 / 0.0001) - 1


def test_neutral_without_hidden_layers_is_weight_times_distance():
    model, references, inputs = randomise(nn.Linear(6, 1).double()), table(30), table(3, seed=4)
    found = explain(model, inputs, "neutral", references=references)
    expected = model.weight.detach() * (inputs - found.baseline)
    assert found.values.numpy() == pytest.approx(expected.numpy(), abs=1e-13)
    assert model(found.baseline).detach().numpy() == pytest.approx(0, abs=1e-13)


class Written(nn.Module):
    """An MLP as people write them: functions between the layers, names of their own."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False), nn.Dropout(0.5))
        self.head = nn.Linear(4, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, inputs):
        hidden = torch.tanh(self.body(inputs))
        return self.out(nn.functional.relu(self.head(torch.flatten(hidden, 1)), inplace=True))


def test_neutral_reads_perceptron_from_trace():
    model = randomise(Written().double())
    inputs, references = table(3, seed=4).view(3, 2, 3), table(20).view(20, 2, 3)
    found = explain(model, inputs, "neutral", references=references)
    flat = nn.Sequential(
        model.body[1], nn.Tanh(), nn.Identity(), model.head, nn.ReLU(), model.out
    ).eval()
    again = explain(flat, inputs.flatten(1), "neutral", references=references.flatten(1))
    assert found.values.shape == found.baseline.shape == (3, 2, 3)
    assert torch.equal(found.values.flatten(1), again.values)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_neutral_on_batch_equals_loop_and_keeps_model(outputs, dtype):
    model, inputs = mlp(nn.ReLU, (6, 7, 5), outputs).to(dtype), table(8, seed=4).to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method = Neutral(table(20))
    together = method(model, inputs)
    for i in (0, 5):
        assert torch.equal(method(model, inputs[i : i + 1]).values[0], together.values[i])
    again = pickle.loads(pickle.dumps(method))(model, inputs)
    assert torch.equal(again.values, together.values)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [type(part) for part in model] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert all(value.requires_grad and value.grad is None for value in model.parameters())


def test_neutral_takes_inputs_of_another_dtype_and_layout():
    references = table(30)
    model = centred(mlp(nn.Tanh), references)
    neutral = Neutral(references=references)
    rows = table(6, features=4, seed=5).T
    found, expected = neutral(model, rows), neutral(model, rows.contiguous())
    assert torch.equal(found.values, expected.values)
    single = neutral(model.float(), rows)
    assert torch.allclose(single.values, expected.values.to(single.values), atol=1e-4)


def test_neutral_counts_passes(monkeypatch):
    counted = {"forward": 0, "backward": 0}
    outputs, differentiate = Evaluator.outputs, Evaluator.differentiate

    def counting_outputs(self, points, **more):
        counted["forward"] += points.shape[0]
        return outputs(self, points, **more)

    def counting_differentiate(self, points, objective, **more):
        counted["forward"] += points.shape[0]
        counted["backward"] += points.shape[0]
        return differentiate(self, points, objective, **more)

    monkeypatch.setattr(Evaluator, "outputs", counting_outputs)
    monkeypatch.setattr(Evaluator, "differentiate", counting_differentiate)
    method = Neutral(table(20), n_steps=7)
    method(mlp(nn.Tanh), table(8, seed=4))
    assert tuple(counted.values()) == method.passes == (11, 7)


def test_neutral_can_be_smoothed():
    model, inputs = mlp(nn.Tanh), table(2, seed=4)
    found = Smoothed(Neutral(table(20)), n_samples=3, std=0.01)(model, inputs)
    assert torch.equal(found.score, model(inputs).detach()[:, 0])


def hooked():
    model = mlp(nn.Tanh)
    model[2].register_forward_hook(lambda module, args, output: 2 * output)
    return model


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, inputs):
        return self.two(inputs + self.one(inputs))


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 1)

    def forward(self, inputs):
        return self.one(inputs if inputs.sum() > 0 else -inputs)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 1)), r"got gelu in 1 \(GELU\)"),
        (
            nn.Sequential(nn.Linear(6, 4), nn.LeakyReLU(-1.0), nn.Linear(4, 1)),
            r"leaky_relu in 1 \(LeakyReLU\)",
        ),
        (
            nn.Sequential(nn.Sequential(nn.LayerNorm(6)), nn.Linear(6, 1)),
            r"layer_norm in 0\.0 \(LayerNorm\)",
        ),
        (nn.Sequential(nn.Tanh(), nn.Linear(6, 1)), r"got tanh in 0 \(Tanh\)"),
        (nn.Sequential(nn.Linear(6, 1), nn.Sigmoid()), r"got Sigmoid\(\) at the end"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), "one output or two, got 3 outputs"),
        (Branch(), "got add in the model, not in line"),
        (Loop(), r"got linear in one \(Linear\), not in line"),
        (hooked(), r"got mul in 2 \(Linear\)"),
        (mlp(nn.ReLU, (6, 300, 200)), "at most 200000 copied inputs, got 6 x 300 x 200 = 360000"),
    ],
)
def test_neutral_refuses_other_models(model, message):
    with pytest.raises(NotApplicableError, match=message) as raised:
        explain(model.double().eval(), table(2), "neutral", references=table(9))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"neutral needs references=\(R, 6\)"),
        ({"references": table(9, 5)}, r"references of shape \(R, 6\), got \(9, 5\)"),
        ({"references": [1]}, r"references to be a tensor \(R, \*S\), R at least 1, got list"),
        ({"neutral_value": 1.0}, "neutral_value below 1, got 1.0"),
        ({"neutral_value": "half"}, "neutral_value to be a finite number above 0, got 'half'"),
        ({"n_steps": 0}, "n_steps to be a whole number of at least 1"),
        ({"rule": "simpson"}, "unknown rule 'simpson'"),
    ],
)
def test_neutral_refuses_wrong_settings(settings, message):
    with pytest.raises(UnilensError, match=message):
        explain(mlp(nn.Tanh), table(2), "neutral", **settings)
