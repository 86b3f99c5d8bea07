"""What comes from the user, checked: what was expected, what came, and the remedy."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .errors import UnilensError
from .outputs import LOGITS, OutputSpec

Target = int | str | Sequence[int | str] | Tensor | None


def check_model(model: object) -> None:
    """Raise unless the model is a module, all of it in eval mode."""
    if not isinstance(model, nn.Module):
        raise UnilensError(
            f"expected model to be a torch.nn.Module, got {type(model).__name__}; "
            "wrap a function in a module whose forward calls it"
        )
    for name, part in model.named_modules():
        if part.training:
            raise UnilensError(
                f"expected a model in eval mode, but {name or 'the model'} is in training mode; "
                "call model.eval() first"
            )


def check_outputs(outputs: object, count: int) -> None:
    """Raise unless the model gave logits, one row for each of `count` inputs."""
    if not isinstance(outputs, Tensor):
        raise UnilensError(
            f"expected the model to return a tensor of logits, got {_describe(outputs)}; "
            "wrap it in a module whose forward returns the logits alone"
        )
    if outputs.ndim != 2 or len(outputs) != count:
        raise UnilensError(
            f"expected outputs of shape ({count}, classes), got {tuple(outputs.shape)}; "
            f"{_remedy(tuple(outputs.shape), count)}"
        )
    if outputs.is_meta or outputs.layout != torch.strided or not outputs.is_floating_point():
        raise UnilensError(
            f"expected outputs as a dense tensor of floating-point numbers, got {_kind_of(outputs)}"
        )


def _remedy(shape: tuple[int, ...], count: int) -> str:
    if shape == (count,):
        return "return one row per input, as outputs.unsqueeze(1)"
    if len(shape) < 2 and count == 1:
        return (
            "inputs go through the model one at a time too, where .squeeze() drops the dimension "
            "of the batch: leave it out, or squeeze(dim) one dimension and return rows"
        )
    return "wrap the model in a module that returns one row of logits per input"


def _kind_of(outputs: Tensor) -> str:
    """Return what outputs are that cannot be explained, and what to do about it."""
    if outputs.is_meta:
        return "a tensor without values on the device meta; load the weights first (to_empty)"
    if outputs.layout != torch.strided:
        return f"a sparse tensor ({outputs.layout}); return outputs.to_dense()"
    if outputs.is_complex():
        return f"{outputs.dtype}; return a real part of them, as outputs.abs() or outputs.real"
    return f"{outputs.dtype}; return logits in place of argmax, or convert counts with .float()"


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


def check_target(
    target: Target, outputs: Tensor, model: nn.Module, spec: OutputSpec = LOGITS
) -> Tensor:
    """Return the target `(B,)`: one per input, the predicted class where none is given.

    With one output the target is 0: that output, which of two classes is the positive one's.
    """
    count, classes = outputs.shape
    if target is None and spec.kind == "regression" and classes > 1:
        raise UnilensError(
            f"expected a target, since the model's {classes} outputs are values and none of them "
            "is predicted; pass target=, the index of the output to explain"
        )
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
        if classes == 1:
            raise UnilensError(
                "expected `target` 0, the model's only output (of two classes that of the "
                f"positive one), got {wrong[0]}; leave target out: the map of the other class is "
                "this one with the opposite sign"
            )
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
