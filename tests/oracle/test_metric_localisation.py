"""Localisation by hand, by slow replicas and by Quantus."""

import warnings

import numpy
import pytest
import torch

from unilens import UnilensError, evaluate, metrics
from unilens.errors import NotApplicableError
from unilens.metrics import PointingGame, RelevanceMass, RelevanceRank

from ..conftest import SmallNet, randomise

NAMES = ("pointing_game", "relevance_mass", "relevance_rank")
THEIRS = ("PointingGame", "RelevanceMassAccuracy", "RelevanceRankAccuracy")


@pytest.fixture
def mask():
    found = torch.zeros(8, 13, 11, dtype=torch.bool)
    for i in range(8):
        found[i, i : i + 5, 2 : 4 + i] = True
    return found


def tiny(values, inside, name, **settings):
    """The value of one map (2, 3) of a model of six features in two rows."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2)).eval()
    values = torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 3)
    inside = torch.tensor(inside).view(1, 2, 3)
    return float(evaluate(model, torch.rand(1, 1, 2, 3), values, name, mask=inside, **settings))


@pytest.mark.parametrize(
    ("name", "values", "inside", "expected"),
    [
        ("pointing_game", [3, 1, 2, 0, 0, 0], [1, 0, 0, 0, 1, 0], 1),
        ("pointing_game", [1, 3, 2, 0, 0, 0], [1, 0, 0, 0, 1, 0], 0),
        ("pointing_game", [3, 3, 2, 0, 3, 0], [1, 0, 0, 0, 1, 0], 2 / 3),
        ("pointing_game", [-3, 1, 2, 0, 0, 0], [1, 0, 0, 0, 1, 0], 0),
        ("relevance_mass", [3, 1, 2, -9, 2, -1], [1, 0, 0, 1, 1, 0], 5 / 8),
        ("relevance_mass", [0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], 0),
        ("relevance_rank", [3, 1, 2, -9, 2.5, 0], [1, 1, 0, 0, 1, 0], 2 / 3),
        # K = 3: one is above the tied value 2, two of the three tied places are inside
        ("relevance_rank", [3, 2, 2, 2, 0, 0], [1, 1, 0, 1, 0, 0], (1 + 2 * 2 / 3) / 3),
    ],
)
def test_localisation_equals_values_by_hand(name, values, inside, expected):
    assert tiny(values, inside, name) == pytest.approx(expected, abs=1e-12)


def test_localisation_of_saliency_ignores_sign():
    values, inside = [-3, 1, 2, 0, 0, 0], [1, 0, 0, 0, 1, 0]
    assert tiny(values, inside, "pointing_game", reduction="abs") == 1
    assert tiny(values, inside, "relevance_mass", reduction="abs") == pytest.approx(1 / 2)
    assert tiny(values, inside, "relevance_rank", reduction="abs") == pytest.approx(1 / 2)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 4])
def test_pointing_game_tolerance_is_distance_to_mask(tolerance, small_net, images, mask):
    generator = torch.Generator().manual_seed(5)
    seen = set()
    for _ in range(10):
        maps = torch.rand(8, 13, 11, generator=generator).double()
        found = evaluate(
            small_net, images, maps, "pointing_game", mask=mask, tolerance=tolerance
        ).tolist()
        for i in range(8):
            place = numpy.unravel_index(int(maps[i].argmax()), (13, 11))
            near = numpy.linalg.norm(numpy.argwhere(mask[i].numpy()) - place, axis=1).min()
            assert found[i] == float(near <= tolerance)
            seen.add(found[i])
    assert seen == {0.0, 1.0}


@pytest.mark.parametrize(("ours", "theirs"), list(zip(NAMES, THEIRS, strict=True)))
def test_localisation_equals_quantus(ours, theirs, small_net, images, mask):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus")
        metric = getattr(quantus, theirs)(
            abs=False, normalise=False, disable_warnings=True, display_progressbar=False
        )
        maps = torch.rand(8, 1, 13, 11, generator=torch.Generator().manual_seed(2)).double()
        expected = metric(
            model=small_net,
            x_batch=images.numpy(),
            y_batch=numpy.zeros(8, dtype=int),
            a_batch=maps.numpy(),
            s_batch=mask.unsqueeze(1).numpy(),
        )
    found = evaluate(small_net, images, maps, ours, mask=mask)
    assert found.tolist() == pytest.approx([float(value) for value in expected], abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_localisation_ranks_perfect_random_worst(name):
    """The model reads the mask's pixels alone: its gradient is the perfect map."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[:, 3:9, 2:8] = True
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 2)).eval()
    weight = mask.float() * (1 + torch.rand(12, 12, generator=generator))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([weight.flatten(), 0 * weight.flatten()]))
    inputs = torch.rand(40, 1, 12, 12, generator=generator)
    masks = mask.expand(40, -1, -1)
    perfect = weight.view(1, 1, 12, 12).expand(40, -1, -1, -1)
    random = torch.rand(40, 1, 12, 12, generator=generator)
    worst = 1 - mask.float().view(1, 1, 12, 12).expand(40, -1, -1, -1)
    values = [
        evaluate(model, inputs, maps, name, mask=masks).mean() for maps in (perfect, random, worst)
    ]
    assert metrics()[name].higher_is_better
    assert values[0] == 1
    assert float(values[1]) == pytest.approx(0.25, abs=0.15)
    assert values[2] == 0


