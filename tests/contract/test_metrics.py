"""What every registered metric, imputer and similarity must keep, whichever it is."""

import inspect
import math
import pickle
import pkgutil
import sys
import types
from importlib import import_module

import pytest
import torch
from torch import nn

import unilens
from unilens import UnknownNameError
from unilens._engine.evaluator import Evaluator, PassCount
from unilens._ops.random import generators
from unilens.errors import NotApplicableError, UnilensError
from unilens.methods import methods
from unilens.metrics import Measurement, Metric, MetricCard, imputers, metrics, similarities
from unilens.metrics.path import baseline_quality
from unilens.registry import TRAITS

from ..conftest import SmallNet, randomise
from .test_methods import counting, taken

SMALL = {"k": 9, "iterations": 3, "subsets": 20, "cells": 4}
"""Settings, where a metric has them, that are fast and fit inputs (B, 3, 13, 11)."""
SMALL_OF = {"smooth_mprt": {"samples": 2}}
"""Settings of one metric, where its defaults make many maps."""
every_metric = pytest.mark.parametrize("name", metrics)


def card_of(name):
    return metrics[name].card


def small_settings(name):
    known = {key: SMALL[key] for key in SMALL if key in metrics[name].settings}
    return {**known, **SMALL_OF.get(name, {})}


def build(name):
    return metrics[name](**small_settings(name))


def method():
    return methods["ig"](n_steps=3, score="logit")


def mask_of(images):
    mask = torch.zeros(len(images), 13, 11, dtype=torch.bool)
    mask[:, 3:9, 2:8] = True
    return mask


def without_parts_of(images):
    """Return images without each of five parts: two of their rows each."""
    without = images.unsqueeze(1).repeat(1, 5, 1, 1, 1)
    for part in range(5):
        without[:, part, :, 2 * part : 2 * part + 2] = 0
    return without


def given_to(inputs):
    """Return all that any metric needs beside maps."""
    return {
        "method": method(),
        "mask": mask_of(inputs),
        "without_parts": without_parts_of(inputs),
    }


def measure(name, model, inputs, seed=0, values=None):
    """Return what a metric says of IG's maps, given all that any metric needs."""
    attribution = method()(model, inputs)
    given = attribution if values is None else values
    known = {} if values is None else {"target": attribution.target}
    return build(name)(model, inputs, given, seed=seed, **given_to(inputs), **known)


class Distance(nn.Module):
    """In place of the package lpips, whose weights would be downloaded."""

    def __init__(self, **_):
        super().__init__()

    def forward(self, first, second, normalize):
        return (first - second).abs().mean((1, 2, 3), keepdim=True)


@pytest.fixture(autouse=True)
def _no_download(monkeypatch):
    baseline_quality._distance.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Distance))
    yield
    baseline_quality._distance.cache_clear()


@pytest.fixture
def few(images):
    return images[:3]


@every_metric
def test_metric_gives_one_value_per_input(name, small_net, few):
    found = measure(name, small_net, few)
    assert isinstance(found, Measurement)
    assert found.values.shape == (3,)
    assert found.values.dtype == torch.float64
    assert not found.values.requires_grad
    low, high = card_of(name).bounds
    defined = found.values[~found.values.isnan()]
    assert len(defined), "undefined everywhere: the contract shows nothing"
    assert (defined >= (-math.inf if low is None else low) - 1e-9).all()
    assert (defined <= (math.inf if high is None else high) + 1e-9).all()
    for part in found.breakdown.values():
        assert part.shape == (3,)
        assert part.dtype == torch.float64
    for detail in found.details.values():
        assert len(detail) == 3
    made = found.provenance
    assert made["metric"] == type(build(name)).__name__
    assert {"settings", "seed", "versions", "device", "dtype", "seconds"} <= set(made)


def same(first, second):
    return torch.equal(first.nan_to_num(-77), second.nan_to_num(-77))


def alike(name, first, second):
    """Whether values are the same to the last bit, or nearly so where the metric cannot be."""
    if "rounding" in card_of(name).traits:
        return torch.allclose(first, second, rtol=1e-9, atol=0)
    return same(first, second)


@every_metric
def test_metric_on_batch_equals_loop(name, small_net, few):
    together = measure(name, small_net, few)
    alone = [measure(name, small_net, few[i : i + 1]) for i in range(3)]
    values = torch.cat([measurement.values for measurement in alone])
    assert alike(name, together.values, values)
    for key, part in together.breakdown.items():
        parts = torch.cat([measurement.breakdown[key] for measurement in alone])
        assert alike(name, part, parts), key


@every_metric
def test_metric_depends_on_seed_as_card_says(name, small_net, few):
    first, again, other = (measure(name, small_net, few, seed=seed) for seed in (3, 3, 4))
    assert alike(name, first.values, again.values)
    if card_of(name).deterministic:
        assert same(first.values, other.values)


@every_metric
def test_metric_leaves_model_unchanged(name, few):
    model = randomise(SmallNet().double())
    next(model.parameters()).requires_grad_(False)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [value.requires_grad for value in model.parameters()]
    inputs = few.clone()
    measure(name, model, inputs)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert flags == [value.requires_grad for value in model.parameters()]
    assert torch.equal(model.conv1.weight.grad, torch.ones_like(model.conv1.weight))
    assert not any(part.training or part._forward_hooks for part in model.modules())
    assert torch.equal(inputs, few)


