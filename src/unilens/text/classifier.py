"""A text classifier with its tokenizer, and encoded texts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .._engine.copying import unwrapped
from .._engine.memory import out_of_memory
from .._validation.models import check_model, check_outputs
from ..errors import UnilensError, first_line, require
from ..models.labels import Labelled
from .embeddings import AtEmbeddings, embed, embedding_layer, logits_of, own_copy, padding_id
from .limits import LookupsInBounds, longest_that_runs, notes_on_length, too_long
from .tokens import Tokens, read_tokens

_NORMS = 4096
"""Embeddings, evenly spaced in the vocabulary, whose norms define the typical one."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """A text, encoded for a model.

    Attributes:
        tokens: of the text.
        model: from embeddings `(B, E, L)` to logits `(B, K)`.
        embeddings: `(1, E, L)`, of the text itself.
        notes: remarks on the text and this model.
    """

    tokens: Tokens
    model: AtEmbeddings
    embeddings: Tensor
    notes: tuple[str, ...] = ()


class TextClassifier(Labelled):
    """A sequence classifier of transformers with its tokenizer.

    Args:
        network: takes `inputs_embeds` and gives `.logits`, in eval mode; it is not changed.
        tokenizer: a fast one, which knows where in the text its tokens are.
        name: how to load it again.
        padded: the number of tokens to which each text is padded; None for no padding.

    Raises:
        UnilensError: the network is no classifier, or the tokenizer is not fast.
    """

    def __init__(
        self, network: nn.Module, tokenizer: Any, name: str = "", *, padded: int | None = None
    ) -> None:
        network = unwrapped(network)
        check_model(network)
        config = getattr(network, "config", None)
        fits = config is not None and hasattr(network, "get_input_embeddings")
        require(
            fits,
            f"expected a sequence classifier of transformers, got {type(network).__name__}; wrap "
            "other models in a module that takes embeddings, and call unilens.explain",
        )
        require(
            hasattr(tokenizer, "is_fast") and callable(tokenizer),
            f"expected a fast tokenizer, which says where its tokens are in the text, got "
            f"{type(tokenizer).__name__}; load it by AutoTokenizer, or convert it to a "
            "tokenizer.json",
        )
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.padded = padded
        self.single_output = getattr(config, "num_labels", None) == 1
        names = getattr(config, "id2label", None) or {}
        self.labels = tuple(str(names[index]) for index in sorted(names))

    @functools.cached_property
    def typical_norm(self) -> float:
        """The median l2 norm of the vocabulary's embeddings: the unit of distances for texts."""
        size = self._vocabulary_size
        some = torch.linspace(0, size - 1, min(size, _NORMS), dtype=torch.float64).long()
        some = some.to(self._device)
        return float(embed(own_copy(self.network), some.unsqueeze(0)).float().norm(dim=-1).median())

    @torch.inference_mode(False)
    def encode(self, text: str) -> EncodedText:
        """Return a text, encoded for the model.

        The model's logits from the tokens' ids are compared with those from their embeddings: where
        they differ, an explanation would be of another model. The largest number of tokens is found
        by running the model.

        Raises:
            UnilensError: the text is empty or too long, or the model takes no embeddings.
        """
        read, tokens, positions = read_tokens(self.tokenizer, text, self.padded)
        ids = torch.tensor([read["input_ids"]], device=self._device)
        self._check_vocabulary(ids)
        frozen = {
            name: torch.tensor([values], device=self._device)
            for name, values in read.items()
            if name in self.tokenizer.model_input_names
            and name != "input_ids"
            and _takes(self.network, name)
        }
        network = own_copy(self.network)
        expected = self._logits(network, ids, frozen, ids.shape[1] - len(positions))
        model = self._at_embeddings(network, ids, positions, frozen, expected)
        self.single_output = model.single_output = expected.shape[-1] == 1
        notes = notes_on_length(self.network, ids.shape[1])
        return EncodedText(tokens, model, model.embeddings, notes)

    @property
    def _device(self) -> torch.device:
        layer = embedding_layer(self.network)
        device = next(chain(layer.parameters(), layer.buffers(), self.network.parameters())).device
        require(
            device.type != "meta",
            f"expected a model with its weights, got {type(self.network).__name__} on the meta "
            "device; load it without offloading",
        )
        return device

    @property
    def _vocabulary_size(self) -> int:
        layer: Any = embedding_layer(self.network)
        size = getattr(layer, "num_embeddings", None) or len(layer.weight)
        return int(size)

    def _check_vocabulary(self, ids: Tensor) -> None:
        largest, size = int(ids.max()), self._vocabulary_size
        require(
            largest < size,
            f"expected a tokenizer with the model's {size} tokens, got token {largest}, "
            f"{self.tokenizer.convert_ids_to_tokens(largest)!r}; use the tokenizer saved with the "
            "model",
        )

    def _logits(
        self, network: nn.Module, ids: Tensor, frozen: Mapping[str, Tensor], added: int
    ) -> Tensor:
        """Return the logits `(1, K)` from the ids `(1, N)`."""
        count, kind = ids.shape[1], type(network).__name__

        def run(most: int) -> Any:
            def cut(values: Tensor) -> Tensor:  # many models need the last token
                return torch.cat([values[:, : most - 1], values[:, -1:]], 1)

            bounds = nullcontext() if ids.device.type == "cpu" else LookupsInBounds()
            given = {name: cut(values) for name, values in frozen.items()}
            with torch.no_grad(), bounds:
                return network(input_ids=cut(ids), **given)

        try:
            result = run(count)
        except Exception as error:  # models fail in ways of their own: index, shape, assertion
            if out_of_memory(error):
                raise UnilensError(
                    f"ran out of memory at a text of {count} tokens; explain it in parts"
                ) from error
            most = longest_that_runs(run, count)
            raise UnilensError(
                too_long(most, count, added)
                if most > added
                else f"expected a classifier that runs on what the tokenizer gives, got {kind}: "
                f"{first_line(error)}"
            ) from error
        logits = logits_of(result, network)
        check_outputs(logits, 1)
        require(
            bool(logits.isfinite().all()),
            f"expected finite logits, got NaN or infinity from {kind}; check its weights, and its "
            "precision",
        )
        return logits

    def _at_embeddings(
        self,
        network: nn.Module,
        ids: Tensor,
        positions: list[int],
        frozen: Mapping[str, Tensor],
        expected: Tensor,
    ) -> AtEmbeddings:
        """Return the model at its embeddings, checked to give the expected logits `(1, K)`."""
        kind, why = type(network).__name__, ""
        text_positions = torch.tensor(positions, device=ids.device)
        marks = {name: getattr(self.tokenizer, f"{name}_token_id", None) for name in _REPLACEMENTS}
        for by_ids in (False, True):
            try:
                model = AtEmbeddings(
                    network, ids[0], text_positions, frozen, self.labels, marks, by_ids=by_ids
                )
                with torch.no_grad():
                    logits = model(model.embeddings)
                check_outputs(logits, 1)
            except Exception as error:  # many take no embeddings, and say so in ways of their own
                why = why or first_line(error)
                continue
            if _agree(logits, expected):
                return model
            difference = float((logits - expected).abs().max())
            padded = padding_id(network) in ids.tolist()[0]  # decoders find the padding by its id
            require(
                padded and not by_ids,
                "expected a model that gives the same logits from ids and from their embeddings, "
                f"got {kind}, where they differ by {difference:.2g}; it needs the ids themselves",
            )
        raise UnilensError(
            f"expected a sequence classifier that takes inputs_embeds, got {kind}: {why}"
        )


def _agree(logits: Tensor, expected: Tensor) -> bool:
    """Return whether logits are equal to rounding."""
    tolerance = torch.finfo(expected.dtype).eps ** 0.5 * max(1.0, float(expected.abs().max()))
    return float((logits - expected).abs().max()) <= tolerance


def _takes(network: nn.Module, name: str) -> bool:
    """Return whether a network takes an input of this name."""
    known = inspect.signature(network.forward).parameters.values()
    return any(
        parameter.name == name or parameter.kind is parameter.VAR_KEYWORD for parameter in known
    )


_REPLACEMENTS = ("pad", "mask")
