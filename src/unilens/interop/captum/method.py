"""Methods of captum as methods of unilens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..._engine.evaluator import PassCount
from ..._ops.random import generators
from ...attribution import Attribution
from ...errors import UnilensError, first_line, require
from ...explainer import ExplainContext, Method
from ...scores import AnyScore, Score
from ...scores import resolve as resolve_score


@dataclass(frozen=True, eq=False)
class CaptumMethod(Method):
    """Any method of captum as one of unilens, which explains, is smoothed, and works with metrics.

    It runs on a copy of the model that shares its weights, so that hooks leave the model alone;
    input by input, with torch's random draws seeded for each. Its passes are not counted, and its
    baseline is not known: there is no completeness gap.

    Args:
        build: makes the method of captum from a module: one of its classes, or a function such as
            `lambda model: captum.attr.NoiseTunnel(captum.attr.Saliency(model))`.
        arguments: of its `attribute`, by name, besides the inputs and the target.
        score: what is explained, by name or as a function of logits and target.

    Example:
        >>> from captum.attr import InputXGradient
        >>> model = nn.Linear(3, 2).eval()
        >>> inputs = torch.rand(4, 3)
        >>> found = CaptumMethod(InputXGradient)(model, inputs, 1)
        >>> torch.allclose(found.values, model.weight[1] * inputs)
        True
    """

    passes = PassCount(1, 0)  # at the inputs; those of captum are not counted

    build: Callable[[nn.Module], Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    score: AnyScore = "logit"

    def __post_init__(self) -> None:
        require(
            callable(self.build),
            f"expected build to be a class of captum or a function, got {self.build!r}",
        )

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)
        scores = _Scores(context.evaluator.private_module(context.inputs), score).eval()
        method = self.build(scores if self.score != "logit" else scores.model)
        seeds = generators(context.inputs, torch.Generator().manual_seed(context.seed))
        rows = context.evaluator.in_turn(
            len(context.inputs),
            lambda row: self._one(method, context, row, seeds[row].initial_seed()),
        )
        values = torch.stack(rows).to(context.inputs.dtype)
        explained = score(context.outputs, context.target)
        return Attribution(
            values, context.target, explained, context.outputs, complete=self.complete
        )

    def _one(self, method: Any, context: ExplainContext, row: int, seed: int) -> Tensor:
        inputs = context.inputs[row : row + 1].to(context.evaluator.dtype).clone().requires_grad_()
        values = self._attributed(method, inputs, int(context.target[row]), seed)
        if not isinstance(values, Tensor) or values.shape != inputs.shape:
            actual = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise UnilensError(
                f"expected attributions of the inputs' shape {tuple(inputs.shape)}, got {actual}; "
                "use a method that explains inputs, without return_convergence_delta"
            )
        return values[0].detach()

    def _attributed(self, method: Any, inputs: Tensor, target: int, seed: int) -> Any:
        try:
            with torch.enable_grad(), _Seeded(seed):
                return method.attribute(inputs, target=target, **self.arguments)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise UnilensError(
                f"{type(method).__name__} could not explain an input of shape "
                f"{tuple(inputs.shape[1:])}: {first_line(error)}"
            ) from error


class _Seeded(TorchFunctionMode):
    """Gives torch's random functions in this thread a generator of their own."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            kwargs = {"generator": self._generator, **kwargs}
        return func(*args, **kwargs)


_DRAWS = {
    *(torch.bernoulli, torch.multinomial, torch.normal, torch.rand, torch.randint, torch.randn),
    *(torch.randperm, Tensor.bernoulli_, Tensor.multinomial, Tensor.normal_, Tensor.uniform_),
}


class _Scores(nn.Module):
    """The scores `(M, K)` of every class, for methods that explain outputs."""

    def __init__(self, model: nn.Module, score: Score) -> None:
        super().__init__()
        self.model, self._score = model, score

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.model(inputs)
        classes = torch.arange(outputs.shape[1], device=outputs.device)
        rows = outputs.repeat_interleave(len(classes), 0)
        return self._score(rows, classes.repeat(len(outputs))).view(outputs.shape)
