"""Groups: the shapes that are read, what makes them, where they are kept, and what is refused."""

import pickle

import numpy
import pytest
import torch
from torch import nn

import unilens
from unilens import Attribution, evaluate, explain
from unilens.errors import NotApplicableError, UnilensError
from unilens.groups import columns, patches, superpixels
from unilens.methods import methods

SPATIAL = torch.arange(20).view(4, 5) // 7
CHANNELS = torch.stack([SPATIAL, SPATIAL + 3, SPATIAL])
BY_INPUT = torch.stack([SPATIAL, (SPATIAL + 1) % 3])


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (SPATIAL, SPATIAL.expand(2, 3, 4, 5)),
        (SPATIAL[None], SPATIAL.expand(2, 3, 4, 5)),
        (SPATIAL[None, None], SPATIAL.expand(2, 3, 4, 5)),
        (torch.arange(4)[:, None], torch.arange(4)[:, None].expand(2, 3, 4, 5)),
        (torch.arange(2)[:, None, None, None], torch.arange(2).view(2, 1, 1, 1).expand(2, 3, 4, 5)),
        (SPATIAL[None, None].expand(2, 1, 4, 5), SPATIAL.expand(2, 3, 4, 5)),
        (CHANNELS, CHANNELS.expand(2, 3, 4, 5)),
        (CHANNELS.expand(2, 3, 4, 5), CHANNELS.expand(2, 3, 4, 5)),
        (BY_INPUT, BY_INPUT.unsqueeze(1).expand(2, 3, 4, 5)),
        (BY_INPUT.unsqueeze(1), BY_INPUT.unsqueeze(1).expand(2, 3, 4, 5)),
        (SPATIAL.numpy().astype("uint8"), SPATIAL.expand(2, 3, 4, 5)),
        (SPATIAL.tolist(), SPATIAL.expand(2, 3, 4, 5)),
        (SPATIAL.int() * 10 + 7, SPATIAL.expand(2, 3, 4, 5)),
    ],
)
@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_groups_of_every_shape_are_read(network, images, given, expected, method):
    found = explain(network, images, method, 0, groups=given)
    assert torch.equal(found.groups, expected)
    for number in expected.unique().tolist():
        for i in [i for i in range(2) if (expected[i] == number).any()]:
            values = found.values[i][expected[i] == number]
            assert torch.equal(values, values[:1].expand_as(values))
            total = float(found.by_group()[i, number])
            assert total == pytest.approx(float(values.double().sum()), abs=1e-6)


@pytest.mark.parametrize("channels", ["last", 2, "none"])
@pytest.mark.parametrize("method", ["gradient", "occlusion", "shapley"])
def test_groups_follow_the_order_of_axes(network, images, channels, method):
    axis = {"last": 3, 2: 2, "none": None}[channels]

    class Moved(nn.Module):
        def forward(self, inputs):
            if axis is None:
                return network(inputs.unsqueeze(1).expand(-1, 3, -1, -1))
            return network(inputs.movedim(axis, 1))

    given = images[:, 0] if axis is None else images.movedim(1, axis)
    found = explain(Moved().eval(), given, method, 0, groups=BY_INPUT, channels=channels)
    if axis is None:
        assert torch.equal(found.groups, BY_INPUT)
        assert found.by_group().shape == (2, 3)
        return
    plain = explain(network, images, method, 0, groups=BY_INPUT)
    assert torch.allclose(found.values.movedim(axis, 1), plain.values, rtol=0, atol=1e-7)
    assert torch.equal(found.groups.movedim(axis, 1), plain.groups)
    assert torch.allclose(found.by_group(), plain.by_group(), rtol=0, atol=1e-7)
    whole = CHANNELS.movedim(0, axis - 1)
    found = explain(Moved().eval(), given, method, 0, groups=whole, channels=channels)
    plain = explain(network, images, method, 0, groups=CHANNELS)
    assert torch.allclose(found.by_group(), plain.by_group(), rtol=0, atol=1e-7)


