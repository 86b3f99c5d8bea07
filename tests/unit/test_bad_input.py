"""What a user reads when something does not fit; and what works although it might not."""

import numpy
import pytest
import torch
from torch import nn

from unilens import PathAttribution, UnknownNameError, evaluate, explain
from unilens.baselines import BaselineResult, Constant
from unilens.errors import NotApplicableError, UnilensError
from unilens.methods import methods
from unilens.methods.path_diagnostics import curvature, path_steps, stability
from unilens.paths import GuidedPath, Path
from unilens.weightings import ImportantDirection, Riemann


class Head(nn.Module):
    """A linear model whose result is passed through a function."""

    def __init__(self, change):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.change = change

    def forward(self, inputs):
        return self.change(self.linear(inputs.flatten(1)))


def model(change=lambda outputs: outputs):
    torch.manual_seed(0)
    return Head(change).eval()


def inputs():
    return torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(0))


NAN = inputs()
NAN[1, 0, 0] = float("nan")
CASES = {
    "method": (model(), inputs(), {"method": "unii"}, "unknown method 'unii'; did you mean uni"),
    "setting": (
        model(),
        inputs(),
        {"method": "uni", "budgets": 1},
        "setting of uni 'budgets'; did you mean budget",
    ),
    "score": (model(), inputs(), {"score": "prob"}, "unknown score 'prob'; did you mean prob"),
    "no module": (lambda x: x, inputs(), {}, "expected model to be a torch.nn.Module, got funct"),
    "training": (
        model().train(),
        inputs(),
        {},
        "expected a model in eval mode, but the model is in training mode; call model.eval",
    ),
    "a part in training": (
        nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Dropout().train()).requires_grad_(),
        inputs(),
        {},
        "in training mode; call model.eval",
    ),
    "tuple": (
        model(lambda outputs: (outputs, 1)),
        inputs(),
        {},
        "expected the model to return a tensor of logits, got tuple of 2; wrap it",
    ),
    "dict": (
        model(lambda outputs: {"logits": outputs}),
        inputs(),
        {},
        "expected the model to return a tensor of logits, got dict with keys logits; wrap it",
    ),
    "outputs of three dimensions": (
        model(lambda outputs: outputs[..., None]),
        inputs(),
        {},
        r"expected outputs of shape \(1, classes\), got \(1, 4, 1\)",
    ),
    "detached": (
        model(torch.detach),
        inputs(),
        {"method": "ig"},
        "expected a model that is differentiable in its inputs, got outputs without a gradient",
    ),
    "not dependent": (
        model(lambda outputs: outputs.detach() + torch.zeros(1, requires_grad=True)),
        inputs(),
        {"method": "gradient"},
        "expected a model that is differentiable in its inputs, got outputs that do not depend",
    ),
    "NaN outputs": (
        model(lambda outputs: outputs * float("nan")),
        inputs(),
        {},
        "expected finite logits at the inputs, got NaN or infinity",
    ),
    "wrong shape": (
        model(),
        torch.rand(2, 7),
        {},
        r"the model could not take an input of shape \(7,\), torch.float32: .*mat1 and mat2",
    ),
    "NaN": (model(), NAN, {}, "expected finite inputs, got NaN or infinity in input 1 of 2"),
    "no batch": (model(), torch.rand(6), {}, r"expected inputs of shape \(B, \*S\).*got \(6,\)"),
    "none at all": (model(), torch.rand(0, 6), {}, r"at least one input, got \(0, 6\)"),
    "integers": (model(), torch.ones(2, 6, dtype=torch.uint8), {}, "floating-point inputs, got"),
    "a list": (model(), [[1.0]], {}, r"expected inputs to be a tensor \(B, \*S\), got list"),
    "target too large": (model(), inputs(), {"target": 4}, r"between 0 and 3.*\(2, 4\); got 4"),
    "target negative": (model(), inputs(), {"target": -1}, "between 0 and 3.*got -1"),
    "targets too many": (
        model(),
        inputs(),
        {"target": [1, 2, 3]},
        r"`target` of shape \(2,\), got \(3,\); pass one index for all, or one per input",
    ),
    "target a float": (
        model(),
        inputs(),
        {"target": torch.ones(2)},
        "class indices as integers, got torch.float32",
    ),
    "target a label": (model(), inputs(), {"target": "cat"}, "class index, got the label 'cat'"),
    "target nothing": (
        model(),
        inputs(),
        {"target": [None, None]},
        "a class index or a label, got",
    ),
    "target true": (model(), inputs(), {"target": True}, "a class index or a label, got bool"),
    "target 1.5": (
        model(),
        inputs(),
        {"target": [1.5, 2.0]},
        "a class index or a label, got float",
    ),
    "target huge": (model(), inputs(), {"target": 10**30}, "a class index or a label, got int"),
    "seed": (model(), inputs(), {"seed": 1.5}, "seed to be a whole number from 0 to"),
    "score a number": (model(), inputs(), {"score": 3}, "score to be a name or a function"),
    "detached, by the default method": (
        model(torch.detach),
        inputs(),
        {},
        "expected a model that is differentiable in its inputs, got outputs without a gradient",
    ),
    "baseline not finite": (
        model(),
        inputs(),
        {"method": "ig", "baseline": "constant", "value": float("nan")},
        "expected a finite baseline",
    ),
    "values to unlearn": (
        model(lambda outputs: outputs[:, :1]),
        inputs(),
        {"method": "uni", "outputs": "regression", "matching_target": "uniform"},
        "expected outputs with probabilities of classes, got outputs='regression'; use a method",
    ),
    "no weights": (
        nn.Flatten().eval(),
        torch.rand(2, 2, 2),
        {"method": "uni"},
        "expected a model with weights to unlearn",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(case):
    broken, given, arguments, message = CASES[case]
    with pytest.raises(UnilensError, match=message) as caught:
        explain(broken, given, **arguments)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


def test_names_are_suggested_and_listed():
    with pytest.raises(UnknownNameError, match="Valid: uni_blur, uni, uni_paper, ig, blur_ig"):
        explain(model(), inputs(), "zzz")


class Uncopied:
    """Something that a model may keep, of which there can be no second."""

    def __deepcopy__(self, cache):
        raise TypeError("cannot be copied")


def test_a_model_that_cannot_be_copied_is_run_itself():
    broken = model()
    expected = explain(broken, inputs(), "ig").values
    broken.handle = Uncopied()
    assert torch.allclose(explain(broken, inputs(), "ig").values, expected, atol=1e-7)
    with pytest.raises(UnilensError, match=r"to unlearn on the copy: .* TypeError: cannot be"):
        explain(broken, inputs(), "uni_blur")


def test_a_function_that_holds_the_model_is_copied_with_it():
    closed = model()
    expected = explain(nn.Sequential(closed, Twice()).eval(), inputs(), "uni_blur").values
    plain = closed.forward
    closed.forward = lambda given: plain(given) * 2
    assert torch.allclose(explain(closed, inputs(), "uni_blur").values, expected, atol=1e-7)


class Twice(nn.Module):
    def forward(self, outputs):
        return 2 * outputs


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(mode):
    expected = explain(model(), inputs(), "uni_blur").values
    with mode():
        assert torch.equal(explain(model(), inputs(), "uni_blur").values, expected)
    with torch.inference_mode():
        made_there = inputs()
    assert torch.equal(explain(model(), made_there, "uni_blur").values, expected)


def test_a_function_with_an_empty_cell_is_no_obstacle():
    def doubles(never):
        if never:
            held = 3
        return lambda outputs: held * outputs if never else 2 * outputs

    holding = model(doubles(never=False))
    expected = explain(model(lambda outputs: 2 * outputs), inputs())
    assert torch.equal(explain(holding, inputs()).values, expected.values)


BASELINES = {
    "none": (lambda model, inputs, target, generator: iter(()), r"give at least one tensor.*none"),
    "nothing": (
        lambda model, inputs, target, generator: None,
        "several BaselineResult, got NoneType",
    ),
    "a list of tensors": (
        lambda model, inputs, target, generator: [inputs],
        "several BaselineResult, got Tensor",
    ),
    "weights of 2": (
        lambda model, inputs, target, generator: [
            BaselineResult(inputs),
            BaselineResult(0 * inputs),
        ],
        "baselines to sum to 1, got 2; divide each",
    ),
    "weights that are wrong for one input": (
        lambda model, inputs, target, generator: BaselineResult(
            inputs, weight=torch.tensor([1.0, 0.9])
        ),
        "baselines to sum to 1, got 0.9; divide each",
    ),
}


@pytest.mark.parametrize("case", BASELINES)
def test_a_baseline_that_gives_something_else(case):
    baseline, message = BASELINES[case]
    with pytest.raises(UnilensError, match=message) as caught:
        explain(model(), inputs(), "ig", baseline=baseline)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["occlusion", "deeplift", "uni_blur"])
