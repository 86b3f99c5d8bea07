"""Attention methods, against the papers' formulas written out slowly, and what they refuse."""

import functools

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn
from torch.nn import functional
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from unilens import Evaluator, explain
from unilens._engine import attention as recorder
from unilens._engine.attention import plain_attention
from unilens._engine.blocks import record_attention, record_blocks
from unilens.errors import NotApplicableError, UnilensError
from unilens.methods.attention.tokens import token_grid
from unilens.text import TextClassifier, explain_text

from ..conftest import randomise
from ..text_models import tiny, tiny_tokenizer
from ..vit_models import (
    Block,
    FusedAttention,
    HandWrittenAttention,
    ModuleAttention,
    SummedAttention,
    TinyViT,
)

METHODS = ("rollout", "gradient_rollout", "legrad")
every_method = pytest.mark.parametrize("method", METHODS)
ATTENTIONS = {
    "by hand": HandWrittenAttention,
    "fused": FusedAttention,
    "einsum": SummedAttention,
    "module": ModuleAttention,
    "module with weights": functools.partial(ModuleAttention, need_weights=True),
}


def vit(**settings):
    return randomise(TinyViT(**settings).double())


def images(*size, count=2):
    generator = torch.Generator().manual_seed(4)
    return torch.rand(count, 3, *(size or (8, 12)), generator=generator).double()


def replayed(model, image):
    """Return the pass of a TinyViT at one image with its weights as leaves, block by block.

    For each block: the weights `(H, N, N)`, and the tokens from given weights.
    """
    tokens, weights, after = model.embedded(image), [], []
    for block in model.blocks:
        attn, given = block.attn, block.norm1(tokens)
        rows, length = given[0], given.shape[1]
        width = rows.shape[1] // attn.heads
        split = attn.qkv(rows).reshape(length, 3, attn.heads, width)
        own = torch.stack(
            [
                (split[:, 0, head] @ split[:, 1, head].T / width**0.5).softmax(-1)
                for head in range(attn.heads)
            ]
        )
        if not own.requires_grad:
            own.requires_grad_()
        mixed = torch.cat([own[head] @ split[:, 2, head] for head in range(attn.heads)], 1)
        tokens = tokens + attn.proj(mixed)[None]
        tokens = tokens + block.mlp(block.norm2(tokens))
        weights.append(own)
        after.append(tokens)
    return weights, after


def rollout_by_hand(model, image, target, rows):
    weights, _ = replayed(model, image)
    count = weights[0].shape[-1]
    total = torch.eye(count).double()
    for own in weights:
        mean = sum(own[head] for head in range(len(own))) / len(own)
        total = (0.5 * mean + 0.5 * torch.eye(count)) @ total
    return total[rows].mean(0)


def gradient_rollout_by_hand(model, image, target, rows):
    weights, after = replayed(model, image)
    slopes = torch.autograd.grad(model.tail(after[-1])[0, target], weights)
    total = torch.eye(weights[0].shape[-1]).double()
    for own, slope in zip(weights, slopes, strict=True):
        heads = [(own[head] * slope[head]).clamp(min=0) for head in range(len(own))]
        total = total + sum(heads) / len(heads) @ total
    return total[rows].mean(0)


def legrad_by_hand(model, image, target, rows):
    weights, after = replayed(model, image)
    total = 0
    for own, tokens in zip(weights, after, strict=True):
        (slope,) = torch.autograd.grad(model.tail(tokens)[0, target], own, retain_graph=True)
        total = total + slope.clamp(min=0).sum((0, 1)) / (slope.shape[0] * slope.shape[1])
    return total


BY_HAND = {
    "rollout": rollout_by_hand,
    "gradient_rollout": gradient_rollout_by_hand,
    "legrad": legrad_by_hand,
}


def enlarged(by_token, image, grid, prefix=1):
    cam = by_token[prefix:].detach().reshape(1, 1, *grid)
    return interpolate(cam, image.shape[2:], mode="bilinear")[0, 0]


