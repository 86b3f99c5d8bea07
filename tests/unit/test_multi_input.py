"""Several or named inputs: what is known in closed form, and equality with one tensor."""

import copy
import pickle

import pytest
import torch
from torch import nn

import unilens
from unilens import Evaluator, PathAttribution, UnilensError
from unilens.baselines import (
    Blur,
    Constant,
    FixedValues,
    ImageMean,
    PerInput,
    Unlearned,
    gaussian_blur,
)
from unilens.methods import methods
from unilens.methods.path_diagnostics import curvature, stability
from unilens.multi_input import Frozen, chosen
from unilens.paths import BlurPath, SpectralPath

torch.manual_seed(0)
IMAGE, SIGNAL, TABLE = (2, 4, 5), (2, 7), (3,)


class Two(nn.Module):
    """A picture and a table, known by name; `scale` (B,) multiplies the logits."""

    def __init__(self):
        super().__init__()
        self.picture, self.row, self.top = nn.Linear(40, 6), nn.Linear(3, 6), nn.Linear(6, 4)

    def forward(self, picture, row, scale=None):
        hidden = torch.tanh(self.picture(picture.flatten(1)) + self.row(row))
        outputs = self.top(hidden)
        return outputs if scale is None else outputs * scale.view(-1, 1).to(outputs)


