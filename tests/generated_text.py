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


def large(count, n_prompt, seed=0):
    """An attribution of words that are tokens, as long as asked for."""
    words = [f"word{number}" for number in range(n_prompt)]
    written = [f"out{number}" for number in range(count)]
    values = torch.randn(count, n_prompt + count, generator=torch.Generator().manual_seed(seed))
    values = values.double() ** 3
    after = torch.arange(n_prompt + count) >= n_prompt + torch.arange(count)[:, None]
    return GenerationAttribution(
        tokens_of(" ".join(words), words), tokens_of(" ".join(written), written),
        values.masked_fill(after, torch.nan), torch.ones(count), None, torch.ones(count),
        (None,) * count, {"method": "ig"},
    )  # fmt: skip


def hostile():
    """An attribution of tokens that a page or a terminal must not take for commands."""
    pieces = ["<script>alert(1)</script>", "\x1b[31mred", "'\">&amp;", "\u202eabc"]
    pieces += ["語語語語語", "e\u0301"]
    text = " ".join(pieces)
    tokens = Tokens(
        text, tuple(pieces), tuple((text.index(p), text.index(p) + len(p)) for p in pieces),
        tuple(range(len(pieces))),
    )  # fmt: skip
    values = torch.arange(72.0).view(6, 12).double() - 36
    values[torch.arange(12) >= 6 + torch.arange(6)[:, None]] = torch.nan
    return GenerationAttribution(
        tokens, tokens, values, torch.ones(6), None, torch.ones(6), ("<i>",) + 5 * (None,),
        {"method": "<b>"}, ("a <note>",),
    )  # fmt: skip


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
