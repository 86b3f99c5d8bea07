"""The diagnostics of a path method that cost no further passes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .._ops.correlation import spearman
from .._ops.precision import l2_norm
from .measures import (
    confidence_change,
    confidence_fallback,
    flat_fraction,
    monotonicity,
    riemann_error_bound,
    unsigned,
)
from .trace import Trace

_MOST_POSITIONS = 10_000
"""That `sum_stability` compares."""


def free_diagnostics(
    trace: Trace,
    distance: Tensor,
    n_steps: int,
    record: Mapping[str, Tensor],
    *,
    has_probabilities: bool,
) -> dict[str, Tensor]:
    """Return the diagnostics of a path and of the search for its baseline, each `(B,)`.

    Args:
        trace: of the path.
        distance: `(B,)`, from the baseline to the input; see `proximity`.
        n_steps: nodes on the path.
        record: of the search for the baseline, with its `matching_loss` `(B, T)` or `(B, R, T)`,
            if it has one.
        has_probabilities: whether the model's outputs are probabilities, or become such.
    """
    measured = {"confidence_change": confidence_change(trace)} if has_probabilities else {}
    measured |= {
        "proximity": distance,
        "monotonicity": monotonicity(trace),
        "confidence_fallback": confidence_fallback(trace),
        "flat_fraction": flat_fraction(trace),
        "riemann_error_bound": riemann_error_bound(trace, distance, n_steps),
    }
    losses = record.get("matching_loss", distance)
    if losses.ndim > 1 and losses.shape[-1]:
        fall = losses[..., 0] - losses[..., -1]
        measured["matching_loss_fall"] = fall.view(len(fall), -1).mean(1)
    return measured


def nested_diagnostics(values: Tensor, coarse: Tensor) -> dict[str, Tensor]:
    """Return how far a map `(B, *S)` differs from that by every third node of its path.

    Returns:
        `sum_error` `(B,)`, an estimate of the map's l2 error by the number of steps, as a share of
        the map's norm: half of the difference, as if the error were proportional to 1 / n (for
        smooth models it falls faster; on a curved path the error of its chords is not in it); and
        `sum_stability` `(B,)`, the Spearman correlation of the two maps' absolute values, summed
        over channels for images, at up to 10,000 positions.
    """
    return {
        "sum_error": l2_norm(values - coarse) / l2_norm(values) / 2,
        "sum_stability": spearman(_some(values), _some(coarse)),
    }


def _some(maps: Tensor) -> Tensor:
    """Return the unsigned values at evenly spaced positions `(B, n)`: ranking all takes longer."""
    flat = unsigned(maps).flatten(1)
    return flat[:, :: -(-flat.shape[1] // _MOST_POSITIONS)]
