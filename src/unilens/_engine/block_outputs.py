"""The outputs of a transformer from other tokens after its last block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..errors import UnilensError
from .attention import tokens_in
from .axes import users_module
from .blocks import Block
from .evaluator import Evaluator


def outputs_after(model: Evaluator, inputs: Tensor, last: Block, tokens: Tensor) -> Tensor | None:
    """Return the outputs `(R, K)` of a model from other tokens after its last block.

    Args:
        model: it is not changed.
        inputs: `(1, *S)`, on which everything but the tokens depends.
        last: the block whose tokens are replaced.
        tokens: those of R rows, `(R, N, D)` or `(N, R, D)`, in the order of the block's.

    Returns:
        The outputs, with their graph to the tokens; None where the model does not return R rows.
    """
    copy = model.private_module(inputs)
    call_count = 0

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal call_count
        call_count += 1
        if call_count != last.number + 1:
            return None
        replaced = tokens_in(output, last.token_count)
        given = tokens.clone()  # the model may overwrite it
        return tree_map(lambda leaf: given if leaf is replaced else leaf, output)

    users_module(copy).get_submodule(last.module).register_forward_hook(replace)
    rows = _Rows(copy, max(tokens.numel() // last.tokens.numel(), 1))
    with torch.enable_grad():
        try:
            model.run(rows, inputs)
        except UnilensError:
            return None
    return rows.outputs


class _Rows(nn.Module):
    """Keeps the outputs `(R, K)` of a model, and returns the last row."""

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__()
        self.model, self.count = model, count
        self.outputs: Tensor | None = None

    def forward(self, inputs: Tensor) -> Any:
        outputs = self.model(inputs)
        if isinstance(outputs, Tensor) and len(outputs) == self.count:
            rows = outputs.reshape(self.count, -1)
            self.outputs = rows.to(torch.promote_types(rows.dtype, torch.float32))
            return outputs[-1:]
        return outputs[:1]
