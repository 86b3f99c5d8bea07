import numpy
import pytest
import torch
from scipy import ndimage

from unilens import Evaluator
from unilens.baselines import (
    Blur,
    Constant,
    DatasetSample,
    GaussianNoise,
    ImageMean,
    MaxDistance,
    UniformNoise,
    Unlearned,
    baselines,
    blur,
    gaussian_blur,
)
from unilens.errors import UnilensError


def find(baseline, inputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return baseline(None, inputs, torch.zeros(len(inputs), dtype=torch.long), generator=generator)


@pytest.mark.parametrize(("name", "value"), [("black", 0.0), ("white", 1.0), ("grey", 0.5)])
def test_constants(name, value, images):
    assert torch.equal(find(baselines[name](), images), torch.full_like(images, value))


def test_one_value_per_channel(images):
    found = find(Constant([0.1, 0.2, 0.3]), images)
    for channel, value in enumerate((0.1, 0.2, 0.3)):
        assert bool((found[:, channel] == value).all())


@pytest.mark.parametrize("value", [[0.1, 0.2], "dark", [[0.0]]])
def test_a_wrong_constant_is_refused(value, images):
    with pytest.raises(UnilensError, match="expected value to be a number or"):
        find(Constant(value), images)


def test_image_mean_of_images_and_of_rows(images):
    found = find(ImageMean(), images)
    for i in range(len(images)):
        for c in range(3):
            expected = numpy.mean(images[i, c].numpy())
            assert found[i, c].numpy() == pytest.approx(expected)
    rows = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    assert find(ImageMean(), rows).tolist() == [[2.0, 2.0], [5.0, 5.0]]


def test_max_distance_is_the_farthest_corner():
    inputs = torch.tensor([[0.2, 0.9, 0.6]])
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    farthest = corners[(corners - inputs).norm(dim=1).argmax()]
    assert torch.equal(find(MaxDistance(), inputs)[0], farthest)
    assert find(MaxDistance((-1.0, 2.0)), inputs).tolist() == [[2.0, -1.0, -1.0]]
    assert find(MaxDistance((-0.3, 0.7)), torch.zeros(1, 1).double()).item() == 0.7


@pytest.mark.parametrize("largest_matrix", [4, 1024])
@pytest.mark.parametrize(
    ("boundary", "mode"), [("replicate", "nearest"), ("reflect", "reflect"), ("zero", "constant")]
)
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0, 6.0])
def test_blur_against_scipy(sigma, boundary, mode, largest_matrix, images, monkeypatch):
    monkeypatch.setattr(blur, "_LARGEST_MATRIX", largest_matrix)
    for dims, inputs in (((0, 1), images), ((0,), images[:, :, :, 0])):
        found = find(Blur(sigma, boundary), inputs)
        for got, one in zip(found.flatten(0, 1), inputs.flatten(0, 1), strict=True):
            expected = ndimage.gaussian_filter(one.numpy(), sigma, mode=mode, axes=dims)
            assert got.numpy() == pytest.approx(expected, abs=1e-12)


def test_a_table_cannot_be_blurred():
    with pytest.raises(UnilensError, match=r"to blur, got \(2, 5\); a table has no neighbourhoods"):
        gaussian_blur(torch.rand(2, 5), torch.tensor([1.0]))


def test_noise_has_the_moments_it_says():
    inputs = torch.rand(2, 3, 100, 100, generator=torch.Generator().manual_seed(4))
    uniform = find(UniformNoise((-1.0, 3.0)), inputs)
    assert float(uniform.mean()) == pytest.approx(1, abs=0.03)
    assert float(uniform.std()) == pytest.approx(4 / 12**0.5, abs=0.03)
    normal = find(GaussianNoise(std=0.1, mean=0.4, bounds=(-9.0, 9.0)), inputs)
    assert float(normal.mean()) == pytest.approx(0.4, abs=0.003)
    assert float(normal.std()) == pytest.approx(0.1, abs=0.003)
    around = find(GaussianNoise(std=0.1, mean=None, bounds=(-9.0, 9.0)), inputs) - inputs
    assert float(around.mean()) == pytest.approx(0, abs=0.003)
    clipped = find(GaussianNoise(std=3.0), inputs)
    assert float(clipped.min()) == 0
    assert float(clipped.max()) == 1


