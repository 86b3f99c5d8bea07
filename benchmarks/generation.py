"""Seconds of attributions of generated text: targets that share passes, and one by one.

Both are run in turn; the medians of CPU seconds on one core, their ratio, and the largest
difference of two values, relative to the largest value.

    python benchmarks/generation.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import unilens.text

sys.path.insert(0, str(Path(__file__).parent))
import induction

METHODS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "input_x_gradient": {},
    "balanced": {},
    "ig": {"baseline": "zero", "n_steps": 20},
    "occlusion": {"baseline": "zero"},
}


def random_gpt2(width: int, layers: int, words: int) -> Any:
    """Return a GPT-2-shaped model with random weights and a vocabulary of `words`."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=words, n_embd=width, n_layer=layers, n_head=4, n_positions=128,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def timed(model: Any, tokenizer: Any, prompt: str, method: str, **settings: Any) -> Any:
    """Return an attribution and its CPU seconds."""
    began = time.process_time()
    attribution = unilens.text.generate(model, tokenizer, prompt, method, **settings)
    return attribution, time.process_time() - began


def compare(
    model: Any, prompt_count: int, targets: int, method: str, repeats: int, settings: dict[str, Any]
) -> tuple[float, float, float]:
    """Return the medians of the seconds, shared and one by one, and the largest difference."""
    tokenizer = induction.tokenizer()
    drawn = torch.randint(3, 3 + induction.WORDS, (prompt_count,))
    prompt = tokenizer.decode(drawn.tolist())
    seconds: dict[bool, list[float]] = {True: [], False: []}
    values = {}
    for _ in range(repeats):
        for shared in (True, False):
            attribution, took = timed(
                model, tokenizer, prompt, method, max_new_tokens=targets, shared=shared, **settings
            )
            seconds[shared].append(took)
            values[shared] = attribution.values.nan_to_num()
    scale = values[False].abs().max()
    difference = float((values[True] - values[False]).abs().max() / scale)
    return statistics.median(seconds[True]), statistics.median(seconds[False]), difference


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    cases = [
        ("induction, LLaMA 2 x 64", induction.train(steps=5)[0], 20, 20),
        ("GPT-2 4 x 256", random_gpt2(256, 4, 5000), 32, 16),
        ("GPT-2 4 x 256", random_gpt2(256, 4, 5000), 32, 32),
    ]
    print("| model | method | P | T | shared (s) | one by one (s) | ratio | difference |")
    print("|---|---|---|---|---|---|---|---|")
    for name, model, prompt, targets in cases:
        for method in options.methods:
            shared, single, difference = compare(
                model, prompt, targets, method, options.repeats, METHODS[method]
            )
            print(
                f"| {name} | {method} | {prompt} | {targets} | {shared:.2f} | {single:.2f} "
                f"| {single / shared:.1f} | {difference:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
