"""Methods of unilens as classes of captum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast

import numpy
import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor, nn

from ..._engine.evaluator import Evaluator
from ..._engine.packing import Frozen
from ..._validation.arrays import is_array
from ..._validation.inputs import read_target
from ...baselines import Baseline
from ...baselines.per_input import PerInput, as_baseline
from ...errors import UnilensError, first_line, require
from ...explainer import Method
from ...methods import explain, methods
from ...multi_input import to_tensors
from ...path_attribution import PathAttribution

Values = Tensor | tuple[Tensor, ...]
"""What captum takes and gives: one tensor, or a tuple with one for every input."""


class UnilensAttribution(GradientAttribution):  # type: ignore[misc]
    """Any method of unilens as a class of captum.

    As captum does, it explains the output itself at the target: `score="logit"`, unless another
    score is set. A module must be in eval mode. UNI unlearns in the module's weights, so pass the
    module, or a method of one.

    Args:
        forward_func: from inputs to outputs `(B,)`, `(B, K)` or `(B, K, ...)`: a module, or a
            function.
        method: a name in `unilens.methods()`.
        seed: of everything random.
        outputs: what the outputs are, as in `unilens.explain`.
        **settings: of the method, by name; `attribute` takes more of them.

    Example:
        >>> model = nn.Linear(3, 2).eval()
        >>> inputs = torch.rand(4, 3)
        >>> values, delta = IG(model).attribute(inputs, target=1, return_convergence_delta=True)
        >>> torch.allclose(values, model.weight[1] * inputs), bool(delta.abs().max() < 1e-5)
        (True, True)
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        method: str,
        *,
        seed: int = 0,
        outputs: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(forward_func)
        self.method, self.seed, self.outputs = method, seed, outputs
        scored = "score" in methods[method].settings_with(settings)
        self.settings = {**({"score": "logit"} if scored else {}), **settings}
        self._explainer = methods[method](**self.settings)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether values are contributions to the output, not gradients."""
        of_path = isinstance(self._explainer, PathAttribution)
        return of_path or self.has_convergence_delta() or self.method == "input_x_gradient"

    def has_convergence_delta(self) -> bool:
        """Whether the values add up to the change of the output in theory."""
        return isinstance(self._explainer, Method) and self._explainer.complete

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
            inputs: `(B, *S)`, or a tuple of them, which `forward_func` takes by position; arrays
                and frames of other libraries are copied to tensors.
            baselines: to compare with, for methods that take any baseline: a number or
                a tensor `(B, *S)` or `(1, *S)`, or one of them for each input; None for the
                method's own.
            target: the index of the output, as captum knows it; None for functions with a single
                output per input.
            additional_forward_args: what `forward_func` takes after the inputs, frozen; a
                tensor has one row per input.
            internal_batch_size: the largest number of points in one pass.
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
        several = isinstance(inputs, tuple)
        tensors = _tensors(inputs if isinstance(inputs, tuple) else (inputs,), self.forward_func)
        _check_inputs(tensors)
        extra = () if additional_forward_args is None else additional_forward_args
        extra = _tensors(extra if isinstance(extra, tuple) else (extra,), self.forward_func)
        index = _index(target, self.forward_func, (*tensors, *extra))
        alone = not several and tensors[0].ndim > 1 and not extra
        if baselines is not None:
            settings["baseline"] = _compared_with(baselines, len(tensors), alone)
        attribution: Any = explain(
            Evaluator(
                _outputs(self.forward_func, index is None),
                chunk=internal_batch_size,
                outputs=self.outputs,
            ),
            tensors[0] if alone else (*tensors, *map(Frozen, extra)),
            self.method,
            index,
            seed=self.seed,
            **{**self.settings, **settings},
        )
        values = (attribution.values,) if alone else attribution.values[: len(tensors)]
        given = values if several else values[0]
        return (given, -attribution.completeness_gap) if return_convergence_delta else given


class _Named(UnilensAttribution):
    """The base of classes for one method each; see `UnilensAttribution`."""

    _method: ClassVar[str]

    def __init_subclass__(cls, *, method: str) -> None:
        cls._method = method

    def __init__(self, forward_func: Callable[..., Any], *, seed: int = 0, **settings: Any) -> None:
        super().__init__(forward_func, self._method, seed=seed, **settings)


class UNI(_Named, method="uni"):
    """UNI, algorithm 1 with normalised gradients; see `UnilensAttribution`."""


class UNIBlur(_Named, method="uni_blur"):
    """UNI of unilens, searched from the blurred image; see `UnilensAttribution`."""


class UNIPaper(_Named, method="uni_paper"):
    """UNI to the letter of algorithm 1; see `UnilensAttribution`."""


class IG(_Named, method="ig"):
    """Integrated gradients, from any baseline; see `UnilensAttribution`."""


class GuidedIG(_Named, method="guided_ig"):
    """Guided IG, from any baseline; see `UnilensAttribution`."""


class BlurIG(_Named, method="blur_ig"):
    """BlurIG, from blurred images or signals; see `UnilensAttribution`."""


class SIG(_Named, method="sig"):
    """Spectral integrated gradients, from any baseline; see `UnilensAttribution`."""


class AGI(_Named, method="agi"):
    """AGI, from the inputs at which other classes win; see `UnilensAttribution`."""


class MFABA(_Named, method="mfaba"):
    """MFABA, along the path of an attack on the target; see `UnilensAttribution`."""


class IG2(_Named, method="ig2"):
    """IG2, from references of other classes; see `UnilensAttribution`."""


class FRInGeB(_Named, method="fringe_b"):
    """FRInGe-B, from an input that says nothing about the target; see `UnilensAttribution`."""


class IDGI(_Named, method="idgi"):
    """IDGI, along any path from any baseline; see `UnilensAttribution`."""


class IDG(_Named, method="idg"):
    """IDG, along any path from any baseline; see `UnilensAttribution`."""


def _tensors(given: tuple[Any, ...], forward: Callable[..., Any]) -> tuple[Any, ...]:
    """Return arrays of other libraries as tensors on the device of the module."""
    device = next((weight.device for weight in _weights(forward)), None)
    return cast(tuple[Any, ...], to_tensors(given, device))


def _weights(forward: Callable[..., Any]) -> Iterator[Tensor]:
    owner = forward if isinstance(forward, nn.Module) else getattr(forward, "__self__", None)
    return iter(owner.parameters() if isinstance(owner, nn.Module) else ())


def _check_inputs(inputs: tuple[object, ...]) -> None:
    for value in inputs:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        actual = value.dtype if isinstance(value, Tensor) else type(value).__name__
        require(
            floating,
            f"expected inputs to be floating-point tensors, got {actual}; pass what is not to be "
            "attributed as additional_forward_args, and convert lists with torch.as_tensor",
        )


def _compared_with(baselines: object, count: int, alone: bool) -> Baseline:
    """Return captum's baselines as one for the tensor alone, or one for every part."""
    each = baselines if isinstance(baselines, tuple) else (baselines,)
    require(
        len(each) == count,
        f"expected one baseline for each of {count} inputs, got {len(each)}; pass a tuple of them",
    )
    return as_baseline(each[0]) if alone else PerInput(each)


