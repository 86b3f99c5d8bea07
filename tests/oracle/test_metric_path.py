"""Metrics of the path: by hand on small functions, and against exact Hessians."""

import sys
import types

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from unilens import Evaluator, explain
from unilens.baselines import Constant
from unilens.diagnostics import lanczos_curvature, top_curvature
from unilens.errors import NotApplicableError, UnilensError, UnknownNameError
from unilens.methods import methods
from unilens.methods.path_diagnostics import maps_at
from unilens.metrics import Stability, evaluate, metrics
from unilens.path_attribution import PathAttribution

from ..conftest import randomise

OF_PATH = ("completeness_gap", "monotonicity", "confidence_change", "path_curvature")


class Of(nn.Module):
    """Two logits: a function of the values, and zero."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        value = self.function(inputs.flatten(1))
        return torch.stack([value, torch.zeros_like(value)], 1)


@pytest.fixture
def wave():
    """sin of the sum, which rises to 1 at pi / 2 and falls again."""
    return Of(lambda values: values.sum(1).sin()).eval()


@pytest.fixture
def rows():
    return torch.tensor([[0.2, 0.3], [1.0, 1.5], [1.0, 0.5]]).double()


def confidence(model, points):
    return model(points).softmax(-1)[:, 0]


def test_completeness_gap_is_remainder_of_change(wave, rows):
    found = explain(wave, rows, "ig", target=0, score="logit", n_steps=2, rule="right")
    sums = rows.sum(1)
    # right sums of cos at the half and the whole way
    added = sums * (torch.cos(sums / 2) + torch.cos(sums)) / 2
    gap = (torch.sin(sums) - added).abs()
    assert evaluate(wave, rows, found, "completeness_gap").tolist() == pytest.approx(gap.tolist())
    relative = evaluate(wave, rows, found, "completeness_gap", relative=True)
    assert relative.tolist() == pytest.approx((gap / sums.sin().abs()).tolist())
    breakdown = metrics["completeness_gap"]()(wave, rows, found).breakdown
    assert breakdown["score_change"].tolist() == pytest.approx(sums.sin().tolist())


def test_completeness_gap_of_bare_map_on_straight_line(wave, rows):
    maps = torch.tensor([[0.1, 0.2], [0.0, 0.0], [-1.0, 0.5]]).double()
    settings = {"target": 0, "score": "logit", "baseline": Constant(0.25)}
    found = evaluate(wave, rows, maps, "completeness_gap", **settings)
    change = rows.sum(1).sin() - torch.tensor(0.5).double().sin()
    assert found.tolist() == pytest.approx((change - maps.sum(1)).abs().tolist())


def test_completeness_gap_is_nan_for_incomplete_methods(small_net, images):
    found = explain(small_net, images, "idg", n_steps=4)
    assert evaluate(small_net, images, found, "completeness_gap").isnan().all()
    line = evaluate(small_net, images, found, "completeness_gap", baseline="black")
    assert line.isnan().all()


def test_completeness_gap_is_nan_for_constant_score(wave, rows):
    found = explain(wave, rows, "ig", target=0, baseline=lambda model, inputs, *_, **__: inputs)
    assert evaluate(wave, rows, found, "completeness_gap").isnan().all()  # the map is zero too
    for relative, expected in ((False, 2.0), (True, torch.nan)):
        gap = evaluate(
            wave,
            rows,
            torch.ones_like(rows),
            "completeness_gap",
            target=0,
            baseline=lambda model, inputs, *_, **__: inputs,
            relative=relative,
        )
        assert gap.tolist() == pytest.approx([expected] * 3, nan_ok=True)
    assert evaluate(wave, rows, found, "completeness_gap", relative=True).isnan().all()


def test_monotonicity_equals_scipy_spearman(wave, rows):
    found = explain(wave, rows, "ig", target=0, n_steps=9, rule="midpoint")
    value = evaluate(wave, rows, found, "monotonicity")
    line = evaluate(wave, rows, found.values, "monotonicity", target=0, baseline="black", n_steps=9)
    fractions = torch.tensor([0, *[(k + 0.5) / 9 for k in range(9)], 1]).double()
    for i, row in enumerate(rows):
        seen = confidence(wave, fractions[:, None] * row)
        expected = spearmanr(fractions, seen).statistic
        assert float(value[i]) == pytest.approx(expected)
        assert float(line[i]) == pytest.approx(expected)
    assert float(value[0]) == pytest.approx(1)
    assert float(value[1]) < 0.6


def test_confidence_change_equals_values_by_hand(wave, rows):
    found = explain(wave, rows, "ig", target=0, baseline=Constant(0.25))
    before = confidence(wave, torch.full_like(rows, 0.25))
    expected = (before / confidence(wave, rows) - 1).tolist()
    assert evaluate(wave, rows, found, "confidence_change").tolist() == pytest.approx(expected)
    line = evaluate(
        wave, rows, found.values, "confidence_change", target=0, baseline=Constant(0.25)
    )
    assert line.tolist() == pytest.approx(expected)
    measured = found.measured["confidence_change"]
    assert measured.tolist() == pytest.approx(expected)


def test_path_curvature_of_quadratic(rows):
    """On a line the gradient of x1^2 + 3 x2^2 turns at |H d| / |d|."""
    model = Of(lambda values: values[:, 0] ** 2 + 3 * values[:, 1] ** 2).eval()
    found = explain(model, rows, "ig", target=0, score="logit", n_steps=5)
    hessian = torch.diag(torch.tensor([2.0, 6.0]).double())
    expected = (rows @ hessian).norm(dim=1) / rows.norm(dim=1)
    shown = metrics["path_curvature"]()(model, rows, found)
    assert shown.values.tolist() == pytest.approx(expected.tolist())
    bound = expected * rows.norm(dim=1) ** 2 / 10
    assert shown.breakdown["riemann_error_bound"].tolist() == pytest.approx(bound.tolist())
    one = explain(model, rows, "ig", target=0, score="logit", n_steps=1)
    assert evaluate(model, rows, one, "path_curvature").isnan().all()


@pytest.mark.parametrize("name", OF_PATH)
def test_path_metric_without_trace_uses_straight_line(name, small_net, images):
    import dataclasses

    found = explain(small_net, images, "ig", baseline="grey", n_steps=15, rule="midpoint")
    bare = dataclasses.replace(found, trace=None, measured={})
    expected = evaluate(small_net, images, found, name)
    assert torch.allclose(evaluate(small_net, images, bare, name), expected, rtol=1e-12)


@pytest.mark.parametrize("name", [*OF_PATH, "top_eigenvalue", "stability"])
def test_path_metric_on_batch_equals_loop(name, small_net, images):
    found = explain(small_net, images, "ig", n_steps=6)
    few = {"top_eigenvalue": {"iterations": 3}, "stability": {"steps": (1, 3), "against": 5}}
    settings = {"method": methods["ig"](n_steps=6), **few.get(name, {})}
    together = evaluate(small_net, images, found, name, **settings)
    assert together.isfinite().all()
    assert together.dtype == torch.float64
    for i in (0, 5):
        one = images[i : i + 1]
        alone = explain(small_net, one, "ig", n_steps=6)
        value = evaluate(small_net, one, alone, name, **settings)
        if name == "top_eigenvalue":  # Hessian-vector products differ by rounding from run to run
            assert torch.allclose(value, together[i : i + 1], rtol=1e-9)
        else:
            assert torch.equal(value, together[i : i + 1])


@pytest.mark.parametrize("name", ["monotonicity", "confidence_change", "stability"])
def test_path_metric_of_constant_model_is_nan(name, images):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(429, 3)).double().eval()
    nn.init.zeros_(flat[1].weight)
    found = explain(flat, images, "ig", n_steps=4)
    value = evaluate(flat, images, found, name, method=methods["ig"](n_steps=4))
    assert value.isnan().all()


def test_path_metric_of_bare_map_needs_baseline(small_net, images):
    for name in (*OF_PATH, "lpips", "top_eigenvalue"):
        with pytest.raises(NotApplicableError, match="pass the Attribution of a path method"):
            evaluate(small_net, images, images, name)


def test_stability_is_correlation_of_recomputed_maps(small_net, images):
    method = methods["uni_blur"](n_steps=7)
    found = method(small_net, images)
    shown = Stability(steps=(1, 7), against=12)(small_net, images, found, method=method)
    for count in (1, 7):
        maps = []
        for n_steps in (count, 12):
            again = methods["ig"](
                baseline=lambda *_, **__: found.baseline,
                weighting="gains",
                rule="midpoint",
                n_steps=n_steps,
            )
            maps.append(again(small_net, images).values.abs().sum(1).flatten(1))
        expected = [spearmanr(*pair).statistic for pair in zip(*maps, strict=True)]
        assert shown.breakdown[f"{count}_steps"].tolist() == pytest.approx(expected)
    assert torch.allclose(shown.values, torch.stack(list(shown.breakdown.values())).mean(0))


def test_stability_does_not_depend_on_given_map(small_net, images):
    ig, uni = (explain(small_net, images, name, n_steps=5) for name in ("ig", "uni_blur"))
    settings = {"method": methods["ig"](n_steps=5), "steps": (2,), "against": 5}
    expected = evaluate(small_net, images, ig, "stability", **settings)
    for values in (uni.values, images, explain(small_net, images, "gradient").values):
        assert torch.equal(evaluate(small_net, images, values, "stability", **settings), expected)
    with pytest.raises(UnilensError, match="made the maps, but baseline, weighting, rule differ"):
        evaluate(small_net, images, uni, "stability", **settings)


def test_stability_of_other_methods_with_steps(small_net, images):
    method = methods["expected_gradients"](references=images[:4], n_steps=8)
    found = evaluate(
        small_net, images, images, "stability", method=method, steps=(2, 8), against=16
    )
    assert found.isfinite().all()
    with pytest.raises(NotApplicableError, match="n_steps, and Gradient has none"):
        evaluate(small_net, images, images, "stability", method="gradient")
    with pytest.raises(NotApplicableError, match="pass method='ig'"):
        evaluate(small_net, images, images, "stability", method=lambda *_: images)


def test_stability_takes_another_similarity(small_net, images):
    settings = {"method": "ig", "steps": (3,), "against": 6}
    signed = evaluate(small_net, images, images, "stability", reduction="sum", **settings)
    top = evaluate(small_net, images, images, "stability", similarity="top_k", k=10, **settings)
    assert not torch.equal(signed, evaluate(small_net, images, images, "stability", **settings))
    assert bool(((top * 10) == (top * 10).round()).all())


@pytest.fixture
def net():
    return randomise(
        nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3)).double(), 4
    )


def exact(net, point, target):
    def score(values):
        return net(values[None]).softmax(-1)[0, target]

    return torch.linalg.eigvalsh(torch.func.hessian(score)(point.flatten()).detach())


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch.func.hessian scripts its own formulas
@pytest.mark.parametrize("solver", ["lanczos", "power"])
def test_curvature_equals_exact_hessian(solver, net):
    inputs = torch.rand(2, 12, generator=torch.Generator().manual_seed(1)).double()
    found = explain(net, inputs, "ig", n_steps=3, baseline="grey")
    count, near = (12, 1e-9) if solver == "lanczos" else (80, 1e-3)
    measure = metrics["top_eigenvalue"](solver=solver, iterations=count)
    shown = measure(net, inputs, found)
    for i in range(2):
        for end, point in (("baseline", found.baseline[i]), ("input", inputs[i])):
            values = exact(net, point, found.target[i])
            top = values[values.abs().argmax()]
            assert float(shown.breakdown[end][i]) == pytest.approx(float(top), rel=near)
    assert torch.equal(shown.values, shown.breakdown["baseline"].abs())


def test_lanczos_beats_power_iteration_at_equal_cost():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(60, 60, generator=generator).double()).Q
    values = torch.linspace(-1, 1.02, 60, dtype=torch.float64)
    hessian = basis @ torch.diag(values) @ basis.T
    start = torch.randn(1, 1, 60, generator=generator).double()
    errors = [
        abs(float(solve(lambda vectors: vectors @ hessian, start, 12)) - 1.02)
        for solve in (lanczos_curvature, top_curvature)
    ]
    assert errors[0] < 0.1 * errors[1]
    whole = lanczos_curvature(lambda vectors: vectors @ hessian, start, 500)
    assert float(whole) == pytest.approx(1.02, abs=1e-12)


def test_lanczos_with_few_curved_directions():
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    weights = torch.tensor([0.0, 0, -3, 1]).double()
    assert torch.allclose(
        lanczos_curvature(lambda vectors: weights * vectors, start), torch.tensor(-3.0).double()
    )
    flat = lanczos_curvature(torch.zeros_like, start)
    assert torch.equal(flat, torch.zeros(2, 3).double())


def test_path_metric_counts_passes(net):
    inputs = torch.rand(1, 12).double()
    found = explain(net, inputs, "ig", n_steps=3)
    seen = []
    evaluator = Evaluator(net, on_pass=seen.append)
    evaluator.differentiate(inputs[None], lambda outputs, rows: outputs[:, 0])
    for name in OF_PATH:
        measure = metrics[name]()
        seen.clear()
        measure(evaluator, inputs, found)
        assert sum(seen) == 1
        line = metrics[name](baseline="black")
        seen.clear()
        line(evaluator, inputs, inputs)
        assert sum(seen) == line.passes.forward
        assert metrics[name].card.needs == measure.needs == ("path",)


class Stub(nn.Module):
    """In place of LPIPS: the mean absolute difference, after its scaling to [-1, 1]."""

    def __init__(self, net, verbose):
        super().__init__()
        if net == "vgg":
            raise OSError("no route to host\nand more")

    def forward(self, first, second, normalize):
        assert normalize
        assert len(first) == 1
        return 2 * (first - second).abs().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def _no_lpips_kept():
    from unilens.metrics.path.baseline_quality import _distance

    _distance.cache_clear()
    yield
    _distance.cache_clear()


@pytest.mark.usefixtures("_no_lpips_kept")
def test_lpips_runs_and_refuses_other_inputs(small_net, images, monkeypatch):
    found = explain(small_net, images, "ig", n_steps=2)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(NotApplicableError, match="pip install lpips"):
        evaluate(small_net, images, found, "lpips")
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Stub))
    value = evaluate(small_net, images, found, "lpips")
    assert value.tolist() == pytest.approx((2 * images.mean((1, 2, 3))).tolist(), rel=1e-6)
    with pytest.raises(UnilensError, match=r"could not load .* no route to host; connect"):
        evaluate(small_net, images, found, "lpips", network="vgg")
    refused = {
        r"pictures in \[0, 1\], got values from .* to 2; put the norm": images * 2,
        r"pictures \(B, 3, H, W\), got \(8, 1, 13, 11\); LPIPS": images[:, :1],
    }
    for message, given in refused.items():
        model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(given[0].numel(), 2)).double())
        with pytest.raises(NotApplicableError, match=message):
            evaluate(model, given, explain(model, given, "ig", n_steps=2), "lpips")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("completeness_gap", {"relative": 1}),
        ("monotonicity", {"n_steps": 0}),
        ("monotonicity", {"baseline": "blakc"}),
        ("monotonicity", {"baseline": 3}),
        ("monotonicity", {"score": "nothing"}),
        ("confidence_change", {"baseline": Constant}),
        ("stability", {"steps": ()}),
        ("stability", {"steps": 5}),
        ("stability", {"steps": (0,)}),
        ("stability", {"steps": (1, 30)}),
        ("stability", {"against": 1.5}),
        ("stability", {"similarity": "nothing"}),
        ("top_eigenvalue", {"solver": "qr"}),
        ("top_eigenvalue", {"iterations": 0}),
        ("lpips", {"network": "resnet"}),
    ],
)
def test_path_metric_refuses_wrong_settings(name, settings):
    with pytest.raises((UnilensError, UnknownNameError), match=r"expected|unknown"):
        metrics[name](**settings)


def test_path_method_gives_maps_by_steps(small_net, images):
    method = PathAttribution(n_steps=3)
    found = method(small_net, images)
    maps = maps_at(method, small_net, images, found, (1, 3))
    assert torch.equal(maps[3], found.values)
    assert torch.equal(maps[1], PathAttribution(n_steps=1)(small_net, images).values)
