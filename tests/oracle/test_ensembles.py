"""SmoothGrad and its kin, and expected gradients, against slow loops with the same draws."""

import pickle

import numpy
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from unilens import Evaluator, PathAttribution, UnilensError, UnknownNameError, explain
from unilens._ops.random import generators
from unilens.baselines import Constant
from unilens.methods import ExpectedGradients, Gradient, Smoothed, methods, smoothing

from ..conftest import SmallNet, randomise

KINDS = {
    "smoothgrad": lambda maps: numpy.mean(maps, axis=0),
    "vargrad": lambda maps: numpy.var(maps, axis=0),
    "squaregrad": lambda maps: numpy.mean(numpy.square(maps), axis=0),
}


def slow_maps(model, x, target, inner, n_samples, std, seed=0, **settings):
    """Maps of one input (1, *S) at its noisy copies, one after the other."""
    (own,) = generators(x, torch.Generator().manual_seed(seed))
    evaluator, maps = Evaluator(model), []
    for _ in range(n_samples):
        noisy = x + std * torch.randn(x.shape[1:], generator=own).double()
        if inner == "gradient":
            noisy.requires_grad_()
            (found,) = torch.autograd.grad(model(noisy).softmax(-1)[0, target], noisy)
        else:
            found = explain(evaluator, noisy, inner, target, **settings).values
        maps.append(found[0].numpy())
    return maps


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("inner", [("gradient", {}), ("ig", {"n_steps": 3, "baseline": "white"})])
def test_smoothing_equals_loop_over_noisy_copies(name, inner, small_net, images):
    inner, settings = inner
    given = {"n_samples": 11, "std": 0.3}
    found = explain(small_net, images, name, seed=4, inner=inner, **given, **settings)
    for i in (0, 5):
        target = int(small_net(images[i : i + 1]).argmax())
        x = images[i : i + 1]
        expected = KINDS[name](slow_maps(small_net, x, target, inner, seed=4, **given, **settings))
        assert found.values[i].numpy() == pytest.approx(expected, rel=1e-9, abs=1e-13)
        assert int(found.target[i]) == target


def test_smoothing_fixes_target_at_clean_input(small_net, images):
    loud = {"n_samples": 8, "std": 30.0}
    found = explain(small_net, images, "smoothgrad", **loud)
    x, target = images[:1], int(small_net(images[:1]).argmax())
    expected = numpy.mean(slow_maps(small_net, x, target, "gradient", **loud), axis=0)
    assert found.values[0].numpy() == pytest.approx(expected, rel=1e-9, abs=1e-13)
    assert torch.allclose(found.score, small_net(images).softmax(-1).amax(-1).detach())


def test_smoothing_with_tiny_noise_equals_map(small_net, images):
    plain = explain(small_net, images, "gradient").values
    quiet = {"n_samples": 5, "std": 1e-9}
    assert torch.allclose(explain(small_net, images, "smoothgrad", **quiet).values, plain)
    squares = explain(small_net, images, "squaregrad", **quiet).values
    assert torch.allclose(squares, plain**2)
    assert float(explain(small_net, images, "vargrad", **quiet).values.max()) < 1e-15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [("smoothgrad", "smoothgrad"), ("vargrad", "vargrad"), ("squaregrad", "smoothgrad_sq")],
)
def test_smoothing_equals_captum_in_expectation(name, kind, small_net, images):
    x = images[:1]
    target = int(small_net(x).argmax())
    tunnel = NoiseTunnel(Saliency(lambda inputs: small_net(inputs).softmax(-1)))
    torch.manual_seed(0)
    theirs = tunnel.attribute(
        x, nt_type=kind, nt_samples=1000, stdevs=0.2, target=target, abs=False
    ).detach()
    ours = explain(small_net, x, name, n_samples=1000, std=0.2).values
    single = explain(small_net, x, name, n_samples=10, std=0.2).values
    assert float((ours - theirs).norm() / theirs.norm()) < 0.1
    assert float((single - theirs).norm() / theirs.norm()) > 0.1


@pytest.mark.parametrize("name", KINDS)
def test_smoothing_does_not_depend_on_block_size(name, small_net, images, monkeypatch):
    evaluator = Evaluator(small_net)
    found = explain(evaluator, images[:2], name, n_samples=7).values
    for count in (1, 3, 50):
        monkeypatch.setattr(smoothing, "_samples_at_once", lambda batch, count=count: count)
        assert torch.equal(explain(evaluator, images[:2], name, n_samples=7).values, found)


def test_smoothed_takes_any_method_and_pickles(small_net, images):
    inner = PathAttribution(Constant(0.5), n_steps=2, score="logit")
    method = Smoothed(inner, n_samples=3, std=0.1, aggregate="square")
    assert pickle.loads(pickle.dumps(method)) == method
    assert method.passes == (3 * 4 + 1, 3 * 2)
    found = method(small_net, images)
    assert torch.allclose(found.score, small_net(images).amax(-1).detach())
    assert found.baseline is None
    assert found.provenance["settings"]["explainer"]["baseline"]["value"] == 0.5
    again = Smoothed(Smoothed(Gradient(), n_samples=2), n_samples=2)(small_net, images[:1])
    assert again.values.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_samples": 0}, "n_samples to be a whole number of at least 2, got 0"),
        ({"n_samples": 1}, "n_samples to be a whole number of at least 2, got 1"),
        ({"std": 0}, "std to be a finite number above 0, got 0"),
        ({"inner": "gradiant"}, "unknown method 'gradiant'; did you mean gradient"),
        ({"n_sample": 3}, "unknown setting of vargrad 'n_sample'; did you mean n_samples"),
        ({"inner": "ig", "sigma": 3}, "unknown setting of vargrad 'sigma'"),
        ({"n_steps": 3}, "unknown setting of vargrad 'n_steps'"),
    ],
)
def test_smoothing_refuses_wrong_settings(settings, message):
    with pytest.raises(UnilensError, match=message):
        methods["vargrad"](**settings)


