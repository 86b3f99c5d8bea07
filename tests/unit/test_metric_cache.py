"""A cache saves passes and changes nothing: what is shared, what is not, and what is refused."""

import gc
import sys
import types
from dataclasses import make_dataclass

import pytest
import torch
from torch import nn

from unilens import Evaluator, UnilensError, cli
from unilens.baselines import Constant
from unilens.methods import methods
from unilens.metrics import (
    Deletion,
    Infidelity,
    Inpaint,
    MaxSensitivity,
    MetricCache,
    MuFidelity,
    Noise,
    Replacement,
    Robustness,
    SensitivityN,
    metrics,
)
from unilens.metrics.cache import key_of
from unilens.metrics.faithfulness.perturbations import InfidelityPerturbation, PerturbedPoints
from unilens.metrics.path import baseline_quality

from ..contract.test_methods import POINTS, Counting, taken
from ..contract.test_metrics import Distance, given_to, same, small_settings

FEW = {"subsets": 20, "cells": 4}


def against(outputs, target):
    """A score that is higher at inputs of noise than at a flat picture, as images' own are."""
    return -outputs.gather(1, target.unsqueeze(1))[:, 0]


class Dimmed(InfidelityPerturbation):
    """A perturbation that depends on how many samples there are."""

    def __call__(self, context, samples):
        def drawn(block):
            shares = torch.tensor([number / samples for number in block]).view(-1, 1, 1, 1, 1)
            change = shares.to(context.inputs) * context.inputs
            return PerturbedPoints(change, context.inputs - change)

        return {"black": drawn}


dimmed = Dimmed()


VARIANTS = [
    *((name, small_settings(name)) for name in metrics),
    ("mu_fidelity", {**FEW, "reduction": "abs"}),
    ("mu_fidelity", {**FEW, "correlation": "pearson", "imputer": ["black", "blur"]}),
    ("mu_fidelity", {**FEW, "score": "logit"}),
    ("mu_fidelity", {**FEW, "fraction": 0.3}),
    ("mu_fidelity", {**FEW, "subsets": 21}),
    ("mu_fidelity", {**FEW, "cells": 3}),
    ("mu_fidelity", {**FEW, "imputer": "inpaint"}),
    ("infidelity", {"score": "logit"}),
    ("infidelity", {"perturbation": "subset"}),
    ("infidelity", {"perturbation": dimmed, "samples": 99}),
    ("infidelity", {"perturbation": dimmed}),
    ("infidelity", {"perturbation": "gaussian"}),
    ("infidelity", {"perturbation": "gaussian", "scaled": True}),
    ("infidelity", {"perturbation": "square", "imputer": ["black", "grey"]}),
    ("infidelity", {"perturbation": "square", "units": "gradient", "score": "logit"}),
    ("infidelity", {"perturbation": "subset", "imputer": "noise", "samples": 99}),
    ("monotonicity", {"baseline": "black"}),
    ("path_curvature", {"baseline": "black"}),
    ("path_curvature", {"baseline": "blur", "n_steps": 9}),
    ("max_sensitivity", {"radius": 0.05}),
    ("local_lipschitz", {"samples": 3}),
    ("robustness", {"perturbation": "noise", "similarity": "ssim"}),
    ("robustness", {"perturbation": "noise", "radius": 0.1}),
    ("robustness", {"perturbation": "fgsm", "objective": "random"}),
]


@pytest.fixture
def counted(small_net):
    return Evaluator(small_net, on_pass=lambda count: POINTS.put((count, 0)))


@pytest.fixture
def few(images):
    return images[:3]


def forward_passes(measure):
    """Return how many points go forward while something is measured."""
    taken()
    measure()
    return taken()[0]


