"""An `explain_func` with which Quantus evaluates the methods of unilens; it needs no Quantus."""

from __future__ import annotations

from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._validation.arrays import is_array, to_tensor
from ..errors import UnilensError
from ..explainer import with_outputs
from ..methods import explain


def explain_func(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    method: str = "uni_blur",
    device: str | torch.device | None = None,
    seed: int = 0,
    outputs: str | None = None,
    **settings: Any,
) -> numpy.ndarray[Any, numpy.dtype[Any]]:
    """Explain a batch for Quantus: `quantus.evaluate` and every metric of Quantus take this.

    `quantus.evaluate` passes the key of `xai_methods` as the method: use a name of unilens.

    Args:
        model: from `(B, *S)` to logits `(B, K)`, in eval mode; it is not changed.
        inputs: an array `(B, *S)`, or a frame of numbers; it is copied to the model's device and
            dtype.
        targets: an array of class indices `(B,)`; None for the predicted classes.
        method: a name in `unilens.methods()`.
        device: where to explain; it must be the model's, since that is not moved.
        seed: of everything random.
        outputs: what the model's outputs are, as in `unilens.explain`.
        **settings: of the method, by name.

    Returns:
        The attributions, an array `(B, *S)`, signed, in units of the score.

    Raises:
        UnilensError: the inputs, the targets, the device or a setting do not fit.

    Example:
        >>> model = nn.Linear(3, 2).eval()
        >>> found = explain_func(model, numpy.ones((4, 3)), numpy.zeros(4, int), method="ig")
        >>> type(found).__name__, found.shape
        ('ndarray', (4, 3))
    """
    evaluator = Evaluator.of(with_outputs(model, outputs))
    model_device = evaluator.device or torch.device("cpu")
    if device is not None and torch.device(device).type != model_device.type:
        raise UnilensError(
            f"expected device to be the model's, {model_device}, got {device}; move the model "
            "with .to(...)"
        )
    given = inputs if is_array(inputs) or isinstance(inputs, Tensor) else _stacked(inputs)
    points = cast(Tensor, to_tensor("inputs", given))
    points = points.to(model_device, evaluator.dtype or torch.float32)
    return explain(evaluator, points, method, targets, seed=seed, **settings).numpy()


def _stacked(inputs: Any) -> Any:
    try:
        return numpy.asarray(inputs)
    except (TypeError, ValueError, RuntimeError):
        raise UnilensError(
            f"expected inputs as an array (B, *S), got {type(inputs).__name__} of several shapes; "
            "pad them, or explain them one by one"
        ) from None
