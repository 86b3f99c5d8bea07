"""Methods that put rules of their own in place of the derivatives of activations; by captum."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import relu6

from ..attribution import Attribution, Case, Method
from ..baselines import Baseline, Constant, baselines
from ..baselines.base import check_fits, check_single, passes_of
from ..diagnostics import proximity
from ..errors import NotApplicableError, UnilensError, require
from ..gradients import Evaluator, Passes
from ..references import check_references, references_for
from ..registry import Card, Composed
from ..scores import Score, logit
from ..scores import resolve as resolve_score
from ..settings import check_part
from ..surgery import Alone, Clipped, Separated, StandIns, Windows, separate_activations
from ..survey import Call
from .base import methods


@dataclass(frozen=True)
class DeepLift(Method):
    """DeepLIFT by the rescale rule: every activation hands on its difference from the baseline.

    The map adds up to f(x) - f(x'). Where the rule is not defined (GELU, layer norms, products of
    two activations) the method does not apply.

    Args:
        baseline: what the input is compared with.
        score: "logit", the only one: the rule ends at the model's outputs.

    References:
        Shrikumar et al. 2017, arXiv 1704.02685; Ancona et al. 2018, arXiv 1711.06104.
    """

    baseline: Baseline = field(default_factory=Constant)
    score: str = "logit"

    def __post_init__(self) -> None:
        _check_logit(self.score)
        check_part("baseline", self.baseline)

    @property
    def passes(self) -> Passes:
        """Forward and backward passes per input: both ends go together, there and back.

        Beside them, one pass at one input looks over the model once per evaluator.
        """
        return passes_of(self.baseline) + Passes(3, 2)

    @property
    def complete(self) -> bool:
        """True: the rule hands on the whole difference."""
        return True

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the model does something that has no rescale rule."""
        check_single(self.baseline)
        check_fits(self.baseline, model, inputs)
        _check_rescale(model, inputs)

    def _explain(self, case: Case) -> Attribution:
        found = case.found(self.baseline)
        rule = _separated(case.evaluator, case.inputs, _RESCALED)
        pairs = case.evaluator.in_turn(
            len(case.inputs), lambda row: _rescale(case, rule, row, found.values[row])
        )
        values, start = (torch.stack(column) for column in zip(*pairs, strict=True))
        return _compared(case, values, found.values, start, found.record)


@dataclass(frozen=True, eq=False)
class DeepLiftShap(Method):
    """The mean of DeepLIFT over references: Shapley values where the model is linear in between.

    `baseline` and `baseline_score` of the attribution are the means over the references; the map
    adds up to f(x) less the mean score.

    Args:
        references: `(R, *S)`, in the inputs' units.
        score: "logit", the only one: the rule ends at the model's outputs.

    References:
        Lundberg and Lee 2017, arXiv 1705.07874.
    """

    references: Tensor | None = None
    score: str = "logit"

    def __post_init__(self) -> None:
        check_references(self.references, optional=True)
        _check_logit(self.score)

    @property
    def passes(self) -> Passes:
        """Forward and backward passes per input; for one reference where none are given."""
        count = 1 if self.references is None else len(self.references)
        return Passes(1 + 2 * count, 2 * count)

    @property
    def complete(self) -> bool:
        """True: the mean of maps that are."""
        return True

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise where the references do not fit, or something has no rescale rule."""
        references_for("deeplift_shap", self.references, inputs)
        _check_rescale(model, inputs)

    def _explain(self, case: Case) -> Attribution:
        references = references_for("deeplift_shap", self.references, case.inputs)
        count, rule = len(references), _separated(case.evaluator, case.inputs, _RESCALED)
        values, start = torch.zeros_like(case.inputs), torch.zeros_like(case.outputs[:, 0])

        def add(index: int) -> None:
            row, number = divmod(index, count)
            one, score = _rescale(case, rule, row, references[number])
            values[row] += one / count
            start[row] += score / count

        case.evaluator.in_turn(len(case.inputs) * count, add)
        mean = references.mean(0).expand_as(case.inputs).clone()
        return _compared(case, values, mean, start)


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """The gradient, with what is negative left out on the way back through every ReLU.

    Args:
        score: what is explained, by name or as a function of logits and target.

    References:
        Springenberg et al. 2015, arXiv 1412.6806.
    """

    score: str | Score = "probability"

    _name: ClassVar[str] = "guided_backprop"
    _rule: ClassVar[str] = "GuidedBackprop"

    def __post_init__(self) -> None:
        resolve_score(self.score)

    @property
    def passes(self) -> Passes:
        """Forward and backward passes per input."""
        return Passes(2, 1)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the model has no ReLU to which the rule applies."""
        _captum()
        separated = _separated(model, inputs, _RELUS)
        if not separated.rules:
            others = dict.fromkeys(filter(None, map(_activation, separated.calls)))
            raise NotApplicableError(
                f"{self._name} needs ReLU activations, the model has none (its activations: "
                f"{', '.join(others) or 'none'}); use method='gradient'"
            )

    def _explain(self, case: Case) -> Attribution:
        score = resolve_score(self.score, case.evaluator)
        separated = _separated(case.evaluator, case.inputs, _RELUS)
        rows = case.evaluator.in_turn(
            len(case.inputs), lambda row: _captured(case, self._rule, row, separated, score)[0]
        )
        values = torch.stack(rows)
        explained = score(case.outputs, case.target)
        return Attribution(values, case.target, explained, case.outputs, complete=self.complete)