@pytest.mark.slow
def test_nothing_changes(small_net, few, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Distance))
    baseline_quality._distance.cache_clear()
    few = few[:2]
    evaluator = Evaluator(small_net, chunk=7)  # several blocks
    cache, differ = MetricCache(evaluator, few), []
    for turn, score in enumerate(("logit", "probability")):
        explainer = methods["ig"](n_steps=3, score=score)
        attribution = explainer(evaluator, few)
        for name, settings in VARIANTS:
            given = given_to(few) | {"method": explainer}
            with_memo, alone = (
                metrics[name](**settings)(evaluator, few, attribution, **given, **more)
                for more in ({"cache": cache}, {})
            )
            found = {"values": with_memo.values, **with_memo.breakdown, **with_memo.details}
            expected = {"values": alone.values, **alone.breakdown, **alone.details}
            assert found.keys() == expected.keys()
            differ += [
                (turn, name, settings, key)
                for key, value in expected.items()
                if not same(value, found[key]) and "rounding" not in metrics[name].card.traits
            ]
            ours, theirs = ({**one.provenance, "seconds": None} for one in (with_memo, alone))
            assert ours == theirs
    baseline_quality._distance.cache_clear()
    assert not differ


@pytest.mark.parametrize(
    ("metric", "others"),
    [
        (
            MuFidelity(**FEW),
            [
                MuFidelity(**FEW, absolute=True),
                MuFidelity(**FEW, correlation="pearson", reduction="abs"),
            ],
        ),
        (
            SensitivityN(fractions=(0.1, 0.5), subsets=9),
            [
                SensitivityN(fractions=(0.5,), subsets=9),
                MuFidelity(cells=None, fraction=0.1, subsets=9),
            ],
        ),
        (Infidelity(samples=9), [Infidelity(samples=9, scaled=True)]),
        (Robustness(perturbation=Noise()), []),
    ],
)
def test_the_second_map_is_asked_what_the_first_was(counted, few, metric, others):
    cache = MetricCache(counted, few)

    def measure(measuring, values):
        return measuring(counted, few, values, cache=cache, method=lambda model, inputs, _: inputs)

    assert forward_passes(lambda: measure(metric, few)) > 0
    for measuring in [metric, *others]:
        assert forward_passes(lambda one=measuring: measure(one, few.flip(0))) == 0


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(MuFidelity, FEW), (Infidelity, {"samples": 9}), (MaxSensitivity, {"samples": 2})],
)
def test_a_new_field_is_part_of_the_key(counted, few, kind, settings):
    extended = make_dataclass("Extended", [("extra", float, 0.0)], bases=(kind,), frozen=True)
    cache, maps.calls = MetricCache(counted, few), 0

    def cost(extra):
        measure, before = extended(**settings, extra=extra), maps.calls
        passes = forward_passes(lambda: measure(counted, few, few, method=maps, cache=cache))
        return passes + maps.calls - before

    cost(0.0)
    assert cost(1.0) > 0
    assert cost(0.0) == 0


def test_no_two_settings_share_a_key():
    built = [metrics[name](**settings) for name, settings in VARIANTS]
    for number, first in enumerate(built):
        for second in built[:number]:
            assert (key_of(first) == key_of(second)) == (first == second)


def test_without_a_memo_nothing_is_kept(counted, few):
    metric = MuFidelity(**FEW)
    metric(counted, few, few)
    assert forward_passes(lambda: metric(counted, few, few)) == 3 * 21


def maps(model, inputs, target):
    maps.calls += 1
    return inputs.square()


@pytest.mark.parametrize(
    ("first", "second", "calls"),
    [
        ("fgsm_spearman", "fgsm_top_k", None),
        ("attack_spearman", "attack_top_k", None),
        ("fgsm_label_spearman", "fgsm_label_top_k", 1),
        ("noise_spearman", "noise_top_k", 1),
        ("max_sensitivity", "mean_sensitivity", 10),
        ("mean_sensitivity", "local_lipschitz", 10),
    ],
)
def test_a_pair_explains_once(counted, few, first, second, calls):
    cache = MetricCache(counted, few)

    def measure(name, values, method=maps):
        measuring = metrics[name](**small_settings(name))
        before = maps.calls
        passes = forward_passes(
            lambda: measuring(counted, few, values, method=method, target=0, cache=cache)
        )
        return maps.calls - before, passes

    maps.calls = 0
    made, _ = measure(first, few)
    assert made == calls or (calls is None and made > 0)
    assert measure(second, few) == (0, 0)
    assert measure(second, few.flip(0))[0] == made, "another map"
    assert measure(first, few)[0] == made, "only the latest map is remembered"
    calls = []
    measure(second, few, lambda model, inputs, _: calls.append(1) or inputs)
    assert calls, "another method"


