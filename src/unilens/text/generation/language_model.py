"""A language model with its tokenizer: prompts, greedy decoding, and its logits at embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnilensError, first_line, require
from ..embeddings import logits_of, own_copy
from ..limits import longest_that_runs, notes_on_length
from ..loading import quiet
from ..model import TextModel, agree, takes
from .next_token import NextToken


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
    def ends(self) -> frozenset[int]:
        """The tokens with which the model ends a text."""
        number: Any = self._special("eos")
        several = number if isinstance(number, (list, tuple)) else [number]
        return frozenset(int(value) for value in several if value is not None)

    def greedy(self, network: nn.Module, ids: Tensor, count: int) -> Tensor:
        """Return the tokens `(T,)` that greedy decoding adds, up to `count`, without the last EOS.

        Args:
            network: of which there is a copy already.
            ids: `(P,)`, of the prompt.
            count: most tokens.

        Raises:
            UnilensError: the prompt and the tokens are more than the model takes.
        """
        made: Any = network
        settings = {
            "attention_mask": torch.ones_like(ids)[None],
            "do_sample": False,
            "num_beams": 1,
            "max_new_tokens": count,
            "return_dict_in_generate": False,
        }
        if getattr(made.generation_config, "pad_token_id", None) is None and self.ends:
            settings["pad_token_id"] = min(self.ends)  # of one text: it is never used
        try:
            with quiet(), torch.no_grad():
                given = made.generate(ids[None], **settings)[0]
        except Exception as error:  # models fail in ways of their own: index, shape, assertion
            raise self._beyond(network, ids, count, error) from error
        added = given[1:] if self.has_encoder else given[len(ids) :]
        while len(added) and int(added[-1]) in self.ends:
            added = added[:-1]
        return added.clone()

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
        for by_ids in (False, True)[: 1 if self.has_encoder else 2]:
            try:
                model = NextToken(
                    network, ids, prompt_count, self.start, self.replacements, by_ids=by_ids
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

    def _beyond(
        self, network: nn.Module, ids: Tensor, count: int, error: Exception
    ) -> UnilensError:
        """Return the error of a prompt after which the model cannot write so many tokens."""
        fixed = len(ids)

        def run(more: int) -> None:
            longer = torch.cat([ids, ids[:1].expand(more)])
            with torch.no_grad():
                self.logits(network, longer, fixed)

        most = longest_that_runs(run, count) + 1  # the last token is no input
        remedy = f"shorten the prompt, or lower max_new_tokens to {most}"
        return UnilensError(
            f"expected a prompt and tokens within the model's length, got {fixed} and {count}: "
            f"{first_line(error)}; {remedy}"
        )
