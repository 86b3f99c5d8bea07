"""MFABA, IG2 and FRInGe-B against their papers written out slowly, one image after the other."""

import math

import pytest
import torch
from torch import nn

from unilens import Evaluator, PathAttribution, explain
from unilens._engine.representation import representation
from unilens.baselines import Boundary, Counterfactual
from unilens.errors import NotApplicableError, UnilensError

from ..conftest import randomise


def gradient(function, point):
    leaf = point.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(leaf), leaf)
    return slope


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def slow_mfaba(model, image, target, attack, steps, size, budget, box):
    """The points of the attack, and the sum of gradients and steps, by the left rule."""

    def probability(point):
        return model(point[None]).softmax(-1)[0, target]

    point, total = image.clone(), torch.zeros_like(image)
    for _ in range(steps):
        slope = gradient(probability, point)
        if attack == "sharp":
            moved = point - size * slope / slope.square().sum().sqrt()
        else:
            moved = point - size * slope.sign()
            moved = image + (moved - image).clamp(-budget, budget)
        moved = moved if box is None else moved.clamp(*box)
        total -= slope * (moved - point)
        point = moved
        if int(model(point[None]).argmax()) != target:
            break
    return total, point


@pytest.mark.parametrize(
    ("attack", "size", "box"),
    [("sharp", 0.3, None), ("sharp", 0.3, (0.0, 1.0)), ("smooth", 0.02, None)],
)
def test_mfaba_equals_attack_written_out(attack, size, box, images, small_net):
    settings = {"attack": attack, "step_size": size, "iterations": 8, "n_steps": 8, "budget": 0.1}
    settings |= {} if box is None else {"clamp": True}
    target = small_net(images).argmax(-1)
    found = explain(small_net, images, "mfaba", target, **settings)
    for image, label, values, baseline in zip(
        images, target.tolist(), found.values, found.baseline, strict=True
    ):
        total, point = slow_mfaba(small_net, image, label, attack, 8, size, 0.1, box)
        assert relative(values, total) < 1e-9
        assert relative(baseline, point) < 1e-12


def test_mfaba_ends_where_another_class_wins(images, small_net):
    """On a linear model of two classes the attack goes straight down; its length is known."""
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(3 * 13 * 11, 2)).double())
    model.requires_grad_(False)
    target = model(images).argmax(-1)
    weight = model[1].weight[0] - model[1].weight[1]
    margins = (model(images)[:, 0] - model(images)[:, 1]).abs()
    size = float(margins.max() / weight.norm()) / 6.5
    found = explain(model, images, "mfaba", target, step_size=size, iterations=20, n_steps=20)
    lengths = (found.baseline - images).flatten(1).norm(dim=1)
    expected = (margins / weight.norm() / size).ceil() * size
    assert torch.allclose(lengths, expected, rtol=1e-9)
    assert (model(found.baseline).argmax(-1) != target).all()


def test_mfaba_uses_gradients_of_the_attack_again(images, small_net):
    """No pass is left for the path; other scores and rules take passes, with the same corners."""
    points = []
    evaluator = Evaluator(small_net, on_pass=points.append)
    baseline = Boundary(iterations=6, step_size=0.3)
    kept = PathAttribution(baseline, "trajectory", rule="right", n_steps=6)
    kept(evaluator, images[:1])
    points.clear()
    with_kept = kept(evaluator, images[:1], 2)
    few = sum(points)
    points.clear()
    other = PathAttribution(
        baseline, "trajectory", rule="right", n_steps=6, score=lambda o, t: o.softmax(-1)[:, 2]
    )(evaluator, images[:1], 2)
    assert sum(points) - few == 6
    assert relative(with_kept.values, other.values) < 1e-12


def slow_ig2(model, features, image, references, target, steps, size):
    """The mean over references of the sum over the path, by the left rule."""
    totals = []
    for reference in references:
        goal = features(reference[None])[0]
        point, total = image.clone(), torch.zeros_like(image)
        for _ in range(steps):
            slope = gradient(
                lambda leaf, goal=goal: (features(leaf[None])[0] - goal).square().sum(), point
            )
            moved = point - size * slope / slope.square().sum().sqrt()
            score = gradient(lambda leaf: model(leaf[None]).softmax(-1)[0, target], point)
            total += score * (point - moved)
            point = moved
        totals.append(total)
    return sum(totals) / len(totals)


def test_ig2_equals_descent_written_out(images, small_net):
    references = 6 * torch.randn(6, 3, 13, 11, generator=torch.Generator().manual_seed(4)).double()
    classes = small_net(references).argmax(-1)
    target = int(classes[0])
    others = references[classes != target]
    assert 0 < len(others) < 6
    settings = {"references": references, "iterations": 7, "n_steps": 7, "step_size": 0.4}
    found = explain(small_net, images[:3], "ig2", target, **settings)

    def features(batch):
        received = []
        handle = small_net.head.register_forward_pre_hook(lambda _, args: received.append(args[0]))
        small_net(batch)
        handle.remove()
        return received[0].flatten(1)

    for image, values in zip(images, found.values, strict=False):
        expected = slow_ig2(small_net, features, image, others, target, 7, 0.4)
        assert relative(values, expected) < 1e-9


def test_ig2_of_linear_model_ends_at_reference(images):
    """What the only layer receives is the input itself: the descent is the straight line."""
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(3 * 13 * 11, 4)).double())
    reference = images[1:2]
    target = (int(model(reference).argmax()) + 1) % 4
    length = float((images[0] - reference[0]).norm())
    found = explain(
        model, images[:1], "ig2", target, references=reference, iterations=5, step_size=length / 5,
        n_steps=5, score="logit",
    )  # fmt: skip
    assert relative(found.baseline, reference) < 1e-12
    expected = model[1].weight[target].view(3, 13, 11) * (images[0] - reference[0])
    assert relative(found.values[0], expected.detach()) < 1e-12