def test_smoothed_refuses_wrong_method_and_aggregate():
    with pytest.raises(UnilensError, match="explainer to be a method with a score, such as"):
        Smoothed(lambda: None)
    with pytest.raises(UnilensError, match="aggregate to be one of mean, variance, square"):
        Smoothed(Gradient(), aggregate="median")
    with pytest.raises(UnknownNameError):
        methods["smoothgrad"](inner="ig", baseline="blur", sigmas=3)
    assert methods["smoothgrad"](inner="ig", baseline="blur", sigma=3).explainer.baseline.sigma == 3


# Expected gradients.


def references(count=5):
    return torch.rand(count, 3, 13, 11, generator=torch.Generator().manual_seed(9)).double()


def slow_draws(x, count, n_steps, sampling, seed):
    (own,) = generators(x, torch.Generator().manual_seed(seed))
    uniform = torch.rand(n_steps, generator=own, dtype=torch.float64).tolist()
    if sampling == "independent":
        return torch.randint(count, (n_steps,), generator=own).tolist(), uniform
    order = []
    while len(order) < n_steps:
        order += torch.randperm(count, generator=own).tolist()
    return order[:n_steps], [(k + u) / n_steps for k, u in enumerate(uniform)]


@pytest.mark.parametrize("sampling", ["stratified", "independent"])
@pytest.mark.parametrize("n_steps", [3, 12])
def test_expected_gradients_equals_loop_over_draws(sampling, n_steps, small_net, images):
    given = references()
    settings = {"references": given, "n_steps": n_steps, "sampling": sampling}
    found = explain(small_net, images, "expected_gradients", seed=2, **settings)
    for i in (0, 5):
        x, target = images[i : i + 1], int(found.target[i])
        chosen, places = slow_draws(x, 5, n_steps, sampling, seed=2)
        total, mean, score = torch.zeros_like(x), torch.zeros_like(x), 0.0
        for which, place in zip(chosen, places, strict=True):
            start = given[which : which + 1]
            point = (start + place * (x - start)).requires_grad_()
            (gradient,) = torch.autograd.grad(small_net(point).softmax(-1)[0, target], point)
            total += gradient * (x - start) / n_steps
            mean += start / n_steps
            score += float(small_net(start).softmax(-1)[0, target].detach()) / n_steps
        assert found.values[i].numpy() == pytest.approx(total[0].numpy(), rel=1e-9, abs=1e-13)
        assert found.baseline[i].numpy() == pytest.approx(mean[0].numpy(), abs=1e-13)
        assert float(found.baseline_score[i]) == pytest.approx(score, abs=1e-13)


def test_expected_gradients_of_linear_model_uses_mean_reference():
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double())
    inputs, given = torch.rand(3, 2, 3).double(), torch.rand(7, 2, 3).double()
    settings = {"references": given, "n_steps": 21, "score": "logit"}
    found = explain(model, inputs, "expected_gradients", 1, **settings)
    weight = model[1].weight[1].detach().view(2, 3)
    assert torch.allclose(found.values, weight * (inputs - given.mean(0)), rtol=0, atol=1e-13)
    assert torch.allclose(found.baseline, given.mean(0).expand(3, 2, 3), rtol=0, atol=1e-13)
    assert float(found.completeness_gap.abs().max()) < 1e-12
    plain = explain(model, inputs, "expected_gradients", 1, sampling="independent", **settings)
    assert float((plain.values - found.values).abs().max()) > 1e-3


def test_expected_gradients_converges_to_mean_of_ig(small_net, images):
    given, x = references(), images[:2]
    target = small_net(x).argmax(-1)
    attributions = [
        PathAttribution(lambda *_, reference=reference, **__: reference.expand_as(x), n_steps=200)(
            small_net, x, target
        )
        for reference in given
    ]
    expected = torch.stack([attribution.values for attribution in attributions]).mean(0)
    errors = {}
    for sampling in ("stratified", "independent"):
        method = ExpectedGradients(given, n_steps=1000, sampling=sampling)
        found = method(small_net, x, target)
        errors[sampling] = float((found.values - expected).norm() / expected.norm())
        assert float(found.completeness_gap.abs().max()) < 0.1 * float(expected.abs().sum())
    assert errors["independent"] < 0.2
    assert errors["stratified"] < 0.01


@pytest.mark.parametrize("count", [2, 9])
def test_expected_gradients_counts_passes_of_references(count, small_net, images):
    method = ExpectedGradients(references(count), n_steps=4)
    assert method.passes == (4 + min(count, 4) + 1, 4)
    taken = []
    evaluator = Evaluator(small_net, on_pass=taken.append)
    evaluator(images)
    taken.clear()
    method(evaluator, images)
    assert sum(taken) == 8 * method.passes.forward


def test_expected_gradients_refuses_missing_or_wrong_references(images):
    model = randomise(SmallNet().double())
    with pytest.raises(UnilensError, match=r"expected_gradients needs references=\(R, 3, 13, 11\)"):
        explain(model, images, "expected_gradients")
    with pytest.raises(UnilensError, match=r"references of shape \(R, 3, 13, 11\), got \(5, 3\)"):
        explain(model, images, "expected_gradients", references=torch.rand(5, 3))
    with pytest.raises(UnilensError, match=r"references to be a tensor \(R, \*S\).*got \(0, 3\)"):
        ExpectedGradients(torch.rand(0, 3))
    with pytest.raises(UnilensError, match="sampling to be one of stratified, independent"):
        ExpectedGradients(sampling="sobol")
