"""Which methods fit a model, and what their maps cost by the passes that they declare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...errors import UnilensError
from ...metrics import Metric
from ..data import Item
from ..reproduction import seconds_of, seconds_per_pass
from ..work import LoadedModel
from .purposes import CONTROLS, RANKING, REGION


def example(loaded: LoadedModel, items: Sequence[Item]) -> Tensor:
    """Return the first photograph that can be read as the model's input `(1, C, H, W)`.

    Raises:
        UnilensError: none can be read.
    """
    reason = ""
    for item in items:
        try:
            inputs = loaded.classifier.preprocess(item.load())[None]
            return inputs.to(loaded.classifier.mean)
        except UnilensError as error:
            reason = str(error)
    raise UnilensError(f"expected photographs that can be read, got none: {reason}")


def unfit(loaded: LoadedModel, names: Sequence[str], inputs: Tensor) -> dict[str, str]:
    """Return why methods do not fit a model and its inputs `(1, C, H, W)`, by name."""
    reasons = {}
    for name in names:
        explainer = loaded.explainers[name]
        try:
            if isinstance(explainer, UnilensError):
                raise explainer
            explainer.check(loaded.evaluator, inputs)
        except UnilensError as error:
            reasons[name] = str(error)
    return reasons


def usual_seconds(
    loaded: LoadedModel, names: Sequence[str], metrics: Mapping[str, Metric], inputs: Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of methods for one photograph with its metrics, and for the map alone.

    The passes that all maps of a photograph share are counted with the first control.
    """
    forward, both = seconds_per_pass(loaded.evaluator, inputs)
    curves = sum(metrics[name].passes.forward for name in REGION.metrics)
    subsets = sum(metrics[name].passes.forward for name in RANKING.metrics)
    maps = {}
    for name in names:
        explainer = loaded.explainers[name]
        assert not isinstance(explainer, UnilensError)
        maps[name] = seconds_of(explainer.passes, forward, both)
    usual = {name: seconds + curves * forward for name, seconds in maps.items()}
    if CONTROLS[0] in usual:
        usual[CONTROLS[0]] += subsets * forward
    return usual, maps
