"""Checks of a user's model and its outputs; each error is one line with the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import UnilensError


def check_model(model: object) -> None:
    """Raise unless the model is a module in eval mode, with weights that have values."""
    if not isinstance(model, nn.Module):
        actual, remedy = type(model).__name__, "wrap a function in a module whose forward calls it"
        if actual == "ExportedProgram":
            remedy = "pass its .module()"
        raise UnilensError(f"expected model to be a torch.nn.Module, got {actual}; {remedy}")
    modules = list(model.modules())
    if any(is_lazy(value) or value.is_meta for value in tensors_of(modules)):
        _refuse_tensors(model)
    training = [submodule for submodule in modules if getattr(submodule, "training", False)]
    if training:
        _refuse_training(model, training)


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the parameters and buffers of modules, each once; `parameters()` is slower."""
    values = {
        id(value): value
        for submodule in modules
        for value in (*submodule._parameters.values(), *submodule._buffers.values())
        if value is not None
    }
    return list(values.values())


def _refuse_tensors(model: nn.Module) -> None:
    """Raise an error that names the first tensor without a shape or values."""
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


def _refuse_training(model: nn.Module, training: list[nn.Module]) -> None:
    """Raise an error that names the first module in training mode that has another mode."""
    exported = {
        inner
        for submodule in model.modules()
        if _exported(submodule)
        for inner in submodule.modules()
    }
    wrong = [one for one in training if not (one in exported or quantised(one))]
    for name, submodule in model.named_modules():
        if any(submodule is one for one in wrong):
            raise UnilensError(
                f"expected a model in eval mode, but {name or 'the model'} is in training mode; "
                "call model.eval() first"
            )


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def quantised(submodule: nn.Module) -> bool:
    """Return whether a module is a quantised layer."""
    return "quantiz" in type(submodule).__module__


def _exported(submodule: nn.Module) -> bool:
    """Return whether a module comes from torch.export, whose mode is fixed."""
    return "eval" in vars(submodule) and "graph" in dir(submodule)


def check_outputs(outputs: object, count: int) -> Tensor:
    """Return outputs `(count, K)`; raise unless the model gave one row for each of its inputs.

    A single output per input may come as `(count,)`.
    """
    if not isinstance(outputs, Tensor):
        raise UnilensError(
            f"expected the model to return a tensor of logits, got {_describe(outputs)}; wrap it "
            f"in a module whose forward returns the logits alone, or pass {_score_for(outputs)}"
        )
    if kind := _unusable(outputs):
        raise UnilensError(
            f"expected outputs as a dense tensor of floating-point numbers, got {kind}"
        )
    shape = tuple(outputs.shape)
    if shape == (count,) or (not shape and count == 1):
        return outputs.reshape(count, 1)
    if outputs.ndim != 2 or len(outputs) != count or not shape[1]:
        raise UnilensError(
            f"expected outputs of shape ({count}, classes), got {shape}; "
            f"{_row_remedy(shape, count)}"
        )
    return outputs


def _row_remedy(shape: tuple[int, ...], count: int) -> str:
    if len(shape) < 2 and count == 1:
        return (
            "inputs go through the model one at a time too, where .squeeze() drops the dimension "
            "of the batch: leave it out, or squeeze(dim) one dimension and return rows"
        )
    if len(shape) > 2 and shape[0] == count:
        kind = "forecast(step, series)" if len(shape) == 3 else "segmentation(class)"
        return f"pass score=, such as unilens.scores.{kind}, or a function of the outputs to (B,)"
    return "wrap the model in a module that returns one row of logits per input"


def _score_for(outputs: object) -> str:
    """Return which score of what a model returns is likely, as a remedy."""
    first = outputs[0] if isinstance(outputs, (tuple, list)) and outputs else outputs
    names = set(first) if isinstance(first, Mapping) else set()
    kinds = {"boxes": "detection()", "pred_boxes": "detection()", "out": "segmentation(class)"}
    kind = next((f"unilens.scores.{kind}" for name, kind in kinds.items() if name in names), "")
    return f"score={kind or 'a function of what it returns to values (B,)'}"


def _unusable(outputs: Tensor) -> str:
    """Return why outputs cannot be explained, with the remedy, or nothing."""
    if outputs.is_meta:
        return "a tensor without values on the device meta; load the weights first (to_empty)"
    if outputs.is_nested:
        return "a nested tensor; return outputs.to_padded_tensor(0.0)"
    if outputs.layout != torch.strided:
        return f"a sparse tensor ({outputs.layout}); return outputs.to_dense()"
    if outputs.is_complex():
        return f"{outputs.dtype}; return a real part of them, as outputs.abs() or outputs.real"
    if outputs.is_floating_point():
        return ""
    return f"{outputs.dtype}; return logits in place of argmax, or convert counts with .float()"


def not_differentiable(
    model: nn.Module, actual: str = "outputs without a gradient", within: str = "inputs"
) -> UnilensError:
    """Return the error of a model that cannot be differentiated in its inputs, layers or weights.

    Args:
        model: whose modules say whether it is quantised.
        actual: what there was in place of a gradient.
        within: in what a gradient was needed.
    """
    remedy = (
        "a quantised model has no gradients: explain the model it was made from"
        if any(map(quantised, model.modules()))
        else "remove detach(), argmax, numpy, no_grad or in-place changes from its forward"
    )
    return UnilensError(
        f"expected a model that is differentiable in its {within}, got {actual}; {remedy}, or use "
        "a method that needs no gradient: occlusion, rise or sobol"
    )


def _describe(outputs: object) -> str:
    if isinstance(outputs, Mapping):
        return f"{type(outputs).__name__} with keys {', '.join(map(str, outputs))}"
    if isinstance(outputs, (tuple, list)):
        return f"{type(outputs).__name__} of {len(outputs)}"
    return type(outputs).__name__


_LOOKS_UP = re.compile(
    r"arguments for embedding|used as indices must be|index tensor of type"
    r"|dtype int\S* (or \S+ )?for index"
)
"""Torch's errors of a model that looks inputs up in a table and gets numbers that are no ids."""


def embedding_hint(model: nn.Module, error: object = None) -> str:
    """Return the end of a message where a model looks token ids up: how to explain it.

    Args:
        model: to explain.
        error: of its forward pass. The hint is empty where it is about something else; without an
            error, where the model has no embedding layer.
    """
    name = _embedding_of(model)
    if not (name if error is None else _LOOKS_UP.search(str(error))):
        return ""
    named = f"the output of the embedding {name!r}" if name else "the embedding's output"
    return (
        "; the model looks token ids up in an embedding, and ids have no gradient: explain at "
        "the embeddings, with unilens.text.explain_text for a Hugging Face classifier, or with a "
        f"module whose forward takes {named} (B, L, E)"
    )


def _embedding_of(model: nn.Module) -> str:
    """Return the name of the model's first embedding layer; empty where it has none."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    return next(
        (name for name, submodule in model.named_modules() if isinstance(submodule, kinds)), ""
    )
