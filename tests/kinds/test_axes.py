"""Which axis is what: channels last, time first, no channels, volumes and clips."""

import pytest
import torch
from torch import nn

from unilens import Evaluator, UnilensError, evaluate, explain
from unilens._engine.channel_detection import read_channels
from unilens.baselines import FixedValues
from unilens.diagnostics import WARNINGS
from unilens.errors import NotApplicableError
from unilens.methods import methods
from unilens.methods.path_diagnostics import path_steps, stability
from unilens.metrics import MetricCache, metrics
from unilens.metrics.faithfulness.inpaint import inpaint
from unilens.path_attribution import PathAttribution
from unilens.provenance import describe

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIDES = {1: (12,), 2: (13, 11), 3: (5, 9, 8)}
FEW = {
    "gradcam": {"relu": False},
    "rise": {"n_masks": 20, "cells": 3},
    "sobol": {"designs": 4, "cells": 2},
    "shapley": {"cells": 2},
    "agi": {"classes": 2, "iterations": 3, "n_steps": 4},
    "mfaba": {"iterations": 3, "n_steps": 3},
    "ig2": {"iterations": 3, "n_steps": 3},
    "fringe_b": {"waypoints": 3, "n_steps": 4},
    "smoothgrad": {"n_samples": 2},
    "vargrad": {"n_samples": 2},
    "squaregrad": {"n_samples": 2},
}
WITH_REFERENCES = {"expected_gradients", "deeplift_shap", "ig2"}
OTHER_MODELS = {
    name for name in methods if {"perceptron", "attention"} & {*methods[name].card.traits}
}
OF_PHOTOGRAPHS = {
    *("edges", "corruption_spearman", "lpips", "edge_similarity"),
    *("grey_similarity", "brightness_consistency", "saturation_consistency", "blur_consistency"),
    *("noise_consistency", "tangent_alignment", "mst_compactness"),
}
"""What is of photographs, and says so of all else."""


class Mean(nn.Module):
    def forward(self, x):
        return x.flatten(2).mean(-1)


class Network(nn.Module):
    """A small convolutional network in 1, 2 or 3 dimensions."""

    def __init__(self, dimensions, channels=3):
        super().__init__()
        torch.manual_seed(dimensions + 3)
        convolution = CONVOLUTIONS[dimensions]
        self.first = convolution(channels, 4, 3, padding=1)
        self.second = convolution(4, 5, 3, stride=2)
        self.relu, self.tanh, self.mean, self.head = nn.ReLU(), nn.Tanh(), Mean(), nn.Linear(5, 3)
        self.double().eval()

    def forward(self, x):
        return self.head(self.mean(self.tanh(self.second(self.relu(self.first(x))))))


class NetworkOfChannelsLast(Network):
    """The same network, which takes its inputs channels last."""

    def forward(self, x):
        return super().forward(x.movedim(-1, 1))


def last(values):
    return values.movedim(1, -1)


def inputs_of(dimensions, count=2):
    generator = torch.Generator().manual_seed(dimensions)
    return torch.rand(count, 3, *SIDES[dimensions], generator=generator, dtype=torch.float64)


