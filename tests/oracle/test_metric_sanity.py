"""Sanity metrics against slow replicas, and on models whose truth is known."""

import copy

import pytest
import torch
from captum.attr import Saliency
from scipy import stats
from skimage import color, filters
from torch import nn

from unilens import Evaluator, UnilensError, UnknownNameError, evaluate, explain, metrics
from unilens.errors import NotApplicableError
from unilens.methods import methods
from unilens.metrics import EdgeControl, Randomisation, RandomLogit, Spearman, TopK
from unilens.metrics import metrics as registry
from unilens.metrics.sanity.layers import evenly, layers_of, randomised

from ..conftest import SmallNet, randomise

LAYERS = ["head", "bn2", "conv2", "bn1", "conv1"]
MODES = ("randomisation_cascading", "randomisation_independent")


def gradient(model, inputs, target):
    """The logit's gradient, for a foreign method that is a plain function."""
    leaf = inputs.requires_grad_()
    (found,) = torch.autograd.grad(model(leaf).gather(1, target.unsqueeze(1)).sum(), leaf)
    return found


def edge_detector(model, inputs, target):
    """An explainer that ignores the model and the class."""
    rows = [torch.from_numpy(filters.sobel(image.mean(0).detach().numpy())) for image in inputs]
    return torch.stack(rows).unsqueeze(1).expand_as(inputs)


def alike(first, second, absolute=True):
    """Rank correlation of two maps (C, H, W), by scipy."""
    rows = [
        (values.abs() if absolute else values).sum(0).flatten().numpy()
        for values in (first, second)
    ]
    return stats.spearmanr(*rows).statistic


def linear_of(inputs, classes=3, seed=0):
    """A linear model of images, its weights independent normal draws."""
    size = inputs[0].numel()
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, classes)).to(inputs.dtype).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, size, generator=generator))
    return model


@pytest.fixture
def pictures():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(4)).double()


