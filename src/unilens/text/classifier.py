"""A text classifier with its tokenizer, and encoded texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._validation.models import check_outputs
from ..errors import UnilensError, first_line, require
from ..models.labels import Labelled
from .embeddings import AtEmbeddings, logits_of, own_copy, padding_id
from .limits import notes_on_length
from .model import TextModel, agree, takes
from .tokens import Tokens, read_tokens


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


class TextClassifier(TextModel, Labelled):
    """A sequence classifier of transformers with its tokenizer.

    Args:
        network: takes `inputs_embeds` and gives `.logits`, in eval mode; it is not changed.
        tokenizer: a fast one, which knows where in the text its tokens are.
        name: how to load it again.
        padded: the number of tokens to which each text is padded; None for no padding.

    Raises:
        UnilensError: the network is no classifier, or the tokenizer is not fast.
    """

    kind = "sequence classifier"

    def __init__(
        self, network: nn.Module, tokenizer: Any, name: str = "", *, padded: int | None = None
    ) -> None:
        super().__init__(network, tokenizer, name)
        config: Any = self.network.config
        self.padded = padded
        self.single_output = getattr(config, "num_labels", None) == 1
        names = getattr(config, "id2label", None) or {}
        self.labels = tuple(str(names[index]) for index in sorted(names))

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
        ids = torch.tensor([read["input_ids"]], device=self.device)
        self.check_vocabulary(ids)
        frozen = {
            name: torch.tensor([values], device=self.device)
            for name, values in read.items()
            if name in self.tokenizer.model_input_names
            and name != "input_ids"
            and takes(self.network, name)
        }
        network = own_copy(self.network)
        expected = self._logits(network, ids, frozen, ids.shape[1] - len(positions))
        model = self._at_embeddings(network, ids, positions, frozen, expected)
        self.single_output = model.single_output = expected.shape[-1] == 1
        notes = notes_on_length(self.network, ids.shape[1])
        return EncodedText(tokens, model, model.embeddings, notes)

    def _logits(
        self, network: nn.Module, ids: Tensor, frozen: Mapping[str, Tensor], added: int
    ) -> Tensor:
        """Return the logits `(1, K)` from the ids `(1, N)`."""

        def run(most: int) -> Any:
            def cut(values: Tensor) -> Tensor:  # many models need the last token
                return torch.cat([values[:, : most - 1], values[:, -1:]], 1)

            given = {name: cut(values) for name, values in frozen.items()}
            return network(input_ids=cut(ids), **given)

        logits = logits_of(self.run(run, ids.shape[1], added), network)
        check_outputs(logits, 1)
        self.check_finite(logits)
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
        for by_ids in (False, True):
            try:
                model = AtEmbeddings(
                    network,
                    ids[0],
                    text_positions,
                    frozen,
                    self.labels,
                    self.replacements,
                    by_ids=by_ids,
                )
                with torch.no_grad():
                    logits = model(model.embeddings)
                check_outputs(logits, 1)
            except Exception as error:  # many take no embeddings, and say so in ways of their own
                why = why or first_line(error)
                continue
            if agree(logits, expected):
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
