"""What outputs mean: the right values for logits, probabilities, labels, one output and values."""

import math
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax, softmax

import unilens
from unilens import tables
from unilens._engine.evaluator import Evaluator
from unilens.errors import NotApplicableError, UnilensError
from unilens.outputs import OUTPUTS, OutputSpec
from unilens.scores import resolve

FAST = {"uni_blur": {"matching_steps": 2, "n_steps": 4}, "ig": {"n_steps": 4}}


class Lambda(nn.Module):
    """A network, and a function of its outputs that is no module."""

    def __init__(self, network, function, **config):
        super().__init__()
        self.network, self.function = network, function
        if config:
            self.config = SimpleNamespace(**config)

    def forward(self, x):
        return self.function(self.network(x))


def network(outputs=3, seed=0, scale=3.0):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, outputs)).double().eval()
    with torch.no_grad():
        made[2].weight.mul_(scale)
    return made


def inputs(count=2):
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(1)).double()


def as_two(one):
    """The same model as the logits [0, z] of two classes."""
    return nn.Sequential(one, nn.ConstantPad1d((1, 0), 0.0)).eval()


def kind(model, x=None, **settings):
    found = unilens.explain(model, inputs() if x is None else x, "gradient", **settings)
    return found.provenance["outputs"]["kind"], found.provenance["outputs"]["source"], found


# --- one output ------------------------------------------------------------------------------

METHODS = {
    "uni_blur": {},
    "uni_paper": {"n_steps": 4},
    "uni": {"n_steps": 8},
    "ig": {},
    "gradient": {},
    "occlusion": {},
    "agi": {"classes": 1, "n_steps": 4},
    "mfaba": {"n_steps": 4},
    "fringe_b": {"waypoints": 4},
    "max_entropy": {"baseline": "max_entropy", "iterations": 5},
    "weighted": {"baseline": "weighted", "baselines": ("black", "white"), "weights": "confidence"},
}


@pytest.mark.parametrize("method", METHODS)
def test_one_logit_equals_the_two_logits_of_the_same_model(method):
    one, x, settings = network(1), inputs(), METHODS[method]
    name = "ig" if method in ("max_entropy", "weighted") else method
    of_one = unilens.explain(one, x, name, **settings)
    of_two = unilens.explain(as_two(one), x, name, 1, **settings)
    for field in ("values", "score", "confidence"):
        assert torch.allclose(getattr(of_one, field), getattr(of_two, field), atol=1e-9), field
    assert torch.allclose(of_one.confidence, one(x).sigmoid()[:, 0])
    assert of_one.target.tolist() == [0, 0]
    assert all("one_logit_assumed" in names for names in of_one.warnings)
    assert not any("assumed" in name for names in of_two.warnings for name in names)


def test_one_logit_that_the_user_confirms_is_no_doubt():
    found = unilens.explain(network(1), inputs(), "gradient", outputs="logits")
    assert found.warnings == [[], []]
    assert found.provenance["outputs"] == {"kind": "logits", "source": "setting"}


@pytest.mark.parametrize("matching_target", ["uniform", "prior"])
def test_unlearned_matching_targets_of_one_logit_are_those_of_two(matching_target):
    settings = {"matching_target": matching_target, "n_steps": 3}
    if matching_target == "prior":
        settings["class_prior"] = [0.8, 0.2]
    one, x = network(1), inputs()
    of_one = unilens.explain(one, x, "uni_paper", **settings)
    of_two = unilens.explain(as_two(one), x, "uni_paper", 1, **settings)
    assert torch.allclose(of_one.values, of_two.values, atol=1e-9)
    assert torch.allclose(of_one.record["matching_loss"], of_two.record["matching_loss"])


@pytest.mark.parametrize(
    "last",
    [
        nn.Sigmoid(),
        torch.sigmoid,
        lambda z: z.sigmoid().view(-1, 1).clone(),
        lambda z: torch.cat([z, 0 * z], 1).softmax(-1)[:, :1],
    ],
    ids=["module", "function", "views", "softmax"],
)
def test_one_probability_is_the_probability(last):
    one, x = network(1), inputs()
    model = nn.Sequential(one, last).eval() if isinstance(last, nn.Module) else Lambda(one, last)
    model.eval()
    found = unilens.explain(model, x, "uni_blur", **FAST["uni_blur"])
    reference = unilens.explain(one, x, "uni_blur", **FAST["uni_blur"])
    assert found.provenance["outputs"] == {"kind": "probabilities", "source": "last operation"}
    assert torch.allclose(found.confidence, model(x)[:, 0])
    assert torch.allclose(found.values, reference.values, atol=1e-8)
    assert not any("assumed" in name for names in found.warnings for name in names)


