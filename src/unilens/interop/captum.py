"""captum and unilens: the methods of each in the other.

The classes here are captum's `Attribution`, so that its `NoiseTunnel`, `infidelity` and
`sensitivity_max` work on them; `CaptumMethod` makes any method of captum one of unilens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..attribution import Attribution, Case, Method
from ..baselines import Baseline
from ..baselines.parts import ByPart, as_baseline
from ..errors import UnilensError, require
from ..gradients import Evaluator, Passes
from ..integration import PathAttribution
from ..layout import Held
from ..methods import explain, methods
from ..passes import first_line, working_copy
from ..randomness import generators
from ..scores import Score
from ..scores import resolve as resolve_score

try:
    from captum.attr import GradientAttribution
    from captum.log import log_usage
except ImportError as error:
    raise ImportError(
        "expected captum 0.9 or newer, which is not installed; run pip install 'unilens[compare]'"
    ) from error

Values = Tensor | tuple[Tensor, ...]
"""What captum takes and gives: one tensor, or a tuple with one for every input."""


class UnilensAttribution(GradientAttribution):  # type: ignore[misc]
    """Any method of unilens as a class of captum.

    As captum does, it explains the output itself at the target: `score="logit"`, unless another
    score is asked for. A module must be in eval mode. UNI unlearns the softmax of the outputs in
    the module's weights, so give it a module that returns logits.

    Args:
        forward_func: from inputs to outputs `(B,)`, `(B, K)` or `(B, K, ...)`: a module, or a
            function.
        method: a name in `unilens.methods()`.
        seed: of everything random.
        **settings: of the method, by name; `attribute` takes more of them.

    Example:
        >>> model = nn.Linear(3, 2).eval()
        >>> inputs = torch.rand(4, 3)
        >>> values, delta = IG(model).attribute(inputs, target=1, return_convergence_delta=True)
        >>> torch.allclose(values, model.weight[1] * inputs), bool(delta.abs().max() < 1e-5)
        (True, True)
    """

    def __init__(
        self, forward_func: Callable[..., Any], method: str, *, seed: int = 0, **settings: Any
    ) -> None:
        super().__init__(forward_func)
        self.method, self.seed = method, seed
        self.settings = {"score": "logit", **settings}
        self._explainer = methods[method](**self.settings)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether values are contributions to the output, not gradients."""
        return isinstance(self._explainer, PathAttribution) or self.method == "input_x_gradient"

    def has_convergence_delta(self) -> bool:
        """Whether the values add up to the change of the output in theory."""
        weighting = getattr(self._explainer, "weighting", None)
        complete = getattr(weighting, "complete", True)
        return isinstance(self._explainer, PathAttribution) and bool(complete)

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Values,
        baselines: float | Tensor | tuple[float | Tensor, ...] | None = None,
        target: object = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        **settings: Any,
    ) -> Any:
        """Return the attributions of the inputs.

        Args:
            inputs: `(B, *S)`, or a tuple of them, which `forward_func` takes by position.
            baselines: what they are compared with, for methods that take any baseline: a number or
                a tensor `(B, *S)` or `(1, *S)`, or one of them for each input; None for the
                method's own.
            target: the index of the output, as captum knows it; None for functions with a single
                output per input.
            additional_forward_args: what `forward_func` takes after the inputs, held fixed; a
                tensor has one row per input.
            internal_batch_size: points that one pass takes at the most.
            return_convergence_delta: whether to return the delta as well.
            **settings: of the method, over those of the constructor.

        Returns:
            Values in the shape of the inputs, signed, in units of the score; with the delta `(B,)`,
            the sum of the values less f(x) - f(x').

        Raises:
            UnilensError: the inputs, the target or a setting do not fit.
        """
        require(
            not return_convergence_delta or self.has_convergence_delta(),
            f"expected a method whose values add up, to return their delta, got {self.method!r}; "
            "leave return_convergence_delta out",
        )
        parts = inputs if isinstance(inputs, tuple) else (inputs,)
        _check_inputs(parts)
        extra = () if additional_forward_args is None else additional_forward_args
        extra = extra if isinstance(extra, tuple) else (extra,)
        index = _index(target, self.forward_func, (*parts, *extra))
        alone = isinstance(inputs, Tensor) and inputs.ndim > 1 and not extra
        if baselines is not None:
            settings["baseline"] = _compared_with(baselines, len(parts), alone)
        found: Any = explain(
            Evaluator(_outputs(self.forward_func, index is None), chunk=internal_batch_size),
            inputs if alone else (*parts, *map(Held, extra)),
            self.method,
            index,
            seed=self.seed,
            **{**self.settings, **settings},
        )
        values = (found.values,) if alone else found.values[: len(parts)]
        given = values if isinstance(inputs, tuple) else values[0]
        return (given, -found.completeness_gap) if return_convergence_delta else given

    def attribute_future(self) -> None:
        """Raise: attributions are not made in the background."""
        raise NotImplementedError(f"attribute_future is not there for {type(self).__name__}")


