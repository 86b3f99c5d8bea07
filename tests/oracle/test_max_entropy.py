"""The baseline of maximum entropy against a slow search by torch's own Adam."""

import pytest
import torch
from torch import nn

from unilens import UnilensError, explain
from unilens._engine.evaluator import Evaluator
from unilens._ops.random import per_input
from unilens.baselines import Adversarial, MaxEntropy


def find(baseline, model, inputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    evaluator = Evaluator(model)
    return baseline(evaluator, inputs, evaluator(inputs).argmax(-1), generator=generator)


def entropy_gap(model, x):
    probabilities = model(x).softmax(-1)[0]
    uniform = torch.full_like(probabilities, 1 / len(probabilities))
    return (probabilities * (probabilities / uniform).log()).sum()


def slow(model, x, start, learning_rate=0.01, iterations=50, bounds=None):
    """One input (1, *S), by the optimiser of the library and the plain formula of KL."""
    values = start.clone().requires_grad_()
    adam = torch.optim.Adam([values], lr=learning_rate)
    gaps = []
    for _ in range(iterations):
        adam.zero_grad()
        gap = entropy_gap(model, values)
        gap.backward()
        gaps.append(float(gap.detach()))
        adam.step()
        if bounds:
            with torch.no_grad():
                values.clamp_(*bounds)
    gaps.append(float(entropy_gap(model, values).detach()))
    return values.detach(), gaps


@pytest.mark.parametrize("start", ["input", "black", "noise"])
@pytest.mark.parametrize("settings", [{}, {"iterations": 7, "learning_rate": 0.2}])
def test_max_entropy_equals_torch_adam(start, settings, small_net, images):
    found = find(MaxEntropy(start=start, bounds=(-1, 3), **settings), small_net, images, seed=5)
    for i in (0, 5):
        x = images[i : i + 1]
        generator = torch.Generator().manual_seed(5)
        noise = per_input(x, generator, lambda g: torch.rand(3, 13, 11, generator=g))
        begin = {"input": x, "black": torch.zeros_like(x), "noise": 4 * noise - 1}[start]
        expected, gaps = slow(small_net, x, begin, **settings)
        assert found.values[i].numpy() == pytest.approx(expected[0].numpy(), abs=1e-8)
        assert found.record["entropy_gap"][i].tolist() == pytest.approx(gaps, abs=1e-9)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [(MaxEntropy(), True), (MaxEntropy(start="black"), False), (Adversarial(), True)],
)
def test_search_says_whether_it_starts_at_the_input(baseline, expected, small_net, images):
    assert baseline.starts_at_input(Evaluator(small_net), images) is expected


def test_max_entropy_clamp_keeps_baseline_in_box(small_net, images):
    settings = {"iterations": 9, "learning_rate": 0.3}
    free = find(MaxEntropy(**settings), small_net, images).values
    assert float(free.min()) < 0
    boxed = find(MaxEntropy(clamp=True, **settings), small_net, images).values
    assert float(boxed.min()) >= 0
    assert float(boxed.max()) <= 1
    expected, _ = slow(small_net, images[:1], images[:1], bounds=(0, 1), **settings)
    assert boxed[:1].numpy() == pytest.approx(expected.numpy(), abs=1e-8)


def test_max_entropy_makes_output_uniform_and_records_gap(linear):
    inputs = torch.rand(8, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    settings = {"baseline": "max_entropy", "learning_rate": 0.05, "iterations": 200}
    found = explain(linear, inputs, "ig", **settings)
    gaps = found.record["entropy_gap"]
    assert gaps.shape == (8, 201)
    assert float(gaps[:, -1].max()) < 1e-6 < 0.01 < float(gaps[:, 0].min())
    outputs = linear(found.baseline).softmax(-1).detach()
    assert outputs.numpy() == pytest.approx(0.25, abs=1e-3)
    entropy = -(outputs * outputs.log()).sum(-1)
    expected = torch.log(torch.tensor(4.0)) - entropy
    assert gaps[:, -1].tolist() == pytest.approx(expected.tolist(), abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_max_entropy_does_not_depend_on_batch(dtype, small_net, images):
    model, inputs = small_net.to(dtype), images.to(dtype)
    together = find(MaxEntropy(), model, inputs).values
    for i in (0, 3, 7):
        assert torch.equal(find(MaxEntropy(), model, inputs[i : i + 1]).values[0], together[i])


def test_max_entropy_moves_single_logit_to_zero():
    model = nn.Linear(4, 1).eval()
    settings = {"baseline": "max_entropy", "iterations": 300}
    found = explain(model, torch.rand(2, 4), "ig", **settings, score="logit")
    assert float(found.baseline_score.abs().max()) < 0.05
    with pytest.raises(UnilensError, match="expected outputs with probabilities of classes"):
        explain(model, torch.rand(2, 4), "ig", **settings, outputs="regression")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "blur"}, "start to be one of input, black, noise, got 'blur'"),
        ({"learning_rate": 0}, "learning_rate to be a finite number above 0"),
        ({"iterations": 0}, "iterations to be a whole number of at least 1, got 0"),
        ({"clamp": "yes"}, "clamp true or false, got 'yes'"),
        ({"bounds": (1, 0)}, "bounds to be"),
    ],
)
def test_max_entropy_refuses_wrong_settings(settings, message):
    with pytest.raises(UnilensError, match=message):
        MaxEntropy(**settings)
