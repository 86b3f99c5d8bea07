"""The proof, on the user's own input, that balanced gradients miss nothing that a model computes.

It reads the graph that autograd recorded, not the calls: code in C++, TorchScript and autograd
functions of the model's own, which no mode sees, are in the graph as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import NotApplicableError
from .activations import words
from .balanced import BalancedGradients
from .batch_norm_gradients import ContiguousGradient
from .evaluator import Evaluator
from .plans import differ
from .rewriting import AttentionRule, FactorGradient, QuotientGradient, SurrogateGradient


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
    if reason := differ(outputs.detach(), expected, plan):
        raise NotApplicableError(
            f"expected the model's own outputs under balanced gradients, but {reason}: its forward "
            "decides by gradients or calls of its own; leave out balanced=, or use method='ig'"
        )
    if not outputs.requires_grad:
        raise NotApplicableError(
            "expected outputs that depend on the inputs, got a model whose outputs depend on them "
            "only through attention weights or norms, which balanced gradients hold constant; use "
            "method='ig'"
        )
    for name in _unknown(outputs, leaf):
        if name.endswith("NotImplemented"):
            raise NotApplicableError(
                "expected functions that have a gradient, got one without, such as those of a "
                "quantised model; use a method without gradients, such as occlusion or shapley"
            )
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
    seen, parts = set(), set[Any]()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = _name(node)
        edges = [following for following, _ in node.next_functions]
        stack += edges
        if name == "AccumulateGrad" and node.variable is not leaf:
            yield "a weight outside of the model's own modules that requires a gradient"
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            if name not in _OWN:
                yield f"{name}, an autograd function of the model's own"
        elif name in _PRODUCTS:
            if node not in parts and not _is_shared(node, parts):
                yield f"{name} of two activations in code that no rule sees"
        elif name in _OF_ONE:
            if len([edge for edge in edges if edge is not None]) > 1:
                yield f"{name} of two activations in code that no rule sees"
        elif name not in _LINEAR:
            yield name


def _name(node: Any) -> str:
    name = type(node).__name__
    if name == "CppFunction":  # of C++ alone, which has no class in Python
        name = str(node.name()).rpartition("::")[2]
    return re.sub(r"Backward\d*$", "", name)


def _is_shared(node: Any, parts: set[Any]) -> bool:
    """Return whether the factors of a product share its gradient, or one alone has it.

    A product of several factors can be several nodes: those within it are added to `parts`.
    """
    factors = _factors(node)
    return len(factors) < 2 or math.isclose(sum(_share(factor, parts) for factor in factors), 1)


def _share(node: Any, parts: set[Any]) -> float:
    """Return the share that a factor's gradient is multiplied by; NaN where it is not shared."""
    while _name(node) in _SHAPES and node.next_functions[0][0] is not None:
        node = node.next_functions[0][0]
    if _name(node) == FactorGradient.__name__:
        return float(node.share)
    if _name(node) not in _PRODUCTS:
        return math.nan
    parts.add(node)
    return sum(_share(factor, parts) for factor in _factors(node))


def _factors(node: Any) -> list[Any]:
    """Return the nodes of a product's factors that depend on the input, without what is added."""
    edges = [following for following, _ in node.next_functions]
    if _name(node) in _ADDING_FIRST:
        edges = edges[1:]
    elif _name(node) in _ADDING_LAST:
        edges = edges[:2]
    return [edge for edge in edges if edge is not None]


_OWN = {
    "BackwardHookFunction",
    *(
        kind.__name__
        for kind in (FactorGradient, QuotientGradient, SurrogateGradient, ContiguousGradient)
    ),
}
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
_ADDING_FIRST = words("Addmm Addbmm Baddbmm Addmv Addr Addcmul")
_ADDING_LAST = words("Convolution Linear")
_OF_ONE = words(
    "Div NativeBatchNorm CudnnBatchNorm MiopenBatchNorm PreluKernel GridSampler2D GridSampler3D"
)
"""Functions that are linear, or homogeneous, in one of their inputs alone."""
_LINEAR = _SHAPES | words(
    "AccumulateGrad Add Sub Rsub Neg Mean Sum Cumsum Trace Index IndexSelect IndexAdd IndexPut "
    "IndexCopy IndexFill Gather Scatter ScatterAdd MaskedFill MaskedScatter MaskedSelect Where Cat "
    "Stack Split SplitWithSizes Unbind Unfold Narrow Copy CopySlices CopyBackwards Roll Flip Rot90 "
    "Repeat RepeatInterleave Tril Triu Diagonal DiagonalBackward Take UnsafeSplit Chunk Real Imag "
    "ViewAsReal ViewAsComplex ViewAsRealCopy Conj ResolveConj Complex FftR2C FftC2C FftC2R "
    "AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D MkldnnAdaptiveAvgPool2D "
    "ConstantPadNd ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D "
    "ReplicationPad2D ReplicationPad3D PixelShuffle PixelUnshuffle Im2Col Col2Im NativeDropout "
    "UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact2D UpsampleLinear1D "
    "UpsampleBilinear2D UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa "
    "UpsampleTrilinear3D MkldnnConvolution "
    "CudnnConvolution ThnnConv2D SlowConv3D SlowConvDilated2D ConvDepthwise2D ConvDepthwise3D "
    "Relu LeakyRelu RreluWithNoise Abs Maximum Minimum Max Min Amax Amin Aminmax Sort "
    "Topk Kthvalue Median Mode MaxPool1DWithIndices MaxPool2DWithIndices "
    "MaxPool3DWithIndices MkldnnMaxPool2D AdaptiveMaxPool1D AdaptiveMaxPool2D AdaptiveMaxPool3D "
    "Softmax LogSoftmax SafeSoftmax Cummax Cummin NanToNum"
)
"""Functions by the names of their nodes: linear, homogeneous, or a softmax of its own."""