def test_mean_of_sigmoids_is_a_probability():
    both = [network(1, seed) for seed in (0, 1)]

    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.members = nn.ModuleList(both)

        def forward(self, x):
            return torch.stack([member(x).sigmoid() for member in self.members]).mean(0)

    name, source, found = kind(Ensemble().eval())
    assert (name, source, found.warnings) == ("probabilities", "last operation", [[], []])
    reference = (both[0](inputs()).sigmoid() + both[1](inputs()).sigmoid()) / 2
    assert torch.allclose(found.confidence, reference[:, 0])


def test_outputs_that_stay_within_zero_and_one_are_probabilities_with_a_warning():
    model, x = Lambda(network(1), lambda z: 1 / (1 + torch.exp(-z))).eval(), inputs()
    name, source, found = kind(model, x)
    assert (name, source) == ("probabilities", "assumed")
    assert found.warnings == [["probabilities_assumed"]] * 2
    assert torch.allclose(found.confidence, model(x)[:, 0])


def test_one_logit_within_zero_and_one_stays_a_logit():
    model = network(1, scale=0.01)
    with torch.no_grad():
        model[2].bias.fill_(0.5)
    assert ((model(inputs()) > 0) & (model(inputs()) < 1)).all()
    name, _, found = kind(model)
    assert name == "logits"
    assert found.warnings == [["one_logit_assumed"]] * 2
    name, _, found = kind(Lambda(model, lambda z: 2 * z / 2 + 0).eval())
    assert (name, found.warnings[0]) == ("logits", ["one_logit_assumed"])


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Softplus(), nn.Tanh(), nn.GELU(), nn.SiLU()])
def test_one_output_of_an_activation_is_no_probability(last):
    head = network(1, scale=0.1)
    with torch.no_grad():
        head[2].bias.fill_(0.3)
    model, x = nn.Sequential(head, last).eval(), inputs()
    assert ((model(x) > 0) & (model(x) < 1)).all()
    name, _, found = kind(model)
    assert (name, found.warnings[0]) == ("logits", ["one_logit_assumed"])


def test_target_one_of_a_single_output_says_what_to_do():
    with pytest.raises(UnilensError, match="expected `target` 0, the model's only output"):
        unilens.explain(network(1), inputs(), "ig", 1)


# --- probabilities ---------------------------------------------------------------------------

LOGITS_OUT = network(4)
PROBABLE = {
    "module": nn.Sequential(LOGITS_OUT, nn.Softmax(-1)),
    "function": Lambda(LOGITS_OUT, lambda z: softmax(z, -1)),
    "by hand": Lambda(LOGITS_OUT, lambda z: z.exp() / z.exp().sum(-1, keepdim=True)),
    "float32": Lambda(LOGITS_OUT, lambda z: softmax(z.float(), -1)),
    "bfloat16": Lambda(LOGITS_OUT, lambda z: softmax(z.bfloat16(), -1)),
}


@pytest.mark.parametrize("model", PROBABLE)
@pytest.mark.parametrize("method", ["uni_blur", "ig"])
def test_probabilities_are_never_a_softmax_of_a_softmax(model, method):
    x, model = inputs(), PROBABLE[model].eval()
    found = unilens.explain(model, x, method, **FAST[method])
    reference = unilens.explain(LOGITS_OUT, x, method, **FAST[method])
    exact = found.outputs.dtype == torch.float64
    assert found.provenance["outputs"] == {"kind": "probabilities", "source": "values"}
    assert torch.allclose(found.confidence.double(), model(x).amax(-1).double())
    rough = 0.1 if model(x).dtype == torch.bfloat16 else 1e-3
    assert torch.allclose(found.values, reference.values, atol=1e-8 if exact else rough)
    assert "probabilities_assumed" not in found.warnings[0]


