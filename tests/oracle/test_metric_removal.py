"""MuFidelity, insertion and deletion: by hand, slowly, and against Quantus."""

import queue
import warnings

import numpy
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn

from unilens import UnilensError, UnknownNameError, evaluate, explain
from unilens._engine.evaluator import Evaluator
from unilens._ops.spatial import grid_cell_index, sum_by_cell
from unilens.baselines import Constant
from unilens.metrics import Deletion, Insertion, MuFidelity, Replacement, imputers, metrics
from unilens.metrics.maps import ranking


class Remembering:
    """An imputer that puts -1 where pixels are removed, and remembers which were kept."""

    def __init__(self):
        self.kept = []

    def __call__(self, context):
        def impute(kept):
            self.kept.append(kept.clone())
            points = context.inputs.expand(len(kept), *context.inputs.shape).clone()
            for n in range(len(kept)):
                for b in range(kept.shape[1]):
                    points[n, b, :, ~kept[n, b]] = -1
            return points

        return impute


def slowly(net, inputs, target, kept, maps):
    """Return what each subset counts and what the probability loses without it, (n, B) each."""
    attributed, drop = torch.zeros(kept.shape[:2]).double(), torch.zeros(kept.shape[:2]).double()
    for n in range(len(kept)):
        for b in range(kept.shape[1]):
            changed = inputs[b].clone()
            for row, column in (~kept[n, b]).nonzero().tolist():
                changed[:, row, column] = -1
                attributed[n, b] += maps[b, row, column]
            logits = net(torch.stack([inputs[b], changed]))
            before, after = logits.softmax(-1)[:, target[b]].tolist()
            drop[n, b] = before - after
    return attributed, drop


@pytest.mark.parametrize("cells", [4, None])
@pytest.mark.parametrize("reduction", ["sum", "abs"])
def test_mu_fidelity_equals_loop(small_net, images, cells, reduction):
    images, imputer = images[:3], Remembering()
    attribution = explain(small_net, images, "gradient")
    settings = {"imputer": imputer, "cells": cells, "subsets": 12, "reduction": reduction}
    found = MuFidelity(**settings, fraction=0.25)(small_net, images, attribution)
    kept = torch.cat(imputer.kept)
    assert kept.shape == (12, 3, 13, 11)
    maps = attribution.values
    maps = (maps.abs() if reduction == "abs" else maps).sum(1)
    attributed, drop = slowly(small_net, images, attribution.target, kept, maps)
    assert torch.allclose(found.details["attributed"].T, attributed, rtol=1e-9, atol=1e-15)
    assert torch.allclose(found.details["score_drop"].T, drop, rtol=1e-9, atol=1e-13)
    for b in range(3):
        expected = spearmanr(attributed[:, b], drop[:, b]).statistic
        assert float(found.values[b]) == pytest.approx(expected, abs=1e-9)
    removed = (~kept).flatten(2).sum(2)
    if cells is None:
        assert (removed == round(0.25 * 143)).all()
    else:  # 4 of 16 cells, each of 3 or 4 by 2 or 3 places
        assert ((removed >= 4 * 6) & (removed <= 4 * 12)).all()
    assert len({tuple(mask.flatten().tolist()) for mask in kept[:, 0]}) > 8


def test_mu_fidelity_takes_pearson_and_absolute_value(small_net, images):
    maps = -explain(small_net, images[:2], "ig", n_steps=4).values
    settings = {"correlation": "pearson", "subsets": 30, "cells": 4}
    found = MuFidelity(**settings)(small_net, images[:2], maps)
    for b in range(2):
        attributed, drop = (found.details[name][b].numpy() for name in ("attributed", "score_drop"))
        assert float(found.values[b]) == pytest.approx(pearsonr(attributed, drop).statistic)
    absolute = evaluate(small_net, images[:2], maps, "mu_fidelity_abs", **settings)
    assert torch.equal(absolute, found.values.abs())
    assert (found.values < 0).any()


def test_mu_fidelity_draws_same_subsets_for_every_map(small_net, images):
    maps = torch.randn(images.shape, generator=torch.Generator().manual_seed(2)).double()
    measure = MuFidelity(subsets=9, cells=4)
    first, second = (measure(small_net, images, values) for values in (maps, maps.flip(0)))
    assert torch.equal(first.details["score_drop"], second.details["score_drop"])
    other = measure(small_net, images, maps, seed=1)
    assert not torch.equal(first.details["score_drop"], other.details["score_drop"])


