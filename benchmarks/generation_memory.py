"""Numbers that one pass of a model shaped like LLaMA saves for its pass backward.

Counted by the hooks of saved tensors, each storage once and without the weights, per token and
layer, beside the formulas of docs/generation.md for width d and a gated perceptron of width f.

    python benchmarks/generation_memory.py
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import transformers
from torch import Tensor

from unilens._engine.balanced import BalancedGradients

TOKENS = 575
SHAPES = [(64, 256, 2, 4, 1), (64, 512, 2, 4, 1), (128, 256, 2, 4, 1), (128, 256, 4, 4, 1),
          (256, 1024, 4, 8, 2)]  # fmt: skip
"""Width, width of the perceptron, layers, heads, heads of keys and values."""


def saved(shape: tuple[int, int, int, int, int], mode: AbstractContextManager[object]) -> float:
    """Return the numbers saved per token and layer, in a mode of torch functions."""
    width, inner, layers, heads, shared = shape
    config = transformers.LlamaConfig(
        vocab_size=200, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=shared, max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes() // 4
        return value

    embeddings = torch.randn(1, TOKENS, width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value), mode:
        # the outputs stay alive, so that no storage is counted again at a new address
        outputs = model(inputs_embeds=embeddings, logits_to_keep=1, use_cache=False)
    total = sum(sizes.values())
    del outputs
    return total / TOKENS / layers


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    print("| d | f | layers | plain | 5.25 d + 3 f | balanced | 2.75 d + 2 f |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for shape in SHAPES:
        width, inner, layers = shape[:3]
        plain, balanced = saved(shape, nullcontext()), saved(shape, BalancedGradients())
        print(
            f"| {width} | {inner} | {layers} | {plain:.0f} | {5.25 * width + 3 * inner:.0f} "
            f"| {balanced:.0f} | {2.75 * width + 2 * inner:.0f} |"
        )


if __name__ == "__main__":
    main()
