"""The registry of methods, and the function that runs one by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..attribution import Attribution, Explainer
from ..checks import Target
from ..gradients import Evaluator
from ..registry import Registry

methods: Registry[Explainer] = Registry("method")


def explain(
    model: nn.Module | Evaluator,
    inputs: Tensor,
    method: str = "uni",
    target: Target = None,
    *,
    seed: int = 0,
    **settings: Any,
) -> Attribution:
    """Explain what a model saw in each input.

    Args:
        model: from `(B, *S)` to logits `(B, K)`, in eval mode; it is not changed.
        inputs: `(B, *S)`, floating point.
        method: a name in `unilens.methods()`.
        target: class index or label, one for all or one per input; None for the predicted class.
        seed: of everything random.
        **settings: of the method, its baseline, path and weighting, by name: `n_steps=30`,
            `budget=0.5`, `baseline="blur"`, `sigma=10`, `path="guided"`.

    Returns:
        The attribution, with its diagnostics and the record of how it was made.

    Raises:
        UnknownNameError: no such method or setting.
        UnilensError: a setting, the inputs, the target or the model do not fit.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        >>> attribution = explain(model, torch.rand(2, 1, 2, 2), method="ig", n_steps=8)
        >>> attribution.values.shape, bool(attribution.completeness_gap.abs().max() < 1e-4)
        (torch.Size([2, 1, 2, 2]), True)
    """
    attribution = methods[method](**settings)(model, inputs, target, seed=seed)
    return attribution.with_provenance(method=method)
