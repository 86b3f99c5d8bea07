"""Grad-CAM: against captum and by hand, and the layers it finds."""

import pytest
import timm
import torch
from captum.attr import GuidedGradCam, LayerAttribution, LayerGradCam
from torch import nn
from torch.nn.functional import interpolate

from unilens import Evaluator, UnknownNameError, explain
from unilens.errors import NotApplicableError
from unilens.methods import GuidedGradCAM

from ..conftest import randomise


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", [None, "conv1", "conv2"])
def test_gradcam_equals_captum(small_net, images, layer, relu):
    found = explain(small_net, images, "gradcam", layer=layer, relu=relu)
    assert found.provenance["layers"] == [layer or "bn2"] * 8
    theirs = LayerGradCam(
        lambda given: small_net(given).softmax(-1), small_net.get_submodule(layer or "bn2")
    ).attribute(images, target=found.target, relu_attributions=relu)
    theirs = LayerAttribution.interpolate(theirs, (13, 11), interpolate_mode="bilinear")
    assert torch.allclose(found.values.sum(1), theirs[:, 0].detach(), rtol=0, atol=1e-13)
    assert torch.equal(found.values[:, 0], found.values[:, 2])


def by_hand(channels, rest, target):
    """Return the map (1, 1, h, w) of channels (1, D, h, w), from the logits that the rest gives."""
    leaf = channels.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(rest(leaf)[0, target], leaf)
    return sum(
        gradient[0, d].mean() * channels[:, d : d + 1] for d in range(channels.shape[1])
    ).detach()


def assert_is_map(found, cam):
    expected = interpolate(cam, found.values.shape[2:], mode="bilinear")[:, 0]
    assert float(expected.abs().max()) > 0
    assert torch.allclose(found.values.sum(1), expected, rtol=0, atol=1e-9 * expected.abs().max())


@pytest.fixture(scope="module")
def photograph():
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224").double().eval()


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
def test_gradcam_uses_tokens_of_vision_transformer(transformer, photograph, fused):
    for block in transformer.blocks:
        block.attn.fused_attn = fused  # without, dropout sees maps of attention, 197 x 197
    found = explain(transformer, photograph, "gradcam", 3, relu=False, score="logit")
    assert found.provenance["layers"] == ["blocks.11.norm1"]
    before, last = transformer._pos_embed(transformer.patch_embed(photograph)), -1
    before = transformer.blocks[:last](before).detach()
    normed = transformer.blocks[last].norm1(before).detach()

    def rest(grid):
        tokens = torch.cat([normed[:, :1], grid.flatten(2).transpose(1, 2)], 1)
        block = transformer.blocks[last]
        hidden = before + block.attn(tokens)
        hidden = hidden + block.mlp(block.norm2(hidden))
        return transformer.head(transformer.norm(hidden)[:, 0])

    assert_is_map(
        found, by_hand(normed[:, 1:].transpose(1, 2).unflatten(2, (14, 14)), rest, target=3)
    )


def test_gradcam_takes_named_block_of_vision_transformer(transformer, photograph):
    found = explain(
        transformer, photograph, "gradcam", 3, relu=False, score="logit", layer="blocks.5"
    )
    hidden = transformer._pos_embed(transformer.patch_embed(photograph))
    hidden = transformer.blocks[:6](hidden).detach()

    def rest(grid):
        tokens = torch.cat([hidden[:, :1], grid.flatten(2).transpose(1, 2)], 1)
        return transformer.head(transformer.norm(transformer.blocks[6:](tokens))[:, 0])

    assert_is_map(
        found, by_hand(hidden[:, 1:].transpose(1, 2).unflatten(2, (14, 14)), rest, target=3)
    )


@pytest.mark.slow
def test_gradcam_uses_channels_last_grid_of_swin(photograph):
    torch.manual_seed(0)
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)).double().eval()
    found = explain(swin, photograph, "gradcam", 3, relu=False, score="logit")
    assert found.provenance["layers"] == ["norm"]
    grid = swin.forward_features(photograph).detach().movedim(-1, 1)
    assert grid.shape == (1, 768, 7, 7)
    assert_is_map(found, by_hand(grid, lambda leaf: swin.head(leaf.movedim(1, -1)), target=3))


class Tokens(nn.Module):
    """Tokens (1, prefix + 12, 8) of images (1, 3, 12, 16), and their mean as the class."""

    def __init__(self, prefix):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8)
        self.wide, self.head = nn.Linear(8, 16), nn.Linear(16, 5)
        self.first = nn.Parameter(torch.zeros(1, prefix, 8))

    def forward(self, inputs):
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([self.first.expand(len(inputs), -1, -1), tokens], 1))
        return self.head(torch.tanh(self.wide(tokens)).mean(1))


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_gradcam_counts_prefix_tokens(prefix):
    model = randomise(Tokens(prefix).double())
    inputs = torch.rand(1, 3, 12, 16).double()
    found = explain(model, inputs, "gradcam", 1, relu=False, score="logit")
    assert found.provenance["layers"] == ["norm"]
    tokens = model.patches(inputs).flatten(2).transpose(1, 2)
    normed = model.norm(torch.cat([model.first, tokens], 1)).detach()

    def rest(grid):
        tokens = torch.cat([normed[:, :prefix], grid.flatten(2).transpose(1, 2)], 1)
        return model.head(torch.tanh(model.wide(tokens)).mean(1))

    grid = normed[:, prefix:].transpose(1, 2).unflatten(2, (3, 4))
    assert_is_map(found, by_hand(grid, rest, target=1))