def test_several_baselines_are_refused_where_one_is_needed(method):
    def both(model, inputs, target, generator):
        return [BaselineResult(inputs, weight=0.5), BaselineResult(0 * inputs, weight=0.5)]

    rows = torch.rand(2, 6)
    setting = "origin" if method == "uni_blur" else "baseline"
    with pytest.raises(UnilensError, match="expected one baseline per input, got 2"):
        explain(nn.Linear(6, 4).eval(), rows, method, **{setting: both})


@pytest.mark.parametrize("trajectory", [torch.rand(1, 2, 2, 3), torch.rand(3, 2, 6)])
def test_a_trajectory_has_two_ends(trajectory):
    def found(model, inputs, target, generator):
        return BaselineResult(trajectory[0].view_as(inputs), trajectory=trajectory)

    with pytest.raises(
        UnilensError, match=r"expected a trajectory of two points or.*Result.trajectory"
    ):
        explain(model(), inputs(), "ig", path="trajectory", baseline=found)


@pytest.mark.parametrize("ask", [stability, curvature, path_steps])
@pytest.mark.parametrize("path", ["straight", "blur"])
def test_a_map_without_a_baseline_has_no_path_to_look_at(ask, path):
    images = torch.rand(2, 1, 2, 3)
    method, found = methods["ig"](path=path), explain(model(), images, "gradient")
    with pytest.raises(NotApplicableError, match="with a baseline, got one of gradient; pass that"):
        ask(method, model(), images, found)


