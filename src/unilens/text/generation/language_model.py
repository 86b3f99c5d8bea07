"""A language model with its tokenizer: prompts, greedy decoding, and its logits at embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnilensError, first_line, require
from ..embeddings import embedding_layer, logits_of, own_copy
from ..limits import longest_that_runs, notes_on_length
from ..loading import quiet
from ..model import TextModel, agree, table_size, takes
from .next_token import NextToken, decoder_of

_SPECIAL = ("pad", "bos", "eos", "decoder_start", "forced_bos")
"""Special tokens of a configuration that greedy decoding needs."""


class LanguageModel(TextModel):
    """A causal language model or an encoder-decoder of transformers with its tokenizer.

    Args:
        network: with a head for the next token, in eval mode; it is not changed.
        tokenizer: a fast one, which knows where in the text its tokens are.
        name: how to load it again.

    Attributes:
        has_encoder: whether an encoder reads the prompt, and a decoder writes.

    Raises:
        UnilensError: the network generates no text, or the tokenizer is not fast.
    """

    kind = "language model"

    def __init__(self, network: nn.Module, tokenizer: Any, name: str = "") -> None:
        super().__init__(network, tokenizer, name)
        inner: Any = self.network
        generates = hasattr(inner, "can_generate") and inner.can_generate()
        require(
            generates and inner.get_output_embeddings() is not None,
            "expected a language model that generates text, such as AutoModelForCausalLM loads, "
            f"got {type(inner).__name__}; for a classifier use unilens.text.explain_text",
        )
        self.has_encoder = bool(getattr(inner.config, "is_encoder_decoder", False))

    @property
    def start(self) -> Tensor | None:
        """The tokens `(1,)` with which a decoder starts; None for a model without encoder.

        Raises:
            UnilensError: the configuration does not name it.
        """
        if not self.has_encoder:
            return None
        number = self._special("decoder_start", "bos")
        if number is None:
            raise UnilensError(
                f"expected an encoder-decoder whose decoder starts with a token, got "
                f"{type(self.network).__name__} without; set config.decoder_start_token_id"
            )
        return torch.tensor([number], device=self.device)

    @property
    def written_vocabulary_size(self) -> int:
        """How many tokens can be written: a decoder may have a table of its own."""
        if not self.has_encoder:
            return self.vocabulary_size
        return table_size(embedding_layer(decoder_of(self.network)))

    @property
    def ends(self) -> frozenset[int]:
        """The tokens with which the model ends a text."""
        number: Any = self._special("eos")
        several = number if isinstance(number, (list, tuple)) else [number]
        return frozenset(int(value) for value in several if value is not None)

    def greedy(self, network: nn.Module, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the tokens `(T,)` that greedy decoding adds, without the last EOS, and its logits.

        Of the configuration for generating only the special tokens count: each token has the
        largest logit, except a first one that the configuration sets.

        Args:
            network: of which there is a copy already.
            ids: `(P,)`, of the prompt.
            count: most tokens.

        Returns:
            The tokens, and the logits `(T, V)` of each.

        Raises:
            UnilensError: the prompt and the tokens are more than the model takes, or the network
                does not generate.
        """
        made: Any = network
        settings = {
            "attention_mask": torch.ones_like(ids)[None],
            "max_new_tokens": count,
            "return_dict_in_generate": True,
            "output_logits": True,
        }
        kept, made.generation_config = made.generation_config, self._plain_config()
        try:
            with quiet(), torch.no_grad():
                given = made.generate(ids[None], **settings)
        except Exception as error:  # models fail in ways of their own: index, shape, assertion
            raise self._not_generated(network, ids, count, error) from error
        finally:
            made.generation_config = kept
        added = given.sequences[0, 1 if self.has_encoder else len(ids) :]
        while len(added) and int(added[-1]) in self.ends:
            added = added[:-1]
        return added.clone(), torch.cat(given.logits)[: len(added)]

    def _plain_config(self) -> Any:
        """Return a configuration for greedy decoding with the model's special tokens alone."""
        from transformers import GenerationConfig

        numbers = {name: self._special(name) for name in _SPECIAL}
        if numbers["pad"] is None and self.ends:
            numbers["pad"] = min(self.ends)  # of one text: it is never used
        return GenerationConfig(**{f"{name}_token_id": numbers[name] for name in _SPECIAL})

    @property
    def forced(self) -> int | None:
        """The token that the configuration sets as the first that is written, or None."""
        number: int | None = self._special("forced_bos")
        return number

    def at_embeddings(self, network: nn.Module, ids: Tensor, prompt_count: int) -> NextToken:
        """Return the model of the token after some, checked to give the logits of their ids.

        Args:
            network: of which there is a copy already.
            ids: `(L,)`, of the prompt and of the tokens generated.
            prompt_count: how many are the prompt's.

        Raises:
            UnilensError: it takes no embeddings, or gives other logits from them.
        """
        expected = self.logits(network, ids, prompt_count)
        kind, why = type(network).__name__, ""
        for other in ({}, {"scaled": True} if self.has_encoder else {"by_ids": True}):
            try:
                model = NextToken(
                    network, ids, prompt_count, self.start, self.replacements, **other
                )
                with torch.no_grad():
                    logits = model(model.embeddings)
            except Exception as error:  # many take no embeddings, and say so in ways of their own
                why = why or first_line(error)
                continue
            if agree(logits, expected):
                return model
            why = why or (
                "the logits from embeddings and from ids differ by "
                f"{float((logits - expected).abs().max()):.2g}"
            )
        raise UnilensError(f"expected a language model that takes inputs_embeds, got {kind}: {why}")

    def logits(self, network: nn.Module, ids: Tensor, prompt_count: int, added: int = 0) -> Tensor:
        """Return the logits `(1, V)` of the token that follows some, by their ids.

        Args:
            network: of which there is a copy already.
            ids: `(L,)`, of the prompt and of the tokens generated.
            prompt_count: how many are the prompt's.
            added: tokens of the prompt that the tokenizer adds.

        Raises:
            UnilensError: they are too many, or the logits are not finite.
        """
        options = {"use_cache": False} if takes(network, "use_cache") else {}

        def run(most: int) -> Any:
            row = ids[None, :most]
            if not self.has_encoder:
                return network(input_ids=row, **options)
            start: Any = self.start
            decoder = torch.cat([start[None], row[:, prompt_count:]], 1)
            return network(input_ids=row[:, :prompt_count], decoder_input_ids=decoder, **options)

        logits = logits_of(self.run(run, len(ids), added), network)
        require(
            logits.ndim == 3,
            f"expected logits of each next token (B, L, V), got {tuple(logits.shape)} from "
            f"{type(network).__name__}; for a classifier use unilens.text.explain_text",
        )
        self.check_finite(logits)
        return logits[:, -1]

    def copy(self) -> nn.Module:
        """Return a copy of the network that shares its parameters."""
        return own_copy(self.network)

    def notes_on(self, count: int) -> tuple[str, ...]:
        """Return a note where a text has more tokens than the configuration allows."""
        return () if self.has_encoder else notes_on_length(self.network, count)

    def _special(self, *names: str) -> Any:
        """Return the first special token that a configuration names, or None."""
        network: Any = self.network
        configs = (getattr(network, "generation_config", None), network.config)
        for name in names:
            for config in configs:
                number = getattr(config, f"{name}_token_id", None)
                if number is not None:
                    return number
        return None

    def _not_generated(
        self, network: nn.Module, ids: Tensor, count: int, error: Exception
    ) -> UnilensError:
        """Return the error of a prompt after which the model does not write so many tokens."""
        fixed = len(ids)

        def run(more: int) -> None:
            longer = torch.cat([ids, ids[:1].expand(more)])
            with torch.no_grad():
                self.logits(network, longer, fixed)

        most = longest_that_runs(run, count) + 1  # the last token is no input
        if most == count:
            return UnilensError(
                f"expected a model that generates {count} tokens, got {type(network).__name__}: "
                f"{first_line(error)}; pass a text by continuation="
            )
        remedy = f"shorten the prompt, or generate at most {most} tokens"
        return UnilensError(
            f"expected a prompt and tokens within the model's length, got {fixed} and {count}: "
            f"{first_line(error)}; {remedy}"
        )