def test_axes_are_read_off_the_model_for_groups_of_positions(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(80, 2)).eval()
    found = explain(model, images.movedim(1, 3), "gradient", groups=SPATIAL)
    assert torch.equal(found.groups, SPATIAL[..., None].expand(2, 4, 5, 3))
    assert found.provenance["channels"].startswith("last")


def test_attribution_keeps_groups(network, images, tmp_path):
    found = explain(network, images, "occlusion", 0, groups=BY_INPUT + 5)
    assert found.provenance["groups"] == {"count": 3}
    found.save(tmp_path / "map.safetensors")
    loaded = Attribution.load(tmp_path / "map.safetensors")
    for copy in (loaded, pickle.loads(pickle.dumps(found)), found.to(torch.float64), found.cpu()):
        assert torch.equal(copy.groups, found.groups)
        assert torch.allclose(copy.by_group(), found.by_group())
    assert torch.equal(found[1].by_group(), found.by_group()[1:])
    assert torch.equal(found[[1, 0]].groups, found.groups.flip(0))


def test_by_group_has_nan_for_groups_that_an_input_lacks(network, images):
    several = torch.stack([SPATIAL, SPATIAL.clamp(max=1)])
    found = explain(network, images, "gradient", 0, groups=several)
    assert found.by_group().isnan().tolist() == [[False] * 3, [False, False, True]]
    assert found[1:].by_group().shape == (1, 3)
    plain = explain(network, images, "gradient", 0)
    assert torch.allclose(plain.by_group(several), found.by_group(), atol=1e-6, equal_nan=True)
    with pytest.raises(UnilensError, match="expected groups, got None for an attribution without"):
        plain.by_group()


def test_gradient_flows_through_sums_of_groups(network, images):
    leaf = images.clone().requires_grad_()
    method = methods["ig"](n_steps=3, create_graph=True)
    found = method(network, leaf, 0, groups=BY_INPUT * 2)
    (gradient,) = torch.autograd.grad(found.by_group().nan_to_num().square().sum(), leaf)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_default_method_takes_groups():
    rows = torch.rand(8, 4)
    found = explain(nn.Linear(4, 2).eval(), rows, groups=[0, 0, 1, 2])
    assert found.by_group().shape == (8, 3)
    assert torch.equal(found.values[:, 0], found.values[:, 1])


