"""Paths and weightings against PAIR's library, and against their papers written out slowly."""

import itertools
import math
import re

import numpy
import pytest
import torch
from saliency.core import guided_ig as pair_guided
from saliency.core.base import INPUT_OUTPUT_GRADIENTS
from saliency.core.blur_ig import BlurIG
from saliency.core.guided_ig import GuidedIG
from scipy.ndimage import gaussian_filter
from torch import nn

from unilens import explain, load_model
from unilens.errors import UnilensError
from unilens.models import samples
from unilens.weightings import Gains

from ..conftest import randomise


@pytest.fixture
def pair(monkeypatch):
    """Let PAIR's Guided IG run: NumPy 2.4 no longer takes `interpolation`."""
    quantile = numpy.quantile
    monkeypatch.setattr(
        pair_guided.np,
        "quantile",
        lambda values, q, interpolation: quantile(values, q, method=interpolation),
    )


def called(model, target):
    """Return what PAIR calls: gradients `(N, H, W, C)` of the probability."""

    def call(batch, call_model_args=None, expected_keys=None):
        inputs = torch.from_numpy(numpy.asarray(batch)).permute(0, 3, 1, 2)
        leaf = inputs.contiguous().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).softmax(-1)[:, target].sum(), leaf)
        return {INPUT_OUTPUT_GRADIENTS: gradient.permute(0, 2, 3, 1).numpy()}

    return call


def last(image):
    return image.permute(1, 2, 0).numpy()


def first(mask):
    return torch.from_numpy(mask).permute(2, 0, 1)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def photograph():
    """The default model in float64, where kinks do not magnify rounding, and a cat's face."""
    model = load_model()
    image = model.preprocess(samples["chelsea"]()).double()[:, 40:136, 64:160]
    return model.double(), image, 285


@pytest.mark.parametrize(("fraction", "distance"), [(0.25, 0.02), (0.1, 0.3), (0.5, 1.0), (1, 0)])
@pytest.mark.parametrize("baseline", ["black", "image_mean"])
def test_guided_ig_equals_pair(fraction, distance, baseline, images, small_net, pair):
    found = explain(
        small_net,
        images[:3],
        "guided_ig",
        2,
        baseline=baseline,
        n_steps=12,
        fraction=fraction,
        max_distance=distance,
    )
    for image, start, values in zip(images, found.baseline, found.values, strict=False):
        expected = GuidedIG().GetMask(
            last(image),
            called(small_net, 2),
            x_baseline=last(start),
            x_steps=12,
            fraction=fraction,
            max_dist=distance,
        )
        assert relative(values, first(expected)) < 1e-9


@pytest.mark.slow
def test_guided_ig_equals_pair_on_photograph(photograph, pair):
    model, image, target = photograph
    found = explain(model, image[None], "guided_ig", target, n_steps=8)
    expected = GuidedIG().GetMask(last(image), called(model, target), x_steps=8)
    assert relative(found.values[0], first(expected)) < 1e-3


PAIRS_SETTINGS = {"rule": "right", "velocity": "derivative", "boundary": "zero"}


@pytest.mark.slow
@pytest.mark.parametrize("grad_step", [1e-2, 1e-3, 1e-5])
def test_blur_ig_equals_pair_up_to_finite_difference(grad_step, images, small_net):
    found = explain(
        small_net, images[:2], "blur_ig", 1, n_steps=15, max_sigma=6.0, **PAIRS_SETTINGS
    )
    for image, values in zip(images, found.values, strict=False):
        expected = BlurIG().GetMask(
            last(image), called(small_net, 1), max_sigma=6.0, steps=15, grad_step=grad_step
        )
        assert relative(values, first(expected)) < 10 * grad_step


@pytest.mark.slow
def test_blur_ig_differs_from_pair_by_finite_difference(images, small_net):
    """At PAIR's default step its derivative is off, and halving the step halves the difference."""
    found = explain(
        small_net, images[:1], "blur_ig", 1, n_steps=15, max_sigma=6.0, **PAIRS_SETTINGS
    )
    off = [
        relative(
            found.values[0],
            first(
                BlurIG().GetMask(
                    last(images[0]), called(small_net, 1), max_sigma=6.0, steps=15, grad_step=step
                )
            ),
        )
        for step in (0.01, 0.005)
    ]
    assert off[0] > 1e-3
    assert off[1] == pytest.approx(off[0] / 2, rel=0.1)


@pytest.mark.slow
def test_blur_ig_equals_pair_on_photograph(photograph):
    model, image, target = photograph
    found = explain(model, image[None], "blur_ig", target, n_steps=8, **PAIRS_SETTINGS)
    expected = BlurIG().GetMask(last(image), called(model, target), steps=8, grad_step=1e-4)
    assert relative(found.values[0], first(expected)) < 1e-3


