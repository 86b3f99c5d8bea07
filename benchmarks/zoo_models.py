"""Small models with random weights, one of each family of timm, torchvision and transformers.

`families()` lists them, `build(family)` makes one. Nothing is downloaded. benchmarks/zoo.py
explains them all.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import timm
import torch
import torchvision
import transformers
from timm.models import list_modules
from torch import Tensor, nn
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from unilens.errors import first_line
from unilens.text.embeddings import AtEmbeddings, embed

LIBRARIES = ("timm", "torchvision", "transformers-vision", "transformers-text")
CLASSES = 10
SIDES = (96, 128, 160, 192, 224, 256)
"""Pixels along one side of the input; the first that a network takes is used."""
MOST_PARAMETERS = 150e6
CANDIDATES = 16
"""Members of a family of which the one with the fewest parameters is taken."""
LARGE = 20e6
"""Parameters above which a network of timm gets fewer blocks, where it has a setting for them."""
_FEWER = ({"depth": 3}, {"depths": (1, 1, 1, 1)}, {"depths": (1, 1, 1)}, {"layers": (1, 1, 1, 1)})
TOKENS = 8


@dataclass(frozen=True)
class Family:
    """Models of one architecture.

    Attributes:
        library: one of `LIBRARIES`.
        name: of the architecture.
        members: names of its models; for transformers, of its classes.
    """

    library: str
    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A model in eval mode, in float64, and inputs `(2, *S)` for it."""

    name: str
    model: nn.Module
    inputs: Tensor

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(value.numel() for value in self.model.parameters())


class NotBuiltError(Exception):
    """No model of a family can be built here; the message says why."""


def families(libraries: tuple[str, ...] = LIBRARIES) -> list[Family]:
    """Return the families of the libraries, in a fixed order."""
    return [family for library in libraries for family in _LISTS[library]()]


def build(family: Family, seed: int = 0) -> Built:
    """Return the family's smallest model, with random weights.

    Constant weights (gains, biases, layer scales) get noise, so that no branch of the network is
    switched off; batch norms get the statistics of the inputs.

    Raises:
        NotBuiltError: none of its members can be built.
    """
    torch.manual_seed(seed)
    try:
        name, model, inputs = _BUILDERS[family.library](family)
        model, inputs = model.double().eval(), inputs.detach().double()
        _randomise(model, inputs)
    except NotBuiltError:
        raise
    except Exception as error:
        raise NotBuiltError(f"{type(error).__name__}: {first_line(error)}") from error
    return Built(name, model, inputs)


def _randomise(model: nn.Module, inputs: Tensor) -> None:
    """Replace constant weights and the statistics of batch norms, in place."""
    with torch.no_grad():
        for value in model.parameters():
            if value.numel() and value.is_floating_point() and value.min() == value.max():
                value += 0.05 * torch.randn_like(value)
        kind = nn.modules.batchnorm._BatchNorm
        norms = [part for part in model.modules() if isinstance(part, kind)]
        norms = [norm for norm in norms if norm.running_mean is not None]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        try:
            if norms:
                model(torch.cat([inputs, inputs.flip(0) * 0.5]))
        except ValueError:  # a batch norm of one value per channel
            pass
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval().momentum = momentum
            # A channel that hardly varies would be amplified, and its rounding with it.
            norm.running_var.clamp_(min=float(norm.running_var.mean() / 10))


# --- timm and torchvision ---

_PREFIX = re.compile(r"(?:(?:tf|legacy|dm|eca|ese|gc|nf)_)?[a-z]+")


def _timm_families() -> Iterator[Family]:
    groups: dict[str, list[str]] = defaultdict(list)
    for module in list_modules():
        for name in timm.list_models(module=module):
            if not name.startswith("test_"):
                prefix = _PREFIX.match(name)
                groups[f"{module}: {prefix[0].rstrip('_') if prefix else name}"].append(name)
    for name, members in sorted(groups.items()):
        yield Family("timm", name, tuple(sorted(members)))


def _torchvision_families() -> Iterator[Family]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in torchvision.models.list_models(module=torchvision.models):
        prefix = re.match(r"(?:[a-z]+(?:_v\d|_x|_y)?|inception_v3|wide_resnet)", name)
        ending = "_bn" if name.endswith("_bn") else ""
        groups[(prefix[0] if prefix else name) + ending].append(name)
    for name, members in sorted(groups.items()):
        yield Family("torchvision", name, tuple(sorted(members)))


_SIZES = (
    *("atto", "femto", "pico", "nano", "xxt", "xt", "xxs", "xs", "tiny", "mini", "small", "ti"),
    *("_s", "s_", "_0", "050", "035", "base"),
)
"""Words in names, the smallest models first."""


