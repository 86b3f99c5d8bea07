"""The method that is taken where none is named, and the verdict and sign that come with it."""

import pytest
import torch

import unilens
from unilens import Evaluator
from unilens.diagnostics import WARNINGS, highest_level, verdict, warn
from unilens.methods.contradiction import sign_agreement
from unilens.methods.defaults import FEWEST_ROWS
from unilens.weightings import Weighting

ROWS = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))


def rows_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()


def image_model(outputs=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, outputs)).eval()


class RowsAndImages(torch.nn.Module):
    """A model of a row of a table and an image."""

    def __init__(self):
        super().__init__()
        self.rows, self.images = rows_model(), image_model()

    def forward(self, rows, images):
        return self.rows(rows) + self.images(images)


def test_images_take_uni_blur():
    images = torch.rand(2, 3, 8, 8)
    found = unilens.explain(image_model(), images)
    assert torch.equal(found.values, unilens.explain(image_model(), images, "uni_blur").values)
    assert found.provenance["method"] == "uni_blur"
    assert "default for images" in found.provenance["default"]
    assert "default" not in unilens.explain(image_model(), images, "uni_blur").provenance


def test_images_of_a_regression_take_uni_blur():
    found = unilens.explain(image_model(1), torch.rand(2, 3, 8, 8), outputs="regression")
    assert found.provenance["method"] == "uni_blur"
    assert torch.equal(found.score, found.outputs[:, 0])


def test_settings_go_to_the_default_method():
    found = unilens.explain(image_model(), torch.rand(1, 3, 8, 8), n_steps=3)
    assert found.provenance["settings"]["n_steps"] == 3


def test_rows_are_references_for_each_other():
    found = unilens.explain(rows_model(), ROWS)
    references = ROWS[torch.linspace(0, 39, 30).round().long()]
    expected = unilens.explain(
        rows_model(), ROWS, "expected_gradients", references=references, n_steps=1000
    )
    assert torch.equal(found.values, expected.values)
    assert "30 inputs of this call" in found.provenance["default"]


def test_references_given_are_used():
    found = unilens.explain(rows_model(), ROWS[:1], references=ROWS[1:])
    assert found.provenance["method"] == "expected_gradients"
    assert found.warnings == [[]]


def test_few_rows_are_compared_with_zero_and_say_so():
    found = unilens.explain(rows_model(), ROWS[: FEWEST_ROWS - 1])
    assert torch.equal(found.values, unilens.explain(rows_model(), ROWS[:9], "ig").values)
    assert all("no_reference" in names for names in found.warnings)
    assert "compared with 0" in found.verdicts[0]


def test_several_inputs_take_uni_blur_where_one_is_an_image():
    inputs = {"rows": ROWS[:2], "images": torch.rand(2, 3, 8, 8)}
    found = unilens.explain(RowsAndImages().eval(), inputs)
    assert found.whole.provenance["method"] == "uni_blur"


def linear(weights):
    model = torch.nn.Linear(len(weights), 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.tensor(weights), torch.zeros(len(weights))]))
    return model.eval()


def test_sign_agreement_of_a_linear_model_and_of_its_negative():
    model, inputs = Evaluator(linear([1.0, -3.0])), torch.tensor([[1.0, 1.0], [4.0, 1.0]])
    found = unilens.explain(model, inputs, "ig", 0)
    groups, typical = torch.arange(2), torch.zeros(())
    assert sign_agreement(model, inputs, found, "probability", groups, typical).tolist() == [1, 1]
    wrong = unilens.Attribution(
        -found.values, found.target, found.score, found.outputs, provenance=found.provenance
    )
    assert sign_agreement(model, inputs, wrong, "probability", groups, typical).tolist() == [0, 0]


def test_sign_agreement_without_an_effect_is_undefined():
    model, inputs = Evaluator(linear([1.0, -3.0])), torch.tensor([[1.0, 1.0]])
    found = unilens.explain(model, inputs, "ig", 0)
    agreement = sign_agreement(model, inputs, found, "probability", torch.arange(2), inputs)
    assert agreement.isnan().all()


