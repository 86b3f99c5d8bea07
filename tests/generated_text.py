"""Hand-made attributions of generated text: no model is needed."""

import re

import torch

from unilens.text import Tokens
from unilens.text.generation import GenerationAttribution

PROMPT = "Paris is in France. Is it? It is!\nThe unfunny end"


def tokens_of(text, pieces, names=None):
    """Tokens of a text from its pieces in order; a piece in brackets is a special token."""
    offsets, word_of, done = [], [], 0
    for piece in pieces:
        if piece.startswith("["):
            offsets.append((0, 0))
            word_of.append(word_of[-1] + 1 if word_of else 0)
            continue
        start = text.index(piece, done)
        new_word = not word_of or start > done or not piece[0].isalpha() or not done
        word_of.append(word_of[-1] + new_word if word_of else 0)
        done = start + len(piece)
        offsets.append((start, done))
    return Tokens(text, tuple(names or pieces), tuple(offsets), tuple(word_of))


def prompt():
    pieces = re.findall(r"un(?=funny)|\w+|[.?!]", PROMPT)
    return tokens_of(PROMPT, ["[CLS]", *pieces, "[SEP]"])


def made(seed=0, targets=None, baseline=True):
    """A random attribution of a continuation of two sentences."""
    continuation = tokens_of(" No, un happy . Yes.", ["No", ",", "un", "happy", ".", "Yes", "."])
    n_prompt, count = len(prompt().names), len(continuation.names)
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values = drawn(count, n_prompt + count)
    for target in range(count):
        values[target, n_prompt + target :] = torch.nan
        if targets is not None and target not in targets:
            values[target] = torch.nan
    against = ("Yes", None, None, "sad", None, None, None)
    return GenerationAttribution(
        prompt(), continuation, values, drawn(count), drawn(count) if baseline else None,
        drawn(count).sigmoid(), against, {"method": "ig"},
    )  # fmt: skip