class _Named(UnilensAttribution):
    """A class for one method.

    Args:
        forward_func: see `UnilensAttribution`.
        seed: of everything random.
        **settings: of the method, by name.
    """

    _name: ClassVar[str]

    def __init__(self, forward_func: Callable[..., Any], *, seed: int = 0, **settings: Any) -> None:
        super().__init__(forward_func, self._name, seed=seed, **settings)


class UNI(_Named):
    """UNI, from the unlearned baseline; see `UnilensAttribution`."""

    _name = "uni"


class UNIPaper(_Named):
    """UNI exactly as algorithm 1 of the paper; see `UnilensAttribution`."""

    _name = "uni_paper"


class IG(_Named):
    """Integrated gradients, from any baseline; see `UnilensAttribution`."""

    _name = "ig"


class GuidedIG(_Named):
    """Guided IG, from any baseline; see `UnilensAttribution`."""

    _name = "guided_ig"


class BlurIG(_Named):
    """BlurIG, from blurred images or signals; see `UnilensAttribution`."""

    _name = "blur_ig"


class SIG(_Named):
    """Spectral integrated gradients, from any baseline; see `UnilensAttribution`."""

    _name = "sig"


class AGI(_Named):
    """AGI, from the inputs at which other classes win; see `UnilensAttribution`."""

    _name = "agi"


class IDGI(_Named):
    """IDGI, along any path from any baseline; see `UnilensAttribution`."""

    _name = "idgi"


class IDG(_Named):
    """IDG, along any path from any baseline; see `UnilensAttribution`."""

    _name = "idg"


def _check_inputs(parts: tuple[object, ...]) -> None:
    for part in parts:
        floating = isinstance(part, Tensor) and part.is_floating_point()
        came = part.dtype if isinstance(part, Tensor) else type(part).__name__
        require(
            floating,
            f"expected inputs to be floating-point tensors, got {came}; pass what is not to be "
            "attributed as additional_forward_args",
        )


def _compared_with(baselines: object, count: int, alone: bool) -> Baseline:
    """Return captum's baselines as one for the tensor alone, or one for every part."""
    each = baselines if isinstance(baselines, tuple) else (baselines,)
    require(
        len(each) == count,
        f"expected one baseline for each of {count} inputs, got {len(each)}; pass a tuple of them",
    )
    return as_baseline(each[0]) if alone else ByPart(each)


def _index(
    target: object, forward: Callable[..., Any], arguments: tuple[object, ...]
) -> int | list[int] | Tensor | None:
    """Return captum's target as indices of flattened outputs."""
    if isinstance(target, Tensor):
        return target.flatten()[0] if target.numel() == 1 else target
    if isinstance(target, tuple) or (
        isinstance(target, list) and target and isinstance(target[0], tuple)
    ):
        with torch.no_grad():
            shape = tuple(forward(*arguments).shape[1:])
        each = [_flat(one, shape) for one in (target if isinstance(target, list) else [target])]
        return each if isinstance(target, list) else each[0]
    return target  # type: ignore[return-value]


def _flat(place: tuple[int, ...], shape: tuple[int, ...]) -> int:
    if len(place) != len(shape) or not all(
        0 <= one < size for one, size in zip(place, shape, strict=True)
    ):
        raise UnilensError(
            f"expected target to be an index into outputs of shape (B, {', '.join(map(str, shape))}"
            f"), got {place}"
        )
    index = 0
    for one, size in zip(place, shape, strict=True):
        index = index * size + one
    return index


def _outputs(forward: Callable[..., Any], single: bool) -> nn.Module:
    owner = getattr(forward, "__self__", None)
    if isinstance(owner, nn.Module):  # a module's method: its weights are the module's
        return _Outputs(owner, forward.__name__, single)
    return _Outputs(forward, "__call__", single)


