"""A network of transformers with its tokenizer, and the checks that all texts share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._engine.copying import unwrapped
from .._engine.memory import out_of_memory
from .._validation.models import check_model
from ..errors import UnilensError, first_line, require
from .embeddings import embed, embedding_layer, own_copy
from .limits import LookupsInBounds, longest_that_runs, too_long

REPLACEMENTS = ("pad", "mask")
"""The tokenizer's tokens that can replace others."""
_NORMS = 4096
"""Embeddings, evenly spaced in the vocabulary, whose norms define the typical one."""

_SINGLE = 1e-6
"""Relative rounding of a pass in float32."""


class TextModel:
    """A network of transformers with its tokenizer: the base of classifiers and language models.

    Args:
        network: takes `inputs_embeds` and gives `.logits`, in eval mode; it is not changed.
        tokenizer: a fast one, which knows where in the text its tokens are.
        name: how to load it again.

    Raises:
        UnilensError: the network is none of transformers, or the tokenizer is not fast.
    """

    kind: ClassVar[str]
    """What the network is, in messages."""

    def __init__(self, network: nn.Module, tokenizer: Any, name: str = "") -> None:
        network = unwrapped(network)
        check_model(network)
        config = getattr(network, "config", None)
        fits = config is not None and hasattr(network, "get_input_embeddings")
        require(
            fits,
            f"expected a {self.kind} of transformers, got {type(network).__name__}; wrap "
            "other models in a module that takes embeddings, and call unilens.explain",
        )
        require(
            hasattr(tokenizer, "is_fast") and callable(tokenizer),
            f"expected a fast tokenizer, which says where its tokens are in the text, got "
            f"{type(tokenizer).__name__}; load it by AutoTokenizer, or convert it to a "
            "tokenizer.json",
        )
        self.network, self.tokenizer, self.name = network, tokenizer, name

    @functools.cached_property
    def typical_norm(self) -> float:
        """The median l2 norm of the vocabulary's embeddings: the unit of distances for texts."""
        size = self.vocabulary_size
        some = torch.linspace(0, size - 1, min(size, _NORMS), dtype=torch.float64).long()
        some = some.to(self.device)
        return float(embed(own_copy(self.network), some.unsqueeze(0)).float().norm(dim=-1).median())

    @property
    def device(self) -> torch.device:
        """Where the embeddings are."""
        layer = embedding_layer(self.network)
        device = next(chain(layer.parameters(), layer.buffers(), self.network.parameters())).device
        require(
            device.type != "meta",
            f"expected a model with its weights, got {type(self.network).__name__} on the meta "
            "device; load it without offloading",
        )
        return device

    @property
    def vocabulary_size(self) -> int:
        """How many tokens have an embedding."""
        return table_size(embedding_layer(self.network))

    @property
    def replacements(self) -> dict[str, int | None]:
        """Ids of the tokens that can replace others, by name."""
        return {name: getattr(self.tokenizer, f"{name}_token_id", None) for name in REPLACEMENTS}

    def check_vocabulary(self, ids: Tensor, size: int | None = None) -> None:
        """Raise where the model has no embedding of a token, of so many."""
        largest, size = int(ids.max()), size or self.vocabulary_size
        require(
            largest < size,
            f"expected a tokenizer with the model's {size} tokens, got token {largest}, "
            f"{self.tokenizer.convert_ids_to_tokens(largest)!r}; use the tokenizer saved with the "
            "model",
        )

    def run(self, run: Callable[[int], Any], count: int, added: int) -> Any:
        """Return what a run gives for all tokens of a text.

        Args:
            run: runs the network with so many tokens.
            count: of the text.
            added: how many of them the tokenizer adds.

        Raises:
            UnilensError: it fails; where it runs with fewer tokens, the message says how many.
        """
        cuda = self.device.type != "cpu"

        def in_bounds(most: int) -> Any:
            with torch.no_grad(), LookupsInBounds() if cuda else nullcontext():
                return run(most)

        try:
            return in_bounds(count)
        except Exception as error:  # models fail in ways of their own: index, shape, assertion
            if out_of_memory(error):
                raise UnilensError(
                    f"ran out of memory at a text of {count} tokens; explain it in parts"
                ) from error
            most = longest_that_runs(in_bounds, count)
            raise UnilensError(
                too_long(most, count, added)
                if most > added
                else f"expected a {self.kind} that runs on what the tokenizer gives, got "
                f"{type(self.network).__name__}: {first_line(error)}"
            ) from error

    def check_finite(self, logits: Tensor) -> None:
        """Raise unless all logits are finite."""
        require(
            bool(logits.isfinite().all()),
            f"expected finite logits, got NaN or infinity from {type(self.network).__name__}; "
            "check its weights, and its precision",
        )


def table_size(layer: Any) -> int:
    """Return how many tokens an embedding layer has."""
    return int(getattr(layer, "num_embeddings", None) or len(layer.weight))


def agree(logits: Tensor, expected: Tensor) -> bool:
    """Return whether logits are equal to rounding."""
    scale = max(1.0, float(expected.abs().max()))
    return float((logits - expected).abs().max()) <= rounding(expected.dtype) * scale


def rounding(dtype: torch.dtype) -> float:
    """Return the relative difference that counts as rounding.

    Networks in float64 may compute parts of their work in float32.
    """
    return float(max(torch.finfo(dtype).eps ** 0.5, _SINGLE))


def takes(network: nn.Module, name: str, *, named: bool = False) -> bool:
    """Return whether a network takes an input of this name, by that name alone where `named`."""
    known = inspect.signature(network.forward).parameters.values()
    return any(
        parameter.name == name or (not named and parameter.kind is parameter.VAR_KEYWORD)
        for parameter in known
    )