def test_temperature_ensemble_and_two_classes_are_probabilities():
    both = [network(3, seed) for seed in (0, 1)]
    models = {
        "temperature": Lambda(both[0], lambda z: softmax(z / 5, -1)),
        "two": Lambda(network(1), lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)),
    }
    for model in models.values():
        name, _, found = kind(model.eval())
        assert name == "probabilities"
        assert torch.allclose(found.score, model(inputs()).amax(-1))

    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.members = nn.ModuleList(both)

        def forward(self, x):
            return sum(softmax(member(x), -1) for member in self.members) / 2

    name, _, found = kind(Ensemble().eval())
    assert name == "probabilities"
    assert torch.allclose(found.score, Ensemble().eval()(inputs()).amax(-1))


def test_log_softmax_is_explained_as_its_logits_are():
    logits, x = network(3), inputs()
    name, source, found = kind(nn.Sequential(logits, nn.LogSoftmax(-1)).eval())
    assert (name, source) == ("log_probabilities", "values")
    assert torch.allclose(found.values, unilens.explain(logits, x, "gradient").values)
    assert torch.allclose(found.confidence, softmax(logits(x), -1).amax(-1))


def test_rows_that_sum_to_one_at_this_input_alone_are_logits_with_a_warning():
    weight = torch.tensor([[0.2, 0.1], [0.3, 0.4]]).double()
    model = Lambda(nn.Identity(), lambda x: x @ weight.T)
    model = Lambda(model, lambda z: z.abs()).eval()
    x = torch.ones(1, 2).double()
    assert torch.allclose(model(x).sum(-1), torch.ones(1).double())
    name, _, found = kind(model, x)
    assert (name, found.warnings) == ("logits", [["logits_assumed"]])
    assert torch.allclose(found.score, softmax(model(x), -1).amax(-1))


def test_logits_within_zero_and_one_by_chance_are_logits():
    model = network(3, scale=0.01)
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([0.2, 0.5, 0.9]))
    name, _, found = kind(model)
    assert (name, found.warnings) == ("logits", [[], []])
    assert torch.allclose(found.confidence, softmax(model(inputs()), -1).amax(-1))


def test_saturated_probabilities_give_finite_maps():
    model = nn.Sequential(network(3, scale=3000.0).float(), nn.Softmax(-1)).eval()
    x = inputs().float()
    assert (model(x).amax(-1) == 1).all()
    for method in ("uni_blur", "ig", "agi"):
        found = unilens.explain(model, x, method, n_steps=3)
        assert found.values.isfinite().all()


# --- labels that go together -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["uni_blur", "agi", "max_entropy", "weighted", "occlusion"])
def test_a_label_is_explained_as_its_own_two_classes(method):
    head, x, settings = network(3), inputs(), METHODS[method]
    name = "ig" if method in ("max_entropy", "weighted") else method
    for target in range(3):
        own = Lambda(head, lambda z, t=target: nn.functional.pad(z[:, t : t + 1], (1, 0))).eval()
        reference = unilens.explain(own, x, name, 1, **settings)
        found = unilens.explain(head, x, name, target, outputs="multi_label", **settings)
        assert torch.allclose(found.values, reference.values, atol=1e-9)
        assert torch.allclose(found.confidence, head(x).sigmoid()[:, target])
        for key, values in reference.record.items():
            assert torch.allclose(found.record[key], values)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Hardsigmoid(), None])
def test_sigmoids_inside_are_the_labels_probabilities(last):
    head, x = network(3), inputs()
    in_forward = Lambda(head, lambda z: torch.cat([z[:, i : i + 1].sigmoid() for i in range(3)], 1))
    model = in_forward.eval() if last is None else nn.Sequential(head, last).eval()
    name, source, found = kind(model)
    assert (name, source) == ("multi_label_probabilities", "last operation")
    assert torch.allclose(found.score, model(x).amax(-1))
    assert found.warnings == [[], []]
    if last is None:
        uni = unilens.explain(model, x, "uni_blur", 1, **FAST["uni_blur"])
        own = unilens.explain(head, x, "uni_blur", 1, outputs="multi_label", **FAST["uni_blur"])
        assert torch.allclose(uni.values, own.values, atol=1e-8)


