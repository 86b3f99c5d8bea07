"""Balanced gradients against backward passes written by hand, and the sums that they keep.

The slow replicas compute forward and backward passes by formulas, without autograd.
"""

import math

import pytest
import timm
import torch
import transformers
from torch import nn

import unilens

BIASES = (
    "wpe",
    "position",
    "pos_embed",
    "token_type",
    "cls_token",
    "class_embedding",
    "mask_token",
    "dist",
)
"""Names of parameters that are added to what depends on the input, as biases are."""
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
DECODER = {**SMALL, "vocab_size": 40, "num_key_value_heads": 1}
VISION = {**SMALL, "image_size": 16, "patch_size": 4}
TEXT = {**SMALL, "vocab_size": 40, "num_labels": 3}


class OfEmbeddings(nn.Module):
    """A network of transformers as a function of its embeddings; of texts, at the last token."""

    def __init__(self, network, **fixed):
        super().__init__()
        self.network, self.fixed = network, fixed

    def forward(self, embeddings):
        count = len(embeddings)
        fixed = {name: value.expand(count, -1) for name, value in self.fixed.items()}
        logits = self.network(inputs_embeds=embeddings, **fixed).logits
        return logits[:, -1] if logits.ndim == 3 else logits


class OfPixels(nn.Module):
    """A vision network of transformers; where it has no head, its pooled output."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        result = self.network(pixel_values=pixels)
        return result.logits if hasattr(result, "logits") else result.pooler_output


def _gpt2(**settings):
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, **settings
    )
    return OfEmbeddings(transformers.GPT2LMHeadModel(config))


def _t5():
    config = transformers.T5Config(
        vocab_size=40,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    start = torch.tensor([[0, 3]])
    return OfEmbeddings(transformers.T5ForConditionalGeneration(config), decoder_input_ids=start)


def _of(kind, config, **settings):
    settings = {**config, **settings}
    network = getattr(transformers, kind[0])(getattr(transformers, kind[1])(**settings))
    return (OfPixels if "image_size" in settings else OfEmbeddings)(network)


TEXTS = {
    "bert": lambda **more: _of(("BertForSequenceClassification", "BertConfig"), TEXT, **more),
    "roberta": lambda **more: _of(
        ("RobertaForSequenceClassification", "RobertaConfig"), TEXT, **more
    ),
    "gpt2": _gpt2,
    "llama": lambda **more: _of(("LlamaForCausalLM", "LlamaConfig"), DECODER, **more),
    "qwen": lambda **more: _of(("Qwen2ForCausalLM", "Qwen2Config"), DECODER, **more),
}
IMAGES = {
    "vit": lambda: _of(("ViTForImageClassification", "ViTConfig"), VISION),
    "deit": lambda: _of(("DeiTForImageClassification", "DeiTConfig"), VISION),
    "beit": lambda: _of(
        ("BeitForImageClassification", "BeitConfig"), VISION, use_relative_position_bias=True
    ),
    "swin": lambda: _of(
        ("SwinForImageClassification", "SwinConfig"),
        {},
        image_size=16,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    "convnext": lambda: _of(
        ("ConvNextForImageClassification", "ConvNextConfig"),
        {},
        image_size=32,
        hidden_sizes=[4, 8, 8, 8],
        depths=[1, 1, 1, 1],
    ),
    "dinov2": lambda: _of(
        ("Dinov2ForImageClassification", "Dinov2Config"),
        {name: value for name, value in VISION.items() if name != "intermediate_size"},
    ),
    "clip": lambda: _of(("CLIPVisionModel", "CLIPVisionConfig"), VISION),
}
IMAGE_SIZES = {"convnext": 32}


def without_biases(model):
    """Return a model with random weights, and with 0 in all that is added to activations."""
    torch.manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            added = name.endswith("bias") or any(part in name for part in BIASES)
            if added:
                weight.zero_()
            elif weight.ndim == 1:
                weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(std=0.3)
    return model


def with_own_precision(model):
    """Return a model whose RMS norms compute in the precision of their inputs."""
    for layer in model.modules():
        if type(layer).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm"):
            layer.forward = _rms_norm.__get__(layer)
    return model


def _rms_norm(self, hidden):
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * (hidden * torch.rsqrt(variance + self.variance_epsilon))


def inputs_of(name):
    torch.manual_seed(1)
    if name in IMAGES or name == "timm":
        size = IMAGE_SIZES.get(name, 16)
        return torch.randn(2, 3, size, size, dtype=torch.float64)
    return torch.randn(2, 6, 16, dtype=torch.float64)


def relative_gap(model, inputs, **settings):
    attribution = unilens.explain(model, inputs, "balanced", channels="first", **settings)
    return (attribution.diagnostics["relevance_gap"] / attribution.score).abs().max()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TEXTS)
def test_relevance_of_texts_adds_up_to_the_logit(name, implementation):
    model = with_own_precision(without_biases(TEXTS[name](attn_implementation=implementation)))
    assert relative_gap(model, inputs_of(name)) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_relevance_of_pixels_adds_up_to_the_logit(name):
    assert relative_gap(without_biases(IMAGES[name]()), inputs_of(name)) < 1e-10


@pytest.mark.parametrize("name", ["vit", "deit", "beit", "dinov2", "clip"])
def test_relevance_of_pixels_adds_up_with_attention_written_out(name):
    model = without_biases(IMAGES[name]())
    model.network.set_attn_implementation("eager")
    assert relative_gap(model, inputs_of(name)) < 1e-10


def test_llama_as_it_is_adds_up_to_the_precision_of_its_norms():
    gap = relative_gap(without_biases(TEXTS["llama"]()), inputs_of("llama"))  # they use float32
    assert 1e-12 < gap < 1e-6


@pytest.mark.slow
def test_t5_adds_up_with_the_tokens_of_its_decoder():
    model = without_biases(_t5())
    embeddings = inputs_of("t5")[:1]
    fixed = model.network.get_input_embeddings().weight[torch.tensor([[0, 3]])].detach()

    class BothSides(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = model.network

        def forward(self, packed):
            encoder, decoder = packed[:, :-2], packed[:, -2:]
            result = self.network(inputs_embeds=encoder, decoder_inputs_embeds=decoder)
            return result.logits[:, -1]

    assert (
        relative_gap(BothSides().eval(), torch.cat([embeddings, fixed], 1)) < 1e-6
    )  # its norms use float32
    assert relative_gap(model, embeddings) > 0.01


def test_biases_are_the_gap():
    model = without_biases(TEXTS["bert"]())
    inputs = inputs_of("bert")
    with torch.no_grad():
        model.network.classifier.bias.fill_(7.0)
    attribution = unilens.explain(model, inputs, "balanced", channels="first")
    torch.testing.assert_close(
        attribution.diagnostics["relevance_gap"], torch.full((2,), 7.0).double()
    )


@pytest.mark.parametrize("name", [*TEXTS, *IMAGES])
def test_outputs_stay_those_of_the_model(name):
    from unilens._engine.balanced import BalancedGradients

    model, inputs = {**TEXTS, **IMAGES}[name]().double().eval(), inputs_of(name)
    model.requires_grad_(False)
    with BalancedGradients():
        outputs = model(inputs.requires_grad_())
    torch.testing.assert_close(outputs, model(inputs), rtol=0, atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TEXTS, *IMAGES, "t5"])
def test_methods_run_on_twelve_architectures(name):
    model = {**TEXTS, **IMAGES, "t5": _t5}[name]().eval()
    inputs = inputs_of(name).float()
    for method in ("input_x_gradient", "ig"):
        plain = unilens.explain(model, inputs, method, channels="first")
        balanced = unilens.explain(model, inputs, method, channels="first", balanced=True)
        assert balanced.values.isfinite().all()
        assert (balanced.values - plain.values).norm() > 1e-3 * plain.values.norm()
        assert balanced.provenance["balanced"]["rewritten"]


def _norm(values, weight, bias, eps):
    """Return a layer norm, and the function that passes a gradient back."""
    centred = values - values.mean(-1, keepdim=True)
    deviation = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()

    def back(gradient):
        through = gradient * weight / deviation
        return through - through.mean(-1, keepdim=True)

    return centred / deviation * weight + bias, back


def _attention(queries, keys, values, rule, mask=None):
    """Return attention of `(B, heads, N, d)`, and its backward pass by a rule.

    The pass also returns the relevance that the softmax does not pass on, `(B,)`.
    """
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    scores = scores if mask is None else scores.masked_fill(mask, -1e9)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    weights = weights / weights.sum(-1, keepdim=True)

    def back(gradient):
        to_values = weights.mT @ gradient
        if rule == "constant":
            return (torch.zeros_like(queries), torch.zeros_like(keys), to_values), 0.0
        to_weights = gradient @ values.mT / 2
        inner = (to_weights * weights).sum(-1, keepdim=True)
        to_scores = weights * (to_weights - inner)
        absorbed = (to_weights * weights).flatten(1).sum(1) - (to_scores * scores).flatten(1).sum(1)
        to_products = to_scores / math.sqrt(queries.shape[-1])
        return (to_products @ keys / 2, to_products.mT @ queries / 2, to_values / 2), absorbed

    return weights @ values, back


def _gelu(values):
    return values * 0.5 * (1 + torch.erf(values / math.sqrt(2)))


def _new_gelu(values):
    inner = math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)
    return 0.5 * values * (1 + torch.tanh(inner))


def _heads(values, count):
    return values.unflatten(-1, (count, -1)).movedim(-2, 1)


def _block(hidden, layers, activation, rule, count, mask=None):
    """Return a block's output, and its backward pass; every matrix is `(in, out)`."""
    first, norm_back = _norm(hidden, *layers["norm1"])
    projected = first @ layers["qkv"][0] + layers["qkv"][1]
    queries, keys, values = (_heads(part, count) for part in projected.chunk(3, -1))
    attended, attention_back = _attention(queries, keys, values, rule, mask)
    middle = hidden + attended.movedim(1, -2).flatten(-2) @ layers["out"][0] + layers["out"][1]
    second, second_back = _norm(middle, *layers["norm2"])
    inner = second @ layers["fc1"][0] + layers["fc1"][1]
    active = activation(inner)
    output = middle + active @ layers["fc2"][0] + layers["fc2"][1]

    def back(gradient):
        through = (gradient @ layers["fc2"][0].T) * active / inner
        gradient = gradient + second_back(through @ layers["fc1"][0].T)
        attended_gradient = _heads(gradient @ layers["out"][0].T, count)
        of_parts, absorbed = attention_back(attended_gradient)
        parts = [part.movedim(1, -2).flatten(-2) for part in of_parts]
        return gradient + norm_back(torch.cat(parts, -1) @ layers["qkv"][0].T), absorbed

    return output, back


