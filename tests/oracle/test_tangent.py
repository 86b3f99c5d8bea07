"""The tangentially aligned base-point, against automatic differentiation and what can be known."""

import pytest
import torch
from torch import nn

from unilens import Evaluator, PathAttribution, evaluate, explain
from unilens._engine.score_gradient import ScoreGradient
from unilens.baselines import TangentAligned
from unilens.baselines.tangent import COMMON_BASELINES, _Alignment
from unilens.errors import UnilensError
from unilens.manifold import PCA, TangentSpace, Transformations
from unilens.manifold.tangent import spaces_at
from unilens.methods import methods
from unilens.metrics import metrics
from unilens.quadrature import quadrature
from unilens.scores import resolve


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(144, 3)
    return nn.Sequential(*layers).double().eval()


@pytest.fixture
def digits():
    return torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1)).double()


TARGET = torch.tensor([0, 1, 2])


@pytest.mark.parametrize("score", ["probability", "logit", "margin"])
def test_tangent_slope_equals_autograd(net, digits, score):
    space = spaces_at(Transformations(), digits)
    gradient = ScoreGradient(Evaluator(net, chunk=5), resolve(score), TARGET)
    objective = _Alignment(gradient, digits, space, quadrature("gauss_legendre", 7))
    points = torch.rand(2, *digits.shape, generator=torch.Generator().manual_seed(2)).double()
    contents, slopes = objective.with_slope(points)
    for number, point in enumerate(points):
        leaf = point.clone().requires_grad_()
        method = PathAttribution(
            lambda *_, leaf=leaf, **__: leaf, n_steps=7, score=score, create_graph=True
        )
        maps = method(net, digits, TARGET).values.flatten(1)
        inside = torch.einsum("bdk,bd->bk", space.basis, maps)
        expected = inside.norm(dim=1) / maps.norm(dim=1)
        (slope,) = torch.autograd.grad(expected.sum(), leaf)
        assert torch.allclose(contents[number], expected.detach(), atol=1e-12)
        assert torch.allclose(slopes[number], slope, atol=1e-12)


def test_tangent_method_gives_map_of_search(net, digits):
    searched = {"ascents": 2, "iterations": 20}
    found = explain(
        net, digits, "ig", baseline="tangent_aligned", score="margin", n_steps=9, **searched
    )
    trace, tried = found.record["alignment"], found.record["start_alignment"]
    assert trace.shape == (3, 2, 21)
    assert tried.shape == (3, len(COMMON_BASELINES))
    reached = evaluate(net, digits, found, "tangent_alignment")
    assert torch.allclose(reached, trace.flatten(1).amax(1), atol=1e-9)
    for number, name in enumerate(COMMON_BASELINES):
        start = explain(net, digits, "ig", baseline=name, score="margin", n_steps=9)
        content = evaluate(net, digits, start, "tangent_alignment")
        assert torch.allclose(content, tried[:, number], atol=1e-9), name
    assert (reached > tried.amax(1) + 0.1).all()
    assert torch.equal(trace[:, :, 0], tried.sort(1, descending=True).values[:, :2])


def test_tangent_search_shares_defaults_with_method():
    for name in ("ig", "deeplift"):
        entry = methods[name]
        built = entry(baseline="tangent_aligned")
        for shared in {"score", "rule", "n_steps"} & set(entry.settings):
            assert getattr(built.baseline, shared) == entry.settings[shared], shared


def test_tangent_search_stays_in_box_and_beats_starts(net, digits):
    wild = {"learning_rate": 50.0, "iterations": 3}  # every step lands in a corner
    found = explain(net, digits, "ig", baseline="tangent_aligned", bounds=(0.0, 1.0), **wild)
    assert 0 <= float(found.baseline.min()) <= float(found.baseline.max()) <= 1
    reached = evaluate(net, digits, found, "tangent_alignment")
    assert (reached >= found.record["start_alignment"].amax(1) - 1e-9).all()
    none = explain(net, digits, "ig", baseline="tangent_aligned", iterations=0)
    best = none.record["start_alignment"].amax(1)
    assert torch.allclose(evaluate(net, digits, none, "tangent_alignment"), best, atol=1e-9)
    narrow = explain(net, digits, "ig", baseline="tangent_aligned", bounds=(0.4, 0.6))
    assert 0.4 <= float(narrow.baseline.min()) <= float(narrow.baseline.max()) <= 0.6


