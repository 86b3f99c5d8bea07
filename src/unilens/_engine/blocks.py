"""The blocks of a transformer: each with its attention weights and its tokens, from one pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import NotApplicableError, UnilensError
from .attention import Attention, AttentionRecorder, ModuleCall, tokens_in
from .axes import users_module
from .evaluator import Evaluator
from .plans import differ

_REMEDY = "use method='ig'"
_CHECKPOINT = "attention cannot be recorded inside a checkpoint"


class AtTokens(nn.Module):
    """A model of vectors `(B, E, L)`, each in the place of one of the tokens that its blocks have.

    Attributes:
        positions: `(L,)`, which of the tokens they are.
    """

    positions: Tensor

    @property
    def token_count(self) -> int:
        """How many tokens there are, those that the inputs do not give included."""
        raise NotImplementedError


class Block(NamedTuple):
    """One block of a transformer, in the pass of one input.

    Attributes:
        module: its name.
        raw_weights: of its attention as the pass computed them, with their graph, `(..., N, N)`.
        tokens: that it returns, with their graph, `(1, N, D)` or `(N, 1, D)`.
        number: how many calls of the module came before.
    """

    module: str
    raw_weights: Tensor
    tokens: Tensor
    number: int

    @property
    def name(self) -> str:
        """The name of the module; `name#2` at its second call, in networks that share layers."""
        return self.module + (f"#{self.number + 1}" if self.number else "")

    @property
    def token_count(self) -> int:
        """The number of tokens."""
        return self.raw_weights.shape[-1]

    @property
    def weights(self) -> Tensor:
        """The attention weights by head, `(H, N, N)`, without graph."""
        return self.by_head(self.raw_weights.detach())

    def by_head(self, values: Tensor) -> Tensor:
        """Return values of the shape of the raw weights as `(H, N, N)`."""
        return values.reshape(-1, self.token_count, self.token_count)


class Recording(NamedTuple):
    """The pass of one input.

    Attributes:
        outputs: `(1, K)`, with their graph.
        blocks: in their order, at least one.
        inputs: `(1, *S)`, a leaf of the graph.
        embedded: the tokens that the first block receives, with their graph; None where it
            receives none.
        grids: spatial shapes of the outputs of convolutions before the first block's attention.
        positions: of the inputs among the tokens, `(L,)`, where the model is one `AtTokens`.
    """

    outputs: Tensor
    blocks: list[Block]
    inputs: Tensor
    embedded: Tensor | None
    grids: list[tuple[int, ...]]
    positions: Tensor | None

    @property
    def token_count(self) -> int:
        """The number of tokens, N."""
        return self.blocks[0].token_count


def record_attention(model: Evaluator, inputs: Tensor) -> dict[str, Tensor]:
    """Return the attention weights of each block of a transformer, by name.

    Args:
        model: it is not changed.
        inputs: `(B, *S)`.

    Returns:
        `(B, H, N, N)` for each block: how much each of N tokens, in the rows, takes from each, by
        head. A layer that runs several times has an entry for each call, `name#2` the second.

    Raises:
        NotApplicableError: the model is no transformer of blocks with one attention each.
    """
    passes = [record_blocks(model, row, model(row)).blocks for row in inputs.split(1)]
    return {
        block.name: torch.stack([blocks[index].weights for blocks in passes])
        for index, block in enumerate(passes[0])
    }


@torch.inference_mode(False)
def record_blocks(model: Evaluator, inputs: Tensor, expected: Tensor | None = None) -> Recording:
    """Run a copy of the model at one input, and return its blocks.

    Args:
        model: it is not changed.
        inputs: `(1, *S)`.
        expected: the outputs `(1, K)` of the model itself; None not to compare.

    Raises:
        NotApplicableError: the model is no transformer of blocks with one attention each, or gives
            other outputs while it is recorded.
    """
    copy = model.private_module(inputs)
    recorder, leaf = AttentionRecorder(users_module(copy)), inputs.detach().clone().requires_grad_()
    try:
        unhooked = torch.autograd.graph.disable_saved_tensors_hooks(_CHECKPOINT)
        with torch.enable_grad(), unhooked, recorder:
            outputs = model.run(copy, leaf)
    except UnilensError as error:
        if _CHECKPOINT not in str(error):
            raise
        raise NotApplicableError(
            f"{_CHECKPOINT}; switch gradient checkpointing off, or {_REMEDY}"
        ) from error
    _check_outputs(model, inputs, outputs, expected)
    attentions = _among_tokens(recorder.attentions)
    calls, blocks = _blocks(attentions)
    positions = _text_positions(copy, blocks[0].token_count)
    if _goes_round(outputs, blocks[-1].tokens):
        raise _no_blocks(f"outputs that depend on more than the tokens of {blocks[-1].name!r}")
    for call in _beside(recorder.calls, calls, attentions):
        if _mixes(call):
            raise _no_blocks(f"{call.name!r}, which mixes tokens by what cannot be recorded")
    embedded = tokens_in(calls[0].inputs, blocks[0].token_count)
    if embedded is not None and _mixes_tokens(attentions[0].values, embedded):
        raise _no_blocks(f"attention of something else, of as many rows, in {blocks[0].name!r}")
    return Recording(outputs, blocks, leaf, embedded, recorder.grids, positions)


def _text_positions(copy: nn.Module, count: int) -> Tensor | None:
    """Return where the inputs are among the tokens, for a model `AtTokens`; None for others."""
    owner = next((module for module in copy.modules() if isinstance(module, AtTokens)), None)
    if owner is None:
        return None
    if owner.token_count != count:
        raise _no_blocks(f"{count} tokens for a text of {owner.token_count}")
    return owner.positions


def _check_outputs(
    model: Evaluator, inputs: Tensor, outputs: Tensor, expected: Tensor | None
) -> None:
    """Raise where the recorded pass gave other outputs than the model."""
    if expected is None:
        return
    if reason := differ(outputs.detach(), expected.detach(), model.plan(inputs)):
        raise NotApplicableError(
            "expected a model whose attention equals the formula softmax(q kᵀ) v, but with it "
            f"{reason}; {_REMEDY}"
        )


def _among_tokens(attentions: Sequence[Attention]) -> list[Attention]:
    """Return the attentions of tokens to the same tokens.

    Attention of one query that comes after them pools the tokens: it is a part of the head.

    Raises:
        NotApplicableError: there are none, or of several numbers of tokens.
    """
    among = list(attentions)
    while among and among[-1].weights.shape[-2] == 1 < among[-1].weights.shape[-1]:
        among.pop()
    if not among:
        raise NotApplicableError(
            "expected a model with softmax attention among tokens, got one without (a network of "
            f"convolutions, TorchScript, or attention of another formula); {_REMEDY}"
        )
    sizes = sorted({tuple(attention.weights.shape[-2:]) for attention in among})
    if len(sizes) > 1 or sizes[0][0] != sizes[0][1]:
        shown = ", ".join(f"{queries} × {keys}" for queries, keys in sizes)
        raise NotApplicableError(
            "expected a transformer with one number of tokens, got attention of "
            f"{shown} (windows, stages or an encoder and a decoder); {_REMEDY}"
        )
    return among


def _blocks(attentions: Sequence[Attention]) -> tuple[list[ModuleCall], list[Block]]:
    """Return the calls of the blocks' modules, and the blocks.

    They are the outermost modules with one attention each that return tokens. Where there is one
    attention alone, it is the outermost that is a numbered layer, if any is.
    """
    count = attentions[0].weights.shape[-1]
    candidates = []
    for depth in range(min(len(attention.modules) for attention in attentions)):
        calls = [attention.modules[depth] for attention in attentions]
        tokens = [own for own in (call.tokens(count) for call in calls) if own is not None]
        if len(set(calls)) == len(calls) == len(tokens):
            candidates.append((calls, tokens))
    if not candidates:
        raise _no_blocks(f"{len(attentions)} attentions of {count} tokens in other modules")
    numbered = [found for found in candidates if found[0][0].name.split(".")[-1].isdigit()]
    calls, tokens = (numbered if len(attentions) == 1 and numbered else candidates)[0]
    for earlier, later in itertools.pairwise(calls):
        if not later.receives(earlier, count):
            raise _no_blocks(f"{later.name!r}, which does not go on from {earlier.name!r}")
    return calls, [
        Block(call.name, attention.weights, own, call.number)
        for call, attention, own in zip(calls, attentions, tokens, strict=True)
    ]


def _no_blocks(actual: str) -> NotApplicableError:
    return NotApplicableError(
        "expected a transformer of blocks, one after another, with one attention over all tokens "
        f"each, got {actual}; {_REMEDY}"
    )


def _goes_round(outputs: Tensor, tokens: Tensor) -> bool:
    """Return whether outputs depend on the inputs other than through tokens."""
    seen: set[Any] = {None, tokens.grad_fn}
    waiting: list[Any] = [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            return True
        waiting += [following for following, _ in node.next_functions]
    return False


def _beside(
    calls: Sequence[ModuleCall], blocks: Sequence[ModuleCall], attentions: Sequence[Attention]
) -> list[ModuleCall]:
    """Return the calls of numbered layers beside the blocks, in the containers that hold these."""
    parents = {call.name.rpartition(".")[0] for call in blocks}
    around = {id(call) for attention in attentions for call in attention.modules}
    return [
        call
        for call in calls
        if call.name.rpartition(".")[0] in parents
        and call.name.rpartition(".")[2].isdigit()
        and id(call) not in around
    ]


def _mixes(call: ModuleCall) -> bool:
    """Return whether a layer from vectors to as many vectors takes the first from others too."""
    vectors = [value for value in (*call.inputs[:1], *call.outputs[:1]) if value.ndim == 3]
    if len(vectors) < 2 or vectors[0].shape[:2] != vectors[1].shape[:2]:
        return any(value.ndim > 3 for value in call.outputs) and call.has_layers
    given, returned = vectors
    first = returned.reshape(-1, returned.shape[-1])[0].sum()
    if not (given.requires_grad and first.requires_grad):
        return False
    (slope,) = torch.autograd.grad(first, given, allow_unused=True, retain_graph=True)
    return slope is not None and bool(slope.reshape(-1, slope.shape[-1])[1:].any())


def _mixes_tokens(values: Tensor, tokens: Tensor) -> bool:
    """Return whether the first row of an attention's values depends on other tokens than the first.

    It does where attention is among channels, in networks that have as many of them as tokens.
    """
    (slope,) = torch.autograd.grad(
        values[..., 0, :].sum(), tokens, allow_unused=True, retain_graph=True
    )
    return slope is not None and bool(slope.reshape(-1, slope.shape[-1])[1:].any())