def test_what_is_left_when_all_is_removed_is_measured_once(counted, few):
    cache = MetricCache(counted, few)
    deletion, insertion = (metrics[name]() for name in ("deletion_auc", "insertion_auc"))
    asked = [
        forward_passes(
            lambda metric=metric, maps=maps: metric(counted, few, maps, target=0, cache=cache)
        )
        for metric, maps in [(deletion, few), (insertion, few), (deletion, few.flip(0))]
    ]
    assert asked == [3 * (1 + 10), 3 * 9, 3 * 9]
    assert forward_passes(lambda: insertion(counted, few, few, target=1, cache=cache)) == 3 * 10


@pytest.mark.parametrize("plain", ["insertion", "deletion"])
def test_aligned_curves_share_the_passes_of_plain_ones(plain, counted, few):
    cache = MetricCache(counted, few)

    def measure(name, **settings):
        measuring = metrics[name](**settings)
        return forward_passes(lambda: measuring(counted, few, few, target=0, cache=cache))

    assert measure(f"{plain}_auc") > 0
    assert measure(f"mas_{plain}") == 0
    assert measure(f"mas_{plain}", reduction="abs") > 0
    assert measure(f"{plain}_auc", reduction="abs") == 0


class Doubled(MuFidelity):
    """Another class may ask other questions."""


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({}, {"target": 1}),
        ({}, {"target": [0, 0, 1]}),
        ({}, {"seed": 1}),
        ({"imputer": "grey"}, {}),
        ({"imputer": Replacement(Constant(0.25))}, {}),
        ({"imputer": Inpaint(noise=0.0)}, {}),
        ({"imputer": lambda subject: lambda kept: kept[:, :, None] * subject.inputs}, {}),
        ({"subsets": 21}, {}),
        ({"cells": 5}, {}),
        ({"fraction": 0.3}, {}),
        ({"score": "logit"}, {}),
        ({"score": against}, {}),
    ],
)
def test_other_questions_are_asked_anew(counted, few, settings, arguments):
    cache, own = MetricCache(counted, few), {"target": 0, "seed": 0}
    MuFidelity(**FEW)(counted, few, few, cache=cache, **own)
    metric = MuFidelity(**{**FEW, **settings})
    asked = forward_passes(lambda: metric(counted, few, few, cache=cache, **{**own, **arguments}))
    assert asked == 3 * metric.subsets
    assert forward_passes(lambda: MuFidelity(**FEW)(counted, few, few, cache=cache, **own)) == 0
    other = Doubled(**FEW)
    assert forward_passes(lambda: other(counted, few, few, cache=cache, **own)) == 3 * 20


def test_imputers_are_built_once_for_all_maps_and_metrics(counted, few):
    calls = []

    def imputer(subject):
        calls.append(subject)
        return lambda kept: kept[:, :, None] * subject.inputs

    cache = MetricCache(counted, few)
    for values in (few, few.flip(0)):
        Deletion(imputer=imputer)(counted, few, values, cache=cache)
        MuFidelity(**FEW, imputer=imputer)(counted, few, values, cache=cache)
    assert len(calls) == 1
    Deletion(imputer=imputer)(counted, few, few, cache=cache, seed=1)
    assert len(calls) == 2


def test_others_are_refused(small_net, few):
    evaluator = Evaluator(small_net)
    cache, metric = MetricCache(evaluator, few), Deletion()
    for model in (small_net, Evaluator(small_net)):
        with pytest.raises(UnilensError, match="Evaluator that the cache was made for") as caught:
            metric(model, few, few, cache=cache)
        assert "\n" not in str(caught.value)
    for inputs in (few.flip(0), few[:2], few.float()):
        with pytest.raises(UnilensError, match="inputs that the cache was made for") as caught:
            metric(evaluator, inputs, inputs, cache=cache)
        assert "\n" not in str(caught.value)
    few[0, 0, 0, 0] = 0
    cache = MetricCache(evaluator, few)
    metric(evaluator, few.clone(), few, cache=cache)
    few[0, 0, 0, 0] = -0.0  # from which the seeds of what is drawn are others
    with pytest.raises(UnilensError, match="inputs that the cache was made for"):
        metric(evaluator, few, few, cache=cache)
    few[0, 0, 0, 0] += 1
    with pytest.raises(UnilensError, match="inputs that the cache was made for"):
        metric(evaluator, few, few, cache=cache)


