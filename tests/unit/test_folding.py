import copy

import pytest
import timm
import torch
from torch import nn

from unilens._engine.copying import private_copy
from unilens._engine.evaluator import Evaluator
from unilens._engine.folding import fold_batch_norms

from ..conftest import randomise


def norms(module):
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def folded(model, inputs):
    """A private copy with its norms folded, and how many were."""
    made = private_copy(model)
    return made, len(fold_batch_norms(made, lambda: made(inputs)))


def gradient(model, inputs):
    leaf = inputs.clone().requires_grad_()
    outputs = model(leaf)
    return torch.autograd.grad(outputs.pow(2).sum(), leaf)[0], outputs.detach()


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_050"])
def test_real_networks_stay_the_same_function_with_no_norm_left(name):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).double().eval()
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    inputs = torch.rand(2, 3, 64, 64).double()
    fast, count = folded(model, inputs)
    assert count == norms(model) > 15
    for got, expected in zip(gradient(fast, inputs), gradient(model, inputs), strict=True):
        assert float((got - expected).abs().max()) < 1e-11 * float(expected.abs().max())


def test_one_dimension_and_a_norm_without_weights():
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4, affine=False), nn.Tanh(), nn.Flatten()
    )
    randomise(model.double())
    inputs = torch.rand(3, 2, 9).double()
    fast, count = folded(model, inputs)
    assert count == 1
    assert torch.allclose(fast(inputs), model(inputs), atol=1e-12)


class Shared(nn.Module):
    """One convolution under two norms: folding either into it would be wrong."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, inputs):
        return self.second(self.conv(self.first(self.conv(inputs)))).mean((2, 3))


class Branching(nn.Module):
    """The convolution's output is used beside the norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs):
        hidden = self.conv(inputs)
        return (self.norm(hidden) + hidden).mean((2, 3))


class BatchStatistics(nn.Module):
    """A norm that uses the batch's own statistics in eval mode too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, inputs):
        return self.norm(self.conv(inputs)).amax((2, 3))


class Standardised(nn.Conv2d):
    """Changes its weights on the fly, so that folding into them does not work."""

    def forward(self, inputs):
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return nn.functional.conv2d(inputs, weight, self.bias)


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs):
        hidden = self.norm(self.conv(inputs))
        return hidden.mean((2, 3)) if hidden.sum() > 0 else -hidden.mean((2, 3))


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class OwnGradient(nn.Module):
    """A trace would go through the custom function and lose its backward."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, inputs):
        return _Reversed.apply(self.norm(self.conv(inputs)).mean((2, 3)))


class Hooked(Branching):
    """A backward hook on a part with children, which a trace would lose."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.inner.register_full_backward_hook(lambda part, given, taken: (2 * given[0],))

    def forward(self, inputs):
        return self.inner(inputs).mean((2, 3))


MODELS = [
    OwnGradient(),
    Hooked(),
    Shared(),
    Branching(),
    BatchStatistics(),
    nn.Sequential(Standardised(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten()),
    DataDependent(),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_every_model_keeps_its_outputs_and_gradients(model, images):
    randomise(model.double())
    before = copy.deepcopy(model.state_dict())
    found = Evaluator(model).differentiate(images[None], lambda out, rows: out.pow(2).sum(1))
    alone = [gradient(model, image) for image in images.split(1)]
    for ours, theirs in ((found.gradients[0], 0), (found.outputs[0], 1)):
        expected = torch.cat([pair[theirs] for pair in alone])
        assert float((ours - expected).abs().max()) <= 1e-9 * float(expected.abs().max())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("model", [Shared(), Branching()], ids=lambda model: type(model).__name__)
def test_a_convolution_with_other_uses_is_not_folded(model, images):
    randomise(model.double())
    fast, count = folded(model, images)
    assert count == 0
    assert torch.equal(fast(images), model(images))


def test_a_hook_on_a_part_keeps_its_effect_whenever_it_has_one(small_net, images):
    small_net.bn1.register_forward_hook(lambda part, given, output: output.clamp(max=1.0))
    inputs = torch.cat([images[:1] * 0, images * 9])
    assert torch.allclose(Evaluator(small_net)(inputs), small_net(inputs))


def test_a_hook_on_the_whole_model_is_not_lost(small_net, images):
    small_net.register_forward_hook(lambda module, inputs, output: output * 3)
    plain = small_net(images)
    assert torch.allclose(Evaluator(small_net)(images), plain)