def _pair(layer):
    return layer.weight.T, layer.bias


@pytest.mark.parametrize("rule", ["constant", "full"])
def test_vision_transformer_equals_a_backward_pass_by_hand(rule):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, depth=2, embed_dim=24, num_classes=3
    )
    model = model.double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    inputs = inputs_of("timm")
    attribution = unilens.explain(model, inputs, "balanced", 1, attention=rule)
    with torch.no_grad():
        patches = inputs.unfold(2, 8, 8).unfold(3, 8, 8).movedim(1, 3).flatten(3).flatten(1, 2)
        kernel = model.patch_embed.proj.weight.flatten(1)
        tokens = patches @ kernel.T + model.patch_embed.proj.bias
        hidden = torch.cat([model.cls_token.expand(2, -1, -1), tokens], 1) + model.pos_embed
        backs = []
        for block in model.blocks:
            layers = {
                "norm1": (block.norm1.weight, block.norm1.bias, block.norm1.eps),
                "norm2": (block.norm2.weight, block.norm2.bias, block.norm2.eps),
                "qkv": _pair(block.attn.qkv),
                "out": _pair(block.attn.proj),
                "fc1": _pair(block.mlp.fc1),
                "fc2": _pair(block.mlp.fc2),
            }
            hidden, back = _block(hidden, layers, _gelu, rule, block.attn.num_heads)
            backs.append(back)
        final, back = _norm(hidden, model.norm.weight, model.norm.bias, model.norm.eps)
        logits = final[:, 0] @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(attribution.outputs, logits)
        gradient = torch.zeros_like(final)
        gradient[:, 0] = model.head.weight[1]
        gradient = back(gradient)
        for back in reversed(backs):
            gradient, _ = back(gradient)
        expected = (gradient[:, 1:] @ kernel).view(2, 2, 2, 3, 8, 8).permute(0, 3, 1, 4, 2, 5)
        expected = expected.reshape(2, 3, 16, 16) * inputs
    torch.testing.assert_close(attribution.values, expected, rtol=1e-10, atol=1e-10)


