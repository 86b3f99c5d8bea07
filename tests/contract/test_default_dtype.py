"""Another default dtype of torch changes nothing that is drawn for a seed, whatever draws it."""

import pytest
import torch

from unilens import load_model
from unilens.baselines import baselines
from unilens.benchmark.data.imagenet_c import corrupt, corruptions
from unilens.manifold.training import fit_autoencoder
from unilens.methods import methods
from unilens.metrics import metrics

from .test_methods import CASES, MODELS
from .test_metrics import _no_download, build, card_of, given_to, method  # noqa: F401

DTYPES = (torch.float32, torch.float64)


def draws(case):
    """Whether anything of a case is drawn, as its cards say."""
    name, settings = CASES[case]
    cards = [methods[name].card]
    if "baseline" in settings:
        cards.append(baselines[settings["baseline"]].card)
    return not all(card.deterministic for card in cards)


DRAWN = [case for case in CASES if case not in MODELS and draws(case)]


@pytest.fixture(autouse=True)
def _restored():
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def under_each(draw):
    """Return what a function gives under each default dtype."""
    found = []
    for dtype in DTYPES:
        torch.set_default_dtype(dtype)
        found.append(draw())
    return found


def same(found):
    first, *others = found
    assert first.numel()
    for other in others:
        assert other.dtype == first.dtype
        torch.testing.assert_close(other, first, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("case", DRAWN)
def test_maps_do_not_depend_on_the_default_dtype(case, small_net, images):
    name, settings = CASES[case]
    same(under_each(lambda: methods[name](**settings)(small_net, images[:2], 0, seed=3).values))


@pytest.mark.parametrize("name", [name for name in metrics if not card_of(name).deterministic])
def test_metrics_do_not_depend_on_the_default_dtype(name, small_net, images):
    few = images[:2]
    attribution, given = method()(small_net, few), given_to(few)

    def measured():
        return build(name)(small_net, few, attribution, seed=3, **given).values

    same(under_each(measured))


@pytest.mark.parametrize("name", corruptions)
def test_corruptions_do_not_depend_on_the_default_dtype(name):
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    same(under_each(lambda: corrupt(image, name, 3, 0)))


@pytest.mark.parametrize("name", ["timm:test_resnet.r160_in1k", "torchvision:squeezenet1_1"])
def test_random_weights_do_not_depend_on_the_default_dtype(name):
    def weights():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = load_model(name, pretrained=False).network
        return torch.cat([weight.flatten() for weight in network.state_dict().values()])

    same(under_each(weights))


def test_network_of_known_truth_does_not_depend_on_the_default_dtype():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    same(under_each(lambda: load_model("truth:texture")(image)))


def test_trained_network_does_not_depend_on_the_default_dtype():
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def weights():
        network = fit_autoencoder(images, dimension=2, width=2, epochs=1, seed=1)
        return torch.cat([weight.flatten() for weight in network.parameters()])

    same(under_each(weights))


def test_network_of_the_user_keeps_the_default_dtype(tmp_path, monkeypatch):
    text = "from torch import nn\ndef net():\n    return nn.Conv2d(3, 2, 1)\n"
    (tmp_path / "own_default_dtype.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    torch.set_default_dtype(torch.float64)
    network = load_model("py:own_default_dtype:net")
    assert next(network.parameters()).dtype == torch.float64
    assert torch.get_default_dtype() == torch.float64
