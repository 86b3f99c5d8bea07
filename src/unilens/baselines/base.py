"""What a baseline is, and the registry of baselines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._validation.settings import check_component
from ..errors import UnilensError, require
from ..registry import Registry


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """A baseline, and what the search for it has left.

    Attributes:
        values: `(B, *S)`.
        record: what the search wrote down, each entry `(B, ...)`.
        weight: of this baseline among several, one for all inputs or `(B,)`; they sum to one.
        trajectory: `(P, B, *S)`, the points of the search from the baseline to the input, both
            included.
    """

    values: Tensor
    record: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float | Tensor = 1.0
    trajectory: Tensor | None = None


class Baseline(Protocol):
    """From a model, inputs `(B, *S)` and target `(B,)` to what the inputs are compared with.

    A plain function of this shape will do. `model` gives logits when called and gradients by its
    methods; the generator's initial seed is the run's seed (see `unilens._ops.random`).

    Optional: `passes`, what the search costs per input; `count`, how many baselines there are for
    an input; `has_trajectory`, whether it keeps its trajectory; `near(model, inputs)`, whether its
    search begins at the inputs themselves, so that it moves with them; `check(model, inputs)`,
    which raises `NotApplicableError`; `reads_axes_from`, the fewest dimensions of inputs for which
    it counts which of them holds the channels.
    """

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor | BaselineResult | Iterable[BaselineResult]:
        """Return the baseline `(B, *S)`, on the inputs' device and in their dtype, or several."""


baselines: Registry[Baseline] = Registry("baseline")


def baseline_results(given: object) -> Iterator[BaselineResult]:
    """Yield what a baseline gave, one by one; raise where it is none, or something else."""
    if isinstance(given, Tensor):
        given = BaselineResult(given)
    several = given if isinstance(given, Iterable) else [given]
    none = True
    for found in several:
        none = False
        if not isinstance(found, BaselineResult):
            raise UnilensError(
                f"expected a baseline to give a tensor (B, *S) or several Found, got "
                f"{type(found).__name__}; return one, as torch.zeros_like(inputs)"
            )
        yield found
    require(
        not none,
        "expected a baseline to give at least one tensor (B, *S), got none; return one, as "
        "torch.zeros_like(inputs)",
    )


def single(several: Iterable[BaselineResult]) -> BaselineResult:
    """Return the only baseline; raise where there are several."""
    found = list(several)
    _check_one(len(found))
    return found[0]


def check_several(name: str, given: object) -> None:
    """Raise unless it is a list of names of registered baselines, or of baselines."""
    several = isinstance(given, (list, tuple)) and len(given) > 0
    require(several, f"expected {name} to be a list of names, got {given!r}")
    for one in cast(Sequence[object], given):
        if isinstance(one, str):
            baselines[one]
        else:
            check_component("baseline", one)


def built(given: Iterable[str | Baseline]) -> list[Baseline]:
    """Return baselines; those given by name with their defaults."""
    return [baselines[one]() if isinstance(one, str) else one for one in given]


def passes_of(baseline: object) -> PassCount:
    """Return what the search for a baseline costs per input: nothing where it does not say."""
    return cast(PassCount, getattr(baseline, "passes", PassCount(0, 0)))


def check_fits(part: object, model: Evaluator, inputs: Tensor) -> None:
    """Raise `NotApplicableError` where a baseline or a path says that it does not fit."""
    check = getattr(part, "check", None)
    if check is not None:
        check(model, inputs)


def check_single(baseline: object) -> None:
    """Raise where a baseline is several."""
    _check_one(getattr(baseline, "count", 1))


def _check_one(count: int) -> None:
    require(
        count == 1,
        f"expected one baseline per input, got {count}; several are for path methods, such as "
        "method='ig'",
    )
