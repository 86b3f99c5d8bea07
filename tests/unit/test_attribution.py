import math
import pickle

import pytest
import torch
from torch import nn

from unilens import PathAttribution, explain
from unilens.baselines import Constant
from unilens.diagnostics import (
    LEVELS,
    WARNINGS,
    Trace,
    flat_fraction,
    highest_level,
    stability,
    top_curvature,
    verdict,
    warn,
)
from unilens.errors import NotApplicableError, UnilensError
from unilens.methods import methods
from unilens.methods.path_diagnostics import curvature, path_steps
from unilens.methods.path_diagnostics import stability as map_stability


class Cubic(nn.Module):
    """Logits (x1^3 + x2, 0): the integrals along a straight line are known."""

    def forward(self, inputs):
        first = inputs[:, 0] ** 3 + inputs[:, 1]
        return torch.stack([first, torch.zeros_like(first)], dim=1)


@pytest.fixture
def cubic():
    return Cubic().eval()


X = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)


def test_values_worked_out_by_hand(cubic):
    # From 0: the integral of 3 (2t)^2 dt times 2 is 8; two Gauss-Legendre nodes are exact.
    result = PathAttribution(score="logit", n_steps=2)(cubic, X, 0)
    assert result.values.tolist() == [
        pytest.approx([8.0, 1.0], abs=1e-12),
        pytest.approx([1.0, 3.0], abs=1e-12),
    ]
    assert result.score.tolist() == [9.0, 4.0]
    assert result.baseline_score.tolist() == [0.0, 0.0]
    assert result.completeness_gap.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    # The right sum of two steps: 2 * (3 * 1 + 3 * 4) / 2 = 15.
    right = PathAttribution(score="logit", n_steps=2, rule="right")(cubic, X, 0)
    assert right.values[0].tolist() == pytest.approx([15.0, 1.0], abs=1e-12)
    assert float(right.completeness_gap[0]) == pytest.approx(9 - 16)


def test_diagnostics_worked_out_by_hand(cubic):
    result = PathAttribution(score="logit", n_steps=2, rule="right")(cubic, X, 0)
    sigmoid = [1 / (1 + math.exp(-value)) for value in (0.0, 1.0 + 0.5, 9.0)]
    assert result.trace.fraction.T.tolist() == [[0, 0.5, 1]] * 2
    assert result.trace.score[:, 0].tolist() == pytest.approx([0.0, 1.5, 9.0])
    assert result.trace.confidence[:, 0].tolist() == pytest.approx(sigmoid)
    measured = measured_of(result, 0)
    # The gradient goes from (3, 1) at (1, .5) to (12, 1) at (2, 1): 9 over |(1, .5)|.
    rate = 9 / math.sqrt(1.25)
    assert measured == pytest.approx(
        {
            "values_finite": 1.0,
            "completeness_gap": -7.0,
            "score_change": 9.0,
            "confidence_change": 0.5 / sigmoid[2] - 1,
            "proximity": math.sqrt(5),
            "monotonicity": 1.0,
            "confidence_fallback": 0.0,
            "flat_fraction": 0.0,
            "riemann_error_bound": rate * 5 / 4,
            # By the last node alone the map is (2 * 12, 1), by both (15, 1).
            "sum_error": 9 / math.sqrt(15**2 + 1) / 2,
            "sum_stability": 1.0,
        }
    )
    assert "large_gap" in result.warnings[0]
    assert result.verdicts == [verdict(measured), verdict(measured_of(result, 1))]


def measured_of(attribution, index):
    return {name: float(value[index]) for name, value in attribution.diagnostics.items()}


def test_monotonicity_of_a_path_that_peaks_in_the_middle():
    class Hill(nn.Module):
        def forward(self, inputs):
            score = -((inputs[:, :1] - 0.5) ** 2)
            return torch.cat([score, torch.zeros_like(score)], dim=1)

    rising = PathAttribution(n_steps=9, rule="trapezoid")(Hill().eval(), torch.full((1, 2), 0.5), 0)
    peaked = PathAttribution(n_steps=9, rule="trapezoid")(Hill().eval(), torch.ones(1, 2), 0)
    assert float(rising.diagnostics["monotonicity"][0]) == pytest.approx(1)
    assert abs(float(peaked.diagnostics["monotonicity"][0])) < 0.1
    assert "non_monotonic_path" in peaked.warnings[0]


def test_flat_fraction_of_a_step():
    fraction = torch.tensor([[0.0], [0.7], [0.8], [1.0]])
    score = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    trace = Trace(fraction, score, score, torch.zeros(1))
    assert float(flat_fraction(trace)[0]) == pytest.approx(0.9)


