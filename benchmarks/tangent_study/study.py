"""How much of each method's maps lies in the tangent space: all baselines, gradient methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from unilens._engine.evaluator import Evaluator
from unilens._validation.settings import check_count
from unilens.attribution import Attribution
from unilens.benchmark.report.statistics import Family, Pair, Summary, analyse
from unilens.errors import require
from unilens.explainer import Method
from unilens.manifold import LocalPCA
from unilens.manifold.tangent import TangentSpace, spaces_at
from unilens.methods import methods
from unilens.specs import Spec, read_specs

from .fitting import FittedSet

ALIGNED = "ig:baseline=tangent_aligned,iterations=60,learning_rate=0.05"
METHODS = (
    ALIGNED,
    "ig:baseline=black",
    "ig:baseline=uniform_noise",
    "ig:baseline=gaussian_noise",
    "ig:baseline=blur",
    "ig:baseline=max_distance",
    "ig:baseline=white",
    "ig:baseline=grey",
    "ig:baseline=image_mean",
    "ig:baseline=dataset_sample",
    "ig:baseline=max_entropy",
    "ig:baseline=adversarial",
    "uni_blur",
    "uni_paper",
    "gradient",
    "input_x_gradient",
    "smoothgrad",
    "random",
)
"""The paper's five base-points and three gradient methods, and all other baselines."""
BATCH = 25
"""Images that are explained together."""
_REFERENCES = 200
MEASURES = ("alignment", "local_alignment", "distance", "score_change")


@dataclass(frozen=True)
class Scores:
    """The measurements of a study.

    Attributes:
        methods: by their text.
        names: of the images.
        values: `(images, methods)` by measure: `alignment`, mu under the fitted manifold;
            `local_alignment`, mu under local PCA of the training images, which no method
            optimises; `distance`, l2 of the baseline from the image; `score_change`, f(x) - f(x').
        random: the level of a random map, by manifold.
        seconds: per image, by method.
        summaries: of `alignment`.
        pairs: its paired comparisons.
        maps: of the first images, by method.
        images: those first images.
        baselines: of `ig:baseline=tangent_aligned` at them, or None.
    """

    methods: tuple[str, ...]
    names: list[str]
    values: Mapping[str, numpy.ndarray[Any, Any]]
    random: Mapping[str, float]
    seconds: Mapping[str, float]
    summaries: list[Summary]
    pairs: list[Pair]
    maps: Mapping[str, Tensor]
    images: Tensor
    baselines: Tensor | None


def score(
    fitted: FittedSet,
    *,
    texts: Sequence[str] = METHODS,
    limit: int = 100,
    n_steps: int = 15,
    seed: int = 0,
    pictured: int = 6,
    on_batch: Callable[[str], object] = lambda _: None,
) -> Scores:
    """Explain held-out images by all methods, and measure how tangential the maps are.

    Args:
        fitted: manifold, classifier and images.
        texts: methods with their settings, as on the command line.
        limit: of the held-out images.
        n_steps: of all path methods.
        seed: of everything random.
        pictured: images whose maps are kept.
        on_batch: called with the method after some images, to show progress.
    """
    check_count("limit", limit)
    require(len(set(texts)) == len(texts), f"expected each method once, got {', '.join(texts)}")
    explainers = {
        text: _explainer(spec, fitted, n_steps)
        for text, spec in read_specs(methods, list(texts)).items()
    }
    images = fitted.split.held_out.values[:limit]
    evaluator = Evaluator(fitted.classifier)
    spaces = {
        "alignment": spaces_at(fitted.manifold, images),
        "local_alignment": spaces_at(_local(fitted), images),
    }
    found: dict[str, dict[str, Tensor]] = {}
    seconds, maps, baselines = {}, {}, None
    for text, explainer in explainers.items():
        began = time.perf_counter()
        parts = []
        for batch in images.split(BATCH):
            parts.append(explainer(evaluator, batch, seed=seed))
            on_batch(text)
        seconds[text] = (time.perf_counter() - began) / len(images)
        found[text] = _measured(parts, images, spaces)
        maps[text] = torch.cat([part.values for part in parts])[:pictured]
        if text.startswith(ALIGNED.split(",")[0]):
            baselines = torch.cat([_baseline(part) for part in parts])[:pictured]
    values = {
        name: torch.stack([found[text][name] for text in texts], dim=1).numpy() for name in MEASURES
    }
    no_counts = ((0,) * len(texts),) * 3
    family = Family("", 0, "", "alignment", tuple(texts), values["alignment"], *no_counts)
    summaries, pairs = analyse(family, seed)
    return Scores(
        methods=tuple(texts),
        names=fitted.split.held_out.names[:limit],
        values=values,
        random={name: float(space.random_level.mean()) for name, space in spaces.items()},
        seconds=seconds,
        summaries=summaries,
        pairs=pairs,
        maps=maps,
        images=images[:pictured],
        baselines=baselines,
    )


def _explainer(spec: Spec, fitted: FittedSet, n_steps: int) -> Method:
    """Build a method, with the fitted manifold and training images where it takes them."""
    given = dict(spec.settings)
    valid = methods[spec.name].settings_with(given)
    if "n_steps" in valid:
        given.setdefault("n_steps", n_steps)
    if "manifold" in valid:
        given.setdefault("manifold", str(fitted.path))
    if "references" in valid:
        given.setdefault("references", fitted.split.train.values[:_REFERENCES])
    return methods[spec.name](**given)


def _local(fitted: FittedSet) -> LocalPCA:
    """Return local PCA of the training images, which uses no network."""
    references, config = fitted.split.train.values, fitted.about["config"]
    neighbours = min(max(config["neighbours"], 3 * config["dimension"]), len(references))
    require(
        neighbours > config["dimension"],
        f"expected more training images than dimensions, {config['dimension']}, got {neighbours}",
    )
    return LocalPCA(references, config["dimension"], neighbours)


def _measured(
    parts: Sequence[Attribution], images: Tensor, spaces: Mapping[str, TangentSpace]
) -> dict[str, Tensor]:
    values = torch.cat([part.values for part in parts])
    measured = {name: space.content(values) for name, space in spaces.items()}
    if parts[0].baseline is None:
        nothing = torch.full((len(images),), torch.nan, dtype=torch.float64)
        return measured | {"distance": nothing, "score_change": nothing}
    baseline = torch.cat([_baseline(part) for part in parts])
    changes = [part.score.double() - part.baseline_score.double() for part in parts]  # type: ignore[union-attr]
    return measured | {
        "distance": (images - baseline).double().flatten(1).norm(dim=1),
        "score_change": torch.cat(changes),
    }


def _baseline(part: Attribution) -> Tensor:
    assert part.baseline is not None
    return part.baseline