@pytest.mark.parametrize("given", [lambda rows: {"input": rows}, lambda rows: (rows,)])
def test_steps_are_of_one_tensor(given):
    linear, method, parts = (
        nn.Linear(3, 2).eval(),
        methods["ig"](n_steps=2),
        given(torch.rand(2, 3)),
    )
    with pytest.raises(NotApplicableError, match=r"inputs as one tensor \(B, \*S\).*concatenated"):
        path_steps(method, linear, parts, method(linear, parts))


@pytest.mark.parametrize("given", [lambda rows: {"input": rows}, lambda rows: (rows,)])
def test_parts_without_rows(given):
    with pytest.raises(UnilensError, match=r"with at least one input, got .*\(0, 3\)"):
        explain(nn.Linear(3, 2).eval(), given(torch.rand(0, 3)), "ig", 0)


def test_parts_that_hold_different_things_take_one_target_in_every_form():
    class Scaled(nn.Module):
        def forward(self, values, scale):
            return values * scale.unsqueeze(1)

    parts = (torch.rand(2, 3), torch.tensor([1, 2]))
    reference = explain(Scaled().eval(), parts, "ig", [2, 2]).values[0]
    for target in (2, numpy.int64(2), numpy.array(2), torch.tensor(2)):
        assert torch.equal(explain(Scaled().eval(), parts, "ig", target).values[0], reference)


def test_targets_in_every_form():
    reference = explain(model(), inputs(), "ig", [2, 2]).values
    one = numpy.array(2)
    forms = (
        2,
        one,
        numpy.int64(2),
        numpy.array([2, 2]),
        torch.tensor(2),
        torch.tensor([2, 2]),
        (2, 2),
    )
    for target in forms:
        assert torch.equal(explain(model(), inputs(), "ig", target).values, reference)


def test_a_single_output_is_explained_by_its_logit():
    torch.manual_seed(0)
    single = nn.Sequential(nn.Flatten(), nn.Linear(6, 1)).eval()
    found = explain(single, inputs(), "ig", score="logit", n_steps=2)
    assert torch.allclose(found.values.flatten(1), single[1].weight * inputs().flatten(1))
    assert torch.allclose(found.confidence, single(inputs()).sigmoid()[:, 0])


def curve_of(function):
    class Own(Path):
        def curve(self, model, start, end):
            return function(start.values, end)

    return Own()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (type("Bare", (Path,), {})(), "Bare to define curve or __call__, got neither"),
        (curve_of(lambda start, end: 3), r"a function from Own.curve, got 3"),
        (
            curve_of(lambda start, end: lambda t: end),
            r"\(1, 2, 2, 3\) from the curve .* got \(2, 2, 3\)",
        ),
        (curve_of(lambda start, end: lambda t: 0.5), "from the curve of Own, got float"),
    ],
)
def test_path_that_is_no_curve_is_one_line(path, message):
    with pytest.raises(UnilensError, match=message):
        PathAttribution(path=path, n_steps=2)(model(), inputs())


def test_weighting_that_places_nodes_defines_place():
    class Placing(Riemann):
        places_nodes = True

    with pytest.raises(UnilensError, match="expected Placing to define place"):
        PathAttribution(weighting=Placing(), n_steps=2)(model(), inputs())


def test_path_attribution_takes_registered_names():
    named = PathAttribution("grey", path="guided", weighting="idgi", n_steps=3)
    built = PathAttribution(
        Constant(0.5), path=GuidedPath(), weighting=ImportantDirection(), n_steps=3
    )
    assert named == built
    with pytest.raises(UnknownNameError, match="unknown path 'guidedd'; did you mean guided"):
        PathAttribution(path="guidedd")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.parametrize(
    "metric",
    [
        *("randomisation_cascading", "efficient_mprt", "smooth_mprt", "input_invariance"),
        "relative_representation_stability",
    ],
)
def test_metrics_that_watch_layers_refuse_torchscript(metric):
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    scripted, inputs = torch.jit.script(layers), torch.rand(2, 3, 2, 2)
    maps = explain(scripted, inputs, "gradient")
    with pytest.raises(UnilensError, match=r"of Python modules, .* got TorchScript"):
        evaluate(scripted, inputs, maps, metric, method="gradient")