def test_every_warning_can_be_given_and_kept():
    good = {
        "values_finite": 1.0,
        "completeness_gap": 0.01,
        "score_change": 0.5,
        "monotonicity": 1.0,
        "flat_fraction": 0.1,
        "confidence_change": -0.8,
        "confidence_fallback": 0.0,
        "sum_error": 0.01,
        "sum_stability": 0.98,
        "proximity": 0.25,
        "matching_loss_fall": 1.0,
    }
    assert warn(good) == []
    bad = {
        "undefined": {"values_finite": 0.0},
        "undefined_score": {"completeness_gap": math.nan},
        "zero_map": {"all_zero": 1.0},
        "sign_contradicted": {"sign_agreement": 0.0},
        "large_gap": {"completeness_gap": -0.3},
        "completeness_gap": {"completeness_gap": -0.2},
        "no_reference": {"reference_known": 0.0},
        "few_steps": {"sum_error": 5.0},
        "non_monotonic_path": {"monotonicity": 0.1, "confidence_fallback": 0.9},
        "saturation": {"flat_fraction": 0.8, "confidence_change": -0.99},
        "informative_baseline": {"confidence_change": -0.05},
        "baseline_is_input": {"proximity": 0.0},
        "matching_loss_did_not_fall": {"matching_loss_fall": math.nan},
        "one_logit_assumed": {"one_logit_assumed": 1.0},
        "probabilities_assumed": {"probabilities_assumed": 1.0},
        "logits_assumed": {"logits_assumed": 1.0},
        "channels_assumed": {"channels_known": 0.0},
    }
    assert set(bad) == set(WARNINGS)
    for name, change in bad.items():
        measured = {**good, **change}
        assert warn(measured) == [name]
        level = WARNINGS[name].level
        assert highest_level([name]) == level
        assert ("Usable:" in verdict(measured)) == (level == "info")
        assert ("Do not rely on it:" in verdict(measured)) == (level == "problem")
        phrase = WARNINGS[name].phrase(measured[WARNINGS[name].diagnostic], measured)
        assert phrase in verdict(measured)
    assert verdict(good) == "Usable: adds up, stable (0.98)."
    assert verdict({"values_finite": 1.0}).startswith("Not checked: ")
    assert highest_level(list(bad)) == max((WARNINGS[name].level for name in bad), key=LEVELS.index)
    assert highest_level([]) is None


def test_verdict_of_a_control_is_that_it_is_one(cubic):
    control = explain(cubic, torch.rand(2, 3), "random", target=0)
    assert control.verdicts == ["A control: the map does not depend on the model."] * 2
    assert explain(cubic, torch.rand(1, 3), "gradient", target=0).verdicts[0].startswith("Not ")


def test_repr_names_method_targets_and_verdict(cubic):
    found = explain(cubic, X, "ig", 0)
    first, second = repr(found).splitlines()
    assert first == "Attribution by ig: 2 inputs of shape (2,), targets 0, 0"
    assert second == f"  input 0: {found.verdicts[0]}"
    single = found[1].with_provenance(default="ig, as it is the default for tables")
    assert repr(single).splitlines() == [
        "Attribution by ig: 1 input of shape (2,), target 0",
        f"  {found.verdicts[1]}",
        "  ig, as it is the default for tables",
    ]
    many = explain(cubic, X[:1].expand(9, 2), "gradient", 1)
    assert repr(many).splitlines()[0].endswith("9 inputs of shape (2,), targets 1, 1, 1, 1, 1, ...")
    assert len(repr(many)) < 300
    assert "0 inputs of shape (2,), targets none" in repr(found[:0])


def test_stability_compares_unsigned_maps_summed_over_channels():
    most = torch.rand(2, 3, 4, 4)
    maps = {30: most, 1: -most, 15: most.flip(0)}
    found = stability(maps)
    assert list(found) == ["stability_1_30", "stability_15_30"]
    assert found["stability_1_30"].tolist() == pytest.approx([1, 1])
    assert abs(float(found["stability_15_30"][0])) < 0.9


def test_stability_and_curvature_of_an_attribution(cubic):
    method = PathAttribution(score="logit", n_steps=2)
    inputs = torch.tensor([[2.0, 9.0, 3.0]], dtype=torch.float64)  # third value: no part
    result = method(cubic, inputs, 0)
    # At one step: 2 * 3 * 1 = 6 and 9, so the order of the first two turns at two steps or more.
    inputs_by_hand = map_stability(method, cubic, inputs, result, steps=(1, 3))
    assert inputs_by_hand["stability_1_3"].tolist() == pytest.approx([1.0])
    close = torch.tensor([[2.0, 7.0, 3.0]], dtype=torch.float64)
    turned = map_stability(method, cubic, close, method(cubic, close, 0), steps=(1, 3))
    assert turned["stability_1_3"].tolist() == pytest.approx([0.5])  # ranks 2,3,1 and 3,2,1
    curved = curvature(method, cubic, inputs, result)
    assert curved["curvature_input"].tolist() == pytest.approx([6 * 2.0])
    assert curved["curvature_baseline"].tolist() == [0.0]


def test_top_curvature_finds_the_eigenvalue_of_largest_magnitude_with_its_sign():
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=random).double()).Q
    matrix = basis @ torch.diag(torch.tensor([1.0, 2, 3, -9, 4, 0.5]).double()) @ basis.T
    start = torch.ones(1, 2, 6).double()
    found = top_curvature(lambda vectors: vectors @ matrix, start, iterations=60)
    assert found.tolist() == [pytest.approx([-9.0, -9.0])]


