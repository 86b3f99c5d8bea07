"""A text classifier as a function of the embeddings of a text's own tokens, all else frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .._engine.blocks import AtTokens
from .._engine.copying import private_copy
from ..errors import UnilensError, require
from ..models.labels import Labelled
from .limits import text_config


class _Given(NamedTuple):
    """What the embedding layer returns in the running pass."""

    ids: Tensor
    embeddings: Tensor


_GIVEN: ContextVar[_Given | None] = ContextVar("given", default=None)


class AtEmbeddings(Labelled, AtTokens):
    """One text's logits as a function of its tokens' embeddings.

    From embeddings `(B, E, L)`, a signal of E channels and L positions, to logits `(B, K)`. They
    are the outputs of the embedding layer; position and segment embeddings are added inside. The
    tokens that the tokenizer adds, and the mask, stay fixed.

    Args:
        network: a sequence classifier of transformers; it is used, not changed.
        ids: `(N,)`, of all tokens.
        positions: `(L,)`, which of them are the text's own.
        frozen: the network's other arguments, each `(1, N)`.
        labels: of the classes.
        replacements: ids of the tokens that can replace others, by name.
        by_ids: whether the network gets the ids, and the embeddings replace what its embedding
            layer returns for them, at every lookup of the text: for networks that need both. By
            default it gets the embeddings, as `inputs_embeds`.
    """

    ids: Tensor
    whole: Tensor

    def __init__(
        self,
        network: nn.Module,
        ids: Tensor,
        positions: Tensor,
        frozen: Mapping[str, Tensor],
        labels: tuple[str, ...] = (),
        replacements: Mapping[str, int | None] | None = None,
        *,
        by_ids: bool = False,
    ) -> None:
        super().__init__()
        self.network = _with_replaceable_lookups(network) if by_ids else network
        self.labels, self.by_ids = labels, by_ids
        self.frozen, self.replacements = dict(frozen), dict(replacements or {})
        self.training = False
        self.one_at_a_time = padding_id(network) is None
        self.register_buffer("ids", ids.unsqueeze(0))
        self.register_buffer("whole", embed(network, ids.unsqueeze(0)))
        self.register_buffer("positions", positions)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits `(B, K)` of embeddings `(B, E, L)`."""
        count = len(embeddings)
        if count > 1 and self.one_at_a_time:
            return torch.cat([self(row) for row in embeddings.split(1)])
        whole = self.whole.expand(count, -1, -1)
        whole = whole.index_copy(1, self.positions, embeddings.mT.to(whole.dtype))
        return self.run(
            whole, {name: value.expand(count, -1) for name, value in self.frozen.items()}
        )

    def run(self, whole: Tensor, given: Mapping[str, Any]) -> Tensor:
        """Return the network's logits at the embeddings `(B, N, E)` of the first N tokens.

        Args:
            whole: the embeddings.
            given: the network's other arguments.
        """
        if self.by_ids:
            ids = self.ids[:, : whole.shape[1]]
            with _giving(_Given(ids, whole)):
                result = self.network(input_ids=ids.expand(len(whole), -1), **given)
        else:
            result = self.network(inputs_embeds=whole, **given)
        return logits_of(result, self.network)

    @property
    def token_count(self) -> int:
        """How many tokens there are, those that the tokenizer adds included."""
        return self.whole.shape[1]

    @property
    def embeddings(self) -> Tensor:
        """The embeddings of the text itself, `(1, E, L)`."""
        return self.whole[:, self.positions].mT.contiguous()

    def replacement(self, name: str) -> Tensor:
        """Return the embedding `(E,)` of a token that can replace others, such as "mask".

        Raises:
            UnilensError: the tokenizer has no such token.
        """
        number = self.replacements.get(name)
        if number is None:
            known = [token for token, number in self.replacements.items() if number is not None]
            raise UnilensError(
                f"expected a tokenizer with a {name} token, got one without; use baseline="
                f"{' or '.join([*known, 'zero'])}"
            )
        return embed(self.network, self.ids.new_tensor([[number]]))[0, 0]

    def everywhere(self, name: str) -> Tensor:
        """Return the embedding of such a token at every position of the text, `(1, E, L)`."""
        return self.replacement(name).view(1, -1, 1).expand(-1, -1, len(self.positions))