def _smallest(members: tuple[str, ...], make: Callable[..., nn.Module]) -> str:
    """Return the member with the fewest parameters, of those whose names promise few."""

    def rank(name: str) -> tuple[int, int, str]:
        position = next((n for n, word in enumerate(_SIZES) if word in name), len(_SIZES))
        digits = [int(number) for number in re.findall(r"\d+", name)]
        return position, min(digits, default=0), name

    likely = sorted(members, key=rank)[:CANDIDATES]
    return min(likely, key=lambda name: _count(name, make))


def _build_timm(family: Family) -> tuple[str, nn.Module, Tensor]:
    def make(name: str, **settings: Any) -> nn.Module:
        return timm.create_model(name, num_classes=CLASSES, **settings)

    name = _smallest(family.members, make)
    fewer = _fewer_blocks(name, make)
    own = timm.get_pretrained_cfg(name)
    most = own.input_size[-1] if own else SIDES[-1]

    def sized(side: int) -> nn.Module:
        try:
            return make(name, img_size=side, **fewer)
        except TypeError:
            if own and own.fixed_input_size and side != most:
                raise
            return make(name, **fewer)

    given = ", ".join(f"{key}={value}" for key, value in fewer.items())
    sides = [side for side in SIDES if side < most] + [most]
    return (f"{name}({given})" if given else name, *_first_that_runs(sides, sized))


def _fewer_blocks(name: str, make: Callable[..., nn.Module]) -> dict[str, Any]:
    """Return settings that give a large network fewer blocks, where it has such settings."""
    before = count = _count(name, make)
    best: dict[str, Any] = {}
    if before > LARGE:
        for settings in _FEWER:
            fewer = _count(name, make, **settings)
            if fewer < count:
                best, count = settings, fewer
    return best


def _count(name: str, make: Callable[..., nn.Module], **settings: Any) -> float:
    """Return the number of a model's weights; infinity where it cannot be made without values."""
    try:
        with torch.device("meta"):
            return sum(value.numel() for value in make(name, **settings).parameters())
    except Exception:
        return float("inf")


def _build_torchvision(family: Family) -> tuple[str, nn.Module, Tensor]:
    def make(name: str, **settings: Any) -> nn.Module:
        if name.startswith(("inception", "googlenet")):
            settings |= {"aux_logits": False, "init_weights": False}
        return torchvision.models.get_model(name, num_classes=CLASSES, **settings)

    name = _smallest(family.members, make)
    fixed = {"vit": "image_size", "maxvit": "input_size"}.get(name.partition("_")[0])
    if fixed == "image_size":
        return (name, *_first_that_runs(SIDES, lambda side: make(name, image_size=side)))
    return (name, *_first_that_runs((224,) if fixed else SIDES, lambda side: make(name)))


def _first_that_runs(
    sides: tuple[int, ...] | list[int], make: Callable[[int], nn.Module]
) -> tuple[nn.Module, Tensor]:
    """Return a model and two images, of the first side that it takes."""
    errors = []
    for side in sides:
        inputs = torch.rand(2, 3, side, side)
        try:
            model = make(side).eval()
            with torch.no_grad():
                outputs = model(inputs[:1])
        except Exception as error:
            errors.append(f"{type(error).__name__}: {first_line(error)}")
            continue
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise NotBuiltError(f"gives {shape}, no logits")
        if sum(value.numel() for value in model.parameters()) > MOST_PARAMETERS:
            raise NotBuiltError(f"has more than {MOST_PARAMETERS / 1e6:.0f} M parameters")
        return model, inputs
    raise NotBuiltError(errors[-1])


# --- transformers ---

