"""The controls: edges against scikit-image and a loop; random values against what drew them."""

import math

import pytest
import torch
from scipy.stats import kstest
from skimage.color import rgb2gray
from skimage.filters import sobel
from torch import nn

from unilens import Evaluator, evaluate, explain
from unilens._ops.random import generators
from unilens.baselines import GaussianNoise
from unilens.errors import NotApplicableError
from unilens.methods import Gradient, Smoothed, methods
from unilens.metrics.context import EvalContext

from ..conftest import SmallNet, randomise

CONTROLS = [name for name in methods if methods[name].card.family == "control"]


@pytest.fixture
def linear_of():
    def build(inputs):
        return randomise(nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), 4))).to(inputs)

    return build


def correlation(first, second):
    """Return the correlation of all values, which has sd 1 / √n where they are independent."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]).double())[0, 1])


def test_controls_are_listed():
    assert CONTROLS == ["random", "edges"]


@pytest.mark.parametrize("name", CONTROLS)
def test_control_does_not_depend_on_model_target_or_score(name, small_net, images):
    other = randomise(SmallNet().double(), seed=9)
    found = explain(small_net, images, name, 1)
    assert torch.equal(explain(other, images, name, 1).values, found.values)
    assert torch.equal(explain(small_net, images, name, 2).values, found.values)
    assert torch.equal(explain(small_net, images, name, 1, score="logit").values, found.values)


@pytest.mark.parametrize("metric", ["randomisation_cascading", "random_logit"])
@pytest.mark.parametrize("name", CONTROLS)
def test_control_is_worst_by_sanity_checks(name, metric, small_net, images):
    method = methods[name]()
    found = evaluate(small_net, images, method(small_net, images), metric, method=method)
    assert torch.allclose(found, torch.ones(8).double())


@pytest.mark.parametrize("name", CONTROLS)
def test_control_is_not_complete(name, small_net, images):
    found = explain(small_net, images, name, 1, score="logit")
    assert not found.complete
    assert found.completeness_gap.isnan().all()
    assert found.baseline is found.baseline_score is found.trace is None
    assert torch.allclose(found.score, small_net(images)[:, 1].detach())
    assert found.provenance["passes"] == {"forward": 1, "backward": 0}


@pytest.mark.parametrize("channels", [1, 3])
def test_edges_equal_scikit_image(channels, linear_of):
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(3, channels, 13, 11, generator=generator).double()
    found = explain(linear_of(images), images, "edges")
    for image, values in zip(images, found.values, strict=True):
        grey = rgb2gray(image.numpy(), channel_axis=0) if channels == 3 else image[0].numpy()
        expected = torch.from_numpy(sobel(grey)).expand(channels, -1, -1) / channels
        assert torch.allclose(values, expected, rtol=0, atol=1e-14)


def test_edges_equal_loop(linear_of):
    images = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(6)).double()
    found = explain(linear_of(images), images, "edges")
    weights = ((1, 0, -1), (2, 0, -2), (1, 0, -1))
    for image, values in zip(images, found.values, strict=True):
        for row in range(5):
            for column in range(4):
                across = down = 0.0
                for i in (-1, 0, 1):
                    for j in (-1, 0, 1):
                        red, green, blue = image[
                            :, min(max(row + i, 0), 4), min(max(column + j, 0), 3)
                        ].tolist()
                        grey = 0.2125 * red + 0.7154 * green + 0.0721 * blue
                        across += weights[i + 1][j + 1] * grey
                        down += weights[j + 1][i + 1] * grey
                expected = math.sqrt(((across / 4) ** 2 + (down / 4) ** 2) / 2)
                assert float(values[:, row, column].sum()) == pytest.approx(expected, abs=1e-14)


def test_edges_are_worst_by_edge_control(small_net, images):
    found = explain(small_net, images, "edges")
    assert (found.values >= 0).all()
    assert torch.allclose(
        evaluate(small_net, images, found, "edge_similarity"), torch.ones(8).double()
    )
    random = explain(small_net, images, "random")
    assert evaluate(small_net, images, random, "edge_similarity").mean() < 0.2


@pytest.mark.parametrize("shape", [(6,), (2, 9), (2, 5, 5), (3, 4, 5, 5)])
def test_edges_refuse_inputs_other_than_pictures(shape, linear_of):
    inputs = torch.rand(4, *shape)
    with pytest.raises(NotApplicableError, match="expected pictures") as raised:
        explain(linear_of(inputs), inputs, "edges")
    assert str(raised.value) == (
        f"expected pictures (B, 3, H, W) or (B, 1, H, W), got {tuple(inputs.shape)}; other "
        "inputs have no edges; use method='random'"
    )
    assert explain(linear_of(inputs), inputs, "random").values.shape == inputs.shape


def test_random_is_standard_normal(linear_of):
    inputs = torch.rand(2, 3, 100, 100, generator=torch.Generator().manual_seed(2))
    for values in explain(linear_of(inputs), inputs, "random").values:
        count = values.numel()
        assert abs(float(values.mean())) < 4 / math.sqrt(count)
        assert abs(float(values.std()) - 1) < 4 / math.sqrt(2 * count)
        assert kstest(values.flatten().numpy(), "norm").pvalue > 1e-3


def test_random_depends_on_seed_and_content(small_net, images):
    found = explain(small_net, images, "random", seed=3).values
    assert torch.equal(explain(small_net, images.flip(0), "random", seed=3).values.flip(0), found)
    for i in (0, 5):
        alone = explain(small_net, images[i : i + 1].clone(), "random", seed=3).values
        assert torch.equal(alone[0], found[i])
    twins = explain(small_net, images[:1].repeat(2, 1, 1, 1), "random", seed=3).values
    assert torch.equal(twins[0], twins[1])
    single = explain(small_net.float(), images.float(), "random", seed=3).values
    assert torch.equal(single, found.float())


def test_random_is_independent_across_seeds_and_inputs(small_net, images):
    found = explain(small_net, images, "random", seed=3).values
    other = explain(small_net, images, "random", seed=4).values
    moved = explain(small_net, images + 1e-6, "random", seed=3).values
    bound = 4 / math.sqrt(found.numel())
    assert abs(correlation(found, other)) < bound
    assert abs(correlation(found, moved)) < bound
    assert abs(correlation(found[:4], found[4:])) < 2 * bound


def test_random_is_independent_of_other_draws_of_the_seed(small_net, images):
    seed = 3
    found = explain(small_net, images, "random", seed=seed).values
    evaluator, target = Evaluator(small_net), torch.zeros(8).long()
    noise = GaussianNoise(std=1.0, mean=0.0, bounds=(-100.0, 100.0))
    context = EvalContext(evaluator, images, target, small_net(images), found, seed)
    derived = generators(images, torch.Generator().manual_seed(seed))
    at_zero = Smoothed(Gradient(), std=1.0)._noisy
    others = {
        "the noise baseline's": noise(
            evaluator, images, target, generator=torch.Generator().manual_seed(seed)
        ),
        "SmoothGrad's": at_zero(torch.zeros_like(images), derived),
        "a metric's": torch.stack(
            [
                torch.randn(images.shape[1:], generator=generator)
                for generator in context.generators()
            ]
        ),
    }
    for name, draws in others.items():
        assert abs(float(draws.std()) - 1) < 0.05, name
        assert abs(correlation(found, draws)) < 4 / math.sqrt(found.numel()), name