def embedding_layer(network: nn.Module) -> nn.Module:
    """Return the layer that gives the embeddings of ids.

    Raises:
        UnilensError: the network has none.
    """
    try:
        layer = network.get_input_embeddings()  # type: ignore[operator]
    except Exception:  # transformers raises NotImplementedError, code of others what it likes
        layer = None
    if not isinstance(layer, nn.Module):
        raise UnilensError(
            f"expected a model with a layer of token embeddings, got {type(network).__name__}, "
            "whose get_input_embeddings() gives none; it cannot be explained by token"
        )
    return layer


@torch.no_grad()
def embed(network: nn.Module, ids: Tensor) -> Tensor:
    """Return the embeddings `(B, N, E)` of ids `(B, N)`."""
    layer = embedding_layer(network)
    embeddings = layer(ids)
    if isinstance(embeddings, tuple):  # I-BERT's come with a scale
        embeddings = embeddings[0]
    fits = isinstance(embeddings, Tensor) and embeddings.shape[:-1] == ids.shape
    require(
        fits,
        f"expected an embedding layer that gives one vector per token, got "
        f"{type(layer).__name__}; it cannot be explained by token",
    )
    return cast(Tensor, embeddings.detach())


def logits_of(result: object, network: nn.Module) -> Tensor:
    """Return the logits of a network's result: an output of transformers, a tuple or a tensor.

    Raises:
        UnilensError: there are none.
    """
    first = result[0] if isinstance(result, tuple) else result
    logits = first if isinstance(first, Tensor) else getattr(result, "logits", None)
    if not isinstance(logits, Tensor):
        raise UnilensError(
            "expected a sequence classifier that takes inputs_embeds, got "
            f"{type(network).__name__}: its output, a {type(result).__name__}, has no logits"
        )
    return logits


def own_copy(network: nn.Module) -> nn.Module:
    """Return a copy that shares the parameters; a network that cannot be copied, itself.

    A pass may change the network: BigBird leaves its sparse attention for good at a short text, and
    a table with a `max_norm` is written to.
    """
    written = any(
        getattr(submodule, "max_norm", None) is not None for submodule in network.modules()
    )
    try:
        return private_copy(network, own_weights=written)
    except UnilensError:
        return network


def padding_id(network: nn.Module) -> int | None:
    """Return the padding token's id; without one many networks take one text at a time."""
    number: int | None = getattr(text_config(network), "pad_token_id", None)
    return number


@contextmanager
def _giving(given: _Given) -> Iterator[None]:
    token = _GIVEN.set(given)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def _with_replaceable_lookups(network: nn.Module) -> nn.Module:
    """Return a copy in which every embedding layer with the table returns replaced embeddings."""
    copied = own_copy(network)
    if copied is network:
        raise UnilensError("it takes no inputs_embeds, and copy.deepcopy cannot copy it")
    layer = embedding_layer(copied)
    table = getattr(layer, "weight", None)
    for module in copied.modules():
        shares = table is not None and getattr(module, "weight", None) is table
        if module is layer or (shares and not isinstance(module, nn.Linear)):  # a tied head
            module.register_forward_hook(_replace)
    return copied


def _replace(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Return a lookup of the text, or of the text shifted by one (a decoder's), replaced."""
    given = _GIVEN.get()
    if given is None:
        return output
    ids, count = inputs[0], given.ids.shape[1]
    for later in (0, 1):
        kept = min(count, ids.shape[-1] - later)
        same = torch.equal(ids[0, later : later + kept], given.ids[0, :kept])
        if same and kept >= count - later:
            embeddings = given.embeddings[:, :kept].to(output.dtype)
            return torch.cat([output[:, :later], embeddings, output[:, later + kept :]], 1)
    raise UnilensError("it looks up other tokens than the text's")