def gpt2_by_hand(network, inputs, target, rule):
    """Return outputs, the gradient of a logit, and what the softmaxes absorb, by formulas."""
    body, backs, absorbed = network.transformer, [], torch.zeros(len(inputs)).double()
    hidden = inputs + body.wpe.weight[: inputs.shape[1]]
    mask = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool).triu(1)
    for block in body.h:
        layers = {
            "norm1": (block.ln_1.weight, block.ln_1.bias, block.ln_1.eps),
            "norm2": (block.ln_2.weight, block.ln_2.bias, block.ln_2.eps),
            "qkv": (block.attn.c_attn.weight, block.attn.c_attn.bias),
            "out": (block.attn.c_proj.weight, block.attn.c_proj.bias),
            "fc1": (block.mlp.c_fc.weight, block.mlp.c_fc.bias),
            "fc2": (block.mlp.c_proj.weight, block.mlp.c_proj.bias),
        }
        hidden, back = _block(hidden, layers, _new_gelu, rule, 2, mask)
        backs.append(back)
    final, norm_back = _norm(hidden, body.ln_f.weight, body.ln_f.bias, body.ln_f.eps)
    gradient = torch.zeros_like(final)
    gradient[:, -1] = network.lm_head.weight[target]
    gradient = norm_back(gradient)
    for back in reversed(backs):
        gradient, of_block = back(gradient)
        absorbed = absorbed + of_block
    return final[:, -1] @ network.lm_head.weight.T, gradient, absorbed