@dataclass(frozen=True)
class Deconvolution(GuidedBackprop):
    """The gradient, with a ReLU of what comes back in place of every ReLU's derivative.

    Args:
        score: what is explained, by name or as a function of logits and target.

    References:
        Zeiler and Fergus 2014, arXiv 1311.2901.
    """

    _name: ClassVar[str] = "deconvolution"
    _rule: ClassVar[str] = "Deconvolution"


class _ReLU6(nn.ReLU):
    """ReLU6 for hooks that look for a ReLU; its derivative stays its own."""

    def forward(self, input: Tensor) -> Tensor:
        return relu6(input)


def _pooling(one: Any) -> nn.Module:
    plain = one.stride == one.kernel_size and not one.ceil_mode
    borders = torch.as_tensor(one.padding).any() or (torch.as_tensor(one.dilation) != 1).any()
    return Windows(one) if borders or not plain else Alone(type(one)(one.kernel_size))


_RELUS: StandIns = {
    nn.ReLU: lambda _: Alone(nn.ReLU()),
    nn.ReLU6: lambda _: Alone(_ReLU6()),
}
_RESCALED: StandIns = {
    nn.ReLU: lambda _: Alone(nn.ReLU()),
    nn.ELU: lambda one: Alone(nn.ELU(one.alpha)),
    nn.LeakyReLU: lambda one: Alone(nn.LeakyReLU(one.negative_slope)),
    nn.Sigmoid: lambda _: Alone(nn.Sigmoid()),
    nn.Tanh: lambda _: Alone(nn.Tanh()),
    nn.Softplus: lambda one: Alone(nn.Softplus(one.beta, one.threshold)),
    nn.ReLU6: lambda _: Clipped(0.0, 6.0),
    nn.Hardtanh: lambda one: Clipped(one.min_val, one.max_val),
    nn.MaxPool1d: _pooling,
    nn.MaxPool2d: _pooling,
    nn.MaxPool3d: _pooling,
}


def _captum() -> Any:
    try:
        return import_module("captum.attr")
    except ImportError as error:
        raise UnilensError(
            "expected captum 0.9 or newer, which is not installed; run "
            "pip install 'unilens[compare]'"
        ) from error