def test_gradcam_reads_layer_before_it_is_overwritten():
    def network(inplace):
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        return randomise(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace), *head).double())

    inputs = torch.rand(2, 3, 9, 9).double()
    expected, found = (
        explain(network(inplace), inputs, "gradcam", layer="0", relu=False)
        for inplace in (False, True)
    )
    assert torch.equal(found.values, expected.values)
    assert float(found.values.abs().max()) > 0


def test_gradcam_takes_signals():
    convolutions = nn.Sequential(nn.Conv1d(2, 4, 3, stride=2), nn.Tanh())
    head = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    model = randomise(nn.Sequential(convolutions, head).double())
    signals = torch.rand(1, 2, 11).double()
    found = explain(model, signals, "gradcam", 0, relu=False, score="logit")
    assert found.provenance["layers"] == ["0"]
    cam = by_hand(convolutions(signals), head, target=0)
    expected = interpolate(cam, 11, mode="linear")
    assert torch.allclose(found.values.sum(1), expected[:, 0], rtol=0, atol=1e-13)


def test_gradcam_is_zero_for_constant_score(small_net, images):
    small_net.head.weight.data *= 1e6
    found = explain(small_net, images[:2], "gradcam")
    assert torch.equal(found.values, torch.zeros_like(found.values))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(429, 6), nn.Tanh(), nn.Linear(6, 3)).eval()


def test_gradcam_ignores_module_with_one_number(small_net, images):
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.temperature = small_net, Temperature()

        def forward(self, inputs):
            return self.net(inputs) / self.temperature(inputs)

    class Temperature(nn.Module):
        def forward(self, inputs):
            return inputs.new_ones(())

    found = explain(Tempered().eval(), images, "gradcam")
    assert torch.allclose(found.values, explain(small_net, images, "gradcam").values)


def test_gradcam_refuses_models_without_spatial_grid(images):
    with pytest.raises(NotApplicableError, match="this model has none; use method='ig'") as caught:
        explain(mlp(), images.float(), "gradcam")
    assert "\n" not in str(caught.value)
    with pytest.raises(NotApplicableError, match=r"Grad-CAM expects images .* got \(1, 6\)"):
        explain(nn.Linear(6, 3).eval(), torch.rand(2, 6), "gradcam")


def test_gradcam_names_layers_that_do_not_fit(small_net, images):
    with pytest.raises(UnknownNameError, match="unknown layer 'conv3'; did you mean conv2"):
        explain(small_net, images, "gradcam", layer="conv3")
    with pytest.raises(NotApplicableError, match=r"'head' gave shape \(1, 5\); name another"):
        explain(small_net, images, "gradcam", layer="head")
    small_net.unused = nn.Conv2d(3, 3, 1).eval()
    with pytest.raises(NotApplicableError, match="'unused' gave nothing: it did not run"):
        explain(small_net, images, "gradcam", layer="unused")


def rectified():
    """A network that both guided backpropagation and Grad-CAM apply to."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), *head)
    return randomise(model.double())


@pytest.mark.filterwarnings("ignore:Setting .*hooks")
def test_guided_gradcam_is_product_of_gradcam_and_guided_backprop(images):
    model, guided = rectified(), GuidedGradCAM(layer="2", score="margin")
    found = guided(model, images)
    cam = explain(model, images, "gradcam", layer="2", score="margin")
    backprop = explain(model, images, "guided_backprop", score="margin")
    expected = backprop.values * 3 * cam.values[:, :1]
    assert torch.allclose(found.values, expected, rtol=1e-12, atol=0)
    assert float(found.values.abs().max()) > 0
    assert guided.passes == (3, 2)
    assert found.provenance["passes"] == {"forward": 3, "backward": 2}
    assert found.provenance["method"] == "GuidedGradCAM"
    assert found.provenance["layers"] == ["2"] * 8
    assert found.provenance["settings"]["layer"] == "2"


def test_guided_gradcam_needs_both_methods(images):
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    smooth = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), *head).eval()
    with pytest.raises(NotApplicableError, match="ReLU"):
        GuidedGradCAM().check(Evaluator(smooth), images.float())
    flat = nn.Sequential(nn.Flatten(), nn.Linear(429, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with pytest.raises(NotApplicableError, match="this model has none"):
        GuidedGradCAM().check(Evaluator(flat), images.float())


@pytest.mark.filterwarnings("ignore:Setting .*hooks")
def test_guided_gradcam_equals_captum():
    model = rectified()
    inputs = torch.rand(2, 3, 12, 10).double()
    found = explain(model, inputs, "guided_gradcam", layer="2", score="logit")
    theirs = GuidedGradCam(model, model[2]).attribute(
        inputs.clone().requires_grad_(), target=found.target, interpolate_mode="bilinear"
    )
    theirs = theirs.detach()
    assert float(theirs.abs().max()) > 0
    assert torch.allclose(found.values, theirs, rtol=1e-9, atol=1e-15)
