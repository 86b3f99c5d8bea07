"""UNI: the baseline that a model finds when it has unlearned the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import UnilensError, require
from ..gradients import Evaluator, Objective, Passes
from ..numerics import l2_norm, per_item
from ..randomness import per_input
from ..registry import Card
from ..settings import check_bounds, check_choice, check_count, check_number, check_switch
from .base import Found, baselines

_CHOICES = {
    "start": ("zeros", "gaussian", "sphere"),
    "gradient": ("raw", "normalised"),
    "projection": ("sphere", "ball"),
    "matching_target": ("unlearned", "uniform", "prior"),
}


@dataclass(frozen=True, eq=False)
class Unlearned:
    """Compare with the nearby input that the model sees as one it has just unlearned.

    For every input alone: theta' = theta + eta g / |g|, one ascent step on all weights of the
    cross-entropy of the target; then T steps `d <- P(d - mu grad_d KL(F(x; theta') || F(x + d)))`
    from d0, with P the projection onto the sphere of radius epsilon; the baseline is x + d. The
    model's weights are not touched: theta' are separate tensors, one input's at a time.

    The defaults are the paper's, or the closest reading of it; the method `uni` departs from them.

    Args:
        unlearning_rate: eta, length of the ascent step in weight space.
        matching_steps: T.
        matching_step_size: mu; with the normalised gradient a share of the budget.
        budget: epsilon, the l2 distance of the baseline from the input, in the inputs' units
            (pixel values in [0, 1] over the whole image, for the bundled models), or in `units`.
        start: d0; "zeros", "gaussian" (expected norm epsilon) or "sphere" (norm epsilon).
        gradient: "raw" (paper) or "normalised" to an l2 norm of epsilon per input.
        projection: "sphere" (paper) or "ball".
        clamp: whether to clip the baseline to `bounds`; its distance can then be below epsilon.
        bounds: the input box, used by `clamp` alone.
        matching_target: "unlearned" (paper); "uniform" or "prior" skip the unlearning.
        class_prior: `(K,)` probabilities, a tensor or a list, for `matching_target="prior"`.
        units: what counts as one step in each value, such as the standard deviations of a table's
            columns: a number, a list or a tensor that broadcasts to one input, in the inputs'
            units. The search runs in x / units: budget and distance are in these, so that
            rescaling a value together with its unit changes nothing. `bounds` stay in the inputs'.

    References:
        Choi, Duplessis, Belongie, "Unlearning-based Neural Interpretations", ICLR 2025,
        arXiv 2410.08069, algorithm 1.
    """

    unlearning_rate: float = 1.0
    matching_steps: int = 10
    matching_step_size: float = 0.1
    budget: float = 0.25
    start: str = "zeros"
    gradient: str = "raw"
    projection: str = "sphere"
    clamp: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)
    matching_target: str = "unlearned"
    class_prior: Tensor | Sequence[float] | None = None
    units: float | Sequence[float] | Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("unlearning_rate", "matching_step_size", "budget"):
            check_number(name, getattr(self, name), above=0)
        check_count("matching_steps", self.matching_steps)
        for name, valid in _CHOICES.items():
            check_choice(name, getattr(self, name), valid)
        check_switch("clamp", self.clamp)
        check_bounds(self.bounds)
        prior = self.class_prior
        if prior is not None and not isinstance(prior, Tensor):
            object.__setattr__(self, "class_prior", _as_prior(prior))
        if self.units is not None:
            object.__setattr__(self, "units", _as_units(self.units))
        require(
            (self.matching_target == "prior") == (self.class_prior is not None),
            "expected class_prior (K,) with matching_target='prior', and only with it",
        )

    @property
    def passes(self) -> Passes:
        """Forward and backward passes per input: T, one more loss, and the unlearning."""
        unlearning = Passes(2, 1) if self.matching_target == "unlearned" else Passes(0, 0)
        return Passes(self.matching_steps + 1, self.matching_steps) + unlearning

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Found:
        """Return the baseline with the record `matching_loss` `(B, T + 1)`, in nats."""
        wanted = self._wanted(model, inputs, target)
        if wanted.shape[-1] < 2:
            raise UnilensError(
                "expected at least 2 classes to unlearn one of, but the model has a single output; "
                "use method='ig' with score='logit'"
            )
        divergence = _divergence(wanted)
        units = self._units(inputs)
        shift = self._start(inputs, generator)
        losses = []
        for _ in range(self.matching_steps):
            evaluation = model.differentiate((inputs + shift * units).unsqueeze(0), divergence)
            losses.append(evaluation.values[0])
            step = evaluation.gradients[0] * units
            if self.gradient == "normalised":
                step = _to_length(step, self.budget)
            shift = self._project(inputs, shift - self.matching_step_size * step, units)
        baseline = inputs + shift * units
        rows = torch.arange(len(inputs), device=inputs.device)
        losses.append(divergence(model(baseline), rows))
        return Found(baseline, {"matching_loss": torch.stack(losses, dim=1)})

    def _wanted(self, model: Evaluator, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the log-probabilities `(B, K)` that the baseline's output should match."""
        if self.matching_target == "unlearned":
            outputs = model.outputs_after_ascent(
                inputs,
                lambda outputs, rows: cross_entropy(outputs, target[rows], reduction="none"),
                self.unlearning_rate,
            )
            return outputs.log_softmax(-1)
        outputs = model(inputs)
        if self.class_prior is None:
            return torch.full_like(outputs, -math.log(outputs.shape[-1]))
        prior = torch.as_tensor(self.class_prior, dtype=outputs.dtype, device=outputs.device)
        valid = bool(prior.isfinite().all() and prior.ge(0).all() and prior.sum() > 0)
        if prior.shape != outputs.shape[1:] or not valid:
            raise UnilensError(
                f"expected class_prior of shape ({outputs.shape[1]},), none negative and not all "
                f"zero, got {tuple(prior.shape)}"
            )
        return (prior / prior.sum()).log().expand_as(outputs)

    def _units(self, inputs: Tensor) -> Tensor:
        if self.units is None:
            return inputs.new_ones(())
        units = torch.as_tensor(self.units).to(inputs)
        shape = inputs.shape[1:]
        fits = len(units.shape) <= len(shape) and all(
            size in (1, wanted)
            for size, wanted in zip(reversed(units.shape), reversed(shape), strict=False)
        )
        if not fits:
            raise UnilensError(
                f"expected units that broadcast to one input of shape {tuple(shape)}, got "
                f"{tuple(units.shape)}; give one number, or one per value"
            )
        return units

    def _start(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "zeros":
            return torch.zeros_like(inputs)
        shape = inputs.shape[1:]
        noise = per_input(inputs, generator, lambda g: torch.randn(shape, generator=g))
        if self.start == "sphere":
            return _to_length(noise, self.budget)
        return noise * self.budget / math.sqrt(shape.numel())

    def _project(self, inputs: Tensor, shift: Tensor, units: Tensor) -> Tensor:
        on_sphere = _to_length(shift, self.budget)
        if self.projection == "ball":
            on_sphere = torch.where(
                per_item(l2_norm(shift), shift) <= self.budget, shift, on_sphere
            )
        if self.clamp:
            return ((inputs + on_sphere * units).clamp(*self.bounds) - inputs) / units
        return on_sphere


def _as_prior(given: object) -> Tensor:
    try:
        return torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UnilensError(
            f"expected class_prior to be a tensor (K,) or a list of numbers, got {given!r}"
        ) from None


def _as_units(given: object) -> Tensor:
    try:
        units = torch.as_tensor(math.nan if isinstance(given, bool) else given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        units = torch.zeros(())
    if not (units.isfinite().all() and units.gt(0).all()):
        came = f"a tensor {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise UnilensError(
            f"expected units to be finite numbers above 0, got {came}; a column that never varies "
            "has no standard deviation: give it the unit 1"
        )
    return units


def _divergence(wanted: Tensor) -> Objective:
    """Return the objective KL(wanted || softmax of the outputs), in nats."""

    def divergence(outputs: Tensor, rows: Tensor) -> Tensor:
        expected = wanted[rows].to(outputs.dtype)
        gap = expected - outputs.log_softmax(-1)
        return torch.where(expected > -torch.inf, expected.exp() * gap, 0.0).sum(-1)

    return divergence


def _to_length(values: Tensor, length: float) -> Tensor:
    """Scale each input to an l2 norm; one that is zero has no direction and stays zero."""
    norm = l2_norm(values)
    return values * per_item(torch.where(norm > 0, length / norm, 0.0), values)


baselines.add(
    Card(
        "unlearned",
        "unlearning",
        "the nearby input that matches the model after it unlearned this one (UNI)",
        "Choi et al. 2025, arXiv 2410.08069, algorithm 1",
    ),
    Unlearned,
)