@pytest.mark.slow
def test_configuration_says_what_the_head_is():
    head, x = network(3), inputs()
    multi = {"problem_type": "multi_label_classification", "num_labels": 3}
    name, source, found = kind(Lambda(head, lambda z: z, **multi).eval())
    assert (name, source) == ("multi_label", "config.problem_type")
    assert torch.allclose(found.confidence, head(x).sigmoid().amax(-1))
    name, *_ = kind(Lambda(head, lambda z: z, **{**multi, "num_labels": 7}).eval())
    assert name == "logits"  # a configuration of another head
    name, *_ = kind(Lambda(head, torch.sigmoid, **multi).eval())
    assert name == "multi_label_probabilities"  # the wrapper's sigmoid is inside
    single = {"problem_type": "single_label_classification", "num_labels": 3}
    name, source, _ = kind(Lambda(head, lambda z: z, **single).eval())
    assert (name, source) == ("logits", "config.problem_type")
    value = {"problem_type": "regression", "num_labels": 1}
    name, source, found = kind(Lambda(network(1), lambda z: z, **value).eval())
    assert (name, source, found.warnings) == ("regression", "config.problem_type", [[], []])


def test_log_sigmoids_are_refused_in_one_line():
    model = nn.Sequential(network(2), nn.LogSigmoid()).eval()
    with pytest.raises(UnilensError, match=r"logarithms of labels' prob.*outputs='multi_label'"):
        unilens.explain(model, inputs(), "ig")


def test_log_probability_of_one_output_is_that_of_its_logit():
    one, x = network(1), inputs()
    models = [
        nn.Sequential(one, nn.LogSigmoid()).eval(),
        Lambda(as_two(one), lambda z: log_softmax(z, -1)[:, 1:]).eval(),
    ]
    reference = unilens.explain(one, x, "uni_blur", **FAST["uni_blur"])
    for model in models:
        found = unilens.explain(model, x, "uni_blur", **FAST["uni_blur"])
        assert found.provenance["outputs"]["kind"] == "log_probabilities"
        assert torch.allclose(found.values, reference.values, atol=1e-8)
        assert torch.allclose(found.confidence, one(x).sigmoid()[:, 0])


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["regression", "decision_function"])
def test_values_are_explained_as_they_are(said):
    model, x = nn.Linear(6, 1).double().eval(), inputs()
    found = unilens.explain(model, x, "ig", outputs=said, n_steps=2)
    assert torch.allclose(found.values, model.weight * x)
    assert torch.equal(found.score, model(x)[:, 0])
    assert found.confidence.isnan().all()
    assert "confidence_change" not in found.diagnostics
    for settings in (
        {"method": "uni", "matching_target": "uniform"},
        {"baseline": "max_entropy"},
        {"baseline": "adversarial"},
    ):
        with pytest.raises(NotApplicableError, match=f"got outputs={said!r}; use a method"):
            unilens.explain(model, x, **{"method": "ig", **settings}, outputs=said)
    with pytest.raises(NotApplicableError, match="expected outputs with probabilities"):
        unilens.explain(model, x, "ig", score="log_probability", outputs=said)


def test_several_values_need_a_target():
    model, x = nn.Linear(6, 2).double().eval(), inputs()
    with pytest.raises(UnilensError, match="expected a target, since the model's 2 outputs are"):
        unilens.explain(model, x, "ig", outputs="regression")
    found = unilens.explain(model, x, "ig", 1, outputs="regression", n_steps=2)
    assert torch.allclose(found.values, model.weight[1] * x)
    margins = unilens.explain(model, x, "ig", outputs="decision_function", score="margin")
    assert torch.allclose(margins.score, (model(x)[:, 0] - model(x)[:, 1]).abs())


# --- settings, scores, labels ----------------------------------------------------------------