def _index(
    target: object, forward: Callable[..., Any], arguments: tuple[object, ...]
) -> int | list[int] | Tensor | None:
    """Return captum's target as indices of flattened outputs."""
    if is_array(target):
        read = read_target(target)
        target = read[0] if isinstance(read, list) and len(read) == 1 else read
    if isinstance(target, Tensor):
        return target.flatten()[0] if target.numel() == 1 else target
    if isinstance(target, tuple) or (
        isinstance(target, list) and target and isinstance(target[0], tuple)
    ):
        shape = _shape_of_outputs(forward, arguments)
        indices = [
            _flat(index, shape) for index in (target if isinstance(target, list) else [target])
        ]
        return indices if isinstance(target, list) else indices[0]
    return target  # type: ignore[return-value]


def _shape_of_outputs(
    forward: Callable[..., Any], arguments: tuple[object, ...]
) -> tuple[int, ...]:
    weight = next(
        (argument for argument in _weights(forward) if argument.is_floating_point()), None
    )
    given = [
        argument.to(weight.dtype)
        if weight is not None and isinstance(argument, Tensor) and argument.is_floating_point()
        else argument
        for argument in arguments
    ]
    try:
        with torch.no_grad():
            return tuple(forward(*given).shape[1:])
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise UnilensError(
            f"the model could not take the inputs, or gave no tensor: {first_line(error)}"
        ) from error


def _flat(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Return an index into outputs `(B, *shape)` as one into flattened outputs."""
    try:
        return int(numpy.ravel_multi_index(index, shape))
    except (TypeError, ValueError):
        raise UnilensError(
            f"expected target to be an index into outputs of shape (B, {', '.join(map(str, shape))}"
            f"), got {index}"
        ) from None


def _outputs(forward: Callable[..., Any], single: bool) -> nn.Module:
    owner = getattr(forward, "__self__", None)
    if isinstance(owner, nn.Module):  # a module's method: its weights are the module's
        return _Outputs(owner, forward.__name__, single)
    return _Outputs(forward, "__call__", single)


class _Outputs(nn.Module):
    """The function that captum explains as a module, its outputs flattened to `(B, K)`.

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