def test_grid_cells_differ_by_at_most_one_position():
    cell = grid_cell_index(torch.Size((13, 7)), 4)
    assert torch.equal(cell.unique(), torch.arange(16))
    rows, columns = (cell // 4)[:, 0], (cell % 4)[0]
    assert rows.bincount().tolist() == [4, 3, 3, 3]
    assert columns.bincount().tolist() == [2, 2, 2, 1]
    assert grid_cell_index(torch.Size((3,)), 9).tolist() == [0, 1, 2]
    sums = sum_by_cell(torch.ones(2, 13, 7), cell)
    assert sums[1].view(4, 4)[0].tolist() == [8, 8, 8, 4]


def row_model():
    """Logit 0 of a row of four is 1 x0 + 2 x1 + 3 x2 + 4 x3."""
    model = nn.Linear(4, 2, bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]))
    return model


def test_removal_curves_equal_values_by_hand():
    inputs, maps = torch.ones(1, 4).double(), torch.tensor([[1.0, 2, 3, 4]]).double()
    settings = {"score": "logit", "step": 0.25}
    found = Deletion(**settings)(row_model(), inputs, maps, target=0)
    assert found.details["curve"].tolist() == [[10, 6, 3, 1, 0]]
    assert found.details["fractions"].tolist() == [[0, 0.25, 0.5, 0.75, 1]]
    assert float(found.values) == pytest.approx((5 + 6 + 3 + 1 + 0) / 4)
    found = Insertion(**settings)(row_model(), inputs, maps, target=0)
    assert found.details["curve"].tolist() == [[0, 4, 7, 9, 10]]
    assert float(found.values) == pytest.approx((0 + 4 + 7 + 9 + 5) / 4)
    worst = Insertion(**settings)(row_model(), inputs, -maps, target=0)
    assert worst.details["curve"].tolist() == [[0, 1, 3, 6, 10]]


def test_removal_order_follows_reduction():
    inputs, maps = torch.ones(1, 4).double(), torch.tensor([[-9.0, 2, 3, 4]]).double()
    signed = Deletion(score="logit", step=0.25)(row_model(), inputs, maps, target=0)
    assert signed.details["curve"].tolist() == [[10, 6, 3, 1, 0]]
    unsigned = Deletion(score="logit", step=0.25, reduction="abs")(
        row_model(), inputs, maps, target=0
    )
    assert unsigned.details["curve"].tolist() == [[10, 9, 5, 2, 0]]


def test_removal_with_uneven_steps_removes_everything():
    inputs, maps = torch.ones(1, 4).double(), torch.tensor([[1.0, 2, 3, 4]]).double()
    found = Deletion(score="logit", step=0.4)(row_model(), inputs, maps, target=0)
    assert found.details["fractions"].tolist() == [[0, 0.4, 0.8, 1]]
    assert found.details["curve"].tolist() == [[10, 3, 1, 0]]
    assert float(found.values) == pytest.approx(0.4 * 6.5 + 0.4 * 2 + 0.2 * 0.5)


def flat_rows():
    """Logit 0 is 8 for rows of sixteen with the first feature, plus the sum of the last eight."""
    model = nn.Linear(16, 2, bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[8.0, *[0.0] * 7, *[1.0] * 8], [0.0] * 16]))
    return model


def test_flat_parts_of_a_removal_curve_are_not_measured():
    inputs, order = torch.ones(1, 16).double(), torch.arange(16.0).double()[None]
    settings, evaluator = {"score": "logit", "step": 1 / 16}, Evaluator(flat_rows())
    points = []
    evaluator.outputs = lambda at, known=evaluator.outputs: points.append(len(at)) or known(at)
    exact = Deletion(**settings)(evaluator, inputs, -order, target=0)
    assert exact.details["curve"].tolist() == [[16, *[8.0] * 8, *range(7, -1, -1)]]
    points.clear()
    thrifty = Deletion(**settings, tolerance=0.01)(evaluator, inputs, -order, target=0)
    assert torch.equal(thrifty.details["curve"], exact.details["curve"])
    assert sum(points) == len([0, 16, 8, 4, 2, 1]) + len(range(9, 16))
    points.clear()
    coarse = Deletion(**settings, tolerance=0.6)(evaluator, inputs, -order, target=0)
    assert coarse.details["curve"].tolist() == [
        [16.0, 15, 14, 13, 12, 11, 10, 9, 8.0, *range(7, -1, -1)]
    ]
    assert sum(points) == 3


