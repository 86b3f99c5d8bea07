"""A language model of known truth: each token is the one 20 places back.

The model, a small LLaMA trained here on random sequences whose second half repeats the first,
answers with a token of the prompt, and which one is known. The table has, by method, the share of
generated tokens whose strongest prompt token is that one.

    python benchmarks/induction.py
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy

import unilens.text

LAG = 20
WORDS = 64
SPECIAL = ("[PAD]", "[UNK]", "[MASK]")
METHODS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "input_x_gradient": {},
    "balanced": {},
    "balanced: full": {"attention": "full"},
    "ig: zero": {"baseline": "zero", "n_steps": 20},
    "ig: mask": {"baseline": "mask", "n_steps": 20},
    "ig: mask, balanced": {"baseline": "mask", "n_steps": 20, "balanced": True},
    "ig: image_mean": {"baseline": "image_mean", "n_steps": 20},
    "occlusion: zero": {"baseline": "zero"},
    "occlusion: mask": {"baseline": "mask"},
    "uni": {"matching_steps": 1},
    "random": {},
}


def tokenizer() -> Any:
    """Return a tokenizer of words w0, w1, ..."""
    names = [*SPECIAL, *(f"w{number}" for number in range(WORDS))]
    words = models.WordLevel({name: number for number, name in enumerate(names)}, "[UNK]")
    inner = Tokenizer(words)
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    )


def sequences(count: int, lag: int, generator: torch.Generator) -> torch.Tensor:
    """Return tokens `(count, 2 lag)` whose second half repeats the first."""
    drawn = torch.randint(len(SPECIAL), len(SPECIAL) + WORDS, (count, lag), generator=generator)
    return torch.cat([drawn, drawn], 1)


def train(
    lag: int = LAG, steps: int = 600, width: int = 64, seed: int = 0, layers: int = 2
) -> tuple[transformers.LlamaForCausalLM, float]:
    """Return a model that copies the token `lag` places back, and its accuracy on new sequences.

    The padding token is not trained; the mask token stands for a tenth of the first halves' words,
    so that a model knows it.
    """
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(SPECIAL) + WORDS, hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=2 * lag,
        pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(steps):
        tokens = sequences(64, lag, generator)
        seen = tokens.clone()
        masked = torch.rand(tokens.shape, generator=generator) < 0.1
        seen[masked & (torch.arange(2 * lag) < lag)] = 2
        logits = model(input_ids=seen, use_cache=False).logits[:, lag - 1 : -1]
        loss = cross_entropy(logits.flatten(0, 1), tokens[:, lag:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    tokens = sequences(256, lag, torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        answers = model.eval()(input_ids=tokens).logits[:, lag - 1 : -1].argmax(-1)
    return model.eval(), float((answers == tokens[:, lag:]).double().mean())


def share(
    model: Any, words: Any, tokens: torch.Tensor, lag: int, method: str, settings: dict[str, Any]
) -> tuple[float, int]:
    """Return the share of tokens whose strongest prompt token is the right one, and their number.

    Args:
        model: trained.
        words: its tokenizer.
        tokens: `(n, 2 lag)`.
        lag: places back.
        method: by name.
        settings: of the method.
    """
    right = total = 0
    for row in tokens.tolist():
        attribution = unilens.text.generate(
            model, words, words.decode(row[:lag]), method, max_new_tokens=lag, **settings
        )
        strongest = attribution.values[:, :lag].abs().argmax(1)
        right += int((strongest == torch.arange(lag)).sum())
        total += lag
    return right / total, total


def main() -> None:
    """Train the model, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    model, accuracy = train(steps=options.steps)
    print(
        f"trained in {time.process_time() - began:.0f} s of CPU time; answers right: {accuracy:.1%}"
    )
    prompts = sequences(options.prompts, LAG, torch.Generator().manual_seed(2))
    print("| method | strongest prompt token is the right one | tokens | CPU seconds |")
    print("|---|---|---|---|")
    for name, settings in METHODS.items():
        began = time.process_time()
        right, total = share(model, tokenizer(), prompts, LAG, name.partition(":")[0], settings)
        print(f"| {name} | {right:.1%} | {total} | {time.process_time() - began:.1f} |", flush=True)


if __name__ == "__main__":
    main()
