"""What an audit measures on one photograph: maps, shares of regions, covered regions, trust."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..._engine.evaluator import Evaluator
from ..._engine.output_detection import output_spec
from ..._ops.files import write_whole
from ..._ops.tensor_files import read_tensors
from ...attribution import Attribution
from ...errors import NotApplicableError
from ...explainer import Method
from ...methods import methods
from ...metrics import MetricCache, metrics
from ...metrics.agreement import agreement
from ...models import PixelClassifier
from ...outputs import OutputSpec
from ...specs import build_method, read_specs
from .regions import Region

EXPLAINING = ("uni", "ig:baseline=blur,n_steps=20", "gradcam")
"""Methods whose maps make the consensus."""
CONTROLS = ("edges", "random")
"""Maps that do not depend on the model."""
_REMOVED_WITH = "blur"

Facts = dict[str, Any]
_FACTS = {
    *("predicted", "confidence", "shares", "covered"),
    *("overlap", "control_overlap", "verdicts", "trust"),
}
"""What is measured on a photograph; the names of its facts."""


@dataclass(frozen=True)
class Auditor:
    """Explains and measures photographs with one model.

    Attributes:
        classifier: the model.
        evaluator: runs it.
        explainers: methods and controls by name, without those that do not apply.
        left_out: why methods do not apply, by name.
        seed: of everything random.
    """

    classifier: PixelClassifier
    evaluator: Evaluator
    explainers: Mapping[str, Method]
    left_out: Mapping[str, str]
    seed: int

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of the model's name, weights and preprocessing."""
        digest = hashlib.sha256(f"{self.classifier.name} {self.classifier.preprocessing}".encode())
        for value in self.classifier.state_dict().values():
            digest.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def of(cls, classifier: PixelClassifier, view: Tensor, seed: int) -> Auditor:
        """Return an auditor with the methods that apply to the model at a view `(C, H, W)`."""
        evaluator = Evaluator(classifier)
        explainers, left_out = {}, {}
        for name, spec in read_specs(methods, [*EXPLAINING, *CONTROLS]).items():
            method = build_method(spec, classifier)
            try:
                method.check(evaluator, view[None])
                explainers[name] = method
            except NotApplicableError as error:
                left_out[name] = str(error)
        return cls(classifier, evaluator, explainers, left_out, seed)

    def measure(
        self, view: Tensor, regions: Sequence[Region], *, test_trust: bool
    ) -> tuple[Facts, Tensor]:
        """Return what is measured at a view `(C, H, W)` as plain data, and the consensus `(H, W)`.

        The consensus is the share of methods that count a pixel among their strongest tenth.
        """
        inputs = view[None].to(self.evaluator.device)
        outputs = self.evaluator(inputs)
        spec = output_spec(self.evaluator, inputs, outputs)
        predicted = spec.predicted(outputs)
        target = predicted if outputs.shape[-1] > 1 else torch.zeros_like(predicted)
        cache = MetricCache(self.evaluator, inputs)
        attributions, trust = {}, {}
        for name, explainer in self.explainers.items():
            attribution = explainer(self.evaluator, inputs, target, seed=self.seed)
            attributions[name] = attribution
            if test_trust:
                trust[name] = self._faithfulness(inputs, attribution, cache)
        compared = agreement(attributions, controls=CONTROLS)
        facts = {
            "predicted": int(predicted),
            "confidence": float(spec.probabilities(outputs)[0, target]),
            "shares": _shares(regions, attributions),
            "covered": self._covered(inputs, outputs, target, spec, regions),
            "overlap": _number(compared.overlap),
            "control_overlap": _number(compared.control_overlap),
            "verdicts": {name: known.verdicts[0] for name, known in attributions.items()},
            "trust": trust,
        }
        return facts, compared.consensus[0]

    def _faithfulness(self, inputs: Tensor, attribution: Any, cache: MetricCache) -> float | None:
        """Return the insertion minus the deletion AUC of a map without signs; None if undefined."""
        insertion, deletion = (
            metrics[name](imputer=_REMOVED_WITH, reduction="abs")(
                self.evaluator, inputs, attribution, seed=self.seed, cache=cache
            ).values
            for name in ("insertion_auc", "deletion_auc")
        )
        return _number(insertion - deletion)

    def _covered(
        self,
        inputs: Tensor,
        outputs: Tensor,
        target: Tensor,
        spec: OutputSpec,
        regions: Sequence[Region],
    ) -> dict[str, dict[str, Any]]:
        """Return how the confidence falls when a region, or a mirror image of it, is covered."""
        compared = [region for region in regions if len(region.mirrored)]
        if not compared:
            return {}
        masks = torch.cat([torch.cat([r.mask[None], r.mirrored]) for r in compared])
        with torch.no_grad():
            filled = covered_views(inputs[0], masks.to(inputs.device))
            outputs_covered = self.evaluator.outputs(filled[:, None])[:, 0]
        before = spec.probabilities(outputs)[0, target]
        falls = (before - spec.probabilities(outputs_covered)[:, target[0]]).tolist()
        changed = (spec.predicted(outputs_covered) != spec.predicted(outputs)).tolist()
        rows = iter(zip(falls, changed, strict=True))
        return {region.name: _falls_of(rows, len(region.mirrored)) for region in compared}


