"""What comes from the user, checked: what was expected, what came, and the remedy."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .errors import UnilensError

Target = int | str | Sequence[int | str] | Tensor | None


def check_model(model: object) -> None:
    """Raise unless the model is a module in eval mode, with weights that have values."""
    if not isinstance(model, nn.Module):
        came, remedy = type(model).__name__, "wrap a function in a module whose forward calls it"
        if came == "ExportedProgram":
            remedy = "pass its .module()"
        raise UnilensError(f"expected model to be a torch.nn.Module, got {came}; {remedy}")
    for name, value in _named_tensors(model):
        if is_lazy(value):
            raise UnilensError(
                f"expected a model whose weights have shapes, but {name} is lazy; call the model "
                "once with an input first"
            )
        if value.is_meta:
            raise UnilensError(
                f"expected a model whose weights have values, but {name} is on the meta device; "
                "load its weights first"
            )
    exported = {inner for part in model.modules() if _exported(part) for inner in part.modules()}
    for name, part in model.named_modules():
        if getattr(part, "training", False) and not (part in exported or _quantised(part)):
            raise UnilensError(
                f"expected a model in eval mode, but {name or 'the model'} is in training mode; "
                "call model.eval() first"
            )


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _quantised(part: nn.Module) -> bool:
    return "quantiz" in type(part).__module__


def _exported(part: nn.Module) -> bool:
    """Return whether a module comes from torch.export, whose mode is fixed."""
    return "eval" in vars(part) and "graph" in dir(part)


def check_outputs(outputs: object, count: int) -> None:
    """Raise unless the model gave logits, one row for each of `count` inputs."""
    if not isinstance(outputs, Tensor):
        raise UnilensError(
            f"expected the model to return a tensor of logits, got {_describe(outputs)}; "
            "wrap it in a module whose forward returns the logits alone"
        )
    if outputs.layout != torch.strided or outputs.is_complex() or outputs.is_meta:
        kind = "complex" if outputs.is_complex() else "meta" if outputs.is_meta else "sparse"
        raise UnilensError(
            f"expected the model to return real numbers in a dense tensor, got a {kind} one; wrap "
            "it in a module whose forward returns dense logits, as outputs.to_dense() or abs()"
        )
    if outputs.is_nested or not outputs.dtype.is_floating_point:
        kind = "a nested tensor" if outputs.is_nested else str(outputs.dtype)
        raise UnilensError(
            f"expected the model to return floating-point logits, got {kind}; leave argmax and "
            "rounding out of its forward"
        )
    if outputs.ndim != 2 or len(outputs) != count:
        raise UnilensError(
            f"expected outputs of shape ({count}, classes), got {tuple(outputs.shape)}; "
            "wrap the model in a module that returns one row of logits per input"
        )


def not_differentiable(
    model: nn.Module, came: str = "outputs without a gradient", within: str = "inputs"
) -> UnilensError:
    """Return the error of a model that cannot be differentiated in its inputs, layers or weights.

    Args:
        model: whose modules say whether it is quantised.
        came: what there was in place of a gradient.
        within: in what it was to be differentiated.
    """
    quantised = any(_quantised(part) for part in model.modules())
    remedy = (
        "a quantised model has no gradients: explain the model it was made from"
        if quantised
        else "remove detach(), argmax, numpy, no_grad or in-place changes from its forward"
    )
    return UnilensError(
        f"expected a model that is differentiable in its {within}, got {came}; {remedy}, or use a "
        "method that needs no gradient: occlusion, rise or sobol"
    )


def _describe(outputs: object) -> str:
    if isinstance(outputs, Mapping):
        return f"{type(outputs).__name__} with keys {', '.join(map(str, outputs))}"
    if isinstance(outputs, (tuple, list)):
        return f"{type(outputs).__name__} of {len(outputs)}"
    return type(outputs).__name__


def check_inputs(inputs: Tensor, device: torch.device | None) -> Tensor:
    """Return the inputs, detached, in float32 or wider; raise where they cannot be explained."""
    if not isinstance(inputs, Tensor):
        raise UnilensError(
            f"expected inputs to be a tensor (B, *S), got {type(inputs).__name__}; "
            "stack the inputs with torch.stack or wrap them with torch.as_tensor"
        )
    if inputs.ndim < 2 or not inputs.numel():
        raise UnilensError(
            f"expected inputs of shape (B, *S) with at least one input, got "
            f"{tuple(inputs.shape)}; add the batch dimension with inputs.unsqueeze(0)"
        )
    if not inputs.is_floating_point():
        raise UnilensError(
            f"expected floating-point inputs, got {inputs.dtype}; convert them with .float() "
            "(and divide 8-bit images by 255)"
        )
    if device is not None and inputs.device != device:
        raise UnilensError(
            f"expected inputs on the model's device {device}, got {inputs.device}; "
            "move one of them with .to(...)"
        )
    bad = (~inputs.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise UnilensError(
            f"expected finite inputs, got NaN or infinity in input {', '.join(map(str, bad[:5]))}"
            f"{', ...' if len(bad) > 5 else ''} of {len(inputs)}; clean them first"
        )
    return inputs.detach().clone().to(torch.promote_types(inputs.dtype, torch.float32))


def check_target(target: Target, outputs: Tensor, model: nn.Module) -> Tensor:
    """Return the target `(B,)`: one per input, the predicted class where none is given."""
    count, classes = outputs.shape
    if target is None:
        return outputs.argmax(-1)
    if not isinstance(target, Tensor):
        several = isinstance(target, Iterable) and not isinstance(target, str)
        several = several and getattr(target, "ndim", 1) > 0  # numpy's scalars are iterables
        each = list(cast(Any, target)) if several else [target] * count
        target = torch.as_tensor([_class_index(one, model) for one in each])
    if target.ndim == 0:
        target = target.expand(count)
    if target.shape != (count,):
        raise UnilensError(
            f"expected `target` of shape ({count},), got {tuple(target.shape)}; pass one index "
            "for all, or one per input"
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise UnilensError(
            f"expected `target` to hold class indices as integers, got {target.dtype}; convert it "
            "with .long()"
        )
    wrong = [int(one) for one in target if not 0 <= int(one) < classes]
    if wrong:
        raise UnilensError(
            f"expected `target` between 0 and {classes - 1}, since the model's outputs have shape "
            f"{tuple(outputs.shape)}; got {wrong[0]}"
        )
    return target.to(outputs.device, torch.long)


def _class_index(one: object, model: nn.Module) -> int:
    if isinstance(one, str):
        find = getattr(model, "class_index", None)
        if find is None:
            raise UnilensError(
                f"expected `target` as a class index, got the label {one!r}; only models with "
                "labels (unilens.load_model) know names"
            )
        return int(find(one))
    try:
        index = operator.index(cast(Any, one))
        if isinstance(one, bool) or abs(index) >= 2**63:
            raise TypeError
    except TypeError:
        raise UnilensError(
            f"expected `target` to be a class index or a label, got {type(one).__name__} {one}"
        ) from None
    return index


def check_seed(seed: object) -> None:
    """Raise unless the seed is a whole number that a generator can take."""
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise UnilensError(f"expected seed to be a whole number from 0 to 2^63 - 1, got {seed!r}")


def check_baseline(baseline: object, inputs: Tensor) -> None:
    """Raise unless the baseline is a tensor of the inputs' shape."""
    if not isinstance(baseline, Tensor) or baseline.shape != inputs.shape:
        came = tuple(baseline.shape) if isinstance(baseline, Tensor) else type(baseline).__name__
        raise UnilensError(
            f"expected the baseline to have the inputs' shape {tuple(inputs.shape)}, got {came}; "
            "give one value for every value of the inputs, as torch.zeros_like(inputs)"
        )
    if not baseline.isfinite().all():
        raise UnilensError(
            "expected a finite baseline, got NaN or infinity; check the baseline's settings"
        )