class _Kept(threading.local):
    """The copies with rules, one per evaluator and thread, since hooks are put on them."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[Evaluator, dict[object, Separated]] = WeakKeyDictionary()


_kept = _Kept()


def _separated(model: Evaluator, inputs: Tensor, stand_ins: StandIns) -> Separated:
    kept = _kept.of.setdefault(model, {})
    key = (id(stand_ins), inputs.shape[1:])
    if key not in kept:
        kept[key] = separate_activations(model, inputs[:1], stand_ins)
    return kept[key]


def _check_logit(score: object) -> None:
    require(
        score == "logit",
        f"expected score='logit', the only one that the rescale rule explains, got {score!r}",
    )


def _check_rescale(model: Evaluator, inputs: Tensor) -> None:
    _captum()
    if model.dtype == torch.float16:
        raise NotApplicableError(
            "deeplift divides by differences that vanish in float16; use model.float()"
        )
    for call in _separated(model, inputs, _RESCALED).calls:
        if not call.linear:
            raise NotApplicableError(
                f"deeplift has no rule for {call.function} in {call.place}; use method='ig'"
            )


_OTHERS = frozenset(
    (
        *("celu", "clamp", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
        *("mish", "prelu", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh"),
    )
)


def _activation(call: Call) -> str | None:
    """Return the name of the activation that a call is, if it is one."""
    if call.linear:
        return None
    if call.module.__module__ == "torch.nn.modules.activation":
        return call.module.__name__
    return call.function if call.function in _OTHERS else None


class _Scores(nn.Module):
    """What captum explains: from inputs to scores; its children are the modules with a rule."""

    def __init__(self, case: Case, row: int, separated: Separated, score: Score) -> None:
        super().__init__()
        self.rules = nn.ModuleList(separated.rules)
        self._call = (case, row, separated.module, score)
        self.outputs = case.outputs[row : row + 1]

    def forward(self, points: Tensor) -> Tensor:
        case, row, module, score = self._call
        outputs = case.evaluator.run(module, points)
        self.outputs = outputs.detach()
        return score(outputs, case.target[row].expand(len(points)))


def _captured(
    case: Case, rule: str, row: int, separated: Separated, score: Score, **settings: Any
) -> tuple[Tensor, Tensor]:
    """Return what a rule of captum gives for one input `(*S)`, and the outputs on the way."""
    scores = _Scores(case, row, separated, score)
    point = case.inputs[row : row + 1].clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Setting (forward, )?backward hooks", UserWarning)
        values = getattr(_captum(), rule)(scores).attribute(point, **settings)
    expected = case.outputs[row]
    if not (scores.outputs[0] - expected).abs().max() <= 1e-2 * expected.abs().max():
        raise NotApplicableError(
            "expected a model whose activations can work out of place, but its outputs change when "
            "they do: an input of one is used again; make it inplace=False"
        )
    return values[0].detach(), scores.outputs


def _rescale(case: Case, separated: Separated, row: int, baseline: Tensor) -> tuple[Tensor, Tensor]:
    """Return what one input's values add to the score of a baseline `(*S)`, and that score."""
    values, outputs = _captured(
        case, "DeepLift", row, separated, logit, baselines=baseline.unsqueeze(0)
    )
    return values, logit(outputs[1:], case.target[row : row + 1])[0]


def _compared(
    case: Case, values: Tensor, baseline: Tensor, start: Tensor, record: Mapping[str, Tensor] = {}
) -> Attribution:
    score = logit(case.outputs, case.target)
    attribution = Attribution(
        values=values,
        target=case.target,
        score=score,
        outputs=case.outputs,
        baseline=baseline,
        baseline_score=start,
        record=record,
    )
    return attribution.with_measured(
        completeness_gap=attribution.completeness_gap,
        score_change=score - start,
        proximity=proximity(case.inputs, baseline),
    )


methods.register(
    Composed(
        Card(
            "deeplift",
            "rules",
            "DeepLIFT, the rescale rule; of the logit, from any baseline",
            "Shrikumar et al. 2017, arXiv 1704.02685",
        ),
        DeepLift,
        {"baseline": baselines},
        {"baseline": "black"},
    )
)
methods.add(
    Card(
        "deeplift_shap",
        "rules",
        "the mean of DeepLIFT over references=(R, *S); of the logit",
        "Lundberg and Lee 2017, arXiv 1705.07874",
    ),
    DeepLiftShap,
)
methods.add(
    Card(
        "guided_backprop",
        "rules",
        "the gradient without what is negative on the way back through ReLUs",
        "Springenberg et al. 2015, arXiv 1412.6806",
    ),
    GuidedBackprop,
)
methods.add(
    Card(
        "deconvolution",
        "rules",
        "the gradient with a ReLU of what comes back in place of ReLUs",
        "Zeiler and Fergus 2014, arXiv 1311.2901",
    ),
    Deconvolution,
)