ONE = torch.tensor([[0.3]], dtype=torch.float64)
SEVERAL = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
SIGMOID = 1 / (1 + math.exp(-0.3))
SCORES = {
    ("logits", 1): {"probability": SIGMOID, "log_probability": math.log(SIGMOID), "margin": 0.3},
    ("probabilities", 1): {
        "probability": 0.3,
        "log_probability": math.log(0.3),
        "margin": -0.4,
        "logit": 0.3,
        "sigmoid": SIGMOID,
    },
    ("probabilities", 3): {
        "probability": 0.3,
        "log_probability": math.log(0.3),
        "margin": -0.2,
    },
    ("multi_label", 3): {"probability": SIGMOID, "margin": 0.3, "sigmoid": SIGMOID},
    ("multi_label_probabilities", 3): {"probability": 0.3, "margin": -0.4},
    ("regression", 3): {"probability": 0.3, "logit": 0.3, "sigmoid": SIGMOID},
    ("decision_function", 3): {"probability": 0.3, "margin": -0.2},
    ("decision_function", 1): {"margin": 0.3},
}


@pytest.mark.parametrize(("said", "count"), SCORES)
def test_scores_by_kind_are_the_closed_forms(said, count):
    outputs, target = (ONE, 0) if count == 1 else (SEVERAL, 2)
    model = SimpleNamespace(output_spec=OutputSpec(said))
    for name, reference in SCORES[said, count].items():
        value = resolve(name, model)(outputs, torch.tensor([target]))
        assert value.tolist() == pytest.approx([reference], abs=1e-12), name


def test_a_score_of_the_users_gets_the_outputs_as_they_are():
    x, model = inputs(), PROBABLE["module"].eval()
    found = unilens.explain(model, x, "gradient", 0, score=lambda outputs, target: outputs[:, 0])
    assert torch.allclose(found.score, model(x)[:, 0])
    sigmoid = unilens.explain(LOGITS_OUT, x, "gradient", 2, score="sigmoid")
    assert torch.allclose(sigmoid.score, LOGITS_OUT(x)[:, 2].sigmoid())


def test_settings_that_do_not_fit_are_one_line():
    model, x = network(3), inputs()
    with pytest.raises(UnilensError, match="expected outputs to be one of logits, log_prob"):
        unilens.explain(model, x, "ig", outputs="softmax")
    with pytest.raises(UnilensError, match=r"pass it when making that: Evaluator\(model, outp"):
        unilens.explain(Evaluator(model), x, "ig", outputs="logits")
    for said in ("probabilities", "log_probabilities", "multi_label_probabilities"):
        with pytest.raises(UnilensError, match=f"as outputs='{said}' says, got outputs from"):
            unilens.explain(model, x, "ig", outputs=said)
    assert set(OUTPUTS) >= {"logits", "multi_label", "regression"}


def test_the_evaluator_takes_the_setting_and_hands_it_on():
    model, x = network(3), inputs()
    evaluator = Evaluator(model, outputs="multi_label")
    found = unilens.explain(evaluator, x, "gradient", 0)
    assert torch.allclose(found.score, model(x)[:, 0].sigmoid())
    assert evaluator.with_model(network(3, 5)).output_spec == evaluator.output_spec
    parts = unilens.explain(
        Lambda(model, lambda z: z).eval(), (x,), "gradient", 0, outputs="multi_label"
    )
    assert torch.allclose(parts.score, found.score)


def test_two_labels_and_one_output_name_the_second():
    from unilens.models import PixelClassifier, Preprocessing

    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    plain = Preprocessing((8, 8), 8, (0.5,) * 3, (0.5,) * 3)
    model = PixelClassifier(nn.Sequential(*layers), plain, ["healthy", "tumour"])
    x = torch.rand(1, 3, 8, 8)
    found = unilens.explain(model, x, "ig", "tumour", n_steps=3)
    assert model.label(int(found.target)) == "tumour"
    assert torch.allclose(found.confidence, model(x).sigmoid()[:, 0])
    with pytest.raises(UnilensError, match=r"expected the label 'tumour', .*, got 'healthy'"):
        unilens.explain(model, x, "ig", "healthy")
    two = PixelClassifier(nn.Sequential(*layers[:3], nn.Linear(4, 2)), plain, ["healthy", "tumour"])
    assert [two.label(0), two.class_index("healthy")] == ["healthy", 0]


# --- metrics ---------------------------------------------------------------------------------


OF_SCORES = {
    "deletion_auc": {},
    "insertion_auc": {},
    "mu_fidelity": {"cells": 6},
    "infidelity": {"perturbation": "subset"},
    "confidence_change": {},
}