def test_the_flat_share_of_a_score_that_never_moves_is_undefined():
    still = nn.Linear(3, 2).eval()
    nn.init.zeros_(still.weight)
    found = explain(still, torch.rand(2, 3), "ig", n_steps=4)
    assert found.diagnostics["flat_fraction"].isnan().all()
    assert found.warnings == [["zero_map", "informative_baseline"]] * 2


def test_a_single_value_has_no_confidence_to_warn_about():
    single = nn.Linear(4, 1).eval()
    nn.init.ones_(single.weight)
    nn.init.constant_(single.bias, -10.0)
    found = explain(single, torch.full((1, 4), 0.63), "ig", outputs="regression")
    assert "confidence_change" not in found.diagnostics
    assert found.warnings == [[]]


def test_what_is_flat_without_a_confidence_is_no_saturation():
    assert warn({"flat_fraction": 0.9}) == []


def test_the_target_is_fixed_where_the_input_is():
    class Crossing(nn.Module):
        """Class 1 wins at the baseline, class 0 at the input."""

        def forward(self, inputs):
            return torch.cat([3 * inputs[:, :1], 1 + 0 * inputs[:, :1] + inputs[:, 1:2]], dim=1)

    result = explain(Crossing().eval(), torch.ones(1, 2).double(), "ig", score="logit", n_steps=4)
    assert result.target.tolist() == [0]
    assert result.values.tolist() == [pytest.approx([3.0, 0.0])]


def test_a_plain_function_is_a_baseline_and_another_a_path(linear):
    def half(model, inputs, target, *, generator):
        assert model(inputs).shape == (1, 4)
        return inputs / 2

    inputs = torch.rand(1, 2, 3).double()
    found = PathAttribution(baseline=half, score="logit", n_steps=1)(linear, inputs, 1)
    assert torch.allclose(found.values.flatten(), linear[1].weight[1] * inputs.flatten() / 2)
    given = explain(linear, inputs, "ig", 1, baseline=half, score="logit", n_steps=1)
    assert torch.equal(given.values, found.values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": 3}, "baseline to be a function or an object of unilens.baselines, got int"),
        ({"path": None}, "path to be a function or an object of unilens.paths, got NoneType"),
        ({"n_steps": 0}, "n_steps to be a whole number"),
        ({"rule": "simpson"}, "unknown rule 'simpson'"),
        ({"score": "logits"}, "unknown score 'logits'; did you mean logit"),
    ],
)
def test_wrong_parts_are_refused(arguments, message):
    with pytest.raises(UnilensError, match=message):
        PathAttribution(**arguments)


def test_a_baseline_of_the_wrong_shape_is_refused(linear):
    with pytest.raises(UnilensError, match=r"shape \(1, 2, 3\), got \(1, 6\); give one value"):
        PathAttribution(lambda m, x, t, *, generator: x.flatten(1))(linear, torch.rand(1, 2, 3))


def test_provenance_says_how_it_was_made(linear):
    found = explain(linear, torch.rand(2, 2, 3).double(), "uni", seed=7, budget=0.5)
    made = found.provenance
    assert made["method"] == "uni"
    assert made["seed"] == 7
    assert made["settings"]["baseline"]["budget"] == 0.5
    assert made["settings"]["baseline"]["type"] == "Unlearned"
    assert made["dtype"] == "float64"
    assert made["seconds"] > 0
    assert {"unilens", "torch", "python"} <= set(made["versions"])


def test_results_and_methods_pickle(linear):
    method = PathAttribution(Constant(0.5), n_steps=3)
    result = method(linear, torch.rand(2, 2, 3).double())
    again = pickle.loads(pickle.dumps(result))
    assert torch.equal(again.values, result.values)
    assert pickle.loads(pickle.dumps(method)) == method


def test_steps_are_the_points_of_the_line_and_the_map_so_far():
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).double().eval()
    inputs = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]], dtype=torch.float64)
    explainer = PathAttribution(Constant(0.25), rule="right", n_steps=4, score="logit")
    found = explainer(model, inputs, 1)
    steps = path_steps(explainer, model, inputs, found)
    weight = model[0].weight[1].detach()
    for k in range(4):
        share = (k + 1) / 4
        assert steps.fractions[k].tolist() == pytest.approx(share)
        expected = 0.25 + share * (inputs - 0.25)
        assert torch.allclose(steps.points[k], expected, atol=1e-12)
        assert torch.allclose(steps.sums[k], share * weight * (inputs - 0.25), atol=1e-12)
    assert torch.equal(steps.sums[-1], found.values)


def test_steps_of_several_baselines_are_refused(small_net, images):
    explainer = methods["agi"](classes=2, iterations=2, n_steps=3)
    found = explainer(small_net, images[:1])
    with pytest.raises(NotApplicableError, match="path from one baseline, got 2"):
        path_steps(explainer, small_net, images[:1], found)
