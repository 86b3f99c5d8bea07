"""A text classifier as a function of the embeddings of a text's own tokens, all else held fixed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_model, check_outputs
from ..errors import UnilensError, require
from ..models.labels import Labelled
from ..passes import first_line
from .tokens import Tokens, read_tokens

_NORMS = 4096
"""Embeddings, evenly spread over the vocabulary, whose norms say what is typical."""


class AtEmbeddings(Labelled, nn.Module):
    """One text's logits as a function of its tokens' embeddings.

    From embeddings `(B, E, L)`, a signal of E channels and L places, to logits `(B, K)`. They are
    what the embedding layer gives; positions and segments are added inside. The tokens that the
    tokenizer adds, and the mask, are held fixed.

    Args:
        network: a sequence classifier of transformers; it is used, not changed.
        ids: `(N,)`, of all tokens.
        places: `(L,)`, which of them are the text's own.
        held: what the network takes beside, each `(1, N)`.
        labels: of the classes.
        replacements: ids of the tokens that can stand for others, by name.
    """

    whole: Tensor
    places: Tensor

    def __init__(
        self,
        network: nn.Module,
        ids: Tensor,
        places: Tensor,
        held: Mapping[str, Tensor],
        labels: tuple[str, ...] = (),
        replacements: Mapping[str, int | None] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.labels = network, labels
        self.held, self.replacements = dict(held), dict(replacements or {})
        self.training = False
        with torch.no_grad():
            self.register_buffer("whole", self._embed(ids).unsqueeze(0))
        self.register_buffer("places", places)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits `(B, K)` of embeddings `(B, E, L)`."""
        count = len(embeddings)
        whole = self.whole.expand(count, -1, -1).index_copy(1, self.places, embeddings.mT)
        held = {name: value.expand(count, -1) for name, value in self.held.items()}
        logits: Tensor = self.network(inputs_embeds=whole, **held).logits
        return logits

    @property
    def embeddings(self) -> Tensor:
        """The embeddings of the text itself, `(1, E, L)`."""
        return self.whole[:, self.places].mT.contiguous()

    def replacement(self, name: str) -> Tensor:
        """Return the embedding `(E,)` of a token that stands for others, such as "mask".

        Raises:
            UnilensError: the tokenizer has no such token.
        """
        number = self.replacements.get(name)
        if number is None:
            having = [one for one, known in self.replacements.items() if known is not None]
            raise UnilensError(
                f"expected a tokenizer with a {name} token, got one without; use baseline="
                f"{' or '.join([*having, 'zero'])}"
            )
        with torch.no_grad():
            return self._embed(self.places.new_tensor([number]))[0]

    def _embed(self, ids: Tensor) -> Tensor:
        network: Any = self.network
        embeddings: Tensor = network.get_input_embeddings()(ids)
        return embeddings.detach()


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """A text as the model takes it.

    Attributes:
        tokens: of the text.
        model: from embeddings `(B, E, L)` to logits `(B, K)`.
        embeddings: `(1, E, L)`, of the text itself.
    """

    tokens: Tokens
    model: AtEmbeddings
    embeddings: Tensor


class TextClassifier(Labelled):
    """A sequence classifier of transformers with its tokenizer.

    Args:
        network: takes `inputs_embeds` and gives `.logits`, in eval mode; it is not changed.
        tokenizer: a fast one, which knows where in the text its tokens are.
        name: how to load it again.

    Raises:
        UnilensError: the network is no classifier, or the tokenizer is not fast.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, name: str = "") -> None:
        check_model(network)
        config = getattr(network, "config", None)
        fits = config is not None and hasattr(network, "get_input_embeddings")
        require(
            fits,
            f"expected a sequence classifier of transformers, got {type(network).__name__}; wrap "
            "other models in a module that takes embeddings, and call unilens.explain",
        )
        require(
            bool(getattr(tokenizer, "is_fast", False)),
            f"expected a fast tokenizer, which says where its tokens are in the text, got "
            f"{type(tokenizer).__name__}; load it by AutoTokenizer, or convert it to a "
            "tokenizer.json",
        )
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.single_output = getattr(config, "num_labels", None) == 1
        names = getattr(config, "id2label", None) or {}
        self.labels = tuple(str(names[index]) for index in sorted(names))

    @property
    def most_tokens(self) -> int:
        """The tokens that the model takes, those counted that the tokenizer adds."""
        config: Any = self.network.config
        positions = getattr(config, "max_position_embeddings", None) or self._unlimited
        return int(min(positions, self.tokenizer.model_max_length))

    _unlimited = 2**31

    @functools.cached_property
    def typical_norm(self) -> float:
        """The median l2 norm of the vocabulary's embeddings: the unit of distances for texts."""
        network: Any = self.network
        layer = network.get_input_embeddings()
        size = layer.weight.shape[0]
        some = torch.linspace(0, size - 1, min(size, _NORMS), device=layer.weight.device)
        with torch.no_grad():
            return float(layer(some.long()).float().norm(dim=-1).median())

    @torch.inference_mode(False)
    def encode(self, text: str) -> EncodedText:
        """Return a text as the model takes it.

        The model's logits are compared, from the tokens' ids and from their embeddings: where they
        differ, an explanation would be one of another model.

        Raises:
            UnilensError: the text is empty or too long, or the model takes no embeddings.
        """
        read, tokens, places = read_tokens(self.tokenizer, text, self.most_tokens)
        network: Any = self.network
        device = network.get_input_embeddings().weight.device
        held = {
            name: torch.tensor([values], device=device)
            for name, values in read.items()
            if name in self.tokenizer.model_input_names and name != "input_ids"
        }
        ids = torch.tensor(read["input_ids"], device=device)
        marks = {kind: getattr(self.tokenizer, f"{kind}_token_id", None) for kind in _REPLACEMENTS}
        model = AtEmbeddings(
            self.network, ids, torch.tensor(places, device=device), held, self.labels, marks
        )
        self._compare(ids, held, model)
        return EncodedText(tokens, model, model.embeddings)

    def _compare(self, ids: Tensor, held: Mapping[str, Tensor], model: AtEmbeddings) -> None:
        kind = type(self.network).__name__
        try:
            with torch.no_grad():
                by_ids = self.network(input_ids=ids.unsqueeze(0), **held).logits
                by_embeddings = model(model.embeddings)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise UnilensError(
                f"expected a sequence classifier that takes inputs_embeds, got {kind}: "
                f"{first_line(error)}"
            ) from error
        check_outputs(by_ids, 1)
        self.single_output = model.single_output = by_ids.shape[-1] == 1
        tolerance = torch.finfo(by_ids.dtype).eps ** 0.5 * max(1.0, float(by_ids.abs().max()))
        difference = float((by_ids - by_embeddings).abs().max())
        require(
            difference <= tolerance,
            f"expected a model that gives the same logits from ids and from their embeddings, got "
            f"{kind}, where they differ by {difference:.2g}; it needs the ids themselves",
        )


_REPLACEMENTS = ("pad", "mask")
