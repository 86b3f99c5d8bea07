"""The default model against the package that its weights were published for."""

import contextlib
import io

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from unilens import Evaluator, explain, load_model
from unilens.models import samples
from unilens.models.loading import _lite_weights

NAMES = ("chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def photographs():
    model = load_model()
    return torch.stack([model.preprocess(samples[name]()) for name in NAMES])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_default_model_equals_reference_logits(number):
    model = load_model(f"efficientnet_lite{number}")
    pixels = torch.stack([model.preprocess(samples[name]()) for name in NAMES])
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = EfficientNet.from_pretrained(
            f"efficientnet-lite{number}", weights_path=_lite_weights(number)
        ).eval()
    with torch.no_grad():
        expected = theirs((pixels * 255 - 127) / 128)
        assert float((model(pixels) - expected).abs().max()) < 1e-4


def test_default_model_classifies_photographs(photographs):
    model = load_model()
    seen = [model.label(int(index)) for index in model(photographs).argmax(-1)]
    assert seen == ["tiger cat", "espresso", "missile"]


@pytest.mark.slow
def test_uni_does_not_depend_on_batch(photographs):
    model = load_model()
    batch = torch.cat([photographs, photographs.flip(-1), photographs.flip(-2)[:2]])
    evaluator = Evaluator(model)
    settings = {"n_steps": 3, "matching_steps": 5}
    together = explain(evaluator, batch, "uni_blur", **settings).values
    for i in (0, 4):
        alone = explain(Evaluator(model), batch[i : i + 1], "uni_blur", **settings).values[0]
        assert float((alone - together[i]).abs().max()) <= 1e-5 * float(alone.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["deeplift", "guided_backprop", "gradcam", "ig", "uni_blur"])
def test_method_does_not_depend_on_threads(method, photographs):
    steps = {"n_steps": 4} if method in ("ig", "uni_blur") else {}
    before, maps = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            maps.append(explain(load_model(), photographs[:1], method, **steps).values)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*maps)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uni_blur", "uni"])
def test_method_is_stable_under_rounding(method, photographs):
    """A millionth per pixel is four thousand times below what 8 bits can hold."""
    model = Evaluator(load_model())
    noise = torch.randn(photographs.shape, generator=torch.Generator().manual_seed(0))
    found = explain(model, photographs, method)
    beside = explain(model, photographs + 1e-6 * noise, method, found.target)
    moved = (beside.values - found.values).flatten(1).norm(dim=1)
    assert bool((moved < 0.15 * found.values.flatten(1).norm(dim=1)).all())
    assert bool((moved > 0).all())
