"""Repeated calls: what was prepared for a model is used again, and never once the model differs."""

import copy
import gc
import threading
import weakref

import numpy
import pytest
import torch
from torch import nn

import unilens
from unilens import explain
from unilens._engine import module_pool, module_state, plan_cache, proof
from unilens._engine.evaluator import Evaluator
from unilens._engine.module_state import ModuleState


class Flags:
    """An object whose attributes are set later."""

    scale = 1.0


WITH_NORM = True
FACTORS = [1.0]


class Changing(nn.Module):
    """A network whose copies fold its batch norm, with all that a user can change in it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
        self.register_buffer("shift", torch.linspace(-1, 1, 6))
        self.loose = torch.ones(6)
        self.array = numpy.ones(6, dtype=numpy.float32)
        self.scales = [1.0, {"outer": 2.0}]
        self.power = 2.0
        self.activation = torch.tanh
        self.flags = Flags()

    def forward(self, images):
        features = self.conv(images)
        features = self.norm(features) if WITH_NORM else features
        features = self.activation(FACTORS[0] * features).mean((2, 3)) + self.shift
        features = features * self.loose * torch.from_numpy(self.array).to(features)
        features = features * self.flags.scale
        return self.head(features * self.scales[0] * self.scales[1]["outer"]) ** self.power


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = Changing()
    made.norm.running_mean.normal_()
    made.norm.running_var.uniform_(0.5, 2)
    return made.double().eval()


IMAGE = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(1)).double()


def map_of(model):
    return explain(model, IMAGE, "gradient", 1, score="logit").values


def by_autograd(model):
    leaf = IMAGE.clone().requires_grad_()
    return torch.autograd.grad(copy.deepcopy(model)(leaf)[0, 1], leaf)[0]


def step(model):
    optimiser = torch.optim.SGD(model.parameters(), lr=1)
    model(IMAGE)[0, 1].backward()
    optimiser.step()
    optimiser.zero_grad()


def load(model):
    model.load_state_dict({name: value + 0.5 for name, value in model.state_dict().items()})


def train_and_back(model):
    model.train()
    model(torch.rand(4, 3, 9, 9).double())
    model.eval()


def hook(model):
    model.norm.register_forward_hook(lambda module, given, output: output * 2)


def write_numpy(model):
    model.norm.running_var.numpy()[2] = 9


def swap_weights(model):
    with torch.no_grad():
        weight = model.conv.weight
        weight.data[[0, 1]] = weight.data[[1, 0]]


CHANGES = {
    "step": step,
    "load_state_dict": load,
    "load_state_dict(assign)": lambda model: model.load_state_dict(
        {name: value * 1.5 for name, value in model.state_dict().items()}, assign=True
    ),
    "data.copy_": lambda model: model.conv.weight.data.copy_(torch.ones(6, 3, 3, 3)),
    "data of a norm": lambda model: model.norm.weight.data.mul_(3),
    "data of a head": lambda model: model.head.weight.data.mul_(3),
    "one value": lambda model: model.conv.weight.data[5, 2, 1, 1].add_(1e-3),
    "two values swapped": swap_weights,
    "data = ": lambda model: setattr(model.conv.weight, "data", torch.ones(6, 3, 3, 3).double()),
    "buffer": lambda model: model.shift.data.mul_(3),
    "data of a bias": lambda model: model.norm.bias.data.add_(1),
    "batch norm's mean": lambda model: model.norm.running_mean.data.add_(1),
    "numpy": write_numpy,
    "to": lambda model: model.to(torch.float32).to(torch.float64),
    "train and back": train_and_back,
    "hook": hook,
    "submodule": lambda model: setattr(model, "head", nn.Linear(6, 4).double().eval()),
    "submodule without norm": lambda model: setattr(model, "norm", nn.Identity().eval()),
    "parameter": lambda model: setattr(model.head, "bias", nn.Parameter(torch.ones(4).double())),
    "attribute": lambda model: setattr(model, "power", 3.0),
    "item": lambda model: model.scales.__setitem__(0, 5.0),
    "item of an item": lambda model: model.scales[1].update(outer=7.0),
    "array": lambda model: model.array.__setitem__(3, 4.0),
    "loose tensor": lambda model: model.loose.data.mul_(2),
    "function": lambda model: setattr(model, "activation", torch.sigmoid),
    "signs": lambda model: model.conv.weight.data.neg_(),
    "signs of a norm": lambda model: model.norm.weight.data.neg_(),
    "signs of two": lambda model: model.conv.weight.data.view(-1)[3:5].neg_(),
    "powers of two": lambda model: model.conv.weight.data.mul_(16),
    "first attribute": lambda model: setattr(model.flags, "scale", 3.0),
    "attributes of an object": lambda model: setattr(model.flags, "__dict__", {"scale": 3.0}),
    "attributes of a layer": lambda model: setattr(
        model.head, "__dict__", vars(nn.Linear(6, 4).double().eval())
    ),
    "class of an object": lambda model: setattr(model.flags, "__class__", Flags3),
    "class": lambda model: setattr(model, "__class__", Twice),
    "class of a layer": lambda model: setattr(model.head, "__class__", Doubled),
}


class Flags3(Flags):
    """Other defaults."""

    scale = 3.0


class Doubled(nn.Linear):
    """Twice a linear layer."""

    def forward(self, values):
        return 2 * super().forward(values)


class Twice(Changing):
    """The same, with other outputs."""

    def forward(self, images):
        return 2 * super().forward(images)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_no_map_of_a_model_as_it_was(model, change):
    before = map_of(model)
    torch.testing.assert_close(before, by_autograd(model))
    again = map_of(model)
    assert torch.equal(again, before)
    CHANGES[change](model)
    expected = by_autograd(model)
    assert change == "to" or not torch.allclose(expected, before, rtol=1e-6)
    torch.testing.assert_close(map_of(model), expected)
    torch.testing.assert_close(map_of(model), expected)


def test_no_map_of_a_hook_as_it_was(model):
    factors = [1.0]
    model.norm.register_forward_hook(lambda module, given, output: output * factors[0])
    for factor in (1.0, 3.0, 0.5):
        factors[0] = factor
        torch.testing.assert_close(map_of(model), by_autograd(model))


def test_no_map_of_an_older_copy_once_another_is_made(model):
    evaluator = Evaluator(model)
    before = evaluator.differentiate(IMAGE[None], lambda outputs, _: outputs[:, 1]).gradients[0]
    torch.testing.assert_close(before, by_autograd(model))
    CHANGES["data.copy_"](model)
    with evaluator.borrowed(IMAGE):  # without speed-ups, and so of another copy
        pass
    torch.testing.assert_close(map_of(model), by_autograd(model))


@pytest.fixture
def factors():
    yield FACTORS
    FACTORS[0] = 1.0


def test_no_map_of_code_as_it_was(model, monkeypatch, factors):
    def check():
        torch.testing.assert_close(map_of(model), by_autograd(model))

    check()
    monkeypatch.setitem(globals(), "WITH_NORM", False)
    check()
    factors[0] = 2.0
    check()
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda self, values: values * 3)
    check()
    monkeypatch.setattr(Changing, "forward", lambda self, images: self.conv(images).sum((2, 3)))
    check()
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, given, output: 2 * output if isinstance(module, nn.Conv2d) else None
    )
    try:
        check()
    finally:
        handle.remove()
    check()


def test_no_map_of_a_function_as_it_was(model):
    def changed(self, images):
        return 2 * self.conv(images).sum((2, 3))

    def given(self, images, factor=3.0):
        return factor * self.norm(self.conv(images)).sum((2, 3))

    model.__class__ = type("Own", (Changing,), {"forward": given})
    torch.testing.assert_close(map_of(model), by_autograd(model))
    given.__defaults__ = (5.0,)
    torch.testing.assert_close(map_of(model), by_autograd(model))
    given.__code__, given.__defaults__ = changed.__code__, None
    torch.testing.assert_close(map_of(model), by_autograd(model))


def test_folding_is_for_the_shape_or_the_values_that_it_was_traced_at():
    class Paths(nn.Module):
        def __init__(self, by_value):
            super().__init__()
            self.conv, self.by_value = nn.Conv2d(3, 6, 3), by_value
            self.small, self.large = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
            self.large.running_mean += 2

        def forward(self, images):
            small = images.detach().mean() < 0.6 if self.by_value else images.shape[-1] < 10
            norm = self.small if small else self.large
            return torch.tanh(norm(self.conv(images))).sum((2, 3))

    for by_value in (False, True):
        model = Paths(by_value).double().eval()
        others = [IMAGE, IMAGE + 0.5 if by_value else torch.cat([IMAGE, IMAGE], -1)]
        for image in [*others, *others]:
            leaf = image.clone().requires_grad_()
            expected = torch.autograd.grad(copy.deepcopy(model)(leaf)[0, 1], leaf)[0]
            found = explain(model, image, "gradient", 1, score="logit").values
            torch.testing.assert_close(found, expected)


def test_what_a_pass_leaves_in_a_copy_stays_in_the_call():
    class Largest(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.top = nn.Linear(4, 3), 1.0

        def forward(self, rows):
            self.top = max(self.top, float(rows.detach().abs().max()))
            return self.layer(rows / self.top) ** 2

    model, row = Largest().double().eval(), torch.full((1, 4), 0.7).double()
    for scale in (1, 9, 1):
        leaf = (scale * row).requires_grad_()
        expected = torch.autograd.grad(copy.deepcopy(model)(leaf)[0, 1], leaf)[0]
        found = explain(model, scale * row, "gradient", 1, score="logit").values
        torch.testing.assert_close(found, expected)
    assert model.top == 1


def test_no_map_of_views_and_vectors_as_they_were(model):
    vector = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    nn.utils.vector_to_parameters(vector, model.parameters())
    model.loose = model.head.weight.data[0]
    for change in (
        lambda: vector.mul_(1.5),
        lambda: model.conv.weight.data.neg_(),
        lambda: model.head.weight.data.add_(1),
    ):
        torch.testing.assert_close(map_of(model), by_autograd(model))
        change()
        torch.testing.assert_close(map_of(model), by_autograd(model))


def test_equal_models_are_two(model):
    class Equal(Changing):
        __hash__ = lambda self: 7  # noqa: E731
        __eq__ = lambda self, other: True  # noqa: E731

    first, second = Equal().double().eval(), Equal().double().eval()
    for one in (first, second, first):
        torch.testing.assert_close(map_of(one), by_autograd(one))


def test_many_changes_in_a_row(model):
    for _ in range(3):
        for change in ("data.copy_", "step", "attribute", "numpy", "train and back", "item"):
            CHANGES[change](model)
            found = map_of(model)
            torch.testing.assert_close(found, by_autograd(model))


@pytest.fixture
def copies(monkeypatch):
    """Count the copies that are made."""
    made = []
    for where in (module_pool, proof):
        original = where.private_copy
        monkeypatch.setattr(
            where,
            "private_copy",
            lambda *args, f=original, **more: made.append(1) or f(*args, **more),
        )
    return made


def test_an_unchanged_model_is_prepared_once(model, copies):
    last = model.cpu()
    for channels in ("first", "auto"):
        explain(last, IMAGE, "gradient", 1, channels=channels)
    first = len(copies)
    assert 0 < first <= 2
    for _ in range(3):
        explain(last, IMAGE, "gradient", 1)
        explain(last, IMAGE.clone(), "input_x_gradient", 2)
    assert len(copies) == first
    CHANGES["data.copy_"](model)
    explain(last, IMAGE, "gradient", 1)
    assert len(copies) > first


def test_what_a_pass_leaves_in_a_copy_is_not_kept(copies):
    class Hoards(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = nn.Linear(4, 3), []

        def forward(self, rows):
            self.seen.append(rows.detach())
            return self.layer(rows)

    model, row = Hoards().eval(), torch.rand(1, 4)
    explain(model, row, "gradient", 0)
    first = len(copies)
    explain(model, row, "gradient", 0)
    assert len(copies) > first
    assert model.seen == []


@pytest.mark.slow
def test_a_model_is_freed(model):
    explain(model, IMAGE, "gradient", 1)
    reference = weakref.ref(model)
    del model
    gc.collect()
    # The fixture's own reference is gone with the test; here a model that only this test holds.
    mine = Changing().double().eval()
    explain(mine, IMAGE, "gradient", 1)
    references = [weakref.ref(mine), weakref.ref(mine.head), weakref.ref(mine.conv.weight)]
    gc.disable()
    try:
        del mine
        assert [one() for one in references] == [None] * 3, "no cycle keeps it"
    finally:
        gc.enable()
    assert reference() is not None


@pytest.mark.slow
def test_a_model_that_its_layers_refer_to_is_freed_and_works():
    class Watched(Changing):
        def __init__(self):
            super().__init__()
            self.norm.register_forward_hook(self.double_it)

        def double_it(self, module, given, output):
            return output * self.power

    model = Watched().double().eval()
    for _ in range(2):
        torch.testing.assert_close(map_of(model), by_autograd(model))
        model.power += 1
        model.conv.weight.data.mul_(1.1)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.slow
def test_a_model_that_a_hook_names_is_freed(monkeypatch):
    monkeypatch.setitem(globals(), "NAMED", nn.Sequential(nn.Linear(4, 3)).eval())
    NAMED[0].register_forward_hook(lambda module, given, output: output * len(NAMED))  # noqa: F821
    explain(NAMED, torch.rand(1, 4), "gradient", 0)  # noqa: F821
    reference = weakref.ref(NAMED)  # noqa: F821
    monkeypatch.setitem(globals(), "NAMED", None)
    monkeypatch.undo()
    gc.collect()
    assert reference() is None


def test_threads_share_what_was_prepared(model):
    expected = by_autograd(model)
    found, errors = [], []

    def work():
        try:
            found.extend(map_of(model) for _ in range(5))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == 20
    for values in found:
        torch.testing.assert_close(values, expected)


def test_checksums_elsewhere_see_each_value():
    values = torch.rand(300_001, generator=torch.Generator().manual_seed(0))
    before = module_state._weighted_sum(values)
    assert torch.equal(module_state._weighted_sum(values.clone()), before)
    for change in (
        lambda other: other.neg_(),
        lambda other: other[7:9].neg_(),
        lambda other: other.mul_(2),
        lambda other: other[300_000:].add_(1),
        lambda other: other.copy_(other.flip(0)),
    ):
        other = values.clone()
        change(other)
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            one, two = (module_state._weighted_sum(each.to(dtype)) for each in (values, other))
            assert one != two


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.complex64]
)
def test_a_checksum_sees_each_value(dtype):
    class Holder(nn.Module):
        pass

    holder = Holder()
    holder.values = (
        torch.rand(70_001).to(dtype) if dtype != torch.int8 else torch.zeros(70_001, dtype=dtype)
    )
    state = ModuleState(holder)
    state.note_values(nn.Identity())
    assert state.is_that_of(holder)
    for place in (0, 65_535, 65_536, 70_000):
        before = holder.values[place].clone()
        holder.values.data[place] = 1 - before.to(torch.int8) if dtype == torch.bool else before + 1
        assert not state.is_that_of(holder)
        holder.values.data[place] = before
        assert state.is_that_of(holder)


def test_a_plan_is_dropped_with_its_model(model):
    explain(model, IMAGE, "gradient", 1)
    assert model in plan_cache._REMEMBERED
    assert unilens.explain(model, IMAGE, "gradient", 1) is not None
