"""The largest number of tokens that a model takes, found by running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_UNKNOWN = 10**9
"""From this value on, transformers' `model_max_length` means that the limit is unknown."""
_FIRST = 16
"""Tokens of the first run."""
_CONFIGURED = ("max_position_embeddings", "n_positions", "max_seq_len")


class LookupsInBounds(TorchDispatchMode):
    """Raises IndexError where an embedding's index is beyond its table.

    On the CPU torch does so itself. On an accelerator the lookup ends all other work there.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation of torch."""
        if func is torch.ops.aten.embedding.default and int(args[1].max()) >= len(args[0]):
            raise IndexError(f"index {int(args[1].max())} of a table of {len(args[0])}")
        return func(*args, **(kwargs or {}))


def longest_that_runs(run: Callable[[int], object], count: int) -> int:
    """Return the most tokens that run, below a count that does not; 0 if none do.

    The search doubles, then bisects: no run takes more than twice the memory of those that succeed.
    """
    longest, fails = 0, count
    while fails - longest > 1:
        middle = min(max(2 * longest, _FIRST), (longest + fails) // 2)
        try:
            run(middle)
            longest = middle
        except Exception:  # models fail in ways of their own: index, shape, assertion
            fails = middle
    return longest


def too_long(most: int, count: int, added: int, remedy: str = "shorten it") -> str:
    """Return the message that a text is too long.

    Args:
        most: tokens that the model takes.
        count: tokens of the text.
        added: how many of them the tokenizer adds.
        remedy: for the user.
    """
    return (
        f"expected a text of at most {most} tokens, got {count} (with {added} that the tokenizer "
        f"adds); {remedy}, or explain it in parts"
    )


def tokenizer_limit(tokenizer: Any) -> int | None:
    """Return the number of tokens to which a tokenizer truncates; None where it is unknown."""
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and 0 < limit < _UNKNOWN else None


def text_config(network: nn.Module) -> Any:
    """Return the configuration of a network of transformers: that of texts if it has several."""
    config: Any = getattr(network, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def notes_on_length(network: nn.Module, count: int) -> tuple[str, ...]:
    """Return a note where a text has more tokens than the model's configuration allows."""
    config = text_config(network)
    for name in _CONFIGURED:
        limit = getattr(config, name, None)
        if isinstance(limit, int) and 0 < limit < count:
            return (
                f"the text has {count} tokens, more than the model's {name} of {limit}: it runs, "
                "but it is not trained for texts this long",
            )
    return ()
