"""What the baseline is like: how far it looks from the input, how curved the score is there."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from ..._engine.evaluator import PassCount
from ..._engine.score_gradient import ScoreGradient
from ..._ops.luminance import check_unit_pictures
from ..._ops.precision import to_float64
from ..._ops.random import standard_normal
from ..._validation.settings import Count, one_of
from ..._validation.weights import weights_only
from ...diagnostics import measures as diagnostics
from ...errors import NotApplicableError, UnilensError, first_line
from ...scores import AnyScore
from ...scores import resolve as resolve_score
from ..base import Metric
from ..context import EvalContext
from ..measurement import Measurement
from ..registry import metrics

_SOLVERS = {"lanczos": diagnostics.lanczos_curvature, "power": diagnostics.top_curvature}
_NETWORKS = ("alex", "vgg", "squeeze")


@dataclass(frozen=True)
class TopEigenvalue(Metric):
    """Say how curved the score is at the baseline: the largest magnitude of an eigenvalue.

    |lambda|_max of the Hessian of f at x', in score per squared unit of the inputs. The breakdown's
    `baseline` and `input` have the eigenvalue itself, with its sign, at both ends. Networks of ReLU
    alone are flat between their kinks: what is seen there is the softmax. 0 where f is linear.

    Args:
        score: f, by name or as a function of logits and target.
        iterations: Hessian-vector products at each end. Both solvers approach the value from below.
        solver: "lanczos", or "power" for power iteration, which keeps a single vector in memory.

    References:
        Choi et al. 2025, arXiv 2410.08069: a path of low curvature.
    """

    family = "path"
    summary = "curvature of the score at the baseline: the top Hessian eigenvalue's magnitude"
    reference = "Choi et al. 2025, arXiv 2410.08069"
    deterministic = False
    traits = ("rounding",)
    higher_is_better = False
    bounds = (0, None)
    needs = ("path",)
    undefined_where = "the score is flat at the baseline and at the input"

    score: AnyScore = "probability"
    iterations: Count = 10
    solver: Annotated[str, one_of(_SOLVERS)] = "lanczos"

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input; a product counts as two of each."""
        return PassCount(1 + 4 * self.iterations, 4 * self.iterations)

    def _measure(self, context: EvalContext) -> Measurement:
        ends = torch.stack([_baseline(context), context.inputs])
        rows = range(len(context.inputs))
        found = torch.cat(
            [self._value_of_map(context, ends[:, row : row + 1], row) for row in rows], 1
        )
        still = (found == 0).all(0) & (context.values == 0).flatten(1).all(1)
        value = found[0].abs().masked_fill(still, torch.nan)
        return Measurement(value, {"baseline": found[0], "input": found[1]})

    def _value_of_map(self, context: EvalContext, ends: Tensor, row: int) -> Tensor:
        """Return the eigenvalues `(2, 1)` of one input; alone, so that no sum has company."""
        gradient = ScoreGradient(
            context.evaluator,
            resolve_score(self.score, context.evaluator),
            context.target[row : row + 1],
        )
        start = standard_normal(ends.shape[2:], context.generators()[row])
        product = functools.partial(gradient.hessian_vector, ends)
        return _SOLVERS[self.solver](product, start.to(ends).expand_as(ends), self.iterations)


@dataclass(frozen=True)
class Lpips(Metric):
    """Say how different the baseline looks from the input: the LPIPS distance.

    d(x, x') of Zhang et al., by the package `lpips`, which is not installed with unilens. Values of
    the baseline outside [0, 1] are handed over as they are.

    Args:
        network: whose features are compared: "alex" (the authors' advice), "vgg" or "squeeze".

    References:
        Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric",
        arXiv 1801.03924; Choi et al. 2025, arXiv 2410.08069, table 7.
    """

    family = "path"
    summary = "perceptual distance of the baseline from the input (the package lpips)"
    reference = "Zhang et al. 2018, arXiv 1801.03924"
    higher_is_better = False
    bounds = (0, None)
    needs = ("path",)

    network: Annotated[str, one_of(_NETWORKS)] = "alex"

    def _measure(self, context: EvalContext) -> Measurement:
        inputs, baseline = context.inputs, _baseline(context)
        remedy = "LPIPS compares pictures in colour; leave this metric out"
        check_unit_pictures(inputs, remedy, channels=(3,))
        distance = _distance(self.network, str(inputs.device))
        pairs = zip(inputs.float().split(1), baseline.float().split(1), strict=True)
        found = [distance(first, second, normalize=True).view(1) for first, second in pairs]
        return Measurement(to_float64(torch.cat(found)))


@functools.lru_cache(maxsize=3)
def _distance(network: str, device: str) -> Any:
    """Return the LPIPS network on a device."""
    try:
        package = importlib.import_module("lpips")
    except ImportError:
        raise NotApplicableError(
            "the metric lpips needs the package lpips, which is not installed; pip install lpips"
        ) from None
    try:
        with weights_only():
            return package.LPIPS(net=network, verbose=False).to(device).eval()
    except (OSError, RuntimeError) as error:
        raise UnilensError(
            f"lpips could not load the weights of {network!r}: {first_line(error)}; connect to the "
            "network once, or put them into torch.hub's cache"
        ) from error


def _baseline(context: EvalContext) -> Tensor:
    assert context.attribution is not None
    assert context.attribution.baseline is not None
    return context.attribution.baseline.detach().to(context.inputs)


metrics.add_metric("top_eigenvalue", TopEigenvalue)
metrics.add_metric("lpips", Lpips)
