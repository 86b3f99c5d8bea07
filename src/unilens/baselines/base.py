"""What a baseline is, and the registry of baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._validation.settings import Settings, check_component
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


class Baseline(Settings, ABC):
    """From a model, inputs `(B, *S)` and target `(B,)` to what the inputs are compared with.

    Where a baseline is expected, a plain function of the shape of `__call__` will do.
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
        """The fewest dimensions of inputs for which it counts which holds the channels, if any."""
        return None

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Whether its search starts at the inputs `(B, *S)` themselves, and moves with them."""
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
            model: gives logits when called and gradients by its methods.
            inputs: `(B, *S)`.
            target: `(B,)`.
            generator: its initial seed is the run's seed; see `unilens._ops.random`.
        """


BaselineFunction = Callable[..., Tensor | BaselineResult | Iterable[BaselineResult]]


@dataclass(frozen=True)
class FunctionBaseline(Baseline):
    """A plain function as a baseline.

    Args:
        function: as `Baseline.__call__`.
    """

    function: BaselineFunction

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor | BaselineResult | Iterable[BaselineResult]:
        """Return what the function gives; see `Baseline`."""
        return self.function(model, inputs, target, generator=generator)


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
                "expected a baseline to give a tensor (B, *S) or several BaselineResult, got "
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


def to_baseline(given: object) -> Baseline:
    """Return the baseline of a registered name or a function; a baseline stays itself.

    Raises:
        UnilensError: it is neither.
    """
    if isinstance(given, Baseline):
        return given
    if isinstance(given, str):
        return baselines[given]()
    check_component("baseline", given)
    return FunctionBaseline(cast(BaselineFunction, given))


def to_baselines(given: Iterable[object]) -> list[Baseline]:
    """Return several baselines; see `to_baseline`."""
    return [to_baseline(baseline) for baseline in given]


def fewest_read(several: Iterable[Baseline]) -> int | None:
    """Return the fewest dimensions from which one of several baselines reads axes, if any."""
    known = [baseline.reads_axes_from for baseline in several]
    return min((least for least in known if least is not None), default=None)


def check_single(baseline: Baseline) -> None:
    """Raise where a baseline is several."""
    _check_one(baseline.count)


def _check_one(count: int) -> None:
    require(
        count == 1,
        f"expected one baseline per input, got {count}; several are for path methods, such as "
        "method='ig'",
    )
