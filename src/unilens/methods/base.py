"""The registry of methods, and `explain`, which runs a method by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from .._engine.axes import resolve_axes
from .._engine.evaluator import Evaluator
from .._engine.packing import MultiInputs, pack
from .._validation.inputs import Target, check_inputs
from ..attribution import Attribution
from ..baselines import PerInput
from ..errors import require
from ..explainer import Method, with_outputs
from ..multi_input import MultiInputAttribution, to_tensors
from ..output_scores import explain_output_score
from ..paths.spectral import CHANNELS as SPECTRAL_CHANNELS
from ..registry import Registry
from ..scores import as_output_score
from .contradiction import measure_signs
from .defaults import UNI, default_method

methods: Registry[Method] = Registry("method")


@overload
def explain(
    model: nn.Module | Evaluator,
    inputs: Tensor,
    method: str | None = None,
    target: Target = None,
    *,
    seed: int = 0,
    outputs: str | None = None,
    channels: str | int = "auto",
    groups: object = None,
    **settings: Any,
) -> Attribution: ...


@overload
def explain(
    model: nn.Module | Evaluator,
    inputs: MultiInputs,
    method: str | None = None,
    target: Target = None,
    *,
    seed: int = 0,
    outputs: str | None = None,
    channels: str | int = "auto",
    groups: object = None,
    **settings: Any,
) -> MultiInputAttribution: ...


def explain(
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    method: str | None = None,
    target: Target = None,
    *,
    seed: int = 0,
    outputs: str | None = None,
    channels: str | int = "auto",
    groups: object = None,
    **settings: Any,
) -> Attribution | MultiInputAttribution:
    """Explain a model's output for each input by what each of its values contributes.

    Args:
        model: from `(B, *S)` to logits `(B, K)`, in eval mode; it is not changed.
        inputs: `(B, *S)`, floating point; for a model of several inputs a mapping, with which it is
            called by keyword, or a tuple, by position. Integer and boolean inputs among them, and
            those wrapped in `unilens.multi_input.Frozen`, stay fixed. Arrays, frames and sparse
            matrices of other libraries are copied to the model's device.
        method: a name in `unilens.methods()`; None for the default of the kind of inputs, which
            `provenance["default"]` and the `repr` name: `uni_blur` for images, volumes and clips;
            for all else `expected_gradients`, with the `references` given or with rows of the call.
        target: class index or label, one for all or one per input, in a list, tensor, array or
            column; None for the predicted class.
        seed: of everything random.
        outputs: what the model's outputs are, a name in `unilens.outputs.OUTPUTS`: "logits",
            "probabilities", "multi_label", "regression" and others; None to detect it.
            `provenance["outputs"]` holds the result, and a warning says where it is in doubt.
        channels: which axis of the inputs holds the channels or features: "first" `(B, C, ...)`;
            "last", as images `(B, H, W, C)`, clips `(B, T, H, W, C)` and time-first series
            `(B, T, F)`; "none", where every axis is spatial, `(B, H, W)`; the axis's number, as 2
            for clips `(B, T, C, H, W)`; "auto", the `Evaluator`'s own, or the axis that the model's
            first operation or the shape of photographs shows. Where none shows it, it is "first",
            and a map that depends on it has the warning `channels_assumed`. The provenance holds
            the result.
        groups: integers from 0 on: values of an input with the same number belong together, as the
            columns of a one-hot code or the pixels of a superpixel (`unilens.groups` makes some).
            Their shape is that of one input, or of its positions for all channels together, with
            the batch in front where they differ by input. Methods that mask remove whole groups,
            all others are summed over them, and each value has an equal share of its group's:
            `Attribution.by_group` gives the sums.
        **settings: of the method, its baseline, path and weighting, by name: `n_steps=30`,
            `budget=0.5`, `baseline="blur"`, `sigma=10`, `path="guided"`. For several inputs,
            `baseline={"image": "blur", "table": "black"}`, and `references` in the same structure.
            `score` is what is explained: of a class, by name or as a function of outputs `(M, K)`
            and target `(M,)`; or of whatever the model returns, a function of that alone to `(M,)`,
            or one of `unilens.scores`: `segmentation`, `detection`, `similarity`, `regression`,
            `forecast`.

    Returns:
        The attribution, with its diagnostics and provenance; of several inputs, with values and
        baseline in the structure of the inputs.

    Raises:
        UnknownNameError: the method or a setting is unknown.
        UnilensError: a setting, the inputs, the target or the model do not fit.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        >>> attribution = explain(model, torch.rand(2, 1, 2, 2), method="ig", n_steps=8)
        >>> attribution.values.shape, bool(attribution.completeness_gap.abs().max() < 1e-4)
        (torch.Size([2, 1, 2, 2]), True)
    """
    if method is None:
        return _explain_by_default(
            model,
            inputs,
            target,
            settings,
            seed=seed,
            outputs=outputs,
            channels=channels,
            groups=groups,
        )
    if channels in SPECTRAL_CHANNELS and "channels" in methods[method].settings_with(settings):
        settings, channels = {**settings, "channels": channels}, "auto"  # the spectral path's
    score = as_output_score(settings.get("score"))
    if score is not None:
        settings = {name: value for name, value in settings.items() if name != "score"}
        settings |= {"score": "logit"} if _takes(method, {"score": "logit"}) else {}
    explainer: Any = methods[method](**_structured_settings(settings, inputs))
    more: dict[str, Any] = {} if channels == "auto" else {"channels": channels}
    if score is None:
        more |= {} if groups is None else {"groups": groups}
        attribution = _run(explainer, with_outputs(model, outputs), inputs, target, seed, more)
    else:
        attribution = explain_output_score(
            lambda evaluator, values, index, rows, own: _run(
                explainer.of_rows(rows), evaluator, values, index, seed, more | {"groups": own}
            ),
            model,
            inputs,
            target,
            score,
            groups,
            outputs,
        )
    card = methods[method].card
    return attribution.with_provenance(method=method, family=card.family, reference=card.reference)


def _run(
    explainer: Any,
    model: nn.Module | Evaluator,
    inputs: Any,
    target: Target,
    seed: int,
    more: Mapping[str, Any],
) -> Any:
    """Return the attribution by a method, with its `sign_agreement` where that is measured."""
    if not isinstance(inputs, (Mapping, tuple)):
        model = Evaluator.of(model)
    attribution = explainer(model, inputs, target, seed=seed, **more)
    if isinstance(model, Evaluator) and isinstance(attribution, Attribution):
        attribution = _with_sign_agreement(model, inputs, attribution, explainer)
    return attribution


def _with_sign_agreement(
    model: Evaluator, inputs: Any, attribution: Attribution, explainer: Method
) -> Attribution:
    """Return an attribution of rows or series with its `sign_agreement`; others as they are."""
    grey = attribution.axes.channels == "none"
    if attribution.values.ndim not in (2, 3) or grey or attribution.values.requires_grad:
        return attribution
    inputs = check_inputs(inputs, model.device, model.model)
    return measure_signs(model, inputs, attribution, explainer)


def _takes(method: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a method has all of these settings."""
    return set(settings) <= set(methods[method].settings_with(settings))