RANDOM = {
    "uniform_noise": UniformNoise(),
    "gaussian_noise": GaussianNoise(),
    "dataset_sample": DatasetSample(torch.arange(50.0).view(50, 1, 1, 1).expand(50, 3, 13, 11)),
}


def test_every_random_baseline_is_tested_here():
    elsewhere = {"adversarial", "tangent_aligned"}  # tests/oracle: test_paths, test_tangent
    tested = {*RANDOM, *elsewhere}
    assert tested == {n for n, e in baselines.items() if not e.card.deterministic}


@pytest.mark.parametrize("name", RANDOM)
def test_a_draw_depends_on_seed_and_input_alone(name, images):
    together = find(RANDOM[name], images)
    assert torch.equal(find(RANDOM[name], images), together)
    assert torch.equal(find(RANDOM[name], images.flip(0)), together.flip(0))
    assert torch.equal(find(RANDOM[name], images[2:3]), together[2:3])
    assert not torch.equal(find(RANDOM[name], images, seed=1), together)
    assert not torch.equal(together[0], together[1])


def test_dataset_sample_takes_the_references(images):
    references = torch.rand(4, 3, 13, 11).double()
    found = find(DatasetSample(references), images)
    assert all(any(torch.equal(one, reference) for reference in references) for one in found)
    with pytest.raises(
        UnilensError, match=r"references of shape \(R, 3, 13, 11\), got \(4, 3, 5\)"
    ):
        find(DatasetSample(references[..., 0][:, :, :5]), images)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("blur", {"sigma": 0}, "sigma to be a finite number above 0, got 0"),
        ("blur", {"sigma": "wide"}, "sigma to be a finite number above 0, got 'wide'"),
        ("gaussian_noise", {"std": -1}, "std to be a finite number above 0"),
        ("gaussian_noise", {"mean": "x"}, "mean to be a finite number"),
        ("uniform_noise", {"bounds": (1, 0)}, r"bounds to be \(lowest, highest\), got \(1, 0\)"),
        ("max_distance", {"bounds": 3}, "bounds to be"),
        ("max_distance", {"bounds": (None, 1)}, "bounds to be"),
        ("uniform_noise", {"bounds": (0, float("inf"))}, "bounds to be"),
        ("blur", {"sigma": float("inf")}, "sigma to be a finite number above 0, got inf"),
        ("unlearned", {"unlearning_rate": float("nan")}, "unlearning_rate to be a finite number"),
        (
            "unlearned",
            {"class_prior": "x"},
            r"class_prior to be a tensor \(K,\) or a list of numbers",
        ),
        ("dataset_sample", {"references": None}, r"references to be a tensor \(R, \*S\)"),
        ("dataset_sample", {}, "dataset_sample needs the setting 'references'"),
        ("unlearned", {"budget": 0}, "budget to be a finite number above 0"),
        ("unlearned", {"matching_steps": -1}, "matching_steps to be a whole number"),
        ("unlearned", {"start": "ones"}, "start to be one of zeros, gaussian, sphere, got 'ones'"),
        ("unlearned", {"projection": "cube"}, "projection to be one of sphere, ball"),
        ("unlearned", {"clamp": "yes"}, "clamp true or false"),
        ("unlearned", {"matching_target": "prior"}, r"class_prior \(K,\)"),
        ("unlearned", {"class_prior": torch.ones(3)}, r"class_prior \(K,\)"),
    ],
)
def test_wrong_settings_are_refused_when_they_are_given(name, settings, message):
    with pytest.raises(UnilensError, match=message):
        baselines[name](**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"matching_target": "uniform"},
        {"matching_target": "prior", "class_prior": [0.2, 0.3, 0.5]},
        {"unlearning_steps": 2},
        {"matching_target": "uniform", "origin": ["input", "black"]},
    ],
)
def test_the_search_takes_as_many_passes_as_it_says(settings):
    torch.manual_seed(0)
    model, taken = torch.nn.Linear(4, 3).eval(), []
    evaluator = Evaluator(model, on_pass=taken.append, outputs="logits")
    inputs, baseline = torch.rand(1, 4), Unlearned(matching_steps=5, **settings)
    evaluator(inputs)
    taken.clear()
    baseline(evaluator, inputs, torch.tensor([0]), generator=torch.Generator().manual_seed(0))
    assert sum(taken) == baseline.passes.forward
