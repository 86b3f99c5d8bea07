"""Neutral baselines of multi-layer perceptrons: a separate baseline for every path of neurons."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._engine.evaluator import Evaluator, PassCount
from .._engine.output_detection import output_spec
from .._engine.perceptron import Layer, perceptron
from .._ops.precision import to_float64
from .._validation.references import References, references_for
from .._validation.settings import Count, Fraction
from ..attribution import Attribution
from ..baselines import Baseline, Constant
from ..baselines.constant import FixedValues
from ..errors import NotApplicableError
from ..explainer import ExplainContext, Method
from ..path_attribution import PathAttribution
from ..quadrature import AnyRule
from ..registry import Card
from ..scores import margin
from .base import methods

_MOST_COPIES = 200_000
_HALVINGS = 60


def _log_odds(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the log odds of a binary classifier `(M,)`: its logit, or the target's margin."""
    return outputs[..., 0] if outputs.shape[-1] == 1 else margin(outputs, target)


@dataclass(frozen=True, eq=False)
class Neutral(Method):
    """Integrated gradients of a binary MLP from a baseline at which its output is neutral.

    The baseline c(p) of a neuron consists of quantiles of its inputs over the references: p where
    the weight is positive and 1 - p where it is negative, so that the neuron's value increases with
    p. For the output neuron, p gives the neutral value. The entries of its baseline are the values
    that the neurons before it should have, which determine their p, and so on down to the inputs.
    Neurons of one layer may need different inputs, so the MLP is rewritten with a copy of the
    inputs for every path of neurons, and integrated gradients from the copies' baselines are summed
    over the copies.

    The score is the logit of a model with one output; of two, the target's minus the other's. The
    result's `baseline` is the mean over the copies, for display; its `baseline_score` is that of
    the copies themselves: the neutral value's log odds, or the closest that quantiles reach.

    Where several p give the value (an inactive ReLU), the closest to the median is used. This, the
    interpolation of quantiles and the logit in place of the probability are additions of unilens.

    Args:
        references: `(R, *S)`, the training inputs or a sample of them; required.
        neutral_value: the target's probability at which the decision is undecided.
        n_steps: nodes on the path.
        rule: quadrature, by name or as a function of n_steps.

    References:
        Izzo, Lipani, Okhrati, Medda, "A Baseline for Shapley Values in MLPs: from Missingness to
        Neutrality", 2020, arXiv 2006.04896.
    """

    complete = True

    references: References | None = None
    neutral_value: Fraction = 0.5
    n_steps: Count = 50
    rule: AnyRule = "gauss_legendre"

    def __post_init__(self) -> None:
        self._path_method()  # checks the settings

    @property
    def score(self) -> Callable[[Tensor, Tensor], Tensor]:
        """What is explained: the log odds of the target."""
        return _log_odds

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input: two of the model, the others of its copies."""
        return self._path_method().passes + PassCount(2, 0)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless the model is a binary MLP of moderate size.

        It runs the model once, to compare its outputs with those of its layers.
        """
        outputs, spec = to_float64(model(inputs)), output_spec(model, inputs)
        several = outputs.shape[-1] > 1
        if not spec.has_probabilities or (several and not spec.is_exclusive(outputs)):
            raise NotApplicableError(
                "expected logits of a binary classifier, got outputs="
                f"{spec.kind!r}; use method='ig'"
            )
        layers = _binary(model, inputs)
        values = to_float64(inputs).flatten(1)
        for layer in layers:
            values = layer(values)
        coarse = max(torch.finfo(dtype).eps for dtype in (model.dtype, inputs.dtype) if dtype)
        if not torch.allclose(values, outputs, rtol=coarse**0.5, atol=coarse**0.5):
            raise NotApplicableError(
                "expected the outputs of the model's layers, got other outputs; remove hooks that "
                "change them, or use method='ig'"
            )
        references_for("neutral", self.references, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        references = references_for("neutral", self.references, context.inputs)
        layers = _binary(context.evaluator, context.inputs)
        score = _log_odds(context.outputs, context.target)
        values, baseline = torch.empty_like(context.inputs), torch.empty_like(context.inputs)
        baseline_score = torch.empty_like(score)
        for target in context.target.unique().tolist():
            rows = context.target == target
            binary = [*layers[:-1], _target_layer(layers[-1], target)]
            values[rows], baseline[rows], scores = self._from_copies(
                binary, to_float64(references).flatten(1), context.inputs[rows]
            )
            baseline_score[rows] = scores.to(score.dtype)
        attribution = Attribution(
            values,
            context.target,
            score,
            context.outputs,
            baseline,
            baseline_score,
            complete=self.complete,
        )
        return attribution.with_measured(**attribution.score_diagnostics)

    def _from_copies(
        self, layers: list[Layer], references: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values `(B, *S)`, mean baseline `(*S)` and its score `(B,)`, for one target."""
        logit = math.log(self.neutral_value / (1 - self.neutral_value))
        copies = _neutral_copies(layers, references, logit).to(inputs.dtype)
        middle = (1,) * (copies.ndim - 1)
        tiled = inputs.reshape(len(inputs), *middle, -1).expand(-1, *copies.shape)
        method = self._path_method(FixedValues(copies))
        attribution = method(_with_copied_inputs(layers).to(inputs.dtype), tiled, 0)
        assert attribution.baseline_score is not None
        # One sum per input: rounding must not depend on the batch.
        summed = torch.stack([values.flatten(0, -2).sum(0) for values in attribution.values])
        mean = copies.flatten(0, -2).mean(0)
        return summed.view_as(inputs), mean.view_as(inputs[0]), attribution.baseline_score

    def _path_method(self, baseline: Baseline | None = None) -> PathAttribution:
        return PathAttribution(
            baseline or Constant(), rule=self.rule, n_steps=self.n_steps, score="logit"
        )


def _neutral_copies(layers: list[Layer], references: Tensor, target: float) -> Tensor:
    """Return the baseline `(1, n, ..., m, F)` of every path of neurons, from the output down.

    Args:
        layers: the MLP, with one output.
        references: `(R, F)`.
        target: the output at the baseline.
    """
    known = [references]
    for layer in layers[:-1]:
        known.append(layer(known[-1]))
    values = references.new_full((1,), target)
    for layer, inputs in zip(reversed(layers), reversed(known), strict=True):
        values = _search(layer, inputs, values)
    return values


def _with_copied_inputs(layers: list[Layer]) -> nn.Module:
    """Return the MLP with copied inputs per path of neurons: `(M, 1, ..., F)` to `(M, 1)`."""
    modules = [module for layer in layers for module in (_UnsharedLinear(layer), layer.link)]
    return nn.Sequential(*modules).eval()


class _UnsharedLinear(nn.Module):
    """A linear layer whose neurons do not share inputs: `(..., n, m)` to `(..., n)`."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight, requires_grad=False)
        self.bias = nn.Parameter(layer.bias, requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.einsum("...nm,nm->...n", inputs, self.weight) + self.bias


def _binary(model: Evaluator, inputs: Tensor) -> list[Layer]:
    """Return the layers of a binary MLP; raise where it is none, or has too many copies."""
    layers = perceptron(model, inputs[:1])
    outputs = len(layers[-1].weight)
    if outputs > 2:
        raise NotApplicableError(
            f"expected a binary classifier, with one output or two, got {outputs} outputs"
        )
    copies = math.prod(layer.weight.shape[1] for layer in layers)
    if copies > _MOST_COPIES:
        raise NotApplicableError(
            f"expected an MLP with at most {_MOST_COPIES} copied inputs, got "
            f"{' x '.join(str(layer.weight.shape[1]) for layer in layers)} = {copies}"
        )
    return layers


def _target_layer(last: Layer, target: int) -> Layer:
    """Return the output layer with one neuron, whose value is the log odds of the target."""
    if len(last.weight) == 1:
        return last
    other = 1 - target
    weight, bias = last.weight[target] - last.weight[other], last.bias[target] - last.bias[other]
    return Layer(weight.unsqueeze(0), bias.unsqueeze(0), last.link)


def _search(layer: Layer, known: Tensor, target: Tensor) -> Tensor:
    """Return each neuron's baseline `(*C, n, m)`, at which it is closest to the target.

    Args:
        layer: n neurons with m inputs.
        known: `(R, m)`, these inputs at the references.
        target: `(*C, n)`, the values that the neurons should have in each of their copies.
    """
    ordered = known.sort(0).values

    def baseline(p: Tensor) -> Tensor:
        p = p.unsqueeze(-1)
        return _quantile(ordered, torch.where(layer.weight >= 0, p, 1 - p))

    def value(p: Tensor) -> Tensor:
        sums = torch.einsum("...nm,nm->...n", baseline(p), layer.weight)
        return layer.link(sums + layer.bias)

    lowest = _bisect(lambda p: value(p) >= target, target)
    highest = _bisect(lambda p: value(p) > target, target)
    return baseline(torch.full_like(target, 0.5).clamp(lowest, highest))


def _bisect(holds: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Return the smallest p in [0, 1] from which on a condition holds; 1 where it never does."""
    low, high = torch.zeros_like(like), torch.ones_like(like)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        holding = holds(middle)
        low, high = torch.where(holding, low, middle), torch.where(holding, middle, high)
    return high


def _quantile(ordered: Tensor, share: Tensor) -> Tensor:
    """Return the quantiles of sorted columns `(R, m)` at shares `(..., m)`, interpolated."""
    rank = (share * (len(ordered) - 1)).flatten(0, -2)
    below = rank.long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    values = torch.lerp(ordered.gather(0, below), ordered.gather(0, above), rank - below)
    return values.view_as(share)


methods.add(
    Card(
        "neutral",
        "references",
        "binary MLPs: IG from inputs that leave the MLP undecided; references=(R, *S)",
        "Izzo et al. 2020, arXiv 2006.04896",
        traits=("perceptron",),
    ),
    Neutral,
)