def test_what_has_failed_is_tried_again(counted, few):
    cache, calls = MetricCache(counted, few), []

    def imputer(subject):
        calls.append(1)
        raise UnilensError("not yet")

    for _ in range(2):
        with pytest.raises(UnilensError, match="not yet"):
            Deletion(imputer=imputer)(counted, few, few, cache=cache)
    assert len(calls) == 2


def counting_model():
    """A classifier of photographs, for `--model py:`."""
    return Counting(nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3 * 49, 5))).eval()


def test_the_command_line_asks_once_per_photograph(monkeypatch, tmp_path):
    def passes(*arguments):
        asked = ["evaluate", "--model", f"py:{__name__}:counting_model", "--out", str(tmp_path)]
        metric = ["--metric", "mu_fidelity:subsets=20", "--overwrite", *arguments]
        monkeypatch.setattr(sys, "argv", ["unilens", *asked, *metric])

        def run():
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert not ended.value.code

        return forward_passes(run)

    gradient, product = ("--method", "gradient"), ("--method", "input_x_gradient")
    one = passes("--sample", "chelsea", *gradient)
    assert one >= 20
    assert passes("--sample", "chelsea", *gradient, *product) < one + 20
    assert passes("--sample", "chelsea", "--sample", "coffee", *gradient) >= 40


def held(thing, beside):
    """Return the bytes of all tensors that a thing holds, those that `beside` holds left out."""
    seen, queue, found = {id(one) for one in beside}, [thing], 0
    while queue:
        one = queue.pop()
        if id(one) in seen or isinstance(one, (type, types.ModuleType)):
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            found += one.nbytes
        elif isinstance(one, types.FunctionType):
            queue += [cell.cell_contents for cell in one.__closure__ or ()]
        else:
            queue += gc.get_referents(one)
    return found


def test_memory_does_not_grow_with_the_maps(counted, few):
    cache, after = MetricCache(counted, few), []
    names = ("fgsm_top_k", "noise_spearman", "fgsm_label_spearman", "max_sensitivity")
    asked = [(name, small_settings(name)) for name in (*names, "mu_fidelity", "infidelity", "road")]
    for first in range(3):
        values = few.roll(first, -1)
        for name, settings in asked:
            measuring = metrics[name](**settings)
            measuring(counted, few, values, method=lambda model, inputs, _: +inputs, cache=cache)
        after.append(held(cache, beside=[counted]))
    assert after == after[:1] * 3
    assert 5 * few.nbytes < after[0] < 30 * few.nbytes


def test_keys():
    single = torch.rand(1, 5)[:, 2]
    assert key_of(single) == key_of(single.clone(memory_format=torch.contiguous_format))
    zero, one = torch.zeros(3), torch.ones(3)
    constant = Replacement(Constant(zero))
    assert key_of(constant) == key_of(Replacement(Constant(zero.clone())))
    assert key_of(constant) != key_of(Replacement(Constant(one)))
    before = key_of(constant)
    zero += 1
    assert key_of(constant) != before
    assert key_of(torch.zeros(3)) != key_of(torch.zeros(3).int())
    assert key_of(zero) != key_of(zero.view(1, 3))
    assert key_of(torch.tensor(1.0).bfloat16()) == key_of(torch.tensor(1.0).bfloat16())
    assert len({key_of(one) for one in (0, 0.0, -0.0, False, None, "0", (0,), [0], "None")}) == 9
    assert key_of(float("nan")) == key_of(float("nan"))
    assert key_of(Noise()) != key_of(Noise(radius=0.1))
    assert key_of(Deletion()) != key_of(metrics["insertion_auc"]())
    assert key_of(against) == key_of(against)
    assert key_of(lambda: 0) != key_of(lambda: 0)

    class Stateful(Noise):
        pass

    first, second = Stateful(), Stateful()
    assert key_of(first) == key_of(second) != key_of(Noise())
    object.__setattr__(second, "strength", 2)
    assert key_of(first) != key_of(second)
