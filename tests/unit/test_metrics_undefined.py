"""What metrics must not say: praise where nothing was asked, and numbers made of rounding."""

import queue

import pytest
import torch
from torch import nn

from unilens import UnilensError, evaluate, explain
from unilens.methods import methods
from unilens.metrics import corruptions, metrics


def constant_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(429, 3)).double().eval()
    nn.init.zeros_(model[1].weight)
    return model


class OneOutput(nn.Module):
    """The first logit of a network, less an offset: below 0 at some inputs."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.offset = inner, 0.5

    def forward(self, inputs):
        return self.inner(inputs)[:, :1] - self.offset


@pytest.fixture
def one_output(small_net):
    return OneOutput(small_net).eval()


def test_the_noise_imputer_differs_from_the_noise_baseline(small_net, images):
    attribution = explain(small_net, images, "ig", baseline="uniform_noise", n_steps=3)
    points = queue.SimpleQueue()  # what a hook adds to a list is put back
    small_net.register_forward_pre_hook(lambda module, given: points.put(given[0].detach().clone()))
    evaluate(small_net, images, attribution, "deletion_auc", imputer="noise")
    seen = [points.get() for _ in range(points.qsize())]
    distance = [
        float((torch.cat(seen).detach() - baseline).abs().flatten(1).amax(1).min())
        for baseline in attribution.baseline
    ]
    assert min(distance) > 0.5  # the last point of the curve is the imputed input itself


@pytest.mark.parametrize("name", ["max_sensitivity", "mean_sensitivity", "local_lipschitz"])
def test_a_map_that_is_always_the_same_is_not_robust(name, small_net, images):
    found = evaluate(
        small_net, images, torch.ones_like(images), name, method=lambda m, x, t: torch.ones_like(x)
    )
    assert found.isnan().all()


@pytest.mark.parametrize(
    "name",
    ["completeness_gap", "confidence_change", "path_curvature", "top_eigenvalue", "monotonicity"],
)
def test_a_model_that_always_says_the_same_has_no_good_path(name, images):
    model = constant_model()
    settings = {"iterations": 2} if name == "top_eigenvalue" else {}
    attribution = explain(model, images, "ig", n_steps=4)
    assert evaluate(model, images, attribution, name, **settings).isnan().all()


class Rounding(nn.Module):
    """Logits that would be constant, were it not for rounding."""

    def forward(self, inputs):
        parts = inputs.flatten(1)
        ones = (parts / parts.sum(1, keepdim=True)).sum(1, keepdim=True)
        return torch.cat([ones, 2 * ones, -ones], 1)


ROUNDED = ["insertion_auc", "deletion_auc", "mu_fidelity", "sensitivity_n", "road", "infidelity"]


@pytest.mark.parametrize("name", ROUNDED)
def test_rounding_is_no_change_of_the_score(name, images):
    inputs = images.float() + 0.1
    settings = {"imputer": "grey", **({"cells": 4} if name == "mu_fidelity" else {})}
    found = evaluate(Rounding().eval(), inputs, torch.rand_like(inputs), name, **settings)
    assert found.isnan().all()


def test_where_the_label_cannot_be_attacked_nothing_is_said(small_net, images):
    with torch.no_grad():
        small_net.head.weight *= 4000
    assert (small_net(images).softmax(1).amax(1) == 1).all()
    attribution = explain(small_net, images, "gradient", score="logit")
    method = methods["gradient"](score="logit")
    measured = metrics["fgsm_label_spearman"]()(small_net, images, attribution, method=method)
    still = measured.details["distance_linf"] == 0
    assert still.any()
    assert measured.values[still].isnan().all()


def test_a_value_has_no_confidence_to_lose(one_output, images):
    attribution = explain(one_output, images, "ig", n_steps=3, outputs="regression")
    assert evaluate(one_output, images, attribution, "confidence_change").isnan().all()


def test_a_single_output_keeps_its_label_while_it_keeps_its_sign(one_output, images):
    method, strengths = methods["gradient"](score="logit"), (0.05, 0.3, 0.6)
    change = corruptions["brightness"]()
    ends = one_output(torch.cat([images[:1], change(images[:1], 0.6, [])]))
    one_output.offset += float(ends.detach().mean())  # the first label flips on the way
    attribution = method(one_output, images)
    found = metrics["brightness_consistency"](strengths=strengths, score="logit")(
        one_output, images, attribution, method=method
    )
    changed = [one_output(change(images, strength, []))[:, 0] for strength in strengths]
    kept = torch.stack([(one > 0) == (one_output(images)[:, 0] > 0) for one in changed], 1)
    assert torch.equal(found.details["kept"], kept)
    assert 0 < float(kept.double().mean()) < 1


def test_attacks_have_defaults_for_small_inputs(small_net, images):
    method = methods["gradient"]()
    attribution = method(small_net, images[:2])
    for name in ("fgsm_top_k", "noise_top_k", "attack_spearman"):
        few = {"iterations": 1} if name.startswith("attack") else {}
        found = evaluate(small_net, images[:2], attribution, name, method=method, **few)
        assert found.shape == (2,)


@pytest.mark.parametrize(
    "box", [[9.0, 9, 2, 2], [3, 3, 3, 8], [0, 0, float("nan"), 5], [0, 0, float("inf"), 5]]
)
def test_boxes_that_are_none(box, small_net, images):
    with pytest.raises(UnilensError, match="left < right and top < bottom") as caught:
        evaluate(small_net, images, images, "pointing_game", mask=torch.tensor([box] * 8))
    assert "\n" not in str(caught.value)


def test_soft_masks_are_inside_from_a_half(small_net, images):
    mask = torch.full((8, 13, 11), 0.2)
    mask[:, 4:8] = 0.9
    soft, hard = (
        evaluate(small_net, images, images, "relevance_mass", mask=one)
        for one in (mask, mask > 0.5)
    )
    assert torch.equal(soft, hard)
    with pytest.raises(UnilensError, match="a mask of real numbers"):
        evaluate(small_net, images, images, "relevance_mass", mask=mask.to(torch.complex64))


@pytest.mark.parametrize("method", [type(methods["ig"]()), methods["ig"], 3])
def test_methods_that_are_not_built(method, small_net, images):
    with pytest.raises(UnilensError, match=r"build it first, as by methods\['ig'\]\(\)"):
        evaluate(small_net, images, images, "noise_spearman", method=method)


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("defocus_blur", 1e9, r"a radius up to the picture's 13, got 1e\+09"),
        ("shot_noise", 1e-300, "at least 1e-6, got 1e-300"),
        ("brightness", -2, "at least -1"),
        ("contrast", float("nan"), "finite number, got nan"),
    ],
)
def test_strengths_that_no_picture_survives(name, strength, message, images):
    with pytest.raises(UnilensError, match=message):
        corruptions[name]()(images, strength, [torch.Generator() for _ in images])