def assert_same(found, expected):
    assert float(expected.abs().max()) > 0
    assert torch.allclose(found, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


@pytest.mark.parametrize("dimensions", SIDES)
@pytest.mark.parametrize("name", sorted(set(methods) - OTHER_MODELS))
def test_methods_explain_channels_last_as_channels_first(name, dimensions):
    x, settings, of_last = inputs_of(dimensions), dict(FEW.get(name, {})), {}
    target = 0 if name == "ig2" else 1  # class 1 wins at all references of volumes
    if name in WITH_REFERENCES:
        far = 20 * inputs_of(dimensions, 3).flip(0)
        settings["references"] = torch.cat([far, -far])  # of several classes
        of_last = {"references": last(settings["references"])}
    if dimensions != 2 and (name in OF_PHOTOGRAPHS or (name, dimensions) == ("sig", 3)):
        with pytest.raises(NotApplicableError, match="expected"):
            explain(NetworkOfChannelsLast(dimensions), last(x), name, channels="last")
        return
    first = explain(Network(dimensions), x, name, target, **settings)
    found = explain(
        NetworkOfChannelsLast(dimensions),
        last(x),
        name,
        target,
        channels="last",
        **settings | of_last,
    )
    assert_same(found.values, last(first.values))
    assert found.values.shape == last(x).shape
    assert found.values.is_contiguous()
    assert found.provenance["channels"] == "last"
    if first.baseline is not None:
        assert torch.allclose(found.baseline, last(first.baseline), rtol=0, atol=1e-12)
    assert found.warnings == first.warnings


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", SIDES)
@pytest.mark.parametrize("name", sorted(set(metrics) - OF_PHOTOGRAPHS))
def test_metrics_judge_channels_last_as_channels_first(name, dimensions):
    x, settings = inputs_of(dimensions), {}
    if "mask" in metrics[name].card.needs:
        settings["mask"] = torch.zeros(2, *SIDES[dimensions], dtype=torch.bool)
        settings["mask"][:, 2:4] = True
    if "method" in metrics[name].card.needs:
        settings["method"] = methods["ig"](n_steps=4)
    network, of_last = Network(dimensions), NetworkOfChannelsLast(dimensions)
    first = explain(network, x, "ig", 1, n_steps=4)
    found = explain(of_last, last(x), "ig", 1, n_steps=4, channels="last")
    of_first = dict(settings)
    if "without_parts" in metrics[name].card.needs:
        parts = x.unsqueeze(1) * torch.rand(2, 5, *x.shape[1:]).to(x)
        of_first["without_parts"] = parts
        settings["without_parts"] = torch.stack([last(part) for part in parts.unbind(1)], dim=1)
    expected = evaluate(network, x, first, name, **of_first)
    assert torch.allclose(
        evaluate(of_last, last(x), found, name, **settings), expected, rtol=1e-9, equal_nan=True
    )
    if dimensions == 2 and "path" not in metrics[name].card.needs:
        settings |= {"target": 1, "channels": "last"}
        bare = evaluate(of_last, last(x), found.values, name, **settings)
        assert torch.allclose(bare, expected, rtol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", sorted(OF_PHOTOGRAPHS & set(metrics) - {"lpips"}))
def test_metrics_of_photographs_say_so(name):
    x = last(inputs_of(3))
    settings = {"method": "gradient"} if "method" in metrics[name].card.needs else {}
    found = explain(NetworkOfChannelsLast(3), x, "gradient", channels="last")
    with pytest.raises(NotApplicableError, match="pictures"):
        evaluate(NetworkOfChannelsLast(3), x, found.values, name, channels="last", **settings)


class Recurrent(nn.Module):
    def __init__(self, kind=nn.GRU, batch_first=True):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = kind(4, 8, batch_first=batch_first), nn.Linear(8, 2)
        self.double().eval()

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def series(steps=12, features=4):
    return torch.randn(1, steps, features, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize("channels", ["auto", "last"])
def test_occlusion_hides_all_features_of_a_time_step(kind, channels):
    model, x = Recurrent(kind), series()
    found = explain(model, x, "occlusion", 0, window=1, channels=channels)
    with torch.no_grad():
        before = model(x).softmax(-1)[0, 0]
        for step in range(12):
            hidden = x.clone()
            hidden[0, step] = 0
            fall = before - model(hidden).softmax(-1)[0, 0]
            assert float(found.values[0, step].sum()) == pytest.approx(float(fall), abs=1e-12)
    assert torch.equal(found.values[..., 0], found.values[..., 3])
    expected = "last" if channels == "last" else f"last ({kind.__name__})"
    assert found.provenance["channels"] == expected
    assert found.warnings == [[]]


def test_blurred_baseline_of_a_series_is_blurred_along_time():
    scipy = pytest.importorskip("scipy.ndimage")
    x = series()
    found = explain(Recurrent(), x, "ig", 0, baseline="blur", sigma=1.5, n_steps=2)
    expected = scipy.gaussian_filter1d(x[0].numpy(), 1.5, axis=0, mode="nearest")
    assert torch.allclose(found.baseline[0], torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_image_mean_is_of_each_feature_over_time():
    x = series()
    found = explain(Recurrent(), x, "ig", 0, baseline="image_mean", n_steps=2)
    assert torch.allclose(found.baseline, x.mean(1, keepdim=True).expand_as(x))


class Lambda(nn.Module):
    """A function and the modules that it calls."""

    def __init__(self, function, *parts):
        super().__init__()
        torch.manual_seed(0)
        self.parts, self.function = nn.ModuleList(parts), function
        self.eval()

    def forward(self, x):
        return self.function(x, *self.parts)


def encoder(batch_first=True):
    return nn.TransformerEncoderLayer(6, 2, 8, batch_first=batch_first, dropout=0.0)


READINGS = {
    "convolution of a signal": (
        (5, 12), lambda x, c: c(x).mean(-1), [nn.Conv1d(5, 2, 3)], "first (Conv1d)",
    ),
    "convolution of a series": (
        (12, 5), lambda x, c: c(x.transpose(1, 2)).mean(-1), [nn.Conv1d(5, 2, 3)], "last (Conv1d)",
    ),
    "normalised, then convolved": (
        (12, 5),
        lambda x, c: c(((x - 0.5) / x.new_tensor([1, 2, 3, 4, 5])).transpose(1, 2)).mean(-1),
        [nn.Conv1d(5, 2, 3)],
        "last (Conv1d)",
    ),
    "bands of an image": (
        (7, 6, 5), lambda x, c: c(x).mean((2, 3)), [nn.Conv2d(7, 2, 3)], "first (Conv2d)",
    ),
    "image of channels last": (
        (6, 5, 7), lambda x, c: c(x.permute(0, 3, 1, 2)).mean((2, 3)), [nn.Conv2d(7, 2, 3)],
        "last (Conv2d)",
    ),
    "small colour image": (
        (3, 3, 3), lambda x, c: c(x).mean((2, 3)), [nn.Conv2d(3, 2, 2)], "first (Conv2d)",
    ),
    "small colour image of channels last": (
        (3, 3, 3), lambda x, c: c(x.permute(0, 3, 1, 2)).mean((2, 3)), [nn.Conv2d(3, 2, 2)],
        "last (Conv2d)",
    ),
    "spectrogram without channels": (
        (6, 9), lambda x, c: c(x.unsqueeze(1)).mean((2, 3)), [nn.Conv2d(1, 2, 3)], "none (Conv2d)",
    ),
    "turned spectrogram": (
        (6, 9), lambda x, c: c(x.transpose(1, 2).unsqueeze(1)).mean((2, 3)), [nn.Conv2d(1, 2, 3)],
        "first (assumed)",
    ),
    "volume of one channel": (
        (1, 4, 5, 6), lambda x, c: c(x).mean((2, 3, 4)), [nn.Conv3d(1, 2, 3)], "first (Conv3d)",
    ),
    "clip of channels last": (
        (4, 5, 6, 3), lambda x, c: c(x.movedim(-1, 1)).mean((2, 3, 4)), [nn.Conv3d(3, 2, 3)],
        "last (Conv3d)",
    ),
    "frames of channels last": (
        (4, 5, 6, 3), lambda x, c: c(x.flatten(0, 1).movedim(-1, 1)).mean((2, 3)).unflatten(
            0, (-1, 4)).mean(1), [nn.Conv2d(3, 2, 3)], "last (Conv2d)",
    ),
    "frames before channels": (
        (4, 5, 6, 7), lambda x, c: c(x.flatten(0, 1)).mean((2, 3)).unflatten(0, (-1, 4)).mean(1),
        [nn.Conv2d(5, 2, 3)], "2 (Conv2d)",
    ),
    "transformer": ((12, 6), lambda x, e: e(x).mean(1), [encoder()], "last (MultiheadAttention)"),
    "transformer that transposes": (
        (12, 6), lambda x, e: e(x.transpose(0, 1)).mean(0), [encoder(False)],
        "last (MultiheadAttention)",
    ),
    "transformer of positions": (
        (6, 12), lambda x, n, e: e(n(x.transpose(1, 2))).mean(1), [nn.LayerNorm(6), encoder()],
        "first (LayerNorm)",
    ),
    "steps that are embedded": (
        (12, 6), lambda x, e: e(x).mean(1), [nn.Linear(6, 2)], "last (Linear)",
    ),
    "steps in one batch": (
        (12, 6), lambda x, e: e(x.reshape(-1, 6)).view(-1, 12, 2).mean(1), [nn.Linear(6, 2)],
        "last (Linear)",
    ),
    "mixer of steps": (
        (12, 6), lambda x, e: e(x.transpose(1, 2)).mean(1), [nn.Linear(12, 2)], "first (assumed)",
    ),
    "flattened": (
        (12, 6), lambda x, e: e(x.flatten(1)), [nn.Linear(72, 2)], "first (assumed)",
    ),
    "cells": (
        (12, 6), lambda x, c: c(x[:, 3]), [nn.GRUCell(6, 2)], "last (GRUCell)",
    ),
    "univariate series": (
        (12, 1), lambda x, r: r(x)[0][:, -1], [nn.GRU(1, 2, batch_first=True)], "last (GRU)",
    ),
    "grey image without a convolution": (
        (1, 6, 7), lambda x, e: e(x.flatten(1)), [nn.Linear(42, 2)], "first (shape)",
    ),
    "one position": ((5, 1), lambda x, c: c(x).mean(-1), [nn.Conv1d(5, 2, 1)], "first (Conv1d)"),
}  # fmt: skip


@pytest.mark.parametrize("name", READINGS)
def test_channels_are_read_off_the_first_operation(name):
    shape, function, parts, expected = READINGS[name]
    reading = read_channels(Lambda(function, *parts), torch.rand(3, *shape))
    assert f"{reading.channels} ({reading.reason})" == expected
    assert reading.sure == ("assumed" not in expected)


def test_what_is_assumed_is_a_warning_of_methods_that_depend_on_it():
    shape, function, parts, _ = READINGS["flattened"]
    model, x = Lambda(function, *parts), torch.rand(2, *shape)
    found = explain(model, x, "occlusion", 0)
    assert found.warnings == [["channels_assumed"]] * 2
    assert found.provenance["channels"] == "first (assumed)"
    assert "channels=" in WARNINGS["channels_assumed"].remedy
    for method, settings in (("occlusion", {"channels": "last"}), ("gradient", {})):
        assert explain(model, x, method, 0, **settings).warnings == [[], []]


@pytest.mark.slow
def test_clips_of_frames_before_channels_are_clips():
    class Frames(nn.Module):
        def __init__(self):
            super().__init__()
            self.frame = Network(2)

        def forward(self, x):
            scores = self.frame(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return (scores * torch.arange(1.0, 6.0, dtype=x.dtype).view(5, 1)).mean(1)

    class OfChannelsFirst(Frames):
        def forward(self, x):
            return super().forward(x.transpose(1, 2))

    x = inputs_of(3)
    for name in ("occlusion", "uni_blur", "rise"):
        settings = FEW.get(name, {})
        expected = explain(OfChannelsFirst().eval(), x, name, 0, channels="first", **settings)
        for channels, said in (("auto", "2 (Conv2d)"), (2, "2")):
            model, clips = Frames().eval(), x.transpose(1, 2)
            found = explain(model, clips, name, 0, channels=channels, **settings)
            assert_same(found.values, expected.values.transpose(1, 2))
            assert found.provenance["channels"] == said
    maps = found.values
    expected = evaluate(OfChannelsFirst().eval(), x, maps.transpose(1, 2), channels=1)
    assert torch.allclose(evaluate(model, clips, found), expected)
    assert torch.allclose(evaluate(model, clips, maps, channels=2), expected)
    with pytest.raises(UnilensError, match=r"axis below 5 of inputs of shape \(2, 5, 3, 9, 8\)"):
        explain(model, clips, "ig", channels=5)


def test_inputs_of_no_channels_are_grids():
    class Grid(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Network(2, channels=1)

        def forward(self, x):
            return self.inner(x.unsqueeze(1))

    model, x = Grid().eval(), inputs_of(2)[:, 0]
    for channels in ("none", "auto"):
        for name in ("occlusion", "gradcam", "uni_blur"):
            expected = explain(model.inner, x.unsqueeze(1), name, 0).values.squeeze(1)
            assert_same(explain(model, x, name, 0, channels=channels).values, expected)


@pytest.mark.parametrize("channels", ["first", "last", "none", "auto"])
def test_tables_have_no_axis_of_channels(channels):
    torch.manual_seed(0)
    model, rows = (
        nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)).eval(),
        torch.rand(2, 5),
    )
    for name in ("occlusion", "ig", "rise"):
        found = explain(model, rows, name, 0, channels=channels)
        assert torch.equal(found.values, explain(model, rows, name, 0).values)
        assert "channels" not in found.provenance


@pytest.mark.parametrize("kind", ["recurrent", "transformer"])
def test_a_batch_that_is_not_first_is_refused(kind):
    if kind == "recurrent":
        model = Lambda(lambda x, r: r(x)[0][-1], nn.GRU(6, 2))
    else:
        model = Lambda(lambda x, e: e(x)[0], encoder(batch_first=False))
    with pytest.raises(UnilensError, match=r"batch first, but .* reads the first axis"):
        explain(model, torch.rand(4, 4, 6), "occlusion", 0)


def test_an_evaluator_keeps_its_channels_and_its_model_of_channels_first():
    evaluator = Evaluator(NetworkOfChannelsLast(2), channels="last")
    x, calls = last(inputs_of(2)), []
    first = explain(evaluator, x, "occlusion", 0)
    assert first.provenance["channels"] == "last"
    before = evaluator.with_model
    evaluator.with_model = lambda model: calls.append(model) or before(model)
    assert torch.equal(explain(evaluator, x, "occlusion", 0).values, first.values)
    assert not calls
    assert torch.isfinite(evaluate(evaluator, x, first.values, "mu_fidelity", subsets=20)).all()
    said = explain(NetworkOfChannelsLast(2), x, "occlusion", 0, channels="last")
    assert torch.equal(said.values, first.values)


@pytest.mark.parametrize(
    "give", [lambda: Evaluator(Network(2), channels="middle"), lambda: explain(
        Network(2), inputs_of(2), "ig", channels="middle"
    ), lambda: evaluate(Network(2), inputs_of(2), inputs_of(2), channels=0)],
)  # fmt: skip
def test_other_channels_are_refused(give):
    with pytest.raises(UnilensError, match="channels to be one of auto, first, last, none"):
        give()


def test_the_spectral_path_keeps_its_setting_of_the_same_name():
    x = inputs_of(2)
    joint = explain(Network(2), x, "sig", 0, channels="joint", n_steps=5)
    assert joint.provenance["settings"]["path"]["channels"] == "joint"
    evaluator = Evaluator(NetworkOfChannelsLast(2), channels="last")
    found = explain(evaluator, last(x), "sig", 0, channels="joint", n_steps=5)
    assert_same(found.values, last(joint.values))


def test_baselines_of_the_users_own_come_in_the_users_order():
    x, seen = last(inputs_of(2)), []

    def own(model, inputs, target, *, generator):
        seen.append((inputs.shape, model(inputs).shape))
        return inputs.mean((1, 2), keepdim=True).expand_as(inputs).clone()

    method = PathAttribution(own)
    found = method(NetworkOfChannelsLast(2), x, 0, channels="last")
    expected = explain(Network(2), x.movedim(-1, 1), "ig", 0, baseline="image_mean")
    assert_same(found.values, last(expected.values))
    assert seen == [(x.shape, (2, 3))]
    assert found.provenance["settings"] == describe(method)


def test_given_baselines_and_units_come_in_the_users_order():
    x, values = last(inputs_of(2)), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    first = PathAttribution(FixedValues(values.view(1, 3, 1, 1)))(Network(2), x.movedim(-1, 1), 0)
    of_last = NetworkOfChannelsLast(2)
    found = PathAttribution(FixedValues(values))(of_last, x, 0, channels="last")
    assert_same(found.values, last(first.values))
    assert found.baseline[0, 0, 0].tolist() == [0.1, 0.2, 0.3]
    units = [0.5, 1.0, 2.0]
    of_first = values.new_tensor(units).view(3, 1, 1)
    first = explain(Network(2), x.movedim(-1, 1), "uni_blur", 0, units=of_first)
    found = explain(of_last, x, "uni_blur", 0, units=units, channels="last")
    assert_same(found.values, last(first.values))


def test_functions_that_explain_come_in_the_users_order():
    x, of_last, seen = last(inputs_of(2)), NetworkOfChannelsLast(2), []

    def gradient(model, inputs, target):
        seen.append(inputs.shape)
        leaf = inputs.requires_grad_()
        chosen = model(leaf).gather(1, target.view(-1, 1)).sum()
        return torch.autograd.grad(chosen, leaf)[0]

    maps = gradient(of_last, x.clone(), torch.tensor([1, 1]))
    given = {"method": gradient, "target": 1}
    seen.clear()
    found = evaluate(of_last, x, maps, "max_sensitivity", channels="last", **given)
    assert set(seen) == {x.shape}
    x, maps = x.movedim(-1, 1), maps.movedim(-1, 1)
    assert torch.allclose(found, evaluate(Network(2), x, maps, "max_sensitivity", **given))


def test_metrics_explain_again_in_the_order_of_the_attribution():
    model, x = Recurrent(), series()
    orders = []

    class Noted(methods["occlusion"].build):
        def _explain(self, case):
            orders.append(case.inputs.shape)
            return super()._explain(case)

    for channels, shape in (("first", (12, 4)), ("auto", (4, 12))):
        found = Noted()(model, x, 0, channels=channels)
        orders.clear()
        evaluate(model, x, found, "max_sensitivity", method=Noted())
        assert {order[1:] for order in orders} == {shape}


def test_smoothed_maps_are_of_the_order_that_is_said():
    model, x = Recurrent(), series()
    settings = {"inner": "ig", "baseline": "image_mean", "n_steps": 2, "n_samples": 2}
    first, of_last = (
        explain(model, x, "smoothgrad", 0, channels=channels, **settings)
        for channels in ("first", "last")
    )
    turned = Lambda(lambda x: model(x.transpose(1, 2)))
    expected = explain(turned, x.transpose(1, 2), "smoothgrad", 0, channels="last", **settings)
    assert_same(first.values, expected.values.transpose(1, 2))
    assert not torch.allclose(first.values, of_last.values, rtol=0.01)


def test_a_memo_serves_maps_of_channels_last():
    x, evaluator = last(inputs_of(2)), Evaluator(NetworkOfChannelsLast(2), channels="last")
    cache, metric = MetricCache(evaluator, x), metrics["mu_fidelity"](subsets=20)
    maps = torch.rand_like(x)
    first = metric(evaluator, x, maps, cache=cache).values
    assert torch.equal(metric(evaluator, x, maps, cache=cache).values, first)
    assert torch.allclose(metric(evaluator, x, maps).values, first)
    with pytest.raises(UnilensError, match="others; make one"):
        metric(evaluator, x + 0.1, maps, cache=cache)


def test_diagnostics_of_a_path_read_the_attributions_order():
    x, method = inputs_of(2), PathAttribution(n_steps=6)
    network, of_last = Network(2), NetworkOfChannelsLast(2)
    first, found = method(network, x, 1), method(of_last, last(x), 1, channels="last")
    expected, stable = (
        stability(method, model, inputs, maps, steps=(1, 3))
        for model, inputs, maps in ((network, x, first), (of_last, last(x), found))
    )
    for name, values in expected.items():
        assert torch.allclose(stable[name], values)
    steps = path_steps(method, of_last, last(x), found)
    assert_same(steps.sums[-1], found.values)
    assert steps.points[0].shape == last(x).shape


def test_parts_say_that_their_axes_are_their_own():
    class Two(nn.Module):
        def forward(self, a, b):
            return torch.stack([a.sum(1), b.flatten(1).sum(1)], 1)

    inputs = {"a": torch.rand(2, 3), "b": torch.rand(2, 4, 4)}
    with pytest.raises(NotApplicableError, match="for several inputs"):
        explain(Two().eval(), inputs, "ig", channels="last")
    blurred = {"n_steps": 2, "baseline": {"a": "black", "b": "blur"}}
    found = explain(Two().eval(), inputs, "ig", **blurred)
    assert "channels_assumed" in found.warnings[0]
    found = explain(Two().eval(), inputs, "ig", channels="first", **blurred)
    assert "channels_assumed" not in found.warnings[0]
    assert "channels_assumed" not in explain(Two().eval(), inputs, "ig", n_steps=2).warnings[0]


@pytest.mark.parametrize(("layer", "channels"), [("layer", "last"), (None, "auto")])
def test_gradcam_of_a_transformer_of_series_is_by_step(layer, channels):
    torch.manual_seed(0)

    class Series(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.layer, self.head = nn.Linear(4, 6), encoder(), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.layer(self.embed(x)).square().mean(1))

    model, x = Series().double().eval(), series()
    found = explain(model, x, "gradcam", 0, layer=layer, relu=False, channels=channels)
    leaf = model.layer(model.embed(x)).detach().requires_grad_()
    score = model.head(leaf.square().mean(1)).softmax(-1)[0, 0]
    (slope,) = torch.autograd.grad(score, leaf)
    expected = (leaf.detach() * slope.mean(1, keepdim=True)).sum(-1)
    assert found.provenance["layers"] == ["layer"]
    assert torch.allclose(found.values.sum(-1), expected, rtol=0, atol=1e-12)


def test_gradcam_of_a_signal_reads_a_norm_of_both_axes_channels_first():
    torch.manual_seed(0)
    convolution, norm = nn.Conv1d(3, 4, 3), nn.LayerNorm((4, 10))
    head = nn.Sequential(nn.Flatten(), nn.Linear(40, 2))
    model, x = nn.Sequential(convolution, norm, head).double().eval(), inputs_of(1, 1)
    found = explain(model, x, "gradcam", 0, relu=False, score="logit")
    values = norm(convolution(x)).detach()
    slope = head[1].weight[0].detach().view(1, 4, 10).mean(2, keepdim=True)
    expected = nn.functional.interpolate((values * slope).sum(1, keepdim=True), 12, mode="linear")
    assert found.provenance["layers"] == ["1"]
    assert torch.allclose(found.values.sum(1), expected[:, 0].detach(), rtol=0, atol=1e-12)


def test_gradcam_of_a_video_transformer_reads_the_patches_grid():
    torch.manual_seed(0)

    class Video(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.norm = nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4)), nn.LayerNorm(6)
            self.head = nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.norm(self.patches(x).flatten(2).mT).square().mean(1))

    model, x = Video().double().eval(), torch.rand(1, 3, 4, 8, 12).double()
    found = explain(model, x, "gradcam", 0, relu=False)
    tokens = model.norm(model.patches(x).flatten(2).mT).detach().requires_grad_()
    score = model.head(tokens.square().mean(1)).softmax(-1)[0, 0]
    (slope,) = torch.autograd.grad(score, tokens)
    cam = (tokens.detach() * slope.mean(1, keepdim=True)).sum(-1).view(1, 1, 2, 2, 3)
    expected = nn.functional.interpolate(cam, (4, 8, 12), mode="trilinear")
    assert found.provenance["layers"] == ["norm"]
    assert torch.allclose(found.values.sum(1), expected[:, 0], rtol=0, atol=1e-12)


def test_occlusion_of_a_volume_is_the_fall_by_hand():
    model, x = Network(3), inputs_of(3, 1)
    found = explain(model, x, "occlusion", 1, window=3, stride=3)
    total, times = torch.zeros(5, 9, 8).double(), torch.zeros(5, 9, 8).double()
    with torch.no_grad():
        before = model(x).softmax(-1)[0, 1]
        for a in range(0, 5, 3):
            for b in range(0, 9, 3):
                for c in range(0, 8, 3):
                    here = (slice(a, a + 3), slice(b, b + 3), slice(c, c + 3))
                    hidden = x.clone()
                    hidden[(0, slice(None), *here)] = 0
                    total[here] += before - model(hidden).softmax(-1)[0, 1]
                    times[here] += 1
    assert torch.allclose(found.values[0].sum(0), total / times, rtol=0, atol=1e-12)


def test_inpainting_of_a_volume_is_the_mean_of_its_neighbours():
    torch.manual_seed(0)
    x, kept = torch.rand(1, 2, 4, 5, 6).double(), torch.rand(1, 1, 4, 5, 6) > 0.4
    found = inpaint(x, kept, 1e-10)
    weights = torch.tensor([1.0, 2.0, 1.0]).double()
    cube = weights[:, None, None] * weights[:, None] * weights
    cube[1, 1, 1] = 0
    cube = cube.expand(2, 1, 3, 3, 3)
    ones = nn.functional.conv3d(torch.ones_like(x), cube, padding=1, groups=2)
    means = nn.functional.conv3d(found, cube, padding=1, groups=2) / ones
    gone = (~kept).expand_as(x)
    assert torch.equal(found[~gone], x[~gone])
    assert torch.allclose(found[gone], means[gone], rtol=0, atol=1e-7)


def test_gains_of_a_volume_are_its_integral():
    found = explain(Network(3), inputs_of(3), "ig", 1, weighting="gains", n_steps=4)
    integral = explain(Network(3), inputs_of(3), "ig", 1, n_steps=4)
    assert torch.equal(found.values, integral.values)