@every_method
@pytest.mark.parametrize(
    ("attention", "pool", "rows"),
    [
        ("by hand", "class", [0]),
        ("fused", "class", [0]),
        ("fused", "mean", slice(7)),
        ("einsum", "patches", slice(1, 7)),
    ],
)
def test_attention_methods_equal_their_formulas(method, attention, pool, rows):
    model, x = vit(attention=ATTENTIONS[attention], pool=pool), images()
    model.requires_grad_()
    found = explain(model, x, method, [3, 1])
    for index, target in enumerate((3, 1)):
        by_token = BY_HAND[method](model, x[index : index + 1], target, rows)
        expected = enlarged(by_token, x, (2, 3))
        assert float(expected.abs().max()) > 0
        scale = float(expected.abs().max())
        assert float((found.values[index].sum(0) - expected).abs().max()) < 1e-10 * scale
        assert torch.equal(found.values[index, 0], found.values[index, 2])
    assert found.provenance["blocks"] == ["blocks.0", "blocks.1", "blocks.2"]
    assert found.provenance["tokens"] == 7


@pytest.mark.slow
def test_provenance_names_the_rows():
    taken = {
        pool: explain(vit(pool=pool), images(count=1), "rollout").provenance["rows"]
        for pool in ("class", "mean", "patches")
    }
    assert taken == {
        "class": ["token 0"],
        "mean": ["mean of all 7 tokens"],
        "patches": ["mean of 6 of 7 tokens"],
    }


@pytest.mark.slow
@every_method
def test_attention_methods_take_any_way_to_compute_attention(method):
    """The weights of torch's module are loaded from the model written by hand."""
    x, first = images(), vit(attention=HandWrittenAttention)
    expected = explain(first, x, method, 2).values
    state = {
        name.replace("attn.qkv.weight", "attn.inner.in_proj_weight")
        .replace("attn.qkv.bias", "attn.inner.in_proj_bias")
        .replace("attn.proj", "attn.inner.out_proj"): value
        for name, value in first.state_dict().items()
    }
    for attention in ("module", "module with weights"):
        model = TinyViT(attention=ATTENTIONS[attention]).double().eval()
        model.load_state_dict(state)
        found = explain(model, x, method, 2).values
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12 * float(expected.max()))


@pytest.mark.slow
@every_method
def test_score_is_what_the_map_explains(method):
    model, x = vit(), images(count=1)
    logit, margin = (explain(model, x, method, 1, score=score) for score in ("logit", "margin"))
    assert torch.allclose(logit.score, model(x)[:, 1].detach())
    assert torch.equal(logit.values, margin.values) == (method == "rollout")
    others = [explain(model, x, method, target).values for target in (0, 2)]
    assert torch.equal(*others) == (method == "rollout")


# the weights themselves


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_recorded_weights_are_those_by_hand(attention):
    model, x = vit(attention=ATTENTIONS[attention]), images()
    found = record_attention(Evaluator(model), x)
    assert list(found) == ["blocks.0", "blocks.1", "blocks.2"]
    tokens = model.embedded(x)
    for block, weights in zip(model.blocks, found.values(), strict=True):
        given = block.norm1(tokens)
        if attention.startswith("module"):
            _, expected = block.attn.inner(given, given, given, average_attn_weights=False)
        else:
            q, k, _ = block.attn.qkv(given).reshape(2, 7, 3, 3, 4).permute(2, 0, 3, 1, 4)
            expected = (q @ k.mT / 2).softmax(-1)
        assert weights.shape == (2, 3, 7, 7)
        assert torch.allclose(weights, expected.detach(), rtol=0, atol=1e-12)
        tokens = block(tokens)


def test_recorded_weights_are_timms():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **SMALL_TIMM).double().eval()
    x = images(32, 32, count=1)
    found = record_attention(Evaluator(model), x)
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    for block, weights in zip(model.blocks, found.values(), strict=True):
        attn = block.attn
        qkv = attn.qkv(block.norm1(tokens)).reshape(1, 17, 3, attn.num_heads, attn.head_dim)
        q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        expected = ((q * attn.scale) @ k.transpose(-2, -1)).softmax(-1)
        assert torch.allclose(weights, expected.detach(), rtol=0, atol=1e-12)
        tokens = block(tokens)