@pytest.mark.parametrize("kind", [Deletion, Insertion])
def test_interpolated_points_of_a_row_do_not_depend_on_others(kind, small_net, images):
    metric, maps = kind(step=0.05, tolerance=0.2), torch.randn(images.shape, dtype=images.dtype)
    together = metric(small_net, images, maps, target=0).details["curve"]
    exact = kind(step=0.05)(small_net, images, maps, target=0).details["curve"]
    assert not torch.allclose(together, exact)
    for row in range(len(images)):
        one = slice(row, row + 1)
        alone = metric(small_net, images[one], maps[one], target=0).details["curve"]
        assert torch.allclose(alone, together[one], atol=1e-12)


def test_removal_removes_whole_pixels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double().eval()
    inputs = torch.rand(1, 3, 2, 2).double() + 0.1
    points = queue.SimpleQueue()  # what a hook adds to a list is put back
    model.register_forward_pre_hook(lambda module, given: points.put(given[0].clone()))
    Deletion(step=0.25)(model, inputs, torch.rand(1, 3, 2, 2).double())
    seen = [points.get() for _ in range(points.qsize())]
    for point in torch.cat(seen):
        gone = point == 0
        assert (gone.all(0) == gone.any(0)).all()
    assert sum(int((point == 0).all(0).sum()) for point in torch.cat(seen)) >= 1 + 2 + 3 + 4


def test_removal_orders_ties_randomly():
    relevance = torch.tensor([[5.0, 1, 1, 1, 1, 9]])
    orders = {
        tuple(ranking(relevance, [torch.Generator().manual_seed(seed)])[0].tolist())
        for seed in range(200)
    }
    assert len(orders) == 24  # every order of the four that tie
    assert {(order[0], order[5]) for order in orders} == {(1, 0)}


def test_removal_with_several_imputers_gives_breakdown_and_mean(small_net, images):
    maps = explain(small_net, images, "gradient").values
    names = ["black", "grey", "image_mean", "blur", "noise"]
    for measure in (MuFidelity, Deletion, Insertion):
        together = measure(imputer=names)(small_net, images, maps)
        assert list(together.breakdown) == names
        for name in names:
            alone = measure(imputer=name)(small_net, images, maps)
            assert torch.equal(together.breakdown[name], alone.values)
            assert alone.breakdown == {}
        assert torch.equal(together.values, torch.stack(list(together.breakdown.values())).mean(0))
        assert len({tuple(part.tolist()) for part in together.breakdown.values()}) == 5


def test_imputers_equal_values_by_hand(images):
    class Context:
        evaluator, inputs, target, seed = None, images, None, 0

    kept = torch.rand(5, 8, 13, 11, generator=torch.Generator().manual_seed(0)) > 0.5
    expected = {
        "black": 0.0,
        "grey": 0.5,
        "image_mean": images.mean((2, 3), keepdim=True),
    }
    for name, value in expected.items():
        points = imputers[name]()(Context)(kept)
        by_hand = kept[:, :, None] * images + ~kept[:, :, None] * value
        assert torch.allclose(points, by_hand, rtol=0, atol=1e-15)
    for name in ("blur", "noise"):
        points = imputers[name]()(Context)(kept)
        stays = kept[:, :, None].expand_as(points)
        assert torch.equal(points[stays], images.expand_as(points)[stays])
        assert float((points != images)[~stays].double().mean()) > 0.99
        assert 0 <= float(points.min()) < float(points.max()) <= 1


def test_imputer_takes_any_baseline(small_net, images):
    maps = explain(small_net, images, "gradient").values
    given = Deletion(imputer=Replacement(Constant(0.5)))(small_net, images, maps)
    assert torch.equal(
        given.values, evaluate(small_net, images, maps, "deletion_auc", imputer="grey")
    )
    both = Deletion(imputer=[Replacement(Constant(0.5)), Replacement(Constant(0.1))])
    assert list(both(small_net, images, maps).breakdown) == ["Replacement", "Replacement 1"]


