"""The base class of baselines, and the registry of baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluation, Evaluator, PassCount
from .._validation.settings import Settings, check_component
from ..errors import UnilensError, require
from ..registry import Registry


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """A baseline and the record of the search for it.

    Attributes:
        values: `(B, *S)`, in the inputs' units.
        record: measurements of the search by name, each `(B, ...)`.
        weight: of this baseline among several, a number or `(B,)`; the weights sum to one.
        trajectory: `(P, B, *S)`, the points of the search from the baseline to the input, both
            included.
        evaluation: outputs `(P - 1, B, K)`, values and gradients of a score at the points of the
            trajectory after the first, where the search took them.
        score: the name of that score.
    """

    values: Tensor
    record: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float | Tensor = 1.0
    trajectory: Tensor | None = None
    evaluation: Evaluation | None = None
    score: str | None = None


class Baseline(Settings, ABC):
    """A map from a model, inputs `(B, *S)` and targets `(B,)` to baselines of the inputs.

    A plain function with the signature of `__call__` is accepted in place of a baseline.
    """

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes of the search per input."""
        return PassCount(0, 0)

    @property
    def count(self) -> int:
        """Baselines per input."""
        return 1

    @property
    def has_trajectory(self) -> bool:
        """Whether it keeps the points of its search."""
        return False

    @property
    def reads_axes_from(self) -> int | None:
        """The smallest `inputs.ndim` for which the channel axis matters; None if it never does."""
        return None

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Whether the search starts at the inputs `(B, *S)`: the baseline moves with them."""
        return False

    def of_rows(self, rows: Tensor) -> Baseline:
        """Return the baseline for some inputs `(m,)` of a batch."""
        return self

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where it does not fit a model or inputs `(B, *S)`."""

    @abstractmethod
    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor | BaselineResult | Iterable[BaselineResult]:
        """Return the baseline `(B, *S)`, on the inputs' device and in their dtype, or several.

        Args:
            model: returns outputs `(B, K)` when called, and gradients by its methods.
            inputs: `(B, *S)`.
            target: `(B,)`.
            generator: its initial seed is the run's seed; see `unilens._ops.random`.
        """


_BaselineFunction = Callable[..., Tensor | BaselineResult | Iterable[BaselineResult]]


@dataclass(frozen=True)
class FunctionBaseline(Baseline):
    """A plain function as a baseline.

    Args:
        function: as `Baseline.__call__`.
    """

    function: _BaselineFunction

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor | BaselineResult | Iterable[BaselineResult]:
        """Return what the function gives; see `Baseline`."""
        return self.function(model, inputs, target, generator=generator)


baselines: Registry[Baseline] = Registry("baseline")


def baseline_results(given: object) -> Iterator[BaselineResult]:
    """Yield the results of a baseline; raise where there are none, or of another type."""
    if isinstance(given, Tensor):
        given = BaselineResult(given)
    results = given if isinstance(given, Iterable) else [given]
    none = True
    for result in results:
        none = False
        if not isinstance(result, BaselineResult):
            raise UnilensError(
                "expected a baseline to give a tensor (B, *S) or several BaselineResult, got "
                f"{type(result).__name__}; return one, as torch.zeros_like(inputs)"
            )
        yield result
    require(
        not none,
        "expected a baseline to give at least one tensor (B, *S), got none; return one, as "
        "torch.zeros_like(inputs)",
    )


def single(results: Iterable[BaselineResult]) -> BaselineResult:
    """Return the only result; raise where there are several."""
    results = list(results)
    _check_one(len(results))
    return results[0]


def check_several(name: str, given: object) -> None:
    """Raise unless the setting is a non-empty list of baselines or names of registered ones."""
    several = isinstance(given, (list, tuple)) and len(given) > 0
    require(several, f"expected {name} to be a list of names, got {given!r}")
    for baseline in cast(Sequence[object], given):
        if isinstance(baseline, str):
            baselines[baseline]
        else:
            check_component("baseline", baseline)


def to_baseline(given: object) -> Baseline:
    """Return the baseline of a registered name or of a function; return a baseline as it is.

    Raises:
        UnilensError: `given` is none of these.
    """
    if isinstance(given, Baseline):
        return given
    if isinstance(given, str):
        return baselines[given]()
    check_component("baseline", given)
    return FunctionBaseline(cast(_BaselineFunction, given))


def to_baselines(given: Iterable[object]) -> list[Baseline]:
    """Return several baselines; see `to_baseline`."""
    return [to_baseline(baseline) for baseline in given]


def fewest_dimensions(several: Iterable[Baseline]) -> int | None:
    """Return the smallest `reads_axes_from` of several baselines; None where all are None."""
    known = [baseline.reads_axes_from for baseline in several]
    return min((dimensions for dimensions in known if dimensions is not None), default=None)


def check_single(baseline: Baseline) -> None:
    """Raise where a baseline gives several baselines per input."""
    _check_one(baseline.count)


def _check_one(count: int) -> None:
    require(
        count == 1,
        f"expected one baseline per input, got {count}; several are for path methods, such as "
        "method='ig'",
    )