@every_metric
def test_metric_is_nan_for_maps_that_are_not_finite(name, small_net, few):
    if "path" in card_of(name).needs:
        return
    values = method()(small_net, few).values
    values[1, 0, 2, 2] = torch.nan
    found = measure(name, small_net, few, values=values)
    assert found.values[1].isnan()
    clean = measure(name, small_net, few, values=values.nan_to_num(0))
    assert same(found.values[[0, 2]], clean.values[[0, 2]])


@every_metric
def test_metric_asks_for_what_it_needs(name, small_net, few):
    card = card_of(name)
    assert card.needs == build(name).needs
    assert set(card.needs) <= {"path", *given_to(few)}
    attribution = method()(small_net, few)
    for need in card.needs:
        given = given_to(few)
        given.pop(need, None)
        maps = attribution.values if need == "path" else attribution
        with pytest.raises(NotApplicableError) as caught:
            build(name)(small_net, few, maps, **given)
        assert "\n" not in str(caught.value)


@every_metric
def test_metric_and_measurement_pickle(name, small_net, few):
    again = pickle.loads(pickle.dumps(build(name)))
    assert again == build(name)
    found = measure(name, small_net, few[:1])
    assert same(pickle.loads(pickle.dumps(found)).values, found.values)


@every_metric
def test_metric_runs_at_most_declared_passes(name, few):
    evaluator = counting(randomise(SmallNet().double()))
    attribution, explainer = method()(evaluator, few), method()
    of_map = explainer.passes
    measuring = build(name)
    measuring(evaluator, few, attribution, **given_to(few) | {"method": explainer})
    taken()  # what is proven once for an evaluator is proven
    measuring(evaluator, few, attribution, **given_to(few) | {"method": explainer})
    forward, backward = taken()
    own, maps = measuring.passes, measuring.explanations
    assert isinstance(own, PassCount)
    traits = card_of(name).traits
    if "costlier_maps" in traits:
        assert measuring.explanations >= 2
        return
    ready = 12 * maps if "other_models" in traits else 0  # proofs of the models that they make
    assert forward <= 3 * (own.forward + maps * of_map.forward)
    assert backward <= 3 * (own.backward + maps * of_map.backward) + ready
    if not maps and not own.backward:
        assert forward > 3 * (own.forward - 1) / 2, "it claims too much"


@every_metric
def test_metric_card_is_complete(name):
    card = card_of(name)
    assert isinstance(card, MetricCard)
    assert card.summary
    assert len(card.summary) < 90
    assert "\n" not in card.summary
    assert len(card.reference) > 10
    assert set(card.traits) <= set(TRAITS)
    assert card.higher_is_better in (True, False, None)
    assert unilens.metrics()[name] is card


@every_metric
def test_metric_refuses_unknown_settings(name, small_net, few):
    with pytest.raises(UnknownNameError, match="'no_such_setting'"):
        metrics[name](no_such_setting=1)


@every_metric
def test_metric_refuses_maps_of_another_shape(name, small_net, few):
    with pytest.raises(UnilensError, match=r"expected maps of the inputs' shape \(3, 3, 13, 11\)"):
        build(name)(small_net, few, torch.rand(3, 3, 13, 10), **given_to(few))


@pytest.mark.parametrize("name", imputers)
def test_imputer_keeps_kept_positions(name, small_net, few):
    class Context:
        evaluator, inputs, target, seed = Evaluator(small_net), few, torch.zeros(3).long(), 0

        @staticmethod
        def generators():
            return generators(Context.inputs, torch.Generator().manual_seed(0))

    kept = torch.rand(4, 3, 13, 11, generator=torch.Generator().manual_seed(0)) > 0.4
    kept[1], kept[2] = True, False
    points = imputers[name]()(Context)(kept)
    assert points.shape == (4, 3, 3, 13, 11)
    assert points.dtype == few.dtype
    stays = kept[:, :, None].expand_as(points)
    assert torch.equal(points[stays], few.expand_as(points)[stays])
    assert points.isfinite().all()
    assert torch.equal(points, imputers[name]()(Context)(kept))
    Context.inputs = few[1:2]
    assert torch.equal(imputers[name]()(Context)(kept[:, 1:2]), points[:, 1:2])


@pytest.mark.parametrize("name", similarities)
@pytest.mark.parametrize("reduction", ["sum", "abs"])
@pytest.mark.parametrize("per", ["pixel", "channel"])
def test_similarity_of_equal_maps_is_one(name, reduction, per):
    settings = {"k": 9} if "k" in similarities[name].settings else {}
    alike = similarities[name](reduction=reduction, per=per, **settings)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 4, 3, 13, 11, generator=generator).double()
    assert torch.allclose(alike(first, first), torch.ones(4).double())
    different = alike(first, second)
    assert (different < 0.7).all()
    assert torch.allclose(alike(3 * first, 5 * second), different, rtol=0, atol=1e-9)
    second[0] = 0
    assert alike(first, second).isnan().tolist() == [True, False, False, False]
    one = torch.cat([alike(first[i : i + 1], second[i : i + 1]) for i in range(4)])
    assert same(one, alike(first, second))
    negative = alike(first, -first)
    assert torch.allclose(negative, torch.ones(4).double()) == (reduction == "abs")


def test_registry_holds_every_metric_class():
    registered = {type(build(name)) for name in metrics}
    found = set()
    for module in pkgutil.walk_packages(
        import_module("unilens.metrics").__path__, "unilens.metrics."
    ):
        for thing in vars(import_module(module.name)).values():
            if inspect.isclass(thing) and issubclass(thing, Metric):
                found.add(thing)
    concrete = {cls for cls in found if not inspect.isabstract(cls)}
    shared = {parent for cls in registered for parent in cls.__mro__}
    assert registered <= concrete <= shared
