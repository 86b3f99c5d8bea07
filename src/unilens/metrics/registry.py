"""The registry of metrics, and the function that runs one by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._engine.packing import MultiInputs
from .._validation.arrays import to_tensor
from .._validation.inputs import Target
from ..attribution import Attribution
from ..explainer import Method, with_outputs
from ..methods import methods
from ..multi_input import MultiInputAttribution, joined_rows, whole_of
from ..output_scores import check_score, for_each_score
from ..registry import Composed, MetricCard, Registry
from ..scores import as_output_score
from .base import Metric
from .context import MapFunction, method_of_rows
from .multi_input import MultiInputMaps

_FACTS = (
    *("family", "summary", "reference", "deterministic", "traits"),
    *("higher_is_better", "bounds", "needs"),
)


class _MetricRegistry(Registry[Metric]):
    """The named metrics: classes, and named settings of classes."""

    def add_metric(
        self,
        name: str,
        build: type[Metric],
        *,
        settings: Mapping[str, Any] | None = None,
        components: Mapping[str, str] | None = None,
        selectable: tuple[str, ...] | None = None,
        **facts: Any,
    ) -> None:
        """Register a metric under a name; its card holds the facts that the class declares.

        Args:
            name: in the registry.
            build: the class.
            settings: defaults of this name that differ from the class's and its components'.
            components: default components of this name that differ from the class's.
            selectable: the components that can be chosen; None for all.
            **facts: of this name, where they differ from the class's.
        """
        card = MetricCard(
            name, **{fact: getattr(build, fact) for fact in _FACTS} | facts, metric=build.__name__
        )
        if not (build.components or settings):
            return self.add(card, build)
        defaults = {setting: default for setting, _, default in build.components}
        return self.register(
            Composed(
                card,
                build,
                component_registries={
                    setting: registry for setting, registry, _ in build.components
                },
                default_components={**defaults, **(components or {})},
                selectable=selectable,
                overrides=settings or {},
            )
        )


metrics = _MetricRegistry("metric")


def evaluate(
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    attribution: Attribution | Tensor | MultiInputMaps,
    metric: str = "mu_fidelity",
    *,
    method: str | Method | MapFunction | None = None,
    target: Target = None,
    mask: Tensor | None = None,
    without_parts: Tensor | None = None,
    seed: int = 0,
    outputs: str | None = None,
    channels: str | int = "auto",
    groups: object = None,
    **settings: Any,
) -> Tensor:
    """Measure how good maps are; from unilens, captum or anywhere.

    Args:
        model: from `(B, *S)` to logits `(B, K)`, in eval mode; it is not changed.
        inputs: `(B, *S)`, floating point; several as a mapping or a tuple, as for
            `unilens.explain`, are judged together, every value a feature. Inputs,
            maps and masks may be arrays of other libraries, as there.
        attribution: what `unilens.explain` gave, or maps `(B, *S)`; a map of pixels `(B, H, W)` or
            `(B, 1, H, W)` will do for images `(B, C, H, W)`.
        metric: a name in `unilens.metrics()`.
        method: what made the maps, for metrics that explain again: a name, a method with its
            settings, or a function from model, inputs and target to maps.
        target: the classes that the maps explain; None for the attribution's own, or for the
            predicted ones.
        mask: where the object is, for metrics of localisation: `(B, *spatial)`, true inside, or
            boxes `(B, 4)` as left, top, right, bottom in pixels.
        without_parts: the inputs without each of their P parts, `(B, P, *S)`, for
            `single_deletion`.
        seed: of everything random.
        outputs: what the model's outputs are, a name in `unilens.outputs.OUTPUTS`; None for what
            the attribution says, or to find out.
        channels: which axis of inputs and maps holds the channels; see `unilens.explain`. "auto"
            takes what the attribution's provenance says, where it says something.
        groups: integers, as `unilens.explain` takes them, for `mu_fidelity`, `insertion_auc`,
            `deletion_auc`, `mas_insertion`, `mas_deletion` and `infidelity` of subsets: whole
            groups are removed, and ranked by the sum of the map over each. None for positions or
            cells, also for maps by group.
        **settings: of the metric, by name: `imputer="blur"`, `reduction="abs"`.

    Returns:
        `(B,)` in float64, one number per input; NaN where the metric is undefined.
        `unilens.metrics()[metric]` says which direction is good.

    Raises:
        UnknownNameError: no such metric or setting.
        NotApplicableError: the metric needs a method, mask or path.
        UnilensError: a setting, the inputs, the maps or the model do not fit.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
        >>> inputs = torch.rand(3, 1, 4, 4)
        >>> maps = model[1].weight[0].view(1, 1, 4, 4) * inputs
        >>> evaluate(model, inputs, maps.detach(), target=0, cells=4, score="logit").mean() > 0.99
        tensor(True)
    """
    score = as_output_score(settings.get("score"))
    if score is None:
        measure = metrics[metric](**settings)
        found = measure(
            with_outputs(model, outputs),
            inputs,
            attribution,
            method=method,
            target=target,
            mask=mask,
            without_parts=without_parts,
            seed=seed,
            channels=channels,
            groups=groups,
        )
        return found.values
    known = "score" in metrics[metric].settings_with(settings)
    settings = {name: value for name, value in settings.items() if name != "score"}
    measure = metrics[metric](**settings, **({"score": "logit"} if known else {}))
    explains = isinstance(attribution, (Attribution, MultiInputAttribution))
    if explains:
        check_score(whole_of(cast(Any, attribution)), score)
    explainer = _by_logit(method)

    def work(
        evaluator: Evaluator, values: Any, index: int, rows: Tensor | None, own: Any
    ) -> Tensor:
        return measure(
            evaluator,
            values,
            attribution if rows is None else _rows_of(attribution, rows),
            method=explainer if rows is None else method_of_rows(explainer, rows),
            target=None if explains else index,
            mask=mask if rows is None or mask is None else _rows_of(mask, rows),
            without_parts=_rows_of(without_parts, rows) if rows is not None else without_parts,
            seed=seed,
            channels=channels,
            groups=own,
        ).values

    parts, bound = for_each_score(work, model, inputs, target, score, groups, outputs)
    return cast(Tensor, joined_rows(parts, [part.rows for part in bound]))


def _by_logit(method: str | Method | MapFunction | None) -> Method | MapFunction | None:
    """Return a method that explains the model's output itself, where it explains a score."""
    if isinstance(method, str):
        takes = "score" in methods[method].settings_with({})
        return methods[method](**({"score": "logit"} if takes else {}))
    if isinstance(method, Method) and as_output_score(method.score) is not None:
        return method.with_score("logit")
    return method


def _rows_of(given: Any, rows: Tensor) -> Any:
    """Return some rows of an attribution, of maps or of masks."""
    if isinstance(given, (Attribution, MultiInputAttribution)):
        return given[rows]
    if isinstance(given, Mapping):
        return {name: _rows_of(value, rows) for name, value in given.items()}
    if isinstance(given, tuple):
        return tuple(_rows_of(value, rows) for value in given)
    read = to_tensor("maps", given)
    return read[rows] if isinstance(read, Tensor) else read