class Turned(nn.Module):
    """Registers its layers in another order than that in which they run, and one for training."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.aux = nn.Linear(4, 2)
        self.plain = nn.BatchNorm1d(4)
        self.body = nn.Linear(5, 4)
        self.shift = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
        self.direct = nn.Linear(4, 4)

    def forward(self, inputs):
        hidden = self.plain(self.body(inputs + self.shift))
        return self.head(hidden @ self.direct.weight)


def test_randomisation_orders_layers_by_execution(small_net, images):
    assert layers_of(Evaluator(small_net), images[:1]) == LAYERS
    found = layers_of(Evaluator(Turned().eval()), torch.rand(1, 5))
    assert found[:2] == ["head", "body"]
    assert set(found[2:]) == {"", "direct"}


def test_randomisation_finds_layers_of_transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    randomise(encoder.float())
    model = nn.Sequential(encoder, nn.Flatten(), nn.Linear(24, 3)).eval()
    found = layers_of(Evaluator(model), torch.rand(1, 3, 8))
    assert found[0] == "2"
    assert "0.layers.0.self_attn.out_proj" in found
    assert found.index("0.layers.1.linear1") < found.index("0.layers.1.self_attn.out_proj")
    assert found.index("0.layers.1.self_attn.out_proj") < found.index("0.layers.0.linear2")
    assert len(found) == 2 * 6 + 1


def test_randomisation_refuses_model_without_weights():
    model = nn.Flatten().eval()
    with pytest.raises(NotApplicableError, match="expected a model with weights to randomise"):
        evaluate(model, torch.rand(1, 1, 3), torch.rand(1, 1, 3), MODES[0], method="gradient")


def test_randomised_weights_keep_mean_and_deviation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 2)).eval()
    with torch.no_grad():
        model[0].weight.add_(3)
        model[1].bias.fill_(0.25)
    before = copy.deepcopy(model.state_dict())
    found = randomised(model, ["0", "1"], seed=1)
    fresh, old = found[0].weight.double(), model[0].weight.double()
    standard = ((fresh - old.mean()) / old.std()).detach().flatten().numpy()
    assert stats.kstest(standard, "norm").pvalue > 0.01
    assert abs(stats.pearsonr(standard, old.detach().flatten().numpy()).statistic) < 0.02
    assert torch.equal(found[1].bias, model[1].bias)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    one = randomised(model, ["1"], seed=1)
    assert torch.equal(one[1].weight, found[1].weight)
    assert one[0].weight.data_ptr() == model[0].weight.data_ptr()
    assert not torch.equal(randomised(model, ["1"], seed=2)[1].weight, found[1].weight)


def test_randomisation_keeps_shared_and_recurrent_weights():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).eval()
    model[1].weight = model[0].weight
    found = randomised(model, ["1", "0"], seed=0)
    assert found[0].weight is found[1].weight
    assert not torch.equal(found[0].weight, model[0].weight)
    recurrent, inputs = nn.LSTM(3, 4, batch_first=True).eval(), torch.rand(1, 2, 3)
    assert not torch.equal(randomised(recurrent, [""], 0)(inputs)[0], recurrent(inputs)[0])


def test_randomisation_spreads_stages_over_depth():
    order = list("abcdefghi")
    assert evenly(order, 1) == ["i"]
    assert evenly(order, 2) == ["a", "i"]
    assert evenly(order, 5) == list("acegi")
    assert evenly(order, 100) == order


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_randomisation_equals_loop_over_changed_copies(mode, small_net, images):
    maps = explain(small_net, images, "gradient", score="logit")
    found = Randomisation(mode=mode)(small_net, images, maps, method=gradient, seed=3)
    for stage, name in enumerate(LAYERS):
        drawn = LAYERS[: stage + 1] if mode == "cascading" else [name]
        other = copy.deepcopy(small_net)
        for layer in drawn:
            fresh = dict(randomised(small_net, [layer], 3).named_parameters())
            for key, value in other.get_submodule(layer).named_parameters():
                value.data.copy_(fresh[f"{layer}.{key}"])
        theirs = gradient(other, images.clone(), maps.target).detach()
        expected = [alike(*pair) for pair in zip(maps.values, theirs, strict=True)]
        assert found.breakdown[name].tolist() == pytest.approx(expected, abs=1e-9)
        assert found.details["curve"][:, stage].tolist() == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(found.values, found.details["curve"].mean(1))
    assert found.provenance["stages"] == LAYERS
    assert found.provenance["failures"] == {}
    again = evaluate(small_net, images, maps, f"randomisation_{mode}", method=gradient, seed=3)
    assert torch.equal(again, found.values)


def test_randomisation_takes_named_layers(small_net, images):
    maps = explain(small_net, images, "gradient").values
    cascade = Randomisation(layers=("bn1", "bn2"))
    found = cascade(small_net, images, maps, method="gradient")
    assert list(found.breakdown) == ["bn2", "bn1"]
    whole = Randomisation()(small_net, images, maps, method="gradient")
    assert torch.equal(found.breakdown["bn1"], whole.breakdown["bn1"])
    blocks = nn.Sequential(small_net).eval()
    found = Randomisation(mode="independent", layers=["0"])(blocks, images, maps, method="gradient")
    assert torch.equal(found.breakdown["0"].isnan(), torch.zeros(8, dtype=torch.bool))
    with pytest.raises(UnknownNameError, match="conv3"):
        Randomisation(layers=("conv3",))(small_net, images, maps, method="gradient")


@pytest.mark.parametrize("name", MODES)
def test_randomisation_is_worst_for_controls(name, pictures):
    model = linear_of(pictures)
    model = nn.Sequential(model[0], nn.Linear(1728, 1728).double(), model[1]).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(1728))
    target = torch.zeros(3, dtype=torch.long)

    def half(model, inputs, target):
        slope = gradient(model, inputs, target).detach()
        edges = edge_detector(model, inputs, target)
        return slope.abs() / slope.abs().mean() + edges / edges.mean()

    def value(method):
        maps = method(model, pictures.clone(), target).detach()
        settings = {"method": method, "target": target, "layers": ["2"]}
        return evaluate(model, pictures, maps, name, **settings)

    perfect, middle, worst = value(gradient), value(half), value(edge_detector)
    assert not metrics()[name].higher_is_better
    assert float(perfect.abs().max()) < 0.15
    assert (perfect + 0.2 < middle).all()
    assert (middle + 0.1 < worst).all()
    assert torch.allclose(worst, torch.ones(3).double())


@pytest.mark.parametrize("name", MODES)
def test_randomisation_reuses_seed_of_the_map(name, small_net, images):
    found = explain(small_net, images, "random", seed=3)
    again = evaluate(small_net, images, found, name, method="random")
    assert torch.equal(again, torch.ones(len(images), dtype=torch.float64))


def test_randomisation_counts_stages_without_map(small_net, images):
    maps = explain(small_net, images, "gradient").values
    bad = images[2].sum()

    def fails(model, inputs, target):
        if not torch.equal(model.conv1.weight, small_net.conv1.weight) and bad in inputs.sum(
            (1, 2, 3)
        ):
            raise RuntimeError("no map\nat all")
        if not torch.equal(model.bn1.weight, small_net.bn1.weight):
            return torch.zeros_like(inputs)
        return gradient(model, inputs, target)

    found = Randomisation(mode="independent")(small_net, images, maps, method=fails)
    fine = Randomisation(mode="independent")(small_net, images, maps, method=gradient)
    expected = fine.details["curve"].clone()
    expected[:, LAYERS.index("bn1")] = torch.nan
    expected[2, LAYERS.index("conv1")] = torch.nan
    assert torch.equal(found.details["curve"].isnan(), expected.isnan())
    assert torch.equal(found.values, expected.nanmean(1))
    assert found.details["undefined_stages"].tolist() == [1, 1, 2, 1, 1, 1, 1, 1]
    assert found.provenance["failures"] == {"conv1": "no map"}

    def never(model, inputs, target):
        raise UnilensError("never")

    found = Randomisation()(small_net, images, maps, method=never)
    assert found.values.isnan().all()
    assert found.undefined == 8


def test_randomisation_raises_out_of_memory(small_net, images):
    def full(model, inputs, target):
        raise torch.OutOfMemoryError("out of memory") if len(inputs) == 1 else RuntimeError("other")

    maps = explain(small_net, images, "gradient").values
    with pytest.raises(torch.OutOfMemoryError):
        Randomisation()(small_net, images, maps, method=full)


def test_random_logit_explains_another_class(small_net, images):
    maps = explain(small_net, images, "ig", n_steps=3)
    found = RandomLogit(draws=2)(small_net, images, maps, method=methods["ig"](n_steps=3), seed=2)
    classes = found.details["classes"]
    assert classes.shape == (8, 2)
    assert (classes != maps.target.unsqueeze(1)).all()
    assert (classes[:, 0] != classes[:, 1]).all()
    ours = explain(small_net, images, "ig", maps.target, n_steps=3).values
    expected = [
        [alike(*pair, absolute=False) for pair in zip(ours, values, strict=True)]
        for values in (
            explain(small_net, images, "ig", labels, n_steps=3).values for labels in classes.T
        )
    ]
    assert torch.allclose(found.details["similarities"].T, torch.tensor(expected))
    assert torch.allclose(found.values, torch.tensor(expected).mean(0))


def test_random_logit_draws_classes_uniformly(linear):
    inputs = torch.rand(600, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    found = RandomLogit()(linear, inputs, inputs, method=lambda m, x, t: x, target=1)
    counts = found.details["classes"].flatten().bincount(minlength=4).tolist()
    assert counts[1] == 0
    assert stats.chisquare([counts[0], *counts[2:]]).pvalue > 0.01


def test_random_logit_is_worst_for_maps_without_class(pictures):
    opposite, unrelated = linear_of(pictures, 2), linear_of(pictures, 2)
    with torch.no_grad():
        opposite[1].weight[1] = -opposite[1].weight[0]
    values = []
    for model, method in (
        (opposite, gradient),
        (unrelated, gradient),
        (unrelated, edge_detector),
    ):
        target = torch.zeros(3, dtype=torch.long)
        maps = method(model, pictures.clone(), target).detach()
        values.append(evaluate(model, pictures, maps, "random_logit", method=method, target=target))
    assert not metrics()["random_logit"].higher_is_better
    assert torch.allclose(values[0], -torch.ones(3).double())
    assert float(values[1].abs().max()) < 0.15
    assert torch.allclose(values[2], torch.ones(3).double())


def test_random_logit_refuses_single_output():
    model, inputs = nn.Linear(4, 1).eval(), torch.rand(2, 4)
    with pytest.raises(NotApplicableError, match="expected more than 1 classes"):
        evaluate(model, inputs, inputs, "random_logit", method="gradient")


def test_edge_control_equals_skimage(small_net, images):
    maps = torch.randn(images.shape, generator=torch.Generator().manual_seed(9)).double()
    for name, make in (("edge_similarity", filters.sobel), ("grey_similarity", lambda grey: grey)):
        found = registry[name]()(small_net, images, maps)
        for i, image in enumerate(images):
            picture = make(color.rgb2gray(image.permute(1, 2, 0).numpy()))
            assert found.details["picture"][i].numpy() == pytest.approx(picture, abs=1e-12)
            rows = maps[i].abs().sum(0).flatten().numpy(), picture.flatten()
            expected = stats.spearmanr(*rows).statistic
            assert float(found.breakdown["signed"][i]) == pytest.approx(expected, abs=1e-9)
            assert float(found.values[i]) == pytest.approx(abs(expected), abs=1e-9)
        assert (found.breakdown["signed"] < 0).any()


@pytest.mark.parametrize("name", ["edge_similarity", "grey_similarity"])
def test_edge_control_is_worst_for_the_picture(name, pictures):
    model = linear_of(pictures)
    picture = registry[name]()(model, pictures, pictures).details["picture"]
    random = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)).double()
    worst, middle, perfect = (
        evaluate(model, pictures, maps, name)
        for maps in (picture, random + 0.5 * picture / picture.amax(), random)
    )
    negative = evaluate(model, pictures, 2 - picture, name)
    assert not metrics()[name].higher_is_better
    assert torch.allclose(worst, torch.ones(3).double())
    assert torch.allclose(negative, torch.ones(3).double())
    assert (perfect < 0.15).all()
    assert (perfect + 0.05 < middle).all()
    assert (middle + 0.05 < worst).all()


def test_edge_control_takes_grey_pictures_and_refuses_signals(linear):
    grey = torch.rand(2, 1, 6, 5).double()
    found = EdgeControl(control="grey")(linear_of(grey), grey, grey)
    assert torch.allclose(found.values, torch.ones(2).double())
    with pytest.raises(NotApplicableError, match="expected pictures"):
        EdgeControl()(linear, torch.rand(2, 2, 3).double(), torch.rand(2, 2, 3))


@pytest.mark.parametrize("name", [*MODES, "random_logit", "edge_similarity", "grey_similarity"])
def test_sanity_is_nan_where_undefined(name, small_net, images):
    maps = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).double()
    maps[0], maps[1], maps[2] = 0, 3, torch.nan
    images[3] = 0.5
    found = evaluate(small_net, images, maps, name, method=gradient)
    flat = name in ("edge_similarity", "grey_similarity")
    assert found.isnan().tolist() == [True] * 3 + [flat] + [False] * 4
    assert found.dtype == torch.float64


@pytest.mark.parametrize("name", [*MODES, "random_logit", "edge_similarity", "grey_similarity"])
def test_sanity_on_batch_equals_loop_and_keeps_model(name, images):
    model = randomise(SmallNet())
    images = images[:3].float()
    before = copy.deepcopy(model.state_dict())
    maps = explain(model, images, "ig", n_steps=2).values
    found = evaluate(model, images, maps, name, method="ig", seed=5)
    for i in range(len(images)):
        one = slice(i, i + 1)
        alone = evaluate(model, images[one], maps[one], name, method="ig", seed=5)
        assert torch.equal(alone, found[one])
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(value.requires_grad for value in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    other = evaluate(model, images, maps, name, method="ig", seed=6)
    assert torch.equal(other, found) == metrics()[name].deterministic


def test_sanity_takes_similarities_and_user_methods(small_net, images):
    def saliency(model, inputs, target):
        return Saliency(model).attribute(inputs.requires_grad_(), target=target, abs=False)

    maps = saliency(small_net, images.clone(), 0).detach()
    by_name = evaluate(
        small_net, images, maps, MODES[0], method=saliency, target=0, similarity="top_k", k=20
    )
    built = Randomisation(TopK("abs", k=20))
    found = built(small_net, images, maps, method=gradient, target=0)
    assert torch.allclose(by_name, found.values)
    assert registry[MODES[0]]().similarity == Spearman("abs")
    assert registry["random_logit"]().similarity == Spearman()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Randomisation(mode="both"), "expected mode to be one of cascading, independent"),
        (lambda: Randomisation(layers=0), "expected layers to be a whole number of at least 1"),
        (lambda: Randomisation(layers=None), "expected layers to be a whole number of at least 1"),
        (lambda: Randomisation(layers=()), "expected layers to be a number or names"),
        (lambda: Randomisation(similarity="spearman"), "expected similarity to be a function"),
        (lambda: Randomisation(similarity=Spearman), "expected similarity to be a function"),
        (lambda: RandomLogit(draws=0), "expected draws to be a whole number of at least 1"),
        (lambda: EdgeControl(control="red"), "expected control to be one of edges, grey"),
    ],
)
def test_sanity_refuses_wrong_settings(build, message):
    with pytest.raises(UnilensError, match=message):
        build()


def test_sanity_declares_cost_and_needs(small_net, images):
    assert Randomisation(layers=7).explanations == 7
    assert Randomisation(layers=("head",)).explanations == 1
    assert RandomLogit(draws=3).explanations == 3
    assert EdgeControl().explanations == 0
    for name in (*MODES, "random_logit"):
        assert registry[name]().needs == metrics()[name].needs == ("method",)
        with pytest.raises(NotApplicableError, match="explains again; pass method="):
            evaluate(small_net, images, images, name)
    calls = []

    def counted(model, inputs, target):
        calls.append(len(inputs))
        return gradient(model, inputs, target)

    evaluate(small_net, images, images, MODES[0], method=counted, layers=3)
    assert calls == [8, 8, 8]


def test_sanity_is_nan_for_recomputed_maps_with_nan(small_net, images):
    def holed(model, inputs, target):
        return gradient(model, inputs, target).index_fill(3, torch.tensor([4]), torch.nan)

    for similarity in (Spearman(), TopK(k=10)):
        found = RandomLogit(similarity)(small_net, images[:2], images[:2], method=holed)
        assert found.values.isnan().all()