SMALL_TIMM = {
    **{"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3},
    "num_classes": 5,
}
SMALL = {
    **{"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"intermediate_size": 32, "image_size": 32, "patch_size": 8},
}


class Logits(nn.Module):
    """The logits of a network of transformers."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        return self.network(pixels).logits


def of_transformers(name):
    torch.manual_seed(0)
    if name == "CLIP":
        config = transformers.CLIPConfig(vision_config=SMALL | {"projection_dim": 16})
    elif name == "Siglip":
        config = transformers.SiglipConfig(vision_config=SMALL)
    else:
        config = getattr(transformers, f"{name}Config")(**SMALL)
    return getattr(transformers, f"{name}ForImageClassification")(config).double().eval()


@pytest.mark.parametrize("name", ["ViT", "Dinov2WithRegisters"])
def test_recorded_weights_are_those_of_transformers_vision(name):
    network, x = of_transformers(name), images(32, 32)
    found = record_attention(Evaluator(Logits(network).eval()), x)
    network.set_attn_implementation("eager")
    expected = network(x, output_attentions=True).attentions
    assert len(found) == len(expected) == 2
    for weights, own in zip(found.values(), expected, strict=True):
        assert torch.allclose(
            weights, own.detach(), rtol=0, atol=1e-7
        )  # their softmax is in float32


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("architecture", ["Bert", "Roberta", "GPT2", "Llama"])
def test_recorded_weights_are_those_of_transformers_text(architecture, eager):
    network, tokenizer = tiny(architecture), tiny_tokenizer()
    if eager:
        network.set_attn_implementation("eager")
    text = "the film was not very good"
    encoded = TextClassifier(network, tokenizer).encode(text)
    found = record_attention(Evaluator(encoded.model, channels="first"), encoded.embeddings)
    network.set_attn_implementation("eager")
    expected = network(**tokenizer(text, return_tensors="pt"), output_attentions=True).attentions
    assert len(found) == len(expected) > 0
    for weights, own in zip(found.values(), expected, strict=True):
        assert torch.allclose(weights, own.detach(), rtol=0, atol=1e-7)
        assert torch.allclose(weights.sum(-1), torch.ones(()).double())


# libraries


def timm_vit(**more):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **SMALL_TIMM, **more)


def spread(model):
    """Give the weights enough spread that the outputs depend on them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=generator).to(value)
    return model.double().eval()


LIBRARIES = {
    "timm": (timm_vit, "token 0", 1),
    "timm, mean": (lambda: timm_vit(global_pool="avg"), "mean of 16 of 17 tokens", 1),
    "timm, registers": (lambda: timm_vit(reg_tokens=4), "token 0", 5),
    "timm, distilled": (
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", **SMALL_TIMM),
        "mean of tokens 0, 1",
        2,
    ),
    "torchvision": (
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 3, 24, 32, num_classes=5),
        "token 0",
        1,
    ),
    "ViT": (lambda: Logits(of_transformers("ViT")), "token 0", 1),
    "DeiT": (lambda: Logits(of_transformers("DeiT")), "token 0", 2),
    "DINOv2 with registers": (
        lambda: Logits(of_transformers("Dinov2WithRegisters")),
        "mean of 17 of 21 tokens",
        5,
    ),
    "CLIP": (lambda: Logits(of_transformers("CLIP")), "mean of 16 of 17 tokens", 1),
    "SigLIP": (lambda: Logits(of_transformers("Siglip")), "mean of all 16 tokens", 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_networks_of_libraries_in_a_batch_and_alone(library):
    build, rows, prefix = LIBRARIES[library]
    model, x = spread(build()), images(32, 32)
    weights = record_attention(Evaluator(model), x)
    assert {own.shape[-1] for own in weights.values()} == {16 + prefix}
    for method in METHODS:
        found = explain(model, x, method, 1)
        alone = explain(model, x[1:], method, 1)
        assert torch.equal(found.values[1:], alone.values)
        assert float(found.values.min()) >= 0
        assert float(found.values.max()) > 0
        assert found.provenance["tokens"] == 16 + prefix
        if method != "legrad":
            assert found.provenance["rows"] == [rows, rows]
    total = torch.eye(16 + prefix).double()
    for own in weights.values():
        total = (own[1].mean(0) + torch.eye(16 + prefix)) / 2 @ total
    tokens = {"token 0": [0], "mean of tokens 0, 1": [0, 1]}.get(rows)
    if tokens is not None:
        expected = enlarged(total[tokens].mean(0), x, (4, 4), prefix)
        found = explain(model, x, "rollout", 1).values[1].sum(0)
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_legrad_of_a_library_network_equals_its_blocks_by_hand():
    """Hooks and `retain_grad` alone: the gradient of each block's own score, one by one."""
    model, x = spread(timm_vit()), images(32, 32, count=1)
    found = explain(model, x, "legrad", 2).values[0].sum(0)
    total = 0
    for last in range(3):
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(x)))
        for block in model.blocks[:last]:
            tokens = block(tokens)
        block, attn = model.blocks[last], model.blocks[last].attn
        qkv = attn.qkv(block.norm1(tokens)).reshape(1, 17, 3, 3, 8).permute(2, 0, 3, 1, 4)
        weights = ((qkv[0] * attn.scale) @ qkv[1].transpose(-2, -1)).softmax(-1).detach()
        weights.requires_grad_()
        mixed = (weights @ qkv[2]).transpose(1, 2).reshape(1, 17, 24)
        tokens = tokens + attn.proj(mixed)
        tokens = tokens + block.mlp(block.norm2(tokens))
        (slope,) = torch.autograd.grad(model.forward_head(model.norm(tokens))[0, 2], weights)
        total = total + slope[0].clamp(min=0).mean((0, 1))
    expected = enlarged(total, x, (4, 4))
    assert torch.allclose(found, expected, rtol=0, atol=1e-10 * float(expected.max()))


