"""Tiny models of images and texts with random weights, and processors made here."""

import string

import torch
import transformers

from unilens.text import ImageTextModel

from .text_models import SPECIAL, WORDS, spread, tiny_tokenizer

_SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
_VISION = {**_SIZES, "image_size": 32, "patch_size": 8}
POSITIONS = 12
"""Of both text towers."""


def clip_tokenizer(**more):
    """CLIP's own tokenizer, of letters and a few words; its padding is the end of the text."""
    pieces = [*string.ascii_lowercase, ",", "!", "<", ">"]
    known = [*pieces, *(f"{piece}</w>" for piece in pieces), "ca", "cat</w>", "do", "dog</w>"]
    vocabulary = {piece: number for number, piece in enumerate(known)}
    vocabulary |= {"<|startoftext|>": len(known), "<|endoftext|>": len(known) + 1}
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    options = {"model_max_length": POSITIONS, **more}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, **options)


def clip_processor(size=32, tokenizer=None):
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    return transformers.CLIPProcessor(images, tokenizer or clip_tokenizer())


def tiny_clip(seed=0):
    tokenizer = clip_tokenizer()
    text = {
        **_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=8)
    return spread(transformers.CLIPModel(config), seed)


def siglip_processor():
    """Words and an end, padded with it, without a mask, as SigLIP's."""
    tokenizer = tiny_tokenizer(special=False, pad_token="[SEP]", model_input_names=["input_ids"])
    tokenizer.model_max_length = POSITIONS
    images = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    return transformers.CLIPProcessor(images, tokenizer)


def tiny_siglip(seed=0):
    text = {
        **_SIZES, "vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": POSITIONS,
        "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 3, "projection_size": 16,
    }  # fmt: skip
    config = transformers.SiglipConfig(text_config=text, vision_config=_VISION)
    return spread(transformers.SiglipModel(config), seed)


def _tiny(name, text, seed=0):
    towers = {"text_config": {**_SIZES, **text}, "vision_config": _VISION, "projection_dim": 8}
    config = getattr(transformers, f"{name}Config")(**towers)
    return spread(getattr(transformers, f"{name}Model")(config), seed)


def others(name):
    """A tiny model of another architecture, with texts of words or of CLIP's pieces."""
    if name == "CLIPSeg":
        text = tiny_clip().config.text_config
        kept = ("vocab_size", "max_position_embeddings", "eos_token_id", "pad_token_id")
        network, tokenizer = _tiny(name, {key: getattr(text, key) for key in kept}), None
    else:
        words = {
            "vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 24,
            "pad_token_id": 0, "bos_token_id": 2, "project_dim": 8,
        }  # fmt: skip
        network, tokenizer = _tiny(name, words), tiny_tokenizer()
    return ImageTextModel(network, clip_processor(tokenizer=tokenizer))


def clip():
    return ImageTextModel(tiny_clip(), clip_processor())


def siglip():
    return ImageTextModel(tiny_siglip(), siglip_processor())


def photograph(seed=0):
    """Pixels `(40, 50, 3)` from 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (40, 50, 3), generator=generator, dtype=torch.uint8)
