"""LeGrad: the gradient of each block's own score in its attention weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._engine.block_outputs import outputs_after
from ..._engine.blocks import Block
from ..._engine.evaluator import PassCount
from ..._engine.plans import differ
from ..._ops.precision import to_float64
from ...errors import NotApplicableError
from ...registry import Card
from ...scores import AnyScore
from ..base import methods
from .base import AttentionMethod, RecordedInput, TokenValues


@dataclass(frozen=True)
class LeGrad(AttentionMethod):
    """LeGrad: ReLU of the gradient of each block's own score in its attention weights.

    A block's own score is that of what follows the last block (the norm, the pooling and the
    head), applied to the block's tokens. The gradients are averaged over heads and query tokens,
    and summed over the blocks; the map is never negative.

    Args:
        score: what is explained, by name or as a function of logits and target.

    References:
        Bousselham et al., ICCV 2025, arXiv 2404.03214.
    """

    name: ClassVar[str] = "legrad"
    passes = PassCount(3, 1)  # all backward passes together; the check takes one more forward
    score: AnyScore = "logit"

    def _by_token(self, recorded: RecordedInput) -> TokenValues:
        recording, total = recorded.recording, torch.zeros((), dtype=torch.float64)
        for block, slope in zip(recording.blocks, _slopes_at_tokens(recorded), strict=True):
            (gradient,) = recorded.gradients(block.tokens, [block.raw_weights], slope)
            by_token = to_float64(block.by_head(gradient)).relu().mean((0, 1))
            total = total.to(by_token) + by_token
        return TokenValues(total, f"mean of all {recording.token_count} tokens")


def _slopes_at_tokens(recorded: RecordedInput) -> list[Tensor]:
    """Return the gradient of each block's own score in its tokens."""
    blocks = recorded.recording.blocks
    tokens = [block.tokens.detach() for block in blocks]
    axis = 0 if len(tokens[0]) == 1 else 1
    together = torch.cat(tokens, axis).requires_grad_()
    outputs = _own_outputs(recorded, together)
    if outputs is not None:
        (slopes,) = recorded.gradients(recorded.scores(outputs), [together])
        return list(slopes.split(1, axis))
    slopes_apart = []
    for own in tokens:
        leaf = own.clone().requires_grad_()
        outputs = _own_outputs(recorded, leaf) if own is tokens[-1] else _after(recorded, leaf)
        if outputs is None:
            raise NotApplicableError(
                "expected a model whose outputs follow from the tokens of "
                f"{blocks[-1].name!r}, its last block, got others from the same tokens; use "
                "method='gradient_rollout' or 'ig'"
            )
        slopes_apart += recorded.gradients(recorded.scores(outputs), [leaf])
    return slopes_apart


def _own_outputs(recorded: RecordedInput, tokens: Tensor) -> Tensor | None:
    """Return outputs from tokens whose last row is the last block's; None unless they show it."""
    outputs = _after(recorded, tokens)
    plan = recorded.evaluator.plan(recorded.inputs)
    expected = recorded.recording.outputs.detach()
    if outputs is None or differ(outputs[-1:].detach(), expected, plan):
        return None
    return outputs


def _after(recorded: RecordedInput, tokens: Tensor) -> Tensor | None:
    last: Block = recorded.recording.blocks[-1]
    return outputs_after(recorded.evaluator, recorded.inputs, last, tokens)


methods.add(
    Card(
        "legrad",
        "attention",
        "LeGrad: positive gradients of each block's own score in its attention, summed",
        "Bousselham et al. 2025, arXiv 2404.03214",
        traits=("attention",),
    ),
    LeGrad,
)