# texts


@every_method
@pytest.mark.parametrize("architecture", ["Roberta", "DistilBert", "GPT2"])
def test_texts_by_token(architecture, method):
    classifier = TextClassifier(tiny(architecture), tiny_tokenizer())
    found = explain_text(classifier, "the film was not very good", method).attribution
    assert torch.equal(found.values, found.values[:, :1].expand_as(found.values))
    by_token = found.values.sum(1)[0]
    assert by_token.shape == (6,)
    assert float(by_token.min()) >= 0
    assert float(by_token.max()) > 0
    assert found.provenance["tokens"] == 8
    reads = 7 if architecture == "GPT2" else 0
    if method != "legrad":
        assert found.provenance["rows"] == [f"token {reads}"]


@pytest.mark.slow
@every_method
def test_text_of_bert_equals_the_formula(method):
    network, tokenizer = tiny("Bert"), tiny_tokenizer()
    network.set_attn_implementation("eager")
    text = "the film was not very good"
    found = explain_text(TextClassifier(network, tokenizer), text, method, 1).attribution
    outputs = network(
        **tokenizer(text, return_tensors="pt"), output_attentions=True, output_hidden_states=True
    )
    weights, states = outputs.attentions, outputs.hidden_states[1:]

    def logit(state):
        return network.classifier(network.bert.pooler(state))[0, 1]

    count, total = 8, torch.eye(8).double()
    slopes = torch.autograd.grad(outputs.logits[0, 1], weights, retain_graph=True)
    own = 0
    for index, attention in enumerate(weights):
        if method == "rollout":
            total = (attention[0].mean(0) + torch.eye(count)) / 2 @ total
        elif method == "gradient_rollout":
            total = total + (attention[0] * slopes[index][0]).relu().mean(0) @ total
        else:
            (slope,) = torch.autograd.grad(logit(states[index]), attention, retain_graph=True)
            own = own + slope[0].relu().mean((0, 1))
    expected = (own if method == "legrad" else total[0])[1:-1]
    assert torch.allclose(found.values.sum(1)[0], expected.detach(), rtol=0, atol=1e-9)


# known truth