def _explain_by_default(
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    target: Target,
    settings: Mapping[str, Any],
    *,
    outputs: str | None,
    **call: Any,
) -> Attribution | MultiInputAttribution:
    """Explain by the default method; see `explain`."""
    axes = None
    if not isinstance(inputs, (Mapping, tuple)):
        model, outputs = Evaluator.of(with_outputs(model, outputs)), None
        inputs = check_inputs(inputs, model.device, model.model)
        axes = resolve_axes(model, inputs, call["channels"]) if inputs.ndim == 3 else None
    chosen = default_method(
        model, inputs, settings, grey=axes is not None and axes.channels == "none"
    )
    if not _takes(chosen.name, settings) and _takes(UNI.name, settings):
        chosen = UNI
    merged = {**chosen.settings, **settings}
    attribution = explain(model, inputs, chosen.name, target, outputs=outputs, **merged, **call)
    if not chosen.has_reference:
        unknown = torch.zeros(len(attribution), dtype=torch.float64)
        attribution = attribution.with_measured(reference_known=unknown)
    return attribution.with_provenance(default=chosen.reason)


def _structured_settings(
    settings: Mapping[str, Any], inputs: Tensor | MultiInputs
) -> dict[str, Any]:
    """Return the settings, with those given per input in the form that methods take."""
    read = {"baseline": PerInput, "references": lambda given: _pack_references(given, inputs)}
    return {
        name: read[name](value) if name in read and isinstance(value, (Mapping, tuple)) else value
        for name, value in settings.items()
    }


def _pack_references(given: MultiInputs, inputs: Tensor | MultiInputs) -> Tensor:
    """Return references for several inputs as one tensor `(R, D)`, packed as the inputs are."""
    require(
        isinstance(inputs, (Mapping, tuple)),
        f"expected references of shape (R, *S) for inputs of one tensor, got "
        f"{type(given).__name__}; pass a tensor",
    )
    input_spec = pack(to_tensors(cast(MultiInputs, inputs))).input_spec
    return input_spec.read("references", to_tensors(given))