def test_tangent_search_on_linear_model():
    """The map is (x - x') * w: a tangent direction of one pixel is reached where all else is x."""
    weights = torch.tensor([[1.0, -2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    model = nn.Linear(4, 2, bias=False).double().eval()
    model.weight.data.copy_(weights)
    inputs = torch.full((1, 4), 0.5, dtype=torch.float64)
    axis = torch.zeros(1, 4, 1, dtype=torch.float64)
    axis[0, 2] = 1

    found = explain(
        model,
        inputs,
        "ig",
        0,
        score="logit",
        baseline=TangentAligned(
            manifold=lambda some: TangentSpace.spanned_by(axis.expand(len(some), -1, -1)),
            starts=["black"],
            ascents=1,
            score="logit",
            iterations=300,
            learning_rate=0.01,
        ),
    )
    assert found.record["start_alignment"].item() == pytest.approx(3 / 30**0.5)
    assert found.record["alignment"][0, 0, -1] > 0.999
    assert torch.allclose(found.baseline[0, [0, 1, 3]], inputs[0, [0, 1, 3]], atol=0.02)
    assert abs(float(found.baseline[0, 2] - 0.5)) > 0.4


def test_tangent_search_on_batch_equals_loop(net, digits):
    together = explain(net, digits, "ig", TARGET, baseline="tangent_aligned", iterations=4)
    for row in range(3):
        one = slice(row, row + 1)
        alone = explain(
            net, digits[one], "ig", TARGET[one], baseline="tangent_aligned", iterations=4
        )
        assert torch.equal(alone.values, together.values[one])
        assert torch.equal(alone.record["alignment"], together.record["alignment"][one])


def test_tangent_search_of_constant_model_is_undefined(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double().eval()
    model[1].weight.data.zero_()
    found = explain(model, digits, "ig", baseline="tangent_aligned", iterations=2)
    assert found.record["start_alignment"].isnan().all()
    assert float(found.values.abs().max()) == 0
    assert evaluate(model, digits, found, "tangent_alignment").isnan().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ascents": 6}, "ascents to be at most the number of starts, 5, got 6"),
        ({"starts": []}, "starts to be a list of names"),
        ({"starts": ["blakc"]}, "did you mean black"),
        ({"starts": ["weighted"]}, "one baseline per input"),
        ({"iterations": -1}, "iterations to be a whole number of at least 0"),
        ({"learning_rate": 0}, "learning_rate to be a finite number above 0"),
        ({"manifold": "py:nowhere"}, "expected py:package.module:function, got py:nowhere"),
        ({"bounds": (1, 0)}, "bounds to be"),
    ],
)
def test_tangent_search_refuses_wrong_settings(settings, message):
    with pytest.raises(UnilensError, match=message):
        TangentAligned(**settings)


def test_tangent_search_names_starts_that_do_not_fit():
    rows = torch.rand(3, 6, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(6, 3)).double().eval()
    plane = PCA.fit(torch.rand(20, 6, dtype=torch.float64), 2)
    with pytest.raises(UnilensError, match=r"start of tangent_aligned .* by starts=\[\.\.\.\]"):
        explain(model, rows, "ig", baseline="tangent_aligned", manifold=plane)
    starts = ["black", "uniform_noise"]
    found = explain(model, rows, "ig", baseline="tangent_aligned", manifold=plane, starts=starts)
    assert (found.record["alignment"].amax((1, 2)) <= 1).all()

    def wrong(model, inputs, target, *, generator):
        return inputs[:, :2]

    with pytest.raises(UnilensError, match="baseline to have the inputs' shape"):
        explain(model, rows, "ig", baseline="tangent_aligned", manifold=plane, starts=[wrong])


def test_tangential_content_metric_reports_random_map(net, digits):
    metric = metrics["tangent_alignment"]()
    found = metric(net, digits, torch.randn(digits.shape, dtype=torch.float64))
    assert torch.allclose(found.breakdown["random"], (found.breakdown["rank"] / 36).sqrt())
    assert torch.allclose(found.breakdown["ratio"], found.values / found.breakdown["random"])
    space = spaces_at(Transformations(), digits)
    tangent = metric(net, digits, space.basis[:, :, 1].reshape(digits.shape))
    assert torch.allclose(tangent.values, torch.ones(3, dtype=torch.float64))
