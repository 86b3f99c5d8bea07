"""What metrics take: maps from anywhere, targets, masks, boxes, methods; and what they refuse."""

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from unilens import Evaluator, UnilensError, evaluate, explain
from unilens.methods import methods
from unilens.metrics import Measurement, Metric, MetricCard, metrics
from unilens.metrics.maps import check_map, check_mask, reduce_channels
from unilens.metrics.similarities import Spearman, TopK


class Probe(Metric):
    """Keeps the subject that it is given."""

    def __init__(self, *needs):
        self._needs = needs

    needs = property(lambda self: self._needs)

    def _measure(self, context):
        self.context = context
        return Measurement(context.values.flatten(1).sum(1))


def test_maps_of_places_are_spread_over_the_channels(images):
    grid = torch.rand(8, 13, 11).double()
    for given in (grid, grid.unsqueeze(1)):
        values = check_map(given, images)
        assert values.shape == images.shape
        assert torch.allclose(reduce_channels(values, "sum"), grid, rtol=0, atol=1e-15)
    negative = check_map(-grid, images)
    assert torch.allclose(reduce_channels(negative, "abs"), grid, rtol=0, atol=1e-15)


def test_reduction_by_hand():
    values = torch.tensor([[[[1.0, -2.0]], [[-3.0, -4.0]], [[5.0, 6.0]]]])
    assert reduce_channels(values, "sum").tolist() == [[[3, 0]]]
    assert reduce_channels(values, "abs").tolist() == [[[9, 12]]]
    rows = torch.tensor([[1.0, -2.0]])
    assert reduce_channels(rows, "abs").tolist() == [[1, 2]]
    assert reduce_channels(rows, "sum").dtype == torch.float64


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.rand(8, 3, 13), r"shape \(8, 3, 13, 11\) or \(8, 13, 11\), got \(8, 3, 13\)"),
        (torch.rand(7, 13, 11), r"got \(7, 13, 11\)"),
        ([[1.0]], "expected maps as a tensor or an Attribution, got list"),
    ],
)
def test_maps_that_do_not_fit(maps, message, small_net, images):
    with pytest.raises(UnilensError, match=message):
        evaluate(small_net, images, maps)


def test_boxes_are_left_top_right_bottom(images):
    boxes = torch.tensor([[2, 1, 5, 3]] * 8)
    mask = check_mask(boxes, images)
    assert mask.shape == (8, 13, 11)
    inside = {tuple(place) for place in mask[0].nonzero().tolist()}
    assert inside == {(row, column) for row in (1, 2) for column in (2, 3, 4)}


@pytest.mark.parametrize("mask", [torch.ones(8, 11, 13), torch.ones(4), "all", torch.ones(7, 4)])
def test_masks_that_do_not_fit(mask, small_net, images):
    with pytest.raises(UnilensError, match=r"expected mask of shape \(8, 13, 11\), true inside"):
        Probe()(small_net, images, images, mask=mask)


def test_masks_of_numbers_and_with_a_channel(small_net, images):
    mask = torch.zeros(8, 1, 13, 11)
    mask[:, :, 4] = 255
    probe = Probe("mask")
    probe(small_net, images, images, mask=mask)
    assert probe.context.mask.dtype == torch.bool
    assert probe.context.mask.sum() == 8 * 11


def test_the_target_is_the_attributions(small_net, images):
    target = (small_net(images).argmax(1) + 1) % 5
    attribution = explain(small_net, images, "gradient", target)
    probe = Probe()
    probe(small_net, images, attribution)
    assert torch.equal(probe.context.target, target)
    probe(small_net, images, attribution, target=target)
    with pytest.raises(UnilensError, match="expected no target beside an Attribution"):
        probe(small_net, images, attribution, target=0)
    probe(small_net, images, attribution.values)
    assert torch.equal(probe.context.target, small_net(images).argmax(1))
    probe(small_net, images, attribution.values, target=target.tolist())
    assert torch.equal(probe.context.target, target)


def captums(model, inputs, target):
    assert isinstance(model, nn.Module)
    return Saliency(model).attribute(inputs.requires_grad_(), target=target, abs=False)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_a_method_can_be_a_name_an_object_or_a_function_of_another_library(small_net, images):
    logits = explain(small_net, images, "gradient", score="logit").values
    for method in ("gradient", captums):
        probe = Probe("method")
        probe(small_net, images, images, method=method)
        found = probe.context.explain(images)
        if method is captums:
            assert torch.allclose(found, logits, rtol=1e-9, atol=1e-15)
        else:
            assert torch.equal(found, explain(small_net, images, "gradient").values)
    other = probe.context.explain(images, target=torch.zeros(8).long())
    expected = explain(small_net, images, "gradient", 0, score="logit").values
    assert torch.allclose(other, expected, rtol=1e-9, atol=1e-15)


