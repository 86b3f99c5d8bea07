"""The proof, on the user's own input, that balanced gradients miss nothing that a model computes.

It reads the graph that autograd recorded, not the calls: code in C++, TorchScript and autograd
functions of the model's own, which no mode sees, are in the graph as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import NotApplicableError, require
from .activations import words
from .balanced import BalancedGradients
from .evaluator import Evaluator
from .plans import differ
from .rewriting import AttentionRule


@dataclass(frozen=True)
class BalancedReport:
    """What balanced gradients rewrote in a model.

    Attributes:
        attention: the rule of attention weights.
        rewritten: how often each function was rewritten in a forward pass, by its name.
    """

    attention: AttentionRule
    rewritten: dict[str, int] = field(default_factory=dict)

    def describe(self) -> dict[str, object]:
        """Return the report as records store it."""
        return {"attention": self.attention, "rewritten": dict(self.rewritten)}


@torch.inference_mode(False)
def check_balanced(
    model: Evaluator, inputs: Tensor, attention: AttentionRule = "constant"
) -> BalancedReport:
    """Return what balanced gradients rewrite in a model at the first input.

    It takes two forward passes, once for inputs of a shape.

    Args:
        model: runs the model, and keeps the report.
        inputs: `(B, *S)`.
        attention: the rule of attention weights.

    Raises:
        NotApplicableError: a function of the model has no rule.
    """
    point = inputs[:1].detach()
    plan = model.plan(point)
    known_plan, known = model.balanced_reports.get((point.shape, attention), (None, None))
    if known is not None and known_plan is plan:
        return known
    _require_copies(model, plan.copied, plan.dropped.get("copied", ""))
    if plan.reentrant:
        raise NotApplicableError(
            "balanced gradients cannot look into reentrant checkpoints; use checkpoint(..., "
            "use_reentrant=False) in the model, or method='ig'"
        )
    mode = BalancedGradients(attention)
    with model.borrowed(point) as (_, run), torch.enable_grad():
        leaf = point.clone().requires_grad_()
        with mode:
            outputs = run(leaf)
        with torch.no_grad():
            expected = run(point.clone())
    reason = differ(outputs.detach(), expected, plan)
    require(not reason, f"expected the model's own outputs under balanced gradients, but {reason}")
    if not outputs.requires_grad:
        raise NotApplicableError(
            "expected outputs that depend on the inputs, got a model whose outputs depend on them "
            "only through attention weights or norms, which balanced gradients hold constant; use "
            "method='ig'"
        )
    for name in _unknown(outputs, leaf):
        raise NotApplicableError(
            f"expected functions that balanced gradients have a rule for, got {name}; leave out "
            "balanced=, or use method='ig'"
        )
    report = BalancedReport(attention, dict(sorted(mode.rewriting.rewritten.items())))
    model.balanced_reports[point.shape, attention] = plan, report
    return report


def _require_copies(model: Evaluator, copied: bool, why: str) -> None:
    """Raise where the model runs itself: its weights, which take gradients, look like inputs."""
    if not copied:
        raise NotApplicableError(
            f"expected a model that can be copied, for balanced gradients: {why}; use method='ig'"
        )


def _unknown(outputs: Tensor, leaf: Tensor) -> Iterator[str]:
    """Yield what in the outputs' graph is neither linear in the leaf nor rewritten."""
    stack: list[Any] = [outputs.grad_fn]
    seen = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = _name(node)
        edges = [following for following, _ in node.next_functions if following is not None]
        if name == "AccumulateGrad" and node.variable is not leaf:
            yield "a weight outside of the model's own modules that requires a gradient"
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            if name not in _OWN:
                yield f"{name}, an autograd function of the model's own"
        elif name in _PRODUCTS:
            if len(edges) > 1 and not all(map(_is_scaled, edges)):
                yield f"{name} of two activations in code that no rule sees"
        elif name not in _LINEAR:
            yield name
        stack += edges


def _name(node: Any) -> str:
    return re.sub(r"Backward\d*$", "", type(node).__name__)


def _is_scaled(node: Any) -> bool:
    """Return whether a factor's gradient is scaled, behind what only changes its shape."""
    while _name(node) in _SHAPES and node.next_functions[0][0] is not None:
        node = node.next_functions[0][0]
    return _name(node) == "Scaled"


_OWN = words("Carried Scaled BackwardHookFunction")
_SHAPES = words(
    "View ReshapeAlias UnsafeView Expand Permute Transpose T Unsqueeze Squeeze Clone ToCopy Alias "
    "Slice Select AsStrided"
)
_PRODUCTS = words(
    "Mul Mm Bmm Mv Dot Addmm Addbmm Baddbmm Addmv Addr Addcmul Convolution Linear Kron "
    "SumprodPair Trilinear ScaledDotProductFlashAttentionForCpu ScaledDotProductFlashAttention "
    "ScaledDotProductEfficientAttention ScaledDotProductCudnnAttention "
    "ScaledDotProductFusedAttentionOverrideable"
)
_LINEAR = _SHAPES | words(
    "AccumulateGrad Add Sub Rsub Neg Div Mean Sum Cumsum Trace Index IndexSelect IndexAdd IndexPut "
    "IndexCopy IndexFill Gather Scatter ScatterAdd MaskedFill MaskedScatter MaskedSelect Where Cat "
    "Stack Split SplitWithSizes Unbind Unfold Narrow Copy CopySlices CopyBackwards Roll Flip Rot90 "
    "Repeat RepeatInterleave Tril Triu Diagonal DiagonalBackward Take UnsafeSplit Chunk Real Imag "
    "ViewAsReal ViewAsComplex ViewAsRealCopy Conj ResolveConj Complex FftR2C FftC2C FftC2R "
    "AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D MkldnnAdaptiveAvgPool2D "
    "ConstantPadNd ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D "
    "ReplicationPad2D ReplicationPad3D PixelShuffle PixelUnshuffle Im2Col Col2Im NativeDropout "
    "UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact2D UpsampleLinear1D "
    "UpsampleBilinear2D UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa "
    "UpsampleTrilinear3D NativeBatchNorm CudnnBatchNorm MiopenBatchNorm MkldnnConvolution "
    "CudnnConvolution ThnnConv2D SlowConv3D SlowConvDilated2D ConvDepthwise2D ConvDepthwise3D "
    "Relu LeakyRelu PreluKernel RreluWithNoise Abs Maximum Minimum Max Min Amax Amin Aminmax Sort "
    "Topk Kthvalue Median Mode Sign MaxPool1DWithIndices MaxPool2DWithIndices "
    "MaxPool3DWithIndices MkldnnMaxPool2D AdaptiveMaxPool1D AdaptiveMaxPool2D AdaptiveMaxPool3D "
    "Softmax LogSoftmax SafeSoftmax Cummax Cummin"
)
"""Functions by the names of their nodes: linear, homogeneous, or a softmax of its own."""
