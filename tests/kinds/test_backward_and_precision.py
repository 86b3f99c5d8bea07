"""Errors in the backward pass, and models in several precisions."""

import subprocess
import sys

import numpy
import pytest
import torch
from torch import nn

import unilens

from . import by_hand
from .by_hand import BLACK_BOX, NEEDS_GRADIENT, PICTURES, SETTINGS, close
from .by_hand import SmallNet as Net

# Kind I: the forward pass is right, the backward pass fails.


class InPlaceAfterSigmoid(Net):
    def middle(self, hidden):
        return hidden.sigmoid().mul_(2)


class InPlaceAfterExponential(Net):
    def middle(self, hidden):
        grown = hidden.exp()
        grown[:, 0] = 0
        return grown


class RaisesBackward(Net):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden):
            return hidden * 2

        @staticmethod
        def backward(ctx, gradient):
            raise NotImplementedError("use the other kernel\nsee its page")

    def middle(self, hidden):
        return self.Function.apply(hidden)


class WithoutBackward(RaisesBackward):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden):
            return hidden * 2


class WrongShapeBackward(RaisesBackward):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden):
            return hidden * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient[:, :1, :1]


class ByNumpy(Net):
    def middle(self, hidden):
        return torch.from_numpy(numpy.sqrt(hidden.detach().numpy()))


class ByNumpyWithoutDetach(Net):
    """Runs under no_grad, and raises where anything takes a gradient."""

    def middle(self, hidden):
        return torch.from_numpy(numpy.sqrt(hidden.numpy()))


class WithoutGradients(Net):
    @torch.no_grad()
    def forward(self, inputs):
        return super().forward(inputs)


class InInferenceMode(Net):
    def middle(self, hidden):
        with torch.inference_mode():
            return hidden * 2


class UsesItsGraphTwice(Net):
    """Differentiates on its own, and leaves no graph behind."""

    def middle(self, hidden):
        with torch.enable_grad():
            leaf = hidden.detach().requires_grad_()
            torch.autograd.grad((leaf**2).sum(), leaf)
        grown = hidden.exp()
        if grown.requires_grad:
            torch.autograd.grad(grown.sum(), hidden)  # frees what the backward pass needs
        return grown


BACKWARDS = [
    *(InPlaceAfterSigmoid, InPlaceAfterExponential, RaisesBackward, WithoutBackward),
    *(WrongShapeBackward, ByNumpy, WithoutGradients, UsesItsGraphTwice),
]
FORWARD_ONLY = [ByNumpyWithoutDetach, InInferenceMode]


@pytest.mark.parametrize("kind", BACKWARDS, ids=lambda kind: kind.__name__)
def test_failing_way_back_is_refused_in_one_line(kind):
    for method in NEEDS_GRADIENT:
        line = by_hand.refusal(kind(), PICTURES, method)
        no_rule = method == "deeplift" and "no rule" in line  # refused before the backward pass
        assert no_rule or "occlusion, rise or sobol" in line, method


@pytest.mark.parametrize("kind", BACKWARDS, ids=lambda kind: kind.__name__)
def test_methods_without_gradients_need_no_way_back(kind):
    one_by_one = OneByOne(kind())
    with torch.no_grad():
        right = one_by_one(PICTURES)
    for method in BLACK_BOX:
        found, expected = (by_hand.explain(each, PICTURES, method) for each in both(kind()))
        close(found, expected, 1e-4, method)
    assert unilens.explain(kind(), PICTURES, "occlusion").outputs.allclose(right, atol=1e-5)
    for metric in by_hand.METRICS:
        found, expected = (by_hand.evaluate(each, PICTURES, metric) for each in both(kind()))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", FORWARD_ONLY, ids=lambda kind: kind.__name__)
def test_way_forward_that_takes_no_gradient(kind):
    for method in SETTINGS:
        try:
            found = by_hand.explain(kind(), PICTURES, method)
        except unilens.UnilensError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either is right
        else:
            assert method in BLACK_BOX
            close(found, by_hand.explain(OneByOne(kind()), PICTURES, method), 1e-4, method)


class OverwritesItsInput(Net):
    def forward(self, inputs):
        inputs.sub_(0.5)
        inputs[..., 0, 0].mul_(2)
        return super().forward(inputs)


class OverwritesAView(Net):
    def forward(self, inputs):
        inputs.flatten(1)[:, :5].clamp_(0.2, 0.8)
        return super().forward(inputs)


class OnACopy(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, inputs):
        return self.model(inputs.clone())


@pytest.mark.parametrize("kind", [OverwritesItsInput, OverwritesAView])
def test_model_that_overwrites_its_input(kind):
    before = PICTURES.clone()
    methods = set(SETTINGS) - {"deeplift"}
    by_hand.assert_like_plain(kind(), OnACopy(kind()), PICTURES, methods, rtol=1e-4)
    assert torch.equal(PICTURES, before)


class OneByOne(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, inputs):
        return torch.cat([self.model(row) for row in inputs.split(1)])


def both(model):
    return model, OneByOne(model)


