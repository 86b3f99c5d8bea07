"""Attention rollout, and rollout weighted by gradients: attention multiplied over the blocks."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._engine.blocks import Block
from ..._engine.evaluator import PassCount
from ..._ops.precision import to_float64
from ..._validation.models import not_differentiable
from ...registry import Card
from ...scores import AnyScore
from ..base import methods
from .base import AttentionMethod, RecordedInput, TokenValues
from .tokens import describe_rows, mean_of_rows, read_tokens


class _Product(AttentionMethod):
    """The base of both: a product of one matrix per block, read in the rows that the head reads."""

    def _by_token(self, recorded: RecordedInput) -> TokenValues:
        recording, model = recorded.recording, recorded.evaluator.model
        logit = recording.outputs[0, recorded.target[0]]
        if not logit.requires_grad:
            raise not_differentiable(model, within="attention")
        (slope,) = recorded.gradients(logit, [recording.blocks[-1].tokens])
        tokens = read_tokens(slope, recording.token_count)
        if not len(tokens):
            raise not_differentiable(model, "an output that depends on no token", "attention")
        matrix = self._product(recorded, recording.blocks)
        return TokenValues(mean_of_rows(matrix, tokens), describe_rows(tokens, len(matrix)))

    @abstractmethod
    def _product(self, recorded: RecordedInput, blocks: list[Block]) -> Tensor:
        """Return the matrix `(N, N)`: what each token, in the rows, has of each."""


@dataclass(frozen=True)
class Rollout(_Product):
    """Attention rollout: the product over the blocks of (A + I) / 2, A the mean of the heads.

    Rows are scaled to the sum 1. The map is the row of the token that the head reads, as a class
    token, or the mean of the rows where it reads several. It does not depend on the class, and is
    never negative. The provenance names rows and blocks.

    Args:
        score: recorded with the map, which it does not change; by name or as a function of logits
            and target.

    References:
        Abnar and Zuidema 2020, arXiv 2005.00928.
    """

    name: ClassVar[str] = "rollout"
    passes = PassCount(2, 1)  # backward through the head alone; the check takes one more forward
    score: AnyScore = "logit"

    def _product(self, recorded: RecordedInput, blocks: list[Block]) -> Tensor:
        total = _identity(blocks)
        for block in blocks:
            mixed = to_float64(block.weights).mean(0) + torch.eye(block.token_count).to(total)
            total = mixed / mixed.sum(-1, keepdim=True) @ total
        return total


@dataclass(frozen=True)
class GradientRollout(_Product):
    """Gradient-weighted rollout: R + mean over heads of ReLU(∇A ⊙ A) R over the blocks, from I.

    ∇A is the gradient of the score in the attention weights A. The map is read in the rows that
    the head reads, as rollout's is, and is never negative.

    Args:
        score: what is explained, by name or as a function of logits and target.

    References:
        Chefer et al. 2021, arXiv 2103.15679.
    """

    name: ClassVar[str] = "gradient_rollout"
    passes = PassCount(2, 1)  # the check takes one more forward, at the first input
    score: AnyScore = "logit"

    def _product(self, recorded: RecordedInput, blocks: list[Block]) -> Tensor:
        value = recorded.scores(recorded.recording.outputs)
        gradients = recorded.gradients(value, [block.raw_weights for block in blocks])
        total = _identity(blocks)
        for block, gradient in zip(blocks, gradients, strict=True):
            slopes = to_float64(block.by_head(gradient))
            relevance = (slopes * to_float64(block.weights)).relu().mean(0)
            total = total + relevance @ total
        return total


def _identity(blocks: list[Block]) -> Tensor:
    return to_float64(torch.eye(blocks[0].token_count, device=blocks[0].tokens.device))


methods.add(
    Card(
        "rollout",
        "attention",
        "attention multiplied over the blocks of a transformer, whatever the class",
        "Abnar and Zuidema 2020, arXiv 2005.00928",
        traits=("attention",),
    ),
    Rollout,
)
methods.add(
    Card(
        "gradient_rollout",
        "attention",
        "rollout of attention times its gradient, where that is positive",
        "Chefer et al. 2021, arXiv 2103.15679",
        traits=("attention",),
    ),
    GradientRollout,
)