@pytest.mark.parametrize("metric", OF_SCORES)
def test_metrics_of_probabilities_are_those_of_their_logits(metric):
    x, values = inputs(), []
    for model in (PROBABLE["module"].eval(), LOGITS_OUT):
        found = unilens.explain(model, x, "ig")
        values.append(unilens.evaluate(model, x, found, metric, **OF_SCORES[metric]))
    assert values[0].isfinite().all()
    assert torch.allclose(*values, atol=1e-6)


def test_metrics_follow_what_the_attribution_says():
    model, x = network(3), inputs()
    found = unilens.explain(model, x, "ig", 0, outputs="multi_label")
    change = unilens.evaluate(model, x, found, "confidence_change")
    before, after = (model(one).sigmoid()[:, 0] for one in (torch.zeros_like(x), x))
    assert torch.allclose(change, (before - after) / after)
    curve = unilens.evaluate(model, x, found, "deletion_auc")
    assert torch.allclose(
        curve,
        unilens.evaluate(model, x, found.values, "deletion_auc", target=0, outputs="multi_label"),
    )


def test_labels_of_one_probability_change_at_one_half():
    from unilens.metrics.robustness.perturbations import labels

    spec = OutputSpec("probabilities")
    subject = SimpleNamespace(evaluator=SimpleNamespace(output_spec=spec))
    assert labels(subject, torch.tensor([[0.4], [0.6]])).tolist() == [0, 1]
    subject.evaluator.output_spec = OutputSpec("logits")
    assert labels(subject, torch.tensor([[-0.4], [0.4]])).tolist() == [0, 1]
    subject.evaluator.output_spec = OutputSpec("regression")
    with pytest.raises(NotApplicableError, match="got outputs='regression'"):
        labels(subject, torch.tensor([[1.0]]))


def test_label_attack_of_one_logit_is_that_of_two():
    one, x = network(1), inputs()
    values = [
        unilens.evaluate(
            model,
            x,
            unilens.explain(model, x, "gradient", target),
            "fgsm_label_spearman",
            method="gradient",
        )
        for model, target in ((one, 0), (as_two(one), 1))
    ]
    assert values[0].isfinite().all()
    assert torch.allclose(*values, atol=1e-9)


# --- shapes and types of outputs -------------------------------------------------------------