# Kind J: precisions inside and outside.


def half():
    return Net().half()


def bfloat16():
    return Net().bfloat16()


class HalfTable(Net):
    """A table in half precision beside a head in single."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.rand(4).half())

    def middle(self, hidden):
        return hidden + self.table.float()[:, None, None]


class HalfInside(Net):
    def __init__(self, dtype=torch.bfloat16):
        super().__init__()
        self.dtype = dtype
        self.conv.to(dtype)

    def forward(self, inputs):
        hidden = self.act(self.conv(inputs.to(self.dtype))).float()
        return self.head(8 * hidden.mean((2, 3)))


class AutocastInside(Net):
    def forward(self, inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(inputs)


class HalfOutputs(Net):
    def forward(self, inputs):
        return super().forward(inputs).half()


def float64():
    return Net().double()


class DoubleHead(Net):
    def __init__(self):
        super().__init__()
        self.head.double()

    def middle(self, hidden):
        return hidden.double()


PRECISIONS = [
    half,
    bfloat16,
    HalfTable,
    HalfInside,
    AutocastInside,
    HalfOutputs,
    float64,
    DoubleHead,
]
TOLERANCE = {HalfTable: 1e-4, float64: 1e-4, DoubleHead: 1e-4}


class InItsOwn(nn.Module):
    """Single precision outside, whatever a model's own is."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, inputs):
        return self.model(inputs.to(self.model.conv.weight.dtype)).float()


@pytest.mark.parametrize("make", PRECISIONS, ids=lambda make: make.__name__)
def test_precision_of_the_model_is_kept(make):
    model, tolerance = make(), TOLERANCE.get(make, 3e-2)
    called = InItsOwn(make()) if make not in (HalfInside,) else make()
    right = by_hand.integrated_gradients(called, PICTURES)
    close(by_hand.explain(model, PICTURES, "ig"), right, tolerance, "ig")
    right = by_hand.gradient(called, PICTURES)
    close(by_hand.explain(model, PICTURES, "gradient"), right, tolerance, "gradient")
    single = Net()
    for part, own in zip(single.parameters(), Net.parameters(make()), strict=False):
        part.data = own.data.float()
    for method in ("gradcam", "guided_backprop", "occlusion", "rise", "sobol"):
        found = by_hand.explain(model, PICTURES, method)
        close(found, by_hand.explain(called, PICTURES, method), tolerance, method)
    for method in ("uni_blur", "deeplift"):
        try:
            found = by_hand.explain(model, PICTURES, method)
        except unilens.UnilensError as error:
            assert "precision" in str(error) or "float" in str(error)  # noqa: PT017
        else:
            assert found.isfinite().all(), method


@pytest.mark.slow
@pytest.mark.parametrize("dtypes", [("float64", "float32"), ("float32", "float64")], ids=str)
def test_inputs_of_another_precision(dtypes):
    model_dtype, inputs_dtype = (getattr(torch, name) for name in dtypes)
    model, inputs = Net().to(model_dtype), PICTURES.to(inputs_dtype)
    right = by_hand.integrated_gradients(Net().double(), PICTURES.double())
    for method in SETTINGS:
        found = by_hand.explain(model, inputs, method)
        assert found.is_floating_point()
        plain = by_hand.explain(Net().double(), PICTURES.double(), method)
        close(found.double(), plain, 1e-3, method)
    close(by_hand.explain(model, inputs, "ig").double(), right, 1e-4, "ig")
    for metric in by_hand.METRICS:
        found = by_hand.evaluate(model, inputs, metric)
        plain = by_hand.evaluate(Net().double(), PICTURES.double(), metric)
        torch.testing.assert_close(found.double(), plain.double(), rtol=1e-4, atol=1e-4)


DEFAULT = """
import torch, unilens
from tests.kinds import by_hand
from tests.kinds.test_backward_and_precision import Net, PICTURES
model = Net()  # in single precision, as loaded ones are
torch.set_default_dtype(torch.float64)
try:
    for method in by_hand.SETTINGS:
        found = by_hand.explain(model, PICTURES, method)
        assert found.dtype == torch.float32, (method, found.dtype)
        torch.save(found, FOLDER + method)
    right = by_hand.integrated_gradients(model, PICTURES)
    by_hand.close(by_hand.explain(model, PICTURES, "ig"), right, 1e-4, "ig")
    assert torch.get_default_dtype() == torch.float64
    double = Net()
    assert by_hand.explain(double, PICTURES.double(), "uni_blur").isfinite().all()
    for metric in by_hand.METRICS:
        assert by_hand.evaluate(model, PICTURES, metric).isfinite().all()
finally:
    torch.set_default_dtype(torch.float32)
"""


@pytest.mark.slow
def test_another_default_dtype(tmp_path):
    code = f"FOLDER = {str(tmp_path) + '/'!r}\n" + DEFAULT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for method in SETTINGS:
        found = torch.load(tmp_path / method)
        close(found, by_hand.explain(Net(), PICTURES, method), 1e-3, method)
