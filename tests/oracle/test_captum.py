"""Against captum, on a real network and a real photograph."""

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency

from unilens import Evaluator, explain, load_model
from unilens.models import samples


@pytest.fixture(scope="module")
def model():
    return load_model().double()


@pytest.fixture(scope="module")
def photograph(model):
    return model.preprocess(samples["chelsea"]())[None].double()


def probabilities(model):
    return lambda inputs: model(inputs).softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["black", "blur"])
def test_ig_equals_captum(model, photograph, baseline):
    ours = explain(model, photograph, "ig", n_steps=6, baseline=baseline)
    theirs = IntegratedGradients(probabilities(model)).attribute(
        photograph,
        baselines=ours.baseline,
        target=ours.target,
        n_steps=6,
        method="gausslegendre",
        internal_batch_size=3,
    )
    assert relative(ours.values, theirs) < 1e-4


def test_ig_equals_captum_in_float32_without_optimisations(model, photograph):
    # With folded batch norms float32 rounds differently, and the kinks of ReLU6 turn a difference
    # of 1e-7 into one of 1e-3: captum in float32 is as far from captum in float64. So do other
    # numbers of threads: our passes have one each.
    single = load_model()
    plain = Evaluator(single, fold=False, memory_format="contiguous", chunk=4)
    ours = explain(plain, photograph.float(), "ig", n_steps=6)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        theirs = IntegratedGradients(probabilities(single)).attribute(
            photograph.float(), target=ours.target, n_steps=6, internal_batch_size=3
        )
    finally:
        torch.set_num_threads(threads)
    assert relative(ours.values, theirs) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_gradient_equals_captum(model, photograph, score):
    forward = model if score == "logit" else probabilities(model)
    target = model(photograph).argmax(-1)
    theirs = Saliency(forward).attribute(
        photograph.clone().requires_grad_(), target=target, abs=False
    )
    ours = explain(model, photograph, "gradient", score=score)
    assert relative(ours.values, theirs) < 1e-8
    theirs = InputXGradient(forward).attribute(photograph.clone().requires_grad_(), target=target)
    ours = explain(model, photograph, "input_x_gradient", score=score)
    assert relative(ours.values, theirs) < 1e-8


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs.detach()).norm() / theirs.detach().norm())