def looking_for_red():
    """A transformer whose class 1 is a red patch, wherever it is: attention finds it, by design.

    The key of a patch is its redness, and its value too; the class token's query asks for it.
    """
    model = TinyViT((16, 16), width=4, heads=1, depth=2, attention=HandWrittenAttention)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
        model.patches.weight[0, 0] = 1 / 16  # redness, less the other colours
        model.patches.weight[0, 1:] = -1 / 32
        model.first[..., 1] = 1.0
        for norm in (
            model.norm,
            *(norm for block in model.blocks for norm in (block.norm1, block.norm2)),
        ):
            norm.weight.fill_(1.0)
        qkv = model.blocks[0].attn.qkv
        qkv.weight[0, 1] = qkv.weight[4 + 0, 0] = 2.0  # the query of a class token, keys of red
        qkv.weight[8 + 2, 0] = 1.0
        model.blocks[0].attn.proj.weight[2, 2] = 1.0
        model.head.weight[1, 2], model.head.weight[0, 2] = 5.0, -5.0
    return model.double().eval()


@pytest.mark.parametrize("method", ["gradient_rollout", "legrad", "rollout"])
@pytest.mark.parametrize("place", [(0, 0), (1, 2), (3, 3), (2, 0)])
def test_maps_point_at_the_patch_that_decides(method, place):
    model = looking_for_red()
    x = torch.full((1, 3, 16, 16), 0.5).double()
    top, left = (4 * index for index in place)
    x[0, :, top : top + 4, left : left + 4] = torch.tensor([1.0, 0.0, 0.0]).double().view(3, 1, 1)
    assert float(model(x).detach().softmax(-1)[0, 1]) > 0.9
    found = explain(model, x, method, 1).values[0].sum(0)
    by_patch = found.reshape(4, 4, 4, 4).mean((1, 3))
    assert int(by_patch.argmax()) == 4 * place[0] + place[1]


# other networks


def test_weights_of_a_fused_kernel_are_those_of_its_formula():
    """Masks, scale, groups of queries, and a query that may attend to nothing: by torch's own."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 6, generator=generator).double() for _ in range(3))
    mask = torch.rand(2, 1, 5, 5, generator=generator) > 0.4
    mask[..., 0, :] = False
    cases = [
        {},
        {"attn_mask": mask},
        {"attn_mask": torch.randn(4, 5, 5, generator=generator).double()},
        {"is_causal": True},
        {"scale": 0.3},
        {"enable_gqa": True},
    ]
    for case in cases:
        keys, values = (k[:, :2], v[:, :2]) if "enable_gqa" in case else (k, v)
        queries = q.clone().requires_grad_()
        weights, _, found = plain_attention(queries, keys, values, **case)
        expected = functional.scaled_dot_product_attention(q, keys, values, **case)
        assert torch.allclose(found, expected, rtol=0, atol=1e-12), case
        assert torch.equal(
            weights[..., 0, :].sum(-1) == 0, torch.full((2, 4), case.get("attn_mask") is mask)
        )
        found.sum().backward()
        assert queries.grad.isfinite().all()


class Encoder(nn.Module):
    """torch's own encoder, of tokens `(1, N, D)` or `(N, 1, D)`."""

    def __init__(self, batch_first):
        super().__init__()
        self.patches, self.batch_first = nn.Conv2d(3, 12, 4, stride=4), batch_first
        layer = nn.TransformerEncoderLayer(12, 3, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2)
        tokens = tokens.transpose(1, 2) if self.batch_first else tokens.permute(2, 0, 1)
        return self.head(self.encoder(tokens).mean(1 if self.batch_first else 0))


@every_method
def test_encoders_of_torch_in_both_orders(method):
    first, second = (randomise(Encoder(order).double()) for order in (True, False))
    maps = [explain(model, images(), method, 1) for model in (first, second)]
    assert torch.allclose(maps[0].values, maps[1].values, rtol=1e-9, atol=0)
    assert float(maps[0].values.max()) > 0
    assert maps[0].provenance["blocks"] == ["encoder.layers.0", "encoder.layers.1"]


class Shared(TinyViT):
    """Three passes of one block, as in ALBERT."""

    def forward(self, images):
        tokens = self.embedded(images)
        for _ in range(3):
            tokens = self.blocks[0](tokens)
        return self.tail(tokens)


