"""What every registered method, baseline and path must keep, whichever it is."""

import inspect
import pickle
import pkgutil
import queue
from importlib import import_module

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn.functional import avg_pool2d, conv_transpose2d

import unilens
from unilens import evaluate, explain
from unilens.baselines import Baseline, FixedValues, FunctionBaseline, PerInput, baselines
from unilens.errors import NotApplicableError, UnilensError
from unilens.methods import methods
from unilens.paths import FunctionPath, Path, paths
from unilens.quadrature import rules
from unilens.registry import Registry
from unilens.scores import resolve, scores
from unilens.weightings import weightings

from ..conftest import SmallNet, randomise
from ..vit_models import TinyViT

# Settings that a method or baseline cannot do without, or is slow without; inputs here are
# (B, 3, 13, 11), or (B, 6).
_SEEDED = torch.Generator().manual_seed(0)
_REFERENCES = {"references": torch.rand(5, 3, 13, 11, generator=_SEEDED).double()}
_OF_ALL_CLASSES = {"references": 4 * torch.randn(5, 3, 13, 11, generator=_SEEDED).double()}
"""Another class than the target wins at some of them only, as "passes_at_most" supposes."""
NEEDED = {
    "dataset_sample": _REFERENCES,
    "expected_gradients": _REFERENCES,
    "deeplift_shap": _REFERENCES,
    "neutral": {"references": torch.rand(20, 6, generator=_SEEDED).double()},
    "rise": {"n_masks": 40, "cells": 4},
    "sobol": {"designs": 4, "cells": 3},
    "shapley": {"cells": 4, "n_permutations": 4},
    "agi": {"classes": 2, "iterations": 5, "n_steps": 5},
    "adversarial": {"classes": 2, "iterations": 5},
    "boundary": {"iterations": 5},
    "mfaba": {"iterations": 5, "n_steps": 5},
    "counterfactual": {**_OF_ALL_CLASSES, "iterations": 4},
    "ig2": {**_OF_ALL_CLASSES, "iterations": 4, "n_steps": 4},
    "fisher_rao": {"waypoints": 6},
    "fringe_b": {"waypoints": 6, "n_steps": 7},
    "tangent_aligned": {"iterations": 3},
}
CASES = {name: (name, NEEDED.get(name, {})) for name in methods} | {
    f"ig from {name}": ("ig", {"baseline": name, **NEEDED.get(name, {})}) for name in baselines
}
PERCEPTRONS = [name for name in methods if "perceptron" in methods[name].card.traits]
TRANSFORMERS = [name for name in methods if "attention" in methods[name].card.traits]
MODELS = {
    name: lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)) for name in PERCEPTRONS
} | dict.fromkeys(TRANSFORMERS, lambda: TinyViT((13, 11)))
"""Methods for one kind of model: they refuse the network here, and any module around theirs."""
every_case = pytest.mark.parametrize("case", CASES)
cases = pytest.mark.parametrize("case", [name for name in CASES if name not in MODELS])


def traits_of(case):
    """What the cards of a case's method and baseline say."""
    name, settings = CASES[case]
    baseline = settings.get("baseline")
    return {*methods[name].card.traits, *(baselines[baseline].card.traits if baseline else ())}


def with_trait(trait):
    return {case for case in CASES if trait in traits_of(case)}


CONTROLS = {name for name in methods if methods[name].card.family == "control"}
"""Maps that do not depend on the model: a model that is linear, or blind to a value, is nothing to
them (tests/oracle/test_controls.py says what they are)."""
FINER = {
    "guided_ig": {"max_distance": 1e-3},  # features jump that far at once, however many the steps
    "blur_ig": {"max_sigma": 2.0},  # images of 13 x 11 change in the last few of 50
}
"""What must be fine beside the number of steps for a sum to be complete."""


def cases_but(*left_out):
    left_out = {*left_out, *MODELS}
    return pytest.mark.parametrize("case", [name for name in CASES if name not in left_out])


@pytest.fixture
def net(case):
    return randomise(MODELS.get(case, SmallNet)().double())


@pytest.fixture
def given(case):
    shape = (8, 6) if case in PERCEPTRONS else (8, 3, 13, 11)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).double()


def expected_score(case, logits):
    """What the case explains: the logit or margin where its method can explain nothing else."""
    name, settings = CASES[case]
    return resolve(methods[name](**settings).score)(logits, logits.argmax(-1)).detach()


