"""UNI: the nearby input whose prediction matches that of a model that has unlearned the input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, Objective, PassCount
from .._engine.output_detection import output_spec
from .._ops.precision import expand_like, l2_norm, to_float64
from .._ops.random import generator_of, per_input, standard_normal
from .._ops.spatial import has_regions
from .._validation.settings import Bounds, Count, CountOrZero, Positive
from ..errors import NotApplicableError, UnilensError, require
from ..outputs import OutputSpec, pick
from ..registry import Card
from .base import Baseline, BaselineResult, baselines
from .matching import divergence, lowered, squared_distance, surprise
from .origin import AnyOrigin, Origin
from .shift import LINE_SEARCH_TRIES, by_cells, step_down, to_length


@dataclass(frozen=True, eq=False)
class Unlearned(Baseline):
    """Find a nearby input whose prediction matches that of a model which has unlearned the input.

    The search treats each input separately. Unlearning is one ascent step of all weights on the
    cross-entropy of the target: theta' = theta + eta g / |g|. Matching takes T steps
    `d <- P(d - mu grad_d KL(F(x; theta') || F(o + d)))` from d0, with P the projection onto the
    sphere of radius epsilon; the baseline is o + d, where the origin o is the input itself in the
    paper. The model's weights do not change: theta' are separate tensors, those of one input at a
    time.

    F are probabilities of mutually exclusive classes. For a single output, and for multi-label
    outputs, the classes are the presence and the absence of the target: the cross-entropy is
    binary, and one logit z is the logits [0, z] of two classes. Of outputs without probabilities,
    such as a regression's, the target's value f itself is unlearned: the step lowers it, and the
    search lowers (f(x; theta') - f(o + d))^2.

    The defaults are the paper's, or the closest reading of it; `uni` and `uni_blur` have others.

    Args:
        unlearning_rate: eta, length of an ascent step in weight space.
        matching_steps: T; with 0 the baseline stays at its start.
        matching_step_size: mu; with the normalised gradient a share of the budget. It has no effect
            on a single step from zeros onto the sphere, which keeps only the step's direction.
        budget: epsilon, the l2 distance of the baseline from the input, in the inputs' units
            (pixel values in [0, 1] over the whole image, for the bundled models), or in `units`;
            for another origin, the distance from it, as a share of its distance from the input.
        start: d0; "zeros", "gaussian" (expected norm epsilon) or "sphere" (norm epsilon).
        gradient: "raw" (paper) or "normalised" to an l2 norm of epsilon per input.
        projection: "sphere" (paper) or "ball".
        line_search: whether each step has the longest of three lengths that lowers the loss (see
            `unilens.baselines.shift.step_down`), in place of mu; for `projection="ball"`.
        clamp: whether to clip the baseline to `bounds`; its distance can then be below epsilon.
        bounds: the input box, used by `clamp` alone.
        matching_target: "unlearned" (paper); "uniform" or "prior" skip the unlearning.
        class_prior: `(K,)` probabilities, a tensor or a list, for `matching_target="prior"`; for a
            single output or a label `(2,)`, the probabilities of its absence and its presence.
        units: the unit of each value, such as the standard deviations of a table's columns: a
            number, a list or a tensor that broadcasts to one input, in the inputs' units. The
            search runs in x / units, and budget and distance are in these units, so that rescaling
            a value together with its unit changes nothing. `bounds` stay in the inputs' units.
        origin: o, the point from which the search starts and near which it stays: "input" (paper);
            a registered baseline by name, or a baseline; "auto", the blurred input for images,
            volumes and clips, the input for all else; or a list of these, each of which gives a
            separate baseline, with independent draws where it is random.
        unlearning_steps: ascent steps, each of length eta.
        unlearned_weights: "all" (paper) or "last", those of the last layer alone, for which the
            backward pass ends at that layer. Experimental.
        grid: for images, the shift is constant in each cell of a `grid` x `grid` grid; None for a
            separate shift of each pixel. Experimental.

    References:
        Choi, Duplessis, Belongie, "Unlearning-based Neural Interpretations", ICLR 2025,
        arXiv 2410.08069, algorithm 1; its reviews for `grid` and `matching_target`. `origin` and
        `unlearned_weights` are from unilens (docs/beyond.md).
    """

    unlearning_rate: Positive = 1.0
    matching_steps: CountOrZero = 10
    matching_step_size: Positive = 0.1
    budget: Positive = 0.25
    start: Literal["zeros", "gaussian", "sphere"] = "zeros"
    gradient: Literal["raw", "normalised"] = "raw"
    projection: Literal["sphere", "ball"] = "sphere"
    line_search: bool = False
    clamp: bool = False
    bounds: Bounds = (0.0, 1.0)
    matching_target: Literal["unlearned", "uniform", "prior"] = "unlearned"
    class_prior: Tensor | Sequence[float] | None = None
    units: float | Sequence[float] | Tensor | None = None
    origin: AnyOrigin = "input"
    unlearning_steps: Count = 1
    unlearned_weights: Literal["all", "last"] = "all"
    grid: Count | None = None

    def __post_init__(self) -> None:
        prior = self.class_prior
        if prior is not None and not isinstance(prior, Tensor):
            object.__setattr__(self, "class_prior", _as_prior(prior))
        if self.units is not None:
            object.__setattr__(self, "units", _as_units(self.units))
        require(
            (self.matching_target == "prior") == (self.class_prior is not None),
            "expected class_prior (K,) with matching_target='prior', and only with it",
        )
        require(
            self.projection == "ball" or not self.line_search,
            "expected projection='ball' with line_search, which chooses the distance, got 'sphere'",
        )
        require(len(self._origins) > 0, f"expected at least one origin, got {self.origin!r}")
        for origin in self._origins:
            origin.check_setting()
            require(
                not isinstance(origin.given, Unlearned),
                "expected an origin that is not itself unlearned, got Unlearned(...); use 'input'",
            )

    @property
    def _origins(self) -> list[Origin]:
        several = isinstance(self.origin, (list, tuple))
        given = cast(Sequence[str | Baseline], self.origin if several else [self.origin])
        return [Origin(origin) for origin in given]

    @property
    def count(self) -> int:
        """Baselines per input: one for each origin."""
        return len(self._origins)

    @property
    def reads_axes_from(self) -> int | None:
        """The smallest `inputs.ndim` for which the channel axis matters; see `Baseline`."""
        known = [origin.reads_axes_from for origin in self._origins]
        known += [4] if self.grid else []
        return min((dimensions for dimensions in known if dimensions is not None), default=None)

    @property
    def passes(self) -> PassCount:
        """Passes per input: T matching steps, a final loss, and the unlearning steps.

        With the line search an upper bound: each step takes one to three forward passes more, and
        there is no final loss.
        """
        tries = self.matching_steps * LINE_SEARCH_TRIES if self.line_search else 1
        matching = PassCount(self.matching_steps + tries, self.matching_steps)
        steps = self.unlearning_steps if self.matching_target == "unlearned" else 0
        total = PassCount(steps + 1, steps)
        for origin in self._origins:
            total += matching + origin.passes
        return total

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where an origin or the grid does not fit the inputs."""
        for origin in self._origins:
            origin.check_fits(model, inputs)
        if self.grid and not has_regions(inputs):
            raise NotApplicableError(
                f"expected images (B, C, H, W) for grid, got {tuple(inputs.shape)}; leave it out"
            )

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Whether all searches start at the inputs `(B, *S)`."""
        return all(origin.is_input(model, inputs) for origin in self._origins)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> BaselineResult | list[BaselineResult]:
        """Return a baseline per origin, with the record `matching_loss` `(B, T + 1)`.

        It is in nats; of outputs without probabilities, in the square of their unit.
        """
        loss = self._matching_loss(model, inputs, target)
        results = []
        for number, origin in enumerate(self._origins):
            derived = generator_of("origin", number, generator)
            point = origin.point(model, inputs, target, self._units(inputs), derived)
            radius = self._radius(point, inputs).detach()
            results.append(self._search(model, point, radius, loss, derived))
        if len(results) == 1:
            return results[0]
        return [dataclasses.replace(result, weight=1 / len(results)) for result in results]

    def _radius(self, origin: Tensor, inputs: Tensor) -> Tensor:
        """Return epsilon of each input `(B,)`."""
        if origin is inputs:
            return to_float64(inputs.new_full((len(inputs),), self.budget))
        return self.budget * l2_norm((origin - inputs) / self._units(inputs))

    def _search(
        self,
        model: Evaluator,
        origin: Tensor,
        radius: Tensor,
        loss: Objective,
        generator: torch.Generator,
    ) -> BaselineResult:
        """Return the baseline near the origin with the least loss that the search finds."""
        units = self._units(origin)

        def loss_at(shift: Tensor, rows: Tensor) -> Tensor:
            return loss(model(origin[rows] + shift * units), rows)

        def project(shift: Tensor, rows: Tensor) -> Tensor:
            return self._project(origin[rows], shift, radius[rows], units)

        rows = torch.arange(len(origin), device=origin.device)
        shift, losses, last = self._start(origin, radius, generator), [], None
        for _ in range(self.matching_steps):
            evaluation = model.differentiate((origin + shift * units).unsqueeze(0), loss)
            losses.append(evaluation.values[0])
            slope = evaluation.gradients[0] * units
            if self.grid:
                slope = by_cells(slope, self.grid)
            if self.line_search:
                shift, last = step_down(loss_at, project, shift, losses[-1], slope, radius)
                continue
            if self.gradient == "normalised":
                slope = to_length(slope, radius)
            shift = project(shift - self.matching_step_size * slope, rows)
        losses.append(loss_at(shift, rows) if last is None else last)
        return BaselineResult(origin + shift * units, {"matching_loss": torch.stack(losses, dim=1)})

    def _matching_loss(self, model: Evaluator, inputs: Tensor, target: Tensor) -> Objective:
        """Return the objective that the search lowers."""
        spec = output_spec(model, inputs)
        if spec.has_probabilities:
            return divergence(spec, target, self._target_log_probs(model, inputs, target, spec))
        if self.matching_target != "unlearned":
            spec.check_classes()

        outputs = self._unlearned(model, inputs, lowered(target))
        return squared_distance(target, pick(outputs, target))

    def _unlearned(self, model: Evaluator, inputs: Tensor, objective: Objective) -> Tensor:
        """Return the outputs `(B, K)` at each input after ascent steps on an objective."""
        return model.unlearned_logits(
            inputs,
            objective,
            self.unlearning_rate,
            steps=self.unlearning_steps,
            weights=self.unlearned_weights,
        )

    def _target_log_probs(
        self, model: Evaluator, inputs: Tensor, target: Tensor, spec: OutputSpec
    ) -> Tensor:
        """Return the log-probabilities `(B, C)` that the baseline's output should match."""
        if self.matching_target == "unlearned":
            outputs = self._unlearned(model, inputs, surprise(spec, target))
            return spec.class_logits(outputs, target)[0].log_softmax(-1)
        outputs, _ = spec.class_logits(model(inputs), target)
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
            size in (1, expected)
            for size, expected in zip(reversed(units.shape), reversed(shape), strict=False)
        )
        if not fits:
            raise UnilensError(
                f"expected units that broadcast to one input of shape {tuple(shape)}, got "
                f"{tuple(units.shape)}; give one number, or one per value"
            )
        return units

    def _start(self, inputs: Tensor, radius: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "zeros":
            return torch.zeros_like(inputs)
        shape = inputs.shape[1:]
        noise = per_input(inputs, generator, lambda g: standard_normal(shape, g))
        if self.start == "sphere":
            return to_length(noise, radius)
        return noise * expand_like(radius / math.sqrt(shape.numel()), noise)

    def _project(self, inputs: Tensor, shift: Tensor, radius: Tensor, units: Tensor) -> Tensor:
        projected = to_length(shift, radius)
        if self.projection == "ball":
            projected = torch.where(
                expand_like(l2_norm(shift) <= radius, shift) > 0, shift, projected
            )
        if self.clamp:
            return ((inputs + projected * units).clamp(*self.bounds) - inputs) / units
        return projected


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
        actual = f"a tensor {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise UnilensError(
            f"expected units to be finite numbers above 0, got {actual}; a column that never "
            "varies has no standard deviation: give it the unit 1"
        )
    return units


baselines.add(
    Card(
        "unlearned",
        "unlearning",
        "the nearby input that matches the model after it unlearned this one (UNI)",
        "Choi et al. 2025, arXiv 2410.08069, algorithm 1",
    ),
    Unlearned,
)