@pytest.mark.slow
@every_method
def test_layers_that_are_shared(method):
    shared, copied = (randomise(kind().double()) for kind in (Shared, TinyViT))
    for block in copied.blocks:
        block.load_state_dict(shared.blocks[0].state_dict())
    copied.head.load_state_dict(shared.head.state_dict())
    copied.norm.load_state_dict(shared.norm.state_dict())
    found, expected = (explain(model, images(), method, 1) for model in (shared, copied))
    assert torch.equal(found.values, expected.values)
    assert found.provenance["blocks"] == ["blocks.0", "blocks.0#2", "blocks.0#3"]


class InPlace(TinyViT):
    """The same network, which writes into the tokens that it has from the last block."""

    def tail(self, tokens):
        tokens *= 1.0
        return super().tail(tokens)


@every_method
def test_tokens_that_are_overwritten(method):
    plain, writing = vit(), randomise(InPlace().double())
    maps = [explain(model, images(), method, 1).values for model in (plain, writing)]
    assert torch.allclose(*maps, rtol=1e-10, atol=0)


class OneRow(TinyViT):
    """A head that reads the first row of a batch alone."""

    def tail(self, tokens):
        return super().tail(tokens[:1])


class MixingRows(TinyViT):
    """A head that takes the mean of a batch from each row, where there is more than one."""

    def tail(self, tokens):
        return super().tail(tokens - (tokens.mean(0) if len(tokens) > 1 else 0))


@pytest.mark.parametrize("kind", [OneRow, MixingRows])
def test_legrad_runs_the_head_once_per_block_where_it_mixes_rows(kind):
    expected = explain(vit(), images(), "legrad", 1).values
    found = [
        explain(randomise(kind().double()), row, "legrad", 1).values for row in images().split(1)
    ]
    assert torch.allclose(torch.cat(found), expected, rtol=1e-9, atol=0)


@pytest.mark.slow
@every_method
def test_channels_last_scores_of_outputs_and_precision(method):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = vit()

        def forward(self, x):
            return self.inner(x.movedim(-1, 1))

    x, expected = images(), explain(vit(), images(), method, 1).values
    found = explain(Last().eval(), x.movedim(1, -1), method, 1, channels="last").values
    assert torch.allclose(found.movedim(-1, 1), expected, rtol=1e-9, atol=0)
    found = explain(vit(), x, method, score=lambda outputs: outputs[:, 1]).values
    assert torch.allclose(found, expected, rtol=1e-9, atol=0)
    half = Evaluator(vit().float(), precision=torch.bfloat16)
    found = explain(half, x.float(), method, 1).values
    assert torch.allclose(found.double(), expected, rtol=0, atol=0.05 * float(expected.max()))


class OfSeries(nn.Module):
    """A transformer of series `(B, C, L)`, one token per step, or of clips by patches."""

    def __init__(self, patches):
        super().__init__()
        self.patches, self.head = patches, nn.Linear(12, 5)
        self.blocks = nn.Sequential(*(Block(12, 3, FusedAttention) for _ in range(2)))

    def forward(self, x):
        series = isinstance(self.patches, nn.Linear)
        tokens = self.patches(x.mT) if series else self.patches(x).flatten(2).mT
        return self.head(self.blocks(tokens).mean(1))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 9), (3, 4, 8, 12)])
def test_rollout_of_series_and_clips(shape):
    patches = nn.Linear(4, 12) if len(shape) == 2 else nn.Conv3d(3, 12, (2, 4, 4), (2, 4, 4))
    model, x = randomise(OfSeries(patches).double()), torch.rand(1, *shape).double()
    found = explain(model, x, "rollout", 1).values.sum(1)
    total = torch.eye(9 if len(shape) == 2 else 12).double()
    for weights in record_attention(Evaluator(model), x).values():
        total = (weights[0].mean(0) + torch.eye(len(total))) / 2 @ total
    expected = total.mean(0)
    if len(shape) == 4:
        cells = expected.reshape(1, 1, 2, 2, 3)
        expected = interpolate(cells, shape[1:], mode="trilinear")[0]
    assert torch.allclose(found, expected.reshape(found.shape), rtol=1e-10, atol=0)