class _Outputs(nn.Module):
    """What captum explains, with outputs `(B, K)`: further dimensions are flattened.

    Args:
        owner: a module or a function.
        name: of the method to call.
        single: whether there is no target, so that one output per input is expected.
    """

    def __init__(self, owner: Any, name: str, single: bool) -> None:
        super().__init__()
        self.training = getattr(owner, "training", False)
        self.owner, self._name, self._single = owner, name, single

    def forward(self, *arguments: Any) -> Any:
        outputs = getattr(self.owner, self._name)(*arguments)
        if not isinstance(outputs, Tensor) or not outputs.ndim:
            return outputs
        rows = outputs.unsqueeze(1) if outputs.ndim == 1 else outputs.flatten(1)
        if self._single and rows.shape[1] != 1:
            raise UnilensError(
                f"expected a target, since the outputs have shape {tuple(outputs.shape)}; pass "
                "target=, the index of the output to explain"
            )
        return rows


@dataclass(frozen=True, eq=False)
class CaptumMethod(Method):
    """Any method of captum as one of unilens: `explain`ing, smoothed, and judged by metrics.

    It runs on a copy of the model that shares its weights, so that hooks leave the model alone;
    input by input, with torch's random numbers seeded for each. Its passes are not counted, and
    what it compares with is not known: there is no completeness gap.

    Args:
        build: makes the method of captum from a module: one of its classes, or a function such as
            `lambda model: captum.attr.NoiseTunnel(captum.attr.Saliency(model))`.
        arguments: of its `attribute`, by name, beside the inputs and the target.
        score: what is explained, by name or as a function of logits and target.

    Example:
        >>> from captum.attr import InputXGradient
        >>> model = nn.Linear(3, 2).eval()
        >>> inputs = torch.rand(4, 3)
        >>> found = CaptumMethod(InputXGradient)(model, inputs, 1)
        >>> torch.allclose(found.values, model.weight[1] * inputs)
        True
    """

    build: Callable[[nn.Module], Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    score: str | Score = "logit"

    def __post_init__(self) -> None:
        resolve_score(self.score)
        require(
            callable(self.build),
            f"expected build to be a class of captum or a function, got {self.build!r}",
        )

    @property
    def passes(self) -> Passes:
        """The pass at the inputs; captum's own are not counted."""
        return Passes(1, 0)

    def _explain(self, case: Case) -> Attribution:
        score = resolve_score(self.score)
        scores = _Scores(working_copy(case.evaluator.model), score).eval()
        method = self.build(scores if self.score != "logit" else scores.model)
        seeds = generators(case.inputs, torch.Generator().manual_seed(case.seed))
        rows = case.evaluator.in_turn(
            len(case.inputs), lambda row: self._one(method, case, row, seeds[row].initial_seed())
        )
        values = torch.stack(rows).to(case.inputs.dtype)
        explained = score(case.outputs, case.target)
        return Attribution(values, case.target, explained, case.outputs, complete=False)

    def _one(self, method: Any, case: Case, row: int, seed: int) -> Tensor:
        inputs = case.inputs[row : row + 1].to(case.evaluator.dtype).clone().requires_grad_()
        values = self._attributed(method, inputs, int(case.target[row]), seed)
        if not isinstance(values, Tensor) or values.shape != inputs.shape:
            came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise UnilensError(
                f"expected attributions of the inputs' shape {tuple(inputs.shape)}, got {came}; "
                "use a method that explains inputs, without return_convergence_delta"
            )
        return values[0].detach()

    def _attributed(self, method: Any, inputs: Tensor, target: int, seed: int) -> Any:
        try:
            with (
                torch.random.fork_rng(devices=[]),
                torch.enable_grad(),
                warnings.catch_warnings(),
            ):
                warnings.filterwarnings(
                    "ignore", r"Setting (forward, )?backward hooks", UserWarning
                )
                torch.manual_seed(seed)
                return method.attribute(inputs, target=target, **self.arguments)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise UnilensError(
                f"{type(method).__name__} could not explain an input of shape "
                f"{tuple(inputs.shape[1:])}: {first_line(error)}"
            ) from error


class _Scores(nn.Module):
    """The scores `(M, K)` of every class, for methods that know outputs alone."""

    def __init__(self, model: nn.Module, score: Score) -> None:
        super().__init__()
        self.model, self._score = model, score

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.model(inputs)
        classes = torch.arange(outputs.shape[1], device=outputs.device)
        rows = outputs.repeat_interleave(len(classes), 0)
        return self._score(rows, classes.repeat(len(outputs))).view(outputs.shape)