def covered_views(view: Tensor, masks: Tensor) -> Tensor:
    """Return a view `(C, H, W)` with each of the masks `(n, H, W)` covered, `(n, C, H, W)`.

    Covered pixels take the colours around them: the view without them is halved until it has no
    holes, and doubled again, each size filling the holes of the next.
    """
    weights = (~masks[:, None]).to(view)
    sizes = [(view * weights, weights)]
    while min(sizes[-1][0].shape[2:]) > 1:
        halves = (functional.avg_pool2d(part, 2, ceil_mode=True) for part in sizes[-1])
        sizes.append((next(halves), next(halves)))
    filled = sizes[-1][0] / sizes[-1][1].clamp(min=1e-6)
    for values, known in reversed(sizes[:-1]):
        larger = functional.interpolate(filled, size=values.shape[2:], mode="bilinear")
        filled = values + (1 - known) * larger
    return filled


def _falls_of(rows: Iterator[tuple[float, bool]], mirrored: int) -> dict[str, Any]:
    fall, changed = next(rows)
    others = [other for other, _ in itertools.islice(rows, mirrored)]
    return {"fall": fall, "changed": changed, "elsewhere": sum(others) / len(others)}


def _shares(
    regions: Sequence[Region], attributions: Mapping[str, Attribution]
) -> dict[str, dict[str, float]]:
    """Return the regions' shares of the maps, of the edges, of mirror images and of the area.

    Maps that are zero everywhere do not count; without any other there are no shares.
    """
    strengths = {name: known.values[0].abs().sum(0).cpu() for name, known in attributions.items()}
    shares = {name: own / own.sum() for name, own in strengths.items() if own.sum() > 0}
    known = [shares[name] for name in shares if name not in CONTROLS]
    if not known or "edges" not in shares:
        return {}
    explained = torch.stack(known).mean(0)
    found = {}
    for region in regions:
        found[region.name] = {
            "map": float(explained[region.mask].sum()),
            "area": float(region.mask.float().mean()),
            "edges": float(shares["edges"][region.mask].sum()),
        }
        if len(region.mirrored):
            density = torch.stack([explained[mask].mean() for mask in region.mirrored]).mean()
            found[region.name]["elsewhere"] = float(density * region.mask.sum())
    return found


def _number(values: Tensor) -> float | None:
    value = float(values[0])
    return value if math.isfinite(value) else None


def keep(path: Path, facts: Facts, consensus: Tensor) -> None:
    """Write what was measured on a photograph to a file, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {"consensus": consensus.cpu().half().contiguous()}
    header = {"facts": json.dumps(facts)}
    write_whole(path.with_suffix(""), path.suffix, lambda name: save_file(tensors, name, header))


def read_kept(path: Path) -> tuple[Facts, Tensor] | None:
    """Return what a file of `keep` holds; None where there is none, or a broken one."""
    try:
        header, tensors = read_tensors(path)
        facts, consensus = json.loads(header["facts"]), tensors["consensus"]
    except (OSError, KeyError, ValueError, RecursionError):
        return None
    whole = isinstance(facts, dict) and set(facts) == _FACTS and consensus.ndim == 2
    return (facts, consensus.float()) if whole else None