def test_blur_ig_chords_are_complete_where_derivative_is_not(photograph):
    """The sum of PAIR's displacements misses the way from blur to image; chords are that way."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 1, bias=False)).double().eval()
    nn.init.ones_(model[1].weight)
    image = photograph[1][None]
    whole = {"n_steps": 10, "score": "logit", "rule": "right"}
    chords = explain(model, image, "blur_ig", 0, boundary="zero", **whole)
    slopes = explain(model, image, "blur_ig", 0, boundary="zero", velocity="derivative", **whole)
    way = float((chords.score - chords.baseline_score).abs())
    assert float(chords.completeness_gap.abs()) < 1e-9 * way
    assert float(slopes.completeness_gap.abs()) > 0.01 * way


@pytest.mark.slow
def test_blur_ig_sqrt_schedule_lowers_variance_linearly(images, small_net):
    """At sqrt, PAIR ends at sqrt(max_sigma); ours ends at max_sigma, so its 9 is our 3."""
    found = explain(
        small_net, images[:1], "blur_ig", 1, n_steps=15, max_sigma=3.0, schedule="sqrt",
        **PAIRS_SETTINGS,
    )  # fmt: skip
    expected = BlurIG().GetMask(
        last(images[0]), called(small_net, 1), max_sigma=9.0, steps=15, sqrt=True, grad_step=1e-5
    )
    assert relative(found.values[0], first(expected)) < 1e-3


def gradient_of(model, point, target, score):
    leaf = point.clone().requires_grad_()
    value = score(model(leaf[None])[0])[target]
    (gradient,) = torch.autograd.grad(value, leaf)
    return gradient, float(value.detach())


def slow_agi(model, image, target, other, iterations, step):
    """Algorithm 1 of Pan et al.: the individual AGI for one false class, and where it ends."""

    def probability(outputs):
        return outputs.softmax(-1)

    point, total = image.clone(), torch.zeros_like(image)
    for _ in range(iterations):
        if int(model(point[None])[0].argmax()) == other:
            break
        moved = step * gradient_of(model, point, other, probability)[0].sign()
        total -= gradient_of(model, point, target, probability)[0] * moved
        point = point + moved
    return total, point


def test_agi_equals_paper_algorithm(images, small_net):
    settings = {"classes": [0, 3], "iterations": 6, "n_steps": 6, "budget": 1.2}
    found = explain(small_net, images[:4], "agi", 2, **settings)
    for image, values, baseline in zip(images, found.values, found.baseline, strict=False):
        searches = [slow_agi(small_net, image, 2, label, 6, 0.2) for label in (0, 3)]
        assert relative(values, sum(attribution for attribution, _ in searches) / 2) < 1e-9
        assert relative(baseline, sum(point for _, point in searches) / 2) < 1e-12


def test_agi_searches_end_early(images, small_net):
    ends = [
        slow_agi(small_net, image, 2, label, 6, 0.2)[1] for image in images[:4] for label in (0, 3)
    ]
    starts = [image for image in images[:4] for _ in (0, 3)]
    lengths = {
        round(float((end - start).abs().max()) / 0.2)
        for end, start in zip(ends, starts, strict=True)
    }
    assert min(lengths) < 6
    assert len(lengths) > 1


def test_agi_draws_classes_by_seed_and_input(images, small_net):
    together = explain(small_net, images, "agi", classes=2, seed=1)
    alone = explain(small_net, images[3:4], "agi", classes=2, seed=1)
    assert torch.equal(together.values[3], alone.values[0])
    assert not torch.equal(
        explain(small_net, images, "agi", classes=2, seed=2).values, together.values
    )


def slow_sig(model, image, baseline, target, overlap, n_steps):
    """The path of SIG, one channel and one component after the other, by the midpoint rule."""
    difference = (image - baseline).numpy()

    def point(t):
        here = baseline.numpy().copy()
        for channel in range(len(difference)):
            u, s, vt = numpy.linalg.svd(difference[channel])
            for i, singular in enumerate(s):
                enters = (1 - overlap) * (1 - singular / s[0])
                share = min(max((t - enters) / overlap, 0), 1)
                here[channel] += share * singular * numpy.outer(u[:, i], vt[i])
        return torch.from_numpy(here)

    total = torch.zeros_like(image)
    for k in range(n_steps):
        gradient, _ = gradient_of(
            model, point((k + 0.5) / n_steps), target, lambda outputs: outputs.softmax(-1)
        )
        total += gradient * (point((k + 1) / n_steps) - point(k / n_steps))
    return total


@pytest.mark.parametrize("overlap", [0.4, 1.0])
def test_sig_equals_paper_algorithm(overlap, images, small_net):
    found = explain(
        small_net, images[:2], "sig", 3, n_steps=9, overlap=overlap, baseline="image_mean"
    )
    for image, start, values in zip(images, found.baseline, found.values, strict=False):
        expected = slow_sig(small_net, image, start, 3, overlap, 9)
        assert relative(values, expected) < 1e-9


def test_sig_with_full_overlap_equals_straight_line(images, small_net):
    settings = {"n_steps": 7, "rule": "gauss_legendre"}
    line = explain(small_net, images[:2], "ig", **settings).values
    assert (
        relative(explain(small_net, images[:2], "sig", overlap=1, **settings).values, line) < 1e-12
    )


def test_sig_joint_channels_differ_and_stay_complete(images, small_net):
    """Stacked channels have singular components of their own; the ends stay the same."""
    joint = explain(small_net, images[:2], "sig", channels="joint", n_steps=40)
    apart = explain(small_net, images[:2], "sig", n_steps=40)
    assert relative(joint.values, apart.values) > 1e-3
    assert float(joint.completeness_gap.abs().max()) < 0.02


def slow_idgi(model, image, target, n_steps):
    """Algorithm 1 of Yang et al., from black."""

    def probability(outputs):
        return outputs.softmax(-1)

    total = torch.zeros_like(image)
    for j in range(n_steps):
        gradient, here = gradient_of(model, image * j / n_steps, target, probability)
        _, there = gradient_of(model, image * (j + 1) / n_steps, target, probability)
        total += gradient * gradient * (there - here) / (gradient * gradient).sum()
    return total


def test_idgi_equals_paper_algorithm(images, small_net):
    found = explain(small_net, images[:3], "idgi", 1, n_steps=10)
    for image, values in zip(images, found.values, strict=False):
        assert relative(values, slow_idgi(small_net, image, 1, 10)) < 1e-10


@pytest.mark.parametrize("path", ["straight", "blur", "guided", "spectral"])
@pytest.mark.parametrize("rule", ["left", "midpoint", "gauss_legendre"])
def test_idgi_is_complete_on_every_path(path, rule, images, small_net):
    found = explain(small_net, images[:3], "idgi", path=path, rule=rule, n_steps=5)
    assert float(found.completeness_gap.abs().max()) < 1e-12


def slow_gains(model, image, target, n_steps, coarse, neighbourhood):
    """Gains from black by the midpoint rule, pixel by pixel of one image."""

    def probability(outputs):
        return outputs.softmax(-1)

    nodes = [(k + 0.5) / n_steps for k in range(n_steps)]
    seen = [gradient_of(model, image * t, target, probability) for t in nodes]
    scores = [float(gradient_of(model, image * t, target, probability)[1]) for t in (0, 1)]
    levels = [scores[0], *(float(score) for _, score in seen[1:]), scores[1]]
    integral, shared = torch.zeros_like(image), torch.zeros_like(image)
    for (gradient, _), before, after in zip(seen, levels, levels[1:], strict=False):
        change = after - before
        part = gradient * image / n_steps
        gain = torch.zeros_like(part)
        for place in itertools.product(*map(range, part.shape)):
            if float(part[place]) * change > 0:
                gain[place] = abs(part[place])
        integral += part
        shared += gain / gain.sum() * (change - coarse * part.sum())
    sigma = neighbourhood * max(image.shape[1:])
    averaged = gaussian_filter(integral.numpy(), sigma, mode="reflect", axes=(1, 2))
    return coarse * torch.from_numpy(averaged) + shared


@pytest.mark.parametrize("settings", [{}, {"coarse": 0.7, "neighbourhood": 0.2}, {"coarse": 0.0}])
def test_gains_equal_slow_formula(settings, images, small_net):
    given = {"weighting": "gains", "rule": "midpoint", "n_steps": 6, **settings}
    found = explain(small_net, images[:2], "ig", 1, **given)
    reference = {"coarse": 0.4, "neighbourhood": 0.09, **settings}
    for image, values in zip(images, found.values, strict=False):
        assert relative(values, slow_gains(small_net, image, 1, 6, **reference)) < 1e-10


@pytest.mark.parametrize("path", ["straight", "blur", "guided", "spectral"])
@pytest.mark.parametrize("rule", ["left", "midpoint", "gauss_legendre"])
def test_gains_are_complete_on_every_path(path, rule, images, small_net):
    found = explain(small_net, images[:3], "ig", weighting="gains", path=path, rule=rule, n_steps=5)
    assert float(found.completeness_gap.abs().max()) < 1e-12


def test_gains_of_table_equal_riemann():
    model = randomise(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double())
    rows = torch.rand(5, 6).double()
    found, integral = (
        explain(model, rows, "ig", weighting=weighting) for weighting in ("gains", "riemann")
    )
    assert torch.equal(found.values, integral.values)


def test_gains_of_constant_model_are_zero(images):
    class Blind(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1)[:, :2] * 0 + torch.tensor([2.0, 1.0]).double()

    found = explain(Blind().eval(), images[:2], "ig", weighting="gains", n_steps=3)
    assert float(found.values.abs().max()) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"coarse": 1.5}, "expected coarse to be at most 1, got 1.5"),
        ({"coarse": -0.1}, "expected coarse to be a finite number of at least 0, got -0.1"),
        ({"neighbourhood": 0}, "expected neighbourhood to be a finite number above 0, got 0"),
    ],
)
def test_gains_refuse_wrong_settings(settings, said):
    with pytest.raises(UnilensError, match=re.escape(said)):
        Gains(**settings)


def slow_idg(model, image, target, n_steps):
    """IDG from black: steps in proportion to the slope less the smallest, each at its left end."""

    def probability(outputs):
        return outputs.softmax(-1)

    scores = [
        gradient_of(model, image * k / n_steps, target, probability)[1] for k in range(n_steps + 1)
    ]
    slopes = [b - a for a, b in itertools.pairwise(scores)]
    above = [slope - min(slopes) for slope in slopes]
    shares = [n_steps * slope / sum(above) for slope in above]
    counts = [math.floor(share) for share in shares]
    by_rest = sorted(range(n_steps), key=lambda k: counts[k] - shares[k])
    for k in by_rest[: n_steps - sum(counts)]:
        counts[k] += 1
    total = torch.zeros_like(image)
    for k, count in enumerate(counts):
        for i in range(count):
            width = 1 / n_steps / count
            t = k / n_steps + i * width
            gradient, _ = gradient_of(model, image * t, target, probability)
            total += gradient * image * float((gradient * image).sum()) * width
    return total


def test_idg_equals_paper_algorithm(images, small_net):
    found = explain(small_net, images[:3], "idg", 1, n_steps=12)
    for image, values in zip(images, found.values, strict=False):
        assert relative(values, slow_idg(small_net, image, 1, 12)) < 1e-9


def test_idg_with_fixed_steps(images, small_net):
    """On a linear logit the slope is the whole change of the score, everywhere."""
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(3 * 13 * 11, 2)).double())
    for path in ({}, {"path": "spectral", "overlap": 1}):
        found = explain(
            model, images[:2], "idg", 0, adaptive=False, score="logit", n_steps=6, **path
        )
        change = (found.score - found.baseline_score).view(-1, 1, 1, 1)
        expected = model[1].weight[0].view(3, 13, 11) * images[:2] * change
        assert relative(found.values, expected.detach()) < 1e-9


def test_weighted_baseline_is_mean_of_maps(images, small_net):
    names, weights = ["black", "white", "blur"], [1.0, 2.0, 5.0]
    attributions = [explain(small_net, images[:3], "ig", baseline=name) for name in names]
    found = explain(
        small_net, images[:3], "ig", baseline="weighted", baselines=names, weights=weights
    )
    expected = sum(
        w / 8 * attribution.values for w, attribution in zip(weights, attributions, strict=True)
    )
    assert relative(found.values, expected) < 1e-12
    score = sum(
        w / 8 * attribution.baseline_score
        for w, attribution in zip(weights, attributions, strict=True)
    )
    assert torch.allclose(found.baseline_score, score)
    trace = sum(
        w / 8 * attribution.trace.score
        for w, attribution in zip(weights, attributions, strict=True)
    )
    assert torch.allclose(found.trace.score, trace)
    assert torch.allclose(found.trace.fraction, attributions[0].trace.fraction)


def test_weighted_baseline_weights_by_fall_of_confidence(images, small_net):
    names = ["black", "white"]
    attributions = [explain(small_net, images[:3], "ig", baseline=name) for name in names]
    fall = torch.stack(
        [
            (attribution.score - attribution.baseline_score).clamp_min(0)
            for attribution in attributions
        ]
    )
    found = explain(
        small_net, images[:3], "ig", baseline="weighted", baselines=names, weights="confidence"
    )
    share = torch.where(fall.sum(0) > 0, fall / fall.sum(0), 0.5)
    expected = sum(
        s.view(-1, 1, 1, 1) * attribution.values
        for s, attribution in zip(share, attributions, strict=True)
    )
    assert relative(found.values, expected) < 1e-12