# refusals


class Twice(nn.Module):
    """A network whose head also reads the tokens before the last block."""

    def __init__(self):
        super().__init__()
        self.inner = TinyViT()

    def forward(self, x):
        tokens = self.inner.embedded(x)
        first = self.inner.blocks[0](tokens)
        second = self.inner.blocks[1](first)
        return self.inner.tail(second) + self.inner.tail(first)


class Parallel(nn.Module):
    """Two blocks beside each other."""

    def __init__(self):
        super().__init__()
        self.inner = TinyViT()

    def forward(self, x):
        tokens = self.inner.embedded(x)
        first, second, _ = self.inner.blocks
        return self.inner.tail(first(tokens) + second(tokens))


class Checkpointed(TinyViT):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        tokens = self.embedded(x)
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=self.reentrant)
        return self.tail(tokens)


class Halves(nn.Module):
    """Attention in windows: of the two halves of the tokens."""

    def __init__(self):
        super().__init__()
        self.inner = TinyViT((8, 16))

    def forward(self, x):
        tokens = self.inner.embedded(x)[:, 1:]
        for block in self.inner.blocks:
            tokens = block(tokens.reshape(-1, 4, 12)).reshape(-1, 8, 12)
        return self.inner.head(self.inner.norm(tokens).mean(1))


class Linear(HandWrittenAttention):
    """Attention without a softmax."""

    def mixed(self, q, k, v):
        return q @ (k.transpose(-2, -1) @ v) / q.shape[-2]


class OnTokens(HandWrittenAttention):
    """Attention among channels: its weights are on the left too, but of channels."""

    def mixed(self, q, k, v):
        return ((q.mT @ k).softmax(-1) @ v.mT).mT


class RenormalisedAttention(HandWrittenAttention):
    """Attention whose weights are divided by their sum after the softmax."""

    def mixed(self, q, k, v):
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        return (weights / weights.sum(-1, keepdim=True)) @ v


class Renormalised(nn.Module):
    """A transformer one of whose blocks has weights that are renormalised."""

    def __init__(self, place):
        super().__init__()
        self.inner = TinyViT()
        self.inner.blocks[place] = Block(12, 3, RenormalisedAttention)

    def forward(self, images):
        return self.inner(images)


class Unfolded(nn.Module):
    """A transformer of patches that no convolution embeds, after tokens of no position."""

    def __init__(self, size, fixed):
        super().__init__()
        self.inner, self.embed = TinyViT(size), nn.Linear(48, 12)
        self.fixed = nn.Parameter(torch.randn(1, fixed, 12))

    def forward(self, images):
        tokens = self.embed(functional.unfold(images, 4, stride=4).mT)
        tokens = torch.cat([self.fixed.expand(len(images), -1, -1), tokens], 1)
        for block in self.inner.blocks:
            tokens = block(tokens)
        return self.inner.tail(tokens)