HOSTILE = {
    "floats": (SPATIAL.float(), "groups to be integers of the inputs' shape, got torch.float32"),
    "truths": (SPATIAL > 1, "groups to be integers of the inputs' shape, got torch.bool"),
    "complex": (SPATIAL.to(torch.complex64), "groups to be integers .* got torch.complex64"),
    "text": ("sky", "groups to be integers of the inputs' shape, got 'sky'"),
    "names": ([["sky"] * 5] * 4, "groups to be integers of the inputs' shape, got "),
    "ragged": ([[0, 1], [2]], "groups to be integers of the inputs' shape, got "),
    "array of names": (numpy.array(["sky"]), "groups to be integers of the inputs' shape, got "),
    "negative": (SPATIAL - 1, "groups of labels from 0 on, got -1; give what belongs to no group"),
    "transposed": (
        SPATIAL.T,
        r"shapes \(2, 3, 4, 5\), \(3, 4, 5\), \(2, 4, 5\), \(4, 5\), for inp",
    ),
    "other batch": (SPATIAL.expand(7, 1, 4, 5), r"one of the shapes .* got \(7, 1, 4, 5\)"),
    "number": (3, r"one of the shapes .* got \(\)"),
    "none at all": (torch.zeros(0, dtype=torch.long), r"one of the shapes .* got \(0,\)"),
    "mapping": ({"sky": [0]}, "groups to be integers of the inputs' shape, got"),
    "function": (print, "groups to be integers of the inputs' shape, got"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_groups_are_refused_in_one_line(network, images, case):
    given, message = HOSTILE[case]
    attribution = explain(network, images, "gradient", 0)
    for call in (
        lambda: explain(network, images, "occlusion", 0, groups=given),
        lambda: explain(network, images, "ig", 0, groups=given),
        lambda: evaluate(network, images, attribution, "deletion_auc", groups=given),
        lambda: attribution.by_group(given),
    ):
        with pytest.raises(UnilensError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)


def test_groups_of_two_readings_are_refused(network):
    images = torch.rand(3, 3, 4, 5)
    with pytest.raises(
        UnilensError, match=r"by channel or by input, got \(3, 4, 5\).* \(3, 1, 4, 5\)"
    ):
        explain(network, images, "occlusion", 0, groups=CHANNELS)
    for clear in (CHANNELS.expand(3, 3, 4, 5), CHANNELS.unsqueeze(1), SPATIAL.expand(3, 4, 5)):
        explain(network, images, "occlusion", 0, groups=clear)


def test_groups_are_refused_for_several_inputs():
    class Sum(nn.Module):
        def forward(self, first, second):
            return torch.stack([first.sum(1), second.sum(1)], 1)

    inputs = {"first": torch.rand(2, 3), "second": torch.rand(2, 3)}
    model = Sum().eval()
    with pytest.raises(NotApplicableError, match="expected no groups= for several inputs"):
        explain(model, inputs, "occlusion", groups=torch.arange(6))
    shapley = explain(model, inputs, "shapley", 0)
    assert shapley.values["second"].abs().max() > 0
    assert shapley.by_group().shape == (2, 6)
    with pytest.raises(NotApplicableError, match="expected no groups where inputs come in parts"):
        evaluate(model, inputs, shapley, "mu_fidelity", groups=torch.arange(6))


@pytest.mark.parametrize("metric", sorted(set(unilens.metrics())))
def test_metrics_of_single_values_refuse_groups(network, images, metric):
    found = explain(network, images, "ig", 0)
    takes = {"mu_fidelity", "mu_fidelity_abs", "insertion_auc", "deletion_auc"}
    takes |= {"mas_insertion", "mas_deletion"}
    if metric in takes:
        assert evaluate(network, images, found, metric, groups=SPATIAL).shape == (2,)
        return
    known = {"mask": torch.ones(2, 4, 5), "without_parts": torch.zeros_like(images)[:, None]}
    with pytest.raises(NotApplicableError, match="expected no groups for"):
        evaluate(network, images, found, metric, method="ig", groups=SPATIAL, **known)


def test_metrics_refuse_groups_that_differ_between_channels(network, images):
    found = explain(network, images, "ig", 0)
    with pytest.raises(NotApplicableError, match="the same in all channels"):
        evaluate(network, images, found, "deletion_auc", groups=CHANNELS)
    with pytest.raises(UnilensError, match="expected no cells beside groups"):
        evaluate(network, images, found, "mu_fidelity", groups=SPATIAL, cells=3)
    with pytest.raises(UnilensError, match="expected fraction to leave one of 1 cells"):
        evaluate(network, images, found, "mu_fidelity", groups=SPATIAL * 0)


def test_patches_are_squares_numbered_by_row():
    images = torch.rand(2, 3, 5, 7)
    expected = torch.tensor(
        [[row // 2 * 4 + column // 2 for column in range(7)] for row in range(5)]
    )
    assert torch.equal(patches(images, 2), expected)
    assert torch.equal(patches(images.movedim(1, 3), 2, channels="last"), expected)
    assert torch.equal(patches(images[:, 0], 2, channels="none"), expected)
    assert patches(images, (1, 7)).tolist() == [[row] * 7 for row in range(5)]
    assert patches(torch.rand(1, 2, 7), 3).tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert patches(torch.rand(1, 1, 4, 4, 4), 2).unique().tolist() == list(range(8))
    assert patches(images, 99).unique().tolist() == [0]


def test_superpixels_do_not_cross_the_edge_of_each_image():
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, :, 12:] = 1
    images[1, :, 20:] = 1
    found = superpixels(images * 7 - 3, 8)
    assert found.shape == (2, 1, 32, 32)
    for segments, image in zip(found[:, 0], images[:, 0], strict=True):
        assert len(segments.unique()) > 3
        for segment in segments.unique():
            assert len(image[segments == segment].unique()) == 1
    assert torch.equal(superpixels(images.movedim(1, 3), 8, channels="last"), found.movedim(1, 3))
    assert superpixels(images[:, 0], 8, channels="none").shape == (2, 32, 32)
    assert superpixels(images.unsqueeze(2).expand(2, 3, 4, 32, 32), 8).shape == (2, 1, 4, 32, 32)


def test_columns_of_a_mapping_and_of_prefixes():
    names = ["age", "colour_red", "height", "colour_blue"]
    index, found = columns(names, {"colour": ["colour_blue", "colour_red"]})
    assert index.tolist() == [0, 1, 2, 1]
    assert found == ["age", "colour", "height"]
    index, found = columns(names, ["colour_"])
    assert index.tolist() == [0, 1, 2, 1]
    assert found == ["age", "colour_", "height"]
    assert columns(names, {})[1] == names


REFUSED = {
    "table": (lambda: patches(torch.rand(2, 5), 2), "inputs with positions, got a table"),
    "no size": (lambda: patches(torch.rand(1, 1, 4, 4), 0), "size to be a whole number of at le"),
    "sizes": (lambda: patches(torch.rand(1, 1, 4, 4), (1, 2, 3)), "size to be a whole number or 2"),
    "float": (lambda: patches(torch.rand(1, 1, 4, 4), 1.5), "size to be a whole number of at lea"),
    "text": (lambda: patches("image", 2), "inputs to be a tensor"),
    "axis": (lambda: patches(torch.rand(1, 1, 4), 2, channels="middle"), "channels to be one of"),
    "far axis": (lambda: patches(torch.rand(1, 1, 4), 2, channels=7), "channels to be an axis bel"),
    "series": (lambda: superpixels(torch.rand(1, 2, 9)), "expected images .* got"),
    "none": (lambda: superpixels(torch.rand(1, 3, 9, 9), 0), "n_segments to be a whole number of"),
    "loose": (
        lambda: superpixels(torch.rand(1, 3, 9, 9), compactness=0),
        "compactness to be a fin",
    ),
    "nan": (lambda: superpixels(torch.full((1, 3, 9, 9), torch.nan)), "expected finite inputs"),
    "unknown": (lambda: columns(["a"], {"g": ["b"]}), "columns in group 'g', got the unknown 'b'"),
    "empty": (lambda: columns(["a"], {"g": []}), "group 'g' to have a column, got none"),
    "prefix": (lambda: columns(["a"], ["b"]), "group 'b' to have a column, got none"),
    "two groups": (lambda: columns(["a"], {"g": ["a"], "h": ["a"]}), "column 'a' in one group, go"),
    "two prefixes": (lambda: columns(["ab"], ["a", "ab"]), "column 'ab' in one group, got it in"),
    "twice": (lambda: columns(["a", "a"], {}), "expected names of columns, each once, got"),
    "same name": (
        lambda: columns(["a", "b"], {"a": ["b"]}),
        "other names than single columns, got",
    ),
    "word": (
        lambda: columns(["a", "b"], {"g": "ab"}),
        "group 'g' to be a list of columns, got 'ab'",
    ),
    "one word": (
        lambda: columns(["a"], "a"),
        "groups as a mapping from name to columns, or a list",
    ),
    "number": (lambda: columns(["a"], 3), "groups as a mapping from name to columns, or a list"),
    "no names": (lambda: columns(3, {}), "expected names of columns as a list, got 3"),
    "a text": (lambda: columns("abc", {}), "expected names of columns as a list, got 'abc'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_makers_of_groups_refuse_in_one_line(case):
    call, message = REFUSED[case]
    with pytest.raises(UnilensError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value)