@pytest.mark.parametrize("name", ["mu_fidelity", "insertion_auc", "deletion_auc"])
def test_removal_ranks_perfect_random_worst(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 143, 3)).double().eval()
    inputs = torch.rand(6, 3, 13, 11).double()
    perfect = model[1].weight[1].detach().view(3, 13, 11) * inputs
    maps = (perfect, torch.randn_like(inputs), -perfect)
    means = [
        float(evaluate(model, inputs, values, name, target=1, score="logit").mean())
        for values in maps
    ]
    assert means == sorted(means, reverse=metrics[name].card.higher_is_better)
    assert len(set(means)) == 3


@pytest.mark.parametrize(
    "name", ["mu_fidelity", "mu_fidelity_abs", "insertion_auc", "deletion_auc"]
)
def test_removal_is_nan_where_undefined(name, small_net, images):
    images, maps = images[:4], torch.rand(4, 3, 13, 11).double()
    maps[0], maps[1], maps[2, 0, 0, 0] = 0, 3, torch.nan
    found = evaluate(small_net, images, maps, name)
    assert found.isnan().tolist() == [True, True, True, False]
    constant = nn.Sequential(nn.Flatten(), nn.Linear(429, 3)).double().eval()
    nn.init.zeros_(constant[1].weight)
    assert evaluate(constant, images, torch.rand_like(images), name).isnan().all()
    measured = metrics[name]()(small_net, images, maps)
    assert measured.undefined == 3


@pytest.mark.filterwarnings("ignore")
def test_deletion_curve_equals_quantus_pixel_flipping():
    """Of images with one channel: of more, Quantus flips single values and not whole pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 80, 5)).eval()
    inputs = torch.rand(8, 1, 12, 10)
    maps = explain(model, inputs, "gradient").values
    target = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    theirs = quantus.PixelFlipping(
        features_in_step=12,
        perturb_baseline=0.0,
        normalise=False,
        abs=False,
        disable_warnings=True,
        display_progressbar=False,
    )(
        model=model,
        x_batch=inputs.numpy(),
        y_batch=target.numpy(),
        a_batch=maps.numpy(),
        softmax=True,
        channel_first=True,
    )
    ours = Deletion(step=0.1)(model, inputs, maps, target=target)
    theirs = numpy.asarray(theirs)
    assert theirs.shape == (8, 10)  # without the point at which nothing is gone
    assert numpy.allclose(ours.details["curve"][:, 1:].numpy(), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("metric", "settings", "message"),
    [
        ("mu_fidelity", {"cells": 1}, "cells to be a whole number of at least 2, got 1"),
        ("mu_fidelity", {"fraction": 1}, "fraction below 1, got 1"),
        ("mu_fidelity", {"fraction": -0.1}, "fraction to be a finite number above 0"),
        ("mu_fidelity", {"subsets": 1}, "subsets to be a whole number of at least 2"),
        ("mu_fidelity", {"correlation": "kendall"}, "correlation to be one of spearman, pearson"),
        ("mu_fidelity", {"absolute": 1}, "absolute true or false, got 1"),
        ("mu_fidelity", {"reduction": "both"}, "reduction to be one of sum, abs"),
        ("mu_fidelity", {"imputer": []}, "imputer to be one of black, grey"),
        ("mu_fidelity", {"imputer": 3}, "imputer to be one of black, grey"),
        ("mu_fidelity", {"imputer": Constant}, "got the class Constant"),
        ("deletion_auc", {"step": 0}, "step to be a finite number above 0, got 0"),
        ("deletion_auc", {"step": float("nan")}, "step to be a finite number above 0, got nan"),
    ],
)
def test_removal_refuses_wrong_settings(metric, settings, message, small_net, images):
    with pytest.raises(UnilensError, match=message) as caught:
        evaluate(small_net, images, images, metric, **settings)
    assert "\n" not in str(caught.value)


def test_removal_refuses_unknown_names(small_net, images):
    with pytest.raises(UnknownNameError, match="unknown imputer 'blak'; did you mean black"):
        evaluate(small_net, images, images, imputer="blak")
    with pytest.raises(UnknownNameError, match="unknown metric 'mufidelity'; did you mean"):
        evaluate(small_net, images, images, "mufidelity")
    with pytest.raises(UnknownNameError, match="setting of deletion_auc 'subsets'"):
        evaluate(small_net, images, images, "deletion_auc", subsets=3)


def test_mu_fidelity_refuses_fraction_that_removes_everything(small_net, images):
    with pytest.raises(UnilensError, match=r"fraction to leave one of 4 cells, got 0\.9"):
        evaluate(small_net, images, images, cells=2, fraction=0.9)