def test_sign_agreement_sums_the_values_of_a_group():
    model, inputs = Evaluator(linear([1.0, 1.0, -1.5])), torch.ones(1, 3)
    found = unilens.explain(model, inputs, "ig", 0, score="logit")
    groups = torch.tensor([0, 0, 1])
    assert sign_agreement(model, inputs, found, "logit", groups, torch.zeros(())).tolist() == [1]
    alone = torch.arange(3)  # the last column is the strongest, and speaks against the class
    assert sign_agreement(model, inputs, found, "logit", alone, torch.zeros(())).tolist() == [1]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({"values_finite": 1.0}, "Not checked: the method has no path"),
        (
            {"completeness_gap": 0.0, "score_change": 0.5, "sum_stability": 0.968},
            "Usable: adds up, stable (0.97).",
        ),
        (
            {"completeness_gap": 0.0, "score_change": 0.5, "sum_stability": 0.68},
            "Usable: adds up, stability 0.68.",
        ),
        (
            {"completeness_gap": 0.0, "score_change": 0.5, "sum_stability": float("nan")},
            "Usable: adds up.",
        ),
        ({"completeness_gap": 1e-9, "score_change": 1e-12}, "Usable: adds up."),
        (
            {"completeness_gap": 0.1, "score_change": 0.5},
            "Usable: misses 20% of the score's change.",
        ),
        (
            {"sum_error": 0.5, "sum_stability": 0.4, "sign_agreement": 0.0},
            "Do not rely on it: the model contradicts the sign of the strongest value; the sum "
            "over the steps is off by about 50%.",
        ),
    ],
)
def test_verdict(measured, expected):
    assert verdict(measured).startswith(expected)


def test_level_of_a_verdict_is_the_highest_of_its_warnings():
    names = warn({"values_finite": 0.0, "sum_error": 0.5})
    assert highest_level(names) == "problem"
    assert [WARNINGS[name].level for name in names] == ["problem", "caution"]
    assert highest_level([]) is None


def test_baseline_given_is_used_by_ig():
    found = unilens.explain(rows_model(), ROWS[:2], baseline="white")
    assert torch.equal(
        found.values, unilens.explain(rows_model(), ROWS[:2], "ig", baseline="white").values
    )
    assert found.provenance["default"] == "ig from the baseline given"
    assert not any("no_reference" in names for names in found.warnings)


def test_grey_images_without_channels_are_images():
    layers = [torch.nn.Unflatten(1, (1, 12)), torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(200, 3)).eval()
    images = torch.rand(12, 12, 12)
    for given in (model, Evaluator(model, channels="none")):
        assert unilens.explain(given, images).provenance["method"] == "uni_blur"


def test_images_of_a_model_without_weights_take_ig_from_the_blurred_input():
    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    found = unilens.explain(Mean().eval(), torch.rand(1, 3, 8, 8))
    assert found.provenance["method"] == "ig"
    assert "no weights" in found.provenance["default"]


def test_arrays_in_a_mapping_are_looked_at():
    inputs = {"rows": ROWS[:2].numpy(), "images": torch.rand(2, 3, 8, 8).numpy()}
    found = unilens.explain(RowsAndImages().eval(), inputs)
    assert found.whole.provenance["method"] == "uni_blur"


def test_sign_agreement_is_by_the_score_explained():
    """The logit falls without the first column, and the probability rises."""
    model = torch.nn.Linear(2, 2, bias=False).eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    inputs = torch.tensor([[1.0, 0.0]])
    for score, sign in (("logit", 1), ("probability", -1)):
        found = unilens.explain(model, inputs, "ig", 0, score=score)
        assert float(found.values[0, 0].sign()) == sign
        assert float(found.diagnostics["sign_agreement"]) == 1


@pytest.mark.slow
def test_sign_agreement_is_the_same_in_any_batch_and_container():
    together = unilens.explain(rows_model(), ROWS + 5, "ig")
    alone = [unilens.explain(rows_model(), ROWS[k : k + 1] + 5, "ig") for k in range(len(ROWS))]
    assert together.verdicts == [found.verdicts[0] for found in alone]
    given = [unilens.explain(rows_model(), ROWS[:5], references=R) for R in (ROWS, ROWS.numpy())]
    assert given[0].verdicts == given[1].verdicts


@pytest.mark.parametrize("method", ["gradient", "vargrad", "rise", "sobol", "idg", "random"])
def test_maps_without_contributions_have_no_sign_agreement(method):
    found = unilens.explain(rows_model(), ROWS[:3], method)
    assert "sign_agreement" not in found.diagnostics


def test_a_weighting_of_ones_own_runs_once():
    """It yields fewer terms than there are nodes, and counts its calls."""

    class Late(Weighting):
        calls = 0

        def __call__(self, chunks, quadrature, start, end):
            Late.calls += 1
            for chunk in chunks:
                yield chunk.evaluation.gradients[-1], chunk.displacement[-1]

    found = unilens.PathAttribution(weighting=Late(), n_steps=6)(rows_model(), ROWS[:2])
    assert Late.calls == 1
    assert "sum_error" not in found.diagnostics


def test_settings_of_the_search_take_uni():
    found = unilens.explain(rows_model(), ROWS[:2], budget=0.5)
    assert torch.equal(
        found.values, unilens.explain(rows_model(), ROWS[:2], "uni", budget=0.5).values
    )
    assert found.provenance["default"] == "uni, which alone has the settings given"
