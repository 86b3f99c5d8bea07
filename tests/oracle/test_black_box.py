"""Occlusion, RISE and Sobol indices: against captum, scipy, slow loops and closed forms."""

import math

import numpy
import pytest
import torch
from captum.attr import Occlusion
from scipy.stats import sobol_indices
from torch import nn
from torch.quasirandom import SobolEngine

from unilens import Evaluator, explain
from unilens.errors import NotApplicableError, UnilensError
from unilens.methods import methods

from ..conftest import randomise


def probability(model, inputs, target):
    return model(inputs).softmax(-1)[range(len(inputs)), target].detach()


def of_places(function):
    """Return the model whose only logit is a function of the inputs."""

    class Model(nn.Module):
        def forward(self, inputs):
            return function(inputs).unsqueeze(1)

    return Model().eval()


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (5, 3), (3, 3), (13, 1), (40, 7)])
def test_occlusion_equals_captum(small_net, images, window, stride):
    found = explain(
        small_net, images, "occlusion", window=window, stride=stride, baseline="max_distance"
    )
    clipped = (3, min(window, 13), min(window, 11))
    theirs = Occlusion(lambda given: small_net(given).softmax(-1)).attribute(
        images,
        sliding_window_shapes=clipped,
        strides=(3, min(stride, clipped[1]), min(stride, clipped[2])),
        target=found.target,
        baselines=found.baseline,
    )
    assert theirs.dtype == torch.float32  # captum sums in single precision
    assert torch.allclose(found.values.sum(1), theirs[:, 0].double(), rtol=0, atol=1e-7)
    assert torch.equal(found.values[:, 0], found.values[:, 2])


def test_occlusion_of_signal_equals_loop():
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(20, 3)).double())
    signals = torch.rand(4, 2, 10).double()
    found = explain(model, signals, "occlusion", window=4, stride=3, baseline="white")
    expected = torch.zeros(4, 10).double()
    for i in range(4):
        whole = probability(model, signals[i : i + 1], found.target[i])
        for place in range(10):
            falls = []
            for start in (0, 3, 6):
                if start <= place < start + 4:
                    hidden = signals[i : i + 1].clone()
                    hidden[:, :, start : start + 4] = 1
                    falls.append(whole - probability(model, hidden, found.target[i]))
            expected[i, place] = sum(falls) / len(falls)
    assert torch.allclose(found.values.sum(1), expected, rtol=0, atol=1e-14)


def test_occlusion_of_table_removes_single_features():
    model = randomise(nn.Sequential(nn.Linear(6, 3)).double())
    rows = torch.rand(4, 6).double()
    found = explain(model, rows, "occlusion", baseline="grey")
    whole = probability(model, rows, found.target)
    for feature in range(6):
        hidden = rows.clone()
        hidden[:, feature] = 0.5
        fall = whole - probability(model, hidden, found.target)
        assert torch.allclose(found.values[:, feature], fall, rtol=0, atol=1e-14)
    assert found.provenance["passes"] == {"forward": 7, "backward": 0}


def hats(cells, size):
    """Return how values of cells are interpolated linearly at `size` places, (size, cells)."""
    places = (numpy.arange(size) + 0.5) * cells / size - 0.5
    return numpy.stack([numpy.interp(places, range(cells), row) for row in numpy.eye(cells)], 1)