_GROUPS: Mapping[int, str] = {
    99: "vocab_size entity_vocab_size pronunciation_vocab_size shape_vocab_size",
    64: "image_size max_position_embeddings n_positions max_seq_len",
    40: "intermediate_size encoder_ffn_dim decoder_ffn_dim d_ff d_inner dff ffn_dim hidden_dim "
    "feed_forward_size moe_intermediate_size shared_expert_intermediate_size",
    32: "hidden_size d_model n_embd emb_dim dim word_embed_proj_dim d_latents embedding_size "
    "input_embedding_size output_embedding_size",
    16: "head_dim d_kv d_head v_head_dim attention_head_size q_lora_rank kv_lora_rank",
    8: "qk_rope_head_dim qk_nope_head_dim rotary_dim",
    4: "num_experts num_local_experts n_routed_experts",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
    "num_decoder_layers num_attention_heads n_head n_heads encoder_attention_heads "
    "decoder_attention_heads num_key_value_heads num_experts_per_tok sep_token_id cls_token_id "
    "decoder_start_token_id mask_token_id eos_token_id",
    1: "n_group topk_group n_shared_experts first_k_dense_replace bos_token_id",
    0: "pad_token_id",
}
_SMALL = {name: size for size, names in _GROUPS.items() for name in names.split()}
"""Settings that make a model small, by name; one whose default is no number stays as it is."""
_ALWAYS = {"pad_token_id", "bos_token_id", "eos_token_id", "vocab_size", "image_size"}
"""Settings that are made small whatever their defaults are."""
_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_OWN: Mapping[str, Mapping[str, Any]] = {
    "canine": {"num_hash_buckets": 99},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "donut-swin": {"image_size": 128, "window_size": 4},
    "efficientnet": {"hidden_dim": 2560},
    "ernie": {"use_task_id": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "longformer": {"attention_window": 4},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "levit": {"image_size": 224},
    "lilt": {"hidden_size": 48},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 16},
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "lsh"],
        "hash_seed": 0,
        "num_buckets": 4,
    },
    "swin": {"image_size": 128, "window_size": 4},
    "t5gemma": {"is_encoder_decoder": False},
    "xmod": {"default_language": "en_XX"},
    "perceiver": {"num_cross_attention_heads": 1},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"]},
}
"""Settings of single families, by model type."""
_HELD = {"longformer": {"global_attention_mask": torch.eye(1, TOKENS).long()}}
"""What a text model takes beside the attention mask, by model type."""
_NO_WAY_IN = {
    "imagegpt": "takes the numbers of colours, no pixels",
    "shieldgemma2": "takes a prompt beside the image",
    "siglip2": "takes patches with their mask and shapes, no pixels",
}


def _transformers_families(library: str, names: Mapping[str, Any]) -> Iterator[Family]:
    for kind, classes in names.items():
        first, *others = (classes,) if isinstance(classes, str) else classes
        yield Family(library, kind, (first,))
        for name in others:
            yield Family(library, f"{kind}: {name.rpartition('Classification')[2]}", (name,))


def small_config(kind: str, **given: Any) -> Any:
    """Return a small configuration of a model type of transformers."""
    return _shrunk(CONFIG_MAPPING[kind], given)


def _shrunk(cls: Any, given: Mapping[str, Any]) -> Any:
    own = {**_OWN.get(cls.model_type, {}), **given}
    settings: dict[str, Any] = {}
    for field in fields(cls):
        name = field.name
        if name in _SMALL and (name in _ALWAYS or type(field.default) is int):
            settings[name] = _SMALL[name]
        elif name in ("depths", "num_block_repeats"):
            settings[name] = [min(2, int(depth)) for depth in field.default]
    for name, part in getattr(cls, "sub_configs_defaults", {}).items():
        kind = part.model_type
        config = CONFIG_MAPPING[kind] if kind else part.config_class
        settings[name] = _shrunk(config, part.init_kwargs or {})
    return cls(**{**settings, **own})


class _Logits(nn.Module):
    """An image classifier of transformers from pixels to its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        found = self.network(pixels)
        return found.logits if "logits" in found else found.last_hidden_state


def _network(family: Family) -> tuple[nn.Module, Any]:
    """Return a network of transformers and its configuration."""
    kind = family.name.partition(":")[0]
    if kind in _NO_WAY_IN:
        raise NotBuiltError(_NO_WAY_IN[kind])
    config = small_config(kind, num_labels=CLASSES)
    config._experts_implementation = "eager"  # the grouped kernel has no float64
    return getattr(transformers, family.members[0])(config).eval(), config


def _build_vision(family: Family) -> tuple[str, nn.Module, Tensor]:
    network, config = _network(family)
    side = getattr(config, "image_size", None) or 64
    model, inputs = _first_that_runs(sorted({side, 224}), lambda _: _Logits(network))
    return family.members[0], model, inputs


def _build_text(family: Family) -> tuple[str, nn.Module, Tensor]:
    network, config = _network(family)
    ids, others = torch.randint(5, 90, (2, TOKENS))
    held = {"attention_mask": torch.ones(1, TOKENS).long(), **_HELD.get(config.model_type, {})}
    model = AtEmbeddings(network, ids, torch.arange(1, TOKENS - 1), held)
    rows = [model.embeddings, embed(network, others[None, 1:-1]).mT]
    with torch.no_grad():
        outputs = model(rows[0])
    if outputs.shape != (1, CLASSES):
        raise NotBuiltError(f"gives {tuple(outputs.shape)}, no logits")
    return family.members[0], model, torch.cat(rows)


_LISTS: Mapping[str, Callable[[], Iterator[Family]]] = {
    "timm": _timm_families,
    "torchvision": _torchvision_families,
    "transformers-vision": lambda: _transformers_families(
        "transformers-vision", modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    ),
    "transformers-text": lambda: _transformers_families(
        "transformers-text", modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    ),
}
_BUILDERS = {
    "timm": _build_timm,
    "torchvision": _build_torchvision,
    "transformers-vision": _build_vision,
    "transformers-text": _build_text,
}