@pytest.mark.parametrize(("size", "fixed"), [((16, 32), 4), ((16, 16), 5), ((8, 64), 4)])
def test_tokens_of_no_position_are_counted(size, fixed):
    """Where several numbers of them fit a grid, those that the image does not change are taken."""
    torch.manual_seed(0)
    model, image = Unfolded(size, fixed).eval(), torch.rand(1, 3, *size)
    found = token_grid(model, record_blocks(Evaluator(model), image), image)
    assert found == (fixed, (size[0] // 4, size[1] // 4))


class ClassLast(TinyViT):
    """The class token after the patches."""

    def embedded(self, images):
        return super().embedded(images).roll(-1, 1)


class Odd(nn.Module):
    """Tokens that are no grid."""

    def __init__(self):
        super().__init__()
        self.inner, self.tokens = TinyViT(), nn.Linear(192, 15 * 12)

    def forward(self, x):
        tokens = self.tokens(x.flatten(1)).unflatten(1, (15, 12))
        for block in self.inner.blocks:
            tokens = block(tokens)
        return self.inner.tail(tokens)


class Joined(nn.Module):
    """A network that takes fewer tokens after the first block."""

    def __init__(self):
        super().__init__()
        self.inner = TinyViT()

    def forward(self, x):
        tokens = self.inner.blocks[0](self.inner.embedded(x))
        return self.inner.tail(self.inner.blocks[1](tokens[:, :-2]))


def swin():
    torch.manual_seed(0)
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=12,
        depths=(1, 1), num_heads=(1, 2), num_classes=3,
    )  # fmt: skip


def convolutions():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


REFUSED = {
    "convolutions": (convolutions, (8, 12), "expected a model with softmax attention among tokens"),
    "linear": (lambda: TinyViT(attention=Linear), (8, 12), "softmax attention among tokens"),
    "channels": (lambda: TinyViT(attention=OnTokens), (8, 12), "4 tokens in other modules"),
    "as many channels": (
        lambda: TinyViT((8, 12), width=14, heads=2, attention=OnTokens),
        (8, 12),
        "attention of something else, of as many rows, in 'blocks.0'",
    ),
    "swin": (swin, (64, 64), "expected a transformer"),
    "windows": (Halves, (8, 16), "4 tokens in other modules"),
    "fewer tokens": (Joined, (8, 12), "one number of tokens, got attention of 5 × 5, 7 × 7"),
    "first of another kind": (lambda: Renormalised(0), (8, 12), "'inner.blocks.0', which mixes"),
    "last of another kind": (lambda: Renormalised(2), (8, 12), "'inner.blocks.2', which mixes"),
    "class last": (ClassLast, (8, 12), "a last token that does not depend"),
    "odd grid": (Odd, (8, 8), "got 15 tokens for an input of 8 × 8"),
    "skip": (Twice, (8, 12), "depend on more than the tokens of 'inner.blocks.1'"),
    "parallel": (Parallel, (8, 12), "'inner.blocks.1', which does not go on from 'inner.blocks.0'"),
    "checkpoint": (lambda: Checkpointed(False), (8, 12), "inside a checkpoint"),
    "reentrant": (lambda: Checkpointed(True), (8, 12), "cannot look into reentrant checkpoints"),
    "script": (
        lambda: torch.jit.trace(TinyViT().eval(), torch.rand(1, 3, 8, 12), check_trace=False),
        (8, 12),
        "TorchScript does not show them",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "method"), [(case, METHODS[index % 3]) for index, case in enumerate(REFUSED)]
)
@pytest.mark.filterwarnings("ignore")
def test_networks_that_are_refused_in_one_line(case, method):
    build, size, message = REFUSED[case]
    model, x = build(), torch.rand(1, 3, *size)
    model.eval()(x)
    with pytest.raises(NotApplicableError, match=message) as raised:
        explain(model, x, method)
    assert "\n" not in str(raised.value)
    assert "method='ig'" in str(raised.value)


@every_method
def test_tables_and_constant_outputs_are_refused(method):
    with pytest.raises(NotApplicableError, match=rf"{method} expects images .* got \(2, 6\)"):
        explain(nn.Linear(6, 3).eval(), torch.rand(2, 6), method)
    model = TinyViT().eval()
    model.head = nn.Identity()
    model.tail = lambda tokens: tokens.new_ones(len(tokens), 3)
    with pytest.raises(UnilensError):
        explain(model, torch.rand(1, 3, 8, 12), method)


@every_method
def test_networks_whose_outputs_change_under_the_recorder_are_refused(method, monkeypatch):
    def scaled(query, key, value):
        weights, values, output = plain_attention(query, key, value)
        return weights, values, 1.1 * output

    monkeypatch.setattr(recorder, "plain_attention", scaled)
    with pytest.raises(NotApplicableError, match=r"attention equals the formula .* differ by"):
        explain(vit(), images(), method)


@pytest.mark.parametrize(
    ("architecture", "method"),
    [("T5", "rollout"), ("Bart", "legrad"), ("Longformer", "rollout"), ("Funnel", "legrad")],
)
def test_texts_of_other_attention_are_refused(architecture, method):
    classifier = TextClassifier(tiny(architecture), tiny_tokenizer())
    with pytest.raises(NotApplicableError, match="use method='ig'"):
        explain_text(classifier, "the film was not very good", method)
