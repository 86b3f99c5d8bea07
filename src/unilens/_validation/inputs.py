"""Checks of a user's inputs, targets and seed; each error is one line with the remedy."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import UnilensError
from ..outputs import LOGITS, OutputSpec
from .arrays import as_number, bare_array, is_array, is_missing, to_tensor
from .models import embedding_hint
from .settings import shown

Target = int | str | Sequence[int | str] | Tensor | None


def check_inputs(
    inputs: object, device: torch.device | None, model: nn.Module | None = None
) -> Tensor:
    """Return the inputs, detached, in float32 or wider; raise where they cannot be explained.

    Args:
        inputs: a tensor `(B, *S)`, or an array or a frame of another library, which is copied to
            the device.
        device: the model's; None where it has none.
        model: to explain, if known: the message says what to do with token ids.
    """
    given = to_tensor("inputs", inputs)
    if not isinstance(given, Tensor):
        raise UnilensError(
            f"expected inputs to be a tensor (B, *S), got {_kind(given)}; {_remedy(given)}"
        )
    given = given if isinstance(inputs, Tensor) else given.to(device)
    if given.ndim < 2 or not given.numel():
        raise UnilensError(
            f"expected inputs of shape (B, *S) with at least one input, got "
            f"{tuple(given.shape)}; add the batch dimension with inputs.unsqueeze(0)"
        )
    if not given.is_floating_point():
        raise UnilensError(f"expected floating-point inputs, got {given.dtype}{_way(given, model)}")
    if device is not None and given.device != device:
        raise UnilensError(
            f"expected inputs on the model's device {device}, got {given.device}; "
            "move one of them with .to(...)"
        )
    wide = given.dtype if given.dtype == torch.float64 else torch.float32  # float8 does not promote
    given = given.detach().clone().to(wide)
    bad = (~given.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise UnilensError(
            f"expected finite inputs, got NaN or infinity in input {', '.join(map(str, bad[:5]))}"
            f"{', ...' if len(bad) > 5 else ''} of {len(given)}; clean them first: fill what is "
            "missing, as with torch.nan_to_num or the median, since no difference to a baseline is "
            "defined there"
        )
    return given


def _kind(given: object) -> str:
    """Return the type of an object, with that of the items for a list."""
    several = isinstance(given, list) and bool(given)
    of = f" of {type(cast(list[object], given)[0]).__name__}" if several else ""
    return f"{type(given).__name__}{of}"


def _remedy(given: object) -> str:
    first = given[0] if isinstance(given, list) and given else given
    if hasattr(first, "getbands"):
        return "preprocess pictures first, as the model that unilens.load_model returns does"
    if hasattr(first, "collect"):
        return "collect a lazy frame first, with .collect()"
    return "stack the inputs with torch.stack or wrap them with torch.as_tensor"


def _way(inputs: Tensor, model: nn.Module | None) -> str:
    """Return the remedy for inputs that are not floating-point."""
    if inputs.is_complex():
        return "; pass real and imaginary parts as channels"
    ids = model is not None and inputs.dtype in (torch.int32, torch.int64)
    hint = embedding_hint(cast(nn.Module, model)) if ids else ""
    return hint or "; convert them with .float() (and divide 8-bit images by 255)"


def check_target(
    target: object, outputs: Tensor, model: nn.Module, spec: OutputSpec = LOGITS
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
    target = read_target(target)
    if target is None:
        return outputs.argmax(-1)
    if not isinstance(target, Tensor):
        each = target if isinstance(target, list) else [target] * count
        _check_known([row for row, index in enumerate(each) if is_missing(index)])
        target = torch.as_tensor([_class_index(index, model) for index in each])
    if target.ndim == 0:
        target = target.expand(count)
    if target.shape != (count,):
        raise UnilensError(
            f"expected `target` of shape ({count},), got {tuple(target.shape)}; "
            f"{_reshaping(target, outputs)}"
        )
    if target.is_floating_point():
        _check_known(target.isnan().nonzero().flatten().tolist())
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise UnilensError(
            f"expected `target` to hold class indices as integers, got {target.dtype}; convert it "
            "with .long()"
        )
    wrong = [index for index in target.tolist() if not 0 <= index < classes]
    if wrong:
        missing = "; leave inputs without a label out" if wrong[0] == -1 else ""
        if classes == 1 and not missing:
            raise UnilensError(
                "expected `target` 0, the model's only output (of two classes that of the "
                f"positive one), got {wrong[0]}; leave target out: the map of the other class is "
                "this one with the opposite sign"
            )
        raise UnilensError(
            f"expected `target` between 0 and {classes - 1}, since the model's outputs have shape "
            f"{tuple(outputs.shape)}; got {wrong[0]}{missing}"
        )
    return target.to(outputs.device, torch.long)


def read_target(target: object) -> int | str | list[Any] | Tensor | None:
    """Return a target as one class, a list of classes in the order of the inputs, or a tensor.

    Columns of frames are read by position, whatever their index.
    """
    target = as_number(target)
    if target is None or isinstance(target, (int, float, str)):
        return cast(Target, target)  # type: ignore[return-value]
    if isinstance(target, Tensor):
        return cast(Tensor, to_tensor("`target`", target))
    if is_array(target):
        array = bare_array("`target`", target)
        if array.ndim != 1 and array.dtype.kind in "iufbc":
            return cast(Tensor, to_tensor("`target`", array))
        target = list(array) if array.dtype.kind == "M" else array.tolist()
    if not isinstance(target, Iterable) or isinstance(target, (bytes, Mapping, set, frozenset)):
        raise UnilensError(
            f"expected `target` to be a class index or a label, or one per input, got "
            f"{type(target).__name__}; pass a list of them, in the order of the inputs"
        )
    return list(target)


def _reshaping(target: Tensor, outputs: Tensor) -> str:
    if target.shape == (len(outputs), 1):
        return "pass target.flatten()"
    if target.shape == outputs.shape:
        return "pass the indices of a one-hot target, as target.argmax(1)"
    return "pass one index for all, or one per input"


def _check_known(missing: list[int]) -> None:
    """Raise where labels of some inputs are missing."""
    if missing:
        rows = f"{', '.join(map(str, missing[:5]))}{', ...' if len(missing) > 5 else ''}"
        raise UnilensError(
            f"expected `target` to be a class index or a label, got missing ones for input {rows}; "
            "leave these inputs out, or pass target=None to explain the predicted classes"
        )


def _class_index(given: object, model: nn.Module) -> int:
    given = as_number(given)
    if isinstance(given, str):
        try:
            find = cast(Any, model).class_index
        except AttributeError:
            raise UnilensError(
                f"expected `target` as a class index, got the label {given!r}; only models with "
                "labels (unilens.load_model) know names"
            ) from None
        return int(find(given))
    try:
        index = operator.index(cast(Any, given))
        if isinstance(given, bool) or abs(index) >= 2**63:
            raise TypeError
    except (TypeError, ValueError):
        raise UnilensError(
            f"expected `target` to be a class index or a label, got {type(given).__name__} "
            f"{shown(given)[:60]}; pass whole numbers, as by int(...)"
        ) from None
    return index


def check_seed(seed: object) -> int:
    """Return the seed as an int; raise unless it is a whole number that a generator can take."""
    number = as_number(seed)
    if type(number) is not int or not 0 <= number < 2**63:
        raise UnilensError(
            f"expected seed to be a whole number from 0 to 2^63 - 1, got {shown(seed)}"
        )
    return number


def check_baseline(baseline: object, inputs: Tensor) -> None:
    """Raise unless the baseline is a tensor of the inputs' shape."""
    if not isinstance(baseline, Tensor) or baseline.shape != inputs.shape:
        actual = tuple(baseline.shape) if isinstance(baseline, Tensor) else type(baseline).__name__
        raise UnilensError(
            f"expected the baseline to have the inputs' shape {tuple(inputs.shape)}, got {actual}; "
            "give one value for every value of the inputs, as torch.zeros_like(inputs)"
        )
    if not baseline.isfinite().all():
        raise UnilensError(
            "expected a finite baseline, got NaN or infinity; check the baseline's settings"
        )
