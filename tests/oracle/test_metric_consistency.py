"""Consistency under light, colour, focus and noise: slow replicas and models of known truth."""

import copy

import pytest
import torch
from scipy import ndimage, stats
from torch import nn

from unilens import Evaluator, UnilensError, UnknownNameError, evaluate, explain, metrics
from unilens._ops.random import generators
from unilens.errors import NotApplicableError
from unilens.metrics import Consistency, Spearman, corruptions
from unilens.metrics import metrics as registry
from unilens.metrics.robustness.corruptions import Corruption

from ..conftest import SmallNet, randomise

NAMES = ("brightness", "saturation", "blur", "noise")


def alike(first, second):
    rows = [values.sum(0).flatten().numpy() for values in (first, second)]
    return stats.spearmanr(*rows).statistic


def darker_channel_by_hand(images, strength):
    value = images.amax(1, keepdim=True)
    return images / value * (value + strength).clamp(0, 1)


def blurred_by_hand(images, strength):
    return torch.stack(
        [
            torch.stack(
                [
                    torch.from_numpy(ndimage.gaussian_filter(c.numpy(), strength, mode="nearest"))
                    for c in image
                ]
            )
            for image in images
        ]
    )


@pytest.mark.parametrize(
    ("name", "change", "strengths", "by_hand"),
    [
        ("brightness_consistency", "brightness", (0.1, -0.3), darker_channel_by_hand),
        ("blur_consistency", "gaussian_blur", (0.6, 1.5, 4), blurred_by_hand),
    ],
)
def test_consistency_equals_loop_over_changed_pictures(
    name, change, strengths, by_hand, small_net, images
):
    small_net = Evaluator(small_net)
    maps = explain(small_net, images, "gradient")
    metric = registry[name](corruption=change, strengths=strengths)
    found = metric(small_net, images, maps, method="gradient")
    expected, changes = [], []
    for strength in strengths:
        changed = by_hand(images, strength)
        theirs = explain(small_net, changed, "gradient", maps.target)
        kept = theirs.outputs.argmax(1) == maps.outputs.argmax(1)
        values = [alike(*pair) for pair in zip(maps.values, theirs.values, strict=True)]
        expected.append(torch.tensor(values).where(kept, torch.tensor(torch.nan)))
        changes.append(theirs.confidence - maps.confidence)
        assert torch.allclose(
            found.breakdown[f"{change} {strength:g}"], expected[-1], equal_nan=True
        )
    expected = torch.stack(expected, 1)
    assert torch.equal(found.details["kept"], ~expected.isnan())
    assert torch.allclose(found.details["similarities"], expected, equal_nan=True)
    assert torch.allclose(found.details["score_changes"], torch.stack(changes, 1))
    assert torch.allclose(found.values, expected.nanmean(1), equal_nan=True)


class Threshold(nn.Module):
    """Class 1 where a picture's mean is over one half; the map is the caller's business."""

    def forward(self, inputs):
        mean = inputs.mean((1, 2, 3))
        return torch.stack([1 - mean, mean], 1)


def test_consistency_counts_pictures_of_same_class():
    base = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.01
    inputs = base + torch.tensor([0.2, 0.35, 0.45, 0.7]).view(-1, 1, 1, 1)
    asked = []

    def method(model, given, target):
        asked.append(len(given))
        return given

    metric = Consistency(corruption="brightness", strengths=(0.1, 0.2))
    found = metric(Threshold().eval(), inputs, inputs, method=method)
    assert found.details["kept"].tolist() == [[True] * 2, [True, False], [False] * 2, [True] * 2]
    assert found.values.isnan().tolist() == [False, False, True, False]
    assert found.undefined == 1
    assert asked == [3, 2]
    assert torch.equal(found.values[1], found.breakdown["brightness 0.1"][1])