def test_a_model_in_place_of_the_subjects(small_net, images, linear):
    probe = Probe("method")
    seen = []

    def method(model, inputs, target):
        seen.append(model)
        return inputs

    probe(small_net, images, images, method=method)
    probe.context.explain(images)
    assert seen == [small_net]
    other = nn.Sequential(nn.Flatten(), nn.Linear(429, 5)).double().eval()
    probe.context.explain(images, other)
    probe.context.explain(images, Evaluator(other))
    assert seen[1:] == [other, other]
    probe(small_net, images, images, method="gradient")
    found = probe.context.explain(images, other)
    assert torch.equal(found, explain(other, images, "gradient", probe.context.target).values)


def test_a_method_that_did_not_make_the_maps_is_refused(small_net, images):
    maps = explain(small_net, images, "ig", n_steps=4)
    probe = Probe("method")
    probe(small_net, images, maps, method=methods["ig"](n_steps=4))
    probe(small_net, images, maps.values, method="ig")
    probe(small_net, images, maps, method=captums)  # a function says nothing of its settings
    with pytest.raises(UnilensError, match="what made the maps, but n_steps differ") as caught:
        probe(small_net, images, maps, method="ig")
    assert "\n" not in str(caught.value)
    Probe()(small_net, images, maps, method="ig")  # nothing is explained again


def test_maps_in_half_precision_are_read(small_net, images):
    maps = explain(small_net, images, "gradient").values
    half = evaluate(small_net, images, maps.half(), "deletion_auc")
    assert torch.allclose(half, evaluate(small_net, images, maps, "deletion_auc"), atol=0.02)


def test_wrong_arguments(small_net, images):
    for given, message in (
        ({"seed": -1}, "expected seed to be a whole number"),
        ({"method": "no"}, "unknown method 'no'"),
        ({"target": 9}, "expected `target` between 0 and 4"),
    ):
        with pytest.raises(UnilensError, match=message):
            evaluate(small_net, images, images, **given)
    with pytest.raises(UnilensError, match="expected a model in eval mode"):
        evaluate(small_net.train(), images, images)


def test_signals_and_tables(linear):
    rows = torch.rand(4, 2, 3).double()  # signals of two channels
    maps = explain(linear, rows, "ig", score="logit").values
    for name in ("insertion_auc", "deletion_auc"):
        found = evaluate(linear, rows, maps, name, score="logit", step=0.3)
        assert found.isfinite().all()
    table = nn.Linear(12, 3).double().eval()
    rows = torch.rand(4, 12).double()
    maps = explain(table, rows, "ig", score="logit").values
    found = evaluate(table, rows, maps, "mu_fidelity", score="logit")
    assert torch.allclose(found, torch.ones(4).double())


def test_similarities_by_hand():
    first = torch.tensor([[[1.0, 2, 3, 4, 5]]])
    second = torch.tensor([[[1.0, 2, 4, 3, 5]]])
    assert float(Spearman()(first, second)) == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert float(TopK(k=2)(first, second)) == 0.5
    assert float(TopK(k=3)(first, second)) == 1
    assert float(TopK(k=0.2)(first, second)) == 1
    assert float(TopK(k=0.4)(first, second)) == 0.5
    tied = torch.tensor([[[0.0, 0, 0, 0, 5]]])
    assert float(TopK(k=2)(tied, tied)) == 1
    assert float(TopK(k=2)(tied, first)) == pytest.approx((1 + 0.25) / 2)
    assert float(TopK(k=2)(first, -first)) == 0
    assert float(TopK(k=2, reduction="abs")(first, -first)) == 1


def test_per_channel_and_per_pixel_differ():
    first = torch.tensor([[[1.0, 2, 3], [9.0, 5, 1]]])
    second = first.flip(1)  # the channels change places: the pixels' sums stay
    assert float(Spearman()(first, second)) == pytest.approx(1)
    assert float(Spearman(per="channel")(first, second)) < 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k to be a finite number above 0, got 0"),
        ({"k": 2.5}, "k to be a whole number, or a fraction below 1, got 2.5"),
        ({"per": "row"}, "per to be one of pixel, channel, got 'row'"),
        ({"reduction": "x"}, "reduction to be one of sum, abs"),
    ],
)
def test_wrong_settings_of_similarities(settings, message):
    with pytest.raises(UnilensError, match=message):
        TopK(**settings)


def test_top_k_above_the_number_of_positions():
    with pytest.raises(UnilensError, match="expected k below the map's 6 positions, got 1000"):
        TopK(k=1000)(torch.rand(1, 1, 2, 3), torch.rand(1, 1, 2, 3))


def test_the_top_by_default_is_a_thousand_or_a_tenth():
    first = torch.arange(40.0).view(1, 1, 5, 8)
    assert torch.equal(TopK()(first, first.flip(3)), TopK(k=4)(first, first.flip(3)))
    large = torch.rand(1, 1, 120, 120, generator=torch.Generator().manual_seed(0))
    assert torch.equal(TopK()(large, large.sqrt()), TopK(k=1000)(large, large.sqrt()))
    assert float(TopK()(large, large.flip(3))) == float(TopK(k=1000)(large, large.flip(3)))


def test_cards_of_metrics_say_the_direction():
    card = metrics["deletion_auc"].card
    assert isinstance(card, MetricCard)
    assert card.higher_is_better is False
    assert metrics["insertion_auc"].card.higher_is_better is True