REFUSED = {
    "squeezed classes": (lambda z: z.squeeze(), 1, r"shape \(1, classes\), got \(3,\).*squeeze"),
    "argmax": (lambda z: z.argmax(-1, keepdim=True), 1, r"torch.int64; return logits in place of"),
    "truths": (lambda z: z > 0, 1, r"torch.bool; return logits"),
    "complex": (lambda z: z.to(torch.complex128), 1, r"torch.complex128; return a real part"),
    "sparse": (lambda z: z.to_sparse(), 1, r"sparse tensor .*; return outputs.to_dense\(\)"),
    "meta": (lambda z: z.to("meta"), 1, r"on the device meta; load the weights"),
    "dict": (lambda z: {"logits": z}, 1, r"dict with keys logits; wrap it"),
    "tuple": (lambda z: (z, z), 1, "tuple of 2; wrap it"),
    "nan": (lambda z: z / 0 * 0, 1, "expected finite logits at the inputs"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_outputs_that_are_no_rows_of_numbers_are_one_line(case, method):
    function, count, message = REFUSED[case]
    with pytest.raises(UnilensError, match=message) as caught:
        unilens.explain(Lambda(network(3), function).eval(), inputs(count), method)
    assert "\n" not in str(caught.value)


def test_outputs_of_one_number_per_input_are_one_output():
    flat, column = (Lambda(network(3), f).eval() for f in (lambda z: z[:, 0], lambda z: z[:, :1]))
    for method in ("ig", "uni_blur", "occlusion"):
        found, expected = (unilens.explain(m, inputs(3), method).values for m in (flat, column))
        assert torch.equal(found, expected)


# --- tables ----------------------------------------------------------------------------------


def test_estimators_without_probabilities_are_explained_by_their_decision_function():
    from sklearn.svm import LinearSVC

    rng = numpy.random.default_rng(0)
    rows = rng.normal(size=(60, 3))
    names = numpy.where(rows[:, 0] > 0, "yes", "no")
    machine = LinearSVC(C=0.1).fit(rows, names)
    found = tables.explain(machine, rows[:4], "yes", references=0 * rows[:1])
    assert numpy.allclose(found.values, machine.coef_ * rows[:4])
    assert found.unit == "decision function"
    assert found.attribution.confidence.isnan().all()
    assert found.attribution.warnings == [[]] * 4


def test_tables_of_a_module_take_what_its_outputs_are():
    model, x = network(3), inputs().numpy()
    found = tables.explain(model, x, 0, "gradient", outputs="multi_label").attribution
    assert torch.allclose(found.confidence, model(inputs()).sigmoid()[:, 0])


def test_adapters_hand_on_what_the_outputs_are():
    from unilens.interop.captum import UNIBlur
    from unilens.interop.quantus import explain_func

    model, x = network(3), inputs()
    reference = unilens.explain(
        model, x, "uni_blur", 1, outputs="multi_label", **FAST["uni_blur"]
    ).values
    settings = {"outputs": "multi_label", "score": "probability", **FAST["uni_blur"]}
    assert torch.allclose(UNIBlur(model, **settings).attribute(x, target=1), reference, atol=1e-9)
    maps = explain_func(model, x.numpy(), numpy.ones(2, int), **settings)
    assert numpy.allclose(maps, reference.numpy(), atol=1e-9)


def test_log_softmax_by_hand():
    assert torch.allclose(
        resolve("log_probability")(SEVERAL, torch.tensor([1])), log_softmax(SEVERAL, -1)[:, 1]
    )


# --- texts -----------------------------------------------------------------------------------


def text_head(problem_type=None, labels=3):
    from unilens.text import TextClassifier

    from ..text_models import tiny_bert, tiny_tokenizer

    network = tiny_bert()
    network.config.problem_type = problem_type
    if labels == 1:
        network.classifier = nn.Linear(16, 1).double().eval()
        network.config.num_labels = 1
    return TextClassifier(network, tiny_tokenizer())


def multi_label_text():
    return text_head("multi_label_classification")


def regression_text():
    return text_head("regression", labels=1)


def two_names_and_one_output():
    made = text_head(labels=1)
    made.labels = ("dull", "fun")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uni_blur", "ig"])
def test_text_confidence_is_what_the_head_says(method):
    from unilens.text import explain_text

    classifier = multi_label_text()
    tokens = classifier.tokenizer("the film was fun", return_tensors="pt")
    logits = classifier.network(**tokens).logits[0].detach()
    for target in range(3):
        found = explain_text(classifier, "the film was fun", method, target, n_steps=3)
        assert torch.allclose(found.attribution.confidence, logits[target].sigmoid())
    said = explain_text(text_head(), "the film was fun", method, 1, outputs="multi_label")
    assert torch.allclose(said.attribution.confidence, logits[1].sigmoid())
    exclusive = explain_text(text_head(), "the film was fun", method, 1)
    assert torch.allclose(exclusive.attribution.confidence, logits.softmax(-1)[1])


def test_text_label_of_a_single_output_is_the_second_of_two():
    from unilens.text import explain_text

    found = explain_text(two_names_and_one_output(), "the film was fun", "ig", "fun", n_steps=3)
    assert found.label == "fun"
    with pytest.raises(UnilensError, match=r"the label 'fun', .* got 'dull'"):
        explain_text(two_names_and_one_output(), "the film was fun", "ig", "dull")


@pytest.mark.slow
def test_command_of_texts_prints_what_the_outputs_are(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(model, *more):
        place = f"py:{__name__}:{model}"
        return command("explain-text", "the film", "--model", place, "--method", "ig", *more)

    classifier = multi_label_text()
    logits = classifier.network(**classifier.tokenizer("the film", return_tensors="pt")).logits[0]
    code, out, _ = run("multi_label_text", "--target", "1")
    assert (code, f"probability {float(logits[1].sigmoid().detach()):.3f}" in out) == (0, True)
    code, out, _ = run("regression_text", "--overwrite")
    assert (code, "probability" in out) == (0, False)
    code, out, _ = run("text_head", "--overwrite", "--outputs", "decision_function")
    assert (code, "probability" in out) == (0, False)
    code, out, _ = run("two_names_and_one_output", "--overwrite", "--target", "fun")
    assert (code, "fun" in out) == (0, True)