@pytest.mark.parametrize("name", NAMES)
def test_consistency_ranks_perfect_random_worst(name):
    """A linear model's gradient is the same everywhere, so its map must not move."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(3, 3, 24, 24, generator=generator).double()
    model = nn.Sequential(nn.Flatten(), nn.Linear(1728, 2)).double().eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 1728, generator=generator))
        model[1].bias.copy_(torch.tensor([1000.0, 0.0]))
    slope = model[1].weight[0].detach().view(3, 24, 24)

    def perfect(model, inputs, target):
        return slope.expand_as(inputs)

    def random(model, inputs, target):
        derived = generators(inputs, torch.Generator().manual_seed(0))
        return torch.stack([torch.randn(3, 24, 24, generator=generator) for generator in derived])

    def worst(model, inputs, target):
        same = torch.stack([(pictures == image).flatten(1).all(1).any() for image in inputs])
        return torch.where(same.view(-1, 1, 1, 1), slope, -slope)

    values = [
        evaluate(
            model, pictures, method(model, pictures, None), f"{name}_consistency", method=method
        )
        for method in (perfect, random, worst)
    ]
    assert metrics()[f"{name}_consistency"].higher_is_better
    assert torch.allclose(values[0], torch.ones(3).double())
    assert float(values[1].abs().max()) < 0.15
    assert torch.allclose(values[2], -torch.ones(3).double())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_consistency_on_batch_equals_loop_and_keeps_model(name, images):
    model, images = randomise(SmallNet()), images[:3].float()
    before = copy.deepcopy(model.state_dict())
    maps = explain(model, images, "ig", n_steps=2).values
    metric = registry[f"{name}_consistency"]()
    found = metric(model, images, maps, method="ig", seed=5)
    for i in range(3):
        one = slice(i, i + 1)
        alone = metric(model, images[one], maps[one], method="ig", seed=5)
        assert torch.equal(alone.values, found.values[one])
        assert torch.equal(alone.details["score_changes"], found.details["score_changes"][one])
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    other = metric(model, images, maps, method="ig", seed=6)
    card = metrics()[f"{name}_consistency"]
    assert torch.equal(other.values, found.values) == card.deterministic
    assert found.values.dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_consistency_is_nan_where_undefined(name, small_net, images):
    maps = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).double()
    maps[0], maps[1], maps[2] = 0, 3, torch.nan
    found = evaluate(small_net, images[:4], maps[:4], f"{name}_consistency", method="gradient")
    assert found.isnan().tolist() == [True] * 3 + [False]
    flat = evaluate(
        small_net, images[:2], images[:2], f"{name}_consistency", method=lambda m, x, t: 0 * x
    )
    assert flat.isnan().all()


def test_consistency_takes_strengths_changes_and_similarity(small_net, images):
    blur = registry["blur_consistency"]()
    assert blur.explanations == 6
    assert blur.passes == (7, 0)
    assert blur.needs == metrics()["blur_consistency"].needs == ("method",)
    found = blur(small_net, images[:1], images[:1], method="gradient")
    assert list(found.breakdown) == [
        *(f"gaussian_blur {sigma}" for sigma in (1, 2, 3)),
        *(f"defocus_blur {radius}" for radius in (3, 4, 6)),
    ]
    flip = Corruption(
        lambda inputs, strength, generators: inputs.flip(3) * strength, "factor", (1,)
    )
    found = Consistency(Spearman("abs", "channel"), corruption=[flip, "contrast"], strengths=[0.5])(
        small_net, images[:2], images[:2], method=lambda m, x, t: x
    )
    flipped = (images[:2].flip(3) * 0.5).flatten(1).numpy()
    rows = zip(images[:2].flatten(1).numpy(), flipped, strict=True)
    expected = [stats.spearmanr(*pair).statistic for pair in rows]
    kept = found.details["kept"][:, 0].tolist()
    assert any(kept)
    for value, correlation, same in zip(
        found.breakdown["<lambda> 0.5"].tolist(), expected, kept, strict=True
    ):
        assert not same or value == pytest.approx(correlation, abs=1e-9)
    twice = Consistency(corruption=[flip, flip], strengths=[0.5])
    assert twice.explanations == 2
    named = evaluate(
        small_net,
        images,
        images,
        "noise_consistency",
        method="gradient",
        corruption="shot_noise",
        strengths=[0.01],
        similarity="top_k",
        k=9,
    )
    assert named.isfinite().any()
    assert set(corruptions) >= {"contrast", "shot_noise"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corruption": "rain"}, "unknown corruption 'rain'"),
        ({"corruption": 3}, "expected corruption to be one of brightness"),
        ({"corruption": ()}, "expected corruption to be one of brightness"),
        ({"strengths": ()}, "expected strengths to be a tuple"),
        ({"strengths": 0.1}, "expected strengths to be a tuple"),
        ({"strengths": (-2,)}, "expected a strength of at least -1"),
        ({"score": "loss"}, "unknown score 'loss'"),
        ({"similarity": "spearman"}, "expected similarity to be a function"),
    ],
)
def test_consistency_refuses_wrong_settings(settings, message):
    with pytest.raises((UnilensError, UnknownNameError), match=message):
        Consistency(**settings)


def test_consistency_refuses_inputs_other_than_pictures(small_net, images):
    metric = Consistency()
    with pytest.raises(NotApplicableError, match="expected pictures in"):
        metric(small_net, images * 3 - 1, images, method="gradient")
    with pytest.raises(NotApplicableError, match="expected pictures"):
        metric(nn.Linear(4, 2).eval(), torch.rand(2, 4), torch.rand(2, 4), method="gradient")
    with pytest.raises(NotApplicableError, match="explains again"):
        metric(small_net, images, images)