@pytest.mark.parametrize("name", NAMES)
def test_localisation_is_nan_where_undefined(name, small_net, images, mask):
    maps = torch.rand(8, 13, 11, generator=torch.Generator().manual_seed(2)).double()
    mask[0], mask[1] = False, True
    maps[2], maps[3] = 0, 7
    maps[4] = torch.nan
    found = evaluate(small_net, images, maps, name, mask=mask)
    assert found.isnan().tolist() == [True] * 5 + [False] * 3
    assert found.dtype == torch.float64
    negative = evaluate(small_net, images, -maps - 1, name, mask=mask).isnan()[5:]
    assert negative.all() == (name == "relevance_mass")
    full = evaluate(small_net, images, maps, "pointing_game", mask=mask, tolerance=20)
    assert full.isnan().all()


@pytest.mark.parametrize("name", NAMES)
def test_localisation_on_batch_equals_loop(name):
    """Large enough that a sum over one map alone would be split over threads."""
    model = randomise(SmallNet())
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, 200, 180, generator=generator)
    maps = torch.randn(images.shape, generator=generator)
    boxes = torch.tensor([[10, 20, 90, 80], [0, 0, 180, 10], [100, 30, 400, 400]])
    found = evaluate(model, images, maps, name, mask=boxes)
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.equal(
            evaluate(model, images[one], maps[one], name, mask=boxes[one]), found[one]
        )


def test_localisation_takes_signals_and_tables(small_net):
    signals, table = torch.rand(2, 3, 9).double(), torch.rand(2, 6).double()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 2)).double().eval()
    inside = torch.zeros(2, 9, dtype=torch.bool)
    inside[:, 4] = True
    peak = torch.zeros(2, 9).double()
    peak[0, 6], peak[1, 7] = 1, 1
    found = PointingGame(tolerance=2)(net, signals, peak, mask=inside)
    assert found.values.tolist() == [1, 0]
    assert found.details["chance"].tolist() == pytest.approx([5 / 9] * 2)
    linear = torch.nn.Linear(6, 2).double().eval()
    half = torch.tensor([[True, False, False] * 2] * 2)
    found = RelevanceMass()(linear, table, torch.arange(12.0).view(2, 6), mask=half)
    assert found.values.tolist() == pytest.approx([3 / 15, 15 / 51])
    with pytest.raises(NotApplicableError, match="expected images or signals for tolerance=1"):
        PointingGame(tolerance=1)(linear, table, table, mask=half)


def test_localisation_refuses_wrong_settings(small_net, images, mask):
    for kind in (PointingGame, RelevanceMass, RelevanceRank):
        with pytest.raises(UnilensError, match="expected reduction to be one of"):
            kind(reduction="saliency")
        with pytest.raises(NotApplicableError, match="needs to know where the object is"):
            kind()(small_net, images, images)
        assert kind().needs == ("mask",)
        assert kind().explanations == 0
    with pytest.raises(
        UnilensError, match="expected tolerance to be a finite number of at least 0"
    ):
        PointingGame(tolerance=-1)
    with pytest.raises(UnilensError, match="expected tolerance to be a finite number"):
        PointingGame(tolerance="far")