@pytest.mark.parametrize("rule", ["constant", "full"])
@torch.no_grad()
def test_gpt2_equals_a_backward_pass_by_hand(rule):
    torch.manual_seed(0)
    model = _gpt2().double().eval()
    for weight in model.parameters():
        weight.normal_(std=0.3)
    inputs = inputs_of("gpt2")
    attribution = unilens.explain(model, inputs, "balanced", 5, attention=rule, channels="first")
    outputs, gradient, _ = gpt2_by_hand(model.network, inputs, 5, rule)
    torch.testing.assert_close(attribution.outputs, outputs)
    torch.testing.assert_close(attribution.values, gradient * inputs, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@torch.no_grad()
def test_full_attention_misses_what_the_softmaxes_absorb():
    """The softmax keeps its own derivative, which does not pass on what it receives."""
    model, inputs = without_biases(_gpt2()), inputs_of("gpt2")
    attribution = unilens.explain(model, inputs, "balanced", 5, attention="full", channels="first")
    *_, absorbed = gpt2_by_hand(model.network, inputs, 5, "full")
    assert (absorbed / attribution.score).abs().min() > 1e-3
    gap = attribution.diagnostics["relevance_gap"]
    torch.testing.assert_close(gap, absorbed, rtol=1e-9, atol=1e-9)