@pytest.mark.parametrize("centred", [False, True])
def test_rise_equals_loop(small_net, images, centred):
    settings = {"n_masks": 30, "cells": 4, "keep": 0.4, "centred": centred}
    found = explain(small_net, images[:2], "rise", **settings, seed=5)
    generator = torch.Generator().manual_seed(5)
    kept = (torch.rand(30, 4, 4, generator=generator) < 0.4).numpy()
    downs = torch.randint(4, (30,), generator=generator).tolist()
    rights = torch.randint(3, (30,), generator=generator).tolist()
    masks = [
        (hats(4, 20) @ cells @ hats(4, 15).T)[down : down + 13, right : right + 11]
        for cells, down, right in zip(kept, downs, rights, strict=True)
    ]
    for i in range(2):
        scores = [
            float(probability(small_net, images[i : i + 1] * torch.tensor(mask), found.target[i]))
            for mask in masks
        ]
        middle = numpy.mean(scores) if centred else 0
        expected = sum((s - middle) * mask for s, mask in zip(scores, masks, strict=True))
        expected = torch.tensor(expected / (30 * 0.4))
        assert torch.allclose(found.values[i].sum(0), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("centred", [False, True])
def test_rise_converges_to_closed_form_on_linear_model(centred):
    keep, signals = 0.3, torch.rand(1, 1, 10, generator=torch.Generator().manual_seed(0)).double()
    weight = torch.linspace(-1, 2, 10).double()
    model = of_places(lambda given: (given * weight).sum((1, 2)))
    settings = {"n_masks": 30_000, "cells": 4, "keep": keep, "centred": centred}
    found = explain(model, signals, "rise", score="logit", **settings)
    # A cell has variance keep (1 - keep); a mask is a row of hats, shifted by 0, 1 or 2 places.
    shifted = [hats(4, 15)[shift : shift + 10] for shift in range(3)]
    together = numpy.mean([rows @ rows.T for rows in shifted], axis=0) * keep * (1 - keep)
    together = together if centred else together + keep**2
    expected = together @ (weight * signals[0, 0]).numpy() / keep
    error = numpy.linalg.norm(found.values[0, 0].numpy() - expected) / numpy.linalg.norm(expected)
    assert error < 0.02


@pytest.mark.slow
def test_rise_of_table_masks_single_features():
    weight = torch.tensor([3.0, -1.0, 0.0]).double()
    model = of_places(lambda given: given @ weight)
    rows = torch.tensor([[1.0, 2.0, 3.0]]).double()
    found = explain(model, rows, "rise", score="logit", n_masks=30_000, centred=True)
    expected = 0.5 * weight * rows  # covariance keep (1 - keep) with itself alone, over keep
    assert torch.allclose(found.values, expected, rtol=0, atol=0.05)


ISHIGAMI = torch.tensor([0.5576, 0.4424, 0.2437]).double()
"""Total indices for a = 7, b = 0.1 (Ishigami & Homma 1990)."""


def ishigami(shares):
    first, second, third = (2 * math.pi * shares - math.pi).unbind(1)
    return first.sin() + 7 * second.sin() ** 2 + 0.1 * third**4 * first.sin()


@pytest.mark.parametrize("kind", ["table", "signal", "image"])
def test_sobol_finds_indices_of_ishigami_function(kind):
    shape = {"table": (3,), "signal": (2, 9), "image": (2, 4, 6)}[kind]
    cells = {"table": 8, "signal": 3, "image": 2}[kind]

    def of_cells(given):
        if kind == "table":
            return ishigami(given)
        if kind == "signal":
            return ishigami(given.mean(1).unflatten(1, (3, 3)).mean(2))
        cells = given.mean(1).unflatten(1, (2, 2)).unflatten(3, (2, 3)).mean((2, 4))
        return ishigami(cells.flatten(1)[:, :3])

    inputs = torch.ones(2, *shape).double()
    found = explain(of_places(of_cells), inputs, "sobol", score="logit", cells=cells, designs=4096)
    maps = found.values if kind == "table" else found.values.sum(1)
    if kind == "image":
        assert float(maps[:, 2:, 3:].abs().max()) < 1e-12  # the fourth cell has no influence
        maps = torch.stack([maps[:, 0, 0], maps[:, 0, 5], maps[:, 3, 0]], 1)
    elif kind == "signal":
        assert torch.equal(maps[:, 0::3], maps[:, 2::3])
        maps = maps[:, ::3]
    assert torch.allclose(maps, ISHIGAMI.expand(2, 3), rtol=0, atol=3e-3)


def test_sobol_equals_scipy(small_net, images):
    found = explain(small_net, images[:1], "sobol", cells=2, designs=8, baseline="white", seed=2)
    design = SobolEngine(8, scramble=True, seed=2).draw(8, dtype=torch.float64)
    a, b = design[:, :4], design[:, 4:]

    def scores(rows):
        down, right = [i * 2 // 13 for i in range(13)], [i * 2 // 11 for i in range(11)]
        shares = rows.view(-1, 1, 2, 2)[:, :, down][..., right]
        points = shares * images[:1] + (1 - shares)
        return probability(small_net, points, found.target.expand(len(points))).numpy()

    mixed = [torch.cat([a[:, :i], b[:, i : i + 1], a[:, i + 1 :]], 1) for i in range(4)]
    expected = sobol_indices(
        func={
            "f_A": scores(a)[None],
            "f_B": scores(b)[None],
            "f_AB": numpy.stack([scores(points)[None] for points in mixed]),
        },
        n=8,
    ).total_order
    ours = found.values[0].sum(0)[[0, 0, 12, 12], [0, 10, 0, 10]]
    assert numpy.allclose(ours.numpy(), expected.ravel(), rtol=1e-10, atol=0)


def test_sobol_is_zero_for_constant_score():
    model = of_places(lambda given: given.sum((1, 2)) * 0 + 1)
    found = explain(model, torch.rand(1, 1, 9).double(), "sobol", score="logit", designs=2)
    assert torch.equal(found.values, torch.zeros(1, 1, 9).double())


@pytest.mark.parametrize("name", ["occlusion", "rise", "sobol"])
def test_black_box_does_not_depend_on_block_size(small_net, images, name):
    few = {"rise": {"n_masks": 50}, "sobol": {"designs": 2}}.get(name, {})
    expected = explain(small_net, images[:2], name, **few).values
    found = explain(Evaluator(small_net, chunk=3), images[:2], name, **few).values
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["rise", "sobol"])
def test_black_box_depends_on_seed(small_net, images, name):
    few = {"rise": {"n_masks": 20}, "sobol": {"designs": 2}}[name]
    first, second = (explain(small_net, images[:1], name, **few, seed=s).values for s in (0, 1))
    assert not torch.allclose(first, second)


def test_black_box_passes_settings_to_baseline(small_net, images):
    found = explain(small_net, images[:1], "occlusion", baseline="blur", sigma=2.0)
    assert found.provenance["settings"]["baseline"] == {
        "type": "Blur",
        "sigma": 2.0,
        "boundary": "replicate",
        "along": "all",
    }
    with pytest.raises(UnilensError, match="unknown setting of occlusion 'sigma'"):
        methods["occlusion"](sigma=2.0)


WRONG = {
    "stride": ("occlusion", {"window": 2, "stride": 3}, "stride to be at most the window 2"),
    "window": ("occlusion", {"window": 0}, "window to be a whole number of at least 1, got 0"),
    "masks": ("rise", {"n_masks": 1.5}, "n_masks to be a whole number of at least 1, got 1.5"),
    "keep": ("rise", {"keep": 1}, "keep below 1, got 1"),
    "designs": ("sobol", {"designs": 3}, "designs to be a power of two"),
    "cells": ("sobol", {"cells": True}, "cells to be a whole number of at least 1, got True"),
    "baseline": ("rise", {"baseline": 0.5}, "baseline to be a function or an object"),
}


@pytest.mark.parametrize("case", WRONG)
def test_black_box_refuses_wrong_settings(case):
    name, settings, message = WRONG[case]
    with pytest.raises(UnilensError, match=message):
        methods[name](**settings)


@pytest.mark.parametrize(
    ("name", "shape", "settings", "message"),
    [
        ("occlusion", (6,), {"window": 2}, "a table has no neighbourhoods"),
        ("rise", (1, 2, 2, 2, 2), {}, r"Rise expects images \(B, C, H, W\), signals .*, got"),
        ("sobol", (1, 200, 200), {"cells": 200}, "at most 10600 cells, .* got 40000"),
    ],
)
def test_black_box_refuses_inputs_that_do_not_fit(name, shape, settings, message):
    model = of_places(lambda given: given.flatten(1).sum(1))
    with pytest.raises(NotApplicableError, match=message):
        explain(model, torch.rand(1, *shape), name, score="logit", **settings)
