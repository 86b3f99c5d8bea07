"""A language model's next token as a function of the embeddings of all tokens before it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..embeddings import AtEmbeddings, embed
from ..model import takes


class NextToken(AtEmbeddings):
    """A language model's logits of the next token as a function of the embeddings before it.

    From embeddings `(B, E, L)`, a signal of E channels and L positions, to logits `(B, V)`. The
    L sources are the prompt's tokens, then those generated; an encoder-decoder's encoder reads the
    prompt, and its decoder, after the fixed tokens with which it starts, the generated ones.

    Args:
        network: of transformers; it is used, not changed.
        ids: `(L,)`, of the sources.
        prompt_count: how many of them are the prompt's.
        start: `(S,)`, the tokens with which a decoder starts; None for a model without encoder.
        replacements: ids of the tokens that can replace others, by name.
        by_ids: as for `AtEmbeddings`; without encoder only.
    """

    def __init__(
        self,
        network: nn.Module,
        ids: Tensor,
        prompt_count: int,
        start: Tensor | None = None,
        replacements: Mapping[str, int | None] | None = None,
        *,
        by_ids: bool = False,
    ) -> None:
        positions = torch.arange(len(ids), device=ids.device)
        super().__init__(network, ids, positions, {}, (), replacements, by_ids=by_ids)
        self.one_at_a_time = False  # without padding, the last token is the same for all
        self.prompt_count, self.start = prompt_count, start
        if start is not None:
            decoder = _decoder(network)
            self.register_buffer("begun", embed(decoder, start.unsqueeze(0)))
            own = embed(decoder, ids[prompt_count:].unsqueeze(0))
            self.whole = torch.cat([self.whole[:, :prompt_count], own], 1)
        self._options: dict[str, Any] = {"use_cache": False} if takes(network, "use_cache") else {}
        self._keeps = takes(network, "logits_to_keep", named=True)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits `(B, V)` of embeddings `(B, E, L)`."""
        return self.logits(embeddings, 1)[:, 0]

    def logits(self, embeddings: Tensor, count: int, **more: Any) -> Tensor:
        """Return the logits `(B, count, V)` at the last positions, for embeddings `(B, E, L)`.

        Args:
            embeddings: of the sources.
            count: of positions.
            **more: further arguments of the network.
        """
        whole, given = embeddings.mT.to(self.whole.dtype).contiguous(), {**self._options, **more}
        if self.start is not None:
            begun = self.get_buffer("begun").expand(len(whole), -1, -1)
            generated = whole[:, self.prompt_count :]
            given["decoder_inputs_embeds"] = torch.cat([begun, generated], 1)
            whole = whole[:, : self.prompt_count]
        if self._keeps:
            given["logits_to_keep"] = count
        return self.run(whole, given)[:, -count:]

    def cache(self, embeddings: Tensor, copies: int) -> dict[str, Any]:
        """Return the argument with the keys and values of embeddings `(1, E, L)`, for `logits`.

        Args:
            embeddings: of the first sources.
            copies: rows of the pass that uses it.
        """
        name = "cache" if takes(self.network, "cache", named=True) else "past_key_values"
        whole = embeddings.mT.to(self.whole.dtype).contiguous()
        kept = self.network(inputs_embeds=whole, use_cache=True)[name]
        kept.batch_repeat_interleave(copies)
        return {name: kept, "use_cache": True}

    def until(self, length: int) -> NextToken:
        """Return the model of the token that follows the first `length` sources."""
        return NextToken(
            self.network,
            self.ids[0, :length],
            self.prompt_count,
            self.start,
            self.replacements,
            by_ids=self.by_ids,
        )

    @contextlib.contextmanager
    def head_inputs(self) -> Iterator[list[Tensor]]:
        """Give a list to which passes add what the layer of the logits receives."""
        received: list[Tensor] = []
        layer = self.network.get_output_embeddings()  # type: ignore[operator]
        handle = layer.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
        try:
            yield received
        finally:
            handle.remove()


def _decoder(network: Any) -> nn.Module:
    """Return the decoder where it has embeddings of its own; the network itself otherwise."""
    decoder = network.get_decoder()
    own = decoder is not None and isinstance(decoder.get_input_embeddings(), nn.Module)
    return decoder if own else network