class Side(nn.Module):
    """The same on one tensor of both, written by hand."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, values):
        return self.model(values[:, :40].contiguous().view(-1, *IMAGE), values[:, 40:].contiguous())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(count, *shape, seed=0):
    return torch.rand(count, *shape, generator=generator(seed), dtype=torch.float64)


@pytest.fixture
def two():
    torch.manual_seed(3)
    return Two().double().eval()


@pytest.fixture
def inputs():
    return {"picture": drawn(3, *IMAGE), "row": drawn(3, *TABLE, seed=1)}


def side_by_side(inputs):
    return torch.cat([one.flatten(1) for one in inputs.values()], 1)


def test_a_linear_model_of_two_inputs_is_explained_exactly():
    class Linear(nn.Module):
        def forward(self, first, second):
            return torch.stack([first @ first.new_tensor([2.0, -1.0]), 3 * second[:, 0, 0]], 1)

    first, second = drawn(4, 2), drawn(4, 1, 1, seed=2)
    found = unilens.explain(
        Linear().eval(), (first, second), "ig", target=[0, 1, 0, 1], score="logit", n_steps=1
    )
    of_first, of_second = found.values
    chosen = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(4, 1).double()
    torch.testing.assert_close(of_first, chosen * first * first.new_tensor([2.0, -1.0]))
    torch.testing.assert_close(of_second, (1 - chosen).view(4, 1, 1) * 3 * second)
    torch.testing.assert_close(found.completeness_gap, torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize(
    "method", ["uni_paper", "ig", "guided_ig", "idgi", "agi", "gradient", "smoothgrad"]
)
def test_what_comes_out_is_that_of_the_same_model_on_one_tensor(two, inputs, method):
    found = unilens.explain(two, inputs, method)
    whole = unilens.explain(Side(two).eval(), side_by_side(inputs), method)
    assert list(found.values) == ["picture", "row"]
    assert torch.equal(side_by_side(found.values), whole.values)
    assert torch.equal(found.target, whole.target)
    if whole.baseline is not None:
        assert torch.equal(side_by_side(found.baseline), whole.baseline)
        assert found.baseline["picture"].shape == inputs["picture"].shape


def test_uni_begins_at_the_blurred_picture_and_the_row_itself(two, inputs):
    found = unilens.explain(two, inputs, "uni_blur", matching_steps=0)
    blurred = Blur()(None, inputs["picture"], None, generator=None)
    assert torch.equal(found.baseline["picture"], blurred)
    assert torch.equal(found.baseline["row"], inputs["row"])


def test_gains_are_shared_in_the_picture_and_the_row_has_its_integral(two, inputs):
    gains = unilens.explain(two, inputs, "ig", weighting="gains", n_steps=5)
    integral = unilens.explain(two, inputs, "ig", n_steps=5)
    torch.testing.assert_close(gains.values["row"], integral.values["row"])
    assert not torch.allclose(gains.values["picture"], integral.values["picture"])
    assert float(gains.completeness_gap.abs().max()) < 1e-12


def test_uni_of_a_row_in_parts_is_uni_of_the_row(two, inputs):
    class Row(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = two

        def forward(self, row):
            return self.two(picture=drawn(1, *IMAGE).expand(len(row), *IMAGE), row=row)

    alone = unilens.explain(Row().eval(), inputs["row"], "uni_blur")
    assert torch.equal(
        unilens.explain(Row().eval(), (inputs["row"],), "uni_blur").values[0], alone.values
    )


def test_the_budget_of_uni_is_over_all_parts_together(two, inputs):
    found = PathAttribution(Unlearned(budget=0.3))(two, inputs)
    shifts = [found.baseline[name] - inputs[name] for name in inputs]
    squares = sum(shift.flatten(1).square().sum(1) for shift in shifts)
    torch.testing.assert_close(squares.sqrt(), torch.full((3,), 0.3, dtype=torch.float64))
    assert all(shift.abs().max() > 0 for shift in shifts)


def test_a_mapping_is_called_by_keyword_and_a_tuple_by_position(two, inputs):
    by_name = unilens.explain(two, {"row": inputs["row"], "picture": inputs["picture"]}, "ig")
    by_place = unilens.explain(two, (inputs["picture"], inputs["row"]), "ig")
    assert list(by_name.values) == ["row", "picture"]
    torch.testing.assert_close(by_name.values["row"], by_place.values[1])
    torch.testing.assert_close(by_name.values["picture"], by_place.values[0])


def test_every_part_may_have_a_baseline_of_its_own(two, inputs):
    rows = drawn(3, *TABLE, seed=5)
    found = unilens.explain(two, inputs, "ig", baseline={"picture": Blur(2.0), "row": rows})
    sigma = torch.tensor([2.0], dtype=torch.float64)
    assert torch.equal(found.baseline["picture"], gaussian_blur(inputs["picture"], sigma)[0])
    assert torch.equal(found.baseline["row"], rows)
    assert found.completeness_gap.abs().max() < 1e-9


def test_what_depends_on_the_shape_is_done_part_by_part():
    class Grids(nn.Module):
        def forward(self, picture, signal):
            return torch.stack([picture.flatten(1).sum(1) ** 2, signal.flatten(1).sum(1)], 1)

    model, inputs = Grids().eval(), (drawn(2, *IMAGE), drawn(2, *SIGNAL, seed=1))
    sigma = torch.tensor([3.0], dtype=torch.float64)
    blurred = unilens.explain(model, inputs, "blur_ig", max_sigma=3.0, score="logit").baseline
    mean = unilens.explain(model, inputs, "ig", baseline="image_mean").baseline
    value = unilens.explain(model, inputs, "ig", baseline="constant", value=[0.2, 0.7]).baseline
    for tensor, blur, own, constant in zip(inputs, blurred, mean, value, strict=True):
        assert torch.equal(blur, gaussian_blur(tensor, sigma)[0])
        expected = tensor.flatten(2).mean(2).view(2, 2, *(1 for _ in tensor.shape[2:]))
        torch.testing.assert_close(own, expected.expand_as(tensor))
        assert constant[:, 0].unique().tolist() == [0.2]
        assert constant[:, 1].unique().tolist() == [0.7]


@pytest.mark.parametrize("path", [BlurPath(3.0), SpectralPath()])
def test_paths_of_an_image_walk_in_every_part_as_they_do_in_it_alone(path):
    class Sum(nn.Module):
        def forward(self, *several):
            total = sum((tensor**2).flatten(1).sum(1) for tensor in several)
            return torch.stack([total, 0 * total], 1)

    inputs = (drawn(2, *IMAGE), drawn(2, *SIGNAL, seed=1))
    explain = PathAttribution(path=path, score="logit", n_steps=8)
    together = explain(Sum().eval(), inputs, 0).values
    for tensor, values in zip(inputs, together, strict=True):
        alone = explain(Sum().eval(), tensor, 0).values
        torch.testing.assert_close(values, alone, rtol=1e-12, atol=1e-14)


def test_integers_are_held_fixed_and_each_input_keeps_its_own(two, inputs):
    scale = torch.tensor([1, 3, 1])
    found = unilens.explain(two, {**inputs, "scale": scale}, "uni_paper", target=[0, 1, 2])
    assert list(found.values) == ["picture", "row"]
    for row in range(3):
        own = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        model = Side(_Scaled(two, int(scale[row]))).eval()
        alone = unilens.explain(model, side_by_side(own), "uni_paper", target=row)
        assert torch.equal(found.values["row"][row], alone.values[0, 40:])
        assert torch.equal(found.trace.score[:, row], alone.trace.score[:, 0])
        assert torch.equal(found.record["matching_loss"][row], alone.record["matching_loss"][0])
        assert torch.equal(found.diagnostics["proximity"][row], alone.diagnostics["proximity"][0])


class _Scaled(nn.Module):
    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, picture, row):
        return self.model(picture, row) * self.scale


def test_held_parts_are_none_in_a_tuple_and_floats_can_be_held(two, inputs):
    scale = torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64)
    several = (inputs["picture"], inputs["row"], Frozen(scale))
    found = unilens.explain(two, several, "ig")
    assert found.values[2] is None
    assert found.baseline[2] is None
    shared = unilens.explain(two, (*several[:2], Frozen(scale[0])), "ig")
    assert torch.equal(found.values[0][0], shared.values[0][0])
    assert not torch.equal(found.values[0][1], shared.values[0][1])


def test_values_given_for_a_baseline_stay_with_their_input_where_inputs_hold_different_things(
    two, inputs
):
    scale, rows = torch.tensor([2, 5, 2]), drawn(3, *TABLE, seed=8)
    baseline = {"picture": 0.5, "row": rows}
    found = unilens.explain(two, {**inputs, "scale": scale}, "ig", baseline=baseline)
    assert torch.equal(found.baseline["row"], rows)
    assert torch.equal(found.baseline["picture"], torch.full_like(inputs["picture"], 0.5))


@pytest.mark.parametrize("method", ["uni_blur", "ig", "smoothgrad", "rise", "sobol", "random"])
@pytest.mark.parametrize("held", [False, True])
def test_a_batch_is_a_loop_to_the_last_bit(held, method):
    torch.manual_seed(0)

    class Tables(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(5, 4), nn.Linear(3, 4)

        def forward(self, first, second, kind=None):
            outputs = self.first(first).relu() * self.second(second)
            return outputs if kind is None else outputs + kind.unsqueeze(1)

    inputs = {"first": torch.rand(4, 5), "second": torch.rand(4, 3)}
    if held:
        inputs["kind"] = torch.tensor([1, 0, 1, 2])
    model = Evaluator(Tables().eval())
    settings = {"n_masks": 16} if method in ("rise",) else {}
    together = unilens.explain(model, inputs, method, **settings)
    for row in range(4):
        own = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        alone = unilens.explain(model, own, method, **settings)
        for name, values in alone.values.items():
            assert torch.equal(values[0], together.values[name][row])


def test_small_passes_give_what_large_ones_do(two, inputs):
    small = unilens.explain(Evaluator(two, chunk=1), inputs, "ig")
    large = unilens.explain(Evaluator(two, chunk=50), inputs, "ig")
    torch.testing.assert_close(small.values, large.values, rtol=1e-12, atol=1e-15)


def test_batch_norms_are_folded_in_models_of_parts_as_well():
    class Convolutional(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)

        def forward(self, picture, row):
            return self.norm(self.convolution(picture)).flatten(2).mean(2) + row

    inputs = {"picture": torch.rand(2, *IMAGE), "row": torch.rand(2, 3)}
    evaluators = []

    class Noted(Evaluator):
        def with_model(self, model):
            evaluators.append(super().with_model(model))
            return evaluators[-1]

    model = Convolutional().eval()
    model.norm.running_mean.fill_(0.3)
    found = unilens.explain(Noted(model), inputs, "ig")
    assert "folded" in found.provenance["engine"]["used"]
    plain = unilens.explain(Evaluator(model, fold=False), inputs, "ig")
    torch.testing.assert_close(found.values, plain.values, rtol=1e-4, atol=1e-6)


def test_the_model_stays_as_it_is(two, inputs):
    before = copy.deepcopy(two.state_dict())
    unilens.explain(two, {**inputs, "scale": torch.tensor([1, 2, 3])}, "uni_blur")
    assert all(torch.equal(value, before[name]) for name, value in two.state_dict().items())
    assert all(parameter.grad is None for parameter in two.parameters())
    assert [name for name, _ in two.named_children()] == ["picture", "row", "top"]


def test_the_gradient_of_an_attribution_goes_back_to_every_part(two, inputs):
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    found = PathAttribution(score="logit", create_graph=True)(two, leaves, 0)
    sum(values.sum() for values in found.values.values()).backward()
    for name, tensor in leaves.items():  # the sum is f(x) - f(0), whose gradient is f's
        other = {**inputs, name: tensor.detach().clone().requires_grad_()}
        two(**other)[:, 0].sum().backward()
        torch.testing.assert_close(tensor.grad, other[name].grad, rtol=1e-6, atol=1e-9)
    two.zero_grad()


def test_stability_and_curvature_are_those_of_the_model_on_one_tensor(two, inputs):
    explain, plain = PathAttribution(), Side(two).eval()
    found, whole = explain(two, inputs), explain(plain, side_by_side(inputs))
    expected = curvature(explain, plain, side_by_side(inputs), whole)
    for name, values in curvature(explain, two, inputs, found).items():
        torch.testing.assert_close(values, expected[name])
    expected = stability(explain, plain, side_by_side(inputs), whole)
    for name, values in stability(explain, two, inputs, found).items():
        torch.testing.assert_close(values, expected[name])


@pytest.mark.parametrize("metric", ["mu_fidelity", "deletion_auc", "max_sensitivity"])
def test_metrics_judge_all_parts_together(two, inputs, metric):
    plain = Side(two).eval()
    found, whole = (
        unilens.explain(two, inputs, "ig"),
        unilens.explain(plain, side_by_side(inputs), "ig"),
    )
    ours = unilens.evaluate(two, inputs, found, metric, method="ig")
    expected = unilens.evaluate(plain, side_by_side(inputs), whole, metric, method="ig")
    assert torch.equal(ours, expected)
    maps = unilens.evaluate(two, inputs, found.values, metric, method="ig")
    assert torch.equal(maps, expected)


@pytest.mark.parametrize("metric", ["deletion_auc", "confidence_change", "stability"])
def test_metrics_of_inputs_that_hold_different_things_are_those_of_each_alone(two, inputs, metric):
    several = {**inputs, "scale": torch.tensor([3, 1, 3])}
    found = unilens.explain(two, several, "ig")
    together = unilens.evaluate(two, several, found, metric, method="ig")
    for row in range(3):
        own = {name: tensor[row : row + 1] for name, tensor in several.items()}
        alone = unilens.evaluate(two, own, unilens.explain(two, own, "ig"), metric, method="ig")
        assert torch.equal(alone[0], together[row])


def test_references_come_in_the_structure_of_the_inputs(two, inputs):
    references = {"picture": drawn(5, *IMAGE, seed=4), "row": drawn(5, *TABLE, seed=4)}
    found = unilens.explain(two, inputs, "expected_gradients", references=references, n_steps=20)
    whole = unilens.explain(
        Side(two).eval(),
        side_by_side(inputs),
        "expected_gradients",
        references=side_by_side(references),
        n_steps=20,
    )
    assert torch.equal(side_by_side(found.values), whole.values)


def test_references_are_read_by_name_and_not_by_place():
    class Product(nn.Module):
        def forward(self, first, second):
            return torch.stack([first * second.square(), first], 1).sum(2)

    references = {"second": drawn(5, 2, seed=4), "first": drawn(5, 2, seed=5)}
    inputs = {"first": drawn(3, 2), "second": drawn(3, 2, seed=1)}
    found = unilens.explain(
        Product().eval(), inputs, "expected_gradients", 0, references=references, n_steps=5
    )
    for name, one in references.items():
        assert torch.allclose(found.baseline[name], one.mean(0).expand(3, 2))


def test_references_of_parts_are_for_inputs_in_parts(two, inputs):
    with pytest.raises(UnilensError, match=r"for inputs of one tensor, got dict; pass a tensor"):
        unilens.explain(
            Side(two).eval(), side_by_side(inputs), "expected_gradients", references=inputs
        )


@pytest.mark.parametrize("scale", [[2, 2, 2], [2, 1, 2]])
def test_values_without_rows_are_all_inputs_own(two, inputs, scale):
    several = {**inputs, "scale": torch.tensor(scale)}
    row = drawn(3, seed=7)
    found = unilens.explain(two, several, "ig", baseline={"picture": 0.5, "row": row})
    assert torch.equal(found.baseline["row"], row.expand(3, 3))


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["max_sensitivity", "randomisation_cascading"])
def test_maps_are_made_again_from_the_baseline_of_their_row(two, inputs, metric):
    several = {**inputs, "scale": torch.tensor([3, 1, 3])}
    rows = drawn(3, 3, seed=7)
    given = {"picture": "black", "row": rows}
    found = unilens.explain(two, several, "ig", baseline=given)
    method = methods["ig"](baseline=PerInput(given))
    together = unilens.evaluate(two, several, found, metric, method=method)
    for number in range(3):
        here = slice(number, number + 1)
        own = {name: tensor[here] for name, tensor in several.items()}
        mine = PerInput({"picture": "black", "row": rows[here]})
        alone = methods["ig"](baseline=mine)
        judged = unilens.evaluate(two, own, alone(two, own), metric, method=alone)
        assert torch.equal(judged[0], together[number])


def test_maps_of_other_inputs_are_refused(two, inputs):
    found = unilens.explain(two, inputs, "ig")
    fewer = {name: tensor[:2] for name, tensor in inputs.items()}
    message = "of 2 inputs, as many as there are, got 3; pass what was made of these inputs"
    with pytest.raises(UnilensError, match=message):
        unilens.evaluate(two, fewer, found, "deletion_auc")
    with pytest.raises(UnilensError, match=message):
        unilens.evaluate(two, fewer, found.values, "deletion_auc")
    with pytest.raises(UnilensError, match=message):
        curvature(methods["ig"](), two, fewer, found)
    uneven = {**found.values, "row": found.values["row"][:2]}
    with pytest.raises(UnilensError, match=r"as many rows for every input, got .*'row': 2"):
        unilens.evaluate(two, inputs, uneven, "deletion_auc")


def test_an_attribution_of_parts_has_what_any_has(two, inputs):
    found = unilens.explain(two, inputs, "ig")
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(again.values["row"], found.values["row"])
    assert found.provenance["method"] == "ig"
    assert found.warnings == found.whole.warnings
    assert found.verdicts == found.whole.verdicts
    shapes = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in found.values.items())
    first, second = repr(found).splitlines()
    assert first.startswith("MultiInputAttribution by ")
    assert f" of shapes {shapes}, target" in first
    assert found.verdicts[0] in second
    assert torch.equal(found.saliency["row"], found.values["row"].abs())
    assert "mine" in found.with_measured(mine=torch.zeros(3)).diagnostics
    with pytest.raises(AttributeError, match="nothing"):
        _ = found.nothing


BAD = {
    "no row": ({"picture": torch.tensor(1.0)}, {}, r"all of the same B, got .*\(\)"),
    "other rows": (
        {"picture": torch.rand(2, 3), "row": torch.rand(3, 3)},
        {},
        r"all of the same B, got \{'picture': \(2, 3\), 'row': \(3, 3\)\}; repeat",
    ),
    "no floats": ({"picture": torch.ones(2, 3, dtype=torch.long)}, {}, "one input with floating"),
    "no parts": ((), {}, "at least one input with floating-point values to explain, got no inputs"),
    "an array": ({"picture": [[1.0]]}, {}, "every input to be a tensor .*, got list; convert"),
    "unknown keyword": (
        {"picture": torch.rand(1, *IMAGE).double(), "table": torch.rand(1, 3).double()},
        {},
        r"inputs picture \(2, 4, 5\), table \(3,\).*unexpected keyword argument 'table'",
    ),
    "nan": (
        {"picture": torch.full((1, *IMAGE), torch.nan), "row": torch.rand(1, 3)},
        {},
        "NaN or infinity in input 0",
    ),
    "targets": (
        {
            "picture": torch.rand(3, *IMAGE),
            "row": torch.rand(3, 3),
            "scale": torch.tensor([1, 2, 3]),
        },
        {"target": [0, 1]},
        r"`target` of shape \(3,\), got \(2,\); pass one index for all, or one per input",
    ),
    "blur of a table": (
        {"picture": torch.rand(1, *IMAGE), "row": torch.rand(1, 3)},
        {"baseline": "blur"},
        r"in input 'row': expected images .* got \(1, 3\)",
    ),
    "other parts": (
        {"picture": torch.rand(1, *IMAGE), "row": torch.rand(1, 3)},
        {"baseline": {"picture": "blur"}},
        r"expected the inputs picture, .* got the inputs picture \(2, 4, 5\), row \(3,\)",
    ),
    "a search in a part": (
        {"picture": torch.rand(1, *IMAGE), "row": torch.rand(1, 3)},
        {"baseline": {"picture": "unlearned", "row": 0}},
        "in input 'picture': Unlearned runs the model, which takes all inputs together",
    ),
    "a baseline of another shape": (
        {"picture": torch.rand(1, *IMAGE), "row": torch.rand(1, 3)},
        {"baseline": {"picture": 0.0, "row": torch.rand(1, 4)}},
        r"in input 'row': expected a baseline of the inputs' shape \(1, 3\).*got \(1, 4\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_parts_get_one_clear_line(two, case):
    inputs, settings, message = BAD[case]
    with pytest.raises(UnilensError, match=message) as caught:
        unilens.explain(two, inputs, "ig", **settings)
    assert "\n" not in str(caught.value)


def test_a_model_in_training_mode_is_named_as_the_user_knows_it(two, inputs):
    two.top.train()
    with pytest.raises(UnilensError, match="but top is in training mode"):
        unilens.explain(two, inputs, "ig")


def test_baselines_by_part_need_inputs_in_parts(two, inputs):
    with pytest.raises(UnilensError, match="got a single tensor"):
        unilens.explain(Side(two).eval(), side_by_side(inputs), "ig", baseline={"row": 0})
    with pytest.raises(UnilensError, match="baseline for each input"):
        PerInput({})


def test_metrics_of_parts_refuse_what_they_cannot_cut(two, inputs):
    found = unilens.explain(two, inputs, "ig")
    with pytest.raises(UnilensError, match="expected no mask where inputs come in parts"):
        unilens.evaluate(two, inputs, found, "pointing_game", mask=torch.ones(3, 43))
    with pytest.raises(UnilensError, match="expected maps for the inputs"):
        unilens.evaluate(two, inputs, {"row": found.values["row"]})


def test_occlusion_hides_one_feature_of_any_table_and_refuses_pictures(two, inputs):
    class Sum(nn.Module):
        def forward(self, first, second):
            return torch.stack([first.sum(1) + 2 * second.sum(1), 0 * first[:, 0]], 1)

    several = (drawn(2, 3), drawn(2, 4, seed=1))
    values = unilens.explain(Sum().eval(), several, "occlusion", score="logit", target=0).values
    torch.testing.assert_close(values[0], several[0])
    torch.testing.assert_close(values[1], 2 * several[1])
    with pytest.raises(UnilensError, match=r"of several inputs \(B, F\), got picture \(2, 4, 5\)"):
        unilens.explain(two, inputs, "occlusion")


def test_given_values_are_a_baseline_of_single_tensors_too(two, inputs):
    start = side_by_side(inputs).flip(0)
    plain, values = Side(two).eval(), side_by_side(inputs)
    found = methods["ig"](baseline=FixedValues(start))(plain, values)
    assert torch.equal(found.baseline, start)
    same = methods["ig"](baseline=FixedValues(torch.zeros(1, 43)))(plain, values)
    black = methods["ig"](baseline=Constant(0.0))(plain, values)
    assert torch.equal(same.values, black.values)


def test_a_model_may_have_an_input_spec_of_its_own():
    class Drawn(nn.Module):
        input_spec = "landscape"

        def forward(self, values):
            return values.flatten(1)[:, :3]

    model, values = Drawn().eval(), drawn(2, 5)
    assert Evaluator(model).input_spec is None
    found = unilens.explain(model, values, "ig", baseline="image_mean")
    torch.testing.assert_close(found.baseline, values.mean(1, keepdim=True).expand_as(values))
    given = ImageMean()(model, values, found.target, generator=generator())
    assert torch.equal(given, found.baseline)


def test_smoothed_methods_keep_values_given_for_a_baseline_with_their_input(two, inputs):
    start = {"picture": 0.0, "row": drawn(3, *TABLE, seed=8)}
    several = {**inputs, "scale": torch.tensor([2, 5, 3])}
    inner = PathAttribution(PerInput(start), n_steps=4)
    found = methods["smoothgrad"].build(inner, n_samples=3)(two, several)
    for row in range(3):
        own = {name: tensor[row : row + 1] for name, tensor in several.items()}
        mine = PerInput({"picture": 0.0, "row": start["row"][row : row + 1]})
        alone = PathAttribution(mine, n_steps=4)
        expected = methods["smoothgrad"].build(alone, n_samples=3)(two, own)
        assert torch.equal(found.values["row"][row], expected.values["row"][0])


@pytest.mark.parametrize("given", [tuple, torch.Tensor])
def test_smoothed_methods_keep_them_at_every_batch_size(given):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double().eval()
    values, start = drawn(6, 4), drawn(6, 4, seed=8)
    for batch in (1, 2, 6):
        inputs, compared = values[:batch], start[:batch]
        if given is tuple:
            inputs, compared = (inputs,), (compared,)
        else:
            compared = FixedValues(compared)
        found = unilens.explain(
            model, inputs, "smoothgrad", 1, inner="ig", n_samples=9, std=1e-9, baseline=compared
        )
        maps = found.values[0] if given is tuple else found.values
        slope = model(values[:batch]).softmax(1)[:, 1] - model(start[:batch]).softmax(1)[:, 1]
        torch.testing.assert_close(maps.sum(1), slope, rtol=0, atol=1e-7)


def test_smoothed_methods_refuse_more_rows_than_inputs():
    with pytest.raises(UnilensError, match=r"shape \(2, 4\).*got \(3, 4\); give one row for all"):
        unilens.explain(
            nn.Linear(4, 3).eval(),
            torch.rand(2, 4),
            "smoothgrad",
            inner="ig",
            baseline=FixedValues(torch.rand(3, 4)),
        )


def test_any_number_of_parts_keep_their_places():
    class Three(nn.Module):
        def forward(self, first, second, third):
            sums = [first.sum(1), 2 * second.flatten(1).sum(1), 3 * third]
            return torch.stack([sum(sums), 0 * third], 1)

    several = (drawn(2, 3), drawn(2, 2, 2, seed=1), torch.rand(2).double())
    found = unilens.explain(Three().eval(), several, "ig", target=0, score="logit", n_steps=1)
    for weight, tensor, values in zip((1, 2, 3), several, found.values, strict=True):
        torch.testing.assert_close(values, weight * tensor)


def test_a_model_may_write_into_what_it_holds(two, inputs):
    class Writes(nn.Module):
        def forward(self, picture, row, scale):
            return two(picture, row, scale.mul_(2))

    scale = torch.tensor([1, 3, 1])
    found = unilens.explain(Writes().eval(), {**inputs, "scale": scale}, "ig")
    expected = unilens.explain(two, {**inputs, "scale": 2 * scale}, "ig")
    torch.testing.assert_close(found.values, expected.values)
    assert scale.tolist() == [1, 3, 1]


def test_what_is_known_of_a_path_stays_with_its_input(two, inputs):
    found = unilens.explain(two, {**inputs, "scale": torch.tensor([1, 3, 1])}, "uni_blur")
    rows = torch.tensor([2, 0])
    some = chosen(found.whole, rows)
    assert torch.equal(some.values, found.whole.values[rows])
    for name in ("fraction", "score", "confidence"):
        assert torch.equal(getattr(some.trace, name), getattr(found.trace, name)[:, rows])
    assert torch.equal(some.trace.gradient_change, found.trace.gradient_change[rows])
    assert torch.equal(some.record["matching_loss"], found.record["matching_loss"][rows])
    assert torch.equal(some.measured["proximity"], found.measured["proximity"][rows])
