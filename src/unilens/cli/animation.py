"""`unilens explain --gif`: the photograph dissolves into its baseline and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .._ops.files import write_whole
from ..attribution import Attribution
from ..errors import UnilensError
from ..explainer import Method
from ..methods.path_diagnostics import path_steps
from ..output.animation import dissolve
from ..path_attribution import PathAttribution
from .photographs import Setup

SUFFIX = ".gif"


def method_with_path(explainers: Mapping[str, Method]) -> str:
    """Return the name of the first method that has a path from one baseline."""
    for name, explainer in explainers.items():
        if isinstance(explainer, PathAttribution) and explainer.baseline.count == 1:
            return name
    raise UnilensError(
        "expected a method with a path from one baseline for --gif, got "
        f"{', '.join(explainers)}; add --method uni_blur or --method ig"
    )


def write_animation(
    path: Path, setup: Setup, name: str, pixels: Tensor, attribution: Attribution
) -> None:
    """Write `<path>.gif`, complete or not at all, from a method's map of one photograph."""
    explainer = setup.explainers[name]
    assert isinstance(explainer, PathAttribution)
    assert attribution.baseline is not None
    steps = path_steps(explainer, setup.evaluator, pixels, attribution)
    points = [attribution.baseline[0], *(point[0] for point in steps.points), pixels[0]]
    label = setup.classifier.label(int(attribution.target[0]))
    data = dissolve(pixels[0], attribution, points, label=label)
    write_whole(path, SUFFIX, lambda file: Path(file).write_bytes(data))