def run(case, model, inputs, **more):
    name, settings = CASES[case]
    return explain(model, inputs, name, **settings, **more)


@every_case
def test_method_keeps_shape_dtype_device_and_records_provenance(case, net, given):
    for dtype in (torch.float64, torch.float32):
        inputs = given.to(dtype)
        found = run(case, net.to(dtype), inputs)
        assert found.values.shape == inputs.shape
        assert found.values.dtype == dtype
        assert found.values.device == inputs.device
        assert found.values.isfinite().all()
        assert not found.values.requires_grad
        assert float(found.values.abs().max()) > 0
        outputs = net(inputs).detach()
        assert torch.equal(found.target, outputs.argmax(-1))
        assert torch.allclose(found.score, expected_score(case, outputs), atol=1e-6)
        for name, measured in found.diagnostics.items():
            assert measured.shape == (8,), name
        assert len(found.warnings) == 8


def state(model):
    return {
        "tensors": {name: value.clone() for name, value in model.state_dict().items()},
        "versions": [value._version for value in (*model.parameters(), *model.buffers())],
        "places": [value.data_ptr() for value in (*model.parameters(), *model.buffers())],
        "strides": [value.stride() for value in (*model.parameters(), *model.buffers())],
        "requires_grad": [value.requires_grad for value in model.parameters()],
        "grad": [value.grad for value in model.parameters()],
        "training": [part.training for part in model.modules()],
        "hooks": [
            (dict(part._forward_hooks), dict(part._forward_pre_hooks), dict(part._backward_hooks))
            for part in model.modules()
        ],
        "attributes": [sorted(vars(part)) for part in model.modules()],
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name in before["tensors"]:
        assert torch.equal(before["tensors"][name], after["tensors"][name]), name
    for key in before.keys() - {"tensors"}:
        assert before[key] == after[key], key


@pytest.fixture
def watched(net):
    """A model with hooks, a frozen weight and a gradient: all of it must stay."""
    first, *_, last = net.children()
    first.weight.requires_grad_(False)
    last.weight.grad = torch.ones_like(last.weight)
    first.register_forward_hook(lambda module, args, output: None)
    last.register_full_backward_hook(lambda module, given, taken: None)
    return net


@every_case
def test_method_leaves_model_and_inputs_unchanged(case, watched, given):
    before, inputs = state(watched), given.clone()
    run(case, watched, inputs)
    assert_same(before, state(watched))
    assert torch.equal(inputs, given)
    assert not inputs.requires_grad


@pytest.mark.parametrize("name", MODELS)
def test_method_refuses_other_kinds_of_model(name, small_net, images):
    before, shape = state(small_net), tuple(images.shape[1:])
    settings = {"references": torch.rand(5, *shape)} if name in NEEDED else {}
    with pytest.raises(NotApplicableError, match="expected a model") as raised:
        explain(small_net, images, name, **settings)
    assert "\n" not in str(raised.value)
    assert_same(before, state(small_net))


class FailsLater(nn.Module):
    """Raises at its n-th pass, in whatever copy of it that is."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        return self.inner(_Fail.apply(inputs))


LEFT: queue.SimpleQueue[None] = queue.SimpleQueue()
"""One entry for each pass that works; not a number, since what a model writes is put back."""


class _Fail(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        if LEFT.empty():
            raise RuntimeError("injected")
        LEFT.get()
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@cases
@pytest.mark.parametrize("passes", [0, 2, 9])
def test_method_restores_model_after_failure(case, passes, watched, images):
    model = FailsLater(watched).eval()
    before, given = state(model), images.clone()
    while not LEFT.empty():
        LEFT.get()
    for _ in range(passes):
        LEFT.put(None)
    with pytest.raises(UnilensError, match="injected"):
        run(case, model, images)
    assert_same(before, state(model))
    assert torch.equal(images, given)


@every_case
def test_method_on_batch_equals_loop(case, net, given):
    together = run(case, net.float(), given.float())
    for i in (0, 5):
        alone = run(case, net, given.float()[i : i + 1])
        assert torch.equal(alone.values[0], together.values[i])
        if together.baseline_score is not None:
            assert torch.equal(alone.baseline[0], together.baseline[i])
            assert torch.equal(alone.baseline_score[0], together.baseline_score[i])


@every_case
def test_method_repeats_map_with_same_seed(case, net, given):
    first = run(case, net, given[:2], seed=3).values
    assert torch.equal(run(case, net, given[:2], seed=3).values, first)


@every_case
def test_method_depends_on_seed_as_card_says(case, net, given):
    name, settings = CASES[case]
    cards = [methods[name].card]
    if "baseline" in settings:
        cards.append(baselines[settings["baseline"]].card)
    first, other = (run(case, net, given[:3], seed=seed).values for seed in (3, 4))
    assert torch.equal(first, other) == all(card.deterministic for card in cards)


@cases
def test_method_runs_hooks_of_the_model(case, small_net, images):
    def tripled(module, args, output):
        return 3 * output

    small_net.head.register_forward_hook(tripled)
    expected = expected_score(case, small_net(images[:2]))
    assert torch.allclose(run(case, small_net, images[:2]).score, expected)


class Counting(nn.Module):
    """Counts the points that come forward and the gradients that go back; see `taken`."""

    def __init__(self, inner, forwards=True):
        super().__init__()
        self.inner, self.forwards = inner, forwards

    def forward(self, inputs):
        if self.forwards:
            POINTS.put((len(inputs), 0))
        if inputs.requires_grad:
            inputs = inputs.clone()
            inputs.register_hook(lambda gradient: POINTS.put((0, len(gradient))))
        return self.inner(inputs)


POINTS: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
"""Not a number of the class: what a model writes there is put back."""


def counting(model):
    """Return an evaluator that counts; forward only what is asked for, and no proofs of it."""
    return unilens.Evaluator(
        Counting(model, forwards=False).eval(), on_pass=lambda count: POINTS.put((count, 0))
    )


def taken():
    """Return the points that came forward and the gradients that went back since the last call."""
    seen = [POINTS.get() for _ in range(POINTS.qsize())]
    return sum(point_count[0] for point_count in seen), sum(point_count[1] for point_count in seen)


@cases
def test_method_runs_as_many_passes_as_declared(case, images):
    name, settings = CASES[case]
    evaluator = counting(randomise(SmallNet().double()))
    evaluator(images)
    explainer = methods[name](**settings)
    explainer(evaluator, images)  # proves what is proven once for an evaluator
    taken()
    explainer.check(evaluator, images)
    checked, back = taken()
    of_parts = 1 + (name == "guided_gradcam")  # which asks both of the methods it is made of
    assert checked <= of_parts * (1 + name.startswith("deeplift"))  # at one input, or a pair
    assert back == 0
    found = explainer(evaluator, images)
    points, gradients = taken()
    forward, backward = found.provenance["passes"].values()
    # A gradient in the weights or in a layer ends there: it does not come back to the inputs.
    unlearned = int(getattr(getattr(explainer, "baseline", None), "matching_steps", 0) > 0)
    inside = unlearned + ("layer" in traits_of(case))
    if "passes_at_most" in traits_of(case):
        assert 8 < points <= 8 * forward
        assert 8 < gradients <= 8 * backward
    else:
        assert points == 8 * forward + checked
        assert gradients == 8 * (backward - inside)
    if "passes_by_size" not in traits_of(case):
        assert explainer.passes == (forward, backward)


@every_case
def test_method_and_attribution_pickle(case, net, given):
    name, settings = CASES[case]
    explainer = methods[name](**settings)
    again = pickle.loads(pickle.dumps(explainer))
    first, second = explainer(net, given[:1]), again(net, given[:1])
    assert torch.equal(first.values, second.values)
    assert torch.equal(pickle.loads(pickle.dumps(first)).values, first.values)


def mean_of_windows(falls):
    """Return for each place the mean sum over the windows of 2 x 2, stride 1, that cover it."""
    sums = avg_pool2d(falls.sum(1, keepdim=True), 2, stride=1, divisor_override=1)
    total, times = (
        conv_transpose2d(values, torch.ones(1, 1, 2, 2).double())
        for values in (sums, torch.ones_like(sums))
    )
    return (total / times / falls.shape[1]).expand_as(falls)


# From the target's weights and the inputs; with a path it is weight times distance.
ON_A_LINEAR_MODEL = {
    "gradient": lambda weight, inputs: weight,
    "input_x_gradient": lambda weight, inputs: weight * inputs,
    "balanced": lambda weight, inputs: weight * inputs,
    "smoothgrad": lambda weight, inputs: weight,
    "vargrad": lambda weight, inputs: 0 * weight,  # all samples have the same gradient
    "squaregrad": lambda weight, inputs: weight**2,
    "guided_backprop": lambda weight, inputs: weight,
    "deconvolution": lambda weight, inputs: weight,
    "occlusion": lambda weight, inputs: mean_of_windows(weight * inputs),
}


OF_GAINS = {"uni_blur"}
"""Methods that weigh by gains."""


def gains_on_a_linear_model(weight, way):
    """A part is the integral, averaged over neighbours; the rest goes to what brought it."""
    integral = weight * way
    sigma = 0.09 * max(way.shape[2:])
    averaged = gaussian_filter(integral.numpy(), sigma, mode="reflect", axes=(2, 3))
    change = integral.flatten(1).sum(1).view(-1, 1, 1, 1)
    brought = torch.where(integral * change > 0, integral.abs(), 0.0)
    shares = brought / brought.flatten(1).sum(1).view(-1, 1, 1, 1)
    return 0.4 * torch.from_numpy(averaged) + 0.6 * change * shares


@cases_but(*with_trait("layer"), *with_trait("estimate"), *with_trait("incomplete"), *CONTROLS)
@pytest.mark.parametrize("n_steps", [1, 4])
def test_method_is_exact_on_linear_model(case, n_steps):
    name, settings = CASES[case]
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(3 * 13 * 11, 4)).double())
    if "relu" in traits_of(case):  # one that is open at every input, so that the model stays linear
        model[1].bias.data += 100
        model = model.append(nn.ReLU().eval())
    inputs = torch.rand(2, 3, 13, 11).double()
    steps = {"n_steps": n_steps} if "n_steps" in methods[name].settings else {}
    found = explain(model, inputs, name, 1, **{**settings, **steps}, score="logit")
    weight = model[1].weight[1].view(1, 3, 13, 11).detach()
    if name in ON_A_LINEAR_MODEL:
        expected = ON_A_LINEAR_MODEL[name](weight, inputs)
    elif name in OF_GAINS:
        expected = gains_on_a_linear_model(weight, inputs - found.baseline)
    elif name == "idgi":  # shared by the squares of the weights, whatever the inputs
        change = (weight * (inputs - found.baseline)).flatten(1).sum(1)
        expected = change.view(-1, 1, 1, 1) * weight**2 / weight.square().sum()
    else:
        expected = weight * (inputs - found.baseline)
    if found.baseline_score is not None:
        assert found.completeness_gap.abs().max() < 1e-10
    assert float((found.values - expected).abs().max()) < 1e-12


@cases_but(*with_trait("layer"), *with_trait("positions"), *CONTROLS, "rise")
def test_method_gives_zero_to_unused_feature(case):
    name, settings = CASES[case]

    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = randomise(SmallNet().double())

        def forward(self, inputs):
            return self.inner(torch.cat([inputs[:, :2], inputs[:, :1]], dim=1))

    found = explain(Blind().eval(), torch.rand(2, 3, 13, 11).double(), name, **settings)
    assert float(found.values[:, 2].abs().max()) == 0
    assert float(found.values[:, 0].abs().max()) > 0


@pytest.mark.parametrize("name", sorted(with_trait("positions")))
def test_method_gives_zero_to_unused_position(name):
    # Not RISE: its map has the mean score everywhere, and noise around it.
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = randomise(SmallNet().double())

        def forward(self, inputs):
            return self.inner(torch.cat([inputs[..., :5], inputs[..., :6]], dim=-1))

    found = explain(Blind().eval(), torch.rand(2, 3, 13, 11).double(), name, **NEEDED.get(name, {}))
    nothing = found.values[..., 9:].abs().max()
    # Points share a pass, and how a pass rounds depends on how many there are.
    assert float(nothing) < 1e-12 * float(found.values.abs().max())
    assert float(found.values[..., 0].abs().max()) > 0


@pytest.mark.slow
@cases_but(*with_trait("incomplete"))
def test_method_is_complete_with_many_steps(case, small_net, images):
    name, settings = CASES[case]
    if "n_steps" not in methods[name].settings:
        found = explain(small_net, images, name, **settings)
        if found.baseline_score is None:
            assert not found.complete
            assert found.completeness_gap.isnan().all()
            if found.baseline is not None:
                assert evaluate(small_net, images, found, "completeness_gap").isnan().all()
        else:  # it has no steps: the sum is complete as it is
            assert float(found.completeness_gap.abs().max()) < 1e-10
        return
    many = {"n_steps": 600, "rule": "midpoint", **FINER.get(case, {})}
    many = {key: value for key, value in many.items() if key in methods[name].settings}
    found = explain(small_net, images, name, **{**settings, **many})
    assert float(found.completeness_gap.abs().max()) < 1e-3


@pytest.mark.parametrize("kind", ["table", "signal"])
@pytest.mark.parametrize("case", [name for name in CASES if "references" not in CASES[name][1]])
def test_method_takes_tables_and_signals(case, kind):
    torch.manual_seed(0)
    shape = (6,) if kind == "table" else (2, 9)
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(torch.Size(shape).numel()), 5), nn.Tanh())
    model = nn.Sequential(model, nn.Linear(5, 3)).eval()
    if "images" in traits_of(case) and kind == "table":
        with pytest.raises(NotApplicableError, match=r"expected images .* got \(4, 6\)"):
            run(case, model, torch.rand(4, *shape))
        return
    if "pictures" in traits_of(case):
        with pytest.raises(NotApplicableError, match=r"expected pictures .* got \(4, "):
            run(case, model, torch.rand(4, *shape))
        return
    if "relu" in traits_of(case):
        with pytest.raises(UnilensError, match=f"{case} needs ReLU .*its activations: Tanh"):
            run(case, model, torch.rand(4, *shape))
        model[0][2] = nn.ReLU().eval()
    if {"layer", "attention"} & traits_of(case):
        name = "Grad-CAM" if "layer" in traits_of(case) else f"{case} expects|softmax attention"
        with pytest.raises(NotApplicableError, match=name):
            run(case, model, torch.rand(4, *shape))
        return
    found = run(case, model, torch.rand(4, *shape))
    assert found.values.shape == (4, *shape)
    assert float(found.values.abs().max()) > 0


def all_registries():
    found = {}
    for module in pkgutil.walk_packages(unilens.__path__, "unilens."):
        for name, value in vars(import_module(module.name)).items():
            if isinstance(value, Registry):
                found[id(value)] = (name, value)
    return list(found.values())


def test_registries_have_complete_cards():
    registries = dict(all_registries())
    assert {"methods", "baselines", "paths", "rules", "scores", "models", "samples"} <= set(
        registries
    )
    for registry in registries.values():
        assert len(registry) > 0
        for name, entry in registry.items():
            card = entry.card
            assert card.name == name
            assert name == name.lower()
            assert all((card.family, card.summary, card.reference))


def test_registries_hold_every_baseline_and_path_class():
    wrappers = {Baseline, FixedValues, FunctionBaseline, PerInput, Path, FunctionPath}
    for registry, base in ((baselines, Baseline), (paths, Path)):
        module = import_module(f"unilens.{registry.kind}s")
        made = {type(registry[n](**NEEDED.get(n, {}))).__name__ for n in registry}
        exported = [getattr(module, name) for name in module.__all__]
        classes = {kind for kind in exported if inspect.isclass(kind) and issubclass(kind, base)}
        assert {kind.__name__ for kind in classes - wrappers} == made
    assert set(weightings) == {"riemann", "idgi", "gains", "idg"}
    assert set(scores) == {"probability", "sigmoid", "logit", "log_probability", "margin"}
    assert set(rules) == {"right", "left", "midpoint", "trapezoid", "gauss_legendre"}


def test_public_functions_list_cards():
    assert unilens.methods().keys() == set(methods)
    assert unilens.baselines().keys() == set(baselines)
    assert unilens.paths().keys() == set(paths)
    assert unilens.weightings().keys() == set(weightings)
    assert len(unilens.__all__) <= 16
    assert all(getattr(unilens, name) is not None for name in unilens.__all__)


@pytest.mark.parametrize("name", methods)
def test_settings_by_name_list_their_names(name):
    entry = methods[name]
    for setting, default in entry.settings.items():
        if isinstance(default, str):
            choices = entry.choices(setting)
            assert default in choices
            for choice in choices:
                try:
                    entry(**{setting: choice})
                except UnilensError as error:  # it is known, but does not go with the defaults
                    assert "expected " + setting + " to be one of" not in str(error)  # noqa: PT017
    if "rule" in entry.settings:
        assert set(entry.choices("rule")) == set(rules)