def test_ig2_refuses_references_of_the_target_alone(images, small_net):
    target = int(small_net(images[:1]).argmax())
    for given, message in (
        (images[:1], f"references of other classes than the target, got 1 .* class {target} wins"),
        (None, r"counterfactual needs references=\(R, 3, 13, 11\)"),
        (images[:, :2], r"references of shape \(R, 3, 13, 11\), got \(\d+, 2, 13, 11\)"),
    ):
        with pytest.raises(UnilensError, match=message):
            explain(small_net, images[:1], "ig2", target, references=given)


def test_representation_is_what_the_last_layer_receives(images):
    body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    spatial = nn.Sequential(*body, nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Evaluator(randomise(spatial.double()))
    expected = spatial[:2](images).mean((2, 3))
    assert torch.allclose(representation(model, images)(images), expected.detach(), atol=1e-12)


class Functional(nn.Module):
    """Uses its last weights without calling a module of theirs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 13 * 11, 4)

    def forward(self, inputs):
        return nn.functional.linear(inputs.flatten(1), self.head.weight)


@pytest.mark.parametrize("change", ["write", "assign", "load", "buffer"])
def test_representation_is_that_of_the_model_as_it_is_now(change):
    parts = (nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    model = randomise(nn.Sequential(*parts).double()).eval()
    inputs, evaluator = torch.rand(2, 4).double(), Evaluator(model)
    before = representation(evaluator, inputs)(inputs)
    with torch.no_grad():
        if change == "write":
            model[0].weight.mul_(2)
        elif change == "assign":
            model[0].weight = nn.Parameter(2 * model[0].weight)
        elif change == "load":
            state = model.state_dict().items()
            model.load_state_dict({name: 2 * value for name, value in state})
        else:
            model[1].running_mean.add_(1)
    now = representation(evaluator, inputs)(inputs)
    assert not torch.allclose(now, before)
    assert torch.allclose(now, model[:3](inputs).detach(), atol=1e-12)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Functional().double().eval(), "last layer is a module with weights, got 'head'"),
        (nn.Flatten().eval(), "last layer is a module with weights, got one without weights"),
    ],
)
def test_representation_refuses_models_without_a_last_layer(model, message, images):
    with pytest.raises(NotApplicableError, match=message):
        representation(Evaluator(model), images)(images)


def slow_fringe_b(model, image, target, steps, damping, longest, rate):
    """Slerp between beliefs; the step solves (G + lambda I) v = gradient of the spherical loss."""

    def belief(point):
        probability = model(point[None]).softmax(-1)[0, target]
        return torch.stack([probability.sqrt(), (1 - probability).sqrt()])

    def log_odds(point):
        probability = model(point[None]).softmax(-1)[0, target]
        return (probability / (1 - probability)).log()

    classes = model(image[None]).shape[1]
    first, last = belief(image).detach(), torch.tensor([1 / classes, 1 - 1 / classes]).sqrt()
    theta = float((first * last).sum().acos())
    trust = 0.5 * (1.1 * 2 * theta / steps) ** 2  # in nats: half the squared Fisher-Rao length
    points = [image]
    for number in range(1, steps + 1):
        share = number / steps
        waypoint = (
            math.sin((1 - share) * theta) * first + math.sin(share * theta) * last
        ) / math.sin(theta)
        loss = gradient(lambda leaf, goal=waypoint: 1 - (belief(leaf) * goal).sum(), points[-1])
        slope = gradient(log_odds, points[-1]).flatten()
        probability = float(belief(points[-1])[0].detach() ** 2)
        metric = probability * (1 - probability) * torch.outer(slope, slope)
        step = torch.linalg.solve(metric + damping * torch.eye(len(slope)), loss.flatten())
        length = min(
            rate, math.sqrt(2 * trust / float(step @ metric @ step)), longest / float(step.norm())
        )
        points.append(points[-1] - length * step.view_as(image))
    slopes = [gradient(lambda leaf: model(leaf[None])[0, target], point) for point in points]
    total = torch.zeros_like(image)
    for here, there, slope, following in zip(points, points[1:], slopes, slopes[1:], strict=False):
        total -= (slope + following) / 2 * (there - here)
    return total, points[-1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"longest_step": 0.05}, {"largest_rate": 0.5}, {"damping": 5.0, "largest_rate": 1e3}],
)
def test_fringe_b_equals_linear_solve(settings, images, small_net, double):
    found = explain(small_net, images[:3], "fringe_b", 1, waypoints=9, n_steps=10, **settings)
    known = {"damping": 0.01, "longest_step": 1.0, "largest_rate": 4.0, **settings}
    for image, values, baseline in zip(images, found.values, found.baseline, strict=False):
        total, point = slow_fringe_b(small_net, image, 1, 9, *known.values())
        assert relative(baseline, point) < 1e-9
        assert relative(values, total) < 1e-6


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_fringe_b_reaches_the_uniform_belief(images, small_net):
    found = explain(small_net, images, "fringe_b", damping=1e-6, longest_step=100)
    with torch.no_grad():
        beliefs = small_net(found.baseline).softmax(-1)
    probability = beliefs.gather(1, found.target[:, None])[:, 0]
    assert float((probability - 1 / beliefs.shape[1]).abs().max()) < 0.01
    belief = found.record["target_probability"]
    assert belief.shape == (len(images), 60)
    assert torch.allclose(belief[:, 0], small_net(images).softmax(-1).amax(1).detach())


def test_counterfactual_needs_pass_count_of_one_reference():
    assert Counterfactual().passes == (2 + 201, 201)
